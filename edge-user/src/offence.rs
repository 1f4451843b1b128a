//! What a client can do wrong: the vocabulary shared by the gateway, which sees it, and the scoring, which
//! answers it.
//!
//! An offence is filed under the address of the connection's peer, or under the client that a configured peer names in
//! its PROXY protocol header; never under one that a header of a request claims.

pub mod ceiling;
pub mod detained;
pub mod escalation;
pub mod networks;
pub mod probe;
pub mod queue;
pub mod score;
pub mod tally;

use std::{net::IpAddr, time::Instant};

use crate::config::Weights;

/// Declares the kinds: variant, and the name that is also its key in `[offences.weights]`.
macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident = $name:ident;)+) => {
        /// What a peer did.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum OffenceKind { $($(#[doc = $doc])+ $kind),+ }

        impl OffenceKind {
            /// Every kind, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$kind),+];

            /// The name used in logs, metrics and configuration.
            pub const fn name(self) -> &'static str { match self { $(Self::$kind => stringify!($name)),+ } }

            /// What it weighs, in thousandths of a point.
            pub const fn weight(self, weights: &Weights) -> u32 { match self { $(Self::$kind => weights.$name),+ } }
        }
    };
}

kinds! {
    /// A token that honest clients do not send: malformed, of another issuer or audience, two at once.
    BadToken = bad_token;
    /// A token whose signature is not its key's.
    ForgedToken = forged_token;
    /// A token that tries to have another algorithm or key used: `none`, confusion of families, unknown extensions.
    AlgorithmAttack = algorithm_attack;
    /// A token of a key that its provider does not have.
    UnknownKey = unknown_key;
    /// A protected route was asked for without a token.
    MissingToken = missing_token;
    /// A valid token that does not carry what the route asks for.
    Forbidden = forbidden;
    /// A path that no route lists.
    NoRoute = no_route;
    /// An upstream answered with 401: a wrong password, mostly.
    Unauthorized = unauthorized;
    /// An upstream answered with 403.
    Denied = denied;
    /// An upstream answered with 404.
    NotFound = not_found;
    /// A path that scanners look for, and that is not there.
    Probe = probe;
    /// More requests than a limit allows.
    RateLimited = rate_limited;
    /// A message that is not HTTP, or breaks its grammar.
    Malformed = malformed;
    /// A message that two parsers could frame differently: the raw material of request smuggling.
    Smuggling = smuggling;
    /// A head or body that came too slowly, or a response that was not read.
    SlowClient = slow_client;
    /// A head, target or body above its limit.
    Oversized = oversized;
    /// More connections at once than one peer may hold.
    TooManyConnections = too_many_connections;
    /// Bytes to a TLS listener that are no handshake.
    TlsGarbage = tls_garbage;
    /// A TLS handshake that came to nothing: no common version, cipher or name, or an untrusted certificate.
    TlsRefused = tls_refused;
    /// HTTP/2 frames that cost more than they are worth.
    Http2Flood = http2_flood;
}

impl OffenceKind {
    /// How many kinds there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The index of this kind.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// What an answer of an upstream says about the client.
    pub const fn of_status(status: u16) -> Option<Self> {
        match status {
            401 => Some(Self::Unauthorized),
            403 => Some(Self::Denied),
            404 => Some(Self::NotFound),
            _ => None,
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

/// Where offences are reported, and where it is known who is kept out by the gateway itself.
pub trait OffenceSink: Send + Sync + 'static {
    /// Takes note of an offence. Called on the request path of every worker: it never blocks, and drops and counts
    /// what it cannot take.
    fn offence(&self, offender: Offender, kind: OffenceKind);

    /// Whether the gateway has to keep a client out, because the kernel cannot. Never blocks.
    fn custody(&self, client: IpAddr, now: Instant) -> Option<detained::Custody> {
        let _ = (client, now);
        None
    }

    /// Whether a new request of a client that is slowed down may pass; it counts if so.
    fn slowed(&self, client: IpAddr, now: Instant) -> bool {
        let _ = (client, now);
        true
    }
}

/// Takes no note.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoOffences;

impl OffenceSink for NoOffences {
    fn offence(&self, _: Offender, _: OffenceKind) {}
}
