//! HTTP/2 to upstreams: real servers by the `h2` library, plain and gRPC-like, well-behaved and not.

use std::{
    fmt::Write,
    net::SocketAddr,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Reason as Code, RecvStream,
    client::{self, SendRequest},
    server::SendResponse,
};
use http::{HeaderMap, Request, Response};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Builder,
    sync::{Notify, oneshot},
    time::timeout,
};

use super::support::{Edge, PATIENCE, config};
use crate::{
    config::{Config, Retry, UpstreamProtocol},
    gateway::Limits,
};

/// What an origin does with one request; `number` counts them.
pub(super) type Handler = Arc<
    dyn Fn(usize, Request<RecvStream>, SendResponse<Bytes>) -> futures_util::future::BoxFuture<'static, ()>
        + Send
        + Sync,
>;

/// An HTTP/2 server.
pub(super) struct Http2Origin {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    _stop: oneshot::Sender<()>,
}

impl Http2Origin {
    /// Says goodbye (GOAWAY) on a connection after `goodbye` requests.
    pub(super) fn start(goodbye: Option<usize>, handler: Handler) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("bound");
        let (connections, requests) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (stop, stopped) = oneshot::channel();
        let counts = (Arc::clone(&connections), Arc::clone(&requests));
        thread::spawn(move || {
            let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a socket");
                tokio::spawn(async move {
                    while let Ok((stream, _)) = listener.accept().await {
                        counts.0.fetch_add(1, Relaxed);
                        tokio::spawn(connection(
                            stream,
                            goodbye,
                            Arc::clone(&counts.1),
                            Arc::clone(&handler),
                        ));
                    }
                });
                let _ = stopped.await;
            });
        });
        Self {
            address,
            connections,
            requests,
            _stop: stop,
        }
    }

    /// Where it listens.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that were made to it.
    pub(super) fn connections(&self) -> &AtomicUsize {
        &self.connections
    }

    /// Requests that it got.
    pub(super) fn requests(&self) -> &AtomicUsize {
        &self.requests
    }
}

async fn connection(stream: TcpStream, goodbye: Option<usize>, requests: Arc<AtomicUsize>, handler: Handler) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    let mut served = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        let number = requests.fetch_add(1, Relaxed);
        tokio::spawn(handler(number, request, respond));
        served += 1;
        if Some(served) == goodbye {
            connection.graceful_shutdown();
        }
    }
}

fn to_http2(origin: &Http2Origin) -> Config {
    let mut config = config(&[&[origin.address]], &[("/", 0, false)]);
    config.upstreams[0].protocol = UpstreamProtocol::Http2;
    config
}

/// Answers with the request's head and body.
pub(super) fn echo() -> Handler {
    Arc::new(|_, request, mut respond| {
        Box::pin(async move {
            let (parts, mut body) = request.into_parts();
            let mut text = format!("{} {}\n", parts.method, parts.uri);
            for (name, value) in &parts.headers {
                let _ = writeln!(text, "{name}: {}", value.to_str().unwrap_or("?"));
            }
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                text.push_str(&String::from_utf8_lossy(&data));
            }
            if let Ok(mut send) = respond.send_response(Response::new(()), false) {
                let _ = send.send_data(text.into(), true);
            }
        })
    })
}

pub(super) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async { timeout(PATIENCE, test).await.expect("in time") })
}

pub(super) async fn connect(edge: &Edge) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(edge.address).await.expect("it listens");
    let (sender, connection) = client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender.ready().await.expect("open")
}

