//! `breakwater advise`: what could be steered past the gateway, and what that would save.

use std::path::PathBuf;

use clap::Args;

use super::{AdviseRequest, CliError, Format, args, ask::SocketArgs};
use crate::{admin::client::Call, advise};

/// Arguments of `advise`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
A service of kind = \"direct\" is spread over its backends in the kernel, by address and port; nothing of it reaches the
gateway. Told are the listeners and hosts that could be served so, with the gateway's own time that this would have saved,
and for the others the keys that need the gateway. Ends with what could be put into the configuration.

Savings are what the history has measured ([history]); without it there are verdicts and no numbers. What steering itself
costs is not measured.

Asks the running daemon; with --config no daemon is needed: the file is read, and the history that it names.

Examples:
  breakwater advise                                  the last 24 hours, or what there is
  breakwater advise --last 7d --json
  breakwater advise --config /etc/breakwater/edge.toml")]
pub(super) struct AdviseArgs {
    /// Read this configuration and its history, instead of asking the daemon.
    #[arg(long, short, value_name = "FILE", conflicts_with = "socket")]
    config: Option<PathBuf>,

    /// How much of the history, back from now.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = last)]
    last: String,

    #[command(flatten)]
    socket: SocketArgs,
}

/// A period, kept as text for the daemon.
fn last(text: &str) -> Result<String, String> {
    advise::last(text).map(|_| text.to_owned())
}

impl AdviseArgs {
    pub(super) fn request(self) -> Result<AdviseRequest, CliError> {
        let Some(file) = &self.config else {
            let call = Call::Advise { last: self.last };
            return Ok(AdviseRequest::Ask(self.socket.asking(call)));
        };
        let last = advise::last(&self.last).map_err(|why| CliError::usage(format!("--last: {why}"), ""))?;
        Ok(AdviseRequest::Read {
            config: Box::new(args::load(file)?.config),
            last,
            format: if self.socket.json {
                Format::Json
            } else {
                Format::Text
            },
        })
    }
}
