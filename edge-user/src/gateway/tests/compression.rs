//! Compression: who gets it, what it says, and that nothing waits for it.

use std::io::{Read, Write};

use super::{
    routing::serving,
    support::{Client, Edge, Origin, OriginConnection, Response},
};

const ROUTE: &str = "
[[route]]
name = 'r'
path = '/'
upstream = 'o'
auth = 'none'
[route.compress]
types = ['text/*', 'application/json']
min_bytes = 20
";

/// An origin whose answers have the fields that the query asks for, `+` for a space and `&` between them.
fn origin() -> Origin {
    Origin::with(|connection| {
        while let Some(request) = connection.request() {
            let target = request.line().split(' ').nth(1).unwrap_or_default().to_owned();
            let (path, query) = target.split_once('?').unwrap_or((&target, ""));
            let status = path.trim_start_matches('/');
            let mut fields = query.replace('+', " ").replace("%22", "\"").replace('&', "\r\n");
            if !fields.is_empty() {
                fields += "\r\n";
            }
            let body = if request.line().starts_with("HEAD") || status.starts_with("204") {
                String::new()
            } else {
                TEXT.repeat(40)
            };
            let length = if status.starts_with("204") {
                String::new()
            } else {
                format!("Content-Length: {}\r\n", TEXT.len() * 40)
            };
            connection.send(format!("HTTP/1.1 {status} X\r\n{length}{fields}\r\n{body}").as_bytes());
        }
    })
}

const TEXT: &str = "All of it arrives as it was sent. ";

fn ask(edge: &Edge, method: &str, target: &str, accept: &str) -> (Response, Vec<u8>) {
    let mut client = edge.connect();
    client.send(
        format!(
            "{method} {target} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {accept}\r\nConnection: close\r\n\r\n"
        )
        .as_bytes(),
    );
    let mut raw = Vec::new();
    let _ = client.stream.read_to_end(&mut raw);
    let end = raw
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("a head")
        + 4;
    let head = String::from_utf8(raw[..end].to_vec()).expect("text");
    let body = raw[end..].to_vec();
    let response = Response {
        status: head[9..12].parse().expect("a status"),
        head,
        body: String::new(),
    };
    let body = if response.field("transfer-encoding").is_some() {
        unchunked(&body)
    } else {
        body
    };
    (response, body)
}

fn unchunked(mut raw: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = raw.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&raw[..end]).expect("hex"), 16).expect("hex");
        body.extend_from_slice(&raw[end + 2..end + 2 + size]);
        raw = &raw[end + 4 + size..];
        if size == 0 {
            break;
        }
    }
    body
}

fn plain(coding: Option<&str>, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match coding {
        None => out.extend_from_slice(body),
        Some("gzip") => {
            flate2::read::GzDecoder::new(body)
                .read_to_end(&mut out)
                .expect("gzip");
        }
        Some("br") => {
            brotli::Decompressor::new(body, 4096)
                .read_to_end(&mut out)
                .expect("brotli");
        }
        Some("zstd") => out = zstd::stream::decode_all(body).expect("zstd"),
        Some(other) => panic!("{other}"),
    }
    out
}

#[test]
fn the_client_chooses_and_gets_the_same_bytes() {
    let origin = origin();
    let edge = serving(&[("o", origin.address)], ROUTE);
    for (accept, coding) in [
        ("gzip", Some("gzip")),
        ("br", Some("br")),
        ("zstd", Some("zstd")),
        ("gzip, br, zstd", Some("zstd")),
        ("gzip;q=1, br;q=0.5, zstd;q=0", Some("gzip")),
        ("zstd;q=0.1, br;q=0.2", Some("br")),
        ("*", Some("zstd")),
        ("*;q=0.5, zstd;q=0", Some("br")),
        ("identity", None),
        ("identity;q=1, gzip;q=0.5", None),
        ("gzip;q=0", None),
        ("deflate", None),
        ("", None),
        ("gzip;q=7", None),
    ] {
        let (response, body) = ask(
            &edge,
            "GET",
            "/200?Content-Type:+text/plain&ETag:+%22x%22",
            accept,
        );
        assert_eq!(response.field("content-encoding"), coding, "{accept}");
        assert_eq!(plain(coding, &body), TEXT.repeat(40).as_bytes(), "{accept}");
        assert_eq!(response.field("vary"), Some("accept-encoding"), "{accept}");
        if coding.is_some() {
            assert_eq!(response.field("etag"), Some("W/\"x\""), "{accept}");
            assert_eq!(response.field("content-length"), None, "{accept}");
            assert!(body.len() < TEXT.len() * 20, "{accept}: {}", body.len());
        } else {
            assert_eq!(response.field("etag"), Some("\"x\""), "{accept}");
        }
    }
    // What was counted is what went out.
    assert!(edge.counters().routes[0].sent < 14 * 40 * TEXT.len() as u64);
}

