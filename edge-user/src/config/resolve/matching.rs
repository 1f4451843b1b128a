//! What a `[[route]]` asks of a request: hosts, path, methods, fields, query parameters.

use super::{Checks, fields, items, paths, tunnel};
use crate::config::{
    HostPattern, PathPattern, RouteMatch, ValueMatch, ValueTest, bounds, pattern,
    problem::Place,
    raw::route::{RawHeaderMatch, RawQueryMatch, RawRoute},
    section::{Field, Key, Section},
    value::Item,
};

/// Methods that are written often enough to be misspelt (RFC 9110, 9.3; RFC 5789).
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];

/// What the route matches; none if its path could not be read.
pub(super) fn matches(raw: &RawRoute, checks: &mut Checks<'_>) -> Option<RouteMatch> {
    let hosts = hosts(&raw.hosts, checks);
    let path = path(raw, checks);
    let methods = methods(&raw.methods, checks);
    checks.bounded(&raw.headers, bounds::MAX_CONDITIONS);
    checks.bounded(&raw.query, bounds::MAX_CONDITIONS);
    let headers: Vec<_> = items(&raw.headers)
        .iter()
        .map(|item| Condition::from(&item.value))
        .collect();
    let query: Vec<_> = items(&raw.query)
        .iter()
        .map(|item| Condition::from(&item.value))
        .collect();
    let once = |condition: &Condition<'_>| {
        let Field { value, at } = condition.name.field()?;
        Some((value.to_ascii_lowercase(), value.clone(), at.clone()))
    };
    for (what, list) in [("header", &headers), ("query parameter", &query)] {
        let names: Vec<_> = list.iter().filter_map(once).collect();
        checks.unique(
            what,
            names.iter().map(|(name, shown, at)| (name, shown.clone(), at)),
        );
    }
    let headers = headers.iter().filter_map(|condition| {
        let name = condition.name.required(condition.at, checks.findings)?;
        fields::matchable(name, checks);
        Some(ValueMatch {
            name: name.value.to_ascii_lowercase(),
            test: condition.test(checks)?,
        })
    });
    let headers = headers.collect();
    let query = query.iter().filter_map(|condition| {
        let Field { value, at } = condition.name.required(condition.at, checks.findings)?;
        if value.is_empty() || value.len() > bounds::MAX_CONDITION_BYTES {
            checks.error_help(at, "this is not the name of a parameter", "as in \"version\"");
        }
        Some(ValueMatch {
            name: value.clone(),
            test: condition.test(checks)?,
        })
    });
    let query = query.collect();
    Some(RouteMatch {
        hosts,
        path: path?,
        methods,
        headers,
        query,
    })
}

fn hosts(raw: &Key<Vec<Item<String>>>, checks: &mut Checks<'_>) -> Vec<HostPattern> {
    let Some(field @ Field { value: list, at }) = raw.field() else {
        return Vec::new();
    };
    checks.bounded(raw, bounds::MAX_ROUTE_HOSTS);
    checks.not_empty(
        field,
        "no host can ever match",
        "leave the key out for every host",
    );
    let places: Vec<_> = list.iter().map(|item| item.at(at)).collect();
    let named = list.iter().map(|item| item.value.to_ascii_lowercase());
    checks.unique(
        "host",
        named.zip(&places).map(|(host, at)| (host.clone(), host, at)),
    );
    list.iter()
        .zip(&places)
        .filter_map(|(item, at)| host(&item.value, at, checks))
        .collect()
}

pub(super) fn host(text: &str, at: &Place, checks: &mut Checks<'_>) -> Option<HostPattern> {
    let lower = text.to_ascii_lowercase();
    let (name, is_domain) = match lower.strip_prefix("*.") {
        Some(domain) => (domain, true),
        None => (lower.as_str(), false),
    };
    let help = "as in \"example.org\", \"*.example.org\", \"192.0.2.1\" or \"[2001:db8::1]\"";
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(is_plain);
    let v6 = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .and_then(|name| name.parse::<std::net::Ipv6Addr>().ok());
    if name == "*" {
        checks.error_help(at, "`*` is every host", "leave the key out");
    } else if name.ends_with('.') {
        checks.error_help(
            at,
            "a host ends without a dot",
            "requests for it match with the dot and without",
        );
    } else if v6.is_none() && name.contains(':') {
        checks.error_help(at, "a host has no port here", "routes match whatever the port is");
    } else if name.len() > bounds::MAX_HOST_BYTES
        || !(v6.is_some() && !is_domain || name.split('.').all(is_label))
    {
        checks.error_help(at, format!("`{text}` is not a host"), help);
    } else if is_domain {
        return Some(HostPattern::Below(name.to_owned()));
    } else {
        // The one spelling that requests are brought to as well (RFC 5952).
        let name = v6.map_or_else(|| name.to_owned(), |address| format!("[{address}]"));
        return Some(HostPattern::Exact(name));
    }
    None
}

/// Reports what is not one host.
pub(super) fn exact_host(text: &str, at: &Place, checks: &mut Checks<'_>) {
    if let Some(HostPattern::Below(_)) = host(text, at, checks) {
        checks.error_help(at, "this is a domain, not a host", "as in \"www.example.org\"");
    }
}

