//! What a table promises, over many sets of members.

use std::vec::Vec;

use proptest::prelude::*;

use super::{FREE, Member, PLACES_A_MEMBER, SIZE, fill, is_prime, place};

fn table(members: &[(u64, u32)], size: u32) -> Vec<u32> {
    let mut table = std::vec![0; size as usize];
    let mut members: Vec<Member> = members
        .iter()
        .map(|(identity, weight)| Member::new(*identity, *weight, size))
        .collect();
    fill(&mut table, &mut members);
    table
}

/// Who has each place, by identity.
fn owners(members: &[(u64, u32)], size: u32) -> Vec<u64> {
    table(members, size)
        .into_iter()
        .map(|index| members[index as usize].0)
        .collect()
}

fn members(most: usize, heaviest: u32) -> impl Strategy<Value = Vec<(u64, u32)>> {
    prop::collection::hash_map(any::<u64>(), 1..=heaviest, 2..=most)
        .prop_map(|map| map.into_iter().collect::<Vec<_>>())
}

#[test]
fn nobody_has_a_place_where_there_is_nobody() {
    assert!(table(&[], 101).iter().all(|owner| *owner == FREE));
    assert!(table(&[(7, 0)], 101).iter().all(|owner| *owner == FREE));
    assert!(table(&[(7, 0), (8, 3)], 101).iter().all(|owner| *owner == 1));
}

#[test]
fn primes_are_told_from_others() {
    let primes: Vec<u32> = (0..30).filter(|size| is_prime(*size)).collect();
    assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);
    assert!(is_prime(SIZE) && !is_prime(65_536) && !is_prime(251 * 251));
}

#[test]
fn hashes_fall_everywhere_and_nowhere_beyond() {
    assert_eq!(place(0, SIZE), 0);
    assert_eq!(place(u64::MAX, SIZE), SIZE - 1);
    assert_eq!(place(1 << 63, SIZE), SIZE / 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_place_is_somebodys_and_shares_are_by_weight(members in members(600, 20)) {
        let table = table(&members, SIZE);
        let total: u64 = members.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut shares = std::vec![0_u64; members.len()];
        for owner in table {
            shares[owner as usize] += 1;
        }
        for ((_, weight), share) in members.iter().zip(shares) {
            let fair = u64::from(SIZE) * u64::from(*weight) / total;
            // A percent of a table a hundred times the members is a place, and the last round ends somewhere.
            let slack = (fair / u64::from(PLACES_A_MEMBER)).max(1) + 1;
            prop_assert!(share.abs_diff(fair) <= slack, "{share} places, {fair} would be fair");
        }
    }

    #[test]
    fn few_others_move_when_one_goes(members in members(150, 1), gone in any::<prop::sample::Index>()) {
        let gone = gone.index(members.len());
        let mut rest = members.clone();
        let (identity, _) = rest.remove(gone);
        let (before, after) = (owners(&members, SIZE), owners(&rest, SIZE));
        let others = before.iter().zip(&after).filter(|(was, _)| **was != identity);
        let (count, moved) = others.fold((0, 0), |(count, moved), (was, is)| {
            (count + 1, moved + usize::from(was != is))
        });
        prop_assert!(
            moved * members.len() <= 2 * count,
            "{moved} of {count} places of others moved when one of {} went", members.len()
        );
    }

    #[test]
    fn the_same_members_make_the_same_table(members in members(40, 5), seed in any::<u64>()) {
        // In whatever order they are given, as long as it is the same everywhere: user space sorts them.
        prop_assert_eq!(table(&members, 4099), table(&members, 4099));
        let _ = seed;
    }
}
