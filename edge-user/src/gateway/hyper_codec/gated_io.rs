//! A client's socket behind the strict gate: hyper reads request heads only after they were judged, and bodies only
//! as far as they reach.
//!
//! A head that is refused is replaced by a marker, `PRI * HTTP/1.1`, which the gate lets no client send; the service
//! answers it with the refusal that lies in [`ConnectionState`]. Nothing is read after a refusal.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::guarded_io::Http2State;
use crate::gateway::{
    gate::{
        RequestBody, RequestShape,
        chunked::Chunked,
        parse,
        request::judge_by,
        scan::{Scan, too_long},
    },
    limits::Limits,
    path::Rules,
    refusal::{Reason, Refusal},
    socket::Socket,
};

/// How much is read from a socket at once.
pub(super) const READ_SIZE: usize = 16 * 1024;

/// What stands for a refused head.
const MARKER: &[u8] = b"PRI * HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

/// What the gate tells the service about one connection.
#[derive(Debug, Default)]
pub(super) struct ConnectionState {
    /// The refusal that the marker stands for.
    pub(super) head_refusal: RefCell<Option<Refusal>>,
    /// Why reading the request body failed.
    pub(super) body_fault: Cell<Option<Reason>>,
    /// Requests whose answer is not complete.
    pub(super) in_flight: Cell<usize>,
    /// The client was told to go away.
    pub(super) refused: Cell<bool>,
    /// HTTP/1: the request has a body that nobody reads if it is answered here; hyper then closes the connection.
    pub(super) has_body: Cell<bool>,
    /// The last request was of HTTP/1.0, whose answers may end with the connection.
    pub(super) http10: Cell<bool>,
    /// The connection, where this is one stream of it.
    pub(super) http2: Option<Rc<Http2State>>,
}

impl ConnectionState {
    /// The state of one HTTP/2 stream.
    pub(super) fn of_stream(connection: &Rc<Http2State>) -> Self {
        Self {
            http2: Some(Rc::clone(connection)),
            ..Self::default()
        }
    }
}

#[derive(Debug)]
enum Phase {
    /// Between requests, or within a head.
    Head,
    /// This many bytes of a body are to come.
    Length(u64),
    /// Within a chunked body.
    Chunked(Box<Chunked>),
    /// Nothing more is read.
    Ended,
}

/// The socket.
pub(super) struct GatedIo {
    stream: Socket,
    raw: Vec<u8>,
    /// Where the bytes that were not yet handed on begin.
    start: usize,
    /// How many of them may be handed on.
    passed: usize,
    phase: Phase,
    scan: Scan,
    shape: RequestShape,
    limits: Limits,
    read_timer: Option<Pin<Box<Sleep>>>,
    write_timer: Option<Pin<Box<Sleep>>>,
    state: Rc<ConnectionState>,
}

impl GatedIo {
    /// The gate in front of an HTTP/1 connection that began with `first`.
    pub(super) fn new(stream: Socket, first: Vec<u8>, limits: Limits, state: Rc<ConnectionState>) -> Self {
        Self {
            stream,
            raw: first,
            start: 0,
            passed: 0,
            phase: Phase::Head,
            scan: Scan::default(),
            shape: RequestShape::default(),
            limits,
            read_timer: None,
            write_timer: None,
            state,
        }
    }

    /// Whether the client may have sent what nobody read.
    pub(super) fn has_unread(&self) -> bool {
        self.start < self.raw.len() || !matches!(self.phase, Phase::Head)
    }

    /// The socket itself.
    pub(super) fn into_stream(self) -> Socket {
        self.stream
    }

    /// Decides how many of the buffered bytes may be handed on; `false` if more must be read first.
    fn pass(&mut self) -> io::Result<bool> {
        let unread = self.raw.get(self.start..).unwrap_or_default();
        if unread.is_empty() {
            return Ok(false);
        }
        match &mut self.phase {
            Phase::Head => return Ok(self.pass_head()),
            Phase::Length(left) => {
                self.passed = usize::try_from(*left).map_or(unread.len(), |left| left.min(unread.len()));
                *left -= self.passed as u64;
                if *left == 0 {
                    self.phase = Phase::Head;
                }
            }
            Phase::Chunked(chunked) => match chunked.feed(unread, |_| {}) {
                Ok(used) => {
                    self.passed = used;
                    if chunked.is_done() {
                        self.phase = Phase::Head;
                    }
                }
                Err(fault) => {
                    self.phase = Phase::Ended;
                    self.state.body_fault.set(Some(Reason::BadChunk));
                    return Err(io::Error::new(io::ErrorKind::InvalidData, fault));
                }
            },
            Phase::Ended => return Ok(false),
        }
        Ok(self.passed > 0)
    }

