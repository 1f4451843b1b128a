//! `[admin]`, `[history]` and `[gateway.traces]` as written.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use serde_spanned::Spanned;
use toml::de::DeValue;

use crate::config::{
    problem::{Finding, Findings},
    section::{KeyPath, section},
    value::{FromToml, wrong_type},
};

section! {
    RawAdmin as "admin" {
        enabled: bool,
        socket: String,
        group: String,
        address: SocketAddr,
        token_file: String,
        tls: RawAdminTls,
        metrics_address: SocketAddr,
        health_address: SocketAddr,
    }

    RawAdminTls as "admin.tls" {
        certificate_file: String,
        key_file: String,
        client_ca_file: String,
    }

    RawHistory as "history" {
        path: String,
        keep: Duration,
        max_bytes: u64,
        every: Duration,
    }

    RawTraces as "gateway.traces" {
        endpoint: String,
        sample_percent: Percent,
        service_name: String,
    }
}

/// A share in millionths.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Percent(pub(in crate::config) u32);

impl FromToml for Percent {
    const EXPECTED: &'static str = "a number from 0 to 100";

    fn schema() -> Value {
        json!({ "type": "number", "minimum": 0, "maximum": 100 })
    }

    fn from_toml(value: Spanned<DeValue<'_>>, path: &KeyPath<'_>, findings: &mut Findings) -> Option<Self> {
        let number = match value.get_ref() {
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
                .ok()
                .map(|number| number as f64),
            DeValue::Float(float) => float.as_str().replace('_', "").parse().ok(),
            other => {
                findings.push(wrong_type::<Self>(other, path.place(value.span())));
                return None;
            }
        };
        let percent = number.filter(|number| (0.0..=100.0).contains(number));
        if percent.is_none() {
            findings.push(Finding::error(
                path.place(value.span()),
                "a share is from 0 to 100 percent",
            ));
        }
        // At most a million, and not negative.
        percent.map(|percent| Self(((percent * 10_000.0).round() as i64).unsigned_abs() as u32))
    }
}
