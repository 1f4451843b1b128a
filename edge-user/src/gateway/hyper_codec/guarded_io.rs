//! A client's socket under HTTP/2, behind the frame guard: hyper reads nothing of a flood.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use crate::gateway::{
    frame_guard::{Flood, FrameGuard},
    limits::Limits,
    refusal::Reason,
    socket::Socket,
};

/// `GOAWAY` with `ENHANCE_YOUR_CALM` (RFC 9113, 6.8); no stream is known to have been served.
const CALM_DOWN: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];

/// What is known about one HTTP/2 connection.
#[derive(Debug, Default)]
pub(super) struct Http2State {
    /// The guard's verdict.
    pub(super) flood: Cell<Option<Flood>>,
    /// Why the connection was given up.
    pub(super) given_up: Cell<Option<Reason>>,
    /// Requests whose answer is not complete.
    pub(super) in_flight: Cell<usize>,
    /// Answers of which a piece was handed over and the next not asked for: the client's window is full.
    pub(super) blocked: Cell<usize>,
    /// Bytes written so far.
    pub(super) written: Cell<u64>,
}

/// The socket.
pub(super) struct GuardedIo {
    stream: Socket,
    first: Vec<u8>,
    taken: usize,
    guard: FrameGuard,
    head_timeout: Duration,
    stall_timeout: Duration,
    head_timer: Option<Pin<Box<Sleep>>>,
    write_timer: Option<Pin<Box<Sleep>>>,
    state: Rc<Http2State>,
}

impl GuardedIo {
    /// The guard in front of a connection that began with `first`.
    pub(super) fn new(stream: Socket, first: Vec<u8>, limits: &Limits, state: Rc<Http2State>) -> Self {
        Self {
            stream,
            first,
            taken: 0,
            guard: FrameGuard::new(Instant::now()),
            head_timeout: limits.head_timeout,
            stall_timeout: limits.stall_timeout,
            head_timer: None,
            write_timer: None,
            state,
        }
    }

    /// Ends the connection, with a last word if it does not fall into another.
    fn flooded(&mut self, flood: Flood, context: &mut Context<'_>) -> io::Error {
        if self.state.flood.replace(Some(flood)).is_none() && self.guard.may_interject() {
            // If it cannot be written at once, closing says enough.
            let _ = Pin::new(&mut self.stream).poll_write(context, CALM_DOWN);
        }
        io::Error::new(io::ErrorKind::InvalidData, flood)
    }

    fn count_sent(&mut self, sent: &[u8], context: &mut Context<'_>) -> io::Result<()> {
        self.state
            .written
            .set(self.state.written.get() + sent.len() as u64);
        let counted = self.guard.sent(sent, Instant::now());
        counted.map_err(|flood| self.flooded(flood, context))
    }

    /// Fails a write that has been waiting for too long.
    fn patient(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.write_timer = None;
            return written;
        }
        let limit = self.stall_timeout;
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(timer.as_mut().poll(context));
        self.state.given_up.set(Some(Reason::ClientStalled));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for GuardedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.state.flood.get().is_some() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let start = buffer.filled().len();
        if this.taken < this.first.len() {
            let take = buffer.remaining().min(this.first.len() - this.taken);
            buffer.put_slice(&this.first[this.taken..this.taken + take]);
            this.taken += take;
            if this.taken == this.first.len() {
                this.first = Vec::new();
                this.taken = 0;
            }
        } else {
            match Pin::new(&mut this.stream).poll_read(context, buffer) {
                Poll::Ready(result) => result?,
                Poll::Pending if this.guard.is_in_head() => {
                    let limit = this.head_timeout;
                    let timer = this.head_timer.get_or_insert_with(|| Box::pin(sleep(limit)));
                    ready!(timer.as_mut().poll(context));
                    this.state.given_up.set(Some(Reason::HeadTimeout));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        if let Err(flood) = this.guard.received(&buffer.filled()[start..], Instant::now()) {
            buffer.set_filled(start);
            return Poll::Ready(Err(this.flooded(flood, context)));
        }
        if this.guard.lacks_settings() {
            buffer.set_filled(start);
            // Whoever begins like this may not speak HTTP/2 at all, and is told nothing in it (RFC 9113, 3.4).
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        if !this.guard.is_in_head() {
            this.head_timer = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for GuardedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(written)) = written {
            self.count_sent(&bytes[..written], context)?;
        }
        self.patient(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        if let Poll::Ready(Ok(mut left)) = written {
            for slice in slices {
                let part = &slice[..left.min(slice.len())];
                left -= part.len();
                self.count_sent(part, context)?;
            }
        }
        self.patient(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
