//! What is known of one upstream's endpoints, kept up to date: names are resolved again, checks heard, endpoints
//! ejected and taken back, shares raised; each change is published once and told once.
//!
//! One task an upstream, on the supervisor's thread. Requests never wait for it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::mpsc,
    task::{AbortHandle, spawn_local},
    time::{sleep, sleep_until},
};

use super::{
    check::{self, Bad, Streak},
    cluster::{Cluster, EndpointStatus, State},
    ejection::{self, Record},
    endpoint::Endpoint,
    jitter::Jitter,
    members::{FULL_SHARE, Member, Members},
    resolve::{Found, ResolveError, Resolver},
};
use crate::config::{EndpointHost, HealthCheck};

/// News that wait to be heard; whoever brings more waits.
const MAX_NEWS: usize = 64;

/// Something that a checker or a resolver found out.
enum News {
    /// A name's addresses, or why there are none.
    Resolved(usize, Result<Found, ResolveError>),
    /// How a check went.
    Checked(u64, Result<(), Bad>),
}

/// What is kept of an endpoint.
struct Tracked {
    endpoint: Arc<Endpoint>,
    streak: Streak,
    record: Record,
    /// When it became usable, if it is to start slowly.
    started: Option<Instant>,
    checker: Option<Task>,
}

/// A task that ends with its owner.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An upstream's keeper.
pub(super) struct Keeper {
    cluster: Arc<Cluster>,
    /// By entry of `endpoints`, in its order.
    tracked: Vec<Vec<Tracked>>,
    unresolved: usize,
    looked: Instant,
    was_usable: bool,
    news: mpsc::Sender<News>,
    jitter: Jitter,
}

/// Keeps `cluster` up to date, for ever.
pub(super) async fn keep(cluster: Arc<Cluster>, seed: u64) {
    let (sender, mut news) = mpsc::channel(MAX_NEWS);
    let mut keeper = Keeper::new(cluster, sender, seed);
    let _resolvers = keeper.resolve();
    keeper.begin();
    loop {
        let cluster = Arc::clone(&keeper.cluster);
        let next = keeper.next();
        let changed = tokio::select! {
            Some(news) = news.recv() => keeper.hear(news),
            () = cluster.failing() => keeper.eject_failing(Instant::now()),
            () = sleep_until(next.into()) => keeper.tick(Instant::now()),
        };
        if changed {
            keeper.publish(Instant::now());
        }
    }
}

impl Keeper {
    fn new(cluster: Arc<Cluster>, news: mpsc::Sender<News>, seed: u64) -> Self {
        let mut tracked: Vec<Vec<Tracked>> = cluster.config().endpoints.iter().map(|_| Vec::new()).collect();
        for (index, endpoint) in cluster.fixed() {
            if let Some(entry) = tracked.get_mut(*index) {
                entry.push(Tracked::new(Arc::clone(endpoint), None));
            }
        }
        let names = cluster.config().endpoints.iter();
        let unresolved = names
            .filter(|spec| !matches!(spec.host, EndpointHost::Address(_)))
            .count();
        Self {
            cluster,
            tracked,
            unresolved,
            looked: Instant::now(),
            was_usable: true,
            news,
            jitter: Jitter::new(seed),
        }
    }

    fn name(&self) -> &str {
        &self.cluster.config().name
    }

    fn all(&self) -> impl Iterator<Item = &Tracked> {
        self.tracked.iter().flatten()
    }

    /// Begins to resolve every name.
    fn resolve(&mut self) -> Vec<Task> {
        let mut tasks = Vec::new();
        for (index, spec) in self.cluster.config().endpoints.iter().enumerate() {
            if matches!(spec.host, EndpointHost::Address(_)) {
                continue;
            }
            let resolving = resolving(
                Arc::clone(&self.cluster),
                index,
                self.news.clone(),
                Jitter::new(self.jitter.around(Duration::from_secs(1)).as_nanos() as u64),
            );
            tasks.push(Task(spawn_local(resolving).abort_handle()));
        }
        if tasks.is_empty() {
            self.cluster.settle();
        }
        tasks
    }

