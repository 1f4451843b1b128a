//! Another configuration for a gateway that runs: everything that can fail first, then the switch.
//!
//! Requests that have begun, tunnels and uploads go on under the old plan. What is the same in both is the same object:
//! pools, health, ejections, budgets, limiter cells, session tickets, sockets.

use std::{
    net::TcpListener,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{
    Authenticate, Handle, Limits, SetupError, door::Door, entrance::Entrance, listen, plan::Plan,
    worker::Order,
};
use crate::config::Config;

/// A configuration that is ready to be switched to. Dropping it changes nothing.
pub struct Renewal {
    handle: Handle,
    previous: Arc<Plan>,
    plan: Option<Arc<Plan>>,
    limits: Limits,
    grace: Duration,
    /// In the configuration's order.
    entrances: Vec<Planned>,
}

/// What becomes of one listener.
enum Planned {
    /// Its sockets stay.
    Stays(Arc<Entrance>, Door),
    /// It is new: a socket for each worker.
    Opens(Arc<Entrance>, Vec<TcpListener>),
}

impl Handle {
    /// Compiles `config` and binds its new listeners. Blocks, at most some seconds, while new names are resolved.
    ///
    /// # Errors
    /// What cannot be served or bound; nothing is changed then.
    pub fn prepare(
        &self,
        config: &Config,
        authenticator: Arc<dyn Authenticate>,
    ) -> Result<Renewal, SetupError> {
        let previous = self.shared.plan.load_full();
        let plan = Plan::compile(config, authenticator, self.workers, Some(&previous))?;
        let entrances = self.plan_entrances(config)?;
        // Old upstreams are kept as long as the old plan is in force.
        let both: Vec<_> = previous
            .upstreams()
            .iter()
            .chain(plan.upstreams())
            .cloned()
            .collect();
        self.shared.supervisor.keep(&both);
        Ok(Renewal {
            limits: Limits {
                codec: self.shared.limits.load().codec,
                ..Limits::of(&config.limits)
            },
            grace: config.shutdown_grace,
            handle: self.clone(),
            previous,
            plan: Some(Arc::new(plan)),
            entrances,
        })
    }

    fn plan_entrances(&self, config: &Config) -> Result<Vec<Planned>, SetupError> {
        let current = self.shared.entrances.load();
        let mut free: Vec<Arc<Entrance>> = current.to_vec();
        let mut planned = Vec::with_capacity(config.listeners.len());
        for listener in &config.listeners {
            let at = free
                .iter()
                .position(|one| one.is_at(listener) && one.door().name() == listener.name)
                .or_else(|| free.iter().position(|one| one.is_at(listener)));
            let fault = |source| SetupError::Tls {
                listener: listener.name.clone(),
                source,
            };
            if let Some(at) = at {
                let entrance = free.swap_remove(at);
                let door = Door::new(listener, Some(&entrance.door())).map_err(fault)?;
                planned.push(Planned::Stays(entrance, door));
                continue;
            }
            let door = Door::new(listener, None).map_err(fault)?;
            // Two of ours may overlap for a moment, as when an address becomes every address.
            let is_ours = current
                .iter()
                .any(|one| one.address().port() == listener.address.port());
            let (sockets, address) = listen::bind_listener(listener, self.workers, !is_ours)?;
            let entrance = listen::entrance(listener, address, door, &sockets)?;
            planned.push(Planned::Opens(Arc::new(entrance), sockets));
        }
        Ok(planned)
    }
}

impl Renewal {
    /// Switches: whatever begins from now on meets the new configuration. Blocks for a moment.
    pub fn commit(mut self) {
        let Some(plan) = self.plan.take() else { return };
        let shared = &self.handle.shared;
        shared.limits.store(Arc::new(self.limits.clone()));
        shared
            .connections
            .resize(self.limits.connections, self.limits.connections_per_peer);
        shared.grace_ms.store(
            u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
        shared.plan.store(Arc::clone(&plan));
        let mut entrances = Vec::with_capacity(self.entrances.len());
        for planned in self.entrances.drain(..) {
            match planned {
                Planned::Stays(entrance, door) => {
                    entrance.rehang(door);
                    entrances.push(entrance);
                }
                Planned::Opens(entrance, sockets) => {
                    for (worker, socket) in shared.orders.iter().zip(sockets) {
                        // A worker that has died takes the gateway with it.
                        let _ = worker.blocking_send(Order::Open(Arc::clone(&entrance), socket));
                    }
                    entrances.push(entrance);
                }
            }
        }
        let old = shared.entrances.swap(Arc::new(entrances.clone()));
        for gone in old
            .iter()
            .filter(|old| !entrances.iter().any(|one| Arc::ptr_eq(old, one)))
        {
            gone.close();
        }
        shared.supervisor.keep(plan.upstreams());
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        if self.plan.is_some() {
            self.handle.shared.supervisor.keep(self.previous.upstreams());
        }
    }
}
