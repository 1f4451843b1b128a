//! `cargo xtask book`: the documentation as a book, by mdBook.
//!
//! The pages of `docs` are written for who reads them where the code lies: they link to files outside of `docs`. Here they
//! are copied with those files, and their links rewritten, so that the book is whole by itself. mdBook then makes it, and
//! every link in what it made has to lead somewhere.

mod check;
mod copy;

use std::{fs, process::Command};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::process;

/// How to make it.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Open it in a browser.
    #[arg(long)]
    open: bool,
}

/// Makes the book and looks at its links.
///
/// # Errors
/// When mdBook is missing or fails, or a link of the book leads nowhere.
pub(crate) fn run(options: &Options) -> Result<()> {
    let version = Command::new("mdbook").arg("--version").output();
    if !version.is_ok_and(|output| output.status.success()) {
        bail!("mdbook is not installed: cargo install mdbook --locked");
    }
    let root = process::workspace();
    let (source, book) = (
        process::target_dir().join("book-src"),
        process::target_dir().join("book"),
    );
    for folder in [&source, &book] {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
    }
    copy::tree(&root, &source)?;
    let mut build = Command::new("mdbook");
    build.arg("build").arg(&source).arg("--dest-dir").arg(&book);
    process::run(&mut build)?;
    let (pages, broken) = check::links(&book)?;
    for link in &broken {
        println!("{link}");
    }
    if !broken.is_empty() {
        bail!("{} links of the book lead nowhere", broken.len());
    }
    let index = book.join("index.html");
    println!("book: {pages} pages, no broken link: {}", index.display());
    if options.open {
        process::run(Command::new("xdg-open").arg(&index))?;
    }
    Ok(())
}
