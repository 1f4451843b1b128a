//! The description, the table of rows and the command line's calls agree.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::admin::{
    OPENAPI,
    client::Call,
    router::{self, ENDPOINTS, Scope, Serves},
};

fn description() -> Value {
    serde_json::from_str(OPENAPI).expect("JSON")
}

/// Methods and paths of the description.
fn described(description: &Value) -> BTreeSet<(String, String)> {
    let paths = description["paths"].as_object().expect("paths");
    paths
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().expect("methods");
            methods.keys().map(|method| (method.to_uppercase(), path.clone()))
        })
        .collect()
}

#[test]
fn what_is_served_is_described_and_nothing_else_is() {
    let served = ENDPOINTS
        .iter()
        .map(|endpoint| (endpoint.method.to_string(), endpoint.path.to_owned()))
        .collect::<BTreeSet<_>>();
    assert_eq!(described(&description()), served);
}

#[test]
fn every_reference_of_the_description_leads_somewhere_and_nothing_is_left_over() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => members.iter().for_each(|(key, value)| match value.as_str() {
                Some(target) if key == "$ref" => {
                    found.insert(target.to_owned());
                }
                _ => references(value, found),
            }),
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let description = description();
    let mut found = BTreeSet::new();
    references(&description, &mut found);
    let schemas = description["components"]["schemas"].as_object().expect("schemas");
    let there: BTreeSet<_> = schemas
        .keys()
        .map(|name| format!("#/components/schemas/{name}"))
        .collect();
    assert_eq!(found, there);
}

#[test]
fn the_command_line_calls_what_is_described() {
    let (description, all) = (
        description(),
        Serves {
            health: true,
            metrics: true,
            all: true,
        },
    );
    for call in Call::EACH {
        let (method, path) = call.target();
        assert!(
            described(&description).contains(&(method.to_string(), path.to_owned())),
            "{call:?}"
        );
        assert!(router::find(all, &method, path).is_ok());
        let operation = &description["paths"][path][method.as_str().to_lowercase()];
        assert_eq!(
            operation["requestBody"].is_object(),
            call.body().is_some(),
            "{call:?}"
        );
        if let Some(body) = call.body() {
            let name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str();
            let schema = description.pointer(name.expect("a schema").trim_start_matches('#'));
            let known = schema.expect("it is there")["properties"]
                .as_object()
                .expect("members");
            for member in body.as_object().expect("an object").keys() {
                assert!(known.contains_key(member), "{call:?}: {member}");
            }
        }
    }
}

#[test]
fn only_health_and_metrics_are_for_everybody() {
    for endpoint in ENDPOINTS {
        let is_open = matches!(endpoint.path, "/livez" | "/readyz" | "/metrics");
        assert_eq!(endpoint.scope != Scope::Operator, is_open, "{}", endpoint.path);
    }
}
