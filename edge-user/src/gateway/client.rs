//! Who is at the other end of a client's connection: the peer that the kernel sees, and the client that it speaks for.
//!
//! The two differ only where a configured peer sent a PROXY protocol header. Limits by address, logs, forwarded fields
//! and offences are about the client; a ban in the kernel can only meet a peer. No header of a request is ever looked
//! at here: what `X-Forwarded-For` claims is nobody's address.

use std::net::SocketAddr;

use crate::{offence::Offender, upstream::proxy_header};

/// The other end of one connection.
#[derive(Debug, Clone)]
pub struct Client {
    /// Where the packets come from.
    pub peer: SocketAddr,
    /// The client: the peer, or whom it speaks for.
    pub address: SocketAddr,
    /// The address that the client connected to.
    pub destination: SocketAddr,
    /// Its forwarding fields are believed and continued.
    pub is_trusted: bool,
    /// What the handshake found, over TLS.
    pub tls: Option<Secured>,
}

/// What a TLS handshake found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secured {
    /// HTTP/2 was agreed on (ALPN).
    pub http2: bool,
    /// The name that the client asked for (SNI).
    pub name: Option<Box<str>>,
    /// Headers that tell the upstream about the client's verified certificate.
    pub identity: Vec<(String, Vec<u8>)>,
}

impl Client {
    /// A client that is its own peer, in the clear.
    pub fn direct(peer: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            peer,
            address: peer,
            destination,
            is_trusted: false,
            tls: None,
        }
    }

    /// Both ends of its connection, for upstreams that are told of it.
    pub fn ends(&self) -> proxy_header::Client {
        proxy_header::Client {
            from: self.address,
            to: Some(self.destination),
        }
    }

    /// Whom offences are filed under.
    pub fn offender(&self) -> Offender {
        if self.peer.ip() == self.address.ip() {
            Offender::peer(self.peer.ip())
        } else {
            Offender::behind(self.address.ip(), self.peer.ip())
        }
    }
}
