//! Bodies on their way through hyper: counted, bounded, and at their end telling what they know.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

pub(crate) use super::body_error::BodyError;
use super::{client::Link, compress::Coded, direct::Direct, gated_io::ConnectionState};
use crate::{
    gateway::{
        exchange::Exchange, gate::chunked::is_trailer, limits::Limits, patience::Patience, refusal::Reason,
    },
    upstream::{attempt::Attempt, circuit::Permit},
};

/// Whether a body over HTTP/2 that gives no more has come to its end. hyper takes a stream that is reset with NO_ERROR
/// for one that ended; half a body must not pass for a whole one.
fn is_whole(body: &Incoming) -> bool {
    body.is_end_stream() || body.size_hint().exact() == Some(0)
}

/// A request body as it comes from the client, and as much of it as is kept for another try.
pub(super) struct Source {
    inner: RefCell<Option<Incoming>>,
    hint: SizeHint,
    limit: Option<u64>,
    patience: RefCell<Patience>,
    /// HTTP/2 alone: the gate keeps the time of HTTP/1.
    stall_limit: Option<Duration>,
    stall: RefCell<Option<Pin<Box<Sleep>>>>,
    state: Rc<ConnectionState>,
    kept: RefCell<Vec<Part>>,
    room: Cell<usize>,
    /// Fields that no trailer may be.
    reserved: Arc<[String]>,
    /// Something was passed on that was not kept.
    lost: Cell<bool>,
    bytes: Cell<u64>,
    done: Cell<bool>,
}

/// A frame that is kept.
#[derive(Clone)]
enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Source {
    /// Passes `inner` on, up to `most` bytes, as fast as `limits` say and without `reserved` trailers, and keeps up to
    /// `room` bytes.
    pub(super) fn new(
        inner: Option<Incoming>,
        limits: &Limits,
        most: Option<u64>,
        room: usize,
        reserved: &Arc<[String]>,
        state: Rc<ConnectionState>,
    ) -> Rc<Self> {
        Rc::new(Self {
            hint: inner
                .as_ref()
                .map_or_else(|| SizeHint::with_exact(0), Body::size_hint),
            done: Cell::new(inner.is_none()),
            inner: RefCell::new(inner),
            limit: most,
            patience: RefCell::new(Patience::new(limits.stall_timeout, limits.min_body_rate)),
            stall_limit: state.http2.is_some().then_some(limits.stall_timeout),
            stall: RefCell::default(),
            state,
            kept: RefCell::default(),
            room: Cell::new(room),
            reserved: Arc::clone(reserved),
            lost: Cell::new(false),
            bytes: Cell::new(0),
        })
    }

    /// Bytes that came from the client.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Whether all of it was passed on.
    pub(super) fn is_done(&self) -> bool {
        self.done.get()
    }

    /// Whether it can be sent from its beginning once more.
    pub(super) fn is_repeatable(&self) -> bool {
        !self.lost.get()
    }

    /// The whole body, if all of it came and was kept.
    pub(super) fn copy(&self) -> Option<Bytes> {
        if !self.is_done() || self.lost.get() {
            return None;
        }
        let kept = self.kept.borrow();
        let data = kept.iter().filter_map(|part| match part {
            Part::Data(data) => Some(data),
            Part::Trailers(_) => None,
        });
        let mut data = data.peekable();
        let first = data.next()?.clone();
        if data.peek().is_none() {
            return Some(first);
        }
        let mut whole = first.to_vec();
        data.for_each(|part| whole.extend_from_slice(part));
        Some(Bytes::from(whole))
    }

    /// Whether there is a body at all.
    pub(super) fn is_empty(&self) -> bool {
        self.inner.borrow().is_none()
    }

    /// Whether a frame is no trailers, or such as may pass.
    fn may_pass(&self, frame: &Frame<Bytes>) -> bool {
        frame.trailers_ref().is_none_or(|trailers| {
            let mut names = trailers.keys();
            names.all(|name| is_trailer(name.as_str().as_bytes(), &self.reserved))
        })
    }

    /// Keeps a frame, or gives up keeping.
    fn keep(&self, frame: &Frame<Bytes>) {
        if self.lost.get() {
            return;
        }
        let size = frame.data_ref().map_or(0, Bytes::len);
        let part = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) if size <= self.room.get() => Part::Data(data.clone()),
            (None, Some(trailers)) if self.room.get() > 0 => Part::Trailers(trailers.clone()),
            _ => {
                self.lost.set(true);
                self.kept.take();
                return;
            }
        };
        self.room.set(self.room.get() - size);
        self.kept.borrow_mut().push(part);
    }
}

