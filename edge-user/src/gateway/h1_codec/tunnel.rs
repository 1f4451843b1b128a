//! A tunnel, by an upgrade or by CONNECT: bytes pass both ways until both sides have finished, nothing moves for too
//! long, or the worker stops.
//!
//! A stop says goodbye to both ends of a WebSocket (close code 1001) between two frames, so that clients come back
//! elsewhere instead of reporting an error. What other bytes mean is not known here: there a stop is the end.

use std::{
    future::poll_fn,
    hash::{BuildHasher, RandomState},
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{
    buffers::Buffers,
    connection::Connection,
    exchange::After,
    flow::{Flow, Framing},
    link::{self, Link, UpstreamIo},
    side::{Side, Transport},
    websocket::{GOING_AWAY, masked_going_away},
    writing,
};
use crate::gateway::{balance::Target, exchange::Exchange, refusal::Reason};

/// One direction of a tunnel: its bytes, then its end.
struct Way {
    flow: Flow,
    finished: bool,
}

impl<S: Transport> Connection<'_, S> {
    /// Answers CONNECT: connects to the target, says so, and passes bytes. What the client sent behind the head lies
    /// unread until then, and is the tunnel's or nobody's.
    pub(super) async fn connect(&mut self, mut exchange: Box<Exchange>, mut target: Box<Target>) -> After {
        let client = self.provenance.client.ends();
        let dialled = link::dial(self.worker, &mut exchange, &mut target, client).await;
        let mut link = match dialled {
            Ok(link) => link,
            Err(refusal) => return self.refuse(exchange, refusal.into()).await,
        };
        exchange.answered(Instant::now(), 200);
        let local = self.worker.h1();
        let mut out = local.buffers().take_head();
        // No field tells a length: there is no body (RFC 9110, 9.3.6).
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        exchange.tell(&mut out);
        writing::date(&mut out, local.timers());
        out.extend_from_slice(b"\r\n");
        let up = Flow::new(local.buffers().take_head(), Framing::Raw, None);
        let down = Flow::new(out, Framing::Raw, None);
        self.tunnel(&mut exchange, &mut link, up, down).await;
        After::Close { linger: false }
    }

    /// Passes bytes both ways; `down` begins with the answer to the handshake.
    pub(super) async fn tunnel(
        &mut self,
        exchange: &mut Exchange,
        link: &mut Link<UpstreamIo>,
        up: Flow,
        down: Flow,
    ) {
        let (mut up, mut down) = (Way::new(up), Way::new(down));
        let says_goodbye = matches!(down.flow.framing, Framing::Frames(_));
        let mut progress = None;
        let ended = poll_fn(|context| {
            let buffers = self.worker.h1().buffers();
            if self.worker.is_stopping() {
                if !says_goodbye {
                    return Poll::Ready(None);
                }
                let seed = RandomState::new().hash_one(self.provenance.client.address);
                let [a, b, c, d, ..] = seed.to_be_bytes();
                up.flow.bid(&masked_going_away([a, b, c, d]));
                down.flow.bid(&GOING_AWAY);
            }
            let way_up = up.poll(context, buffers, &mut self.client, &mut link.side.io);
            let way_down = down.poll(context, buffers, &mut link.side, &mut self.client.io);
            // One direction that broke takes the other with it; one that ended well does not.
            if let (Poll::Ready(true), Poll::Ready(true))
            | (Poll::Ready(false), _)
            | (_, Poll::Ready(false)) = (way_up, way_down)
            {
                return Poll::Ready(None);
            }
            let moved = (up.flow.moved(), down.flow.moved());
            if progress != Some(moved) {
                progress = Some(moved);
                self.timer.arm(self.worker.limits().tunnel_idle_timeout);
            } else if self.timer.expired() {
                return Poll::Ready(Some(Reason::TunnelIdle));
            }
            Poll::Pending
        })
        .await;
        let now = Instant::now();
        exchange.received(up.flow.data());
        exchange.returned(down.flow.data());
        // What a tunnel takes is the two ends' time.
        exchange.ended(now, Duration::MAX);
        if let Some(reason) = ended {
            exchange.broke(reason);
        }
    }
}

impl Way {
    fn new(flow: Flow) -> Self {
        Self {
            flow,
            finished: false,
        }
    }

    /// Moves bytes, and once there are no more tells the reader so. Ready with whether it ended well.
    fn poll<A: Transport, B: Transport>(
        &mut self,
        context: &mut Context<'_>,
        buffers: &Buffers,
        from: &mut Side<A>,
        to: &mut B,
    ) -> Poll<bool> {
        if self.finished {
            return Poll::Ready(true);
        }
        match self.flow.poll(context, buffers, from, to) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Poll::Ready(false),
            Poll::Pending => return Poll::Pending,
        }
        match Pin::new(to).poll_shutdown(context) {
            Poll::Ready(result) => {
                self.finished = true;
                Poll::Ready(result.is_ok())
            }
            Poll::Pending => Poll::Pending,
        }
    }
}
