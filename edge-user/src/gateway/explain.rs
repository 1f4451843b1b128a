//! Tells what would become of a request, and why, without sending anything: the gate, the route table and the stages of
//! the gateway itself, run on a head that is put together here.
//!
//! What depends on the moment is not known here: how much of a limit is used up, which endpoints are up, whom the
//! gateway keeps out. Limits begin unused, endpoints are all taken for usable.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use serde::Serialize;

use super::{
    Limits,
    authenticate::Permit,
    balance::Choosers,
    gate::{self, Request, RequestShape, parse, request, scan::Scan},
    limit::{Asker, Tally, plan::PlannedLimit},
    plan::Plan,
    refusal::{Reason, Refusal},
    route::{self, RouteId, RouteTable},
    stages::{self, Account, Decision, Ground},
};
use crate::config::{AuthPolicy, Balance, Config, EndpointHost, LimitKey, RouteMatch};

/// What is asked for, as it would arrive.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Method.
    pub method: String,
    /// Whether it comes over TLS.
    pub secure: bool,
    /// Target, as it stands in the first line.
    pub target: String,
    /// Fields in order, `host` among them.
    pub fields: Vec<(String, String)>,
    /// Where the client is.
    pub from: SocketAddr,
}

/// What would become of it.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation<T> {
    /// What the gate made of it; none if it was refused there.
    pub request: Option<Read>,
    /// Name of its route.
    pub route: Option<String>,
    /// Why other routes do not take it, the nearest first.
    pub others: Vec<Other>,
    /// What authentication found; none where the route asks for no token.
    pub token: Option<T>,
    /// The limits that count it, in the order in which they are asked.
    pub limits: Vec<LimitReport>,
    /// How it ends.
    pub outcome: Outcome,
}

/// A request as the gate read it.
#[derive(Debug, Clone, Serialize)]
pub struct Read {
    /// Method.
    pub method: String,
    /// Host and port; none only in HTTP/1.0.
    pub authority: Option<String>,
    /// The one normalised path.
    pub path: String,
    /// The query, as sent.
    pub query: Option<String>,
}

/// A route that does not take the request.
#[derive(Debug, Clone, Serialize)]
pub struct Other {
    /// Its name.
    pub route: String,
    /// Why.
    pub why: &'static str,
}

/// A limit that counts the request.
#[derive(Debug, Clone, Serialize)]
pub struct LimitReport {
    /// Its name.
    pub name: String,
    /// What it counts by.
    pub by: Vec<String>,
    /// Requests, and the seconds in which they may come.
    pub rate: Option<(u32, f64)>,
    /// Requests at once.
    pub concurrent: Option<u32>,
    /// Whether it is asked before a token is looked at.
    pub before_token: bool,
    /// Whether it refuses nothing.
    pub observe: bool,
}

impl fmt::Display for LimitReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.rate.map(|(requests, per)| format!("{requests} in {per} s"));
        let at_once = self.concurrent.map(|most| format!("{most} at once"));
        let what: Vec<_> = rate.into_iter().chain(at_once).collect();
        let observed = if self.observe { ", observed only" } else { "" };
        let (name, by) = (&self.name, self.by.join(", "));
        write!(out, "{name}: {} by {by}{observed}", what.join(", "))
    }
}

/// How it ends.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Outcome {
    /// It is refused.
    Refused {
        /// Status of the answer.
        status: u16,
        /// The reason, as in the access log.
        reason: &'static str,
        /// The detail, as in the access log.
        detail: String,
        /// Fields that the answer has for it.
        fields: Vec<(&'static str, String)>,
        /// What is scored against the client.
        offence: Option<&'static str>,
    },
    /// It is forwarded.
    Forwarded {
        /// Name of the upstream; of a split, one that it can be.
        upstream: String,
        /// All that it can be, with their weights.
        candidates: Vec<String>,
        /// How an endpoint is chosen.
        balance: &'static str,
        /// Endpoints.
        endpoints: Vec<String>,
        /// The path that the upstream gets.
        path: String,
        /// Fields that tell the upstream who asks.
        identity: Vec<(String, String)>,
    },
    /// It is answered by the gateway.
    Answered {
        /// Status.
        status: u16,
        /// Fields.
        fields: Vec<(String, String)>,
    },
    /// A key has to be fetched first.
    Undecided,
    /// Several upstreams are asked, and their answers merged.
    FannedOut {
        /// Key, upstream and path of each.
        parts: Vec<(String, String, String)>,
    },
}

impl Outcome {
    /// The status that the gateway itself answers with; none if an upstream decides.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } | Self::Answered { status, .. } => Some(*status),
            Self::Forwarded { .. } | Self::FannedOut { .. } | Self::Undecided => None,
        }
    }
}

