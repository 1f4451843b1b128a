//! One request on a client's connection: judged and decided about in one go, sent, answered.
//!
//! Invariant: a request goes to an upstream once, unless nothing of it was answered and sending it twice does no harm.

use std::{
    future::poll_fn,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{
    DIALECT,
    answer::{self, Answer},
    connection::Connection,
    flow::{Flow, FlowFault, Framing, Waits},
    link::{self, Link, UpstreamIo},
    side::Transport,
    writing::{self, Persistence},
};
use crate::{
    gateway::{
        answer::Reply,
        balance::Target,
        exchange::Exchange,
        gate::{Request, RequestBody, RequestShape, Version, parse, request, response::Asked},
        header_policy,
        limits::Codec,
        patience::Patience,
        refusal::{Reason, Refusal},
        worker::Decision,
    },
    upstream::circuit::Permit,
};

/// How a connection goes on after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// With the next request.
    Next,
    /// Not at all; `linger` if the client may be sending still.
    Close { linger: bool },
}

/// What became of a head.
pub(super) enum Prepared {
    /// It is to be forwarded.
    Forward(Box<Forward>),
    /// It ends here.
    Refused(Refused),
    /// It is for another codec; nothing was used up.
    Declined,
}

/// What this proxy answers by itself.
enum Own {
    Refusal(Refusal),
    Reply(Reply),
}

/// A request that ends here, and what is known about its connection.
pub(super) struct Refused {
    own: Own,
    /// The method was HEAD.
    bodiless: bool,
    http10: bool,
    /// The client lets the connection live on.
    keep_alive: bool,
    /// The body that is still to come, if it is worth reading it.
    body: Option<u64>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self {
            own: Own::Refusal(refusal),
            bodiless: false,
            http10: false,
            keep_alive: false,
            body: None,
        }
    }
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
    repeatable: bool,
    /// Limit from the sent request to the response head.
    timeout: Duration,
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

/// Largest body of a refused request that is read so that its connection can be kept.
const DRAINED: u64 = 64 * 1024;

/// Why there is no answer to pass on.
pub(super) enum NoAnswer {
    /// The request ends here.
    Refused(Refusal),
    /// The upstream's connection ended before a complete head; `heard` if something came before.
    Reset { heard: bool },
    /// The client is gone.
    Gone,
}

