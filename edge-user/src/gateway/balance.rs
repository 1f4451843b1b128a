//! Stage four: which upstream and which of its endpoints the request goes to.
//!
//! Each worker has its own place in every round, so no counter is shared between cores.

use std::{
    cell::Cell,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    authenticate::Permit,
    gate::Request,
    limit::Admitted,
    plan::{Plan, PlannedAction},
    refusal::{Reason, Refusal},
    route::RouteId,
};
use crate::{
    config::{Action, Balance, HashKey},
    upstream::{
        attempt::Attempt,
        chooser::{Chooser, Tried, Unavailable, hash_of, mix},
        circuit::Permit as Place,
        cluster::Cluster,
        connect::ConnectError,
        endpoint::Endpoint,
    },
};

/// Proof that a request was routed, authenticated and admitted, and where it goes. Only [`balance`] makes one, and
/// nothing else can be forwarded.
#[derive(Debug)]
#[must_use]
pub struct Target {
    route: RouteId,
    chooser: Rc<Chooser>,
    hash: u64,
    tried: Tried,
    permit: Permit,
}

impl Target {
    /// The route.
    pub fn route(&self) -> RouteId {
        self.route
    }

    /// The upstream.
    pub fn cluster(&self) -> &Arc<Cluster> {
        self.chooser.cluster()
    }

    /// What the token changes.
    pub fn permit(&self) -> &Permit {
        &self.permit
    }

    /// How many tries there were.
    pub fn tries(&self) -> usize {
        self.tried.count()
    }

    /// Begins a try: at an endpoint that was not tried before, or if there is none and `again` allows it, at any.
    ///
    /// # Errors
    /// There is no such endpoint, the tries are used up, or the upstream has as many requests as it may.
    pub fn attempt(&mut self, again: bool, now: Instant) -> Result<Attempt, Refusal> {
        if !self.may_retry() {
            return Err(Reason::UpstreamUnreachable.into());
        }
        let attempt = self.chooser.attempt(self.hash, &mut self.tried, again, now);
        attempt.map_err(Refusal::from)
    }

    /// Whether there are tries left.
    pub fn may_retry(&self) -> bool {
        self.tries() < self.cluster().config().retry.attempts.get() as usize
    }

    /// Begins another try of a request that was, or may have been, seen: if there are tries left, an endpoint to try,
    /// and the upstream's limit and this worker's budget of retries allow it. The permit lasts as long as the try.
    pub fn retry(&mut self, again: bool, now: Instant) -> Option<(Attempt, Place)> {
        let permit = self.cluster().circuit().retries.enter().ok()?;
        let attempt = self.attempt(again, now).ok()?;
        self.chooser.budget().take(now).then_some((attempt, permit))
    }

    /// Limit of one try, where `limit` is that of the request.
    pub fn try_timeout(&self, limit: Duration) -> Duration {
        let own = self.cluster().config().retry.try_timeout;
        own.map_or(limit, |own| own.min(limit))
    }
}

/// A worker's views of the upstreams of a plan.
#[derive(Debug, Default)]
pub struct Choosers {
    views: Vec<Rc<Chooser>>,
    /// What is random in splits.
    random: Cell<u64>,
}

impl Choosers {
    /// The views of `worker`. Those of upstreams that are the same as before stay, with their budgets and rounds.
    pub fn new(plan: &Plan, worker: usize, previous: Option<&Self>) -> Self {
        // Workers that begin their rounds at different places do not all meet at one endpoint.
        let seed = |index: usize| (worker as u64) << 32 | index as u64;
        let view = |(index, cluster): (usize, &Arc<Cluster>)| {
            let mut before = previous.into_iter().flat_map(|previous| &previous.views);
            if let Some(same) = before.find(|view| Arc::ptr_eq(view.cluster(), cluster)) {
                return Rc::clone(same);
            }
            Rc::new(Chooser::new(Arc::clone(cluster), worker, seed(index)))
        };
        Self {
            views: plan.upstreams().iter().enumerate().map(view).collect(),
            random: Cell::new(worker as u64),
        }
    }

