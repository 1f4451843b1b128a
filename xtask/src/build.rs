//! `cargo xtask build`: the set-up, then the `breakwater` binary.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;

use crate::{process, setup};

/// How to build.
#[derive(Args, Debug, Default)]
#[group(id = "build")]
pub(crate) struct Options {
    /// Optimise across all crates, as packages are built. Takes minutes longer than the default, `quick`.
    #[arg(long)]
    release: bool,
}

/// Builds `breakwater` and returns its path.
///
/// # Errors
/// When the set-up or the build fails.
pub(crate) fn run(options: &Options) -> Result<PathBuf> {
    in_profile(if options.release { "release" } else { "quick" })
}

/// Builds `breakwater` in a profile and returns its path.
///
/// # Errors
/// When the set-up or the build fails.
pub(crate) fn in_profile(profile: &str) -> Result<PathBuf> {
    setup::run(setup::Options::default())?;
    let binary = process::target_dir().join(profile).join("breakwater");
    if !binary.exists() {
        println!("build: the first build compiles about 250 crates: some minutes on two cores");
    }
    let began = Instant::now();
    process::run(process::cargo().args([
        "build",
        "--locked",
        "--package",
        "edge-user",
        "--bin",
        "breakwater",
        "--profile",
        profile,
    ]))
    .context("the build failed")?;
    println!(
        "build: {} in {:.0} s",
        binary.display(),
        began.elapsed().as_secs_f64()
    );
    Ok(binary)
}
