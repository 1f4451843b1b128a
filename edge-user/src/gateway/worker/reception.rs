//! How a worker takes connections in: counted, through their door, and on to their service.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use tokio::{
    net::{TcpListener, TcpStream},
    task::spawn_local,
    time::sleep,
};

use super::Worker;
use crate::{
    gateway::{
        closing::Closing,
        connections::{Slot, TurnedAway},
        door::Door,
        entrance::Entrance,
        hyper_codec,
        limits::BACKLOG,
        socket::Socket,
    },
    offence::Offender,
};

/// How long a worker without file descriptors or memory waits before it accepts again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until a stop or until the entrance is closed, then takes what has come, and closes the listening socket.
pub(super) async fn accept(worker: Rc<Worker>, listener: TcpListener, entrance: Arc<Entrance>) {
    let (mut stop, mut closed) = (worker.stop(), entrance.closed());
    let local = listener
        .local_addr()
        .unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
            _ = closed.wait_for(|closed| *closed) => break,
        };
        match accepted {
            Ok((stream, peer)) => admit(&worker, &entrance.door(), local, stream, peer),
            Err(error) => {
                tracing::debug!(%error, "accept failed");
                if !matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
                ) {
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    // Whoever is in the kernel's queue was accepted as far as it knows.
    for _ in 0..BACKLOG {
        let Some(Ok((stream, peer))) = listener.accept().now_or_never() else {
            return;
        };
        admit(&worker, &entrance.door(), local, stream, peer);
    }
}

/// Counts a new connection and serves it, or turns it away.
fn admit(worker: &Rc<Worker>, door: &Arc<Door>, local: SocketAddr, stream: TcpStream, peer: SocketAddr) {
    if worker.is_kept_out(peer.ip()) {
        worker.closed(Offender::peer(peer.ip()), Closing::Banned);
        return;
    }
    let connections = &worker.shared.connections;
    let slot = if door.is_proxied(peer) {
        connections.open_one()
    } else {
        connections.open_for(peer.ip())
    };
    let slot = match slot {
        Ok(slot) => slot,
        Err(away) => {
            let closing = match away {
                TurnedAway::Peer => Closing::TooMany,
                TurnedAway::Full => Closing::Full,
            };
            worker.closed(Offender::peer(peer.ip()), closing);
            if away == TurnedAway::Full && door.tls().is_none() {
                turn_away(&stream);
            }
            return;
        }
    };
    if let Some(doorman) = &worker.doorman {
        doorman.arrived(peer.ip(), local.port(), Instant::now());
    }
    let counted = Counted::new(Rc::clone(worker), slot);
    // Most of all connections wait most of the time, so what one of them holds is kept small: its way in is a task of
    // its own size where there is one.
    // What arrives at a socket of one address was sent to that; else the kernel is asked.
    let local = if local.ip().is_unspecified() {
        stream.local_addr().unwrap_or(peer)
    } else {
        local
    };
    match door.stands_open(local, peer) {
        Some(client) => {
            spawn_local(hyper_codec::serve(counted, Socket::Plain(stream), client));
        }
        None => {
            spawn_local(attend(counted, Arc::clone(door), stream, (local, peer)));
        }
    }
}

/// Takes a connection through its door, and serves it to its end.
async fn attend(counted: Counted, door: Arc<Door>, stream: TcpStream, ends: (SocketAddr, SocketAddr)) {
    // Boxed: it is large, and over before the connection is.
    if let Some(served) = Box::pin(enter(counted, door, stream, ends)).await {
        served.await;
    }
}

/// Takes a connection through its door; answers with its service.
async fn enter(
    mut counted: Counted,
    door: Arc<Door>,
    stream: TcpStream,
    (local, peer): (SocketAddr, SocketAddr),
) -> Option<Pin<Box<dyn Future<Output = ()>>>> {
    let worker = Rc::clone(&counted.worker);
    let limits = worker.limits();
    let mut stop = worker.stop();
    let entered = tokio::select! {
        biased;
        entered = door.enter(stream, (local, peer), &mut counted.slot, &limits, &worker.turns) => entered,
        _ = stop.wait_for(|stop| *stop) => return None,
    };
    match entered {
        Ok((_, client)) if worker.is_kept_out(client.address.ip()) => {
            worker.closed(client.offender(), Closing::Banned);
            None
        }
        Ok((socket, client)) => Some(Box::pin(hyper_codec::serve(counted, socket, client))),
        Err((closing, client)) => {
            tracing::debug!(listener = door.name(), %peer, why = closing.slug(), "connection closed");
            worker.closed(client.offender(), closing);
            None
        }
    }
}

/// Tells a client that the gateway is full, if that can be done at once.
fn turn_away(stream: &TcpStream) {
    const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n";
    // A new socket's send buffer is empty; if it takes nothing, closing says enough.
    let _ = stream.try_write(FULL);
}

/// A connection of this worker, counted while it lives.
pub(crate) struct Counted {
    worker: Rc<Worker>,
    slot: Slot,
}

impl Counted {
    fn new(worker: Rc<Worker>, slot: Slot) -> Self {
        worker.open.set(worker.open.get() + 1);
        Self { worker, slot }
    }

    /// Whose it is.
    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.worker.open.set(self.worker.open.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    /// Ten thousand connections that wait hold this ten thousand times.
    #[test]
    fn a_connection_that_waits_is_small() {
        type Arrived = (Counted, Arc<Door>, TcpStream, (SocketAddr, SocketAddr));
        let plain =
            size(|(counted, stream, client)| hyper_codec::serve(counted, Socket::Plain(stream), client));
        let entering = size(|(counted, door, stream, ends): Arrived| attend(counted, door, stream, ends));
        assert!(plain <= 512, "{plain} bytes");
        assert!(entering <= 192, "{entering} bytes");
    }
}
