//! How many requests of a key are under way, for many keys in bounded memory, shared by all workers without a lock.
//!
//! A slot is one word: part of the key's seeded hash, and a count. A slot whose count is zero is free for any key. When
//! all slots of a set are taken, two keys share one and are counted together: too many, never too few.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Slots in a set: one cache line.
const WAYS: usize = 8;
/// Sets: 32,768 keys under way at once in 256 KiB, twice as many as the gateway has connections.
const SETS: usize = 4_096;
/// Bits of the count; more requests than that are not under way at once.
const COUNT_BITS: u32 = 24;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
/// Tries of one update. Each failure means that another worker succeeded.
const TRIES: usize = 64;

/// The slots of all limits.
#[derive(Debug)]
pub struct Slots {
    words: Box<[AtomicU64]>,
}

/// A request under way; it is counted until this is dropped.
#[derive(Debug)]
pub struct Held {
    slots: Arc<Slots>,
    at: usize,
}

impl Default for Slots {
    fn default() -> Self {
        Self::with_sets(SETS)
    }
}

impl Slots {
    fn with_sets(sets: usize) -> Self {
        Self {
            words: std::iter::repeat_with(|| AtomicU64::new(0))
                .take(sets * WAYS)
                .collect(),
        }
    }

    /// Counts one more request of the key with this tag, unless it has `most` already.
    pub fn take(self: &Arc<Self>, tag: u64, most: u32) -> Option<Held> {
        let start = (tag >> 32) as usize % (self.words.len() / WAYS) * WAYS;
        let mark = tag & !COUNT;
        for _ in 0..TRIES {
            let at = self.place(start, mark);
            let word = self.words[at].load(Ordering::Relaxed);
            let count = word & COUNT;
            if count >= u64::from(most).min(COUNT) {
                return None;
            }
            let next = if count == 0 { mark | 1 } else { word + 1 };
            if self.words[at]
                .compare_exchange(word, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            {
                return Some(Held {
                    slots: Arc::clone(self),
                    at,
                });
            }
        }
        None
    }

    /// The key's own slot, else a free one, else one to share.
    fn place(&self, start: usize, mark: u64) -> usize {
        let mut free = None;
        for at in start..start + WAYS {
            let word = self.words[at].load(Ordering::Relaxed);
            if word & COUNT == 0 {
                free = free.or(Some(at));
            } else if word & !COUNT == mark {
                return at;
            }
        }
        free.unwrap_or(start + (mark >> COUNT_BITS) as usize % WAYS)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.slots.words[self.at].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_allowed_and_one_more_when_one_ends() {
        let slots = Arc::new(Slots::default());
        let (one, other) = (7 << 40, 9 << 40);
        let mut held: Vec<_> = (0..3).map(|_| slots.take(one, 3).expect("room")).collect();
        assert!(slots.take(one, 3).is_none());
        assert!(slots.take(other, 3).is_some(), "another key");
        held.pop();
        assert!(slots.take(one, 3).is_some());
        drop(held);
        assert!(
            slots
                .words
                .iter()
                .all(|word| word.load(Ordering::Relaxed) & COUNT == 0)
        );
    }

    #[test]
    fn a_full_set_counts_too_many_and_never_too_few() {
        let slots = Arc::new(Slots::with_sets(1));
        let held: Vec<_> = (1..=40_u64)
            .filter_map(|key| slots.take(key << COUNT_BITS, 2))
            .collect();
        assert_eq!(held.len(), 16, "eight slots, two each");
        drop(held);
        assert!(
            slots
                .words
                .iter()
                .all(|word| word.load(Ordering::Relaxed) & COUNT == 0)
        );
    }

    #[test]
    fn many_threads_never_hold_more_than_allowed() {
        let slots = Arc::new(Slots::default());
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if let Some(held) = slots.take(5 << 40, 2) {
                            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            now.fetch_sub(1, Ordering::SeqCst);
                            drop(held);
                        }
                    }
                });
            }
        });
        assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
    }
}
