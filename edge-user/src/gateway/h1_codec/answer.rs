//! The upstream's answer: interim responses passed on, the final one judged, composed and delivered.

use std::{
    future::poll_fn,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{
    DIALECT,
    connection::Connection,
    exchange::{After, Forward},
    flow::{Flow, FlowFault, Framing, Waits},
    forward::NoAnswer,
    link::{Link, UpstreamIo},
    side::Transport,
    writing::{self, Persistence, ResponseSink},
};
use crate::gateway::{
    exchange::Exchange,
    gate::{
        ResponseBody, parse,
        response::{self, MAX_INTERIM},
        scan::Scan,
    },
    header_policy::{self, Dialect},
    patience::Patience,
    refusal::{Reason, Refusal},
};

/// What is kept while an answer is waited for.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// The request's head went out.
    pub(super) sent: bool,
    /// What moved when the deadline was set.
    pub(super) progress: Option<(u64, bool)>,
    scan: Scan,
    interim: u32,
    /// Interim responses on their way to the client.
    back: Option<Flow>,
}

/// A final answer, ready to be delivered.
#[derive(Debug)]
pub(super) struct Answer {
    down: Flow,
    keeps: Keeps,
    upgraded: bool,
    pub(super) status: u16,
}

/// Which connections may live on after an answer.
#[derive(Debug, Clone, Copy)]
struct Keeps {
    client: bool,
    upstream: bool,
}

