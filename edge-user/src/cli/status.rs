//! `breakwater status`: what the shield does.

use std::path::PathBuf;

use clap::Args;

use super::StatusRequest;

/// Arguments of `status`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  breakwater status
  breakwater status --json | jq")]
pub(super) struct StatusArgs {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,

    /// The daemon's admin socket, if the configuration sets `admin.socket`.
    #[arg(long, value_name = "PATH", env = "BREAKWATER_SOCKET", hide_env = true)]
    socket: Option<PathBuf>,
}

impl StatusArgs {
    pub(super) fn request(self) -> StatusRequest {
        StatusRequest {
            socket: self.socket,
            json: self.json,
        }
    }
}
