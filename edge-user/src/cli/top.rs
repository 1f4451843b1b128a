//! `breakwater top`: the live view.

use std::{io::IsTerminal, time::Duration};

use clap::Args;

use super::{CliError, Format, TopRequest, args};

/// Shortest interval: a reading takes some hundreds of system calls.
const SHORTEST: Duration = Duration::from_millis(100);
/// Longest interval.
const LONGEST: Duration = Duration::from_hours(1);

/// Arguments of `top`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Shows packets a second by service and reason, who is dropped most, and the bans with the time left. Counts are exact;
the heaviest sources are an estimate from sampled drops. Works with the daemon running or not, several times at once,
and beside `capture`: nobody takes samples away.

Keys: q or Esc ends, p stops the picture and lets it go on, b puts the bans that end first on top.

Examples:
  breakwater top
  breakwater top --once                 one picture, as text, after one interval
  breakwater top --json --interval 5s   the same for programs")]
pub(super) struct TopArgs {
    /// Time between two pictures, over which rates are taken.
    #[arg(long, value_name = "DURATION", value_parser = interval, default_value = "1s")]
    interval: Duration,

    /// Print one picture after one interval instead of the live view.
    #[arg(long)]
    once: bool,

    /// The same as JSON.
    #[arg(long)]
    json: bool,
}

impl TopArgs {
    pub(super) fn request(&self) -> Result<TopRequest, CliError> {
        let once = match (self.json, self.once) {
            (true, _) => Some(Format::Json),
            (false, true) => Some(Format::Text),
            (false, false) => None,
        };
        if once.is_none() && !(std::io::stdout().is_terminal() && std::io::stdin().is_terminal()) {
            return Err(CliError::usage(
                "the live view needs a terminal",
                "for one picture use `top --once`, or `top --json`",
            ));
        }
        Ok(TopRequest {
            interval: self.interval,
            once,
        })
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = args::duration(text)?;
    if !(SHORTEST..=LONGEST).contains(&interval) {
        return Err("from 100ms to 1h".to_owned());
    }
    Ok(interval)
}