impl Forward {
    /// Whether an answer with this status is one that another try is to replace.
    fn wants_other(&self, status: u16) -> bool {
        self.repeatable
            && self.target.cluster().config().retry.statuses.contains(&status)
            && self.target.may_retry()
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
            .and_then(|()| request::judge(head, shape))
        {
            Ok(judged) => judged,
            Err(refusal) => return Prepared::Refused(refusal.into()),
        };
        let request = Request::new(head, shape, &judged);
        let bodiless = request.method() == b"HEAD";
        let http10 = request.version() == Version::Http10;
        let own = match worker
            .decide(exchange, &request, self.provenance, Codec::Bytes)
            .await
        {
            Ok(Decision::Forward(target)) => Ok(target),
            Ok(Decision::Declined) => return Prepared::Declined,
            Ok(Decision::Reply(reply)) => Err(Own::Reply(reply)),
            Err(refusal) => Err(Own::Refusal(refusal)),
        };
        let target = match own {
            Ok(target) => target,
            Err(own) => {
                let body = match judged.body {
                    RequestBody::None => Some(0),
                    RequestBody::Length(length) if length <= DRAINED && !judged.expects_continue => {
                        Some(length)
                    }
                    RequestBody::Length(_) | RequestBody::Chunked => None,
                };
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
        let site = exchange.site();
        let route = site.plan().route(target.route());
        let mut out = worker.h1().buffers().take();
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
            RequestBody::Chunked => Framing::Chunked(Box::default()),
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
        Prepared::Forward(Box::new(forward))
    }

    /// Sends a request and passes its answer back.
    pub(super) async fn forward(&mut self, mut exchange: Exchange, mut forward: Box<Forward>) -> After {
        // A body that breaks its grammar from the start reaches nobody.
        if let Err(fault) = forward.up.prime(&mut self.client) {
            let refusal = client_fault(&fault).into();
            return self.refuse_forward(exchange, &forward, refusal).await;
        }
        let client = self.provenance.client.ends();
        let (mut fresh, mut retry) = (false, Permit::default());
        let mut attempt = match forward.target.attempt(false, self.turn.get()) {
            Ok(attempt) => attempt,
            Err(refusal) => return self.refuse_forward(exchange, &forward, refusal).await,
        };
        loop {
            let now = self.turn.get();
            let target = &mut forward.target;
            let acquired =
                link::acquire(self.worker, &mut exchange, target, attempt, fresh, client, now).await;
            let mut link = match acquired {
                Ok(link) => link,
                Err(refusal) => return self.refuse_forward(exchange, &forward, refusal).await,
            };
            let begun = link.attempt.is_timed().then(Instant::now);
            let (reason, harmless, again) = match self.answer_to(&mut exchange, &mut forward, &mut link).await
            {
                Ok(answer) => {
                    let now = begun.map_or(now, |_| Instant::now());
                    link.attempt.answered(
                        answer.status,
                        begun.map_or(Duration::ZERO, |begun| now - begun),
                        now,
                    );
                    if !forward.wants_other(answer.status) {
                        return self.deliver(exchange, forward, link, answer).await;
                    }
                    exchange.unanswered();
                    (Reason::UpstreamReset, forward.repeatable, true)
                }
                Err(NoAnswer::Gone) => return After::Close { linger: false },
                Err(NoAnswer::Refused(refusal)) if refusal.reason == Reason::UpstreamTimeout => {
                    link.attempt.failed();
                    (refusal.reason, forward.repeatable, false)
                }
                Err(NoAnswer::Refused(refusal)) => {
                    if refusal.reason == Reason::UpstreamMalformed {
                        link.attempt.failed();
                    }
                    return self.refuse_forward(exchange, &forward, refusal).await;
                }
                Err(NoAnswer::Reset { heard }) => {
                    tracing::debug!(endpoint = %link.attempt.endpoint().address(), link.reused, "no answer");
                    let harmless = !heard && (forward.up.moved() == 0 || forward.repeatable);
                    // A connection that died while it was idle is no fault of the endpoint, and no reason to fail a
                    // request.
                    if link.reused && !fresh && harmless && forward.up.rewind() {
                        (attempt, fresh) = (link.attempt, true);
                        forward.up_broken = false;
                        exchange.site().counters().retried();
                        continue;
                    }
                    link.attempt.failed();
                    (Reason::UpstreamReset, harmless, false)
                }
            };
            drop(link);
            drop(std::mem::take(&mut retry));
            let next = (harmless && forward.up.rewind())
                .then(|| forward.target.retry(again, Instant::now()))
                .flatten();
            let Some(next) = next else {
                return self.refuse_forward(exchange, &forward, reason.into()).await;
            };
            (attempt, retry) = next;
            (fresh, forward.up_broken) = (false, false);
            exchange.site().counters().retried();
        }
    }

    /// Sends the request, and waits for the head of the answer while the body goes out.
    async fn answer_to(
        &mut self,
        exchange: &mut Exchange,
        forward: &mut Forward,
        link: &mut Link<UpstreamIo>,
    ) -> Result<Answer, NoAnswer> {
        let mut waiting = answer::Waiting::default();
        poll_fn(|context| self.poll_answer(context, exchange, forward, link, &mut waiting)).await
    }

    fn poll_answer(
        &mut self,
        context: &mut Context<'_>,
        exchange: &mut Exchange,
        forward: &mut Forward,
        link: &mut Link<UpstreamIo>,
        waiting: &mut answer::Waiting,
    ) -> Poll<Result<Answer, NoAnswer>> {
        let buffers = self.worker.h1().buffers();
        let moved = forward.up.moved();
        if !forward.up.is_done() && !forward.up_broken {
            match forward
                .up
                .poll(context, buffers, &mut self.client, &mut link.side.io)
            {
                Poll::Ready(Err(FlowFault::Sink(error))) => {
                    // It may have answered before it stopped reading.
                    tracing::debug!(%error, endpoint = %link.attempt.endpoint().address(), "request not taken");
                    forward.up_broken = true;
                }
                Poll::Ready(Err(fault)) => {
                    return Poll::Ready(Err(NoAnswer::Refused(client_fault(&fault).into())));
                }
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            if !waiting.sent && forward.up.moved() > 0 {
                waiting.sent = true;
                exchange.sent(Instant::now());
            }
        }
        match self.poll_head_of_answer(context, exchange, forward, link, waiting) {
            Poll::Ready(answer) => return Poll::Ready(answer),
            Poll::Pending => {}
        }
        if forward.is_late(Instant::now()) {
            return Poll::Ready(Err(NoAnswer::Refused(Reason::RequestTimeout.into())));
        }
        let uploading = !forward.up.is_done() && !forward.up_broken;
        let progress = (forward.up.moved(), uploading);
        if waiting.progress != Some(progress) {
            if waiting.progress.is_some() && forward.up.moved() != moved {
                exchange.relayed(self.turn.get(), Instant::now());
            }
            waiting.progress = Some(progress);
            let limit = if uploading && forward.up.waits() == Waits::Source {
                self.worker.limits().stall_timeout
            } else {
                forward.timeout
            };
            self.timer.arm(forward.left(limit));
        } else if self.timer.expired() {
            let reason = if uploading && forward.up.waits() == Waits::Source {
                Reason::BodyTimeout
            } else {
                Reason::UpstreamTimeout
            };
            return Poll::Ready(Err(NoAnswer::Refused(reason.into())));
        }
        Poll::Pending
    }

    /// Refuses a request of which the stages approved.
    async fn refuse_forward(&mut self, mut exchange: Exchange, forward: &Forward, refusal: Refusal) -> After {
        exchange.received(forward.up.data());
        let refused = Refused {
            own: Own::Refusal(refusal),
            bodiless: forward.asked.head,
            http10: forward.http10,
            keep_alive: forward.keep_alive,
            body: forward.up.has_all().then_some(0),
        };
        self.refuse(exchange, refused).await
    }

    /// Answers a request that ends here.
    pub(super) async fn refuse(&mut self, mut exchange: Exchange, refused: Refused) -> After {
        let Refused {
            own,
            bodiless,
            http10,
            keep_alive,
            body,
        } = refused;
        let closes = matches!(&own, Own::Refusal(refusal) if refusal.reason.closes());
        let kept = keep_alive && !closes && body.is_some() && !self.worker.is_stopping();
        let mut out = self.worker.h1().buffers().take();
        let (persistence, timers) = (Persistence::of(kept, http10), self.worker.h1().timers());
        // The account is closed before the client can act on the answer: an offence counts from here.
        match own {
            Own::Refusal(refusal) => {
                writing::refusal(
                    &mut out,
                    &refusal,
                    exchange.id().as_str(),
                    bodiless,
                    persistence,
                    timers,
                );
                exchange.refused(refusal);
            }
            Own::Reply(reply) => {
                let tell = |sink: &mut Vec<u8>| exchange.tell(sink);
                writing::reply(&mut out, &reply, tell, bodiless, persistence, timers);
                exchange.answered(Instant::now(), reply.status);
                if !bodiless {
                    exchange.returned(reply.body.len() as u64);
                }
            }
        }
        exchange.ended(Instant::now(), Duration::ZERO);
        drop(exchange);
        let written = self.write_own(out).await;
        self.turn.set(Instant::now());
        if !written {
            return After::Close { linger: false };
        }
        match body {
            Some(0) if kept => After::Next,
            Some(length) if kept && self.drain(length).await => After::Next,
            _ => After::Close { linger: true },
        }
    }

    /// Writes something of this proxy's own; `false` if the client does not take it.
    pub(super) async fn write_own(&mut self, out: Vec<u8>) -> bool {
        let mut flow = Flow::new(out, Framing::Done, None);
        let mut armed = false;
        let stall = self.worker.limits().stall_timeout;
        let buffers = self.worker.h1().buffers();
        // Nothing is read: a flow that is complete has no source.
        let mut nothing = super::side::Side::new(tokio::io::empty(), Vec::new());
        let written = poll_fn(|context| {
            match flow.poll(context, buffers, &mut nothing, &mut self.client.io) {
                Poll::Ready(result) => return Poll::Ready(result.is_ok()),
                Poll::Pending if !armed => {
                    armed = true;
                    self.timer.arm(stall);
                }
                Poll::Pending if self.timer.expired() => return Poll::Ready(false),
                Poll::Pending => {}
            }
            Poll::Pending
        })
        .await;
        buffers.put(flow.out);
        written
    }

    /// Reads what is left of a refused request's body, so that the connection can go on; `false` if it does not come.
    async fn drain(&mut self, length: u64) -> bool {
        let mut left = usize::try_from(length).unwrap_or(usize::MAX);
        self.timer.arm(self.worker.limits().stall_timeout);
        poll_fn(|context| {
            loop {
                let take = left.min(self.client.unread().len());
                self.client.consume(take);
                left -= take;
                if left == 0 {
                    return Poll::Ready(true);
                }
                match self.client.poll_fill(context, self.worker.h1().buffers(), false) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(false),
                    Poll::Pending if self.timer.expired() => return Poll::Ready(false),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }
}

/// What the client did wrong with its body.
fn client_fault(fault: &FlowFault) -> Reason {
    match fault {
        FlowFault::Chunk(_) => Reason::BadChunk,
        FlowFault::TooLarge => Reason::BodyTooLarge,
        FlowFault::TooSlow => Reason::BodyTimeout,
        FlowFault::Source(_) | FlowFault::CutShort | FlowFault::Sink(_) => Reason::BodyCutShort,
    }
}
