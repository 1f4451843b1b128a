//! The configuration as a JSON Schema, for editors: made of the types that read it, described by the reference.
//!
//! It tells keys, types and words. Bounds, and what must agree with what, `breakwater check` tells.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::{raw::RawConfig, value::FromToml as _};

/// The reference: a heading a section, a row a key.
const REFERENCE: &str = include_str!("../../../docs/configuration.md");

/// The whole of it (draft 2020-12).
pub fn schema() -> Value {
    let mut schema = RawConfig::schema();
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("Breakwater configuration");
    schema
}

/// A table of these keys and no others.
pub(super) fn table(name: &str, properties: Vec<(&'static str, Value)>) -> Value {
    let described = described(name);
    let described = |(key, mut schema): (&'static str, Value)| {
        if let Some(text) = described.get(key) {
            schema["description"] = json!(text);
        }
        (key.to_owned(), schema)
    };
    let properties: Map<String, Value> = properties.into_iter().map(described).collect();
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

/// What the reference says of each key of a section: its meaning, and its default.
fn described(section: &str) -> HashMap<&'static str, String> {
    let is_heading = |line: &str| {
        let title = line
            .strip_prefix("## ")
            .map(|title| title.trim_matches(['`', '[', ']']));
        title.is_some_and(|title| title.eq_ignore_ascii_case(section))
    };
    let rows = REFERENCE
        .lines()
        .skip_while(|line| !is_heading(line))
        .skip(1)
        .take_while(|line| !line.starts_with("## "));
    let read = |row: &'static str| -> Vec<(&'static str, String)> {
        let cells: Vec<&str> = row.splitn(5, '|').map(str::trim).collect();
        let [_, keys, _, default, meaning] = cells.as_slice() else {
            return Vec::new();
        };
        let meaning = plain(meaning.trim_end_matches('|').trim());
        let text = match plain(default).as_str() {
            "" => meaning,
            default => format!("{meaning} Default: {default}."),
        };
        // Keys that stand for each other share a row.
        let keys = keys.split('`').skip(1).step_by(2);
        keys.map(|key| (key, text.clone())).collect()
    };
    rows.filter(|line| line.starts_with("| "))
        .flat_map(read)
        .collect()
}

/// Markdown without its links and ticks.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        out.push_str(before);
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    out.push_str(rest);
    out.replace(['`', '['], "").replace("&#124;", "|")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn property<'s>(schema: &'s Value, path: &[&str]) -> &'s Value {
        path.iter().fold(schema, |schema, key| {
            let items = &schema["items"];
            let table = if items.is_object() { items } else { schema };
            &table["properties"][*key]
        })
    }

    #[test]
    fn every_key_is_in_it_with_its_words_and_what_the_reference_says() {
        let schema = schema();
        assert_eq!(
            property(&schema, &["shield", "mode"])["enum"],
            json!(["auto", "native", "generic"])
        );
        assert_eq!(
            property(&schema, &["route", "auth"])["enum"],
            json!(["none", "optional", "required"])
        );
        assert_eq!(property(&schema, &["history", "max_bytes"])["type"], "integer");
        assert_eq!(property(&schema, &["listener", "tls", "nonsense"]), &Value::Null);
        let text = property(&schema, &["history", "keep"])["description"]
            .as_str()
            .expect("text");
        assert_eq!(text, "How long, 1h to 1098 days. Default: \"35days\".");
    }

    #[test]
    fn keys_of_every_section_are_described() {
        fn look(path: &str, schema: &Value, missing: &mut Vec<String>) {
            for table in [schema, &schema["items"], &schema["anyOf"][1]] {
                for (key, property) in table["properties"].as_object().into_iter().flatten() {
                    let path = format!("{path}.{key}");
                    if property["description"].as_str().is_none_or(str::is_empty) {
                        missing.push(path.clone());
                    }
                    look(&path, property, missing);
                }
            }
        }
        let mut missing = Vec::new();
        look("", &schema(), &mut missing);
        // The sections of the file have headings of their own.
        missing.retain(|path| path.matches('.').count() > 1);
        assert_eq!(missing, [""; 0]);
    }
}
