//! Verdicts, figures, and texts that the configuration takes.

mod places;
mod uses;

use std::{collections::BTreeMap, fmt::Write as _};

use super::*;
use crate::config::Loaded;

const BASE: &str =
    "[shield]\ninterfaces = [\"eth0\"]\n[[listener]]\nname = \"web\"\naddress = \"198.51.100.7:80\"\n";
const APP: &str = "[[upstream]]\nname = \"app\"\nendpoints = [\"10.0.0.1:80\", { address = \"10.0.0.2:80\", weight = 3, zone = \"a\" }]\n";
const OTHER: &str = "[[upstream]]\nname = \"other\"\nendpoints = [\"10.0.0.9:80\"]\n";
const PROVIDER: &str = "[[provider]]\nname = \"p\"\nalgorithms = [\"HS256\"]\nsecret_file = \"key\"\nissuer = \"i\"\n\
                        audiences = [\"a\"]\nsources = [\"bearer\"]\n";
const GUARDED: &str = "auth = \"required\"\nproviders = [\"p\"]";
const OPEN: &str = "auth = \"none\"";

fn load(text: &str) -> Result<Loaded, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let own = rcgen::generate_simple_self_signed(["h.example".to_owned()]).expect("a certificate");
    for (name, content) in [
        ("key", "k".repeat(64)),
        ("chain", own.cert.pem()),
        ("key.pem", own.signing_key.serialize_pem()),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("written");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("changed");
    }
    Config::parse(text, "t.toml", folder.path()).map_err(|error| error.to_string())
}

fn config(text: &str) -> Config {
    load(text)
        .unwrap_or_else(|error| panic!("{error}\n{text}"))
        .config
}

fn route(name: &str, keys: &str) -> String {
    format!("[[route]]\nname = \"{name}\"\n{keys}\n")
}

fn plain(name: &str, place: &str) -> String {
    route(name, &format!("{place}\nupstream = \"app\"\n{OPEN}"))
}

/// A hundred seconds in which each of these routes had so many requests, of a millisecond each.
fn figures(routes: &[(&str, u64)]) -> Figures {
    let measured = |requests: u64| Measured {
        requests,
        seconds: requests as f64 / 1000.0,
        p50: 0.001,
    };
    Figures {
        period: Some(Period { from: 1000, to: 1100 }),
        unmeasured: None,
        routes: routes
            .iter()
            .map(|(name, requests)| ((*name).to_owned(), measured(*requests)))
            .collect::<BTreeMap<_, _>>(),
    }
}

fn of(text: &str) -> Vec<Advice> {
    advise(&config(text), &Figures::default())
}

fn keys(advice: &Advice) -> Vec<&str> {
    advice.reasons.iter().map(|reason| reason.key.as_str()).collect()
}

fn near(one: Option<f64>, other: f64) -> bool {
    one.is_some_and(|one| (one - other).abs() < 1e-9)
}

#[test]
fn a_listener_whose_routes_need_nothing_goes_as_it_is() {
    let text = format!(
        "{BASE}{APP}{}{}",
        plain("site", "path = \"/\""),
        plain("img", "path = \"/img\"")
    );
    let all = advise(&config(&text), &figures(&[("site", 3000), ("img", 1000)]));
    let [one] = all.as_slice() else { panic!("{all:#?}") };
    assert_eq!(
        (one.kind, one.verdict, one.at_most),
        (Kind::Listener, Verdict::Direct, false)
    );
    assert_eq!(
        (one.names.as_slice(), keys(one)),
        (["web".to_owned()].as_slice(), vec![])
    );
    assert_eq!(one.requests, Some(4000));
    assert!(
        near(one.seconds, 4.0) && near(one.seconds_a_day, 4.0 * 864.0),
        "{one:?}"
    );
    // The more expensive first.
    assert_eq!(
        one.routes
            .iter()
            .map(|route| route.name.as_str())
            .collect::<Vec<_>>(),
        ["site", "img"]
    );
    let snippet = one.snippet.as_deref().expect("a snippet");
    let loaded = load(&format!("{text}{snippet}")).expect("it passes the check");
    let service = &loaded.config.services[0];
    assert_eq!((service.name.as_str(), service.port), ("web-direct", 80));
    assert_eq!(service.address, Some("198.51.100.7".parse().expect("an address")));
    let direct = service.direct.as_ref().expect("direct");
    let backends: Vec<_> = direct
        .backends
        .iter()
        .map(|backend| (backend.address.to_string(), backend.weight.get()))
        .collect();
    assert_eq!(backends, [("10.0.0.1".to_owned(), 1), ("10.0.0.2".to_owned(), 3)]);
    // What is steered then is told no more.
    assert_eq!(advise(&loaded.config, &Figures::default()), []);
}

