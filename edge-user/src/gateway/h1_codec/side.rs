//! One end of an exchange: a byte stream, and what was read from it and not used yet.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::buffers::Buffers;
use crate::{gateway::socket::Socket, upstream::stream::Stream};

/// What the codec speaks over: TCP, TLS over TCP, or a test's pipe. Whatever buffers writes must send them when
/// flushed; whatever has a closing message must send it when shut down.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + 'static {
    /// Whether it has something to say before it is closed; else dropping it says all there is.
    fn has_goodbye(&self) -> bool {
        true
    }

    /// Closes it so that the other end sees an error rather than an end.
    fn abort(self)
    where
        Self: Sized,
    {
    }

    /// The socket, if bytes pass through it as they are.
    fn plain(&self) -> Option<&TcpStream> {
        None
    }
}

impl Transport for Socket {
    fn has_goodbye(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    fn abort(self) {
        Self::abort(self);
    }

    fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Tls(_) => None,
        }
    }
}

impl Transport for Stream {
    fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Tls(_) => None,
        }
    }
}

impl Transport for tokio::io::Empty {}

/// A stream and its unread bytes.
#[derive(Debug)]
pub(crate) struct Side<T> {
    pub(crate) io: T,
    bytes: Vec<u8>,
    start: usize,
    /// The other end has finished sending.
    pub(crate) ended: bool,
}

impl<T: Transport> Side<T> {
    /// A stream of which `bytes` were read already.
    pub(crate) fn new(io: T, bytes: Vec<u8>) -> Self {
        Self {
            io,
            bytes,
            start: 0,
            ended: false,
        }
    }

    /// What was read and not used.
    #[inline]
    pub(crate) fn unread(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Marks bytes as used.
    #[inline]
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.bytes.len());
    }

    /// Reads once; 0 at the end. Wants a large buffer if `large`, and room is made if there is none: a caller bounds
    /// what it leaves unread.
    pub(crate) fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        buffers: &Buffers,
        large: bool,
    ) -> Poll<io::Result<usize>> {
        if self.start >= self.bytes.len() {
            self.start = 0;
            self.bytes.clear();
            if large && self.bytes.capacity() < super::buffers::LARGE {
                buffers.put(std::mem::replace(&mut self.bytes, buffers.take_large()));
            } else if self.bytes.capacity() == 0 {
                self.bytes = buffers.take();
            }
        } else if self.bytes.len() == self.bytes.capacity() {
            if self.start > 0 {
                self.bytes.drain(..self.start);
                self.start = 0;
            } else {
                self.bytes
                    .reserve(self.bytes.capacity().max(super::buffers::SMALL));
            }
        }
        let read = tokio_util::io::poll_read_buf(Pin::new(&mut self.io), context, &mut self.bytes);
        match &read {
            Poll::Ready(Ok(0)) => self.ended = true,
            Poll::Ready(_) => {}
            Poll::Pending => self.release(buffers),
        }
        read
    }

    /// Gives the buffer back if there is nothing in it.
    pub(crate) fn release(&mut self, buffers: &Buffers) {
        if self.start >= self.bytes.len() && self.bytes.capacity() > 0 {
            self.start = 0;
            buffers.put(std::mem::take(&mut self.bytes));
        }
    }

    /// The stream, and what was read and not used.
    pub(crate) fn into_parts(mut self) -> (T, Vec<u8>) {
        self.bytes.drain(..self.start.min(self.bytes.len()));
        (self.io, self.bytes)
    }
}
