//! An upstream's socket under HTTP/1, behind the strict gate: hyper, which tolerates bare line feeds and more, reads the
//! head of a response only after it was judged by the rules that hold for every codec.
//!
//! A head is expected once a request was sent, which the sender says by [`Expects`]; what comes after a head is hyper's
//! business, whose framing of bodies is strict.

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
    gateway::gate::{ResponseShape, parse, scan::Scan},
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
}

impl Expects {
    /// The next bytes are a response's head; what came before them is none, for which the kernel is asked if the runtime
    /// may not know.
    pub(super) fn head(&self, is_known: bool) {
        self.0.head.store(true, Ordering::Relaxed);
        self.0.begins.store(true, Ordering::Relaxed);
        self.0.asks.store(!is_known, Ordering::Relaxed);
    }

    /// Whether the request was not sent since something nobody had asked for was there already.
    pub(super) fn was_unasked(&self) -> bool {
        self.0.unasked.load(Ordering::Relaxed)
    }
}

/// The socket.
#[derive(Debug)]
pub(super) struct ResponseGate {
    stream: Stream,
    expects: Expects,
    most: usize,
    raw: Vec<u8>,
    /// How many bytes of `raw` were judged.
    passed: usize,
    in_head: bool,
    scan: Scan,
    shape: ResponseShape,
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
            in_head: false,
            scan: Scan::default(),
            shape: ResponseShape::default(),
        }
    }

    /// Fails the write that begins a request on a connection on which an answer lies already.
    fn ask(&self) -> io::Result<()> {
        let said = &self.expects.0;
        if !said.begins.swap(false, Ordering::Relaxed)
            || self.raw.is_empty()
                && (!said.asks.load(Ordering::Relaxed) || quiet::is_silent(self.stream.socket()))
        {
            return Ok(());
        }
        said.unasked.store(true, Ordering::Relaxed);
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "unasked bytes"))
    }

    /// Judges what was read, as far as it goes.
    fn judge(&mut self) -> io::Result<()> {
        if !self.in_head {
            self.passed = self.raw.len();
            return Ok(());
        }
        let malformed = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        match self.scan.end(&self.raw) {
            Ok(Some(len)) => {
                parse::response(&self.raw[..len], &mut self.shape)
                    .map_err(|refusal| malformed(&refusal.detail))?;
                self.passed = len;
                self.scan = Scan::default();
                // After an interim response another head follows; after 101 none ever.
                self.in_head = matches!(self.shape.status, 100 | 102..=199);
                Ok(())
            }
            Ok(None) if self.raw.len() > self.most => Err(malformed("head too large")),
            Ok(None) => Ok(()),
            Err(_) => Err(malformed("line end")),
        }
    }
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
            if !this.in_head && this.expects.0.head.swap(false, Ordering::Relaxed) {
                this.in_head = true;
                this.scan = Scan::default();
            }
            if !this.raw.is_empty() {
                this.judge()?;
                if this.passed > 0 {
                    continue;
                }
            } else if !this.in_head {
                return Pin::new(&mut this.stream).poll_read(context, buffer);
            }
            this.raw.reserve(4096);
            let read = tokio_util::io::poll_read_buf(Pin::new(&mut this.stream), context, &mut this.raw);
            if ready!(read)? == 0 {
                // Within a head: hyper finds that it breaks off.
                return Poll::Ready(Ok(()));
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
