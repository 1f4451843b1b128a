//! What a route does beside forwarding, asked over HTTP/2: the same as over HTTP/1. And services that speak nothing but
//! HTTP/2 as parts of a merged answer and as a mirror.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Response};

use super::{
    routing::{configured, serving},
    support::{Edge, Origin, eventually},
    upstream_http2::{Handler, Http2Origin, connect, echo, run},
};
use crate::{config::UpstreamProtocol, gateway::Limits};

const ROUTES: &str = "
[[route]]
name = 'moved'
path_template = '/users/{id}'
redirect = { path = '/people/{id}', status = 301 }
auth = 'none'
[[route]]
name = 'health'
path_exact = '/healthz'
respond = { status = 200, body = 'alive' }
auth = 'none'
response_headers = { set = { x-id = '{$route} {$scheme}://{$host}{$path}?{$query} {$method}' } }
[[route]]
name = 'strip'
path = '/api'
upstream = 'o'
auth = 'none'
rewrite = { prefix = '/' }
request_headers = { set = { x-set = '{$host}' }, add = { x-add = '1' }, remove = ['x-gone'] }
response_headers = { add = { x-more = 'yes' }, remove = ['server'] }
[[route]]
name = 'shared'
path = '/shared'
methods = ['GET', 'PUT']
upstream = 'o'
auth = 'none'
cors = { origins = ['https://app.example.org'], headers = ['x-version'] }
[[route]]
name = 'small'
path = '/small'
upstream = 'o'
auth = 'none'
body_limit = 5
[[route]]
name = 'slow'
path = '/slow'
upstream = 'o'
auth = 'none'
timeout = '50ms'
";

/// One request on a connection: its method, path, fields and body; and the whole answer.
async fn ask(
    client: &SendRequest<Bytes>,
    (method, path): (&str, &str),
    fields: &[(&str, &str)],
    body: &'static str,
) -> Response<String> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://site.example{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let mut client = client.clone().ready().await.expect("open");
    let request = request.body(()).expect("a request");
    let (response, mut sending) = client.send_request(request, body.is_empty()).expect("open");
    if !body.is_empty() {
        // A refusal may come before the body is wanted.
        let _ = sending.send_data(body.into(), true);
    }
    let (head, mut answer) = response.await.expect("an answer").into_parts();
    let mut text = Vec::new();
    while let Some(part) = answer.data().await {
        let part = part.expect("a whole answer");
        // Nothing is sent after the last part.
        let _ = answer.flow_control().release_capacity(part.len());
        text.extend_from_slice(&part);
    }
    Response::from_parts(head, String::from_utf8(text).expect("text"))
}

fn field<'r>(response: &'r Response<String>, name: &str) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok()
}

#[test]
fn answers_of_the_gateway_s_own_are_the_same() {
    let origin = Origin::ok();
    let edge = serving(&[("o", origin.address)], ROUTES);
    run(async {
        let client = connect(&edge).await;
        let moved = ask(&client, ("GET", "/users/7?a=b"), &[], "").await;
        assert_eq!(
            (moved.status().as_u16(), field(&moved, "location")),
            (301, Some("/people/7?a=b"))
        );
        let health = ask(&client, ("GET", "/healthz?q"), &[], "").await;
        assert_eq!((health.status().as_u16(), health.body().as_str()), (200, "alive"));
        assert_eq!(
            field(&health, "x-id"),
            Some("health http://site.example/healthz?q GET")
        );
        let head = ask(&client, ("HEAD", "/healthz"), &[], "").await;
        assert_eq!((head.status().as_u16(), head.body().as_str()), (200, ""));
        assert_eq!(field(&head, "content-length"), Some("5"));
        // Refusals, too: this one would be a page of problem+json.
        let nowhere = ask(&client, ("HEAD", "/elsewhere"), &[], "").await;
        assert_eq!((nowhere.status().as_u16(), nowhere.body().as_str()), (404, ""));
        assert!(field(&nowhere, "content-length").is_some_and(|length| length != "0"));
        let preflight = [
            ("origin", "https://app.example.org"),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "x-version"),
        ];
        let allowed = ask(&client, ("OPTIONS", "/shared"), &preflight, "").await;
        assert_eq!(allowed.status(), 204);
        for (name, value) in [
            ("access-control-allow-origin", "https://app.example.org"),
            ("access-control-allow-methods", "GET, PUT"),
            ("access-control-allow-headers", "x-version"),
        ] {
            assert_eq!(field(&allowed, name), Some(value));
        }
        let foreign = [("origin", "https://evil.example"), preflight[1], preflight[2]];
        let refused = ask(&client, ("OPTIONS", "/shared"), &foreign, "").await;
        assert_eq!(
            (
                refused.status().as_u16(),
                field(&refused, "access-control-allow-origin")
            ),
            (204, None)
        );
        assert_eq!(ask(&client, ("DELETE", "/shared"), &[], "").await.status(), 405);
        assert_eq!(ask(&client, ("GET", "/elsewhere"), &[], "").await.status(), 404);
    });
    assert!(origin.seen().is_empty());
}

