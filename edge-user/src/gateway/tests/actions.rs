//! What routes do with requests: redirects, fixed responses, rewrites, fields, other origins, limits.

use std::time::{Duration, Instant};

use super::{
    routing::serving,
    support::{Edge, OK, Origin, Response},
};
use crate::gateway::Reason;

/// One request on a connection of its own.
fn ask(edge: &Edge, request: &str) -> Response {
    let mut client = edge.connect();
    client.send(format!("{request}\r\n\r\n").as_bytes());
    client.response_to(request.split(' ').next().unwrap_or_default())
}

#[test]
fn redirects_lead_where_they_say_and_nowhere_else() {
    let edge = serving(
        &[],
        "
[[route]]
name = 'https'
hosts = ['old.example.org']
path = '/'
redirect = { scheme = 'https' }
auth = 'none'
[[route]]
name = 'moved'
path_template = '/users/{id}'
redirect = { path = '/people/{id}', status = 301 }
auth = 'none'
[[route]]
name = 'host'
path = '/docs'
redirect = { host = 'docs.example.org', port = 8443, scheme = 'https', status = 302, keep_query = false }
auth = 'none'
[[route]]
name = 'version'
path_regex = '/v(?P<major>[0-9]+)/(?P<rest>.*)'
redirect = { path = '/api/{major}/{rest}', status = 307 }
auth = 'none'
[[route]]
name = 'rest'
path_template = '/r/{*all}'
redirect = { path = '/{all}' }
auth = 'none'
",
    );
    for (request, status, location) in [
        (
            "GET /a?b=c HTTP/1.1\r\nHost: old.example.org",
            308,
            "https://old.example.org/a?b=c",
        ),
        (
            "GET / HTTP/1.1\r\nHost: old.example.org:8080",
            308,
            "https://old.example.org/",
        ),
        (
            "POST /users/7?x HTTP/1.1\r\nHost: a\r\nContent-Length: 0",
            301,
            "/people/7?x",
        ),
        (
            "HEAD /docs/x?y HTTP/1.1\r\nHost: a",
            302,
            "https://docs.example.org:8443/docs/x",
        ),
        ("GET /v12/a/b HTTP/1.1\r\nHost: a", 307, "/api/12/a/b"),
        (
            "GET /r/evil.example/x HTTP/1.1\r\nHost: a",
            308,
            "/evil.example/x",
        ),
        ("GET /users/%0d%0aset-cookie HTTP/1.1\r\nHost: a", 400, ""),
        ("GET /r//evil.example HTTP/1.1\r\nHost: a", 400, ""),
    ] {
        let response = ask(&edge, request);
        assert_eq!(
            (response.status, response.field("location").unwrap_or_default()),
            (status, location),
            "{request}"
        );
        if status != 400 && !request.starts_with("HEAD") {
            assert_eq!(response.field("content-length"), Some("0"), "{request}");
        }
    }
    // HTTP/1.0 need not say which host: there is nowhere to send it.
    assert!(edge.exchange(b"GET / HTTP/1.0\r\n\r\n").contains(" 404 "));
}

#[test]
fn a_redirect_that_would_leave_the_host_is_refused() {
    // A regex may take a part that is no whole segment: the path that is made goes through the normaliser again.
    let edge = serving(
        &[],
        "
[[route]]
name = 'r'
path_regex = '/go(?P<to>.*)'
redirect = { path = '/{to}' }
auth = 'none'
",
    );
    for (path, status) in [
        ("/gox", 308),
        ("/go/evil.example", 400),
        ("/go.", 400),
        ("/go..", 400),
        ("/go", 308),
    ] {
        assert_eq!(
            ask(&edge, &format!("GET {path} HTTP/1.1\r\nHost: a")).status,
            status,
            "{path}"
        );
    }
    assert_eq!(edge.counters().refused(Reason::BadPath), 3);
}

