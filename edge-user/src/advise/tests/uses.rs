//! Each use of the gateway, and the key that it is told by.

use super::*;

/// Keys that are told of, and what a route with its own action and `auth` says.
const OF_ROUTES: &[(&str, &str)] = &[
    (
        "route.r.auth",
        "upstream = 'app'\nauth = 'required'\nproviders = ['p']",
    ),
    (
        "route.r.auth",
        "upstream = 'app'\nauth = 'optional'\nproviders = ['p']",
    ),
    (
        "route.r.redirect",
        "redirect = { host = 'x.example' }\nauth = 'none'",
    ),
    (
        "route.r.respond",
        "respond = { status = 200, body = 'ok' }\nauth = 'none'",
    ),
    (
        "route.r.upstreams",
        "upstreams = [{ name = 'app', weight = 1 }, { name = 'other', weight = 1 }]\nauth = 'none'",
    ),
    // Parts are asked for by GET.
    (
        "route.r.fan_out route.r.methods",
        "methods = ['GET']\nfan_out = [{ key = 'a', upstream = 'app', path = '/a' }]\nauth = 'none'",
    ),
];

/// Keys that are told of, and what a route that forwards to `app` says beside that.
const OF_FORWARDING: &[(&str, &str)] = &[
    ("route.r.rewrite", "rewrite = { path = '/x' }"),
    ("route.r.request_headers", "request_headers = { remove = ['a'] }"),
    (
        "route.r.response_headers",
        "response_headers = { remove = ['a'] }",
    ),
    ("route.r.cors", "cors = { origins = ['https://x.example'] }"),
    ("route.r.compress", "compress = {}"),
    ("route.r.mirror", "mirror = { upstream = 'other' }"),
    ("route.r.body_limit", "body_limit = 1000"),
    ("route.r.timeout", "timeout = '1s'"),
    ("route.r.request_timeout", "request_timeout = '1m'"),
    ("route.r.idle_timeout", "idle_timeout = '1m'"),
    ("route.r.methods", "methods = ['GET']"),
    ("route.r.headers", "headers = [{ name = 'a', present = true }]"),
    ("route.r.query", "query = [{ name = 'a', present = true }]"),
    (
        "limit.l",
        "[[limit]]\nname = 'l'\nby = ['address']\nrequests = 10\nper = '1s'",
    ),
];

const OF_UPSTREAMS: &[(&str, &str)] = &[
    (
        "upstream.app.tls",
        "tls = { insecure_accept_any_certificate = true }",
    ),
    ("upstream.app.protocol", "protocol = 'http2'"),
    ("upstream.app.send_proxy", "send_proxy = 'v2'"),
    ("upstream.app.balance", "balance = 'least_request'"),
    ("upstream.app.balance", "balance = 'peak_ewma'"),
    (
        "upstream.app.balance",
        "balance = 'consistent_hash'\nhash = 'cookie:c'",
    ),
    ("upstream.app.prefer_zone", "prefer_zone = 'a'"),
    ("upstream.app.slow_start", "slow_start = '10s'"),
    ("upstream.app.retry", "retry = { attempts = 5 }"),
    ("upstream.app.circuit", "circuit = { requests = 5 }"),
    ("upstream.app.pool", "pool = { connections = 5 }"),
    ("upstream.app.ejection", "ejection = { consecutive = 9 }"),
];

const OF_LISTENERS: &[(&str, &str)] = &[
    (
        "listener.web.tls",
        "tls = { certificates = [{ certificate_file = 'chain', key_file = 'key.pem' }] }",
    ),
    ("listener.web.proxy_protocol", "proxy_protocol = ['10.0.0.0/8']"),
    ("listener.web.trusted_proxies", "trusted_proxies = ['10.0.0.0/8']"),
];

/// What is told of one route that takes everything, with and without a host of its own, which alone would let it go.
fn told(listener: &str, upstream: &str, route_keys: &str) -> Vec<Advice> {
    let mut tables = String::new();
    for (name, table) in [("'other'", OTHER), ("'p'", PROVIDER)] {
        if route_keys.contains(name) {
            tables += table;
        }
    }
    let text = |host: &str| {
        let one = route("r", &format!("{host}path = '/'\n{route_keys}"));
        of(&format!("{BASE}{listener}\n{APP}{upstream}\n{tables}{one}"))
    };
    let mut all = text("");
    all.extend(text("hosts = ['h.example']\n"));
    all
}

#[track_caller]
fn stays(all: &[Advice], want: &str) {
    assert!(all.len() >= 2, "{want}: {all:#?}");
    for one in all {
        let wanted: Vec<&str> = want.split(' ').collect();
        assert_eq!((one.verdict, keys(one)), (Verdict::Stays, wanted), "{one:#?}");
        assert_eq!(one.snippet, None);
    }
}

#[test]
fn every_use_of_the_gateway_keeps_a_route_and_is_told_by_its_key() {
    let plain = "upstream = 'app'\nauth = 'none'\n";
    for one in told("", "", plain) {
        assert_ne!(one.verdict, Verdict::Stays, "{one:#?}");
    }
    for (want, text) in OF_ROUTES {
        stays(&told("", "", text), want);
    }
    for (want, text) in OF_FORWARDING {
        stays(&told("", "", &format!("{plain}{text}")), want);
    }
    for (want, text) in OF_UPSTREAMS {
        stays(&told("", text, plain), want);
    }
    for (want, text) in OF_LISTENERS {
        stays(&told(text, "", plain), want);
    }
}

#[test]
fn what_changes_nothing_keeps_nothing() {
    let plain = "upstream = 'app'\nauth = 'none'\n";
    let limit = "[[limit]]\nname = 'l'\nby = ['address']\nrequests = 10\nper = '1s'\nobserve = true";
    for (upstream, keys) in [
        ("balance = 'consistent_hash'\nhash = 'client_address'", ""),
        ("ejection = 'off'", ""),
        ("pool = { idle = 7 }", ""),
        ("", limit),
    ] {
        for one in told("", upstream, &format!("{plain}{keys}")) {
            assert_ne!(one.verdict, Verdict::Stays, "{one:#?}");
        }
    }
}

#[test]
fn endpoints_that_are_no_addresses_of_other_machines_keep_their_routes() {
    for (endpoints, why) in [
        ("['127.0.0.1:3000']", "no address of another machine"),
        ("['app.internal:80']", "is a name"),
        ("['[::ffff:127.0.0.1]:80']", "no address of another machine"),
        ("['[fe80::1]:80']", "of one link"),
        ("['169.254.0.1:80']", "of one link"),
        ("['198.51.100.7:3000']", "the listener `web` has it"),
        ("['10.0.0.1:80', '[::ffff:10.0.0.1]:80']", "has several ports"),
        ("['10.0.0.1:80', '10.0.0.1:81']", "has several ports"),
    ] {
        let text = format!(
            "{BASE}[[upstream]]\nname = 'app'\nendpoints = {endpoints}\n{}",
            plain("r", "path = '/'")
        );
        let one = &of(&text)[0];
        assert_eq!(
            (one.verdict, keys(one)),
            (Verdict::Stays, vec!["upstream.app.endpoints"])
        );
        assert!(one.reasons[0].why.contains(why), "{:?}", one.reasons);
    }
}
