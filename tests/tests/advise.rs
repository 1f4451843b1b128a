//! `breakwater advise` on a running gateway: it names what could go, with the figures that the daemon measured itself.
#![expect(
    clippy::expect_used,
    reason = "a step of a test that fails has to stop that test"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tests::{
    admin::ask,
    config::{PRIVATE, Settings},
    daemon::{Daemon, INVALID_CONFIG, USAGE, bare_cli, cli},
    http::{Client, Request},
    lab::{Lab, VIP_V4},
    origin::Origin,
    stage::{self, gateway},
    token::Signer,
    wait::eventually,
};

/// Requests of the busy route, and of the one that asks for a token.
const BUSY: u64 = 400;
const ASKED: u64 = 30;

fn socket(lab: &Lab) -> PathBuf {
    lab.directory().join("admin.sock")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}

/// A host of its own that needs nothing.
const PLAIN: &str = "[[route]]\nname = \"static\"\nhosts = [\"static.example\"]\npath = \"/\"\nupstream = \"web\"\nauth = \"none\"\n";

/// It, beside a route with a token.
fn settings(lab: &Lab, signer: &Signer, origin: &Origin, history: &str) -> Settings {
    let mut settings = Settings::standard(lab, signer, origin.address());
    settings.extra = format!(
        "[admin]\nsocket = \"{}\"\n{history}\n{PLAIN}",
        socket(lab).display()
    );
    settings
}

#[track_caller]
fn get(lab: &Lab, target: &str) -> tests::admin::Answer {
    let answer = ask(&socket(lab), "GET", target, None).expect("the socket answers");
    assert_eq!(answer.status, 200, "{target}: {answer:?}");
    answer
}

/// The advice about the route of this name.
fn about<'r>(report: &'r Value, route: &str) -> &'r Value {
    let all = report["advice"].as_array().into_iter().flatten();
    all.into_iter()
        .find(|one| {
            let routes = one["routes"].as_array().into_iter().flatten();
            routes.into_iter().any(|found| found["name"] == route)
        })
        .expect("advice about the route")
}

fn route<'r>(advice: &'r Value, name: &str) -> &'r Value {
    let routes = advice["routes"].as_array().into_iter().flatten();
    routes
        .into_iter()
        .find(|found| found["name"] == name)
        .expect("the route")
}

/// Whether two numbers are the same but for their last digit, which reading JSON may change.
fn near(one: &Value, other: &Value) -> bool {
    one.as_f64()
        .zip(other.as_f64())
        .is_some_and(|(one, other)| (one - other).abs() < 1e-12)
}

/// What the gateway counted of its own time on a route, seconds, by its metrics.
fn tax_by_metrics(lab: &Lab, route: &str) -> f64 {
    let metrics = get(lab, "/metrics").body;
    let line = format!("breakwater_gateway_tax_seconds_sum{{route=\"{route}\"}} ");
    let found = metrics.lines().find_map(|own| own.strip_prefix(line.as_str()));
    found.and_then(|value| value.parse().ok()).expect("the metric")
}

