//! Waiting for what has no file descriptor to wait on.
//!
//! Invariant: every wait has a limit and says what it waited for when the limit passes.

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

/// Limit of a wait for something that happens at once on an idle machine; generous, since the machine may be an
/// emulated one that shares a core.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// Polls `probe` until it answers, for at most `limit`; `None` when the limit passes.
pub fn within<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(INTERVAL);
    }
}

/// Polls `probe` until it answers.
///
/// # Panics
/// When [`PATIENCE`] runs out; the message names `what`.
#[track_caller]
pub fn eventually<T>(what: impl Display, probe: impl FnMut() -> Option<T>) -> T {
    match within(PATIENCE, probe) {
        Some(found) => found,
        None => panic!("waited {} s in vain for {what}", PATIENCE.as_secs()),
    }
}
