//! One direction of an exchange: what was put together goes out first, then the body passes, watched, in constant
//! memory.
//!
//! Nothing is read before what was read is written: a slow reader holds its source back, not the bytes. A flow yields
//! after [`TURN`] bytes, so one connection cannot keep a worker from the others.

use std::{
    io::{self, IoSlice, Write},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use super::{
    buffers::{Buffers, SMALL},
    pipes::Pipe,
    side::{Side, Transport},
    websocket::Frames,
};
use crate::gateway::{
    gate::chunked::{ChunkFault, Chunked},
    patience::{Patience, TooSlow},
};

/// Most bytes that one flow moves before others get their turn.
pub(super) const TURN: usize = 1024 * 1024;

/// Up to this many bytes of a body are copied behind its head; more are written from where they lie, in the same call.
const COPIED: usize = 4 * 1024;

/// A body of known length of which this much is left goes through a pipe, if both its ends are sockets in the clear.
const LEAST_PIPED: u64 = 256 * 1024;

/// How a body is delimited on its way.
#[derive(Debug)]
pub(super) enum Framing {
    /// Nothing more comes.
    Done,
    /// This many bytes.
    Length(u64),
    /// Chunked, passed on as it is but for extensions.
    Chunked(Box<Chunked>),
    /// Chunked, passed on without its framing: the reader speaks HTTP/1.0.
    Unchunk(Box<Chunked>),
    /// Up to the end of the source, passed on in chunks.
    Chunk,
    /// Up to the end of the source, as it is.
    Raw,
    /// The same, and it is known where frames end.
    Frames(Box<Frames>),
}

/// Whom a flow waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// The one that sends.
    Source,
    /// The one that reads.
    Sink,
}

/// Why a flow ended before its body did.
#[derive(Debug, thiserror::Error)]
pub(super) enum FlowFault {
    /// Reading failed.
    #[error("source: {0}")]
    Source(io::Error),
    /// The source ended within the body.
    #[error("cut short")]
    CutShort,
    /// Writing failed.
    #[error("sink: {0}")]
    Sink(io::Error),
    /// The chunks break their grammar.
    #[error(transparent)]
    Chunk(#[from] ChunkFault),
    /// The body is above its limit.
    #[error("body too large")]
    TooLarge,
    /// The body comes too slowly.
    #[error("body too slow")]
    TooSlow,
    /// The body is taken too slowly.
    #[error("body taken too slowly")]
    NotTaken,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Flow {
    /// Put together by this proxy; goes first.
    pub(super) out: Vec<u8>,
    /// How much of it is written.
    at: usize,
    /// How many of the source's unread bytes were judged and may be written.
    ready: usize,
    pub(super) framing: Framing,
    /// Bytes of the body so far, framing left out.
    pub(super) data: u64,
    pub(super) limit: Option<u64>,
    unflushed: bool,
    /// Everything written so far is still in `out`.
    pub(super) whole: bool,
    pub(super) waits: Waits,
    pub(super) moved: u64,
    patience: Option<Patience>,
    /// What moves a large body; what is in it goes out next.
    pub(super) pipe: Option<Pipe>,
    /// Bodies cannot be moved that way here.
    pub(super) unpiped: bool,
    /// The same towards the sink.
    pub(super) taker: Option<Patience>,
}

impl Flow {
    /// A flow that begins with `out`.
    pub(super) fn new(out: Vec<u8>, framing: Framing, limit: Option<u64>) -> Self {
        Self {
            out,
            at: 0,
            ready: 0,
            framing,
            data: 0,
            limit,
            unflushed: false,
            whole: true,
            waits: Waits::Sink,
            moved: 0,
            patience: None,
            pipe: None,
            unpiped: false,
            taker: None,
        }
    }

    /// Asks the source for a least rate.
    pub(super) fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Asks the sink for a least rate.
    pub(super) fn with_taker(mut self, patience: Patience) -> Self {
        self.taker = Some(patience);
        self
    }

    /// Bytes of the body so far.
    pub(super) fn data(&self) -> u64 {
        self.data
    }

    /// Bytes written so far.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// Whom it waited for when it was last pending.
    pub(super) fn waits(&self) -> Waits {
        self.waits
    }

    /// The buffer it put things together in.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.out
    }

    /// The same of a flow that is done, emptied.
    pub(super) fn take_buffer(&mut self) -> Vec<u8> {
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        self.at = 0;
        out
    }

    /// Ends with this frame as soon as the one under way has ended; only where frames are followed.
    pub(super) fn bid(&mut self, goodbye: &[u8]) {
        if let Framing::Frames(frames) = &mut self.framing {
            frames.bid(goodbye);
        }
    }

    /// Puts a goodbye in the place of what the source would send, if it is wanted and this is the place for it.
    fn say_goodbye(&mut self) {
        if let Framing::Frames(frames) = &mut self.framing
            && let Some(goodbye) = frames.take_goodbye()
        {
            self.out.clear();
            self.at = 0;
            self.out.extend_from_slice(&goodbye);
            self.framing = Framing::Done;
        }
    }

    /// Whether everything has gone out.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.framing, Framing::Done) && self.is_drained() && !self.unflushed
    }

