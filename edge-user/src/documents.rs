//! The documentation as tests read it: its pages, and their blocks of code and tables.
//!
//! Knows Markdown as far as these pages use it. Which blocks have to do what is for the tests of the parts that they
//! speak about: configurations in `config/tests`, command lines in `cli/tests`, names here.

mod names;

use std::{fs, path::Path};

/// A page, by its path from the root of the workspace.
pub(crate) struct Page {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// What stands between two fences.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block<'p> {
    /// Of the first fence, from 1.
    pub(crate) line: usize,
    /// What the fence says of the block: `toml`, `toml wrong`.
    pub(crate) info: &'p str,
    pub(crate) text: String,
}

/// What is to be copied and changed: everything in `examples`, and what the package installs.
pub(crate) fn examples() -> Vec<Page> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let entries = fs::read_dir(root.join("examples")).expect("examples");
    let names = entries.map(|entry| {
        entry
            .expect("examples")
            .file_name()
            .to_string_lossy()
            .into_owned()
    });
    let mut paths: Vec<String> = names.map(|name| format!("examples/{name}")).collect();
    paths.push("deploy/debian/edge.toml".to_owned());
    paths.into_iter().map(|path| read(&root, path)).collect()
}

fn read(root: &Path, path: String) -> Page {
    Page {
        text: fs::read_to_string(root.join(&path)).expect(&path),
        path,
    }
}

/// README, CONTRIBUTING and everything in `docs`, in the order of their paths.
pub(crate) fn pages() -> Vec<Page> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut paths = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned()];
    for folder in ["docs", "docs/adr"] {
        let entries = fs::read_dir(root.join(folder)).expect(folder);
        let names = entries.map(|entry| entry.expect(folder).file_name().to_string_lossy().into_owned());
        let pages = names.filter(|name| Path::new(name).extension().is_some_and(|ending| ending == "md"));
        paths.extend(pages.map(|name| format!("{folder}/{name}")));
    }
    paths.sort();
    paths.into_iter().map(|path| read(&root, path)).collect()
}

/// The blocks of a page. What a fence in a list is indented by is taken off.
pub(crate) fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut open: Option<(Block<'_>, usize)> = None;
    for (index, line) in page.lines().enumerate() {
        let bare = line.trim_start();
        match (&mut open, bare.strip_prefix("```")) {
            (None, Some(info)) => {
                let block = Block {
                    line: index + 1,
                    info: info.trim(),
                    text: String::new(),
                };
                open = Some((block, line.len() - bare.len()));
            }
            (Some(_), Some(_)) => blocks.extend(open.take().map(|(block, _)| block)),
            (Some((block, indent)), None) => {
                let indent = line.len().min(*indent);
                block.text += line.get(indent..).unwrap_or(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block has no end: {open:?}");
    blocks
}

/// Rows of the tables whose first column has this heading, cell by cell.
pub(crate) fn rows<'p>(page: &'p str, heading: &str) -> Vec<Vec<&'p str>> {
    let mut within = false;
    let mut rows = Vec::new();
    let mut before = false;
    for line in page.lines() {
        let cells: Option<Vec<&str>> = line
            .strip_prefix('|')
            .and_then(|line| line.trim_end().strip_suffix('|'))
            .map(|line| line.split(" | ").map(str::trim).collect());
        match &cells {
            None => within = false,
            Some(cells) if !before => within = cells.first() == Some(&heading),
            Some(cells) if within && !cells[0].starts_with("---") => rows.push(cells.clone()),
            Some(_) => {}
        }
        before = cells.is_some();
    }
    rows
}

/// Words between backquotes.
pub(crate) fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn blocks_and_rows_are_found() {
    let page = "a\n```toml wrong\n[x]\n```\n- b\n\n  ```\n  c\n    d\n  ```\n\n| reason | is |\n|---|---|\n| `x` | y |\n\n| other | is |\n|---|---|\n| `z` | y |\n";
    let block = |line, info, text: &str| Block {
        line,
        info,
        text: text.to_owned(),
    };
    assert_eq!(
        blocks(page),
        [block(2, "toml wrong", "[x]\n"), block(7, "", "c\n  d\n")]
    );
    assert_eq!(rows(page, "reason"), [["`x`", "y"]]);
    assert_eq!(spans("a `b` c `d`").collect::<Vec<_>>(), ["b", "d"]);
    assert!(pages().len() > 20);
}
