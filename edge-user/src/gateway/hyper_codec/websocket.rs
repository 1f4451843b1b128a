//! WebSockets over HTTP/2 (RFC 8441) to upstreams that speak HTTP/1.1.
//!
//! An extended CONNECT becomes the GET of RFC 6455's handshake, with a key of this proxy's own, and goes through the same
//! stages as any request; the upstream's 101 becomes a 200. From then on bytes pass both ways, in constant memory, until
//! both sides have finished, one breaks, nothing moves for too long, or the worker stops.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use http_body_util::Full;
use hyper::{body::Incoming, ext::Protocol, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::task::spawn_local;

use super::{
    DIALECT,
    body::{InFlight, ResponseBody, Returning},
    head::{self, HeaderMapSink},
    tunnel::pass,
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
        let upstream = async { upstream.await.ok().map(TokioIo::new) };
        spawn_local(pass(exchange, self.client, upstream, (returning, in_flight)));
        Ok(response)
    }
}
