//! Connections to upstreams: the last one used, or a new one.

use std::{
    future::poll_fn,
    task::Poll,
    time::{Duration, Instant},
};

use super::side::Side;
use crate::{
    gateway::{
        balance::{Target, busy, refusal_of},
        exchange::Exchange,
        refusal::{Reason, Refusal},
        worker::Worker,
    },
    upstream::{
        attempt::Attempt,
        connect,
        pool::{Held, Opening, Place, Pool, Taken},
        proxy_header::Client,
        quiet,
        stream::Stream,
    },
};

/// What upstreams are spoken to over.
pub(crate) type UpstreamIo = Stream;

/// Connections of a worker.
pub(crate) type Links = Pool<UpstreamIo>;

/// A connection that is ready for a request, and the try that it is for.
#[derive(Debug)]
pub(crate) struct Link<U> {
    pub(super) side: Side<U>,
    pub(super) reused: bool,
    pub(super) attempt: Attempt,
    /// Its place in the pool; what belongs there is in `side` until it is put back.
    place: Held<U>,
}

impl Link<UpstreamIo> {
    /// The connection itself, on which nothing was read.
    pub(crate) fn io(&mut self) -> &mut UpstreamIo {
        &mut self.side.io
    }

    /// Keeps the connection for another request.
    pub(super) fn put_back(self, now: Instant) {
        let Self {
            side,
            attempt,
            mut place,
            ..
        } = self;
        if attempt.cluster().config().send_proxy.is_none() {
            *place = Some(side.into_parts().0);
            place.put_back(now);
        }
    }
}

/// Finds a connection for a try; only a new one if `fresh`. What cannot be connected to has seen nothing of the
/// request, so the next endpoint is tried.
pub(super) async fn acquire(
    worker: &Worker,
    exchange: &mut Exchange,
    target: &mut Target,
    mut attempt: Attempt,
    mut fresh: bool,
    client: Client,
    now: Instant,
) -> Result<Link<UpstreamIo>, Refusal> {
    loop {
        let refusal = match find(worker, exchange, &attempt, fresh, client, now).await {
            Ok((side, place, reused)) => {
                return Ok(Link {
                    side,
                    reused,
                    attempt,
                    place,
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

/// Connects for a tunnel, to one endpoint after the other: always anew, as what was said before on a connection is a
/// part of what its other end hears.
pub(crate) async fn dial(
    worker: &Worker,
    exchange: &mut Exchange,
    target: &mut Target,
    client: Client,
) -> Result<Link<UpstreamIo>, Refusal> {
    let begun = Instant::now();
    let mut attempt = target.attempt(false, begun)?;
    loop {
        let now = Instant::now();
        let refusal = match find(worker, exchange, &attempt, true, client, now).await {
            Ok((side, place, reused)) => {
                let now = Instant::now();
                exchange.sent(now);
                attempt.answered(200, now - begun, now);
                return Ok(Link {
                    side,
                    reused,
                    attempt,
                    place,
                });
            }
            Err(refusal) => refusal,
        };
        if refusal.reason == Reason::UpstreamBusy {
            return Err(refusal);
        }
        attempt.failed();
        drop(attempt);
        attempt = target.attempt(false, Instant::now()).map_err(|_| refusal)?;
    }
}

type Found = (Side<UpstreamIo>, Held<UpstreamIo>, bool);

async fn find(
    worker: &Worker,
    exchange: &mut Exchange,
    attempt: &Attempt,
    fresh: bool,
    client: Client,
    now: Instant,
) -> Result<Found, Refusal> {
    let (links, config) = (worker.h1().links(), attempt.cluster().config());
    let (endpoint, limits) = (attempt.endpoint(), &config.pool);
    let mut taken = if fresh || config.send_proxy.is_some() {
        links.open(endpoint.id(), limits)
    } else {
        links.take(endpoint.id(), limits, now)
    };
    loop {
        let place = match taken {
            Taken::Idle(held) => Place::Idle(held),
            Taken::Open(opening) => Place::Open(opening),
            Taken::Wait(waiting) => {
                let _pending = attempt.cluster().circuit().pending.enter().map_err(|_| busy())?;
                waiting.wait().await.ok_or_else(busy)?
            }
            Taken::Full => return Err(busy()),
        };
        match place {
            // What was used before is not wanted.
            Place::Idle(held) if fresh => {
                drop(held);
                taken = links.open(endpoint.id(), limits);
            }
            Place::Idle(mut held) => {
                let since = held.idle_since();
                if let Some(io) = held.take() {
                    let mut side = Side::new(io, Vec::new());
                    if is_quiet(worker, &mut side, since, now).await {
                        exchange.site().counters().reused();
                        exchange.connected(endpoint.address(), Duration::ZERO);
                        return Ok((side, held, true));
                    }
                }
                drop(held);
                taken = links.take(endpoint.id(), limits, now);
            }
            // Boxed: connecting is rare, and larger than all the rest of a waiting connection.
            Place::Open(opening) => return Box::pin(open(exchange, attempt, opening, client)).await,
        }
    }
}

async fn open(
    exchange: &mut Exchange,
    attempt: &Attempt,
    opening: Opening<UpstreamIo>,
    client: Client,
) -> Result<Found, Refusal> {
    let (begun, endpoint) = (Instant::now(), attempt.endpoint());
    let made = connect::connect(attempt.cluster(), endpoint, Some(client)).await;
    let now = Instant::now();
    exchange.connected(endpoint.address(), now - begun);
    let connection = made.map_err(|error| refusal_of(&error, endpoint))?;
    exchange.site().counters().connected();
    let mut place = opening.opened(connection.stream, connection.permit, now);
    match place.take() {
        Some(io) => Ok((Side::new(io, Vec::new()), place, false)),
        None => Err(Reason::UpstreamUnreachable.into()),
    }
}

/// Whether a connection that is idle since then has neither ended nor said anything that nobody asked for. The kernel is
/// asked only where the runtime may not know.
async fn is_quiet(
    worker: &Worker,
    side: &mut Side<UpstreamIo>,
    since: Option<Instant>,
    now: Instant,
) -> bool {
    let buffers = worker.h1().buffers();
    poll_fn(|context| Poll::Ready(side.poll_fill(context, buffers, false).is_pending())).await
        && (quiet::is_known(since, now) || quiet::is_silent(side.io.socket()))
}
