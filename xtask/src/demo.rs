//! `cargo xtask demo`: builds, and plays the story in network namespaces.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::{build, process, setup};

/// How to play it.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    build: build::Options,
    /// Where the pictures go [default: the build's directory, under `demo`].
    #[arg(long, value_name = "DIRECTORY")]
    pictures: Option<PathBuf>,
}

/// Plays it.
///
/// # Errors
/// When the build fails, or something goes otherwise than the story tells.
pub(crate) fn run(options: &Options) -> Result<()> {
    let binary = build::run(&options.build)?;
    setup::extra(setup::Options {
        e2e: true,
        ..setup::Options::default()
    })?;
    let pictures = options
        .pictures
        .clone()
        .unwrap_or_else(|| process::target_dir().join("demo"));
    let mut demo = process::cargo();
    demo.args([
        "run",
        "--quiet",
        "--locked",
        "--profile",
        "quick",
        "--package",
        "tests",
        "--example",
        "demo",
        "--",
    ])
    .arg(pictures)
    .env("BREAKWATER_BIN", binary);
    process::run(&mut demo)
}
