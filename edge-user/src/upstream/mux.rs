//! Connections of one worker that carry many requests at once (HTTP/2), by endpoint: which one has room for another
//! stream, when another connection is made, and who waits.
//!
//! Knows nothing of the protocol: whether a connection is alive is asked of whoever leases.
//!
//! Invariant: one connection is made at a time for an endpoint; whoever comes meanwhile waits for it.

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
    time::Instant,
};

use tokio::{sync::Notify, time::timeout};

use super::circuit::Permit;
use crate::config::PoolLimits;

/// Connections of one kind.
#[derive(Debug)]
pub struct Mux<C> {
    /// Sorted by [`Endpoint::id`](super::endpoint::Endpoint::id).
    shelves: RefCell<Vec<(u64, Rc<Shelf<C>>)>>,
}

impl<C> Default for Mux<C> {
    fn default() -> Self {
        Self {
            shelves: RefCell::default(),
        }
    }
}

struct Shelf<C> {
    limits: PoolLimits,
    connections: RefCell<Vec<Rc<Shared<C>>>>,
    making: Cell<bool>,
    waiting: Cell<usize>,
    changed: Notify,
}

struct Shared<C> {
    connection: C,
    streams: Cell<u32>,
    born: Instant,
    used: Cell<Instant>,
    _permit: Permit,
}

impl<C> fmt::Debug for Shelf<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf")
            .field("connections", &self.connections.borrow().len())
            .field("waiting", &self.waiting.get())
            .finish_non_exhaustive()
    }
}

/// What a request that asks for a stream gets.
#[derive(Debug)]
pub enum Offer<C> {
    /// Room on a connection.
    Ready(Lease<C>),
    /// The right to make a connection.
    Make(Making<C>),
    /// A place in the queue; ask again when it is over.
    Wait(Queue<C>),
    /// The queue is full.
    Full,
}

/// Room for one stream; given back when dropped.
pub struct Lease<C> {
    shared: Rc<Shared<C>>,
    shelf: Rc<Shelf<C>>,
}

/// The right to make a connection; dropped, somebody else may try.
#[derive(Debug)]
pub struct Making<C>(Rc<Shelf<C>>);

/// A place in the queue.
#[derive(Debug)]
pub struct Queue<C>(Rc<Shelf<C>>);

impl<C> Mux<C> {
    /// Room for a stream to the endpoint with this id.
    pub fn lease(
        &self,
        endpoint: u64,
        limits: &PoolLimits,
        is_alive: impl Fn(&C) -> bool,
        now: Instant,
    ) -> Offer<C> {
        let found = self.at(endpoint, limits);
        let mut connections = found.connections.borrow_mut();
        connections.retain(|shared| is_alive(&shared.connection) && !found.is_old(shared, now));
        let least = connections.iter().min_by_key(|shared| shared.streams.get());
        if let Some(shared) = least
            && shared.streams.get() < limits.streams.get()
        {
            let shared = Rc::clone(shared);
            drop(connections);
            return Offer::Ready(Lease::new(shared, found, now));
        }
        let full = limits
            .connections
            .is_some_and(|most| connections.len() >= most.get() as usize);
        drop(connections);
        if !found.making.get() && !full {
            found.making.set(true);
            return Offer::Make(Making(found));
        }
        if found.waiting.get() >= limits.waiting {
            return Offer::Full;
        }
        found.waiting.set(found.waiting.get() + 1);
        Offer::Wait(Queue(found))
    }

    fn at(&self, endpoint: u64, limits: &PoolLimits) -> Rc<Shelf<C>> {
        let mut shelves = self.shelves.borrow_mut();
        let at = shelves
            .binary_search_by_key(&endpoint, |(have, _)| *have)
            .unwrap_or_else(|at| {
                let new = Shelf {
                    limits: *limits,
                    connections: RefCell::default(),
                    making: Cell::new(false),
                    waiting: Cell::new(0),
                    changed: Notify::new(),
                };
                shelves.insert(at, (endpoint, Rc::new(new)));
                at
            });
        Rc::clone(&shelves[at].1)
    }

    /// Lets go of connections that were idle for too long or are too old, and forgets endpoints without any.
    pub fn sweep(&self, now: Instant) {
        let mut expired = Vec::new();
        self.shelves.borrow_mut().retain(|(_, shelf)| {
            let idle = |shared: &Shared<C>| {
                shared.streams.get() == 0
                    && now.saturating_duration_since(shared.used.get()) >= shelf.limits.idle_timeout
            };
            let mut connections = shelf.connections.borrow_mut();
            expired.extend(connections.extract_if(.., |shared| idle(shared) || shelf.is_old(shared, now)));
            !connections.is_empty() || shelf.making.get() || shelf.waiting.get() > 0
        });
        // Closed when nothing is borrowed any more.
        drop(expired);
    }

