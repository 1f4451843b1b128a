//! What the operator asked for, fully checked.
//!
//! The types here are what the rest of the program sees: every name resolved, every unit typed, every default
//! filled in. How they are read from TOML, and how a mistake is reported, is in the submodules:
//! `source -> (toml) -> section/value -> raw -> resolve -> Config`, with every problem collected on the way.
//! Nothing here performs I/O beyond reading the configuration, looking at the files it names and looking up
//! the environment variables it names. No message, and no `Debug` form, contains a secret.

pub mod bounds;
mod error;
pub mod keyfile;
mod load;
mod problem;
mod quickstart;
mod raw;
mod resolve;
mod section;
mod snippet;
mod source;
mod suggest;
#[cfg(test)]
mod tests;
mod value;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;

use self::quickstart::DEMO_PREFIX;
pub(crate) use self::resolve::{is_interface_name, least_secret_bytes};
pub use self::{
    error::{ConfigError, Report},
    load::LoadOptions,
    problem::{MAX_PROBLEMS, Problem, Severity},
    quickstart::{QUICKSTART, QUICKSTART_ISSUER, QUICKSTART_ORIGIN, Quickstart},
    source::MAX_FILE_BYTES,
};

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
    /// Revoked tokens and subjects, one a line; watched.
    pub revocation_file: Option<PathBuf>,
    /// What refusals cost a client.
    pub offences: Offences,
    /// Gateway workers, one current-thread runtime each; the number of CPUs if absent.
    pub workers: Option<NonZeroU32>,
    /// How long connections may go on after a stop was asked for.
    pub shutdown_grace: Duration,
}

/// A configuration that may be used, and what was noticed about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// Ready to use.
    pub config: Config,
    /// What somebody should look at, in the file's order.
    pub warnings: Vec<Problem>,
}

impl Config {
    /// Reads and checks the file at `path`. Relative paths in it are relative to its directory.
    pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
        load::load(path, &LoadOptions::default())
    }

    /// As [`Config::load`], with what is known of the kernel and the process.
    pub fn load_with(path: &Path, options: &LoadOptions<'_>) -> Result<Loaded, ConfigError> {
        load::load(path, options)
    }

    /// Checks `text`, which problems call `origin`; relative paths in it are relative to `base_dir`.
    pub fn parse(text: &str, origin: &str, base_dir: &Path) -> Result<Loaded, ConfigError> {
        load::parse(text, origin, base_dir, &LoadOptions::default())
    }
}

/// Parses a network in CIDR form or a single address by the rules of the configuration; an error is what is wrong
/// and what to do about it.
pub fn parse_network(text: &str) -> Result<IpNet, (String, String)> {
    value::network(text).map_err(|bad| (bad.message, bad.help))
}

/// `[shield]`: the XDP program and its limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Shield {
    /// Interfaces to attach to; may be empty (gateway only).
    pub interfaces: Vec<String>,
    /// How to attach.
    pub mode: AttachMode,
    /// Whether [`AttachMode::Auto`] may fall back to generic.
    pub allow_generic: bool,
    /// Count what would be dropped, drop nothing.
    pub observe: bool,
    /// What becomes of non-first fragments to a protected address, whose ports nobody can see.
    pub fragments: FragmentPolicy,
    /// Limits of every service that does not set its own.
    pub limits: Limits,
    /// Sources that are never dropped.
    pub allow: Vec<IpNet>,
    /// Sources that are always dropped.
    pub deny: Vec<IpNet>,
    /// ICMP packets of one source host to any protected address.
    pub icmp: Option<Rate>,
    /// What becomes of packets to a protected address whose headers are cut short or malformed.
    pub malformed: FragmentPolicy,
    /// Sources that cannot be real are dropped on external interfaces.
    pub drop_martians: bool,
    /// Most bans kept at once; preallocated.
    pub max_bans: NonZeroU32,
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

/// What becomes of a packet to a protected address that carries nothing to judge it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FragmentPolicy {
    /// It is dropped, with its own reason.
    #[default]
    Drop,
    /// It passes unjudged.
    Pass,
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
    /// Claim requirements that must all hold, else 403.
    pub claims: Vec<ClaimRule>,
    /// Where a browser without a good token is sent instead of a 401.
    pub login: Option<Login>,
}

/// One requirement on a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRule {
    /// Names from the outermost object inwards; at least one.
    pub path: Vec<String>,
    /// What the claim's value must satisfy; an absent claim satisfies nothing.
    pub test: ClaimTest,
}

/// What a claim's value must satisfy. Types never convert: the string `"1"` is not the number 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimTest {
    /// The claim is this value.
    Equals(ClaimValue),
    /// The claim is an array with this value in it, or the value itself.
    Contains(ClaimValue),
    /// The claim is one of these values.
    OneOf(Vec<ClaimValue>),
}

