//! `cargo xtask`: sets up, builds, runs, tests and measures Breakwater.
//!
//! One file a subcommand. Imports no crate of the workspace, so that it builds in seconds before anything else
//! is there.

mod apt;
mod bench;
mod book;
mod build;
mod cargo;
mod deb;
mod demo;
mod deny;
mod ebpf_tools;
mod fuzz;
mod process;
mod run;
mod setup;
mod test;
mod tidy;
mod vm;

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
    /// Build a Debian package.
    Deb(deb::Options),
    /// Set up, build, and start `breakwater run`: without arguments, the quick start.
    Run(run::Options),
    /// Set up, build, and play the story in network namespaces, in about two minutes. Needs root.
    Demo(demo::Options),
    /// Run every check and test, or some parts.
    Test(test::Options),
    /// Check the conventions of this tree.
    Tidy,
    /// Make a book of the documentation, by mdBook, and look at its links.
    Book(book::Options),
    /// Measure: without a name, list the measurements.
    Bench(bench::Options),
    /// Run a fuzz target: without a name, list them.
    Fuzz(fuzz::Options),
    /// Boot a kernel under QEMU with one test program.
    Vm(vm::Options),
    /// Process 1 of the VM.
    #[command(hide = true)]
    GuestInit,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Task::Setup(options) => setup::run(options).map(|()| ExitCode::SUCCESS),
        Task::Build(options) => build::run(&options).map(|_| ExitCode::SUCCESS),
        Task::Deb(options) => deb::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Run(options) => run::run(&options).map(|never| match never {}),
        Task::Demo(options) => demo::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Test(options) => Ok(exit_code(test::run(&options))),
        Task::Tidy => tidy::run().map(exit_code),
        Task::Book(options) => book::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Bench(options) => bench::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Fuzz(options) => fuzz::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Vm(options) => vm::run(&options).map(ExitCode::from),
        Task::GuestInit => vm::guest::run().map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn exit_code(success: bool) -> ExitCode {
    if success {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_two_dashes_is_the_daemon_s() {
        let cli = Cli::try_parse_from(["xtask", "run", "--release", "--", "--config", "my.toml"]);
        assert!(matches!(cli.unwrap().command, Task::Run(_)));
        assert!(Cli::try_parse_from(["xtask", "run", "--config", "my.toml"]).is_err());
        assert!(Cli::try_parse_from(["xtask", "vm", "--kernel", "6.1"]).is_err());
    }

    /// `cargo xtask …` in the pages, in blocks and between backquotes; `[…]` is what may be left out.
    #[test]
    fn the_pages_have_no_command_that_there_is_not() {
        let root = process::workspace();
        let docs = std::fs::read_dir(root.join("docs")).unwrap();
        let docs = docs.map(|entry| entry.unwrap().path());
        let pages = [root.join("README.md"), root.join("CONTRIBUTING.md")];
        let mut seen = 0;
        for page in docs
            .chain(pages)
            .filter(|page| page.extension().is_some_and(|ending| ending == "md"))
        {
            let text = std::fs::read_to_string(&page).unwrap();
            let lines = text.lines().flat_map(|line| line.split('`'));
            for line in lines.filter_map(|line| line.strip_prefix("cargo xtask ")) {
                let line = line.split(" #").next().unwrap_or(line).replace(['[', ']'], "");
                let words = std::iter::once("xtask").chain(line.split_whitespace());
                if let Err(error) = Cli::try_parse_from(words) {
                    panic!("{}: {line}: {error}", page.display());
                }
                seen += 1;
            }
        }
        assert!(seen > 40, "{seen}");
    }
}
