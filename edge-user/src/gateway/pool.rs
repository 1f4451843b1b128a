//! Listening sockets that somebody else has bound: another process that hands over, or the service manager.

use std::net::TcpListener;

use socket2::SockRef;

use crate::config::Listener;

/// Sockets that listeners are to take before they bind their own.
#[derive(Debug, Default)]
pub struct Pool(Vec<TcpListener>);

impl Pool {
    /// These sockets.
    pub fn new(sockets: Vec<TcpListener>) -> Self {
        Self(sockets)
    }

    /// Those that are at the listener's address.
    pub(super) fn take(&mut self, listener: &Listener) -> Vec<TcpListener> {
        let fits = |socket: &mut TcpListener| {
            socket
                .local_addr()
                .is_ok_and(|address| address == listener.address)
                && (!listener.address.is_ipv6()
                    || SockRef::from(&*socket)
                        .only_v6()
                        .is_ok_and(|only| only != listener.dual_stack))
        };
        self.0.extract_if(.., fits).collect()
    }

    /// Those that no listener has taken.
    pub fn rest(&self) -> &[TcpListener] {
        &self.0
    }
}
