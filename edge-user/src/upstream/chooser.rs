//! Which endpoint is next: one worker's view of an upstream, and its place in the round.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

pub use super::maglev::mix;
use super::{
    attempt::Attempt,
    budget::Budget,
    cluster::Cluster,
    endpoint::Endpoint,
    maglev::key_hash,
    members::{Absence, Members},
};
use crate::config::{Balance, bounds::MAX_RETRY_ATTEMPTS};

/// An endpoint as a worker holds it: cloning it touches no other core's cache.
pub type Hold = Rc<Arc<Endpoint>>;

/// How fast an expected latency forgets.
const LATENCY_DECAY: Duration = Duration::from_secs(10);

/// Places of the round, or of the hash table, that are looked at for an endpoint that was not tried yet.
const MAX_STEPS: usize = 64;

/// Why a request gets no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// No endpoint is known.
    Unresolved,
    /// All of them are down.
    Down,
    /// All of them were tried.
    Exhausted,
    /// The upstream has as many requests as it may.
    Full,
}

/// The endpoints that a request was sent to.
#[derive(Debug, Default)]
pub struct Tried {
    ids: [u64; MAX_RETRY_ATTEMPTS as usize],
    count: usize,
}

impl Tried {
    /// How many tries there were.
    pub fn count(&self) -> usize {
        self.count
    }

    fn has(&self, endpoint: &Endpoint) -> bool {
        self.ids[..self.count.min(self.ids.len())].contains(&endpoint.id())
    }

    fn add(&mut self, endpoint: &Endpoint) {
        if let Some(place) = self.ids.get_mut(self.count) {
            *place = endpoint.id();
        }
        self.count += 1;
    }
}

/// A worker's view of an upstream.
#[derive(Debug)]
pub struct Chooser {
    cluster: Arc<Cluster>,
    worker: usize,
    seen: Cell<u64>,
    local: RefCell<Rc<Local>>,
    turn: Cell<usize>,
    random: Cell<u64>,
    budget: Budget,
}

#[derive(Debug)]
struct Local {
    members: Arc<Members>,
    endpoints: Box<[Hold]>,
}

impl Local {
    fn new(members: Arc<Members>) -> Rc<Self> {
        let endpoints = (0..members.len())
            .filter_map(|index| members.get(index as u32))
            .map(|endpoint| Rc::new(Arc::clone(endpoint)))
            .collect();
        Rc::new(Self { members, endpoints })
    }
}

impl Chooser {
    /// The view of `worker`; `seed` decides where its round begins and what is random in it.
    pub fn new(cluster: Arc<Cluster>, worker: usize, seed: u64) -> Self {
        let version = cluster.version();
        Self {
            worker,
            seen: Cell::new(version),
            local: RefCell::new(Local::new(cluster.members())),
            turn: Cell::new(0),
            random: Cell::new(mix(seed) | 1),
            budget: Budget::new(cluster.config().retry.budget_percent),
            cluster,
        }
    }

