//! `breakwater detach`: the shield off.

use clap::Args;

use super::{DetachRequest, args};

/// Arguments of `detach`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Detaches the XDP program and, with the last interface, removes its maps, bans included. Doing it twice is no error.

Examples:
  breakwater detach
  breakwater detach --interface eth1")]
pub(super) struct DetachArgs {
    /// Detach from this interface only (may be repeated).
    #[arg(long = "interface", short, value_name = "NAME", value_parser = args::interface)]
    interfaces: Vec<String>,
}

impl DetachArgs {
    pub(super) fn request(self) -> DetachRequest {
        DetachRequest {
            interfaces: self.interfaces,
        }
    }
}
