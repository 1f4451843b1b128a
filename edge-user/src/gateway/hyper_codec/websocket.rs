//! WebSockets over HTTP/2 (RFC 8441) to upstreams that speak HTTP/1.1.
//!
//! An extended CONNECT becomes the GET of RFC 6455's handshake, with a key of this proxy's own, and goes through the same
//! stages as any request; the upstream's 101 becomes a 200. From then on bytes pass both ways, in constant memory, until
//! both sides have finished, one breaks, nothing moves for too long, or the worker stops.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    ext::Protocol,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes},
    task::spawn_local,
    time::{sleep, timeout},
};

use super::{
    DIALECT,
    body::{InFlight, ResponseBody, Returning},
    head::{self, HeaderMapSink},
};
use crate::gateway::{
    changes::Changes,
    exchange::Exchange,
    gate::response::{self, Asked},
    header_policy,
    refusal::{Reason, Refusal},
};

/// What RFC 6455, 1.3 appends to the key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Bytes on their way, for each direction.
const BUFFER: usize = 16 * 1024;

/// The client's side of a handshake.
pub(super) struct Handshake {
    key: HeaderValue,
    client: OnUpgrade,
}

impl Handshake {
    /// Takes an extended CONNECT for what it is; `None` for every other request. HTTP/1 has none.
    pub(super) fn of(request: &mut http::Request<Incoming>) -> Option<OnUpgrade> {
        let is_websocket = request.method() == Method::CONNECT
            && request
                .extensions()
                .get::<Protocol>()
                .is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket"));
        is_websocket.then(|| hyper::upgrade::on(request))
    }

    /// Turns the head of an extended CONNECT into the GET that an HTTP/1.1 server knows.
    pub(super) fn begin(parts: &mut Parts, client: OnUpgrade) -> Result<Self, Refusal> {
        let mut nonce = [0; 16];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| Reason::Overloaded)?;
        let key = HeaderValue::from_str(&STANDARD.encode(nonce)).map_err(|_| Reason::Overloaded)?;
        parts.method = Method::GET;
        parts.headers.insert(header::SEC_WEBSOCKET_KEY, key.clone());
        Ok(Self { key, client })
    }

    /// Whether the upstream has read the key.
    fn accepts(&self, headers: &HeaderMap) -> bool {
        let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY);
        digest.update(self.key.as_bytes());
        digest.update(GUID);
        let want = STANDARD.encode(digest.finish());
        let mut accepts = headers.get_all(header::SEC_WEBSOCKET_ACCEPT).iter();
        accepts.next().is_some_and(|accept| accept == want.as_str()) && accepts.next().is_none()
    }

    /// Joins the two sides after the upstream's 101; answers with the client's 200.
    pub(super) fn join(
        self,
        exchange: Box<Exchange>,
        changes: Option<&Changes>,
        mut answer: Response<Incoming>,
        returning: Returning,
        in_flight: InFlight,
    ) -> Result<Response<ResponseBody>, Box<(Refusal, Box<Exchange>)>> {
        let upstream = hyper::upgrade::on(&mut answer);
        let (mut parts, _) = answer.into_parts();
        let accepted = self.accepts(&parts.headers);
        parts.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        let laid = head::response(&parts);
        let asked = Asked {
            head: false,
            websocket: true,
        };
        let judged = match response::judge(&laid.bytes, &laid.shape, asked) {
            Ok(judged) if accepted && response::upgrades_to_websocket(&laid.bytes, &laid.shape) => judged,
            Ok(_) => {
                let refusal = Refusal::because(Reason::UpstreamMalformed, "WebSocket handshake");
                return Err(Box::new((refusal, exchange)));
            }
            Err(refusal) => return Err(Box::new((refusal, exchange))),
        };
        let mut sink = HeaderMapSink(HeaderMap::with_capacity(parts.headers.len()));
        header_policy::response(&mut sink, &laid.bytes, &laid.shape, &judged, changes, DIALECT);
        exchange.tell(&mut sink);
        let mut response = Response::new(ResponseBody::Own(Full::new(Bytes::new())));
        *response.status_mut() = StatusCode::OK;
        *response.headers_mut() = sink.0;
        spawn_local(pass(exchange, self.client, upstream, returning, in_flight));
        Ok(response)
    }
}

/// Passes bytes until the end, and closes the account.
async fn pass(
    mut exchange: Box<Exchange>,
    client: OnUpgrade,
    upstream: OnUpgrade,
    returning: Returning,
    in_flight: InFlight,
) {
    let worker = Rc::clone(exchange.worker());
    let idle = worker.limits().tunnel_idle_timeout;
    let (up, down) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let sides = async { tokio::try_join!(client, upstream) };
    // The upstream has answered, the client is being answered: neither waits for long.
    if let Ok(Ok((client, upstream))) = timeout(worker.limits().head_timeout, sides).await {
        let mut client = Counted::new(client, Rc::clone(&up));
        let mut upstream = Counted::new(upstream, Rc::clone(&down));
        let mut stop = worker.stop();
        tokio::select! {
            // How it ended is the two ends' business.
            _ = copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER, BUFFER) => {}
            () = stands_still(idle, &up, &down) => exchange.broke(Reason::TunnelIdle),
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
    exchange.received(up.get());
    exchange.returned(down.get());
    exchange.ended(Instant::now(), Duration::MAX);
    drop((exchange, returning, in_flight));
}

/// Ends once nothing has moved for `limit`.
async fn stands_still(limit: Duration, up: &Cell<u64>, down: &Cell<u64>) {
    loop {
        let before = (up.get(), down.get());
        sleep(limit).await;
        if before == (up.get(), down.get()) {
            return;
        }
    }
}

/// An upgraded stream whose incoming bytes are counted.
struct Counted {
    inner: TokioIo<Upgraded>,
    bytes: Rc<Cell<u64>>,
}

impl Counted {
    fn new(inner: Upgraded, bytes: Rc<Cell<u64>>) -> Self {
        Self {
            inner: TokioIo::new(inner),
            bytes,
        }
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.bytes
            .set(self.bytes.get() + (buffer.filled().len() - before) as u64);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
