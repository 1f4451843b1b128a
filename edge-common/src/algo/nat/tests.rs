//! One entry through a connection's life, and what may and may not take its place.

use core::sync::atomic::AtomicU64;

use super::{Entry, Fit, Ports, Seen, Stage, Translation, answered, claim, fit, read, sent};
use crate::{
    abi::{Addr, steer::NAT_WORDS},
    algo::flows::{Info, Owner},
};

const HZ: u32 = 250;
/// More than an hour after the clock's zero.
const BEGIN: u64 = 4_000 * HZ as u64;
const OWNER: Owner = Owner {
    backend: 9,
    generation: 200,
};
const TCP: u8 = 6;

fn entry() -> Entry<AtomicU64> {
    core::array::from_fn::<_, NAT_WORDS, _>(|_| AtomicU64::new(0))
}

fn translation(port: u16) -> Translation {
    Translation {
        client: Addr::from_v4_word(0x0100_a8c0),
        service: Addr([1, 2, 3, 4]),
        client_port: 40_000,
        service_port: 443,
        port,
        protocol: TCP,
    }
}

const SYN: Seen = Seen(Seen::TCP | Seen::OPENS);

fn acknowledging(number: u32) -> Seen {
    Seen(Seen::TCP | Seen::ACKNOWLEDGES | u64::from(number))
}

fn syn_ack(number: u32) -> Seen {
    Seen(acknowledging(number).0 | Seen::OPENS)
}

fn stage(entry: &Entry<AtomicU64>, tick: u64) -> Option<u8> {
    read(entry, 61_000, TCP, tick, HZ).map(|(_, info)| info.class())
}

fn answer(entry: &Entry<AtomicU64>, seen: Seen, tick: u64) {
    let (_, info) = read(entry, 61_000, TCP, tick, HZ).expect("it is alive");
    answered(entry, info, seen, tick, HZ);
}

#[test]
fn what_was_entered_is_read() {
    let entry = entry();
    assert_eq!(fit(&entry, 7, OWNER, 61_000, BEGIN, HZ).0, Fit::Free);
    assert!(claim(&entry, 7, OWNER, &translation(61_000), BEGIN, HZ));
    assert_eq!(fit(&entry, 7, OWNER, 61_000, BEGIN, HZ).0, Fit::Found);
    let (found, info) = read(&entry, 61_000, TCP, BEGIN, HZ).expect("it is alive");
    assert_eq!((found, info.owner()), (translation(61_000), OWNER));
    assert!(
        read(&entry, 61_001, TCP, BEGIN, HZ).is_none(),
        "another port at the same place"
    );
    assert!(read(&entry, 61_000, 17, BEGIN, HZ).is_none());
    let other = Owner {
        generation: 201,
        ..OWNER
    };
    assert_eq!(fit(&entry, 7, other, 61_000, BEGIN, HZ).0, Fit::Weak);
    assert_eq!(fit(&entry, 8, OWNER, 61_000, BEGIN, HZ).0, Fit::Weak);
    assert_eq!(fit(&entry, 7, OWNER, 61_001, BEGIN, HZ).0, Fit::Weak);
}

#[test]
fn a_handshake_has_to_be_completed_with_the_backends_number() {
    let entry = entry();
    assert!(claim(&entry, 7, OWNER, &translation(61_000), BEGIN, HZ));
    sent(&entry, acknowledging(1), BEGIN, HZ);
    assert_eq!(
        stage(&entry, BEGIN),
        Some(Stage::Opening as u8),
        "nothing was answered"
    );
    answer(&entry, syn_ack(u32::MAX), BEGIN);
    sent(&entry, acknowledging(u32::MAX), BEGIN, HZ);
    sent(&entry, acknowledging(1 << 30), BEGIN, HZ);
    assert_eq!(
        stage(&entry, BEGIN),
        Some(Stage::Opening as u8),
        "made-up numbers"
    );
    sent(&entry, acknowledging(0), BEGIN, HZ);
    assert_eq!(stage(&entry, BEGIN), Some(Stage::Open as u8));
    // Now nobody takes its place for an hour.
    let later = BEGIN + 3_599 * u64::from(HZ);
    assert_eq!(fit(&entry, 8, OWNER, 61_000, later, HZ).0, Fit::Taken);
    assert!(!claim(&entry, 8, OWNER, &translation(61_000), later, HZ));
    assert!(claim(
        &entry,
        8,
        OWNER,
        &translation(61_000),
        later + u64::from(HZ),
        HZ
    ));
}

