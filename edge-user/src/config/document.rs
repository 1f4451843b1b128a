//! The configuration as it was written, for whoever asks the running daemon: without what could be a secret.
//!
//! Keys lie in files and are named here by their paths. What can stand in the file itself and be one is left out by its
//! place: values of fields that are set on requests and answers, bodies, and user names and queries of URLs.

use std::sync::Arc;

use serde_json::{Map, Number, Value};
use toml::de::{DeTable, DeValue};

/// What stands for something that is not shown.
pub const MASK: &str = "***";

/// Tables whose values, at any depth, may be secrets; their keys are not.
const MASKED_TABLES: [&str; 4] = ["request_headers", "response_headers", "headers", "query"];
/// Keys whose values may be.
const MASKED_KEYS: [&str; 2] = ["body", "match_value"];

/// A configuration as it was written. How it was written makes no difference to what it means, so any two are equal.
#[derive(Debug, Clone, Default)]
pub struct Document(Arc<Value>);

impl PartialEq for Document {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Document {
    pub(super) fn of(table: &DeTable<'_>) -> Self {
        Self(Arc::new(object(table, false)))
    }

    /// It as JSON: an object with a member for each table.
    pub fn value(&self) -> &Value {
        &self.0
    }
}

fn object(table: &DeTable<'_>, is_masked: bool) -> Value {
    let members = table.iter().map(|(key, value)| {
        let name = key.get_ref().as_ref();
        let hides = is_masked || MASKED_TABLES.contains(&name) || MASKED_KEYS.contains(&name);
        (name.to_owned(), shown(value.get_ref(), hides))
    });
    Value::Object(members.collect::<Map<_, _>>())
}

fn shown(value: &DeValue<'_>, is_masked: bool) -> Value {
    match value {
        DeValue::Table(table) => object(table, is_masked),
        DeValue::Array(values) => values
            .iter()
            .map(|value| shown(value.get_ref(), is_masked))
            .collect(),
        _ if is_masked => MASK.into(),
        DeValue::String(text) => url_without_secrets(text).into(),
        DeValue::Boolean(value) => (*value).into(),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or_else(|_| integer.as_str().into(), |number| Value::Number(number.into())),
        DeValue::Float(float) => float
            .as_str()
            .replace('_', "")
            .parse()
            .ok()
            .and_then(Number::from_f64)
            .map_or_else(|| float.as_str().into(), Value::Number),
        DeValue::Datetime(time) => time.to_string().into(),
    }
}

/// A URL without user information and query; any other text as it is.
fn url_without_secrets(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let (place, query) = match rest.split_once('?') {
        Some((place, _)) => (place, format!("?{MASK}")),
        None => (rest, String::new()),
    };
    let (authority, path) = place.find('/').map_or((place, ""), |slash| place.split_at(slash));
    let host = match authority.rsplit_once('@') {
        Some((_, host)) => format!("{MASK}@{host}"),
        None => authority.to_owned(),
    };
    format!("{scheme}://{host}{path}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_not_shown() {
        let text = r#"
            [[route]]
            name = "a"
            request_headers.set = { authorization = "Basic c2VjcmV0", x-key = "c2VjcmV0" }
            headers = [{ name = "x-api-key", value = "c2VjcmV0" }]
            respond = { status = 200, body = "c2VjcmV0" }
            [[provider]]
            jwks_url = "https://user:c2VjcmV0@keys.example/k?key=c2VjcmV0"
            weight = 1.5
            list = [1, true]
        "#;
        let document = Document::of(&DeTable::parse(text).unwrap().into_inner());
        let shown = document.value().to_string();
        assert!(!shown.contains("c2VjcmV0"), "{shown}");
        let value = document.value();
        assert_eq!(value["provider"][0]["jwks_url"], "https://***@keys.example/k?***");
        assert_eq!(value["provider"][0]["weight"], 1.5);
        assert_eq!(value["provider"][0]["list"], serde_json::json!([1, true]));
        assert_eq!(value["route"][0]["request_headers"]["set"]["x-key"], MASK);
        assert_eq!(value["route"][0]["name"], "a");
    }
}
