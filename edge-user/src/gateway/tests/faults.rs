//! What upstreams and clients do wrong: the right status, and no connection used that should not be.

use std::{
    io::{ErrorKind, Read},
    thread,
    time::{Duration, Instant},
};

use super::support::{Edge, OK, Origin, config, eventually, nobody};
use crate::{
    gateway::{Limits, Reason},
    offence::OffenceKind,
};

#[test]
fn nobody_listens() {
    let edge = Edge::to(nobody());
    let mut client = edge.connect();
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!(response.status, 502);
        assert!(
            response.body.contains("upstream_unreachable"),
            "{}",
            response.body
        );
        assert!(!response.body.contains("127.0.0.1"), "{}", response.body);
    }
    assert_eq!(edge.counters().refused(Reason::UpstreamUnreachable), 2);
    assert!(edge.offences.kinds().is_empty(), "the client is not to blame");
}

#[test]
fn a_body_that_no_upstream_took_is_not_taken_for_requests() {
    // By bytes; and by hyper, which keeps bodies.
    for kept in [0, 64 * 1024] {
        let origin = Origin::ok();
        let mut config = config(
            &[&[nobody()], &[origin.address]],
            &[("/gone", 0, false), ("/", 1, false)],
        );
        config.upstreams[0].retry.buffer_bytes = kept;
        let edge = Edge::start(&config, Limits::default());
        let body = "GET /within HTTP/1.1\r\nHost: a\r\n\r\n".repeat(200);
        for len in [100, 5_000, body.len()] {
            let (body, mut client) = (&body[..len], edge.connect());
            let head = "POST /gone HTTP/1.1\r\nHost: a\r\n";
            let request = format!("{head}Content-Length: {len}\r\n\r\n{body}");
            let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{len:x}\r\n{body}\r\n0\r\n\r\n");
            for request in [request, chunked] {
                client.send(format!("{request}GET /behind HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
                assert_eq!(client.response().status, 502, "{len} kept {kept}");
                assert_eq!(client.response().status, 200, "{len} kept {kept}");
                assert_eq!(origin.last().line(), "GET /behind HTTP/1.1", "{len} kept {kept}");
            }
        }
        assert_eq!(origin.seen().len(), 6, "nothing else reaches it");
    }
}

#[test]
fn another_endpoint_is_tried_when_one_cannot_be_reached() {
    let origin = Origin::ok();
    let edge = Edge::start(
        &config(&[&[nobody(), origin.address]], &[("/", 0, false)]),
        Limits::default(),
    );
    let mut client = edge.connect();
    for _ in 0..4 {
        assert_eq!(client.get("/").status, 200);
    }
}

#[test]
fn endpoints_take_turns() {
    let origins = [Origin::ok(), Origin::ok(), Origin::ok()];
    let endpoints: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    let edge = Edge::start(&config(&[&endpoints], &[("/", 0, false)]), Limits::default());
    let mut client = edge.connect();
    for _ in 0..9 {
        assert_eq!(client.get("/").status, 200);
    }
    assert!(origins.iter().all(|origin| origin.seen().len() == 3));
}

#[test]
fn a_reset_before_the_answer() {
    let origin = Origin::with(|connection| {
        connection.request();
    });
    let edge = Edge::to(origin.address);
    let response = edge.connect().get("/");
    assert_eq!(response.status, 502);
    assert!(response.body.contains("upstream_reset"), "{}", response.body);
    assert_eq!(
        origin.seen().len(),
        1,
        "a first connection that fails is not tried again"
    );
}

#[test]
fn a_head_that_breaks_off() {
    let origin = Origin::with(|connection| {
        connection.request();
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Le");
    });
    let edge = Edge::to(origin.address);
    assert_eq!(edge.connect().get("/").status, 502);
}

#[test]
fn a_body_that_breaks_off_breaks_off_for_the_client_too() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\npart",
    ] {
        let origin = Origin::with(move |connection| {
            connection.request();
            connection.send(answer);
        });
        let edge = Edge::to(origin.address);
        let mut client = edge.connect();
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let got = client.read_all();
        assert!(got.starts_with("HTTP/1.1 200 OK"), "{got:?}");
        assert!(
            !got.ends_with("0\r\n\r\n"),
            "the end must not look whole: {got:?}"
        );
        eventually("counted", || {
            edge.counters().refused(Reason::UpstreamCutShort) == 1
        });
    }
}

