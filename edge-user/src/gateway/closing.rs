//! Why a connection ended before, or beside, any request: the one list, with a counter for each.

use crate::offence::OffenceKind;

use super::counters::Counter;

/// Declares the reasons: variant, name, and the offence it amounts to.
macro_rules! closings {
    ($($(#[doc = $doc:literal])+ $name:ident = $slug:literal, $offence:expr;)+) => {
        /// Why a connection was closed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Closing { $($(#[doc = $doc])+ $name),+ }

        impl Closing {
            /// Every reason, in the order of its counters.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The stable name in logs and metrics.
            pub fn slug(self) -> &'static str { match self { $(Self::$name => $slug),+ } }

            /// What the client did, if it is to blame.
            pub fn offence(self) -> Option<OffenceKind> { match self { $(Self::$name => $offence),+ } }
        }
    };
}

closings! {
    /// The gateway has all the connections that it may.
    Full = "full", None;
    /// The client has all the connections that it may.
    TooMany = "too_many_connections", Some(OffenceKind::TooManyConnections);
    /// The client is kept out for what it did before.
    Banned = "banned", None;
    /// The PROXY protocol header of a configured peer is missing or malformed.
    ProxyHeader = "proxy_header", None;
    /// It did not come in time.
    ProxyHeaderTimeout = "proxy_header_timeout", None;
    /// What came is no TLS handshake.
    TlsMalformed = "tls_malformed", Some(OffenceKind::TlsGarbage);
    /// The handshake failed: no common version, cipher or name, or a client certificate that nobody vouches for.
    TlsRefused = "tls_refused", Some(OffenceKind::TlsRefused);
    /// The client left during the handshake.
    TlsGone = "tls_gone", None;
    /// The handshake did not end in time.
    TlsTimeout = "tls_timeout", Some(OffenceKind::SlowClient);
    /// HTTP/2 frames that cost more than they are worth: resets, pings, settings, empty data and their like.
    Http2Flood = "http2_flood", Some(OffenceKind::Http2Flood);
}

impl Closing {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The index of this reason's counter.
    pub fn index(self) -> usize {
        self as usize
    }
}

/// Counters of one worker.
#[derive(Debug, Default)]
pub(crate) struct ClosingCounters([Counter; Closing::COUNT]);

impl ClosingCounters {
    /// Counts one.
    pub(crate) fn count(&self, closing: Closing) {
        if let Some(counter) = self.0.get(closing.index()) {
            counter.add(1);
        }
    }

    /// How often it was counted.
    pub(crate) fn get(&self, closing: Closing) -> u64 {
        self.0.get(closing.index()).map_or(0, Counter::get)
    }
}