    /// The upstream.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Which worker's view this is.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// The account of this worker's retries.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    fn local(&self) -> Rc<Local> {
        let version = self.cluster.version();
        if version != self.seen.get() {
            self.seen.set(version);
            *self.local.borrow_mut() = Local::new(self.cluster.members());
        }
        Rc::clone(&self.local.borrow())
    }

    /// Whether there is anybody to send to.
    pub fn check(&self) -> Result<(), Unavailable> {
        let local = self.local();
        if local.endpoints.is_empty() {
            return Err(absent(&local.members));
        }
        Ok(())
    }

    /// Begins a try at the endpoint whose turn it is, at one that was not tried before if there is any; if there is
    /// none, `again` says whether one may be tried twice. `hash` is the request's key, where requests are hashed.
    pub fn attempt(
        self: &Rc<Self>,
        hash: u64,
        tried: &mut Tried,
        again: bool,
        now: Instant,
    ) -> Result<Attempt, Unavailable> {
        let local = self.local();
        let endpoint = match self.choose(&local, hash, tried, now) {
            Some(endpoint) => endpoint,
            None if local.endpoints.is_empty() => return Err(absent(&local.members)),
            None if again => self
                .choose(&local, hash, &Tried::default(), now)
                .ok_or(Unavailable::Exhausted)?,
            None => return Err(Unavailable::Exhausted),
        };
        let permit = self
            .cluster
            .circuit()
            .requests
            .enter()
            .map_err(|_| Unavailable::Full)?;
        tried.add(&endpoint);
        Ok(Attempt::new(Rc::clone(self), endpoint, permit))
    }

    fn choose(&self, local: &Local, hash: u64, tried: &Tried, now: Instant) -> Option<Hold> {
        let get = |index: u32| local.endpoints.get(index as usize);
        let fresh = |index: u32| {
            get(index)
                .filter(|endpoint| !tried.has(endpoint))
                .map(|endpoint| (index, endpoint))
        };
        let found = match &self.cluster.config().balance {
            Balance::RoundRobin => {
                let turns = local.members.turns();
                (0..turns.min(MAX_STEPS)).find_map(|_| {
                    let turn = self.turn.get();
                    let turn = if turn < turns { turn } else { 0 };
                    self.turn.set(turn + 1);
                    fresh(local.members.in_turn(turn)?)
                })
            }
            Balance::ConsistentHash(_) => {
                (0..MAX_STEPS).find_map(|step| fresh(local.members.by_hash(hash, step)?))
            }
            balance @ (Balance::LeastRequest | Balance::PeakEwma) => {
                let cost = |endpoint: &Endpoint| match balance {
                    Balance::PeakEwma => self.expected_cost(endpoint, now),
                    _ => f64::from(endpoint.active() + 1) / f64::from(endpoint.weight().get()),
                };
                let turns = local.members.turns();
                let draw = || (0..MAX_STEPS).find_map(|_| fresh(local.members.in_turn(self.draw(turns))?));
                let one = draw();
                // A second one that is the first again is no choice; a few draws find another if there is one.
                let other = one.and_then(|(first, _)| {
                    (0..MAX_STEPS)
                        .filter_map(|_| draw())
                        .find(|(index, _)| *index != first || local.endpoints.len() == 1)
                });
                match (one, other) {
                    (Some(one), Some(other)) if cost(other.1) < cost(one.1) => Some(other),
                    (one, _) => one,
                }
            }
        };
        found
            .map(|(_, endpoint)| endpoint)
            .or_else(|| local.endpoints.iter().find(|endpoint| !tried.has(endpoint)))
            .cloned()
    }

    /// A number below `below`, by xorshift.
    fn draw(&self, below: usize) -> usize {
        let mut bits = self.random.get();
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        self.random.set(bits);
        (bits % below.max(1) as u64) as usize
    }

    /// Expected latency times what is in flight. An endpoint that nobody measured yet costs nothing while it is idle,
    /// and more than any other while the first answers are awaited.
    fn expected_cost(&self, endpoint: &Endpoint, now: Instant) -> f64 {
        let Some(lane) = endpoint.lane(self.worker) else {
            return 0.0;
        };
        let active = f64::from(endpoint.active());
        let latency = f64::from_bits(lane.latency.load(Relaxed));
        if latency == 0.0 {
            return if active == 0.0 { 0.0 } else { f64::MAX };
        }
        let since = self
            .cluster
            .age_ns(now)
            .saturating_sub(lane.measured.load(Relaxed));
        latency * forgotten(since) * (active + 1.0) / f64::from(endpoint.weight().get())
    }

    /// Learns from an answer: slower than expected counts at once, faster little by little.
    pub(super) fn measured(&self, endpoint: &Endpoint, latency: Duration, now: Instant) {
        if self.cluster.config().balance != Balance::PeakEwma {
            return;
        }
        let Some(lane) = endpoint.lane(self.worker) else {
            return;
        };
        let now = self.cluster.age_ns(now);
        let kept = forgotten(now.saturating_sub(lane.measured.load(Relaxed)));
        let before = f64::from_bits(lane.latency.load(Relaxed));
        let new = latency.as_nanos() as f64;
        let after = if new > before {
            new
        } else {
            before * kept + new * (1.0 - kept)
        };
        lane.latency.store(after.to_bits(), Relaxed);
        lane.measured.store(now, Relaxed);
    }
}

fn absent(members: &Members) -> Unavailable {
    match members.absence() {
        Absence::Unresolved => Unavailable::Unresolved,
        Absence::Down => Unavailable::Down,
    }
}

/// What is left of a memory after so many nanoseconds.
fn forgotten(since_ns: u64) -> f64 {
    (-(since_ns as f64) / LATENCY_DECAY.as_nanos() as f64).exp()
}

/// The hash of a request's key.
pub fn hash_of(key: &[u8]) -> u64 {
    key_hash(0, key)
}

#[cfg(test)]
mod tests;
