//! A consistent hash: Maglev's table (Eisenbud et al., NSDI 2016, section 3.4), with weights.
//!
//! Every endpoint has its own order of the table's places and takes the next free one when it is its turn; turns are
//! by weight. When an endpoint goes, its places are shared out and few others move; every worker, and every process
//! with the same endpoints, has the same table.

use std::{hash::Hasher, net::SocketAddr};

use super::schedule;

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
        let weights: Vec<u32> = endpoints.iter().map(|(_, weight)| *weight).collect();
        let turns = schedule::round(&weights);
        if turns.is_empty() {
            return Self(Box::default());
        }
        let mut orders: Vec<(u64, u64)> = endpoints
            .iter()
            .map(|(address, _)| {
                let (offset, skip) = (hash(OFFSET, address), hash(SKIP, address));
                (offset % u64::from(size), skip % u64::from(size - 1) + 1)
            })
            .collect();
        let mut table = vec![FREE; size as usize].into_boxed_slice();
        let mut left = table.len();
        'full: loop {
            for turn in &turns {
                let (place, skip) = &mut orders[*turn as usize];
                // Ends: the skip and the size have no common divisor, so every place comes up, and one is free.
                while table[*place as usize] != FREE {
                    *place = (*place + *skip) % u64::from(size);
                }
                table[*place as usize] = *turn;
                left -= 1;
                if left == 0 {
                    break 'full;
                }
            }
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

const FREE: u32 = u32::MAX;

/// Two unrelated seeds; changing them moves every key.
const OFFSET: u64 = 0x6f66_6673_6574_0001;
const SKIP: u64 = 0x736b_6970_0000_0002;

fn hash(seed: u64, address: &SocketAddr) -> u64 {
    key_hash(seed, address.to_string().as_bytes())
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

/// The finaliser of SplitMix64.
pub fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
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
