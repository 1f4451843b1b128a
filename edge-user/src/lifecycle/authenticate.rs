//! Brings tokens to the gateway: its boundary on one side, the authority on the other.
//!
//! Each worker thread has a door of its own to the authority, since the cache of verified tokens is never shared.

use std::{
    borrow::Cow,
    cell::RefCell,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use serde_json::Value;

use crate::{
    auth::{
        Authenticator, Authority, KeyWait, Offence, Outcome, Refusal, RequestView, VerifiedToken,
        login_location, without_parameter,
    },
    config::{AuthPolicy, AuthRule},
    gateway::{Authenticate, Denial, Identity, Permit, Reason, Request, Wait},
    offence::OffenceKind,
};

/// Numbers authorities, so that a thread notices when it holds a door to an old one.
static GENERATIONS: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static DOOR: RefCell<Option<(u64, Authenticator)>> = const { RefCell::new(None) };
}

/// The authority, as the gateway sees it.
#[derive(Debug)]
pub struct TokenGate {
    authority: Arc<Authority>,
    generation: u64,
}

impl TokenGate {
    /// A gate to these providers.
    pub fn new(authority: Arc<Authority>) -> Self {
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

impl TokenGate {
    /// Where a browser is sent that could log in: a page that it asked for, not what a script or a program fetches.
    fn login(&self, policy: &AuthPolicy, refusal: &Refusal, request: &Request<'_>) -> Option<String> {
        let (AuthPolicy::Optional(rule) | AuthPolicy::Required(rule)) = policy else {
            return None;
        };
        let login = rule.login.as_ref()?;
        let wants_page = request.values("accept").any(|value| {
            value
                .windows(PAGE.len())
                .any(|part| part.eq_ignore_ascii_case(PAGE))
        });
        if !refusal.may_login() || !matches!(request.method(), b"GET" | b"HEAD") || !wants_page {
            return None;
        }
        Some(login_location(login, &self.way_back(rule, request)))
    }

    /// The request's target without the token, which belongs into no address.
    fn way_back(&self, rule: &AuthRule, request: &Request<'_>) -> Vec<u8> {
        let mut target = request.path().as_bytes().to_vec();
        if let Some(query) = request.query() {
            let mut rest = Cow::Borrowed(query);
            for name in self.authority.token_parameters(rule) {
                rest = Cow::Owned(without_parameter(&rest, name));
            }
            if !rest.is_empty() {
                target.push(b'?');
                target.extend_from_slice(&rest);
            }
        }
        target
    }
}

/// What browsers accept when they ask for a page.
const PAGE: &[u8] = b"text/html";

impl Identity for VerifiedToken {
    fn subject(&self) -> Option<&str> {
        Self::subject(self)
    }

    fn claim(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path {
            [name] if name == "sub" => Self::subject(self).map(Cow::Borrowed),
            _ => match self.claims().at(path)? {
                Value::String(text) => Some(Cow::Borrowed(text)),
                Value::Number(number) => Some(Cow::Owned(number.to_string())),
                Value::Bool(flag) => Some(Cow::Borrowed(if *flag { "true" } else { "false" })),
                Value::Null | Value::Array(_) | Value::Object(_) => None,
            },
        }
    }

    fn each_field(&self, tell: &mut dyn FnMut(&str, &[u8])) {
        for header in self.headers() {
            tell(&header.name, &header.value);
        }
    }
}

impl Wait for KeyWait {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(Self::next(self))
    }
}

/// A request, as authentication sees it.
pub(super) struct View<'a, 'r>(pub(super) &'a Request<'r>);

impl RequestView for View<'_, '_> {
    fn header_values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
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
            Ok(Outcome::Verified(permit)) => {
                let remove = permit.removals().cloned().collect();
                Ok(Permit::new(Some(permit.into_token()), remove))
            }
            Err(refusal) => Err(Denial {
                offence: offence(&refusal),
                location: self.login(policy, &refusal, request),
                // Asks for the key set, at most once a cooldown, and for a place among those who wait for it.
                wait: self
                    .authority
                    .key_wait(&refusal)
                    .map(|wait| Box::new(wait) as Box<dyn Wait>),
                ..Denial::new(reason(&refusal), refusal.reason(), refusal.challenge())
            }),
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

/// What a refused token says about its sender beyond the reason that the client is told.
const fn offence(refusal: &Refusal) -> Option<OffenceKind> {
    match refusal {
        Refusal::BadSignature => Some(OffenceKind::ForgedToken),
        Refusal::CriticalExtension | Refusal::AlgorithmRefused | Refusal::AlgorithmMismatch => {
            Some(OffenceKind::AlgorithmAttack)
        }
        Refusal::UnknownKey { may_come: false, .. } => Some(OffenceKind::UnknownKey),
        _ => None,
    }
}
