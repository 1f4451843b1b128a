//! HTTP by hyper: HTTP/2 from clients, HTTP/1.1 from clients, HTTP/1.1 to upstreams.
//!
//! hyper hides what the strict gate must see (line ends, fragments, the spelling of framing fields), so HTTP/1 bytes
//! go through [`gated_io`] first: hyper reads nothing that the gate has not let through. HTTP/2 has no such bytes;
//! its fields are judged by the same rules after hyper has decoded them.
//!
//! What this codec does not do: interim responses other than 100 are not passed on, `Expect: 100-continue` is
//! answered here, and no connection is upgraded.

use std::{
    pin::{Pin, pin},
    rc::Rc,
};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncReadExt, time::timeout};

mod beside;
pub(crate) mod body;
mod body_error;
pub(crate) mod client;
mod compress;
mod connect;
mod direct;
mod forward;
mod gated_io;
mod guarded_io;
mod head;
mod http2;
mod response_gate;
mod service;
pub(crate) mod side;
mod tunnel;
mod websocket;

use self::gated_io::{ConnectionState, GatedIo};
use super::{
    client::Client,
    gate::{HeadLimits, Version},
    h1_codec::{self, Ended},
    header_policy::Dialect,
    limits::{Codec, Limits},
    provenance::Provenance,
    socket::Socket,
    worker::{Counted, Worker},
};

/// What hyper leaves to the header policy.
const DIALECT: Dialect = Dialect {
    framing: false,
    expect: false,
    upgrade: false,
};

/// The first bytes of an HTTP/2 connection (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves one connection to its end.
pub(crate) fn serve(counted: Counted, stream: Socket, client: Client) -> impl Future<Output = ()> + 'static {
    let agreed = client.tls.as_ref().is_some_and(|tls| tls.http2);
    let by_bytes = !agreed && counted.worker().limits().codec == Codec::Bytes;
    let provenance = Rc::new(Provenance::new(client));
    async move {
        let worker = counted.worker();
        let (stream, first) = if by_bytes {
            match h1_codec::serve(worker, stream, &provenance).await {
                Ended::Closed => return,
                Ended::Declined(stream, unread) => (stream, unread),
            }
        } else {
            (stream, Vec::new())
        };
        // Boxed, as the task of a connection is as large as what it may have to hold, and most of them are HTTP/1.
        Box::pin(serve_by_hyper(worker, stream, first, provenance)).await;
    }
}

async fn serve_by_hyper(worker: &Rc<Worker>, mut stream: Socket, first: Vec<u8>, provenance: Rc<Provenance>) {
    let Some(first) = first_bytes(worker, &mut stream, first).await else {
        return;
    };
    if first.starts_with(PREFACE) {
        Box::pin(http2::serve(worker, stream, first, provenance)).await;
    } else {
        Box::pin(serve_http1(worker, stream, first, provenance)).await;
    }
}

/// Reads on until the bytes cannot or must be an HTTP/2 preface; `None` if nothing came.
async fn first_bytes(worker: &Worker, stream: &mut Socket, mut first: Vec<u8>) -> Option<Vec<u8>> {
    if first.len() >= PREFACE.len() || !PREFACE.starts_with(&first) {
        return Some(first);
    }
    first.reserve(gated_io::READ_SIZE);
    let mut stop = worker.stop();
    let read = async {
        loop {
            let read = stream.read_buf(&mut first).await.ok()?;
            if read == 0 {
                return None;
            }
            if first.len() >= PREFACE.len() || !PREFACE.starts_with(&first) {
                return Some(());
            }
        }
    };
    tokio::select! {
        biased;
        read = timeout(worker.limits().head_timeout, read) => read.ok().flatten()?,
        _ = stop.wait_for(|stop| *stop) => return None,
    }
    Some(first)
}

async fn serve_http1(worker: &Rc<Worker>, stream: Socket, first: Vec<u8>, provenance: Rc<Provenance>) {
    let state = Rc::new(ConnectionState::default());
    let io = GatedIo::new(stream, first, Limits::clone(&worker.limits()), Rc::clone(&state));
    let service = service_fn(|request: Request<Incoming>| {
        let (worker, state, provenance) = (Rc::clone(worker), Rc::clone(&state), Rc::clone(&provenance));
        // Boxed, as hyper gives a connection back only if its service can be moved.
        Box::pin(service::answer(
            worker,
            state,
            provenance,
            Version::Http11,
            request,
        ))
    });
    // The gate bounds heads before hyper sees them; hyper's buffer only has to hold one.
    let HeadLimits { head, fields, .. } = worker.limits().head;
    let mut connection = http1::Builder::new()
        .half_close(true)
        .max_headers(fields)
        .max_buf_size(head.max(MIN_HYPER_BUFFER))
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(io), service);
    let mut stop = worker.stop();
    let mut asked = pin!(stop.wait_for(|stop| *stop));
    let mut stopping = false;
    let result = std::future::poll_fn(|context| {
        if !stopping && asked.as_mut().poll(context).is_ready() {
            stopping = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        connection.poll_without_shutdown(context)
    })
    .await;
    let io = connection.into_parts().io.into_inner();
    if let Err(error) = result {
        tracing::debug!(%error, peer = %provenance.client.peer, "connection failed");
        if state.http10.get() {
            // What ends with the connection must not look whole.
            io.into_stream().abort();
        }
        return;
    }
    let unread = io.has_unread();
    h1_codec::close(io.into_stream(), unread || state.refused.get()).await;
}

/// hyper refuses a buffer smaller than this.
const MIN_HYPER_BUFFER: usize = 8192;
