//! The PROXY protocol, versions 1 and 2, as a receiver (haproxy's doc/proxy-protocol.txt): whom a peer speaks for.
//!
//! Strict: a byte out of place is a fault, and a fault ends the connection. [`read`] takes from the socket exactly what
//! belongs to the header, so what follows (a TLS handshake, a request) is untouched.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::{io::AsyncReadExt, net::TcpStream};

/// How a version 2 header begins.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Longest version 1 header, line end included.
const MAX_V1: usize = 107;

/// Longest version 2 header after its first 16 bytes that is read; addresses and the records in use fit many times.
const MAX_V2: usize = 2048;

/// The record that holds a checksum (CRC-32C).
const TLV_CRC32C: u8 = 0x03;

/// Whom a peer speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxied {
    /// For itself: a health check, or a family that is not IP.
    Local,
    /// For the client that connected from `source` to `destination`.
    Client {
        /// The client.
        source: SocketAddr,
        /// The address that it connected to.
        destination: SocketAddr,
    },
}

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub enum HeaderFault {
    /// Reading failed, or the peer closed early.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are no header.
    #[error("PROXY protocol: {0}")]
    Malformed(&'static str),
}

use HeaderFault::Malformed;

/// Reads the header from the start of a connection.
///
/// # Errors
/// What came is not exactly a header.
pub async fn read(stream: &mut TcpStream) -> Result<Proxied, HeaderFault> {
    let mut start = [0; 12];
    stream.read_exact(&mut start).await?;
    if start == SIGNATURE {
        let mut rest = [0; 4];
        stream.read_exact(&mut rest).await?;
        let len = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        if len > MAX_V2 {
            return Err(Malformed("header too long"));
        }
        let mut header = Vec::with_capacity(16 + len);
        header.extend_from_slice(&start);
        header.extend_from_slice(&rest);
        header.resize(16 + len, 0);
        stream.read_exact(&mut header[16..]).await?;
        return version2(&header);
    }
    if !start.starts_with(b"PROXY ") {
        return Err(Malformed("no header"));
    }
    let mut line = Vec::with_capacity(MAX_V1);
    line.extend_from_slice(&start);
    let mut part = [0; MAX_V1];
    loop {
        // What belongs to the line is looked for before it is taken.
        let room = MAX_V1 - line.len();
        let seen = stream.peek(&mut part[..room]).await?;
        if seen == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let end = memchr::memchr(b'\n', &part[..seen]);
        let take = end.map_or(seen, |end| end + 1);
        stream.read_exact(&mut part[..take]).await?;
        line.extend_from_slice(&part[..take]);
        if end.is_some() {
            return version1(&line);
        }
        if line.len() == MAX_V1 {
            return Err(Malformed("line too long"));
        }
    }
}

/// Takes a version 1 line apart, its line end included.
pub fn version1(line: &[u8]) -> Result<Proxied, HeaderFault> {
    let line = line.strip_suffix(b"\r\n").ok_or(Malformed("line end"))?;
    let line = std::str::from_utf8(line).map_err(|_| Malformed("not ASCII"))?;
    let words = line.strip_prefix("PROXY ").ok_or(Malformed("no header"))?;
    if words == "UNKNOWN" || words.starts_with("UNKNOWN ") {
        return Ok(Proxied::Local);
    }
    let mut words = words.split(' ');
    let mut next = || words.next().ok_or(Malformed("too short"));
    let (family, source, destination) = (next()?, next()?, next()?);
    let (source_port, destination_port) = (port(next()?)?, port(next()?)?);
    let address = |text: &str| -> Result<IpAddr, HeaderFault> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::V6),
            _ => return Err(Malformed("family")),
        }
        .map_err(|_| Malformed("address"))
    };
    let proxied = Proxied::Client {
        source: SocketAddr::new(address(source)?, source_port),
        destination: SocketAddr::new(address(destination)?, destination_port),
    };
    if words.next().is_some() {
        return Err(Malformed("too long"));
    }
    Ok(proxied)
}

/// Decimal digits alone, without a leading zero.
fn port(text: &str) -> Result<u16, HeaderFault> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain).ok_or(Malformed("port"))
}

/// Takes a whole version 2 header apart.
pub fn version2(header: &[u8]) -> Result<Proxied, HeaderFault> {
    let (Some(fixed), Some(rest)) = (header.get(..16), header.get(16..)) else {
        return Err(Malformed("too short"));
    };
    if fixed[..12] != SIGNATURE || rest.len() != usize::from(u16::from_be_bytes([fixed[14], fixed[15]])) {
        return Err(Malformed("no header"));
    }
    let is_local = match fixed[12] {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed("version or command")),
    };
    let take = |from: usize, len: usize| rest.get(from..from + len).ok_or(Malformed("addresses cut short"));
    let port = |from: usize| take(from, 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let (proxied, records) = match fixed[13] {
        // TCP over IPv4.
        0x11 => {
            let ip = |from| take(from, 4).map(|b| IpAddr::from([b[0], b[1], b[2], b[3]]));
            let proxied = Proxied::Client {
                source: SocketAddr::new(ip(0)?, port(8)?),
                destination: SocketAddr::new(ip(4)?, port(10)?),
            };
            (proxied, 12)
        }
        // TCP over IPv6.
        0x21 => {
            let ip = |from| {
                let bytes: [u8; 16] = take(from, 16)?
                    .try_into()
                    .map_err(|_| Malformed("addresses cut short"))?;
                Ok::<_, HeaderFault>(IpAddr::from(bytes))
            };
            let proxied = Proxied::Client {
                source: SocketAddr::new(ip(0)?, port(32)?),
                destination: SocketAddr::new(ip(16)?, port(34)?),
            };
            (proxied, 36)
        }
        // Unspecified: the sender does not know. The rest is skipped.
        0x00 => (Proxied::Local, rest.len()),
        // Unix sockets: nothing that has an address here.
        0x31 => (Proxied::Local, take(0, 216)?.len()),
        0x12 | 0x22 | 0x32 => return Err(Malformed("datagrams")),
        _ => return Err(Malformed("family or protocol")),
    };
    if is_local {
        return Ok(Proxied::Local);
    }
    check_records(header, 16 + records)?;
    Ok(proxied)
}

