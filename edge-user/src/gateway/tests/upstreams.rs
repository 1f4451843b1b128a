//! Upstreams against real servers: who is chosen, who is left out, what is sent again, and who is told what.

use std::{
    io::Read,
    net::{SocketAddr, TcpListener, UdpSocket},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record, RecordType, rdata::A},
};

use super::support::{Edge, OK, Origin, config, eventually, nobody};
use crate::{
    config::{
        Action, Balance, Circuit, Config, Dns, Ejection, EndpointHost, EndpointSpec, HashKey, HealthCheck,
        PoolLimits, Probe, ProxyVersion, Retry, Split, Upstream,
    },
    gateway::{Limits, Reason},
    upstream::cluster::State,
};

/// Every path to one upstream, made from the default by `change`.
fn upstream(endpoints: &[SocketAddr], change: impl FnOnce(&mut Upstream)) -> Config {
    let mut config = config(&[endpoints], &[("/", 0, false)]);
    change(&mut config.upstreams[0]);
    config
}

fn start(endpoints: &[SocketAddr], change: impl FnOnce(&mut Upstream)) -> Edge {
    Edge::start(&upstream(endpoints, change), Limits::default())
}

fn one() -> Option<NonZeroU32> {
    NonZeroU32::new(1)
}

#[test]
fn shares_follow_weights() {
    let origins = [Origin::ok(), Origin::ok()];
    let edge = start(&[origins[0].address, origins[1].address], |upstream| {
        upstream.endpoints[0].weight = NonZeroU32::new(3).expect("not zero");
    });
    let mut client = edge.connect();
    for _ in 0..20 {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!(origins.map(|origin| origin.seen().len()), [15, 5]);
}

#[test]
fn the_same_cookie_meets_the_same_endpoint_and_others_are_spread() {
    let origins = [Origin::ok(), Origin::ok(), Origin::ok()];
    let addresses = [0, 1, 2].map(|index: usize| origins[index].address);
    let edge = start(&addresses, |upstream| {
        upstream.balance = Balance::ConsistentHash(HashKey::Cookie("session".into()));
    });
    let mut client = edge.connect();
    for user in 0..30 {
        for _ in 0..2 {
            client.send(
                format!("GET /{user} HTTP/1.1\r\nHost: a\r\nCookie: a=b; session={user}\r\n\r\n").as_bytes(),
            );
            assert_eq!(client.response().status, 200);
        }
    }
    for user in 0..30 {
        let line = format!("GET /{user} HTTP/1.1");
        let seen: Vec<_> = origins
            .iter()
            .map(|origin| origin.seen().iter().filter(|seen| seen.line() == line).count())
            .collect();
        assert!(seen.contains(&2), "{user}: {seen:?}");
    }
    assert!(origins.iter().all(|origin| !origin.seen().is_empty()));
}

#[test]
fn a_route_shares_its_requests_and_a_user_stays() {
    let origins = [Origin::ok(), Origin::answering(BUSY)];
    let (app, canary) = (&[origins[0].address][..], &[origins[1].address][..]);
    let mut config = config(&[app, canary], &[("/", 0, false)]);
    config.routes[0].action = Action::Split(Split {
        parts: vec![(0, 3), (1, 1)],
        hash: Some(HashKey::Header("x-user".into())),
    });
    let edge = Edge::start(&config, Limits::default());
    let mut client = edge.connect();
    let mut ask = |user: usize| {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-User: {user}\r\n\r\n").as_bytes());
        client.response().status
    };
    let first: Vec<u16> = (0..100).map(&mut ask).collect();
    let again: Vec<u16> = (0..100).map(&mut ask).collect();
    assert_eq!(first, again);
    let canaries = first.iter().filter(|status| **status == 503).count();
    assert!((15..=35).contains(&canaries), "{canaries}");
}

/// An origin whose health is up to the test.
fn ailing(healthy: &Arc<AtomicBool>) -> Origin {
    let healthy = Arc::clone(healthy);
    Origin::with(move |connection| {
        while let Some(seen) = connection.request() {
            let bad = seen.line().contains("/healthz") && !healthy.load(Relaxed);
            connection.send(if bad {
                b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
            } else {
                OK
            });
        }
    })
}

fn checks() -> HealthCheck {
    HealthCheck {
        probe: Probe::Http {
            path: "/healthz?deep".into(),
            host: Some("health.example".into()),
            status: vec![(200, 204)],
            body: Some("ok".into()),
        },
        interval: Duration::from_millis(50),
        timeout: Duration::from_secs(2),
        rise: NonZeroU32::MIN,
        fall: NonZeroU32::MIN,
        port: None,
    }
}

#[test]
fn what_is_down_gets_nothing_and_comes_back() {
    let healthy = Arc::new(AtomicBool::new(true));
    let origin = ailing(&healthy);
    let edge = start(&[origin.address], |upstream| upstream.health = Some(checks()));
    let state = || edge.handle.upstreams()[0].1[0].state;
    eventually("checked", || state() == State::Up);
    let mut client = edge.connect();
    assert_eq!(client.get("/").status, 200);
    healthy.store(false, Relaxed);
    eventually("down", || state() == State::Down);
    let response = client.get("/");
    assert_eq!((response.status, response.field("retry-after")), (503, Some("5")));
    assert!(response.body.contains("upstream_down"), "{}", response.body);
    healthy.store(true, Relaxed);
    eventually("up", || state() == State::Up);
    assert_eq!(client.get("/").status, 200);
    let check = origin
        .seen()
        .into_iter()
        .find(|seen| seen.line().contains("/healthz"));
    let check = check.expect("it was asked");
    assert_eq!(check.line(), "GET /healthz?deep HTTP/1.1");
    assert_eq!(check.field("host"), Some("health.example"));
}

#[test]
fn a_port_that_nobody_listens_on_is_found_by_the_first_check() {
    let origin = Origin::ok();
    let edge = start(&[origin.address, nobody()], |upstream| {
        upstream.health = Some(HealthCheck {
            probe: Probe::Tcp,
            ..checks()
        });
    });
    eventually("down", || edge.handle.upstreams()[0].1[1].state == State::Down);
    let before = edge.counters().upstream_connects;
    let mut client = edge.connect();
    for _ in 0..6 {
        assert_eq!(client.get("/").status, 200);
    }
    assert!(edge.counters().upstream_connects <= before + 1);
}

#[test]
fn an_endpoint_that_fails_is_left_out_for_a_time() {
    let good = Origin::ok();
    let bad = Origin::with(|connection| {
        connection.request();
    });
    let edge = start(&[good.address, bad.address], |upstream| {
        upstream.ejection = Some(Ejection {
            consecutive: NonZeroU32::new(3).expect("not zero"),
            time: Duration::from_millis(300),
            ..Ejection::default()
        });
        upstream.retry.attempts = NonZeroU32::MIN;
    });
    let state = || edge.handle.upstreams()[0].1[1].state;
    let mut client = edge.connect();
    let mut failed = 0;
    while state() != State::Ejected {
        failed += u32::from(client.get("/").status == 502);
        assert!(failed <= 4, "it should be out by now");
    }
    assert!(failed >= 3);
    for _ in 0..10 {
        assert_eq!(client.get("/").status, 200);
    }
    eventually("taken back", || state() != State::Ejected);
}

#[test]
fn a_share_of_failures_leaves_an_endpoint_out_and_a_smaller_one_does_not() {
    for (percent, is_out) in [(40, true), (60, false)] {
        let good = Origin::ok();
        let asked = AtomicU32::new(0);
        // Every second answer is a failure: never two in a row.
        let half = Origin::with(move |connection| {
            while connection.request().is_some() {
                let fails = asked.fetch_add(1, Relaxed) % 2 == 1;
                connection.send(if fails { BUSY } else { OK });
            }
        });
        let edge = start(&[good.address, half.address], |upstream| {
            upstream.ejection = Some(Ejection {
                consecutive: NonZeroU32::new(2).expect("not zero"),
                failure_percent: Some(percent),
                min_requests: 10,
                interval: Duration::from_millis(200),
                time: Duration::from_mins(1),
                ..Ejection::default()
            });
            upstream.retry.attempts = NonZeroU32::MIN;
        });
        let state = |at: usize| edge.handle.upstreams()[0].1[at].state;
        let mut client = edge.connect();
        let begun = Instant::now();
        while state(1) != State::Ejected && begun.elapsed() < Duration::from_secs(if is_out { 10 } else { 1 })
        {
            assert!([200, 503].contains(&client.get("/").status));
        }
        assert!(half.seen().len() >= 10);
        assert_eq!(state(1) == State::Ejected, is_out, "{percent} %");
        assert_ne!(state(0), State::Ejected);
        if is_out {
            let before = half.seen().len();
            for _ in 0..20 {
                assert_eq!(client.get("/").status, 200);
            }
            assert_eq!(half.seen().len(), before);
        }
    }
}

#[test]
fn who_comes_back_starts_slowly() {
    let healthy = Arc::new(AtomicBool::new(false));
    let (steady, returning) = (Origin::ok(), ailing(&healthy));
    let edge = start(&[steady.address, returning.address], |upstream| {
        upstream.health = Some(HealthCheck {
            // The steady one has no such page, and says so with what every path of it answers.
            probe: Probe::Http {
                path: "/healthz".into(),
                host: None,
                status: vec![(200, 200)],
                body: None,
            },
            ..checks()
        });
        upstream.slow_start = Duration::from_secs(4);
    });
    let state = || edge.handle.upstreams()[0].1[1].state;
    let requests = || {
        let seen = returning.seen();
        seen.iter()
            .filter(|seen| !seen.line().contains("/healthz"))
            .count()
    };
    let mut client = edge.connect();
    let mut round = || {
        let before = requests();
        for _ in 0..100 {
            assert_eq!(client.get("/").status, 200);
        }
        requests() - before
    };
    eventually("down", || state() == State::Down);
    assert_eq!(round(), 0);
    healthy.store(true, Relaxed);
    eventually("up", || state() == State::Up);
    let begun = Instant::now();
    let (first, took) = (round(), begun.elapsed());
    // A round takes some 50 ms; one that was held up for long says nothing.
    assert!(
        took > Duration::from_secs(2) || (1..=25).contains(&first),
        "{first} in {took:?}"
    );
    let mut shares = vec![first];
    while begun.elapsed() < Duration::from_millis(4500) {
        shares.push(round());
        thread::sleep(Duration::from_millis(200));
    }
    let last = round();
    assert!((48..=52).contains(&last), "{last} after {shares:?}");
    assert!(shares.iter().any(|share| (15..=45).contains(share)), "{shares:?}");
}

#[test]
fn the_only_endpoint_is_never_left_out() {
    let bad = Origin::with(|connection| {
        connection.request();
    });
    let edge = start(&[bad.address], |upstream| {
        upstream.ejection = Some(Ejection {
            consecutive: NonZeroU32::MIN,
            max_percent: 100,
            ..Ejection::default()
        });
    });
    let mut client = edge.connect();
    for _ in 0..5 {
        let response = client.get("/");
        assert!(response.body.contains("upstream_reset"), "{}", response.body);
    }
}

const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";

#[test]
fn a_status_is_tried_again_if_the_method_allows_it() {
    let origins = [Origin::answering(BUSY), Origin::ok()];
    let edge = start(&[origins[0].address, origins[1].address], |upstream| {
        upstream.retry = Retry {
            statuses: vec![503],
            ..Retry::default()
        };
        upstream.ejection = None;
    });
    let mut client = edge.connect();
    for _ in 0..4 {
        let response = client.get("/");
        assert_eq!((response.status, response.body.as_str()), (200, "ok"));
    }
    let mut statuses = Vec::new();
    for _ in 0..2 {
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        statuses.push(client.response().status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503], "a POST is sent once");
}

#[test]
fn a_body_that_is_kept_is_sent_again() {
    let resets = Origin::with(|connection| {
        connection.request();
    });
    let good = Origin::ok();
    let edge = start(&[resets.address, good.address], |upstream| {
        upstream.retry.buffer_bytes = 100_000;
        upstream.ejection = None;
    });
    let mut client = edge.connect();
    let put = |size: usize| {
        let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n");
        [head.into_bytes(), vec![b'x'; size]].concat()
    };
    client.send(&put(90_000));
    assert_eq!(client.response().status, 200);
    assert_eq!((resets.seen().len(), good.last().body.len()), (1, 90_000));
    client.send(&put(300_000));
    let response = client.response();
    assert_eq!(response.status, 502, "more than is kept: {response:?}");
    assert_eq!((resets.seen().len(), good.seen().len()), (2, 1));
}

#[test]
fn retries_have_a_budget() {
    let origins = [Origin::answering(BUSY), Origin::answering(BUSY)];
    let edge = start(&[origins[0].address, origins[1].address], |upstream| {
        upstream.retry = Retry {
            statuses: vec![503],
            budget_percent: 0,
            attempts: NonZeroU32::new(2).expect("not zero"),
            ..Retry::default()
        };
        upstream.ejection = None;
    });
    let mut client = edge.connect();
    for _ in 0..50 {
        let response = client.get("/");
        assert!(matches!(response.status, 502 | 503), "{response:?}");
    }
    let asked: usize = origins.iter().map(|origin| origin.seen().len()).sum();
    // Ten are free at the start, and ten a second.
    assert!((60..=80).contains(&asked), "{asked}");
}

#[test]
fn a_reset_is_tried_elsewhere_and_within_its_time_an_answer_too() {
    let silent = Origin::with(|connection| {
        connection.request();
        connection.request();
    });
    let good = Origin::ok();
    let edge = start(&[silent.address, good.address], |upstream| {
        upstream.retry.try_timeout = Some(Duration::from_millis(100));
    });
    let mut client = edge.connect();
    for _ in 0..2 {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!(silent.seen().len(), 2, "it is its turn each time");
    assert_eq!(edge.counters().retries, 2);
}

#[test]
fn what_is_above_the_limits_is_refused_at_once() {
    let (release, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let slow = Origin::with(move |connection| {
        while connection.request().is_some() {
            let _ = held.lock().expect("not poisoned").recv();
            connection.send(OK);
        }
    });
    let cases: [fn(&mut Upstream); 2] = [
        |upstream| {
            upstream.circuit = Circuit {
                requests: one(),
                ..Circuit::default()
            };
        },
        |upstream| {
            upstream.pool = PoolLimits {
                connections: one(),
                waiting: 0,
                ..PoolLimits::default()
            };
        },
    ];
    for change in cases {
        let edge = start(&[slow.address], change);
        let before = slow.seen().len();
        let (mut first, mut second) = (edge.connect(), edge.connect());
        first.send(b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n");
        eventually("it is there", || slow.seen().len() > before);
        let response = second.get("/second");
        assert_eq!((response.status, response.field("retry-after")), (503, Some("1")));
        assert!(response.body.contains("upstream_busy"), "{}", response.body);
        assert_eq!(edge.counters().refused(Reason::UpstreamBusy), 1);
        release.send(()).expect("the origin waits");
        assert_eq!(first.response().status, 200);
        release.send(()).expect("the origin waits");
        assert_eq!(second.get("/second").status, 200, "there is room again");
    }
}

#[test]
fn who_waits_gets_the_connection_that_comes_back() {
    let origin = Origin::with(|connection| {
        while connection.request().is_some() {
            thread::sleep(Duration::from_millis(5));
            connection.send(OK);
        }
    });
    let edge = start(&[origin.address], |upstream| upstream.pool.connections = one());
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut client = edge.connect();
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            client
        })
        .collect();
    for mut client in clients {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(edge.counters().upstream_connects, 1);
}

#[test]
fn the_upstream_is_told_who_the_client_is() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let origin = thread::spawn(move || {
            let mut heads = Vec::new();
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().expect("a connection");
                let (mut head, mut part) = (Vec::new(), [0; 4096]);
                while !head.windows(4).any(|window| window == b"\r\n\r\n") || !head.ends_with(b"\r\n\r\n") {
                    let read = stream.read(&mut part).expect("readable");
                    head.extend_from_slice(&part[..read]);
                }
                std::io::Write::write_all(&mut stream, OK).expect("writable");
                heads.push(head);
            }
            heads
        });
        let edge = start(&[address], |upstream| upstream.send_proxy = Some(version));
        let mut client = edge.connect();
        let port = client.stream.local_addr().expect("connected").port();
        assert_eq!(client.get("/").status, 200);
        assert_eq!(
            client.get("/").status,
            200,
            "each request on a connection of its own"
        );
        for head in origin.join().expect("no panic") {
            let expected = match version {
                ProxyVersion::V1 => format!(
                    "PROXY TCP4 127.0.0.1 127.0.0.1 {port} {}\r\nGET / ",
                    edge.address.port()
                )
                .into_bytes(),
                ProxyVersion::V2 => {
                    let ports = [port.to_be_bytes(), edge.address.port().to_be_bytes()].concat();
                    [
                        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01"[..],
                        &ports,
                        b"GET / ",
                    ]
                    .concat()
                }
            };
            assert!(head.starts_with(&expected), "{}", head.escape_ascii());
        }
    }
}

