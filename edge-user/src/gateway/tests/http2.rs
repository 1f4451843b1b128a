//! HTTP/2 from clients.

use std::process::Command;

use super::support::{Edge, Origin, config};
use crate::gateway::Limits;

fn curl(edge: &Edge, arguments: &[&str], path: &str) -> String {
    let output = Command::new("curl")
        .args([
            "-sS",
            "--max-time",
            "10",
            "--http2-prior-knowledge",
            "-w",
            "\n%{http_version} %{http_code}",
        ])
        .args(arguments)
        .arg(format!("http://{}{path}", edge.address))
        .output()
        .expect("curl runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn http2_by_prior_knowledge_on_the_same_port() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("skipped: no curl");
        return;
    }
    let origin = Origin::ok();
    let edge = Edge::start(
        &config(&[&[origin.address]], &[("/", 0, false), ("/p", 0, true)]),
        Limits::default(),
    );
    assert_eq!(curl(&edge, &[], "/x?y"), "ok\n2 200");
    assert_eq!(origin.last().line(), "GET /x?y HTTP/1.1");
    assert!(
        origin
            .last()
            .field("host")
            .is_some_and(|host| host == edge.address.to_string()),
        "{}",
        origin.last().head
    );
    assert!(curl(&edge, &[], "/p").ends_with("2 401"));
    assert!(curl(&edge, &["-H", "Cookie: a=1; token=good"], "/p").ends_with("2 200"));
    assert_eq!(origin.last().field("cookie"), Some("a=1"));
    assert!(curl(&edge, &["-d", "hello"], "/").ends_with("2 200"));
    assert_eq!(
        (
            origin.last().body.as_slice(),
            origin.last().field("content-length")
        ),
        (&b"hello"[..], Some("5"))
    );
    assert!(curl(&edge, &["-d", "hello", "-H", "Content-Length:"], "/").ends_with("2 200"));
    assert_eq!(origin.last().body, b"hello");
    assert!(curl(&edge, &["--path-as-is"], "/a/../b").ends_with("2 400"));
    assert_eq!(edge.connect().get("/").status, 200);
}
