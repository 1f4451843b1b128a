//! The progress of what takes a while, and what the daemon does by itself: a short memory of what happened, and a way to wait
//! for more.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use serde::Serialize;
use tokio::sync::watch;

use super::metrics::since_epoch;

/// Events that are remembered.
const REMEMBERED: usize = 256;

/// The work of which there may be very much.
pub const BAN: &str = "ban";

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// Counts, from 1; gaps are events that were forgotten before anybody asked.
    pub number: u64,
    /// When, seconds since the epoch.
    pub at: f64,
    /// `reload`, `drain`, `upgrade`, `ban`, `cookies`.
    pub work: &'static str,
    /// `begun`, `progress`, `done`, `failed`. Cookies of a service begin and are done; a ban is done or failed.
    pub state: &'static str,
    /// More, for people.
    pub detail: String,
}

/// The memory.
#[derive(Debug)]
pub struct Events {
    kept: Mutex<VecDeque<Event>>,
    last: watch::Sender<u64>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            last: watch::channel(0).0,
        }
    }
}

impl Events {
    /// Remembers one; the oldest is forgotten for it, a ban if bans are most of what is remembered.
    pub fn add(&self, work: &'static str, state: &'static str, detail: impl Into<String>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let number = *self.last.borrow() + 1;
        if kept.len() == REMEMBERED {
            let bans = kept.iter().filter(|event| event.work == BAN).count();
            let first = if bans > REMEMBERED / 2 {
                kept.iter().position(|event| event.work == BAN)
            } else {
                None
            };
            kept.remove(first.unwrap_or_default());
        }
        kept.push_back(Event {
            number,
            at: since_epoch(SystemTime::now()),
            work,
            state,
            detail: detail.into(),
        });
        self.last.send_replace(number);
    }

    /// What came after the event of this number, as far as it is remembered.
    pub fn after(&self, number: u64) -> Vec<Event> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter()
            .filter(|event| event.number > number)
            .cloned()
            .collect()
    }

    /// Waits until there is one after this number.
    pub async fn wait(&self, number: u64) {
        // The sender lives as long as this.
        let _ = self.last.subscribe().wait_for(|last| *last > number).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_bans_do_not_displace_a_reload() {
        let events = Events::default();
        events.add("reload", "done", "");
        for _ in 0..3 * REMEMBERED {
            events.add(BAN, "done", "");
        }
        let kept = events.after(0);
        assert_eq!((kept.len(), kept[0].work), (REMEMBERED, "reload"));
        assert_eq!(kept[REMEMBERED - 1].number, 3 * REMEMBERED as u64 + 1);
    }

    #[tokio::test]
    async fn the_oldest_is_forgotten_and_waiting_ends() {
        let events = Events::default();
        for number in 0..REMEMBERED + 2 {
            events.add("reload", "done", number.to_string());
        }
        let kept = events.after(0);
        assert_eq!((kept.len(), kept[0].number), (REMEMBERED, 3));
        let last = kept[REMEMBERED - 1].number;
        assert!(events.after(last).is_empty());
        let ((), ()) = tokio::join!(async { events.add("drain", "begun", "") }, events.wait(last));
        assert_eq!(events.after(last)[0].work, "drain");
    }
}
