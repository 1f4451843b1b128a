//! Connections to upstreams by hyper: the last one used, or a new one.

use std::{
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::spawn_local, time::timeout};

use super::body::RequestBody;
use crate::{
    gateway::{
        balance::Target,
        exchange::Exchange,
        gate::MAX_FIELDS,
        refusal::{Reason, Refusal},
    },
    upstream::pool::Pool,
};

/// Most bytes of an upstream's answer that wait for a client: hyper fills its buffer before it is asked to.
const READ_BUFFER: usize = 64 * 1024;

/// Idle connections of a worker.
pub(crate) type HyperPool = Pool<SendRequest<RequestBody>>;

/// A connection that is ready for a request.
pub(super) struct Acquired {
    pub(super) connection: SendRequest<RequestBody>,
    pub(super) endpoint: SocketAddr,
    pub(super) reused: bool,
}

/// Finds a connection to one of the target's endpoints; only a new one if `fresh`.
pub(super) async fn acquire(
    exchange: &mut Exchange,
    target: &Target,
    fresh: bool,
) -> Result<Acquired, Refusal> {
    let site = Rc::clone(exchange.site());
    let worker = Rc::clone(exchange.worker());
    let connect_timeout = site
        .plan()
        .upstream(target.upstream())
        .map_or(Duration::ZERO, |upstream| upstream.connect_timeout);
    let mut last = Reason::NoEndpoint;
    for endpoint in target.endpoints(site.plan()) {
        while !fresh && let Some(mut connection) = worker.hyper_pool().take(endpoint, Instant::now()) {
            // An error here is a connection that died while it was idle.
            if connection.ready().await.is_ok() {
                site.counters().reused();
                exchange.connected(endpoint, Duration::ZERO);
                return Ok(Acquired {
                    connection,
                    endpoint,
                    reused: true,
                });
            }
        }
        let begun = Instant::now();
        let connected = timeout(connect_timeout, connect(endpoint)).await;
        exchange.connected(endpoint, begun.elapsed());
        match connected {
            Ok(Ok(connection)) => {
                site.counters().connected();
                return Ok(Acquired {
                    connection,
                    endpoint,
                    reused: false,
                });
            }
            Ok(Err(())) => last = Reason::UpstreamUnreachable,
            Err(_) => last = Reason::UpstreamConnectTimeout,
        }
    }
    Err(last.into())
}

async fn connect(endpoint: SocketAddr) -> Result<SendRequest<RequestBody>, ()> {
    let stream = TcpStream::connect(endpoint).await.map_err(|error| {
        tracing::debug!(%error, %endpoint, "cannot connect");
    })?;
    // Without it small requests wait for an acknowledgement; if it cannot be set they do.
    let _ = stream.set_nodelay(true);
    let (sender, connection) = Builder::new()
        .max_headers(MAX_FIELDS)
        .max_buf_size(READ_BUFFER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| tracing::debug!(%error, %endpoint, "handshake failed"))?;
    spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, %endpoint, "upstream connection failed");
        }
    });
    Ok(sender)
}
