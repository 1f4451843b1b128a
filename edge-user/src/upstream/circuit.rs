//! Limits of one upstream over all workers: connections, waiting requests, requests, retries in flight.
//!
//! A limit that is not set costs nothing: nothing is counted for it.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use crate::config::Circuit as Config;

/// One limit, and what is counted against it.
#[derive(Debug, Default)]
pub struct Limit {
    most: Option<NonZeroU32>,
    now: AtomicU32,
}

/// The limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Counts one against a limit until it is dropped; of a limit that is not set, nothing.
#[derive(Debug, Default)]
#[must_use]
pub struct Permit(Option<Arc<Limit>>);

impl Limit {
    /// A limit, or none.
    fn new(most: Option<NonZeroU32>) -> Arc<Self> {
        Arc::new(Self {
            most,
            now: AtomicU32::new(0),
        })
    }

    /// Takes one.
    pub fn enter(self: &Arc<Self>) -> Result<Permit, Full> {
        let Some(most) = self.most else {
            return Ok(Permit(None));
        };
        if self.now.fetch_add(1, Relaxed) >= most.get() {
            self.now.fetch_sub(1, Relaxed);
            return Err(Full);
        }
        Ok(Permit(Some(Arc::clone(self))))
    }

    /// How many are taken; zero where there is no limit.
    pub fn taken(&self) -> u32 {
        self.now.load(Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(limit) = &self.0 {
            limit.now.fetch_sub(1, Relaxed);
        }
    }
}

/// The limits of an upstream.
#[derive(Debug)]
pub struct Circuit {
    /// Connections.
    pub connections: Arc<Limit>,
    /// Requests that wait for a connection.
    pub pending: Arc<Limit>,
    /// Requests in flight.
    pub requests: Arc<Limit>,
    /// Second and further tries in flight.
    pub retries: Arc<Limit>,
}

impl Circuit {
    /// As configured.
    pub fn new(config: Config) -> Self {
        Self {
            connections: Limit::new(config.connections),
            pending: Limit::new(config.pending),
            requests: Limit::new(config.requests),
            retries: Limit::new(config.retries),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_exact_and_no_limit_counts_nothing() {
        let circuit = Circuit::new(Config {
            requests: NonZeroU32::new(2),
            ..Config::default()
        });
        let first = circuit.requests.enter().expect("room");
        let second = circuit.requests.enter().expect("room");
        assert_eq!(circuit.requests.enter().err(), Some(Full));
        drop(first);
        let third = circuit.requests.enter().expect("room again");
        assert_eq!(circuit.requests.taken(), 2);
        drop((second, third));
        assert_eq!(circuit.requests.taken(), 0);
        let free = circuit.connections.enter().expect("no limit");
        assert_eq!(circuit.connections.taken(), 0);
        drop(free);
    }
}
