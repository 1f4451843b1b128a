//! A gateway, a recording origin and a raw client.

use std::{
    borrow::Cow,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    num::NonZeroU32,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    config::{
        AccessLog, AuthPolicy, AuthRule, Config, GatewayLimits, Listener, Offences, PathRules, Route,
        RouteMatch, Shield, TokenSource, Upstream,
    },
    gateway::{
        Authenticate, CountersSnapshot, Denial, Gateway, Handle, Identity, Limits, Parts, Permit, Reason,
        Request, RunError, Summary,
    },
    offence::{OffenceKind, OffenceSink, Offender},
};

/// How long a test waits for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A running gateway; stopped when dropped.
pub(super) struct Edge {
    pub(super) address: SocketAddr,
    pub(super) handle: Handle,
    pub(super) offences: Arc<Recorder>,
    thread: Option<JoinHandle<Result<Summary, RunError>>>,
}

/// Records offences.
#[derive(Default)]
pub(super) struct Recorder(Mutex<Vec<(Offender, OffenceKind)>>);

impl Recorder {
    pub(super) fn kinds(&self) -> Vec<OffenceKind> {
        self.0.lock().unwrap().iter().map(|(_, kind)| *kind).collect()
    }

    pub(super) fn offenders(&self) -> Vec<Offender> {
        self.0
            .lock()
            .unwrap()
            .iter()
            .map(|(offender, _)| *offender)
            .collect()
    }
}

impl OffenceSink for Recorder {
    fn offence(&self, offender: Offender, kind: OffenceKind) {
        self.0.lock().unwrap().push((offender, kind));
    }
}

/// Stands for the real authenticator: `good` and `weak` are tokens, found as bearer, in the cookie `token`, in the
/// field `x-token` or in the parameter `token`.
pub(super) struct Tokens;

impl Authenticate for Tokens {
    fn authenticate(
        &self,
        policy: &AuthPolicy,
        request: &Request<'_>,
        _: std::time::SystemTime,
    ) -> Result<Permit, Denial> {
        let denial = |reason, detail| Err(Denial::new(reason, detail, Some("Bearer realm=\"t\"".into())));
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let bearer = request.values("authorization").next().map(text);
        let cookie = request.values("cookie").map(text).find_map(|cookies| {
            cookies
                .split("; ")
                .find_map(|pair| pair.strip_prefix("token=").map(str::to_owned))
        });
        let header = request.values("x-token").next().map(text);
        let query = request.query().map(text).and_then(|query| {
            query
                .split('&')
                .find_map(|pair| pair.strip_prefix("token=").map(str::to_owned))
        });
        let found = bearer
            .and_then(|value| value.strip_prefix("Bearer ").map(str::to_owned))
            .map(|token| (token, TokenSource::Bearer))
            .or(cookie.map(|token| (token, TokenSource::Cookie("token".into()))))
            .or(header.map(|token| (token, TokenSource::Header("x-token".into()))))
            .or(query.map(|token| (token, TokenSource::Query("token".into()))));
        match (found, policy) {
            (None, AuthPolicy::Optional(_)) => Ok(Permit::default()),
            (None, _) => denial(Reason::TokenMissing, "no token"),
            (Some((token, source)), _) if token == "good" => {
                Ok(Permit::new(Some(Arc::new(Alice)), vec![source]))
            }
            (Some((token, _)), _) if token == "weak" => denial(Reason::Forbidden, "scope"),
            (Some(_), _) => denial(Reason::TokenRefused, "signature"),
        }
    }

    fn identity_fields(&self) -> Vec<String> {
        vec!["x-auth-subject".into()]
    }
}

/// Whose token is good.
#[derive(Debug)]
struct Alice;

impl Identity for Alice {
    fn subject(&self) -> Option<&str> {
        Some("alice")
    }

    fn claim(&self, path: &[String]) -> Option<Cow<'_, str>> {
        (path == ["sub"]).then_some(Cow::Borrowed("alice"))
    }

    fn each_field(&self, tell: &mut dyn FnMut(&str, &[u8])) {
        tell("x-auth-subject", b"alice");
    }
}

