//! Key ids that a good answer has lately not brought, so that nobody waits for them again and again.
//!
//! Clients go on sending tokens of a key that was withdrawn; each would wait for a fetch that cannot help. Remembered
//! in a fixed number of places by a seeded hash: a flood of made-up ids makes the memory forget, never wrong. It
//! decides about waiting only, never about accepting.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

/// Key ids remembered.
const PLACES: usize = 256;
/// After this many further fetches an id may be waited for again.
const FORGET_AFTER: u32 = 12;

/// For each place: upper half of the id's hash, then the first fetch whose answer says whether the key is there.
#[derive(Debug)]
pub(super) struct AbsentKeys {
    places: [AtomicU64; PLACES],
    hasher: RandomState,
}

impl AbsentKeys {
    pub(super) fn new() -> Self {
        Self {
            places: [const { AtomicU64::new(0) }; PLACES],
            hasher: RandomState::new(),
        }
    }

    /// Whether a fetch that has yet to end could bring the key of this id, given the number of fetches `started` and
    /// the number of the last one that brought a good answer.
    pub(super) fn may_come(&self, kid: Option<&str>, started: u64, last_good: u64) -> bool {
        let hash = self.hasher.hash_one(kid);
        let place = &self.places[hash as usize % PLACES];
        let seen = place.load(Ordering::Relaxed);
        if seen >> 32 == hash >> 32 {
            // Numbers of fetches, compared in a circle.
            let since = (last_good as u32).wrapping_sub(seen as u32);
            if since < FORGET_AFTER {
                return false;
            }
            if since > u32::MAX / 2 {
                return true;
            }
        }
        // A fetch under way may have read the document before the key was put in: the next one decides.
        place.store(
            hash & !u64::from(u32::MAX) | u64::from((started as u32).wrapping_add(1)),
            Ordering::Relaxed,
        );
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_waited_for_until_a_good_answer_came_without_it() {
        let absent = AbsentKeys::new();
        // Fetch 5 is under way; number 6 decides.
        assert!(absent.may_come(Some("a"), 5, 4));
        assert!(absent.may_come(Some("a"), 5, 5));
        // Number 6 failed, 7 is good.
        assert!(absent.may_come(Some("a"), 6, 5));
        for last_good in 7..18 {
            assert!(!absent.may_come(Some("a"), last_good, last_good), "{last_good}");
        }
        assert!(
            absent.may_come(Some("b"), 9, 9) && absent.may_come(None, 9, 9),
            "others are not concerned"
        );
        assert!(absent.may_come(Some("a"), 18, 18), "forgotten");
        assert!(!absent.may_come(Some("a"), 19, 19), "and found absent again");
    }

    #[test]
    fn a_flood_makes_it_forget() {
        let absent = AbsentKeys::new();
        assert!(absent.may_come(Some("a"), 1, 1) && !absent.may_come(Some("a"), 2, 2));
        for number in 0..20_000 {
            assert!(absent.may_come(Some(&format!("x{number}")), 2, 2));
        }
        assert!(absent.may_come(Some("a"), 2, 2));
    }
}
