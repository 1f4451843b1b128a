//! Each kind of offence by a real client doing it, from an address of its own, to its ban in the kernel; and whom a ban
//! meets: shared addresses, clients behind a proxy, a client that comes again after a restart, the world.
#![expect(
    clippy::expect_used,
    reason = "a step of a test that fails has to stop that test"
)]

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tests::{
    config::{PRIVATE, Settings},
    daemon::{self, Daemon, cli},
    http::{Client, Request},
    lab::{Host, Lab},
    origin::{Origin, Reply},
    stage::{SILENCE, Stage, gateway, is_answered, names_address, vips},
    token::{Signer, claims, forged, with},
    wait::{PATIENCE, eventually},
};

/// Points that ban in these tests.
const THRESHOLD: u32 = 6;
/// Most that one client does before it has to be banned.
const MOST: u32 = 40;

/// Adds an address to a host, one that shares its network.
fn another_address(host: &Host, last: u8) -> Ipv4Addr {
    let [a, b, c, _] = host.v4.octets();
    let address = Ipv4Addr::new(a, b, c, last);
    let interface = host.interface;
    host.namespace
        .ip(&format!("addr add {address}/24 dev {interface}"))
        .expect("the address is free");
    address
}

/// Connects from an address of a host.
fn connect_from(host: &Host, from: Ipv4Addr, limit: Duration) -> std::io::Result<TcpStream> {
    let to = gateway(vips()[0]);
    host.namespace.enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.connect_timeout(&to.into(), limit)?;
        socket.set_read_timeout(Some(limit))?;
        socket.set_write_timeout(Some(limit))?;
        Ok(socket.into())
    })
}

/// Sends bytes on a connection of its own and reads until the gateway closes or nothing comes.
fn send(host: &Host, from: Ipv4Addr, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    send_within(host, from, bytes, SILENCE)
}

