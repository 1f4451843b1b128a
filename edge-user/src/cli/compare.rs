//! `breakwater compare`: what a route does, beside what it did.

use clap::Args;

use super::{AskRequest, ask::SocketArgs};
use crate::{admin::client::Call, history::question::Question};

/// Arguments of `compare`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Asks the running daemon, which keeps a history if the configuration has [history]. Every difference has an interval, so
that chance is not taken for a change. With --around the time after a change is compared, usually with the time before.

Examples:
  breakwater compare --route graphql                           the last hour with the same hour a week ago
  breakwater compare --route graphql --with yesterday --for 6h
  breakwater compare --route graphql --around last             after the last reload with before it
  breakwater compare --route graphql --around 12 --with \"1 week ago\" --json")]
pub(super) struct CompareArgs {
    /// The route.
    #[arg(long, value_name = "NAME")]
    route: String,

    /// With which time: `1 week ago`, `yesterday`, `2h ago`, `before`, `2026-11-19 14:00` (UTC) [default: 1 week ago; before,
    /// with --around].
    #[arg(long, value_name = "TIME")]
    with: Option<String>,

    /// How long the times are, from a cell of the history to 7 days [default: 1h].
    #[arg(long = "for", value_name = "DURATION")]
    length: Option<String>,

    /// Compare the time after this change: its number, or `last`.
    #[arg(long, value_name = "CHANGE")]
    around: Option<String>,

    /// Where the later time ends, as in `2026-11-19 14:00` (UTC) [default: now].
    #[arg(long, value_name = "TIME")]
    until: Option<String>,

    #[command(flatten)]
    socket: SocketArgs,
}

impl CompareArgs {
    pub(super) fn request(self) -> AskRequest {
        let question = Question {
            route: self.route,
            with: self.with,
            length: self.length,
            around: self.around,
            until: self.until,
        };
        self.socket.asking(Call::Compare(question))
    }
}
