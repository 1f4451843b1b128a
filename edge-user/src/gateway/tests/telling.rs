//! What is told about requests: the access log's file, and traces.

use std::{fs, path::Path};

use super::support::{Edge, Origin, config, eventually};
use crate::{
    config::{AccessFormat, AccessLog},
    gateway::Limits,
};

fn logging(origin: &Origin, file: &Path, format: AccessFormat) -> Edge {
    let mut config = config(&[&[origin.address]], &[("/", 0, false), ("/p", 0, true)]);
    config.access_log = AccessLog {
        enabled: true,
        file: Some(file.to_owned()),
        format,
    };
    Edge::start(&config, Limits::default())
}

fn lines(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn each_request_is_one_line_and_a_file_that_was_moved_away_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("access.log");
    let origin = Origin::ok();
    let edge = logging(&origin, &file, AccessFormat::Json);
    let mut client = edge.connect();
    client.send(b"POST /x?token=secret HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(client.response().status, 200);
    assert_eq!(client.get("/p").status, 401);
    edge.exchange(b"nonsense\r\n\r\n");
    eventually("three lines", || lines(&file).len() == 3);
    let told: Vec<serde_json::Value> = lines(&file)
        .iter()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let [passed, refused, malformed] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!(passed["method"], "POST");
    assert_eq!(passed["path"], "/x");
    assert_eq!(passed["host"], "a.example");
    assert_eq!(passed["route"], "route /");
    assert_eq!(passed["upstream"], origin.address.to_string());
    assert_eq!(
        (
            &passed["status"],
            &passed["received_bytes"],
            &passed["sent_bytes"]
        ),
        (&200.into(), &3.into(), &2.into())
    );
    assert_eq!(passed["reason"], "");
    assert_eq!(passed["request_id"].as_str(), origin.last().field("x-request-id"));
    assert!(passed["total_us"].as_u64() >= passed["wait_us"].as_u64());
    assert_eq!(
        (&refused["status"], &refused["reason"]),
        (&401.into(), &"token_missing".into())
    );
    assert_eq!(
        (&malformed["status"], &malformed["method"]),
        (&400.into(), &"".into())
    );
    assert!(!fs::read_to_string(&file).unwrap().contains("secret"));

    fs::rename(&file, dir.path().join("access.log.1")).unwrap();
    eventually("a new file", || {
        assert_eq!(edge.connect().get("/x").status, 200);
        !lines(&file).is_empty()
    });
    // Nothing is lost at the end either.
    assert_eq!(client.get("/last").status, 200);
    assert_eq!(edge.handle.lost_access_lines(), 0);
    edge.join();
    assert!(lines(&file).last().unwrap().contains("/last"));
}

#[test]
fn the_common_log_format_is_one_line_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("access.log");
    let origin = Origin::ok();
    let edge = logging(&origin, &file, AccessFormat::Clf);
    assert_eq!(edge.connect().get("/x").status, 200);
    edge.join();
    let told = lines(&file);
    assert_eq!(told.len(), 1);
    assert!(
        told[0].starts_with("127.0.0.1 - - [") && told[0].ends_with("] \"GET /x HTTP/1.1\" 200 2"),
        "{told:?}"
    );
}

#[test]
fn traces_go_on_or_begin() {
    let origin = Origin::ok();
    let edge = Edge::to(origin.address);
    let mut client = edge.connect();
    let mut with = |lines: &str| {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").as_bytes());
        assert_eq!(client.response().status, 200);
        let seen = origin.last();
        let parent = seen.field("traceparent").expect("always there").to_owned();
        assert_eq!(seen.head.matches("traceparent").count(), 1, "{}", seen.head);
        assert_eq!(
            &parent[36..52],
            seen.field("x-request-id").unwrap(),
            "{}",
            seen.head
        );
        (parent, seen.field("tracestate").map(str::to_owned))
    };
    let theirs = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let (parent, state) = with(&format!("Traceparent: {theirs}\r\nTracestate: a=b,c=d\r\n"));
    assert_eq!((&parent[..36], &parent[52..]), (&theirs[..36], "-00"));
    assert_eq!(state.as_deref(), Some("a=b,c=d"));
    for invalid in [
        "Tracestate: a=b\r\n".to_owned(),
        format!("Traceparent: {theirs}-x\r\nTracestate: a=b\r\n"),
        format!("Traceparent: {theirs}\r\nTraceparent: {theirs}\r\nTracestate: a=b\r\n"),
    ] {
        let (parent, state) = with(&invalid);
        assert!(parent.starts_with("00-") && parent.ends_with("-01"), "{parent}");
        assert!(!parent.contains(&theirs[3..35]));
        assert_eq!(state, None, "{invalid}");
    }
}

#[test]
fn refusals_come_in_the_form_that_is_asked_for() {
    let origin = Origin::ok();
    let edge = Edge::start(
        &config(&[&[origin.address]], &[("/p", 0, true)]),
        Limits::default(),
    );
    let mut client = edge.connect();
    for (accept, media_type, begins) in [
        ("*/*", "application/problem+json", "{"),
        (
            "text/html,*/*;q=0.8",
            "text/html; charset=utf-8",
            "<!doctype html><title>404 Not Found",
        ),
        (
            "text/plain",
            "text/plain; charset=utf-8",
            "404 Not Found: no_route\nRequest ",
        ),
    ] {
        client.send(format!("GET /x HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n").as_bytes());
        let response = client.response();
        assert_eq!(
            (response.status, response.field("content-type")),
            (404, Some(media_type)),
            "{accept}"
        );
        assert!(response.body.starts_with(begins), "{accept}: {}", response.body);
    }
}