#[test]
fn a_body_that_breaks_off_is_a_reset_to_who_knows_its_end_by_the_connection_alone() {
    for (cut, answer) in [
        (
            true,
            &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\npart"[..],
        ),
        (
            true,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\nzz",
        ),
        (true, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart"),
        (
            false,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n0\r\n\r\n",
        ),
        (false, b"HTTP/1.1 200 OK\r\n\r\npart"),
    ] {
        let origin = Origin::with(move |connection| {
            connection.request();
            // In two pieces, so that a part of the body is on its way before it breaks off.
            connection.send(&answer[..answer.len() - 2]);
            thread::sleep(Duration::from_millis(20));
            connection.send(&answer[answer.len() - 2..]);
        });
        let edge = Edge::to(origin.address);
        let mut client = edge.connect();
        client.send(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n");
        let mut got = Vec::new();
        let end = client.stream.read_to_end(&mut got);
        let what = String::from_utf8_lossy(answer);
        let is_reset = end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
        assert_eq!(is_reset, cut, "{what:?}: {:?}", String::from_utf8_lossy(&got));
    }
}

#[test]
fn who_still_sends_when_the_answer_comes_is_told_that_the_connection_ends() {
    let origin = Origin::with(|connection| {
        // Answers upon the head, and reads the rest.
        while let Some(head) = connection.head() {
            connection.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig");
            connection.body(head);
        }
    });
    let edge = Edge::to(origin.address);
    for head in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let mut client = edge.connect();
        client.send(head.as_bytes());
        let response = client.response();
        assert_eq!(
            (response.status, response.body.as_str()),
            (413, "big"),
            "{response:?}"
        );
        assert_eq!(response.field("connection"), Some("close"), "{response:?}");
        // What follows is not taken for a request, whatever it is.
        client.send(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_all_lossy(), "");
        assert!(!origin.seen().iter().any(|seen| seen.head.contains("smuggled")));
    }
    // Who has sent everything keeps its connection.
    let mut client = edge.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    let response = client.response();
    assert_eq!(response.field("connection"), None, "{response:?}");
}

#[test]
fn a_chunked_answer_that_breaks_its_grammar_breaks_off() {
    let origin = Origin::answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n");
    let edge = Edge::to(origin.address);
    let mut client = edge.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let got = client.read_all();
    assert!(!got.ends_with("0\r\n\r\n"), "{got:?}");
}

#[test]
fn a_slow_upstream_is_given_up_in_time() {
    let origin = Origin::with(|connection| {
        connection.request();
        // Holds the connection until the gateway gives it up.
        connection.request();
    });
    let mut config = config(&[&[origin.address]], &[("/", 0, false)]);
    config.routes[0].timeout = Duration::from_millis(100);
    let edge = Edge::start(&config, Limits::default());
    let start = Instant::now();
    let response = edge.connect().get("/");
    assert_eq!(response.status, 504);
    assert!(response.body.contains("upstream_timeout"), "{}", response.body);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn an_upstream_that_does_not_accept_is_given_up_in_time() {
    // A listener whose queue is full takes no more connections.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let _filling: Vec<_> = (0..4)
        .map(|_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50)))
        .collect();
    let mut config = config(&[&[address]], &[("/", 0, false)]);
    config.upstreams[0].connect_timeout = Duration::from_millis(100);
    let edge = Edge::start(&config, Limits::default());
    let response = edge.connect().get("/");
    assert_eq!(response.status, 504);
    assert!(
        response.body.contains("upstream_connect_timeout"),
        "{}",
        response.body
    );
}

#[test]
fn a_body_that_stalls_is_given_up() {
    let origin = Origin::with(|connection| {
        connection.request();
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
        connection.request();
    });
    let limits = Limits {
        stall_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let edge = Edge::start(&config(&[&[origin.address]], &[("/", 0, false)]), limits);
    let got = edge.exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(got.ends_with("part"), "{got:?}");
    eventually("counted", || {
        edge.counters().refused(Reason::UpstreamStalled) == 1
    });
}

#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let origin = Origin::with(|connection| {
        connection.head();
        connection
            .send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig");
        // The rest of the body is never read.
        thread::sleep(Duration::from_millis(200));
    });
    let edge = Edge::to(origin.address);
    let mut client = edge.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\npart");
    let response = client.response();
    assert_eq!((response.status, response.body.as_str()), (413, "big"));
}

#[test]
fn keep_alive_connections_are_used_again() {
    let origin = Origin::ok();
    let edge = Edge::to(origin.address);
    for _ in 0..3 {
        let mut client = edge.connect();
        for _ in 0..5 {
            assert_eq!(client.get("/").status, 200);
        }
    }
    assert!(origin.seen().iter().all(|seen| seen.connection == 0));
    let counters = edge.counters();
    assert_eq!((counters.upstream_connects, counters.upstream_reuses), (1, 14));
}

