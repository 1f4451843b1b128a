//! The log: events of `tracing` as lines on stderr, for people or as JSON.
//!
//! Standard output is left to the answers of commands. A closed stderr costs the lines, never the process.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, filter::ParseError, util::SubscriberInitExt};

/// What is logged if nothing is said.
pub const DEFAULT_FILTER: &str = "info";

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people: time, level, place, message, fields; coloured on a terminal.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is not one.
    #[error("`{filter}` is not a log filter: {source}")]
    Filter {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// The process logs already.
    #[error("the log is already set up")]
    Twice,
}

/// Checks a filter: a level (`debug`) or directives (`info,edge_user::gateway=trace`).
pub fn parse_filter(filter: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::builder()
        .parse(filter)
        .map_err(|source| LoggingError::Filter {
            filter: filter.to_owned(),
            source,
        })
}

/// Starts logging to stderr; once in a process.
pub fn init(format: LogFormat, filter: &str) -> Result<(), LoggingError> {
    let filter = parse_filter(filter)?;
    // An error while writing a line would be printed to the stream that just failed, and panic.
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let started = match format {
        LogFormat::Human => lines.with_ansi(wants_colour()).finish().try_init(),
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init(),
    };
    started.map_err(|_| LoggingError::Twice)
}

/// Colour on a terminal, unless <https://no-color.org> is heeded or the terminal has none.
fn wants_colour() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal()
        && !set("NO_COLOR")
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked() {
        for good in [
            "info",
            "debug",
            "info,edge_user::gateway=trace",
            "off",
            DEFAULT_FILTER,
        ] {
            assert!(parse_filter(good).is_ok(), "{good}");
        }
        let error = parse_filter("info,gateway=loud").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("`info,gateway=loud` is not a log filter"),
            "{error}"
        );
    }
}