    /// Begins to check what is known from the start.
    fn begin(&mut self) {
        for tracked in self.tracked.iter_mut().flatten() {
            tracked.checker = checker(&self.cluster, &tracked.endpoint, &self.news, &mut self.jitter);
        }
    }

    /// When something is due.
    fn next(&self) -> Instant {
        let config = self.cluster.config();
        let mut next = self.looked + config.ejection.map_or(IDLE, |ejection| ejection.interval);
        for tracked in self.all() {
            if let Some(until) = tracked.record.until() {
                next = next.min(until);
            }
            if let Some(started) = tracked.started {
                // Counted from the start: from now on it would be put off by all that happens meanwhile.
                next = next.min(next_step(started, config.slow_start, Instant::now()));
            }
        }
        next
    }

    fn hear(&mut self, news: News) -> bool {
        match news {
            News::Resolved(index, Ok(found)) => self.resolved(index, found),
            News::Resolved(index, Err(error)) => {
                let host = &self.cluster.config().endpoints[index].host;
                let known = !self.tracked[index].is_empty();
                tracing::warn!(upstream = self.name(), %host, %error, last_known = known, "cannot resolve");
                self.settle_one();
                false
            }
            News::Checked(id, result) => self.checked(id, &result),
        }
    }

    /// The first answer about a name is what a start waits for, good or bad.
    fn settle_one(&mut self) {
        self.unresolved = self.unresolved.saturating_sub(1);
        if self.unresolved == 0 {
            self.cluster.settle();
        }
    }

    /// Takes over a name's addresses: those that stay keep what is known of them.
    fn resolved(&mut self, index: usize, found: Found) -> bool {
        let spec = self.cluster.config().endpoints[index].clone();
        let mut old: HashMap<SocketAddr, Tracked> = std::mem::take(&mut self.tracked[index])
            .into_iter()
            .map(|tracked| (tracked.endpoint.address(), tracked))
            .collect();
        let started =
            (self.unresolved == 0 && !self.cluster.config().slow_start.is_zero()).then(Instant::now);
        let mut changed = false;
        for (address, weight) in found.addresses {
            let weight = match spec.host {
                EndpointHost::Service(_) => weight,
                EndpointHost::Address(_) | EndpointHost::Name { .. } => spec.weight,
            };
            let kept = old.remove(&address);
            let kept = kept.filter(|tracked| tracked.endpoint.weight() == weight);
            let tracked = kept.unwrap_or_else(|| {
                changed = true;
                self.found(&spec.host, address, weight, spec.zone.as_deref(), started)
            });
            self.tracked[index].push(tracked);
        }
        for gone in old.values() {
            changed = true;
            tracing::info!(
                upstream = self.name(),
                endpoint = %gone.endpoint.address(),
                host = %spec.host,
                "endpoint gone"
            );
        }
        if changed {
            // A start waits for what is published.
            self.publish(Instant::now());
        }
        self.settle_one();
        false
    }

    fn found(
        &mut self,
        host: &EndpointHost,
        address: SocketAddr,
        weight: NonZeroU32,
        zone: Option<&str>,
        started: Option<Instant>,
    ) -> Tracked {
        tracing::info!(upstream = self.name(), endpoint = %address, %host, "endpoint found");
        let endpoint = Endpoint::new(address, host.clone(), weight, zone, self.cluster.workers());
        let mut tracked = Tracked::new(Arc::new(endpoint), started);
        tracked.checker = checker(&self.cluster, &tracked.endpoint, &self.news, &mut self.jitter);
        tracked
    }

    fn checked(&mut self, id: u64, result: &Result<(), Bad>) -> bool {
        let cluster = Arc::clone(&self.cluster);
        let Some(health) = &cluster.config().health else {
            return false;
        };
        let upstream = cluster.config().name.as_str();
        let mut all = self.tracked.iter_mut().flatten();
        let Some(tracked) = all.find(|tracked| tracked.endpoint.id() == id) else {
            return false;
        };
        let was_unchecked = tracked.streak.up().is_none();
        if tracked.streak.note(result.is_ok(), health).is_none() {
            return false;
        }
        let endpoint = tracked.endpoint.address();
        match result {
            Err(reason) => tracing::warn!(upstream, %endpoint, %reason, "endpoint down"),
            Ok(()) if was_unchecked => tracing::debug!(upstream, %endpoint, "endpoint up"),
            Ok(()) => {
                tracing::info!(upstream, %endpoint, "endpoint up");
                tracked.start(&cluster);
            }
        }
        true
    }

