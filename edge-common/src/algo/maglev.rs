//! A consistent hash: Maglev's table (Eisenbud et al., NSDI 2016, section 3.4), with weights.
//!
//! Every member has its own order of the table's places and takes the next free one when it is its turn; turns are by
//! weight. When a member goes, its places are shared out and few others move; whoever has the same members, anywhere,
//! has the same table. Filled by user space; the program only reads what came of it.

/// Size of a table unless another is asked for: a prime, so that every step walks through all places.
pub const SIZE: u32 = 65_537;
/// Places that a member should have at least: shares are then within 1 % of the weights.
pub const PLACES_A_MEMBER: u32 = 100;
/// A place that nobody has.
pub const FREE: u32 = u32::MAX;

/// Somebody who takes a share of the table.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    place: u32,
    step: u32,
    weight: u32,
    credit: u64,
}

impl Member {
    /// One with this weight, for a table of `size` places. `identity` is a hash of what stays the same about it.
    pub const fn new(identity: u64, weight: u32, size: u32) -> Self {
        let (size, steps) = (size as u64, size.saturating_sub(1) as u64);
        Self {
            place: (mix(identity ^ PLACE) % if size == 0 { 1 } else { size }) as u32,
            step: (mix(identity ^ STEP) % if steps == 0 { 1 } else { steps }) as u32 + 1,
            weight,
            credit: 0,
        }
    }
}

/// Two unrelated constants; changing them moves every flow.
const PLACE: u64 = 0x6f66_6673_6574_0001;
const STEP: u64 = 0x736b_6970_0000_0002;

/// Gives every place of `table`, whose size is a prime, the index of a member. Whether there was anybody to have them: a
/// weight of 0 has none, and without members all are [`FREE`].
pub fn fill(table: &mut [u32], members: &mut [Member]) -> bool {
    table.fill(FREE);
    let heaviest = members.iter().map(|member| member.weight).max().unwrap_or(0);
    let mut left = table.len();
    if heaviest == 0 {
        return false;
    }
    while left > 0 {
        for (index, member) in members.iter_mut().enumerate() {
            // The heaviest has a turn in every round, the others as often as they weigh.
            member.credit += u64::from(member.weight);
            if member.credit < u64::from(heaviest) || left == 0 {
                continue;
            }
            member.credit -= u64::from(heaviest);
            if take(table, member, index as u32) {
                left -= 1;
            }
        }
    }
    true
}

/// Takes the member's next free place; there is one, and every place comes up, since the size is a prime.
fn take(table: &mut [u32], member: &mut Member, index: u32) -> bool {
    let size = table.len() as u64;
    for _ in 0..table.len() {
        let place = member.place;
        member.place = ((u64::from(place) + u64::from(member.step)) % size) as u32;
        if let Some(owner) = table.get_mut(place as usize)
            && *owner == FREE
        {
            *owner = index;
            return true;
        }
    }
    false
}

/// The place of a hash in a table of `size`: its upper half, scaled.
#[inline(always)]
pub const fn place(hash: u64, size: u32) -> u32 {
    (((hash >> 32) * size as u64) >> 32) as u32
}

/// Whether `size` is a prime, by trial: sizes are small, and it is asked once.
pub const fn is_prime(size: u32) -> bool {
    let mut divisor = 2;
    while divisor * divisor <= size {
        if size.is_multiple_of(divisor) {
            return false;
        }
        divisor += 1;
    }
    size > 1
}

/// A backend's part in a table.
#[cfg(any(test, feature = "std"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// Its index, which the table names it by.
    pub index: u16,
    /// A hash of what stays the same about it, on this machine and on others.
    pub identity: u64,
    /// Its weight.
    pub weight: u32,
}

/// The words of a table of `size` places, four backends a word; in the order of identities, so that the same backends
/// make the same table.
#[cfg(any(test, feature = "std"))]
pub fn packed(size: u32, shares: &[Share]) -> std::vec::Vec<u64> {
    use std::vec::Vec;

    let mut shares = shares.to_vec();
    shares.sort_unstable_by_key(|share| (share.identity, share.index));
    let mut table = std::vec![FREE; size as usize];
    let mut members: Vec<Member> = shares
        .iter()
        .map(|share| Member::new(share.identity, share.weight, size))
        .collect();
    fill(&mut table, &mut members);
    table
        .chunks(crate::abi::steer::PLACES_A_WORD as usize)
        .map(|places| {
            places.iter().rev().fold(0, |word, place| {
                let index = shares.get(*place as usize).map_or(0, |share| share.index);
                word << 16 | u64::from(index)
            })
        })
        .collect()
}

/// The finaliser of SplitMix64.
pub const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests;