fn path(raw: &RawRoute, checks: &mut Checks<'_>) -> Option<PathPattern> {
    if let Some(field) = raw.connect.field() {
        return tunnel::authorities(raw, field, checks).map(PathPattern::Tunnel);
    }
    let kinds = [&raw.path, &raw.path_exact, &raw.path_template, &raw.path_regex];
    let given: Vec<_> = kinds.iter().filter_map(|kind| kind.field()).collect();
    if let [_, second, ..] = given.as_slice() {
        checks.error_help(
            &second.at,
            "a route has one path",
            "keep one of `path`, `path_exact`, `path_template` and `path_regex`",
        );
        return None;
    }
    let Some(Field { value, at }) = given.first() else {
        if kinds.iter().all(|kind| kind.is_absent()) && raw.connect.is_absent() {
            raw.path.required(raw.at(), checks.findings);
        }
        return None;
    };
    if value.len() > bounds::MAX_PATH_BYTES {
        checks.error(
            at,
            format!("a path is at most {} bytes long", bounds::MAX_PATH_BYTES),
        );
        return None;
    }
    let read = if raw.path.field().is_some() {
        paths::prefix(value).map(|()| PathPattern::Prefix(value.clone()))
    } else if raw.path_exact.field().is_some() {
        paths::exact(value).map(|()| PathPattern::Exact(value.clone()))
    } else if raw.path_template.field().is_some() {
        paths::template(value).map(PathPattern::Template)
    } else {
        paths::regex(value).map(|()| PathPattern::Regex(value.clone()))
    };
    read.map_err(|(message, help)| checks.error_help(at, message, help))
        .ok()
}

fn methods(raw: &Key<Vec<Item<String>>>, checks: &mut Checks<'_>) -> Vec<String> {
    let Some(field @ Field { value: list, at }) = raw.field() else {
        return Vec::new();
    };
    checks.bounded(raw, bounds::MAX_ROUTE_METHODS);
    checks.not_empty(
        field,
        "no method can ever match",
        "leave the key out for every method",
    );
    let places: Vec<_> = list.iter().map(|item| item.at(at)).collect();
    checks.unique(
        "method",
        list.iter()
            .zip(&places)
            .map(|(item, at)| (&item.value, item.value.clone(), at)),
    );
    for (item, at) in list.iter().zip(&places) {
        let method = item.value.as_str();
        let upper = method.to_ascii_uppercase();
        if upper == "CONNECT" {
            checks.error_help(
                at,
                "`CONNECT` never matches a path: it has none",
                "a route of its own, with `connect` and without `methods`, allows it",
            );
        } else if upper == "TRACE" {
            checks.error(at, "`TRACE` never matches: the gateway does not serve it");
        } else if !fields::is_token(method) || method.len() > bounds::MAX_METHOD_BYTES {
            checks.error_help(at, format!("`{method}` is not a method"), "as in \"GET\"");
        } else if upper != *method && METHODS.contains(&upper.as_str()) {
            checks.error_help(
                at,
                "methods are written as they are sent",
                format!("write `{upper}`"),
            );
        }
    }
    list.iter().map(|item| item.value.clone()).collect()
}

/// A condition of either kind.
struct Condition<'r> {
    at: &'r Place,
    name: &'r Key<String>,
    value: &'r Key<String>,
    regex: &'r Key<String>,
    present: &'r Key<bool>,
}

macro_rules! condition {
    ($($raw:ty),+) => {$(
        impl<'r> From<&'r $raw> for Condition<'r> {
            fn from(raw: &'r $raw) -> Self {
                Self {
                    at: raw.at(),
                    name: &raw.name,
                    value: &raw.value,
                    regex: &raw.regex,
                    present: &raw.present,
                }
            }
        }
    )+};
}
condition!(RawHeaderMatch, RawQueryMatch);

impl Condition<'_> {
    fn test(&self, checks: &mut Checks<'_>) -> Option<ValueTest> {
        let mut given = Vec::new();
        if let Some(Field { value, at }) = self.value.field() {
            given.push((at, ValueTest::Exact(value.clone())));
        }
        if let Some(Field { value, at }) = self.regex.field() {
            if let Err(error) = pattern::whole(value) {
                checks.error_help(
                    at,
                    format!("this regex cannot be used: {error}"),
                    paths::REGEX_HELP,
                );
            }
            given.push((at, ValueTest::Regex(value.clone())));
        }
        if let Some(Field { value, at }) = self.present.field() {
            given.push((at, ValueTest::Present(*value)));
        }
        for (at, test) in &given {
            if let ValueTest::Exact(text) | ValueTest::Regex(text) = test
                && (text.len() > bounds::MAX_CONDITION_BYTES || text.contains(char::is_control))
            {
                checks.error(
                    at,
                    format!(
                        "a value is at most {} bytes without control characters",
                        bounds::MAX_CONDITION_BYTES
                    ),
                );
            }
        }
        if let [_, (at, _), ..] = given.as_slice() {
            checks.error_help(
                at,
                "a condition is one thing",
                "keep one of `value`, `regex` and `present`",
            );
        }
        let is_absent = self.value.is_absent() && self.regex.is_absent() && self.present.is_absent();
        if is_absent {
            checks.error_help(
                self.at,
                "nothing is asked of the value",
                "add `value`, `regex` or `present`",
            );
        }
        given.pop().map(|(_, test)| test)
    }
}
