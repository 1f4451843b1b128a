//! One request on a client's connection: judged and decided about in one go.
//!
//! Invariant: what is kept of a head is copied once, into the buffer that goes to the upstream.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    DIALECT,
    connection::Connection,
    flow::{Flow, Framing},
    own::{self, Own, Refused},
    side::Transport,
};
use crate::gateway::{
    balance::Target,
    exchange::Exchange,
    gate::{Request, RequestBody, RequestShape, Version, chunked::Chunked, parse, request, response::Asked},
    header_policy,
    limits::Codec,
    patience::Patience,
    stages::Decision,
};

/// How a connection goes on after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// With the next request.
    Next,
    /// Not at all; `linger` if the client may be sending still.
    Close { linger: bool },
    /// Not at all, and not as if all were well: by a reset.
    Abort,
    /// By another codec: the next request is not for this one.
    Declined,
}

/// What became of a head.
pub(super) enum Prepared {
    /// It is to be forwarded.
    Forward(Box<Forward>),
    /// A tunnel to its target was asked for, and nothing else comes on this connection.
    Tunnel(Box<Target>),
    /// It ends here.
    Refused(Refused),
    /// It is for another codec; nothing was used up.
    Declined,
}

/// A request on its way.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about one request"
)]
pub(super) struct Forward {
    pub(super) target: Target,
    pub(super) asked: Asked,
    /// The client speaks HTTP/1.0.
    pub(super) http10: bool,
    pub(super) keep_alive: bool,
    /// The client waits for 100 before it sends its body.
    pub(super) expects: bool,
    /// Sending it twice does no harm, and there is no body.
    pub(super) repeatable: bool,
    /// Limit from the sent request to the response head.
    pub(super) timeout: Duration,
    /// Limit for a response body of which nothing arrives.
    pub(super) idle: Duration,
    /// When all of it has to be over.
    pub(super) deadline: Option<Instant>,
    /// Towards the upstream: head and body.
    pub(super) up: Flow,
    /// The upstream takes no more of the body.
    pub(super) up_broken: bool,
}

impl Forward {
    /// Whether the whole exchange has taken longer than its route allows.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// How long to wait for something that has `limit`, with a deadline for all of it.
    pub(super) fn left(&self, limit: Duration) -> Duration {
        match self.deadline {
            Some(deadline) => limit.min(deadline.saturating_duration_since(Instant::now())),
            None => limit,
        }
    }
}

impl<S: Transport> Connection<'_, S> {
    /// Takes apart and judges the head of `len` bytes at the start of what is unread, and has the stages decide. If it
    /// is to be forwarded, the head is used up.
    pub(super) async fn prepare(&mut self, exchange: &mut Exchange, len: usize) -> Prepared {
        let mut shape = self.worker.h1().take_shape();
        let prepared = self.prepare_with(&mut shape, exchange, len).await;
        self.worker.h1().put_shape(shape);
        prepared
    }

    async fn prepare_with(
        &mut self,
        shape: &mut RequestShape,
        exchange: &mut Exchange,
        len: usize,
    ) -> Prepared {
        let worker = self.worker;
        let head = self.client.unread().get(..len).unwrap_or_default();
        let judged = match parse::request(head, &worker.limits().head, shape)
            .and_then(|()| request::judge_by(head, shape, exchange.site().plan().path_rules()))
        {
            Ok(judged) => judged,
            Err(refusal) => return Prepared::Refused(refusal.into()),
        };
        let request = Request::new(head, shape, &judged);
        let bodiless = request.method() == b"HEAD";
        let http10 = request.version() == Version::Http10;
        let decided = match worker
            .decide(exchange, &request, self.provenance, Codec::Bytes)
            .await
        {
            Ok(Decision::Forward(target)) => Ok(target),
            Ok(Decision::Declined | Decision::FanOut(..)) => return Prepared::Declined,
            Ok(Decision::Reply(reply)) => Err(Own::Reply(reply)),
            Err(refusal) => Err(Own::Refusal(refusal)),
        };
        let target = match decided {
            Ok(target) => target,
            Err(own) => {
                let body = own::drained(judged.body, judged.expects_continue);
                self.client.consume(len);
                return Prepared::Refused(Refused {
                    own,
                    bodiless,
                    http10,
                    keep_alive: judged.keep_alive,
                    body,
                });
            }
        };
        if judged.connect {
            self.client.consume(len);
            return Prepared::Tunnel(Box::new(target));
        }
        let site = exchange.site();
        let route = site.plan().route(target.route());
        let mut out = worker.h1().buffers().take_head();
        out.extend_from_slice(request.method());
        out.push(b' ');
        header_policy::put_target(&mut out, &request, target.permit());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        header_policy::request(
            &mut out,
            site.plan(),
            &request,
            target.permit(),
            self.provenance,
            exchange.id().as_bytes(),
            DIALECT,
        );
        out.extend_from_slice(b"\r\n");
        let framing = match judged.body {
            RequestBody::None => Framing::Done,
            RequestBody::Length(length) => Framing::Length(length),
            RequestBody::Chunked => {
                Framing::Chunked(Box::new(Chunked::without(Arc::clone(site.identity_fields()))))
            }
        };
        let forward = Forward {
            asked: Asked {
                head: bodiless,
                websocket: judged.websocket,
            },
            http10,
            keep_alive: judged.keep_alive,
            expects: judged.expects_continue,
            repeatable: judged.body == RequestBody::None && request.is_idempotent(),
            timeout: target.try_timeout(route.timeout),
            idle: route.idle_timeout.unwrap_or(worker.limits().stall_timeout),
            deadline: exchange.deadline(target.route()),
            up: Flow::new(out, framing, route.body_limit.or(worker.limits().body)).with_patience(
                Patience::new(worker.limits().stall_timeout, worker.limits().min_body_rate),
            ),
            up_broken: false,
            target,
        };
        self.client.consume(len);
        // While the upstream is waited for nothing is read.
        self.client.release(worker.h1().buffers());
        Prepared::Forward(Box::new(forward))
    }
}
