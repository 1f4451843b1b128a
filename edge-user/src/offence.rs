//! What a client can do wrong: the vocabulary shared by the gateway, which sees it, and the scoring, which
//! answers it.
//!
//! An offence is always filed under the address of the connection's peer, never under one that a header claims.

pub mod ceiling;
pub mod escalation;
pub mod queue;
pub mod score;

use std::net::IpAddr;

/// What a peer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OffenceKind {
    /// A token was presented and refused: bad signature, expired, wrong audience.
    BadToken,
    /// A protected route was asked for without a token.
    MissingToken,
    /// A valid token that does not carry what the route asks for.
    Forbidden,
    /// A path that no route lists.
    NoRoute,
    /// A message that is not HTTP, or breaks its grammar.
    Malformed,
    /// A message that two parsers could frame differently: the raw material of request smuggling.
    Smuggling,
    /// A head or body that came too slowly, or a response that was not read.
    SlowClient,
    /// A head, target or body above its limit.
    Oversized,
    /// More connections at once than one peer may hold.
    TooManyConnections,
}

impl OffenceKind {
    /// Every kind, in declaration order.
    pub const ALL: [Self; 9] = [
        Self::BadToken,
        Self::MissingToken,
        Self::Forbidden,
        Self::NoRoute,
        Self::Malformed,
        Self::Smuggling,
        Self::SlowClient,
        Self::Oversized,
        Self::TooManyConnections,
    ];

    /// Whether it counts towards a ban. What honest clients do in numbers (a missing or expired token, a page that
    /// is gone, too few rights) is told, and banned for by nobody.
    pub const fn is_scored(self) -> bool {
        match self {
            Self::BadToken | Self::Malformed | Self::Smuggling | Self::SlowClient => true,
            Self::MissingToken
            | Self::Forbidden
            | Self::NoRoute
            | Self::Oversized
            | Self::TooManyConnections => false,
        }
    }

    /// The name used in logs, metrics and configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadToken => "bad_token",
            Self::MissingToken => "missing_token",
            Self::Forbidden => "forbidden",
            Self::NoRoute => "no_route",
            Self::Malformed => "malformed",
            Self::Smuggling => "smuggling",
            Self::SlowClient => "slow_client",
            Self::Oversized => "oversized",
            Self::TooManyConnections => "too_many_connections",
        }
    }
}

/// Where offences are reported.
pub trait OffenceSink: Send + Sync + 'static {
    /// Takes note of an offence. Called on the request path of every worker: it never blocks, and drops and counts
    /// what it cannot take.
    fn offence(&self, peer: IpAddr, kind: OffenceKind);
}

/// Takes no note.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoOffences;

impl OffenceSink for NoOffences {
    fn offence(&self, _: IpAddr, _: OffenceKind) {}
}