    /// Whether the whole body was taken in.
    pub(super) fn has_all(&self) -> bool {
        matches!(self.framing, Framing::Done)
    }

    /// How many bytes of the whole body still lie unread at the source; `None` if some of it was not taken in.
    pub(super) fn left_at_source(&self) -> Option<u64> {
        self.has_all().then_some(self.ready as u64)
    }

    fn is_drained(&self) -> bool {
        self.at >= self.out.len() && self.ready == 0 && self.pipe.is_none()
    }

    /// Begins again on another connection, if everything that was written is still here.
    #[must_use]
    pub(super) fn rewind(&mut self) -> bool {
        if self.whole {
            self.at = 0;
            self.moved = 0;
        }
        self.whole
    }

    /// Takes in what the source has sent already, so that the head and the beginning of the body go out together.
    pub(super) fn prime<A: Transport>(&mut self, from: &mut Side<A>) -> Result<(), FlowFault> {
        if !self.has_all() && !from.unread().is_empty() {
            self.take_in(from)?;
            self.join(from);
        }
        Ok(())
    }

    /// Copies bytes that may be written behind what was put together, if they are few.
    fn join<A: Transport>(&mut self, from: &mut Side<A>) {
        if self.ready > 0 && self.ready <= COPIED {
            let ready = self.ready;
            self.out
                .extend_from_slice(from.unread().get(..ready).unwrap_or_default());
            from.consume(ready);
            self.ready = 0;
        }
    }

    /// Moves bytes until everything is written, or one side has to be waited for.
    pub(super) fn poll<A: Transport, B: Transport>(
        &mut self,
        context: &mut Context<'_>,
        buffers: &Buffers,
        from: &mut Side<A>,
        to: &mut B,
    ) -> Poll<Result<(), FlowFault>> {
        let turn_ends = self.moved + TURN as u64;
        loop {
            if self.pipe.is_some() {
                ready!(self.poll_pipe(context, buffers, from, to))?;
            }
            while !self.is_drained() {
                self.waits = Waits::Sink;
                let before = self.moved;
                match self.poll_write(context, from, to) {
                    Poll::Ready(Ok(())) => {
                        let bytes = self.moved - before;
                        self.taken(bytes)?;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(FlowFault::Sink(error))),
                    Poll::Pending => {
                        if let Some(taker) = &mut self.taker {
                            taker.wait(Instant::now());
                        }
                        return Poll::Pending;
                    }
                }
            }
            if let Framing::Frames(_) = self.framing {
                self.say_goodbye();
                if !self.is_drained() {
                    continue;
                }
            }
            if self.unflushed {
                match Pin::new(&mut *to).poll_flush(context) {
                    Poll::Ready(Ok(())) => self.unflushed = false,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(FlowFault::Sink(error))),
                    Poll::Pending if self.has_all() => return Poll::Pending,
                    Poll::Pending => {}
                }
            }
            if self.has_all() {
                return Poll::Ready(Ok(()));
            }
            if self.moved >= turn_ends {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            if from.unread().is_empty() {
                if let Framing::Length(LEAST_PIPED..) = self.framing
                    && !self.unpiped
                    && from.io.plain().is_some()
                    && to.plain().is_some()
                {
                    self.pipe = buffers.pipes().take();
                    if self.pipe.is_some() {
                        continue;
                    }
                }
                let large = match self.framing {
                    Framing::Length(left) => left > SMALL as u64,
                    _ => self.moved > 4 * SMALL as u64,
                };
                match from.poll_fill(context, buffers, large) {
                    Poll::Ready(Ok(0)) => {
                        self.end()?;
                        continue;
                    }
                    Poll::Ready(Ok(came)) => {
                        self.came(came)?;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(FlowFault::Source(error))),
                    Poll::Pending => {
                        self.wait_for_source();
                        return Poll::Pending;
                    }
                }
            }
            self.take_in(from)?;
        }
    }

    /// Notes that bytes came from the source.
    pub(super) fn came(&mut self, bytes: usize) -> Result<(), FlowFault> {
        match &mut self.patience {
            Some(patience) => patience
                .came(bytes as u64, Instant::now())
                .map_err(|TooSlow| FlowFault::TooSlow),
            None => Ok(()),
        }
    }

