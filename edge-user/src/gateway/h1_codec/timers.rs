//! Coarse time for the connections of one worker: one tick for all of them, no timer of the runtime per request.
//!
//! A connection sets a deadline by storing a number; the tick wakes whose deadline has passed. Deadlines are kept side
//! by side, so looking through those of ten thousand idle connections is one sweep over 80 KiB. A limit is exceeded by
//! two ticks at most and never cut short.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Waker},
    time::{Duration, Instant, SystemTime},
};

/// How far deadlines lie apart.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// A deadline that never comes.
const NEVER: u64 = u64::MAX;

/// The deadlines of one worker, and what else changes once a tick.
#[derive(Debug)]
pub(crate) struct Timers {
    start: Instant,
    now: Cell<u64>,
    stopping: Cell<bool>,
    slots: RefCell<Slots>,
    date: Cell<(u64, [u8; DATE_LEN])>,
}

#[derive(Debug, Default)]
struct Slots {
    deadlines: Vec<u64>,
    wakers: Vec<Option<Waker>>,
    free: Vec<u32>,
}

/// Length of a date in HTTP's format (RFC 9110, 5.6.7).
const DATE_LEN: usize = 29;

impl Timers {
    /// Timers that begin at `start`.
    pub(crate) fn new(start: Instant, date: SystemTime) -> Rc<Self> {
        let timers = Self {
            start,
            now: Cell::new(0),
            stopping: Cell::new(false),
            slots: RefCell::default(),
            date: Cell::new((NEVER, [b' '; DATE_LEN])),
        };
        timers.set_date(date);
        Rc::new(timers)
    }

    /// Wakes every connection whose deadline has passed.
    pub(crate) fn tick(&self, now: Instant, date: SystemTime) {
        let ticks = now.saturating_duration_since(self.start).as_nanos() / TICK.as_nanos();
        let ticks = u64::try_from(ticks).unwrap_or(NEVER - 1);
        self.now.set(ticks);
        self.set_date(date);
        let slots = self.slots.borrow();
        for (deadline, waker) in slots.deadlines.iter().zip(&slots.wakers) {
            if *deadline <= ticks
                && let Some(waker) = waker
            {
                waker.wake_by_ref();
            }
        }
    }

    /// Wakes every connection, which finds that the worker stops.
    pub(crate) fn stop(&self) {
        self.stopping.set(true);
        for waker in self.slots.borrow().wakers.iter().flatten() {
            waker.wake_by_ref();
        }
    }

    /// Whether the worker stops.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// The date in HTTP's format.
    pub(crate) fn date(&self) -> [u8; DATE_LEN] {
        self.date.get().1
    }

    fn set_date(&self, date: SystemTime) {
        let seconds = date
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        if seconds != self.date.get().0 {
            let text = httpdate::fmt_http_date(date);
            if let Ok(text) = <[u8; DATE_LEN]>::try_from(text.as_bytes()) {
                self.date.set((seconds, text));
            }
        }
    }
}

/// One connection's place among the deadlines.
#[derive(Debug)]
pub(crate) struct Timer {
    timers: Rc<Timers>,
    index: usize,
}

impl Timer {
    /// A place without a deadline.
    pub(crate) fn new(timers: &Rc<Timers>) -> Self {
        let mut slots = timers.slots.borrow_mut();
        let index = if let Some(free) = slots.free.pop() {
            free as usize
        } else {
            slots.deadlines.push(NEVER);
            slots.wakers.push(None);
            slots.deadlines.len() - 1
        };
        Self {
            timers: Rc::clone(timers),
            index,
        }
    }

    /// Whom to wake: the task that polls the connection.
    pub(crate) fn register(&self, context: &Context<'_>) {
        let mut slots = self.timers.slots.borrow_mut();
        if let Some(waker) = slots.wakers.get_mut(self.index)
            && !waker
                .as_ref()
                .is_some_and(|waker| waker.will_wake(context.waker()))
        {
            *waker = Some(context.waker().clone());
        }
    }

    /// Sets the deadline `limit` from now, in place of the one before.
    pub(crate) fn arm(&self, limit: Duration) {
        let ticks = limit.as_millis().div_ceil(TICK.as_millis()) + 1;
        let deadline =
            u64::try_from(ticks).map_or(NEVER, |ticks| self.timers.now.get().saturating_add(ticks));
        self.set(deadline);
    }

    /// Whether the deadline has passed.
    pub(crate) fn expired(&self) -> bool {
        let slots = self.timers.slots.borrow();
        slots
            .deadlines
            .get(self.index)
            .is_some_and(|deadline| *deadline <= self.timers.now.get())
    }

    fn set(&self, deadline: u64) {
        if let Some(slot) = self.timers.slots.borrow_mut().deadlines.get_mut(self.index) {
            *slot = deadline;
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let mut slots = self.timers.slots.borrow_mut();
        if let Some(deadline) = slots.deadlines.get_mut(self.index) {
            *deadline = NEVER;
        }
        if let Some(waker) = slots.wakers.get_mut(self.index) {
            *waker = None;
        }
        slots.free.push(self.index as u32);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn only_whose_deadline_has_passed_is_woken_and_never_early() {
        let start = Instant::now();
        let timers = Timers::new(start, SystemTime::UNIX_EPOCH);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let (short, long) = (Timer::new(&timers), Timer::new(&timers));
        for timer in [&short, &long] {
            timer.register(&Context::from_waker(&waker));
        }
        short.arm(Duration::from_millis(120));
        long.arm(Duration::from_secs(10));
        for (after, expired) in [(100, false), (119, false), (200, true)] {
            timers.tick(start + Duration::from_millis(after), SystemTime::UNIX_EPOCH);
            assert_eq!(short.expired(), expired, "after {after} ms");
            assert!(!long.expired());
        }
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        drop(short);
        let again = Timer::new(&timers);
        assert!(!again.expired(), "a place used again has no deadline");
        timers.stop();
        assert_eq!(
            woken.0.load(Ordering::Relaxed),
            2,
            "the long one; the new one has nobody to wake"
        );
    }

    #[test]
    fn the_date_follows_the_clock() {
        let timers = Timers::new(Instant::now(), SystemTime::UNIX_EPOCH);
        assert_eq!(&timers.date(), b"Thu, 01 Jan 1970 00:00:00 GMT");
        timers.tick(Instant::now(), SystemTime::UNIX_EPOCH + Duration::from_hours(24));
        assert_eq!(&timers.date(), b"Fri, 02 Jan 1970 00:00:00 GMT");
    }
}