#[test]
fn a_host_of_its_own_goes_with_an_address_of_its_own_and_what_asks_for_a_token_stays() {
    let text = format!(
        "{BASE}{APP}{PROVIDER}{}{}{}",
        plain(
            "static",
            "path = \"/\"\nhosts = [\"static.example\", \"*.img.example\"]"
        ),
        plain("big", "path = \"/big\"\nhosts = [\"static.example\"]"),
        route("api", &format!("path = \"/\"\nupstream = \"app\"\n{GUARDED}")),
    );
    let all = advise(&config(&text), &figures(&[("static", 500), ("api", 9000)]));
    let [host, rest] = all.as_slice() else {
        panic!("{all:#?}")
    };
    // What can go comes before what costs more and must stay.
    assert_eq!((host.kind, host.verdict), (Kind::Host, Verdict::OwnAddress));
    assert_eq!(host.names, ["*.img.example", "static.example"]);
    assert!(near(host.seconds, 0.5), "{host:?}");
    assert_eq!(host.routes[1].measured, None, "{:?}", host.routes);
    assert_eq!((rest.kind, rest.verdict), (Kind::Listener, Verdict::Stays));
    assert_eq!(keys(rest), ["route.api.auth"]);
    assert_eq!((&rest.snippet, rest.first.len()), (&None, 0));
    assert!(near(rest.seconds, 9.0));
    let snippet = host.snippet.as_deref().expect("a snippet");
    assert!(snippet.contains("192.0.2.1 stands for"), "{snippet}");
    let loaded = load(&format!("{text}{snippet}")).expect("it passes the check");
    assert_eq!(loaded.config.services[0].name, "static-direct");

    // A listener that takes every address would be led around: the check says so, and so does the advice, before.
    let wide = text.replace("198.51.100.7:80", "0.0.0.0:80");
    let all = of(&wide);
    let snippet = all[0].snippet.as_deref().expect("a snippet");
    let refused = load(&format!("{wide}{snippet}")).expect_err("refused");
    assert!(refused.contains("lead around authentication"), "{refused}");
    let told = |first: &[String]| {
        first
            .iter()
            .any(|step| step.contains("`listener.web.address`") && step.contains("`api`"))
    };
    assert!(told(&all[0].first), "{:?}", all[0].first);
    assert!(!told(&host.first), "{:?}", host.first);
}

#[test]
fn what_was_not_measured_has_no_number() {
    let text = format!("{BASE}{APP}{}", plain("site", "path = \"/\""));
    let why = Figures {
        unmeasured: Some("because".to_owned()),
        ..Figures::default()
    };
    let report = report(&config(&text), why);
    let one = &report.advice[0];
    assert_eq!((one.requests, one.seconds, one.seconds_a_day), (None, None, None));
    let shown = render(&report);
    assert!(shown.starts_with("not measured: because\n"), "{shown}");
    assert!(shown.contains("\n  saves not measured\n"), "{shown}");
    assert!(!shown.contains("µs") && !shown.contains(" 0"), "{shown}");
    // The history knows other routes, and not this one.
    let one = &advise(&config(&text), &figures(&[("another", 10)]))[0];
    assert_eq!((one.requests, one.seconds, one.seconds_a_day), (None, None, None));
}

