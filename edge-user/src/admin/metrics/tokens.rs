//! Tokens: who passed, who did not, the cache, and how fresh the keys are.

use std::time::SystemTime;

use super::{GatewayFacts, family as f, out::Out, process::since_epoch};
use crate::{
    auth::{AuthStatus, CacheStatus, Freshness},
    gateway::Reason,
};

/// Refusals that are about a token.
const OF_TOKENS: [Reason; 6] = [
    Reason::TokenMissing,
    Reason::TokenRefused,
    Reason::TokenStale,
    Reason::TokenAmbiguous,
    Reason::KeysUnavailable,
    Reason::Forbidden,
];

const FRESHNESS: [(Freshness, &str); 3] = [
    (Freshness::Fresh, "fresh"),
    (Freshness::Stale, "stale"),
    (Freshness::Missing, "missing"),
];

pub(super) fn encode(
    auth: Option<&AuthStatus>,
    gateway: Option<&GatewayFacts>,
    out: &mut Out<'_>,
) -> std::fmt::Result {
    let routes = gateway
        .iter()
        .flat_map(|gateway| &gateway.counters.routes)
        .map(|route| ([route.name.as_str()], route.verified));
    out.counters(f::VERIFIED, routes)?;
    let failures = gateway.iter().flat_map(|gateway| {
        OF_TOKENS
            .iter()
            .map(|reason| ([reason.slug()], gateway.counters.refused(*reason)))
    });
    out.counters(f::UNVERIFIED, failures)?;
    cache(auth.map(|auth| &auth.cache), out)?;
    let revocations = auth.into_iter().flat_map(|auth| {
        [
            (["file"], auth.file_revocations as f64),
            (["runtime"], auth.runtime_revocations as f64),
        ]
    });
    out.gauges(f::REVOCATIONS, revocations)?;
    let providers = auth.map_or(&[][..], |auth| &auth.providers);
    out.gauges(
        f::KEYS,
        providers
            .iter()
            .map(|own| ([own.name.as_str()], own.keys.len() as f64)),
    )?;
    let now = since_epoch(SystemTime::now());
    let obtained = providers.iter().filter_map(|own| Some((own, own.last_success?)));
    out.gauges(
        f::KEYS_AGE,
        obtained.map(|(own, at)| ([own.name.as_str()], (now - at as f64).max(0.0))),
    )?;
    let states = providers.iter().flat_map(|own| {
        FRESHNESS
            .iter()
            .map(|(state, name)| ([own.name.as_str(), *name], f64::from(own.freshness == *state)))
    });
    out.gauges(f::KEYS_STATE, states)?;
    out.counters(
        f::FETCHES,
        providers.iter().map(|own| ([own.name.as_str()], own.fetches)),
    )?;
    out.counters(
        f::FETCH_FAILURES,
        providers.iter().map(|own| ([own.name.as_str()], own.failures)),
    )
}

fn cache(cache: Option<&CacheStatus>, out: &mut Out<'_>) -> std::fmt::Result {
    let cache = cache.copied().unwrap_or_default();
    out.counter(f::CACHE_HITS, cache.hits)?;
    out.counter(f::CACHE_MISSES, cache.misses)?;
    out.counter(f::CACHE_EVICTIONS, cache.evictions)?;
    out.gauge(f::CACHE_ENTRIES, cache.entries as f64)?;
    out.gauge(f::CACHE_BYTES, cache.bytes as f64)
}
