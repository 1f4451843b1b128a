//! Bytes of a stream's upgrade, to an upstream and back, in constant memory, until both sides have finished, one breaks,
//! nothing moves for too long, or the worker stops.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes},
    time::{sleep, timeout},
};

use crate::gateway::{exchange::Exchange, refusal::Reason};

/// Bytes on their way, for each direction.
const BUFFER: usize = 16 * 1024;

/// Passes bytes until the end, and closes the account; `held` is let go of then.
pub(super) async fn pass<U, H>(
    mut exchange: Box<Exchange>,
    client: OnUpgrade,
    upstream: impl Future<Output = Option<U>>,
    held: H,
) where
    U: AsyncRead + AsyncWrite + Unpin,
{
    let worker = Rc::clone(exchange.worker());
    let idle = worker.limits().tunnel_idle_timeout;
    let (up, down) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let client = async { client.await.ok().map(TokioIo::new) };
    let sides = async { tokio::join!(client, upstream) };
    // The upstream has answered, the client is being answered: neither waits for long.
    if let Ok((Some(client), Some(upstream))) = timeout(worker.limits().head_timeout, sides).await {
        let mut client = Counted::new(client, Rc::clone(&up));
        let mut upstream = Counted::new(upstream, Rc::clone(&down));
        let mut stop = worker.stop();
        tokio::select! {
            // How it ended is the two ends' business.
            _ = copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER, BUFFER) => {}
            () = stands_still(idle, &up, &down) => exchange.broke(Reason::TunnelIdle),
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
    exchange.received(up.get());
    exchange.returned(down.get());
    exchange.ended(Instant::now(), Duration::MAX);
    drop((exchange, held));
}

/// Ends once nothing has moved for `limit`.
async fn stands_still(limit: Duration, up: &Cell<u64>, down: &Cell<u64>) {
    loop {
        let before = (up.get(), down.get());
        sleep(limit).await;
        if before == (up.get(), down.get()) {
            return;
        }
    }
}

/// A stream whose incoming bytes are counted.
struct Counted<T> {
    inner: T,
    bytes: Rc<Cell<u64>>,
}

impl<T> Counted<T> {
    fn new(inner: T, bytes: Rc<Cell<u64>>) -> Self {
        Self { inner, bytes }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.bytes
            .set(self.bytes.get() + (buffer.filled().len() - before) as u64);
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
