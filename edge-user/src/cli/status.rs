//! `breakwater status`: what the shield does.

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
}

impl StatusArgs {
    pub(super) fn request(self) -> StatusRequest {
        StatusRequest { json: self.json }
    }
}