    /// Ejects what failed too often in a row.
    fn eject_failing(&mut self, now: Instant) -> bool {
        let Some(config) = self.cluster.config().ejection else {
            return false;
        };
        self.eject(now, "failures in a row", |tracked| {
            tracked.endpoint.failures_in_a_row() >= config.consecutive.get()
        })
    }

    fn eject(&mut self, now: Instant, reason: &str, is_bad: impl Fn(&Tracked) -> bool) -> bool {
        let Some(config) = self.cluster.config().ejection else {
            return false;
        };
        let all = self.all().count();
        let mut ejected = self
            .all()
            .filter(|tracked| tracked.record.until().is_some())
            .count();
        let upstream = self.cluster.config().name.as_str();
        let mut changed = false;
        for tracked in self.tracked.iter_mut().flatten() {
            if tracked.record.until().is_some() || !is_bad(tracked) {
                continue;
            }
            if !ejection::has_room(&config, ejected, all) {
                // Told when it is ejected, or not at all: the log is for changes.
                tracing::debug!(upstream, endpoint = %tracked.endpoint.address(), "would be ejected; too many are");
                continue;
            }
            let time = tracked.record.eject(&config, now);
            ejected += 1;
            changed = true;
            tracing::warn!(upstream, endpoint = %tracked.endpoint.address(), reason, ?time, "endpoint ejected");
        }
        changed
    }

    /// Does what is due.
    fn tick(&mut self, now: Instant) -> bool {
        let cluster = Arc::clone(&self.cluster);
        let (config, upstream) = (cluster.config(), cluster.config().name.as_str());
        let mut changed = false;
        for tracked in self.tracked.iter_mut().flatten() {
            if tracked.record.end(now) {
                changed = true;
                tracked.endpoint.forgive();
                tracked.start(&cluster);
                tracing::info!(upstream, endpoint = %tracked.endpoint.address(), "endpoint taken back");
            }
            if let Some(started) = tracked.started {
                changed = true;
                if now.saturating_duration_since(started) >= config.slow_start {
                    tracked.started = None;
                }
            }
        }
        if let Some(ejection) = config.ejection
            && now.saturating_duration_since(self.looked) >= ejection.interval
        {
            self.looked = now;
            let bad: Vec<u64> = self
                .tracked
                .iter_mut()
                .flatten()
                .filter_map(|tracked| {
                    let counts = tracked.endpoint.counts();
                    tracked
                        .record
                        .look(&ejection, counts)
                        .then_some(tracked.endpoint.id())
                })
                .collect();
            changed |= self.eject(now, "share of failures", |tracked| {
                bad.contains(&tracked.endpoint.id())
                    || tracked.endpoint.failures_in_a_row() >= ejection.consecutive.get()
            });
        } else if config.ejection.is_none() {
            self.looked = now;
        }
        changed
    }

    fn publish(&mut self, now: Instant) {
        let slow_start = self.cluster.config().slow_start;
        let (mut usable, mut status, mut all) = (Vec::new(), Vec::new(), Vec::new());
        for tracked in self.all() {
            let state = tracked.state();
            if matches!(state, State::Up | State::Unchecked) {
                let share = tracked.started.map_or(FULL_SHARE, |started| {
                    steps(started, slow_start, now).clamp(1, FULL_SHARE)
                });
                usable.push(Member {
                    endpoint: Arc::clone(&tracked.endpoint),
                    share,
                });
            }
            status.push(EndpointStatus {
                endpoint: Arc::clone(&tracked.endpoint),
                state,
            });
            all.push(Arc::clone(&tracked.endpoint));
        }
        let is_usable = !usable.is_empty();
        if self.was_usable && !is_usable {
            tracing::error!(
                upstream = self.name(),
                endpoints = all.len(),
                "no usable endpoint"
            );
        } else if !self.was_usable && is_usable {
            tracing::info!(upstream = self.name(), endpoints = usable.len(), "usable again");
        }
        self.was_usable = is_usable;
        let members = Members::new(self.cluster.config(), &usable, &all);
        self.cluster.publish(members, status);
    }
}

