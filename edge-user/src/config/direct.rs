//! `kind = "direct"`: a service that the kernel spreads over backends, past the gateway.

use std::{
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32},
};

pub use edge_common::abi::Forward;

use super::HealthCheck;

/// Where the packets of a service go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Direct {
    /// How they get there.
    pub forward: Forward,
    /// What backends see instead of clients, with [`Forward::Nat`].
    pub nat: Option<Nat>,
    /// What stays with a backend.
    pub affinity: Affinity,
    /// Places of its Maglev table; a prime.
    pub table_size: u32,
    /// Where to; at least one, each address once.
    pub backends: Vec<BackendSpec>,
    /// How the daemon finds out whether they are there; without, they are taken to be.
    pub health: Option<HealthCheck>,
}

/// The end that backends see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nat {
    /// An address of this machine's, of the family of the service and its backends.
    pub source: IpAddr,
    /// Its ports.
    pub ports: PortRange,
}

/// Ports from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The first.
    pub low: u16,
    /// The last; not below the first.
    pub high: u16,
}

impl PortRange {
    /// From `61000-65535`, or nothing.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| text.parse::<u16>().ok()).flatten()
        };
        let (low, high) = text.split_once('-')?;
        let (low, high) = (number(low)?, number(high)?);
        (1..=high).contains(&low).then_some(Self { low, high })
    }

    /// Whether they have a port in common.
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.low <= other.high && other.low <= self.high
    }
}

impl std::fmt::Display for PortRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.low, self.high)
    }
}

/// What new flows are spread by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Affinity {
    /// Each flow by itself.
    #[default]
    Flow,
    /// All flows of a source host (IPv4 /32, IPv6 /64) alike.
    Source,
}

/// One backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendSpec {
    /// Its own address.
    pub address: IpAddr,
    /// Its share of the flows, beside the others'.
    pub weight: NonZeroU32,
    /// Its port, with [`Forward::Nat`], if that is not the service's.
    pub port: Option<NonZeroU16>,
}