#[test]
fn paths_are_not_seen_by_the_kernel() {
    // Two upstreams by path, of one host.
    let two = format!(
        "{BASE}{APP}{OTHER}{}{}",
        plain("a", "hosts = [\"h.example\"]\npath = \"/\""),
        route(
            "b",
            &format!("hosts = [\"h.example\"]\npath = \"/b\"\nupstream = \"other\"\n{OPEN}")
        )
    );
    let one = &of(&two)[0];
    assert_eq!(
        (one.kind, one.verdict, keys(one)),
        (Kind::Host, Verdict::Stays, vec!["route.b.upstream"])
    );
    // A host that has only a path of its own: the rest of it is another route's.
    for (key, value) in [
        ("path", "/b"),
        ("path_exact", "/b"),
        ("path_template", "/b/{x}"),
        ("path_regex", "/b[0-9]"),
    ] {
        let text = format!(
            "{BASE}{APP}{OTHER}{}{}",
            plain("b", &format!("hosts = [\"h.example\"]\n{key} = \"{value}\"")),
            route("rest", &format!("path = \"/\"\nupstream = \"other\"\n{OPEN}"))
        );
        let all = of(&text);
        let host = all.iter().find(|one| one.kind == Kind::Host).expect("the host");
        assert_eq!(
            (host.verdict, keys(host)),
            (Verdict::Stays, vec![format!("route.b.{key}").as_str()])
        );
    }
    // The same, all to one upstream: whatever the path, it gets there.
    let one_upstream = format!(
        "{BASE}{APP}{}{}",
        plain("b", "hosts = [\"h.example\"]\npath = \"/b\""),
        plain("rest", "path = \"/\"")
    );
    assert_eq!(of(&one_upstream)[0].verdict, Verdict::Direct);
    // What a host's own route leaves goes to its domain's, and to no other domain's.
    for (host, want) in [("a.h.example", Verdict::Direct), ("ah.example", Verdict::Stays)] {
        let text = format!(
            "{BASE}{APP}{}{}",
            plain("b", &format!("hosts = [\"{host}\"]\npath = \"/b\"")),
            plain("rest", "hosts = [\"*.h.example\"]\npath = \"/\"")
        );
        let all = of(&text);
        let one = all
            .iter()
            .find(|one| one.routes.iter().any(|route| route.name == "b"));
        assert_eq!(one.expect("advice").verdict, want, "{host}");
    }
    // What no route takes is refused, and would not be.
    let some = format!("{BASE}{APP}{}", plain("b", "path = \"/b\""));
    assert_eq!(
        (of(&some)[0].verdict, keys(&of(&some)[0])),
        (Verdict::Stays, vec!["route.b.path"])
    );
}

#[test]
fn a_listener_with_something_of_its_own_stays_and_the_other_saves_at_most_what_both_cost() {
    let text = format!(
        "{BASE}[[listener]]\nname = \"behind\"\naddress = \"198.51.100.7:81\"\nproxy_protocol = [\"10.0.0.0/8\"]\n{APP}{}",
        plain("site", "path = \"/\"")
    );
    let all = advise(&config(&text), &figures(&[("site", 1000)]));
    let [goes, stays] = all.as_slice() else {
        panic!("{all:#?}")
    };
    assert_eq!(
        (goes.verdict, goes.at_most, goes.names.as_slice()),
        (Verdict::Direct, true, ["web".to_owned()].as_slice())
    );
    assert_eq!(
        (stays.verdict, keys(stays)),
        (Verdict::Stays, vec!["listener.behind.proxy_protocol"])
    );
    let shown = render(&report(&config(&text), figures(&[("site", 1000)])));
    assert!(shown.contains("saves, at most, 1.0 s, 864.0 s a day"), "{shown}");
}

#[test]
fn savings_are_sorted_and_what_has_none_comes_after() {
    let mut text = format!("{BASE}{APP}{PROVIDER}");
    for host in ["a", "b", "c", "d"] {
        text += &plain(host, &format!("hosts = [\"{host}.example\"]\npath = \"/\""));
    }
    text += &route("api", &format!("path = \"/\"\nupstream = \"app\"\n{GUARDED}"));
    let all = advise(
        &config(&text),
        &figures(&[("b", 10), ("c", 3000), ("d", 200), ("api", 99_000)]),
    );
    let order: Vec<&str> = all.iter().map(|one| one.routes[0].name.as_str()).collect();
    assert_eq!(order, ["c", "d", "b", "a", "api"]);
    // All of them at once.
    let mut with = text.clone();
    for one in &all {
        let _ = writeln!(with, "{}", one.snippet.as_deref().unwrap_or_default());
    }
    let services = load(&with).expect("it passes the check").config.services;
    let addresses: std::collections::BTreeSet<_> = services.iter().map(|service| service.address).collect();
    assert_eq!((services.len(), addresses.len()), (4, 4));
}

