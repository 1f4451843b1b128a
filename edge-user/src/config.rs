//! What the operator asked for, fully checked.
//!
//! The types here are what the rest of the program sees: every name resolved, every unit typed, every default
//! filled in. How they are read from TOML, and how a mistake is reported, is in the submodules. Nothing here
//! performs I/O beyond reading the files that the configuration names.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;

/// A whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The kernel side.
    pub shield: Shield,
    /// What the shield judges; traffic to anything else is never touched.
    pub services: Vec<Service>,
    /// Where the gateway accepts connections.
    pub listeners: Vec<Listener>,
    /// Where requests go.
    pub upstreams: Vec<Upstream>,
    /// Which request goes where, in the file's order.
    pub routes: Vec<Route>,
    /// Who signs tokens.
    pub providers: Vec<Provider>,
    /// What refusals cost a client.
    pub offences: Offences,
    /// Gateway workers, one current-thread runtime each; the number of CPUs if absent.
    pub workers: Option<NonZeroU32>,
    /// How long connections may go on after a stop was asked for.
    pub shutdown_grace: Duration,
}

/// `[shield]`: the XDP program and its limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Shield {
    /// Interfaces to attach to; may be empty (gateway only).
    pub interfaces: Vec<String>,
    /// How to attach.
    pub mode: AttachMode,
    /// Count what would be dropped, drop nothing.
    pub observe: bool,
    /// Limits of every service that does not set its own.
    pub limits: Limits,
    /// Sources that are never dropped.
    pub allow: Vec<IpNet>,
    /// Sources that are always dropped.
    pub deny: Vec<IpNet>,
    /// ICMP packets of one source host to any protected address.
    pub icmp: Option<Rate>,
    /// `auto` may take generic mode where native is refused.
    pub allow_generic: bool,
    /// A stop takes the shield off; the default leaves it working.
    pub detach_on_exit: bool,
    /// Later fragments to a protected address pass.
    pub pass_fragments: bool,
    /// Packets to a protected address whose headers are cut short or malformed pass.
    pub pass_malformed: bool,
    /// Sources that cannot be real are dropped on external interfaces.
    pub drop_martians: bool,
    /// Most bans kept at once; preallocated.
    pub max_bans: NonZeroU32,
}

impl Default for Shield {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            mode: AttachMode::Auto,
            observe: false,
            limits: Limits::default(),
            allow: Vec::new(),
            deny: Vec::new(),
            icmp: None,
            allow_generic: false,
            detach_on_exit: false,
            pass_fragments: false,
            pass_malformed: false,
            drop_martians: true,
            max_bans: NonZeroU32::MIN.saturating_add(65_535),
        }
    }
}

/// How the XDP program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttachMode {
    /// Native where the driver can, else an error that says why (generic only with `auto` and `allow_generic`).
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// In the stack, after the packet has its buffer: works everywhere, protects less.
    Generic,
}

/// Limits of one service; a `None` limits nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Packets of one source host (IPv4 /32, IPv6 /64).
    pub source_packets: Option<Rate>,
    /// New TCP connections (SYN) of one source host.
    pub source_syns: Option<Rate>,
    /// Bytes of one source host.
    pub source_bytes: Option<Rate>,
    /// Packets of one source network (IPv4 /24, IPv6 /48).
    pub network_packets: Option<Rate>,
    /// New TCP connections (SYN) of one source network.
    pub network_syns: Option<Rate>,
    /// Bytes of one source network.
    pub network_bytes: Option<Rate>,
}

/// A rate with the burst it tolerates, in the unit of its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Units a second.
    pub per_second: u64,
    /// Units at once.
    pub burst: u64,
}

/// `[[service]]`: one protected address, protocol and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Unique name, used in `status` and metrics.
    pub name: String,
    /// The address; `None` is every local address.
    pub address: Option<IpAddr>,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Port, host order.
    pub port: u16,
    /// Limits in force: the service's own over `[shield.limits]`.
    pub limits: Limits,
}

/// Transport protocol of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// `[[listener]]`: a TCP address the gateway accepts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Unique name.
    pub name: String,
    /// Address and port.
    pub address: SocketAddr,
}

/// `[[upstream]]`: a set of equal endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Unique name, what routes refer to.
    pub name: String,
    /// At least one.
    pub endpoints: Vec<SocketAddr>,
    /// Limit for connecting.
    pub connect_timeout: Duration,
}

/// `[[route]]`: which requests, what they must prove, where they go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Unique name, used in logs and metrics.
    pub name: String,
    /// Path prefix of whole segments: `/api` matches `/api` and `/api/x`, never `/apix`.
    pub path: String,
    /// Index into [`Config::upstreams`].
    pub upstream: usize,
    /// What authentication it wants; every route says so, there is no default.
    pub auth: AuthPolicy,
    /// Limit from the forwarded request to the response head.
    pub timeout: Duration,
}

/// What a route asks of a request's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthPolicy {
    /// Open.
    None,
    /// A token may be absent; a bad one is refused.
    Optional(AuthRule),
    /// A valid token or 401.
    Required(AuthRule),
}

/// Which tokens satisfy a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthRule {
    /// Indices into [`Config::providers`]; at least one.
    pub providers: Vec<usize>,
    /// Scopes that must all be present, else 403.
    pub scopes: Vec<String>,
}

/// `[[provider]]`: one issuer of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Unique name.
    pub name: String,
    /// Accepted algorithms, all of one key family.
    pub algorithms: Vec<jsonwebtoken::Algorithm>,
    /// Where its key comes from.
    pub key: KeySource,
    /// Required `iss`.
    pub issuer: Option<String>,
    /// Required `aud`: one of these.
    pub audiences: Vec<String>,
    /// Tolerated clock difference.
    pub leeway: Duration,
    /// Where tokens are looked for, in order.
    pub sources: Vec<TokenSource>,
}

/// Where a provider's key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// HMAC secret, the file's bytes without a final newline.
    SecretFile(PathBuf),
    /// HMAC secret in an environment variable.
    SecretEnv(String),
    /// HMAC secret made at start (quick start only; never in a file).
    Generated(Vec<u8>),
    /// PEM public key or certificate.
    PemFile(PathBuf),
    /// JWKS document.
    JwksFile(PathBuf),
}

/// Where a token is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// `Authorization: Bearer`.
    Bearer,
    /// A cookie of this name.
    Cookie(String),
    /// A header of this name, the token alone.
    Header(String),
    /// A query parameter of this name.
    Query(String),
}

/// `[offences]`: what refusals cost a client, and when the kernel takes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offences {
    /// Refusals within `window` that ban.
    pub threshold: NonZeroU32,
    /// Over what time they are counted.
    pub window: Duration,
    /// How long the kernel drops the client.
    pub ban: Duration,
    /// Tell, ban nobody.
    pub observe: bool,
    /// Peers that are never banned (trusted proxies, monitors), beside every local address.
    pub exempt: Vec<IpNet>,
}
