//! What the codec by bytes does beyond hyper's: upgrades, interim responses, framing changed on the way.

use std::{
    io::{Read, Write},
    sync::mpsc,
    thread,
    time::Duration,
};

use super::support::{Edge, OK, Origin, config, eventually};
use crate::gateway::{Limits, Reason};

const HANDSHAKE: &[u8] =
    b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello";

/// An origin that switches, greets, and sends back what it gets until the end.
fn echo() -> Origin {
    Origin::with(|connection| {
        connection.request();
        connection.send(SWITCHED);
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = connection.stream.read(&mut buffer) {
            connection.send(&buffer[..read]);
        }
    })
}

#[test]
fn a_websocket_passes_both_ways_and_ends_at_both_ends() {
    let origin = echo();
    let edge = Edge::to(origin.address);
    let mut client = edge.connect();
    client.send(HANDSHAKE);
    let switched = client.response_to("GET");
    assert_eq!(switched.status, 101);
    assert_eq!(switched.field("upgrade"), Some("websocket"));
    assert_eq!(switched.field("connection"), Some("upgrade"));
    assert!(switched.field("sec-websocket-accept").is_some());
    let seen = origin.last();
    assert_eq!(seen.field("upgrade"), Some("websocket"));
    assert_eq!(seen.field("connection"), Some("upgrade"));
    client.send(b"one");
    client.send(b"two");
    client.finish_sending();
    assert_eq!(client.read_all(), "helloonetwo");
    eventually("counted", || {
        let counters = edge.counters();
        (counters.routes[0].received, counters.routes[0].sent) == (6, 11)
    });
}

