//! Why a request was refused, and what the client is told.
//!
//! Every refusal has one name (the metric's label), one status, one RFC 6750 answer and one weight as an offence.
//! Nothing here quotes a token.

use std::fmt::Write as _;

use thiserror::Error;

/// A request that may not pass. Dropping one lets nothing through, but hides an attack: it is counted.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The route requires a token and there is none.
    #[error("no token")]
    Missing,
    /// Not a token.
    #[error("malformed token: {0}")]
    Malformed(#[from] Defect),
    /// More than one token, or more than one Authorization field.
    #[error("more than one token in one request")]
    Ambiguous,
    /// `crit` or `b64`: an extension that must be understood and is not.
    #[error("critical extension in the token's header")]
    CriticalExtension,
    /// `alg` is unknown, `none`, or not one of the provider's.
    #[error("algorithm not accepted")]
    AlgorithmRefused,
    /// The key that the token names is not for its `alg`.
    #[error("algorithm does not fit the key")]
    AlgorithmMismatch,
    /// No key has the token's `kid`.
    #[error("unknown key")]
    UnknownKey {
        /// Index of the provider whose keys were asked.
        provider: usize,
        /// Whether a fetch could still bring the key.
        may_come: bool,
    },
    /// The provider has no usable keys at the moment.
    #[error("no keys to verify with")]
    KeysUnavailable {
        /// Index of the provider.
        provider: usize,
        /// Whether the first fetch is still under way.
        may_come: bool,
    },
    /// The signature is not the key's.
    #[error("signature does not verify")]
    BadSignature,
    /// `typ` or `cty` says that it is another kind of token.
    #[error("not an access token")]
    WrongType,
    /// `iss` names none of the route's providers.
    #[error("issuer not accepted")]
    WrongIssuer,
    /// `aud` names somebody else.
    #[error("audience not accepted")]
    WrongAudience,
    /// `exp` has passed.
    #[error("token expired")]
    Expired,
    /// There is no `exp`.
    #[error("token never expires")]
    NoExpiry,
    /// `nbf` lies ahead.
    #[error("token not yet valid")]
    NotYetValid,
    /// `iat` lies ahead.
    #[error("token issued in the future")]
    IssuedInFuture,
    /// `exp - iat` is longer than the provider allows.
    #[error("token lives too long")]
    TooLongLived,
    /// `jti` or `sub` is on the revocation list.
    #[error("token revoked")]
    Revoked,
    /// A claim that becomes a header cannot be written as one.
    #[error("claim cannot be passed on")]
    UnfitClaim,
    /// The route's scopes are not all there.
    #[error("scope missing")]
    MissingScope {
        /// The route's scopes, separated by spaces.
        scope: Box<str>,
    },
    /// A claim requirement of the route does not hold.
    #[error("claim requirement not met")]
    ClaimMismatch,
}

/// What is wrong with the form of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Defect {
    /// Longer than the limit.
    #[error("too long")]
    TooLong,
    /// Not three non-empty parts.
    #[error("not three parts")]
    Parts,
    /// Not canonical base64url.
    #[error("not canonical base64url")]
    Base64,
    /// The header is not an object with unique names and strings where strings belong.
    #[error("header")]
    Header,
    /// The payload is not an object with unique names.
    #[error("payload")]
    Payload,
    /// A registered claim has the wrong type or is out of range.
    #[error("registered claim")]
    Claim,
    /// `Authorization: Bearer` without a token.
    #[error("no token after Bearer")]
    Bearer,
}

/// How much a refusal says against the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Offence {
    /// Nothing: our own trouble.
    None,
    /// What honest clients do: no token, an old one, too few rights.
    Innocent,
    /// Rare in honest clients: garbage, somebody else's token, a key that is not there.
    Suspicious,
    /// Evidence of forging.
    Forged,
}

