//! A client's connection: one head after the other, each to its end, until one side has enough.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use super::{
    exchange::{After, Prepared},
    linger::close,
    side::{Side, Transport},
    timers::Timer,
};
use crate::gateway::{
    exchange::Exchange,
    gate::scan::{Scan, too_long},
    provenance::Provenance,
    refusal::{Reason, Refusal},
    worker::Worker,
};

/// How the service of a connection ended.
#[derive(Debug)]
pub(crate) enum Ended<S> {
    /// It is closed.
    Closed,
    /// The next request is not for this codec: the stream, and what was read and not used.
    Declined(S, Vec<u8>),
}

/// A client's connection.
pub(super) struct Connection<'a, S> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) client: Side<S>,
    pub(super) provenance: &'a Provenance,
    pub(super) timer: &'a Timer,
    /// When this turn of the connection's task began, or the last exchange ended within it: time before is not this
    /// request's.
    pub(super) turn: &'a Cell<Instant>,
    scan: Scan,
    /// Nothing was served on it yet.
    fresh: bool,
}

/// What of the HTTP/2 preface looks like a head (RFC 9113, 3.4).
const PREFACE_HEAD: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// What came next on a connection.
enum Next {
    /// A head of this many bytes.
    Head(usize),
    /// Something that is refused; the connection is not to be trusted any more.
    Refused(Refusal),
    /// Nothing.
    End,
}

/// Serves one HTTP/1 connection.
pub(crate) async fn serve<S: Transport>(worker: &Rc<Worker>, io: S, provenance: &Provenance) -> Ended<S> {
    let timer = Timer::new(worker.h1().timers());
    let turn = Cell::new(Instant::now());
    let mut connection = Connection {
        worker,
        client: Side::new(io, Vec::new()),
        provenance,
        timer: &timer,
        turn: &turn,
        scan: Scan::default(),
        fresh: true,
    };
    let after = {
        let mut served = pin!(connection.run());
        let mut registered = false;
        poll_fn(|context| {
            if !registered {
                // The task stays the same for as long as the connection lives.
                timer.register(context);
                registered = true;
            }
            turn.set(Instant::now());
            served.as_mut().poll(context)
        })
        .await
    };
    let client = connection.client;
    match after {
        After::Declined => {
            let (io, unread) = client.into_parts();
            Ended::Declined(io, unread)
        }
        After::Abort => {
            client.io.abort();
            Ended::Closed
        }
        After::Next | After::Close { linger: false } if !client.io.has_goodbye() => Ended::Closed,
        After::Next | After::Close { .. } => {
            let linger = after == After::Close { linger: true };
            Box::pin(close(client.io, linger)).await;
            Ended::Closed
        }
    }
}

impl<S: Transport> Connection<'_, S> {
    /// Serves requests until there is no next one; tells how the connection ends.
    async fn run(&mut self) -> After {
        loop {
            let after = match self.next().await {
                Next::End => After::Close {
                    linger: !self.client.unread().is_empty(),
                },
                // Boxed: a connection waits for its next request most of the time, and should hold no more than that
                // takes.
                next => Box::pin(self.exchange(next)).await,
            };
            if after != After::Next {
                return after;
            }
        }
    }

    /// Serves one request.
    async fn exchange(&mut self, next: Next) -> After {
        // Boxed: it is handed from stage to stage, and is not small.
        let mut exchange = Box::new(Exchange::begin(
            self.worker,
            &self.provenance.client,
            self.turn.get(),
        ));
        let len = match next {
            Next::Head(len) => len,
            Next::Refused(refusal) => return self.refuse(exchange, refusal.into()).await,
            Next::End => return After::Close { linger: false },
        };
        let prepared = if self.is_http2(len) {
            Prepared::Declined
        } else {
            self.prepare(&mut exchange, len).await
        };
        match prepared {
            Prepared::Forward(forward) => self.forward(exchange, forward).await,
            Prepared::Tunnel(target) => Box::pin(self.connect(exchange, target)).await,
            Prepared::Refused(refused) => self.refuse(exchange, refused).await,
            Prepared::Declined => {
                exchange.passed_on();
                After::Declined
            }
        }
    }

    /// Whether a head is the beginning of an HTTP/2 connection, which only the first one can be.
    fn is_http2(&mut self, len: usize) -> bool {
        std::mem::take(&mut self.fresh) && self.client.unread().get(..len) == PREFACE_HEAD.get(..len)
    }

    /// Waits for the next head.
    async fn next(&mut self) -> Next {
        self.scan = Scan::default();
        let (mut armed, mut empty_line) = (Armed::No, false);
        poll_fn(|context| self.poll_next(context, &mut armed, &mut empty_line)).await
    }

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        armed: &mut Armed,
        empty_line: &mut bool,
    ) -> Poll<Next> {
        let limits = self.worker.limits();
        loop {
            // One empty line before a request is tolerated (RFC 9112, 2.2): old clients end their bodies with one.
            if !*empty_line && self.client.unread().starts_with(b"\r\n") {
                *empty_line = true;
                self.scan = Scan::default();
                self.client.consume(2);
            }
            let unread = self.client.unread();
            if !unread.is_empty() {
                match self.scan.end(unread) {
                    Ok(Some(len)) if len > limits.head.head => {
                        return Poll::Ready(Next::Refused(Reason::HeadTooLarge.into()));
                    }
                    Ok(Some(len)) => return Poll::Ready(Next::Head(len)),
                    Ok(None) => {
                        if let Some(refusal) = too_long(unread, &limits.head) {
                            return Poll::Ready(Next::Refused(refusal));
                        }
                    }
                    Err(_) => {
                        let refusal = Refusal::because(Reason::BadSyntax, "line end");
                        return Poll::Ready(Next::Refused(refusal));
                    }
                }
            }
            if self.worker.is_stopping() || self.client.ended {
                return Poll::Ready(Next::End);
            }
            match self.client.poll_fill(context, self.worker.h1().buffers(), false) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::End),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => {
                    let partial = !self.client.unread().is_empty();
                    // The limit for a head runs from its first byte.
                    if partial && *armed != Armed::Head {
                        *armed = Armed::Head;
                        self.timer.arm(limits.head_timeout);
                    } else if !partial && *armed == Armed::No {
                        *armed = Armed::Idle;
                        self.timer.arm(limits.idle_timeout);
                    } else if self.timer.expired() {
                        return Poll::Ready(if partial {
                            Next::Refused(Reason::HeadTimeout.into())
                        } else {
                            Next::End
                        });
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

/// Which deadline is set while a head is waited for.
#[derive(PartialEq, Eq)]
enum Armed {
    No,
    Idle,
    Head,
}
