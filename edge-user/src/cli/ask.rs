//! `breakwater reload`, `drain`, `upgrade`: what a running daemon is asked for.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{AskRequest, args};
use crate::admin::client::Call;

/// Where the daemon is, and how its answer is shown.
#[derive(Debug, Args)]
pub(super) struct SocketArgs {
    /// The daemon's admin socket, if the configuration sets `admin.socket`.
    #[arg(long, value_name = "PATH", env = "BREAKWATER_SOCKET", hide_env = true)]
    pub(super) socket: Option<PathBuf>,

    /// Print the daemon's answer as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Arguments of `reload`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The daemon reads its configuration and every file that it names again, and puts all of it in force or nothing: what is
wrong is told with file, line and key, and the exit code is 3.

Examples:
  breakwater reload
  breakwater reload --json | jq .changes")]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    socket: SocketArgs,
}

/// Arguments of `drain`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The daemon says that it is not ready, then closes its listeners, then ends when its connections have, at the latest
after the deadline. The shield stays.

Examples:
  breakwater drain
  breakwater drain --deadline 2m")]
pub(super) struct DrainArgs {
    /// How long connections may go on, if not `gateway.shutdown_grace`.
    #[arg(long, value_name = "DURATION", value_parser = deadline)]
    deadline: Option<Duration>,

    #[command(flatten)]
    socket: SocketArgs,
}

/// Arguments of `upgrade`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The daemon starts the binary that now has its name, hands over its sockets and the shield, and finishes its connections
when the new process serves. If that one is not ready in time (`gateway.upgrade_timeout`), the old one carries on, and
the exit code is 1; it is 3 if the new one finds the configuration invalid.

Examples:
  breakwater upgrade
  breakwater upgrade --json | jq .process")]
pub(super) struct UpgradeArgs {
    #[command(flatten)]
    socket: SocketArgs,
}

fn deadline(text: &str) -> Result<Duration, String> {
    let duration = args::duration(text)?;
    if (1..=86_400).contains(&duration.as_secs()) {
        Ok(duration)
    } else {
        Err("from a second to a day".to_owned())
    }
}

impl SocketArgs {
    pub(super) fn asking(self, call: Call) -> AskRequest {
        AskRequest {
            call,
            socket: self.socket,
            json: self.json,
        }
    }
}

impl ReloadArgs {
    pub(super) fn request(self) -> AskRequest {
        self.socket.asking(Call::Reload)
    }
}

impl DrainArgs {
    pub(super) fn request(self) -> AskRequest {
        let deadline = self.deadline;
        self.socket.asking(Call::Drain { deadline })
    }
}

impl UpgradeArgs {
    pub(super) fn request(self) -> AskRequest {
        self.socket.asking(Call::Upgrade)
    }
}