/// Walks the records after the addresses; a checksum among them must hold.
fn check_records(header: &[u8], mut at: usize) -> Result<(), HeaderFault> {
    while at < header.len() {
        let (Some(kind), Some(&[high, low])) = (header.get(at), header.get(at + 1..at + 3)) else {
            return Err(Malformed("record cut short"));
        };
        let (start, len) = (at + 3, usize::from(u16::from_be_bytes([high, low])));
        let value = header
            .get(start..start + len)
            .ok_or(Malformed("record cut short"))?;
        if *kind == TLV_CRC32C {
            let declared: [u8; 4] = value.try_into().map_err(|_| Malformed("checksum"))?;
            let mut zeroed = header.to_vec();
            zeroed[start..start + 4].fill(0);
            if crc32c(&zeroed) != u32::from_be_bytes(declared) {
                return Err(Malformed("checksum"));
            }
        }
        at = start + len;
    }
    Ok(())
}

/// CRC-32C (RFC 3720, appendix B.4), bit by bit: it is rare, and headers are short.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(crc & 1));
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(source: &str, destination: &str) -> Proxied {
        Proxied::Client {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend_from_slice(&[command, family]);
        header.extend_from_slice(&(rest.len() as u16).to_be_bytes());
        header.extend_from_slice(rest);
        header
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 7, 0x1f, 0x90, 0x01, 0xbb];

    #[test]
    fn version_1_lines() {
        let good = [
            (
                "PROXY TCP4 192.0.2.1 198.51.100.7 8080 443\r\n",
                client("192.0.2.1:8080", "198.51.100.7:443"),
            ),
            (
                "PROXY TCP6 2001:db8::1 ::1 65535 0\r\n",
                client("[2001:db8::1]:65535", "[::1]:0"),
            ),
            ("PROXY UNKNOWN\r\n", Proxied::Local),
            ("PROXY UNKNOWN ffff::1 ::1 1 2\r\n", Proxied::Local),
        ];
        for (line, want) in good {
            assert_eq!(version1(line.as_bytes()).expect(line), want);
        }
        for bad in [
            "PROXY TCP4 192.0.2.1 198.51.100.7 8080 443\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 8080 443",
            "PROXY TCP4 192.0.2.1 198.51.100.7 8080\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 8080 443 \r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.7 8080 443\r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.7 8080 443\r\n",
            "PROXY TCP4 192.0.2.256 198.51.100.7 8080 443\r\n",
            "PROXY TCP4 2001:db8::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.7 8080 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 08080 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 +80 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 65536 443\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.7 8080 443\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY \r\n",
            "proxy TCP4 192.0.2.1 198.51.100.7 8080 443\r\n",
        ] {
            assert!(version1(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn version_2_headers() {
        assert_eq!(
            version2(&v2(0x21, 0x11, &V4)).expect("good"),
            client("192.0.2.1:8080", "198.51.100.7:443")
        );
        let mut six = [0; 36];
        six[15] = 1;
        six[31] = 2;
        six[33] = 80;
        assert_eq!(
            version2(&v2(0x21, 0x21, &six)).expect("good"),
            client("[::1]:80", "[::2]:0")
        );
        assert_eq!(version2(&v2(0x20, 0x00, b"")).expect("good"), Proxied::Local);
        assert_eq!(version2(&v2(0x20, 0x11, &V4)).expect("good"), Proxied::Local);
        assert_eq!(
            version2(&v2(0x21, 0x00, b"whatever")).expect("good"),
            Proxied::Local
        );
        let with_record = [&V4[..], &[0x04, 0, 2, 9, 9]].concat();
        assert!(version2(&v2(0x21, 0x11, &with_record)).is_ok());
        for (what, bad) in [
            ("version", v2(0x11, 0x11, &V4)),
            ("command", v2(0x22, 0x11, &V4)),
            ("family", v2(0x21, 0x41, &V4)),
            ("datagram", v2(0x21, 0x12, &V4)),
            ("cut short", v2(0x21, 0x11, &V4[..11])),
            (
                "record cut short",
                v2(0x21, 0x11, &[&V4[..], &[4, 0, 3, 1]].concat()),
            ),
            (
                "record header cut short",
                v2(0x21, 0x11, &[&V4[..], &[4]].concat()),
            ),
        ] {
            assert!(version2(&bad).is_err(), "{what}");
        }
    }

    #[test]
    fn a_checksum_must_hold() {
        let mut header = v2(0x21, 0x11, &[&V4[..], &[TLV_CRC32C, 0, 4, 0, 0, 0, 0]].concat());
        let sum = crc32c(&header).to_be_bytes();
        let end = header.len();
        header[end - 4..].copy_from_slice(&sum);
        assert!(version2(&header).is_ok());
        header[16] ^= 1;
        assert!(version2(&header).is_err());
        // The check value of the catalogue of CRCs.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
