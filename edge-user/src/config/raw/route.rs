//! `[[route]]` as written.

use std::time::Duration;

use serde_json::{Value, json};
use serde_spanned::Spanned;
use toml::de::DeValue;

use super::{AuthMode, RawClaim, RawLogin};
use crate::config::{
    Coding,
    problem::Findings,
    section::{Field, KeyPath, section},
    text::{Text, text},
    value::{FromToml, Item, choice, from_text, wrong_type},
};

section! {
    /// One route.
    RawRoute as "route" {
        name: String,
        hosts: Vec<Item<String>>,
        path: String,
        path_exact: String,
        path_template: String,
        path_regex: String,
        connect: Vec<Item<String>>,
        methods: Vec<Item<String>>,
        headers: Vec<Item<RawHeaderMatch>>,
        query: Vec<Item<RawQueryMatch>>,
        upstream: String,
        upstreams: Vec<Item<RawShare>>,
        hash: String,
        redirect: RawRedirect,
        respond: RawRespond,
        fan_out: Vec<Item<RawPart>>,
        auth: AuthMode,
        providers: Vec<Item<String>>,
        scopes: Vec<Item<String>>,
        claims: Vec<Item<RawClaim>>,
        login: RawLogin,
        timeout: Duration,
        request_timeout: Duration,
        idle_timeout: Duration,
        body_limit: u64,
        encoded_slashes: EncodedSlashes,
        rewrite: RawRewrite,
        request_headers: RawRequestFields,
        response_headers: RawResponseFields,
        cors: RawCors,
        compress: RawCompress,
        mirror: RawMirror,
    }

    RawShare as "route.upstreams" {
        name: String,
        weight: u64,
    }

    RawHeaderMatch as "route.headers" {
        name: String,
        value: String,
        regex: String,
        present: bool,
    }

    RawQueryMatch as "route.query" {
        name: String,
        value: String,
        regex: String,
        present: bool,
    }

    RawRedirect as "route.redirect" {
        status: u64,
        scheme: String,
        host: String,
        port: u64,
        path: Text,
        keep_query: bool,
    }

    RawRespond as "route.respond" {
        status: u64,
        body: String,
        content_type: String,
    }

    RawRewrite as "route.rewrite" {
        prefix: String,
        path: Text,
    }

    RawRequestFields as "route.request_headers" {
        set: Fields,
        add: Fields,
        remove: Vec<Item<String>>,
    }

    RawResponseFields as "route.response_headers" {
        set: Fields,
        add: Fields,
        remove: Vec<Item<String>>,
    }

    RawPart as "route.fan_out" {
        key: String,
        upstream: String,
        path: Text,
        required: bool,
    }

    RawMirror as "route.mirror" {
        upstream: String,
        percent: u64,
        body_bytes: u64,
    }

    RawCompress as "route.compress" {
        algorithms: Vec<Item<Coding>>,
        types: Vec<Item<String>>,
        min_bytes: u64,
    }

    RawCors as "route.cors" {
        origins: Vec<Item<String>>,
        methods: Vec<Item<String>>,
        headers: Vec<Item<String>>,
        expose: Vec<Item<String>>,
        credentials: bool,
        max_age: Duration,
    }
}

/// `gateway.paths.dot_segments`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum DotSegments {
    Refuse,
    Resolve,
}

/// `gateway.paths.duplicate_slashes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum DuplicateSlashes {
    Refuse,
    Merge,
}

/// `route.encoded_slashes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum EncodedSlashes {
    Refuse,
    Keep,
}

from_text! {
    Text, "a text", text;
    Coding, "a coding", |text| choice("coding", text, &[
        ("gzip", Coding::Gzip),
        ("br", Coding::Brotli),
        ("zstd", Coding::Zstd),
    ]);
    DotSegments, "a treatment", |text| choice("treatment of dot segments", text, &[
        ("refuse", DotSegments::Refuse),
        ("resolve", DotSegments::Resolve),
    ]);
    DuplicateSlashes, "a treatment", |text| choice("treatment of duplicate slashes", text, &[
        ("refuse", DuplicateSlashes::Refuse),
        ("merge", DuplicateSlashes::Merge),
    ]);
    EncodedSlashes, "a treatment", |text| choice("treatment of encoded slashes", text, &[
        ("refuse", EncodedSlashes::Refuse),
        ("keep", EncodedSlashes::Keep),
    ]);
}

/// A table from names to texts.
#[derive(Debug, Clone)]
pub(in crate::config) struct Fields(pub(in crate::config) Vec<(Field<String>, Field<Text>)>);

impl FromToml for Fields {
    const EXPECTED: &'static str = "a table such as { \"x-name\" = \"value\" }";

    fn schema() -> Value {
        json!({ "type": "object", "additionalProperties": { "type": "string" } })
    }

    fn from_toml(value: Spanned<DeValue<'_>>, path: &KeyPath<'_>, findings: &mut Findings) -> Option<Self> {
        let at = value.span();
        let table = match value.into_inner() {
            DeValue::Table(table) => table,
            other => {
                findings.push(wrong_type::<Self>(&other, path.place(at)));
                return None;
            }
        };
        let field = |(key, value): (Spanned<std::borrow::Cow<'_, str>>, Spanned<DeValue<'_>>)| {
            let name = key.get_ref().clone().into_owned();
            let path = KeyPath::Name(path, &name);
            let (key_at, value_at) = (path.place(key.span()), path.place(value.span()));
            let text = Text::from_toml(value, &path, findings)?;
            Some((
                Field {
                    value: name,
                    at: key_at,
                },
                Field {
                    value: text,
                    at: value_at,
                },
            ))
        };
        Some(Self(table.into_iter().filter_map(field).collect()))
    }
}