#[test]
fn what_must_not_be_coded_is_not() {
    let origin = origin();
    let edge = serving(&[("o", origin.address)], ROUTE);
    for target in [
        "/200?Content-Type:+image/png",
        "/200",
        "/200?Content-Type:+text/plain&Content-Encoding:+br",
        "/200?Content-Type:+text/plain&Cache-Control:+private,+No-Transform",
        "/200?Content-Type:+text/plain&Repr-Digest:+sha-256=:x:",
        "/206?Content-Type:+text/plain&Content-Range:+bytes+0-1359/2000",
        "/404?Content-Type:+text/plain",
        "/500?Content-Type:+text/plain",
    ] {
        let (response, body) = ask(&edge, "GET", target, "gzip");
        let coding = response
            .field("content-encoding")
            .filter(|coding| *coding == "gzip");
        assert_eq!(coding, None, "{target}");
        assert_eq!(response.field("content-length"), Some("1360"), "{target}");
        assert_eq!(body, TEXT.repeat(40).as_bytes(), "{target}");
    }
    let (response, body) = ask(&edge, "HEAD", "/200?Content-Type:+text/plain", "gzip");
    assert_eq!(
        (
            response.field("content-encoding"),
            response.field("content-length")
        ),
        (None, Some("1360"))
    );
    assert_eq!(response.field("vary"), Some("accept-encoding"));
    assert!(body.is_empty());
    let (response, body) = ask(&edge, "GET", "/204?Content-Type:+text/plain", "gzip");
    assert_eq!(
        (response.status, response.field("content-encoding"), body.len()),
        (204, None, 0)
    );
}

#[test]
fn short_answers_are_left_alone() {
    let origin =
        Origin::answering(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok");
    let edge = serving(&[("o", origin.address)], ROUTE);
    let (response, body) = ask(&edge, "GET", "/", "gzip");
    assert_eq!(
        (response.field("content-encoding"), body.as_slice()),
        (None, &b"ok"[..])
    );
    assert_eq!(response.field("vary"), Some("accept-encoding"));
}

/// Reads coded bytes from a chunked answer until `want` can be decoded from them.
fn until(client: &mut Client, coded: &mut Vec<u8>, raw: &mut Vec<u8>, want: &str) {
    let mut decoder_out = String::new();
    while !decoder_out.contains(want) {
        let mut part = [0; 4096];
        let read = client.stream.read(&mut part).expect("more comes");
        assert!(read > 0, "ended before {want}");
        raw.extend_from_slice(&part[..read]);
        while let Some(end) = raw.windows(2).position(|window| window == b"\r\n") {
            let size =
                usize::from_str_radix(std::str::from_utf8(&raw[..end]).expect("hex"), 16).expect("hex");
            if raw.len() < end + 4 + size {
                break;
            }
            coded.extend_from_slice(&raw[end + 2..end + 2 + size]);
            raw.drain(..end + 4 + size);
        }
        let mut decoder = flate2::write::GzDecoder::new(Vec::new());
        decoder.write_all(coded).expect("gzip so far");
        decoder.flush().expect("gzip so far");
        decoder_out = String::from_utf8(decoder.get_ref().clone()).expect("text");
    }
}

#[test]
fn events_do_not_wait_for_more() {
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let origin = Origin::with(move |connection: &mut OriginConnection| {
        while connection.request().is_some() {
            connection.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            );
            for number in 0..3 {
                let event = format!("data: {number}\n\n");
                connection.send(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes());
                // The next one comes only when this one has arrived.
                if gone.lock().expect("held").recv().is_err() {
                    return;
                }
            }
            connection.send(b"0\r\n\r\n");
        }
    });
    let edge = serving(&[("o", origin.address)], ROUTE);
    let mut client = edge.connect();
    client.send(b"GET /events HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    let (mut coded, mut raw) = (Vec::new(), Vec::new());
    let mut byte = [0];
    while !raw.ends_with(b"\r\n\r\n") {
        client.stream.read_exact(&mut byte).expect("a head");
        raw.push(byte[0]);
    }
    assert!(String::from_utf8_lossy(&raw).contains("content-encoding: gzip"));
    raw.clear();
    for number in 0..3 {
        until(&mut client, &mut coded, &mut raw, &format!("data: {number}\n"));
        go.send(()).expect("the origin waits");
    }
}

#[test]
fn a_long_answer_streams_through() {
    let origin = Origin::with(|connection| {
        while connection.request().is_some() {
            connection
                .send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n");
            let part = TEXT.repeat(1000);
            for _ in 0..200 {
                connection.send(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes());
            }
            connection.send(b"0\r\n\r\n");
        }
    });
    let edge = serving(&[("o", origin.address)], ROUTE);
    for coding in ["gzip", "br", "zstd"] {
        let (response, body) = ask(&edge, "GET", "/", coding);
        assert_eq!(response.field("content-encoding"), Some(coding));
        assert_eq!(plain(Some(coding), &body).len(), TEXT.len() * 200_000, "{coding}");
    }
}
