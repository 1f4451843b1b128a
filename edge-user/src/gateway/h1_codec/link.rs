//! Connections to upstreams: the last one used, or a new one.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, time::timeout};

use super::side::{Side, Transport};
use crate::{
    gateway::{
        balance::Target,
        exchange::Exchange,
        refusal::{Reason, Refusal},
        worker::Worker,
    },
    upstream::pool::Pool,
};

/// What upstreams are spoken to over.
pub(crate) type UpstreamIo = TcpStream;

/// Idle connections of a worker.
pub(crate) type Links = Pool<UpstreamIo>;

/// A connection that is ready for a request.
#[derive(Debug)]
pub(super) struct Link<U> {
    pub(super) side: Side<U>,
    pub(super) endpoint: SocketAddr,
    pub(super) reused: bool,
}

/// Finds a connection to one of the target's endpoints; only a new one if `fresh`.
pub(super) async fn acquire(
    worker: &Worker,
    exchange: &mut Exchange,
    target: &Target,
    fresh: bool,
    now: Instant,
) -> Result<Link<UpstreamIo>, Refusal> {
    let site = Rc::clone(exchange.site());
    let limit = site
        .plan()
        .upstream(target.upstream())
        .map_or(Duration::ZERO, |upstream| upstream.connect_timeout);
    let mut last = Reason::NoEndpoint;
    for endpoint in target.endpoints(site.plan()) {
        while !fresh && let Some(io) = worker.h1().links().take(endpoint, now) {
            let mut idle = Side::new(io, Vec::new());
            if is_quiet(worker, &mut idle).await {
                site.counters().reused();
                exchange.connected(endpoint, Duration::ZERO);
                return Ok(Link {
                    side: idle,
                    endpoint,
                    reused: true,
                });
            }
        }
        let begun = Instant::now();
        let connected = timeout(limit, connect(endpoint)).await;
        exchange.connected(endpoint, begun.elapsed());
        match connected {
            Ok(Ok(io)) => {
                site.counters().connected();
                return Ok(Link {
                    side: Side::new(io, Vec::new()),
                    endpoint,
                    reused: false,
                });
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, %endpoint, "cannot connect");
                last = Reason::UpstreamUnreachable;
            }
            Err(_) => last = Reason::UpstreamConnectTimeout,
        }
    }
    Err(last.into())
}

/// Whether an idle connection has neither ended nor said anything that nobody asked for. Asks the runtime, not the
/// kernel, unless something did arrive.
async fn is_quiet<U: Transport>(worker: &Worker, side: &mut Side<U>) -> bool {
    poll_fn(|context| Poll::Ready(side.poll_fill(context, worker.h1().buffers(), false).is_pending())).await
}

async fn connect(endpoint: SocketAddr) -> io::Result<UpstreamIo> {
    let stream = TcpStream::connect(endpoint).await?;
    // Without it small requests wait for an acknowledgement; if it cannot be set they do.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}