fn grpc(edge: &Edge) -> Request<()> {
    Request::post(format!("http://{}/shop.Cart/Watch", edge.address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a request")
}

#[test]
fn a_request_over_http1_reaches_an_upstream_over_http2() {
    let origin = Http2Origin::start(None, echo());
    let edge = Edge::start(&to_http2(&origin), Limits::default());
    let mut client = edge.connect();
    client.send(
        b"POST /a?b HTTP/1.1\r\nHost: site.example\r\nConnection: x-hop\r\nX-Hop: 1\r\nTE: trailers\r\n\
          Content-Length: 5\r\n\r\nhello",
    );
    let response = client.response_to("POST");
    assert_eq!(response.status, 200, "{response:?}");
    assert!(
        response.body.starts_with("POST http://site.example/a?b\n"),
        "{}",
        response.body
    );
    assert!(
        response.body.contains("x-forwarded-host: site.example\n"),
        "{}",
        response.body
    );
    assert!(response.body.ends_with("hello"), "{}", response.body);
    for absent in ["x-hop", "\nconnection", "\nhost:"] {
        assert!(!response.body.contains(absent), "{}", response.body);
    }
    for _ in 0..3 {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!(origin.connections.load(Relaxed), 1);
}

#[test]
fn many_requests_share_a_connection_and_no_more_than_allowed() {
    let origin = Http2Origin::start(
        None,
        Arc::new(|_, _, mut respond| {
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let _ = respond.send_response(Response::new(()), true);
            })
        }),
    );
    let mut config = to_http2(&origin);
    config.upstreams[0].pool.streams = NonZeroU32::new(4).expect("not zero");
    let edge = Edge::start(&config, Limits::default());
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
    let connections = origin.connections.load(Relaxed);
    assert!((1..=3).contains(&connections), "{connections}");
}

#[test]
fn grpc_streams_both_ways_with_trailers() {
    let origin = Http2Origin::start(
        None,
        Arc::new(|_, request, mut respond| {
            Box::pin(async move {
                assert_eq!(request.headers()["te"], "trailers");
                let mut body = request.into_body();
                let response = Response::builder().header("content-type", "application/grpc");
                let mut send = respond
                    .send_response(response.body(()).expect("a response"), false)
                    .expect("open");
                while let Some(Ok(data)) = body.data().await {
                    let _ = body.flow_control().release_capacity(data.len());
                    send.send_data(data, false).expect("open");
                }
                let received = body.trailers().await.expect("readable");
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().expect("a value"));
                if let Some(value) = received.as_ref().and_then(|received| received.get("x-checksum")) {
                    trailers.insert("x-checksum", value.clone());
                }
                send.send_trailers(trailers).expect("open");
            })
        }),
    );
    let edge = Edge::start(&to_http2(&origin), Limits::default());
    run(async {
        let mut client = connect(&edge).await;
        let (response, mut send) = client.send_request(grpc(&edge), false).expect("open");
        send.send_data(Bytes::from_static(b"one"), false).expect("open");
        let response = response.await.expect("an answer");
        assert_eq!(response.headers()["content-type"], "application/grpc");
        let mut body = response.into_body();
        // Each message comes back before the next is sent: nothing waits for the end.
        for message in [&b"two"[..], b"three"] {
            let data = body.data().await.expect("data").expect("no reset");
            body.flow_control()
                .release_capacity(data.len())
                .expect("released");
            send.send_data(Bytes::from_static(message), false).expect("open");
        }
        body.data().await.expect("data").expect("no reset");
        // Half-closed: the server goes on.
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", "7".parse().expect("a value"));
        send.send_trailers(trailers).expect("open");
        assert!(body.data().await.is_none());
        let trailers = body.trailers().await.expect("no reset").expect("trailers");
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers["x-checksum"], "7");
    });
}

