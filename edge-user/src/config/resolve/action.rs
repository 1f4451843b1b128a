//! What becomes of a request: forwarded, redirected, answered; and under which path it is forwarded.

use super::{Checks, beside, matching, paths, routes::Targets, split};
use crate::config::{
    Action, Part, PathPattern, Redirect, Respond, Rewrite, RouteMatch, Segment, Text, Variable, bounds,
    pattern,
    raw::{
        RawRoute,
        route::{RawRedirect, RawRespond, RawRewrite},
    },
    section::{Field, Section},
};

/// The one thing that the route does.
pub(super) fn action(
    raw: &RawRoute,
    matches: Option<&RouteMatch>,
    targets: &mut Targets<'_, '_>,
    checks: &mut Checks<'_>,
) -> Option<Action> {
    let upstreams = raw.upstreams.field().map(|field| &field.at);
    let upstream = raw.upstream.field().map(|field| &field.at);
    let redirect = raw.redirect.field().map(|field| &field.at);
    let respond = raw.respond.field().map(|field| &field.at);
    let fan_out = raw.fan_out.field().map(|field| &field.at);
    let given: Vec<_> = [upstream, upstreams, redirect, respond, fan_out]
        .into_iter()
        .flatten()
        .collect();
    if let [_, second, ..] = given.as_slice() {
        checks.error_help(
            second,
            "a route does one thing",
            "keep one of `upstream`, `upstreams`, `redirect`, `respond` and `fan_out`",
        );
    }
    let action = match (raw.redirect.field(), raw.respond.field()) {
        (Some(field), _) => redirected(&field.value, matches, checks).map(Action::Redirect),
        (None, Some(field)) => respond_with(&field.value, checks).map(Action::Respond),
        (None, None) if !raw.redirect.is_absent() || !raw.respond.is_absent() => None,
        (None, None) if !raw.fan_out.is_absent() => {
            beside::fan_out(raw, matches, targets, checks).map(Action::FanOut)
        }
        (None, None) if !raw.upstreams.is_absent() => split::split(raw, targets, checks).map(Action::Split),
        (None, None) => forwarded(raw, targets, checks).map(Action::Upstream),
    };
    if let (Some(field), true) = (raw.hash.field(), raw.upstreams.is_absent()) {
        checks.error_help(
            &field.at,
            "`hash` has no meaning here: it decides between several upstreams",
            "write `upstreams`, or remove it",
        );
    }
    if upstream.or(upstreams).is_none() {
        let asks = fan_out.is_some();
        for at in [
            raw.rewrite.field().map(|field| &field.at),
            raw.request_headers
                .field()
                .map(|field| &field.at)
                .filter(|_| !asks),
            raw.timeout.field().map(|field| &field.at).filter(|_| !asks),
            raw.idle_timeout.field().map(|field| &field.at),
            raw.mirror.field().map(|field| &field.at),
        ]
        .into_iter()
        .flatten()
        {
            if !given.is_empty() {
                checks.error(
                    at,
                    format!("{} has no meaning in a route that forwards nothing", at.subject()),
                );
            }
        }
    }
    action
}

fn forwarded(raw: &RawRoute, targets: &mut Targets<'_, '_>, checks: &mut Checks<'_>) -> Option<usize> {
    let Field { value, at } = raw.upstream.required(raw.at(), checks.findings)?;
    let index = targets.upstreams.refer(value);
    if index.is_none() {
        checks.unknown("upstream", value, at, targets.upstreams);
    }
    index
}

fn redirected(raw: &RawRedirect, matches: Option<&RouteMatch>, checks: &mut Checks<'_>) -> Option<Redirect> {
    let status = raw.status.value().copied().unwrap_or(308);
    if let Some(field) = raw.status.field()
        && !matches!(status, 301 | 302 | 303 | 307 | 308)
    {
        checks.error_help(
            &field.at,
            format!("{status} is no redirect"),
            "301 or 308 for good, 302 or 307 for now, 303 for \"see other\"",
        );
    }
    if let Some(Field { value, at }) = raw.scheme.field()
        && !matches!(value.as_str(), "http" | "https")
    {
        checks.error(at, "a redirect leads to \"http\" or \"https\"");
    }
    if let Some(Field { value, at }) = raw.host.field() {
        matching::exact_host(value, at, checks);
    }
    let port = raw.port.field().and_then(|field| checks.count(field, 65_535));
    if let Some(field) = raw.path.field() {
        path_text(field, matches, checks);
    }
    let elsewhere = !(raw.scheme.is_absent() && raw.host.is_absent() && raw.port.is_absent());
    if !elsewhere && raw.path.is_absent() {
        checks.error_help(
            raw.at(),
            "this redirect leads to where it comes from",
            "add `scheme`, `host`, `port` or `path`",
        );
    }
    if let Some(Field { value, at }) = raw.path.field()
        && !elsewhere
        && let (Some(path), Some(matches)) = (value.as_literal(), matches)
        && takes(&matches.path, path)
    {
        checks.error_help(
            at,
            format!("this redirect leads to its own route: `{path}` belongs to it"),
            "redirect to a path of another route, or use `path_exact`",
        );
    }
    Some(Redirect {
        status: u16::try_from(status).ok()?,
        scheme: raw.scheme.value().cloned(),
        host: raw.host.value().map(|host| host.to_ascii_lowercase()),
        port: port.and_then(|port| u16::try_from(port.get()).ok()),
        path: raw.path.value().cloned(),
        keep_query: raw.keep_query.clone().or(true),
    })
}

