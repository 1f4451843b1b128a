//! What xtask asks of the outer cargo: builds of test programs and of the daemon, and the workspace's description.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::process;

/// Builds the daemon in the profile of the tests and returns its path.
pub(crate) fn daemon() -> Result<PathBuf> {
    executable(
        &["build", "--package", "edge-user", "--bin", "breakwater"],
        "breakwater",
    )
}

/// Builds one integration test of a package and returns its path.
pub(crate) fn test_program(package: &str, target: &str) -> Result<PathBuf> {
    executable(
        &["test", "--no-run", "--package", package, "--test", target],
        target,
    )
}

/// Whether a package of the workspace has an integration test or a benchmark (`kind`) of that name.
pub(crate) fn has_target(package: &str, kind: &str, name: &str) -> Result<bool> {
    let workspace = metadata(&["--no-deps"])?;
    let packages = list(&workspace, "packages")
        .iter()
        .filter(|entry| text(entry, "name") == package);
    Ok(packages.flat_map(|entry| list(entry, "targets")).any(|target| {
        text(target, "name") == name
            && list(target, "kind")
                .iter()
                .any(|entry| entry.as_str() == Some(kind))
    }))
}

/// `cargo metadata`, from what is on this machine.
pub(crate) fn metadata(options: &[&str]) -> Result<Value> {
    let mut command = process::cargo();
    command
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(options);
    let described = process::output(&mut command)?;
    serde_json::from_str(&described).context("cargo metadata is not understood")
}

/// The array in a field, or an empty one.
pub(crate) fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value
        .get(field)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The string in a field, or an empty one.
pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn executable(arguments: &[&str], target: &str) -> Result<PathBuf> {
    let mut command = process::cargo();
    command
        .args(arguments)
        .args(["--locked", "--message-format", "json-render-diagnostics"]);
    // Progress and diagnostics stay on the terminal.
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", process::shown(&command)))?;
    if !output.status.success() {
        bail!("{} failed ({})", process::shown(&command), output.status);
    }
    executable_in(&String::from_utf8_lossy(&output.stdout), target)
        .ok_or_else(|| anyhow!("cargo built no program {target}"))
}

/// Every line is a JSON object; the one about the program names its file.
fn executable_in(messages: &str, target: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|message| {
            let is_it = message
                .get("target")
                .is_some_and(|found| text(found, "name") == target);
            let path = message.get("executable").and_then(Value::as_str);
            path.filter(|_| is_it).map(PathBuf::from)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_among_cargo_s_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"kernel"},"executable":null}
            {"reason":"compiler-artifact","target":{"name":"other"},"executable":"/t/other"}
            {"reason":"compiler-artifact","target":{"name":"kernel"},"executable":"/t/kernel-1"}
            {"reason":"build-finished","success":true}"#;
        assert_eq!(
            executable_in(messages, "kernel"),
            Some(PathBuf::from("/t/kernel-1"))
        );
        assert_eq!(executable_in(messages, "absent"), None);
    }
}
