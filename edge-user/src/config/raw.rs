//! The file as written: one struct a table, one field a key, nothing resolved.
//!
//! The field names are the keys; a test holds the reference in `docs/configuration.md` to them.

pub(super) mod admin;
pub(super) mod limit;
pub(super) mod route;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use edge_common::abi::Reason;
use ipnet::IpNet;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use serde_spanned::Spanned;
use toml::de::DeValue;

use super::{
    AccessFormat, Affinity, AttachMode, BanScope, ClaimEncoding, ClaimValue, CookieMode, Forward,
    FragmentPolicy, PortRange, Protocol, TlsVersion, UnknownName, bounds,
    claim::ClaimPath,
    problem::{Finding, Findings},
    raw_upstream::{RawHealth, RawUpstream},
    section::{KeyPath, section},
    value::{BadText, FromToml, Item, choice, from_text},
};

pub(super) use admin::{RawAdmin, RawAdminTls, RawHistory, RawTraces};
pub(super) use route::{DotSegments, DuplicateSlashes, RawRoute};

section! {
    /// The whole file.
    RawConfig as "" {
        shield: RawShield,
        service: Vec<Item<RawService>>,
        listener: Vec<Item<RawListener>>,
        upstream: Vec<Item<RawUpstream>>,
        route: Vec<Item<RawRoute>>,
        provider: Vec<Item<RawProvider>>,
        limit: Vec<Item<limit::RawLimit>>,
        offences: RawOffences,
        gateway: RawGateway,
        admin: RawAdmin,
        history: RawHistory,
    }

    RawShield as "shield" {
        interfaces: Vec<Item<String>>,
        mode: AttachMode,
        allow_generic: bool,
        observe: ObserveSetting,
        fragments: FragmentPolicy,
        malformed: FragmentPolicy,
        drop_martians: bool,
        icmp: RateSetting,
        allow: Vec<Item<IpNet>>,
        deny: Vec<Item<IpNet>>,
        allow_file: String,
        deny_file: String,
        max_bans: u64,
        earned_idle: Duration,
        set_sysctls: bool,
        limits: RawLimits,
        escalation: RawEscalation,
    }

    RawEscalation as "shield.escalation" {
        after: Duration,
        ban: Duration,
        max_ban: Duration,
    }

    RawLimits as "shield.limits" {
        source_packets: RateSetting,
        source_syns: RateSetting,
        source_bytes: RateSetting,
        network_packets: RateSetting,
        network_syns: RateSetting,
        network_bytes: RateSetting,
    }

    RawRate as "rate" {
        per_second: u64,
        burst: u64,
    }

    RawService as "service" {
        name: String,
        address: IpAddr,
        protocol: Protocol,
        port: u64,
        limits: RawLimits,
        observe: bool,
        syn: RawSyn,
        new_sources: RateSetting,
        kind: ServiceKind,
        forward: Forward,
        nat_source: IpAddr,
        nat_ports: PortRange,
        affinity: Affinity,
        table_size: u64,
        backend: Vec<Item<RawBackend>>,
        health: RawHealth,
    }

    RawBackend as "service.backend" {
        address: IpAddr,
        port: u64,
        weight: u64,
    }

    RawSyn as "service.syn" {
        budget: RateSetting,
        cookies: CookieMode,
        hold: Duration,
        window_scale: u64,
    }

    RawListener as "listener" {
        name: String,
        address: SocketAddr,
        dual_stack: bool,
        proxy_protocol: Vec<Item<IpNet>>,
        trusted_proxies: Vec<Item<IpNet>>,
        tls: RawTls,
    }

    RawTls as "listener.tls" {
        certificates: Vec<Item<RawCertificate>>,
        unknown_name: UnknownName,
        minimum: TlsVersion,
        http2: bool,
        handshake_timeout: Duration,
        client_certificates: ClientCertificateMode,
        client_ca_file: String,
        subject_header: String,
        fingerprint_header: String,
    }

    RawCertificate as "listener.tls.certificates" {
        certificate_file: String,
        key_file: String,
        names: Vec<Item<String>>,
    }

    RawClaim as "route.claims" {
        claim: ClaimPath,
        equals: ClaimValue,
        contains: ClaimValue,
        one_of: Vec<Item<ClaimValue>>,
    }

    RawLogin as "route.login" {
        url: String,
        return_parameter: String,
        return_origin: String,
    }

    RawProvider as "provider" {
        name: String,
        algorithms: Vec<Item<Algorithm>>,
        secret_file: String,
        secret_env: String,
        pem_file: String,
        jwks_file: String,
        jwks_url: String,
        oidc_issuer: String,
        key: String,
        fetch: RawFetch,
        issuer: String,
        audiences: Vec<Item<String>>,
        types: Vec<Item<String>>,
        leeway: Duration,
        require_exp: bool,
        max_lifetime: Duration,
        sources: Vec<Item<String>>,
        remove_token: bool,
        claim_headers: Vec<Item<RawClaimHeader>>,
    }

    RawFetch as "provider.fetch" {
        ca_file: String,
        refresh: Duration,
        refresh_min: Duration,
        refresh_max: Duration,
        cooldown: Duration,
        timeout: Duration,
        max_stale: Duration,
    }

    RawClaimHeader as "provider.claim_headers" {
        header: String,
        claim: ClaimPath,
        encoding: ClaimEncoding,
    }

    RawOffences as "offences" {
        threshold: u64,
        half_life: Duration,
        ban: Duration,
        max_ban: Duration,
        scope: BanScope,
        shared: Vec<Item<IpNet>>,
        shared_scope: BanScope,
        slow_per_second: u64,
        observe: bool,
        exempt: Vec<Item<IpNet>>,
        exempt_local: bool,
        max_bans_per_minute: u64,
        weights: RawWeights,
        probes: Vec<Item<String>>,
    }

    RawWeights as "offences.weights" {
        bad_token: Weight,
        forged_token: Weight,
        algorithm_attack: Weight,
        unknown_key: Weight,
        missing_token: Weight,
        forbidden: Weight,
        no_route: Weight,
        unauthorized: Weight,
        denied: Weight,
        not_found: Weight,
        probe: Weight,
        rate_limited: Weight,
        malformed: Weight,
        smuggling: Weight,
        slow_client: Weight,
        oversized: Weight,
        too_many_connections: Weight,
        tls_garbage: Weight,
        tls_refused: Weight,
        http2_flood: Weight,
    }

    RawGateway as "gateway" {
        workers: u64,
        shutdown_grace: Duration,
        drain_delay: Duration,
        upgrade_timeout: Duration,
        watch: bool,
        sandbox: bool,
        revocation_file: String,
        limits: RawGatewayLimits,
        access_log: RawAccessLog,
        paths: RawPaths,
        traces: RawTraces,
    }

    RawAccessLog as "gateway.access_log" {
        enabled: bool,
        file: String,
        format: AccessFormat,
    }

    RawPaths as "gateway.paths" {
        dot_segments: DotSegments,
        duplicate_slashes: DuplicateSlashes,
    }

    RawGatewayLimits as "gateway.limits" {
        header_count: u64,
        header_bytes: u64,
        target_bytes: u64,
        connections: u64,
        connections_per_address: u64,
        streams: u64,
        header_timeout: Duration,
        idle_timeout: Duration,
        stall_timeout: Duration,
        min_body_rate: u64,
        min_read_rate: u64,
        tunnel_idle_timeout: Duration,
        proxy_header_timeout: Duration,
    }
}