fn send_within(host: &Host, from: Ipv4Addr, bytes: &[u8], limit: Duration) -> std::io::Result<Vec<u8>> {
    let mut stream = connect_from(host, from, limit)?;
    stream.write_all(bytes)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn get(path: &str, fields: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n{fields}\r\n").into_bytes()
}

fn bearer(path: &str, token: &str) -> Vec<u8> {
    get(path, &format!("Authorization: Bearer {token}\r\n"))
}

/// The reason that the list of bans has for an address.
fn reason(lab: &Lab, address: IpAddr) -> Option<String> {
    let list = cli(lab, ["ban", "list", "--json"]).json();
    let all = match &list {
        Value::Array(all) => all,
        other => other.as_object()?.values().find_map(Value::as_array)?,
    };
    let entry = all.iter().find(|entry| names_address(&entry["net"], address))?;
    Some(entry["reason"].as_str()?.to_owned())
}

fn wait_for_reason(lab: &Lab, address: IpAddr) -> String {
    eventually(format_args!("{address} to be banned"), || reason(lab, address))
}

/// Sends the same again and again, each time on a new connection, until its sender is banned; why it is.
fn until_banned(lab: &Lab, host: &Host, from: Ipv4Addr, bytes: &[u8]) -> String {
    for _ in 0..MOST {
        // Once banned, nothing comes back.
        let _ = send_within(host, from, bytes, Duration::from_millis(400));
        if let Some(reason) = reason(lab, from.into()) {
            return reason;
        }
    }
    wait_for_reason(lab, from.into())
}

/// A key that a JWKS file can have; nobody knows its private half (RFC 7517, appendix A.1).
const JWKS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"1","alg":"ES256",
"x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;

fn b64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of offences")]
fn each_kind_by_a_client_that_does_it() {
    let Some(lab) = daemon::lab("offences") else {
        return;
    };
    let signer = Signer::hs256();
    let origin = Origin::start(&lab.origin().namespace, (lab.origin().v4, 0).into(), |request| {
        let status = match request.target().as_str() {
            "/site/401" => 401,
            "/site/403" => 403,
            "/site/404" | "/site/.env" => 404,
            _ => 200,
        };
        Reply::Body(status, b"{}".to_vec())
    })
    .expect("a port is free");
    let jwks = lab.write("keys.json", JWKS).display().to_string();
    let weights = [
        "missing_token",
        "forbidden",
        "no_route",
        "unauthorized",
        "denied",
        "not_found",
        "rate_limited",
        "oversized",
        "too_many_connections",
    ]
    .join(" = 1\n");
    let settings = Settings {
        offences: (THRESHOLD, "60s", "10m"),
        extra: format!(
            "[gateway.limits]\nheader_timeout = \"200ms\"\nconnections_per_address = 4\n\
             [[provider]]\nname = \"curve\"\nalgorithms = [\"ES256\"]\njwks_file = {jwks:?}\nissuer = \"https://curve.test\"\n\
             [[route]]\nname = \"scoped\"\npath = \"/scoped\"\nupstream = \"web\"\nauth = \"required\"\nproviders = [\"issuer\"]\nscopes = [\"admin\"]\n\
             [[route]]\nname = \"curve\"\npath = \"/curve\"\nupstream = \"web\"\nauth = \"required\"\nproviders = [\"curve\"]\n\
             [[route]]\nname = \"limited\"\npath = \"/limited\"\nupstream = \"web\"\nauth = \"none\"\n\
             [[limit]]\nname = \"two\"\nroutes = [\"limited\"]\nby = [\"address\"]\nrequests = 2\nper = \"1h\"\n\
             [offences.weights]\n{weights} = 1\n"
        ),
        ..Settings::standard(&lab, &signer, origin.address())
    };
    let text = settings.text().replace("path = \"/\"", "path = \"/site\"");
    let _daemon = Daemon::start(&lab, &text);
    let good = signer.token();
    let none = format!(
        "{}.{}.AAAA",
        b64(r#"{"alg":"none"}"#),
        b64(&claims("x").to_string())
    );
    let unknown = format!(
        "{}.{}.{}",
        b64(r#"{"alg":"ES256","kid":"nobody"}"#),
        b64(r#"{"iss":"https://curve.test"}"#),
        "A".repeat(86)
    );
    let long = get(&format!("/site/{}", "a".repeat(9_000)), "");
    let audience = signer.sign(&with(claims("x"), "aud", json!("somebody-else")));
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("forged_token", bearer(PRIVATE, &forged(&good))),
        ("bad_token", bearer(PRIVATE, &audience)),
        ("algorithm_attack", bearer(PRIVATE, &none)),
        ("unknown_key", bearer("/curve", &unknown)),
        ("missing_token", get(PRIVATE, "")),
        ("forbidden", bearer("/scoped", &good)),
        ("no_route", get("/elsewhere", "")),
        ("probe", get("/.env", "")),
        ("unauthorized", get("/site/401", "")),
        ("denied", get("/site/403", "")),
        ("not_found", get("/site/404", "")),
        ("rate_limited", get("/limited", "")),
        ("malformed", b"GET / HTTP/1.1\r\nHost: x\r\nbad field: y\r\n\r\n".to_vec()),
        (
            "smuggling",
            b"POST /site HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
        ),
        ("slow_client", b"GET /site HTTP/1.1\r\nHost: x\r\n".to_vec()),
        ("oversized", long),
    ];
    let (attacker, mut last) = (lab.attacker(), 100);
    for (kind, bytes) in rows {
        let from = another_address(attacker, last);
        last += 1;
        let told = until_banned(&lab, attacker, from, &bytes);
        assert!(told.contains(kind), "{kind}: {told}");
    }
    // Many connections at once.
    let from = another_address(attacker, last);
    let mut held = Vec::new();
    for _ in 0..MOST {
        match connect_from(attacker, from, SILENCE) {
            Ok(stream) => held.push(stream),
            Err(_) => break,
        }
    }
    assert!(wait_for_reason(&lab, from.into()).contains("too_many_connections"));
    // HTTP/2 pings without end.
    let from = another_address(attacker, last + 1);
    let mut flood = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for _ in 0..20_000 {
        flood.extend_from_slice(b"\0\0\x08\x06\0\0\0\0\0pingping");
    }
    assert!(until_banned(&lab, attacker, from, &flood).contains("http2_flood"));
    // The operator is told what the gateway alone knows.
    let status = cli(&lab, ["status", "--json"]).json();
    let gateway = &status["gateway"];
    assert_eq!(gateway["limits"][0]["name"], "two", "{status:#}");
    assert!(gateway["limits"][0]["refused"].as_u64() > Some(0), "{gateway:#}");
    assert!(
        gateway["refusals"]["rate_limited"].as_u64() > Some(0),
        "{gateway:#}"
    );
    assert!(gateway["auth"]["cache"]["hits"].as_u64() > Some(0), "{gateway:#}");
    assert_eq!(
        gateway["auth"]["providers"][1]["keys"][0]["kid"], "1",
        "{gateway:#}"
    );
    let told = cli(&lab, ["status"]).success();
    assert!(
        told.contains("limit two") && told.contains("provider curve"),
        "{told}"
    );
    // Everybody else is served.
    let answer = send(lab.client(), lab.client().v4, &get("/site/ok", "")).expect("an answer");
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert!(reason(&lab, attacker.v4.into()).is_none());
}

/// Forged tokens, as many as ban.
fn offend(stage: &Stage, from: Ipv4Addr) {
    let bytes = bearer(PRIVATE, &forged(&stage.signer.token()));
    for _ in 0..THRESHOLD {
        let answer = send(stage.lab.attacker(), from, &bytes).expect("an answer");
        assert!(
            answer.starts_with(b"HTTP/1.1 401"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
}

/// Behind a shared address a ban spares who has a connection; and a pardon starts anew.
#[test]
fn shared_addresses_keep_their_open_connections() {
    let Some(stage) = Stage::new("offences-shared", |settings| Settings {
        offences: (THRESHOLD, "60s", "60s"),
        offences_extra: "shared = [\"198.18.0.0/15\"]".into(),
        ..settings
    }) else {
        return;
    };
    let attacker = stage.lab.attacker();
    let vip = vips()[0];
    let mut neighbour = Client::connect(&attacker.namespace, gateway(vip)).expect("connects");
    let private = Request::get(PRIVATE).bearer(&stage.signer.token());
    assert_eq!(neighbour.send(&private).unwrap().status, 200);
    offend(&stage, attacker.v4);
    wait_for_reason(&stage.lab, attacker.v4.into());
    assert!(!is_answered(attacker, vip, SILENCE), "nothing new is let in");
    for _ in 0..3 {
        assert_eq!(
            neighbour
                .send(&private)
                .expect("the open connection goes on")
                .status,
            200
        );
    }
    cli(&stage.lab, ["ban", "del", &attacker.v4.to_string()]).success();
    eventually("the pardoned to be answered", || {
        is_answered(attacker, vip, SILENCE).then_some(())
    });
    // The score is forgotten too: one more offence does not ban.
    let answer = send(
        attacker,
        attacker.v4,
        &bearer(PRIVATE, &forged(&stage.signer.token())),
    )
    .expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 401"));
    assert!(is_answered(attacker, vip, PATIENCE));
}

/// A PROXY protocol header (version 1) in front of a request.
fn proxied(client: &str, request: &[u8]) -> Vec<u8> {
    [
        format!("PROXY TCP4 {client} 203.0.113.1 40000 8080\r\n").as_bytes(),
        request,
    ]
    .concat()
}

/// The clients of a trusted proxy are scored and kept out one by one, by the gateway; the proxy never is.
#[test]
fn a_proxys_clients_are_kept_out_one_by_one_and_the_proxy_never() {
    let Some(stage) = Stage::new("offences-proxy", |settings| Settings {
        offences: (THRESHOLD, "60s", "60s"),
        listener_extra: "proxy_protocol = [\"198.18.0.0/15\"]".into(),
        ..settings
    }) else {
        return;
    };
    let proxy = stage.lab.attacker();
    let bad = bearer(PRIVATE, &forged(&stage.signer.token()));
    let ask = |client: &str, bytes: &[u8]| {
        // A connection for somebody who is kept out is closed.
        let answer = send(proxy, proxy.v4, &proxied(client, bytes)).unwrap_or_default();
        String::from_utf8_lossy(&answer).into_owned()
    };
    let mut refused = 0;
    while ask("192.0.2.7", &bad).starts_with("HTTP/1.1 401") {
        refused += 1;
        assert!(refused < MOST, "{refused} refusals and no ban");
    }
    assert!(stage.daemon.logged("kept out by the gateway", PATIENCE));
    let site = get("/", "");
    eventually("the client to be refused", || {
        (!ask("192.0.2.7", &site).starts_with("HTTP/1.1 200")).then_some(())
    });
    for neighbour in ["192.0.2.8", "192.0.2.70"] {
        assert!(ask(neighbour, &site).starts_with("HTTP/1.1 200"), "{neighbour}");
    }
    assert!(!names_address(&stage.bans(), proxy.v4.into()));
    assert!(names_address(&stage.bans(), "192.0.2.7".parse().unwrap()));
    cli(&stage.lab, ["ban", "del", "192.0.2.7"]).success();
    eventually("the pardon to reach the gateway", || {
        ask("192.0.2.7", &site).starts_with("HTTP/1.1 200").then_some(())
    });
    assert!(stage.daemon.logged("pardoned", PATIENCE));
}

/// A ban that is only a lower limit drops nothing.
#[test]
fn a_slowed_client_is_served_at_its_pace() {
    let Some(stage) = Stage::new("offences-slow", |settings| Settings {
        offences: (THRESHOLD, "60s", "60s"),
        offences_extra: "scope = \"slow\"\nslow_per_second = 1".into(),
        ..settings
    }) else {
        return;
    };
    let attacker = stage.lab.attacker();
    offend(&stage, attacker.v4);
    assert!(stage.daemon.logged("kept out by the gateway", PATIENCE));
    assert!(is_answered(attacker, vips()[0], PATIENCE));
    let ask = || send(attacker, attacker.v4, &get("/", "")).expect("an answer");
    let answers: Vec<_> = (0..20).map(|_| ask()).collect();
    let slowed = answers
        .iter()
        .filter(|answer| answer.starts_with(b"HTTP/1.1 429"))
        .count();
    assert!((15..=20).contains(&slowed), "{slowed} of 20 slowed");
    eventually("one more a second later", || {
        ask().starts_with(b"HTTP/1.1 200").then_some(())
    });
}

/// A restart forgets neither the ban nor how often there was one.
#[test]
fn a_restart_keeps_the_ban_and_the_next_is_longer() {
    let Some(stage) = Stage::new("offences-restart", |settings| Settings {
        offences: (THRESHOLD, "60s", "3s"),
        ..settings
    }) else {
        return;
    };
    let vip = vips()[0];
    offend(&stage, stage.lab.attacker().v4);
    wait_for_reason(&stage.lab, stage.lab.attacker().v4.into());
    let Stage {
        daemon,
        settings,
        origin,
        signer,
        lab,
    } = stage;
    daemon.sigterm();
    let daemon = Daemon::start(&lab, &settings.text());
    let stage = Stage {
        daemon,
        settings,
        origin,
        signer,
        lab,
    };
    let attacker = stage.lab.attacker();
    eventually("the first ban to end", || {
        is_answered(attacker, vip, SILENCE).then_some(())
    });
    offend(&stage, attacker.v4);
    wait_for_reason(&stage.lab, attacker.v4.into());
    let list = cli(&stage.lab, ["ban", "list", "--json"]).json();
    assert!(list.to_string().contains("\"repeats\":1"), "{list}");
    assert!(stage.daemon.logged("\"seconds\":6", PATIENCE), "twice as long");
}

/// An attack that is meant to ban the world stops at the ceiling, with an alert.
#[test]
fn the_ceiling_holds_and_tells() {
    let Some(stage) = Stage::new("offences-ceiling", |settings| Settings {
        offences: (1, "60s", "60s"),
        offences_extra: "max_bans_per_minute = 3".into(),
        ..settings
    }) else {
        return;
    };
    let attacker = stage.lab.attacker();
    let bad = bearer(PRIVATE, &forged(&stage.signer.token()));
    let addresses: Vec<_> = (0..8)
        .map(|number| another_address(attacker, 200 + number))
        .collect();
    for address in &addresses {
        let _ = send(attacker, *address, &bad);
    }
    assert!(stage.daemon.logged("over offences.max_bans_per_minute", PATIENCE));
    let list = stage.bans();
    let banned = addresses
        .iter()
        .filter(|address| names_address(&list, (**address).into()))
        .count();
    assert_eq!(banned, 3, "{list}");
    let status = cli(&stage.lab, ["status", "--json"]).json();
    assert!(status.to_string().contains("bans_over_ceiling"), "{status}");
}
