//! Who has earned exact state by a connection that the gateway accepted, and who has been idle for too long.
//!
//! Only handshakes count: a packet's source alone is a claim, however long and well-behaved its flow is.

use std::{collections::HashMap, time::Duration};

use edge_common::abi::Alert;

use crate::{
    gateway::arrivals::Arrivals,
    kernel::{ShieldTables, earned::HostLimits},
};

/// The longest that an idle source is kept beyond its time.
const LATEST: Duration = Duration::from_secs(10);
/// The least time between two sweeps, each of which looks at the whole table.
const SOONEST: Duration = Duration::from_secs(1);

/// The enforcer's part of it.
pub(super) struct Earning {
    arrivals: Option<Arrivals>,
    idle: Duration,
}

impl Earning {
    /// Takes from `arrivals`, if there is a gateway; what has been idle for `idle` is forgotten, whoever earned it.
    pub(super) const fn new(arrivals: Option<Arrivals>, idle: Duration) -> Self {
        Self { arrivals, idle }
    }

    /// Forgets after another time from now on.
    pub(super) const fn configure(&mut self, idle: Duration) {
        self.idle = idle;
    }

    /// How often to [`Self::sweep`].
    pub(super) fn pace(&self) -> Duration {
        (self.idle / 4).clamp(SOONEST, LATEST)
    }

    /// Gives exact state to whoever has arrived.
    pub(super) fn take(&self, tables: &ShieldTables) {
        let mut limits: HashMap<u16, Vec<HostLimits>> = HashMap::new();
        let mut refused = 0;
        for arrival in self.arrivals.iter().flat_map(Arrivals::take) {
            let limits = limits
                .entry(arrival.port)
                .or_insert_with(|| tables.host_limits_on(arrival.port));
            refused += tables.earn_under(arrival.peer, limits).refused;
        }
        if refused > 0 {
            tables.alert(Alert::EarnedRefused, refused as u64);
        }
    }

    /// Forgets who has been idle.
    pub(super) fn sweep(&self, tables: &ShieldTables) {
        let forgotten = tables.forget_idle(self.idle);
        if forgotten > 0 {
            tracing::debug!(forgotten, "idle sources have no exact state any more");
        }
    }
}