#[test]
fn fixed_responses_are_answered_here_and_keep_the_connection() {
    let edge = serving(
        &[],
        "
[[route]]
name = 'health'
path_exact = '/healthz'
respond = { status = 200, body = 'alive' }
auth = 'none'
response_headers = { set = { cache-control = 'no-store', x-id = '{$request_id} {$route} {$client_address} {$scheme}://{$host}{$path}?{$query} {$method}' } }
[[route]]
name = 'gone'
path = '/old'
respond = { status = 410, body = '{\"gone\":true}', content_type = 'application/json' }
auth = 'none'
[[route]]
name = 'nothing'
path = '/nothing'
respond = { status = 204 }
auth = 'none'
[[route]]
name = 'closed'
path = '/closed'
respond = { status = 200, body = 'secret' }
auth = 'required'
providers = ['p']
[[provider]]
name = 'p'
algorithms = ['HS256']
secret_file = 'jwt.secret'
",
    );
    let mut client = edge.connect();
    client.send(b"GET /healthz?q HTTP/1.1\r\nHost: a:1\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.body.as_str()), (200, "alive"));
    assert_eq!(response.field("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(response.field("cache-control"), Some("no-store"));
    let known = response.field("x-id").expect("set");
    let (id, rest) = known.split_once(' ').expect("an id");
    assert_eq!(
        (id.len(), rest),
        (16, "health 127.0.0.1 http://a:1/healthz?q GET")
    );
    client.send(b"HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = client.response_to("HEAD");
    assert_eq!(
        (response.status, response.field("content-length")),
        (200, Some("5"))
    );
    // A body that nobody reads does not become the next request.
    client.send(b"POST /old HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    let response = client.response();
    assert_eq!(
        (response.status, response.body.as_str()),
        (410, "{\"gone\":true}")
    );
    assert_eq!(response.field("content-type"), Some("application/json"));
    let mut client = edge.connect();
    client.send(b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.field("content-length")), (204, None));
    let response = ask(&edge, "GET /closed HTTP/1.1\r\nHost: a");
    assert_eq!(response.status, 401);
    assert!(!response.body.contains("secret"));
    let counters = edge.counters();
    assert_eq!(counters.routes[0].statuses[1], 2);
    assert_eq!(counters.routes[0].sent, 5);
}

#[test]
fn paths_are_rewritten_after_the_route_is_found() {
    let origin = Origin::ok();
    let edge = serving(
        &[("o", origin.address)],
        "
[[route]]
name = 'strip'
path = '/api'
upstream = 'o'
auth = 'none'
rewrite = { prefix = '/' }
[[route]]
name = 'move'
path = '/a/b'
upstream = 'o'
auth = 'none'
rewrite = { prefix = '/x' }
[[route]]
name = 'root'
path = '/'
upstream = 'o'
auth = 'none'
rewrite = { prefix = '/root' }
[[route]]
name = 'template'
path_template = '/users/{id}/{*rest}'
upstream = 'o'
auth = 'none'
rewrite = { path = '/u/{rest}/{id}' }
[[route]]
name = 'regex'
path_regex = '/t(?<a>[a-z.]*)-(?<b>[a-z.]*)'
upstream = 'o'
auth = 'none'
rewrite = { path = '/t/{a}{b}' }
[[route]]
name = 'whole'
path = '/w'
upstream = 'o'
auth = 'none'
rewrite = { path = '/before{$path}' }
",
    );
    let mut client = edge.connect();
    for (path, forwarded) in [
        ("/api", "/"),
        ("/api/", "/"),
        ("/api/x/y?q=1", "/x/y?q=1"),
        ("/apix", "/root/apix"),
        ("/a/b", "/x"),
        ("/a/b/", "/x/"),
        ("/a/b/c", "/x/c"),
        ("/", "/root/"),
        ("/users/7/p/q", "/u/p/q/7"),
        ("/ta-b", "/t/ab"),
        ("/w/%C3%A9", "/before/w/%C3%A9"),
    ] {
        assert_eq!(client.get(path).status, 200, "{path}");
        assert_eq!(
            origin.last().line(),
            format!("GET {forwarded} HTTP/1.1"),
            "{path}"
        );
    }
    // Two dots from two places are a dot segment.
    let seen = origin.seen().len();
    assert_eq!(edge.connect().get("/t.-.").status, 400);
    assert_eq!(origin.seen().len(), seen);
}

#[test]
fn fields_are_set_added_and_removed_both_ways() {
    let origin = Origin::answering(
        b"HTTP/1.1 200 OK\r\nServer: origin\r\nX-Powered-By: x\r\nSet-Cookie: a=1\r\nContent-Length: 2\r\n\r\nok",
    );
    let edge = serving(
        &[("o", origin.address)],
        "
[[route]]
name = 'r'
path_template = '/u/{id}'
upstream = 'o'
auth = 'none'
[route.request_headers]
set = { x-env = 'prod', x-user = '{id} of {$host}' }
add = { x-trace = 'edge' }
remove = ['x-debug']
[route.response_headers]
set = { server = 'breakwater' }
add = { set-cookie = 'b=2' }
remove = ['X-Powered-By']
",
    );
    let mut client = edge.connect();
    client.send(b"GET /u/7 HTTP/1.1\r\nHost: a\r\nX-Env: dev\r\nx-env: dev2\r\nX-Debug: 1\r\nX-Trace: client\r\nConnection: x-user\r\n\r\n");
    let response = client.response();
    let seen = origin.last();
    assert_eq!(seen.field("x-env"), Some("prod"));
    assert_eq!(seen.field("x-user"), Some("7 of a"));
    assert!(
        !seen.head.contains("dev") && seen.field("x-debug").is_none(),
        "{}",
        seen.head
    );
    assert_eq!(seen.head.to_ascii_lowercase().matches("x-trace: ").count(), 2);
    assert_eq!(response.field("server"), Some("breakwater"));
    assert_eq!(response.field("x-powered-by"), None);
    let head = response.head.to_ascii_lowercase();
    assert!(
        head.contains("set-cookie: a=1") && head.contains("set-cookie: b=2"),
        "{head}"
    );
}

const CORS: &str = "
[[route]]
name = 'api'
path = '/api'
methods = ['GET', 'PUT']
upstream = 'o'
auth = 'required'
providers = ['p']
[route.cors]
origins = ['https://app.example.org', 'https://*.tenants.example.org']
headers = ['X-Version', 'content-type']
expose = ['x-total']
credentials = true
max_age = '1h'
[[route]]
name = 'open'
path = '/open'
upstream = 'o'
auth = 'none'
cors = { origins = ['*'], headers = ['*'] }
[[route]]
name = 'none'
path = '/none'
upstream = 'o'
auth = 'none'
[[provider]]
name = 'p'
algorithms = ['HS256']
secret_file = 'jwt.secret'
";

#[test]
fn preflight_requests_are_answered_here_without_a_token() {
    let origin = Origin::ok();
    let edge = serving(&[("o", origin.address)], CORS);
    let preflight = |path: &str, from: &str, method: &str| {
        ask(
            &edge,
            &format!(
                "OPTIONS {path} HTTP/1.1\r\nHost: a\r\nOrigin: {from}\r\nAccess-Control-Request-Method: {method}\r\nAccess-Control-Request-Headers: x-version"
            ),
        )
    };
    let allow = |response: &Response| response.field("access-control-allow-origin").map(str::to_owned);
    for from in ["https://app.example.org", "https://x.tenants.example.org"] {
        let response = preflight("/api/x", from, "PUT");
        assert_eq!((response.status, allow(&response).as_deref()), (204, Some(from)));
        for (name, value) in [
            ("access-control-allow-methods", "GET, PUT"),
            ("access-control-allow-headers", "x-version, content-type"),
            ("access-control-allow-credentials", "true"),
            ("access-control-max-age", "3600"),
        ] {
            assert_eq!(response.field(name), Some(value));
        }
        assert!(response.field("vary").is_some_and(|vary| vary.contains("origin")));
    }
    for from in [
        "https://evil.example",
        "null",
        "https://app.example.org.evil.example",
        "http://app.example.org",
    ] {
        let response = preflight("/api/x", from, "PUT");
        assert_eq!((response.status, allow(&response)), (204, None), "{from}");
    }
    let response = preflight("/open", "https://anyone.example", "DELETE");
    assert_eq!((response.status, allow(&response).as_deref()), (204, Some("*")));
    assert_eq!(response.field("access-control-allow-headers"), Some("x-version"));
    assert_eq!(response.field("access-control-allow-credentials"), None);
    // A method that the route does not take, and a plain OPTIONS, are no preflight to it.
    assert_eq!(
        preflight("/api/x", "https://app.example.org", "DELETE").status,
        405
    );
    assert_eq!(ask(&edge, "OPTIONS /api HTTP/1.1\r\nHost: a").status, 405);
    assert!(origin.seen().is_empty());
    // Without the rules, OPTIONS is the upstream's.
    assert_eq!(preflight("/none", "https://app.example.org", "PUT").status, 200);
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn answers_say_who_may_read_them_and_upstreams_do_not() {
    let origin = Origin::answering(
        b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\nContent-Length: 2\r\n\r\nok",
    );
    let edge = serving(&[("o", origin.address)], CORS);
    let get = |path: &str, lines: &str| ask(&edge, &format!("GET {path} HTTP/1.1\r\nHost: a{lines}"));
    let allow = |response: &Response| response.field("access-control-allow-origin").map(str::to_owned);
    let token = "\r\nAuthorization: Bearer good";
    let app = "https://app.example.org";
    let response = get("/api", &format!("{token}\r\nOrigin: {app}"));
    assert_eq!((response.status, allow(&response).as_deref()), (200, Some(app)));
    assert_eq!(response.field("access-control-expose-headers"), Some("x-total"));
    assert_eq!(response.field("vary"), Some("origin"));
    assert_eq!(
        response
            .head
            .to_ascii_lowercase()
            .matches("access-control-allow-origin")
            .count(),
        1
    );
    for lines in [
        "",
        "\r\nOrigin: https://evil.example",
        "\r\nOrigin: https://app.example.org\r\nOrigin: https://app.example.org",
    ] {
        let response = get("/api", &format!("{token}{lines}"));
        assert_eq!((response.status, allow(&response)), (200, None), "{lines}");
        assert_eq!(response.field("access-control-allow-credentials"), None);
        assert_eq!(response.field("vary"), Some("origin"));
    }
    // A page may read why it was refused.
    let response = get("/api", &format!("\r\nOrigin: {app}"));
    assert_eq!((response.status, allow(&response).as_deref()), (401, Some(app)));
    let response = get("/open", "\r\nOrigin: https://anyone.example");
    assert_eq!((response.status, allow(&response).as_deref()), (200, Some("*")));
    assert_eq!(response.field("access-control-allow-credentials"), None);
}

#[test]
fn body_limits_and_timeouts_are_the_routes_own() {
    let origin = Origin::with(|connection| {
        while let Some(request) = connection.request() {
            match request.line() {
                line if line.contains("/slow-head") => {}
                line if line.contains("/slow-body") => {
                    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx");
                }
                line if line.contains("/drip") => {
                    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
                    for _ in 0..100 {
                        connection.send(b"x");
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
                _ => connection.send(OK),
            }
        }
    });
    let edge = serving(
        &[("o", origin.address)],
        "
[[route]]
name = 'small'
path = '/small'
upstream = 'o'
auth = 'none'
body_limit = 5
[[route]]
name = 'head'
path = '/slow-head'
upstream = 'o'
auth = 'none'
timeout = '50ms'
[[route]]
name = 'idle'
path = '/slow-body'
upstream = 'o'
auth = 'none'
idle_timeout = '50ms'
[[route]]
name = 'total'
path = '/drip'
upstream = 'o'
auth = 'none'
request_timeout = '150ms'
[[route]]
name = 'total-head'
path = '/slow-head/total'
upstream = 'o'
auth = 'none'
request_timeout = '50ms'
",
    );
    assert_eq!(
        ask(
            &edge,
            "POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
        )
        .status,
        200
    );
    assert_eq!(
        ask(&edge, "POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 6").status,
        413
    );
    let chunked = ask(
        &edge,
        "POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello!\r\n0",
    );
    assert_eq!(chunked.status, 413);
    let begun = Instant::now();
    assert_eq!(ask(&edge, "GET /slow-head HTTP/1.1\r\nHost: a").status, 504);
    assert_eq!(ask(&edge, "GET /slow-head/total HTTP/1.1\r\nHost: a").status, 504);
    for path in ["/slow-body", "/drip"] {
        let answer = edge.exchange(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with('x'),
            "{path}: {answer}"
        );
    }
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "the gateway's own limits are longer"
    );
    let counters = edge.counters();
    assert_eq!(counters.refused(Reason::BodyTooLarge), 2);
    assert_eq!(counters.refused(Reason::UpstreamStalled), 1);
    assert_eq!(counters.refused(Reason::RequestTimeout), 2);
    assert_eq!(counters.refused(Reason::UpstreamTimeout), 1);
}
