//! `[[upstream]]` as written.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use serde_spanned::Spanned;
use toml::de::DeValue;

use super::{
    ProxyVersion, UpstreamProtocol,
    problem::Findings,
    section::{KeyPath, section},
    value::{FromToml, Item, choice, from_text, wrong_type},
};

section! {
    /// One upstream.
    RawUpstream as "upstream" {
        name: String,
        endpoints: Vec<Item<EndpointSetting>>,
        connect_timeout: Duration,
        protocol: UpstreamProtocol,
        send_proxy: ProxyVersion,
        balance: BalanceName,
        hash: String,
        prefer_zone: String,
        slow_start: Duration,
        tls: RawUpstreamTls,
        dns: RawDns,
        pool: RawPool,
        health: RawHealth,
        ejection: EjectionSetting,
        circuit: RawCircuit,
        retry: RawRetry,
    }

    RawEndpoint as "upstream.endpoints" {
        address: String,
        weight: u64,
        zone: String,
    }

    RawUpstreamTls as "upstream.tls" {
        ca_file: String,
        server_name: String,
        certificate_file: String,
        key_file: String,
        insecure_accept_any_certificate: bool,
    }

    RawDns as "upstream.dns" {
        refresh_min: Duration,
        refresh_max: Duration,
        server: SocketAddr,
    }

    RawPool as "upstream.pool" {
        idle: u64,
        idle_timeout: Duration,
        max_age: Duration,
        connections: u64,
        waiting: u64,
        wait_timeout: Duration,
        streams: u64,
    }

    RawHealth as "upstream.health" {
        probe: ProbeName,
        path: String,
        host: String,
        status: Vec<Item<String>>,
        body: String,
        port: u64,
        interval: Duration,
        timeout: Duration,
        rise: u64,
        fall: u64,
    }

    RawEjection as "upstream.ejection" {
        consecutive: u64,
        failure_percent: u64,
        min_requests: u64,
        interval: Duration,
        time: Duration,
        max_time: Duration,
        max_percent: u64,
        count_500: bool,
    }

    RawCircuit as "upstream.circuit" {
        connections: u64,
        pending: u64,
        requests: u64,
        retries: u64,
    }

    RawRetry as "upstream.retry" {
        attempts: u64,
        budget_percent: u64,
        try_timeout: Duration,
        statuses: Vec<Item<u64>>,
        buffer_bytes: u64,
    }
}

/// An endpoint, with or without more than its address.
#[derive(Debug, Clone)]
pub(super) enum EndpointSetting {
    Address(String),
    Table(RawEndpoint),
}

impl FromToml for EndpointSetting {
    const EXPECTED: &'static str = "a string such as \"10.0.0.7:3000\", or a table with an address";

    fn schema() -> Value {
        json!({ "anyOf": [String::schema(), RawEndpoint::schema()] })
    }

    fn from_toml(value: Spanned<DeValue<'_>>, path: &KeyPath<'_>, findings: &mut Findings) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(text) => Some(Self::Address(text.to_string())),
            DeValue::Table(_) => RawEndpoint::from_toml(value, path, findings).map(Self::Table),
            other => {
                findings.push(wrong_type::<Self>(other, path.place(value.span())));
                None
            }
        }
    }
}

/// Passive ejection, or the word that switches it off.
#[derive(Debug, Clone)]
pub(super) enum EjectionSetting {
    Off,
    On(Box<RawEjection>),
}

impl FromToml for EjectionSetting {
    const EXPECTED: &'static str = "a table, or \"off\"";

    fn schema() -> Value {
        json!({ "anyOf": [{ "const": "off" }, RawEjection::schema()] })
    }

    fn from_toml(value: Spanned<DeValue<'_>>, path: &KeyPath<'_>, findings: &mut Findings) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(text) if text == "off" => Some(Self::Off),
            DeValue::Table(_) => RawEjection::from_toml(value, path, findings)
                .map(Box::new)
                .map(Self::On),
            other => {
                findings.push(wrong_type::<Self>(other, path.place(value.span())));
                None
            }
        }
    }
}

/// `upstream.balance`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BalanceName {
    RoundRobin,
    LeastRequest,
    PeakEwma,
    ConsistentHash,
}

/// `upstream.health.probe`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProbeName {
    Http,
    Tcp,
}

from_text! {
    UpstreamProtocol, "a protocol", |text| choice("protocol", text, &[
        ("http1", UpstreamProtocol::Http1),
        ("http2", UpstreamProtocol::Http2),
        ("auto", UpstreamProtocol::Auto),
    ]);
    ProxyVersion, "a version of the PROXY protocol", |text| choice("version", text, &[
        ("v1", ProxyVersion::V1),
        ("v2", ProxyVersion::V2),
    ]);
    BalanceName, "a way of balancing", |text| choice("way of balancing", text, &[
        ("round_robin", BalanceName::RoundRobin),
        ("least_request", BalanceName::LeastRequest),
        ("peak_ewma", BalanceName::PeakEwma),
        ("consistent_hash", BalanceName::ConsistentHash),
    ]);
    ProbeName, "a probe", |text| choice("probe", text, &[
        ("http", ProbeName::Http),
        ("tcp", ProbeName::Tcp),
    ]);
}