/// A DNS server that answers every question with one address, or fails.
struct NameServer {
    address: SocketAddr,
    /// Last octet of 127.0.0.x; 0 fails.
    answer: Arc<AtomicU32>,
    asked: Arc<AtomicU32>,
}

impl NameServer {
    fn start(answer: u32) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let server = Self {
            address: socket.local_addr().expect("bound"),
            answer: Arc::new(AtomicU32::new(answer)),
            asked: Arc::default(),
        };
        let (answer, asked) = (Arc::clone(&server.answer), Arc::clone(&server.asked));
        thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((read, from)) = socket.recv_from(&mut buffer) {
                let Ok(question) = Message::from_vec(&buffer[..read]) else {
                    continue;
                };
                asked.fetch_add(1, Relaxed);
                let mut reply = question.clone();
                reply.metadata.message_type = hickory_resolver::proto::op::MessageType::Response;
                reply.additionals.clear();
                reply.edns = None;
                let last = answer.load(Relaxed);
                let query = question.queries[0].clone();
                if last == 0 {
                    reply.metadata.response_code = ResponseCode::ServFail;
                } else if query.query_type() == RecordType::A {
                    let record = RData::A(A::new(127, 0, 0, last as u8));
                    reply
                        .answers
                        .push(Record::from_rdata(query.name().clone(), 0, record));
                }
                let _ = socket.send_to(&reply.to_vec().expect("encodable"), from);
            }
        });
        server
    }
}

