//! A consistent hash over endpoints: the Maglev table that the kernel's steering has too.
//!
//! When an endpoint goes, its places are shared out and few others move; every worker, and every process with the same
//! endpoints, has the same table.

use std::{hash::Hasher, net::SocketAddr};

pub use edge_common::algo::maglev::mix;
use edge_common::algo::maglev::{self, Member};

/// Places of a table: primes well above a hundred times the number of endpoints.
const SIZES: [(usize, u32); 2] = [(650, 65_537), (usize::MAX, 655_373)];

/// From hash to endpoint.
#[derive(Debug)]
pub(super) struct Maglev(Box<[u32]>);

impl Maglev {
    /// The table for endpoints at these addresses with these weights.
    pub(super) fn new(endpoints: &[(SocketAddr, u32)]) -> Self {
        let size = SIZES
            .iter()
            .find(|(most, _)| endpoints.len() <= *most)
            .map_or(65_537, |(_, size)| *size);
        let mut members: Vec<Member> = endpoints
            .iter()
            .map(|(address, weight)| Member::new(key_hash(0, address.to_string().as_bytes()), *weight, size))
            .collect();
        let mut table = vec![maglev::FREE; size as usize].into_boxed_slice();
        if !maglev::fill(&mut table, &mut members) {
            return Self(Box::default());
        }
        Self(table)
    }

    /// The endpoint for a hash; the `step`th further place if others are not to be used.
    pub(super) fn find(&self, hash: u64, step: usize) -> Option<u32> {
        let size = self.0.len();
        let at = (hash % size.max(1) as u64) as usize;
        self.0.get((at + step) % size.max(1)).copied()
    }
}

/// Hashes a key the same way in every process: FNV-1a, finished as in SplitMix64 so that all bits count.
pub(super) fn key_hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325 ^ seed);
    hasher.write(bytes);
    hasher.finish()
}

struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        mix(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(count: u16) -> Vec<(SocketAddr, u32)> {
        (0..count)
            .map(|last| (SocketAddr::from(([10, 0, 0, last as u8], 80 + last)), 1))
            .collect()
    }

    fn owners(table: &Maglev, endpoints: &[(SocketAddr, u32)], keys: u64) -> Vec<SocketAddr> {
        (0..keys)
            .map(|key| {
                let at = table.find(key_hash(0, &key.to_le_bytes()), 0).expect("not empty");
                endpoints[at as usize].0
            })
            .collect()
    }

    #[test]
    fn few_keys_move_when_an_endpoint_goes() {
        let before = endpoints(10);
        let mut after = before.clone();
        let gone = after.remove(4).0;
        let keys = 20_000;
        let old = owners(&Maglev::new(&before), &before, keys);
        let new = owners(&Maglev::new(&after), &after, keys);
        let moved = old
            .iter()
            .zip(&new)
            .filter(|(old, new)| **old != gone && old != new)
            .count();
        // Only those of the one that went have to move; the paper reports a few percent more.
        assert!(moved * 100 < keys as usize * 5, "{moved} of {keys}");
    }

    #[test]
    fn shares_follow_weights() {
        let mut weighted = endpoints(4);
        weighted[2].1 = 3;
        let owners = owners(&Maglev::new(&weighted), &weighted, 30_000);
        for (address, weight) in &weighted {
            let share = owners.iter().filter(|owner| *owner == address).count();
            let fair = 30_000 * *weight as usize / 6;
            assert!(share.abs_diff(fair) * 20 < fair, "{share} of {fair}");
        }
    }

    #[test]
    fn the_order_of_the_list_does_not_matter_much_and_nothing_is_empty() {
        let table = Maglev::new(&[]);
        assert_eq!(table.find(7, 0), None);
        let one = endpoints(1);
        assert_eq!(Maglev::new(&one).find(u64::MAX, 3), Some(0));
    }
}
