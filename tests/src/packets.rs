//! Random packets for differential tests: what one implementation of the datapath does with them, the other has to do.
//!
//! A pure function of the random generator and the [`Spec`], so a seed names a run. Most packets are nearly right, since
//! those reach the far stages; some are noise. Every packet is one that `BPF_PROG_TEST_RUN` takes: between
//! [`MIN_LENGTH`] and [`MAX_LENGTH`] bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rand::{
    Rng,
    seq::{IndexedRandom, SliceRandom},
};

use crate::frame::{
    ACK, AUTHENTICATION, DESTINATION_OPTIONS, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Extension, FIN,
    FRAGMENT, Fragment, Frame, HOP_BY_HOP, ICMP, ICMPV6, NO_NEXT_HEADER, PSH, ROUTING, RST, SYN, TCP,
    TPID_8021AD, TPID_8021Q, Tag, Tcp, Transport, UDP, URG,
};

/// Shortest packet: an Ethernet header.
pub const MIN_LENGTH: usize = 14;
/// Longest packet.
pub const MAX_LENGTH: usize = 2048;

/// Longest payload of a packet before it is mutated.
const MAX_PAYLOAD: usize = 1400;
/// Most extension headers: more than any reader should follow.
const MAX_EXTENSIONS: usize = 9;

/// A service that packets may be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Its address.
    pub address: IpAddr,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// Its port.
    pub port: u16,
}

/// What the packets are to be about.
#[derive(Debug, Clone, Default)]
pub struct Spec {
    /// Services under test.
    pub services: Vec<Target>,
    /// Sources of which something is known: banned, listed, over a limit.
    pub sources: Vec<IpAddr>,
    /// Share of packets left exactly as valid packets to a service, in percent.
    pub valid: u8,
    /// Share of packets that are noise after a plausible Ethernet header, in percent.
    pub noise: u8,
}

/// Makes the next packet.
///
/// The rest, neither valid nor noise, starts as a random well-formed packet, to a service more often than not, and is
/// mutated half of the time.
pub fn generate(rng: &mut impl Rng, spec: &Spec) -> Vec<u8> {
    let dice = rng.random_range(0..100);
    let mut packet = if dice < spec.valid && !spec.services.is_empty() {
        valid(rng, spec).bytes()
    } else if dice < spec.valid.saturating_add(spec.noise) {
        noise(rng)
    } else {
        let mut bytes = well_formed(rng, spec).bytes();
        if rng.random_bool(0.5) {
            for _ in 0..rng.random_range(1..=3) {
                mutate(rng, &mut bytes);
            }
        }
        bytes
    };
    if packet.len() < MIN_LENGTH {
        packet.resize(MIN_LENGTH, 0);
    }
    packet.truncate(MAX_LENGTH);
    packet
}

/// A plain packet from a known source, if there is one of the family, to a service.
fn valid(rng: &mut impl Rng, spec: &Spec) -> Frame {
    let service = *spec.services.choose(rng).expect("the caller has seen a service");
    let source = source_for(rng, spec, service.address);
    let port = rng.random_range(1024..=u16::MAX);
    let mut frame = if service.protocol == TCP {
        let mut frame = Frame::syn((source, port), (service.address, service.port));
        if let Transport::Tcp(tcp) = &mut frame.transport {
            tcp.flags = *[SYN, ACK, ACK | PSH, ACK | FIN, RST, RST | ACK]
                .choose(rng)
                .expect("there are some");
        }
        frame
    } else {
        Frame::udp((source, port), (service.address, service.port), &[])
    };
    frame.payload = payload(rng, 200);
    frame.source_mac = rng.random();
    frame.destination_mac = rng.random();
    frame
}

