//! The files in `deploy/` that ask for metrics: each name and label there is one of the table, and the queries are PromQL.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use serde_json::{Value, json};

use super::{ALL, Kind};

fn deploy(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(file)
}

fn read(file: &str) -> String {
    let path = deploy(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every name of a series.
fn series() -> BTreeSet<String> {
    let suffixes = |kind| match kind {
        Kind::Histogram => &["_bucket", "_sum", "_count"][..],
        Kind::Counter | Kind::Gauge => &[""][..],
    };
    ALL.iter()
        .flat_map(|family| {
            let name = family.name();
            suffixes(family.kind)
                .iter()
                .map(move |suffix| format!("{name}{suffix}"))
        })
        .collect()
}

/// Words of a text that look like names of ours.
fn named(text: &str) -> BTreeSet<&str> {
    text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_')
        .filter(|word| word.starts_with("breakwater_") || word.starts_with("process_"))
        .collect()
}

/// Labels that a query compares or groups by.
fn labels(query: &str) -> BTreeSet<String> {
    let mut labels = BTreeSet::new();
    for part in query.split('{').skip(1) {
        let within = part.split('}').next().unwrap_or_default();
        labels.extend(within.split(',').filter_map(|matcher| {
            let name = matcher.split(['=', '!']).next()?.trim();
            (!name.is_empty() && !name.starts_with('$')).then(|| name.to_owned())
        }));
    }
    for part in query.split("by (").skip(1) {
        let within = part.split(')').next().unwrap_or_default();
        labels.extend(within.split(',').map(|name| name.trim().to_owned()));
    }
    labels
}

/// The queries of the dashboard.
fn dashboard() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => members.iter().for_each(|(key, value)| match value.as_str() {
                Some(query) if key == "expr" => found.push(query.to_owned()),
                _ => collect(value, found),
            }),
            Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    let document = serde_json::from_str(&read("grafana/breakwater.json")).expect("JSON");
    collect(&document, &mut found);
    found
}

/// The queries of the alerts: what is written as `expr`, on one line or on those that are indented below.
fn alerts() -> Vec<String> {
    let text = read("prometheus/alerts.yml");
    let mut queries: Vec<String> = Vec::new();
    let mut is_within = false;
    for line in text.lines() {
        if let Some(query) = line.trim_start().strip_prefix("expr:") {
            queries.push(query.trim().trim_start_matches('|').to_owned());
            is_within = true;
        } else if is_within && line.starts_with("          ") {
            if let Some(query) = queries.last_mut() {
                query.push_str(line);
            }
        } else {
            is_within = false;
        }
    }
    queries
}

#[test]
fn names_and_labels_are_those_of_the_daemon() {
    let series = series();
    let queries = [alerts(), dashboard()].concat();
    assert!(alerts().len() > 15 && dashboard().len() > 40, "{}", queries.len());
    for query in &queries {
        let names = named(query);
        assert!(!names.is_empty(), "{query} asks for nothing of ours");
        for name in &names {
            assert!(series.contains(*name), "{name} in {query}");
        }
        let families = ALL
            .iter()
            .filter(|family| names.iter().any(|name| name.starts_with(&family.name())));
        let known: BTreeSet<&str> = families
            .flat_map(|family| family.labels)
            .copied()
            .chain(["instance", "le", "alertname"])
            .collect();
        for label in labels(query) {
            assert!(known.contains(label.as_str()), "{label} in {query}");
        }
    }
    for text in [
        read("prometheus/alerts_test.yml"),
        include_str!("../../../../docs/metrics.md").to_owned(),
    ] {
        for name in named(&text) {
            let is_family = ALL.iter().any(|family| family.name() == name);
            assert!(is_family || series.contains(name), "{name}");
        }
    }
}

#[test]
fn promtool_understands_every_query_and_sees_the_alerts_fire() {
    let promtool = |arguments: &[&str]| {
        let mut command = Command::new("promtool");
        let output = command
            .args(arguments)
            .current_dir(deploy("prometheus"))
            .output()
            .ok()?;
        let said = [output.stdout, output.stderr].concat();
        Some((
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        ))
    };
    let dir = tempfile::tempdir().expect("a directory");
    let rules: Vec<Value> = dashboard()
        .iter()
        .enumerate()
        .map(|(index, query)| {
            // What Grafana fills in before it asks.
            let query = query.replace("$instance", ".*");
            json!({ "record": format!("panel:{index}"), "expr": query })
        })
        .collect();
    let file = dir.path().join("dashboard.yml");
    // JSON is YAML.
    let text = json!({ "groups": [{ "name": "dashboard", "rules": rules }] }).to_string();
    fs::write(&file, text).expect("writable");
    let dashboard = file.to_str().expect("text");
    for arguments in [
        ["check", "rules", "alerts.yml"].as_slice(),
        &["test", "rules", "alerts_test.yml"],
        &["check", "rules", dashboard],
    ] {
        match promtool(arguments) {
            Some((true, _)) => {}
            Some((false, said)) => panic!("promtool {arguments:?}: {said}"),
            None => {
                println!(
                    "SKIPPED: promtool_understands_every_query_and_sees_the_alerts_fire: promtool (Debian package \
                     prometheus) is not installed"
                );
                return;
            }
        }
    }
}
