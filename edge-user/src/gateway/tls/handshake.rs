//! One handshake: within its time, and without keeping other connections waiting.
//!
//! Signing takes the processor for tens to hundreds of microseconds, and a worker has one. A worker signs for one
//! handshake at a time, and after each signature everything else that is ready has its turn; a flood of handshakes
//! queues up behind itself.

use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    task::Poll,
};

use rustls::server::Acceptor;
use tokio::{
    net::TcpStream,
    sync::Semaphore,
    task::yield_now,
    time::{Instant, timeout_at},
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use super::Terminator;
use crate::{
    config::certificate,
    gateway::{client::Secured, closing::Closing},
};

/// Ends the client's TLS; answers with the stream inside it and what was agreed on.
///
/// # Errors
/// Why the connection is closed instead.
pub(crate) async fn accept(
    terminator: &Terminator,
    turns: &Semaphore,
    stream: TcpStream,
) -> Result<(TlsStream<TcpStream>, Secured), Closing> {
    let deadline = Instant::now() + terminator.settings().handshake_timeout;
    let handshake = async {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream)
            .await
            .map_err(|error| why(&error))?;
        // The semaphore is never closed; if it were, there would be no order among handshakes, and no more.
        let turn = turns.acquire().await;
        let mut rest = pin!(hello.into_stream(terminator.config()));
        // The first step signs.
        let first = poll_fn(|context| Poll::Ready(rest.as_mut().poll(context))).await;
        yield_now().await;
        drop(turn);
        match first {
            Poll::Ready(ended) => ended,
            Poll::Pending => rest.await,
        }
        .map_err(|error| why(&error))
    };
    let stream = timeout_at(deadline, handshake)
        .await
        .map_err(|_| Closing::TlsTimeout)??;
    let secured = secured(terminator, &stream);
    Ok((stream, secured))
}

fn why(error: &io::Error) -> Closing {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        Some(
            rustls::Error::InvalidMessage(_)
            | rustls::Error::InappropriateMessage { .. }
            | rustls::Error::InappropriateHandshakeMessage { .. }
            | rustls::Error::DecryptError
            | rustls::Error::PeerSentOversizedRecord,
        ) => Closing::TlsMalformed,
        Some(_) => Closing::TlsRefused,
        None => Closing::TlsGone,
    }
}

fn secured(terminator: &Terminator, stream: &TlsStream<TcpStream>) -> Secured {
    let (_, session) = stream.get_ref();
    let settings = terminator.settings();
    let mut identity = Vec::new();
    if let Some(leaf) = session.peer_certificates().and_then(<[_]>::first) {
        if let Some(header) = &settings.subject_header {
            identity.push((header.clone(), visible(&certificate::subject(leaf))));
        }
        if let Some(header) = &settings.fingerprint_header {
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, leaf);
            identity.push((header.clone(), hex(digest.as_ref())));
        }
    }
    Secured {
        http2: session.alpn_protocol() == Some(b"h2"),
        name: session.server_name().map(Into::into),
        identity,
    }
}

/// A name as a field value: what is not visible ASCII is percent-encoded, and so is `%`.
fn visible(text: &str) -> Vec<u8> {
    let mut value = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            value.push(byte);
        } else {
            value.push(b'%');
            value.extend_from_slice(&hex(&[byte]));
        }
    }
    value
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .collect()
}