/// `listener.tls.client_certificates`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientCertificateMode {
    None,
    Optional,
    Required,
}

/// `route.auth`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AuthMode {
    None,
    Optional,
    Required,
}

/// A rate, or the word that switches an inherited one off.
#[derive(Debug, Clone)]
pub(super) enum RateSetting {
    Off,
    Limit(RawRate),
}

impl FromToml for RateSetting {
    const EXPECTED: &'static str = "a rate such as { per_second = 100, burst = 200 }, or \"off\"";

    fn schema() -> Value {
        json!({ "anyOf": [{ "const": "off" }, RawRate::schema()] })
    }

    fn from_toml(value: Spanned<DeValue<'_>>, path: &KeyPath<'_>, findings: &mut Findings) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(text) if text == "off" => Some(Self::Off),
            DeValue::Table(_) => RawRate::from_toml(value, path, findings).map(Self::Limit),
            other => {
                findings.push(super::value::wrong_type::<Self>(other, path.place(value.span())));
                None
            }
        }
    }
}

/// All or nothing, or single rules.
#[derive(Debug, Clone)]
pub(super) enum ObserveSetting {
    All(bool),
    Rules(Vec<Item<Reason>>),
}

impl FromToml for ObserveSetting {
    const EXPECTED: &'static str = "true, false or a list of reasons such as [\"source_packets\"]";

    fn schema() -> Value {
        json!({ "anyOf": [bool::schema(), Vec::<Item<Reason>>::schema()] })
    }

    fn from_toml(value: Spanned<DeValue<'_>>, path: &KeyPath<'_>, findings: &mut Findings) -> Option<Self> {
        match value.get_ref() {
            DeValue::Boolean(all) => Some(Self::All(*all)),
            DeValue::Array(_) => FromToml::from_toml(value, path, findings).map(Self::Rules),
            other => {
                findings.push(super::value::wrong_type::<Self>(other, path.place(value.span())));
                None
            }
        }
    }
}

/// `service.kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServiceKind {
    Local,
    Direct,
}

/// What an offence weighs, in thousandths of a point.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weight(pub(super) u32);

impl FromToml for Weight {
    const EXPECTED: &'static str = "a number of points";

    fn schema() -> Value {
        json!({ "type": "number", "minimum": 0, "maximum": bounds::MAX_OFFENCE_WEIGHT })
    }

