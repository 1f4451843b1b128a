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

use crate::gateway::gate::{ResponseShape, parse, scan::Scan};

/// Says that a request goes out. Sender and socket are on one thread; hyper wants them to be able to part.
#[derive(Debug, Clone, Default)]
pub(super) struct Expects(Arc<AtomicBool>);

impl Expects {
    /// The next bytes are a response's head.
    pub(super) fn head(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The socket.
#[derive(Debug)]
pub(super) struct ResponseGate<S> {
    stream: S,
    expects: Expects,
    most: usize,
    raw: Vec<u8>,
    /// How many bytes of `raw` were judged.
    passed: usize,
    in_head: bool,
    scan: Scan,
    shape: ResponseShape,
}

impl<S> ResponseGate<S> {
    /// The gate in front of `stream`, for heads of at most `most` bytes.
    pub(super) fn new(stream: S, expects: Expects, most: usize) -> Self {
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

impl<S: AsyncRead + Unpin> AsyncRead for ResponseGate<S> {
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
            if !this.in_head && this.expects.0.swap(false, Ordering::Relaxed) {
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

impl<S: AsyncWrite + Unpin> AsyncWrite for ResponseGate<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
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
