//! Routes, authentication and fields, as an origin sees them.

use super::support::{Edge, Origin, config};
use crate::{
    gateway::{Limits, Reason},
    offence::OffenceKind,
};

#[test]
fn the_most_specific_route_decides_and_nothing_else_is_exposed() {
    let (api, web) = (
        Origin::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\napi"),
        Origin::ok(),
    );
    let edge = Edge::start(
        &config(
            &[&[web.address], &[api.address]],
            &[("/web", 0, false), ("/web/api", 1, false)],
        ),
        Limits::default(),
    );
    let mut client = edge.connect();
    for (path, status, body) in [
        ("/web", 200, "ok"),
        ("/web/x", 200, "ok"),
        ("/web/api", 200, "api"),
        ("/web/api/x?y", 200, "api"),
        ("/web/apix", 200, "ok"),
    ] {
        let response = client.get(path);
        assert_eq!(
            (response.status, response.body.as_str()),
            (status, body),
            "{path}"
        );
    }
    for path in ["/", "/webx", "/api"] {
        let response = client.get(path);
        assert_eq!(response.status, 404, "{path}");
        assert!(
            response.body.contains("\"reason\":\"no_route\""),
            "{}",
            response.body
        );
    }
    let counters = edge.counters();
    assert_eq!(counters.routes[0].statuses[1], 3);
    assert_eq!(counters.routes[1].statuses[1], 2);
    assert_eq!(counters.refused(Reason::NoRoute), 3);
    assert_eq!(edge.offences.kinds(), [OffenceKind::NoRoute; 3]);
}

#[test]
fn protected_routes_want_a_token_and_the_origin_never_sees_it() {
    let origin = Origin::ok();
    let edge = Edge::start(
        &config(&[&[origin.address]], &[("/", 0, true)]),
        Limits::default(),
    );
    let mut client = edge.connect();
    let refused = [
        ("", 401, "token_missing"),
        ("Authorization: Bearer bad\r\n", 401, "token_refused"),
        ("Cookie: token=weak\r\n", 403, "forbidden"),
    ];
    for (line, status, reason) in refused {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n").as_bytes());
        let response = client.response();
        assert_eq!(response.status, status, "{line}");
        assert!(response.body.contains(reason), "{line}: {}", response.body);
        assert_eq!(
            response.field("www-authenticate"),
            Some("Bearer realm=\"t\""),
            "{line}"
        );
    }
    assert!(origin.seen().is_empty());
    assert_eq!(
        edge.offences.kinds(),
        [
            OffenceKind::MissingToken,
            OffenceKind::BadToken,
            OffenceKind::Forbidden
        ]
    );

    let admitted = [
        ("/x", "Authorization: Bearer good\r\n", "/x"),
        ("/x", "Cookie: a=1; token=good; b=2\r\n", "/x"),
        ("/x", "X-Token: good\r\n", "/x"),
        ("/x?a=1&token=good&b=2", "", "/x?a=1&b=2"),
        ("/x?token=good", "", "/x"),
    ];
    for (target, line, forwarded) in admitted {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-Auth-Subject: mallory\r\nX_Auth_Subject: m\r\n{line}\r\n").as_bytes());
        assert_eq!(client.response().status, 200, "{line}");
        let seen = origin.last();
        assert_eq!(seen.line(), format!("GET {forwarded} HTTP/1.1"));
        assert!(!seen.head.contains("good"), "{}", seen.head);
        assert!(
            !seen.head.contains("mallory") && !seen.head.to_ascii_lowercase().contains("x_auth"),
            "{}",
            seen.head
        );
        assert_eq!(seen.field("x-auth-subject"), Some("alice"));
        if line.starts_with("Cookie") {
            assert_eq!(seen.field("cookie"), Some("a=1; b=2"));
        }
    }
}

#[test]
fn open_routes_drop_forged_identities_too() {
    let origin = Origin::ok();
    let edge = Edge::to(origin.address);
    edge.connect().stream.set_nodelay(true).unwrap();
    let mut client = edge.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Auth-Subject: m\r\nx_auth_SUBJECT: m\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert!(
        !origin.last().head.to_ascii_lowercase().contains("auth"),
        "{}",
        origin.last().head
    );
}