/// A configuration with `routes` of (path, upstream, protected) and `upstreams` by endpoints.
pub(super) fn config(upstreams: &[&[SocketAddr]], routes: &[(&str, usize, bool)]) -> Config {
    let rule = AuthRule {
        providers: vec![0],
        scopes: Vec::new(),
        claims: Vec::new(),
        login: None,
    };
    Config {
        shield: Shield::default(),
        services: Vec::new(),
        listeners: vec![Listener::plain("web", SocketAddr::from(([127, 0, 0, 1], 0)))],
        upstreams: upstreams
            .iter()
            .enumerate()
            .map(|(index, endpoints)| Upstream {
                connect_timeout: Duration::from_millis(500),
                ..Upstream::new(&format!("u{index}"), endpoints)
            })
            .collect(),
        routes: routes
            .iter()
            .map(|(path, upstream, protected)| {
                let auth = if *protected {
                    AuthPolicy::Required(rule.clone())
                } else {
                    AuthPolicy::None
                };
                Route::forwarding(
                    &format!("route {path}"),
                    RouteMatch::prefix(path),
                    *upstream,
                    auth,
                    Duration::from_secs(5),
                )
            })
            .collect(),
        providers: Vec::new(),
        request_limits: Vec::new(),
        revocation_file: None,
        offences: Offences::default(),
        workers: NonZeroU32::new(1),
        paths: PathRules::default(),
        shutdown_grace: Duration::from_secs(5),
        lifecycle: crate::config::Lifecycle::default(),
        limits: GatewayLimits::default(),
        admin: crate::config::Admin::default(),
        traces: None,
        history: None,
        document: crate::config::Document::default(),
        access_log: AccessLog {
            enabled: false,
            ..AccessLog::default()
        },
    }
}

impl Edge {
    /// Every path to one origin, nothing protected.
    pub(super) fn to(origin: SocketAddr) -> Self {
        Self::start(&config(&[&[origin]], &[("/", 0, false)]), Limits::default())
    }

    pub(super) fn start(config: &Config, mut limits: Limits) -> Self {
        limits.codec = super::CODEC;
        let offences = Arc::new(Recorder::default());
        let sink: Arc<dyn OffenceSink> = offences.clone();
        let parts = Parts {
            tracer: None,
            authenticator: Arc::new(Tokens),
            offences: sink,
            arrivals: None,
            limits,
            pin: false,
        };
        let gateway = Gateway::bind(config, parts).expect("a free port");
        let (address, handle) = (gateway.addresses()[0].1, gateway.handle());
        let thread = thread::spawn(move || gateway.run());
        Self {
            address,
            handle,
            offences,
            thread: Some(thread),
        }
    }

    pub(super) fn counters(&self) -> CountersSnapshot {
        self.handle.counters()
    }

    pub(super) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Sends bytes on a connection of their own; answers with all that comes back until it is closed.
    pub(super) fn exchange(&self, bytes: &[u8]) -> String {
        let mut client = self.connect();
        client.send(bytes);
        client.read_all()
    }

    /// The same, and a reset is an end too.
    pub(super) fn exchange_lossy(&self, bytes: &[u8]) -> String {
        let mut client = self.connect();
        client.send(bytes);
        client.finish_sending();
        client.read_all_lossy()
    }

    /// Waits for the gateway's end.
    pub(super) fn join(mut self) -> Summary {
        self.handle.stop();
        self.thread
            .take()
            .expect("running")
            .join()
            .expect("no panic")
            .expect("no failure")
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("the gateway panicked");
        }
    }
}

/// A raw client.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(super) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the gateway listens");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Sends bytes; a peer that closed early is no failure of the test.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub(super) fn finish_sending(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Everything up to the end of the connection.
    pub(super) fn read_all(&mut self) -> String {
        let mut bytes = std::mem::take(&mut self.buffer);
        let mut part = [0; 4096];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => break,
                Ok(read) => bytes.extend_from_slice(&part[..read]),
                Err(error) if bytes.is_empty() => panic!("no answer: {error}"),
                Err(error) => panic!("after {:?}: {error}", String::from_utf8_lossy(&bytes)),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The same, and a reset is an end too.
    pub(super) fn read_all_lossy(&mut self) -> String {
        let mut bytes = Vec::new();
        let _ = self.stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What one read brings; nothing at the end.
    pub(super) fn read_some(&mut self) -> String {
        let mut part = [0; 4096];
        let read = self.stream.read(&mut part).unwrap_or(0);
        String::from_utf8_lossy(&part[..read]).into_owned()
    }

    /// One response; bodies by length or chunks.
    pub(super) fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    pub(super) fn response_to(&mut self, method: &str) -> Response {
        let head = take_head(&mut self.stream, &mut self.buffer).expect("a response head");
        let head = String::from_utf8(head).expect("ASCII");
        let status = head[9..12].parse().expect("a status");
        let bodiless = method == "HEAD" || status == 204 || status == 304 || status < 200;
        let body = if bodiless {
            Vec::new()
        } else {
            take_body(&mut self.stream, &mut self.buffer, &head).0
        };
        Response {
            status,
            head,
            body: String::from_utf8_lossy(&body).into_owned(),
        }
    }

    pub(super) fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        self.response()
    }
}

/// A response taken apart.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Response {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