#[test]
fn trailers_that_only_this_proxy_may_say_reach_nobody() {
    let origin = Http2Origin::start(
        None,
        Arc::new(|_, request, mut respond| {
            Box::pin(async move {
                let mut body = request.into_body();
                while let Some(Ok(_)) = body.data().await {}
                if body.trailers().await.is_ok() {
                    let _ = respond.send_response(Response::new(()), true);
                }
            })
        }),
    );
    let edge = Edge::start(&to_http2(&origin), Limits::default());
    run(async {
        for (name, passes) in [
            ("x-checksum", true),
            ("x-auth-subject", false),
            ("x_auth_subject", false),
            ("x-forwarded-for", false),
            ("authorization", false),
            ("content-length", false),
        ] {
            let mut client = connect(&edge).await;
            let (response, mut send) = client.send_request(grpc(&edge), false).expect("open");
            send.send_data(Bytes::from_static(b"one"), false).expect("open");
            let mut trailers = HeaderMap::new();
            trailers.insert(name, "1".parse().expect("a value"));
            send.send_trailers(trailers).expect("open");
            let passed = response.await.is_ok_and(|response| {
                let status = response.headers().get("grpc-status");
                response.status() == 200 && status.is_none()
            });
            assert_eq!(passed, passes, "{name}");
        }
    });
}

#[test]
fn a_stream_that_was_refused_unprocessed_is_sent_again() {
    let origin = Http2Origin::start(
        None,
        Arc::new(|number, _, mut respond| {
            Box::pin(async move {
                if number == 0 {
                    respond.send_reset(Code::REFUSED_STREAM);
                } else {
                    let _ = respond.send_response(Response::new(()), true);
                }
            })
        }),
    );
    let edge = Edge::start(&to_http2(&origin), Limits::default());
    // The connection is used again, so that it is known to be good.
    let mut client = edge.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    let first = client.response_to("POST").status;
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    let second = client.response_to("POST").status;
    // There is one endpoint, and the first try was on a new connection: no other to go to.
    assert!(matches!((first, second), (502 | 200, 200)), "{first} {second}");
    assert!(origin.requests.load(Relaxed) >= 2);
}

#[test]
fn a_refused_stream_goes_to_another_endpoint_even_if_it_is_a_post() {
    let refuses = Http2Origin::start(
        None,
        Arc::new(|_, _, mut respond| Box::pin(async move { respond.send_reset(Code::REFUSED_STREAM) })),
    );
    let serves = Http2Origin::start(None, echo());
    let mut config = to_http2(&refuses);
    config.upstreams[0].endpoints.push(serves.address.into());
    config.upstreams[0].retry = Retry {
        buffer_bytes: 16,
        ..Retry::default()
    };
    let edge = Edge::start(&config, Limits::default());
    let mut client = edge.connect();
    for _ in 0..4 {
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        let response = client.response_to("POST");
        assert_eq!(response.status, 200);
        assert!(response.body.ends_with("hello"), "{}", response.body);
    }
    assert!(refuses.requests.load(Relaxed) >= 1);
}

#[test]
fn goodbyes_fail_no_request() {
    let origin = Http2Origin::start(Some(2), echo());
    let edge = Edge::start(&to_http2(&origin), Limits::default());
    let mut client = edge.connect();
    for round in 0..10 {
        assert_eq!(client.get("/").status, 200, "round {round}");
    }
    assert!(origin.connections.load(Relaxed) >= 4);
}

