//! Requests beside the one that a client waits for: parts of a fan-out, and mirrored ones.
//!
//! Their connections are kept and used again, but apart from those of proper requests ([`Links`]): they neither wait for
//! one another nor share one. Bounds: [`MAX_AT_ONCE`] a worker, the upstream's pool, the size and the time of each answer.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Uri, header, uri::Authority};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{
    client::{Link, Links},
    head,
};
use crate::{
    gateway::{
        gate::{response, response::Asked},
        refusal::{Reason, Refusal},
        worker::Worker,
    },
    upstream::{
        attempt::Attempt,
        chooser::{Chooser, Tried},
        proxy_header::Client,
    },
};

/// Most requests of this kind that a worker has under way.
const MAX_AT_ONCE: usize = 512;

/// Their connections, of a worker.
pub(crate) type SideLinks = Links<Full<Bytes>>;

thread_local! {
    static AT_ONCE: Cell<usize> = const { Cell::new(0) };
}

/// A request of this kind.
pub(super) struct Side {
    pub(super) worker: Rc<Worker>,
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
        let begun = Instant::now();
        let mut tried = Tried::default();
        let attempt = self
            .chooser
            .attempt(0, &mut tried, false, begun)
            .map_err(|_| Reason::UpstreamDown)?;
        let (answer, link) = match self.send(&attempt).await {
            Ok(sent) => sent,
            Err(reason) => {
                // That there is no room is no fault of the endpoint's.
                if reason != Reason::Overloaded {
                    attempt.failed();
                }
                return Err(reason);
            }
        };
        let (parts, body) = answer.into_parts();
        let laid = head::response(&parts);
        let asked = Asked {
            head: self.method == Method::HEAD,
            websocket: false,
        };
        let judged = response::judge(&laid.bytes, &laid.shape, asked).map_err(|refusal| refusal.reason)?;
        let status = parts.status.as_u16();
        attempt.answered(status, begun.elapsed(), Instant::now());
        let body = Limited::new(body, self.most)
            .collect()
            .await
            .map_err(|_| Reason::UpstreamCutShort)?;
        if judged.keep_alive {
            link.put_back(Instant::now());
        }
        Ok((status, body.to_bytes()))
    }

    /// Sends it. Where a connection that had been idle turns out to be dead, once more by a new one, if that does no harm.
    async fn send(&self, attempt: &Attempt) -> Result<(http::Response<Incoming>, Link<Full<Bytes>>), Reason> {
        let reason = |refusal: Refusal| match refusal.reason {
            Reason::UpstreamBusy => Reason::Overloaded,
            other => other,
        };
        let mut fresh = false;
        loop {
            let links = self.worker.side_links();
            let (mut link, reused) = links
                .link(attempt, self.client, fresh, &mut |_| {})
                .await
                .map_err(reason)?;
            let unsent = match link.send(self.message(&link), reused).await {
                Some(Ok(answer)) => return Ok((answer, link)),
                Some(Err(mut error)) => error.take_message().is_some() || link.was_unasked(),
                None => true,
            };
            if fresh || !reused || !(unsent || self.method.is_idempotent()) {
                return Err(Reason::UpstreamReset);
            }
            fresh = true;
        }
    }

    /// The message as the link takes it.
    fn message(&self, link: &Link<Full<Bytes>>) -> http::Request<Full<Bytes>> {
        let mut message = http::Request::new(Full::new(self.body.clone()));
        *message.method_mut() = self.method.clone();
        *message.headers_mut() = self.headers.clone();
        // Made of a normalised path: whatever is no URI is asked for at the root, where nothing is found.
        let target = Uri::try_from(self.target.as_slice()).unwrap_or_default();
        if !link.is_http2() {
            *message.uri_mut() = target;
            return message;
        }
        let is_tls = self.chooser.cluster().tls().is_some();
        let host = message.headers_mut().remove(header::HOST);
        message.headers_mut().remove(header::CONNECTION);
        let mut parts = target.into_parts();
        parts.scheme = if is_tls { "https" } else { "http" }.parse().ok();
        parts.authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        *message.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        message
    }
}