/// The value of a field in a head.
pub(super) fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().skip(1).find_map(|line| {
        let (have, value) = line.split_once(':')?;
        have.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn take_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            return Some(buffer.drain(..end + 4).collect());
        }
        fill(stream, buffer)?;
    }
}

fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut part = vec![0; 64 * 1024];
    match stream.read(&mut part) {
        Ok(0) | Err(_) => None,
        Ok(read) => {
            buffer.extend_from_slice(&part[..read]);
            Some(())
        }
    }
}

/// The body that a head declares, decoded and as it came.
fn take_body(stream: &mut TcpStream, buffer: &mut Vec<u8>, head: &str) -> (Vec<u8>, Vec<u8>) {
    let take = |stream: &mut TcpStream, buffer: &mut Vec<u8>, len: usize| -> Vec<u8> {
        while buffer.len() < len && fill(stream, buffer).is_some() {}
        buffer.drain(..len.min(buffer.len())).collect()
    };
    if let Some(length) = field(head, "content-length") {
        let body = take(stream, buffer, length.parse().expect("a length"));
        return (body.clone(), body);
    }
    let (mut body, mut raw) = (Vec::new(), Vec::new());
    if field(head, "transfer-encoding").is_some() {
        loop {
            while !buffer.contains(&b'\n') {
                if fill(stream, buffer).is_none() {
                    return (body, raw);
                }
            }
            let end = buffer.iter().position(|byte| *byte == b'\n').unwrap();
            let line = take(stream, buffer, end + 1);
            raw.extend_from_slice(&line);
            let digits = String::from_utf8_lossy(&line)
                .split([';', '\r'])
                .next()
                .unwrap_or_default()
                .to_owned();
            let size = usize::from_str_radix(&digits, 16).unwrap_or(0);
            if size == 0 {
                // Trailers, up to the empty line.
                loop {
                    while !buffer.contains(&b'\n') {
                        if fill(stream, buffer).is_none() {
                            return (body, raw);
                        }
                    }
                    let end = buffer.iter().position(|byte| *byte == b'\n').unwrap();
                    let line = take(stream, buffer, end + 1);
                    raw.extend_from_slice(&line);
                    if line == b"\r\n" {
                        return (body, raw);
                    }
                }
            }
            let chunk = take(stream, buffer, size + 2);
            raw.extend_from_slice(&chunk);
            body.extend_from_slice(&chunk[..chunk.len().saturating_sub(2)]);
        }
    }
    (body, raw)
}

/// One request as an origin saw it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
    /// Which connection it came on.
    pub(super) connection: usize,
}

impl Seen {
    pub(super) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

/// An origin's side of one connection.
pub(super) struct OriginConnection {
    pub(super) stream: TcpStream,
    pub(super) number: usize,
    buffer: Vec<u8>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl OriginConnection {
    /// The next request, recorded; `None` at the end.
    pub(super) fn request(&mut self) -> Option<Seen> {
        let head = self.head()?;
        Some(self.body(head))
    }

    /// The next request head.
    pub(super) fn head(&mut self) -> Option<String> {
        let head = take_head(&mut self.stream, &mut self.buffer)?;
        Some(String::from_utf8(head).expect("the gateway forwards ASCII heads"))
    }

    /// The body after a head; records both.
    pub(super) fn body(&mut self, head: String) -> Seen {
        let (body, _) = take_body(&mut self.stream, &mut self.buffer, &head);
        let seen = Seen {
            head,
            body,
            connection: self.number,
        };
        self.seen.lock().unwrap().push(seen.clone());
        seen
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// What was read beyond the last head.
    pub(super) fn take_buffered(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }
}

/// An origin on loopback; what it does with a connection is up to the test.
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

pub(super) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

impl Origin {
    /// Answers every request with `OK`.
    pub(super) fn ok() -> Self {
        Self::answering(OK)
    }

    /// Answers every request with the same bytes.
    pub(super) fn answering(answer: &'static [u8]) -> Self {
        Self::with(move |connection| {
            while connection.request().is_some() {
                connection.send(answer);
            }
        })
    }

    /// Handles each connection on a thread of its own.
    pub(super) fn with(handle: impl Fn(&mut OriginConnection) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (handle, record) = (Arc::new(handle), Arc::clone(&seen));
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (handle, seen) = (Arc::clone(&handle), Arc::clone(&record));
                let stream = stream.expect("accepted");
                stream.set_nodelay(true).unwrap();
                thread::spawn(move || {
                    handle(&mut OriginConnection {
                        stream,
                        number,
                        buffer: Vec::new(),
                        seen,
                    });
                });
            }
        });
        Self { address, seen }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The last request, which must have come.
    pub(super) fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().cloned().expect("a request came")
    }
}

/// A loopback address where nobody listens.
pub(super) fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Waits until something holds.
pub(super) fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
