//! Start, reload, limits of connections, stop.

use std::{
    net::TcpStream,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use super::support::{Edge, OK, Origin, Tokens, config, eventually};
use crate::{
    gateway::{Limits, demo},
    offence::OffenceKind,
};
use std::sync::Arc;

#[test]
fn requests_in_flight_finish_and_new_connections_are_refused() {
    let (arrived, arrival) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let origin = Origin::with(move |connection| {
        connection.request();
        arrived.send(()).unwrap();
        released.lock().unwrap().recv().unwrap();
        connection.send(OK);
    });
    let edge = Edge::to(origin.address);
    let mut idle = edge.connect();
    idle.send(b"GET");
    let mut busy = edge.connect();
    busy.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    arrival.recv().unwrap();
    edge.handle.stop();
    eventually("the listener is closed", || {
        TcpStream::connect(edge.address).is_err()
    });
    release.send(()).unwrap();
    let response = busy.read_all();
    assert!(
        response.starts_with("HTTP/1.1 200 OK") && response.ends_with("ok"),
        "{response:?}"
    );
    assert!(
        response.to_ascii_lowercase().contains("connection: close"),
        "{response:?}"
    );
    assert_eq!(edge.join().cut, 0);
}

#[test]
fn idle_connections_are_closed_at_once_by_a_stop() {
    let origin = Origin::ok();
    let edge = Edge::to(origin.address);
    let mut client = edge.connect();
    assert_eq!(client.get("/").status, 200);
    let start = Instant::now();
    assert_eq!(edge.join().cut, 0);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(client.read_all(), "");
}

#[test]
fn what_outlasts_the_grace_is_cut_and_counted() {
    let origin = Origin::with(|connection| {
        connection.request();
        connection.request();
    });
    let mut config = config(&[&[origin.address]], &[("/", 0, false)]);
    config.shutdown_grace = Duration::from_millis(100);
    let edge = Edge::start(&config, Limits::default());
    let mut client = edge.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request arrived", || !origin.seen().is_empty());
    let start = Instant::now();
    assert_eq!(edge.join().cut, 1);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn idle_connections_end_after_their_time() {
    let origin = Origin::ok();
    let limits = Limits {
        idle_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let edge = Edge::start(&config(&[&[origin.address]], &[("/", 0, false)]), limits);
    let mut client = edge.connect();
    assert_eq!(client.get("/").status, 200);
    let start = Instant::now();
    assert_eq!(client.read_all(), "");
    assert!(start.elapsed() < Duration::from_secs(2));
    eventually("the slot is free", || edge.handle.connections() == 0);
}

#[test]
fn connections_are_limited_by_peer_and_in_total() {
    let origin = Origin::ok();
    let limits = Limits {
        connections: 3,
        connections_per_peer: 2,
        ..Limits::default()
    };
    let edge = Edge::start(&config(&[&[origin.address]], &[("/", 0, false)]), limits);
    let mut held: Vec<_> = (0..2).map(|_| edge.connect()).collect();
    for client in &mut held {
        assert_eq!(client.get("/").status, 200);
    }
    let mut third = edge.connect();
    assert_eq!(third.read_all_lossy(), "", "turned away without an answer");
    assert_eq!(edge.offences.kinds(), [OffenceKind::TooManyConnections]);
    drop(held);
    eventually("the slots are free", || edge.handle.connections() == 0);
    assert_eq!(edge.connect().get("/").status, 200);
}

#[test]
fn a_full_gateway_says_so() {
    let origin = Origin::ok();
    let limits = Limits {
        connections: 1,
        ..Limits::default()
    };
    let edge = Edge::start(&config(&[&[origin.address]], &[("/", 0, false)]), limits);
    let mut held = edge.connect();
    assert_eq!(held.get("/").status, 200);
    assert!(edge.connect().read_all_lossy().starts_with("HTTP/1.1 503 "));
}

#[test]
fn a_new_plan_serves_the_next_request_of_an_open_connection() {
    let (old, new) = (
        Origin::ok(),
        Origin::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew"),
    );
    let edge = Edge::to(old.address);
    let mut client = edge.connect();
    assert_eq!(client.get("/").body, "ok");
    edge.handle
        .replace(&config(&[&[new.address]], &[("/", 0, false)]), Arc::new(Tokens))
        .expect("a good plan");
    assert_eq!(client.get("/").body, "new");
    // The route has the same name: what was counted goes on.
    eventually("counted", || edge.counters().routes[0].statuses[1] == 2);
}

#[test]
fn every_worker_serves() {
    let origin = Origin::ok();
    let mut config = config(&[&[origin.address]], &[("/", 0, false)]);
    config.workers = std::num::NonZeroU32::new(3);
    let edge = Edge::start(&config, Limits::default());
    eventually("ready", || edge.handle.is_ready());
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut client = edge.connect();
            thread::spawn(move || (0..20).all(|_| client.get("/").status == 200))
        })
        .collect();
    assert!(clients.into_iter().all(|client| client.join().unwrap()));
    eventually("counted", || edge.counters().routes[0].statuses[1] == 160);
}

#[test]
fn the_demo_services_answer_through_the_gateway() {
    let demo = demo::start().expect("loopback");
    let edge = Edge::start(
        &config(
            &[&[demo.web], &[demo.graphql]],
            &[("/", 0, false), ("/graphql", 1, true)],
        ),
        Limits::default(),
    );
    let mut client = edge.connect();
    assert!(client.get("/hello").body.contains("/hello"));
    assert_eq!(client.get("/graphql").status, 401);
    client.send(b"GET /graphql HTTP/1.1\r\nHost: a\r\nCookie: token=good\r\n\r\n");
    let body: serde_json::Value = serde_json::from_str(&client.response().body).expect("JSON");
    assert_eq!(body["data"]["viewer"]["subject"], "alice");
}
