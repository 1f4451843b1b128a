//! The strict gate from outside: malformed and ambiguous requests, byte for byte, against a recording origin.

use super::support::{Edge, Origin};
use crate::offence::OffenceKind;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n";

/// Everything that must be refused: what, bytes, status.
#[expect(clippy::too_many_lines, reason = "a table")]
fn refused() -> Vec<(String, Vec<u8>, u16)> {
    let mut rows: Vec<(String, Vec<u8>, u16)> = Vec::new();
    let mut row =
        |what: &str, bytes: &[u8], status: u16| rows.push((what.to_owned(), bytes.to_vec(), status));

    // Request line.
    row("garbage", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400);
    row("no version", b"GET /\r\nHost: a\r\n\r\n", 400);
    row("two spaces", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    row("tab", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    row("space before method", b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    row("space in target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    row("space after version", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400);
    row("version 2.0", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400);
    row("version 1.2", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 400);
    row("version 0.9", b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 400);
    row("lower-case version", b"GET / http/1.1\r\nHost: a\r\n\r\n", 400);
    row("control in method", b"G\x01T / HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    row("separator in method", b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    row(
        "long method",
        format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(33)).as_bytes(),
        400,
    );
    row("the gate's own marker", b"PRI * HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    row(
        "two empty lines first",
        b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        400,
    );
    row("CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501);
    row("TRACE", b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 501);
    for method in [
        "get", "Get", "gET", "head", "post", "put", "delete", "patch", "options",
    ] {
        let bytes = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
        row(&format!("method {method}"), bytes.as_bytes(), 400);
    }
    for method in ["trace", "Trace", "pri", "connect", "ConnecT"] {
        let bytes = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
        row(&format!("method {method}"), bytes.as_bytes(), 400);
    }
    row(
        "connect with its target",
        b"connect a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
        400,
    );

    // Targets and paths.
    for target in [
        "a",
        "?q",
        "#f",
        "/a#f",
        "/?q#f",
        "*",
        "a:80",
        "ftp://a/",
        "http:/a/",
        "http:///a",
        "//a/b",
        "/a//b",
        "/./a",
        "/a/..",
        "/a/../b",
        "/%2e%2e/a",
        "/%2E./a",
        "/a/..;/b",
        "/a%2fb",
        "/a%5cb",
        "/a\\b",
        "/%00",
        "/%0d%0aX:y",
        "/%",
        "/%1",
        "/%gg",
        "/%c0%af",
        "/%ff",
        "/<",
        "/\"",
        "/?<",
        "/?\"",
    ] {
        row(
            &format!("target {target}"),
            format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(),
            400,
        );
    }
    row("NUL in target", b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    row(
        "high byte in target",
        b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
        400,
    );
    row(
        "high byte in query",
        b"GET /?\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
        400,
    );
    row(
        "user information",
        b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        400,
    );
    row(
        "user information in both",
        b"GET http://u@a/ HTTP/1.1\r\nHost: u@a\r\n\r\n",
        400,
    );
    row("asterisk with GET", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    row(
        "long target",
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9000)).as_bytes(),
        414,
    );
    row(
        "endless target",
        format!("GET /{}", "x".repeat(20_000)).as_bytes(),
        414,
    );

    // Host.
    row("no Host", b"GET / HTTP/1.1\r\n\r\n", 400);
    row("no Host in absolute form", b"GET http://a/ HTTP/1.1\r\n\r\n", 400);
    row("two Hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400);
    row(
        "two Hosts, one in disguise",
        b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
        400,
    );
    row(
        "Host contradicts target",
        b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        400,
    );
    for host in [
        "",
        "a b",
        "a,b",
        "u@a",
        "a/b",
        "a#",
        "a?",
        "a:x",
        "a:99999",
        "[::1",
        "a\\b",
        "a\tb",
        "a%00",
        "http://a",
        ".",
        "..",
        ".a",
        "a..",
        "a..b",
        "..:80",
        "a:0",
        "a:080",
        "a:",
        ":80",
        "[::1%25lo]",
        "[::1]x",
        "::1",
        "a%2eb",
        "*",
        "a;b",
        "a'",
        "{a}",
        "\u{e9}",
        "a\u{3002}b",
    ] {
        row(
            &format!("Host {host:?}"),
            format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(),
            400,
        );
    }

    let long = "a".repeat(64);
    for (target, host) in [
        ("http://a..b/", "a..b"),
        ("http://.a/", ".a"),
        ("http://a:0/", "a:0"),
        ("http:///", "a"),
        ("http://:80/", ":80"),
        ("http://a@/", "a"),
        ("http://[::1%25lo]/", "[::1%25lo]"),
        ("http://a/", "a."),
        ("http://a:80/", "a"),
        ("/", long.as_str()),
    ] {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        row(&format!("{target} at Host {host:?}"), bytes.as_bytes(), 400);
    }

    // Fields.
    for line in [
        "A : b",
        " A: b",
        "\tA: b",
        ": b",
        "A",
        "A b: c",
        "A\0: b",
        "A: b\0c",
        "A: b\x01c",
        "A: b\x7fc",
        "A: b\rc",
        "(A): b",
        "A\u{e9}: b",
        "X: a\r\n folded",
        "X: a\r\n\tfolded",
    ] {
        row(
            &format!("field {line:?}"),
            format!("{GET}{line}\r\n\r\n").as_bytes(),
            400,
        );
    }
    row(
        "fold before the first field",
        b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        400,
    );
    row("LF line ends", b"GET / HTTP/1.1\nHost: a\n\n", 400);
    row("one LF line end", b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400);
    row("LF ends the head", b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400);
    row(
        "CR alone ends a line",
        b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
        400,
    );
    row("two CRs", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400);
    row(
        "unknown expectation",
        format!("{GET}Expect: 200-ok\r\n\r\n").as_bytes(),
        417,
    );
    row(
        "Connection with an invalid member",
        format!("{GET}Connection: a b\r\n\r\n").as_bytes(),
        400,
    );
    row(
        "101 fields",
        format!("{GET}{}\r\n", "X: y\r\n".repeat(101)).as_bytes(),
        431,
    );
    row(
        "70 KiB of fields",
        format!("{GET}X: {}\r\n\r\n", "y".repeat(70_000)).as_bytes(),
        431,
    );

    // Framing.
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 5",
        "Content-Length: 5,6",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5a",
        "Content-Length: 5 5",
        "Content-Length: 5.0",
        "Content-Length:",
        "Content-Length: 99999999999999999999",
        "Content-Length: 9999999999999999999",
        "Content-Length: 9223372036854775808",
        "Content-Length: 5;5",
        "Content-Length: \"5\"",
        "Content-Length: 5\r\nContent_Length: 5",
        "Content-Length: 5\r\nTransfer_Encoding: chunked",
        "Content-Length : 5",
        "Content-Length\u{a0}: 5",
        "Content-Length: \u{2460}",
        "Content-Length: 1e1",
        "Transfer-Encoding: chunked\r\nContent_Length: 5",
        "Transfer-Encoding: chunked\r\nX: y\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: chunked\u{b}",
        "Transfer-Encoding: chun\u{212a}ed",
        "Content_Length: 5",
        "Transfer_Encoding: chunked",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding:",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        "Transfer-Encoding:\r\n chunked",
        " Transfer-Encoding: chunked",
    ] {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n0\r\n\r\n{smuggled}");
        row(&format!("framing {lines:?}"), bytes.as_bytes(), 400);
    }
    let bytes =
        format!("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}");
    row("Transfer-Encoding in HTTP/1.0", bytes.as_bytes(), 400);
    rows
}

#[test]
fn what_has_two_readings_is_refused_and_reaches_nobody() {
    let origin = Origin::ok();
    let edge = Edge::to(origin.address);
    let rows = refused();
    assert!(rows.len() >= 125, "{} rows", rows.len());
    for (what, bytes, status) in &rows {
        let mut sent = bytes.clone();
        // Whatever comes after a refused request must not be taken for another.
        sent.extend_from_slice(b"GET /victim HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = edge.exchange(&sent);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{what}: {answer:?}"
        );
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            1,
            "{what}: one answer, then the end: {answer:?}"
        );
        assert!(
            answer.to_ascii_lowercase().contains("connection: close"),
            "{what}: {answer:?}"
        );
        assert!(
            answer.contains("application/problem+json") && answer.contains("\"request_id\""),
            "{what}: {answer:?}"
        );
        assert!(
            origin.seen().is_empty(),
            "{what} reached the origin: {:?}",
            origin.seen()
        );
    }
    let counted: u64 = edge.counters().refusals.iter().map(|(_, count)| count).sum();
    assert_eq!(counted, rows.len() as u64);
    assert!(edge.offences.kinds().contains(&OffenceKind::Smuggling));
    assert!(edge.offences.kinds().contains(&OffenceKind::Malformed));
}

#[test]
fn a_chunked_body_that_breaks_its_grammar_ends_the_connection() {
    let origin = Origin::ok();
    let edge = Edge::to(origin.address);
    for body in [
        "5\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "11111111111111111\r\nhello",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nContent-Length: 3\r\n\r\n",
        "0\r\nX\r\n\r\n",
        "0\r\nX-Auth-Subject: root\r\n\r\n",
        "0\r\nX: 1\r\nx_auth_Subject: root\r\n\r\n",
        "\r\n0\r\n\r\n",
    ] {
        let head = "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = edge.exchange(format!("{head}{body}GET /victim HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{body:?}: {answer:?}");
        assert!(answer.contains("bad_chunk"), "{body:?}: {answer:?}");
        assert!(
            !origin.seen().iter().any(|seen| seen.head.contains("victim")),
            "{body:?}"
        );
    }
}

#[test]
fn what_has_one_reading_passes() {
    let origin = Origin::ok();
    let edge = Edge::to(origin.address);
    let rows: [(&[u8], &str); 14] = [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1"),
        (b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1"),
        (
            b"GET /%41%2d?x=%2F&y HTTP/1.1\r\nHost: a:80\r\n\r\n",
            "GET /A-?x=%2F&y HTTP/1.1",
        ),
        (
            b"GET http://A.example/b?c HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET /b?c HTTP/1.1",
        ),
        (b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1"),
        (b"GET http://a?q HTTP/1.1\r\nHost: a\r\n\r\n", "GET /?q HTTP/1.1"),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * HTTP/1.1"),
        (b"GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1"),
        (
            b"GET / HTTP/1.1\r\nhost:a\r\nx:\r\ny:   z  \r\n\r\n",
            "GET / HTTP/1.1",
        ),
        (
            b"GET /[a]?q={b:[1|2]} HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /%5Ba%5D?q={b:[1|2]} HTTP/1.1",
        ),
        (
            b"M-SEARCH /x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
            "M-SEARCH /x HTTP/1.1",
        ),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
            "POST / HTTP/1.1",
        ),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\n\r\n",
            "POST / HTTP/1.1",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nX: caf\xc3\xa9\r\n\r\n",
            "GET / HTTP/1.1",
        ),
    ];
    for (bytes, line) in rows {
        let what = String::from_utf8_lossy(bytes);
        let mut client = edge.connect();
        client.send(bytes);
        assert_eq!(client.response().status, 200, "{what}");
        assert_eq!(origin.last().line(), line, "{what}");
        if bytes.starts_with(b"POST") {
            assert_eq!(origin.last().body, b"hello", "{what}");
        }
    }
}

#[test]
fn large_cookies_pass() {
    let origin = Origin::ok();
    let edge = Edge::to(origin.address);
    let cookie = "c".repeat(16 * 1024);
    let mut client = edge.connect();
    client.send(format!("{GET}Cookie: k={cookie}\r\n\r\n").as_bytes());
    assert_eq!(client.response().status, 200);
    assert_eq!(
        origin.last().field("cookie").map(str::len),
        Some(cookie.len() + 2)
    );
}

#[test]
fn heads_may_come_in_pieces_and_several_at_once() {
    let origin = Origin::ok();
    let edge = Edge::to(origin.address);
    let request = format!("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc{GET}\r\n{GET}\r\n");
    let mut client = edge.connect();
    for byte in request.bytes() {
        client.send(&[byte]);
    }
    for _ in 0..3 {
        assert_eq!(client.response().status, 200);
    }
    client.send(request.as_bytes());
    for _ in 0..3 {
        assert_eq!(client.response().status, 200);
    }
    let lines: Vec<_> = origin.seen().iter().map(|seen| seen.line().to_owned()).collect();
    let once = ["POST /p HTTP/1.1", "GET / HTTP/1.1", "GET / HTTP/1.1"];
    assert_eq!(lines, [once, once].concat());
}

/// Responses that have two readings, or none.
#[test]
fn ambiguous_responses_become_502_and_their_connection_is_not_used_again() {
    let rows: &[&[u8]] = &[
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: y\r\n folded\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 600 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"ICY 200 OK\r\n\r\nok",
        b"garbage\r\n\r\n",
    ];
    for row in rows {
        let origin = Origin::answering(row);
        let edge = Edge::to(origin.address);
        for _ in 0..2 {
            let response = edge.connect().get("/");
            let what = String::from_utf8_lossy(row);
            assert_eq!(response.status, 502, "{what:?}: {response:?}");
            assert!(response.body.contains("upstream_"), "{what:?}: {response:?}");
        }
        let connections: Vec<_> = origin.seen().iter().map(|seen| seen.connection).collect();
        assert!(
            connections.windows(2).all(|pair| pair[0] != pair[1]),
            "{row:?}: {connections:?}"
        );
    }
}
