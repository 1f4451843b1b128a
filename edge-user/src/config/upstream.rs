//! What the operator says about an upstream: where its endpoints are, how they are spoken to, which one is chosen,
//! and when one is left out.

use std::{fmt, net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use super::bounds;

/// `[[upstream]]`: a set of endpoints that serve the same thing.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Unique name, what routes refer to.
    pub name: String,
    /// At least one.
    pub endpoints: Vec<EndpointSpec>,
    /// Limit for connecting, TLS included.
    pub connect_timeout: Duration,
    /// What is spoken to them.
    pub protocol: UpstreamProtocol,
    /// TLS; none if absent.
    pub tls: Option<UpstreamTls>,
    /// The PROXY header written at the start of each connection, which then serves one request.
    pub send_proxy: Option<ProxyVersion>,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// The zone whose endpoints are preferred while at least half of them are usable.
    pub prefer_zone: Option<String>,
    /// How long an endpoint that came back takes to get its full share; zero for at once.
    pub slow_start: Duration,
    /// How names are resolved again.
    pub dns: Dns,
    /// Connections of one worker to one endpoint.
    pub pool: PoolLimits,
    /// Active checks; none if absent.
    pub health: Option<HealthCheck>,
    /// Passive ejection; none if switched off.
    pub ejection: Option<Ejection>,
    /// Limits of all workers together.
    pub circuit: Circuit,
    /// When a request is sent again.
    pub retry: Retry,
}

impl Upstream {
    /// An upstream of these addresses with every default.
    pub fn new(name: &str, endpoints: &[SocketAddr]) -> Self {
        Self {
            name: name.to_owned(),
            endpoints: endpoints.iter().copied().map(EndpointSpec::from).collect(),
            connect_timeout: bounds::DEFAULT_CONNECT_TIMEOUT,
            protocol: UpstreamProtocol::default(),
            tls: None,
            send_proxy: None,
            balance: Balance::default(),
            prefer_zone: None,
            slow_start: Duration::ZERO,
            dns: Dns::default(),
            pool: PoolLimits::default(),
            health: None,
            ejection: Some(Ejection::default()),
            circuit: Circuit::default(),
            retry: Retry::default(),
        }
    }
}

/// One entry of `upstream.endpoints`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Where it is.
    pub host: EndpointHost,
    /// Its share relative to the others.
    pub weight: NonZeroU32,
    /// Where it stands.
    pub zone: Option<String>,
}

impl From<SocketAddr> for EndpointSpec {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: EndpointHost::Address(address),
            weight: NonZeroU32::MIN,
            zone: None,
        }
    }
}

/// Where an endpoint is, or how to find out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndpointHost {
    /// Here.
    Address(SocketAddr),
    /// Every A and AAAA record of the name, with this port.
    Name {
        /// In lower case, without a final dot.
        name: String,
        /// Port.
        port: u16,
    },
    /// The targets of the SRV records of the name (RFC 2782) with the lowest priority, with their ports and weights.
    Service(String),
}

impl EndpointHost {
    /// What a request of this proxy's own asks for at `address`.
    pub fn authority(&self, address: SocketAddr) -> String {
        match self {
            Self::Name { name, .. } => format!("{name}:{}", address.port()),
            Self::Address(_) | Self::Service(_) => address.to_string(),
        }
    }
}

impl fmt::Display for EndpointHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name { name, port } => write!(f, "{name}:{port}"),
            Self::Service(name) => write!(f, "srv:{name}"),
        }
    }
}

/// What is spoken to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: by prior knowledge without TLS, by ALPN with it.
    Http2,
    /// What the upstream picks by ALPN.
    Auto,
}

/// `upstream.tls`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpstreamTls {
    /// Certificates that are trusted; the system's if absent.
    pub ca_file: Option<PathBuf>,
    /// The name that is asked for and verified; else that of the endpoint.
    pub server_name: Option<String>,
    /// Certificate chain and key that this proxy presents.
    pub identity: Option<ClientIdentity>,
    /// Any certificate will do: the connection is encrypted, and to whom is not known.
    pub skip_verification: bool,
}

/// A client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// Chain, PEM, leaf first.
    pub certificate_file: PathBuf,
    /// Private key, PEM.
    pub key_file: PathBuf,
}

/// Version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Balance {
    /// In turn, by weight.
    #[default]
    RoundRobin,
    /// Of two random ones that with fewer requests in flight.
    LeastRequest,
    /// Of two random ones that with the lower expected latency.
    PeakEwma,
    /// The same one for the same key.
    ConsistentHash(HashKey),
}

/// What a request is hashed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// A header field, in lower case.
    Header(String),
    /// A cookie.
    Cookie(String),
    /// The client's address.
    ClientAddress,
}

