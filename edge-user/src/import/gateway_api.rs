//! Gateway and HTTPRoute (gateway.networking.k8s.io).
//!
//! A rule with several matches becomes a route for each. Which of several routes takes a request is decided in the same
//! order there and here: host, exact path, longest prefix, method, number of headers, number of parameters, age (here: place
//! in the file). Regular expressions, whose order the API leaves open, have the place of the segments they begin with.

use super::{
    draft::{Action, Draft, Fields, PathKey, Route},
    manifest::{
        Filter, Gateway, HttpMatch, HttpRoute, HttpRule, Modifier, Object, PathModifier, Redirect, Reference,
        ValueMatch,
    },
};

pub(super) fn add_gateway(gateway: &Gateway, draft: &mut Draft) {
    let meta = &gateway.metadata;
    let id = format!("Gateway {}/{}", meta.namespace, meta.name);
    for (index, listener) in gateway.spec.listeners.iter().enumerate() {
        let field = format!("spec.listeners[{index}]");
        match (listener.protocol.as_str(), &listener.tls) {
            ("HTTP", _) => draft.listen(listener.port, false),
            ("HTTPS", Some(tls)) if tls.mode != "Passthrough" => {
                for key in tls.rest.keys() {
                    draft.note(
                        &id,
                        format!("{field}.tls.{key}"),
                        "has no counterpart and is left out",
                    );
                }
                if tls.certificate_refs.is_empty() {
                    draft.note(
                        &id,
                        format!("{field}.tls"),
                        "names no certificate: the listener is left out",
                    );
                }
                let names: Vec<String> = listener.hostname.iter().cloned().collect();
                for secret in &tls.certificate_refs {
                    let namespace = secret.namespace.as_ref().unwrap_or(&meta.namespace);
                    draft.secure(listener.port, namespace, &secret.name, &names);
                }
            }
            (protocol, _) => {
                let what =
                    format!("protocol {protocol} is not for the gateway: a direct service may carry it");
                draft.note(&id, field, what);
            }
        }
    }
}

pub(super) fn add_route(route: &HttpRoute, objects: &[Object], draft: &mut Draft) {
    let meta = &route.metadata;
    let id = format!("HTTPRoute {}/{}", meta.namespace, meta.name);
    let Some(hosts) = hosts(route, objects, &id, draft) else {
        return;
    };
    for (index, rule) in route.spec.rules.iter().enumerate() {
        let field = format!("spec.rules[{index}]");
        for key in rule.rest.keys().filter(|key| *key != "name") {
            draft.note(
                &id,
                format!("{field}.{key}"),
                "has no counterpart and is left out",
            );
        }
        let everything = [HttpMatch::default()];
        let matches = if rule.matches.is_empty() {
            &everything[..]
        } else {
            &rule.matches[..]
        };
        for (number, wanted) in matches.iter().enumerate() {
            let place = Place {
                route,
                id: &id,
                rule: &field,
                field: format!("{field}.matches[{number}]"),
            };
            add_match(&place, rule, wanted, &hosts, draft);
        }
    }
}

/// Where something stands.
struct Place<'a> {
    route: &'a HttpRoute,
    id: &'a str,
    rule: &'a str,
    field: String,
}

