//! The real gateway in this process, on real sockets, with the real authority behind it; and clients of both versions
//! of HTTP that send what they are told.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use edge_user::{
    auth::Authority,
    config::{AuthPolicy, Config, Listener, Provider, Route, Upstream},
    gateway::{
        Authenticate, Denial, Gateway, Handle, Limits, Parts, Permit, Request as Asked, RunError, Summary,
    },
    lifecycle::TokenGate,
    offence::NoOffences,
};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::Request;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The token gate, with a clock that stands still if it is told to, and a memory of the last denial's reason.
struct Judge {
    gate: TokenGate,
    clock: Option<SystemTime>,
    detail: Arc<Mutex<&'static str>>,
}

impl Authenticate for Judge {
    fn authenticate(
        &self,
        policy: &AuthPolicy,
        request: &Asked<'_>,
        now: SystemTime,
    ) -> Result<Permit, Denial> {
        let answer = self.gate.authenticate(policy, request, self.clock.unwrap_or(now));
        *self.detail.lock().unwrap() = answer.as_ref().map_or_else(|denial| denial.detail, |_| "");
        answer
    }

    fn identity_fields(&self) -> Vec<String> {
        self.gate.identity_fields()
    }
}

/// A running gateway with an origin that answers with the head it got; everything ends when this is dropped.
pub(crate) struct Edge {
    pub(crate) address: SocketAddr,
    pub(crate) authority: Arc<Authority>,
    detail: Arc<Mutex<&'static str>>,
    handle: Handle,
    thread: Option<JoinHandle<Result<Summary, RunError>>>,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Fields that say something about authentication, in the order of their names.
    pub(crate) fields: Vec<(String, String)>,
    /// The gateway's reason, or the head that the origin got.
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The lines of the head that the origin got, without those that say how the request came.
    pub(crate) fn forwarded(&self) -> Vec<&str> {
        self.text.lines().filter(|line| !line.is_empty()).collect()
    }
}

impl Edge {
    /// Serves these routes: path and policy.
    pub(crate) async fn start(
        providers: &[Provider],
        routes: &[(&str, AuthPolicy)],
        clock: Option<SystemTime>,
    ) -> Self {
        let config = config(providers, routes, echo().await);
        let authority = Arc::new(Authority::load(providers, None, None, SystemTime::now()).unwrap());
        authority.spawn_tasks();
        let detail = Arc::new(Mutex::new(""));
        let parts = Parts {
            tracer: None,
            authenticator: Arc::new(Judge {
                gate: TokenGate::new(Arc::clone(&authority)),
                clock,
                detail: Arc::clone(&detail),
            }),
            offences: Arc::new(NoOffences),
            arrivals: None,
            limits: Limits::default(),
            pin: false,
        };
        let gateway = Gateway::bind(&config, parts).unwrap();
        let (address, handle) = (gateway.addresses()[0].1, gateway.handle());
        Self {
            address,
            authority,
            detail,
            handle,
            thread: Some(std::thread::spawn(move || gateway.run())),
        }
    }

