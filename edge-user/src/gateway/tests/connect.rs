//! CONNECT: tunnels that a route allows, over HTTP/1.1 and over HTTP/2, and everything else that calls itself CONNECT.

use std::{
    io::Read,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{
    frames::{DATA, END_HEADERS, END_STREAM, Frames, Got, HEADERS, RST_STREAM, fields, frame, request},
    support::{Edge, OK, Origin, PATIENCE, config, eventually, nobody},
};
use crate::{
    config::{AuthPolicy, Config, PathPattern, Route, RouteMatch},
    gateway::{Limits, Reason},
};

/// Sends back what it gets, in capitals, and a last word; requests of the other routes get an answer first.
fn origin() -> (Origin, Arc<AtomicUsize>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let origin = Origin::with(move |connection| {
        count.fetch_add(1, Ordering::Relaxed);
        let mut part = [0; 16 * 1024];
        while let Ok(read @ 1..) = connection.stream.read(&mut part) {
            let part = &mut part[..read];
            if part.starts_with(b"GET /") {
                connection.send(OK);
                continue;
            }
            part.make_ascii_uppercase();
            connection.send(part);
        }
        connection.send(b"bye");
    });
    (origin, connections)
}

/// `/` for everybody, and tunnels to `db.example:5432` and `[2001:db8::1]:22`, for tokens if `protected`.
fn tunnels(upstream: SocketAddr, protected: bool) -> Config {
    let mut config = config(&[&[upstream]], &[("/", 0, false), ("/db", 0, true)]);
    let authorities = ["db.example:5432", "[2001:db8::1]:22"];
    let auth = if protected {
        config.routes[1].auth.clone()
    } else {
        AuthPolicy::None
    };
    config.routes[1] = Route::forwarding(
        "db",
        RouteMatch {
            path: PathPattern::Tunnel(authorities.map(str::to_owned).to_vec()),
            ..RouteMatch::prefix("/")
        },
        0,
        auth,
        Duration::from_secs(5),
    );
    config
}

const HEAD: &str = "CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\n";

#[test]
fn bytes_pass_both_ways_until_both_ends_have_finished() {
    let (origin, connections) = origin();
    let edge = Edge::start(&tunnels(origin.address, true), Limits::default());
    // A connection that is kept for requests is none for a tunnel.
    assert_eq!(edge.connect().get("/").status, 200);
    for (number, authority) in [
        "db.example:5432",
        "DB.Example.:5432",
        "[2001:db8::1]:22",
        "[2001:DB8:0::1]:22",
    ]
    .iter()
    .enumerate()
    {
        let mut client = edge.connect();
        // What is sent with the head is the tunnel's, whatever it looks like.
        client.send(
            format!(
                "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nAuthorization: Bearer good\r\n\r\nPOST / HTTP/1.1\r\n\r\n"
            )
            .as_bytes(),
        );
        let answer = client.response_to("HEAD");
        assert_eq!(answer.status, 200, "{authority}: {}", answer.head);
        for name in ["content-length", "transfer-encoding", "connection"] {
            assert_eq!(answer.field(name), None, "{}", answer.head);
        }
        client.send(b"one");
        client.finish_sending();
        assert_eq!(client.read_all(), "POST / HTTP/1.1\r\n\r\nONEbye");
        assert_eq!(connections.load(Ordering::Relaxed), number + 2);
    }
    eventually("counted", || {
        let counters = edge.counters();
        (counters.routes[1].received, counters.routes[1].sent) == (4 * 22, 4 * 25)
            && counters.routes[1].statuses[1] == 4
    });
}

#[test]
fn large_amounts_pass_in_both_directions_at_once() {
    const LEN: usize = 8 * 1024 * 1024;
    let (origin, _) = origin();
    let edge = Edge::start(&tunnels(origin.address, false), Limits::default());
    let mut client = edge.connect();
    client.send(HEAD.as_bytes());
    assert_eq!(client.response_to("HEAD").status, 200);
    let mut sending = client.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        use std::io::Write;
        sending.write_all(&vec![b'x'; LEN]).unwrap();
        sending.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let all = client.read_all();
    sender.join().unwrap();
    assert_eq!(all.len(), LEN + 3);
    assert!(all.bytes().take(LEN).all(|byte| byte == b'X') && all.ends_with("bye"));
}

#[test]
fn what_no_route_allows_is_refused_and_nothing_behind_it_is_served() {
    let (origin, connections) = origin();
    let edge = Edge::start(&tunnels(origin.address, true), Limits::default());
    let head = |target: &str, fields: &str| format!("CONNECT {target} HTTP/1.1\r\n{fields}\r\n");
    let host = "Host: db.example:5432\r\n";
    let token = "Authorization: Bearer good\r\n";
    let good = "db.example:5432";
    let named = |target: &str| head(target, &format!("Host: {target}\r\n{token}"));
    let with = |fields: &str| head(good, &format!("{host}{token}{fields}"));
    let rows = [
        (head(good, host), 401, Reason::TokenMissing),
        (
            head(good, &format!("{host}Authorization: Bearer weak\r\n")),
            403,
            Reason::Forbidden,
        ),
        (
            head(good, &format!("{host}Authorization: Bearer bad\r\n")),
            401,
            Reason::TokenRefused,
        ),
        (named("db.example:5433"), 501, Reason::MethodNotServed),
        (named("db.example:543"), 501, Reason::MethodNotServed),
        (named("other.example:5432"), 501, Reason::MethodNotServed),
        (named("x.db.example:5432"), 501, Reason::MethodNotServed),
        (named("127.0.0.1:5432"), 501, Reason::MethodNotServed),
        (named("[2001:db8::2]:22"), 501, Reason::MethodNotServed),
        (named("db.example"), 400, Reason::BadTarget),
        (named("[2001:db8::1]"), 400, Reason::BadTarget),
        (named("db.example:"), 400, Reason::BadTarget),
        (named("db.example:0"), 400, Reason::BadTarget),
        (named("db.example:05432"), 400, Reason::BadTarget),
        (named("db.example:65536"), 400, Reason::BadTarget),
        (named("user@db.example:5432"), 400, Reason::BadTarget),
        (named("db.example:5432/"), 400, Reason::BadTarget),
        (named("db.example:5432?x"), 400, Reason::BadTarget),
        (named("db.example:5432,x:1"), 400, Reason::BadTarget),
        (named("db%2Eexample:5432"), 400, Reason::BadTarget),
        (head("http://db.example:5432/", host), 400, Reason::BadTarget),
        (head("/db", host), 400, Reason::BadTarget),
        (head("*", host), 400, Reason::BadTarget),
        (with("Content-Length: 0\r\n"), 400, Reason::BadFraming),
        (with("Content-Length: 5\r\n"), 400, Reason::BadFraming),
        (with("Transfer-Encoding: chunked\r\n"), 400, Reason::BadFraming),
        (head(good, token), 400, Reason::BadHost),
        (
            head(good, &format!("Host: db.example\r\n{token}")),
            400,
            Reason::BadHost,
        ),
        (
            head(good, &format!("Host: a:5432\r\n{token}")),
            400,
            Reason::BadHost,
        ),
        (
            format!("CONNECT {good} HTTP/1.0\r\n{host}{token}\r\n"),
            501,
            Reason::MethodNotServed,
        ),
        (
            format!("connect {good} HTTP/1.1\r\n{host}{token}\r\n"),
            400,
            Reason::BadSyntax,
        ),
        (
            format!("GET {good} HTTP/1.1\r\n{host}{token}\r\n"),
            400,
            Reason::BadTarget,
        ),
    ];
    for (head, status, reason) in rows {
        let before = edge.counters().refused(reason);
        let answer = edge.exchange(&[head.as_bytes(), b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{head:?}: {answer}"
        );
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{head:?}: {answer}");
        assert!(answer.contains("connection: close\r\n"), "{head:?}: {answer}");
        assert_eq!(
            edge.counters().refused(reason),
            before + 1,
            "{head:?}: {reason:?}"
        );
    }
    assert_eq!(connections.load(Ordering::Relaxed), 0);
}

#[test]
fn a_route_with_tunnels_serves_nothing_else() {
    let (origin, connections) = origin();
    let mut config = tunnels(origin.address, false);
    config.routes.remove(0);
    let edge = Edge::start(&config, Limits::default());
    for method in ["GET", "POST", "OPTIONS"] {
        let answer = edge.exchange(
            format!("{method} / HTTP/1.1\r\nHost: db.example:5432\r\nConnection: close\r\n\r\n").as_bytes(),
        );
        assert!(answer.starts_with("HTTP/1.1 404 "), "{method}: {answer}");
    }
    assert_eq!(connections.load(Ordering::Relaxed), 0);
}

#[test]
fn an_upstream_that_is_not_there_is_a_502() {
    let edge = Edge::start(&tunnels(nobody(), false), Limits::default());
    let answer = edge.exchange(format!("{HEAD}GET / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    let mut client = Frames::connect(&edge, b"");
    client.send(&open(1, "db.example:5432", &[]));
    assert_eq!(of_stream(&mut client, 1).kind, HEADERS);
    assert_eq!(edge.counters().refused(Reason::UpstreamUnreachable), 2);
}

#[test]
fn a_tunnel_on_which_nothing_moves_is_ended() {
    let (origin, _) = origin();
    let limits = Limits {
        tunnel_idle_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let edge = Edge::start(&tunnels(origin.address, false), limits);
    let mut client = edge.connect();
    client.send(HEAD.as_bytes());
    assert_eq!(client.response_to("HEAD").status, 200);
    assert_eq!(client.read_all(), "");
    let mut frames = Frames::connect(&edge, b"");
    frames.send(&open(1, "db.example:5432", &[]));
    eventually("counted", || edge.counters().refused(Reason::TunnelIdle) == 2);
}

#[test]
fn a_stop_ends_tunnels() {
    let (origin, _) = origin();
    let edge = Edge::start(&tunnels(origin.address, false), Limits::default());
    let mut client = edge.connect();
    client.send(HEAD.as_bytes());
    assert_eq!(client.response_to("HEAD").status, 200);
    client.send(b"a");
    assert_eq!(client.read_some(), "A");
    assert_eq!(edge.join().cut, 0);
    assert_eq!(client.read_all(), "");
}

/// CONNECT over HTTP/2.
fn open(stream: u32, authority: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let head = [&[(":method", "CONNECT"), (":authority", authority)], more].concat();
    frame(HEADERS, END_HEADERS, stream, &fields(&head))
}

/// The next frame of a stream.
fn of_stream(client: &mut Frames, stream: u32) -> Got {
    loop {
        let got = client.next(PATIENCE).expect("a frame");
        if got.stream == stream && [HEADERS, DATA, RST_STREAM].contains(&got.kind) {
            return got;
        }
    }
}

#[test]
fn a_stream_is_a_tunnel_beside_others() {
    let (origin, connections) = origin();
    let edge = Edge::start(&tunnels(origin.address, true), Limits::default());
    let mut client = Frames::connect(&edge, b"");
    let token = [("authorization", "Bearer good")];
    client.send(&open(1, "DB.example:5432", &token));
    client.send(&frame(DATA, 0, 1, b"one"));
    let head = of_stream(&mut client, 1);
    // 0x88 is `:status: 200` (RFC 7541, appendix A).
    assert_eq!(
        (head.kind, head.payload[0] & 0x7f, head.flags & END_STREAM),
        (HEADERS, 8, 0),
        "{head:?}"
    );
    assert_eq!(of_stream(&mut client, 1).payload, b"ONE");
    // Refusals are answers of their streams, and leave the connection as it is.
    for (stream, authority, more, reason) in [
        (3, "db.example:5432", &[][..], Reason::TokenMissing),
        (5, "db.example:5433", &token, Reason::MethodNotServed),
        (7, "db.example", &token, Reason::BadTarget),
        (
            9,
            "db.example:5432",
            &[("host", "a:5432"), token[0]],
            Reason::BadHost,
        ),
        (
            11,
            "db.example:5432",
            &[("content-length", "0"), token[0]],
            Reason::BadFraming,
        ),
    ] {
        client.send(&open(stream, authority, more));
        let got = of_stream(&mut client, stream);
        assert_eq!(got.kind, HEADERS, "{authority} {more:?}: {got:?}");
        assert_eq!(edge.counters().refused(reason), 1, "{authority} {more:?}");
    }
    client.send(&frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        13,
        &request("GET", "/"),
    ));
    assert_eq!(of_stream(&mut client, 13).payload[0] & 0x7f, 8);
    assert_eq!(connections.load(Ordering::Relaxed), 2);
    // Its end reaches the upstream, and the upstream's last words the client.
    client.send(&frame(DATA, 0, 1, b"two"));
    assert_eq!(of_stream(&mut client, 1).payload, b"TWO");
    client.send(&frame(DATA, END_STREAM, 1, b""));
    assert_eq!(of_stream(&mut client, 1).payload, b"bye");
    let last = of_stream(&mut client, 1);
    assert_eq!(
        (last.kind, last.flags & END_STREAM),
        (DATA, END_STREAM),
        "{last:?}"
    );
    eventually("counted", || {
        let counters = edge.counters();
        (counters.routes[1].received, counters.routes[1].sent) == (6, 9)
    });
}
