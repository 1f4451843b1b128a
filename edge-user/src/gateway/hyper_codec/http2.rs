//! One HTTP/2 connection from its preface to its end, and what ends it early.
//!
//! Floods are counted by the frame guard, before hyper, and by h2 itself: streams reset before they were looked at,
//! streams that end by the client's mistakes, fields that go on and on, data in crumbs.

use std::{
    error::Error,
    pin::pin,
    rc::Rc,
    time::{Duration, Instant},
};

use futures_util::TryFutureExt;
use http::{Method, Response, header};
use http_body_util::Full;
use hyper::{
    Request,
    body::{Body, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    body::ResponseBody,
    gated_io::ConnectionState,
    guarded_io::{GuardedIo, Http2State},
    service,
};
use crate::gateway::{
    closing::Closing, gate::Version, limits::Limits, provenance::Provenance, refusal::Reason, socket::Socket,
    worker::Worker,
};

/// Most bytes buffered for sending on one stream.
pub(super) const SEND_BUFFER: usize = 64 * 1024;

/// Bytes that a client may send on one stream, and on the connection, before they are taken from it.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// How often a quiet connection is asked whether it is alive, and how long it has to answer.
const PING_EVERY: Duration = Duration::from_secs(20);

/// Streams that the client reset before they were looked at.
const RESET_UNSEEN: usize = 20;

/// Streams that ended by a mistake of the client's, in a connection's life.
const RESET_BY_MISTAKE: usize = 128;

/// An answer of this proxy's own to HEAD, which has no body, only its length (RFC 9110, 9.3.2): over HTTP/1 hyper leaves the
/// body out, over HTTP/2 it does not. What comes from an upstream has none.
fn without_body(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    if let ResponseBody::Own(body) = response.body()
        && let Some(length @ 1..) = body.size_hint().exact()
    {
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length.into());
        *response.body_mut() = ResponseBody::Own(Full::default());
    }
    response
}

/// Serves one connection that began with `first`.
pub(super) async fn serve(worker: &Rc<Worker>, stream: Socket, first: Vec<u8>, provenance: Rc<Provenance>) {
    let limits = worker.limits();
    let state = Rc::new(Http2State::default());
    let io = GuardedIo::new(stream, first, &limits, Rc::clone(&state));
    let service = service_fn(|request: Request<Incoming>| {
        // Faults of one stream are not those of its neighbours.
        let stream = Rc::new(ConnectionState::of_stream(&state));
        let (worker, provenance) = (Rc::clone(worker), Rc::clone(&provenance));
        let is_head = request.method() == Method::HEAD;
        // Boxed, as hyper moves it several times, and it is large.
        let answer = Box::pin(service::answer(
            worker,
            stream,
            provenance,
            Version::Http2,
            request,
        ));
        answer.map_ok(move |response| if is_head { without_body(response) } else { response })
    });
    let mut connection = pin!(
        http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(limits.head.head as u32)
            .max_send_buf_size(SEND_BUFFER)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_pending_accept_reset_streams(RESET_UNSEEN)
            .max_local_error_reset_streams(RESET_BY_MISTAKE)
            .enable_connect_protocol()
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_EVERY)
            .serve_connection(TokioIo::new(io), service)
    );
    let mut stop = worker.leave();
    let mut stopping = false;
    let mut watch = Watch::new(&limits);
    let mut ticks = interval(watch.every());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let result = loop {
        tokio::select! {
            result = connection.as_mut() => break result,
            _ = stop.wait_for(|stop| *stop), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            _ = ticks.tick() => match watch.look(&state, Instant::now()) {
                Look::Well => {}
                Look::Idle => connection.as_mut().graceful_shutdown(),
                Look::Over => break Ok(()),
            },
        }
    };
    let offender = provenance.client.offender();
    if state.flood.get().is_some() || result.as_ref().is_err_and(is_flood) {
        worker.closed(offender, Closing::Http2Flood);
    }
    if let Some(kind) = state.given_up.get().and_then(Reason::offence) {
        worker.offence(offender, kind);
    }
    if let Err(error) = result {
        tracing::debug!(%error, peer = %provenance.client.peer, "connection failed");
    }
}

/// Whether h2 ended the connection because the client made too much work.
fn is_flood(error: &hyper::Error) -> bool {
    error
        .source()
        .and_then(|source| source.downcast_ref::<h2::Error>())
        .is_some_and(|error| error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
}

/// Looks now and then whether a connection is still of use.
struct Watch {
    idle_limit: Duration,
    stall_limit: Duration,
    /// Least bytes that are written in each stall limit while the client holds something up.
    least: u64,
    idle_since: Option<Instant>,
    blocked_since: Option<(Instant, u64)>,
    told: bool,
}

/// What is found.
enum Look {
    /// Nothing.
    Well,
    /// There was no request for too long: the client is told to go.
    Idle,
    /// The client did not go, or takes nothing.
    Over,
}

impl Watch {
    fn new(limits: &Limits) -> Self {
        Self {
            idle_limit: limits.idle_timeout,
            stall_limit: limits.stall_timeout,
            least: (u64::from(limits.min_read_rate) * limits.stall_timeout.as_millis() as u64 / 1000).max(1),
            idle_since: None,
            blocked_since: None,
            told: false,
        }
    }

    /// How often it is worth looking.
    fn every(&self) -> Duration {
        (self.idle_limit.min(self.stall_limit) / 4).clamp(Duration::from_millis(10), Duration::from_secs(5))
    }

    fn look(&mut self, state: &Http2State, now: Instant) -> Look {
        if state.in_flight.get() == 0 {
            self.blocked_since = None;
            let idle = now - *self.idle_since.get_or_insert(now);
            if idle >= self.idle_limit * 2 {
                return Look::Over;
            }
            if idle >= self.idle_limit && !self.told {
                self.told = true;
                return Look::Idle;
            }
            return Look::Well;
        }
        self.idle_since = None;
        let written = state.written.get();
        match self.blocked_since {
            Some((since, before)) if state.blocked.get() > 0 => {
                if now - since >= self.stall_limit {
                    if written - before < self.least {
                        state.given_up.set(Some(Reason::ClientStalled));
                        return Look::Over;
                    }
                    self.blocked_since = Some((now, written));
                }
            }
            _ => self.blocked_since = Some((now, written)),
        }
        Look::Well
    }
}

/// Runs hyper's tasks on the worker's own thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
