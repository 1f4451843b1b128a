//! Bodies on their way through hyper: counted, bounded, and at their end telling what they know.

use std::{
    cell::Cell,
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1::SendRequest,
};
use tokio::time::{Sleep, sleep};

use super::gated_io::ConnectionState;
use crate::gateway::{
    exchange::Exchange, limits::Limits, patience::Patience, refusal::Reason, worker::Worker,
};

/// An error of a body; the reason lies in the connection's state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// hyper's.
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
    /// Above its limit.
    #[error("body too large")]
    TooLarge,
    /// Not over in time.
    #[error("took too long")]
    Late,
    /// Nothing moved.
    #[error("body stalled")]
    Stalled,
}

/// What is known about a request body while it streams.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) bytes: Cell<u64>,
    pub(super) done: Cell<bool>,
}

/// A request body on its way to the upstream.
pub(crate) struct RequestBody {
    inner: Option<Incoming>,
    limit: Option<u64>,
    progress: Rc<Progress>,
    patience: Patience,
    /// HTTP/2 alone: the gate keeps the time of HTTP/1.
    stall_limit: Option<Duration>,
    stall: Option<Pin<Box<Sleep>>>,
    state: Rc<ConnectionState>,
}

impl RequestBody {
    /// Passes `inner` on, as far and as fast as `limits` say.
    pub(super) fn new(inner: Option<Incoming>, limits: &Limits, state: Rc<ConnectionState>) -> Self {
        let progress = Rc::new(Progress::default());
        progress.done.set(inner.is_none());
        Self {
            inner,
            limit: limits.body,
            progress,
            patience: Patience::new(limits.stall_timeout, limits.min_body_rate),
            stall_limit: state.http2.is_some().then_some(limits.stall_timeout),
            stall: None,
            state,
        }
    }

    /// Takes another limit than the gateway's, if there is one.
    pub(super) fn at_most(mut self, bytes: Option<u64>) -> Self {
        self.limit = bytes.or(self.limit);
        self
    }

    /// What is known about it.
    pub(super) fn progress(&self) -> Rc<Progress> {
        Rc::clone(&self.progress)
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
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        let Poll::Ready(frame) = Pin::new(&mut *inner).poll_frame(context) else {
            this.patience.wait(Instant::now());
            let Some(limit) = this.stall_limit else {
                return Poll::Pending;
            };
            let stall = this.stall.get_or_insert_with(|| Box::pin(sleep(limit)));
            ready!(stall.as_mut().poll(context));
            this.state.body_fault.set(Some(Reason::BodyTimeout));
            return Poll::Ready(Some(Err(BodyError::Stalled)));
        };
        this.stall = None;
        match &frame {
            None => this.progress.done.set(true),
            Some(Ok(frame)) => {
                let len = frame.data_ref().map_or(0, |data| data.len() as u64);
                if this.patience.came(len, Instant::now()).is_err() {
                    this.state.body_fault.set(Some(Reason::BodyTimeout));
                    return Poll::Ready(Some(Err(BodyError::Stalled)));
                }
                let bytes = this.progress.bytes.get() + len;
                this.progress.bytes.set(bytes);
                if this.limit.is_some_and(|limit| bytes > limit) {
                    this.state.body_fault.set(Some(Reason::BodyTooLarge));
                    return Poll::Ready(Some(Err(BodyError::TooLarge)));
                }
                if inner.is_end_stream() {
                    this.progress.done.set(true);
                }
            }
            Some(Err(_)) => {
                if this.state.body_fault.get().is_none() {
                    this.state.body_fault.set(Some(Reason::BodyCutShort));
                }
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// An upstream connection, and the way back to its pool.
pub(super) struct Returning {
    pub(super) worker: Rc<Worker>,
    pub(super) endpoint: SocketAddr,
    pub(super) connection: Option<SendRequest<RequestBody>>,
    pub(super) reusable: bool,
    pub(super) request: Rc<Progress>,
}

impl Returning {
    /// Puts the connection back if the whole exchange on it is over.
    fn finish(&mut self) {
        if let Some(connection) = self.connection.take()
            && self.reusable
            && self.request.done.get()
        {
            self.worker
                .hyper_pool()
                .put(self.endpoint, connection, Instant::now());
        }
    }
}

/// A response body on its way to the client.
pub(super) enum ResponseBody {
    /// Written by this proxy.
    Own(Full<Bytes>),
    /// From the upstream.
    Upstream(Box<FromUpstream>),
}

/// A response body from the upstream.
pub(super) struct FromUpstream {
    pub(super) inner: Incoming,
    pub(super) exchange: Exchange,
    pub(super) returning: Returning,
    pub(super) stall_limit: Duration,
    pub(super) stall: Option<Pin<Box<Sleep>>>,
    pub(super) deadline: Option<Pin<Box<Sleep>>>,
    pub(super) begun: Instant,
    pub(super) in_flight: InFlight,
}

impl FromUpstream {
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
        self.exchange.received(self.returning.request.bytes.get());
        if self.inner.is_end_stream() {
            self.end();
        } else if self.returning.connection.is_some() {
            // The client went away, or stopped reading.
            let reason = self
                .in_flight
                .state()
                .body_fault
                .take()
                .filter(|reason| *reason == Reason::ClientStalled);
            if let Some(reason) = reason {
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
            Self::Upstream(from) => &mut **from,
        };
        from.in_flight.blocked(false);
        if let Some(deadline) = &mut from.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            from.exchange.broke(Reason::RequestTimeout);
            from.returning.connection = None;
            return Poll::Ready(Some(Err(BodyError::Late)));
        }
        let Poll::Ready(frame) = Pin::new(&mut from.inner).poll_frame(context) else {
            let stall = from
                .stall
                .get_or_insert_with(|| Box::pin(sleep(from.stall_limit)));
            ready!(stall.as_mut().poll(context));
            from.exchange.broke(Reason::UpstreamStalled);
            from.returning.connection = None;
            return Poll::Ready(Some(Err(BodyError::Stalled)));
        };
        from.stall = None;
        match &frame {
            None => from.end(),
            Some(Ok(frame)) => {
                from.in_flight.blocked(true);
                from.exchange
                    .returned(frame.data_ref().map_or(0, |data| data.len() as u64));
            }
            Some(Err(_)) => {
                from.exchange.broke(Reason::UpstreamCutShort);
                from.returning.connection = None;
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Upstream(from) => from.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Upstream(from) => from.inner.size_hint(),
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

    fn state(&self) -> &ConnectionState {
        &self.state
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
