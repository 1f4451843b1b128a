//! `kind = "direct"`: a service that the kernel spreads over backends, past the gateway.

use std::{net::IpAddr, num::NonZeroU32};

pub use edge_common::abi::Forward;

use super::HealthCheck;

/// Where the packets of a service go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Direct {
    /// How they get there.
    pub forward: Forward,
    /// What stays with a backend.
    pub affinity: Affinity,
    /// Places of its Maglev table; a prime.
    pub table_size: u32,
    /// Where to; at least one, each address once.
    pub backends: Vec<BackendSpec>,
    /// How the daemon finds out whether they are there; without, they are taken to be.
    pub health: Option<HealthCheck>,
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
}
