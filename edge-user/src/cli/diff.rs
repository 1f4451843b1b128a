//! `breakwater diff`: what another configuration would do with the requests that came.

use std::{
    fs::File,
    io::{self, BufReader},
    path::PathBuf,
    time::Duration,
};

use clap::Args;

use super::{CliError, DiffRequest, Format, args};
use crate::lifecycle::Shapes;

/// Arguments of `diff`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Each shape of request in the access log (method, scheme, host, path) is put on trial by both configurations, as `explain`
does; nothing is sent, and no key is read or fetched. Told are the requests whose route, limits, token or outcome would be
another, the most frequent first.

A log has neither tokens nor headers nor queries: who was let in is taken for let in again, who was refused for a token is
refused again, and routes that go by headers or queries take no request here.

Examples:
  breakwater diff /etc/breakwater/edge.toml edge.toml --access-log /var/log/breakwater/access.log
  journalctl -u breakwater -o cat --since -1h | breakwater diff old.toml new.toml --access-log - --json")]
pub(super) struct DiffArgs {
    /// The configuration that is in force.
    #[arg(value_name = "OLD")]
    old: PathBuf,

    /// The other.
    #[arg(value_name = "NEW")]
    new: PathBuf,

    /// The access log, in JSON; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    access_log: PathBuf,

    /// How much of it, back from its newest line.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    last: Duration,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl DiffArgs {
    pub(super) fn request(self) -> Result<DiffRequest, CliError> {
        let [old, new] = [&self.old, &self.new].map(|file| args::load(file));
        let name = self.access_log.display();
        let read = if self.access_log.as_os_str() == "-" {
            Shapes::read(io::stdin().lock(), self.last)
        } else {
            File::open(&self.access_log).and_then(|file| Shapes::read(BufReader::new(file), self.last))
        };
        let recorded = read.map_err(|error| CliError::usage(format!("--access-log {name}: {error}"), ""))?;
        if recorded.requests() == 0 {
            let remedy = "it takes lines of the access log in JSON (`gateway.access_log.format = \"json\"`)";
            return Err(CliError::usage(
                format!("--access-log {name} has no request that can be asked again"),
                remedy,
            ));
        }
        Ok(DiffRequest {
            old: Box::new(old?.config),
            new: Box::new(new?.config),
            recorded,
            format: if self.json { Format::Json } else { Format::Text },
        })
    }
}
