//! `breakwater run`: the daemon.

use std::path::PathBuf;

use clap::Args;

use super::{
    CliError, ConfigSource, RunRequest,
    args::{self, ShieldArgs},
};
use crate::auth;

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Without --config the built-in quick start runs: a gateway on 127.0.0.1:8080, the shield on `lo` judging that port
alone, two demo services, and a token printed to try them with. Ctrl-C stops it and leaves nothing behind.

With --config it is the real daemon: Ctrl-C or SIGTERM stops the gateway and leaves the shield in place, so that the
machine stays protected; `breakwater detach` takes it off.

Examples:
  breakwater run
  breakwater run --config edge.toml
  breakwater run --config edge.toml --interface eth0 --interface eth1 --log json")]
pub(super) struct RunArgs {
    /// The configuration; without it the built-in quick start runs.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    shield: ShieldArgs,
}

impl RunArgs {
    pub(super) fn request(self) -> Result<RunRequest, CliError> {
        let overrides = self.shield.overrides()?;
        let source = match self.config {
            None => ConfigSource::Quickstart,
            Some(path) => {
                let loaded = args::load(&path)?;
                // Keys are parsed again when the daemon starts; here a bad one still has its line.
                auth::load(&loaded)?;
                let mut config = Box::new(loaded.config);
                overrides.apply(&mut config);
                ConfigSource::File { path, config }
            }
        };
        Ok(RunRequest { source, overrides })
    }
}
