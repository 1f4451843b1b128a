//! What a client can do wrong: the vocabulary shared by the gateway, which sees it, and the scoring, which
//! answers it.
//!
//! An offence is filed under the address of the connection's peer, or under the client that a configured peer names in
//! its PROXY protocol header; never under one that a header of a request claims.

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
    /// A TLS handshake that came to nothing: no common version, cipher or name, or an untrusted certificate.
    TlsRefused,
    /// HTTP/2 frames that cost more than they are worth.
    Http2Flood,
    /// More requests than a limit allows.
    RateLimited,
}

impl OffenceKind {
    /// Every kind, in declaration order.
    pub const ALL: [Self; 12] = [
        Self::BadToken,
        Self::MissingToken,
        Self::Forbidden,
        Self::NoRoute,
        Self::Malformed,
        Self::Smuggling,
        Self::SlowClient,
        Self::Oversized,
        Self::TooManyConnections,
        Self::TlsRefused,
        Self::Http2Flood,
        Self::RateLimited,
    ];

    /// Whether it counts towards a ban. What honest clients do in numbers (a missing or expired token, a page that
    /// is gone, too few rights) is told, and banned for by nobody.
    pub const fn is_scored(self) -> bool {
        match self {
            Self::BadToken | Self::Malformed | Self::Smuggling | Self::SlowClient | Self::Http2Flood => true,
            Self::MissingToken
            | Self::Forbidden
            | Self::NoRoute
            | Self::Oversized
            | Self::TooManyConnections
            | Self::TlsRefused
            | Self::RateLimited => false,
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
            Self::TlsRefused => "tls_refused",
            Self::Http2Flood => "http2_flood",
            Self::RateLimited => "rate_limited",
        }
    }
}

/// Whom an offence is filed under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Offender {
    /// The client.
    pub address: IpAddr,
    /// The peer that speaks for it, if it is not its own.
    pub behind: Option<IpAddr>,
}

impl Offender {
    /// A client whose packets come from its own address.
    pub const fn peer(address: IpAddr) -> Self {
        Self {
            address,
            behind: None,
        }
    }

    /// A client whose packets come from a proxy's address.
    pub const fn behind(address: IpAddr, proxy: IpAddr) -> Self {
        Self {
            address,
            behind: Some(proxy),
        }
    }

    /// Whether dropping the address's packets would meet the client: behind a proxy only the gateway can.
    pub const fn is_reached_by_the_kernel(&self) -> bool {
        self.behind.is_none()
    }
}

/// Where offences are reported.
pub trait OffenceSink: Send + Sync + 'static {
    /// Takes note of an offence. Called on the request path of every worker: it never blocks, and drops and counts
    /// what it cannot take.
    fn offence(&self, offender: Offender, kind: OffenceKind);
}

/// Takes no note.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoOffences;

impl OffenceSink for NoOffences {
    fn offence(&self, _: Offender, _: OffenceKind) {}
}
