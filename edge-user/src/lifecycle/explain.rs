//! `breakwater explain`: a request on trial, by what the daemon is made of.

use std::{
    fmt::Write as _,
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ipnet::IpNet;
use serde::Serialize;

use super::{LifecycleError, authenticate::View, daemon::load_keys, verbs};
use crate::{
    auth::{Authenticator, TokenReport},
    cli::{ExplainRequest, Format},
    config::{AuthPolicy, Shield},
    gateway::{
        Plan, Request, SetupError,
        explain::{self, Explanation, Outcome},
    },
    kernel::{KernelError, Pins, ShieldTables, lists::List},
    lifecycle::TokenGate,
};

/// How long a key that nobody fetches is waited for.
const NO_KEY: Duration = Duration::from_millis(50);
/// How long keys that are fetched are waited for.
const KEYS: Duration = Duration::from_secs(30);

/// Everything that is told.
#[derive(Debug, Serialize)]
struct Report {
    shield: Shielded,
    #[serde(flatten)]
    gateway: Explanation<TokenReport>,
}

/// What the shield makes of the source, its limits aside.
#[derive(Debug, Serialize)]
struct Shielded {
    /// `tables`: as it is in the kernel now; `configuration`: as the file has it.
    from: &'static str,
    /// `passes`, `allowed`, `denied`, `banned`.
    verdict: &'static str,
    /// The network that decides.
    network: Option<IpNet>,
    /// Of a ban, why.
    why: Option<String>,
    /// Of a ban, the seconds that are left.
    seconds_left: Option<f64>,
}

/// `breakwater explain`.
///
/// # Errors
/// Keys cannot be loaded, the configuration cannot be served, or the shield's tables are there and cannot be read.
pub fn explain(request: &ExplainRequest, bpffs: &Path) -> Result<String, LifecycleError> {
    let config = &*request.config;
    let authority = load_keys(config)?;
    let gate = TokenGate::new(Arc::clone(&authority));
    let plan = Plan::compile(config, Arc::new(gate), 1, None).map_err(SetupError::Plan)?;
    let shield = shielded(&config.shield, &Pins::new(bpffs), request.asked.from.ip())?;
    let told = verbs::runtime()?.block_on(async {
        if request.fetch_keys {
            authority.spawn_tasks();
            let has_keys = || {
                let status = authority.status();
                status.providers.iter().all(|provider| !provider.keys.is_empty())
            };
            let wait = async {
                while !has_keys() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            // What did not come is told by the verdict.
            let _ = tokio::time::timeout(KEYS, wait).await;
        }
        let door = Authenticator::new(Arc::clone(&authority));
        let look =
            |policy: &AuthPolicy, asked: &Request<'_>| door.explain(policy, &View(asked), SystemTime::now());
        let limit = if request.fetch_keys { KEYS } else { NO_KEY };
        explain::explain(config, &plan, &request.asked, limit, look).await
    });
    let report = Report {
        shield,
        gateway: told,
    };
    match request.format {
        Format::Json => verbs::json(&report),
        Format::Text => Ok(report.text()),
    }
}

/// What the shield makes of `source`: by its tables, if it is there and they may be read, else by the configuration.
fn shielded(config: &Shield, pins: &Pins, source: IpAddr) -> Result<Shielded, KernelError> {
    let holds = |nets: &[IpNet]| nets.iter().find(|net| net.contains(&source)).copied();
    let tables = if pins.exist() {
        Some(ShieldTables::open(pins)?)
    } else {
        None
    };
    let (from, allowed, denied) = match &tables {
        Some(tables) => (
            "tables",
            holds(&tables.list(List::Allow)),
            holds(&tables.list(List::Deny)),
        ),
        None => ("configuration", holds(&config.allow), holds(&config.deny)),
    };
    let listed = |verdict, network| Shielded {
        from,
        verdict,
        network,
        why: None,
        seconds_left: None,
    };
    if allowed.is_some() {
        return Ok(listed("allowed", allowed));
    }
    let bans = tables.iter().flat_map(ShieldTables::list_bans);
    if let Some(ban) = bans.into_iter().find(|ban| ban.net.contains(&source)) {
        return Ok(Shielded {
            why: Some(ban.reason),
            seconds_left: ban.seconds_left,
            ..listed("banned", Some(ban.net))
        });
    }
    Ok(match denied {
        Some(_) => listed("denied", denied),
        None => listed("passes", None),
    })
}

impl Report {
    fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut out);
        out.truncate(out.trim_end().len());
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let Shielded {
            from,
            verdict,
            network,
            why,
            seconds_left,
        } = &self.shield;
        let by = network.map_or_else(String::new, |network| format!(" by {network}"));
        let why = why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        let left = seconds_left.map_or_else(String::new, |left| format!(", {left:.0} s left"));
        writeln!(out, "shield     {verdict}{by}{left}{why} (by its {from})")?;
        let gateway = &self.gateway;
        if let Some(read) = &gateway.request {
            let query = read
                .query
                .as_ref()
                .map_or_else(String::new, |query| format!("?{query}"));
            let host = read.authority.as_deref().unwrap_or("no host");
            writeln!(out, "request    {} {}{query} at {host}", read.method, read.path)?;
        }
        writeln!(out, "route      {}", gateway.route.as_deref().unwrap_or("none"))?;
        for other in gateway.others.iter().take(MOST_OTHERS) {
            writeln!(out, "           not {}: {}", other.route, other.why)?;
        }
        if let Some(more @ 1..) = gateway.others.len().checked_sub(MOST_OTHERS) {
            writeln!(out, "           and {more} more")?;
        }
        if let Some(token) = &gateway.token {
            write_token(token, out)?;
        }
        for limit in &gateway.limits {
            writeln!(out, "limit      {limit}")?;
        }
        write_outcome(&gateway.outcome, out)
    }
}

