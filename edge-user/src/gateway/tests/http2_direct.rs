//! Requests over HTTP/2 to an upstream that speaks HTTP/1: whole answers come whole, anything else never looks whole, and
//! connections are used again only where that is safe.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;
use h2::client::{self, SendRequest};
use http::{HeaderMap, Request, StatusCode};
use tokio::{net::TcpStream, runtime::Builder, time::timeout};

use super::support::{Edge, Origin, PATIENCE, config};
use crate::gateway::Limits;

/// What came back: the head, the data, the trailers; or how it broke off.
type Got = (
    StatusCode,
    HeaderMap,
    Result<(Vec<u8>, Option<HeaderMap>), h2::Error>,
);

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(PATIENCE, test).await.expect("in time") })
}

async fn ask(client: &SendRequest<Bytes>, edge: &Edge, method: &str, path: &str) -> Got {
    let request = Request::builder()
        .method(method)
        .uri(format!("http://{}{path}", edge.address))
        .body(())
        .unwrap();
    let mut client = client.clone().ready().await.expect("open");
    let (response, _) = client.send_request(request, true).expect("open");
    let (head, mut body) = match response.await {
        Ok(response) => response.into_parts(),
        // A reset takes what was not sent yet with it, the head too.
        Err(error) => return (StatusCode::OK, HeaderMap::new(), Err(error)),
    };
    let read = async {
        let mut data = Vec::new();
        while let Some(part) = body.data().await {
            let part = part?;
            body.flow_control().release_capacity(part.len()).unwrap();
            data.extend_from_slice(&part);
        }
        Ok((data, body.trailers().await?))
    };
    (head.status, head.headers, read.await)
}

/// An origin that answers by path, and how many connections were made to it.
fn origin() -> (Origin, Arc<AtomicUsize>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let origin = Origin::with(move |connection| {
        count.fetch_add(1, Relaxed);
        while let Some(request) = connection.request() {
            let (answer, last): (&[u8], bool) = match request.line().split(' ').nth(1).unwrap_or_default() {
                "/length" if request.line().starts_with("HEAD") => {
                    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false)
                }
                "/length" => (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false),
                "/nothing" => (b"HTTP/1.1 204 No Content\r\n\r\n", false),
                "/interim" => (
                    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                    false,
                ),
                "/trailers" => (
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\na\r\n2\r\nbc\r\n0\r\nX-Sum: 7\r\n\r\n",
                    false,
                ),
                "/close" => (b"HTTP/1.1 200 OK\r\n\r\nto the end", true),
                "/dies" => (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true),
                "/half" => (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", true),
                "/half-chunk" => (
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
                    true,
                ),
                "/bad-chunk" => (
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nz\r\n",
                    true,
                ),
                "/bad-trailer" => (
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nContent-Length: 3\r\n\r\n",
                    true,
                ),
                "/two" => (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\n\r\n", false),
                "/garbage" => (b"HTTP/1.1 200 OK\nContent-Length: 1\n\na", true),
                _ => (b"", true),
            };
            connection.send(answer);
            if last {
                return;
            }
        }
    });
    (origin, connections)
}

#[test]
fn whole_answers_come_whole_over_one_connection() {
    let (origin, connections) = origin();
    let edge = Edge::start(
        &config(&[&[origin.address]], &[("/", 0, false)]),
        Limits::default(),
    );
    run(async {
        let stream = TcpStream::connect(edge.address).await.unwrap();
        let (client, connection) = client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        for (method, path, status, body, length) in [
            ("GET", "/length", 200, &b"hello"[..], Some("5")),
            ("HEAD", "/length", 200, b"", Some("5")),
            ("GET", "/nothing", 204, b"", None),
            ("GET", "/interim", 200, b"ok", Some("2")),
            ("GET", "/trailers", 200, b"abc", None),
        ] {
            let (got, fields, read) = ask(&client, &edge, method, path).await;
            assert_eq!(got.as_u16(), status, "{path}");
            let have = fields.get("content-length").map(|value| value.to_str().unwrap());
            assert_eq!(have, length, "{method} {path}");
            assert!(fields.contains_key("date") && !fields.contains_key("transfer-encoding"));
            let (data, trailers) = read.expect("no reset");
            assert_eq!(data, body, "{path}");
            let sum = trailers.and_then(|fields| fields.get("x-sum").cloned());
            assert_eq!(sum.is_some_and(|sum| sum == "7"), path == "/trailers", "{path}");
        }
        assert_eq!(connections.load(Relaxed), 1, "all over one connection");
        // One that ends with its answer, or after it, is not used again.
        let (_, _, read) = ask(&client, &edge, "GET", "/close").await;
        assert_eq!(read.expect("no reset").0, b"to the end");
        for path in ["/dies", "/length", "/two", "/length"] {
            let (status, _, read) = ask(&client, &edge, "GET", path).await;
            assert_eq!(status, 200, "{path}");
            let want: &[u8] = match path {
                "/dies" => b"ok",
                "/two" => b"a",
                _ => b"hello",
            };
            assert_eq!(read.expect("no reset").0, want, "{path}");
        }
        assert_eq!(connections.load(Relaxed), 4);
    });
}

#[test]
fn broken_answers_never_look_whole() {
    let (origin, _) = origin();
    let edge = Edge::start(
        &config(&[&[origin.address]], &[("/", 0, false)]),
        Limits::default(),
    );
    run(async {
        let stream = TcpStream::connect(edge.address).await.unwrap();
        let (client, connection) = client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        for path in ["/half", "/half-chunk", "/bad-chunk", "/bad-trailer"] {
            let (status, _, read) = ask(&client, &edge, "GET", path).await;
            assert_eq!(status, 200, "{path}");
            assert!(read.is_err(), "{path}: {read:?}");
        }
        for path in ["/garbage", "/silence"] {
            let (status, _, read) = ask(&client, &edge, "GET", path).await;
            assert_eq!(status, 502, "{path}");
            assert!(read.is_ok(), "{path}");
        }
        // The connection of the client goes on.
        assert_eq!(ask(&client, &edge, "GET", "/length").await.0, 200);
    });
}