impl<S: Transport> Connection<'_, S> {
    /// Reads the upstream's heads up to the final one.
    pub(super) fn poll_head_of_answer(
        &mut self,
        context: &mut Context<'_>,
        exchange: &mut Exchange,
        forward: &mut Forward,
        link: &mut Link<UpstreamIo>,
        waiting: &mut Waiting,
    ) -> Poll<Result<Answer, NoAnswer>> {
        let buffers = self.worker.h1().buffers();
        loop {
            if let Some(back) = &mut waiting.back {
                match back.poll(context, buffers, &mut link.side, &mut self.client.io) {
                    Poll::Ready(Ok(())) => waiting.back = None,
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(NoAnswer::Gone)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            let unread = link.side.unread();
            if !unread.is_empty() {
                let limit = self.worker.limits().response_head;
                let len = match waiting.scan.end(unread) {
                    Ok(Some(len)) if len <= limit => Some(len),
                    Ok(None) if unread.len() <= limit => None,
                    Ok(_) => return refused(Refusal::because(Reason::UpstreamMalformed, "head too large")),
                    Err(_) => return refused(Refusal::because(Reason::UpstreamMalformed, "line end")),
                };
                if let Some(len) = len {
                    waiting.scan = Scan::default();
                    match self.take_head(exchange, forward, link, len) {
                        Ok(Head::Final(answer)) => return Poll::Ready(Ok(answer)),
                        Ok(Head::Interim(out)) => {
                            waiting.interim += 1;
                            if waiting.interim > MAX_INTERIM {
                                return refused(Refusal::because(
                                    Reason::UpstreamMalformed,
                                    "too many interim responses",
                                ));
                            }
                            waiting.back = out.map(|out| Flow::new(out, Framing::Done, None));
                            continue;
                        }
                        Err(refusal) => return refused(refusal),
                    }
                }
            }
            match link.side.poll_fill(context, buffers, false) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => {
                    let heard = waiting.interim > 0 || !link.side.unread().is_empty();
                    return Poll::Ready(Err(NoAnswer::Reset { heard }));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Judges the response head of `len` bytes at the start of what is unread, and composes the one for the client.
    fn take_head(
        &self,
        exchange: &mut Exchange,
        forward: &Forward,
        link: &mut Link<UpstreamIo>,
        len: usize,
    ) -> Result<Head, Refusal> {
        let local = self.worker.h1();
        let shape = &mut *local.response.borrow_mut();
        let head = link.side.unread().get(..len).unwrap_or_default();
        parse::response(head, shape)?;
        let judged = response::judge(head, shape, forward.asked)?;
        let upgraded = shape.status == 101;
        if upgraded && !response::upgrades_to_websocket(head, shape) {
            return Err(Refusal::because(
                Reason::UpstreamMalformed,
                "101 to something else",
            ));
        }
        if shape.status < 200 && !upgraded {
            // HTTP/1.0 has none (RFC 9110, 15.2); nobody waits for a 100 that was not asked for.
            let wanted = !forward.http10 && (shape.status != 100 || forward.expects);
            let out = wanted.then(|| {
                let mut out = local.buffers().take_head();
                writing::status_line(&mut out, head, shape);
                header_policy::response(&mut out, head, shape, &judged, None, DIALECT);
                out.extend_from_slice(b"\r\n");
                out
            });
            link.side.consume(len);
            return Ok(Head::Interim(out));
        }
        exchange.answered(self.turn.get(), shape.status);
        let (framing, rechunked, delimited) = match (judged.body, forward.http10) {
            _ if upgraded => (Framing::Frames(Box::default()), false, true),
            (ResponseBody::None | ResponseBody::Length(0), _) => (Framing::Done, false, true),
            (ResponseBody::Length(length), _) => (Framing::Length(length), false, true),
            (ResponseBody::Chunked, false) => (Framing::Chunked(Box::default()), false, true),
            (ResponseBody::Chunked, true) => (Framing::Unchunk(Box::default()), false, false),
            (ResponseBody::UntilClose, false) => (Framing::Chunk, true, true),
            (ResponseBody::UntilClose, true) => (Framing::Raw, false, false),
        };
        // A client that is still sending is told that nothing after its body will be looked at (RFC 9112, 9.6): whether
        // the upstream takes the rest is not known yet.
        let cut = !forward.up.is_done();
        let keeps = Keeps {
            client: forward.keep_alive && delimited && !cut && !self.worker.is_leaving(),
            upstream: judged.keep_alive,
        };
        let mut out = local.buffers().take_head();
        writing::status_line(&mut out, head, shape);
        let mut sink = ResponseSink {
            out: &mut out,
            dated: false,
        };
        let dialect = Dialect {
            framing: !forward.http10,
            ..DIALECT
        };
        let changes = forward.target.permit().changes();
        header_policy::response(&mut sink, head, shape, &judged, changes, dialect);
        exchange.tell(&mut sink);
        if !sink.dated {
            writing::date(&mut out, local.timers());
        }
        if rechunked {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        if upgraded {
            out.extend_from_slice(b"upgrade: websocket\r\nconnection: upgrade\r\n");
        } else {
            Persistence::of(keeps.client, forward.http10).put(&mut out);
        }
        out.extend_from_slice(b"\r\n");
        link.side.consume(len);
        let mut down = Flow::new(out, framing, None);
        if !upgraded {
            let limits = self.worker.limits();
            down = down.with_taker(Patience::new(limits.stall_timeout, limits.min_read_rate));
        }
        if !upgraded && down.prime(&mut link.side).is_err() {
            exchange.unanswered();
            return Err(Refusal::because(Reason::UpstreamMalformed, "chunks"));
        }
        Ok(Head::Final(Answer {
            down,
            keeps,
            upgraded,
            status: shape.status,
        }))
    }

    /// Passes an answer on to its end, and what is left of the request with it.
    pub(super) async fn deliver(
        &mut self,
        mut exchange: Box<Exchange>,
        mut forward: Box<Forward>,
        mut link: Link<UpstreamIo>,
        mut answer: Answer,
    ) -> After {
        if answer.upgraded {
            let up = Flow::new(forward.up.take_buffer(), Framing::Frames(Box::default()), None);
            Box::pin(self.tunnel(&mut exchange, &mut link, up, answer.down)).await;
            return After::Close { linger: false };
        }
        let mut turns = Turns::default();
        let delivered = poll_fn(|context| {
            self.poll_deliver(context, &mut forward, &mut link, &mut answer.down, &mut turns)
        })
        .await;
        let now = Instant::now();
        let began = turns.first.unwrap_or(self.turn.get());
        let busy = turns.busy + (now - self.turn.get());
        exchange.received(forward.up.data());
        exchange.returned(answer.down.data());
        exchange.ended(now, (now - began).saturating_sub(busy));
        self.turn.set(now);
        match delivered {
            Delivered::Whole => {}
            Delivered::Gone => return After::Close { linger: false },
            Delivered::Broken(reason) => {
                if reason.is_of_upstream() {
                    link.attempt.failed();
                }
                exchange.broke(reason);
                // What ends with the connection must not look whole: nothing else tells an HTTP/1.0 client.
                return if forward.http10 {
                    After::Abort
                } else {
                    After::Close { linger: false }
                };
            }
        }
        drop(exchange);
        let buffers = self.worker.h1().buffers();
        let sent = forward.up.is_done();
        buffers.put(forward.up.into_buffer());
        buffers.put(answer.down.into_buffer());
        if answer.keeps.upstream && sent && link.side.unread().is_empty() && !link.side.ended {
            link.side.release(buffers);
            link.put_back(now);
        }
        if answer.keeps.client && sent {
            After::Next
        } else {
            After::Close {
                linger: !sent || !self.client.unread().is_empty(),
            }
        }
    }

    fn poll_deliver(
        &mut self,
        context: &mut Context<'_>,
        forward: &mut Forward,
        link: &mut Link<UpstreamIo>,
        down: &mut Flow,
        turns: &mut Turns,
    ) -> Poll<Delivered> {
        let buffers = self.worker.h1().buffers();
        if !forward.up.is_done()
            && !forward.up_broken
            && let Poll::Ready(Err(fault)) =
                forward
                    .up
                    .poll(context, buffers, &mut self.client, &mut link.side.io)
        {
            forward.up_broken = true;
            match fault {
                FlowFault::Chunk(_) => return Poll::Ready(Delivered::Broken(Reason::BadChunk)),
                FlowFault::TooLarge => return Poll::Ready(Delivered::Broken(Reason::BodyTooLarge)),
                FlowFault::TooSlow => return Poll::Ready(Delivered::Broken(Reason::BodyTimeout)),
                FlowFault::Source(_) | FlowFault::CutShort | FlowFault::Sink(_) | FlowFault::NotTaken => {}
            }
        }
        match down.poll(context, buffers, &mut link.side, &mut self.client.io) {
            Poll::Ready(Ok(())) => return Poll::Ready(Delivered::Whole),
            Poll::Ready(Err(FlowFault::Sink(_))) => return Poll::Ready(Delivered::Gone),
            Poll::Ready(Err(FlowFault::Chunk(_) | FlowFault::TooLarge | FlowFault::TooSlow)) => {
                return Poll::Ready(Delivered::Broken(Reason::UpstreamMalformed));
            }
            Poll::Ready(Err(FlowFault::NotTaken)) => {
                return Poll::Ready(Delivered::Broken(Reason::ClientStalled));
            }
            Poll::Ready(Err(FlowFault::Source(_) | FlowFault::CutShort)) => {
                return Poll::Ready(Delivered::Broken(Reason::UpstreamCutShort));
            }
            Poll::Pending => {}
        }
        let now = Instant::now();
        turns.pause(self.turn.get(), now);
        if forward.is_late(now) {
            return Poll::Ready(Delivered::Broken(Reason::RequestTimeout));
        }
        let progress = (down.moved(), forward.up.moved());
        if turns.progress != Some(progress) {
            turns.progress = Some(progress);
            let limit = match down.waits() {
                Waits::Source => forward.idle,
                Waits::Sink => self.worker.limits().stall_timeout,
            };
            self.timer.arm(forward.left(limit));
        } else if self.timer.expired() {
            let reason = match down.waits() {
                Waits::Source => Reason::UpstreamStalled,
                Waits::Sink => Reason::ClientStalled,
            };
            return Poll::Ready(Delivered::Broken(reason));
        }
        Poll::Pending
    }
}

/// A head of an upstream.
#[expect(
    clippy::large_enum_variant,
    reason = "made and taken apart in one go, and a box would be an allocation a request"
)]
enum Head {
    /// An interim one: what is written to the client, if anything.
    Interim(Option<Vec<u8>>),
    /// The final one.
    Final(Answer),
}

/// How a delivery ended.
enum Delivered {
    /// All of it went out.
    Whole,
    /// The client went away.
    Gone,
    /// It broke off.
    Broken(Reason),
}

/// The turns that a delivery took.
#[derive(Debug, Default)]
struct Turns {
    first: Option<Instant>,
    busy: Duration,
    progress: Option<(u64, u64)>,
}

impl Turns {
    /// A turn ends without the end of the delivery.
    fn pause(&mut self, began: Instant, now: Instant) {
        self.first.get_or_insert(began);
        self.busy += now - began;
    }
}

fn refused(refusal: Refusal) -> Poll<Result<Answer, NoAnswer>> {
    Poll::Ready(Err(NoAnswer::Refused(refusal)))
}