/// Tells what would become of `asked` by `plan`, which was compiled of `config`; `look` tells what authentication finds.
/// A key that may be on its way is waited for so long.
pub async fn explain<T>(
    config: &Config,
    plan: &Plan,
    asked: &Asked,
    patience: Duration,
    look: impl FnOnce(&AuthPolicy, &Request<'_>) -> Option<T>,
) -> Explanation<T> {
    let mut explanation = Explanation {
        request: None,
        route: None,
        others: Vec::new(),
        token: None,
        limits: Vec::new(),
        outcome: refused(&Refusal::new(Reason::NoRoute)),
    };
    let limits = Limits::of(&config.limits);
    let (head, mut shape) = (head_of(asked), RequestShape::default());
    let judged = match judge(&head, &limits, &mut shape, plan) {
        Ok(judged) => judged,
        Err(refusal) => {
            explanation.outcome = refused(&refusal);
            return explanation;
        }
    };
    let request = Request::new(&head, &shape, &judged);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    explanation.request = Some(Read {
        method: text(request.method()),
        authority: request.authority().map(text),
        path: request.path().to_owned(),
        query: request.query().map(text),
    });
    let routed = route::route(plan, &request);
    let taken = routed.as_ref().ok().map(route::Routed::route);
    explanation.others = others(config, plan, &request, taken);
    let routed = match routed {
        Ok(routed) => routed,
        Err(refusal) => {
            explanation.outcome = refused(&refusal);
            return explanation;
        }
    };
    let id = routed.route();
    explanation.route = Some(plan.route(id).name.to_string());
    explanation.limits = counted(plan, id);
    if !routed.is_preflight() {
        explanation.token = look(&plan.route(id).auth, &request);
    }
    let told = asked.from.ip().to_canonical().to_string();
    let choosers = Choosers::new(plan, 0, None);
    let ground = Ground {
        plan,
        choosers: &choosers,
        limits: &limits,
        asker: Asker {
            client: asked.from.ip(),
            now: 0,
        },
        client: asked.from,
        told: &told,
        scheme: if asked.secure { "https" } else { "http" },
        request_id: "explained",
    };
    let mut account = Ledger::default();
    let route = plan.route(id);
    let unsent = || {
        let changes = route.changes.as_ref()?.of(&ground.facts(&request, route)).ok()?;
        changes.path.map(String::from)
    };
    let deciding = stages::admit(ground, &mut account, &request, routed);
    explanation.outcome = match tokio::time::timeout(patience, deciding).await {
        Ok(decided) => outcome(config, id, &request, decided, &account, unsent),
        Err(_) => Outcome::Undecided,
    };
    explanation
}

/// The account of a request that nobody sends.
#[derive(Default)]
struct Ledger {
    tally: Tally,
    identity: Vec<(String, String)>,
    upstream: Option<usize>,
}

impl Account for Ledger {
    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    fn permitted(&mut self, permit: &Permit) {
        if let Some(identity) = &permit.identity {
            identity.each_field(&mut |name, value| {
                let value = String::from_utf8_lossy(value).into_owned();
                self.identity.push((name.to_owned(), value));
            });
        }
    }

    fn goes_to(&mut self, upstream: usize) {
        self.upstream = Some(upstream);
    }
}

fn head_of(asked: &Asked) -> Vec<u8> {
    let mut head = format!("{} {} HTTP/1.1\r\n", asked.method, asked.target);
    for (name, value) in &asked.fields {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    head.into_bytes()
}

fn judge(
    head: &[u8],
    limits: &Limits,
    shape: &mut RequestShape,
    plan: &Plan,
) -> Result<gate::JudgedRequest, Refusal> {
    match Scan::default().end(head) {
        Ok(Some(len)) if len == head.len() && len <= limits.head.head => {}
        Ok(Some(len)) if len == head.len() => return Err(Reason::HeadTooLarge.into()),
        Ok(_) | Err(_) => return Err(Refusal::because(Reason::BadSyntax, "line end")),
    }
    parse::request(head, &limits.head, shape)?;
    request::judge_by(head, shape, plan.path_rules())
}

fn refused(refusal: &Refusal) -> Outcome {
    Outcome::Refused {
        status: refusal.status(),
        reason: refusal.reason.slug(),
        detail: refusal.detail.clone().into_owned(),
        fields: refusal.fields.clone(),
        offence: refusal.offence().map(crate::offence::OffenceKind::name),
    }
}

fn outcome(
    config: &Config,
    route: RouteId,
    request: &Request<'_>,
    decided: Result<Decision, Refusal>,
    account: &Ledger,
    unsent: impl FnOnce() -> Option<String>,
) -> Outcome {
    let forwarded = |path: Option<&str>| {
        let upstream = config.upstreams.get(account.upstream?)?;
        let action = &config.routes.get(route.index())?.action;
        let weighed = |(index, weight): (usize, u64)| {
            let name = config.upstreams.get(index).map_or("", |upstream| &upstream.name);
            format!("{name} ({weight})")
        };
        Some(Outcome::Forwarded {
            upstream: upstream.name.clone(),
            candidates: match action {
                crate::config::Action::Split(split) => {
                    let parts = split.parts.iter();
                    parts
                        .map(|(index, weight)| weighed((*index, u64::from(*weight))))
                        .collect()
                }
                _ => vec![upstream.name.clone()],
            },
            balance: match upstream.balance {
                Balance::RoundRobin => "round_robin",
                Balance::LeastRequest => "least_request",
                Balance::PeakEwma => "peak_ewma",
                Balance::ConsistentHash(_) => "consistent_hash",
            },
            endpoints: upstream
                .endpoints
                .iter()
                .map(|endpoint| endpoint.host.to_string())
                .collect(),
            path: path.unwrap_or(request.path()).to_owned(),
            identity: account.identity.clone(),
        })
    };
    let nowhere = || refused(&Refusal::new(Reason::NoEndpoint));
    match decided {
        Ok(Decision::Forward(target)) => {
            let changed = target
                .permit()
                .changes()
                .and_then(|changes| changes.path.as_deref());
            forwarded(changed).unwrap_or_else(nowhere)
        }
        // Nobody has resolved the names yet: where the gateway would go is known all the same.
        Err(refusal) if refusal.reason.is_about_upstream() && is_by_name(config, account.upstream) => {
            forwarded(unsent().as_deref()).unwrap_or_else(nowhere)
        }
        Err(refusal) => refused(&refusal),
        Ok(Decision::Reply(reply)) => Outcome::Answered {
            status: reply.status,
            fields: reply
                .fields
                .iter()
                .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value).into_owned()))
                .collect(),
        },
        Ok(Decision::FanOut(_, parts)) => Outcome::FannedOut {
            parts: parts
                .iter()
                .map(|part| {
                    let upstream = part.chooser.cluster().config().name.clone();
                    (part.key.to_string(), upstream, part.path.to_string())
                })
                .collect(),
        },
        // Of a codec, which there is none of here.
        Ok(Decision::Declined) => nowhere(),
    }
}