    fn from_toml(value: Spanned<DeValue<'_>>, path: &KeyPath<'_>, findings: &mut Findings) -> Option<Self> {
        let number = match value.get_ref() {
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
                .ok()
                .map(|number| number as f64),
            DeValue::Float(float) => float.as_str().replace('_', "").parse().ok(),
            other => {
                findings.push(super::value::wrong_type::<Self>(other, path.place(value.span())));
                return None;
            }
        };
        let weight = number.filter(|number| (0.0..=f64::from(bounds::MAX_OFFENCE_WEIGHT)).contains(number));
        if weight.is_none() {
            let message = format!("a weight is 0 to {} points", bounds::MAX_OFFENCE_WEIGHT);
            findings.push(Finding::error(path.place(value.span()), message));
        }
        // At most a million, and not negative.
        weight.map(|points| Self(((points * 1000.0).round() as i64).unsigned_abs() as u32))
    }
}

/// A reason for which packets are dropped.
fn drop_reason(text: &str) -> Result<Reason, BadText> {
    let (drops, passes): (Vec<Reason>, Vec<Reason>) =
        Reason::ALL.iter().partition(|reason| reason.is_observable());
    if passes.iter().any(|reason| reason.name() == text) {
        let message = format!("`{text}` drops nothing: there is nothing to observe");
        return Err(BadText::new(message, "a reason for which packets are dropped"));
    }
    let drops: Vec<_> = drops.into_iter().map(|reason| (reason.name(), reason)).collect();
    choice("reason", text, &drops)
}

const ALGORITHMS: [(&str, Algorithm); 12] = [
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

from_text! {
    AttachMode, "an attach mode", |text| choice("attach mode", text, &[
        ("auto", AttachMode::Auto),
        ("native", AttachMode::Native),
        ("generic", AttachMode::Generic),
    ]);
    FragmentPolicy, "a fragment policy", |text| choice("fragment policy", text, &[
        ("drop", FragmentPolicy::Drop),
        ("pass", FragmentPolicy::Pass),
    ]);
    BanScope, "what a ban does", |text| choice("scope", text, &[
        ("everything", BanScope::Everything),
        ("new_connections", BanScope::NewConnections),
        ("slow", BanScope::Slow),
    ]);
    Protocol, "a protocol", |text| choice("protocol", text, &[
        ("tcp", Protocol::Tcp),
        ("udp", Protocol::Udp),
    ]);
    ServiceKind, "a kind of service", |text| choice("kind of service", text, &[
        ("local", ServiceKind::Local),
        ("direct", ServiceKind::Direct),
    ]);
    Forward, "a way of forwarding", |text| choice("way of forwarding", text, &[
        ("dsr-l2", Forward::DsrL2),
        ("ipip", Forward::Ipip),
        ("nat", Forward::Nat),
    ]);
    PortRange, "a range of ports", |text| PortRange::parse(text).ok_or_else(|| {
        BadText::new(
            format!("`{text}` is not a range of ports"),
            "the first and the last, as in \"61000-65535\"",
        )
    });
    Affinity, "what stays with a backend", |text| choice("affinity", text, &[
        ("flow", Affinity::Flow),
        ("source", Affinity::Source),
    ]);
    CookieMode, "when to answer with cookies", |text| choice("cookie mode", text, &[
        ("off", CookieMode::Off),
        ("auto", CookieMode::Auto),
        ("always", CookieMode::Always),
    ]);
    AuthMode, "an authentication mode", |text| choice("authentication mode", text, &[
        ("none", AuthMode::None),
        ("optional", AuthMode::Optional),
        ("required", AuthMode::Required),
    ]);
    AccessFormat, "\"json\" or \"clf\"", |text| choice("format", text, &[
        ("json", AccessFormat::Json),
        ("clf", AccessFormat::Clf),
    ]);
    UnknownName, "\"default\" or \"refuse\"", |text| choice("treatment of unknown names", text, &[
        ("default", UnknownName::Default),
        ("refuse", UnknownName::Refuse),
    ]);
    TlsVersion, "a TLS version", |text| choice("TLS version", text, &[
        ("1.2", TlsVersion::Tls12),
        ("1.3", TlsVersion::Tls13),
    ]);
    ClientCertificateMode, "\"none\", \"optional\" or \"required\"", |text| choice("mode", text, &[
        ("none", ClientCertificateMode::None),
        ("optional", ClientCertificateMode::Optional),
        ("required", ClientCertificateMode::Required),
    ]);
    ClaimEncoding, "an encoding", |text| choice("encoding", text, &[
        ("plain", ClaimEncoding::Plain),
        ("base64_json", ClaimEncoding::Base64Json),
    ]);
    Reason, "a reason for which packets are dropped", drop_reason;
    Algorithm, "a signature algorithm", |text| choice("algorithm", text, &ALGORITHMS);
}

/// Every section of the file with its keys.
#[cfg(test)]
pub(crate) fn sections() -> Vec<(&'static str, &'static [&'static str])> {
    [
        SECTIONS,
        admin::SECTIONS,
        limit::SECTIONS,
        route::SECTIONS,
        super::raw_upstream::SECTIONS,
    ]
    .concat()
}
