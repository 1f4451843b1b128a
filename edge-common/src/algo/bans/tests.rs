//! The table beside a plain map, full to the brim, and read while it is written.

use core::sync::atomic::{AtomicBool, Ordering};
use std::{collections::HashMap, vec::Vec};

use proptest::prelude::*;

use super::{LOOKS, Writer, hash, holding};
use crate::{
    abi::{
        Addr, Ban, BanKey, Params,
        ban::{BUCKET_ENTRIES, V6_PREFIXES, buckets},
    },
    mem::MemBans,
};

fn params(buckets: u32) -> Params {
    Params {
        seeds: [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3211],
        ban_buckets: buckets,
        hint_mask: 0xff,
        line_mask: 0,
        ..Params::default()
    }
}

fn v4(number: u32) -> BanKey {
    BanKey::new(&Addr::from_v4_word(number.to_be()), 128)
}

fn until(tick: u64) -> Ban {
    Ban {
        until: tick,
        since: 1,
        ..Ban::default()
    }
}

/// What a packet's look-up does.
fn holds(table: &MemBans, params: &Params, key: &BanKey, tick: u64) -> Option<u64> {
    let [first, second] = buckets(hash(key, params), params.ban_buckets);
    for _ in 0..LOOKS {
        let moves = table.moves();
        for bucket in [first, second] {
            let found = holding(
                table.bucket(bucket),
                key.addr.high(),
                key.addr.low(),
                key.prefix,
                tick,
            );
            if let Some(stamp) = found {
                return Some(stamp.until());
            }
        }
        if table.moves() == moves {
            return None;
        }
    }
    None
}

#[test]
fn lengths_of_one_address_are_different_bans() {
    let params = params(4);
    let table = MemBans::new(4);
    let writer = Writer::new(&table, &params);
    let addr = Addr([0x0db8_0120, 0, 0, 0]);
    for (number, bits) in V6_PREFIXES.iter().enumerate() {
        assert_eq!(
            writer.put(&BanKey::new(&addr, *bits), &until(100 + number as u64)),
            Ok(true)
        );
    }
    for (number, bits) in V6_PREFIXES.iter().enumerate() {
        let key = BanKey::new(&addr, *bits);
        assert_eq!(holds(&table, &params, &key, 5), Some(100 + number as u64));
    }
    assert!(writer.remove(&BanKey::new(&addr, 64)));
    assert_eq!(holds(&table, &params, &BanKey::new(&addr, 64), 5), None);
    assert_eq!(holds(&table, &params, &BanKey::new(&addr, 56), 5), Some(102));
}

/// The share of entries that the loader relies on: `max_bans` are four fifths of the table.
#[test]
fn four_fifths_of_the_table_can_always_be_filled() {
    for seed in 0..5_u64 {
        let params = Params {
            seeds: [seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), !seed],
            ..params(2_000)
        };
        let table = MemBans::new(params.ban_buckets);
        let writer = Writer::new(&table, &params);
        let count = params.ban_buckets * BUCKET_ENTRIES as u32 * 4 / 5;
        for number in 0..count {
            assert_eq!(
                writer.put(&v4(number), &until(9)),
                Ok(true),
                "seed {seed}, ban {number}"
            );
        }
        for number in 0..count {
            assert_eq!(holds(&table, &params, &v4(number), 5), Some(9));
        }
        assert_eq!(writer.entries(5).count(), count as usize);
    }
}

#[test]
fn a_full_table_says_so_and_loses_nothing() {
    let params = params(8);
    let table = MemBans::new(8);
    let writer = Writer::new(&table, &params);
    let mut kept = Vec::new();
    for number in 0..100 {
        if let Ok(new) = writer.put(&v4(number), &until(9)) {
            assert!(new);
            kept.push(number);
        }
    }
    assert!(kept.len() > 28, "{} of 32", kept.len());
    for number in 0..100 {
        assert_eq!(
            holds(&table, &params, &v4(number), 5).is_some(),
            kept.contains(&number)
        );
    }
}

/// Readers never see a ban on a prefix that has none, nor miss one that stands, whatever the writer does to others.
#[test]
fn a_reader_beside_a_writer_is_never_wrong() {
    let params = params(64);
    let table = MemBans::new(64);
    let writer = Writer::new(&table, &params);
    // An address is banned until the tick that its number says: a ban of another would show.
    let ban = |number: u32| until(1_000_000 + u64::from(number));
    let standing = 0..100_u32;
    let never = 500_000..500_100_u32;
    for number in standing.clone() {
        writer.put(&v4(number), &ban(number)).expect("there is room");
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut looked = 0_u64;
                    while !done.load(Ordering::Relaxed) || looked < 1_000 {
                        for number in standing.clone() {
                            let found = holds(&table, &params, &v4(number), 5);
                            assert_eq!(found, Some(ban(number).until), "ban {number} was missed");
                        }
                        for number in never.clone() {
                            assert_eq!(holds(&table, &params, &v4(number), 5), None);
                        }
                        for number in 1_000..1_100 {
                            if let Some(found) = holds(&table, &params, &v4(number), 5) {
                                assert_eq!(found, ban(number).until, "the ban of another");
                            }
                        }
                        looked += 1;
                    }
                })
            })
            .collect();
        // Up to 200 of 256 entries: most additions move others.
        for round in 0..3_000_u32 {
            for number in 1_000..1_100 {
                if (number + round) % 3 == 0 {
                    writer.remove(&v4(number));
                } else {
                    writer.put(&v4(number), &ban(number)).expect("there is room");
                }
            }
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().expect("no reader was wrong");
        }
    });
    assert!(table.moves() > 0, "nothing was moved");
}

proptest! {
    #[test]
    fn it_equals_a_map(steps in prop::collection::vec((0_u32..60, 0_u8..3, 2_u64..50), 1..300)) {
        let params = params(20);
        let table = MemBans::new(20);
        let writer = Writer::new(&table, &params);
        let mut map: HashMap<u32, u64> = HashMap::new();
        for (number, what, tick) in steps {
            if what == 0 {
                prop_assert_eq!(writer.remove(&v4(number)), map.remove(&number).is_some());
            } else {
                let new = writer.put(&v4(number), &until(tick));
                prop_assert_eq!(new, Ok(map.insert(number, tick).is_none()));
            }
            for number in 0..60 {
                let expected = map.get(&number).copied();
                let found = writer.find(&v4(number), 1).map(|ban| ban.until);
                prop_assert_eq!(found, expected);
                prop_assert_eq!(holds(&table, &params, &v4(number), 20), expected.filter(|until| *until > 20));
            }
        }
    }
}