    /// How many connections may be given further streams.
    pub fn connections(&self) -> usize {
        self.shelves
            .borrow()
            .iter()
            .map(|(_, shelf)| shelf.connections.borrow().len())
            .sum()
    }
}

impl<C> Shelf<C> {
    fn is_old(&self, shared: &Shared<C>, now: Instant) -> bool {
        self.limits
            .max_age
            .is_some_and(|age| now.saturating_duration_since(shared.born) >= age)
    }
}

impl<C> Making<C> {
    /// The connection was made; the lease is its first stream.
    pub fn made(self, connection: C, permit: Permit, now: Instant) -> Lease<C> {
        let shared = Rc::new(Shared {
            connection,
            streams: Cell::new(0),
            born: now,
            used: Cell::new(now),
            _permit: permit,
        });
        self.0.connections.borrow_mut().push(Rc::clone(&shared));
        Lease::new(shared, Rc::clone(&self.0), now)
    }
}

impl<C> Drop for Making<C> {
    fn drop(&mut self) {
        self.0.making.set(false);
        self.0.changed.notify_waiters();
    }
}

impl<C> Queue<C> {
    /// Waits until something changed, at most as long as configured; `false` if nothing did.
    pub async fn wait(self) -> bool {
        timeout(self.0.limits.wait_timeout, self.0.changed.notified())
            .await
            .is_ok()
    }
}

impl<C> Drop for Queue<C> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

impl<C> Lease<C> {
    fn new(shared: Rc<Shared<C>>, shelf: Rc<Shelf<C>>, now: Instant) -> Self {
        shared.streams.set(shared.streams.get() + 1);
        shared.used.set(now);
        Self { shared, shelf }
    }

    /// The connection.
    pub fn connection(&self) -> &C {
        &self.shared.connection
    }

    /// Whether other requests used the connection before.
    pub fn is_first(&self, now: Instant) -> bool {
        self.shared.born == now
    }
}

impl<C> Drop for Lease<C> {
    fn drop(&mut self) {
        self.shared.streams.set(self.shared.streams.get() - 1);
        if self.shelf.waiting.get() > 0 {
            self.shelf.changed.notify_one();
        }
    }
}

impl<C> fmt::Debug for Lease<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(&self.shelf).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use super::*;

    fn limits() -> PoolLimits {
        PoolLimits {
            streams: NonZeroU32::MIN.saturating_add(1),
            connections: NonZeroU32::new(2),
            waiting: 1,
            wait_timeout: Duration::from_millis(20),
            ..PoolLimits::default()
        }
    }

    fn make(mux: &Mux<u32>, connection: u32, now: Instant) -> Lease<u32> {
        match mux.lease(1, &limits(), |_| true, now) {
            Offer::Make(making) => making.made(connection, Permit::default(), now),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn one_is_made_at_a_time_and_streams_are_bounded() {
        let (mux, now) = (Mux::<u32>::default(), Instant::now());
        let Offer::Make(making) = mux.lease(1, &limits(), |_| true, now) else {
            panic!("nothing is there yet")
        };
        let Offer::Wait(queue) = mux.lease(1, &limits(), |_| true, now) else {
            panic!("one is being made")
        };
        assert!(matches!(mux.lease(1, &limits(), |_| true, now), Offer::Full));
        let (first, changed) = tokio::join!(async { making.made(7, Permit::default(), now) }, queue.wait());
        assert!(changed || mux.connections() == 1);
        let Offer::Ready(second) = mux.lease(1, &limits(), |_| true, now) else {
            panic!("room for two")
        };
        let third = make(&mux, 8, now);
        assert_eq!(
            (*first.connection(), *second.connection(), *third.connection()),
            (7, 7, 8)
        );
        let Offer::Ready(fourth) = mux.lease(1, &limits(), |_| true, now) else {
            panic!("room on the second")
        };
        assert_eq!(*fourth.connection(), 8);
        let Offer::Wait(queue) = mux.lease(1, &limits(), |_| true, now) else {
            panic!("both are full")
        };
        drop(first);
        assert!(queue.wait().await);
        assert!(matches!(mux.lease(1, &limits(), |_| true, now), Offer::Ready(_)));
        assert!(matches!(mux.lease(1, &limits(), |_| false, now), Offer::Make(_)));
    }

    #[test]
    fn idle_ones_are_let_go() {
        let (mux, now) = (Mux::<u32>::default(), Instant::now());
        let lease = make(&mux, 1, now);
        let later = now + limits().idle_timeout;
        mux.sweep(later);
        assert_eq!(mux.connections(), 1, "in use");
        drop(lease);
        mux.sweep(later);
        assert_eq!(mux.connections(), 0);
    }
}
