//! What only looks.

use std::{collections::BTreeMap, time::Duration};

use http::StatusCode;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::{Answer, query};
use crate::{
    admin::{
        context::{Context, state_name},
        metrics::since_epoch,
        problem::Problem,
    },
    config::{Action, AuthPolicy, Config, Route, bounds::MAX_LIST, parse_network},
    gateway::{Handle, durations::DurationsSnapshot, tax::Phase},
    kernel::{KernelError, ShieldTables, lists::List},
};

use query::Query;

/// Longest that somebody may wait for events.
const MOST_WAIT_SECONDS: u64 = 30;

/// The largest number of an event that every reader of JSON can tell from its neighbours (RFC 8259, 6).
const MOST_EVENTS: u64 = (1 << 53) - 1;

/// Reads a network as the configuration does.
pub(super) fn network(text: &str) -> Result<IpNet, Problem> {
    parse_network(text).map_err(|(message, help)| Problem::bad(format!("{message}; {help}")))
}

impl From<KernelError> for Problem {
    fn from(error: KernelError) -> Self {
        match &error {
            KernelError::BanPrefix { .. } => Self::bad(error.to_string()),
            KernelError::BanRefused { .. } => Self::conflict(error.to_string()),
            _ => Self::unavailable(error.to_string()),
        }
    }
}

/// The shield's tables.
pub(super) fn tables(context: &Context) -> Result<ShieldTables, Problem> {
    let pins = context
        .pins
        .as_ref()
        .ok_or_else(|| Problem::unavailable("this daemon has no shield"))?;
    Ok(ShieldTables::open(pins)?)
}

fn gateway(context: &Context) -> Result<&Handle, Problem> {
    context
        .gateway
        .as_ref()
        .ok_or_else(|| Problem::unavailable("this daemon has no gateway"))
}

pub(super) async fn readyz(context: &Context) -> Result<Answer, Problem> {
    let reasons = context.unready().await;
    let status = if reasons.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Answer::with(status, json!({ "ready": reasons.is_empty(), "reasons": reasons }))
}

pub(super) async fn status(context: &Context) -> Result<Answer, Problem> {
    let reasons = context.unready().await;
    let orders = context.daemon.orders();
    let shield = match &context.pins {
        Some(_) => context
            .daemon
            .shield()
            .await
            .unwrap_or_else(|error| json!({ "error": error })),
        None => Value::Null,
    };
    Answer::ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "process": std::process::id(),
        "started": since_epoch(context.started),
        "stage": context.daemon.stage().name(),
        "ready": reasons.is_empty(),
        "reasons": reasons,
        "configuration": {
            "generation": orders.generation,
            "since": orders.configured_at,
            "reloads": orders.reloads,
            "reloads_failed": orders.reloads_failed,
            "last_reload_failed": orders.last_reload_failed,
        },
        "gateway": context.gateway.as_ref().map(|handle| gateway_status(context, handle)),
        "shield": shield,
    }))
}

/// The gateway at a glance.
fn gateway_status(context: &Context, gateway: &Handle) -> Value {
    let counters = gateway.counters();
    let refusals: BTreeMap<_, _> = counters
        .refusals
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| (reason.slug(), *count))
        .collect();
    let closings: BTreeMap<_, _> = gateway
        .closings()
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(closing, count)| (closing.slug(), count))
        .collect();
    json!({
        "connections": gateway.connections(),
        "closings": closings,
        "access_lines_lost": gateway.lost_access_lines(),
        "auth": context.daemon.authority().status(),
        "limits": gateway.limits(),
        "refusals": refusals,
        "offences_lost": context.reporter.lost(),
        "arrivals_lost": gateway.lost_arrivals(),
    })
}

pub(super) fn config(context: &Context) -> Result<Answer, Problem> {
    let config = context.daemon.config();
    Answer::ok(json!({
        "generation": context.daemon.orders().generation,
        "document": config.document.value(),
    }))
}

