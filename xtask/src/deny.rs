//! Dependencies: their licences, bans, sources and duplicates, held against `deny.toml`.
//!
//! Reads Cargo.lock for what concerns every platform, and cargo's metadata for licences, which only the packages of
//! this platform are there to tell. Asks nobody on the network.

mod spdx;

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use toml::{Table, Value};

use crate::{cargo, process};

/// What `deny.toml` says.
#[derive(Debug)]
struct Policy {
    licences: Vec<String>,
    /// Name and reason.
    bans: Vec<(String, String)>,
}

/// A package of Cargo.lock.
#[derive(Debug)]
struct Locked {
    name: String,
    version: String,
    /// Absent for the crates of this workspace.
    source: Option<String>,
}

/// Prints what breaks the policy, and returns how much does.
pub(crate) fn run() -> Result<usize> {
    let root = process::workspace();
    let read =
        |name: &str| fs::read_to_string(root.join(name)).with_context(|| format!("cannot read {name}"));
    let policy = policy(&read("deny.toml")?)?;
    let locked = locked(&read("Cargo.lock")?)?;
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let metadata = cargo::metadata(&["--filter-platform", &platform])?;
    let licences = cargo::list(&metadata, "packages").iter().map(|package| {
        let name = format!(
            "{} {}",
            cargo::text(package, "name"),
            cargo::text(package, "version")
        );
        (name, cargo::text(package, "license").to_owned())
    });
    let mut findings = banned(&policy, &locked);
    findings.extend(foreign(&locked));
    findings.extend(unlicensed(&policy, licences));
    for finding in &findings {
        println!("{finding}");
    }
    let twice = duplicates(&locked);
    if !twice.is_empty() {
        println!(
            "tidy: {} packages come in several versions: {}",
            twice.len(),
            twice.join(", ")
        );
    }
    Ok(findings.len())
}

fn policy(text: &str) -> Result<Policy> {
    let table: Table = text.parse().context("deny.toml is not understood")?;
    let array = |section: &str, key: &str| {
        let value = table
            .get(section)
            .and_then(|section| section.get(key))
            .and_then(Value::as_array);
        value.with_context(|| format!("deny.toml: [{section}] {key} is not a list"))
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let licences = array("licenses", "allow")?.iter().filter_map(text).collect();
    let field = |ban: &Value, key: &str| ban.get(key).and_then(text);
    let ban = |ban: &Value| Some((field(ban, "name")?, field(ban, "reason").unwrap_or_default()));
    Ok(Policy {
        licences,
        bans: array("bans", "deny")?.iter().filter_map(ban).collect(),
    })
}

fn locked(text: &str) -> Result<Vec<Locked>> {
    let table: Table = text.parse().context("Cargo.lock is not understood")?;
    let packages = table
        .get("package")
        .and_then(Value::as_array)
        .context("Cargo.lock has no packages")?;
    let field = |package: &Value, key: &str| package.get(key).and_then(Value::as_str).map(str::to_owned);
    let of = |package: &Value| {
        Some(Locked {
            name: field(package, "name")?,
            version: field(package, "version")?,
            source: field(package, "source"),
        })
    };
    packages
        .iter()
        .map(of)
        .collect::<Option<_>>()
        .context("Cargo.lock has a package without name or version")
}

fn banned(policy: &Policy, locked: &[Locked]) -> Vec<String> {
    let finding = |package: &Locked| {
        let (name, reason) = policy.bans.iter().find(|(name, _)| *name == package.name)?;
        Some(format!(
            "Cargo.lock: {name} {} is banned: {reason}",
            package.version
        ))
    };
    locked.iter().filter_map(finding).collect()
}

/// Whatever is neither of this workspace nor from crates.io.
fn foreign(locked: &[Locked]) -> Vec<String> {
    let finding = |package: &Locked| {
        let source = package.source.as_deref()?;
        let known = source.starts_with("registry+") && source.ends_with("/rust-lang/crates.io-index");
        (!known).then(|| {
            format!(
                "Cargo.lock: {} {} comes from {source}",
                package.name, package.version
            )
        })
    };
    locked.iter().filter_map(finding).collect()
}

fn unlicensed(policy: &Policy, licences: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let finding = |(package, expression): (String, String)| {
        if expression.is_empty() {
            return Some(format!("deny.toml: {package} names no licence"));
        }
        match spdx::satisfied(&expression, &policy.licences) {
            Ok(true) => None,
            Ok(false) => Some(format!(
                "deny.toml: {package} is under {expression:?}, which is not allowed"
            )),
            Err(why) => Some(format!("deny.toml: {package}: licence {expression:?}: {why}")),
        }
    };
    licences.filter_map(finding).collect()
}

fn duplicates(locked: &[Locked]) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in locked {
        versions.entry(&package.name).or_default().push(&package.version);
    }
    let several = versions.into_iter().filter(|(_, versions)| versions.len() > 1);
    several
        .map(|(name, versions)| format!("{name} ({})", versions.join(", ")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
        [licenses]
        allow = ["MIT"]
        [bans]
        deny = [{ name = "openssl", reason = "no" }]
    "#;

    const LOCK: &str = r#"
        [[package]]
        name = "ours"
        version = "0.1.0"
        [[package]]
        name = "openssl"
        version = "1.0.0"
        source = "registry+https://index.example/rust-lang/crates.io-index"
        [[package]]
        name = "syn"
        version = "1.0.0"
        source = "git+https://git.example/syn"
        [[package]]
        name = "syn"
        version = "2.0.0"
        source = "registry+https://elsewhere.example/index"
    "#;

    #[test]
    fn bans_sources_and_duplicates_are_found() {
        let (policy, locked) = (policy(POLICY).unwrap(), locked(LOCK).unwrap());
        assert_eq!(
            banned(&policy, &locked),
            ["Cargo.lock: openssl 1.0.0 is banned: no"]
        );
        let foreign = foreign(&locked);
        assert_eq!(foreign.len(), 2, "{foreign:?}");
        assert!(foreign[0].contains("git+") && foreign[1].contains("elsewhere"));
        assert_eq!(duplicates(&locked), ["syn (1.0.0, 2.0.0)"]);
    }

    #[test]
    fn licences_are_found() {
        let policy = policy(POLICY).unwrap();
        let of = |expression: &str| {
            unlicensed(
                &policy,
                std::iter::once(("x 1".to_owned(), expression.to_owned())),
            )
            .len()
        };
        assert_eq!(
            [
                of("MIT"),
                of("GPL-3.0 OR MIT"),
                of("GPL-3.0"),
                of(""),
                of("MIT AND (")
            ],
            [0, 0, 1, 1, 1]
        );
    }

    #[test]
    fn a_policy_without_its_lists_is_an_error() {
        assert!(policy("[licenses]\nallow = []\n").is_err());
        assert!(policy("not toml").is_err());
    }

    #[test]
    fn the_tree_s_own_policy_is_understood() {
        let text = fs::read_to_string(process::workspace().join("deny.toml")).unwrap();
        let policy = policy(&text).unwrap();
        assert!(policy.licences.iter().any(|licence| licence == "MIT"));
        assert!(!policy.bans.is_empty());
    }
}
