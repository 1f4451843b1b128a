//! What `status` tells about authentication.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::{cache::CacheStatus, jwks, provider::ProviderState};
use crate::config::KeySource;

/// Authentication as a whole.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuthStatus {
    /// In the configuration's order.
    pub providers: Vec<ProviderStatus>,
    /// Revocations from the file, expired ones included.
    pub file_revocations: usize,
    /// Revocations from run time, expired ones included.
    pub runtime_revocations: usize,
    /// All workers' caches together.
    pub cache: CacheStatus,
}

/// One provider. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProviderStatus {
    /// Its name.
    pub name: String,
    /// Where its keys come from; never what they are.
    pub source: String,
    /// The keys in use.
    pub keys: Vec<KeyStatus>,
    /// How fresh they are.
    pub freshness: Freshness,
    /// When keys were last obtained.
    pub last_success: Option<u64>,
    /// When obtaining them last failed, if it has not succeeded since.
    pub last_failure: Option<u64>,
    /// Why it failed.
    pub error: Option<String>,
    /// When they will be fetched next.
    pub next_fetch: Option<u64>,
    /// Fetches begun since the start.
    pub fetches: u64,
    /// How often obtaining keys has failed since the start.
    pub failures: u64,
}

/// One key in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyStatus {
    /// Its `kid`.
    pub kid: Option<String>,
    /// Algorithms it serves.
    pub algorithms: Vec<String>,
}

/// How much the keys in use can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Freshness {
    /// As new as the schedule makes them.
    Fresh,
    /// The last good ones: newer ones could not be obtained.
    Stale,
    /// There are none: every token is refused, with a 503.
    Missing,
}

impl ProviderStatus {
    pub(super) fn of(state: &ProviderState) -> Self {
        let config = state.config();
        let progress = state.progress();
        let set = state.keys();
        let keys: Vec<_> = set
            .keys()
            .iter()
            .map(|key| KeyStatus {
                kid: key.kid().map(ToOwned::to_owned),
                algorithms: key
                    .algorithms()
                    .map(|algorithm| format!("{algorithm:?}"))
                    .collect(),
            })
            .collect();
        let freshness = match &progress.failure {
            _ if keys.is_empty() => Freshness::Missing,
            Some(_) => Freshness::Stale,
            None => Freshness::Fresh,
        };
        let failures = progress.failures;
        let (failed_at, error) = progress.failure.unzip();
        Self {
            name: config.name.clone(),
            source: match &config.key {
                KeySource::SecretFile(path) | KeySource::PemFile(path) | KeySource::JwksFile(path) => {
                    path.display().to_string()
                }
                KeySource::SecretEnv(name) => format!("environment variable {name}"),
                KeySource::Generated(_) => "generated".into(),
                KeySource::JwksUrl(_) | KeySource::Oidc(_) => {
                    jwks::remote_keys(config).map_or_else(String::new, |remote| remote.url.clone())
                }
            },
            keys,
            freshness,
            last_success: progress.success.map(seconds),
            last_failure: failed_at.map(seconds),
            error,
            next_fetch: progress.next.map(seconds),
            fetches: state.remote().map_or(0, |remote| remote.started()),
            failures,
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