/// A request body on its way to the upstream: what was kept of an earlier try, then the rest.
pub(crate) struct RequestBody {
    source: Rc<Source>,
    next: usize,
}

impl RequestBody {
    /// The body from its beginning.
    pub(super) fn new(source: &Rc<Source>) -> Self {
        source.done.set(source.inner.borrow().is_none());
        Self {
            source: Rc::clone(source),
            next: 0,
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let source = &*this.source;
        let mut inner = source.inner.borrow_mut();
        let Some(inner) = inner.as_mut() else {
            return Poll::Ready(None);
        };
        if let Some(part) = source.kept.borrow().get(this.next).cloned() {
            this.next += 1;
            source
                .done
                .set(this.next == source.kept.borrow().len() && inner.is_end_stream());
            return Poll::Ready(Some(Ok(match part {
                Part::Data(data) => Frame::data(data),
                Part::Trailers(trailers) => Frame::trailers(trailers),
            })));
        }
        let Poll::Ready(frame) = Pin::new(&mut *inner).poll_frame(context) else {
            source.patience.borrow_mut().wait(Instant::now());
            let Some(limit) = source.stall_limit else {
                return Poll::Pending;
            };
            let mut stall = source.stall.borrow_mut();
            let stall = stall.get_or_insert_with(|| Box::pin(sleep(limit)));
            ready!(stall.as_mut().poll(context));
            source.state.body_fault.set(Some(Reason::BodyTimeout));
            return Poll::Ready(Some(Err(BodyError::Stalled)));
        };
        source.stall.take();
        match &frame {
            None if source.state.http2.is_some() && !is_whole(inner) => {
                source.lost.set(true);
                source.state.body_fault.set(Some(Reason::BodyCutShort));
                return Poll::Ready(Some(Err(BodyError::cancelled())));
            }
            None => source.done.set(true),
            Some(Ok(frame)) if !source.may_pass(frame) => {
                source.lost.set(true);
                source.state.body_fault.set(Some(Reason::BadChunk));
                return Poll::Ready(Some(Err(BodyError::Trailer)));
            }
            Some(Ok(frame)) => {
                let len = frame.data_ref().map_or(0, |data| data.len() as u64);
                if source.patience.borrow_mut().came(len, Instant::now()).is_err() {
                    source.state.body_fault.set(Some(Reason::BodyTimeout));
                    return Poll::Ready(Some(Err(BodyError::Stalled)));
                }
                let bytes = source.bytes.get() + len;
                source.bytes.set(bytes);
                source.keep(frame);
                this.next += 1;
                if source.limit.is_some_and(|limit| bytes > limit) {
                    source.state.body_fault.set(Some(Reason::BodyTooLarge));
                    return Poll::Ready(Some(Err(BodyError::TooLarge)));
                }
                // Nothing comes behind trailers, and nobody asks for it.
                if frame.is_trailers() || inner.is_end_stream() {
                    source.done.set(true);
                }
            }
            Some(Err(_)) => {
                source.lost.set(true);
                if source.state.body_fault.get().is_none() {
                    source.state.body_fault.set(Some(Reason::BodyCutShort));
                }
                // However the client went: the upstream is not to blame.
                return Poll::Ready(Some(Err(BodyError::cancelled())));
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
    }

    fn is_end_stream(&self) -> bool {
        let at_end = self.next >= self.source.kept.borrow().len();
        self.source
            .inner
            .borrow()
            .as_ref()
            .is_none_or(|inner| at_end && inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        if self.next == 0 {
            self.source.hint
        } else {
            SizeHint::new()
        }
    }
}

/// An upstream connection, and the way back to its pool.
pub(super) struct Returning {
    pub(super) attempt: Attempt,
    pub(super) link: Option<Link<RequestBody>>,
    pub(super) reusable: bool,
    pub(super) request: Rc<Source>,
    pub(super) _retry: Permit,
}

impl Returning {
    /// Puts the connection back if the whole exchange on it is over.
    fn finish(&mut self) {
        if let Some(link) = self.link.take()
            && self.reusable
            && self.request.is_done()
        {
            link.put_back(Instant::now());
        }
    }

    fn is_http2(&self) -> bool {
        self.link.as_ref().is_some_and(Link::is_http2)
    }

    /// Notes that the upstream broke its answer off.
    fn broke(&mut self) {
        self.link = None;
        self.attempt.failed();
    }
}

/// A response body on its way to the client.
pub(super) enum ResponseBody {
    /// Written by this proxy.
    Own(Full<Bytes>),
    /// From the upstream.
    Upstream(Box<FromUpstream>),
    /// From the upstream, by the codec by bytes.
    Direct(Box<Direct>),
}

/// A response body from the upstream.
pub(super) struct FromUpstream {
    pub(super) inner: Incoming,
    pub(super) exchange: Box<Exchange>,
    pub(super) returning: Returning,
    pub(super) stall_limit: Duration,
    pub(super) stall: Option<Pin<Box<Sleep>>>,
    pub(super) deadline: Option<Pin<Box<Sleep>>>,
    pub(super) begun: Instant,
    pub(super) in_flight: InFlight,
    /// What codes it, if the route and the client want that.
    pub(super) coded: Option<Box<Coded>>,
}

impl FromUpstream {
    /// The next frame as the upstream sent it.
    pub(super) fn poll_plain(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            self.exchange.broke(Reason::RequestTimeout);
            self.returning.link = None;
            return Poll::Ready(Some(Err(BodyError::Late)));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) else {
            let stall = self
                .stall
                .get_or_insert_with(|| Box::pin(sleep(self.stall_limit)));
            ready!(stall.as_mut().poll(context));
            self.exchange.broke(Reason::UpstreamStalled);
            self.returning.broke();
            return Poll::Ready(Some(Err(BodyError::Stalled)));
        };
        self.stall = None;
        match &frame {
            // NO_ERROR may follow an answer, once that is whole (RFC 9113, 8.1).
            None if self.returning.is_http2() && !is_whole(&self.inner) => {
                self.exchange.broke(Reason::UpstreamCutShort);
                self.returning.broke();
                return Poll::Ready(Some(Err(BodyError::cancelled())));
            }
            None => self.end(),
            Some(Ok(_)) => {}
            Some(Err(_)) => {
                self.exchange.broke(Reason::UpstreamCutShort);
                self.returning.broke();
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
    }

    /// Settles the account of a body that came to its end.
    fn end(&mut self) {
        self.returning.finish();
        let now = Instant::now();
        // What a streaming body waits for is not told apart here: none of its time counts as the proxy's own.
        let waited = now - self.begun;
        self.exchange.ended(now, waited);
    }
}

impl Drop for FromUpstream {
    fn drop(&mut self) {
        self.exchange.received(self.returning.request.bytes());
        if self.inner.is_end_stream() {
            self.end();
        } else if self.returning.link.is_some() {
            // The client went away, or stopped reading.
            if let Some(reason) = self.in_flight.stalled() {
                self.exchange.broke(reason);
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let from = match &mut *self {
            Self::Own(body) => {
                return Pin::new(body)
                    .poll_frame(context)
                    .map_err(|never: Infallible| match never {});
            }
            Self::Direct(direct) => return direct.poll(context),
            Self::Upstream(from) => &mut **from,
        };
        from.in_flight.blocked(false);
        let frame = ready!(from.poll(context));
        if let Some(Ok(frame)) = &frame {
            from.in_flight.blocked(true);
            from.exchange
                .returned(frame.data_ref().map_or(0, |data| data.len() as u64));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Direct(direct) => direct.is_over(),
            Self::Upstream(from) => match &from.coded {
                Some(coded) => coded.is_over(),
                None => from.inner.is_end_stream(),
            },
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Direct(direct) => direct.left().map_or_else(SizeHint::new, SizeHint::with_exact),
            Self::Upstream(from) => match &from.coded {
                Some(_) => SizeHint::default(),
                None => from.inner.size_hint(),
            },
        }
    }
}

/// Counts a request of a connection while its answer is not complete.
pub(super) struct InFlight {
    state: Rc<ConnectionState>,
    blocked: Cell<bool>,
}

impl InFlight {
    pub(super) fn new(state: &Rc<ConnectionState>) -> Self {
        state.in_flight.set(state.in_flight.get() + 1);
        if let Some(http2) = &state.http2 {
            http2.in_flight.set(http2.in_flight.get() + 1);
        }
        Self {
            state: Rc::clone(state),
            blocked: Cell::new(false),
        }
    }

    /// Notes whether it is the client that the answer waits for.
    pub(super) fn blocked(&self, blocked: bool) {
        if let Some(http2) = &self.state.http2
            && self.blocked.replace(blocked) != blocked
        {
            let count = http2.blocked.get();
            http2.blocked.set(if blocked { count + 1 } else { count - 1 });
        }
    }

    /// Whether a body that is given up was given up because the client took nothing.
    pub(super) fn stalled(&self) -> Option<Reason> {
        let fault = self.state.body_fault.take();
        fault.filter(|reason| *reason == Reason::ClientStalled)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.blocked(false);
        self.state.in_flight.set(self.state.in_flight.get() - 1);
        if let Some(http2) = &self.state.http2 {
            http2.in_flight.set(http2.in_flight.get() - 1);
        }
    }
}