    /// A random number (SplitMix64).
    fn draw(&self) -> u64 {
        let next = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(next);
        mix(next)
    }
}

/// Where a route's requests go: an upstream, or one of several by weight.
#[derive(Debug)]
pub struct Destination {
    /// Upstreams, each with the end of its share of all hashes.
    parts: Box<[(u64, usize)]>,
    hash: Option<HashKey>,
}

impl Destination {
    /// Compiles what a route says, where there are so many upstreams; `None` if it forwards to none of them.
    pub fn compile(action: &Action, upstreams: usize) -> Option<Self> {
        let (parts, hash) = match action {
            Action::Upstream(upstream) => (&[(*upstream, 1)][..], None),
            Action::Split(split) => (&split.parts[..], split.hash.clone()),
            Action::Redirect(_) | Action::Respond(_) | Action::FanOut(_) => return None,
        };
        let total: u128 = parts.iter().map(|(_, weight)| u128::from(*weight)).sum();
        if total == 0 || parts.iter().any(|(upstream, _)| *upstream >= upstreams) {
            return None;
        }
        let mut until = 0;
        let mut ends: Vec<(u64, usize)> = Vec::with_capacity(parts.len());
        for (upstream, weight) in parts.iter().filter(|(_, weight)| *weight > 0) {
            until += u128::from(*weight);
            // Shares lie behind each other, so that a growing last one takes from its neighbour alone.
            let end = (until << 64) / total - 1;
            ends.push((u64::try_from(end).unwrap_or(u64::MAX), *upstream));
        }
        Some(Self {
            parts: ends.into(),
            hash,
        })
    }

    fn choose(&self, choosers: &Choosers, request: &Request<'_>, client: IpAddr) -> usize {
        if let [(_, only)] = &*self.parts {
            return *only;
        }
        let at = match &self.hash {
            Some(key) => hash(key, request, client),
            None => choosers.draw(),
        };
        self.at(at)
    }

    fn at(&self, at: u64) -> usize {
        let part = self.parts.iter().find(|(end, _)| at <= *end);
        part.or(self.parts.last()).map_or(0, |(_, upstream)| *upstream)
    }
}

impl Choosers {
    /// The view of the upstream with this index.
    pub fn of(&self, upstream: usize) -> Option<Rc<Chooser>> {
        self.views.get(upstream).map(Rc::clone)
    }
}

/// Chooses an upstream, and says which to `chosen`. The endpoint is chosen when the request is about to be sent.
///
/// # Errors
/// [`Reason::NoEndpoint`], [`Reason::UpstreamDown`].
pub fn balance(
    plan: &Plan,
    choosers: &Choosers,
    request: &Request<'_>,
    peer: SocketAddr,
    admitted: Admitted,
    chosen: impl FnOnce(usize),
) -> Result<Target, Refusal> {
    let route = admitted.route();
    let PlannedAction::Forward(destination) = &plan.route(route).action else {
        // Only what is forwarded comes here.
        return Err(Refusal::new(Reason::NoEndpoint));
    };
    let upstream = destination.choose(choosers, request, peer.ip());
    chosen(upstream);
    let chooser = choosers
        .views
        .get(upstream)
        .ok_or(Refusal::new(Reason::NoEndpoint))?;
    chooser.check()?;
    chooser.budget().pay();
    let hash = match &chooser.cluster().config().balance {
        Balance::ConsistentHash(key) => hash(key, request, peer.ip()),
        Balance::RoundRobin | Balance::LeastRequest | Balance::PeakEwma => 0,
    };
    Ok(Target {
        route,
        chooser: Rc::clone(chooser),
        hash,
        tried: Tried::default(),
        permit: admitted.into_permit(),
    })
}

