//! Sends a request to one endpoint after the other, as far as it may, and waits for the head of an answer.
//!
//! Invariant: a request goes to an upstream once, unless nothing of it was answered and sending it twice does no harm.

use std::{
    future::poll_fn,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{
    answer::{self, Answer},
    connection::Connection,
    exchange::{After, Forward},
    flow::{FlowFault, Waits},
    link::{self, Link, UpstreamIo},
    side::Transport,
};
use crate::{
    gateway::{
        exchange::Exchange,
        refusal::{Reason, Refusal},
    },
    upstream::circuit::Permit,
};

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
    /// Sends a request and passes its answer back.
    pub(super) async fn forward(&mut self, mut exchange: Box<Exchange>, mut forward: Box<Forward>) -> After {
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
        if forward.deadline.is_some() && forward.is_late(Instant::now()) {
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
}

/// What the client did wrong with its body.
fn client_fault(fault: &FlowFault) -> Reason {
    match fault {
        FlowFault::Chunk(_) => Reason::BadChunk,
        FlowFault::TooLarge => Reason::BodyTooLarge,
        FlowFault::TooSlow => Reason::BodyTimeout,
        FlowFault::Source(_) | FlowFault::CutShort | FlowFault::Sink(_) | FlowFault::NotTaken => {
            Reason::BodyCutShort
        }
    }
}