/// The hosts of a route: its own, as far as a listener that it is attached to has them. `None` if nothing is left.
fn hosts(route: &HttpRoute, objects: &[Object], id: &str, draft: &mut Draft) -> Option<Vec<String>> {
    let own = &route.spec.hostnames;
    let (mut attached, mut ports) = (0, Vec::new());
    let (mut all, mut is_open, mut found) = (Vec::new(), false, route.spec.parent_refs.is_empty());
    for parent in &route.spec.parent_refs {
        let namespace = parent.namespace.as_ref().unwrap_or(&route.metadata.namespace);
        let gateways = objects.iter().filter_map(|object| match object {
            Object::Gateway(gateway) => Some(gateway),
            _ => None,
        });
        let is_it = |gateway: &&Gateway| {
            gateway.metadata.name == parent.name && gateway.metadata.namespace == *namespace
        };
        for listener in gateways.filter(is_it).flat_map(|gateway| &gateway.spec.listeners) {
            let is_named = parent
                .section_name
                .as_ref()
                .is_none_or(|name| *name == listener.name);
            if !is_named
                || parent.port.is_some_and(|port| port != listener.port)
                || !draft.listens(listener.port)
            {
                continue;
            }
            found = true;
            attached += usize::from(!ports.contains(&listener.port));
            ports.push(listener.port);
            match (&listener.hostname, own.is_empty()) {
                (None, true) => is_open = true,
                (Some(host), true) => all.push(host.clone()),
                (None, false) => all.extend(own.iter().cloned()),
                (Some(host), false) => all.extend(own.iter().filter_map(|own| both(own, host))),
            }
        }
    }
    if route.spec.parent_refs.is_empty() {
        all.clone_from(own);
        is_open = own.is_empty();
    }
    for host in own.iter().filter(|host| found && !is_open && !all.contains(host)) {
        let is_narrowed = all.iter().any(|kept| both(host, kept).is_some());
        let what = if is_narrowed {
            "is narrowed to what a listener has"
        } else {
            "belongs to no listener of the route and is left out"
        };
        draft.note(id, format!("spec.hostnames[{host:?}]"), what);
    }
    if found && attached < draft.listeners() {
        draft.note(
            id,
            "spec.parentRefs",
            "routes are served by every listener here, not by those of the route alone",
        );
    }
    if !found {
        draft.note(
            id,
            "spec.parentRefs",
            "names no listener in these files: the hosts are the route's own",
        );
        all.clone_from(own);
        is_open = own.is_empty();
    }
    if is_open {
        return Some(Vec::new());
    }
    let mut unique: Vec<String> = Vec::new();
    for host in all {
        if !unique.contains(&host) {
            unique.push(host);
        }
    }
    if unique.is_empty() {
        draft.note(
            id,
            "spec.hostnames",
            "is none that a listener has: the route is left out",
        );
        return None;
    }
    Some(unique)
}

/// What both a route's and a listener's host stand for.
fn both(route: &str, listener: &str) -> Option<String> {
    let below = |name: &str, pattern: &str| {
        let domain = pattern.strip_prefix('*')?;
        name.len().checked_sub(domain.len()).filter(|rest| *rest > 0)?;
        name.ends_with(domain).then_some(())
    };
    if route.eq_ignore_ascii_case(listener) || below(route, listener).is_some() {
        Some(route.to_owned())
    } else {
        below(listener, route).map(|()| listener.to_owned())
    }
}

fn add_match(place: &Place<'_>, rule: &HttpRule, wanted: &HttpMatch, hosts: &[String], draft: &mut Draft) {
    let meta = &place.route.metadata;
    let path = match &wanted.path {
        None => PathKey::Prefix("/".to_owned()),
        Some(path) => {
            let text = if path.value.is_empty() { "/" } else { &path.value };
            match path.kind.as_str() {
                "" | "PathPrefix" => PathKey::Prefix(text.to_owned()),
                "Exact" => PathKey::Exact(text.to_owned()),
                // Theirs may match a beginning, which is up to the implementation; here it is the whole path.
                "RegularExpression" => PathKey::Regex(text.to_owned()),
                other => {
                    let what = format!("type {other} has no counterpart: the match is left out");
                    return draft.note(place.id, format!("{}.path", place.field), what);
                }
            }
        }
    };
    let mut route = Route::new(
        &format!("{}-{}", meta.namespace, meta.name),
        path,
        Action::Respond(500),
    );
    route.hosts = hosts.to_vec();
    route.method.clone_from(&wanted.method);
    route.headers = conditions(&wanted.headers);
    route.query = conditions(&wanted.query_params);
    let redirect = filters(place, rule, &mut route, draft);
    if let Some(timeouts) = &rule.timeouts {
        let mut timeout = |value: &Option<String>, key: &str| {
            let text = value.as_ref()?;
            if matches!(text.as_str(), "0s" | "0ms" | "0m" | "0h") {
                let what = "is no limit at all; the default is kept";
                draft.note(place.id, format!("{}.timeouts.{key}", place.rule), what);
                return None;
            }
            Some(text.clone())
        };
        route.request_timeout = timeout(&timeouts.request, "request");
        route.timeout = timeout(&timeouts.backend_request, "backendRequest");
    }
    if let Some(redirect) = redirect {
        return add_redirect(place, route, redirect, draft);
    }
    route.action = backends(place, rule, draft);
    if matches!(route.action, Action::Respond(_)) {
        (route.mirror, route.rewrite) = (None, None);
        (route.timeout, route.request_timeout) = (None, None);
    }
    draft.route(route, place.id, &place.field);
}

