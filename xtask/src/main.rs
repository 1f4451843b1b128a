//! `cargo xtask`: sets up, builds, runs, tests and measures Breakwater.
//!
//! One file a subcommand. Imports no crate of the workspace, so that it builds in seconds before anything else
//! is there.

mod apt;
mod build;
mod ebpf_tools;
mod process;
mod run;
mod setup;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser, Debug)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Sets up, builds, runs, tests and measures Breakwater"
)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand, Debug)]
enum Task {
    /// Find what building needs, and install what is missing.
    Setup(setup::Options),
    /// Set up, then build `breakwater`.
    Build(build::Options),
    /// Set up, build, and start `breakwater run`: without arguments, the quick start.
    Run(run::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Task::Setup(options) => setup::run(options),
        Task::Build(options) => build::run(&options).map(drop),
        Task::Run(options) => match run::run(&options) {
            Err(error) => Err(error),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