fn is_by_name(config: &Config, upstream: Option<usize>) -> bool {
    let upstream = upstream.and_then(|upstream| config.upstreams.get(upstream));
    upstream.is_some_and(|upstream| {
        let mut endpoints = upstream.endpoints.iter();
        endpoints.all(|endpoint| matches!(endpoint.host, EndpointHost::Name { .. }))
    })
}

/// Why the routes that are not `taken` do not take the request: those that its host and path lead to, as the table tries
/// them, then the others in the file's order.
fn others(config: &Config, plan: &Plan, request: &Request<'_>, taken: Option<RouteId>) -> Vec<Other> {
    let mut led_to: Vec<RouteId> = Vec::new();
    let _ = plan.table().find(request.authority(), request.path(), |route| {
        if !led_to.contains(&route) {
            led_to.push(route);
        }
        false
    });
    let mut others = Vec::new();
    let mut is_after = false;
    for route in &led_to {
        if Some(*route) == taken {
            is_after = true;
            continue;
        }
        let conditions = &plan.route(*route).conditions;
        let why = if !conditions.admits_method(request.method()) {
            "another method"
        } else if !conditions.admit_but_method(request) {
            "other headers or query parameters"
        } else if is_after {
            "less specific, or later in the file"
        } else {
            "takes the request, but its path has another reading"
        };
        others.push((*route, why));
    }
    for (index, route) in config.routes.iter().enumerate() {
        let id = RouteId(index as u32);
        if Some(id) == taken || led_to.contains(&id) {
            continue;
        }
        let why = if leads_to(
            &RouteMatch {
                hosts: Vec::new(),
                ..route.matches.clone()
            },
            request,
        ) {
            "another host"
        } else {
            "another path"
        };
        others.push((id, why));
    }
    let name = |(id, why): (RouteId, &'static str)| Other {
        route: plan.route(id).name.to_string(),
        why,
    };
    others.into_iter().map(name).collect()
}

/// Whether host and path lead to a route that is there alone.
fn leads_to(alone: &RouteMatch, request: &Request<'_>) -> bool {
    RouteTable::compile([alone]).is_ok_and(|table| {
        table
            .find(request.authority(), request.path(), |_| true)
            .is_some()
    })
}

fn counted(plan: &Plan, route: RouteId) -> Vec<LimitReport> {
    let report = |limit: &Arc<PlannedLimit>, before_token: bool| {
        let config = limit.config();
        LimitReport {
            name: config.name.clone(),
            by: config
                .by
                .iter()
                .map(|key| match key {
                    LimitKey::Address => "address".to_owned(),
                    LimitKey::Route => "route".to_owned(),
                    LimitKey::Header(name) => format!("header {name}"),
                    LimitKey::Claim(path) => format!("claim {}", path.join(".")),
                })
                .collect(),
            rate: config
                .rate
                .map(|rate| (rate.requests.get(), rate.per.as_secs_f64())),
            concurrent: config.concurrent.map(std::num::NonZeroU32::get),
            before_token,
            observe: config.observe,
        }
    };
    let limits = plan.limits();
    let before = limits.before(route).iter().map(|limit| report(limit, true));
    let after = limits.after(route).iter().map(|limit| report(limit, false));
    before.chain(after).collect()
}
