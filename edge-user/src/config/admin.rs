//! Where operators and their machines reach a running daemon.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::{CertificateFiles, ClientCertificates, ListenerTls, TlsVersion, UnknownName, bounds};

/// `[admin]`: the admin API, metrics and health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Whether there is an admin socket.
    pub enabled: bool,
    /// Where it is; the one that `breakwater` looks at by itself if absent.
    pub socket: Option<PathBuf>,
    /// Who may use it beside root and the daemon's own user: members of this group.
    pub group: Option<Group>,
    /// Where the API is served over TCP as well.
    pub tcp: Option<AdminTcp>,
    /// Where metrics, and nothing else, are open to everybody.
    pub metrics_address: Option<SocketAddr>,
    /// Where health, and nothing else, is open to everybody.
    pub health_address: Option<SocketAddr>,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            enabled: true,
            socket: None,
            group: None,
            tcp: None,
            metrics_address: None,
            health_address: None,
        }
    }
}

/// A group of users of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// As configured.
    pub name: String,
    /// Its number.
    pub gid: u32,
}

/// The API over TCP: whoever calls needs the token, or a certificate, or both if both are configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminTcp {
    /// Address and port.
    pub address: SocketAddr,
    /// A bearer token.
    pub token_file: Option<PathBuf>,
    /// TLS.
    pub tls: Option<AdminTls>,
}

/// `[admin.tls]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminTls {
    /// The server's own.
    pub certificate: CertificateFiles,
    /// Who vouches for callers; without it they are not asked.
    pub client_ca_file: Option<PathBuf>,
}

/// `[gateway.traces]`: where traces go, and of how many requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    /// The collector, host and port.
    pub authority: String,
    /// Where it takes traces.
    pub path: String,
    /// What the collector calls this.
    pub service_name: String,
    /// Of a million requests that begin a trace here, how many are sampled. Those that continue one do as it says.
    pub sampled_per_million: u32,
}

/// `[history]`: what each route did, kept for weeks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The file.
    pub path: PathBuf,
    /// How long it is kept.
    pub keep: Duration,
    /// Bytes of the file, at most.
    pub max_bytes: u64,
    /// How long a cell is.
    pub every: Duration,
}

impl AdminTls {
    /// As a listener's settings.
    pub fn as_listener(&self) -> ListenerTls {
        ListenerTls {
            certificates: vec![self.certificate.clone()],
            unknown_name: UnknownName::Default,
            minimum: TlsVersion::Tls12,
            http2: false,
            handshake_timeout: bounds::DEFAULT_HANDSHAKE_TIMEOUT,
            client_certificates: self
                .client_ca_file
                .clone()
                .map_or(ClientCertificates::None, ClientCertificates::Required),
            subject_header: None,
            fingerprint_header: None,
        }
    }
}