/// A packet with right lengths and checksums, of any kind that the frame builder knows.
fn well_formed(rng: &mut impl Rng, spec: &Spec) -> Frame {
    let service = spec
        .services
        .choose(rng)
        .copied()
        .filter(|_| rng.random_bool(0.8));
    let destination = service.map_or_else(|| address(rng), |service| service.address);
    let source = source_for(rng, spec, destination);
    let port = match service {
        Some(service) if rng.random_bool(0.85) => service.port,
        _ => port(rng),
    };
    let mut frame = Frame::new(
        source,
        destination,
        transport(rng, service.map(|service| service.protocol), port),
    );
    frame.source_mac = rng.random();
    frame.destination_mac = rng.random();
    frame.hop_limit = rng.random();
    frame.payload = payload(rng, MAX_PAYLOAD);
    frame.tags = tags(rng);
    if destination.is_ipv4() {
        if rng.random_bool(0.2) {
            frame.options = bytes(rng, 40);
        }
    } else if rng.random_bool(0.4) {
        frame.extensions = (0..rng.random_range(1..=MAX_EXTENSIONS))
            .map(|_| extension(rng))
            .collect();
    }
    if rng.random_bool(0.12) {
        frame.fragment = Some(Fragment {
            offset: if rng.random_bool(0.4) {
                0
            } else {
                rng.random_range(0..=0x1fff)
            },
            more: rng.random(),
            identification: rng.random(),
        });
    }
    frame
}

fn transport(rng: &mut impl Rng, wanted: Option<u8>, destination: u16) -> Transport {
    let protocol = match wanted {
        Some(protocol) if rng.random_bool(0.75) => protocol,
        _ => *[TCP, UDP, ICMP, ICMPV6, 47, 50, 132, NO_NEXT_HEADER, FRAGMENT]
            .choose(rng)
            .expect("there are some"),
    };
    match protocol {
        TCP => Transport::Tcp(Tcp {
            source: port(rng),
            destination,
            sequence: rng.random(),
            acknowledgement: rng.random(),
            flags: flags(rng),
            options: if rng.random_bool(0.3) {
                bytes(rng, 40)
            } else {
                Vec::new()
            },
        }),
        UDP => Transport::Udp {
            source: port(rng),
            destination,
        },
        ICMP | ICMPV6 => {
            // Unreachable, too big, time exceeded, echo, neighbour discovery, of both families.
            let known = [0, 1, 2, 3, 4, 5, 8, 11, 12, 128, 129, 133, 134, 135, 136, 137];
            let kind = *known.choose(rng).expect("there are some");
            let code = if rng.random_bool(0.7) {
                rng.random_range(0..=5)
            } else {
                rng.random()
            };
            Transport::Icmp {
                kind,
                code,
                rest: rng.random(),
            }
        }
        other => Transport::Other(other),
    }
}

fn flags(rng: &mut impl Rng) -> u8 {
    let usual = [
        SYN,
        SYN | ACK,
        ACK,
        ACK | PSH,
        ACK | FIN,
        RST,
        RST | ACK,
        ACK | URG,
    ];
    let impossible = [
        0,
        SYN | FIN,
        SYN | RST,
        FIN,
        FIN | PSH | URG,
        0xff,
        SYN | FIN | RST | ACK,
    ];
    match rng.random_range(0..10) {
        0 => rng.random(),
        1 | 2 => *impossible.choose(rng).expect("there are some"),
        _ => *usual.choose(rng).expect("there are some"),
    }
}

fn tags(rng: &mut impl Rng) -> Vec<Tag> {
    let count = *[0, 0, 0, 0, 1, 1, 2, 3].choose(rng).expect("there are some");
    (0..count)
        .map(|_| Tag {
            protocol: *[TPID_8021Q, TPID_8021AD].choose(rng).expect("there are some"),
            id: rng.random_range(0..=0x0fff),
        })
        .collect()
}

fn extension(rng: &mut impl Rng) -> Extension {
    let kinds = [
        HOP_BY_HOP,
        ROUTING,
        DESTINATION_OPTIONS,
        AUTHENTICATION,
        135,
        139,
        140,
    ];
    let kind = if rng.random_bool(0.95) {
        *kinds.choose(rng).expect("there are some")
    } else {
        rng.random()
    };
    Extension {
        kind,
        body: bytes(rng, 46),
    }
}