#[test]
fn a_websocket_on_which_nothing_moves_is_ended() {
    let origin = echo();
    let limits = Limits {
        tunnel_idle_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let edge = Edge::start(&config(&[&[origin.address]], &[("/", 0, false)]), limits);
    let mut client = edge.connect();
    client.send(HANDSHAKE);
    assert_eq!(client.response_to("GET").status, 101);
    assert_eq!(client.read_all(), "hello");
    eventually("counted", || edge.counters().refused(Reason::TunnelIdle) == 1);
}

#[test]
fn a_stop_ends_websockets() {
    let (told, hears) = mpsc::channel();
    let origin = Origin::with(move |connection| {
        connection.request();
        connection.send(SWITCHED.strip_suffix(b"hello").unwrap_or_default());
        // A whole frame, then the beginning of another.
        connection.send(b"\x81\x02hi\x81\x05ab");
        let mut got = Vec::new();
        let mut buffer = [0; 64];
        while let Ok(read @ 1..) = connection.stream.read(&mut buffer) {
            got.extend_from_slice(&buffer[..read]);
            if got == b"\x81\x80abcd" {
                // The client has seen both: the rest of the frame comes after the stop.
                told.send(got.clone()).unwrap();
                thread::sleep(Duration::from_millis(50));
                connection.send(b"cde");
            }
        }
        told.send(got).unwrap();
    });
    let edge = Edge::to(origin.address);
    let mut client = edge.connect();
    client.send(HANDSHAKE);
    assert_eq!(client.response_to("GET").status, 101);
    client.send(b"\x81\x80abcd");
    hears.recv().unwrap();
    assert_eq!(edge.join().cut, 0);
    assert_eq!(
        client.read_all(),
        String::from_utf8_lossy(b"\x81\x02hi\x81\x05abcde\x88\x02\x03\xe9"),
        "the frame whole, then the goodbye"
    );
    let got = hears.recv().unwrap();
    let [_, _, _, _, _, _, 0x88, 0x82, a, b, _, _, high, low] = got.as_slice() else {
        panic!("{got:?}");
    };
    assert_eq!([a ^ high, b ^ low], [0x03, 0xe9]);
}

#[test]
fn a_switch_that_was_not_asked_for_or_goes_elsewhere_is_refused() {
    for (request, answer) in [
        (&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], SWITCHED),
        (
            HANDSHAKE,
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        ),
        (HANDSHAKE, b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
    ] {
        let origin = Origin::answering(answer);
        let edge = Edge::to(origin.address);
        let mut client = edge.connect();
        client.send(request);
        assert_eq!(client.response().status, 502, "{answer:?}");
    }
}

#[test]
fn an_upgrade_to_anything_but_websocket_is_not_passed_on() {
    let origin = Origin::ok();
    let edge = Edge::to(origin.address);
    let mut client = edge.connect();
    for upgrade in ["h2c", "tls/1.0", "websocket, h2c"] {
        client.send(
            format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n")
                .as_bytes(),
        );
        assert_eq!(client.response().status, 200);
        assert_eq!(origin.last().field("upgrade"), None);
        assert_eq!(origin.last().field("connection"), None);
    }
}

#[test]
fn interim_responses_reach_whom_they_are_for() {
    let origin = Origin::with(|connection| {
        while connection.request().is_some() {
            connection.send(b"HTTP/1.1 100 Continue\r\n\r\n");
            connection.send(
                b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x\r\nX: y\r\n\r\n",
            );
            connection.send(OK);
        }
    });
    let edge = Edge::to(origin.address);
    let mut client = edge.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let hints = client.response();
    assert_eq!(
        (hints.status, hints.field("link"), hints.field("x")),
        (103, Some("</a.css>; rel=preload"), None),
        "and no 100, as none was waited for"
    );
    assert_eq!(client.response().status, 200);
    let old = edge.exchange(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert!(old.starts_with("HTTP/1.1 200 "), "{old:?}");
}

#[test]
fn interim_responses_without_end_are_refused() {
    let origin = Origin::with(|connection| {
        connection.request();
        loop {
            if connection
                .stream
                .write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n")
                .is_err()
            {
                return;
            }
        }
    });
    let edge = Edge::to(origin.address);
    let got = edge.exchange(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(got.contains("HTTP/1.1 502 "), "{got:?}");
    assert_eq!(got.matches("HTTP/1.1 103 ").count(), 64);
}

#[test]
fn a_body_up_to_the_end_of_the_connection_gets_chunks_and_the_connection_lives() {
    let origin = Origin::with(|connection| {
        connection.request();
        connection.send(b"HTTP/1.1 200 OK\r\n\r\nup to ");
        connection.send(b"the end");
    });
    let edge = Edge::to(origin.address);
    let mut client = edge.connect();
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!(response.field("transfer-encoding"), Some("chunked"));
        assert_eq!(response.body, "up to the end");
    }
    let old = edge.exchange(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert!(
        old.ends_with("\r\n\r\nup to the end") && !old.contains("chunked"),
        "{old:?}"
    );
}

#[test]
fn http10_connections_live_if_asked_to() {
    let origin = Origin::ok();
    let edge = Edge::to(origin.address);
    let mut client = edge.connect();
    for _ in 0..3 {
        client.send(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
        let response = client.response();
        assert_eq!(
            (response.status, response.field("connection")),
            (200, Some("keep-alive"))
        );
    }
    client.send(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert!(client.read_all().contains("connection: close"));
}

#[test]
fn a_client_that_has_finished_sending_still_gets_its_answers() {
    let origin = Origin::ok();
    let edge = Edge::to(origin.address);
    let mut client = edge.connect();
    client.send(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    client.finish_sending();
    assert_eq!(client.read_all().matches("HTTP/1.1 200 OK").count(), 2);
}

#[test]
fn a_refused_request_with_a_small_body_does_not_cost_its_connection() {
    let origin = Origin::ok();
    let edge = Edge::start(
        &config(&[&[origin.address]], &[("/a", 0, false)]),
        Limits::default(),
    );
    let mut client = edge.connect();
    client.send(b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel");
    assert_eq!(client.response().status, 404);
    client.send(b"loGET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert_eq!(origin.last().line(), "GET /a HTTP/1.1");
    client.send(b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n");
    let got = client.read_all();
    assert!(
        got.starts_with("HTTP/1.1 404 ") && got.contains("connection: close"),
        "{got:?}"
    );
}

#[test]
fn a_hundred_requests_sent_at_once_are_answered_in_order() {
    let origin = Origin::with(|connection| {
        while let Some(seen) = connection.request() {
            let number = seen.line()[5..].split(' ').next().unwrap_or_default().to_owned();
            connection.send(
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{number}",
                    number.len()
                )
                .as_bytes(),
            );
        }
    });
    let edge = Edge::to(origin.address);
    let mut client = edge.connect();
    let all: Vec<String> = (0..100)
        .map(|number| format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .collect();
    client.send(all.concat().as_bytes());
    for number in 0..100 {
        assert_eq!(client.response().body, number.to_string());
    }
    assert_eq!(edge.counters().upstream_connects, 1);
}

#[test]
fn both_bodies_stream_at_once() {
    let origin = Origin::with(|connection| {
        connection.head();
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let early = connection.take_buffered();
        connection.send(&early);
        let mut buffer = [0; 4096];
        // Each chunk of the request is answered with one of the response, framing and all.
        while let Ok(read @ 1..) = connection.stream.read(&mut buffer) {
            connection.send(&buffer[..read]);
            if buffer[..read].ends_with(b"0\r\n\r\n") {
                break;
            }
        }
    });
    let edge = Edge::to(origin.address);
    let mut client = edge.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    let mut got = String::new();
    let mut buffer = [0; 4096];
    for round in 0..5 {
        client.send(format!("4\r\nr{round:03}\r\n").as_bytes());
        while !got.contains(&format!("r{round:03}")) {
            let read = client.stream.read(&mut buffer).expect("the echo");
            assert!(read > 0, "{got:?}");
            got.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    }
    client.send(b"0\r\n\r\n");
    thread::yield_now();
    assert!(client.read_all().ends_with("0\r\n\r\n"));
}
