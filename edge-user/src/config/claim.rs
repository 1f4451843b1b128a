//! Claims as the configuration writes them: where one is in a token, and what it is compared with.

use serde_json::{Value, json};
use serde_spanned::Spanned;
use toml::de::DeValue;

use super::{
    ClaimValue,
    problem::{Finding, Findings},
    section::KeyPath,
    value::{FromToml, Item, wrong_type},
};

/// Where a claim is. A string is one name as it stands, dots included: names such as `https://example.org/roles`
/// are common. A list goes from the outermost object inwards.
#[derive(Debug, Clone)]
pub(super) struct ClaimPath {
    pub(super) names: Vec<String>,
    /// Whether it was written as one string.
    pub(super) is_word: bool,
}

impl FromToml for ClaimPath {
    const EXPECTED: &'static str = "the name of a claim, or a list of names from the outermost inwards";

    fn schema() -> Value {
        json!({ "anyOf": [String::schema(), Vec::<Item<String>>::schema()] })
    }

    fn from_toml(value: Spanned<DeValue<'_>>, path: &KeyPath<'_>, findings: &mut Findings) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(name) => Some(Self {
                names: vec![name.clone().into_owned()],
                is_word: true,
            }),
            DeValue::Array(array) => {
                let length = array.len();
                let names = Vec::<Item<String>>::from_toml(value, path, findings)?;
                // An element that is no name was reported; the rest is another path.
                (names.len() == length).then(|| Self {
                    names: names.into_iter().map(|item| item.value).collect(),
                    is_word: false,
                })
            }
            other => {
                findings.push(wrong_type::<Self>(other, path.place(value.span())));
                None
            }
        }
    }
}

impl FromToml for ClaimValue {
    const EXPECTED: &'static str = "a string, a whole number, true or false";

    fn schema() -> Value {
        json!({ "type": ["string", "integer", "boolean"] })
    }

    fn from_toml(value: Spanned<DeValue<'_>>, path: &KeyPath<'_>, findings: &mut Findings) -> Option<Self> {
        let at = value.span();
        let finding = match value.into_inner() {
            DeValue::String(text) => return Some(Self::Text(text.into_owned())),
            DeValue::Boolean(flag) => return Some(Self::Bool(flag)),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => return Some(Self::Integer(number)),
                Err(_) => Finding::error(path.place(at), "the number does not fit 64 bits"),
            },
            other => wrong_type::<Self>(&other, path.place(at)),
        };
        findings.push(finding);
        None
    }
}
