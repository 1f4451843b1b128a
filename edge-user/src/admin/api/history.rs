//! What is remembered of routes. Reading waits for a file, so it is done beside everything else.

use std::{sync::Arc, time::SystemTime};

use serde_json::{Value, json};

use super::{Answer, query::Query};
use crate::{
    admin::{context::Context, metrics::since_epoch, problem::Problem, router::Operation},
    advise,
    history::{
        Keeper, Reader,
        question::{self, Question, Wrong},
    },
};

/// Most points of one answer.
const MOST_POINTS: i64 = 11_000;

/// A moment long after everything, seconds since the epoch.
const FAR: u64 = 1 << 40;

pub(super) async fn answer(
    context: &Context,
    operation: Operation,
    query: &Query,
) -> Result<Answer, Problem> {
    let keeper = context.history.clone().ok_or_else(|| {
        Problem::conflict(
            "there is no history: the configuration has no `[history]`, or has it since the start",
        )
    })?;
    let now = since_epoch(SystemTime::now()) as i64;
    let read: Box<dyn FnOnce() -> Result<Value, Wrong> + Send> = match operation {
        Operation::HistoryRoutes => routes(keeper),
        Operation::HistorySeries => series(keeper, query, now)?,
        Operation::HistoryChanges => changes(keeper, query)?,
        _ => compare(keeper, query, now)?,
    };
    let read = tokio::task::spawn_blocking(read).await;
    let read = read.map_err(|error| Problem::unavailable(error.to_string()))?;
    read.map_err(|wrong| problem(&wrong)).and_then(Answer::ok)
}

/// What could be steered past the gateway; also without a history.
pub(super) async fn advice(context: &Context, query: &Query) -> Result<Answer, Problem> {
    query.only(&["last"])?;
    let last = match query.get::<String>("last", "text")? {
        None => advise::USUAL,
        Some(text) => advise::last(&text).map_err(|why| Problem::bad(format!("`last`: {why}")))?,
    };
    let (config, keeper) = (context.daemon.config(), context.history.clone());
    let now = since_epoch(SystemTime::now()) as i64;
    let read = tokio::task::spawn_blocking(move || {
        let settings = keeper.as_ref().map(|keeper| &keeper.settings);
        advise::measure(settings, last, now).map(|figures| advise::report(&config, figures))
    });
    let read = read
        .await
        .map_err(|error| Problem::unavailable(error.to_string()))?;
    read.map_err(|error| problem(&error.into())).and_then(Answer::ok)
}

type Read = Box<dyn FnOnce() -> Result<Value, Wrong> + Send>;

fn routes(keeper: Arc<Keeper>) -> Read {
    Box::new(move || {
        let routes = Reader::open(&keeper.settings.path)?.routes()?;
        Ok(
            json!({ "routes": routes, "cell_seconds": keeper.settings.every.as_secs(), "state": keeper.state() }),
        )
    })
}

fn series(keeper: Arc<Keeper>, query: &Query, now: i64) -> Result<Read, Problem> {
    query.only(&["route", "from", "to", "step"])?;
    let route = name(query)?;
    let moment = |name, usual: i64| {
        query
            .number(name, usual.unsigned_abs(), 0, FAR)
            .map(u64::cast_signed)
    };
    let to = moment("to", now)?;
    let from = moment("from", to.saturating_sub(3600).max(0))?;
    let every = keeper.settings.every.as_secs();
    let step = query.number("step", every, every, 86_400)?.cast_signed();
    if from > to || (to - from) / step > MOST_POINTS {
        return Err(Problem::bad(format!(
            "`from` is before `to`, and there are at most {MOST_POINTS} points: take a larger `step`"
        )));
    }
    Ok(Box::new(move || {
        let points = question::series(&keeper.settings.path, &route, (from, to), step)?;
        let points: Vec<Value> = points
            .into_iter()
            .map(|(at, point)| {
                let mut value = json!(point);
                value["at"] = json!(at);
                value
            })
            .collect();
        Ok(json!({ "route": route, "from": from, "to": to, "step": step, "points": points }))
    }))
}

fn changes(keeper: Arc<Keeper>, query: &Query) -> Result<Read, Problem> {
    query.only(&["before", "limit"])?;
    let (before, limit) = (query.number("before", FAR, 0, FAR)?, query.page()?);
    Ok(Box::new(move || {
        let changes = Reader::open(&keeper.settings.path)?.changes(before as f64, limit as u64)?;
        Ok(json!({ "changes": changes }))
    }))
}

fn compare(keeper: Arc<Keeper>, query: &Query, now: i64) -> Result<Read, Problem> {
    query.only(&["route", "with", "for", "around", "until"])?;
    let text = |name| query.get::<String>(name, "text");
    let question = Question {
        route: name(query)?,
        with: text("with")?,
        length: text("for")?,
        around: text("around")?,
        until: text("until")?,
    };
    let cell = u32::try_from(keeper.settings.every.as_secs()).unwrap_or(60);
    Ok(Box::new(move || {
        let compared = question::compare(&keeper.settings.path, &question, cell, now)?;
        Ok(json!(compared))
    }))
}

fn name(query: &Query) -> Result<String, Problem> {
    let name = query.get::<String>("route", "the name of a route")?;
    name.filter(|name| !name.is_empty())
        .ok_or_else(|| Problem::bad("`route` is missing: the name of a route"))
}

fn problem(wrong: &Wrong) -> Problem {
    match wrong {
        Wrong::Argument { .. } => Problem::bad(wrong.to_string()),
        Wrong::Missing(_) => Problem::missing(wrong.to_string()),
        Wrong::Store(_) => Problem::unavailable(format!("the history cannot be read: {wrong}")),
    }
}
