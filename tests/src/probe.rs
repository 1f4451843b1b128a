//! Asking an address whether it answers: by a TCP connection, by a lone SYN, by an echo request.

use std::{
    io::{ErrorKind, Read},
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::{
    capture::{Capture, Direction},
    frame::{self, Frame},
    lab::Host,
    netns::Namespace,
    sender::PacketSocket,
};

/// What came of an attempt to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// Established.
    Open,
    /// Answered with a reset.
    Refused,
    /// No answer within the limit.
    Silent,
}

/// Tries to connect for at most `limit`.
///
/// # Panics
/// On an error that says nothing about the peer, such as a missing route.
pub fn connect(namespace: &Namespace, to: SocketAddr, limit: Duration) -> Connection {
    match namespace.enter(|| TcpStream::connect_timeout(&to, limit)) {
        Ok(_) => Connection::Open,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Connection::Refused,
        Err(error) if error.kind() == ErrorKind::TimedOut => Connection::Silent,
        Err(error) => panic!("connecting to {to}: {error}"),
    }
}

/// Sends one SYN from `port` and tells whether a SYN-ACK came back within `limit`. The host's own stack knows nothing of
/// it, so nothing is sent again.
pub fn syn_is_answered(host: &Host, port: u16, to: SocketAddr, limit: Duration) -> bool {
    let capture = Capture::start(&host.namespace, host.interface).expect("a host has its interface");
    let socket = PacketSocket::sending(&host.namespace, host.interface).expect("a host has its interface");
    let syn = Frame::syn((host.address_towards(to.ip()), port), (to.ip(), to.port()));
    socket
        .send(&host.frame(syn))
        .expect("the interface takes a frame");
    let answer = |frame: &crate::capture::Captured| {
        frame.direction == Direction::In && is_syn_ack(&frame.bytes, to.port(), port)
    };
    capture.wait_for(limit, answer).is_some()
}

/// Sends an echo request with this much payload; tells whether the reply came back unchanged within `limit`.
pub fn ping(namespace: &Namespace, to: IpAddr, payload: &[u8], limit: Duration) -> bool {
    namespace.enter(|| {
        let (domain, protocol) = match to {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol)).expect("root may open raw sockets");
        let identifier = std::process::id() as u16;
        let unspecified: IpAddr = if to.is_ipv4() {
            [0; 4].into()
        } else {
            [0; 16].into()
        };
        // The builder makes Ethernet and IP headers too; a raw socket wants what follows them. Over IPv6 the kernel
        // fills in the checksum (RFC 3542, 3.1).
        let mut request = Frame::echo_request(unspecified, to, identifier, 1);
        request.payload = payload.to_vec();
        let bytes = request.bytes();
        let message = &bytes[if to.is_ipv4() { 34 } else { 54 }..];
        let peer = SockAddr::from(SocketAddr::new(to, 0));
        if socket.send_to(message, &peer).is_err() {
            return false;
        }
        let deadline = Instant::now() + limit;
        let mut buffer = vec![MaybeUninit::<u8>::uninit(); 65_536];
        while let Some(left) = deadline
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
        {
            socket
                .set_read_timeout(Some(left))
                .expect("a positive time limit is valid");
            let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                return false;
            };
            // SAFETY: the kernel has written the first `length` bytes.
            let received = unsafe { buffer[..length].assume_init_ref() };
            let reply = if to.is_ipv4() {
                received.get(20..).unwrap_or_default()
            } else {
                received
            };
            let kind = if to.is_ipv4() { 0 } else { 129 };
            let ours = reply.len() >= 8 && reply[0] == kind && reply[4..] == message[4..];
            if ours && from.as_socket().is_some_and(|from| from.ip() == to) {
                return true;
            }
        }
        false
    })
}

/// Sends a datagram and waits for the same one back.
pub fn udp_echo(namespace: &Namespace, to: SocketAddr, payload: &[u8], limit: Duration) -> bool {
    namespace.enter(|| {
        let unspecified: IpAddr = if to.is_ipv4() {
            [0; 4].into()
        } else {
            [0; 16].into()
        };
        let socket = UdpSocket::bind((unspecified, 0)).expect("an ephemeral port is free");
        socket
            .set_read_timeout(Some(limit))
            .expect("a positive time limit is valid");
        let mut buffer = vec![0; 65_536];
        socket.send_to(payload, to).is_ok()
            && socket
                .recv_from(&mut buffer)
                .is_ok_and(|(length, from)| from == to && buffer[..length] == *payload)
    })
}

/// Waits for the peer to end a connection; what it sent before is returned.
pub fn read_to_end(mut stream: &TcpStream, limit: Duration) -> std::io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(limit))?;
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    Ok(received)
}

fn is_syn_ack(bytes: &[u8], source: u16, destination: u16) -> bool {
    let Some((protocol, tcp)) = transport(bytes) else {
        return false;
    };
    protocol == frame::TCP
        && tcp.len() >= 20
        && tcp[..2] == source.to_be_bytes()
        && tcp[2..4] == destination.to_be_bytes()
        && tcp[13] & (frame::SYN | frame::ACK | frame::RST) == frame::SYN | frame::ACK
}

/// Protocol and transport header of a plain frame: any VLAN tags, IPv4, or IPv6 without extension headers.
pub fn transport(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let mut offset = 12;
    let ethertype = loop {
        let ethertype = u16::from_be_bytes([*bytes.get(offset)?, *bytes.get(offset + 1)?]);
        offset += 2;
        if ethertype != frame::TPID_8021Q && ethertype != frame::TPID_8021AD {
            break ethertype;
        }
        offset += 2;
    };
    let ip = bytes.get(offset..)?;
    match ethertype {
        frame::ETHERTYPE_IPV4 => Some((*ip.get(9)?, ip.get(usize::from(*ip.first()? & 15) * 4..)?)),
        frame::ETHERTYPE_IPV6 => Some((*ip.get(6)?, ip.get(40..)?)),
        _ => None,
    }
}
