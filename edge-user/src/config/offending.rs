//! `[offences]` as the rest of the program sees it: what clients' wrongs weigh, and what they lead to.

use std::{num::NonZeroU32, time::Duration};

use ipnet::IpNet;

/// `[offences]`: what refusals cost a client, and when the kernel takes over.
#[derive(Debug, Clone, PartialEq)]
pub struct Offences {
    /// Points at which a client is banned.
    pub threshold: NonZeroU32,
    /// In this time a score halves.
    pub half_life: Duration,
    /// How long the kernel drops the client the first time.
    pub ban: Duration,
    /// The longest that repeats can make it.
    pub max_ban: Duration,
    /// What a ban does.
    pub scope: BanScope,
    /// Addresses that many share.
    pub shared: Vec<IpNet>,
    /// What a ban of one of them does.
    pub shared_scope: BanScope,
    /// Requests a second that [`BanScope::Slow`] leaves a client.
    pub slow_per_second: NonZeroU32,
    /// Tell, ban nobody.
    pub observe: bool,
    /// Clients that are never banned: monitors, partners. Peers that listeners trust are not either.
    pub exempt: Vec<IpNet>,
    /// Addresses of this machine are never banned either.
    pub exempt_local: bool,
    /// Bans a minute beyond which an alert is raised instead: who can provoke bans must not ban the world.
    pub max_bans_per_minute: NonZeroU32,
    /// What each kind weighs.
    pub weights: Weights,
    /// Prefixes of paths that scanners look for.
    pub probes: Vec<String>,
}

/// What a ban does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BanScope {
    /// Every packet to a protected service is dropped.
    #[default]
    Everything,
    /// Connections that are open go on; what opens one is dropped.
    NewConnections,
    /// Nothing is dropped; the gateway lets so many requests a second through.
    Slow,
}

/// Declares the weights: key and default, in thousandths of a point.
macro_rules! weights {
    ($($name:ident = $default:literal;)+) => {
        /// What each kind of offence weighs, in thousandths of a point; 0 is not scored.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Weights { $(#[doc = concat!("`", stringify!($name), "`.")] pub $name: u32),+ }

        impl Default for Weights {
            fn default() -> Self { Self { $($name: $default),+ } }
        }

        impl Weights {
            /// Takes what is given; the rest keeps its default.
            pub(super) fn take(raw: &super::raw::RawWeights) -> Self {
                let default = Self::default();
                Self { $($name: raw.$name.value().map_or(default.$name, |weight| weight.0)),+ }
            }
        }
    };
}

weights! {
    bad_token = 1000;
    forged_token = 1000;
    algorithm_attack = 5000;
    unknown_key = 1000;
    missing_token = 0;
    forbidden = 0;
    no_route = 0;
    unauthorized = 0;
    denied = 0;
    not_found = 0;
    probe = 2000;
    rate_limited = 100;
    malformed = 1000;
    smuggling = 1000;
    slow_client = 1000;
    oversized = 0;
    too_many_connections = 0;
    tls_garbage = 1000;
    tls_refused = 0;
    http2_flood = 5000;
}