#[test]
fn names_are_resolved_again_and_the_last_good_addresses_stay() {
    // One port on two addresses.
    let origins = [Origin::ok(), Origin::ok()];
    let names = NameServer::start(1);
    let port = origins[0].address.port();
    let other = TcpListener::bind(("127.0.0.2", port)).expect("the port is free there");
    thread::spawn(move || {
        for stream in other.incoming().flatten() {
            let mut stream = stream;
            let mut request = [0; 4096];
            while stream.read(&mut request).is_ok_and(|read| read > 0) {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother";
                let _ = std::io::Write::write_all(&mut stream, answer);
            }
        }
    });
    let edge = start(&[], |upstream| {
        upstream.endpoints = vec![EndpointSpec {
            host: EndpointHost::Name {
                name: "app.test".into(),
                port,
            },
            weight: NonZeroU32::MIN,
            zone: None,
        }];
        upstream.dns = Dns {
            refresh_min: Duration::from_millis(30),
            refresh_max: Duration::from_millis(30),
            server: Some(names.address),
        };
    });
    let mut client = edge.connect();
    assert_eq!(client.get("/").body, "ok", "resolved before the start");
    names.answer.store(2, Relaxed);
    eventually("moved", || edge.connect().get("/").body == "other");
    names.answer.store(0, Relaxed);
    let asked = names.asked.load(Relaxed);
    eventually("asked in vain", || names.asked.load(Relaxed) >= asked + 4);
    assert_eq!(client.get("/").body, "other", "the last good address stays");
}

#[test]
fn a_name_that_nobody_knows_is_no_reason_not_to_start() {
    let names = NameServer::start(0);
    let origin = Origin::ok();
    let edge = start(&[], |upstream| {
        upstream.endpoints = vec![EndpointSpec {
            host: EndpointHost::Name {
                name: "app.test".into(),
                port: origin.address.port(),
            },
            weight: NonZeroU32::MIN,
            zone: None,
        }];
        upstream.dns = Dns {
            refresh_min: Duration::from_millis(30),
            refresh_max: Duration::from_millis(30),
            server: Some(names.address),
        };
    });
    let mut client = edge.connect();
    let response = client.get("/");
    assert_eq!(response.status, 503);
    assert!(response.body.contains("no_endpoint"), "{}", response.body);
    names.answer.store(1, Relaxed);
    eventually("known", || edge.connect().get("/").status == 200);
}