/// Holds a report to the daemon's own description of it.
fn described(lab: &Lab, report: &Value) {
    let api = get(lab, "/v1/openapi.json").json();
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "components": api["components"],
        "allOf": [{ "$ref": "#/components/schemas/AdviceReport" }],
    });
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let errors: Vec<String> = validator
        .iter_errors(report)
        .map(|error| format!("{error} at {}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn the_plain_and_busy_route_is_named_with_what_the_gateway_measured() {
    let Some(lab) = tests::daemon::lab("advise") else {
        return;
    };
    let signer = Signer::hs256();
    let origin = stage::origin(&lab);
    let history = lab.directory().join("history.db");
    let history = format!("[history]\npath = \"{}\"\nevery = \"1s\"", history.display());
    let settings = settings(&lab, &signer, &origin, &history);
    let daemon = Daemon::start(&lab, &settings.text());
    let file = lab.directory().join("breakwater.toml");
    let mut client = Client::connect(&lab.client().namespace, gateway(VIP_V4.into())).expect("connected");
    let plain = Request::get("/logo").field("host", "static.example");
    let private = Request::get(PRIVATE).bearer(&signer.token());
    for (request, times) in [(&plain, BUSY), (&private, ASKED)] {
        for _ in 0..times {
            assert_eq!(client.send(request).expect("served").status, 200);
        }
    }
    let socket_text = text(&socket(&lab)).to_owned();
    let asked = ["advise", "--last", "1h", "--socket", &socket_text];
    let report = eventually("all cells are written", || {
        let report = cli(&lab, [&asked[..], &["--json"]].concat()).json();
        let private = route(about(&report, "private"), "private")["measured"]["requests"].clone();
        let plain = about(&report, "static")["requests"].clone();
        (plain == BUSY && private == ASKED).then_some(report)
    });
    described(&lab, &report);

    // The one that can go comes first, with an address of its own; the token's stays, and why.
    let (goes, stays) = (&report["advice"][0], about(&report, "private"));
    assert_eq!(goes["names"], json!(["static.example"]), "{report:#}");
    assert_eq!(
        (&goes["verdict"], &goes["reasons"]),
        (&json!("own_address"), &json!([]))
    );
    assert_eq!(
        (&stays["verdict"], &stays["snippet"]),
        (&json!("stays"), &Value::Null)
    );
    assert_eq!(stays["names"], json!(["listener-0", "listener-1"]));
    let reasons = stays["reasons"].as_array().expect("reasons");
    assert!(
        reasons.iter().any(|reason| reason["key"] == "route.private.auth"),
        "{reasons:?}"
    );
    assert_eq!(route(stays, "open")["measured"], Value::Null);

    // The history's own figures, by another way, and the gateway's own counters, by a third.
    let (from, to) = (&report["period"]["from"], &report["period"]["to"]);
    for name in ["static", "private"] {
        let measured = &route(about(&report, name), name)["measured"];
        let series = get(
            &lab,
            &format!("/v1/history/series?route={name}&from={from}&to={to}&step=86400"),
        )
        .json();
        let point = &series["points"][0];
        assert_eq!(measured["requests"], point["requests"], "{series}");
        assert!(near(&measured["p50"], &point["tax"]), "{measured} {series}");
        let seconds = measured["seconds"].as_f64().expect("a number");
        let counted = tax_by_metrics(&lab, name);
        assert!(
            seconds > 0.0 && (seconds - counted).abs() < 1e-6,
            "{seconds} {counted}"
        );
    }
    let seconds = goes["seconds"].as_f64().expect("a number");
    let length = to
        .as_f64()
        .zip(from.as_f64())
        .map(|(to, from)| to - from)
        .expect("a period");
    let a_day = goes["seconds_a_day"].as_f64().expect("a number");
    assert!((a_day - seconds * 86_400.0 / length).abs() < 1e-6, "{goes}");

    // What is offered is taken.
    let snippet = goes["snippet"].as_str().expect("a snippet");
    let with = lab.write("with.toml", format!("{}\n{snippet}\n", settings.text()));
    bare_cli(&lab, ["check", text(&with)]).success();
    let told = cli(&lab, asked).success();
    assert!(
        told.contains("host static.example: could be steered directly, with an address of its own")
            && told.contains("listeners listener-0, listener-1: must stay")
            && told.contains("route.private.auth: it asks for a token"),
        "{told}"
    );

    // Without a daemon: the file, and the history that it names.
    daemon.sigterm();
    let read = bare_cli(&lab, ["advise", "--config", text(&file), "--json"]).json();
    assert!(
        near(&about(&read, "static")["seconds"], &goes["seconds"]),
        "{read:#}"
    );
    assert_eq!(about(&read, "static")["requests"], goes["requests"]);
    wrong(&lab, &file);
}

/// What makes no sense is told by one error that names it.
fn wrong(lab: &Lab, file: &Path) {
    let socket_text = text(&socket(lab)).to_owned();
    let gone = lab.directory().join("gone.toml");
    let broken = fs::read_to_string(file).expect("it is there").replacen(
        "upstream = \"web\"",
        "upstream = \"wed\"",
        1,
    );
    let broken = lab.write("broken.toml", broken);
    let config = text(file);
    for (arguments, code, names) in [
        (vec!["--last", "soon"], USAGE, "--last"),
        (vec!["--last", "0s", "--config", config], USAGE, "--last"),
        (
            vec!["--config", config, "--socket", &socket_text],
            USAGE,
            "--socket",
        ),
        (vec!["--config", text(&gone)], INVALID_CONFIG, "gone.toml"),
        (vec!["--config", text(&broken)], INVALID_CONFIG, "broken.toml:"),
        (vec!["--socket", &socket_text], 1, "admin.sock"),
    ] {
        let complaint = bare_cli(lab, [vec!["advise"], arguments].concat()).failure_with(code);
        assert!(complaint.contains(names), "{names} in {complaint}");
        assert_eq!(complaint.matches("error:").count(), 1, "{complaint}");
    }
    fs::write(
        lab.directory().join("history.db"),
        "something else, and long enough to look at",
    )
    .expect("written");
    let complaint = bare_cli(lab, ["advise", "--config", config]).failure_with(1);
    assert!(complaint.contains("history.db"), "{complaint}");
}

#[test]
fn without_a_history_there_are_verdicts_and_no_numbers() {
    let Some(lab) = tests::daemon::lab("advise-unmeasured") else {
        return;
    };
    let (signer, origin) = (Signer::hs256(), stage::origin(&lab));
    let daemon = Daemon::start(&lab, &settings(&lab, &signer, &origin, "").text());
    let socket_text = text(&socket(&lab)).to_owned();
    let asked = ["advise", "--socket", &socket_text];
    let report = cli(&lab, [&asked[..], &["--json"]].concat()).json();
    described(&lab, &report);
    let goes = about(&report, "static");
    assert_eq!(goes["verdict"], "own_address");
    for figure in ["requests", "seconds", "seconds_a_day"] {
        assert_eq!(goes[figure], Value::Null, "{goes}");
    }
    let told = cli(&lab, asked).success();
    assert!(
        told.starts_with("not measured: the configuration has no `[history]`")
            && told.contains("saves not measured"),
        "{told}"
    );
    daemon.sigterm();
}
