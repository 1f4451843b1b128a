//! Binds the listeners: one socket per worker and listener, all before anything starts.
//!
//! The kernel spreads connections over the sockets of one address (`SO_REUSEPORT`), so no worker hands a connection
//! to another. The first socket of an address is bound without the option, as a test whether somebody else has it.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{door::Door, entrance::Entrance, limits::BACKLOG, pool::Pool};
use crate::config::Listener;

/// A listener that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("listener {listener}: cannot bind {address}: {}", self.why())]
pub struct BindError {
    /// Name of the listener.
    pub listener: String,
    /// Its address.
    pub address: SocketAddr,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

impl BindError {
    /// The reason in a user's words.
    fn why(&self) -> String {
        match self.source.kind() {
            io::ErrorKind::AddrInUse => "the port is taken".to_owned(),
            io::ErrorKind::PermissionDenied => {
                "not permitted; ports below 1024 need root or CAP_NET_BIND_SERVICE".to_owned()
            }
            io::ErrorKind::AddrNotAvailable => "no interface has this address".to_owned(),
            _ => self.source.to_string(),
        }
    }

    /// Whether somebody else has the port.
    pub fn is_taken(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

/// The sockets of one worker, in the listeners' order.
pub type Sockets = Vec<TcpListener>;

/// Name and real address of each listener.
pub type Addresses = Vec<(String, SocketAddr)>;

/// What was bound.
pub struct Bound {
    /// The sockets by worker.
    pub by_worker: Vec<Sockets>,
    /// Names and real addresses.
    pub addresses: Addresses,
    /// By listener: sockets that were handed over beyond one a worker.
    pub beyond: Vec<Vec<TcpListener>>,
}

/// Binds each listener once per worker, but for sockets that are in `pool`.
pub fn bind(listeners: &[Listener], workers: usize, pool: &mut Pool) -> Result<Bound, BindError> {
    let mut bound = Bound {
        by_worker: (0..workers)
            .map(|_| Vec::with_capacity(listeners.len()))
            .collect(),
        addresses: Vec::with_capacity(listeners.len()),
        beyond: Vec::with_capacity(listeners.len()),
    };
    for listener in listeners {
        let inherited = pool.take(listener);
        let (mut own, address) = if inherited.is_empty() {
            bind_listener(listener, workers, true)?
        } else {
            (complete(listener, inherited, workers)?, listener.address)
        };
        bound.beyond.push(own.split_off(workers.min(own.len())));
        for (sockets, socket) in bound.by_worker.iter_mut().zip(own) {
            sockets.push(socket);
        }
        bound.addresses.push((listener.name.clone(), address));
    }
    Ok(bound)
}

/// A socket for each worker, given some that are bound: they are shared where no more can be had.
fn complete(
    listener: &Listener,
    inherited: Vec<TcpListener>,
    workers: usize,
) -> Result<Vec<TcpListener>, BindError> {
    let fault = |source| BindError {
        listener: listener.name.clone(),
        address: listener.address,
        source,
    };
    let mut sockets = inherited;
    for socket in &sockets {
        socket.set_nonblocking(true).map_err(fault)?;
        SockRef::from(socket).set_tcp_nodelay(true).map_err(fault)?;
    }
    let is_shared = sockets
        .iter()
        .all(|socket| SockRef::from(socket).reuse_port().unwrap_or(false));
    let bound = sockets.len();
    while sockets.len() < workers {
        let more = if is_shared {
            bind_one(listener.address, listener.dual_stack)
        } else {
            sockets[sockets.len() % bound].try_clone()
        };
        sockets.push(more.map_err(fault)?);
    }
    Ok(sockets)
}

/// Binds one listener once per worker. `alone` refuses an address that somebody else has too.
pub fn bind_listener(
    listener: &Listener,
    workers: usize,
    alone: bool,
) -> Result<(Vec<TcpListener>, SocketAddr), BindError> {
    let fault = |source| BindError {
        listener: listener.name.clone(),
        address: listener.address,
        source,
    };
    let mut address = listener.address;
    if alone && address.port() != 0 {
        probe(address, listener.dual_stack).map_err(fault)?;
    }
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = bind_one(address, listener.dual_stack).map_err(fault)?;
        // A port of 0 is chosen by the kernel for the first worker; the others share it.
        address = socket.local_addr().map_err(fault)?;
        sockets.push(socket);
    }
    Ok((sockets, address))
}

/// The entrance that these sockets are.
pub(crate) fn entrance<'s>(
    listener: &Listener,
    address: SocketAddr,
    door: Door,
    sockets: impl IntoIterator<Item = &'s TcpListener>,
) -> Result<Entrance, BindError> {
    let doubles: Result<Vec<_>, _> = sockets.into_iter().map(TcpListener::try_clone).collect();
    let doubles = doubles.map_err(|source| BindError {
        listener: listener.name.clone(),
        address,
        source,
    })?;
    Ok(Entrance::new(listener, address, door, doubles))
}

/// Fails if another process has the address, be it with `SO_REUSEPORT` itself.
fn probe(address: SocketAddr, dual_stack: bool) -> io::Result<()> {
    let socket = open(address, dual_stack)?;
    socket.bind(&address.into())
}

fn bind_one(address: SocketAddr, dual_stack: bool) -> io::Result<TcpListener> {
    let socket = open(address, dual_stack)?;
    socket.set_reuse_port(true)?;
    // Accepted sockets inherit it (Linux). Without it small responses wait for an acknowledgement.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn open(address: SocketAddr, dual_stack: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!dual_stack)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: SocketAddr) -> Listener {
        Listener::plain("web", address)
    }