/// Whether a path belongs to a route whose pattern is this.
fn takes(pattern: &PathPattern, path: &str) -> bool {
    match pattern {
        PathPattern::Exact(exact) => exact == path,
        PathPattern::Prefix(prefix) => path
            .strip_prefix(prefix.trim_end_matches('/'))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        PathPattern::Regex(regex) => pattern::whole(regex).is_ok_and(|regex| regex.is_match(path)),
        PathPattern::Template(_) | PathPattern::Tunnel(_) => false,
    }
}

fn respond_with(raw: &RawRespond, checks: &mut Checks<'_>) -> Option<Respond> {
    let Field { value: status, at } = raw.status.required(raw.at(), checks.findings)?;
    if !(200..=599).contains(status) {
        checks.error(at, format!("a status is between 200 and 599, is {status}"));
    }
    let body = raw.body.clone().or_default();
    if let Some(field) = raw.body.field() {
        if body.len() > bounds::MAX_RESPOND_BYTES {
            checks.error(
                &field.at,
                format!("a body is at most {} bytes long", bounds::MAX_RESPOND_BYTES),
            );
        } else if !body.is_empty() && matches!(status, 204 | 205 | 304) {
            checks.error(&field.at, format!("an answer of status {status} has no body"));
        }
    }
    if let Some(Field { value, at }) = raw.content_type.field() {
        if !value.contains('/') || !value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            checks.error_help(at, "this is not a media type", "as in \"application/json\"");
        } else if body.is_empty() {
            checks.error(at, "`content_type` has no meaning without `body`");
        }
    }
    Some(Respond {
        status: u16::try_from(*status).ok()?,
        body,
        content_type: raw
            .content_type
            .clone()
            .or(bounds::DEFAULT_CONTENT_TYPE.to_owned()),
    })
}

/// The path that the upstream gets.
pub(super) fn rewrite(
    raw: &RawRoute,
    matches: Option<&RouteMatch>,
    checks: &mut Checks<'_>,
) -> Option<Rewrite> {
    let rewrite: &RawRewrite = raw.rewrite.value()?;
    match (rewrite.prefix.field(), rewrite.path.field()) {
        (Some(prefix), None) => {
            if let Err((message, help)) = paths::prefix(&prefix.value) {
                checks.error_help(&prefix.at, message, help);
            }
            if matches.is_some_and(|matches| !matches!(matches.path, PathPattern::Prefix(_))) {
                checks.error_help(
                    &prefix.at,
                    "only a prefix can be replaced by a prefix",
                    "use `path` with the parameters of the route's path",
                );
            }
            Some(Rewrite::Prefix(prefix.value.clone()))
        }
        (None, Some(path)) => {
            path_text(path, matches, checks);
            Some(Rewrite::Path(path.value.clone()))
        }
        (Some(_), Some(path)) => {
            checks.error_help(
                &path.at,
                "a path is rewritten one way",
                "keep one of `prefix` and `path`",
            );
            None
        }
        (None, None) => {
            if rewrite.prefix.is_absent() && rewrite.path.is_absent() {
                checks.error_help(rewrite.at(), "nothing is rewritten", "add `prefix` or `path`");
            }
            None
        }
    }
}

/// A text that becomes a path: what is literal in it is in normal spelling, what is filled in cannot leave it.
pub(super) fn path_text(text: &Field<Text>, matches: Option<&RouteMatch>, checks: &mut Checks<'_>) {
    parameters(text, matches, checks);
    let mut plain = String::new();
    for part in &text.value.0 {
        match part {
            Part::Literal(literal) => plain.push_str(literal),
            Part::Parameter(_) => plain.push('x'),
            Part::Variable(Variable::Path) => {
                // Always begins with a slash, which must be the only one.
                if plain.ends_with('/') {
                    plain.pop();
                }
                plain.push_str("/x");
            }
            Part::Variable(_) => checks.error_help(
                &text.at,
                "a path is made of parameters and `{$path}`",
                "other variables are for header values",
            ),
        }
    }
    if let Err((message, help)) = paths::exact(&plain) {
        checks.error_help(&text.at, message, help);
    }
    let doubled = text.value.0.windows(2).any(|pair| {
        matches!(pair, [Part::Literal(before), Part::Variable(Variable::Path)] if before.ends_with('/'))
    });
    if doubled {
        checks.error_help(
            &text.at,
            "`{$path}` begins with a slash",
            "leave out the one before it",
        );
    }
}

/// Reports parameters that the route's path has not.
pub(super) fn parameters(text: &Field<Text>, matches: Option<&RouteMatch>, checks: &mut Checks<'_>) {
    let Some(matches) = matches else { return };
    let known: Vec<String> = match &matches.path {
        PathPattern::Exact(_) | PathPattern::Prefix(_) | PathPattern::Tunnel(_) => Vec::new(),
        PathPattern::Template(segments) => segments
            .iter()
            .filter_map(|segment| match segment {
                Segment::Parameter(name) | Segment::Rest(name) => Some(name.clone()),
                Segment::Literal(_) | Segment::End => None,
            })
            .collect(),
        PathPattern::Regex(regex) => pattern::whole(regex)
            .map(|regex| regex.capture_names().flatten().map(str::to_owned).collect())
            .unwrap_or_default(),
    };
    for name in text.value.parameters() {
        if !known.iter().any(|known| known == name) {
            let help = if known.is_empty() {
                "a prefix and an exact path have none: use `path_template`, or `path_regex` with (?<name>…)"
                    .to_owned()
            } else {
                format!("it has {}", known.join(", "))
            };
            checks.error_help(
                &text.at,
                format!("the route's path has no parameter `{name}`"),
                help,
            );
        }
    }
}
