//! One provider at run time: its configuration and the keys it has now.

use std::{
    path::Path,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::{ArcSwap, Guard};
use thiserror::Error;

use super::{
    jwks::{self, Remote, RemoteUrl, UrlError},
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
/// Longest limit for a fetch; requests may wait for it.
const MAX_TIMEOUT: Duration = Duration::from_mins(1);
/// Longest cooldown; requests may wait for its end.
const MAX_COOLDOWN: Duration = Duration::from_hours(1);
/// Longest time that old keys may serve.
const MAX_STALE: Duration = Duration::from_hours(30 * 24);

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
    /// An address that keys are not fetched from.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// Times that contradict each other.
    #[error(
        "must hold: 0 < timeout <= 60 s, cooldown <= 1 h, \
         0 < refresh_min <= refresh <= refresh_max <= max_stale <= 30 days"
    )]
    Times,
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
    /// Never shared between two states: its address identifies this one.
    config: Arc<Provider>,
    /// As configured, before discovery's default.
    given_issuer: Option<String>,
    types: Vec<String>,
    keys: ArcSwap<KeySet>,
    /// Mirror of the set's generation, cheaper to read than the set.
    generation: AtomicU64,
    remote: Option<Arc<Remote>>,
    progress: RwLock<Progress>,
    is_tended: AtomicBool,
}

/// How the keys came to be what they are.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// When keys were last obtained.
    pub(super) success: Option<SystemTime>,
    /// When obtaining them last failed since then, and why.
    pub(super) failure: Option<(SystemTime, String)>,
    /// How often obtaining them has failed since the start.
    pub(super) failures: u64,
    /// When they will be fetched next.
    pub(super) next: Option<SystemTime>,
}

impl ProviderState {
    /// Checks a provider and loads the keys that lie on this machine.
    pub(super) fn load(config: &Provider, now: SystemTime) -> Result<Self, (&'static str, ProviderProblem)> {
        check(config)?;
        let keys = local_keys(config).map_err(|error| ("key", error.into()))?;
        let success = (!keys.is_empty()).then_some(now);
        let keys = KeySet::new(keys);
        let given_issuer = config.issuer.clone();
        let mut config = config.clone();
        if let KeySource::Oidc(remote) = &config.key {
            // The keys are this issuer's, so its tokens are the only ones they vouch for.
            config.issuer.get_or_insert_with(|| remote.url.clone());
        }
        Ok(Self {
            types: config.checks.types.iter().map(|typ| normal_type(typ)).collect(),
            generation: AtomicU64::new(keys.generation()),
            keys: ArcSwap::from_pointee(keys),
            remote: Remote::of(&config).map(Arc::new),
            progress: RwLock::new(Progress {
                success,
                ..Progress::default()
            }),
            is_tended: AtomicBool::new(false),
            given_issuer,
            config: Arc::new(config),
        })
    }

    /// Whether it was made from this configuration.
    pub(super) fn is_of(&self, config: &Provider) -> bool {
        let mut own = Provider::clone(&self.config);
        own.issuer.clone_from(&self.given_issuer);
        own == *config
    }

    /// What is in force: the configuration with its defaults filled in.
    pub(super) fn config(&self) -> &Arc<Provider> {
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

    /// What requests share with the fetching task, if the keys come from a URL.
    pub(super) fn remote(&self) -> Option<&Arc<Remote>> {
        self.remote.as_ref()
    }

    /// True once: for the one who starts the tasks of this provider.
    pub(super) fn claim_tending(&self) -> bool {
        !self.is_tended.swap(true, Ordering::AcqRel)
    }

    /// The file that the keys come from, if they do.
    pub(super) fn key_file(&self) -> Option<&Path> {
        match &self.config.key {
            KeySource::SecretFile(path) | KeySource::PemFile(path) | KeySource::JwksFile(path) => Some(path),
            KeySource::SecretEnv(_)
            | KeySource::Generated(_)
            | KeySource::JwksUrl(_)
            | KeySource::Oidc(_) => None,
        }
    }

    /// How the keys came to be what they are.
    pub(super) fn progress(&self) -> Progress {
        self.progress
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn note(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.progress.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes freshly obtained keys; the same keys again disturb nothing. Whether they are others.
    pub(super) fn note_success(&self, keys: Vec<Key>, now: SystemTime) -> bool {
        let is_change = !self.keys().is_same(&keys);
        if is_change {
            self.replace_keys(keys);
        }
        self.note(|progress| {
            progress.success = Some(now);
            progress.failure = None;
        });
        is_change
    }

    /// Keeps the present keys and says why there are no newer ones.
    pub(super) fn note_failure(&self, error: &dyn std::fmt::Display, now: SystemTime) {
        self.note(|progress| {
            progress.failure = Some((now, error.to_string()));
            progress.failures += 1;
        });
    }

    /// When keys will be fetched next.
    pub(super) fn note_next(&self, next: SystemTime) {
        self.note(|progress| progress.next = Some(next));
    }

    /// Whether keys were last obtained longer ago than this.
    pub(super) fn is_stale_beyond(&self, age: Duration, now: SystemTime) -> bool {
        self.progress()
            .success
            .is_some_and(|success| now.duration_since(success).is_ok_and(|real| real > age))
    }

    /// Accepts nothing until keys come.
    pub(super) fn forget_keys(&self) {
        if !self.keys().keys().is_empty() {
            self.replace_keys(Vec::new());
        }
    }

    fn replace_keys(&self, keys: Vec<Key>) {
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

/// The fetching task learns that nobody needs it any more.
impl Drop for ProviderState {
    fn drop(&mut self) {
        if let Some(remote) = &self.remote {
            remote.ask();
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
    check_remote(config)?;
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

fn check_remote(config: &Provider) -> Result<(), (&'static str, ProviderProblem)> {
    let Some(remote) = jwks::remote_keys(config) else {
        return Ok(());
    };
    RemoteUrl::parse(&remote.url).map_err(|error| ("url", error.into()))?;
    let ascends = [
        remote.refresh_min,
        remote.refresh,
        remote.refresh_max,
        remote.max_stale,
        MAX_STALE,
    ]
    .is_sorted();
    let is_prompt =
        !remote.timeout.is_zero() && remote.timeout <= MAX_TIMEOUT && remote.cooldown <= MAX_COOLDOWN;
    if !ascends || !is_prompt || remote.refresh_min.is_zero() {
        return Err(("refresh", ProviderProblem::Times));
    }
    Ok(())
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
