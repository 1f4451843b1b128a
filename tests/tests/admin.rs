//! The admin API of a running daemon: what it answers, whom it answers, and that nobody can hold it or the gateway up.
#![expect(
    clippy::expect_used,
    reason = "a step of a test that fails has to stop that test"
)]

use std::{
    fs,
    io::{self, Write},
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::Command,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use rustix::process::{Pid, test_kill_process};
use serde_json::{Value, json};
use tests::{
    admin::{Answer, as_user, ask},
    config::PRIVATE,
    daemon::{Finished, INVALID_CONFIG, bare_cli, cli},
    http::{self, Client, Request},
    lab::{Lab, VIP_V4},
    stage::{Stage, gateway},
    wait::{PATIENCE, eventually, within},
};

/// Somebody else.
const NOBODY: u32 = 65_534;
/// A group that no user of this machine has.
const OPERATORS: u32 = 54_321;
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn socket(lab: &Lab) -> PathBuf {
    lab.directory().join("admin.sock")
}

/// An address of the edge on a port that nothing uses there.
fn address(port: u16) -> SocketAddr {
    (VIP_V4, port).into()
}

/// A daemon with the keys of `[admin]`, and its socket in the lab's directory.
fn stage(name: &str, admin: impl FnOnce(&Lab) -> String) -> Option<Stage> {
    let lab = tests::daemon::lab(name)?;
    let signer = tests::token::Signer::hs256();
    let origin = tests::stage::origin(&lab);
    let mut settings = tests::config::Settings::standard(&lab, &signer, origin.address());
    // Whoever is let in or not is decided at the socket, not at its directory.
    fs::set_permissions(lab.directory(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    // Every reload is one that was asked for.
    settings.extra = format!(
        "watch = false\n[admin]\nsocket = \"{}\"\n{}",
        socket(&lab).display(),
        admin(&lab)
    ) + &format!(
        "\n[history]\npath = \"{}\"\nevery = \"1s\"\n",
        lab.directory().join("history.db").display()
    );
    let daemon = tests::daemon::Daemon::start(&lab, &settings.text());
    Some(Stage {
        daemon,
        settings,
        origin,
        signer,
        lab,
    })
}

#[track_caller]
fn get(lab: &Lab, target: &str) -> Answer {
    ask(&socket(lab), "GET", target, None).expect("the socket answers")
}

fn asking(lab: &Lab, verb: &[&str]) -> Finished {
    let socket = socket(lab);
    let socket = socket.to_str().expect("the path is text");
    cli(lab, [verb, &["--socket", socket]].concat())
}

/// The description, with its schemas ready.
struct Described(Value);

impl Described {
    /// The operation of a method and path.
    fn operation(&self, method: &str, path: &str) -> &Value {
        &self.0["paths"][path][method.to_lowercase()]
    }

    /// Holds an answer to the description: status, media type, schema.
    #[track_caller]
    fn holds(&self, method: &str, path: &str, answer: &Answer) {
        let response = &self.operation(method, path)["responses"][answer.status.to_string()];
        assert!(
            response.is_object(),
            "{method} {path} is not described: {answer:?}"
        );
        let content = &response["content"][answer.media_type()];
        assert!(content.is_object(), "{method} {path}: {answer:?}");
        if answer.media_type().ends_with("json") {
            let schema = json!({
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "components": self.0["components"],
                "allOf": [content["schema"]],
            });
            let validator = jsonschema::validator_for(&schema).expect("a schema");
            let errors: Vec<String> = validator
                .iter_errors(&answer.json())
                .map(|error| format!("{error} at {}", error.instance_path()))
                .collect();
            assert!(
                errors.is_empty(),
                "{method} {path}: {errors:#?} in {}",
                answer.body
            );
        }
    }
}

/// What every operation is asked with: method, path, target, body, status.
const ASKED: &[(&str, &str, &str, Option<&str>, u16)] = &[
    ("GET", "/livez", "/livez", None, 200),
    ("GET", "/readyz", "/readyz", None, 200),
    ("GET", "/metrics", "/metrics", None, 200),
    ("GET", "/v1/openapi.json", "/v1/openapi.json", None, 200),
    ("GET", "/v1/status", "/v1/status", None, 200),
    ("GET", "/v1/config", "/v1/config", None, 200),
    ("GET", "/v1/routes", "/v1/routes", None, 200),
    ("GET", "/v1/upstreams", "/v1/upstreams", None, 200),
    (
        "POST",
        "/v1/bans",
        "/v1/bans",
        Some(r#"{"network": "192.0.2.7", "seconds": 60, "reason": "a test"}"#),
        201,
    ),
    (
        "POST",
        "/v1/bans",
        "/v1/bans",
        Some(r#"{"network": "192.0.2.0/24", "seconds": 60}"#),
        201,
    ),
    ("GET", "/v1/bans", "/v1/bans?limit=1", None, 200),
    (
        "DELETE",
        "/v1/bans/{network}",
        "/v1/bans/192.0.2.0%2F24",
        None,
        200,
    ),
    ("DELETE", "/v1/bans/{network}", "/v1/bans/192.0.2.9", None, 404),
    (
        "DELETE",
        "/v1/bans/{network}",
        "/v1/bans/192.0.2.0%2F23",
        None,
        400,
    ),
    (
        "POST",
        "/v1/bans",
        "/v1/bans",
        Some(r#"{"network": "192.0.2.7", "seconds": 0}"#),
        400,
    ),
    (
        "POST",
        "/v1/bans",
        "/v1/bans",
        Some(r#"{"network": "192.0.2.7", "seconds": 1, "for": 1}"#),
        400,
    ),
    ("POST", "/v1/bans", "/v1/bans", Some("{"), 400),
    ("GET", "/v1/limits", "/v1/limits", None, 200),
    ("GET", "/v1/services", "/v1/services", None, 200),
    ("GET", "/v1/sources", "/v1/sources", None, 200),
    ("GET", "/v1/jwks", "/v1/jwks", None, 200),
    ("GET", "/v1/lists", "/v1/lists", None, 200),
    ("GET", "/v1/lists/{list}", "/v1/lists/deny", None, 200),
    ("GET", "/v1/lists/{list}", "/v1/lists/other", None, 404),
    ("GET", "/v1/lists/{list}", "/v1/lists/allow?limit=0", None, 400),
    ("POST", "/v1/reload", "/v1/reload", None, 200),
    ("POST", "/v1/reload", "/v1/reload", Some("{}"), 400),
    ("GET", "/v1/events", "/v1/events?after=0&wait=1", None, 200),
    ("GET", "/v1/events", "/v1/events?before=0", None, 400),
    ("GET", "/v1/history/routes", "/v1/history/routes", None, 200),
    (
        "GET",
        "/v1/history/changes",
        "/v1/history/changes?limit=5",
        None,
        200,
    ),
    (
        "GET",
        "/v1/history/series",
        "/v1/history/series?route=private&step=5",
        None,
        200,
    ),
    ("GET", "/v1/history/series", "/v1/history/series", None, 400),
    (
        "GET",
        "/v1/history/series",
        "/v1/history/series?route=nobody",
        None,
        404,
    ),
    (
        "GET",
        "/v1/history/compare",
        "/v1/history/compare?route=private&with=before&for=5days",
        None,
        404,
    ),
    (
        "GET",
        "/v1/history/compare",
        "/v1/history/compare?route=private&with=soon",
        None,
        400,
    ),
    (
        "GET",
        "/v1/history/compare",
        "/v1/history/compare?route=private",
        None,
        404,
    ),
    ("GET", "/v1/history/advice", "/v1/history/advice", None, 200),
    (
        "GET",
        "/v1/history/advice",
        "/v1/history/advice?last=7d",
        None,
        200,
    ),
    (
        "GET",
        "/v1/history/advice",
        "/v1/history/advice?last=soon",
        None,
        400,
    ),
    (
        "POST",
        "/v1/drain",
        "/v1/drain",
        Some(r#"{"deadline_seconds": 0}"#),
        400,
    ),
    (
        "POST",
        "/v1/drain",
        "/v1/drain",
        Some(r#"{"deadline_seconds": 5}"#),
        202,
    ),
];

#[test]
fn every_operation_answers_as_described_and_nothing_else_does() {
    let Some(stage) = stage("admin-described", |_| String::new()) else {
        return;
    };
    let private = Request::get(PRIVATE).bearer(&stage.signer.token());
    for request in [Request::get("/"), private, Request::get(PRIVATE)] {
        stage
            .request(stage.lab.client(), VIP_V4.into(), &request)
            .expect("served");
    }
    let described = Described(get(&stage.lab, "/v1/openapi.json").json());
    eventually("the first cell of the history", || {
        let routes = get(&stage.lab, "/v1/history/routes").json();
        routes["routes"]
            .as_array()
            .is_some_and(|routes| routes.len() == 2)
            .then_some(())
    });
    let mut left: Vec<(String, String)> = described.0["paths"]
        .as_object()
        .expect("paths")
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().expect("methods").keys();
            methods.map(|method| (method.to_uppercase(), path.clone()))
        })
        .collect();
    for path in [
        "/dashboard",
        "/v1",
        "/v2/status",
        "/v1/status/",
        "/v1/token",
        "/v1/lists/deny/more",
    ] {
        let answer = get(&stage.lab, path);
        assert_eq!(
            (answer.status, answer.media_type()),
            (404, "application/problem+json"),
            "{path}"
        );
    }
    for (method, path) in &left {
        let answer =
            ask(&socket(&stage.lab), "PATCH", &path.replace(['{', '}'], ""), None).expect("an answer");
        assert!(matches!(answer.status, 404 | 405), "{path}: {answer:?}");
        assert!(
            answer.status == 404 || answer.head.contains(&method.to_lowercase()),
            "{path}: {answer:?}"
        );
    }
    for (method, path, target, body, status) in ASKED {
        let answer = ask(&socket(&stage.lab), method, target, *body).expect("an answer");
        assert_eq!(answer.status, *status, "{method} {target}: {answer:?}");
        described.holds(method, path, &answer);
        left.retain(|one| (one.0.as_str(), one.1.as_str()) != (*method, *path));
    }
    // What hands over to a new process has tests of its own.
    assert_eq!(left, [("POST".to_owned(), "/v1/upgrade".to_owned())]);
    assert!(stage.daemon.wait().success(), "it was drained");
}

#[test]
fn an_upgrade_answers_as_described_and_its_verb_tells_what_came_of_it() {
    let Some(mut stage) = stage("admin-upgrade", |_| String::new()) else {
        return;
    };
    let described = Described(get(&stage.lab, "/v1/openapi.json").json());
    let process = |answer: &Value| {
        let id = answer["process"].as_i64().and_then(|id| i32::try_from(id).ok());
        id.and_then(Pid::from_raw).expect("a process")
    };
    let answer = ask(&socket(&stage.lab), "POST", "/v1/upgrade", None).expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    described.holds("POST", "/v1/upgrade", &answer);
    let second = process(&answer.json());
    assert_ne!(second, stage.daemon.id());
    stage.assert_served(stage.lab.client());
    eventually("the first one to finish", || {
        stage.daemon.has_ended().then_some(())
    });

    // A new process that does not start: the one that serves carries on, and its socket stays.
    let sound = stage.settings.text();
    stage
        .lab
        .write("breakwater.toml", sound.replacen("half_life", "halflife", 1));
    let refused = asking(&stage.lab, &["upgrade"]).failure_with(INVALID_CONFIG);
    assert!(refused.contains("ended before it was ready"), "{refused}");
    let answer = ask(&socket(&stage.lab), "POST", "/v1/upgrade", None).expect("an answer");
    assert_eq!(answer.status, 422, "{answer:?}");
    described.holds("POST", "/v1/upgrade", &answer);
    assert!(test_kill_process(second).is_ok());

    stage.lab.write("breakwater.toml", &sound);
    let third = process(&asking(&stage.lab, &["upgrade", "--json"]).json());
    assert_ne!(third, second);
    let fourth = asking(&stage.lab, &["upgrade"]).success();
    assert!(fourth.contains("serves now; the old one finishes"), "{fourth}");
    eventually("the processes before to end", || {
        [second, third]
            .iter()
            .all(|process| test_kill_process(*process).is_err())
            .then_some(())
    });
    let metrics = get(&stage.lab, "/metrics").body;
    let counted = r#"breakwater_upgrades_total{result="ok"} 3"#;
    assert!(metrics.lines().any(|line| line == counted), "{metrics}");
    assert!(asking(&stage.lab, &["drain"]).success().contains("draining"));
    eventually("the last one to end", || {
        asking(&stage.lab, &["upgrade"])
            .stderr
            .contains("no daemon answers")
            .then_some(())
    });
    let alone = asking(&stage.lab, &["upgrade"]).failure_with(1);
    assert!(alone.contains("--socket"), "{alone}");
}

#[test]
fn metrics_count_what_happened_and_the_configuration_shows_no_secret() {
    let Some(stage) = stage("admin-metrics", |_| String::new()) else {
        return;
    };
    let client = stage.lab.client();
    for _ in 0..7 {
        let served = stage
            .request(client, VIP_V4.into(), &Request::get("/"))
            .expect("served");
        assert_eq!(served.status, 200);
    }
    let refused = stage
        .request(client, VIP_V4.into(), &Request::get(PRIVATE))
        .expect("served");
    assert_eq!(refused.status, 401);
    let counted = within(PATIENCE, || {
        let text = get(&stage.lab, "/metrics").body;
        let has = |line: &str| text.lines().any(|own| own == line);
        let all = has(r#"breakwater_authentication_failures_total{reason="token_missing"} 1"#)
            && has(r#"breakwater_upstream_requests_total{upstream="web",code="2xx"} 7"#)
            && has("breakwater_ready 1.0")
            && text.lines().any(|line| {
                line.starts_with("breakwater_requests_total{") && line.ends_with("code=\"2xx\"} 7")
            });
        (all && text.contains("breakwater_shield_packets_total{service=\"http-v4\",outcome=\"pass\""))
            .then_some(text)
    });
    let text = counted.unwrap_or_else(|| panic!("{}", get(&stage.lab, "/metrics").body));
    let attached = stage.lab.wan_interfaces().iter().all(|name| {
        text.contains(&format!(
            "breakwater_shield_attached{{interface=\"{name}\",mode=\"native\"}} 1.0"
        ))
    });
    assert!(attached, "{text}");
    let config = get(&stage.lab, "/v1/config").json();
    assert_eq!(config["document"]["route"][0]["upstream"], "web", "{config:#}");
    let status = asking(&stage.lab, &["status", "--json"]).json();
    assert_eq!(status["gateway"]["refusals"]["token_missing"], 1, "{status:#}");
}

#[test]
fn readiness_goes_with_the_shield_and_open_addresses_serve_what_they_are_for() {
    let (metrics, health) = (address(9181), address(9182));
    let keys = format!("metrics_address = \"{metrics}\"\nhealth_address = \"{health}\"\n");
    let Some(stage) = stage("admin-open", |_| keys) else {
        return;
    };
    let edge = stage.lab.edge();
    let status = |at: SocketAddr, path: &str| http::once(edge, at, &Request::get(path)).expect("an answer");
    assert_eq!(status(health, "/livez").status, 200);
    assert_eq!(
        status(health, "/readyz").json(),
        json!({"ready": true, "reasons": []})
    );
    assert_eq!(status(metrics, "/metrics").status, 200);
    for (at, path) in [
        (health, "/metrics"),
        (health, "/v1/status"),
        (metrics, "/readyz"),
        (metrics, "/v1/config"),
    ] {
        assert_eq!(status(at, path).status, 404, "{at}{path}");
    }
    for at in [health, metrics] {
        let drain = http::once(edge, at, &Request::new("POST", "/v1/drain").body("")).expect("an answer");
        assert_eq!(drain.status, 404, "{at}");
    }
    let interface = stage.lab.wan_interfaces().remove(0);
    cli(&stage.lab, ["detach", "--interface", &interface]).success();
    let unready = status(health, "/readyz");
    assert_eq!(unready.status, 503);
    assert_eq!(
        unready.json()["reasons"][0],
        format!("the shield is not on {interface}")
    );
    assert_eq!(status(health, "/livez").status, 200);
}

#[test]
fn only_whom_the_socket_is_for_is_let_in() {
    let Some(stage) = stage("admin-socket", |_| format!("group = \"{OPERATORS}\"\n")) else {
        return;
    };
    let socket = socket(&stage.lab);
    let ask_as = |uid: u32, groups: &[u32]| as_user(uid, groups, || ask(&socket, "GET", "/v1/status", None));
    assert_eq!(
        fs::metadata(&socket).expect("it is there").permissions().mode() & 0o777,
        0o660
    );
    let stranger = ask_as(NOBODY, &[NOBODY]).expect_err("the file system refuses");
    assert_eq!(stranger.kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(ask_as(NOBODY, &[OPERATORS]).expect("a member").status, 200);
    assert_eq!(
        ask_as(NOBODY, &[NOBODY, OPERATORS]).expect("a member too").status,
        200
    );
    // Loosened by hand: the kernel still says who calls.
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).expect("root may");
    let stranger = ask_as(NOBODY, &[NOBODY]).expect("an answer");
    assert_eq!(
        (stranger.status, stranger.media_type()),
        (403, "application/problem+json")
    );
    assert!(!stranger.body.contains("gateway"), "{stranger:?}");
    let metrics = get(&stage.lab, "/metrics").body;
    assert!(
        metrics.contains("breakwater_admin_refused_total{reason=\"peer\"} 1\n"),
        "{metrics}"
    );
}

#[test]
fn over_tcp_the_token_opens_and_nothing_else() {
    let at = address(9180);
    let keys = |lab: &Lab| {
        let token = lab.write("admin.token", format!("{TOKEN}\n"));
        format!("address = \"{at}\"\ntoken_file = {token:?}\n")
    };
    let Some(stage) = stage("admin-token", keys) else {
        return;
    };
    let edge = stage.lab.edge();
    let status = |request: Request| http::once(edge, at, &request).expect("an answer");
    let bare = || Request::get("/v1/status");
    assert_eq!(status(bare().bearer(TOKEN)).status, 200);
    assert_eq!(
        status(bare().field("Authorization", &format!("bearer {TOKEN}"))).status,
        200
    );
    let longer = format!("{TOKEN}0");
    for refused in [
        bare(),
        bare().bearer(&TOKEN[1..]),
        bare().bearer(&longer),
        bare().bearer(""),
        bare().bearer(TOKEN).bearer(TOKEN),
        bare().field("Authorization", &format!("Basic {TOKEN}")),
        Request::get("/livez"),
        Request::get("/nowhere"),
        Request::new("POST", "/v1/drain").body(""),
    ] {
        let answer = status(refused.clone());
        assert_eq!(answer.status, 401, "{refused:?}");
        assert_eq!(answer.field("www-authenticate"), Some("Bearer"));
    }
    // Slow callers make way: 200 half heads, here and at the socket, keep nobody out.
    let mut slow: Vec<Client> = Vec::new();
    let mut slow_local: Vec<UnixStream> = Vec::new();
    for _ in 0..200 {
        let mut client = Client::connect(edge, at).expect("the backlog takes it");
        // It may have made way already.
        let _ = client.write(b"GET /v1/status HTTP/1.1\r\nX: ");
        slow.push(client);
        let mut local = UnixStream::connect(socket(&stage.lab)).expect("the backlog takes it");
        let _ = local.write_all(b"POST /v1/reload HTTP/1.1\r\nContent-Length: 60000\r\n\r\n{");
        slow_local.push(local);
    }
    assert_eq!(status(bare().bearer(TOKEN)).status, 200);
    let metrics = get(&stage.lab, "/metrics").body;
    let crowded = metrics.lines().find(|line| line.contains("reason=\"crowded\""));
    assert!(crowded.is_some_and(|line| !line.ends_with(" 0")), "{crowded:?}");
    stage.assert_served(stage.lab.client());
}

/// Writes a certificate that `issuer` signed, and its key.
fn certify(lab: &Lab, name: &str, issuer: &CertifiedIssuer<'_, KeyPair>) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec![name.to_owned(), VIP_V4.to_string()]).expect("names");
    params.distinguished_name = called(name);
    let certificate = params.signed_by(&key, issuer).expect("signed");
    (
        lab.write(&format!("{name}.pem"), certificate.pem()),
        lab.write(&format!("{name}.key"), key.serialize_pem()),
    )
}

fn called(name: &str) -> DistinguishedName {
    let mut called = DistinguishedName::new();
    called.push(DnType::CommonName, name);
    called
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.distinguished_name = called("authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

#[test]
fn over_tls_only_a_certificate_that_is_vouched_for_opens() {
    let at = address(9180);
    let (ours, theirs) = (authority(), authority());
    let keys = |lab: &Lab| {
        let (certificate, key) = certify(lab, "server", &ours);
        let ca = lab.write("ca.pem", ours.pem());
        format!(
            "address = \"{at}\"\n[admin.tls]\ncertificate_file = {certificate:?}\nkey_file = {key:?}\nclient_ca_file = {ca:?}\n"
        )
    };
    let Some(stage) = stage("admin-certificates", keys) else {
        return;
    };
    let curl = |pair: Option<&(PathBuf, PathBuf)>| {
        let mut command = Command::new("curl");
        command.args([
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--max-time",
            "10",
            "--cacert",
        ]);
        command.arg(stage.lab.directory().join("ca.pem"));
        if let Some((certificate, key)) = pair {
            command.arg("--cert").arg(certificate).arg("--key").arg(key);
        }
        command.arg(format!("https://{at}/v1/status"));
        let output = stage.lab.edge().output(command).expect("curl runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr))
    };
    let (status, complaint) = curl(Some(&certify(&stage.lab, "operator", &ours)));
    assert_eq!(status, "200", "{complaint}");
    assert_eq!(curl(None).0, "000");
    assert_eq!(curl(Some(&certify(&stage.lab, "stranger", &theirs))).0, "000");
    let metrics = get(&stage.lab, "/metrics").body;
    assert!(
        metrics.contains("breakwater_admin_refused_total{reason=\"tls\"} 2\n"),
        "{metrics}"
    );
}

#[test]
fn the_verbs_ask_the_daemon_and_say_why_it_does_not() {
    let Some(stage) = stage("admin-verbs", |_| String::new()) else {
        return;
    };
    let lab = &stage.lab;
    assert_eq!(
        asking(lab, &["reload"]).success().trim(),
        "reloaded: nothing is different"
    );
    let file = lab.directory().join("breakwater.toml");
    let good = fs::read_to_string(&file).expect("the configuration");
    fs::write(&file, good.replace("upstream = \"web\"", "upstream = \"wed\"")).expect("writable");
    let complaint = asking(lab, &["reload"]).failure_with(INVALID_CONFIG);
    assert!(
        complaint.contains("breakwater.toml") && complaint.contains("wed"),
        "{complaint}"
    );
    stage.assert_served(lab.client());
    let more = good.clone()
        + "\n[[upstream]]\nname = \"spare\"\nendpoints = [\"192.0.2.1:80\"]\n\n[gateway.traces]\nendpoint = \"http://192.0.2.1:4318\"\n";
    fs::write(
        &file,
        more.replacen("[admin]\n", "[admin]\nhealth_address = \"127.0.0.1:9\"\n", 1),
    )
    .expect("writable");
    let told = asking(lab, &["reload"]).success();
    assert!(told.contains("upstream spare added"), "{told}");
    for what in ["not in force: admin", "not in force: gateway.traces"] {
        assert!(told.contains(what), "{told}");
    }
    let metrics = get(lab, "/metrics").body;
    for line in [
        "breakwater_reloads_total{result=\"ok\"} 2",
        "breakwater_reloads_total{result=\"failed\"} 1",
        "breakwater_config_last_reload_successful 1.0",
    ] {
        assert!(metrics.lines().any(|own| own == line), "{line} in {metrics}");
    }
    let nowhere = lab.directory().join("nowhere.sock");
    let silent = cli(lab, ["drain", "--socket", nowhere.to_str().expect("text")]).failure_with(1);
    assert!(
        silent.contains("no daemon answers") && silent.contains("help: "),
        "{silent}"
    );
    assert!(
        bare_cli(lab, ["drain", "--deadline", "0s"])
            .failure_with(2)
            .contains("deadline")
    );
    let told = asking(lab, &["drain", "--deadline", "5s"]).success();
    assert!(told.starts_with("draining"), "{told}");
    assert!(stage.daemon.wait().success());
    assert!(!socket(lab).exists(), "the socket goes with the daemon");
}

#[test]
fn an_address_that_asks_for_nothing_is_refused_with_file_line_and_key() {
    let Some(lab) = tests::daemon::lab("admin-refused") else {
        return;
    };
    let signer = tests::token::Signer::hs256();
    let mut settings = tests::config::Settings::standard(&lab, &signer, gateway(VIP_V4.into()));
    let weak = lab.write("weak.token", "short\n");
    let refused = |settings: &tests::config::Settings, wanted: &str| {
        let file = lab.write("bad.toml", settings.text());
        let complaint = cli(&lab, ["run", "--config", path(&file)]).failure_with(INVALID_CONFIG);
        let is_placed = complaint.contains("bad.toml:") && complaint.contains(wanted);
        assert!(is_placed, "{wanted}: {complaint}");
    };
    for (keys, wanted) in [
        ("address = \"127.0.0.1:9180\"".to_owned(), "admin.address"),
        (format!("token_file = {weak:?}"), "admin.token_file"),
        (
            format!("address = \"127.0.0.1:9180\"\ntoken_file = {weak:?}"),
            "admin.token_file",
        ),
        (
            format!("metrics_address = \"{}\"", gateway(VIP_V4.into())),
            "admin.metrics_address",
        ),
        ("group = \"no-such-group\"".to_owned(), "admin.group"),
    ] {
        settings.extra = format!("[admin]\n{keys}\n");
        refused(&settings, wanted);
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}