/// Mostly a known source, in the family of `destination`.
fn source_for(rng: &mut impl Rng, spec: &Spec, destination: IpAddr) -> IpAddr {
    let known: Vec<_> = spec
        .sources
        .iter()
        .filter(|source| source.is_ipv4() == destination.is_ipv4())
        .copied()
        .collect();
    match rng.random_range(0..20) {
        0 => destination,
        1..=13 if !known.is_empty() => *known.choose(rng).expect("there are some"),
        _ => loop {
            let source = address(rng);
            if source.is_ipv4() == destination.is_ipv4() {
                break source;
            }
        },
    }
}

/// An address of either family, special ones more often than chance has it.
fn address(rng: &mut impl Rng) -> IpAddr {
    if rng.random() {
        let special = [
            [0, 0, 0, 0],
            [127, 0, 0, 1],
            [224, 0, 0, 1],
            [255; 4],
            [169, 254, 1, 1],
            [10, 0, 0, 1],
            [240, 0, 0, 1],
        ];
        if rng.random_bool(0.2) {
            Ipv4Addr::from(*special.choose(rng).expect("there are some")).into()
        } else {
            Ipv4Addr::from(rng.random::<u32>()).into()
        }
    } else {
        let special = [
            Ipv6Addr::UNSPECIFIED,
            Ipv6Addr::LOCALHOST,
            Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
            Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
            // IPv4 in three disguises.
            Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped(),
            Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0xc000, 0x0201),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0xc000, 0x0201),
        ];
        if rng.random_bool(0.2) {
            (*special.choose(rng).expect("there are some")).into()
        } else {
            Ipv6Addr::from((0x2000 << 112) | rng.random::<u128>() >> 3).into()
        }
    }
}

fn port(rng: &mut impl Rng) -> u16 {
    match rng.random_range(0..12) {
        0 => 0,
        1 => u16::MAX,
        2 => 443,
        _ => rng.random(),
    }
}

fn payload(rng: &mut impl Rng, longest: usize) -> Vec<u8> {
    // Short ones mostly: the pipeline reads headers.
    let longest = if rng.random_bool(0.8) {
        longest.min(64)
    } else {
        longest
    };
    bytes(rng, longest)
}

fn bytes(rng: &mut impl Rng, longest: usize) -> Vec<u8> {
    let mut out = vec![0; rng.random_range(0..=longest)];
    rng.fill(&mut out[..]);
    out
}

/// Random bytes behind an Ethernet header that promises something.
fn noise(rng: &mut impl Rng) -> Vec<u8> {
    let mut out: Vec<u8> = rng.random::<[u8; 12]>().to_vec();
    let known = [
        ETHERTYPE_IPV4,
        ETHERTYPE_IPV6,
        ETHERTYPE_ARP,
        TPID_8021Q,
        TPID_8021AD,
        0x8847,
        0x8864,
        0x05dc,
        rng.random(),
    ];
    out.extend(known.choose(rng).expect("there are some").to_be_bytes());
    out.extend(bytes(rng, 120));
    if rng.random_bool(0.5) && out.len() > MIN_LENGTH {
        // A version and header length that get past the first look.
        out[MIN_LENGTH] = *[0x45, 0x46, 0x4f, 0x60, 0x65, 0x40]
            .choose(rng)
            .expect("there are some");
    }
    out
}

