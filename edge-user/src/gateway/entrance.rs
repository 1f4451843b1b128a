//! A listener while the gateway runs: its sockets, which stay as long as its address does, and its door, which a reload
//! exchanges.
//!
//! One entrance for all workers. Connections that were accepted keep the door they came through.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::door::Door;
use crate::config::Listener;

/// A listener in force.
pub(crate) struct Entrance {
    /// As configured; the port may be 0.
    configured: (SocketAddr, bool),
    /// Where it is really.
    address: SocketAddr,
    door: ArcSwap<Door>,
    closed: watch::Sender<bool>,
    /// Doubles of the workers' sockets, for whoever takes over.
    sockets: Mutex<Vec<TcpListener>>,
}

impl Entrance {
    /// A listener whose `sockets` are bound to `address`.
    pub(crate) fn new(
        listener: &Listener,
        address: SocketAddr,
        door: Door,
        sockets: Vec<TcpListener>,
    ) -> Self {
        Self {
            configured: (listener.address, listener.dual_stack),
            address,
            door: ArcSwap::from_pointee(door),
            closed: watch::channel(false).0,
            sockets: Mutex::new(sockets),
        }
    }

    /// Whether the sockets are what this listener asks for.
    pub(crate) fn is_at(&self, listener: &Listener) -> bool {
        self.configured == (listener.address, listener.dual_stack)
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a connection that comes in now meets.
    pub(crate) fn door(&self) -> Arc<Door> {
        self.door.load_full()
    }

    /// Exchanges the door.
    pub(crate) fn rehang(&self, door: Door) {
        self.door.store(Arc::new(door));
    }

    /// Has every worker accept what has come and then close its socket.
    pub(crate) fn close(&self) {
        self.sockets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.closed.send_replace(true);
    }

    /// Tells when it is closed.
    pub(crate) fn closed(&self) -> watch::Receiver<bool> {
        self.closed.subscribe()
    }

    /// The doubles of its sockets.
    pub(crate) fn with_sockets<T>(&self, look: impl FnOnce(&[TcpListener]) -> T) -> T {
        look(&self.sockets.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