#[test]
fn fields_of_the_connection_end_here_and_claims_about_the_way_are_ours() {
    let origin = Origin::answering(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=9\r\nX-Kept: 2\r\nProxy-Connection: a\r\n\r\nok",
    );
    let edge = Edge::to(origin.address);
    let mut client = edge.connect();
    client.send(
        b"GET / HTTP/1.1\r\nHost: shop.example:8080\r\nConnection: keep-alive, X-Mine, x-forwarded-for, x-request-id, host\r\n\
          X-Mine: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nProxy-Authorization: x\r\nTE: trailers, gzip\r\n\
          Upgrade: h2c\r\nHTTP2-Settings: AAMA\r\nX-Forwarded-For: 6.6.6.6\r\nX_Forwarded_Proto: https\r\nForwarded: for=6.6.6.6\r\n\
          X-Real-IP: 6.6.6.6\r\nX-Original-URL: /admin\r\nX-Request-Id: evil\r\nX-Kept: yes\r\n\r\n",
    );
    let response = client.response();
    assert_eq!(response.status, 200);
    assert_eq!(response.field("x-kept"), Some("2"));
    for gone in ["x-hop", "keep-alive", "proxy-connection"] {
        assert_eq!(response.field(gone), None, "{gone}");
    }
    let seen = origin.last();
    for gone in [
        "x-mine",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "upgrade",
        "http2-settings",
        "x-real-ip",
        "x-original-url",
    ] {
        assert_eq!(seen.field(gone), None, "{gone}: {}", seen.head);
    }
    assert_eq!(seen.field("host"), Some("shop.example:8080"));
    assert_eq!(seen.field("x-kept"), Some("yes"));
    assert_eq!(seen.field("te"), Some("trailers"));
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.field("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.field("x-forwarded-host"), Some("shop.example:8080"));
    assert_eq!(
        seen.field("forwarded"),
        Some("for=127.0.0.1;proto=http;host=\"shop.example:8080\"")
    );
    assert!(
        seen.field("x-request-id").is_some_and(|id| id.len() == 16),
        "{}",
        seen.head
    );
    assert!(
        !seen.head.contains("6.6.6.6") && !seen.head.contains("evil"),
        "{}",
        seen.head
    );
    assert_eq!(seen.head.to_ascii_lowercase().matches("\nhost:").count(), 1);
}

#[test]
fn head_and_bodiless_answers() {
    let origin = Origin::with(|connection| {
        while let Some(seen) = connection.request() {
            connection.send(match seen.line() {
                "HEAD / HTTP/1.1" => b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
                "GET /none HTTP/1.1" => b"HTTP/1.1 204 No Content\r\n\r\n",
                "GET /same HTTP/1.1" => {
                    b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 9\r\n\r\n"
                }
                _ => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            });
        }
    });
    let edge = Edge::to(origin.address);
    let mut client = edge.connect();
    client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = client.response_to("HEAD");
    assert_eq!(
        (response.status, response.field("content-length")),
        (200, Some("1234"))
    );
    assert_eq!(client.get("/none").status, 204);
    let response = client.get("/same");
    assert_eq!((response.status, response.field("etag")), (304, Some("\"x\"")));
    assert_eq!(client.get("/empty").field("content-length"), Some("0"));
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert_eq!(origin.last().field("content-length"), Some("0"));
    assert!(
        origin.seen().iter().all(|seen| seen.connection == 0),
        "one connection serves all"
    );
}

#[test]
fn http10_clients_get_an_answer_they_understand() {
    let origin =
        Origin::answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    let edge = Edge::to(origin.address);
    let answer = edge.exchange(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert!(
        answer.starts_with("HTTP/1.") && answer.contains(" 200 OK\r\n"),
        "{answer:?}"
    );
    assert!(
        !answer.to_ascii_lowercase().contains("transfer-encoding"),
        "{answer:?}"
    );
    assert!(answer.ends_with("\r\n\r\nok"), "{answer:?}");
}
