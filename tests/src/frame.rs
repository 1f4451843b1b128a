//! Ethernet frames from the outside in: VLAN tags, IPv4 with options, IPv6 with extension headers, TCP, UDP, ICMP.
//!
//! Lengths and checksums are right unless the caller changes the finished bytes; header fields may hold anything. Byte
//! order on the wire is big-endian throughout.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Ethertype of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// Ethertype of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Ethertype of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// Tag protocol of an 802.1Q tag.
pub const TPID_8021Q: u16 = 0x8100;
/// Tag protocol of an 802.1ad (service) tag.
pub const TPID_8021AD: u16 = 0x88a8;

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;

/// IPv6 hop-by-hop options (RFC 8200, 4.3).
pub const HOP_BY_HOP: u8 = 0;
/// IPv6 routing header (RFC 8200, 4.4).
pub const ROUTING: u8 = 43;
/// IPv6 fragment header (RFC 8200, 4.5).
pub const FRAGMENT: u8 = 44;
/// IPv6 authentication header (RFC 4302): its length counts in units of 4 bytes, not 8.
pub const AUTHENTICATION: u8 = 51;
/// IPv6 "no next header" (RFC 8200, 4.7).
pub const NO_NEXT_HEADER: u8 = 59;
/// IPv6 destination options (RFC 8200, 4.6).
pub const DESTINATION_OPTIONS: u8 = 60;

/// TCP flag FIN.
pub const FIN: u8 = 0x01;
/// TCP flag SYN.
pub const SYN: u8 = 0x02;
/// TCP flag RST.
pub const RST: u8 = 0x04;
/// TCP flag PSH.
pub const PSH: u8 = 0x08;
/// TCP flag ACK.
pub const ACK: u8 = 0x10;
/// TCP flag URG.
pub const URG: u8 = 0x20;

/// One VLAN tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// Tag protocol, e.g. [`TPID_8021Q`].
    pub protocol: u16,
    /// VLAN id, 12 bits.
    pub id: u16,
}

/// Which part of a datagram a fragment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// Offset in units of 8 bytes, 13 bits.
    pub offset: u16,
    /// More fragments follow.
    pub more: bool,
    /// Which datagram it belongs to; IPv4 takes the lower half.
    pub identification: u32,
}

/// An IPv6 extension header other than the fragment header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// Its protocol number.
    pub kind: u8,
    /// What follows next-header and length; padded with zeros to the header's unit.
    pub body: Vec<u8>,
}

/// What the IP header carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp(Tcp),
    /// UDP.
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMP or, between IPv6 addresses, ICMPv6.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// The header's second word.
        rest: [u8; 4],
    },
    /// Another protocol; the payload follows the IP header directly.
    Other(u8),
}

/// A TCP header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tcp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Flags, e.g. [`SYN`].
    pub flags: u8,
    /// Options, padded with zeros to a multiple of 4 bytes; at most 40 bytes.
    pub options: Vec<u8>,
}

