//! The table over single flows, and under a flood of others.

use core::sync::atomic::AtomicU64;
use std::vec::Vec;

use super::{Bucket, Class, Info, NOBODY, Owner, candidate, find, insert, owner, places, remembered, touch};
use crate::{abi::steer::FLOW_WORDS, algo::hash};

const HZ: u32 = 250;
const MASK: u32 = 255;

fn table() -> Vec<Bucket<AtomicU64>> {
    core::iter::repeat_with(|| core::array::from_fn::<_, FLOW_WORDS, _>(|_| AtomicU64::new(0)))
        .take(MASK as usize + 1)
        .collect()
}

fn look(table: &[Bucket<AtomicU64>], hash: u64) -> Option<Info> {
    places(hash, MASK).into_iter().find_map(|place| {
        let bucket = &table[place as usize];
        match find(bucket, hash) {
            0 => None,
            at => Some(Info(bucket[at].load(core::sync::atomic::Ordering::Relaxed))),
        }
    })
}

fn enter(table: &[Bucket<AtomicU64>], hash: u64, owner: Owner, class: Class, tick: u64) -> bool {
    places(hash, MASK)
        .into_iter()
        .any(|place| insert(&table[place as usize], hash, owner, class as u8, tick, HZ))
}

const MINE: Owner = Owner {
    backend: 7,
    generation: 3,
};
/// More than an hour after the clock's zero, which empty entries name as their last packet.
const BEGIN: u64 = 4_000 * HZ as u64;

#[test]
fn an_entry_says_what_was_entered() {
    let info = Info::new(MINE, Class::Open as u8, BEGIN);
    assert_eq!((info.owner(), info.class(), info.age(BEGIN + 5)), (MINE, 2, 5));
    assert!(info.is_alive(BEGIN + 3_599 * u64::from(HZ), HZ));
    assert!(!info.is_alive(BEGIN + 3_600 * u64::from(HZ), HZ));
    assert!(!Info(0).is_alive(0, HZ), "an empty entry is free at any time");
    // The clock's low half goes round.
    let late = Info::new(MINE, Class::Open as u8, u64::from(u32::MAX) - 1);
    assert_eq!(late.age((1 << 32) + 3), 5);
}

#[test]
fn a_flood_evicts_nobody_and_idle_entries_are_given_up() {
    let table = table();
    let flows: Vec<u64> = (0..400).map(|flow| hash::word(flow, &[1, 2])).collect();
    for flow in &flows {
        assert!(enter(&table, *flow, MINE, Class::Open, BEGIN));
    }
    let other = Owner {
        backend: 9,
        generation: 1,
    };
    let flood = |tick| {
        (1_000_000..1_200_000)
            .filter(|flow| enter(&table, hash::word(*flow, &[1, 2]), other, Class::Datagrams, tick))
            .count()
    };
    assert!(flood(BEGIN + 10) > 0, "there was room left");
    for flow in &flows {
        assert_eq!(look(&table, *flow).map(Info::owner), Some(MINE));
    }
    // Datagrams of the flood are idle after a minute, connections are not.
    let later = BEGIN + 61 * u64::from(HZ);
    assert!(flood(later) > 0);
    for flow in &flows {
        assert_eq!(look(&table, *flow).map(Info::owner), Some(MINE));
    }
}

#[test]
fn a_connection_that_closes_is_given_up_soon() {
    let table = table();
    let hash = 0x1234_5678_9abc_def0;
    assert!(enter(&table, hash, MINE, Class::Open, BEGIN));
    let bucket = &table[places(hash, MASK)[0] as usize];
    let at = find(bucket, hash);
    let old = look(&table, hash).expect("it is there");
    touch(bucket, at, old, Class::Open as u8, BEGIN + 1, HZ);
    assert_eq!(look(&table, hash), Some(old), "nothing new within a second");
    touch(bucket, at, old, Class::Closing as u8, BEGIN + 1, HZ);
    let closing = look(&table, hash).expect("it is there");
    assert_eq!((closing.owner(), closing.class()), (MINE, 3));
    assert!(!closing.is_alive(BEGIN + 1 + 30 * u64::from(HZ), HZ));
}

#[test]
fn a_candidate_is_remembered_for_a_while() {
    let (flow, now) = (0xfeed_beef_0bad_cafe, 70_000);
    let cell = candidate(flow, MINE, now);
    assert_eq!(owner(remembered(cell, flow, now + 9)), MINE);
    assert_eq!(remembered(cell, flow, now + 10), NOBODY);
    assert_eq!(remembered(cell, flow ^ 1, now), NOBODY);
    assert_eq!(remembered(0, 0, 0), NOBODY, "an empty cell remembers nobody");
}

/// Whoever has read the clock a moment before another CPU saw a packet of the flow must not take it for one long idle.
#[test]
fn an_entry_newer_than_the_reader_is_alive() {
    for behind in [1, u64::from(HZ), 60 * u64::from(HZ)] {
        let table = table();
        assert!(enter(&table, 1, MINE, Class::Open, BEGIN));
        let info = look(&table, 1).expect("it was entered");
        assert!(info.is_alive(BEGIN - behind, HZ));
        // Nor may its place be given to others, however many come.
        for other in 2..20_000 {
            enter(
                &table,
                hash::pair(other, 0, &[1, 2]),
                MINE,
                Class::Open,
                BEGIN - behind,
            );
        }
        assert_eq!(look(&table, 1), Some(info));
    }
}
