//! Connections of one worker that carry one request at a time: idle ones, last in first out, by endpoint; how many
//! there may be; and who waits for one.
//!
//! The connection that was used last is the one most likely to be alive and warm; the oldest ones expire at the
//! other end. Bounded per endpoint. Knows nothing of protocols: whether a connection is still alive is for its owner
//! to ask.
//!
//! Invariant: a connection is counted from [`Opening`] until its [`Held`] is dropped, and whoever waits longest gets
//! what becomes free.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    fmt,
    ops::{Deref, DerefMut},
    rc::Rc,
    time::Instant,
};

use tokio::{sync::oneshot, time::timeout};

use super::circuit::Permit;
use crate::config::PoolLimits;

/// Connections of one kind.
#[derive(Debug)]
pub struct Pool<C> {
    /// Sorted by [`Endpoint::id`](super::endpoint::Endpoint::id): a handful of entries is found faster than hashed.
    shelves: RefCell<Vec<(u64, Rc<Shelf<C>>)>>,
}

impl<C> Default for Pool<C> {
    fn default() -> Self {
        Self {
            shelves: RefCell::default(),
        }
    }
}

struct Shelf<C> {
    limits: PoolLimits,
    idle: RefCell<VecDeque<Idle<C>>>,
    open: Cell<usize>,
    waiting: RefCell<VecDeque<oneshot::Sender<Place<C>>>>,
}

impl<C> fmt::Debug for Shelf<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf")
            .field("idle", &self.idle.borrow().len())
            .field("open", &self.open.get())
            .finish_non_exhaustive()
    }
}

struct Idle<C> {
    connection: C,
    since: Instant,
    born: Instant,
    permit: Permit,
}

/// What a request that asks for a connection gets.
#[derive(Debug)]
pub enum Taken<C> {
    /// One that was idle.
    Idle(Held<C>),
    /// The right to open one.
    Open(Opening<C>),
    /// A place in the queue.
    Wait(Waiting<C>),
    /// The queue is full.
    Full,
}

/// What somebody who waited gets.
#[derive(Debug)]
pub enum Place<C> {
    /// A connection that another request has done with.
    Idle(Held<C>),
    /// The right to open one.
    Open(Opening<C>),
}

/// A counted connection that is yet to be made; dropped, it never was.
pub struct Opening<C> {
    shelf: Rc<Shelf<C>>,
    counted: bool,
}

/// A connection in use; dropped, it is closed.
pub struct Held<C> {
    /// Present until it is put back or dropped.
    connection: Option<C>,
    born: Instant,
    /// Since when nobody had used it, if it came from the shelf.
    idle_since: Option<Instant>,
    permit: Permit,
    opening: Opening<C>,
}

/// A place in the queue.
#[derive(Debug)]
pub struct Waiting<C> {
    place: oneshot::Receiver<Place<C>>,
    limits: PoolLimits,
}

impl<C> Pool<C> {
    /// A connection to the endpoint with this id: the one used last unless it is too old, or the right to open one, or
    /// a place in the queue.
    pub fn take(&self, endpoint: u64, limits: &PoolLimits, now: Instant) -> Taken<C> {
        let found = self.at(endpoint, limits);
        if let Some(held) = Shelf::newest(&found, now) {
            return Taken::Idle(held);
        }
        Shelf::room(&found)
    }

    /// An idle connection to the endpoint with this id, if there is one that is not too old.
    pub fn take_idle(&self, endpoint: u64, limits: &PoolLimits, now: Instant) -> Option<Held<C>> {
        Shelf::newest(&self.at(endpoint, limits), now)
    }

    /// The right to open a connection, whatever is idle.
    pub fn open(&self, endpoint: u64, limits: &PoolLimits) -> Taken<C> {
        Shelf::room(&self.at(endpoint, limits))
    }

    fn at(&self, endpoint: u64, limits: &PoolLimits) -> Rc<Shelf<C>> {
        let mut shelves = self.shelves.borrow_mut();
        let at = shelves
            .binary_search_by_key(&endpoint, |(have, _)| *have)
            .unwrap_or_else(|at| {
                let new = Shelf {
                    limits: *limits,
                    idle: RefCell::default(),
                    open: Cell::new(0),
                    waiting: RefCell::default(),
                };
                shelves.insert(at, (endpoint, Rc::new(new)));
                at
            });
        Rc::clone(&shelves[at].1)
    }

    /// Closes what has expired, and forgets endpoints without connections.
    pub fn sweep(&self, now: Instant) {
        let mut expired = Vec::new();
        self.shelves.borrow_mut().retain(|(_, shelf)| {
            let mut idle = shelf.idle.borrow_mut();
            let mut kept = VecDeque::with_capacity(idle.len());
            for connection in idle.drain(..) {
                if shelf.is_fresh(&connection, now) {
                    kept.push_back(connection);
                } else {
                    shelf.open.set(shelf.open.get() - 1);
                    expired.push(connection);
                }
            }
            *idle = kept;
            shelf.open.get() > 0 || !shelf.waiting.borrow().is_empty()
        });
        // Closed when nothing is borrowed any more: whatever a connection does when it is dropped.
        drop(expired);
    }

    /// How many connections are idle.
    pub fn idle(&self) -> usize {
        let shelves = self.shelves.borrow();
        shelves.iter().map(|(_, shelf)| shelf.idle.borrow().len()).sum()
    }

    /// How many connections there are, idle or not.
    pub fn connections(&self) -> usize {
        self.shelves
            .borrow()
            .iter()
            .map(|(_, shelf)| shelf.open.get())
            .sum()
    }
}

