//! WebSockets over HTTP/2 (RFC 8441), by a client of raw frames and an origin that speaks RFC 6455's handshake.

use std::{
    io::{Read, Write},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, SETTINGS, fields, frame},
    support::{Edge, Origin, OriginConnection},
};

const PATIENCE: Duration = Duration::from_secs(5);

/// An extended CONNECT.
fn connect(stream: u32, protocol: &str) -> Vec<u8> {
    let head = fields(&[
        (":method", "CONNECT"),
        (":protocol", protocol),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/chat?x"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "talk"),
        ("sec-websocket-key", "bm90IG91cnMgYXQgYWxsISE="),
    ]);
    frame(HEADERS, END_HEADERS, stream, &head)
}

fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    STANDARD.encode(digest)
}

/// Shakes hands, then sends back what it gets, in capitals.
fn echo(connection: &mut OriginConnection) {
    let Some(seen) = connection.request() else { return };
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: talk\r\nSec-WebSocket-Accept: {}\r\n\r\nhello",
        accept(seen.field("sec-websocket-key").unwrap_or_default())
    );
    connection.send(answer.as_bytes());
    let mut part = [0; 1024];
    while let Ok(read @ 1..) = connection.stream.read(&mut part) {
        part[..read].make_ascii_uppercase();
        if connection.stream.write_all(&part[..read]).is_err() {
            return;
        }
    }
    connection.send(b"bye");
}

/// The next frame of a stream.
fn of_stream(client: &mut Frames, stream: u32) -> super::frames::Got {
    loop {
        let got = client.next(PATIENCE).expect("a frame");
        if got.stream == stream && [HEADERS, DATA, 3].contains(&got.kind) {
            return got;
        }
    }
}

#[test]
fn a_websocket_over_http2_reaches_an_http1_upstream() {
    let origin = Origin::with(echo);
    let edge = Edge::to(origin.address);
    let mut client = Frames::connect(&edge, b"");
    // The server says that it knows extended CONNECT (SETTINGS_ENABLE_CONNECT_PROTOCOL, 8).
    let settings = client.next(PATIENCE).expect("settings");
    assert_eq!(settings.kind, SETTINGS);
    assert!(
        settings
            .payload
            .chunks(6)
            .any(|setting| setting == [0, 8, 0, 0, 0, 1]),
        "{settings:?}"
    );
    client.send(&connect(1, "websocket"));
    let head = of_stream(&mut client, 1);
    // 0x88 is `:status: 200` (RFC 7541, appendix A).
    assert_eq!(
        (head.kind, head.payload[0] & 0x7f, head.flags & END_STREAM),
        (HEADERS, 8, 0),
        "{head:?}"
    );
    let seen = origin.last();
    assert_eq!(seen.line(), "GET /chat?x HTTP/1.1");
    for (name, value) in [
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "talk"),
        ("host", "a"),
    ] {
        assert_eq!(seen.field(name), Some(value), "{name}: {}", seen.head);
    }
    assert_eq!(
        seen.field("sec-websocket-key").map(str::len),
        Some(24),
        "{}",
        seen.head
    );
    assert_ne!(
        seen.field("sec-websocket-key"),
        Some("bm90IG91cnMgYXQgYWxsISE="),
        "a key of ours"
    );
    assert_eq!(of_stream(&mut client, 1).payload, b"hello");
    client.send(&frame(DATA, 0, 1, b"ping"));
    assert_eq!(of_stream(&mut client, 1).payload, b"PING");
    // The client's end reaches the upstream, and the upstream's last words the client.
    client.send(&frame(DATA, END_STREAM, 1, b""));
    assert_eq!(of_stream(&mut client, 1).payload, b"bye");
    let last = of_stream(&mut client, 1);
    assert_eq!(
        (last.kind, last.flags & END_STREAM),
        (DATA, END_STREAM),
        "{last:?}"
    );
    drop(client);
    super::support::eventually("told", || edge.counters().routes[0].statuses[1] == 1);
}

#[test]
fn handshakes_that_fail_and_other_protocols() {
    let origin = Origin::with(|connection| {
        while let Some(seen) = connection.request() {
            if seen.field("sec-websocket-protocol") == Some("talk") && connection.number == 0 {
                connection.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
            } else {
                connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: AAAA\r\n\r\n");
                return;
            }
        }
    });
    let edge = Edge::to(origin.address);
    let mut client = Frames::connect(&edge, b"");
    client.send(&connect(1, "websocket"));
    // A refusal of the upstream's is passed on as it is.
    let head = of_stream(&mut client, 1);
    assert!(
        String::from_utf8_lossy(&head.payload).contains("403") || head.payload[0] == 0x48,
        "{head:?}"
    );
    assert_eq!(of_stream(&mut client, 1).payload, b"no");
    // Other protocols, and plain CONNECT, are served to nobody.
    let before = origin.seen().len();
    client.send(&connect(3, "connect-udp"));
    assert_eq!(of_stream(&mut client, 3).kind, HEADERS);
    let plain = fields(&[(":method", "CONNECT"), (":authority", "a:443")]);
    client.send(&frame(HEADERS, END_HEADERS, 5, &plain));
    assert_eq!(of_stream(&mut client, 5).kind, HEADERS);
    assert_eq!(origin.seen().len(), before);
    assert_eq!(
        edge.counters().refused(crate::gateway::Reason::MethodNotServed),
        2
    );
}

#[test]
fn heads_have_the_limits_of_http1() {
    let origin = Origin::ok();
    let edge = Edge::to(origin.address);
    let mut client = Frames::connect(&edge, b"");
    let mut status = |stream: u32, path: &str, more: &[(&str, &str)]| {
        let mut head = super::frames::request("GET", path);
        head.extend_from_slice(&fields(more));
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &head));
        let head = of_stream(&mut client, stream);
        // Statuses without an entry of their own in the table are spelled out.
        String::from_utf8_lossy(&head.payload).into_owned()
    };
    let cookies = vec![("cookie", "a=b"); 150];
    assert!(
        status(1, "/", &cookies).starts_with('\u{fffd}'),
        "200, from the table"
    );
    assert_eq!(origin.seen().len(), 1);
    status(3, "/", &vec![("x", "y"); 101]);
    status(5, &format!("/{}", "x".repeat(9000)), &[]);
    let counters = edge.counters();
    assert_eq!(counters.refused(crate::gateway::Reason::HeadTooLarge), 1);
    assert_eq!(counters.refused(crate::gateway::Reason::TargetTooLong), 1);
    assert_eq!(origin.seen().len(), 1);
}
