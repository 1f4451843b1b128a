//! The daemon as the admin API sees it: what it can be asked for.

use std::{pin::Pin, sync::Arc, time::Duration};

use http::StatusCode;
use serde_json::Value;

use crate::{auth::Authority, config::Config};

/// An answer that takes a while.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// How far the daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Not everything accepts yet.
    Starting,
    /// It serves.
    Ready,
    /// It serves still, and is about to stop.
    Draining,
    /// Its listeners are closed, or another process has them; connections finish.
    Finishing,
}

impl Stage {
    /// In a word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Finishing => "finishing",
        }
    }
}

/// What was done to the daemon, and how often.
#[derive(Debug, Clone, Copy, Default)]
pub struct Orders {
    /// Reloads that were put in force.
    pub reloads: u64,
    /// Reloads that changed nothing, for a mistake.
    pub reloads_failed: u64,
    /// Whether the last reload was of those.
    pub last_reload_failed: bool,
    /// Upgrades whose new process did not become ready.
    pub upgrades_failed: u64,
    /// Upgrades that led to this process.
    pub upgrades: u64,
    /// When the configuration in force was put in force, seconds since the epoch.
    pub configured_at: f64,
    /// Counts configurations, from 1.
    pub generation: u64,
}

/// An order was not carried out; nothing was changed.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The status that says so.
    pub status: StatusCode,
    /// Why, for people.
    pub why: String,
}

/// What can be asked of the daemon.
pub trait Daemon: Send + Sync + 'static {
    /// The configuration in force.
    fn config(&self) -> Arc<Config>;

    /// Who understands tokens now.
    fn authority(&self) -> Arc<Authority>;

    /// How far it is.
    fn stage(&self) -> Stage;

    /// What was done to it.
    fn orders(&self) -> Orders;

    /// What the shield does, as `breakwater status --json` has it.
    fn shield(&self) -> Later<Result<Value, String>>;

    /// Reads everything again and puts it in force; what is different.
    fn reload(&self) -> Later<Result<Value, Refused>>;

    /// Begins the end; the deadline for connections if not the configured one.
    fn drain(&self, deadline: Option<Duration>) -> Later<Result<(), Refused>>;

    /// Hands over to a new process.
    fn upgrade(&self) -> Later<Result<Value, Refused>>;
}
