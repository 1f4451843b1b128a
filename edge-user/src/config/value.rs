//! TOML values into Rust values: one implementation a type, each mistake reported with its place.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use serde_json::{Value, json};
use serde_spanned::Spanned;
use toml::de::DeValue;

use super::{
    problem::{Finding, Findings, Place},
    section::KeyPath,
    suggest,
};

/// A type that one TOML value can become.
pub(super) trait FromToml: Sized {
    /// What it wants, with its article.
    const EXPECTED: &'static str;

    /// The name of the table, for sections.
    const TABLE: Option<&'static str> = None;

    /// What may stand there, as a JSON Schema (draft 2020-12), for editors.
    fn schema() -> Value;

    /// Converts, or reports why not.
    fn from_toml(value: Spanned<DeValue<'_>>, path: &KeyPath<'_>, findings: &mut Findings) -> Option<Self>;
}

/// "expected …, found …", never the value itself.
pub(super) fn wrong_type<T: FromToml>(found: &DeValue<'_>, at: Place) -> Finding {
    let found = match found {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    Finding::error(at, format!("expected {}, found {found}", T::EXPECTED))
}

impl FromToml for bool {
    const EXPECTED: &'static str = "true or false";

    fn schema() -> Value {
        json!({ "type": "boolean" })
    }

    fn from_toml(value: Spanned<DeValue<'_>>, path: &KeyPath<'_>, findings: &mut Findings) -> Option<Self> {
        let at = value.span();
        match value.into_inner() {
            DeValue::Boolean(value) => Some(value),
            other => {
                findings.push(wrong_type::<Self>(&other, path.place(at)));
                None
            }
        }
    }
}

impl FromToml for u64 {
    const EXPECTED: &'static str = "a whole number";

    fn schema() -> Value {
        json!({ "type": "integer", "minimum": 0 })
    }

    fn from_toml(value: Spanned<DeValue<'_>>, path: &KeyPath<'_>, findings: &mut Findings) -> Option<Self> {
        let at = value.span();
        let finding = match value.into_inner() {
            DeValue::Integer(integer) => match Self::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(value) => return Some(value),
                Err(_) if integer.as_str().starts_with('-') => {
                    let at = path.place(at);
                    let message = format!("{} must not be negative", at.subject());
                    Finding::error(at, message)
                }
                Err(_) => Finding::error(path.place(at), "the number is too large"),
            },
            other => wrong_type::<Self>(&other, path.place(at)),
        };
        findings.push(finding);
        None
    }
}

impl FromToml for String {
    const EXPECTED: &'static str = "a string";

    fn schema() -> Value {
        json!({ "type": "string" })
    }

    fn from_toml(value: Spanned<DeValue<'_>>, path: &KeyPath<'_>, findings: &mut Findings) -> Option<Self> {
        text::<Self>(value, path, findings)
    }
}

fn text<T: FromToml>(
    value: Spanned<DeValue<'_>>,
    path: &KeyPath<'_>,
    findings: &mut Findings,
) -> Option<String> {
    let at = value.span();
    match value.into_inner() {
        DeValue::String(text) => Some(text.into_owned()),
        other => {
            findings.push(wrong_type::<T>(&other, path.place(at)));
            None
        }
    }
}

/// One element of a list.
#[derive(Debug, Clone)]
pub(super) struct Item<T> {
    pub(super) value: T,
    span: (usize, usize),
    index: usize,
}

impl<T> Item<T> {
    /// Its place in the list that stands at `list`.
    pub(super) fn at(&self, list: &Place) -> Place {
        Place {
            span: self.span.0..self.span.1,
            key: format!("{}[{}]", list.key, self.index),
        }
    }
}

impl<T: FromToml> FromToml for Vec<Item<T>> {
    const EXPECTED: &'static str = if T::TABLE.is_some() {
        "a list of tables"
    } else {
        "a list"
    };

    fn schema() -> Value {
        json!({ "type": "array", "items": T::schema() })
    }

    fn from_toml(value: Spanned<DeValue<'_>>, path: &KeyPath<'_>, findings: &mut Findings) -> Option<Self> {
        let at = value.span();
        match value.into_inner() {
            DeValue::Array(array) => {
                // Elements that fail are left out: the error already stops the configuration.
                let read = |(index, value): (usize, Spanned<DeValue<'_>>)| {
                    let span = value.span();
                    T::from_toml(value, &KeyPath::Index(path, index), findings).map(|value| Item {
                        value,
                        span: (span.start, span.end),
                        index,
                    })
                };
                Some(array.into_iter().enumerate().filter_map(read).collect())
            }
            other => {
                let finding = wrong_type::<Self>(&other, path.place(at));
                findings.push(match T::TABLE {
                    Some(table) => finding.help(format!("write `[[{table}]]`, once for each")),
                    None => finding,
                });
                None
            }
        }
    }
}