    #[test]
    fn workers_share_one_port() {
        let all = [listener(SocketAddr::from(([127, 0, 0, 1], 0)))];
        let Bound {
            by_worker: sockets,
            addresses,
            ..
        } = bind(&all, 3, &mut Pool::default()).expect("a free port");
        assert_ne!(addresses[0].1.port(), 0);
        for worker in &sockets {
            assert_eq!(worker[0].local_addr().expect("bound"), addresses[0].1);
        }
    }

    #[test]
    fn a_taken_port_is_named_even_if_its_owner_shares_it() {
        let all = [listener(SocketAddr::from(([127, 0, 0, 1], 0)))];
        let held = bind(&all, 1, &mut Pool::default()).expect("a free port");
        let taken = [listener(held.addresses[0].1)];
        let Err(error) = bind(&taken, 1, &mut Pool::default()) else {
            panic!("taken");
        };
        assert!(error.is_taken());
        assert!(
            error.to_string().contains("listener web: cannot bind 127.0.0.1:"),
            "{error}"
        );
        assert!(error.to_string().contains("the port is taken"), "{error}");
    }

    #[test]
    fn an_address_of_nobody_is_named() {
        let foreign = [listener(SocketAddr::from(([192, 0, 2, 1], 8080)))];
        let Err(error) = bind(&foreign, 1, &mut Pool::default()) else {
            panic!("not ours");
        };
        assert!(
            error.to_string().contains("no interface has this address"),
            "{error}"
        );
    }

    #[test]
    fn sockets_that_are_handed_over_are_taken_and_completed_and_none_is_left_alone() {
        let all = [listener(SocketAddr::from(([127, 0, 0, 1], 0)))];
        let first = bind(&all, 2, &mut Pool::default()).expect("a free port");
        let address = first.addresses[0].1;
        let doubles = || {
            let sockets = first.by_worker.iter().flatten();
            sockets.map(|one| one.try_clone().expect("a double")).collect()
        };
        for (workers, beyond) in [(1, 1), (2, 0), (3, 0)] {
            let mut pool = Pool::new(doubles());
            let bound = bind(&[listener(address)], workers, &mut pool).expect("taken over");
            assert!(pool.rest().is_empty());
            assert_eq!(bound.by_worker.len(), workers);
            assert!(bound.by_worker.iter().all(|sockets| sockets.len() == 1));
            assert_eq!(bound.beyond[0].len(), beyond);
        }
        let elsewhere =
            Pool::new(doubles()).take(&listener(SocketAddr::from(([127, 0, 0, 2], address.port()))));
        assert!(elsewhere.is_empty());
    }
}
