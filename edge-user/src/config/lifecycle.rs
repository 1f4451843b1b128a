//! How the daemon follows its files, and how it goes.

use std::time::Duration;

use super::bounds;

/// What `[gateway]` says about reloads, stops and upgrades.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifecycle {
    /// Whether the configuration, its lists and the files of upstreams are reloaded when they change.
    pub watch: bool,
    /// Whether the daemon gives up what it does not need.
    pub sandbox: bool,
    /// How long the daemon says that it is not ready before its listeners close.
    pub drain_delay: Duration,
    /// How long a new process may take to become ready.
    pub upgrade_timeout: Duration,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            watch: true,
            sandbox: true,
            drain_delay: Duration::ZERO,
            upgrade_timeout: bounds::DEFAULT_UPGRADE_TIMEOUT,
        }
    }
}
