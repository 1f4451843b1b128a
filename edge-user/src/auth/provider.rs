//! One provider at run time: its configuration and the keys it has now.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use thiserror::Error;

use super::{
    jws::normal_type,
    key::Key,
    keyset::KeySet,
    material::{self, MaterialError},
    source::MAX_SOURCES,
};
use crate::config::{KeySource, Provider};

/// Accepted when the configuration names no type: RFC 7519 section 5.1, RFC 9068 section 2.1.
const DEFAULT_TYPES: [&str; 2] = ["jwt", "at+jwt"];
/// Longest leeway: beyond it, expiry means little.
const MAX_LEEWAY: Duration = Duration::from_mins(10);

/// Why a provider cannot be used.
#[derive(Debug, Error)]
#[error("provider {name:?}: {key}: {problem}")]
pub struct ProviderError {
    /// Index in the configuration.
    pub provider: usize,
    /// Its name.
    pub name: String,
    /// The configuration key at fault.
    pub key: &'static str,
    /// What is wrong.
    pub problem: ProviderProblem,
}

/// What is wrong with a provider.
#[derive(Debug, Error)]
pub enum ProviderProblem {
    /// Nothing could be accepted.
    #[error("at least one is needed")]
    Empty,
    /// Shared secrets and public keys in one provider invite confusion of the two.
    #[error("HMAC and public-key algorithms cannot be mixed")]
    MixedFamilies,
    /// HMAC with keys that anybody may read.
    #[error("HMAC algorithms need a secret, not keys from this source")]
    SecretExpected,
    /// A public-key algorithm with a shared secret.
    #[error("a shared secret serves HMAC algorithms only")]
    HmacExpected,
    /// More than can be looked at.
    #[error("at most {MAX_SOURCES} are possible")]
    TooMany,
    /// Longer than ten minutes.
    #[error("at most {MAX_LEEWAY:?}")]
    Leeway,
    /// Not a header name, or one that means something else.
    #[error("{0:?} cannot be set from a claim")]
    Header(String),
    /// A name that no request can carry.
    #[error("{0:?} is not a possible name here")]
    Name(String),
    /// A claim path without names.
    #[error("empty claim path")]
    EmptyPath,
    /// The keys.
    #[error(transparent)]
    Material(#[from] MaterialError),
}

/// A provider and its present keys; shared by all workers.
#[derive(Debug)]
pub(super) struct ProviderState {
    config: Provider,
    types: Vec<String>,
    keys: ArcSwap<KeySet>,
    /// Mirror of the set's generation, cheaper to read than the set.
    generation: AtomicU64,
}

impl ProviderState {
    /// Checks a provider and loads the keys that lie on this machine.
    pub(super) fn load(config: &Provider) -> Result<Self, (&'static str, ProviderProblem)> {
        check(config)?;
        let keys = local_keys(config).map_err(|error| ("key", error.into()))?;
        let keys = KeySet::new(keys);
        let types = config.checks.types.iter().map(|typ| normal_type(typ)).collect();
        let generation = AtomicU64::new(keys.generation());
        Ok(Self {
            config: config.clone(),
            types,
            keys: ArcSwap::from_pointee(keys),
            generation,
        })
    }

    /// What the operator asked for.
    pub(super) fn config(&self) -> &Provider {
        &self.config
    }

    /// The present keys.
    pub(super) fn keys(&self) -> Guard<Arc<KeySet>> {
        self.keys.load()
    }

    /// Number of the present key set; changes with every change of keys.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Puts other keys in place of the present ones.
    pub(super) fn replace_keys(&self, keys: Vec<Key>) {
        let keys = KeySet::new(keys);
        let generation = keys.generation();
        self.keys.store(Arc::new(keys));
        self.generation.store(generation, Ordering::Release);
    }

    /// Whether a token of this `typ` is accepted.
    pub(super) fn accepts_type(&self, typ: Option<&str>) -> bool {
        match typ {
            // RFC 8725 section 3.11: who asks for explicit types does not take tokens without one.
            None => self.types.is_empty(),
            Some(typ) if self.types.is_empty() => DEFAULT_TYPES.contains(&typ),
            Some(typ) => self.types.iter().any(|own| own == typ),
        }
    }
}

/// Keys that need no network.
pub(super) fn local_keys(config: &Provider) -> Result<Vec<Key>, MaterialError> {
    let algorithms = &config.algorithms;
    match &config.key {
        KeySource::SecretFile(path) => material::secret_file(path, algorithms),
        KeySource::SecretEnv(name) => material::secret_env(name, algorithms),
        KeySource::Generated(secret) => material::secret_key("generated secret", secret, algorithms),
        KeySource::PemFile(path) => material::pem_file(path, algorithms),
        KeySource::JwksFile(path) => material::jwks_file(path, algorithms),
        KeySource::JwksUrl(_) | KeySource::Oidc(_) => Ok(Vec::new()),
    }
}

fn check(config: &Provider) -> Result<(), (&'static str, ProviderProblem)> {
    check_algorithms(config)?;
    if config.sources.is_empty() {
        return Err(("sources", ProviderProblem::Empty));
    }
    if config.sources.len() > MAX_SOURCES {
        return Err(("sources", ProviderProblem::TooMany));
    }
    for source in &config.sources {
        use crate::config::TokenSource::{Bearer, Cookie, Header, Query};
        let (is_possible, name) = match source {
            Bearer => continue,
            Cookie(name) => (is_token(name), name),
            // Names are compared with lower-case ones.
            Header(name) => (
                is_token(name) && !name.bytes().any(|byte| byte.is_ascii_uppercase()),
                name,
            ),
            Query(name) => (!name.is_empty(), name),
        };
        if !is_possible {
            return Err(("sources", ProviderProblem::Name(name.clone())));
        }
    }
    if config.leeway > MAX_LEEWAY {
        return Err(("leeway", ProviderProblem::Leeway));
    }
    for header in &config.forward.headers {
        if header.path.is_empty() {
            return Err(("claim_headers", ProviderProblem::EmptyPath));
        }
        if !may_be_set(&header.header) {
            return Err(("claim_headers", ProviderProblem::Header(header.header.clone())));
        }
    }
    Ok(())
}

fn check_algorithms(config: &Provider) -> Result<(), (&'static str, ProviderProblem)> {
    let secrets = config
        .algorithms
        .iter()
        .filter(|algorithm| material::is_hmac(**algorithm))
        .count();
    let is_mixed = secrets != 0 && secrets != config.algorithms.len();
    let problem = match &config.key {
        _ if config.algorithms.is_empty() => ProviderProblem::Empty,
        _ if is_mixed => ProviderProblem::MixedFamilies,
        KeySource::SecretFile(_) | KeySource::SecretEnv(_) | KeySource::Generated(_) if secrets == 0 => {
            ProviderProblem::HmacExpected
        }
        KeySource::PemFile(_) | KeySource::JwksUrl(_) | KeySource::Oidc(_) if secrets != 0 => {
            ProviderProblem::SecretExpected
        }
        _ => return Ok(()),
    };
    Err(("algorithms", problem))
}

/// A token of RFC 9110 section 5.6.2.
fn is_token(name: &str) -> bool {
    let is_token_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token_byte)
}

/// Headers that frame, route or authenticate the request itself stay what they are.
fn may_be_set(name: &str) -> bool {
    const RESERVED: [&str; 14] = [
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    is_token(name) && !name.bytes().any(|byte| byte.is_ascii_uppercase()) && !RESERVED.contains(&name)
}