impl<C> Shelf<C> {
    fn is_fresh(&self, idle: &Idle<C>, now: Instant) -> bool {
        now.saturating_duration_since(idle.since) < self.limits.idle_timeout
            && self
                .limits
                .max_age
                .is_none_or(|age| now.saturating_duration_since(idle.born) < age)
    }

    fn newest(shelf: &Rc<Self>, now: Instant) -> Option<Held<C>> {
        loop {
            let newest = shelf.idle.borrow_mut().pop_back()?;
            let fresh = shelf.is_fresh(&newest, now);
            let held = Held {
                connection: Some(newest.connection),
                born: newest.born,
                idle_since: Some(newest.since),
                permit: newest.permit,
                opening: Opening {
                    shelf: Rc::clone(shelf),
                    counted: true,
                },
            };
            if fresh {
                return Some(held);
            }
        }
    }

    fn room(shelf: &Rc<Self>) -> Taken<C> {
        let full = shelf
            .limits
            .connections
            .is_some_and(|most| shelf.open.get() >= most.get() as usize);
        if !full {
            return Taken::Open(Opening::new(shelf));
        }
        // Something idle that was passed over makes room for something new.
        let oldest = shelf.idle.borrow_mut().pop_front();
        if let Some(oldest) = oldest {
            drop(oldest);
            shelf.open.set(shelf.open.get() - 1);
            return Taken::Open(Opening::new(shelf));
        }
        let mut waiting = shelf.waiting.borrow_mut();
        waiting.retain(|waiter| !waiter.is_closed());
        if waiting.len() >= shelf.limits.waiting {
            return Taken::Full;
        }
        let (sender, place) = oneshot::channel();
        waiting.push_back(sender);
        Taken::Wait(Waiting {
            place,
            limits: shelf.limits,
        })
    }

    /// Hands a place to whoever waits longest; gives it back if nobody does.
    fn hand_on(&self, mut place: Place<C>) -> Option<Place<C>> {
        loop {
            let Some(waiter) = self.waiting.borrow_mut().pop_front() else {
                return Some(place);
            };
            match waiter.send(place) {
                Ok(()) => return None,
                // Lost patience, or went away.
                Err(back) => place = back,
            }
        }
    }
}

impl<C> Opening<C> {
    fn new(shelf: &Rc<Shelf<C>>) -> Self {
        shelf.open.set(shelf.open.get() + 1);
        Self {
            shelf: Rc::clone(shelf),
            counted: true,
        }
    }

    /// The connection was made.
    pub fn opened(self, connection: C, permit: Permit, now: Instant) -> Held<C> {
        Held {
            connection: Some(connection),
            born: now,
            idle_since: None,
            permit,
            opening: self,
        }
    }
}

impl<C> Drop for Opening<C> {
    fn drop(&mut self) {
        if !std::mem::take(&mut self.counted) {
            return;
        }
        if self.shelf.waiting.borrow().is_empty() {
            self.shelf.open.set(self.shelf.open.get() - 1);
            return;
        }
        let next = Self {
            shelf: Rc::clone(&self.shelf),
            counted: true,
        };
        if let Some(Place::Open(mut unwanted)) = self.shelf.hand_on(Place::Open(next)) {
            unwanted.counted = false;
            self.shelf.open.set(self.shelf.open.get() - 1);
        }
    }
}

impl<C> Held<C> {
    /// Since when nobody had used it; `None` if it is new, or came straight from another request.
    pub fn idle_since(&self) -> Option<Instant> {
        self.idle_since
    }

    /// Keeps the connection, which is ready for another request; if it is to be kept at all.
    pub fn put_back(mut self, now: Instant) {
        self.idle_since = None;
        let home = Rc::clone(&self.opening.shelf);
        let too_old = home
            .limits
            .max_age
            .is_some_and(|age| now.saturating_duration_since(self.born) >= age);
        if too_old {
            return;
        }
        if !home.waiting.borrow().is_empty() {
            match home.hand_on(Place::Idle(self)) {
                Some(Place::Idle(back)) => self = back,
                Some(Place::Open(_)) | None => return,
            }
        }
        let Some(connection) = (home.limits.idle > 0).then(|| self.connection.take()).flatten() else {
            return;
        };
        self.opening.counted = false;
        let mut idle = home.idle.borrow_mut();
        let oldest = if idle.len() >= home.limits.idle {
            idle.pop_front()
        } else {
            None
        };
        idle.push_back(Idle {
            connection,
            since: now,
            born: self.born,
            permit: std::mem::take(&mut self.permit),
        });
        drop(idle);
        if oldest.is_some() {
            home.open.set(home.open.get() - 1);
        }
    }
}

impl<C> Deref for Held<C> {
    type Target = Option<C>;

    fn deref(&self) -> &Option<C> {
        &self.connection
    }
}

impl<C> DerefMut for Held<C> {
    fn deref_mut(&mut self) -> &mut Option<C> {
        &mut self.connection
    }
}

impl<C> fmt::Debug for Opening<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Opening").field(&self.shelf).finish()
    }
}

impl<C> fmt::Debug for Held<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Held").field(&self.opening).finish()
    }
}

impl<C> Waiting<C> {
    /// Waits for a place, at most as long as configured.
    pub async fn wait(self) -> Option<Place<C>> {
        // The sender is dropped only with the pool.
        timeout(self.limits.wait_timeout, self.place).await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests;
