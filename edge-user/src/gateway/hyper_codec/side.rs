//! Requests beside the one that a client waits for: parts of a fan-out, and mirrored ones.
//!
//! Each has a connection of its own, which ends with it: nothing of them is seen in the pools of proper requests.
//! Bounds: [`MAX_AT_ONCE`] a worker, the size of each answer, the time of each.

use std::{cell::Cell, rc::Rc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Uri, header, uri::Authority};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::TokioIo;
use tokio::{task::spawn_local, time::timeout};

use super::{
    head,
    http2::LocalExecutor,
    response_gate::{Expects, ResponseGate},
};
use crate::{
    gateway::{
        gate::{MAX_FIELDS, response, response::Asked},
        refusal::Reason,
    },
    upstream::{
        chooser::{Chooser, Tried},
        connect::{self, Connection},
        proxy_header::Client,
    },
};

/// Most requests of this kind that a worker has under way.
const MAX_AT_ONCE: usize = 512;

/// Most bytes of an answer that wait to be read.
const READ_BUFFER: usize = 64 * 1024;

thread_local! {
    static AT_ONCE: Cell<usize> = const { Cell::new(0) };
}

/// A request of this kind.
pub(super) struct Side {
    pub(super) chooser: Rc<Chooser>,
    pub(super) client: Client,
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: Vec<u8>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// For all of it.
    pub(super) limit: Duration,
    /// Most bytes of the answer's body.
    pub(super) most: usize,
}

/// A place among [`MAX_AT_ONCE`].
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let taken = AT_ONCE.get();
        (taken < MAX_AT_ONCE).then(|| {
            AT_ONCE.set(taken + 1);
            Self
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        AT_ONCE.set(AT_ONCE.get() - 1);
    }
}

impl Side {
    /// Sends it; answers with the status and the whole body.
    pub(super) async fn ask(self) -> Result<(u16, Bytes), Reason> {
        let _place = Place::take().ok_or(Reason::Overloaded)?;
        let limit = self.limit;
        timeout(limit, self.exchange())
            .await
            .unwrap_or(Err(Reason::UpstreamTimeout))
    }

    async fn exchange(self) -> Result<(u16, Bytes), Reason> {
        let now = std::time::Instant::now();
        let mut tried = Tried::default();
        let attempt = self
            .chooser
            .attempt(0, &mut tried, false, now)
            .map_err(|_| Reason::UpstreamDown)?;
        let connected = connect::connect(attempt.cluster(), attempt.endpoint(), Some(self.client)).await;
        let Ok(connection) = connected else {
            attempt.failed();
            return Err(Reason::UpstreamUnreachable);
        };
        let most = self.most;
        let answer = self.send(connection).await;
        let Ok(answer) = answer else {
            attempt.failed();
            return Err(Reason::UpstreamReset);
        };
        let (parts, body) = answer.into_parts();
        let laid = head::response(&parts);
        let asked = Asked {
            head: false,
            websocket: false,
        };
        response::judge(&laid.bytes, &laid.shape, asked).map_err(|refusal| refusal.reason)?;
        let status = parts.status.as_u16();
        attempt.answered(status, now.elapsed(), std::time::Instant::now());
        let body = Limited::new(body, most)
            .collect()
            .await
            .map_err(|_| Reason::UpstreamCutShort)?;
        Ok((status, body.to_bytes()))
    }

    async fn send(self, connection: Connection) -> Result<http::Response<Incoming>, hyper::Error> {
        let is_tls = self.chooser.cluster().tls().is_some();
        let mut message = http::Request::new(Full::new(self.body));
        *message.method_mut() = self.method;
        *message.headers_mut() = self.headers;
        // Made of a normalised path: whatever is no URI is asked for at the root, where nothing is found.
        let target = Uri::try_from(self.target).unwrap_or_default();
        let Connection {
            stream,
            http2,
            permit,
        } = connection;
        if http2 {
            let host = message.headers_mut().remove(header::HOST);
            message.headers_mut().remove(header::CONNECTION);
            let mut parts = target.into_parts();
            parts.scheme = if is_tls { "https" } else { "http" }.parse().ok();
            parts.authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
            *message.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
            let (mut sender, connection) = http2::handshake(LocalExecutor, TokioIo::new(stream)).await?;
            spawn_local(async move {
                // Its end is told by the answer.
                let _ = connection.await;
                drop(permit);
            });
            sender.send_request(message).await
        } else {
            *message.uri_mut() = target;
            let expects = Expects::default();
            let stream = ResponseGate::new(stream, expects.clone(), READ_BUFFER);
            let (mut sender, connection) = http1::Builder::new()
                .max_headers(MAX_FIELDS)
                .handshake(TokioIo::new(stream))
                .await?;
            spawn_local(async move {
                let _ = connection.await;
                drop(permit);
            });
            expects.head(&message, true);
            sender.send_request(message).await
        }
    }
}