#[test]
fn datagrams_are_kept_once_they_go_both_ways() {
    let entry = entry();
    let datagram = Seen(0);
    assert!(claim(&entry, 7, OWNER, &translation(61_000), BEGIN, HZ));
    sent(&entry, datagram, BEGIN, HZ);
    assert_eq!(stage(&entry, BEGIN), Some(Stage::Opening as u8));
    answer(&entry, datagram, BEGIN);
    sent(&entry, datagram, BEGIN, HZ);
    assert_eq!(stage(&entry, BEGIN), Some(Stage::Datagrams as u8));
    assert_eq!(stage(&entry, BEGIN + 60 * u64::from(HZ)), None);
}

#[test]
fn either_end_closes_and_a_syn_opens_again() {
    for by_client in [true, false] {
        let entry = entry();
        assert!(claim(&entry, 7, OWNER, &translation(61_000), BEGIN, HZ));
        let fin = Seen(acknowledging(5).0 | Seen::CLOSES);
        sent(&entry, fin, BEGIN, HZ);
        answer(&entry, fin, BEGIN);
        assert_eq!(
            stage(&entry, BEGIN),
            Some(Stage::Opening as u8),
            "it never was open"
        );
        answer(&entry, syn_ack(4), BEGIN);
        sent(&entry, acknowledging(5), BEGIN, HZ);
        if by_client {
            sent(&entry, fin, BEGIN, HZ);
        } else {
            answer(&entry, fin, BEGIN);
        }
        assert_eq!(stage(&entry, BEGIN), Some(Stage::Closing as u8));
        sent(&entry, acknowledging(5), BEGIN, HZ);
        assert_eq!(stage(&entry, BEGIN), Some(Stage::Closing as u8));
        sent(&entry, SYN, BEGIN, HZ);
        assert_eq!(stage(&entry, BEGIN), Some(Stage::Opening as u8));
        assert_eq!(stage(&entry, BEGIN + 10 * u64::from(HZ)), None);
    }
}

#[test]
fn what_is_being_written_is_nobodys() {
    let entry = entry();
    assert!(claim(&entry, 7, OWNER, &translation(61_000), BEGIN, HZ));
    let claimed = Info::new(OWNER, Stage::Claimed as u8, BEGIN);
    entry[0].store(claimed.0, core::sync::atomic::Ordering::Relaxed);
    assert_eq!(stage(&entry, BEGIN), None);
    assert_eq!(fit(&entry, 7, OWNER, 61_000, BEGIN, HZ).0, Fit::Taken);
    assert!(!claim(&entry, 8, OWNER, &translation(61_000), BEGIN, HZ));
}

#[test]
fn tries_stay_within_the_ports_and_are_all_different() {
    for (low, high) in [(61_000, 65_535), (1_024, 65_535), (5, 12), (65_528, 65_535)] {
        let ports = Ports { low, high };
        for hash in [0, 1, u64::from(u32::MAX), 0xdead_beef_cafe_f00d] {
            let mut tried: std::vec::Vec<u16> = (0..super::TRIES).map(|at| ports.nth(hash, at)).collect();
            assert!(tried.iter().all(|port| (low..=high).contains(port)), "{tried:?}");
            tried.sort_unstable();
            tried.dedup();
            assert_eq!(tried.len(), super::TRIES as usize);
        }
    }
}