/// A value that a claim is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimValue {
    /// A string, compared byte for byte.
    Text(String),
    /// An integer.
    Integer(i64),
    /// A boolean.
    Bool(bool),
}

/// Where a browser is sent to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Absolute `https` URL, or a path on the same host.
    pub url: String,
    /// Query parameter that takes the place to return to; none is added if absent.
    pub return_parameter: Option<String>,
    /// Origin (`https://app.example`) put before the return path; the path alone if absent.
    pub return_origin: Option<String>,
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
    /// What a token must be like beyond signature, issuer and audience.
    pub checks: TokenChecks,
    /// What the upstream gets to see of it.
    pub forward: TokenForwarding,
}

/// What a token must be like beyond signature, issuer and audience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenChecks {
    /// Refuse tokens without `exp`.
    pub require_exp: bool,
    /// Longest time from `iat` to `exp`.
    pub max_lifetime: Option<Duration>,
    /// Accepted `typ` values, in any case and with or without `application/`; if empty, `JWT`, `at+jwt` and
    /// none at all.
    pub types: Vec<String>,
}

impl Default for TokenChecks {
    fn default() -> Self {
        Self {
            require_exp: true,
            max_lifetime: None,
            types: Vec::new(),
        }
    }
}

/// What the upstream gets to see of a verified token.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenForwarding {
    /// Take the token out of the forwarded request.
    pub remove_token: bool,
    /// Claims that become request headers.
    pub headers: Vec<ClaimHeader>,
}

/// One claim that becomes a request header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimHeader {
    /// Header name, lower case.
    pub header: String,
    /// Names from the outermost object inwards; at least one.
    pub path: Vec<String>,
    /// How the value is written.
    pub encoding: ClaimEncoding,
}

/// How a claim is written into a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClaimEncoding {
    /// Strings as they are, numbers and booleans in decimal and words, arrays of those with commas.
    #[default]
    Plain,
    /// The claim's JSON in base64url without padding.
    Base64Json,
}

/// Where a provider's key comes from. `Debug` never shows a secret.
#[derive(Clone, PartialEq, Eq)]
pub enum KeySource {
    /// HMAC secret, the file's bytes without a final newline.
    SecretFile(PathBuf),
    /// HMAC secret in an environment variable.
    SecretEnv(String),
    /// HMAC secret made at start (built-in quick start only; never in a file).
    Generated(Vec<u8>),
    /// PEM public key or certificate.
    PemFile(PathBuf),
    /// JWKS document.
    JwksFile(PathBuf),
    /// JWKS document at a URL.
    JwksUrl(RemoteKeys),
    /// The URL is an issuer; its OIDC discovery document names the JWKS.
    Oidc(RemoteKeys),
}

/// Keys fetched from a URL, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteKeys {
    /// `https` URL; `http` only for a loopback address.
    pub url: String,
    /// Certificates that vouch for the server, PEM; the system's if absent.
    pub ca_file: Option<PathBuf>,
    /// Time between fetches if the answer says nothing.
    pub refresh: Duration,
    /// Least time between scheduled fetches, whatever Cache-Control says.
    pub refresh_min: Duration,
    /// Most time between fetches, whatever Cache-Control says: how long a removed key may live on.
    pub refresh_max: Duration,
    /// Least time between two fetches for the sake of unknown key ids.
    pub cooldown: Duration,
    /// Limit for one whole fetch.
    pub timeout: Duration,
    /// How long the last good set is used while the endpoint is down.
    pub max_stale: Duration,
}

impl RemoteKeys {
    /// The defaults for this URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ca_file: None,
            refresh: Duration::from_mins(5),
            refresh_min: Duration::from_mins(1),
            refresh_max: Duration::from_mins(15),
            cooldown: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
            max_stale: Duration::from_hours(24),
        }
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SecretFile(path) => f.debug_tuple("SecretFile").field(path).finish(),
            Self::SecretEnv(name) => f.debug_tuple("SecretEnv").field(name).finish(),
            Self::Generated(_) => f.write_str("Generated(..)"),
            Self::PemFile(path) => f.debug_tuple("PemFile").field(path).finish(),
            Self::JwksFile(path) => f.debug_tuple("JwksFile").field(path).finish(),
            Self::JwksUrl(remote) => f.debug_tuple("JwksUrl").field(remote).finish(),
            Self::Oidc(remote) => f.debug_tuple("Oidc").field(remote).finish(),
        }
    }
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
    /// How long the kernel drops the client the first time.
    pub ban: Duration,
    /// The longest that repeats can make it.
    pub max_ban: Duration,
    /// Tell, ban nobody.
    pub observe: bool,
    /// This machine's own addresses are never banned.
    pub exempt_local: bool,
    /// Peers that are never banned (trusted proxies, monitors), beside every local address.
    pub exempt: Vec<IpNet>,
}
