//! An upstream's socket under HTTP/1, behind the strict gate: hyper, which tolerates bare line feeds and more, reads the
//! head of a response only after it was judged by the rules that hold for every codec.
//!
//! A head is expected once a request was sent, which the sender says by [`Expects`]. Behind it the body is followed to
//! its end: hyper tolerates blanks in chunk sizes and more.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    gateway::{
        gate::{
            ResponseBody, ResponseShape,
            chunked::Chunked,
            parse,
            response::{self, Asked, MAX_INTERIM},
            scan::Scan,
        },
        refusal::Refusal,
    },
    upstream::{quiet, stream::Stream},
};

/// Says that a request goes out. Sender and socket are on one thread; hyper wants them to be able to part.
#[derive(Debug, Clone, Default)]
pub(super) struct Expects(Arc<Said>);

#[derive(Debug, Default)]
struct Said {
    /// A head is to be read.
    head: AtomicBool,
    /// Nothing of the request was written yet.
    begins: AtomicBool,
    /// The kernel is to be asked before that.
    asks: AtomicBool,
    /// The request was not written, as something unasked lay there.
    unasked: AtomicBool,
    /// The request is HEAD, or a WebSocket's handshake.
    is_head: AtomicBool,
    is_websocket: AtomicBool,
}

impl Expects {
    /// The next bytes are the head of the answer to such a request; what came before them is none, for which the kernel is
    /// asked if the runtime may not know.
    pub(super) fn head<B>(&self, request: &http::Request<B>, is_known: bool) {
        let is_websocket = request.headers().contains_key(http::header::UPGRADE);
        self.0
            .is_head
            .store(request.method() == http::Method::HEAD, Ordering::Relaxed);
        self.0.is_websocket.store(is_websocket, Ordering::Relaxed);
        self.0.asks.store(!is_known, Ordering::Relaxed);
        self.0.begins.store(true, Ordering::Relaxed);
        self.0.head.store(true, Ordering::Relaxed);
    }

    /// Whether the request was not sent since something nobody had asked for was there already.
    pub(super) fn was_unasked(&self) -> bool {
        self.0.unasked.load(Ordering::Relaxed)
    }

    fn asked(&self) -> Asked {
        Asked {
            head: self.0.is_head.load(Ordering::Relaxed),
            websocket: self.0.is_websocket.load(Ordering::Relaxed),
        }
    }

    /// What to say of bytes that nobody asked for.
    fn unasked(&self) -> io::Error {
        self.0.unasked.store(true, Ordering::Relaxed);
        io::Error::new(io::ErrorKind::ConnectionAborted, "unasked bytes")
    }
}

/// Where in an answer the socket is.
#[derive(Debug)]
enum Phase {
    /// In none. What comes here is unasked, and hyper closes the connection.
    Idle,
    /// Within a head.
    Head,
    /// This many bytes of a body are to come.
    Length(u64),
    /// Within a chunked body.
    Chunked(Box<Chunked>),
    /// In what ends with the connection.
    Raw,
}

impl Phase {
    /// How many of the next bytes belong to it; moves on if it ends among them.
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (used, ends) = match self {
            Self::Idle | Self::Head | Self::Raw => (bytes.len(), false),
            Self::Length(left) => {
                let used = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= used as u64;
                (used, *left == 0)
            }
            Self::Chunked(chunked) => {
                let used = chunked
                    .feed(bytes, |_| {})
                    .map_err(|fault| malformed(fault.text()))?;
                (used, chunked.is_done())
            }
        };
        if ends {
            *self = Self::Idle;
        }
        Ok(used)
    }
}

/// The socket.
#[derive(Debug)]
pub(super) struct ResponseGate {
    stream: Stream,
    expects: Expects,
    most: usize,
    /// Read, and not handed on.
    raw: Vec<u8>,
    /// How many bytes of `raw` are a judged head.
    passed: usize,
    phase: Phase,
    scan: Scan,
    shape: ResponseShape,
    /// Heads of interim responses to this request.
    interim: u32,
}

