//! What changes something.

use std::{sync::Arc, time::Duration};

use edge_common::abi::BanSource;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::{
    Answer, Asked,
    views::{network, tables},
};
use crate::{
    admin::{
        context::Context,
        daemon::{Refused, Stage},
        problem::Problem,
    },
    config::bounds::{self, MAX_BAN_REASON_CHARS},
    kernel::bans::{BanOrder, Banned},
};

/// Longest deadline for connections.
const MOST_DEADLINE_SECONDS: u64 = 24 * 3600;
/// How often it is told how many connections are left.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// A ban to be made.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewBan {
    network: String,
    #[serde(deserialize_with = "whole")]
    seconds: u64,
    #[serde(default)]
    reason: String,
}

/// How to drain.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Deadline {
    #[serde(default, deserialize_with = "whole_if_any")]
    deadline_seconds: Option<u64>,
}

/// A whole number, however it is written: `1.0` is one in JSON too (JSON Schema 2020-12 core, 4.2.3).
fn whole<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    whole_if_any(deserializer)?.ok_or_else(|| serde::de::Error::custom("a whole number is missing"))
}

fn whole_if_any<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else {
        return Ok(None);
    };
    // Beyond 2^53 not every float is a number of its own, and nothing here is that long.
    let of_float = || {
        let float = number.as_f64().filter(|float| float.fract() == 0.0)?;
        (0.0..9e15).contains(&float).then_some(float as i64)
    };
    let whole = number.as_u64().or_else(|| of_float().map(i64::unsigned_abs));
    whole
        .map(Some)
        .ok_or_else(|| serde::de::Error::custom(format!("{number} is not a whole number from 0")))
}

/// Reads a JSON body.
fn body<T: for<'de> Deserialize<'de>>(asked: &Asked) -> Result<T, Problem> {
    let media_type = asked.content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body is JSON: send `Content-Type: application/json`",
        ));
    }
    serde_json::from_slice(&asked.body).map_err(|error| Problem::bad(format!("the body: {error}")))
}

/// A number of seconds within bounds.
fn seconds(name: &str, seconds: u64, most: u64) -> Result<Duration, Problem> {
    if (1..=most).contains(&seconds) {
        Ok(Duration::from_secs(seconds))
    } else {
        Err(Problem::bad(format!("`{name}` is from 1 to {most}")))
    }
}

pub(super) fn add_ban(context: &Context, asked: &Asked) -> Result<Answer, Problem> {
    let new: NewBan = body(asked)?;
    let net = network(&new.network)?;
    let duration = seconds("seconds", new.seconds, bounds::LONGEST_BAN.as_secs())?;
    if new.reason.chars().count() > MAX_BAN_REASON_CHARS || new.reason.chars().any(char::is_control) {
        return Err(Problem::bad(format!(
            "`reason` is at most {MAX_BAN_REASON_CHARS} characters, none of which controls a terminal"
        )));
    }
    let mut tables = tables(context)?;
    if let Some(address) = tables.covers_local(&net) {
        return Err(Problem::conflict(format!(
            "{net} covers {address}, an address of this machine"
        )));
    }
    let order = BanOrder {
        net,
        duration: Some(duration),
        source: BanSource::Operator,
        new_connections_only: false,
        repeats: 0,
        note: new.reason,
    };
    let lock = context.pins.as_ref().map(crate::kernel::Pins::lock).transpose()?;
    let Some(lock) = lock else {
        return Err(Problem::unavailable("this daemon has no shield"));
    };
    let banned = match tables.ban(&lock, &order)? {
        Banned::Exactly => net,
        Banned::Within(wide) => wide,
    };
    tracing::info!(%net, %banned, seconds = new.seconds, "banned over the admin API");
    let answer = json!({ "network": net, "banned": banned, "seconds": new.seconds });
    Answer::with(StatusCode::CREATED, answer)
}

pub(super) fn remove_ban(context: &Context, text: &str) -> Result<Answer, Problem> {
    let net = network(text)?;
    let mut tables = tables(context)?;
    let lock = context.pins.as_ref().map(crate::kernel::Pins::lock).transpose()?;
    let Some(lock) = lock else {
        return Err(Problem::unavailable("this daemon has no shield"));
    };
    let lifted = tables.pardon(&lock, &net)?;
    if lifted.is_empty() {
        return Err(Problem::missing(format!("{net} is not banned")));
    }
    tracing::info!(%net, "pardoned over the admin API");
    Answer::ok(json!({ "lifted": lifted }))
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        Self::new(refused.status, refused.why)
    }
}

pub(super) async fn reload(context: &Context) -> Result<Answer, Problem> {
    context.events.add("reload", "begun", "");
    match context.daemon.reload().await {
        Ok(changes) => {
            let count = changes["changes"].as_array().map_or(0, Vec::len);
            context.events.add("reload", "done", format!("{count} changes"));
            Answer::ok(changes)
        }
        Err(refused) => {
            context.events.add("reload", "failed", refused.why.clone());
            Err(refused.into())
        }
    }
}

pub(super) async fn drain(context: &Arc<Context>, asked: &Asked) -> Result<Answer, Problem> {
    let deadline = if asked.body.is_empty() {
        Deadline::default()
    } else {
        body(asked)?
    };
    let deadline = deadline
        .deadline_seconds
        .map(|own| seconds("deadline_seconds", own, MOST_DEADLINE_SECONDS))
        .transpose()?;
    context.daemon.drain(deadline).await?;
    context.events.add("drain", "begun", "");
    tokio::spawn(follow(Arc::clone(context)));
    let answer = json!({ "stage": context.daemon.stage().name() });
    Answer::with(StatusCode::ACCEPTED, answer)
}

/// Tells how many connections are left, until the process ends.
async fn follow(context: Arc<Context>) {
    let mut told = None;
    loop {
        let left = context
            .gateway
            .as_ref()
            .map_or(0, crate::gateway::Handle::connections);
        let stage = context.daemon.stage();
        if told != Some((left, stage)) {
            told = Some((left, stage));
            let detail = format!("{}, {left} connections open", stage.name());
            let is_over = left == 0 && stage == Stage::Finishing;
            let how = if is_over { "done" } else { "progress" };
            context.events.add("drain", how, detail);
            if is_over {
                return;
            }
        }
        tokio::time::sleep(PROGRESS_EVERY).await;
    }
}

pub(super) async fn upgrade(context: &Context) -> Result<Answer, Problem> {
    context.events.add("upgrade", "begun", "");
    match context.daemon.upgrade().await {
        Ok(done) => {
            context.events.add("upgrade", "done", done.to_string());
            Answer::ok(done)
        }
        Err(refused) => {
            context.events.add("upgrade", "failed", refused.why.clone());
            Err(refused.into())
        }
    }
}
