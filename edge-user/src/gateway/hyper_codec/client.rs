//! Connections to upstreams by hyper: the last one used, or a new one.
//!
//! Each kind of request body has connections of its own: the requests that clients wait for never queue behind those
//! beside them.

use std::{
    error::Error,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use hyper::{
    body::Body,
    client::conn::{
        TrySendError,
        http1::{self, SendRequest},
        http2,
    },
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::spawn_local;

use super::{
    body::RequestBody,
    http2::{LocalExecutor, SEND_BUFFER},
    response_gate::{Expects, ResponseGate},
};
use crate::{
    config::UpstreamProtocol,
    gateway::{
        balance::{Target, busy, refusal_of},
        exchange::Exchange,
        gate::MAX_FIELDS,
        refusal::{Reason, Refusal},
    },
    upstream::{
        attempt::Attempt,
        connect::{self, Connection},
        mux::{Lease, Mux, Offer},
        pool::{Held, Opening, Place, Pool, Taken},
        proxy_header::Client,
        quiet,
    },
};

/// HTTP/1: most bytes of an upstream's answer that wait for a client: hyper fills its buffer before it is asked to.
const READ_BUFFER: usize = 64 * 1024;

/// HTTP/2: bytes that an upstream may send before they are taken, by stream and by connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// HTTP/2: how often a quiet connection with streams is asked whether it is alive, and how long it has to answer.
const PING_EVERY: Duration = Duration::from_secs(20);

/// HTTP/2: largest head of a response.
const MAX_HEAD: u32 = 64 * 1024;

/// A body that hyper sends.
pub(crate) trait Sendable:
    Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin + 'static
{
}

impl<B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin + 'static> Sendable for B {}

/// A connection that carries one request at a time, and the word to its gate.
#[derive(Debug)]
pub(super) struct Http1<B> {
    sender: SendRequest<B>,
    expects: Expects,
}

type Http2<B> = http2::SendRequest<B>;

/// What became of a try to get a link, for who counts.
pub(super) enum Noted {
    /// It was there.
    Reused,
    /// It was tried to make one, for so long.
    Tried(SocketAddr, Duration),
    /// It was made.
    Made,
}

/// Connections of a worker, for requests with bodies of one kind.
#[derive(Debug)]
pub(crate) struct Links<B> {
    one: Pool<Http1<B>>,
    many: Mux<Http2<B>>,
}

impl<B> Default for Links<B> {
    fn default() -> Self {
        Self {
            one: Pool::default(),
            many: Mux::default(),
        }
    }
}

/// A connection in use.
#[derive(Debug)]
pub(super) enum Link<B> {
    /// HTTP/1.1.
    One(Held<Http1<B>>),
    /// A stream of HTTP/2.
    Many(Lease<Http2<B>>),
}

impl<B: Sendable> Link<B> {
    /// Whether it speaks HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        matches!(self, Self::Many(_))
    }

    /// Sends a request; a link that is gone hands nothing back.
    pub(super) async fn send(
        &mut self,
        message: http::Request<B>,
        reused: bool,
    ) -> Option<Result<http::Response<hyper::body::Incoming>, TrySendError<http::Request<B>>>> {
        match self {
            Self::One(held) => {
                let is_known = !reused || quiet::is_known(held.idle_since(), Instant::now());
                let link = held.as_mut()?;
                link.expects.head(&message, is_known);
                Some(link.sender.try_send_request(message).await)
            }
            Self::Many(lease) => Some(lease.connection().clone().try_send_request(message).await),
        }
    }

    /// Whether the request was not sent, as an answer that nobody had asked for lay there already.
    pub(super) fn was_unasked(&self) -> bool {
        match self {
            Self::One(held) => held.as_ref().is_some_and(|link| link.expects.was_unasked()),
            Self::Many(_) => false,
        }
    }

    /// Keeps it for another request.
    pub(super) fn put_back(self, now: Instant) {
        match self {
            Self::One(held) => held.put_back(now),
            // The stream is over; the connection stays where it is.
            Self::Many(lease) => drop(lease),
        }
    }
}

/// A link to an endpoint, ready for a request.
pub(super) struct Acquired {
    pub(super) attempt: Attempt,
    pub(super) link: Link<RequestBody>,
    pub(super) reused: bool,
}

/// Finds a link for a try; a new one if `fresh`. What cannot be connected to has seen nothing of the request, so the
/// next endpoint is tried.
pub(super) async fn acquire(
    exchange: &mut Exchange,
    target: &mut Target,
    client: Client,
    mut attempt: Attempt,
    mut fresh: bool,
) -> Result<Acquired, Refusal> {
    let worker = Rc::clone(exchange.worker());
    loop {
        exchange.connected(attempt.endpoint().address(), Duration::ZERO);
        let note = &mut |noted| match noted {
            Noted::Reused => exchange.site().counters().reused(),
            Noted::Tried(endpoint, time) => exchange.connected(endpoint, time),
            Noted::Made => exchange.site().counters().connected(),
        };
        let refusal = match worker.hyper_links().link(&attempt, client, fresh, note).await {
            Ok((link, reused)) => {
                return Ok(Acquired {
                    attempt,
                    link,
                    reused,
                });
            }
            Err(refusal) => refusal,
        };
        if refusal.reason == Reason::UpstreamBusy {
            return Err(refusal);
        }
        attempt.failed();
        drop(attempt);
        fresh = false;
        attempt = target.attempt(false, Instant::now()).map_err(|_| refusal)?;
    }
}

impl<B: Sendable> Links<B> {
    /// Closes what was idle for too long.
    pub(crate) fn sweep(&self, now: Instant) {
        self.one.sweep(now);
        self.many.sweep(now);
    }

    /// A link to the endpoint of a try, and whether it was used before; a new one if `fresh`.
    pub(super) async fn link(
        &self,
        attempt: &Attempt,
        client: Client,
        fresh: bool,
        note: &mut impl FnMut(Noted),
    ) -> Result<(Link<B>, bool), Refusal> {
        let config = attempt.cluster().config();
        let (id, limits) = (attempt.endpoint().id(), &config.pool);
        let reuse = !fresh && config.send_proxy.is_none();
        if config.protocol != UpstreamProtocol::Http2 {
            while reuse && let Some(mut held) = self.one.take_idle(id, limits, Instant::now()) {
                // An error here is a connection that died while it was idle.
                if let Some(link) = held.as_mut()
                    && link.sender.ready().await.is_ok()
                {
                    note(Noted::Reused);
                    return Ok((Link::One(held), true));
                }
            }
        }
        if config.protocol == UpstreamProtocol::Http1 {
            return self.one(attempt, client, note).await;
        }
        loop {
            match self.many.lease(id, limits, Http2::is_ready, Instant::now()) {
                Offer::Ready(lease) => {
                    note(Noted::Reused);
                    return Ok((Link::Many(lease), true));
                }
                Offer::Make(making) => {
                    let connection = connected(attempt, client, note).await?;
                    if !connection.http2 {
                        drop(making);
                        return match self.one.open(id, limits) {
                            Taken::Open(opening) => Ok((http1(opening, connection, attempt).await?, false)),
                            Taken::Idle(held) => Ok((Link::One(held), true)),
                            Taken::Wait(_) | Taken::Full => Err(busy()),
                        };
                    }
                    let (sender, permit) = http2(connection, attempt).await?;
                    return Ok((Link::Many(making.made(sender, permit, Instant::now())), false));
                }
                Offer::Wait(queue) => {
                    let permit = attempt.cluster().circuit().pending.enter();
                    if permit.is_err() || !queue.wait().await {
                        return Err(busy());
                    }
                }
                Offer::Full => return Err(busy()),
            }
        }
    }

    /// A link that carries one request at a time, where no idle one was to be had.
    async fn one(
        &self,
        attempt: &Attempt,
        client: Client,
        note: &mut impl FnMut(Noted),
    ) -> Result<(Link<B>, bool), Refusal> {
        let (id, limits) = (attempt.endpoint().id(), &attempt.cluster().config().pool);
        loop {
            let place = match self.one.open(id, limits) {
                Taken::Idle(held) => Place::Idle(held),
                Taken::Open(opening) => Place::Open(opening),
                Taken::Wait(waiting) => {
                    let _pending = attempt.cluster().circuit().pending.enter().map_err(|_| busy())?;
                    waiting.wait().await.ok_or_else(busy)?
                }
                Taken::Full => return Err(busy()),
            };
            match place {
                Place::Idle(mut held) => {
                    if let Some(link) = held.as_mut()
                        && link.sender.ready().await.is_ok()
                    {
                        note(Noted::Reused);
                        return Ok((Link::One(held), true));
                    }
                }
                Place::Open(opening) => {
                    let connection = connected(attempt, client, note).await?;
                    return Ok((http1(opening, connection, attempt).await?, false));
                }
            }
        }
    }
}

async fn connected(
    attempt: &Attempt,
    client: Client,
    note: &mut impl FnMut(Noted),
) -> Result<Connection, Refusal> {
    let (begun, endpoint) = (Instant::now(), attempt.endpoint());
    let made = connect::connect(attempt.cluster(), endpoint, Some(client)).await;
    note(Noted::Tried(endpoint.address(), begun.elapsed()));
    let connection = made.map_err(|error| refusal_of(&error, endpoint))?;
    note(Noted::Made);
    Ok(connection)
}

async fn http1<B: Sendable>(
    opening: Opening<Http1<B>>,
    connection: Connection,
    attempt: &Attempt,
) -> Result<Link<B>, Refusal> {
    let endpoint = attempt.endpoint().address();
    let Connection { stream, permit, .. } = connection;
    let expects = Expects::default();
    let stream = ResponseGate::new(stream, expects.clone(), READ_BUFFER);
    let (sender, connection) = http1::Builder::new()
        .max_headers(MAX_FIELDS)
        .max_buf_size(READ_BUFFER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| handshake(&error))?;
    spawn_local(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, %endpoint, "upstream connection failed");
        }
    });
    let link = Http1 { sender, expects };
    Ok(Link::One(opening.opened(link, permit, Instant::now())))
}

async fn http2<B: Sendable>(
    connection: Connection,
    attempt: &Attempt,
) -> Result<(Http2<B>, crate::upstream::circuit::Permit), Refusal> {
    let endpoint = attempt.endpoint().address();
    let Connection { stream, permit, .. } = connection;
    let (sender, connection) = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEAD)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_EVERY)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| handshake(&error))?;
    spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, %endpoint, "upstream connection failed");
        }
    });
    Ok((sender, permit))
}

fn handshake(error: &hyper::Error) -> Refusal {
    tracing::debug!(%error, "handshake failed");
    Reason::UpstreamReset.into()
}