#[test]
fn everything_that_can_be_carried_over_is_and_passes_the_check() {
    let service = "[[service]]\nname = \"shop\"\nprotocol = \"tcp\"\nport = 80\naddress = \"198.51.100.7\"\n";
    let rest = format!(
        "[[listener]]\nname = \"six\"\naddress = \"[::]:8080\"\ndual_stack = true\n[[upstream]]\nname = \"app\"\n\
         endpoints = [\"192.0.2.1:3000\", \"[2001:db8::1]:80\"]\nbalance = \"consistent_hash\"\nhash = \"client_address\"\n\
         health = {{ probe = \"http\", path = \"/up\", host = \"a.example\", status = [\"200\", \"204-206\"], body = \"o\\\"k\", \
         port = 99, interval = \"3s\", timeout = \"500ms\", rise = 3, fall = 4 }}\n{}",
        plain("site", "path = \"/\"")
    );
    let text = format!("{BASE}{service}{rest}");
    let before = config(&text);
    let all = advise(&before, &Figures::default());
    let snippet = all[0].snippet.as_deref().expect("a snippet");
    assert!(
        snippet.contains("In the place of the service `shop`"),
        "{snippet}"
    );
    let after = config(&format!("{BASE}{rest}{snippet}"));
    let shown: Vec<_> = after
        .services
        .iter()
        .map(|service| {
            (
                service.name.as_str(),
                service.address.map(|address| address.to_string()),
                service.port,
            )
        })
        .collect();
    let own = |text: &str| Some(text.to_owned());
    // Addresses that the configuration has do not stand for others.
    assert_eq!(
        shown,
        [
            ("shop", own("198.51.100.7"), 80),
            ("six-direct", own("192.0.2.2"), 8080),
            ("six-direct-2", own("2001:db8::2"), 8080),
        ]
    );
    for service in &after.services {
        let direct = service.direct.as_ref().expect("direct");
        assert_eq!(direct.affinity, crate::config::Affinity::Source);
        assert_eq!(direct.health, before.upstreams[0].health);
        assert_eq!(direct.backends.len(), 2);
    }
    let first = &all[0].first;
    assert!(
        first
            .iter()
            .any(|step| step == "have 192.0.2.1 serve port 80: now it serves 3000"),
        "{first:?}"
    );
    let bare = config(&text.replace("[\"eth0\"]", "[]"));
    let first = &advise(&bare, &Figures::default())[0].first;
    assert!(
        first.iter().any(|step| step.contains("`shield.interfaces`")),
        "{first:?}"
    );
}

#[test]
fn people_read_what_saves_why_not_and_what_is_not_known() {
    let text = format!(
        "{BASE}{APP}{PROVIDER}{}{}{}",
        plain("static", "hosts = [\"static.example\"]\npath = \"/\""),
        plain("open", "path = \"/\""),
        route("api", &format!("path = \"/api\"\nupstream = \"app\"\n{GUARDED}")),
    );
    let shown = render(&report(&config(&text), figures(&[("static", 2000), ("api", 10)])));
    for line in [
        "measured from 1970-01-01 00:16:40 to 1970-01-01 00:18:20 UTC, 1m 40s",
        "that is less than a day: what is told of a day goes on at the same rate",
        "host static.example: could be steered directly, with an address of its own",
        "  saves 2.0 s, 1728.0 s a day",
        "  route static  2000 requests, 2.0 s, p50 1.00 ms; uses nothing of the gateway",
        "listener web: must stay",
        "  costs 10.00 ms, 8.6 s a day",
        "  route api   10 requests, 10.00 ms, p50 1.00 ms; uses 1 thing of the gateway",
        "  route open  not measured; uses nothing of the gateway",
        "  route.api.auth: it asks for a token",
        "  open itself needs nothing of the gateway: with hosts of its own, and an address for them, it could go",
        "# host static.example",
    ] {
        assert!(shown.lines().any(|own| own == line), "{line:?} in\n{shown}");
    }
    assert!(
        shown.contains("What steering costs instead") && shown.contains("was not."),
        "{shown}"
    );
    // All of what follows the first heading is TOML as it stands.
    let (_, toml) = shown
        .split_once("\n# host static.example\n")
        .expect("the snippet");
    assert!(load(&format!("{text}{toml}")).is_ok(), "{toml}");
    let read: Report = serde_json::from_value(
        serde_json::to_value(report(&config(&text), figures(&[("static", 2000)]))).expect("JSON"),
    )
    .expect("a report");
    assert_eq!(read, report(&config(&text), figures(&[("static", 2000)])));
}
