//! What this proxy answers by itself: refusals and fixed responses.

use std::{
    future::poll_fn,
    task::Poll,
    time::{Duration, Instant},
};

use super::{
    connection::Connection,
    exchange::{After, Forward},
    flow::{Flow, Framing},
    side::{Side, Transport},
    writing::{self, Persistence},
};
use crate::gateway::{answer::Reply, exchange::Exchange, gate::RequestBody, refusal::Refusal};

/// What this proxy answers by itself.
pub(super) enum Own {
    Refusal(Refusal),
    Reply(Reply),
}

/// A request that ends here, and what is known about its connection.
pub(super) struct Refused {
    pub(super) own: Own,
    /// The method was HEAD.
    pub(super) bodiless: bool,
    pub(super) http10: bool,
    /// The client lets the connection live on.
    pub(super) keep_alive: bool,
    /// The body that is still to come, if it is worth reading it.
    pub(super) body: Option<u64>,
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

/// Largest body of a refused request that is read so that its connection can be kept.
const DRAINED: u64 = 64 * 1024;

/// How much of a refused request's body is worth reading: none if it is large, of unknown length, or not sent yet.
pub(super) fn drained(body: RequestBody, expects: bool) -> Option<u64> {
    match body {
        RequestBody::None => Some(0),
        RequestBody::Length(length) if length <= DRAINED && !expects => Some(length),
        RequestBody::Length(_) | RequestBody::Chunked => None,
    }
}

impl<S: Transport> Connection<'_, S> {
    /// Refuses a request of which the stages approved.
    pub(super) async fn refuse_forward(
        &mut self,
        mut exchange: Box<Exchange>,
        forward: &Forward,
        refusal: Refusal,
    ) -> After {
        exchange.received(forward.up.data());
        let refused = Refused {
            own: Own::Refusal(refusal),
            bodiless: forward.asked.head,
            http10: forward.http10,
            keep_alive: forward.keep_alive,
            // What was judged and not written is still the body's: left unread it would be taken for a request.
            body: forward.up.left_at_source(),
        };
        self.refuse(exchange, refused).await
    }

    /// Answers a request that ends here.
    pub(super) async fn refuse(&mut self, mut exchange: Box<Exchange>, refused: Refused) -> After {
        let Refused {
            own,
            bodiless,
            http10,
            keep_alive,
            body,
        } = refused;
        let closes = matches!(&own, Own::Refusal(refusal) if refusal.reason.closes());
        let kept = keep_alive && !closes && body.is_some() && !self.worker.is_leaving();
        let mut out = self.worker.h1().buffers().take_head();
        let (persistence, timers) = (Persistence::of(kept, http10), self.worker.h1().timers());
        // The account is closed before the client can act on the answer: an offence counts from here.
        match own {
            Own::Refusal(refusal) => {
                writing::refusal(
                    &mut out,
                    &refusal,
                    (exchange.id().as_str(), exchange.form()),
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
        let mut nothing = Side::new(tokio::io::empty(), Vec::new());
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
