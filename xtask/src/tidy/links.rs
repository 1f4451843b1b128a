//! Links in Markdown: what points into this tree points at something.
//!
//! Checks files and the headings in them. Links to other places are not followed.

use std::path::Path;

use super::{Finding, Source};
use crate::process;

/// Looks at every Markdown file of the tree.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.has_ending("md")) {
        for (number, link) in links(&source.text) {
            if let Some(what) = broken(source, link, sources) {
                findings.push(source.finding(number, what));
            }
        }
    }
    findings
}

fn broken(source: &Source, link: &str, sources: &[Source]) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (file, heading) = link
        .split_once('#')
        .map_or((link, None), |(file, heading)| (file, Some(heading)));
    let folder = source.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let path = if file.is_empty() {
        source.path.clone()
    } else {
        joined(folder, file)?
    };
    let known = sources.iter().find(|other| other.path == path);
    if known.is_none() && !process::workspace().join(&path).exists() {
        return Some(format!("links to {link}, and there is no {path}"));
    }
    let (Some(known), Some(heading)) = (known, heading) else {
        return None;
    };
    let found = headings(&known.text).any(|slug| slug == heading);
    (!found).then(|| format!("links to {link}, and {path} has no such heading"))
}

/// A path relative to `folder`; `None` for one that leaves the tree, which is not ours to check.
pub(crate) fn joined(folder: &str, file: &str) -> Option<String> {
    let mut parts: Vec<&str> = if file.starts_with('/') {
        Vec::new()
    } else {
        folder.split('/').collect()
    };
    for part in Path::new(file.trim_start_matches('/')).to_str()?.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()?),
            _ => parts.push(part),
        }
    }
    parts.retain(|part| !part.is_empty());
    Some(parts.join("/"))
}

/// The targets of `[text](target)`, with their lines; code is left out.
pub(crate) fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (index, line) in prose(text) {
        // Every second part lies between backquotes.
        for part in line.split('`').step_by(2) {
            let mut rest = part;
            while let Some((_, after)) = rest.split_once("](") {
                let Some((target, behind)) = after.split_once(')') else {
                    break;
                };
                found.push((index + 1, target.split_whitespace().next().unwrap_or_default()));
                rest = behind;
            }
        }
    }
    found
}

/// Lines outside of fenced code, with their index.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// The anchors of a file's headings, as the usual renderers make them.
pub(crate) fn headings(text: &str) -> impl Iterator<Item = String> {
    prose(text)
        .filter(|(_, line)| line.starts_with('#'))
        .map(|(_, line)| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    fn tree(page: &str) -> Vec<Finding> {
        check(&[
            source("docs/page.md", page),
            source(
                "docs/other.md",
                "# Life of a packet\n```\n# no heading\n```\n## `limit`: the rate!\n",
            ),
        ])
    }

    #[test]
    fn links_to_nothing_are_found() {
        for page in [
            "[a](gone.md)",
            "x\n[`code`](../docs/gone.md)",
            "[a](other.md#absent)",
            "[a](#absent)",
            "![p](p.png)",
        ] {
            assert_eq!(tree(page).len(), 1, "{page}");
        }
        assert_eq!(tree("one\n[a](gone.md)")[0].line, 2);
        assert_eq!(tree("[a](other.md#no-heading)").len(), 1);
    }

    #[test]
    fn links_to_something_are_not() {
        let page = "# Top\n[a](other.md) [b](./other.md#life-of-a-packet) [`c`](other.md#limit-the-rate) [d](#top)\n\
                    [e](https://example.org/x) `[f](gone.md)`\n```\n[g](gone.md)\n```\n[h](../Cargo.toml) [i](../docs)\n";
        assert_eq!(tree(page), []);
    }
}
