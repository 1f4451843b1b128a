//! One request without a body to an upstream that speaks HTTP/1, for a client that is served by another codec.
//!
//! What an HTTP/2 stream asks for goes out and comes back as what a client of this codec asks for: the head is put
//! together in one buffer, the answer's head is taken apart where it was read, no map of headers and no task of its own
//! lies in between.
//!
//! Invariant: a request goes to an upstream once, unless nothing of it was answered and sending it twice does no harm.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::io::AsyncWrite;

use super::{
    answer_body::{AnswerBody, Length},
    buffers::Buffers,
    link::{self, Link, UpstreamIo},
    timers::Timer,
};
use crate::{
    gateway::{
        balance::Target,
        exchange::Exchange,
        gate::{
            JudgedResponse, ResponseBody, ResponseShape, parse,
            response::{self, MAX_INTERIM},
            scan::Scan,
        },
        refusal::{Reason, Refusal},
        worker::Worker,
    },
    upstream::{circuit::Permit, proxy_header::Client},
};

/// A request, ready to be sent.
#[derive(Debug)]
pub(crate) struct Question {
    /// Its whole head.
    pub(crate) head: Vec<u8>,
    pub(crate) asked: response::Asked,
    /// Sending it twice does no harm.
    pub(crate) repeatable: bool,
    /// Limit from the sent request to the response head.
    pub(crate) timeout: Duration,
    /// Limit for a response body of which nothing arrives.
    pub(crate) idle: Duration,
    /// When all of it has to be over.
    pub(crate) deadline: Option<Instant>,
    /// For whom it is asked.
    pub(crate) client: Client,
}

/// Sends a request to one endpoint after the other, as far as it may; answers with what `compose` makes of the final
/// head, and with the body that follows it.
pub(crate) async fn ask<T>(
    exchange: &mut Exchange,
    target: &mut Target,
    question: &Question,
    compose: impl FnOnce(&Exchange, &Target, &[u8], &ResponseShape, &JudgedResponse) -> T,
) -> Result<(T, AnswerBody), Refusal> {
    let worker = Rc::clone(exchange.worker());
    let timer = Timer::new(worker.h1().timers());
    let (mut link, judged, len) = try_endpoints(&worker, exchange, target, question, &timer).await?;
    // Nobody else has had a turn since it was filled.
    let shape = worker.h1().response.borrow();
    let head = link.side.unread().get(..len).unwrap_or_default();
    let composed = compose(exchange, target, head, &shape, &judged);
    link.side.consume(len);
    let length = match judged.body {
        ResponseBody::None => Length::Known(0),
        ResponseBody::Length(length) => Length::Known(length),
        ResponseBody::Chunked => Length::Chunked(Box::default()),
        ResponseBody::UntilClose => Length::UntilClose,
    };
    drop(shape);
    let mut body = AnswerBody::new(
        worker,
        link,
        length,
        timer,
        question.idle,
        question.deadline,
        judged.keep_alive,
    );
    body.settle();
    Ok((composed, body))
}

type Found = (Link<UpstreamIo>, JudgedResponse, usize);

async fn try_endpoints(
    worker: &Worker,
    exchange: &mut Exchange,
    target: &mut Target,
    question: &Question,
    timer: &Timer,
) -> Result<Found, Refusal> {
    let mut now = Instant::now();
    let mut attempt = target.attempt(false, now)?;
    let (mut fresh, mut retry) = (false, Permit::default());
    loop {
        let mut link = link::acquire(worker, exchange, target, attempt, fresh, question.client, now).await?;
        let begun = link.attempt.is_timed().then(Instant::now);
        let mut asking = Asking {
            worker,
            question,
            timer,
            sent: 0,
            armed: None,
            scan: Scan::default(),
            interim: 0,
        };
        let answer = poll_fn(|context| asking.poll(context, exchange, &mut link)).await;
        let sent = asking.sent;
        now = Instant::now();
        let (reason, harmless, again) = match answer {
            Ok((judged, len)) => {
                let status = worker.h1().response.borrow().status;
                link.attempt
                    .answered(status, begun.map_or(Duration::ZERO, |begun| now - begun), now);
                let again = question.repeatable
                    && target.cluster().config().retry.statuses.contains(&status)
                    && target.may_retry();
                if !again {
                    exchange.answered(now, status);
                    return Ok((link, judged, len));
                }
                (Reason::UpstreamReset, true, true)
            }
            Err(Fault::Refused(refusal)) => {
                if refusal.reason.is_of_upstream() {
                    link.attempt.failed();
                }
                if refusal.reason != Reason::UpstreamTimeout {
                    return Err(refusal);
                }
                (refusal.reason, question.repeatable, false)
            }
            Err(Fault::Reset { heard }) => {
                tracing::debug!(endpoint = %link.attempt.endpoint().address(), link.reused, "no answer");
                let harmless = !heard && (sent == 0 || question.repeatable);
                // A connection that died while it was idle is no fault of the endpoint, and no reason to fail a request.
                if link.reused && !fresh && harmless {
                    (attempt, fresh) = (link.attempt, true);
                    exchange.site().counters().retried();
                    continue;
                }
                link.attempt.failed();
                (Reason::UpstreamReset, harmless, false)
            }
        };
        drop(link);
        drop(std::mem::take(&mut retry));
        let next = harmless.then(|| target.retry(again, now)).flatten();
        (attempt, retry) = next.ok_or(reason)?;
        fresh = false;
        exchange.site().counters().retried();
    }
}