#[test]
fn what_is_forwarded_is_changed_and_bounded_alike() {
    let origin = Origin::with(|connection| {
        while let Some(request) = connection.request() {
            if request.line().contains("/slow") {
                std::thread::sleep(Duration::from_secs(1));
            }
            connection.send(
                b"HTTP/1.1 200 OK\r\nServer: s\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 2\r\n\r\nok",
            );
        }
    });
    let edge = serving(&[("o", origin.address)], ROUTES);
    run(async {
        let client = connect(&edge).await;
        let fields = [("x-gone", "1"), ("x-add", "0"), ("x-set", "client")];
        let stripped = ask(&client, ("GET", "/api/a/b?c"), &fields, "").await;
        assert_eq!(
            (stripped.status().as_u16(), stripped.body().as_str()),
            (200, "ok")
        );
        assert_eq!(
            (field(&stripped, "x-more"), field(&stripped, "server")),
            (Some("yes"), None)
        );
        let seen = origin.last();
        assert_eq!(seen.line(), "GET /a/b?c HTTP/1.1");
        assert_eq!(
            (seen.field("x-gone"), seen.field("x-set")),
            (None, Some("site.example"))
        );
        let from = [("origin", "https://app.example.org")];
        let shared = ask(&client, ("GET", "/shared"), &from, "").await;
        // The route says who may read it, not the upstream.
        assert_eq!(
            field(&shared, "access-control-allow-origin"),
            Some("https://app.example.org")
        );
        assert_eq!(ask(&client, ("POST", "/small"), &[], "12345").await.status(), 200);
        assert_eq!(
            ask(&client, ("POST", "/small"), &[], "123456").await.status(),
            413
        );
        assert_eq!(ask(&client, ("GET", "/slow"), &[], "").await.status(), 504);
        // Each of these ended its stream and nothing else.
        assert_eq!(ask(&client, ("GET", "/api/"), &[], "").await.status(), 200);
    });
}

const BESIDE: &str = "
[[route]]
name = 'page'
path_template = '/page/{id}'
methods = ['GET']
auth = 'none'
[[route.fan_out]]
key = 'user'
upstream = 'users'
path = '/users/{id}'
[[route.fan_out]]
key = 'plain'
upstream = 'plain'
path = '/plain/{id}'
[[route]]
name = 'mirrored'
path = '/'
upstream = 'plain'
auth = 'none'
mirror = { upstream = 'shadow' }
";

#[test]
fn parts_and_copies_go_to_services_that_speak_nothing_but_http2() {
    let users = Http2Origin::start(None, json());
    let shadow = Http2Origin::start(None, echo());
    let plain = Origin::with(|connection| {
        while connection.request().is_some() {
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1");
        }
    });
    let upstreams = [
        ("users", users.address()),
        ("plain", plain.address),
        ("shadow", shadow.address()),
    ];
    let mut config = configured(&upstreams, BESIDE);
    for upstream in &mut config.upstreams {
        if upstream.name != "plain" {
            upstream.protocol = UpstreamProtocol::Http2;
        }
    }
    let edge = Edge::start(&config, Limits::default());
    run(async {
        let client = connect(&edge).await;
        for id in 0..20 {
            let page = ask(&client, ("GET", &format!("/page/{id}")), &[], "").await;
            assert_eq!(
                (page.status().as_u16(), page.body().as_str()),
                (200, &*format!("{{\"user\":\"/users/{id}\",\"plain\":1}}\n"))
            );
        }
        let mut over_http1 = edge.connect();
        assert_eq!(
            over_http1.get("/page/x").body,
            "{\"user\":\"/users/x\",\"plain\":1}\n"
        );
        for _ in 0..20 {
            assert_eq!(ask(&client, ("POST", "/p"), &[], "hello").await.status(), 200);
        }
    });
    assert_eq!(users.requests().load(Relaxed), 21);
    assert!(
        users.connections().load(Relaxed) <= 2,
        "kept, by the worker of each client"
    );
    eventually("all copies arrived", || shadow.requests().load(Relaxed) == 20);
    assert!(shadow.connections().load(Relaxed) <= 20);
    assert_eq!(edge.counters().unmirrored, 0);
}

/// Answers with the path, as JSON.
fn json() -> Handler {
    std::sync::Arc::new(|_, request, mut respond| {
        Box::pin(async move {
            let text = format!("{:?}", request.uri().path());
            if let Ok(mut send) = respond.send_response(Response::new(()), false) {
                // The gateway may be gone.
                let _ = send.send_data(text.into(), true);
            }
        })
    })
}
