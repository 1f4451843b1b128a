//! The cache finds whole tokens only, and stays within its bounds.

use super::*;
use crate::auth::{claims::Window, provider::ProviderState, testing};

fn text(number: usize) -> Vec<u8> {
    // Like a signature's end: spread over all bytes.
    let mixed = fold(number as u64 + 1, 0x2545_f491_4f6c_dd1d);
    format!(
        "header.payload.{mixed:016x}{:016x}{number:016x}",
        fold(mixed, 0x9e37_79b9_7f4a_7c15)
    )
    .into_bytes()
}

fn insert(cache: &mut TokenCache, provider: &Arc<ProviderState>, text: &[u8], until: i64, now: i64) {
    let token = testing::token(provider, text, Window { from: 0, until });
    cache.insert(Entry::new(token, 1, 1), now);
}

#[test]
fn only_the_whole_token_is_found() {
    let provider = testing::provider();
    let mut cache = TokenCache::new(Arc::default());
    let good = text(1);
    insert(&mut cache, &provider, &good, 100, 0);
    assert!(cache.find(&good).is_some());
    // Same end and length, so the same hash and the same tag; another beginning.
    let mut poison = good.clone();
    poison[0] ^= 1;
    assert_eq!(cache.tag(&poison), cache.tag(&good));
    assert!(cache.find(&poison).is_none());
    for cut in 0..good.len() {
        assert!(cache.find(&good[..cut]).is_none() && cache.find(&good[cut + 1..]).is_none());
    }
    assert!(cache.find(&[good.as_slice(), b"="].concat()).is_none());
    let counters = cache.counters.read();
    assert_eq!((counters.hits, counters.misses), (1, 2 + 2 * good.len() as u64));
}

#[test]
fn one_token_takes_one_place() {
    let provider = testing::provider();
    let mut cache = TokenCache::new(Arc::default());
    for _ in 0..10 {
        insert(&mut cache, &provider, &text(1), 100, 0);
    }
    assert_eq!(cache.counters.read().entries, 1);
    let place = cache.find(&text(1)).unwrap();
    cache.remove(place);
    assert!(cache.find(&text(1)).is_none());
    assert_eq!((cache.counters.read().entries, cache.bytes), (0, 0));
}

#[test]
fn bounded_in_entries_and_recently_used_stay() {
    let provider = testing::provider();
    let mut cache = TokenCache::new(Arc::default());
    insert(&mut cache, &provider, &text(0), 100, 0);
    for number in 1..4 * SETS * WAYS {
        let place = cache.find(&text(0)).expect("a token in constant use stays");
        assert!(cache.entry(place).is_some());
        insert(&mut cache, &provider, &text(number), 100, 0);
    }
    let counters = cache.counters.read();
    assert!(counters.entries <= (SETS * WAYS) as u64 && counters.entries > (SETS * WAYS) as u64 * 9 / 10);
    assert_eq!(counters.insertions - counters.evictions, counters.entries);
    assert_eq!(counters.bytes as usize, cache.bytes);
}

#[test]
fn expired_tokens_go_first() {
    let provider = testing::provider();
    let mut cache = TokenCache::new(Arc::default());
    let set_of = |cache: &TokenCache, number| set(cache.tag(&text(number)));
    let wanted = set_of(&cache, 0);
    let same_set: Vec<_> = (0..)
        .filter(|number| set_of(&cache, *number) == wanted)
        .take(WAYS + 1)
        .collect();
    for (position, number) in same_set[..WAYS].iter().enumerate() {
        let until = if position == 5 { 10 } else { 100 };
        insert(&mut cache, &provider, &text(*number), until, 0);
    }
    insert(&mut cache, &provider, &text(same_set[WAYS]), 100, 10);
    for (position, number) in same_set.iter().enumerate() {
        assert_eq!(cache.find(&text(*number)).is_some(), position != 5, "{position}");
    }
}

#[test]
fn bounded_in_bytes() {
    let provider = testing::provider();
    let mut cache = TokenCache::new(Arc::default());
    for number in 0..2000 {
        let long = [vec![b'a'; 16 * 1024], text(number)].concat();
        insert(&mut cache, &provider, &long, 100, 0);
        assert!(cache.bytes <= MAX_BYTES);
        assert!(cache.find(&long).is_some(), "the newest stays");
    }
    assert!(cache.counters.read().evictions > 0);
}
