//! `[[limit]]` as written.

use std::time::Duration;

use serde_json::{Value, json};
use serde_spanned::Spanned;
use toml::de::DeValue;

use crate::config::{
    claim::ClaimPath,
    problem::Findings,
    section::{KeyPath, section},
    value::{FromToml, Item, wrong_type},
};

section! {
    /// One limit.
    RawLimit as "limit" {
        name: String,
        routes: Vec<Item<String>>,
        by: Vec<Item<RawLimitKey>>,
        requests: u64,
        per: Duration,
        burst: u64,
        concurrent: u64,
        keys: u64,
        observe: bool,
        tell: bool,
    }
}

/// One entry of `limit.by`: a word, or the path of a claim.
#[derive(Debug, Clone)]
pub(in crate::config) enum RawLimitKey {
    Word(String),
    Claim(ClaimPath),
}

impl FromToml for RawLimitKey {
    const EXPECTED: &'static str =
        "\"address\", \"route\", \"header:NAME\", \"claim:NAME\" or the path of a claim";

    fn schema() -> Value {
        json!({ "anyOf": [String::schema(), ClaimPath::schema()], "description": Self::EXPECTED })
    }

    fn from_toml(value: Spanned<DeValue<'_>>, path: &KeyPath<'_>, findings: &mut Findings) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(word) => Some(Self::Word(word.clone().into_owned())),
            DeValue::Array(_) => ClaimPath::from_toml(value, path, findings).map(Self::Claim),
            other => {
                findings.push(wrong_type::<Self>(other, path.place(value.span())));
                None
            }
        }
    }
}
