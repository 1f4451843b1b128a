//! Claiming from several cores, and being full.

use core::sync::atomic::{AtomicU64, Ordering};
use std::net::IpAddr;

use super::{Bucket, Claim, claim, find};
use crate::{
    abi::{Addr, EarnedHost, Family, limit::EARNED_KINDS},
    algo::gcra,
};

fn host(number: u32) -> EarnedHost {
    EarnedHost::new(&Addr::from_v4_word(number.to_be()), Family::V4)
}

fn bucket() -> Bucket<AtomicU64> {
    core::array::from_fn(|_| AtomicU64::new(0))
}

fn nothing(_kind: usize) -> u64 {
    0
}

#[test]
fn a_host_is_found_under_the_limits_that_it_earned() {
    let bucket = bucket();
    let now = gcra::now(7);
    assert_eq!(claim(&bucket, host(1), 5, now, &nothing), Claim::Added);
    assert_eq!(claim(&bucket, host(1), 5, now, &nothing), Claim::Known);
    assert_eq!(claim(&bucket, host(1), 6, now, &nothing), Claim::Added);
    assert_eq!(find(&bucket, host(1), 5), 1);
    assert_eq!(find(&bucket, host(1), 6), 5);
    assert_eq!(find(&bucket, host(1), 7), 0);
    assert_eq!(find(&bucket, host(2), 5), 0);
}

#[test]
fn cells_begin_at_what_was_charged_before() {
    let bucket = bucket();
    let now = gcra::now(7);
    let charged = |kind: usize| gcra::now(1 + kind as u64) + 1;
    assert_eq!(claim(&bucket, host(1), 5, now, &charged), Claim::Added);
    let first = find(&bucket, host(1), 5) as usize;
    for (kind, cell) in bucket[first..first + EARNED_KINDS].iter().enumerate() {
        let word = cell.load(Ordering::Relaxed);
        assert_eq!(gcra::ahead(word, now), gcra::now(1 + kind as u64));
        assert_eq!(word & gcra::TAG_MASK, 5, "the tag is the salt's");
    }
    // Whoever has one is charged nothing again.
    let known = claim(&bucket, host(1), 5, now, &|_| {
        panic!("a known host is not asked for")
    });
    assert_eq!(known, Claim::Known);
}

#[test]
fn a_full_bucket_takes_nobody_and_keeps_everybody() {
    let bucket = bucket();
    for number in 1..=4 {
        assert_eq!(
            claim(&bucket, host(number), 0, gcra::now(1), &nothing),
            Claim::Added
        );
    }
    assert_eq!(claim(&bucket, host(5), 0, gcra::now(1), &nothing), Claim::Refused);
    for number in 1..=4 {
        assert_ne!(find(&bucket, host(number), 0), 0);
    }
}

#[test]
fn cores_that_claim_at_once_lose_no_host() {
    for round in 0..200 {
        let bucket = bucket();
        std::thread::scope(|scope| {
            for number in [1_u32, 2] {
                let bucket = &bucket;
                scope.spawn(move || claim(bucket, host(number + round * 2), 3, gcra::now(1), &nothing));
            }
        });
        assert_ne!(find(&bucket, host(1 + round * 2), 3), 0);
        assert_ne!(find(&bucket, host(2 + round * 2), 3), 0);
    }
}

#[test]
fn a_host_is_an_address_again() {
    for text in ["192.0.2.9", "2001:db8:1:2::"] {
        let addr = Addr::from(text.parse::<IpAddr>().expect("an address"));
        let host = EarnedHost::new(&addr, addr.family());
        assert_eq!(host.addr(), addr);
        assert_eq!(host.family(), addr.family());
    }
}