/// Counts by class of status.
fn by_class(statuses: &[u64; 5]) -> Value {
    let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(statuses);
    classes
        .map(|(class, count)| (class.to_owned(), Value::from(*count)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn mean(durations: &DurationsSnapshot) -> Value {
    match durations.count() {
        0 => Value::Null,
        count => (durations.sum_ns as f64 / count as f64 / 1e9).into(),
    }
}

fn upstream_names(config: &Config, route: &Route) -> Vec<String> {
    let indices: Vec<usize> = match &route.action {
        Action::Upstream(upstream) => vec![*upstream],
        Action::Split(split) => split.parts.iter().map(|(upstream, _)| *upstream).collect(),
        Action::FanOut(fan_out) => fan_out.parts.iter().map(|part| part.upstream).collect(),
        Action::Redirect(_) | Action::Respond(_) => Vec::new(),
    };
    let names = indices.iter().filter_map(|index| config.upstreams.get(*index));
    names.map(|upstream| upstream.name.clone()).collect()
}

pub(super) fn routes(context: &Context) -> Result<Answer, Problem> {
    let (config, counters) = (context.daemon.config(), gateway(context)?.counters());
    let routes = counters.routes.iter().map(|counted| {
        let route = config.routes.iter().find(|route| route.name == counted.name);
        let action = route.map(|route| match &route.action {
            Action::Upstream(_) => "forward",
            Action::Split(_) => "split",
            Action::Redirect(_) => "redirect",
            Action::Respond(_) => "respond",
            Action::FanOut(_) => "fan_out",
        });
        let auth = route.map(|route| match &route.auth {
            AuthPolicy::None => "none",
            AuthPolicy::Optional(_) => "optional",
            AuthPolicy::Required(_) => "required",
        });
        let tax = counted.tax.phase(Phase::Total);
        json!({
            "name": counted.name,
            "action": action,
            "auth": auth,
            "upstreams": route.map(|route| upstream_names(&config, route)).unwrap_or_default(),
            "responses": by_class(&counted.statuses),
            "unanswered": counted.unanswered,
            "authenticated": counted.verified,
            "received_bytes": counted.received,
            "sent_bytes": counted.sent,
            "mean_seconds": mean(&counted.durations),
            "tax_median_seconds": (tax.count > 0).then(|| tax.quantile_ns(0.5) / 1e9),
            "tax_p99_seconds": (tax.count > 0).then(|| tax.quantile_ns(0.99) / 1e9),
        })
    });
    Answer::ok(json!({ "routes": routes.collect::<Vec<_>>() }))
}

pub(super) fn upstreams(context: &Context) -> Result<Answer, Problem> {
    let gateway = gateway(context)?;
    let counters = gateway.counters();
    let upstreams = gateway.upstreams().into_iter().map(|(name, endpoints)| {
        let counted = counters.upstreams.iter().find(|counted| counted.name == name);
        let failures: BTreeMap<_, _> = counted
            .iter()
            .flat_map(|counted| &counted.failures)
            .map(|(reason, count)| (reason.slug(), *count))
            .collect();
        let endpoints = endpoints.iter().map(|status| {
            let endpoint = &status.endpoint;
            let (requests, failures) = endpoint.counts();
            json!({
                "address": endpoint.address().to_string(),
                "state": state_name(status.state),
                "weight": endpoint.weight(),
                "zone": endpoint.zone(),
                "requests": requests,
                "failures": failures,
                "failures_in_a_row": endpoint.failures_in_a_row(),
                "active": endpoint.active(),
            })
        });
        json!({
            "name": name,
            "responses": by_class(&counted.map_or([0; 5], |counted| counted.statuses)),
            "failures": failures,
            "mean_seconds": counted.map_or(Value::Null, |counted| mean(&counted.durations)),
            "endpoints": endpoints.collect::<Vec<_>>(),
        })
    });
    Answer::ok(json!({ "upstreams": upstreams.collect::<Vec<_>>() }))
}

pub(super) fn bans(context: &Context, query: &Query) -> Result<Answer, Problem> {
    query.only(&["limit", "after"])?;
    let (most, after) = (query.page()?, after(query)?);
    let mut bans = tables(context)?.list_bans();
    bans.sort_by_key(|ban| ban.net);
    let total = bans.len();
    let (bans, next) = query::page(bans, |ban| ban.net, after.as_ref(), most);
    Answer::ok(json!({ "total": total, "bans": bans, "next": next }))
}

fn after(query: &Query) -> Result<Option<IpNet>, Problem> {
    let after: Option<String> = query.get("after", "a network")?;
    after.map(|text| network(&text)).transpose()
}

pub(super) fn lists(context: &Context) -> Result<Answer, Problem> {
    let tables = tables(context)?;
    let lists = [("allow", List::Allow), ("deny", List::Deny)].map(
        |(name, list)| json!({ "name": name, "entries": tables.list(list).len(), "capacity": MAX_LIST }),
    );
    Answer::ok(json!({ "lists": lists }))
}

pub(super) fn list(context: &Context, name: &str, query: &Query) -> Result<Answer, Problem> {
    let list = match name {
        "allow" => List::Allow,
        "deny" => List::Deny,
        _ => return Err(Problem::missing("there are the lists `allow` and `deny`")),
    };
    query.only(&["limit", "after"])?;
    let (most, after) = (query.page()?, after(query)?);
    let listed = tables(context)?.listed(list)?;
    let total = listed.len();
    let (entries, next) = query::page(listed, |entry| entry.network, after.as_ref(), most);
    Answer::ok(json!({ "total": total, "entries": entries, "next": next }))
}

/// The shield's report.
async fn shield(context: &Context) -> Result<Value, Problem> {
    if context.pins.is_none() {
        return Err(Problem::unavailable("this daemon has no shield"));
    }
    context.daemon.shield().await.map_err(Problem::unavailable)
}

pub(super) async fn services(context: &Context) -> Result<Answer, Problem> {
    let mut shield = shield(context).await?;
    Answer::ok(json!({
        "services": shield["services"].take(),
        "unjudged": shield["unjudged"].take(),
    }))
}

pub(super) fn sources(context: &Context) -> Result<Answer, Problem> {
    let pins = context.pins.as_ref();
    let pins = pins.ok_or_else(|| Problem::unavailable("this daemon has no shield"))?;
    let seen = context.watcher.seen(pins);
    Answer::ok(seen.map_err(|error| Problem::unavailable(error.to_string()))?)
}

pub(super) async fn limits(context: &Context) -> Result<Answer, Problem> {
    let shield = match &context.pins {
        Some(_) => shield(context).await?,
        None => Value::Null,
    };
    let services = shield["services"].as_array().into_iter().flatten();
    let services = services.map(|service| json!({ "name": service["name"], "limits": service["limits"] }));
    Answer::ok(json!({
        "gateway": context.gateway.as_ref().map(Handle::limits).unwrap_or_default(),
        "services": services.collect::<Vec<_>>(),
    }))
}

pub(super) async fn events(context: &Context, query: &Query) -> Result<Answer, Problem> {
    query.only(&["after", "wait"])?;
    let after = query.number("after", 0, 0, MOST_EVENTS)?;
    let wait = query.number("wait", 0, 0, MOST_WAIT_SECONDS)?;
    if wait > 0 {
        // That none came is an answer too.
        let _ = tokio::time::timeout(Duration::from_secs(wait), context.events.wait(after)).await;
    }
    let events = context.events.after(after);
    let last = events.last().map_or(after, |event| event.number);
    Answer::ok(json!({ "events": events, "last": last }))
}
