//! Routes by host, path, method, field and parameter, over real sockets.

use std::{fmt::Write, fs, net::SocketAddr, os::unix::fs::PermissionsExt};

use super::support::{Edge, Origin};
use crate::{config::Config, gateway::Limits};

/// A configuration of these upstreams and routes; a file `jwt.secret` is there for providers.
pub(super) fn configured(upstreams: &[(&str, SocketAddr)], routes: &str) -> Config {
    let mut text = "gateway.workers = 1\n[[listener]]\nname = 'web'\naddress = '127.0.0.1:0'\n".to_owned();
    for (name, address) in upstreams {
        let _ = write!(text, "[[upstream]]\nname = '{name}'\nendpoints = ['{address}']\n");
    }
    text += routes;
    let dir = tempfile::tempdir().expect("a directory");
    let secret = dir.path().join("jwt.secret");
    fs::write(&secret, "k".repeat(64)).expect("written");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("set");
    match Config::parse(&text, "test.toml", dir.path()) {
        Ok(loaded) => loaded.config,
        Err(error) => panic!("{error}"),
    }
}

/// Starts a gateway with these routes.
pub(super) fn serving(upstreams: &[(&str, SocketAddr)], routes: &str) -> Edge {
    Edge::start(&configured(upstreams, routes), Limits::default())
}

const ROUTES: &str = "
[[route]]
name = 'all'
path = '/'
upstream = 'a'
auth = 'none'
[[route]]
name = 'host'
hosts = ['api.example.org', '*.tenants.example.org']
path = '/'
upstream = 'b'
auth = 'none'
[[route]]
name = 'exact'
path_exact = '/healthz'
methods = ['GET']
upstream = 'b'
auth = 'none'
[[route]]
name = 'template'
path_template = '/users/{id}'
upstream = 'b'
auth = 'none'
[[route]]
name = 'regex'
path_regex = '/items/[0-9]+'
methods = ['POST']
upstream = 'b'
auth = 'none'
[[route]]
name = 'header'
path = '/v'
upstream = 'b'
auth = 'none'
headers = [{ name = 'x-version', value = '2' }]
[[route]]
name = 'query'
path = '/q'
upstream = 'b'
auth = 'none'
query = [{ name = 'beta', regex = '1|yes' }]
";

#[test]
fn each_kind_of_match_leads_to_its_upstream() {
    let (a, b) = (
        Origin::ok(),
        Origin::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb"),
    );
    let edge = serving(&[("a", a.address), ("b", b.address)], ROUTES);
    let mut client = edge.connect();
    for (request, body) in [
        ("GET /x HTTP/1.1\r\nHost: a", "ok"),
        ("GET /x HTTP/1.1\r\nHost: API.example.org:8080", "b"),
        ("GET /x HTTP/1.1\r\nHost: api.example.org.", "b"),
        ("GET /x HTTP/1.1\r\nHost: one.two.tenants.example.org", "b"),
        ("GET /x HTTP/1.1\r\nHost: tenants.example.org", "ok"),
        ("GET /healthz HTTP/1.1\r\nHost: a", "b"),
        ("POST /healthz HTTP/1.1\r\nHost: a", "ok"),
        ("GET /healthz/ HTTP/1.1\r\nHost: a", "ok"),
        ("GET /users/7 HTTP/1.1\r\nHost: a", "b"),
        ("GET /%75sers/7 HTTP/1.1\r\nHost: a", "b"),
        ("GET /users/7/x HTTP/1.1\r\nHost: a", "ok"),
        ("POST /items/12 HTTP/1.1\r\nHost: a", "b"),
        ("GET /items/12 HTTP/1.1\r\nHost: a", "ok"),
        ("POST /items/x HTTP/1.1\r\nHost: a", "ok"),
        ("GET /v HTTP/1.1\r\nHost: a\r\nX-Version: 2", "b"),
        ("GET /v HTTP/1.1\r\nHost: a\r\nX-Version: 1\r\nx-version: 2", "b"),
        ("GET /v HTTP/1.1\r\nHost: a\r\nX-Version: 22", "ok"),
        ("GET /q?a=1&beta=%79es HTTP/1.1\r\nHost: a", "b"),
        ("GET /q?beta=yesno HTTP/1.1\r\nHost: a", "ok"),
        ("GET /q HTTP/1.1\r\nHost: a", "ok"),
    ] {
        client.send(format!("{request}\r\n\r\n").as_bytes());
        let response = client.response();
        assert_eq!(
            (response.status, response.body.as_str()),
            (200, body),
            "{request}"
        );
    }
}

#[test]
fn a_path_that_is_listed_for_other_methods_is_405_and_what_is_not_listed_404() {
    let a = Origin::ok();
    let edge = serving(
        &[("a", a.address)],
        "
[[route]]
name = 'read'
path = '/a'
methods = ['GET', 'OPTIONS']
upstream = 'a'
auth = 'none'
[[route]]
name = 'write'
path_template = '/a/{id}'
methods = ['PUT']
upstream = 'a'
auth = 'none'
headers = [{ name = 'x', present = true }]
",
    );
    let mut client = edge.connect();
    for (request, status, allow) in [
        ("HEAD /a/1 HTTP/1.1\r\nHost: a", 200, None),
        ("POST /a HTTP/1.1\r\nHost: a", 405, Some("GET, OPTIONS, HEAD")),
        (
            "POST /a/1 HTTP/1.1\r\nHost: a\r\nX: 1",
            405,
            Some("PUT, GET, OPTIONS, HEAD"),
        ),
        ("POST /a/1 HTTP/1.1\r\nHost: a", 405, Some("GET, OPTIONS, HEAD")),
        ("GETS /a HTTP/1.1\r\nHost: a", 405, Some("GET, OPTIONS, HEAD")),
        ("POST /b HTTP/1.1\r\nHost: a", 404, None),
    ] {
        client.send(format!("{request}\r\n\r\n").as_bytes());
        let response = client.response_to(request.split(' ').next().unwrap());
        assert_eq!(
            (response.status, response.field("allow")),
            (status, allow),
            "{request}"
        );
    }
    assert_eq!(a.seen().len(), 1);
}
