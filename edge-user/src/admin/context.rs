//! What the admin API answers from, and what it counts about its own callers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use super::{
    daemon::{Daemon, Stage},
    events::Events,
    metrics::{self, Facts, GatewayFacts, OffenceFacts, ProcessFacts, ShieldFacts, Upkeep},
    sources::Watcher,
};
use crate::{
    auth::Freshness,
    gateway::Handle,
    history,
    kernel::Pins,
    offence::{
        queue::Reporter,
        tally::{BanTally, Carried},
    },
    upstream::cluster::{EndpointStatus, State},
};

/// Everything that answers are made from.
pub struct Context {
    /// Whom to ask for things.
    pub daemon: Arc<dyn Daemon>,
    /// The gateway, if there is one.
    pub gateway: Option<Handle>,
    /// Where offences are counted.
    pub reporter: Reporter,
    /// Where sentences are.
    pub tally: Arc<BanTally>,
    /// The shield's, if this process has one.
    pub pins: Option<Pins>,
    /// When the process began.
    pub started: SystemTime,
    /// What happened.
    pub events: Arc<Events>,
    /// What is remembered of routes, if that is configured.
    pub history: Option<Arc<history::Keeper>>,
    /// Looks who is dropped most, while somebody asks.
    pub watcher: Watcher,
    /// What callers met.
    pub callers: Callers,
}

/// Why a caller was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Turned {
    /// The process at the other end of the socket is somebody else's.
    Peer,
    /// The bearer token is missing or wrong.
    Token,
    /// The handshake failed: a wrong certificate, or none.
    Tls,
    /// It made way for others: it was the one that had been there longest.
    Crowded,
}

impl Turned {
    const ALL: [Self; 4] = [Self::Peer, Self::Token, Self::Tls, Self::Crowded];

    const fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Token => "token",
            Self::Tls => "tls",
            Self::Crowded => "crowded",
        }
    }
}

/// What callers met, counted.
#[derive(Debug, Default)]
pub struct Callers {
    answers: [AtomicU64; 4],
    turned: [AtomicU64; Turned::ALL.len()],
}

impl Callers {
    /// Counts an answer.
    pub fn answered(&self, status: http::StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(2);
        if let Some(count) = self.answers.get(class) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Counts a caller that was not let in.
    pub fn turned(&self, why: Turned) {
        self.turned[why as usize].fetch_add(1, Relaxed);
    }
}

impl Context {
    /// Everything that metrics tell, now.
    pub async fn facts(&self) -> Facts {
        let shield = match &self.pins {
            Some(pins) => ShieldFacts::gather(pins)
                .await
                .inspect_err(|error| tracing::debug!(%error, "no metrics of the shield"))
                .ok(),
            None => None,
        };
        let orders = self.daemon.orders();
        let read = |count: &AtomicU64| count.load(Relaxed);
        Facts {
            process: ProcessFacts::read(self.started),
            upkeep: Upkeep {
                is_ready: self.unready().await.is_empty(),
                reloads_ok: orders.reloads,
                reloads_failed: orders.reloads_failed,
                last_reload_failed: orders.last_reload_failed,
                configured_at: orders.configured_at,
                upgrades: (orders.upgrades, orders.upgrades_failed),
                admin_answers: std::array::from_fn(|class| read(&self.callers.answers[class])),
                admin_refused: Turned::ALL
                    .iter()
                    .map(|why| (why.name(), read(&self.callers.turned[*why as usize])))
                    .collect(),
                spans: self.gateway.as_ref().map_or((0, 0), Handle::traces),
            },
            gateway: self.gateway.as_ref().map(gateway),
            auth: Some(self.daemon.authority().status()),
            offences: OffenceFacts {
                reported: self.reporter.reported().collect(),
                lost: self.reporter.lost(),
                sentences: Carried::ALL
                    .iter()
                    .map(|carried| (carried.name(), self.tally.get(*carried)))
                    .collect(),
            },
            shield,
            history: self.history.as_ref().map(|keeper| keeper.state()),
        }
    }

    /// Why nothing should be sent here now; nothing if it should.
    ///
    /// That all endpoints of an upstream are down is no reason: other routes may have others, all nodes would see the
    /// same, and a site that answers 503 to some is better than one that answers nobody.
    pub async fn unready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let stage = self.daemon.stage();
        if stage != Stage::Ready {
            reasons.push(stage.name().to_owned());
        }
        if let Some(gateway) = &self.gateway
            && !gateway.is_ready()
        {
            reasons.push("not every worker accepts connections".to_owned());
        }
        if let Some(pins) = &self.pins {
            match ShieldFacts::interfaces(pins).await {
                Ok(interfaces) => {
                    let config = self.daemon.config();
                    let is_on = |name: &String| {
                        interfaces
                            .iter()
                            .any(|interface| interface.name == *name && interface.is_attached())
                    };
                    let off = config.shield.interfaces.iter().filter(|name| !is_on(name));
                    reasons.extend(off.map(|name| format!("the shield is not on {name}")));
                }
                Err(error) => reasons.push(format!("the shield cannot be looked at: {error}")),
            }
        }
        let auth = self.daemon.authority().status();
        let missing = auth
            .providers
            .iter()
            .filter(|provider| provider.freshness == Freshness::Missing);
        reasons.extend(missing.map(|provider| format!("no keys of provider {}", provider.name)));
        reasons
    }
}

fn gateway(handle: &Handle) -> GatewayFacts {
    GatewayFacts {
        counters: handle.counters(),
        limits: handle.limits(),
        closings: handle.closings(),
        connections: (handle.connections(), handle.most_connections()),
        busy: handle
            .busy()
            .iter()
            .map(std::time::Duration::as_secs_f64)
            .collect(),
        endpoints: handle
            .upstreams()
            .into_iter()
            .map(|(name, endpoints)| (name, by_state(&endpoints)))
            .collect(),
        access_lines_lost: handle.lost_access_lines(),
    }
}

/// How many endpoints are in each state, in the order of [`metrics::STATES`].
fn by_state(endpoints: &[EndpointStatus]) -> [usize; 4] {
    let mut counts = [0; 4];
    for endpoint in endpoints {
        counts[state_index(endpoint.state)] += 1;
    }
    counts
}

/// Where a state stands in [`metrics::STATES`].
fn state_index(state: State) -> usize {
    match state {
        State::Unchecked => 0,
        State::Up => 1,
        State::Down => 2,
        State::Ejected => 3,
    }
}

/// A state in a word.
pub(super) fn state_name(state: State) -> &'static str {
    metrics::STATES[state_index(state)]
}
