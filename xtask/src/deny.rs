//! Dependencies: their licences, bans, sources and duplicates, held against `deny.toml`.
//!
//! Where a package comes from is read from Cargo.lock, for every platform; all else from `cargo tree`, for what is
//! really built here: the lock names packages that no enabled feature wants. Asks nobody on the network.

mod spdx;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result};
use toml::{Table, Value};

use crate::process;

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

/// A package that is built.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Built {
    name: String,
    version: String,
    licence: String,
}

/// Prints what breaks the policy, and returns how much does.
pub(crate) fn run() -> Result<usize> {
    let root = process::workspace();
    let read =
        |name: &str| fs::read_to_string(root.join(name)).with_context(|| format!("cannot read {name}"));
    let policy = policy(&read("deny.toml")?)?;
    let locked = locked(&read("Cargo.lock")?)?;
    let tree = process::output(
        process::cargo()
            .args(["tree", "--locked", "--workspace", "--prefix", "none"])
            .args(["--edges", "normal,build,dev", "--format", "{p}\t{l}"]),
    )?;
    let built = built(&tree);
    let mut findings = foreign(&locked);
    findings.extend(banned(&policy, &built));
    findings.extend(unlicensed(&policy, &built));
    for finding in &findings {
        println!("{finding}");
    }
    let several = duplicates(&built);
    if !several.is_empty() {
        println!(
            "tidy: {} packages come in several versions: {}",
            several.len(),
            several.join(", ")
        );
    }
    Ok(findings.len())
}

/// Lines are `NAME vVERSION (PLACE)`, a tab and the licence; a package that was printed before ends with ` (*)`.
fn built(tree: &str) -> Vec<Built> {
    let of = |line: &str| {
        let (package, licence) = line.split_once('\t')?;
        let mut words = package.split(' ');
        let (name, version) = (
            words.next()?.to_owned(),
            words.next()?.trim_start_matches('v').to_owned(),
        );
        Some(Built {
            name,
            version,
            licence: licence.trim_end_matches(" (*)").to_owned(),
        })
    };
    let packages: BTreeSet<Built> = tree.lines().filter_map(of).collect();
    packages.into_iter().collect()
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

fn banned(policy: &Policy, built: &[Built]) -> Vec<String> {
    let finding = |package: &Built| {
        let (name, reason) = policy.bans.iter().find(|(name, _)| *name == package.name)?;
        Some(format!(
            "deny.toml: {name} {} is banned: {reason}",
            package.version
        ))
    };
    built.iter().filter_map(finding).collect()
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

fn unlicensed(policy: &Policy, built: &[Built]) -> Vec<String> {
    let finding = |package: &Built| {
        let Built {
            name,
            version,
            licence,
        } = package;
        if licence.is_empty() {
            return Some(format!("deny.toml: {name} {version} names no licence"));
        }
        match spdx::satisfied(licence, &policy.licences) {
            Ok(true) => None,
            Ok(false) => Some(format!(
                "deny.toml: {name} {version} is under {licence:?}, which is not allowed"
            )),
            Err(why) => Some(format!("deny.toml: {name} {version}: licence {licence:?}: {why}")),
        }
    };
    built.iter().filter_map(finding).collect()
}

fn duplicates(built: &[Built]) -> Vec<String> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in built {
        versions
            .entry(&package.name)
            .or_default()
            .insert(&package.version);
    }
    let several = versions.into_iter().filter(|(_, versions)| versions.len() > 1);
    several
        .map(|(name, versions)| format!("{name} ({})", Vec::from_iter(versions).join(", ")))
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
        name = "good"
        version = "1.0.0"
        source = "registry+https://index.example/rust-lang/crates.io-index"
        [[package]]
        name = "syn"
        version = "1.0.0"
        source = "git+https://git.example/syn"
        [[package]]
        name = "other"
        version = "2.0.0"
        source = "registry+https://elsewhere.example/index"
    "#;

    const TREE: &str = "ours v0.1.0 (/src/ours)\tMIT\n\
        syn v2.0.0 (proc-macro)\tMIT OR Apache-2.0\n\
        openssl v1.0.0\tGPL-3.0\n\
        syn v3.0.0\tMIT (*)\n\
        bare v1.0.0\t\n\
        odd v1.0.0\tMIT AND (\n\
        syn v3.0.0\tMIT\n";

    #[test]
    fn foreign_sources_are_found() {
        let foreign = foreign(&locked(LOCK).unwrap());
        assert_eq!(foreign.len(), 2, "{foreign:?}");
        assert!(foreign[0].contains("git+") && foreign[1].contains("elsewhere"));
    }

    #[test]
    fn bans_licences_and_duplicates_are_found() {
        let (policy, built) = (policy(POLICY).unwrap(), built(TREE));
        assert_eq!(
            banned(&policy, &built),
            ["deny.toml: openssl 1.0.0 is banned: no"]
        );
        assert_eq!(duplicates(&built), ["syn (2.0.0, 3.0.0)"]);
        let unlicensed = unlicensed(&policy, &built).join("\n");
        assert_eq!(unlicensed.lines().count(), 3, "{unlicensed}");
        for part in [
            "bare 1.0.0 names no licence",
            "odd 1.0.0: licence",
            "openssl 1.0.0 is under \"GPL-3.0\"",
        ] {
            assert!(unlicensed.contains(part), "{part} in {unlicensed}");
        }
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
