//! Manifests: every crate takes the workspace's lints, and imports only the crates below it.

use super::{Finding, Source};

/// A crate of the workspace, and the crates of the workspace that it may depend on.
const MAY_IMPORT: [(&str, &[&str]); 5] = [
    ("edge-common", &[]),
    ("edge-ebpf", &["edge-common"]),
    ("edge-user", &["edge-common"]),
    ("tests", &["edge-common", "edge-user"]),
    ("xtask", &[]),
];

/// Looks at a crate's `Cargo.toml`.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !source.path.ends_with("/Cargo.toml") {
        return findings;
    }
    let manifest = match source.text.parse::<toml::Table>() {
        Ok(manifest) => manifest,
        Err(error) => return vec![source.finding(1, format!("is not TOML: {}", error.message()))],
    };
    let lints = manifest
        .get("lints")
        .and_then(|lints| lints.get("workspace"))
        .and_then(toml::Value::as_bool);
    if lints != Some(true) {
        findings.push(source.finding(1, "has no `[lints] workspace = true`"));
    }
    let name = manifest
        .get("package")
        .and_then(|package| package.get("name"))
        .and_then(toml::Value::as_str);
    let name = name.unwrap_or_default();
    // A crate that is not in the list yet may import what it likes.
    let allowed = MAY_IMPORT
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, allowed)| *allowed);
    for (number, line) in source.lines() {
        let Some(allowed) = allowed else { break };
        let dependency = line.split(['.', '=', ' ']).next().unwrap_or_default();
        let ours = MAY_IMPORT.iter().any(|(known, _)| *known == dependency);
        if ours && !allowed.contains(&dependency) {
            findings.push(source.finding(number, format!("{name} must not import {dependency}")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    fn manifest(name: &str, rest: &str) -> Source {
        source(
            &format!("{name}/Cargo.toml"),
            &format!("[package]\nname = \"{name}\"\n{rest}"),
        )
    }

    #[test]
    fn missing_lints_are_found() {
        assert_eq!(check(&manifest("edge-common", "")).len(), 1);
        assert_eq!(
            check(&manifest("edge-common", "[lints]\nworkspace = false\n")).len(),
            1
        );
        assert!(check(&manifest("edge-common", "[lints]\nworkspace = true\n")).is_empty());
        assert!(check(&source("Cargo.toml", "[workspace]\n")).is_empty());
    }

    #[test]
    fn imports_upwards_are_found() {
        let importing = |name: &str, dependency: &str| {
            check(&manifest(
                name,
                &format!("[dependencies]\n{dependency}\n[lints]\nworkspace = true\n"),
            ))
            .len()
        };
        assert_eq!(importing("edge-common", "edge-user.workspace = true"), 1);
        assert_eq!(
            importing("edge-ebpf", "edge-user = { path = \"../edge-user\" }"),
            1
        );
        assert_eq!(importing("xtask", "edge-common.workspace = true"), 1);
        assert_eq!(importing("edge-ebpf", "edge-common.workspace = true"), 0);
        assert_eq!(importing("tests", "edge-user.workspace = true"), 0);
    }
}