impl ResponseGate {
    /// The gate in front of `stream`, for heads of at most `most` bytes.
    pub(super) fn new(stream: Stream, expects: Expects, most: usize) -> Self {
        Self {
            stream,
            expects,
            most,
            raw: Vec::new(),
            passed: 0,
            phase: Phase::Idle,
            scan: Scan::default(),
            shape: ResponseShape::default(),
            interim: 0,
        }
    }

    /// Fails the write that begins a request on a connection on which an answer lies already.
    fn ask(&self) -> io::Result<()> {
        let said = &self.expects.0;
        let is_silent = || !said.asks.load(Ordering::Relaxed) || quiet::is_silent(self.stream.socket());
        if !said.begins.swap(false, Ordering::Relaxed) || self.raw.is_empty() && is_silent() {
            return Ok(());
        }
        Err(self.expects.unasked())
    }

    /// Judges the head at the start of what was read, if all of it is there.
    fn judge(&mut self) -> io::Result<()> {
        let refused = |refusal: Refusal| malformed(&refusal.detail);
        match self.scan.end(&self.raw) {
            Ok(Some(len)) if len > self.most => Err(malformed("head too large")),
            Ok(Some(len)) => {
                let head = &self.raw[..len];
                parse::response(head, &mut self.shape).map_err(refused)?;
                let judged = response::judge(head, &self.shape, self.expects.asked()).map_err(refused)?;
                self.passed = len;
                self.scan = Scan::default();
                self.phase = match (self.shape.status, judged.body) {
                    (101, _) | (_, ResponseBody::UntilClose) => Phase::Raw,
                    (100..=199, _) if self.interim < MAX_INTERIM => {
                        self.interim += 1;
                        Phase::Head
                    }
                    (100..=199, _) => return Err(malformed("too many interim responses")),
                    (_, ResponseBody::None | ResponseBody::Length(0)) => Phase::Idle,
                    (_, ResponseBody::Length(length)) => Phase::Length(length),
                    (_, ResponseBody::Chunked) => Phase::Chunked(Box::default()),
                };
                Ok(())
            }
            Ok(None) if self.raw.len() > self.most => Err(malformed("head too large")),
            Ok(None) => Ok(()),
            Err(_) => Err(malformed("line end")),
        }
    }

    /// Hands on what of the bytes behind `start` belongs to the answer, and keeps the rest.
    fn measure(&mut self, buffer: &mut ReadBuf<'_>, start: usize) -> io::Result<()> {
        let came = &buffer.filled()[start..];
        let used = match self.phase.take(came) {
            Ok(used) => used,
            Err(error) => {
                buffer.set_filled(start);
                return Err(error);
            }
        };
        if used < came.len() {
            // What is kept was read before what it is kept from, if there is any.
            self.raw.splice(..0, came[used..].iter().copied());
            buffer.set_filled(start + used);
        }
        Ok(())
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl AsyncRead for ResponseGate {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.passed > 0 {
                let take = this.passed.min(buffer.remaining());
                buffer.put_slice(&this.raw[..take]);
                this.raw.drain(..take);
                this.passed -= take;
                return Poll::Ready(Ok(()));
            }
            if matches!(this.phase, Phase::Idle) && this.expects.0.head.swap(false, Ordering::Relaxed) {
                if !this.raw.is_empty() {
                    return Poll::Ready(Err(this.expects.unasked()));
                }
                this.phase = Phase::Head;
                this.interim = 0;
                this.scan = Scan::default();
            }
            let start = buffer.filled().len();
            if matches!(this.phase, Phase::Head) {
                if !this.raw.is_empty() {
                    this.judge()?;
                    if this.passed > 0 {
                        continue;
                    }
                }
                this.raw.reserve(4096);
                let read = tokio_util::io::poll_read_buf(Pin::new(&mut this.stream), context, &mut this.raw);
                if ready!(read)? == 0 {
                    // Within a head: hyper finds that it breaks off.
                    return Poll::Ready(Ok(()));
                }
            } else if this.raw.is_empty() {
                ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
                return Poll::Ready(this.measure(buffer, start));
            } else {
                let take = this.raw.len().min(buffer.remaining());
                buffer.put_slice(&this.raw[..take]);
                this.raw.drain(..take);
                return Poll::Ready(this.measure(buffer, start));
            }
        }
    }
}

impl AsyncWrite for ResponseGate {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.ask()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.ask()?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
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