#[test]
fn a_connection_that_died_while_idle_fails_no_request() {
    // Each connection serves one request and is then closed without a word.
    let origin = Origin::with(|connection| {
        connection.request();
        connection.send(OK);
    });
    let edge = Edge::to(origin.address);
    let mut client = edge.connect();
    for round in 0..30 {
        let body = if round % 2 == 0 { "" } else { "hello" };
        let method = if round % 2 == 0 { "GET" } else { "POST" };
        client.send(
            format!(
                "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .as_bytes(),
        );
        let response = client.response();
        assert_eq!(response.status, 200, "round {round}: {response:?}");
        // The origin's close has time to arrive: the race itself is the next test.
        thread::sleep(Duration::from_millis(3));
    }
    assert_eq!(origin.seen().len(), 30, "nothing is sent twice");
}

#[test]
fn a_request_that_was_read_and_not_answered_is_repeated_only_if_that_does_no_harm() {
    // The second request of each connection is read and the connection closed.
    let origin = Origin::with(|connection| {
        connection.request();
        connection.send(OK);
        connection.request();
    });
    let edge = Edge::to(origin.address);
    let mut client = edge.connect();
    assert_eq!(client.get("/1").status, 200);
    assert_eq!(client.get("/2").status, 200, "a GET is sent again");
    client.send(b"POST /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(client.response().status, 502, "a POST is not");
    let lines: Vec<_> = origin.seen().iter().map(|seen| seen.line().to_owned()).collect();
    assert_eq!(
        lines,
        [
            "GET /1 HTTP/1.1",
            "GET /2 HTTP/1.1",
            "GET /2 HTTP/1.1",
            "POST /3 HTTP/1.1"
        ]
    );
    assert_eq!(edge.counters().retries, 1);
}

#[test]
fn connection_close_of_the_upstream_is_obeyed() {
    let origin = Origin::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    let edge = Edge::to(origin.address);
    let mut client = edge.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/").status, 200);
    }
    let connections: Vec<_> = origin.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 1, 2]);
}

#[test]
fn slow_heads_are_cut_off_while_others_are_served() {
    let origin = Origin::ok();
    let limits = Limits {
        head_timeout: Duration::from_millis(150),
        ..Limits::default()
    };
    let edge = Edge::start(&config(&[&[origin.address]], &[("/", 0, false)]), limits);
    let mut slow = edge.connect();
    slow.send(b"GET / HTTP/1.1\r\nHo");
    assert_eq!(edge.connect().get("/").status, 200);
    let got = slow.read_all();
    assert!(got.starts_with("HTTP/1.1 408 "), "{got:?}");
    assert_eq!(edge.offences.kinds(), [OffenceKind::SlowClient]);

    // Also one that drips: the limit is for the whole head.
    let mut drip = edge.connect();
    let start = Instant::now();
    for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"
        .iter()
        .cycle()
    {
        drip.send(&[*byte]);
        thread::sleep(Duration::from_millis(10));
        if start.elapsed() > Duration::from_millis(600) {
            break;
        }
    }
    assert!(drip.read_all().starts_with("HTTP/1.1 408 "));
}

#[test]
fn slow_bodies_are_cut_off() {
    let origin = Origin::ok();
    let limits = Limits {
        stall_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let edge = Edge::start(&config(&[&[origin.address]], &[("/", 0, false)]), limits);
    let got = edge.exchange(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\npart");
    assert!(got.starts_with("HTTP/1.1 408 "), "{got:?}");
    assert!(got.contains("body_timeout"), "{got:?}");
    assert_eq!(edge.offences.kinds(), [OffenceKind::SlowClient]);
}

#[test]
fn bodies_that_drip_are_cut_off() {
    let origin = Origin::ok();
    let limits = Limits {
        stall_timeout: Duration::from_millis(200),
        min_body_rate: 1000,
        ..Limits::default()
    };
    let edge = Edge::start(&config(&[&[origin.address]], &[("/", 0, false)]), limits);
    let mut client = edge.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n");
    let begun = Instant::now();
    for _ in 0..100 {
        client.send(b"x");
        thread::sleep(Duration::from_millis(20));
        if edge.counters().refused(Reason::BodyTimeout) > 0 {
            break;
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(client.response().status, 408);
    assert_eq!(edge.offences.kinds(), [OffenceKind::SlowClient]);
}

#[test]
fn a_body_that_breaks_off_is_not_completed() {
    let origin = Origin::with(|connection| {
        connection.request();
    });
    let edge = Edge::to(origin.address);
    let mut client = edge.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\npart");
    client.finish_sending();
    let got = client.read_all();
    assert!(got.is_empty() || got.starts_with("HTTP/1.1 400 "), "{got:?}");
    eventually("counted", || edge.counters().refused(Reason::BodyCutShort) == 1);
}

#[test]
fn large_bodies_are_refused_by_declaration_and_by_count() {
    let origin = Origin::ok();
    let limits = Limits {
        body: Some(1000),
        ..Limits::default()
    };
    let edge = Edge::start(&config(&[&[origin.address]], &[("/", 0, false)]), limits);
    let got = edge.exchange(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n");
    assert!(got.starts_with("HTTP/1.1 413 "), "{got:?}");
    let mut chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..11 {
        chunked.extend_from_slice(b"64\r\n");
        chunked.extend_from_slice(&[b'x'; 100]);
        chunked.extend_from_slice(b"\r\n");
    }
    let got = edge.exchange(&chunked);
    assert!(got.starts_with("HTTP/1.1 413 "), "{got:?}");
    let fits = [
        &b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"[..],
        &[b'x'; 1000],
    ]
    .concat();
    let mut client = edge.connect();
    client.send(&fits);
    assert_eq!(client.response().status, 200);
}