    /// Why the last token was refused.
    pub(crate) fn detail(&self) -> &'static str {
        *self.detail.lock().unwrap()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn config(providers: &[Provider], routes: &[(&str, AuthPolicy)], endpoint: SocketAddr) -> Config {
    let text = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n";
    let mut config = Config::parse(text, "test", std::path::Path::new("/"))
        .unwrap()
        .config;
    config.listeners = vec![Listener {
        address: (Ipv4Addr::LOCALHOST, 0).into(),
        ..config.listeners[0].clone()
    }];
    config.upstreams = vec![upstream(endpoint)];
    config.routes = routes.iter().map(|(path, auth)| route(path, auth)).collect();
    config.providers = providers.to_vec();
    config.workers = std::num::NonZeroU32::new(1);
    config
}

fn upstream(endpoint: SocketAddr) -> Upstream {
    let text = format!("[[upstream]]\nname = \"echo\"\nendpoints = [\"{endpoint}\"]\n");
    parsed(&text).upstreams.remove(0)
}

fn route(path: &str, auth: &AuthPolicy) -> Route {
    let text = format!(
        "[[upstream]]\nname = \"echo\"\nendpoints = [\"127.0.0.1:9\"]\n\
         [[route]]\nname = \"r\"\npath = {path:?}\nupstream = \"echo\"\nauth = \"none\"\n"
    );
    let mut route = parsed(&text).routes.remove(0);
    route.auth = auth.clone();
    route.name = format!("route-{}", path.replace('/', "-"));
    route
}

fn parsed(text: &str) -> Config {
    Config::parse(text, "test", std::path::Path::new("/"))
        .unwrap_or_else(|error| panic!("{error}"))
        .config
}

/// An origin that answers each request with its head.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                loop {
                    while let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
                        let head: Vec<u8> = bytes.drain(..end + 4).collect();
                        let mut answer = Vec::new();
                        write!(
                            answer,
                            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                            head.len()
                        )
                        .unwrap();
                        answer.extend_from_slice(&head);
                        if stream.write_all(&answer).await.is_err() {
                            return;
                        }
                    }
                    if !matches!(stream.read_buf(&mut bytes).await, Ok(read) if read > 0) {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Asks over HTTP/1.1, byte for byte, on a connection of its own.
pub(crate) async fn http1(edge: SocketAddr, path: &str, request: &Request) -> Answer {
    let mut head = Vec::new();
    head.extend_from_slice(b"GET ");
    head.extend_from_slice(&target(path, request));
    head.extend_from_slice(b" HTTP/1.1\r\nhost: edge.example\r\nconnection: close\r\n");
    for (name, value) in &request.headers {
        head.extend_from_slice(name.as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    let exchange = async {
        let mut stream = TcpStream::connect(edge).await.unwrap();
        // A head that is refused early may meet a closed connection.
        let _ = stream.write_all(&head).await;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        bytes
    };
    let bytes = tokio::time::timeout(PATIENCE, exchange).await.expect("an answer");
    parse(&bytes)
}

fn target(path: &str, request: &Request) -> Vec<u8> {
    let mut target = path.as_bytes().to_vec();
    if let Some(query) = &request.query {
        target.push(b'?');
        target.extend_from_slice(query);
    }
    target
}

fn parse(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no head in {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.get(9..12)).unwrap();
    let fields = lines.filter_map(|line| line.split_once(": "));
    answer(
        status.parse().unwrap(),
        fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())),
        body,
    )
}

/// Asks over HTTP/2; none if this client cannot be made to send such a request.
pub(crate) async fn http2(edge: SocketAddr, path: &str, request: &Request) -> Option<Answer> {
    let target = String::from_utf8(target(path, request)).ok()?;
    let mut message = http::Request::get(format!("http://edge.example{target}"));
    for (name, value) in &request.headers {
        message = message.header(name, value.as_slice());
    }
    let message = message.body(Empty::<Bytes>::new()).ok()?;
    let exchange = async {
        let stream = TcpStream::connect(edge).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        let (head, body) = sender.send_request(message).await.ok()?.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let fields = head.headers.iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        });
        Some(answer(
            head.status.as_u16(),
            fields,
            &String::from_utf8_lossy(&body),
        ))
    };
    tokio::time::timeout(PATIENCE, exchange).await.expect("an answer")
}

/// What both versions must say alike: not the connection's own fields, and not the request's id.
fn answer(status: u16, fields: impl Iterator<Item = (String, String)>, body: &str) -> Answer {
    let ours = |name: &str| {
        !matches!(
            name,
            "date" | "connection" | "content-length" | "transfer-encoding"
        )
    };
    let mut fields: Vec<_> = fields.filter(|(name, _)| ours(name)).collect();
    fields.sort();
    let text = match serde_json::from_str::<Value>(body) {
        Ok(problem) => problem["reason"].as_str().unwrap_or_default().to_owned(),
        Err(_) => body
            .lines()
            .filter(|line| !line.starts_with("x-request-id: ") && !line.starts_with("traceparent: "))
            // A page names the request by its id.
            .map(|line| line.split("<p>Request ").next().unwrap_or_default())
            .collect::<Vec<_>>()
            .join("\n"),
    };
    Answer { status, fields, text }
}