/// `upstream.dns`: bounds of the time after which a name is resolved again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dns {
    /// However short the TTL.
    pub refresh_min: Duration,
    /// However long the TTL.
    pub refresh_max: Duration,
    /// Servers to ask instead of the system's.
    pub server: Option<SocketAddr>,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            refresh_min: bounds::DEFAULT_DNS_REFRESH_MIN,
            refresh_max: bounds::DEFAULT_DNS_REFRESH_MAX,
            server: None,
        }
    }
}

/// `upstream.pool`: connections of one worker to one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Idle ones that are kept.
    pub idle: usize,
    /// How long one may be idle.
    pub idle_timeout: Duration,
    /// How old one may become.
    pub max_age: Option<Duration>,
    /// All of them.
    pub connections: Option<NonZeroU32>,
    /// Requests that wait for one.
    pub waiting: usize,
    /// How long a request waits.
    pub wait_timeout: Duration,
    /// Streams at once on one HTTP/2 connection.
    pub streams: NonZeroU32,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            idle: bounds::DEFAULT_POOL_IDLE as usize,
            idle_timeout: bounds::DEFAULT_POOL_IDLE_TIMEOUT,
            max_age: None,
            connections: None,
            waiting: bounds::DEFAULT_POOL_WAITING as usize,
            wait_timeout: bounds::DEFAULT_POOL_WAIT_TIMEOUT,
            streams: bounds::DEFAULT_POOL_STREAMS,
        }
    }
}

/// `upstream.health`: one checker an endpoint for the whole process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// From the end of one check to the start of the next; a tenth of it is random.
    pub interval: Duration,
    /// Limit of one check, connecting included.
    pub timeout: Duration,
    /// Good checks in a row that bring an endpoint back.
    pub rise: NonZeroU32,
    /// Bad checks in a row that take one out.
    pub fall: NonZeroU32,
    /// Port to check instead of the endpoint's.
    pub port: Option<u16>,
}

/// What a check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// That a connection can be made, TLS included.
    Tcp,
    /// An HTTP GET.
    Http {
        /// Target.
        path: String,
        /// `Host`; the endpoint's if absent.
        host: Option<String>,
        /// Good statuses, as inclusive ranges.
        status: Vec<(u16, u16)>,
        /// What must be within the first 64 KiB of the body.
        body: Option<String>,
    },
}

/// `upstream.ejection`: endpoints are left out for what requests met there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row that eject.
    pub consecutive: NonZeroU32,
    /// Share of failures within `interval` that ejects, in percent; only consecutive ones count if absent.
    pub failure_percent: Option<u8>,
    /// Requests within `interval` below which their share says nothing.
    pub min_requests: u32,
    /// How often shares are looked at.
    pub interval: Duration,
    /// How long the first time; each further time doubles it.
    pub time: Duration,
    /// The longest that becomes.
    pub max_time: Duration,
    /// Most endpoints ejected at once, in percent of all.
    pub max_percent: u8,
    /// Whether 500 and 501 count as failures, as every other status from 500 does.
    pub count_500: bool,
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            consecutive: bounds::DEFAULT_EJECTION_CONSECUTIVE,
            failure_percent: None,
            min_requests: bounds::DEFAULT_EJECTION_MIN_REQUESTS,
            interval: bounds::DEFAULT_EJECTION_INTERVAL,
            time: bounds::DEFAULT_EJECTION_TIME,
            max_time: bounds::DEFAULT_EJECTION_MAX_TIME,
            max_percent: bounds::DEFAULT_EJECTION_MAX_PERCENT,
            count_500: false,
        }
    }
}

/// `upstream.circuit`: limits of all workers together; what is above them is refused at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Circuit {
    /// Connections.
    pub connections: Option<NonZeroU32>,
    /// Requests that wait for a connection, or for one being made.
    pub pending: Option<NonZeroU32>,
    /// Requests in flight.
    pub requests: Option<NonZeroU32>,
    /// Second and further tries in flight.
    pub retries: Option<NonZeroU32>,
}

/// `upstream.retry`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Tries in all, the first included.
    pub attempts: NonZeroU32,
    /// Retries in percent of requests; ten a second of each worker are free.
    pub budget_percent: u32,
    /// Limit of one try, from the sent request to the response head.
    pub try_timeout: Option<Duration>,
    /// Statuses that are tried again, if the method allows it.
    pub statuses: Vec<u16>,
    /// Bytes of a request body that are kept for another try.
    pub buffer_bytes: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: bounds::DEFAULT_RETRY_ATTEMPTS,
            budget_percent: bounds::DEFAULT_RETRY_BUDGET_PERCENT,
            try_timeout: None,
            statuses: Vec::new(),
            buffer_bytes: 0,
        }
    }
}