/// The hash of a request's key. A request without the field or cookie is hashed by its client's address, so that it
/// too stays where it is.
pub(super) fn hash(key: &HashKey, request: &Request<'_>, client: IpAddr) -> u64 {
    let by_address = || match client.to_canonical() {
        IpAddr::V4(ip) => hash_of(&ip.octets()),
        IpAddr::V6(ip) => hash_of(&ip.octets()),
    };
    match key {
        HashKey::Header(name) => request.values(name).next().map_or_else(by_address, hash_of),
        HashKey::Cookie(name) => request
            .values("cookie")
            .find_map(|cookies| cookie(cookies, name.as_bytes()))
            .map_or_else(by_address, hash_of),
        HashKey::ClientAddress => by_address(),
    }
}

fn cookie<'v>(cookies: &'v [u8], name: &[u8]) -> Option<&'v [u8]> {
    cookies.split(|byte| *byte == b';').find_map(|pair| {
        let pair = pair.trim_ascii();
        let at = pair.iter().position(|byte| *byte == b'=')?;
        (&pair[..at] == name).then(|| &pair[at + 1..])
    })
}

/// After how many seconds a client may try again where everything was down, and where everything was busy.
const RETRY_DOWN: u32 = 5;
const RETRY_BUSY: u32 = 1;

/// The upstream has as much to do as it may.
pub(super) fn busy() -> Refusal {
    Refusal::for_now(Reason::UpstreamBusy, RETRY_BUSY)
}

impl From<Unavailable> for Refusal {
    fn from(unavailable: Unavailable) -> Self {
        match unavailable {
            Unavailable::Unresolved => Self::for_now(Reason::NoEndpoint, RETRY_DOWN),
            Unavailable::Down => Self::for_now(Reason::UpstreamDown, RETRY_DOWN),
            Unavailable::Exhausted => Self::new(Reason::UpstreamUnreachable),
            Unavailable::Full => busy(),
        }
    }
}

/// What a client learns of a connection that could not be made.
pub(super) fn refusal_of(error: &ConnectError, endpoint: &Endpoint) -> Refusal {
    tracing::debug!(%error, endpoint = %endpoint.address(), "cannot connect");
    match Reason::from(error) {
        Reason::UpstreamBusy => busy(),
        reason => reason.into(),
    }
}

impl From<&ConnectError> for Reason {
    fn from(error: &ConnectError) -> Self {
        match error {
            ConnectError::Full => Self::UpstreamBusy,
            ConnectError::Timeout(_) => Self::UpstreamConnectTimeout,
            ConnectError::Tcp(_) => Self::UpstreamUnreachable,
            ConnectError::Tls(_) | ConnectError::NoHttp2 => Self::UpstreamTls,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Split;

    #[test]
    fn shares_of_a_split_follow_weights_and_grow_at_one_end() {
        let split = |canary| {
            let split = Split {
                parts: vec![(4, 100 - canary), (7, canary)],
                hash: None,
            };
            Destination::compile(&Action::Split(split), 8).expect("they exist")
        };
        let choosers = Choosers::default();
        let hashes: Vec<u64> = (0..20_000).map(|_| choosers.draw()).collect();
        let (five, ten) = (split(5), split(10));
        let canary = |destination: &Destination| hashes.iter().filter(|at| destination.at(**at) == 7).count();
        assert!((900..1100).contains(&canary(&five)), "{}", canary(&five));
        assert!((1850..2150).contains(&canary(&ten)), "{}", canary(&ten));
        assert!(
            hashes.iter().all(|at| five.at(*at) != 7 || ten.at(*at) == 7),
            "nobody moves back"
        );
        assert_eq!(split(0).at(u64::MAX), 4);
        assert_eq!(split(100).at(0), 7);
        assert!(Destination::compile(&Action::Upstream(8), 8).is_none());
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let cookies = b"xsession=1; session=two; session2=3";
        assert_eq!(cookie(cookies, b"session"), Some(&b"two"[..]));
        assert_eq!(cookie(cookies, b"sess"), None);
    }
}
