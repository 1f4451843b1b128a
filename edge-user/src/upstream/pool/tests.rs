//! Who gets which connection, and who waits.

use std::{num::NonZeroU32, time::Duration};

use super::*;

fn limits() -> PoolLimits {
    PoolLimits {
        idle: 2,
        idle_timeout: Duration::from_secs(5),
        wait_timeout: Duration::from_millis(20),
        waiting: 1,
        ..PoolLimits::default()
    }
}

fn open(pool: &Pool<u32>, limits: &PoolLimits, connection: u32, now: Instant) -> Held<u32> {
    match pool.open(1, limits) {
        Taken::Open(opening) => opening.opened(connection, Permit::default(), now),
        other => panic!("{other:?}"),
    }
}

fn idle(pool: &Pool<u32>, limits: &PoolLimits, now: Instant) -> Option<u32> {
    match pool.take(1, limits, now) {
        Taken::Idle(mut held) => held.take(),
        _ => None,
    }
}

#[test]
fn the_last_one_used_comes_back_first_and_the_oldest_gives_way() {
    let (pool, now) = (Pool::default(), Instant::now());
    let held: Vec<_> = (1..=3)
        .map(|connection| open(&pool, &limits(), connection, now))
        .collect();
    assert_eq!(pool.connections(), 3);
    for held in held {
        held.put_back(now);
    }
    assert_eq!((pool.idle(), pool.connections()), (2, 2));
    assert_eq!(idle(&pool, &limits(), now), Some(3));
    assert_eq!(idle(&pool, &limits(), now), Some(2));
    assert_eq!(idle(&pool, &limits(), now), None);
    assert_eq!(pool.connections(), 0);
}

#[test]
fn idle_connections_expire_and_old_ones_are_not_kept() {
    let (pool, start) = (Pool::default(), Instant::now());
    let limits = PoolLimits {
        max_age: Some(Duration::from_secs(8)),
        ..limits()
    };
    let later = |seconds| start + Duration::from_secs(seconds);
    open(&pool, &limits, 1, start).put_back(start);
    open(&pool, &limits, 2, start).put_back(later(3));
    pool.sweep(later(6));
    assert_eq!((pool.idle(), pool.connections()), (1, 1));
    assert_eq!(idle(&pool, &limits, later(9)), None, "older than its maximum");
    open(&pool, &limits, 3, start).put_back(later(9));
    assert_eq!((pool.idle(), pool.connections()), (0, 0));
    pool.sweep(later(9));
    assert!(pool.shelves.borrow().is_empty());
}

#[tokio::test]
async fn who_waits_gets_what_is_put_back_or_the_right_to_open() {
    let (pool, now) = (Pool::default(), Instant::now());
    let limits = PoolLimits {
        connections: NonZeroU32::new(1),
        ..limits()
    };
    let only = open(&pool, &limits, 1, now);
    let Taken::Wait(first) = pool.take(1, &limits, now) else {
        panic!("there was room")
    };
    assert!(matches!(pool.take(1, &limits, now), Taken::Full), "one may wait");
    only.put_back(now);
    let Some(Place::Idle(held)) = first.wait().await else {
        panic!("nothing came back")
    };
    assert_eq!(*held, Some(1));
    let Taken::Wait(second) = pool.take(1, &limits, now) else {
        panic!("there was room")
    };
    drop(held);
    let Some(Place::Open(opening)) = second.wait().await else {
        panic!("no right")
    };
    assert_eq!(pool.connections(), 1);
    drop(opening);
    assert_eq!(pool.connections(), 0);
}

#[tokio::test]
async fn who_loses_patience_is_passed_over() {
    let (pool, now) = (Pool::default(), Instant::now());
    let limits = PoolLimits {
        connections: NonZeroU32::new(1),
        ..limits()
    };
    let only = open(&pool, &limits, 1, now);
    let Taken::Wait(gone) = pool.take(1, &limits, now) else {
        panic!("there was room")
    };
    assert!(gone.wait().await.is_none());
    only.put_back(now);
    assert_eq!((pool.idle(), pool.connections()), (1, 1));
}
