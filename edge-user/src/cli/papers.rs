//! `breakwater schema`, `completions` and `man`: what a package installs beside the binary, made of the command line's own
//! definition.

use std::{io::Write, path::PathBuf};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, CliError, Exit, Output};
use crate::config;

/// Arguments of `completions`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  breakwater completions bash > /etc/bash_completion.d/breakwater
  breakwater completions zsh > /usr/share/zsh/vendor-completions/_breakwater
  breakwater completions fish > ~/.config/fish/completions/breakwater.fish")]
pub(super) struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

pub(super) fn completions(args: &CompletionsArgs, out: &mut Output<impl Write>) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "breakwater", &mut script);
    out.line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Exit::Done)
}

/// Prints the schema of the configuration.
pub(super) fn schema(out: &mut Output<impl Write>) -> Result<Exit, CliError> {
    out.line(format!("{:#}", config::schema()))?;
    Ok(Exit::Done)
}

/// Arguments of `man`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Writes breakwater.1 and a page for each verb, as breakwater-run.1 and breakwater-ban-add.1. Pages that are there are replaced.

Examples:
  breakwater man /usr/local/share/man/man1")]
pub(super) struct ManArgs {
    /// Where the pages go; it has to be there.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(super) fn man(args: &ManArgs, out: &mut Output<impl Write>) -> Result<Exit, CliError> {
    let directory = args.directory.display();
    let failed = |error| {
        CliError::usage(
            format!("cannot write to {directory}: {error}"),
            "name a directory that is there",
        )
    };
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), &args.directory)
        .map_err(failed)?;
    out.line(format_args!("{directory}: pages for breakwater and every verb"))?;
    Ok(Exit::Done)
}
