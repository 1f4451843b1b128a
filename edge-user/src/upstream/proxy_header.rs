//! The PROXY header that opens a connection: for whom it is made (haproxy.org, proxy-protocol.txt, 2020-03-05).

use std::net::{IpAddr, SocketAddr};

use crate::config::ProxyVersion;

/// A client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// Where it comes from.
    pub from: SocketAddr,
    /// Where it arrived, if that is known.
    pub to: Option<SocketAddr>,
}

/// First bytes of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, on behalf of somebody; version 2, of one's own accord.
const PROXY: u8 = 0x21;
const LOCAL: u8 = 0x20;
/// TCP over IPv4 and over IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// The header for `client`; without one, that of a connection of one's own, such as a check.
pub fn write(version: ProxyVersion, client: Option<Client>) -> Vec<u8> {
    // Both ends in one family: addresses of one kind, mapped where they differ.
    let ends = client.and_then(|client| {
        let to = client.to?;
        let (from_ip, to_ip) = (client.from.ip().to_canonical(), to.ip().to_canonical());
        Some(match (from_ip, to_ip) {
            (IpAddr::V4(_), IpAddr::V4(_)) => (from_ip, to_ip, client.from.port(), to.port()),
            _ => (v6(from_ip), v6(to_ip), client.from.port(), to.port()),
        })
    });
    match version {
        ProxyVersion::V1 => match ends {
            Some((from, to, from_port, to_port)) => {
                let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
                format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n").into_bytes()
            }
            None => b"PROXY UNKNOWN\r\n".to_vec(),
        },
        ProxyVersion::V2 => binary(ends),
    }
}

fn v6(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        IpAddr::V6(_) => ip,
    }
}

fn binary(ends: Option<(IpAddr, IpAddr, u16, u16)>) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    let Some((from, to, from_port, to_port)) = ends else {
        header.extend([LOCAL, 0, 0, 0]);
        return header;
    };
    let mut body = Vec::with_capacity(36);
    for ip in [from, to] {
        match ip {
            IpAddr::V4(ip) => body.extend(ip.octets()),
            IpAddr::V6(ip) => body.extend(ip.octets()),
        }
    }
    body.extend(from_port.to_be_bytes());
    body.extend(to_port.to_be_bytes());
    header.extend([PROXY, if from.is_ipv4() { TCP4 } else { TCP6 }]);
    header.extend((body.len() as u16).to_be_bytes());
    header.extend(body);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(from: &str, to: &str) -> Client {
        Client {
            from: from.parse().expect("an address"),
            to: to.parse().ok(),
        }
    }

    #[test]
    fn text() {
        let rows = [
            (
                Some(client("192.0.2.7:4711", "198.51.100.1:443")),
                "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n",
            ),
            (
                Some(client("[::ffff:192.0.2.7]:4711", "198.51.100.1:443")),
                "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n",
            ),
            (
                Some(client("[2001:db8::7]:4711", "[2001:db8::1]:443")),
                "PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n",
            ),
            (Some(client("192.0.2.7:4711", "")), "PROXY UNKNOWN\r\n"),
            (None, "PROXY UNKNOWN\r\n"),
        ];
        for (client, expected) in rows {
            assert_eq!(write(ProxyVersion::V1, client), expected.as_bytes(), "{client:?}");
        }
    }

    #[test]
    fn binary_form() {
        let header = write(
            ProxyVersion::V2,
            Some(client("192.0.2.7:258", "198.51.100.1:443")),
        );
        let expected = [
            &SIGNATURE[..],
            &[0x21, 0x11, 0, 12, 192, 0, 2, 7, 198, 51, 100, 1, 1, 2, 1, 187],
        ]
        .concat();
        assert_eq!(header, expected);
        let header = write(
            ProxyVersion::V2,
            Some(client("[2001:db8::7]:1", "[2001:db8::1]:2")),
        );
        assert_eq!(
            (header.len(), &header[12..16]),
            (16 + 36, &[0x21, 0x21, 0, 36][..])
        );
        assert_eq!(write(ProxyVersion::V2, None)[12..], [0x20, 0, 0, 0]);
    }
}
