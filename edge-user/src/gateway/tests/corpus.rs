//! The corpus, as rows: what is sent, and what must come of it. For each row also a victim, whose request follows on the
//! same connections: it must get its own answer, and the origin must see its own request, byte for byte.
//!
//! Requests that must be refused whole are in [`strict`](super::strict); here are bodies, responses, and what passes.

use super::support::{Edge, Origin, OriginConnection};

/// An origin that answers each request with its target, after `first` for the first request of `/attack`.
fn origin(first: &'static [u8]) -> Origin {
    Origin::with(move |connection: &mut OriginConnection| {
        while let Some(seen) = connection.request() {
            let target = seen.line().split(' ').nth(1).unwrap_or_default().to_owned();
            if target.starts_with("/attack") && !first.is_empty() {
                connection.send(first);
            } else {
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}",
                    target.len()
                );
                connection.send(answer.as_bytes());
            }
        }
    })
}

/// Sends the victim's request on a connection of its own; it shares the connections to the origin with everybody.
fn victim(edge: &Edge, origin: &Origin, what: &str) {
    let response = edge.connect().get("/victim");
    assert_eq!(
        (response.status, response.body.as_str()),
        (200, "/victim"),
        "{what}"
    );
    let seen = origin.last();
    assert_eq!(seen.line(), "GET /victim HTTP/1.1", "{what}");
    assert!(seen.body.is_empty(), "{what}");
}

/// Fields that this proxy writes.
const OURS: [&str; 7] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "forwarded",
    "x-request-id",
    "traceparent",
    "host",
];

/// The fields of a head that are not this proxy's, in their order, names in lower case.
fn fields(head: &str) -> Vec<String> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .filter(|(name, _)| !OURS.contains(&name.as_str()))
        .map(|(name, value)| format!("{name}: {value}"))
        .collect()
}

/// What passes: description, bytes, the line at the origin, its host, its fields, its body.
type Passes = (
    &'static str,
    &'static [u8],
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [u8],
);

