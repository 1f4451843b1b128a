//! `breakwater steer`: where a flow goes.

use std::net::SocketAddr;

use clap::{Args, Subcommand, ValueEnum};

use super::{Format, SteerRequest};
use crate::{config::Protocol, kernel::steering::Question};

/// Arguments of `steer`.
#[derive(Debug, Args)]
pub(super) struct SteerArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Tell which backend a flow goes to, and why, by the code that the kernel runs over the tables as they are.
    #[command(after_long_help = "\
Bans, lists and limits are not asked: what is told holds for a packet that they admit.

Examples:
  breakwater steer explain 198.51.100.7:40000 203.0.113.1:443
  breakwater steer explain [2001:db8::7]:40000 [2001:db8:1::1]:53 --proto udp")]
    Explain {
        /// The client's address and port.
        #[arg(value_name = "SRC:PORT")]
        from: SocketAddr,
        /// The service's address and port.
        #[arg(value_name = "DST:PORT")]
        to: SocketAddr,
        /// Protocol of the flow.
        #[arg(long, value_enum, value_name = "PROTOCOL", default_value = "tcp")]
        proto: Proto,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Proto {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

impl SteerArgs {
    pub(super) fn request(self) -> SteerRequest {
        let Action::Explain {
            from,
            to,
            proto,
            json,
        } = self.action;
        SteerRequest {
            question: Question {
                from,
                to,
                protocol: match proto {
                    Proto::Tcp => Protocol::Tcp,
                    Proto::Udp => Protocol::Udp,
                },
            },
            format: if json { Format::Json } else { Format::Text },
        }
    }
}
