//! `cargo xtask run`: the set-up, the build, and then `breakwater run` in xtask's place.

use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::{build, process};

/// What to run.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    build: build::Options,
    /// Passed to `breakwater run`; nothing starts the quick start.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Builds, then becomes the daemon, so that signals reach it and its exit code is ours.
///
/// # Errors
/// When the build fails or the binary cannot be started.
pub(crate) fn run(options: &Options) -> Result<Infallible> {
    let binary = build::run(&options.build)?;
    let mut command = if !process::is_root() && process::in_path("sudo") {
        let mut sudo = Command::new("sudo");
        sudo.arg(&binary);
        sudo
    } else {
        // Without root and sudo the daemon itself says what it lacks and what works all the same.
        Command::new(&binary)
    };
    command.arg("run").args(&options.arguments);
    println!("run: {}", process::shown(&command));
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", binary.display()))
}
