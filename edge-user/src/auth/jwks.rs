//! Keys from a URL: when to fetch them, who waits for them, how long old ones live.
//!
//! A provider with a remote key source has one task that fetches on a schedule and when a token names an unknown key,
//! the latter at most once per cooldown however many tokens ask. A fetch that fails changes nothing but the status;
//! the last good set serves on for a bounded time. Requests never fetch; at most they wait for the task.

mod absent;
mod document;
mod fetch;
mod refresh;
mod schedule;
mod url;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use absent::AbsentKeys;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};

pub use fetch::FetchError;
pub(super) use refresh::spawn;
pub(super) use url::RemoteUrl;
pub use url::UrlError;

use crate::config::{KeySource, Provider, RemoteKeys};

/// Most requests that wait for one provider's keys at the same time.
const MAX_WAITING: usize = 1024;
/// Time that a fetch may take to be scheduled, on top of its own limit.
const WAIT_MARGIN: Duration = Duration::from_millis(500);

/// What the request side and the fetching task share.
#[derive(Debug)]
pub(super) struct Remote {
    /// One permit however many tokens ask.
    demand: Notify,
    started: AtomicU64,
    /// The last fetch that brought a good answer.
    last_good: AtomicU64,
    absent: AbsentKeys,
    finished: watch::Sender<u64>,
    waiting: AtomicUsize,
}

impl Remote {
    fn new() -> Self {
        Self {
            demand: Notify::new(),
            started: AtomicU64::new(0),
            last_good: AtomicU64::new(0),
            absent: AbsentKeys::new(),
            finished: watch::Sender::new(0),
            waiting: AtomicUsize::new(0),
        }
    }

    /// For providers whose keys come from a URL.
    pub(super) fn of(config: &Provider) -> Option<Self> {
        remote_keys(config).map(|_| Self::new())
    }

    /// Asks for a fetch ahead of schedule; the task decides whether and when.
    pub(super) fn ask(&self) {
        self.demand.notify_one();
    }

    /// Number of fetches begun so far.
    pub(super) fn started(&self) -> u64 {
        self.started.load(Ordering::Acquire)
    }

    /// Whether waiting for the key of this id makes sense: no good answer has come without it lately.
    pub(super) fn may_come(&self, kid: Option<&str>) -> bool {
        self.absent
            .may_come(kid, self.started(), self.last_good.load(Ordering::Acquire))
    }

    /// Whether the first fetch has ended.
    pub(super) fn has_tried(&self) -> bool {
        *self.finished.borrow() > 0
    }

    /// Waits for the end of the first fetch.
    pub(super) async fn first(&self) {
        let _ = self.finished.subscribe().wait_for(|finished| *finished > 0).await;
    }

    /// A place among those who wait for keys; none if all are taken. Asks for a fetch.
    pub(super) fn wait(self: &Arc<Self>, config: &RemoteKeys) -> Option<KeyWait> {
        let is_full = self.waiting.fetch_add(1, Ordering::AcqRel) >= MAX_WAITING;
        let wait = KeyWait {
            finished: self.finished.subscribe(),
            needed: self.started() + 1,
            deadline: Instant::now() + config.cooldown + config.timeout + WAIT_MARGIN,
            is_new: true,
            remote: Arc::clone(self),
        };
        if is_full {
            return None;
        }
        self.ask();
        Some(wait)
    }
}

/// A request that waits for a provider's next keys, in one of a bounded number of places.
///
/// Waits at most one cooldown, one fetch and a margin. Can be sent to another thread and outlives everything it
/// came from.
#[derive(Debug)]
pub struct KeyWait {
    remote: Arc<Remote>,
    finished: watch::Receiver<u64>,
    /// The first fetch that begins after this request came.
    needed: u64,
    deadline: Instant,
    is_new: bool,
}

impl KeyWait {
    /// Waits for the end of the next fetch, after which the request should be judged again. False if no later fetch
    /// could change the answer any more.
    ///
    /// The first call returns at once: a fetch may have ended between the first answer and the beginning of the wait.
    pub async fn next(&mut self) -> bool {
        if std::mem::take(&mut self.is_new) {
            return true;
        }
        match timeout_at(self.deadline, self.finished.changed()).await {
            Ok(Ok(())) => *self.finished.borrow_and_update() < self.needed,
            Ok(Err(_)) | Err(_) => false,
        }
    }
}

impl Drop for KeyWait {
    fn drop(&mut self) {
        self.remote.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The remote part of a provider's key source.
pub(super) fn remote_keys(config: &Provider) -> Option<&RemoteKeys> {
    match &config.key {
        KeySource::JwksUrl(remote) | KeySource::Oidc(remote) => Some(remote),
        KeySource::SecretFile(_)
        | KeySource::SecretEnv(_)
        | KeySource::Generated(_)
        | KeySource::PemFile(_)
        | KeySource::JwksFile(_) => None,
    }
}