fn conditions(matches: &[ValueMatch]) -> Vec<(String, &'static str, String)> {
    let mut all: Vec<(String, &'static str, String)> = Vec::new();
    for wanted in matches {
        let test = if wanted.kind == "RegularExpression" {
            "regex"
        } else {
            "value"
        };
        // Of several for one field the first counts, by the API's own rule.
        if !all
            .iter()
            .any(|(name, ..)| name.eq_ignore_ascii_case(&wanted.name))
        {
            all.push((wanted.name.clone(), test, wanted.value.clone()));
        }
    }
    all
}

/// Puts the filters into a route; answers with the redirect, if there is one.
fn filters<'r>(
    place: &Place<'_>,
    rule: &'r HttpRule,
    route: &mut Route,
    draft: &mut Draft,
) -> Option<&'r Redirect> {
    let mut redirect = None;
    for (index, filter) in rule.filters.iter().enumerate() {
        let field = format!("{}.filters[{index}]", place.rule);
        match filter {
            Filter {
                request_header_modifier: Some(changes),
                ..
            } => modify(&mut route.request, changes),
            Filter {
                response_header_modifier: Some(changes),
                ..
            } => modify(&mut route.response, changes),
            Filter {
                request_redirect: Some(wanted),
                ..
            } => redirect = Some(wanted),
            Filter {
                url_rewrite: Some(rewrite),
                ..
            } => {
                if rewrite.hostname.is_some() {
                    draft.note(
                        place.id,
                        format!("{field}.urlRewrite.hostname"),
                        "the host goes on as it came",
                    );
                }
                match &rewrite.path {
                    Some(PathModifier {
                        replace_prefix_match: Some(prefix),
                        ..
                    }) => {
                        if matches!(route.path, PathKey::Prefix(_)) {
                            let prefix = if prefix.is_empty() { "/" } else { prefix };
                            route.rewrite = Some(("prefix", prefix.to_owned()));
                        } else {
                            draft.note(
                                place.id,
                                field,
                                "replaces a prefix where none is matched: left out",
                            );
                        }
                    }
                    Some(PathModifier {
                        replace_full_path: Some(path),
                        ..
                    }) => {
                        route.rewrite = Some(("path", braced(path)));
                    }
                    _ => {}
                }
            }
            Filter {
                request_mirror: Some(mirror),
                ..
            } => {
                let backend = &mirror.backend_ref;
                let namespace = backend
                    .namespace
                    .as_ref()
                    .unwrap_or(&place.route.metadata.namespace);
                match backend.port {
                    Some(port) if mirror.fraction.is_none() => {
                        let upstream = draft.upstream(namespace, &backend.name, port);
                        route.mirror = Some((upstream, mirror.percent.unwrap_or(100)));
                    }
                    _ => draft.note(
                        place.id,
                        field,
                        "a mirror without a port, or by a fraction, is left out",
                    ),
                }
            }
            Filter { kind, .. } => {
                draft.note(
                    place.id,
                    field,
                    format!("filter {kind} has no counterpart and is left out"),
                );
            }
        }
    }
    redirect
}

