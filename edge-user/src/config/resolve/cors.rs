//! `[route.cors]`: the Fetch standard's rules for what may be allowed together.

use super::{Checks, fields, items};
use crate::config::{
    Cors, CorsOrigin, CorsOrigins, RouteMatch, bounds,
    problem::Place,
    raw::{RawRoute, route::RawCors},
    section::{Field, Key, Section},
    value::Item,
};

/// Methods that need no leave of their own (Fetch, 2.2.1).
const SAFELISTED: [&str; 3] = ["GET", "HEAD", "POST"];

pub(super) fn cors(raw: &RawRoute, matches: Option<&RouteMatch>, checks: &mut Checks<'_>) -> Option<Cors> {
    let cors: &RawCors = raw.cors.value()?;
    let credentials = cors.credentials.clone().or(false);
    let origins = origins(cors, credentials, checks);
    let routes = matches.map_or(&[][..], |matches| &matches.methods);
    let methods = methods(cors, routes, checks);
    let headers = names(&cors.headers, checks);
    let any_header = headers.iter().any(|name| name == "*");
    let expose = names(&cors.expose, checks);
    for (key, list) in [(&cors.headers, &headers), (&cors.expose, &expose)] {
        if let Some(field) = key.field()
            && credentials
            && list.iter().any(|name| name == "*")
        {
            checks.error_help(
                &field.at,
                "`*` means nothing to browsers where credentials are allowed",
                "name the headers",
            );
        }
    }
    let max_age = cors
        .max_age
        .field()
        .map_or(bounds::DEFAULT_CORS_MAX_AGE, |field| {
            if field.value > bounds::MAX_CORS_MAX_AGE {
                checks.error(
                    &field.at,
                    "`max_age` must be at most 24 hours: no browser keeps it for longer",
                );
            }
            field.value
        });
    if let Some(at) = raw.cors.field().map(|field| &field.at)
        && routes.iter().any(|method| method == "OPTIONS")
    {
        checks.warn(
            at,
            "preflight requests are answered here, although the route lists OPTIONS",
            "other OPTIONS requests still go through",
        );
    }
    Some(Cors {
        origins: origins?,
        methods,
        headers: headers.into_iter().filter(|name| name != "*").collect(),
        any_header,
        expose,
        credentials,
        max_age,
    })
}

fn origins(raw: &RawCors, credentials: bool, checks: &mut Checks<'_>) -> Option<CorsOrigins> {
    let field @ Field { value: list, at } = raw.origins.required(raw.at(), checks.findings)?;
    checks.bounded(&raw.origins, bounds::MAX_CORS_ORIGINS);
    checks.not_empty(
        field,
        "no origin is allowed",
        "as in [\"https://app.example.org\"], or [\"*\"]",
    );
    let places: Vec<_> = list.iter().map(|item| item.at(at)).collect();
    checks.unique(
        "origin",
        list.iter()
            .zip(&places)
            .map(|(item, at)| (item.value.to_ascii_lowercase(), item.value.clone(), at)),
    );
    if let Some(place) = list.iter().position(|item| item.value == "*") {
        if credentials {
            checks.error_help(
                &places[place],
                "every origin and credentials together would hand every page the user's account",
                "name the origins, or leave out `credentials`",
            );
        }
        if list.len() > 1 {
            checks.error(
                &places[place],
                "`*` is every origin: the others mean nothing beside it",
            );
        }
        return Some(CorsOrigins::Any);
    }
    let listed = list
        .iter()
        .zip(&places)
        .filter_map(|(item, at)| origin(&item.value, at, checks));
    Some(CorsOrigins::Listed(listed.collect()))
}

/// An origin as browsers write it (RFC 6454, 6.2): in lower case, without the scheme's own port, without a path.
fn origin(text: &str, at: &Place, checks: &mut Checks<'_>) -> Option<CorsOrigin> {
    let help = "as in \"https://app.example.org\", \"http://localhost:3000\" or \"https://*.example.org\"";
    if text == "null" {
        checks.error_help(
            at,
            "every sandboxed page and file has the origin `null`: it must not be allowed",
            "name the origins",
        );
        return None;
    }
    let own_port = |scheme| match scheme {
        "http://" => Some("80"),
        "https://" => Some("443"),
        _ => None,
    };
    let read = || {
        let (scheme, rest) = text.split_at(text.find("://")? + 3);
        let own = own_port(scheme)?;
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (rest, None),
        };
        let is_port = |port: &str| {
            port != own
                && !port.starts_with('0')
                && port.len() <= 5
                && port.bytes().all(|byte| byte.is_ascii_digit())
        };
        let plain = host.strip_prefix("*.").unwrap_or(host);
        let is_host = plain.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        }) || plain.starts_with('[') && plain.ends_with(']') && plain == host;
        if !is_host || !port.is_none_or(is_port) {
            return None;
        }
        Some(if plain == host {
            CorsOrigin::Exact(text.to_owned())
        } else {
            CorsOrigin::Below {
                scheme: scheme.to_owned(),
                tail: rest[1..].to_owned(),
            }
        })
    };
    let read = read();
    if read.is_none() {
        checks.error_help(at, format!("`{text}` is not an origin as browsers send it"), help);
    }
    read
}

fn methods(raw: &RawCors, routes: &[String], checks: &mut Checks<'_>) -> Vec<String> {
    checks.bounded(&raw.methods, bounds::MAX_ROUTE_METHODS);
    let Some(Field { value: list, at }) = raw.methods.field() else {
        return if routes.is_empty() {
            SAFELISTED.map(str::to_owned).to_vec()
        } else {
            routes.to_vec()
        };
    };
    let names = |method: &str| routes.iter().any(|listed| listed == method);
    let is_taken = |method: &str| routes.is_empty() || names(method) || method == "HEAD" && names("GET");
    for item in list {
        let method = &item.value;
        if !fields::is_token(method) || method == "*" {
            checks.error_help(
                &item.at(at),
                format!("`{method}` is not a method"),
                "as in \"PUT\"",
            );
        } else if !is_taken(method) {
            checks.error(&item.at(at), format!("the route does not take `{method}`"));
        }
    }
    list.iter().map(|item| item.value.clone()).collect()
}

/// Names of fields in lower case, `*` among them.
fn names(key: &Key<Vec<Item<String>>>, checks: &mut Checks<'_>) -> Vec<String> {
    checks.bounded(key, bounds::MAX_FIELD_RULES);
    if let Some(Field { value: list, at }) = key.field() {
        for item in list {
            if item.value != "*" && http::HeaderName::from_bytes(item.value.as_bytes()).is_err() {
                checks.error_help(
                    &item.at(at),
                    "this is not the name of a header",
                    "as in \"x-request-id\"",
                );
            }
        }
    }
    items(key)
        .iter()
        .map(|item| item.value.to_ascii_lowercase())
        .collect()
}
