//! Names for requests: unique, unordered, 16 hex digits.

use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
};

/// Makes the ids of one worker.
#[derive(Debug)]
pub(crate) struct RequestIds {
    next: Cell<u64>,
}

/// One id, as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId([u8; 16]);

impl RequestId {
    /// The id as text.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The id as bytes of text.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl RequestIds {
    /// Ids that begin at a place nobody can guess.
    pub(crate) fn new(worker: usize) -> Self {
        Self {
            next: Cell::new(RandomState::new().hash_one(worker)),
        }
    }

    /// The next id: a permutation of a counter (SplitMix64), so ids do not repeat and do not count requests aloud.
    pub(crate) fn next(&self) -> RequestId {
        let mut mixed = self.next.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.next.set(mixed);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        RequestId(hex(mixed))
    }
}

/// A number in 16 hex digits.
pub(crate) fn hex(number: u64) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 16];
    for (pair, byte) in text.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ() {
        let (one, other) = (RequestIds::new(0), RequestIds::new(1));
        let ids: std::collections::HashSet<_> = (0..1000)
            .map(|_| one.next().0)
            .chain((0..1000).map(|_| other.next().0))
            .collect();
        assert_eq!(ids.len(), 2000);
    }
}