fn modify(fields: &mut Fields, changes: &Modifier) {
    let pair = |field: &ValueMatch| (field.name.to_ascii_lowercase(), field.value.clone());
    fields.set.extend(changes.set.iter().map(pair));
    fields.add.extend(changes.add.iter().map(pair));
    fields
        .remove
        .extend(changes.remove.iter().map(|name| name.to_ascii_lowercase()));
}

/// A literal text, where places to fill in would be.
fn braced(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}")
}

fn add_redirect(place: &Place<'_>, mut route: Route, redirect: &Redirect, draft: &mut Draft) {
    (route.mirror, route.rewrite) = (None, None);
    (route.timeout, route.request_timeout) = (None, None);
    let action = |path: Option<String>| Action::Redirect {
        status: redirect.status_code.unwrap_or(302),
        scheme: redirect.scheme.clone(),
        host: redirect.hostname.clone(),
        port: redirect.port,
        path,
    };
    let modifier = redirect.path.as_ref();
    let full = modifier.and_then(|path| path.replace_full_path.as_deref());
    let prefix = modifier.and_then(|path| path.replace_prefix_match.as_deref());
    match (full, prefix, &route.path) {
        (None, Some(new), PathKey::Prefix(old)) => {
            let (old, new) = (
                old.trim_end_matches('/').to_owned(),
                braced(new.trim_end_matches('/')),
            );
            let mut below = route.clone();
            below.path = PathKey::Template(format!("{old}/{{*rest}}"));
            below.action = action(Some(format!("{new}/{{rest}}")));
            route.action = action(Some(if new.is_empty() { "/".to_owned() } else { new }));
            draft.route(route, place.id, &place.field);
            draft.route(below, place.id, &place.field);
        }
        (None, Some(_), _) => {
            draft.note(
                place.id,
                &place.field,
                "replaces a prefix where none is matched: left out",
            );
        }
        (full, ..) => {
            route.action = action(full.map(braced));
            draft.route(route, place.id, &place.field);
        }
    }
}

/// Where a rule's requests go; who has nowhere to go gets 500, as the API says.
fn backends(place: &Place<'_>, rule: &HttpRule, draft: &mut Draft) -> Action {
    let mut upstreams: Vec<(String, u64)> = Vec::new();
    for (index, backend) in rule.backend_refs.iter().enumerate() {
        let field = format!("{}.backendRefs[{index}]", place.rule);
        let Reference {
            kind, port, weight, ..
        } = backend;
        if kind.as_ref().is_some_and(|kind| kind != "Service") {
            draft.note(place.id, field, "is no service and is left out");
            continue;
        }
        let Some(port) = port else {
            draft.note(place.id, field, "names no port and is left out");
            continue;
        };
        if !backend.filters.is_empty() {
            draft.note(
                place.id,
                format!("{field}.filters"),
                "filters of one backend are left out",
            );
        }
        let namespace = backend
            .namespace
            .as_ref()
            .unwrap_or(&place.route.metadata.namespace);
        let upstream = draft.upstream(namespace, &backend.name, *port);
        let weight = weight.unwrap_or(1);
        match upstreams.iter_mut().find(|(name, _)| *name == upstream) {
            Some((_, sum)) => *sum += weight,
            None => upstreams.push((upstream, weight)),
        }
    }
    let most = upstreams.iter().map(|(_, weight)| *weight).max().unwrap_or(0);
    if most == 0 {
        draft.note(place.id, place.rule, "has no backend: answered with 500");
        return Action::Respond(500);
    }
    if most > MAX_WEIGHT {
        draft.note(place.id, place.rule, "weights are scaled down to 1000");
        for (_, weight) in &mut upstreams {
            *weight = (*weight * MAX_WEIGHT).div_ceil(most);
        }
    }
    Action::Forward(upstreams)
}

/// The greatest weight that the configuration takes.
const MAX_WEIGHT: u64 = 1000;
