//! Idle connections of one worker, last in first out, by endpoint.
//!
//! The connection that was used last is the one most likely to be alive and warm; the oldest ones expire at the
//! other end. Bounded per endpoint; what does not fit is closed. Knows nothing of protocols: whether a connection
//! is still alive is for its owner to ask.

use std::{
    cell::RefCell,
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Idle connections of one kind.
#[derive(Debug)]
pub struct Pool<C> {
    /// Sorted by endpoint: a handful of entries is found faster than hashed.
    endpoints: RefCell<Vec<(SocketAddr, VecDeque<Idle<C>>)>>,
    limit: usize,
    expiry: Duration,
}

#[derive(Debug)]
struct Idle<C> {
    connection: C,
    since: Instant,
}

impl<C> Pool<C> {
    /// A pool that keeps `limit` connections for an endpoint, each for `expiry` at most.
    pub fn new(limit: usize, expiry: Duration) -> Self {
        Self {
            endpoints: RefCell::new(Vec::new()),
            limit,
            expiry,
        }
    }

    /// The connection to `endpoint` that was used last, unless all have expired.
    pub fn take(&self, endpoint: SocketAddr, now: Instant) -> Option<C> {
        let mut endpoints = self.endpoints.borrow_mut();
        let at = endpoints
            .binary_search_by_key(&endpoint, |(have, _)| *have)
            .ok()?;
        let idle = &mut endpoints[at].1;
        let newest = idle.pop_back()?;
        if now.duration_since(newest.since) < self.expiry {
            return Some(newest.connection);
        }
        idle.clear();
        None
    }

    /// Keeps a connection that is ready for another request.
    pub fn put(&self, endpoint: SocketAddr, connection: C, now: Instant) {
        if self.limit == 0 {
            return;
        }
        let mut endpoints = self.endpoints.borrow_mut();
        let at = endpoints
            .binary_search_by_key(&endpoint, |(have, _)| *have)
            .unwrap_or_else(|at| {
                endpoints.insert(at, (endpoint, VecDeque::new()));
                at
            });
        let idle = &mut endpoints[at].1;
        if idle.len() >= self.limit {
            idle.pop_front();
        }
        idle.push_back(Idle {
            connection,
            since: now,
        });
    }

    /// Closes what has expired.
    pub fn sweep(&self, now: Instant) {
        self.endpoints.borrow_mut().retain_mut(|(_, idle)| {
            let expired = |oldest: &Idle<C>| now.duration_since(oldest.since) >= self.expiry;
            while idle.front().is_some_and(expired) {
                idle.pop_front();
            }
            !idle.is_empty()
        });
    }

    /// How many connections are idle.
    pub fn len(&self) -> usize {
        self.endpoints.borrow().iter().map(|(_, idle)| idle.len()).sum()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn the_last_one_used_comes_back_first_and_the_oldest_gives_way() {
        let pool = Pool::new(2, Duration::from_secs(5));
        let now = Instant::now();
        for connection in 1..=3 {
            pool.put(endpoint(1), connection, now);
        }
        pool.put(endpoint(2), 9, now);
        assert_eq!(pool.len(), 3);
        assert_eq!(pool.take(endpoint(1), now), Some(3));
        assert_eq!(pool.take(endpoint(1), now), Some(2));
        assert_eq!(pool.take(endpoint(1), now), None);
        assert_eq!(pool.take(endpoint(2), now), Some(9));
        assert_eq!(pool.take(endpoint(3), now), None);
    }

    #[test]
    fn idle_connections_expire() {
        let pool = Pool::new(8, Duration::from_secs(5));
        let start = Instant::now();
        pool.put(endpoint(1), 1, start);
        pool.put(endpoint(1), 2, start + Duration::from_secs(3));
        pool.sweep(start + Duration::from_secs(6));
        assert_eq!(pool.len(), 1);
        assert_eq!(pool.take(endpoint(1), start + Duration::from_secs(9)), None);
        pool.put(endpoint(1), 3, start);
        pool.sweep(start + Duration::from_mins(1));
        assert!(pool.is_empty());
        assert_eq!(
            Pool::new(0, Duration::from_secs(1)).take(endpoint(1), start),
            None::<u8>
        );
    }
}
