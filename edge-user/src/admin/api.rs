//! What each operation answers.
//!
//! Everything that is listed without end is listed by pages. What takes a while is followed by [`super::events`].

mod changes;
mod history;
mod query;
mod views;

use std::sync::Arc;

use http::StatusCode;
use serde_json::Value;

use super::{context::Context, metrics::Format, problem::Problem, router::Operation};
use query::Query;

/// The description of the API.
pub const OPENAPI: &str = include_str!("openapi.json");

/// A request whose row was found.
#[derive(Debug)]
pub(super) struct Asked {
    /// What for.
    pub(super) operation: Operation,
    /// The value of the segment in braces.
    pub(super) value: Option<String>,
    /// The query, as it came.
    pub(super) query: String,
    /// The field `Accept`.
    pub(super) accept: String,
    /// The field `Content-Type`.
    pub(super) content_type: String,
    /// The body, as far as it is allowed to be long.
    pub(super) body: Vec<u8>,
}

/// What is answered.
#[derive(Debug)]
pub(super) enum Answer {
    /// A JSON document.
    Json(StatusCode, Value),
    /// A text of this media type.
    Text(&'static str, String),
}

impl Answer {
    fn ok(value: impl serde::Serialize) -> Result<Self, Problem> {
        Self::with(StatusCode::OK, value)
    }

    fn with(status: StatusCode, value: impl serde::Serialize) -> Result<Self, Problem> {
        serde_json::to_value(value)
            .map(|value| Self::Json(status, value))
            .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
    }
}

/// Answers.
///
/// # Errors
/// What is wrong with the request, or why it cannot be done.
pub(super) async fn answer(context: &Arc<Context>, asked: &Asked) -> Result<Answer, Problem> {
    let takes_body = matches!(asked.operation, Operation::AddBan | Operation::Drain);
    if !takes_body && !asked.body.is_empty() {
        return Err(Problem::bad("this takes no body"));
    }
    let query = Query::parse(&asked.query)?;
    let value = asked.value.as_deref().unwrap_or_default();
    match asked.operation {
        Operation::Bans => return views::bans(context, &query),
        Operation::List => return views::list(context, value, &query),
        Operation::Events => return views::events(context, &query).await,
        Operation::HistorySeries | Operation::HistoryChanges | Operation::HistoryCompare => {
            return history::answer(context, asked.operation, &query).await;
        }
        Operation::HistoryAdvice => return history::advice(context, &query).await,
        _ => query.only(&[])?,
    }
    match asked.operation {
        Operation::Livez => Answer::ok(serde_json::json!({ "status": "alive" })),
        Operation::Readyz => views::readyz(context).await,
        Operation::Metrics => {
            let format = Format::of(&asked.accept);
            let text = context.facts().await.encode(format);
            Ok(Answer::Text(format.content_type(), text))
        }
        Operation::OpenApi => Ok(Answer::Text("application/json", OPENAPI.to_owned())),
        Operation::Status => views::status(context).await,
        Operation::Config => views::config(context),
        Operation::Routes => views::routes(context),
        Operation::Upstreams => views::upstreams(context),
        Operation::Limits => views::limits(context).await,
        Operation::Services => views::services(context).await,
        Operation::Sources => views::sources(context),
        Operation::Jwks => Answer::ok(context.daemon.authority().status()),
        Operation::Lists => views::lists(context),
        Operation::AddBan => changes::add_ban(context, asked),
        Operation::RemoveBan => changes::remove_ban(context, value),
        Operation::Reload => changes::reload(context).await,
        Operation::Drain => changes::drain(context, asked).await,
        Operation::Upgrade => changes::upgrade(context).await,
        Operation::HistoryRoutes => history::answer(context, asked.operation, &query).await,
        Operation::Bans
        | Operation::List
        | Operation::Events
        | Operation::HistorySeries
        | Operation::HistoryChanges
        | Operation::HistoryCompare
        | Operation::HistoryAdvice => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "answered above")),
    }
}