    /// Notes that it is the source that is waited for.
    pub(super) fn wait_for_source(&mut self) {
        if let Some(patience) = &mut self.patience {
            patience.wait(Instant::now());
        }
        self.waits = Waits::Source;
    }

    /// Notes that the sink has taken bytes.
    pub(super) fn taken(&mut self, bytes: u64) -> Result<(), FlowFault> {
        if let Some(taker) = &mut self.taker
            && taker.is_waiting()
            && taker.came(bytes, Instant::now()).is_err()
        {
            return Err(FlowFault::NotTaken);
        }
        Ok(())
    }

    /// Writes once: what was put together, and behind it what lies ready at the source.
    fn poll_write<A: Transport, B: Transport>(
        &mut self,
        context: &mut Context<'_>,
        from: &mut Side<A>,
        to: &mut B,
    ) -> Poll<io::Result<()>> {
        let own = self.out.get(self.at..).unwrap_or_default();
        let ready = from.unread().get(..self.ready).unwrap_or_default();
        let written = if own.is_empty() {
            Pin::new(to).poll_write(context, ready)
        } else if ready.is_empty() {
            Pin::new(to).poll_write(context, own)
        } else {
            Pin::new(to).poll_write_vectored(context, &[IoSlice::new(own), IoSlice::new(ready)])
        };
        let Poll::Ready(written) = written? else {
            return Poll::Pending;
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_own = written.min(own.len());
        self.at += of_own;
        self.ready -= written - of_own;
        self.whole &= written == of_own;
        from.consume(written - of_own);
        self.moved += written as u64;
        self.unflushed = true;
        Poll::Ready(Ok(()))
    }

    /// Judges unread bytes of the source, of which there are some.
    fn take_in<A: Transport>(&mut self, from: &mut Side<A>) -> Result<(), FlowFault> {
        if self.at >= self.out.len() && self.at > 0 {
            self.out.clear();
            self.at = 0;
            self.whole = false;
        }
        let unread = from.unread();
        match &mut self.framing {
            Framing::Done => {}
            Framing::Length(left) => {
                self.ready = usize::try_from(*left).map_or(unread.len(), |left| left.min(unread.len()));
                *left -= self.ready as u64;
                self.data += self.ready as u64;
                if *left == 0 {
                    self.framing = Framing::Done;
                }
            }
            Framing::Frames(frames) => {
                frames.feed(unread);
                self.ready = unread.len();
                self.data += unread.len() as u64;
            }
            Framing::Raw => {
                self.ready = unread.len();
                self.data += unread.len() as u64;
            }
            Framing::Chunk => {
                // Writing to memory does not fail.
                let _ = write!(self.out, "{:x}\r\n", unread.len());
                self.out.extend_from_slice(unread);
                self.out.extend_from_slice(b"\r\n");
                self.data += unread.len() as u64;
                let all = unread.len();
                from.consume(all);
            }
            Framing::Chunked(chunked) => {
                let (mut plain, mut copied) = (0, false);
                let (out, base) = (&mut self.out, unread.as_ptr().addr());
                let used = chunked.feed(unread, |run| {
                    if !copied && run.as_ptr().addr() == base + plain {
                        plain += run.len();
                    } else if !run.is_empty() {
                        if !copied {
                            out.extend_from_slice(unread.get(..plain).unwrap_or_default());
                            copied = true;
                        }
                        out.extend_from_slice(run);
                    }
                })?;
                self.data = chunked.data();
                let done = chunked.is_done();
                if !copied && plain == used {
                    self.ready = used;
                } else {
                    if !copied {
                        out.extend_from_slice(unread.get(..plain).unwrap_or_default());
                    }
                    from.consume(used);
                }
                if done {
                    self.framing = Framing::Done;
                }
            }
            Framing::Unchunk(chunked) => {
                let out = &mut self.out;
                let used = chunked.feed_data(unread, |run| out.extend_from_slice(run))?;
                self.data = chunked.data();
                let done = chunked.is_done();
                from.consume(used);
                if done {
                    self.framing = Framing::Done;
                }
            }
        }
        if self.limit.is_some_and(|limit| self.data > limit) {
            return Err(FlowFault::TooLarge);
        }
        Ok(())
    }

    /// The source has ended.
    fn end(&mut self) -> Result<(), FlowFault> {
        self.say_goodbye();
        match self.framing {
            Framing::Done | Framing::Raw | Framing::Frames(_) => {}
            Framing::Chunk => {
                self.out.clear();
                self.at = 0;
                self.out.extend_from_slice(b"0\r\n\r\n");
            }
            Framing::Length(_) | Framing::Chunked(_) | Framing::Unchunk(_) => {
                return Err(FlowFault::CutShort);
            }
        }
        self.framing = Framing::Done;
        Ok(())
    }
}
