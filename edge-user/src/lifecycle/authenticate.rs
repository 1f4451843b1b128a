//! Brings tokens to the gateway: its boundary on one side, the authority on the other.
//!
//! Each worker thread has a door of its own to the authority, since the cache of verified tokens is never shared.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use crate::{
    auth::{Authenticator, Authority, Offence, Outcome, Refusal, RequestView},
    config::AuthPolicy,
    gateway::{Authenticate, Denial, Permit, Reason, Request},
};

/// Numbers authorities, so that a thread notices when it holds a door to an old one.
static GENERATIONS: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static DOOR: RefCell<Option<(u64, Authenticator)>> = const { RefCell::new(None) };
}

/// The authority, as the gateway sees it.
#[derive(Debug)]
pub(super) struct TokenGate {
    authority: Arc<Authority>,
    generation: u64,
}

impl TokenGate {
    pub(super) fn new(authority: Arc<Authority>) -> Self {
        Self {
            authority,
            generation: GENERATIONS.fetch_add(1, Ordering::Relaxed),
        }
    }

    fn ask(&self, policy: &AuthPolicy, request: &Request<'_>, now: SystemTime) -> Result<Outcome, Refusal> {
        DOOR.with_borrow_mut(|door| {
            let is_current = matches!(door, Some((generation, _)) if *generation == self.generation);
            if !is_current {
                let authority = Arc::clone(&self.authority);
                let fresh = match door {
                    Some((_, old)) => old.with_authority(authority),
                    None => Authenticator::new(authority),
                };
                *door = Some((self.generation, fresh));
            }
            match door {
                Some((_, authenticator)) => authenticator.authenticate(policy, &View(request), now),
                None => Err(Refusal::Missing),
            }
        })
    }
}

/// A request, as authentication sees it.
struct View<'a, 'r>(&'a Request<'r>);

impl RequestView for View<'_, '_> {
    fn header_values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let name = name.to_owned();
        self.0
            .fields()
            .filter(move |(_, field, _)| field.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, _, value)| value)
    }

    fn query(&self) -> Option<&[u8]> {
        self.0.query()
    }
}

impl Authenticate for TokenGate {
    fn authenticate(
        &self,
        policy: &AuthPolicy,
        request: &Request<'_>,
        now: SystemTime,
    ) -> Result<Permit, Denial> {
        match self.ask(policy, request, now) {
            Ok(Outcome::Anonymous) => Ok(Permit::default()),
            Ok(Outcome::Verified(permit)) => Ok(Permit {
                subject: permit.token().subject().map(str::to_owned),
                remove: permit.removals().next().cloned(),
                set: permit
                    .headers()
                    .iter()
                    .map(|header| (header.name.to_string(), header.value.to_vec()))
                    .collect(),
            }),
            Err(refusal) => {
                // Asks for the key set at once, at most once a cooldown; this request does not wait for it.
                drop(self.authority.key_wait(&refusal));
                Err(Denial {
                    reason: reason(&refusal),
                    detail: refusal.reason(),
                    challenge: refusal.challenge(),
                })
            }
        }
    }

    fn identity_fields(&self) -> Vec<String> {
        self.authority
            .reserved_headers()
            .names()
            .map(str::to_owned)
            .collect()
    }
}

/// What a refused token is to the gateway. Only what honest clients do not send is an offence there.
fn reason(refusal: &Refusal) -> Reason {
    match (refusal.status(), refusal.offence()) {
        (503, _) => Reason::KeysUnavailable,
        (400, _) => Reason::TokenAmbiguous,
        (403, _) => Reason::Forbidden,
        (_, _) if matches!(refusal, Refusal::Missing) => Reason::TokenMissing,
        // A key that was published a moment ago: whoever has its first token must not be banned for it.
        (_, _) if matches!(refusal, Refusal::UnknownKey { may_come: true, .. }) => Reason::TokenStale,
        (_, Offence::None | Offence::Innocent) => Reason::TokenStale,
        (_, Offence::Suspicious | Offence::Forged) => Reason::TokenRefused,
    }
}