/// Changes a packet in one place.
fn mutate(rng: &mut impl Rng, packet: &mut Vec<u8>) {
    if packet.is_empty() {
        return;
    }
    // Headers are where a change tells.
    let reach = packet
        .len()
        .min(if rng.random_bool(0.8) { 96 } else { MAX_LENGTH });
    let at = rng.random_range(0..reach);
    match rng.random_range(0..9) {
        0 | 1 => packet.truncate(at),
        2 | 3 => packet[at] ^= 1 << rng.random_range(0..8),
        4 => packet[at] = *[0, 1, 0x7f, 0x80, 0xff].choose(rng).expect("there are some"),
        5 => packet[at] = rng.random(),
        6 => {
            packet.remove(at);
        }
        7 => packet.insert(at, rng.random()),
        _ => {
            let end = packet.len().min(at + 8);
            packet[at..end].shuffle(rng);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::{frame::checksum, probe::transport as transport_of};

    fn spec() -> Spec {
        let v6 = |last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
        Spec {
            services: vec![
                Target {
                    address: [203, 0, 113, 1].into(),
                    protocol: TCP,
                    port: 443,
                },
                Target {
                    address: v6(1),
                    protocol: UDP,
                    port: 53,
                },
            ],
            sources: vec![[198, 18, 1, 10].into(), v6(0x10)],
            valid: 30,
            noise: 10,
        }
    }

    fn run(seed: u64, spec: &Spec, count: usize) -> Vec<Vec<u8>> {
        let mut rng = StdRng::seed_from_u64(seed);
        (0..count).map(|_| generate(&mut rng, spec)).collect()
    }

    #[test]
    fn a_seed_names_a_run() {
        assert_eq!(run(1, &spec(), 500), run(1, &spec(), 500));
        assert_ne!(run(1, &spec(), 500), run(2, &spec(), 500));
    }

    #[test]
    fn lengths_stay_within_bounds_for_any_spec() {
        for spec in [
            spec(),
            Spec::default(),
            Spec { valid: 100, ..spec() },
            Spec {
                valid: 255,
                noise: 255,
                ..Spec::default()
            },
        ] {
            for packet in run(3, &spec, 20_000) {
                assert!(
                    (MIN_LENGTH..=MAX_LENGTH).contains(&packet.len()),
                    "{}",
                    packet.len()
                );
            }
        }
    }

    #[test]
    fn valid_packets_are_for_a_service_and_check_out() {
        let spec = Spec { valid: 100, ..spec() };
        for packet in run(4, &spec, 2_000) {
            let (protocol, segment) = transport_of(&packet).unwrap();
            let port = u16::from_be_bytes([segment[2], segment[3]]);
            let ip = &packet[14..];
            let (addresses, target) = if protocol == TCP {
                assert_eq!(checksum(&[&ip[..20]]), 0);
                (&ip[12..20], &spec.services[0])
            } else {
                (&ip[8..40], &spec.services[1])
            };
            assert_eq!((protocol, port), (target.protocol, target.port));
            let length = (segment.len() as u32).to_be_bytes();
            assert_eq!(checksum(&[addresses, &length, &[0, 0, 0, protocol], segment]), 0);
        }
    }

    #[test]
    fn every_kind_of_packet_occurs() {
        let mut seen = HashSet::new();
        for packet in run(5, &spec(), 50_000) {
            let ethertype = u16::from_be_bytes([packet[12], packet[13]]);
            let name = match ethertype {
                ETHERTYPE_IPV4 if packet.len() > 34 => match (packet[14], packet[23], packet[20] & 0x3f) {
                    (0x45, TCP, 0) => "v4 tcp",
                    (0x45, UDP, 0) => "v4 udp",
                    (0x45, ICMP, 0) => "v4 icmp",
                    (0x45, _, fragment) if fragment != 0 => "v4 fragment",
                    (0x46..=0x4f, ..) => "v4 options",
                    _ => "v4 else",
                },
                ETHERTYPE_IPV6 if packet.len() > 54 => match packet[20] {
                    TCP => "v6 tcp",
                    UDP => "v6 udp",
                    ICMPV6 => "v6 icmp",
                    FRAGMENT => "v6 fragment",
                    HOP_BY_HOP => "v6 hop-by-hop",
                    ROUTING => "v6 routing",
                    AUTHENTICATION => "v6 authentication",
                    DESTINATION_OPTIONS => "v6 destination options",
                    _ => "v6 else",
                },
                TPID_8021Q if packet.len() > 18 && packet[16..18] == TPID_8021Q.to_be_bytes() => "two tags",
                TPID_8021Q | TPID_8021AD => "tagged",
                _ if packet.len() < 34 => "truncated",
                _ => "else",
            };
            seen.insert(name);
        }
        assert_eq!(seen.len(), 19, "{seen:?}");
    }
}
