//! What the operator asked for, fully checked.
//!
//! The types here are what the rest of the program sees: every name resolved, every unit typed, every default
//! filled in. How they are read from TOML, and how a mistake is reported, is in the submodules:
//! `source -> (toml) -> section/value -> raw -> resolve -> Config`, with every problem collected on the way.
//! Nothing here performs I/O beyond reading the configuration and its lists, looking at the other files it names and
//! looking up the environment variables it names. No message, and no `Debug` form, contains a secret.

mod action;
mod admin;
pub mod bounds;
pub mod certificate;
mod claim;
mod direct;
mod document;
mod error;
mod guard;
mod identity;
pub mod keyfile;
mod lifecycle;
mod limiting;
mod listener;
pub mod listfile;
mod load;
mod offending;
pub mod pattern;
mod places;
mod problem;
mod quickstart;
mod raw;
mod raw_upstream;
mod resolve;
mod routing;
mod schema;
mod section;
mod snippet;
mod source;
mod suggest;
#[cfg(test)]
mod tests;
mod text;
mod trusted;
mod upstream;
mod value;

use std::{
    net::IpAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use edge_common::abi::Reason;
use ipnet::IpNet;

use self::quickstart::DEMO_PREFIX;
#[cfg(test)]
pub(crate) use self::raw::sections;
pub(crate) use self::resolve::{is_interface_name, least_secret_bytes, read_token};
pub use self::{
    action::{
        Action, Coding, Compress, Cors, CorsOrigin, CorsOrigins, FanOut, FanOutPart, FieldRules, Mirror,
        Redirect, Respond, Rewrite, Split,
    },
    admin::{Admin, AdminTcp, AdminTls, Group, History, Traces},
    direct::{Affinity, BackendSpec, Direct, Forward, Nat, PortRange},
    document::{Document, MASK},
    error::{ConfigError, Report},
    guard::{CookieMode, Guard, Syn},
    identity::{
        AuthPolicy, AuthRule, ClaimEncoding, ClaimHeader, ClaimRule, ClaimTest, ClaimValue, KeySource, Login,
        Provider, RemoteKeys, TokenChecks, TokenForwarding, TokenSource,
    },
    lifecycle::Lifecycle,
    limiting::{LimitKey, RequestLimit, RequestRate},
    listener::{
        AccessFormat, AccessLog, CertificateFiles, ClientCertificates, GatewayLimits, Listener, ListenerTls,
        TlsVersion, UnknownName,
    },
    load::LoadOptions,
    offending::{BanScope, Offences, Weights},
    places::{Places, Subject},
    problem::{MAX_PROBLEMS, Problem, Severity},
    quickstart::{QUICKSTART, QUICKSTART_ISSUER, QUICKSTART_ORIGIN, Quickstart},
    routing::{HostPattern, PathPattern, PathRules, Route, RouteMatch, Segment, ValueMatch, ValueTest},
    schema::schema,
    source::MAX_FILE_BYTES,
    text::{Part, Text, Variable},
    upstream::{
        Balance, Circuit, ClientIdentity, Dns, Ejection, EndpointHost, EndpointSpec, HashKey, HealthCheck,
        PoolLimits, Probe, ProxyVersion, Retry, Upstream, UpstreamProtocol, UpstreamTls,
    },
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
    /// How paths are normalised before that.
    pub paths: PathRules,
    /// Who signs tokens.
    pub providers: Vec<Provider>,
    /// How many requests of whom.
    pub request_limits: Vec<RequestLimit>,
    /// Revoked tokens and subjects, one a line; watched.
    pub revocation_file: Option<PathBuf>,
    /// What refusals cost a client.
    pub offences: Offences,
    /// Gateway workers, one current-thread runtime each; the number of CPUs if absent.
    pub workers: Option<NonZeroU32>,
    /// How long connections may go on after a stop was asked for.
    pub shutdown_grace: Duration,
    /// How it follows its files, and how it goes.
    pub lifecycle: Lifecycle,
    /// What clients may make grow.
    pub limits: GatewayLimits,
    /// What is told about each request, and where.
    pub access_log: AccessLog,
    /// Where the running daemon is reached.
    pub admin: Admin,
    /// Where traces go.
    pub traces: Option<Traces>,
    /// What each route did.
    pub history: Option<History>,
    /// As it was written.
    pub document: Document,
}

/// A configuration that may be used, and what was noticed about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// Ready to use.
    pub config: Config,
    /// What somebody should look at, in the file's order.
    pub warnings: Vec<Problem>,
    /// Where things stand in it, for what shows later.
    pub places: Places,
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
    /// What is only counted, for every service.
    pub observe: Observe,
    /// What becomes of non-first fragments to a protected address, whose ports nobody can see.
    pub fragments: FragmentPolicy,
    /// Limits of every service that does not set its own.
    pub limits: Limits,
    /// Sources that are never dropped; in order, each once.
    pub allow: Vec<IpNet>,
    /// Sources that are always dropped; in order, each once.
    pub deny: Vec<IpNet>,
    /// Where more of [`Self::allow`] stands, one a line; its entries are in it.
    pub allow_file: Option<PathBuf>,
    /// Where more of [`Self::deny`] stands.
    pub deny_file: Option<PathBuf>,
    /// ICMP packets of one source host to any protected address.
    pub icmp: Option<Rate>,
    /// What becomes of packets to a protected address whose headers are cut short or malformed.
    pub malformed: FragmentPolicy,
    /// Sources that cannot be real are dropped on external interfaces.
    pub drop_martians: bool,
    /// Most bans kept at once; preallocated.
    pub max_bans: NonZeroU32,
    /// A source that has been idle for so long has no exact state any more.
    pub earned_idle: Duration,
    /// Whether settings of the kernel that SYN cookies need are set, and put back when the shield goes.
    pub set_sysctls: bool,
    /// Bans for sources that stay over their limits; none if absent.
    pub escalation: Option<Escalation>,
}

/// `[shield.escalation]`: when dropping what is over a limit becomes dropping everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Escalation {
    /// How long a source has to be over its limit.
    pub after: Duration,
    /// How long it is banned the first time.
    pub ban: Duration,
    /// The longest that repeats can make it; at least `ban`.
    pub max_ban: Duration,
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

/// What is counted and sampled as if it were dropped, and passes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Observe {
    /// What is to be dropped is dropped.
    #[default]
    Nothing,
    /// Nothing is dropped.
    Everything,
    /// Nothing is dropped for these reasons, each one that drops; at least one.
    Rules(Vec<Reason>),
}

impl Observe {
    /// Whether packets that `reason` drops pass.
    pub fn observes(&self, reason: Reason) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => reason.is_observable(),
            Self::Rules(reasons) => reasons.contains(&reason),
        }
    }
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
    /// Nothing of this service's is dropped, only counted, whatever [`Shield::observe`] says.
    pub observe: bool,
    /// What it asks of sources that have not proved themselves.
    pub guard: Guard,
    /// Its backends, if what is admitted goes to those and not to this machine's stack.
    pub direct: Option<Direct>,
}

/// Transport protocol of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}