/// Why one try brought no answer.
enum Fault {
    /// The request ends here.
    Refused(Refusal),
    /// The connection ended before a complete head; `heard` if something came before.
    Reset { heard: bool },
}

impl Fault {
    fn malformed(detail: &'static str) -> Self {
        Self::Refused(Refusal::because(Reason::UpstreamMalformed, detail))
    }
}

/// One try.
struct Asking<'a> {
    worker: &'a Worker,
    question: &'a Question,
    timer: &'a Timer,
    /// Bytes of the request that went out.
    sent: usize,
    /// Bytes that had gone out when the deadline was set.
    armed: Option<usize>,
    scan: Scan,
    interim: u32,
}

impl Asking<'_> {
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        exchange: &mut Exchange,
        link: &mut Link<UpstreamIo>,
    ) -> Poll<Result<(JudgedResponse, usize), Fault>> {
        let buffers = self.worker.h1().buffers();
        let before = self.sent;
        // An upstream that takes no more may have answered before.
        let _ = self.poll_send(context, link);
        if before == 0 && self.sent > 0 {
            exchange.sent(Instant::now());
        }
        if let Poll::Ready(answer) = self.poll_head(context, buffers, link) {
            return Poll::Ready(answer);
        }
        self.timer.register(context);
        if self.armed != Some(self.sent) {
            self.armed = Some(self.sent);
            let limit = self.question.timeout;
            self.timer.arm(match self.question.deadline {
                Some(deadline) => limit.min(deadline.saturating_duration_since(Instant::now())),
                None => limit,
            });
        } else if self.timer.expired() {
            let late = self
                .question
                .deadline
                .is_some_and(|deadline| deadline <= Instant::now());
            let reason = if late {
                Reason::RequestTimeout
            } else {
                Reason::UpstreamTimeout
            };
            return Poll::Ready(Err(Fault::Refused(reason.into())));
        }
        Poll::Pending
    }

    fn poll_send(&mut self, context: &mut Context<'_>, link: &mut Link<UpstreamIo>) -> Poll<io::Result<()>> {
        let head = &self.question.head;
        if self.sent == head.len() && self.armed.is_some() {
            return Poll::Ready(Ok(()));
        }
        let io = &mut link.side.io;
        while let Some(left) = head.get(self.sent..).filter(|left| !left.is_empty()) {
            let written = ready!(Pin::new(&mut *io).poll_write(context, left))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written;
        }
        Pin::new(io).poll_flush(context)
    }

    /// Reads heads up to the final one, and judges it. Interim ones end here.
    fn poll_head(
        &mut self,
        context: &mut Context<'_>,
        buffers: &Buffers,
        link: &mut Link<UpstreamIo>,
    ) -> Poll<Result<(JudgedResponse, usize), Fault>> {
        let limit = self.worker.limits().response_head;
        loop {
            let unread = link.side.unread();
            if !unread.is_empty() {
                let len = match self.scan.end(unread) {
                    Ok(Some(len)) if len <= limit => Some(len),
                    Ok(None) if unread.len() <= limit => None,
                    Ok(_) => return Poll::Ready(Err(Fault::malformed("head too large"))),
                    Err(_) => return Poll::Ready(Err(Fault::malformed("line end"))),
                };
                if let Some(len) = len {
                    self.scan = Scan::default();
                    let shape = &mut *self.worker.h1().response.borrow_mut();
                    let head = unread.get(..len).unwrap_or_default();
                    let judged = parse::response(head, shape)
                        .and_then(|()| response::judge(head, shape, self.question.asked));
                    match judged {
                        Ok(judged) if shape.status >= 200 => return Poll::Ready(Ok((judged, len))),
                        Ok(_) => {}
                        Err(refusal) => return Poll::Ready(Err(Fault::Refused(refusal))),
                    }
                    link.side.consume(len);
                    self.interim += 1;
                    if self.interim > MAX_INTERIM {
                        return Poll::Ready(Err(Fault::malformed("too many interim responses")));
                    }
                    continue;
                }
            }
            match link.side.poll_fill(context, buffers, false) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => {
                    let heard = self.interim > 0 || !link.side.unread().is_empty();
                    return Poll::Ready(Err(Fault::Reset { heard }));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
