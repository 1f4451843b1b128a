//! More of the corpus: what is known of desynchronising proxies and servers, tried against this one. Behind each row
//! comes a victim's request on the same connection; whatever becomes of the row, the origin sees at most one request of
//! it, and the victim gets its own answer or none.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::support::{Edge, Origin, OriginConnection, config};
use crate::gateway::Limits;

/// What must come of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// One answer of this status, then the end; the origin sees nothing.
    Refused(u16),
    /// One request, with this body; the victim is served behind it.
    Passes(&'static str),
    /// The same, and the connection ends.
    PassesLast(&'static str),
}

use Want::{Passes, PassesLast, Refused};

const VICTIM: &str = "GET /victim HTTP/1.1\r\nHost: victim\r\n\r\n";

/// Answers with the target.
fn echo() -> Origin {
    Origin::with(|connection: &mut OriginConnection| {
        while let Some(seen) = connection.request() {
            let target = seen.line().split(' ').nth(1).unwrap_or_default().to_owned();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", target.len());
            let body = if seen.line().starts_with("HEAD ") {
                ""
            } else {
                &target
            };
            connection.send(format!("{head}{body}").as_bytes());
        }
    })
}

fn post(lines: &str, body: &str) -> Vec<u8> {
    format!("POST /row HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{body}").into_bytes()
}

fn get(lines: &str) -> Vec<u8> {
    format!("GET /row HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n").into_bytes()
}

fn line(line: &str) -> Vec<u8> {
    format!("{line}\r\nHost: a\r\n\r\n").into_bytes()
}

/// Framing: two lengths, or one that only some see.
fn framing() -> Vec<(Vec<u8>, Want)> {
    const CHUNKS: &str = "5\r\nhello\r\n0\r\n\r\n";
    const SMUGGLED: &str = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut rows = Vec::new();
    for (lines, want) in [
        ("Transfer-Encoding:chunked", Passes("hello")),
        ("Transfer-Encoding:\tchunked", Passes("hello")),
        ("Transfer-Encoding: chunked ", Passes("hello")),
        ("Transfer-Encoding: chunked\t", Passes("hello")),
        ("TRANSFER-ENCODING: CHUNKED", Passes("hello")),
        (
            "Transfer-Encoding: chunked\r\nTransfer--Encoding: identity",
            Passes("hello"),
        ),
        (
            "Transfer-Encoding: chunked\r\nX-Content-Length: 3",
            Passes("hello"),
        ),
        ("Transfer-Encoding: chunked\r\nTE: identity", Passes("hello")),
        (
            "Transfer-Encoding: chunked\r\nConnection: transfer-encoding",
            Passes("hello"),
        ),
        (
            "Transfer-Encoding: chunked\r\nConnection: close, transfer-encoding",
            PassesLast("hello"),
        ),
    ] {
        rows.push((post(lines, CHUNKS), want));
    }
    for lines in [
        "Transfer-Encoding: chunked\r\nTransfer-encoding: cow",
        "Transfer-Encoding: cow\r\nTransfer-encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding:",
        "Transfer-Encoding: chunked\0",
        "Transfer-Encoding: \0chunked",
        "Transfer-Encoding: chunked\u{c}",
        "Transfer-Encoding: \u{c}chunked",
        "Transfer-Encoding: chunked\u{a0}",
        "Transfer-Encoding: \u{feff}chunked",
        "Transfer-Encoding: 'chunked'",
        "Transfer-Encoding: chunked\\",
        "Transfer-Encoding: chunked\r\n\tx",
        "Transfer-Encoding: \r\n\tchunked",
        "Transfer-Encoding\r\n: chunked",
        "Transfer-Encoding\0: chunked",
        "\0Transfer-Encoding: chunked",
        "Transfer-Encoding\u{b}: chunked",
        "Transfer Encoding: chunked",
        "Transfer-Encoding chunked",
        "Transfer-Encoding=chunked",
        "X: y\rTransfer-Encoding: chunked",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\r\r\nTransfer-Encoding: chunked",
        "X: y\r\n\tTransfer-Encoding: chunked",
        "X: y\u{b}\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: compress, chunked",
        "Transfer-Encoding: deflate",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: chunked;",
        "Transfer-Encoding: chunked; q=0",
        "Transfer-Encoding: chunked chunked",
        "Transfer-Encoding: ,chunked,",
        "Transfer-Encoding: 1",
        "Transfer-Encoding: {chunked}",
        "Transfer_encoding: chunked",
        "TRANSFER_ENCODING: chunked",
        "Content-Length: 6\r\nTransfer-Encoding: chunked",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "Content-Length: 6\r\nTransfer-Encoding: identity",
        "Content-Length: 6\r\nTransfer-Encoding:",
        "content_length: 6\r\nTransfer-Encoding: chunked",
        "Content_length: 6",
    ] {
        rows.push((post(lines, SMUGGLED), Refused(400)));
    }
    rows
}

/// `Content-Length` in every spelling.
fn lengths() -> Vec<(Vec<u8>, Want)> {
    let mut rows = Vec::new();
    for (lines, want) in [
        ("Content-Length:5", Passes("hello")),
        ("Content-Length:\t5\t", Passes("hello")),
        ("CONTENT-LENGTH: 5", Passes("hello")),
        ("Content-Length: 0000000000000000005", Passes("hello")),
        ("Content-Length: 5\r\nX-Content-Length: 6", Passes("hello")),
        ("Content-Length: 5\r\nConnection: content-length", Passes("hello")),
        ("Content-Length: 5\r\nConnection: close", PassesLast("hello")),
        ("Content-Length: 5\r\nExpect: 100-Continue", Passes("hello")),
        ("Content-Length: 00000000000000000005", Refused(400)),
        ("Content-Length: -0", Refused(400)),
        ("Content-Length: +0", Refused(400)),
        ("Content-Length: 0,0", Refused(400)),
        ("Content-Length: 0, 5", Refused(400)),
        ("Content-Length: 5,", Refused(400)),
        ("Content-Length: ,5", Refused(400)),
        ("Content-Length: 5\0", Refused(400)),
        ("Content-Length: 5\u{b}", Refused(400)),
        ("Content-Length: 5\u{a0}", Refused(400)),
        ("Content-Length: 5 0", Refused(400)),
        ("Content-Length: 5\t5", Refused(400)),
        ("Content-Length: 5\r\n 0", Refused(400)),
        ("Content-Length:\r\n 5", Refused(400)),
        ("Content-Length\r\n: 5", Refused(400)),
        ("Content-Length\t: 5", Refused(400)),
        ("Content Length: 5", Refused(400)),
        ("Content-Length: 05h", Refused(400)),
        ("Content-Length: 0b101", Refused(400)),
        ("Content-Length: 0o5", Refused(400)),
        ("Content-Length: 5e0", Refused(400)),
        ("Content-Length: 1_0", Refused(400)),
        ("Content-Length: 5'", Refused(400)),
        ("Content-Length: NaN", Refused(400)),
        ("Content-Length: \u{665}", Refused(400)),
        ("Content-Length: \u{ff15}", Refused(400)),
        ("Content-Length: 18446744073709551621", Refused(400)),
        ("Content-Length: 9223372036854775813", Refused(400)),
        ("Content-Length: 5\r\nX: y\r\nContent-Length: 5", Refused(400)),
        ("Content-Length: 5\r\nX: y\r\ncontent-length: 0", Refused(400)),
        ("Content-Length: 5\r\nContent-Length:", Refused(400)),
    ] {
        rows.push((post(lines, "hello"), want));
    }
    rows
}

/// First lines.
#[expect(clippy::too_many_lines, reason = "a table")]
fn first_lines() -> Vec<(Vec<u8>, Want)> {
    let mut rows = Vec::new();
    for text in [
        "GET /",
        "GET / ",
        "GET /\r\n",
        "GET  /row HTTP/1.1",
        "GET /row  HTTP/1.1",
        "GET /row\tHTTP/1.1",
        "GET\t/row HTTP/1.1",
        "GET\u{b}/row HTTP/1.1",
        "GET\0/row HTTP/1.1",
        "GET /row\u{b} HTTP/1.1",
        "GET /row HTTP/1.1\u{b}",
        "GET /row HTTP/1.1\t",
        "GET /row HTTP/1.1 x",
        "GET /row HTTP/1.1 GET /smuggled HTTP/1.1",
        "GET /row HTTP/1.1\rX: y",
        "GET /row HTTP/1.10",
        "GET /row HTTP/01.1",
        "GET /row HTTP/1.01",
        "GET /row HTTP/1.1.1",
        "GET /row HTTP/11",
        "GET /row HTTP/1,1",
        "GET /row HTTP/1",
        "GET /row HTTP/1.",
        "GET /row HTTP/.1",
        "GET /row HTTP/ 1.1",
        "GET /row HTTP /1.1",
        "GET /row HTTP/1.1/",
        "GET /row HTTPS/1.1",
        "GET /row XTTP/1.1",
        "GET /row http/1.1",
        "GET /row HTTP/0.9",
        "GET /row HTTP/1.2",
        "GET /row HTTP/1.9",
        "GET /row HTTP/3.0",
        "GET /row ICY/1.1",
        "\rGET /row HTTP/1.1",
        "\nGET /row HTTP/1.1",
        "\tGET /row HTTP/1.1",
        "\0GET /row HTTP/1.1",
        "\u{feff}GET /row HTTP/1.1",
        "GET: /row HTTP/1.1",
        "GET,POST /row HTTP/1.1",
        "\"GET\" /row HTTP/1.1",
        "GET@ /row HTTP/1.1",
        "g\u{e9}t /row HTTP/1.1",
        " /row HTTP/1.1",
        "/row HTTP/1.1",
        "HTTP/1.1 200 OK",
        "GET http:a/ HTTP/1.1",
        "GET http:/a/ HTTP/1.1",
        "GET http:///row HTTP/1.1",
        "GET http://a\\@b/row HTTP/1.1",
        "GET http://u:p@a/row HTTP/1.1",
        "GET http://a#/row HTTP/1.1",
        "GET http://a;b/row HTTP/1.1",
        "GET http://a%2frow HTTP/1.1",
        "GET http://b/row HTTP/1.1",
        "GET http://a.b/row HTTP/1.1",
        "GET http://a:81/row HTTP/1.1",
        "GET ws://a/row HTTP/1.1",
        "GET ftp://a/row HTTP/1.1",
        "GET file:///row HTTP/1.1",
        "GET a://a/row HTTP/1.1",
        "GET urn:row HTTP/1.1",
        "GET a:80 HTTP/1.1",
        "GET @a/row HTTP/1.1",
        "GET \\row HTTP/1.1",
        "GET .. HTTP/1.1",
        "GET /..;/row HTTP/1.1",
        "GET /row/%2e%2e/b HTTP/1.1",
        "GET /row%0d%0aX:%20y HTTP/1.1",
        "GET /row%20HTTP/1.1%0d%0a HTTP/1.1",
        "GET /row?\0 HTTP/1.1",
        "GET /row?a#b HTTP/1.1",
        "POST * HTTP/1.1",
        "OPTIONS ** HTTP/1.1",
        "OPTIONS *?x HTTP/1.1",
        "OPTIONS */row HTTP/1.1",
    ] {
        rows.push((line(text), Refused(400)));
    }
    for (text, want) in [
        ("GET HTTP://a/row HTTP/1.1", Passes("")),
        ("GET https://A/row HTTP/1.1", Passes("")),
        ("GET http://a/row?http://b/ HTTP/1.1", Passes("")),
        ("GET /row?a=b&c=%0d%0aX HTTP/1.1", Passes("")),
        ("GET /row?/../.. HTTP/1.1", Passes("")),
        ("HEAD /row HTTP/1.1", Passes("")),
        ("DELETE /row HTTP/1.1", Passes("")),
        ("BREW /row HTTP/1.1", Passes("")),
        ("CONNECT a:80 HTTP/1.1", Refused(400)),
        ("CONNECT a:80 HTTP/1.0", Refused(501)),
        ("CONNECT a HTTP/1.1", Refused(400)),
        ("CONNECT a:0 HTTP/1.1", Refused(400)),
        ("CONNECT x@a:80 HTTP/1.1", Refused(400)),
        ("CONNECT b:80 HTTP/1.1", Refused(400)),
        ("CONNECT a:80/ HTTP/1.1", Refused(400)),
        ("CONNECT * HTTP/1.1", Refused(400)),
        ("CONNECT /row HTTP/1.1", Refused(400)),
        ("CONNECT http://a/ HTTP/1.1", Refused(400)),
        ("TRACE /row HTTP/1.1", Refused(501)),
        ("GET /row HTTP/2.0", Refused(400)),
    ] {
        rows.push((line(text), want));
    }
    rows
}

/// Fields: hosts, connections, expectations, names that only some know.
fn fields() -> Vec<(Vec<u8>, Want)> {
    let mut rows = Vec::new();
    for (lines, want) in [
        ("X: y\r\n\r", Refused(400)),
        ("X: y\r\r", Refused(400)),
        ("X\r\n: y", Refused(400)),
        ("X:\r\n y", Refused(400)),
        ("X: y\n", Refused(400)),
        (": y", Refused(400)),
        (":", Refused(400)),
        (":method: POST", Refused(400)),
        (":path: /smuggled", Refused(400)),
        ("X", Refused(400)),
        ("X y", Refused(400)),
        ("X\"y\": z", Refused(400)),
        ("X[]: z", Refused(400)),
        ("X@: z", Refused(400)),
        ("X;: z", Refused(400)),
        ("X: a\u{8}b", Refused(400)),
        ("X: a\u{1b}[31mb", Refused(400)),
        ("X: a\0", Refused(400)),
        ("GET /smuggled HTTP/1.1", Refused(400)),
        ("host: a", Refused(400)),
        ("HOST: b", Refused(400)),
        ("Host : a", Refused(400)),
        (" Host: b", Refused(400)),
        ("Host\t: b", Refused(400)),
        ("Host:", Refused(400)),
        ("Connection: \"close\"", Refused(400)),
        ("Connection: a b", Refused(400)),
        ("Connection: close;", Refused(400)),
        ("Connection: @", Refused(400)),
        ("Expect: 100-continue, 100-continue", Refused(417)),
        ("Expect: 100-continue\r\nExpect: 100-continue", Refused(417)),
        ("Expect: y 100-continue", Refused(417)),
        ("Expect: 100-continue;x", Refused(417)),
        ("Expect: 100", Refused(417)),
        ("Expect:", Refused(417)),
        ("Expect : 100-continue", Refused(400)),
        ("Expect:\r\n 100-continue", Refused(400)),
        ("Expect: 100-continue", Passes("")),
        ("Connection: keep-alive, , ,", Passes("")),
        ("Connection:", Passes("")),
        ("Connection: host", Passes("")),
        ("Connection: x, close", PassesLast("")),
        ("Connection: CLOSE", PassesLast("")),
        ("Connection: close\r\nConnection: keep-alive", PassesLast("")),
        ("Connection: keep-alive\r\nConnection: close", PassesLast("")),
        ("Proxy-Connection: close", Passes("")),
        ("Keep-Alive: timeout=0, max=0", Passes("")),
        ("Upgrade: HTTP/2.0\r\nConnection: upgrade", Passes("")),
        (
            "Upgrade: h2c\r\nConnection: upgrade, http2-settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
            Passes(""),
        ),
        (
            "X-Forwarded-Host: b\r\nX-Host: b\r\nForwarded: host=b",
            Passes(""),
        ),
        ("X-HTTP-Method-Override: DELETE", Passes("")),
        (
            "X-Original-URL: /smuggled\r\nX-Rewrite-URL: /smuggled",
            Passes(""),
        ),
        ("Content-Length: 0", Passes("")),
        ("Content-Type: text/plain\r\nContent-Encoding: gzip", Passes("")),
        ("Max-Forwards: 0", Passes("")),
        ("Trailer: x-sum", Passes("")),
        ("X: \"a\r\nY: b\"", Passes("")),
    ] {
        rows.push((get(lines), want));
    }
    rows
}

/// Bodies of requests that usually have none, and what only looks like a body.
fn bodies() -> Vec<(Vec<u8>, Want)> {
    const REQUEST: &str = "GET /within HTTP/1.1\r\nHost: a\r\n\r\n";
    let with = |method: &str, body: &str| {
        format!(
            "{method} /row HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    };
    let chunked = |method: &str, body: &str| {
        format!("{method} /row HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}").into_bytes()
    };
    let mut rows = Vec::new();
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "PATCH", "PROPFIND"] {
        rows.push((with(method, REQUEST), Passes(REQUEST)));
        let body = format!("{:x}\r\n{REQUEST}\r\n0\r\n\r\n", REQUEST.len());
        rows.push((chunked(method, &body), Passes(REQUEST)));
    }
    for (body, want) in [
        ("5;a=\"b\"\r\nhello\r\n0\r\n\r\n", Passes("hello")),
        ("5;a=\"\r\nhello\r\n0\r\n\r\n", Passes("hello")),
        ("5;;;\r\nhello\r\n0\r\n\r\n", Passes("hello")),
        ("5;\u{e9}\r\nhello\r\n0\r\n\r\n", Passes("hello")),
        ("05\r\nhello\r\n00\r\n\r\n", Passes("hello")),
        ("000000000000005\r\nhello\r\n0\r\n\r\n", Passes("hello")),
        ("5\r\nhello\r\n0;x=y\r\nX-Sum: 1\r\n\r\n", Passes("hello")),
        ("5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", Passes("hello")),
        (
            "5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-Sum2: 2\r\n\r\n",
            Passes("hello"),
        ),
        ("5\r\nhello\r\n0;x=y\r\n\r\n", Passes("hello")),
        ("0\r\n\r\n", Passes("")),
        ("5;\nxhello\r\n0\r\n\r\n", Refused(400)),
        ("5;x\rhello\r\n0\r\n\r\n", Refused(400)),
        ("5;x\r\rhello\r\n0\r\n\r\n", Refused(400)),
        ("5 ;x\r\nhello\r\n0\r\n\r\n", Refused(400)),
        ("5,x\r\nhello\r\n0\r\n\r\n", Refused(400)),
        ("5\0\r\nhello\r\n0\r\n\r\n", Refused(400)),
        ("\u{feff}5\r\nhello\r\n0\r\n\r\n", Refused(400)),
        ("5h\r\nhello\r\n0\r\n\r\n", Refused(400)),
        ("5.0\r\nhello\r\n0\r\n\r\n", Refused(400)),
        ("100000005\r\n", Passes("never")),
        ("10000000000000005\r\nhello\r\n0\r\n\r\n", Refused(400)),
        ("ffffffffffffffffb\r\nhello\r\n0\r\n\r\n", Refused(400)),
        ("5\r\n\r\nhello\r\n0\r\n\r\n", Refused(400)),
        ("4\r\nhello\r\n0\r\n\r\n", Refused(400)),
        ("6\r\nhello\r\n0\r\n\r\n", Refused(400)),
        ("5\r\nhello\r\r\n0\r\n\r\n", Refused(400)),
        ("5\r\nhello\n\r0\r\n\r\n", Refused(400)),
        ("5\r\nhello\r\n0\r\r\n", Refused(400)),
        ("5\r\nhello\r\n0\r\n\n", Refused(400)),
        ("5\r\nhello\r\n0\n\n", Refused(400)),
        ("5\r\nhello\r\n-0\r\n\r\n", Refused(400)),
        ("0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n", Refused(400)),
        ("0\r\nConnection: close\r\n\r\n", Refused(400)),
        ("0\r\nCookie: a=b\r\n\r\n", Refused(400)),
        ("0\r\nAuthorization: Bearer x\r\n\r\n", Refused(400)),
        ("0\r\nExpect: 100-continue\r\n\r\n", Refused(400)),
        ("0\r\nUpgrade: h2c\r\n\r\n", Refused(400)),
        ("0\r\nTE: trailers\r\n\r\n", Refused(400)),
        ("0\r\nContent_Length: 5\r\n\r\n", Refused(400)),
        ("0\r\nContent-Type: text/html\r\n\r\n", Refused(400)),
        ("0\r\nContent-Encoding: gzip\r\n\r\n", Refused(400)),
        ("0\r\nRange: bytes=0-1\r\n\r\n", Refused(400)),
        ("0\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("0\r\n: x\r\n\r\n", Refused(400)),
        ("0\r\nX\0: x\r\n\r\n", Refused(400)),
    ] {
        if want != Passes("never") {
            rows.push((chunked("POST", body), want));
        }
    }
    rows
}

/// Sends a row with a victim's request behind it; tells what is not as it must be.
fn try_row(edge: &Edge, origin: &Origin, bytes: &[u8], want: Want) -> Result<(), String> {
    let before = origin.seen().len();
    let mut client = edge.connect();
    client.send(&[bytes, VICTIM.as_bytes()].concat());
    let method =
        String::from_utf8_lossy(bytes.split(|byte| *byte == b' ').next().unwrap_or_default()).into_owned();
    let mut first = client.response_to(&method);
    if first.status == 100 {
        first = client.response_to(&method);
    }
    let (passes, ends) = match want {
        Refused(status) if first.status == status => (None, true),
        Passes(body) if first.status == 200 => (Some(body), false),
        PassesLast(body) if first.status == 200 => (Some(body), true),
        _ => return Err(format!("{} {:?}", first.status, first.body)),
    };
    if ends {
        let more = client.read_all_lossy();
        if !more.is_empty() {
            return Err(format!("went on: {more:?}"));
        }
    } else {
        let victim = client.response();
        if (victim.status, victim.body.as_str()) != (200, "/victim") {
            return Err(format!("the victim got {victim:?}"));
        }
    }
    let seen = origin.seen().split_off(before);
    let whole = usize::from(passes.is_some()) + usize::from(!ends);
    // What breaks within its body may have begun, and then it did not end.
    if seen.len() != whole && passes.is_some() || seen.len() > whole.max(1) {
        return Err(format!("the origin saw {} requests: {seen:?}", seen.len()));
    }
    if seen.iter().any(|seen| seen.head.contains("smuggled")) {
        return Err(format!("smuggled: {seen:?}"));
    }
    match (passes, seen.first()) {
        (Some(body), Some(seen)) if seen.body != body.as_bytes() => Err(format!("its body: {seen:?}")),
        (Some(_), Some(seen))
            if !seen
                .field("host")
                .is_some_and(|host| host.eq_ignore_ascii_case("a")) =>
        {
            Err(format!("its host: {seen:?}"))
        }
        _ => Ok(()),
    }
}

#[test]
fn no_request_hides_in_another() {
    let origin = echo();
    let edge = Edge::to(origin.address);
    let rows = [framing(), lengths(), first_lines(), fields(), bodies()].concat();
    assert!(rows.len() >= 270, "{} rows", rows.len());
    let mut wrong = Vec::new();
    for (bytes, want) in &rows {
        let tried = catch_unwind(AssertUnwindSafe(|| try_row(&edge, &origin, bytes, *want)));
        if let Err(what) = tried.unwrap_or_else(|_| Err("no answer".to_owned())) {
            wrong.push(format!(
                "{:?}\n    not {want:?}: {what}",
                String::from_utf8_lossy(bytes)
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} rows:\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n")
    );
}

/// A request that is refused for what it asks, not for how it is written: its body is read to its end or not at all.
#[test]
fn the_body_of_a_refused_request_is_no_request() {
    let origin = echo();
    let config = config(
        &[&[origin.address]],
        &[("/victim", 0, false), ("/closed", 0, true)],
    );
    let edge = Edge::start(&config, Limits::default());
    let within = "GET /victim?smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for target in ["/closed", "/nowhere"] {
        for times in [1, 100, 3000] {
            let body = within.repeat(times);
            let length = format!("Content-Length: {}\r\n\r\n{body}", body.len());
            let chunks = format!(
                "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            );
            let waits = format!("Expect: 100-continue\r\n{length}");
            for rest in [length, chunks, waits] {
                let before = origin.seen().len();
                let mut client = edge.connect();
                client.send(format!("POST {target} HTTP/1.1\r\nHost: a\r\n{rest}{VICTIM}").as_bytes());
                let first = client.response();
                assert!([401, 404].contains(&first.status), "{first:?}");
                let more = if first.field("connection") == Some("close") {
                    assert_eq!(client.read_all_lossy(), "");
                    0
                } else {
                    assert_eq!(client.response().body, "/victim");
                    1
                };
                let seen = origin.seen().split_off(before);
                assert_eq!(seen.len(), more, "{seen:?}");
                assert!(
                    !seen.iter().any(|seen| seen.head.contains("smuggled")),
                    "{seen:?}"
                );
            }
        }
    }
}

/// What an upstream may not answer, and what it may: the bytes, whether the client gets 502, else its body.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn no_answer_hides_in_another() {
    let flood = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(65);
    let many = format!(
        "HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\nok",
        "X: y\r\n".repeat(2000)
    );
    let large = format!(
        "HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 2\r\n\r\nok",
        "y".repeat(70_000)
    );
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let rows: Vec<(String, Option<&str>)> = [
        ("HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok", None),
        ("HTTP/1.1\t200 OK\r\nContent-Length: 2\r\n\r\nok", None),
        ("HTTP/1.1 200OK\r\nContent-Length: 2\r\n\r\nok", None),
        ("HTTP/1.1 +200 OK\r\nContent-Length: 2\r\n\r\nok", None),
        ("HTTP/1.1 -200 OK\r\nContent-Length: 2\r\n\r\nok", None),
        ("HTTP/1.1 0200 OK\r\nContent-Length: 2\r\n\r\nok", None),
        ("HTTP/1.1 200.1 OK\r\nContent-Length: 2\r\n\r\nok", None),
        ("HTTP/1.10 200 OK\r\nContent-Length: 2\r\n\r\nok", None),
        ("HTTP/1.1 200 O\0K\r\nContent-Length: 2\r\n\r\nok", None),
        ("HTTP/1.1 200 OK\u{b}\r\nContent-Length: 2\r\n\r\nok", None),
        ("HTTP/1.1 200 OK\r\r\nContent-Length: 2\r\n\r\nok", None),
        ("\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", None),
        ("\0HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", None),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length:\r\n\r\nok",
            None,
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", None),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\0\r\n\r\nok", None),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\u{b}\r\n\r\nok", None),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\nok",
            None,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked;q=1\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            None,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            None,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            None,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\rZ: w\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            None,
        ),
        ("HTTP/1.1 200 OK\r\nX\0: y\r\nContent-Length: 2\r\n\r\nok", None),
        (
            "HTTP/1.1 200 OK\r\nX\u{e9}: y\r\nContent-Length: 2\r\n\r\nok",
            None,
        ),
        ("HTTP/1.1 200 OK\r\nX;: y\r\nContent-Length: 2\r\n\r\nok", None),
        (
            "HTTP/1.1 200 OK\r\nX: y\u{7f}\r\nContent-Length: 2\r\n\r\nok",
            None,
        ),
        ("HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\nok", None),
        (
            "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            None,
        ),
        ("HTTP/1.1 102 Processing\r\nContent-Length: 5\r\n\r\nhello", None),
        (
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
            None,
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            None,
        ),
        ("HTTP/1.1 199 x\r\n\r\nHTTP/1.1 101 x\r\n\r\n", None),
        ("HTTP/1.1 100 Continue\r\n\r\ngarbage\r\n\r\n", None),
        ("HTTP/1.1 000 x\r\nContent-Length: 2\r\n\r\nok", None),
        ("HTTP/1.1 999 x\r\nContent-Length: 2\r\n\r\nok", None),
        (flood.as_str(), None),
        (many.as_str(), None),
        (large.as_str(), None),
        ("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", Some("ok")),
        ("HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", Some("ok")),
        ("HTTP/1.1 200 OK\r\nContent-Length:\t2 \r\n\r\nok", Some("ok")),
        ("HTTP/1.1 200 OK\r\ncontent-length: 002\r\n\r\nok", Some("ok")),
        (
            "HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 2\r\n\r\nok",
            Some("ok"),
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n2;x=\"y\"\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n",
            Some("ok"),
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            Some("ok"),
        ),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", Some("")),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n",
            Some(""),
        ),
        (
            "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
            Some(""),
        ),
        ("HTTP/1.1 599 x\r\nContent-Length: 2\r\n\r\nok", Some("ok")),
        (ok, Some("ok")),
    ]
    .map(|(bytes, body)| (bytes.to_owned(), body))
    .to_vec();
    for (row, want) in rows {
        let bytes: &'static [u8] = Box::leak(row.clone().into_bytes().into_boxed_slice());
        let origin = Origin::with(move |connection: &mut OriginConnection| {
            while let Some(seen) = connection.request() {
                if seen.line().contains("/row") {
                    connection.send(bytes);
                } else {
                    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n/victim");
                }
            }
        });
        let edge = Edge::to(origin.address);
        let row = row.get(..200).unwrap_or(&row);
        let mut client = edge.connect();
        client.send(&get("X: y"));
        let mut answer = client.response();
        while answer.status < 200 {
            answer = client.response();
        }
        match want {
            None => assert_eq!(answer.status, 502, "{row:?}: {answer:?}"),
            Some(body) => assert_eq!(
                (answer.status == 502, answer.body.as_str()),
                (false, body),
                "{row:?}: {answer:?}"
            ),
        }
        let spoilt = origin.last().connection;
        let victim = edge.connect().get("/victim");
        assert_eq!(victim.body, "/victim", "{row:?}: {victim:?}");
        if want.is_none() {
            assert_ne!(origin.last().connection, spoilt, "{row:?}");
        }
    }
}

/// An answer whose chunks break their grammar never looks whole, and its connection serves nobody else.
#[test]
fn no_broken_answer_looks_whole() {
    for chunks in [
        "2\nok\r\n0\r\n\r\n",
        "2\rok\r\n0\r\n\r\n",
        "0x2\r\nok\r\n0\r\n\r\n",
        "+2\r\nok\r\n0\r\n\r\n",
        "-2\r\nok\r\n0\r\n\r\n",
        " 2\r\nok\r\n0\r\n\r\n",
        "2 \r\nok\r\n0\r\n\r\n",
        "2;\0\r\nok\r\n0\r\n\r\n",
        "2;a\nb\r\nok\r\n0\r\n\r\n",
        "2\r\nokay\r\n0\r\n\r\n",
        "2\r\nok0\r\n\r\n",
        "2\r\nok\n0\r\n\r\n",
        "ffffffffffffffff2\r\nok\r\n0\r\n\r\n",
        "8000000000000000\r\nok\r\n0\r\n\r\n",
        "\r\n",
        "2\r\nok\r\n0\r\nContent-Length: 5\r\n\r\n",
        "2\r\nok\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "2\r\nok\r\n0\r\nSet-Cookie: a=b\r\n\r\n",
        "2\r\nok\r\n0\r\nX: y\n\r\n",
        "2\r\nok\r\n0\r\nX: y\r\n z\r\n\r\n",
        "2\r\nok\r\n0\r\nX\r\n\r\n",
        "2\r\nok\r\n0\r\n\n",
    ] {
        // With the head, and behind it.
        for pause in [false, true] {
            let origin = Origin::with(move |connection: &mut OriginConnection| {
                while let Some(seen) = connection.request() {
                    if seen.line().contains("/victim") {
                        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n/victim");
                        continue;
                    }
                    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                    if pause {
                        connection.send(format!("{head}4\r\ngood\r\n").as_bytes());
                        std::thread::sleep(std::time::Duration::from_millis(5));
                        connection.send(chunks.as_bytes());
                    } else {
                        connection.send(format!("{head}{chunks}").as_bytes());
                    }
                }
            });
            let edge = Edge::to(origin.address);
            let mut client = edge.connect();
            client.send(b"GET /row HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let got = client.read_all_lossy();
            assert!(
                got.starts_with("HTTP/1.1 502 ") || !got.ends_with("0\r\n\r\n"),
                "{chunks:?}: {got:?}"
            );
            let spoilt = origin.last().connection;
            let victim = edge.connect().get("/victim");
            assert_eq!(victim.body, "/victim", "{chunks:?}: {victim:?}");
            assert_ne!(origin.last().connection, spoilt, "{chunks:?}");
        }
    }
}