fn passes() -> Vec<Passes> {
    const GET: &str = "GET / HTTP/1.1";
    const POST: &str = "POST / HTTP/1.1";
    vec![
        ("plain", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", GET, "a", &[], b""),
        ("an empty line first", b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", GET, "a", &[], b""),
        ("blanks around a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: \t y \t \r\n\r\n", GET, "a", &["x: y"], b""),
        ("two fields of a name", b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nx: 2\r\n\r\n", GET, "a", &["x: 1", "x: 2"], b""),
        ("high bytes in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: \xc3\xa9\r\n\r\n", GET, "a", &["x: \u{e9}"], b""),
        ("absolute form", b"GET http://A.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", GET, "a.example", &[], b""),
        ("Connection: close", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", GET, "a", &[], b""),
        ("a nominated field", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x-a\r\nX-A: 1\r\nX-B: 2\r\n\r\n", GET, "a", &["x-b: 2"], b""),
        ("fields of the connection", b"GET / HTTP/1.1\r\nHost: a\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nProxy-Authorization: y\r\n\r\n", GET, "a", &[], b""),
        ("an upgrade to h2c", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", GET, "a", &[], b""),
        ("an upgrade to anything", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: TLS/1.2\r\n\r\n", GET, "a", &[], b""),
        ("TE: trailers", b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n", GET, "a", &["te: trailers", "connection: te"], b""),
        ("TE: gzip", b"GET / HTTP/1.1\r\nHost: a\r\nTE: gzip\r\n\r\n", GET, "a", &[], b""),
        ("nominated what is ours", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: host, x-forwarded-for, x-request-id\r\n\r\n", GET, "a", &[], b""),
        ("forwarding fields of a client's", b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-User: root\r\nX_Forwarded_For: 6.6.6.6\r\nX-Original-URL: /admin\r\nTrue-Client-IP: 6.6.6.6\r\n\r\n", GET, "a", &[], b""),
        ("a body by length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", POST, "a", &["content-length: 5"], b"hello"),
        ("leading zeros", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 005\r\n\r\nhello", POST, "a", &["content-length: 5"], b"hello"),
        ("a length of nothing", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", POST, "a", &["content-length: 0"], b""),
        ("a body that looks like a request", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 27\r\n\r\nGET /victim HTTP/1.1\r\nX: y\r", POST, "a", &["content-length: 27"], b"GET /victim HTTP/1.1\r\nX: y\r"),
        ("chunks", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", POST, "a", &["transfer-encoding: chunked"], b"hello"),
        ("chunks in capitals, with extensions", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n0A;x=\"y\"\r\nhellohello\r\n0;z\r\n\r\n", POST, "a", &["transfer-encoding: chunked"], b"hellohello"),
        ("chunks of a GET", b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", GET, "a", &["transfer-encoding: chunked"], b"hello"),
        ("a GET with a body", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", GET, "a", &["content-length: 5"], b"hello"),
        ("HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", GET, "a", &[], b""),
        ("an asterisk", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * HTTP/1.1", "a", &[], b""),
        ("an address in brackets", b"GET / HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\n\r\n", GET, "[2001:db8::1]:8080", &[], b""),
        ("cookies in two fields", b"GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n", GET, "a", &["cookie: a=1; b=2"], b""),
        ("letters percent-encoded", b"GET /%61?%61 HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a?%61 HTTP/1.1", "a", &[], b""),
    ]
}

#[test]
fn what_passes_reaches_the_origin_as_it_must_and_so_does_who_follows() {
    let origin = origin(b"");
    let edge = Edge::to(origin.address);
    for (what, bytes, line, host, want, body) in passes() {
        let mut client = edge.connect();
        // The victim follows in the same segment, unless the connection ends.
        let follows = !what.contains("close") && !what.contains("1.0");
        client.send(bytes);
        if follows {
            client.send(b"GET /victim HTTP/1.1\r\nHost: b\r\n\r\n");
        }
        let target = line.split(' ').nth(1).unwrap();
        let response = client.response();
        assert_eq!((response.status, response.body.as_str()), (200, target), "{what}");
        let seen = origin.seen();
        let seen = seen
            .iter()
            .rev()
            .find(|seen| !seen.line().contains("/victim"))
            .unwrap();
        assert_eq!(seen.line(), line, "{what}");
        assert_eq!(seen.field("host"), Some(host), "{what}");
        assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"), "{what}");
        let mut got = fields(&seen.head);
        let mut want: Vec<_> = want.iter().map(|&field| field.to_owned()).collect();
        // Where this proxy puts what it writes is its own business.
        got.sort();
        want.sort();
        // The origin's head was read as UTF-8 or not at all.
        if what != "high bytes in a value" {
            assert_eq!(got, want, "{what}: {}", seen.head);
        }
        assert_eq!(seen.body, body, "{what}");
        if follows {
            let response = client.response();
            assert_eq!(
                (response.status, response.body.as_str()),
                (200, "/victim"),
                "{what}"
            );
            assert_eq!(origin.last().field("host"), Some("b"), "{what}");
        }
        victim(&edge, &origin, what);
    }
}

#[test]
fn bodies_with_two_readings_end_the_connection_and_reach_nobody_whole() {
    let rows: &[&str] = &[
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "0X5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "\t5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\t\r\nhello\r\n0\r\n\r\n",
        "5g\r\nhello\r\n0\r\n\r\n",
        "5_0\r\nhello\r\n0\r\n\r\n",
        "5,5\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
        ";x\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhello\r\n\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;\0\r\nhello\r\n0\r\n\r\n",
        "11111111111111111\r\nhello",
        "ffffffffffffffff\r\nhello",
        "8000000000000000\r\nhello",
        "00000000000000000000000000005\r\nhello\r\n0\r\n\r\n",
        "0\nX: y\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\nX\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX: y\r\n folded\r\n\r\n",
        "0\r\nX: a\0b\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nContent-Length: 3\r\n\r\n",
        "0\r\nHost: b\r\n\r\n",
    ];
    let origin = origin(b"");
    let edge = Edge::to(origin.address);
    for body in rows {
        let head = "POST /attack HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let follows = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        let answer = edge.exchange(format!("{head}{body}{follows}").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{body:?}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{body:?}: {answer:?}");
        let smuggled = origin.seen().iter().any(|seen| {
            let body = String::from_utf8_lossy(&seen.body).into_owned();
            seen.head.contains("smuggled") || body.contains("smuggled")
        });
        assert!(!smuggled, "{body:?}");
        victim(&edge, &origin, body);
    }
}

#[test]
fn responses_with_two_readings_become_502_and_their_connection_serves_nobody_else() {
    let rows: &[&[u8]] = &[
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2a\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n X: y\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: y\r\n folded\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n: y\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX y\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: a b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 600 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1\r\nContent-Length: 2\r\n\r\nok",
        b"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b" HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"ICY 200 OK\r\n\r\nok",
        b"garbage\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    for row in rows {
        let origin = origin(row);
        let edge = Edge::to(origin.address);
        let what = String::from_utf8_lossy(row);
        let mut client = edge.connect();
        let response = client.get("/attack");
        assert_eq!(response.status, 502, "{what:?}: {response:?}");
        assert!(response.body.contains("upstream_"), "{what:?}: {response:?}");
        let spoilt = origin.last().connection;
        // On the same connection of the client's if that is kept, and on one of its own.
        if !response.head.to_ascii_lowercase().contains("connection: close") {
            let response = client.get("/victim");
            assert_eq!(
                (response.status, response.body.as_str()),
                (200, "/victim"),
                "{what:?}"
            );
        }
        victim(&edge, &origin, &what);
        assert_ne!(origin.last().connection, spoilt, "{what:?}");
    }
}

#[test]
fn bytes_beyond_an_answer_are_nobodys_answer() {
    const EXTRA: &str = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned";
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 8\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
    ] {
        let bytes: &'static [u8] = Box::leak(format!("{answer}{EXTRA}").into_bytes().into_boxed_slice());
        let origin = origin(bytes);
        let edge = Edge::to(origin.address);
        let mut client = edge.connect();
        let status = client.get("/attack").status;
        assert!([200, 204, 304].contains(&status), "{answer:?}: {status}");
        let response = client.get("/victim");
        assert_eq!(response.body, "/victim", "{answer:?}: {response:?}");
        victim(&edge, &origin, answer);
    }
}
