//! Copies the pages, and what they link to, to where the book is made of them.
//!
//! `docs/X` becomes `X`, any other file of the tree `tree/X`; a README becomes the index of its folder, as mdBook would have it.
//! Files that are no page of the book and no picture get `.txt` behind their name, so that a browser shows them. A folder has
//! no page: its link becomes its text.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result};

use crate::tidy::links;

/// Where the pages are.
const PAGES: &str = "docs/";
/// Endings of what a browser shows as it is.
const SHOWN: [&str; 3] = ["png", "svg", "html"];
/// The list of pages.
const LIST: &str = "docs/SUMMARY.md";

/// Copies from the workspace's root to `to`, beginning with the list of pages.
///
/// # Errors
/// When a file cannot be read or written.
pub(super) fn tree(root: &Path, to: &Path) -> Result<()> {
    write(&to.join("book.toml"), &read(&root.join("docs/book.toml"))?)?;
    let list = String::from_utf8(read(&root.join(LIST))?).context(LIST)?;
    let mut tree = Tree {
        root,
        listed: BTreeSet::from([LIST.to_owned()]),
    };
    // A page that is yet to be written has no file.
    let pages = links::links(&list)
        .into_iter()
        .filter(|(_, link)| !link.is_empty());
    tree.listed
        .extend(pages.filter_map(|(_, link)| links::joined("docs", link)));
    let mut due = tree.listed.clone();
    // Pages show pictures by HTML, too.
    for entry in fs::read_dir(root.join(PAGES)).context(PAGES)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if SHOWN.iter().any(|ending| name.ends_with(&format!(".{ending}"))) {
            due.insert(format!("{PAGES}{name}"));
        }
    }
    let mut done = BTreeSet::new();
    while let Some(path) = due.pop_first() {
        if !done.insert(path.clone()) {
            continue;
        }
        let mut bytes = read(&root.join(&path))?;
        if tree.listed.contains(&path) {
            let text = String::from_utf8(bytes).with_context(|| path.clone())?;
            let (text, found) = tree.rewritten(&path, &text);
            due.extend(found);
            bytes = text.into_bytes();
        }
        write(&to.join(tree.in_book(&path)), &bytes)?;
    }
    Ok(())
}

/// What is copied.
struct Tree<'r> {
    root: &'r Path,
    /// Pages of the book.
    listed: BTreeSet<String>,
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

impl Tree<'_> {
    /// Where a file of the tree is in the book.
    fn in_book(&self, path: &str) -> String {
        let place = path
            .strip_prefix(PAGES)
            .map_or_else(|| format!("tree/{path}"), str::to_owned);
        if self.listed.contains(path) {
            return match place.strip_suffix("README.md") {
                Some(folder) => format!("{folder}index.md"),
                None => place,
            };
        }
        let ending = path.rsplit_once('.').map_or("", |(_, ending)| ending);
        if SHOWN.contains(&ending) {
            return place;
        }
        // mdBook takes whatever has `.md` in it for a page.
        place.strip_suffix(".md").unwrap_or(&place).to_owned() + ".txt"
    }

    /// The text of a page with its links as they are in the book, and the files of the tree that it links to.
    fn rewritten(&self, page: &str, text: &str) -> (String, Vec<String>) {
        let mut found = Vec::new();
        let mut fenced = false;
        let mut out = String::new();
        for line in text.split_inclusive('\n') {
            let fence = line.trim_start().starts_with("```");
            fenced ^= fence;
            let mut rest = line;
            while let Some((before, after)) = rest.split_once("](").filter(|_| !fenced && !fence) {
                let Some((target, behind)) = after.split_once(')') else {
                    break;
                };
                out += &self.link(page, before, target, &mut found);
                rest = behind;
            }
            out += rest;
        }
        (out, found)
    }

    /// What stands before the target of a link, and the link's end as it is in the book.
    fn link(&self, page: &str, before: &str, target: &str, found: &mut Vec<String>) -> String {
        let folder = page.rsplit_once('/').map_or("", |(folder, _)| folder);
        let (file, heading) = target.split_once('#').unwrap_or((target, ""));
        let path = links::joined(folder, file).filter(|_| !file.is_empty() && !target.contains("://"));
        let Some(path) = path else {
            return format!("{before}]({target})");
        };
        if self.root.join(&path).is_file() {
            let mut way = relative(&self.in_book(page), &self.in_book(&path));
            if !heading.is_empty() {
                way = format!("{way}#{heading}");
            }
            found.push(path);
            return format!("{before}]({way})");
        }
        match before.rsplit_once('[') {
            Some((before, name)) if self.root.join(&path).is_dir() => format!("{before}{name}"),
            // What is not there is found among the links of the book.
            _ => format!("{before}]({target})"),
        }
    }
}

/// The way from one file of the book to another.
fn relative(from: &str, to: &str) -> String {
    let folders = |path: &str| -> Vec<String> {
        let mut parts: Vec<String> = path.split('/').map(str::to_owned).collect();
        parts.pop();
        parts
    };
    let (here, there) = (folders(from), folders(to));
    let common = here.iter().zip(&there).take_while(|(a, b)| a == b).count();
    let mut way: Vec<String> = here[common..].iter().map(|_| "..".to_owned()).collect();
    way.extend_from_slice(&there[common..]);
    way.extend(to.rsplit('/').next().map(str::to_owned));
    way.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_out_of_the_pages_lead_to_copies() {
        let root = crate::process::workspace();
        let tree = Tree {
            root: &root,
            listed: ["docs/README.md", "docs/metrics.md", "README.md"]
                .map(str::to_owned)
                .into(),
        };
        for (page, text, expected, files) in [
            (
                "docs/README.md",
                "[b](metrics.md#c) ![d](demo.png)",
                "[b](metrics.md#c) ![d](demo.png)",
                &["docs/metrics.md", "docs/demo.png"][..],
            ),
            (
                "docs/metrics.md",
                "[e](../examples/edge.toml) [r](../README.md)",
                "[e](tree/examples/edge.toml.txt) [r](tree/index.md)",
                &["examples/edge.toml", "README.md"],
            ),
            (
                "README.md",
                "![p](docs/demo.png), [a](docs/README.md) [b](CONTRIBUTING.md)",
                "![p](../demo.png), [a](../index.md) [b](CONTRIBUTING.txt)",
                &["docs/demo.png", "docs/README.md", "CONTRIBUTING.md"],
            ),
            (
                "docs/README.md",
                "x [`deploy/`](../deploy) y",
                "x `deploy/` y",
                &[],
            ),
            (
                "docs/README.md",
                "[t](#top) [w](https://w.example)",
                "[t](#top) [w](https://w.example)",
                &[],
            ),
            (
                "docs/README.md",
                "[g](gone.md) [e](/etc/hosts)",
                "[g](gone.md) [e](/etc/hosts)",
                &[],
            ),
            (
                "docs/README.md",
                "```\n[g](metrics.md)\n```\n",
                "```\n[g](metrics.md)\n```\n",
                &[],
            ),
        ] {
            let (text, found) = tree.rewritten(page, text);
            assert_eq!(text, expected);
            assert_eq!(found, files, "{expected}");
        }
    }
}