/// Steps of [`FULL_SHARE`] that an endpoint which came back at `started` has behind it.
fn steps(started: Instant, slow_start: Duration, now: Instant) -> u32 {
    let step = (slow_start / FULL_SHARE).as_nanos().max(1);
    let steps = now.saturating_duration_since(started).as_nanos() / step;
    u32::try_from(steps).unwrap_or(FULL_SHARE).min(FULL_SHARE)
}

/// When it takes the next one.
fn next_step(started: Instant, slow_start: Duration, now: Instant) -> Instant {
    let behind = steps(started, slow_start, now);
    if behind >= FULL_SHARE {
        return now;
    }
    started + slow_start / FULL_SHARE * (behind + 1)
}

/// How long nothing is due where nothing is ever due.
const IDLE: Duration = Duration::from_hours(1);

impl Tracked {
    fn new(endpoint: Arc<Endpoint>, started: Option<Instant>) -> Self {
        Self {
            endpoint,
            streak: Streak::default(),
            record: Record::default(),
            started,
            checker: None,
        }
    }

    /// It came back: its share grows from now on, if that is configured.
    fn start(&mut self, cluster: &Cluster) {
        if !cluster.config().slow_start.is_zero() {
            self.started = Some(Instant::now());
        }
    }

    fn state(&self) -> State {
        match (self.streak.up(), self.record.until()) {
            (Some(false), _) => State::Down,
            (_, Some(_)) => State::Ejected,
            (Some(true), None) => State::Up,
            (None, None) => State::Unchecked,
        }
    }
}

/// Checks an endpoint at intervals, if its upstream is checked.
fn checker(
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    news: &mpsc::Sender<News>,
    jitter: &mut Jitter,
) -> Option<Task> {
    let health = cluster.config().health.clone()?;
    let seed = jitter.around(Duration::from_secs(1)).as_nanos() as u64;
    let checking = checking(
        Arc::clone(cluster),
        Arc::clone(endpoint),
        health,
        news.clone(),
        Jitter::new(seed),
    );
    Some(Task(spawn_local(checking).abort_handle()))
}

async fn checking(
    cluster: Arc<Cluster>,
    endpoint: Arc<Endpoint>,
    health: HealthCheck,
    news: mpsc::Sender<News>,
    mut jitter: Jitter,
) {
    sleep(jitter.within(health.interval)).await;
    loop {
        let result = check::check(&cluster, &endpoint, &health).await;
        // The keeper outlives its checkers.
        if news.send(News::Checked(endpoint.id(), result)).await.is_err() {
            return;
        }
        sleep(jitter.around(health.interval)).await;
    }
}

async fn resolving(cluster: Arc<Cluster>, index: usize, news: mpsc::Sender<News>, mut jitter: Jitter) {
    let config = cluster.config();
    let (dns, host) = (&config.dns, &config.endpoints[index].host);
    loop {
        let found = match Resolver::new(dns) {
            Ok(resolver) => resolver.find(host).await,
            Err(error) => Err(error),
        };
        let valid = found.as_ref().map_or(Duration::ZERO, |found| found.valid);
        if news.send(News::Resolved(index, found)).await.is_err() {
            return;
        }
        let pause = valid.clamp(dns.refresh_min, dns.refresh_max.max(dns.refresh_min));
        sleep(jitter.around(pause)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_due_when_they_are_there() {
        let started = Instant::now();
        for slow_start in [Duration::from_millis(1), Duration::from_secs(30)] {
            let mut now = started;
            let mut seen = Vec::new();
            while now < started + slow_start {
                seen.push(steps(started, slow_start, now));
                let next = next_step(started, slow_start, now);
                // What happens meanwhile puts nothing off.
                assert_eq!(next_step(started, slow_start, now + (next - now) / 2), next);
                now = next;
            }
            assert_eq!(seen, (0..FULL_SHARE).collect::<Vec<_>>());
        }
    }
}
