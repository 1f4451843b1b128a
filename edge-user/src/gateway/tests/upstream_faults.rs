//! Upstreams that break every rule: each fault has its status and its reason, and leaves no connection behind.

use std::{net::SocketAddr, num::NonZeroU32, thread, time::Duration};

use super::support::{Edge, Origin, config, eventually};
use crate::gateway::{Limits, Reason};

/// Connections of this process to `address` that are not over.
fn connections_to(address: SocketAddr) -> usize {
    // proc_pid_net(5): local and remote address, then the state; 01 is ESTABLISHED, 08 CLOSE_WAIT.
    let table = std::fs::read_to_string("/proc/self/net/tcp").expect("Linux");
    let remote = format!("0100007F:{:04X}", address.port());
    table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(2);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(to, state)| *to == remote && matches!(*state, "01" | "08"))
        .count()
}

/// What a broken origin does after it has read a request.
#[derive(Clone, Copy)]
enum Does {
    /// Sends this and closes.
    Says(&'static [u8]),
    /// Sends this and resets.
    SaysAndResets(&'static [u8]),
    /// Sends this and then nothing.
    SaysAndWaits(&'static [u8]),
    /// Closes without reading.
    Closes,
    /// Sends a head without end.
    Talks,
}

/// What it does, what the client gets, and what is counted.
const ROWS: [(&str, Does, u16, Reason); 18] = [
    ("closes", Does::Closes, 502, Reason::UpstreamReset),
    (
        "says nothing and closes",
        Does::Says(b""),
        502,
        Reason::UpstreamReset,
    ),
    ("resets", Does::SaysAndResets(b""), 502, Reason::UpstreamReset),
    (
        "resets within the head",
        Does::SaysAndResets(b"HTTP/1.1 200 OK\r\nContent-"),
        502,
        Reason::UpstreamReset,
    ),
    (
        "ends within the head",
        Does::Says(b"HTTP/1.1 200 OK\r\nContent-Le"),
        502,
        Reason::UpstreamReset,
    ),
    ("waits", Does::SaysAndWaits(b""), 504, Reason::UpstreamTimeout),
    (
        "waits within the head",
        Does::SaysAndWaits(b"HTTP/1.1 200 OK\r\nCon"),
        504,
        Reason::UpstreamTimeout,
    ),
    (
        "TLS",
        Does::Says(b"\x15\x03\x01\x00\x02\x02\x46\r\n\r\n"),
        502,
        Reason::UpstreamMalformed,
    ),
    (
        "another protocol",
        Does::Says(b"220 mail.example ESMTP\r\n\r\n"),
        502,
        Reason::UpstreamMalformed,
    ),
    (
        "HTTP/0.9",
        Does::Says(b"<html>hello</html>\r\n\r\n"),
        502,
        Reason::UpstreamMalformed,
    ),
    ("a head without end", Does::Talks, 502, Reason::UpstreamMalformed),
    (
        "two lengths",
        Does::Says(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        502,
        Reason::UpstreamMalformed,
    ),
    (
        "length and chunks",
        Does::Says(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        502,
        Reason::UpstreamMalformed,
    ),
    (
        "switches unasked",
        Does::Says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
        502,
        Reason::UpstreamMalformed,
    ),
    (
        "breaks off",
        Does::Says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart"),
        200,
        Reason::UpstreamCutShort,
    ),
    (
        "resets within the body",
        Does::SaysAndResets(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart"),
        200,
        Reason::UpstreamCutShort,
    ),
    (
        "breaks off between chunks",
        Does::Says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"),
        200,
        Reason::UpstreamCutShort,
    ),
    (
        "stalls",
        Does::SaysAndWaits(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart"),
        200,
        Reason::UpstreamStalled,
    ),
];

#[test]
fn each_fault_has_its_status_and_its_reason_and_leaves_no_connection() {
    for (what, does, status, reason) in ROWS {
        let origin = Origin::with(move |connection| {
            if matches!(does, Does::Closes) {
                return;
            }
            connection.request();
            match does {
                Does::Says(bytes) => connection.send(bytes),
                Does::SaysAndResets(bytes) => {
                    connection.send(bytes);
                    // Time to read what was said: a reset overtakes it.
                    thread::sleep(Duration::from_millis(20));
                    let socket = socket2::SockRef::from(&connection.stream);
                    let _ = socket.set_linger(Some(Duration::ZERO));
                }
                Does::SaysAndWaits(bytes) => {
                    connection.send(bytes);
                    connection.request();
                }
                Does::Closes => {}
                Does::Talks => {
                    connection.send(b"HTTP/1.1 200 OK\r\n");
                    for _ in 0..3000 {
                        connection.send(b"X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n");
                    }
                }
            }
        });
        let mut config = config(&[&[origin.address]], &[("/", 0, false)]);
        config.upstreams[0].retry.attempts = NonZeroU32::MIN;
        config.routes[0].timeout = Duration::from_millis(150);
        let limits = Limits {
            stall_timeout: Duration::from_millis(150),
            ..Limits::default()
        };
        let edge = Edge::start(&config, limits);
        let mut client = edge.connect();
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.finish_sending();
        let got = client.read_all_lossy();
        let first = format!("HTTP/1.1 {status} ");
        assert!(got.starts_with(&first), "{what}: {got:?}");
        eventually(what, || edge.counters().refused(reason) == 1);
        eventually(what, || connections_to(origin.address) == 0);
    }
}