impl Refusal {
    /// Stable name, the metric's label.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed(_) => "malformed",
            Self::Ambiguous => "ambiguous",
            Self::CriticalExtension => "critical_extension",
            Self::AlgorithmRefused => "algorithm_refused",
            Self::AlgorithmMismatch => "algorithm_mismatch",
            Self::UnknownKey { .. } => "unknown_key",
            Self::KeysUnavailable { .. } => "keys_unavailable",
            Self::BadSignature => "bad_signature",
            Self::WrongType => "wrong_type",
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongAudience => "wrong_audience",
            Self::Expired => "expired",
            Self::NoExpiry => "no_expiry",
            Self::NotYetValid => "not_yet_valid",
            Self::IssuedInFuture => "issued_in_future",
            Self::TooLongLived => "too_long_lived",
            Self::Revoked => "revoked",
            Self::UnfitClaim => "unfit_claim",
            Self::MissingScope { .. } => "missing_scope",
            Self::ClaimMismatch => "claim_mismatch",
        }
    }

    /// HTTP status: 400, 401, 403 or 503 (RFC 6750 section 3.1; 503 is our own trouble).
    pub const fn status(&self) -> u16 {
        match self {
            Self::Ambiguous => 400,
            Self::MissingScope { .. } | Self::ClaimMismatch | Self::UnfitClaim => 403,
            Self::KeysUnavailable { .. } => 503,
            Self::Missing
            | Self::Malformed(_)
            | Self::CriticalExtension
            | Self::AlgorithmRefused
            | Self::AlgorithmMismatch
            | Self::UnknownKey { .. }
            | Self::BadSignature
            | Self::WrongType
            | Self::WrongIssuer
            | Self::WrongAudience
            | Self::Expired
            | Self::NoExpiry
            | Self::NotYetValid
            | Self::IssuedInFuture
            | Self::TooLongLived
            | Self::Revoked => 401,
        }
    }

    /// RFC 6750 `error` code; none when the request carried no token.
    pub const fn code(&self) -> Option<&'static str> {
        match self {
            Self::Missing | Self::KeysUnavailable { .. } => None,
            Self::Ambiguous => Some("invalid_request"),
            Self::MissingScope { .. } | Self::ClaimMismatch | Self::UnfitClaim => Some("insufficient_scope"),
            Self::Malformed(_)
            | Self::CriticalExtension
            | Self::AlgorithmRefused
            | Self::AlgorithmMismatch
            | Self::UnknownKey { .. }
            | Self::BadSignature
            | Self::WrongType
            | Self::WrongIssuer
            | Self::WrongAudience
            | Self::Expired
            | Self::NoExpiry
            | Self::NotYetValid
            | Self::IssuedInFuture
            | Self::TooLongLived
            | Self::Revoked => Some("invalid_token"),
        }
    }

    /// What the client is told beside the code. Whatever a forger could learn from is one sentence: which check
    /// failed is in the log, not in the answer.
    const fn description(&self) -> &'static str {
        match self {
            Self::Expired => "token expired",
            Self::NotYetValid | Self::IssuedInFuture => "token not yet valid",
            Self::Ambiguous => "more than one token",
            Self::MissingScope { .. } => "scope missing",
            Self::ClaimMismatch | Self::UnfitClaim => "claim requirement not met",
            _ => "token not accepted",
        }
    }

    /// Value of `WWW-Authenticate` (RFC 6750 section 3); none for answers that ask for no other credentials.
    pub fn challenge(&self) -> Option<String> {
        if matches!(self, Self::KeysUnavailable { .. }) {
            return None;
        }
        let mut value = String::from("Bearer");
        if let Some(code) = self.code() {
            let _ = write!(
                value,
                " error=\"{code}\", error_description=\"{}\"",
                self.description()
            );
        }
        if let Self::MissingScope { scope } = self {
            let _ = write!(value, ", scope=\"{scope}\"");
        }
        Some(value)
    }

    /// How much it says against the client.
    pub const fn offence(&self) -> Offence {
        match self {
            Self::KeysUnavailable { .. } => Offence::None,
            Self::Missing
            | Self::Expired
            | Self::NotYetValid
            | Self::IssuedInFuture
            | Self::Revoked
            | Self::UnfitClaim
            | Self::MissingScope { .. }
            | Self::ClaimMismatch => Offence::Innocent,
            Self::Malformed(_)
            | Self::Ambiguous
            | Self::UnknownKey { .. }
            | Self::WrongType
            | Self::WrongIssuer
            | Self::WrongAudience
            | Self::NoExpiry
            | Self::TooLongLived => Offence::Suspicious,
            Self::CriticalExtension
            | Self::AlgorithmRefused
            | Self::AlgorithmMismatch
            | Self::BadSignature => Offence::Forged,
        }
    }

    /// Whether keys that are about to be fetched could change the answer.
    pub const fn may_change(&self) -> bool {
        matches!(
            self,
            Self::UnknownKey { may_come: true, .. } | Self::KeysUnavailable { may_come: true, .. }
        )
    }

    /// Whether a new login could help, so that a browser may be sent to one.
    pub const fn may_login(&self) -> bool {
        self.status() == 401
    }
}
