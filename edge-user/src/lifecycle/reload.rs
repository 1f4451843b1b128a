//! How a running daemon is asked for something: by a signal, because its files have changed, or over the admin socket.
//!
//! Owns the way there and what comes back; who carries it out is the daemon, one order after the other. What is in
//! force is here too, for whoever has to show it. Never changes anything itself.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use super::{LifecycleError, changes::Change};
use crate::{auth::Authority, config::Config};

/// Orders that may wait; whoever brings more is told that the daemon is busy.
const MAX_ORDERS: usize = 16;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// SIGHUP.
    Signal,
    /// A file that the configuration names, or the configuration itself, has changed.
    Files,
    /// Somebody at the admin socket.
    Admin,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signal => "a signal",
            Self::Files => "files that changed",
            Self::Admin => "the admin API",
        })
    }
}

/// How far the daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not everything accepts yet.
    Starting,
    /// It serves.
    Ready,
    /// It serves still, and is about to stop: whoever spreads load should send it elsewhere.
    Draining,
    /// Its listeners are closed, or another process has them; connections finish.
    Finishing,
}

/// What a reload came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Who asked.
    pub cause: Cause,
    /// Counts the configurations that were in force, from 1.
    pub generation: u64,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// What is different; empty if nothing was.
    pub changes: Vec<Change>,
    /// What stands in the file and takes a restart (or an upgrade) to be in force, one sentence each.
    pub needs_restart: Vec<String>,
    /// What somebody should look at in the file, with file, line and key.
    pub warnings: Vec<String>,
}

/// Why an order was not carried out. Nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OrderError {
    /// It failed; told with file, line and key where there is one. What was in force stays so.
    #[error("{0}")]
    Failed(Arc<LifecycleError>),
    /// The daemon runs without a file that could be read again.
    #[error("there is nothing to read again: the built-in quick start has no file")]
    NoFile,
    /// The daemon is on its way down.
    #[error("the daemon is stopping")]
    Stopping,
    /// Too many orders wait.
    #[error("the daemon is busy: {MAX_ORDERS} orders wait already")]
    Busy,
}

impl From<LifecycleError> for OrderError {
    fn from(error: LifecycleError) -> Self {
        Self::Failed(Arc::new(error))
    }
}

/// What an upgrade came to: the new process serves, this one finishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Upgraded {
    /// The new process.
    pub process: u32,
    /// From the order until it was ready, in microseconds.
    pub took_us: u64,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Order {
    /// Read the configuration again.
    Reload(Cause, oneshot::Sender<Result<Changes, OrderError>>),
    /// Stop, in an orderly way; the deadline for connections if not the configured one.
    Drain(Option<Duration>, oneshot::Sender<Result<(), OrderError>>),
    /// Hand over to a new process.
    Upgrade(oneshot::Sender<Result<Upgraded, OrderError>>),
}

/// What is in force.
#[derive(Debug, Clone)]
pub struct InForce {
    /// The configuration, overrides applied.
    pub config: Arc<Config>,
    /// Who understands tokens.
    pub authority: Arc<Authority>,
    /// Since when.
    pub since: SystemTime,
    /// Counts, from 1.
    pub generation: u64,
}

/// How often what was asked for.
#[derive(Debug, Default)]
pub(super) struct Tally {
    reloads: AtomicU64,
    refused: AtomicU64,
    last_refused: AtomicBool,
    failed_upgrades: AtomicU64,
}

/// [`Tally`], read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct OrderCounts {
    /// Reloads that went well.
    pub reloads: u64,
    /// Reloads that changed nothing, for a mistake.
    pub reloads_refused: u64,
    /// Whether the last reload was of those.
    pub last_reload_refused: bool,
    /// Upgrades whose new process did not become ready.
    pub upgrades_failed: u64,
}

/// A hold on the daemon, for whoever asks it for something or shows what is in force. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reloader {
    orders: mpsc::Sender<Order>,
    phase: watch::Receiver<Phase>,
    in_force: Arc<ArcSwap<InForce>>,
    tally: Arc<Tally>,
}

/// The daemon's end.
pub(super) struct Orders {
    pub(super) waiting: mpsc::Receiver<Order>,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) in_force: Arc<ArcSwap<InForce>>,
    pub(super) tally: Arc<Tally>,
}

/// Both ends.
pub(super) fn channel(config: Arc<Config>, authority: Arc<Authority>) -> (Reloader, Orders) {
    let (sender, orders) = mpsc::channel(MAX_ORDERS);
    let (phase, phases) = watch::channel(Phase::Starting);
    let in_force = Arc::new(ArcSwap::from_pointee(InForce {
        config,
        authority,
        since: SystemTime::now(),
        generation: 1,
    }));
    let tally = Arc::<Tally>::default();
    let reloader = Reloader {
        orders: sender,
        phase: phases,
        in_force: Arc::clone(&in_force),
        tally: Arc::clone(&tally),
    };
    let orders = Orders {
        waiting: orders,
        phase,
        in_force,
        tally,
    };
    (reloader, orders)
}

impl Reloader {
    /// Has the configuration and every file that it names read again, and put in force as a whole.
    ///
    /// # Errors
    /// What is wrong with it; nothing was changed then.
    pub async fn reload(&self, cause: Cause) -> Result<Changes, OrderError> {
        self.ask(|answer| Order::Reload(cause, answer)).await
    }

    /// Begins the end: not ready from now on, then no listeners, then no connections. Answers when that has begun; the
    /// connections get `deadline`, or the configured time.
    ///
    /// # Errors
    /// It has begun already.
    pub async fn drain(&self, deadline: Option<Duration>) -> Result<(), OrderError> {
        self.ask(|answer| Order::Drain(deadline, answer)).await
    }

    /// Starts the binary anew beside this process, and hands over to it once it is ready.
    ///
    /// # Errors
    /// It did not become ready; this process carries on.
    pub async fn upgrade(&self) -> Result<Upgraded, OrderError> {
        self.ask(Order::Upgrade).await
    }

    async fn ask<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, OrderError>>) -> Order,
    ) -> Result<T, OrderError> {
        let (answer, answered) = oneshot::channel();
        self.orders.try_send(order(answer)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => OrderError::Busy,
            mpsc::error::TrySendError::Closed(_) => OrderError::Stopping,
        })?;
        answered.await.unwrap_or(Err(OrderError::Stopping))
    }

    /// How far the daemon is.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Follows how far the daemon is.
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.clone()
    }

    /// What is in force now.
    pub fn in_force(&self) -> Arc<InForce> {
        self.in_force.load_full()
    }

    /// How often what was asked for.
    pub fn counts(&self) -> OrderCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        OrderCounts {
            reloads: read(&self.tally.reloads),
            reloads_refused: read(&self.tally.refused),
            last_reload_refused: self.tally.last_refused.load(Ordering::Relaxed),
            upgrades_failed: read(&self.tally.failed_upgrades),
        }
    }
}

impl Tally {
    pub(super) fn reloaded(&self, went_well: bool) {
        let count = if went_well { &self.reloads } else { &self.refused };
        count.fetch_add(1, Ordering::Relaxed);
        self.last_refused.store(!went_well, Ordering::Relaxed);
    }

    pub(super) fn upgrade_failed(&self) {
        self.failed_upgrades.fetch_add(1, Ordering::Relaxed);
    }
}
