//! `breakwater capture`: sampled drops into a file.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use edge_common::abi::{Outcome, Reason};
use ipnet::IpNet;

use super::{CaptureRequest, Sampled, args};

/// Arguments of `capture`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Writes a pcapng file that Wireshark opens; the reason of each drop is the packet's comment. The kernel samples a few
packets a tick and CPU, never each one, and keeps their first 128 bytes; what it did not sample is counted and told at
the end. Works with the daemon running or not, and beside `top` and other captures: nobody takes samples away.

Examples:
  breakwater capture --dropped out.pcapng                        until Ctrl-C
  breakwater capture out.pcapng --for 10s --reason source_packets
  breakwater capture - --count 100 | tshark -r - -T fields -e ip.src -e frame.comment")]
pub(super) struct CaptureArgs {
    /// Where to write; `-` is standard output.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Only what is dropped, and not what is only observed (see `shield.observe`).
    #[arg(long, conflicts_with = "observed")]
    dropped: bool,

    /// Only what is observed, and passes.
    #[arg(long)]
    observed: bool,

    /// Only this reason (may be repeated); names are those of `status`.
    #[arg(long = "reason", value_name = "NAME", value_parser = reason)]
    reasons: Vec<Reason>,

    /// Only from this address or network (may be repeated).
    #[arg(long = "from", value_name = "ADDR[/LEN]", value_parser = args::network)]
    sources: Vec<IpNet>,

    /// Only what arrived on this interface (may be repeated).
    #[arg(long = "interface", short, value_name = "NAME", value_parser = args::interface)]
    interfaces: Vec<String>,

    /// Stop after this many packets.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Stop after this time, as in 30s, 10m.
    #[arg(long = "for", value_name = "DURATION", value_parser = args::duration)]
    duration: Option<Duration>,

    /// Overwrite the file if there is one.
    #[arg(long)]
    force: bool,
}

impl CaptureArgs {
    pub(super) fn request(self) -> CaptureRequest {
        CaptureRequest {
            file: (self.file.as_os_str() != "-").then_some(self.file),
            sampled: match (self.dropped, self.observed) {
                (true, _) => Sampled::Dropped,
                (false, true) => Sampled::Observed,
                (false, false) => Sampled::Both,
            },
            reasons: self.reasons,
            sources: self.sources,
            interfaces: self.interfaces,
            count: self.count,
            duration: self.duration,
            overwrite: self.force,
        }
    }
}

/// A reason that drops.
fn reason(text: &str) -> Result<Reason, String> {
    let drops = || {
        Reason::ALL
            .iter()
            .copied()
            .filter(|reason| matches!(reason.outcome(), Outcome::Drop))
    };
    drops().find(|reason| reason.name() == text).ok_or_else(|| {
        let names: Vec<_> = drops().map(Reason::name).collect();
        format!("no such reason; there are {}", names.join(", "))
    })
}
