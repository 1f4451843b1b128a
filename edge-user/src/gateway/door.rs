//! What a listener asks of a connection before HTTP begins: whom it speaks for, and TLS.

use std::{net::SocketAddr, sync::Arc};

use ipnet::IpNet;
use tokio::{net::TcpStream, time::timeout};

use super::{
    client::Client,
    closing::Closing,
    connections::{Slot, TurnedAway},
    limits::Limits,
    proxy_protocol::{self, HeaderFault, Proxied},
    socket::Socket,
    tls::{Terminator, TlsFault, handshake},
};
use crate::config::Listener;

/// A listener as connections meet it.
#[derive(Debug)]
pub(crate) struct Door {
    name: String,
    proxy_protocol: Vec<IpNet>,
    trusted_proxies: Vec<IpNet>,
    tls: Option<Arc<Terminator>>,
}

impl Door {
    /// Reads what the listener needs; sessions of `previous` can be resumed if that is the same to clients.
    pub(crate) fn new(listener: &Listener, previous: Option<&Self>) -> Result<Self, TlsFault> {
        let before = previous.and_then(Self::tls).map(|tls| &**tls);
        let tls = match &listener.tls {
            Some(tls) => Some(Arc::new(Terminator::new(&listener.name, tls.clone(), before)?)),
            None => None,
        };
        Ok(Self {
            name: listener.name.clone(),
            proxy_protocol: listener.proxy_protocol.clone(),
            trusted_proxies: listener.trusted_proxies.clone(),
            tls,
        })
    }

    /// The listener's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What ends its TLS, if it has any.
    pub(crate) fn tls(&self) -> Option<&Arc<Terminator>> {
        self.tls.as_ref()
    }

    /// Whether the peer says whom it speaks for.
    pub(crate) fn is_proxied(&self, peer: SocketAddr) -> bool {
        contains(&self.proxy_protocol, peer)
    }

    /// The client, if there is nothing to be done before HTTP begins.
    pub(crate) fn stands_open(&self, local: SocketAddr, peer: SocketAddr) -> Option<Client> {
        if self.tls.is_some() || self.is_proxied(peer) {
            return None;
        }
        let mut client = Client::direct(peer, local);
        client.is_trusted = contains(&self.trusted_proxies, peer);
        Some(client)
    }

    /// Takes a connection between our address and the peer's up to where HTTP begins. `slot` is counted for the client once it is known.
    ///
    /// # Errors
    /// Why the connection is closed instead; the client as far as it is known.
    pub(crate) async fn enter(
        &self,
        mut stream: TcpStream,
        (local, peer): (SocketAddr, SocketAddr),
        slot: &mut Slot,
        limits: &Limits,
        turns: &tokio::sync::Semaphore,
    ) -> Result<(Socket, Client), (Closing, Client)> {
        let mut client = Client::direct(peer, local);
        if self.is_proxied(peer) {
            match timeout(limits.proxy_header_timeout, proxy_protocol::read(&mut stream)).await {
                Ok(Ok(Proxied::Local)) => {}
                Ok(Ok(Proxied::Client { source, destination })) => {
                    client.address = source;
                    client.destination = destination;
                }
                Ok(Err(fault)) => {
                    if let HeaderFault::Malformed(why) = fault {
                        tracing::debug!(listener = self.name, %peer, why, "no PROXY protocol header");
                    }
                    return Err((Closing::ProxyHeader, client));
                }
                Err(_) => return Err((Closing::ProxyHeaderTimeout, client)),
            }
            if let Err(TurnedAway::Peer | TurnedAway::Full) = slot.count_for(client.address.ip()) {
                return Err((Closing::TooMany, client));
            }
        }
        client.is_trusted = contains(&self.trusted_proxies, client.address);
        let Some(terminator) = &self.tls else {
            return Ok((Socket::Plain(stream), client));
        };
        match handshake::accept(terminator, turns, stream).await {
            Ok((stream, secured)) => {
                client.tls = Some(secured);
                Ok((Socket::Tls(Box::new(stream)), client))
            }
            Err(closing) => Err((closing, client)),
        }
    }
}

fn contains(networks: &[IpNet], address: SocketAddr) -> bool {
    let address = address.ip().to_canonical();
    networks.iter().any(|network| network.contains(&address))
}
