//! Every way of balancing, and what becomes of tries that fail.

use std::{collections::HashMap, net::SocketAddr, num::NonZeroU32};

use super::*;
use crate::config::{Circuit, EndpointSpec, HashKey, Upstream};

fn chooser(balance: Balance, weights: &[u32]) -> Rc<Chooser> {
    let endpoints = weights.iter().enumerate().map(|(index, weight)| EndpointSpec {
        weight: NonZeroU32::new(*weight).expect("not zero"),
        ..EndpointSpec::from(SocketAddr::from(([10, 0, 0, index as u8 + 1], 80)))
    });
    let config = Upstream {
        endpoints: endpoints.collect(),
        balance,
        ..Upstream::new("u", &[])
    };
    let cluster = Arc::new(Cluster::new(config, 1).expect("no TLS"));
    Rc::new(Chooser::new(cluster, 0, 7))
}

fn last(attempt: &Attempt) -> u8 {
    match attempt.endpoint().address() {
        SocketAddr::V4(address) => address.ip().octets()[3],
        SocketAddr::V6(_) => 0,
    }
}

fn pick(chooser: &Rc<Chooser>, hash: u64) -> u8 {
    let mut tried = Tried::default();
    last(
        &chooser
            .attempt(hash, &mut tried, false, Instant::now())
            .expect("an endpoint"),
    )
}

#[test]
fn turns_are_taken_by_weight() {
    let chooser = chooser(Balance::RoundRobin, &[1, 1, 2]);
    let mut count = HashMap::new();
    for _ in 0..400 {
        *count.entry(pick(&chooser, 0)).or_insert(0) += 1;
    }
    assert_eq!((count[&1], count[&2], count[&3]), (100, 100, 200));
}

#[test]
fn nobody_is_tried_twice_unless_that_is_asked_for() {
    for balance in [
        Balance::RoundRobin,
        Balance::LeastRequest,
        Balance::PeakEwma,
        Balance::ConsistentHash(HashKey::ClientAddress),
    ] {
        let chooser = chooser(balance.clone(), &[1, 1, 1]);
        let mut tried = Tried::default();
        let mut seen: Vec<_> = (0..3)
            .map(|_| {
                last(
                    &chooser
                        .attempt(9, &mut tried, false, Instant::now())
                        .expect("an endpoint"),
                )
            })
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3], "{balance:?}");
        let none = chooser.attempt(9, &mut tried, false, Instant::now());
        assert_eq!(none.err(), Some(Unavailable::Exhausted), "{balance:?}");
        assert!(
            chooser.attempt(9, &mut tried, true, Instant::now()).is_ok(),
            "{balance:?}"
        );
    }
}

#[test]
fn of_two_the_one_with_less_in_flight() {
    let chooser = chooser(Balance::LeastRequest, &[1, 1]);
    let held: Vec<_> = (0..100)
        .map(|_| {
            chooser
                .attempt(0, &mut Tried::default(), false, Instant::now())
                .expect("an endpoint")
        })
        .collect();
    let first = held.iter().filter(|attempt| last(attempt) == 1).count();
    assert_eq!(first, 50, "with two endpoints both are always looked at");
    drop(held);
    assert!(
        chooser
            .cluster()
            .status()
            .iter()
            .all(|status| status.endpoint.active() == 0)
    );
}

#[test]
fn a_slow_endpoint_gets_less() {
    let chooser = chooser(Balance::PeakEwma, &[1, 1]);
    let mut now = Instant::now();
    let mut count = [0; 3];
    for _ in 0..1000 {
        let attempt = chooser
            .attempt(0, &mut Tried::default(), false, now)
            .expect("an endpoint");
        let which = last(&attempt);
        let latency = Duration::from_millis(if which == 1 { 50 } else { 1 });
        now += Duration::from_millis(1);
        attempt.answered(200, latency, now);
        count[usize::from(which)] += 1;
    }
    assert!(count[1] < 20, "{count:?}");
    assert!(count[1] > 0, "it is looked at again now and then: {count:?}");
}

#[test]
fn a_key_stays_where_it_is() {
    let chooser = chooser(Balance::ConsistentHash(HashKey::ClientAddress), &[1, 1, 1, 1]);
    let mut count = [0; 5];
    for key in 0..4000_u32 {
        let hash = hash_of(&key.to_le_bytes());
        let which = pick(&chooser, hash);
        assert_eq!(which, pick(&chooser, hash));
        count[usize::from(which)] += 1;
    }
    assert!(
        count[1..].iter().all(|count| (850..1150).contains(count)),
        "{count:?}"
    );
}

#[test]
fn what_is_over_the_limit_is_told_at_once() {
    let config = Upstream {
        circuit: Circuit {
            requests: NonZeroU32::new(2),
            ..Circuit::default()
        },
        ..Upstream::new("u", &[([10, 0, 0, 1], 80).into()])
    };
    let cluster = Arc::new(Cluster::new(config, 1).expect("no TLS"));
    let chooser = Rc::new(Chooser::new(cluster, 0, 1));
    let attempt = || chooser.attempt(0, &mut Tried::default(), false, Instant::now());
    let held = [attempt(), attempt()];
    assert_eq!(attempt().err(), Some(Unavailable::Full));
    drop(held);
    assert!(attempt().is_ok());
}

#[test]
fn another_snapshot_is_seen_by_the_next_request() {
    let chooser = chooser(Balance::RoundRobin, &[1, 1]);
    let cluster = Arc::clone(chooser.cluster());
    let all: Vec<_> = cluster
        .fixed()
        .iter()
        .map(|(_, endpoint)| Arc::clone(endpoint))
        .collect();
    cluster.publish(Members::new(cluster.config(), &[], &all), Vec::new());
    assert_eq!(chooser.check(), Err(Unavailable::Down));
}