/// A frame to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Ethernet source.
    pub source_mac: Mac,
    /// Ethernet destination.
    pub destination_mac: Mac,
    /// VLAN tags, outermost first.
    pub tags: Vec<Tag>,
    /// IP source.
    pub source: IpAddr,
    /// IP destination, of the source's family.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// IPv4 options, padded with zeros to a multiple of 4 bytes; at most 40 bytes.
    pub options: Vec<u8>,
    /// IPv6 extension headers in order; the fragment header comes after them.
    pub extensions: Vec<Extension>,
    /// Set if the frame carries a fragment.
    pub fragment: Option<Fragment>,
    /// What the IP header carries.
    pub transport: Transport,
    /// What the transport header carries.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A plain frame with zero Ethernet addresses and no payload.
    ///
    /// # Panics
    /// When the addresses are of different families.
    pub fn new(source: IpAddr, destination: IpAddr, transport: Transport) -> Self {
        assert_eq!(
            source.is_ipv4(),
            destination.is_ipv4(),
            "{source} and {destination} are of one family"
        );
        Self {
            source_mac: [0; 6],
            destination_mac: [0; 6],
            tags: Vec::new(),
            source,
            destination,
            hop_limit: 64,
            options: Vec::new(),
            extensions: Vec::new(),
            fragment: None,
            transport,
            payload: Vec::new(),
        }
    }

    /// A TCP segment that opens a connection.
    pub fn syn(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Self {
        let tcp = Tcp {
            source: source.1,
            destination: destination.1,
            sequence: 0x1020_3040,
            flags: SYN,
            options: vec![2, 4, 5, 0xb4],
            ..Tcp::default()
        };
        Self::new(source.0, destination.0, Transport::Tcp(tcp))
    }

    /// A UDP datagram.
    pub fn udp(source: (IpAddr, u16), destination: (IpAddr, u16), payload: &[u8]) -> Self {
        let transport = Transport::Udp {
            source: source.1,
            destination: destination.1,
        };
        Self {
            payload: payload.to_vec(),
            ..Self::new(source.0, destination.0, transport)
        }
    }

    /// An ICMP or ICMPv6 echo request.
    pub fn echo_request(source: IpAddr, destination: IpAddr, identifier: u16, sequence: u16) -> Self {
        let [i, j] = identifier.to_be_bytes();
        let [k, l] = sequence.to_be_bytes();
        let kind = if source.is_ipv4() { 8 } else { 128 };
        Self::new(
            source,
            destination,
            Transport::Icmp {
                kind,
                code: 0,
                rest: [i, j, k, l],
            },
        )
    }

    /// The bytes on the wire, without frame check sequence and padding.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + self.payload.len());
        out.extend(self.destination_mac);
        out.extend(self.source_mac);
        for tag in &self.tags {
            out.extend(tag.protocol.to_be_bytes());
            out.extend((tag.id & 0x0fff).to_be_bytes());
        }
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.ipv4(&mut out, source, destination),
            (IpAddr::V6(source), IpAddr::V6(destination)) => self.ipv6(&mut out, source, destination),
            _ => panic!("{} and {} are of one family", self.source, self.destination),
        }
        out
    }

    fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp(_) => TCP,
            Transport::Udp { .. } => UDP,
            Transport::Icmp { .. } if self.source.is_ipv4() => ICMP,
            Transport::Icmp { .. } => ICMPV6,
            Transport::Other(protocol) => protocol,
        }
    }

    fn ipv4(&self, out: &mut Vec<u8>, source: Ipv4Addr, destination: Ipv4Addr) {
        let options = padded(&self.options, 4);
        assert!(options.len() <= 40, "IPv4 options fit 40 bytes");
        let header_length = 20 + options.len();
        let segment = self.segment();
        let (identification, flags) = match self.fragment {
            None => (0, 0x4000),
            Some(f) => (
                f.identification as u16,
                (u16::from(f.more) << 13) | (f.offset & 0x1fff),
            ),
        };
        out.extend(ETHERTYPE_IPV4.to_be_bytes());
        let start = out.len();
        out.extend([0x40 | (header_length / 4) as u8, 0]);
        out.extend(((header_length + segment.len()) as u16).to_be_bytes());
        out.extend(identification.to_be_bytes());
        out.extend(flags.to_be_bytes());
        out.extend([self.hop_limit, self.protocol(), 0, 0]);
        out.extend(source.octets());
        out.extend(destination.octets());
        out.extend(options);
        let checksum = checksum(&[&out[start..]]);
        out[start + 10..start + 12].copy_from_slice(&checksum.to_be_bytes());
        out.extend(segment);
    }

    fn ipv6(&self, out: &mut Vec<u8>, source: Ipv6Addr, destination: Ipv6Addr) {
        let mut chain: Vec<(u8, Vec<u8>)> = self.extensions.iter().map(Extension::header).collect();
        if let Some(f) = self.fragment {
            let mut header = vec![0, 0];
            header.extend(((f.offset << 3) | u16::from(f.more)).to_be_bytes());
            header.extend(f.identification.to_be_bytes());
            chain.push((FRAGMENT, header));
        }
        // Each header names the one after it.
        let mut next = self.protocol();
        for (kind, header) in chain.iter_mut().rev() {
            header[0] = next;
            next = *kind;
        }
        let segment = self.segment();
        let length = chain.iter().map(|(_, header)| header.len()).sum::<usize>() + segment.len();
        out.extend(ETHERTYPE_IPV6.to_be_bytes());
        out.extend([0x60, 0, 0, 0]);
        out.extend((length as u16).to_be_bytes());
        out.extend([next, self.hop_limit]);
        out.extend(source.octets());
        out.extend(destination.octets());
        for (_, header) in chain {
            out.extend(header);
        }
        out.extend(segment);
    }

    /// Transport header and payload, checksum filled in.
    fn segment(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(60 + self.payload.len());
        let checksum_at = match &self.transport {
            Transport::Tcp(tcp) => {
                tcp.header(&mut out);
                16
            }
            Transport::Udp { source, destination } => {
                out.extend(source.to_be_bytes());
                out.extend(destination.to_be_bytes());
                out.extend(((8 + self.payload.len()) as u16).to_be_bytes());
                out.extend([0, 0]);
                6
            }
            Transport::Icmp { kind, code, rest } => {
                out.extend([*kind, *code, 0, 0]);
                out.extend(rest);
                2
            }
            Transport::Other(_) => return self.payload.clone(),
        };
        out.extend(&self.payload);
        let sum = match checksum(&[&self.pseudo_header(out.len()), &out]) {
            // Zero means "no checksum" in UDP (RFC 768).
            0 if self.protocol() == UDP => 0xffff,
            sum => sum,
        };
        out[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
        out
    }

    /// RFC 9293, 3.1 and RFC 8200, 8.1; empty for ICMP over IPv4, which has none.
    fn pseudo_header(&self, length: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(40);
        match (self.source, self.destination) {
            (IpAddr::V4(_), IpAddr::V4(_)) if self.protocol() == ICMP => {}
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                out.extend(source.octets());
                out.extend(destination.octets());
                out.extend([0, self.protocol()]);
                out.extend((length as u16).to_be_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                out.extend(source.octets());
                out.extend(destination.octets());
                out.extend((length as u32).to_be_bytes());
                out.extend([0, 0, 0, self.protocol()]);
            }
            _ => panic!("{} and {} are of one family", self.source, self.destination),
        }
        out
    }
}