    /// Judges the head at the start of the buffer, if all of it is there.
    fn pass_head(&mut self) -> bool {
        // One empty line before a request is tolerated (RFC 9112, 2.2): old clients end their bodies with one.
        if self.raw[self.start..].starts_with(b"\r\n") && self.state.in_flight.get() == 0 {
            self.start += 2;
            self.scan = Scan::default();
        }
        let unread = &self.raw[self.start..];
        if unread.is_empty() {
            return false;
        }
        let judged = match self.scan.end(unread) {
            Ok(Some(len)) if len > self.limits.head.head => Err(Reason::HeadTooLarge.into()),
            Ok(Some(len)) => parse::request(&unread[..len], &self.limits.head, &mut self.shape)
                // The path is judged by the plan's rules once hyper has the head; it does nothing with it.
                .and_then(|()| judge_by(&unread[..len], &self.shape, Rules::LOOSEST))
                .and_then(|judged| {
                    // What this connection served before was for this codec, which has no tunnels over HTTP/1.
                    if judged.connect {
                        return Err(Refusal::because(Reason::MethodNotServed, "CONNECT on a used connection"));
                    }
                    Ok((len, judged.body))
                }),
            Ok(None) => match too_long(unread, &self.limits.head) {
                Some(refusal) => Err(refusal),
                None => return false,
            },
            Err(_) => Err(Refusal::because(Reason::BadSyntax, "line end")),
        };
        self.scan = Scan::default();
        match judged {
            Ok((len, body)) => {
                self.passed = len;
                self.phase = match body {
                    RequestBody::None => Phase::Head,
                    RequestBody::Length(left) => Phase::Length(left),
                    RequestBody::Chunked => Phase::Chunked(Box::default()),
                };
            }
            Err(refusal) => self.refuse(refusal),
        }
        true
    }

    /// Puts the marker in the place of everything that was read.
    fn refuse(&mut self, refusal: Refusal) {
        self.state.head_refusal.replace(Some(refusal));
        self.raw.clear();
        self.raw.extend_from_slice(MARKER);
        self.start = 0;
        self.passed = MARKER.len();
        self.phase = Phase::Ended;
    }

    /// What to do when the socket has nothing: wait, or lose patience.
    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<Option<Reason>> {
        let partial = self.start < self.raw.len();
        let limit = match self.phase {
            Phase::Head if partial => self.limits.head_timeout,
            // While an answer is under way the client owes nothing.
            Phase::Head if self.state.in_flight.get() > 0 => return Poll::Pending,
            Phase::Head => self.limits.idle_timeout,
            Phase::Length(_) | Phase::Chunked(_) => self.limits.stall_timeout,
            Phase::Ended => return Poll::Pending,
        };
        ready!(poll_timer(&mut self.read_timer, limit, context));
        Poll::Ready(match self.phase {
            Phase::Head if partial => Some(Reason::HeadTimeout),
            Phase::Length(_) | Phase::Chunked(_) => Some(Reason::BodyTimeout),
            Phase::Head | Phase::Ended => None,
        })
    }
}

/// Polls a timer that is set when it is first asked for.
fn poll_timer(timer: &mut Option<Pin<Box<Sleep>>>, limit: Duration, context: &mut Context<'_>) -> Poll<()> {
    let timer = timer.get_or_insert_with(|| Box::pin(sleep(limit)));
    timer.as_mut().poll(context)
}

impl AsyncRead for GatedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.passed > 0 {
                let take = this.passed.min(buffer.remaining());
                buffer.put_slice(&this.raw[this.start..this.start + take]);
                this.start += take;
                this.passed -= take;
                if this.start == this.raw.len() {
                    this.raw.clear();
                    this.start = 0;
                }
                return Poll::Ready(Ok(()));
            }
            if matches!(this.phase, Phase::Ended) {
                return Poll::Ready(Ok(()));
            }
            if this.pass()? {
                continue;
            }
            if this.start > 0 {
                this.raw.drain(..this.start);
                this.start = 0;
            }
            let in_head = matches!(this.phase, Phase::Head) && !this.raw.is_empty();
            this.raw.reserve(READ_SIZE);
            match tokio_util::io::poll_read_buf(Pin::new(&mut this.stream), context, &mut this.raw) {
                Poll::Ready(Ok(0)) => {
                    if !matches!(this.phase, Phase::Head) {
                        this.state.body_fault.set(Some(Reason::BodyCutShort));
                    }
                    this.phase = Phase::Ended;
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(_)) => {
                    // The limit for a head runs from its first byte.
                    if !in_head {
                        this.read_timer = None;
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => match ready!(this.poll_patience(context)) {
                    Some(reason @ Reason::BodyTimeout) => {
                        this.phase = Phase::Ended;
                        this.state.body_fault.set(Some(reason));
                        return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                    }
                    Some(reason) => this.refuse(reason.into()),
                    None => {
                        this.phase = Phase::Ended;
                        return Poll::Ready(Ok(()));
                    }
                },
            }
        }
    }
}

impl GatedIo {
    /// Fails a write that has been waiting for too long.
    fn patient<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(result) => {
                self.write_timer = None;
                Poll::Ready(result)
            }
            Poll::Pending => {
                ready!(poll_timer(
                    &mut self.write_timer,
                    self.limits.stall_timeout,
                    context
                ));
                self.state.body_fault.set(Some(Reason::ClientStalled));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl AsyncWrite for GatedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.patient(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
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