/// Routes that do not take the request, as far as people are told.
const MOST_OTHERS: usize = 20;

fn write_token(token: &TokenReport, out: &mut String) -> std::fmt::Result {
    let asks = if token.required { "required" } else { "optional" };
    write!(out, "token      {asks}, of {}", token.providers.join(" or "))?;
    if token.found_in.is_empty() {
        writeln!(out, ": none is there")?;
    } else {
        writeln!(out, ": in {}", token.found_in.join(", "))?;
    }
    if let Some(algorithm) = &token.algorithm {
        let of = token.provider.as_deref().unwrap_or("no provider of the route");
        let key = token
            .key
            .as_ref()
            .map_or_else(String::new, |key| format!(", key {key}"));
        writeln!(out, "           {algorithm}{key}, of {of}")?;
    }
    if let Some(signature) = token.signature {
        writeln!(out, "           signature: {signature}")?;
    }
    for claim in &token.claims {
        let sign = if claim.holds { "ok" } else { "NO" };
        let value = claim
            .value
            .as_ref()
            .map_or_else(|| "absent".to_owned(), ToString::to_string);
        writeln!(
            out,
            "           {sign}  {}: {value}, wanted: {}",
            claim.claim, claim.wanted
        )?;
    }
    let why = token
        .why
        .as_ref()
        .map_or_else(String::new, |why| format!(": {why}"));
    writeln!(out, "           {}{why}", token.verdict)
}

fn write_outcome(outcome: &Outcome, out: &mut String) -> std::fmt::Result {
    match outcome {
        Outcome::Refused {
            status,
            reason,
            detail,
            fields,
            offence,
        } => {
            let detail = if detail.is_empty() {
                String::new()
            } else {
                format!(" ({detail})")
            };
            let offence = offence.map_or_else(String::new, |kind| format!(", scored as {kind}"));
            writeln!(out, "outcome    refused, {status} {reason}{detail}{offence}")?;
            for (name, value) in fields {
                writeln!(out, "           {name}: {value}")?;
            }
            Ok(())
        }
        Outcome::Forwarded {
            upstream,
            candidates,
            balance,
            endpoints,
            path,
            identity,
        } => {
            writeln!(out, "outcome    forwarded to {upstream} as {path}")?;
            if candidates.len() > 1 {
                writeln!(out, "           one of {}", candidates.join(", "))?;
            }
            writeln!(out, "           {balance} over {}", endpoints.join(", "))?;
            for (name, value) in identity {
                writeln!(out, "           with {name}: {value}")?;
            }
            Ok(())
        }
        Outcome::Answered { status, fields } => {
            writeln!(out, "outcome    answered by the gateway, {status}")?;
            for (name, value) in fields {
                writeln!(out, "           {name}: {value}")?;
            }
            Ok(())
        }
        Outcome::FannedOut { parts } => {
            writeln!(out, "outcome    merged of")?;
            for (key, upstream, path) in parts {
                writeln!(out, "           {key}: {path} of {upstream}")?;
            }
            Ok(())
        }
        Outcome::Undecided => writeln!(
            out,
            "outcome    not decided: a key has to be fetched first (--fetch-keys)"
        ),
    }
}