impl Tcp {
    fn header(&self, out: &mut Vec<u8>) {
        let options = padded(&self.options, 4);
        assert!(options.len() <= 40, "TCP options fit 40 bytes");
        out.extend(self.source.to_be_bytes());
        out.extend(self.destination.to_be_bytes());
        out.extend(self.sequence.to_be_bytes());
        out.extend(self.acknowledgement.to_be_bytes());
        out.extend([(((20 + options.len()) / 4) << 4) as u8, self.flags]);
        out.extend(0xfff0_u16.to_be_bytes());
        out.extend([0; 4]);
        out.extend(options);
    }
}

impl Extension {
    /// The kind, and the header with next-header still zero.
    fn header(&self) -> (u8, Vec<u8>) {
        let mut header = vec![0, 0];
        header.extend(&self.body);
        let header = padded(&header, 8);
        let mut header = header;
        header[1] = if self.kind == AUTHENTICATION {
            header.len() / 4 - 2
        } else {
            header.len() / 8 - 1
        } as u8;
        (self.kind, header)
    }
}

/// The Internet checksum (RFC 1071) over the concatenation of `parts`; all but the last are of even length.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn padded(bytes: &[u8], unit: usize) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out.resize(bytes.len().next_multiple_of(unit), 0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_ipv4_header_has_its_known_checksum() {
        // The example of RFC 1071's reviews: 45 00 00 73 00 00 40 00 40 11 .. .. c0 a8 00 01 c0 a8 00 c7 -> b8 61
        let source = IpAddr::from([192, 168, 0, 1]);
        let destination = IpAddr::from([192, 168, 0, 199]);
        let bytes = Frame::udp((source, 53), (destination, 53), &[0; 0x73 - 28]).bytes();
        assert_eq!(bytes[24..26], [0xb8, 0x61]);
        assert_eq!(checksum(&[&bytes[14..34]]), 0);
    }

    #[test]
    fn lengths_and_offsets_add_up() {
        let v6 = |last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
        let mut frame = Frame::syn((v6(1), 1024), (v6(2), 80));
        frame.tags = vec![
            Tag {
                protocol: TPID_8021AD,
                id: 200,
            },
            Tag {
                protocol: TPID_8021Q,
                id: 100,
            },
        ];
        frame.extensions = vec![
            Extension {
                kind: HOP_BY_HOP,
                body: vec![1, 4, 0, 0, 0, 0],
            },
            Extension {
                kind: AUTHENTICATION,
                body: vec![0; 22],
            },
        ];
        frame.fragment = Some(Fragment {
            offset: 0,
            more: false,
            identification: 7,
        });
        let bytes = frame.bytes();
        let ip = 14 + 8;
        assert_eq!(bytes.len(), ip + 40 + 8 + 24 + 8 + 24);
        assert_eq!(
            usize::from(u16::from_be_bytes([bytes[ip + 4], bytes[ip + 5]])),
            bytes.len() - ip - 40
        );
        assert_eq!(bytes[ip + 6], HOP_BY_HOP);
        assert_eq!(bytes[ip + 40..ip + 42], [AUTHENTICATION, 0]);
        assert_eq!(bytes[ip + 48..ip + 50], [FRAGMENT, 4]);
        assert_eq!(bytes[ip + 72], TCP);
        assert_eq!(bytes[ip + 80..ip + 82], 1024_u16.to_be_bytes());
    }
}
