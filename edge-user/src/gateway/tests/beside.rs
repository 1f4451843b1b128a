//! Requests beside the request: merged answers of several services, and copies to a mirror.

use std::time::{Duration, Instant};

use super::{
    routing::serving,
    support::{Edge, OK, Origin, OriginConnection, Response, eventually, nobody},
};
use crate::gateway::Reason;

fn ask(edge: &Edge, request: &str) -> Response {
    let mut client = edge.connect();
    client.send(format!("{request}\r\n\r\n").as_bytes());
    client.response_to(request.split(' ').next().unwrap_or_default())
}

/// An origin of JSON by the last segment of the path.
fn json() -> Origin {
    Origin::with(|connection| {
        while let Some(request) = connection.request() {
            let target = request.line().split(' ').nth(1).unwrap_or_default().to_owned();
            let path = target.split('?').next().unwrap_or_default();
            let (status, body) = match path.rsplit('/').next() {
                Some("broken") => (200, "{\"a\":".to_owned()),
                Some("injected") => (200, "1,\"admin\":true".to_owned()),
                Some("error") => (500, "{}".to_owned()),
                Some("large") => (200, format!("\"{}\"", "x".repeat(1024 * 1024))),
                Some("slow") => {
                    std::thread::sleep(Duration::from_millis(2500));
                    (200, "1".to_owned())
                }
                _ => (200, format!(" {{ \"path\": \"{path}\" }}\n")),
            };
            connection.send(
                format!(
                    "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
                .as_bytes(),
            );
        }
    })
}

const PAGE: &str = "
[[route]]
name = 'page'
path_template = '/page/{id}/{part}'
methods = ['GET']
auth = 'required'
providers = ['p']
timeout = '1s'
request_headers = { set = { x-page = '{id}' } }
response_headers = { set = { cache-control = 'no-store' } }
[[route.fan_out]]
key = 'user'
upstream = 'users'
path = '/users/{id}'
[[route.fan_out]]
key = 'extra'
upstream = 'extras'
path = '/extras/{part}'
required = false
[[provider]]
name = 'p'
algorithms = ['HS256']
secret_file = 'jwt.secret'
remove_token = true
";

#[test]
fn several_services_answer_one_request() {
    let (users, extras) = (json(), json());
    let edge = serving(&[("users", users.address), ("extras", extras.address)], PAGE);
    let get = |part: &str, lines: &str| {
        ask(
            &edge,
            &format!("GET /page/7/{part}?q=1 HTTP/1.1\r\nHost: a{lines}"),
        )
    };
    let token = "\r\nAuthorization: Bearer good\r\nIf-None-Match: \"x\"\r\nAccept-Encoding: gzip";
    // Authenticated once, before anybody is asked.
    assert_eq!(get("a", "").status, 401);
    assert!(users.seen().is_empty());
    let response = get("a", token);
    assert_eq!(
        (response.status, response.body.as_str()),
        (
            200,
            "{\"user\":{ \"path\": \"/users/7\" },\"extra\":{ \"path\": \"/extras/a\" }}\n"
        )
    );
    assert_eq!(response.field("content-type"), Some("application/json"));
    assert_eq!(response.field("cache-control"), Some("no-store"));
    let seen = users.last();
    assert_eq!(seen.line(), "GET /users/7?q=1 HTTP/1.1");
    assert_eq!(seen.field("x-auth-subject"), Some("alice"));
    assert_eq!(seen.field("x-page"), Some("7"));
    for name in ["authorization", "if-none-match", "accept-encoding"] {
        assert_eq!(seen.field(name), None, "{name}");
    }
    // A part that may fail is null, whatever the fault; nothing of it gets into the object.
    for part in ["broken", "injected", "error", "large", "slow"] {
        let response = get(part, token);
        assert_eq!(
            (response.status, response.body.as_str()),
            (200, "{\"user\":{ \"path\": \"/users/7\" },\"extra\":null}\n"),
            "{part}"
        );
    }
    let response = ask(&edge, &format!("HEAD /page/7/a HTTP/1.1\r\nHost: a{token}"));
    assert_eq!(response.status, 200);
    assert_eq!(
        ask(
            &edge,
            &format!("POST /page/7/a HTTP/1.1\r\nHost: a{token}\r\nContent-Length: 0")
        )
        .status,
        405
    );
    assert_eq!(edge.counters().routes[0].statuses[1], 7);
}

#[test]
fn a_part_that_must_be_there_refuses_the_whole() {
    let extras = json();
    let edge = serving(&[("users", nobody()), ("extras", extras.address)], PAGE);
    let response = ask(
        &edge,
        "GET /page/7/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good",
    );
    assert_eq!(response.status, 502);
    assert!(
        response.body.contains("part_failed") && !response.body.contains("extras"),
        "{}",
        response.body
    );
    assert_eq!(edge.counters().refused(Reason::PartFailed), 1);
}

const MIRRORED: &str = "
[[route]]
name = 'r'
path = '/'
upstream = 'o'
auth = 'none'
rewrite = { prefix = '/v1' }
[route.mirror]
upstream = 'shadow'
body_bytes = 10
";

#[test]
fn a_mirror_gets_a_copy_and_nobody_waits_for_it() {
    let origin = Origin::ok();
    // It answers nothing for a long time.
    let shadow = Origin::with(|connection| {
        while connection.request().is_some() {
            std::thread::sleep(Duration::from_secs(20));
        }
    });
    let edge = serving(&[("o", origin.address), ("shadow", shadow.address)], MIRRORED);
    let begun = Instant::now();
    let mut client = edge.connect();
    assert_eq!(client.get("/x?y=1").status, 200);
    client.send(b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.response().status, 200);
    // Too long to be kept: it goes to the upstream alone.
    client.send(b"POST /long HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world");
    assert_eq!(client.response().status, 200);
    assert!(begun.elapsed() < Duration::from_secs(5));
    eventually("two copies", || shadow.seen().len() == 2);
    let mut lines: Vec<_> = shadow
        .seen()
        .iter()
        .map(|seen| (seen.line().to_owned(), seen.body.clone()))
        .collect();
    lines.sort();
    assert_eq!(
        lines,
        [
            ("GET /v1/x?y=1 HTTP/1.1".to_owned(), Vec::new()),
            ("POST /v1/p HTTP/1.1".to_owned(), b"hello".to_vec()),
        ]
    );
    assert_eq!(origin.seen().len(), 3);
    assert_eq!(edge.counters().unmirrored, 1);
}

#[test]
fn a_mirror_that_is_down_or_broken_changes_nothing() {
    for shadow in [nobody(), Origin::answering(b"garbage\r\n\r\n").address] {
        let origin = Origin::answering(OK);
        let edge = serving(&[("o", origin.address), ("shadow", shadow)], MIRRORED);
        let mut client = edge.connect();
        for _ in 0..20 {
            assert_eq!(client.get("/").status, 200);
        }
        assert_eq!(origin.seen().len(), 20);
        eventually("all copies tried", || {
            let counters = edge.counters();
            counters.mirrored + counters.unmirrored == 20
        });
    }
}

#[test]
fn a_share_of_the_requests_is_copied() {
    let (origin, shadow) = (Origin::ok(), Origin::ok());
    let routes = MIRRORED.replace("body_bytes = 10", "percent = 30");
    let edge = serving(&[("o", origin.address), ("shadow", shadow.address)], &routes);
    let mut client = edge.connect();
    for _ in 0..400 {
        assert_eq!(client.get("/").status, 200);
    }
    eventually("about a third", || shadow.seen().len() > 70);
    assert!(shadow.seen().len() < 170, "{}", shadow.seen().len());
}

/// Connections that the origin has seen requests on, in their order.
fn connections(origin: &Origin) -> Vec<usize> {
    origin.seen().iter().map(|seen| seen.connection).collect()
}

#[test]
fn parts_use_connections_again() {
    let (users, extras) = (json(), json());
    let edge = serving(&[("users", users.address), ("extras", extras.address)], PAGE);
    let mut client = edge.connect();
    let mut get = |part: &str| {
        client.send(
            format!("GET /page/7/{part} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\n\r\n")
                .as_bytes(),
        );
        client.response().body
    };
    for _ in 0..10 {
        assert!(get("a").ends_with("\"extra\":{ \"path\": \"/extras/a\" }}\n"));
    }
    let first = connections(&users)[0];
    assert_eq!(connections(&users), [first; 10]);
    // What was not read to its end, or not in time, is not used again; the answer to come is nobody else's.
    for part in ["large", "slow"] {
        let before = extras.last().connection;
        assert!(get(part).ends_with("\"extra\":null}\n"), "{part}");
        assert!(
            get("a").ends_with("\"extra\":{ \"path\": \"/extras/a\" }}\n"),
            "{part}"
        );
        assert_ne!(extras.last().connection, before, "{part}");
    }
    assert_eq!(connections(&users), [first; 14]);
}

#[test]
fn a_part_survives_connections_that_died_while_idle() {
    // Answers as if it kept the connection, and closes it.
    let forgetful = |connection: &mut OriginConnection| {
        if connection.request().is_some() {
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1");
        }
    };
    let (users, extras) = (Origin::with(forgetful), Origin::with(forgetful));
    let edge = serving(&[("users", users.address), ("extras", extras.address)], PAGE);
    let mut client = edge.connect();
    for _ in 0..20 {
        client.send(b"GET /page/7/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\n\r\n");
        assert_eq!(client.response().body, "{\"user\":1,\"extra\":1}\n");
    }
    assert_eq!((users.seen().len(), extras.seen().len()), (20, 20));
}

#[test]
fn an_answer_that_nobody_asked_for_gets_into_no_object() {
    let users = json();
    // Each answer is followed by one more, which must not be taken for that to the next request.
    let extras = Origin::with(|connection| {
        while connection.request().is_some() {
            connection.send(
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n\"evil\"",
            );
        }
    });
    let edge = serving(&[("users", users.address), ("extras", extras.address)], PAGE);
    let mut client = edge.connect();
    for _ in 0..20 {
        client.send(b"GET /page/7/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\n\r\n");
        let body = client.response().body;
        assert!(!body.contains("evil"), "{body}");
    }
}

#[test]
fn copies_use_connections_again() {
    let (origin, shadow) = (Origin::ok(), Origin::ok());
    let edge = serving(&[("o", origin.address), ("shadow", shadow.address)], MIRRORED);
    let mut client = edge.connect();
    for sent in 1..=10 {
        assert_eq!(client.get("/").status, 200);
        eventually("a copy", || shadow.seen().len() == sent);
        // It is put back once its answer is read, for which nobody waits.
        std::thread::sleep(Duration::from_millis(30));
    }
    let mut used = connections(&shadow);
    used.dedup();
    assert!(used.len() <= 2, "{used:?}");
    assert_eq!(edge.counters().mirrored, 10);
}
