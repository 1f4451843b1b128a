//! The schema of the configuration, as an editor uses it: what is right passes, what is misspelt does not.
#![expect(
    clippy::expect_used,
    reason = "a step of a test that fails has to stop that test"
)]

use std::{fs, path::Path};

use edge_user::config;
use serde_json::{Value, json};

fn as_json(text: &str) -> Value {
    let table: toml::Table = text.parse().expect("TOML");
    serde_json::to_value(table).expect("JSON")
}

#[test]
fn every_example_passes() {
    let validator = jsonschema::validator_for(&config::schema()).expect("a schema");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let deployed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/debian/edge.toml");
    let examples = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path());
    let mut seen = 0;
    for path in examples
        .chain([deployed])
        .filter(|path| path.extension().is_some_and(|end| end == "toml"))
    {
        let value = as_json(&fs::read_to_string(&path).expect("a file"));
        let errors: Vec<String> = validator
            .iter_errors(&value)
            .map(|error| format!("{error} at {}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{}: {errors:#?}", path.display());
        seen += 1;
    }
    assert!(seen > 5, "{seen}");
}

#[test]
fn what_an_editor_can_see_is_marked() {
    let validator = jsonschema::validator_for(&config::schema()).expect("a schema");
    for text in [
        "[shield]\ninterface = [\"eth0\"]",
        "[shield]\nmode = \"natve\"",
        "[shield]\ninterfaces = \"eth0\"",
        "[shield]\nlimits.source_packets = { per_second = \"many\", burst = 1 }",
        "[shield]\nlimits.source_packets = \"of\"",
        "[listener]\nname = \"web\"",
        "[[listener]]\nname = 7",
        "[[route]]\nauth = \"maybe\"",
        "[[upstream]]\nendpoints = [{ adress = \"10.0.0.7:3000\" }]",
        "[[provider]]\nalgorithms = [\"none\"]",
        "[history]\nmax_bytes = -1",
        "[histroy]",
    ] {
        assert!(!validator.is_valid(&as_json(text)), "{text}");
    }
    assert!(validator.is_valid(&json!({})));
}
