//! CONNECT over HTTP/2 (RFC 9113, 8.5): a stream's bytes to a connection of its own, which the route's upstream decides
//! about and not the client.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use http_body_util::Full;
use hyper::{body::Incoming, ext::Protocol, upgrade::OnUpgrade};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::spawn_local,
};

use super::{
    body::{InFlight, ResponseBody},
    forward::Outgoing,
    head::HeaderMapSink,
    tunnel::pass,
};
use crate::gateway::{
    balance::Target,
    exchange::Exchange,
    gate::Version,
    h1_codec::{Link, UpstreamIo, dial},
    refusal::Refusal,
};

/// The client's side of a CONNECT without `:protocol`; `None` for every other request, and over HTTP/1.
pub(super) fn asks(request: &mut http::Request<Incoming>, version: Version) -> Option<OnUpgrade> {
    let plain = version == Version::Http2
        && request.method() == Method::CONNECT
        && request.extensions().get::<Protocol>().is_none();
    plain.then(|| hyper::upgrade::on(request))
}

/// Connects to the target, and has bytes pass from the 200 on.
pub(super) async fn answer(
    mut exchange: Box<Exchange>,
    mut target: Target,
    client: OnUpgrade,
    outgoing: &Outgoing<'_>,
    in_flight: InFlight,
) -> Result<Response<ResponseBody>, (Refusal, Box<Exchange>)> {
    let worker = Rc::clone(exchange.worker());
    let ends = outgoing.provenance.client.ends();
    let link = match dial(&worker, &mut exchange, &mut target, ends).await {
        Ok(link) => link,
        Err(refusal) => return Err((refusal, exchange)),
    };
    exchange.answered(Instant::now(), 200);
    let mut sink = HeaderMapSink(HeaderMap::new());
    exchange.tell(&mut sink);
    let mut response = Response::new(ResponseBody::Own(Full::new(Bytes::new())));
    *response.headers_mut() = sink.0;
    let upstream = async { Some(Dialled(link)) };
    spawn_local(pass(exchange, client, upstream, (target, in_flight)));
    Ok(response)
}

/// The upstream's side.
struct Dialled(Link<UpstreamIo>);

impl AsyncRead for Dialled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(self.0.io()).poll_read(context, buffer)
    }
}

impl AsyncWrite for Dialled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.0.io()).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.0.io()).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.0.io()).poll_shutdown(context)
    }
}
