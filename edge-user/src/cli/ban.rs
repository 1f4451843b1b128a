//! `breakwater ban`: who is kept out.

use std::time::Duration;

use clap::{Args, Subcommand};
use ipnet::IpNet;

use super::{BanRequest, args};
use crate::config::bounds;

/// Longest reason, in characters.
pub const MAX_REASON_CHARS: usize = bounds::MAX_BAN_REASON_CHARS;

/// Prefix lengths that the kernel's ban map looks up.
const V4_LENGTHS: [u8; 2] = [32, 24];
const V6_LENGTHS: [u8; 4] = [128, 64, 56, 48];

/// Arguments of `ban`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
A ban drops every packet of an address or network to a protected service, in the kernel, until it ends. It works
whether or not the gateway runs.

Examples:
  breakwater ban add 192.0.2.7 --for 10m --reason \"scraping\"
  breakwater ban add 2001:db8:7::/48 --for 1h
  breakwater ban list
  breakwater ban del 192.0.2.7")]
pub(super) struct BanArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Ban an address or network for a time; banning it again sets the time anew.
    Add {
        /// An address, or a network of /24 (IPv4), /64, /56 or /48 (IPv6).
        #[arg(value_name = "ADDR[/LEN]", value_parser = banned_network)]
        network: IpNet,

        /// How long, as in 30s, 10m, 1h, 2days.
        #[arg(long = "for", value_name = "DURATION", value_parser = ban_duration, default_value = "10m")]
        duration: Duration,

        /// Why, for whoever lists the bans later.
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: Option<String>,
    },
    /// Lift a ban.
    Del {
        /// As it was banned.
        #[arg(value_name = "ADDR[/LEN]", value_parser = banned_network)]
        network: IpNet,
    },
    /// List the bans in force, each with its reason and the time left.
    List {
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
}

impl BanArgs {
    pub(super) fn request(self) -> BanRequest {
        match self.action {
            Action::Add {
                network,
                duration,
                reason,
            } => BanRequest::Add {
                network,
                duration,
                reason,
            },
            Action::Del { network } => BanRequest::Delete { network },
            Action::List { json } => BanRequest::List { json },
        }
    }
}

fn banned_network(text: &str) -> Result<IpNet, String> {
    let network = args::network(text)?;
    let lengths: &[u8] = match network {
        IpNet::V4(_) => &V4_LENGTHS,
        IpNet::V6(_) => &V6_LENGTHS,
    };
    if lengths.contains(&network.prefix_len()) {
        return Ok(network);
    }
    let lengths: Vec<_> = lengths.iter().map(|length| format!("/{length}")).collect();
    Err(format!(
        "a ban is {}; for other networks use `shield.deny` in the configuration",
        lengths.join(" or ")
    ))
}

fn ban_duration(text: &str) -> Result<Duration, String> {
    let duration = args::duration(text)?;
    if duration > bounds::LONGEST_BAN {
        return Err(format!(
            "a ban lasts at most {}",
            humantime::format_duration(bounds::LONGEST_BAN)
        ));
    }
    Ok(duration)
}

fn reason(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().count() > MAX_REASON_CHARS || text.chars().any(char::is_control) {
        return Err(format!("one line of 1 to {MAX_REASON_CHARS} characters"));
    }
    Ok(text.to_owned())
}
