//! gRPC as it is on the wire: messages of five bytes and more in streams of HTTP/2, statuses in trailers; of every kind of
//! streaming, through the gateway to an upstream that speaks HTTP/2.

use std::{future::poll_fn, net::SocketAddr, thread, time::Duration};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::mpsc,
    time::timeout,
};

use super::support::{Edge, PATIENCE, config};
use crate::{config::UpstreamProtocol, gateway::Limits};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A message in its frame (gRPC over HTTP/2, "Length-Prefixed-Message").
fn message(text: &[u8]) -> Bytes {
    let len = u32::try_from(text.len()).unwrap().to_be_bytes();
    [&[0], &len[..], text].concat().into()
}

/// Messages as they come, however the stream is cut.
struct Messages {
    stream: RecvStream,
    buffer: Vec<u8>,
}

impl Messages {
    fn of(stream: RecvStream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(&[_, a, b, c, d]) = self.buffer.get(..5) {
                let end = 5 + u32::from_be_bytes([a, b, c, d]) as usize;
                if self.buffer.len() >= end {
                    return Some(self.buffer.drain(..end).skip(5).collect());
                }
            }
            let part = self.stream.data().await?.expect("no reset");
            self.stream.flow_control().release_capacity(part.len()).unwrap();
            self.buffer.extend_from_slice(&part);
        }
    }

    async fn trailers(&mut self) -> HeaderMap {
        self.stream.trailers().await.expect("no reset").expect("trailers")
    }
}

async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes) {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = poll_fn(|context| stream.poll_capacity(context))
            .await
            .unwrap()
            .unwrap();
        stream
            .send_data(data.split_to(room.min(data.len())), false)
            .unwrap();
    }
}

/// A service: answers by the method's name.
fn service() -> SocketAddr {
    let (say, said) = std::sync::mpsc::channel();
    thread::spawn(move || {
        runtime().block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            say.send(listener.local_addr().unwrap()).unwrap();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(socket).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(serve(request, respond));
                    }
                });
            }
        });
    });
    said.recv_timeout(PATIENCE).unwrap()
}

async fn serve(request: Request<RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let (parts, body) = request.into_parts();
    // What gRPC servers ask of proxies: HTTP/2, `te: trailers`, and the content type untouched.
    assert_eq!(parts.headers.get("te").unwrap(), "trailers");
    assert_eq!(parts.headers.get("content-type").unwrap(), "application/grpc");
    let mut messages = Messages::of(body);
    let head = Response::builder()
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let mut trailers = HeaderMap::new();
    let method = parts.uri.path().rsplit('/').next().unwrap().to_owned();
    if method == "Fail" {
        // An answer of trailers alone is a head that ends the stream.
        let mut head = head;
        head.headers_mut()
            .insert("grpc-status", HeaderValue::from_static("5"));
        respond.send_response(head, true).unwrap();
        return;
    }
    let mut out = respond.send_response(head, false).unwrap();
    match method.as_str() {
        "Server" => {
            let asked = messages.next().await.unwrap();
            for _ in 0..5 {
                send(&mut out, message(&asked)).await;
            }
        }
        "Client" => {
            let mut count = 0;
            while messages.next().await.is_some() {
                count += 1;
            }
            send(&mut out, message(count.to_string().as_bytes())).await;
        }
        _ => {
            while let Some(asked) = messages.next().await {
                send(&mut out, message(&asked)).await;
            }
        }
    }
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers.insert("x-trail", HeaderValue::from_static("yes"));
    out.send_trailers(trailers).unwrap();
}

/// A call that has begun.
async fn call(
    client: &mut h2::client::SendRequest<Bytes>,
    method: &str,
) -> (SendStream<Bytes>, h2::client::ResponseFuture) {
    let request = Request::post(format!("http://a/t.S/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    poll_fn(|context| client.poll_ready(context)).await.unwrap();
    let (response, stream) = client.send_request(request, false).unwrap();
    (stream, response)
}

async fn ends_well(messages: &mut Messages) {
    assert_eq!(messages.next().await, None);
    let trailers = messages.trailers().await;
    assert_eq!(trailers.get("grpc-status").unwrap(), "0");
    assert_eq!(trailers.get("x-trail").unwrap(), "yes");
}

async fn calls(edge: SocketAddr) {
    let socket = TcpStream::connect(edge).await.unwrap();
    let (mut client, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);

    // One message, one answer; and one that is larger than any window.
    for size in [2, 3 << 20] {
        let (mut stream, response) = call(&mut client, "Unary").await;
        let large = vec![7; size];
        let sending = async {
            send(&mut stream, message(&large)).await;
            stream.send_data(Bytes::new(), true).unwrap();
        };
        let receiving = async {
            let mut messages = Messages::of(response.await.unwrap().into_body());
            assert_eq!(messages.next().await.map(|got| got == large), Some(true));
            ends_well(&mut messages).await;
        };
        tokio::join!(sending, receiving);
    }

    let (mut stream, response) = call(&mut client, "Server").await;
    stream.send_data(message(b"x"), true).unwrap();
    let mut messages = Messages::of(response.await.unwrap().into_body());
    for _ in 0..5 {
        assert_eq!(messages.next().await.as_deref(), Some(&b"x"[..]));
    }
    ends_well(&mut messages).await;

    let (mut stream, response) = call(&mut client, "Client").await;
    for _ in 0..9 {
        send(&mut stream, message(b"x")).await;
    }
    stream.send_data(Bytes::new(), true).unwrap();
    let mut messages = Messages::of(response.await.unwrap().into_body());
    assert_eq!(messages.next().await.as_deref(), Some(&b"9"[..]));
    ends_well(&mut messages).await;

    // Both ways at once: each answer comes before the next question is asked.
    let (mut stream, response) = call(&mut client, "Bidi").await;
    let mut messages = Messages::of(response.await.unwrap().into_body());
    for turn in 0..5_u8 {
        send(&mut stream, message(&[turn])).await;
        assert_eq!(messages.next().await, Some(vec![turn]));
    }
    stream.send_data(Bytes::new(), true).unwrap();
    ends_well(&mut messages).await;

    let (mut stream, response) = call(&mut client, "Fail").await;
    stream.send_data(message(b"x"), true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), http::StatusCode::OK);
    assert_eq!(response.headers().get("grpc-status").unwrap(), "5");
}

#[test]
fn calls_of_every_kind_pass() {
    let mut config = config(&[&[service()]], &[("/", 0, false)]);
    config.upstreams[0].protocol = UpstreamProtocol::Http2;
    let edge = Edge::start(&config, Limits::default());
    let (done, mut ends) = mpsc::channel(1);
    let address = edge.address;
    thread::spawn(move || {
        let well = runtime().block_on(async { timeout(Duration::from_secs(30), calls(address)).await });
        done.blocking_send(well.is_ok()).unwrap();
    });
    assert_eq!(ends.blocking_recv(), Some(true), "a call failed or took too long");
}