/// Implements [`FromToml`] for types written as a string, by a function `&str -> Result<T, BadText>`.
macro_rules! from_text {
    ($($type:ty, $expected:literal, $parse:expr;)+) => {$(
        impl FromToml for $type {
            const EXPECTED: &'static str = $expected;

            fn schema() -> serde_json::Value {
                $crate::config::value::text_schema::<$type>($expected, $parse)
            }

            fn from_toml(
                value: Spanned<DeValue<'_>>,
                path: &KeyPath<'_>,
                findings: &mut Findings,
            ) -> Option<Self> {
                $crate::config::value::parsed(value, path, findings, $parse)
            }
        }
    )+};
}
pub(super) use from_text;

/// The words that `parse` knows, or any string.
pub(super) fn text_schema<T>(expected: &str, parse: fn(&str) -> Result<T, BadText>) -> Value {
    // No word is empty: the refusal lists them.
    match parse("") {
        Err(bad) if !bad.choices.is_empty() => json!({ "enum": bad.choices }),
        Ok(_) | Err(_) => json!({ "type": "string", "description": expected }),
    }
}

/// The string, parsed by `parse`.
pub(super) fn parsed<T: FromToml>(
    value: Spanned<DeValue<'_>>,
    path: &KeyPath<'_>,
    findings: &mut Findings,
    parse: fn(&str) -> Result<T, BadText>,
) -> Option<T> {
    let span = value.span();
    let text = text::<T>(value, path, findings)?;
    parse(&text)
        .map_err(|bad| findings.push(Finding::error(path.place(span), bad.message).help(bad.help)))
        .ok()
}

/// Why a string is not what it should be.
pub(super) struct BadText {
    pub(super) message: String,
    pub(super) help: String,
    /// Every word that would do, if there are only so many.
    pub(super) choices: Vec<&'static str>,
}

impl BadText {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: help.into(),
            choices: Vec::new(),
        }
    }
}

from_text! {
    Duration, "a duration such as \"30s\"", |text| {
        humantime::parse_duration(text).map_err(|_| BadText::new(
            format!("`{text}` is not a duration"),
            "a number with its unit, as in \"250ms\", \"30s\", \"10m\", \"1h 30m\"",
        ))
    };
    SocketAddr, "an address and port such as \"127.0.0.1:8080\"", |text| {
        text.parse().map_err(|_| BadText::new(
            format!("`{text}` is not an IP address with a port"),
            "as in \"127.0.0.1:8080\" or \"[::1]:8080\"; names are not resolved here",
        ))
    };
    IpAddr, "an IP address", |text| {
        text.parse().map_err(|_| BadText::new(
            format!("`{text}` is not an IP address"),
            "as in \"192.0.2.1\" or \"2001:db8::1\"",
        ))
    };
    IpNet, "a network such as \"192.0.2.0/24\"", network;
}

/// A duration as it can be written: whole days as such, since nobody reckons in months of 30.44 days.
pub(super) fn shown(duration: Duration) -> String {
    const DAY: u64 = 24 * 3600;
    match duration.as_secs() {
        seconds if duration.subsec_nanos() == 0 && seconds > DAY && seconds % DAY == 0 => {
            format!("{}days", seconds / DAY)
        }
        _ => humantime::format_duration(duration).to_string(),
    }
}

/// A network in CIDR form, or a single address.
///
/// Bits beyond the prefix are refused: `10.0.0.1/8` is as likely to mean one host as sixteen million. So are
/// IPv4-mapped IPv6 networks, since the kernel's tables keep IPv4 in that form and would match real IPv4 hosts.
pub(super) fn network(text: &str) -> Result<IpNet, BadText> {
    let help = "as in \"192.0.2.0/24\", \"2001:db8::/48\" or a single address";
    let net = if text.contains('/') {
        text.parse().ok()
    } else {
        text.parse::<IpAddr>().ok().map(IpNet::from)
    };
    let net = net.ok_or_else(|| BadText::new(format!("`{text}` is not a network in CIDR form"), help))?;
    if net.trunc() != net {
        let (network, host) = (net.trunc(), IpNet::from(net.addr()));
        return Err(BadText::new(
            format!("`{text}` has bits set beyond its prefix"),
            format!("the network is \"{network}\", the single host \"{host}\""),
        ));
    }
    match net {
        IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some() => Err(BadText::new(
            format!("`{text}` is an IPv4 address in IPv6 clothes"),
            "write it as IPv4",
        )),
        IpNet::V4(_) | IpNet::V6(_) => Ok(net),
    }
}

/// Finds `word` in a table of spellings; the error lists them and suggests the nearest.
pub(super) fn choice<T: Copy>(what: &str, word: &str, spellings: &[(&'static str, T)]) -> Result<T, BadText> {
    if let Some((_, value)) = spellings.iter().find(|(spelling, _)| *spelling == word) {
        return Ok(*value);
    }
    let known = spellings.iter().map(|(spelling, _)| *spelling);
    let message = match suggest::nearest(word, known.clone()) {
        Some(near) => format!("unknown {what} `{word}`; did you mean `{near}`?"),
        None => format!("unknown {what} `{word}`"),
    };
    let choices: Vec<_> = known.collect();
    let quoted: Vec<_> = choices.iter().map(|spelling| format!("\"{spelling}\"")).collect();
    Err(BadText {
        choices,
        ..BadText::new(message, format!("one of {}", quoted.join(", ")))
    })
}
