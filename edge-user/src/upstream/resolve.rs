//! From a name to addresses: A and AAAA records, or SRV records and the addresses of their targets.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    time::{Duration, Instant},
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::RData,
};

use crate::config::{Dns, EndpointHost, bounds::MAX_WEIGHT};

/// Most addresses of one name.
const MAX_ADDRESSES: usize = 1024;

/// Most targets of SRV records that are looked up.
const MAX_TARGETS: usize = 64;

/// How long a server has to answer, and how often it is asked.
const TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;

/// Why a name has no addresses.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    /// The resolver's.
    #[error(transparent)]
    Dns(#[from] NetError),
    /// It exists, and has none.
    #[error("the name has no address")]
    Empty,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Addresses in order, each once, with their weights.
    pub(super) addresses: Vec<(SocketAddr, NonZeroU32)>,
    /// For how long.
    pub(super) valid: Duration,
}

/// Asks the system's servers, or another.
pub(super) struct Resolver(TokioResolver);

impl Resolver {
    /// As configured; the system's settings are read now.
    pub(super) fn new(dns: &Dns) -> Result<Self, ResolveError> {
        let mut builder = match dns.server {
            Some(server) => {
                let at_port = |mut connection: ConnectionConfig| {
                    connection.port = server.port();
                    connection
                };
                let connections = vec![at_port(ConnectionConfig::udp()), at_port(ConnectionConfig::tcp())];
                let server = NameServerConfig::new(server.ip(), true, connections);
                TokioResolver::builder_with_config(
                    ResolverConfig::from_name_servers(vec![server]),
                    TokioRuntimeProvider::default(),
                )
            }
            None => TokioResolver::builder_tokio()?,
        };
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        // Answers are kept here, by their time to live.
        options.cache_size = 0;
        options.timeout = TIMEOUT;
        options.attempts = ATTEMPTS;
        Ok(Self(builder.build()?))
    }

    /// The addresses of a host, which is a name.
    pub(super) async fn find(&self, host: &EndpointHost) -> Result<Found, ResolveError> {
        let mut found = match host {
            EndpointHost::Address(address) => Found {
                addresses: vec![(*address, NonZeroU32::MIN)],
                valid: Duration::MAX,
            },
            EndpointHost::Name { name, port } => {
                let (addresses, valid) = self.addresses(name).await?;
                Found {
                    addresses: addresses
                        .into_iter()
                        .map(|ip| (SocketAddr::new(ip, *port), NonZeroU32::MIN))
                        .collect(),
                    valid,
                }
            }
            EndpointHost::Service(name) => self.service(name).await?,
        };
        found.addresses.sort_unstable();
        found.addresses.dedup_by_key(|(address, _)| *address);
        found.addresses.truncate(MAX_ADDRESSES);
        if found.addresses.is_empty() {
            return Err(ResolveError::Empty);
        }
        Ok(found)
    }

    async fn addresses(&self, name: &str) -> Result<(Vec<IpAddr>, Duration), ResolveError> {
        let answer = self.0.lookup_ip(name).await?;
        let valid = answer.valid_until().saturating_duration_since(Instant::now());
        Ok((answer.iter().collect(), valid))
    }

    async fn service(&self, name: &str) -> Result<Found, ResolveError> {
        let answer = self.0.srv_lookup(name).await?;
        let mut valid = answer.valid_until().saturating_duration_since(Instant::now());
        let records: Vec<_> = answer
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(service) => Some(service),
                _ => None,
            })
            .collect();
        let lowest = records.iter().map(|record| record.priority).min();
        let first = records
            .iter()
            .filter(|record| Some(record.priority) == lowest)
            .take(MAX_TARGETS);
        let (mut addresses, mut failure) = (Vec::new(), ResolveError::Empty);
        for record in first {
            match self.addresses(&record.target.to_ascii()).await {
                Ok((ips, target_valid)) => {
                    valid = valid.min(target_valid);
                    let weight = NonZeroU32::new(u32::from(record.weight).min(MAX_WEIGHT));
                    let weight = weight.unwrap_or(NonZeroU32::MIN);
                    addresses.extend(
                        ips.into_iter()
                            .map(|ip| (SocketAddr::new(ip, record.port), weight)),
                    );
                }
                Err(error) => failure = error,
            }
        }
        if addresses.is_empty() {
            return Err(failure);
        }
        Ok(Found { addresses, valid })
    }
}