#[test]
fn resets_are_mapped_both_ways() {
    let (told, cancelled) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let told = Arc::new(told);
    let heard = Arc::new(Notify::new());
    let go = Arc::clone(&heard);
    let origin = Http2Origin::start(
        None,
        Arc::new(move |number, _, mut respond| {
            let (told, go) = (Arc::clone(&told), Arc::clone(&go));
            Box::pin(async move {
                let mut send = respond.send_response(Response::new(()), false).expect("open");
                send.send_data(Bytes::from_static(b"part"), false).expect("open");
                if number == 0 {
                    // A reset may overtake what was sent before it.
                    go.notified().await;
                    send.send_reset(Code::ENHANCE_YOUR_CALM);
                } else {
                    let code = std::future::poll_fn(|context| send.poll_reset(context)).await;
                    let _ = told.lock().expect("not poisoned").send(code.ok());
                }
            })
        }),
    );
    let edge = Edge::start(&to_http2(&origin), Limits::default());
    run(async {
        let mut client = connect(&edge).await;
        let (response, _send) = client.send_request(grpc(&edge), true).expect("open");
        let mut body = response.await.expect("an answer").into_body();
        let mut end = None;
        while let Some(data) = body.data().await {
            match data {
                Ok(data) => {
                    body.flow_control()
                        .release_capacity(data.len())
                        .expect("released");
                    heard.notify_one();
                }
                Err(error) => {
                    end = error.reason();
                    break;
                }
            }
        }
        assert_eq!(end, Some(Code::ENHANCE_YOUR_CALM), "the upstream's own reason");

        let (response, mut send) = client.send_request(grpc(&edge), false).expect("open");
        let mut body = response.await.expect("an answer").into_body();
        body.data().await.expect("data").expect("no reset");
        send.send_reset(Code::CANCEL);
        let code = loop {
            match cancelled.try_recv() {
                Ok(code) => break code,
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        };
        assert_eq!(code, Some(Code::CANCEL));
    });
}

#[test]
fn half_a_body_never_passes_for_a_whole_one() {
    let seen = Arc::new(std::sync::Mutex::new(None));
    let record = Arc::clone(&seen);
    let origin = Http2Origin::start(
        None,
        Arc::new(move |number, request, mut respond| {
            let record = Arc::clone(&record);
            Box::pin(async move {
                if number == 0 {
                    let mut send = respond.send_response(Response::new(()), false).expect("open");
                    send.send_data(Bytes::from_static(b"half"), false).expect("open");
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    send.send_reset(Code::CANCEL);
                    return;
                }
                let mut body = request.into_body();
                let end = loop {
                    match body.data().await {
                        Some(Ok(data)) => drop(body.flow_control().release_capacity(data.len())),
                        Some(Err(error)) => break error.reason(),
                        None => break None,
                    }
                };
                *record.lock().expect("not poisoned") = Some(end);
            })
        }),
    );
    let edge = Edge::start(&to_http2(&origin), Limits::default());
    let got = edge.exchange_lossy(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    // Whatever came of it before the reset, the last chunk did not.
    assert!(!got.ends_with("0\r\n\r\n"), "{got:?}");
    run(async {
        let mut client = connect(&edge).await;
        let (response, mut send) = client.send_request(grpc(&edge), false).expect("open");
        send.send_data(Bytes::from_static(b"half"), false).expect("open");
        while origin.requests.load(Relaxed) < 2 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        send.send_reset(Code::CANCEL);
        drop(response);
        while seen.lock().expect("not poisoned").is_none() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let end = *seen.lock().expect("not poisoned");
    assert_eq!(end, Some(Some(Code::CANCEL)));
}

/// An answer to a request that is still being sent: whole, or reset with an error or as if all were well.
#[test]
fn an_early_answer_is_whole_or_an_error() {
    for (code, whole) in [
        (Some(Code::CANCEL), false),
        (Some(Code::NO_ERROR), false),
        (Some(Code::INTERNAL_ERROR), false),
        (None, true),
    ] {
        let seen = Arc::new(Notify::new());
        let go_on = Arc::clone(&seen);
        let origin = Http2Origin::start(
            None,
            Arc::new(move |_, request, mut respond| {
                let go_on = Arc::clone(&go_on);
                Box::pin(async move {
                    let mut send = respond.send_response(Response::new(()), false).expect("open");
                    send.send_data(Bytes::from_static(b"half"), code.is_none())
                        .expect("open");
                    go_on.notified().await;
                    if let Some(code) = code {
                        send.send_reset(code);
                    }
                    // Without having read it: a stream that has answered is reset with NO_ERROR.
                    drop(request);
                })
            }),
        );
        let edge = Edge::start(&to_http2(&origin), Limits::default());
        let mut client = edge.connect();
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n");
        let mut got = String::new();
        while !got.contains("half") {
            let more = client.read_some();
            assert!(!more.is_empty(), "{code:?}: {got:?}");
            got.push_str(&more);
        }
        seen.notify_one();
        got.push_str(&client.read_all_lossy());
        assert_eq!(got.ends_with("0\r\n\r\n"), whole, "{code:?}: {got:?}");
    }
}
