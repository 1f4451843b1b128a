//! Where the gateway accepts connections, whom it believes there, what clients may make grow, and what is told.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use ipnet::IpNet;

use super::bounds;

/// `[[listener]]`: a TCP address the gateway accepts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Unique name.
    pub name: String,
    /// Address and port.
    pub address: SocketAddr,
    /// `[::]` takes IPv4 too.
    pub dual_stack: bool,
    /// Peers that say by a PROXY protocol header whom they speak for; each of their connections must begin with one.
    pub proxy_protocol: Vec<IpNet>,
    /// Peers whose `Forwarded` and `X-Forwarded-*` fields are believed and continued.
    pub trusted_proxies: Vec<IpNet>,
    /// TLS; without it connections are in the clear.
    pub tls: Option<ListenerTls>,
}

impl Listener {
    /// A listener in the clear that trusts nobody.
    pub fn plain(name: impl Into<String>, address: SocketAddr) -> Self {
        Self {
            name: name.into(),
            address,
            dual_stack: false,
            proxy_protocol: Vec::new(),
            trusted_proxies: Vec::new(),
            tls: None,
        }
    }
}

/// `[listener.tls]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// At least one; the first is the default.
    pub certificates: Vec<CertificateFiles>,
    /// What becomes of a client that asks for a name no certificate has.
    pub unknown_name: UnknownName,
    /// The oldest version spoken.
    pub minimum: TlsVersion,
    /// Whether HTTP/2 is offered beside HTTP/1.1 (ALPN).
    pub http2: bool,
    /// Limit from the accepted connection to the end of the handshake.
    pub handshake_timeout: Duration,
    /// Whether clients are asked for a certificate.
    pub client_certificates: ClientCertificates,
    /// Header that takes the subject of a verified client certificate.
    pub subject_header: Option<String>,
    /// Header that takes the SHA-256 of a verified client certificate, in hex.
    pub fingerprint_header: Option<String>,
}

/// A certificate chain and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM, the server's own first.
    pub certificate_file: PathBuf,
    /// PEM: PKCS#8, PKCS#1 or SEC1.
    pub key_file: PathBuf,
    /// Names it is for, exact or `*.`; those in the certificate if empty.
    pub names: Vec<String>,
}

/// What becomes of a client that asks for a name no certificate has, or for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownName {
    /// It gets the first certificate.
    #[default]
    Default,
    /// Its handshake ends with an alert.
    Refuse,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// Whether clients are asked for a certificate, and who vouches for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ClientCertificates {
    /// They are not asked.
    #[default]
    None,
    /// They are asked; one that is not vouched for ends the handshake, none does not.
    Optional(PathBuf),
    /// Without one there is no connection.
    Required(PathBuf),
}

impl ClientCertificates {
    /// The file with the authorities.
    pub fn ca_file(&self) -> Option<&PathBuf> {
        match self {
            Self::None => None,
            Self::Optional(path) | Self::Required(path) => Some(path),
        }
    }
}

/// `[gateway.access_log]`: what is told about each request, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// Whether anything is.
    pub enabled: bool,
    /// Appended to; standard error if absent.
    pub file: Option<PathBuf>,
    /// How a line looks.
    pub format: AccessFormat,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            enabled: true,
            file: None,
            format: AccessFormat::Json,
        }
    }
}

/// How a line of the access log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessFormat {
    /// One JSON object.
    #[default]
    Json,
    /// The Common Log Format.
    Clf,
}

/// `[gateway.limits]`: bounds on what clients can make grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatewayLimits {
    /// Fields in one head.
    pub header_count: NonZeroU32,
    /// Request head, first line and final empty line included, in bytes.
    pub header_bytes: NonZeroU32,
    /// Request target, in bytes.
    pub target_bytes: NonZeroU32,
    /// Client connections at once.
    pub connections: NonZeroU32,
    /// Client connections at once of one address.
    pub connections_per_address: NonZeroU32,
    /// HTTP/2 streams at once on one connection.
    pub streams: NonZeroU32,
    /// From the first byte of a request head to its last.
    pub header_timeout: Duration,
    /// A connection without a request.
    pub idle_timeout: Duration,
    /// A body, either way, of which nothing moves.
    pub stall_timeout: Duration,
    /// Least bytes a second of a request body, over each `stall_timeout` spent waiting for it.
    pub min_body_rate: u32,
    /// Least bytes a second that a client takes of an answer, over each `stall_timeout` that it holds the answer up.
    pub min_read_rate: u32,
    /// An upgraded connection, both ways, of which nothing moves.
    pub tunnel_idle_timeout: Duration,
    /// From the accepted connection to the end of its PROXY protocol header.
    pub proxy_header_timeout: Duration,
}

impl Default for GatewayLimits {
    fn default() -> Self {
        let count = |count: u32| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        Self {
            header_count: count(bounds::DEFAULT_HEADER_COUNT),
            header_bytes: count(bounds::DEFAULT_HEADER_BYTES),
            target_bytes: count(bounds::DEFAULT_TARGET_BYTES),
            connections: count(bounds::DEFAULT_CONNECTIONS),
            connections_per_address: count(bounds::DEFAULT_CONNECTIONS_PER_ADDRESS),
            streams: count(bounds::DEFAULT_STREAMS),
            header_timeout: bounds::DEFAULT_HEADER_TIMEOUT,
            idle_timeout: bounds::DEFAULT_IDLE_TIMEOUT,
            stall_timeout: bounds::DEFAULT_STALL_TIMEOUT,
            min_body_rate: bounds::DEFAULT_MIN_BODY_RATE,
            min_read_rate: bounds::DEFAULT_MIN_READ_RATE,
            tunnel_idle_timeout: bounds::DEFAULT_TUNNEL_IDLE_TIMEOUT,
            proxy_header_timeout: bounds::DEFAULT_PROXY_HEADER_TIMEOUT,
        }
    }
}
