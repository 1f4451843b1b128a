//! `cargo xtask tidy`: the conventions of this tree that no compiler checks.
//!
//! One file a rule. A rule is a pure function from a file to findings; only this file reads the disk. Every rule
//! has a test that proves that it fires.

mod contract;
mod files;
mod imports;
pub(crate) mod links;
mod literals;
mod manifests;
mod messages;
mod summary;
mod words;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::{deny, process};

/// Folders that hold no source of ours.
const SKIPPED: [&str; 3] = ["target", ".git", "node_modules"];
/// Endings of the files that are looked at.
const ENDINGS: [&str; 3] = ["rs", "toml", "md"];
/// Files that have to be there.
const NEEDED: [&str; 1] = ["CHANGELOG.md"];

/// A file of the tree.
#[derive(Debug)]
pub(crate) struct Source {
    /// Relative to the workspace, with slashes.
    path: String,
    text: String,
}

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    /// Counted from 1.
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

impl Source {
    fn is_rust(&self) -> bool {
        self.has_ending("rs")
    }

    fn has_ending(&self, ending: &str) -> bool {
        Path::new(&self.path)
            .extension()
            .is_some_and(|found| found == ending)
    }

    fn finding(&self, line: usize, what: impl Into<String>) -> Finding {
        Finding {
            path: self.path.clone(),
            line,
            what: what.into(),
        }
    }

    /// Lines with their numbers, from 1.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }
}

/// Checks the tree, prints what is found, and says whether it is clean.
pub(crate) fn run() -> Result<bool> {
    let root = process::workspace();
    let mut sources = Vec::new();
    read(&root, "", &mut sources)?;
    let mut findings = check(&sources);
    for needed in NEEDED {
        if !root.join(needed).is_file() {
            findings.push(Finding {
                path: needed.to_owned(),
                line: 1,
                what: "missing".to_owned(),
            });
        }
    }
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    let denied = deny::run()?;
    println!(
        "tidy: {} files, {} findings",
        sources.len(),
        findings.len() + denied
    );
    Ok(findings.is_empty() && denied == 0)
}

fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        findings.extend(files::check(source));
        findings.extend(manifests::check(source));
        if source.is_rust() {
            findings.extend(contract::check(source));
            findings.extend(words::check(source));
            findings.extend(imports::check(source));
        }
    }
    findings.extend(links::check(sources));
    findings.extend(messages::check(sources));
    findings.extend(summary::check(sources));
    findings
}

fn read(root: &Path, folder: &str, sources: &mut Vec<Source>) -> Result<()> {
    let place = root.join(folder);
    for entry in fs::read_dir(&place).with_context(|| format!("cannot read {}", place.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() {
            name.clone()
        } else {
            format!("{folder}/{name}")
        };
        let kind = entry.file_type()?;
        if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
            read(root, &path, sources)?;
        } else if kind.is_file() && ENDINGS.iter().any(|ending| name.ends_with(&format!(".{ending}"))) {
            let text = fs::read_to_string(entry.path()).with_context(|| format!("cannot read {path}"))?;
            sources.push(Source { path, text });
        }
    }
    Ok(())
}

#[cfg(test)]
fn source(path: &str, text: &str) -> Source {
    Source {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_reads_like_a_compiler_s() {
        assert_eq!(
            source("a/b.rs", "").finding(3, "what").to_string(),
            "a/b.rs:3: what"
        );
    }

    #[test]
    fn every_rule_is_asked() {
        let bad = [
            source(
                "edge-user/src/gateway/mod.rs",
                concat!("use aya::Ebpf;\n#[", "allow(dead_code)]\n"),
            ),
            source("edge-user/Cargo.toml", "[package]\nname = \"edge-user\"\n"),
            source(
                "docs/a.md",
                "[there](missing.md)\n| message | do |\n|---|---|\n| `nobody says so` | a |\n",
            ),
            source("docs/SUMMARY.md", ""),
        ];
        let found: Vec<String> = check(&bad).iter().map(ToString::to_string).collect();
        for part in [
            "mod.rs",
            "//!",
            "aya",
            "reason",
            "[lints]",
            "missing.md",
            "nobody says so",
            "docs/SUMMARY.md",
        ] {
            assert!(
                found.iter().any(|finding| finding.contains(part)),
                "{part} in {found:#?}"
            );
        }
    }
}
