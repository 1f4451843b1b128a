//! Steering in memory: where packets go, what is written, and what is remembered.

use core::net::IpAddr;
use std::{vec, vec::Vec};

use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, SlicedPacket, icmpv4};
use proptest::prelude::*;

use super::{Way, steer};
use crate::{
    abi::{
        Addr, AddressFlags, Backend, Code, Control, Forward, Params, PortEntry, Reason, Service, SteerRule,
    },
    datapath::{At, run},
    mem::{Bytes, MemEgress, MemLanes, MemTables},
};

const SERVICE: u16 = 2;
const VIP4: &str = "203.0.113.1";
const VIP6: &str = "2001:db8:ffff::1";
const CLIENT4: &str = "198.18.1.10";
const CLIENT6: &str = "2001:db8:101::10";
const PORT: u16 = 443;
const SIZE: u32 = 1_009;
/// A flow's entry lives an hour: the clock begins later.
const TICK: u64 = 10_000_000;

fn addr(text: &str) -> Addr {
    Addr::from(text.parse::<IpAddr>().expect("an address"))
}

struct World {
    tables: MemTables,
    lanes: MemLanes,
}

/// A service on `vip` in front of these backends.
fn world(vip: &str, forward: Forward, backends: &[&str]) -> World {
    let params = Params {
        seeds: [0x1234_5678_9abc_def1, 0xfeed_beef_cafe_f00d],
        hint_mask: 255,
        line_mask: 255,
        front_mask: 255,
        ban_buckets: 16,
        earned_buckets: 16,
        hz: 250,
        flow_mask: 1_023,
        ..Params::default()
    };
    let mut tables = MemTables::new(params);
    tables.control = Control(Control::HAS_DIRECT);
    tables.ports[usize::from(PORT)] = PortEntry {
        tcp: [SERVICE, 0],
        udp: [SERVICE, 0],
    };
    tables.services[0][usize::from(SERVICE)] = Service {
        addr: addr(vip),
        id: SERVICE,
        flags: Service::DIRECT,
        ..Service::default()
    };
    tables.services[0][1] = Service::default();
    tables
        .addresses
        .insert(addr(vip), AddressFlags(AddressFlags::PROTECTED));
    let mut lanes = MemLanes::new(params.flow_mask);
    lanes.rules[0][usize::from(SERVICE)] = SteerRule {
        forward: forward as u8,
        ..SteerRule::default()
    };
    for (at, backend) in backends.iter().enumerate() {
        lanes.backends[at + 1] = Backend {
            addr: addr(backend),
            service: SERVICE,
            weight: 1,
            generation: 1,
            flags: Backend::PRESENT | Backend::UP,
            ..Backend::default()
        };
    }
    let indices: Vec<(u16, u32)> = (1..=backends.len() as u16).map(|index| (index, 1)).collect();
    lanes.spread(0, SERVICE, 0, SIZE, &indices);
    World { tables, lanes }
}

struct Outcome {
    code: Code,
    service: u16,
    frame: Vec<u8>,
}

impl World {
    /// Judges a frame and steers it, with ways to all backends that take packets of `mtu` bytes.
    fn send_within(&self, frame: &[u8], mtu: u32, tick: u64) -> Outcome {
        let arrival = At { tick, external: true };
        let verdict = run(&Bytes(frame), &self.tables, &arrival);
        if verdict.code != Code::STEER {
            return Outcome {
                code: verdict.code,
                service: verdict.service,
                frame: frame.to_vec(),
            };
        }
        let mut egress = MemEgress::new(frame);
        for (index, backend) in self.lanes.backends.iter().enumerate().skip(1).take(8) {
            let way = Way {
                code: Way::FOUND,
                interface: index as u32,
                mtu,
                on_link: 1,
                link: [0x0101_0101 * index as u32, 0x0202_0202, 0x0303_0303],
            };
            egress.ways.insert(backend.addr, way);
        }
        let sent = steer(
            &Bytes(frame),
            &self.tables,
            &self.lanes,
            &egress,
            verdict.service,
            tick,
        );
        Outcome {
            code: sent.verdict.code,
            service: sent.verdict.service,
            frame: egress.bytes(),
        }
    }

    fn send(&self, frame: &[u8], tick: u64) -> Outcome {
        self.send_within(frame, 1_500, tick)
    }

    /// The backend that a packet went to, by its Ethernet address.
    fn backend(&self, frame: &[u8], tick: u64) -> u8 {
        let sent = self.send(frame, tick);
        assert_eq!(sent.code.reason(), Reason::Steered);
        sent.frame[0]
    }
}

#[derive(Clone, Copy)]
enum Tcp {
    Syn,
    Ack,
    Fin,
}

fn tcp(v6: bool, sport: u16, kind: Tcp, payload: usize) -> Vec<u8> {
    let builder = ip(v6, 64).tcp(sport, PORT, 7, 1_000);
    let builder = match kind {
        Tcp::Syn => builder.syn(),
        Tcp::Ack => builder.ack(9),
        Tcp::Fin => builder.ack(9).fin(),
    };
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &vec![0x5a; payload]).expect("built");
    bytes
}

fn udp(v6: bool, sport: u16, hops: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    ip(v6, hops)
        .udp(sport, PORT)
        .write(&mut bytes, b"question")
        .expect("built");
    bytes
}

fn ip(v6: bool, hops: u8) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let octets = |text: &str| text.parse::<IpAddr>().expect("an address");
    if v6 {
        let (IpAddr::V6(src), IpAddr::V6(dst)) = (octets(CLIENT6), octets(VIP6)) else {
            unreachable!("IPv6 addresses")
        };
        link.ipv6(src.octets(), dst.octets(), hops)
    } else {
        let (IpAddr::V4(src), IpAddr::V4(dst)) = (octets(CLIENT4), octets(VIP4)) else {
            unreachable!("IPv4 addresses")
        };
        link.ipv4(src.octets(), dst.octets(), hops)
    }
}

const THREE: [&str; 3] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
const THREE6: [&str; 3] = ["fd00::1", "fd00::2", "fd00::3"];

/// What a frame is once it was relayed: everything but the link and the hops is as it was.
#[test]
fn a_relayed_packet_is_the_same_with_one_hop_less() {
    for v6 in [false, true] {
        let (vip, backends) = if v6 { (VIP6, THREE6) } else { (VIP4, THREE) };
        let world = world(vip, Forward::DsrL2, &backends);
        for frame in [
            tcp(v6, 1_234, Tcp::Syn, 0),
            tcp(v6, 1_234, Tcp::Ack, 33),
            udp(v6, 1_234, 64),
        ] {
            let sent = world.send(&frame, TICK);
            assert_eq!((sent.code.reason(), sent.service), (Reason::Steered, SERVICE));
            assert_eq!(sent.frame[4..12], [2, 2, 2, 2, 3, 3, 3, 3]);
            let mut expected = frame.clone();
            expected[..12].copy_from_slice(&sent.frame[..12]);
            if v6 {
                expected[14 + 7] = 63;
            } else {
                expected[14 + 8] = 63;
                let sum = u16::from_be_bytes([expected[24], expected[25]]);
                expected[24..26].copy_from_slice(&(sum + 0x100).to_be_bytes());
                let sliced = SlicedPacket::from_ethernet(&sent.frame).expect("a packet");
                let Some(etherparse::NetSlice::Ipv4(header)) = sliced.net else {
                    panic!("IPv4")
                };
                let header = header.header().to_header();
                assert_eq!(header.calc_header_checksum(), header.header_checksum);
            }
            assert_eq!(sent.frame, expected);
        }
    }
}

/// Every mix of families: the outer header is right, the inner packet is the same with one hop less.
#[test]
fn an_encapsulated_packet_has_a_header_of_the_backends_family() {
    for (v6, outer6) in [(false, false), (false, true), (true, false), (true, true)] {
        let vip = if v6 { VIP6 } else { VIP4 };
        let backends = if outer6 { THREE6 } else { THREE };
        let world = world(vip, Forward::Ipip, &backends);
        let mut sources = std::collections::HashSet::new();
        for sport in 1_000..1_040 {
            let frame = tcp(v6, sport, Tcp::Syn, 11);
            let sent = world.send(&frame, TICK);
            assert_eq!(sent.code.reason(), Reason::Steered);
            let more = if outer6 { 40 } else { 20 };
            assert_eq!(sent.frame.len(), frame.len() + more);
            let backend = addr(backends[usize::from(sent.frame[0]) - 1]);
            let outer = &sent.frame[14..14 + more];
            let protocol = if v6 { 41 } else { 4 };
            if outer6 {
                let (header, _) = etherparse::Ipv6Header::from_slice(outer).expect("IPv6");
                assert_eq!(usize::from(header.payload_length), frame.len() - 14);
                assert_eq!((header.next_header.0, header.hop_limit), (protocol, 64));
                assert_eq!(header.destination, backend.to_bytes());
                assert_eq!(header.source[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
                sources.insert(header.source.to_vec());
            } else {
                let (header, _) = etherparse::Ipv4Header::from_slice(outer).expect("IPv4");
                assert_eq!(usize::from(header.total_len), frame.len() - 14 + 20);
                assert_eq!((header.protocol.0, header.time_to_live), (protocol, 64));
                assert!(header.dont_fragment && header.calc_header_checksum() == header.header_checksum);
                assert_eq!(header.destination, backend.to_bytes()[12..]);
                assert_eq!(header.source[..2], [172, 16]);
                sources.insert(header.source.to_vec());
            }
            let at = if v6 { 7 } else { 8 };
            let inner = &sent.frame[14 + more..];
            assert_eq!(inner[at], 63);
            assert_eq!(inner[12..], frame[26..]);
        }
        assert!(
            sources.len() > 30,
            "flows have sources of their own: {}",
            sources.len()
        );
    }
}

#[test]
fn what_does_not_fit_is_told_its_sender_or_dropped() {
    for v6 in [false, true] {
        let (vip, backends) = if v6 { (VIP6, THREE6) } else { (VIP4, THREE) };
        let world = world(vip, Forward::Ipip, &backends);
        let more: u32 = if v6 { 40 } else { 20 };
        let header = if v6 { 40 } else { 20 };
        // Encapsulated, it fits to the byte.
        let payload = 1_500 - more as usize - header - 20;
        let mut fitting = tcp(v6, 5, Tcp::Ack, payload);
        assert_eq!(world.send(&fitting, TICK).code.reason(), Reason::Steered);
        let mut large = tcp(v6, 5, Tcp::Ack, payload + 1);
        if !v6 {
            // It may be fragmented, and we do not.
            large[20] &= !0x40;
            assert_eq!(world.send(&large, TICK).code.reason(), Reason::Oversized);
            large[20] |= 0x40;
            fitting[20] |= 0x40;
        }
        let told = world.send(&large, TICK);
        assert_eq!(told.code.reason(), Reason::TooBig);
        assert_eq!(told.frame[..6], [2, 0, 0, 0, 0, 1]);
        assert_eq!(told.frame[6..12], [2, 0, 0, 0, 0, 2]);
        let sliced = SlicedPacket::from_ethernet(&told.frame).expect("a packet");
        match sliced.transport.expect("a message") {
            etherparse::TransportSlice::Icmpv4(message) => {
                let Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::FragmentationNeeded {
                    next_hop_mtu,
                }) = message.icmp_type()
                else {
                    panic!("{:?}", message.icmp_type())
                };
                assert_eq!(u32::from(next_hop_mtu), 1_500 - more);
                assert_eq!(message.payload(), &large[14..14 + 28]);
                assert_eq!(told.frame[26..30], large[30..34], "from the service");
                assert_eq!(told.frame[30..34], large[26..30], "to the client");
                assert_eq!(
                    message.icmp_type().calc_checksum(message.payload()),
                    message.checksum()
                );
            }
            etherparse::TransportSlice::Icmpv6(message) => {
                let Icmpv6Type::PacketTooBig { mtu } = message.icmp_type() else {
                    panic!("{:?}", message.icmp_type())
                };
                assert_eq!(mtu, 1_500 - more);
                assert_eq!(message.payload(), &large[14..14 + 128]);
                let from = |range: core::ops::Range<usize>| -> [u8; 16] {
                    told.frame[range].try_into().expect("an address")
                };
                assert_eq!(told.frame[22..38], large[38..54], "from the service");
                assert_eq!(told.frame[38..54], large[22..38], "to the client");
                assert!(message.is_checksum_valid(from(22..38), from(38..54)));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_goes_round_ends() {
    let world = world(VIP4, Forward::DsrL2, &THREE);
    assert_eq!(
        world.send(&udp(false, 9, 1), TICK).code.reason(),
        Reason::HopsExceeded
    );
    assert_eq!(world.send(&udp(false, 9, 2), TICK).code.reason(), Reason::Steered);
}

#[test]
fn nobody_and_no_way_have_reasons() {
    let mut world = world(VIP4, Forward::DsrL2, &THREE);
    let frame = tcp(false, 9, Tcp::Syn, 0);
    for backend in &mut world.lanes.backends {
        backend.flags &= !Backend::UP;
    }
    assert_eq!(world.send(&frame, TICK).code.reason(), Reason::NoBackend);
    world.lanes.spread(0, SERVICE, 0, SIZE, &[]);
    assert_eq!(world.send(&frame, TICK).code.reason(), Reason::NoBackend);
}

/// A connection stays, whatever backends come; one whose backend goes is taken over by another.
#[test]
fn a_connection_stays_with_its_backend() {
    for v6 in [false, true] {
        let (vip, backends) = if v6 { (VIP6, THREE6) } else { (VIP4, THREE) };
        let mut world = world(vip, Forward::DsrL2, &backends);
        let flows: Vec<u16> = (1_000..1_100).collect();
        let open = |world: &World, tick| -> Vec<u8> {
            flows
                .iter()
                .map(|sport| {
                    let first = world.backend(&tcp(v6, *sport, Tcp::Syn, 0), tick);
                    assert_eq!(world.backend(&tcp(v6, *sport, Tcp::Ack, 0), tick + 1), first);
                    first
                })
                .collect()
        };
        let before = open(&world, TICK);
        assert!((1..=3).all(|backend| before.contains(&backend)), "{before:?}");
        // One backend alone is left for what is new.
        world.lanes.spread(0, SERVICE, 1, SIZE, &[(3, 1)]);
        let now = |world: &World, tick| -> Vec<u8> {
            flows
                .iter()
                .map(|sport| world.backend(&tcp(v6, *sport, Tcp::Ack, 10), tick))
                .collect()
        };
        assert_eq!(now(&world, TICK + 1_000), before);
        // Backend 1 fails: its connections go on elsewhere, the others stay.
        world.lanes.backends[1].flags = Backend::PRESENT;
        let after = now(&world, TICK + 2_000);
        for (was, is) in before.iter().zip(&after) {
            assert_eq!(*is, if *was == 1 { 3 } else { *was });
        }
        // It is back, as another: nothing of the earlier one's is its.
        world.lanes.backends[1] = Backend {
            generation: 2,
            flags: Backend::PRESENT | Backend::UP,
            ..world.lanes.backends[1]
        };
        assert_eq!(now(&world, TICK + 3_000), after);
    }
}

#[test]
fn a_drained_backend_finishes_what_it_has() {
    let mut world = world(VIP4, Forward::DsrL2, &THREE);
    let sport = (1_000..2_000)
        .find(|sport| world.backend(&tcp(false, *sport, Tcp::Syn, 0), TICK) == 2)
        .expect("one of them");
    assert_eq!(world.backend(&tcp(false, sport, Tcp::Ack, 0), TICK), 2);
    world.lanes.backends[2].flags |= Backend::DRAINED;
    world.lanes.spread(0, SERVICE, 1, SIZE, &[(1, 1), (3, 1)]);
    assert_eq!(world.backend(&tcp(false, sport, Tcp::Ack, 5), TICK + 500), 2);
    assert_eq!(world.backend(&tcp(false, sport, Tcp::Fin, 0), TICK + 501), 2);
    let again = world.backend(&tcp(false, sport, Tcp::Syn, 0), TICK + 502);
    assert_ne!(again, 2, "a new connection under the same ports is a new one");
    assert_eq!(world.backend(&tcp(false, sport, Tcp::Ack, 0), TICK + 503), 2);
}

#[test]
fn datagrams_of_a_flow_are_entered_and_expire() {
    let mut world = world(VIP4, Forward::DsrL2, &THREE);
    let sport = (1_000..2_000)
        .find(|sport| world.backend(&udp(false, *sport, 64), TICK) == 1)
        .expect("one of them");
    assert_eq!(world.backend(&udp(false, sport, 64), TICK + 10), 1);
    world.lanes.spread(0, SERVICE, 1, SIZE, &[(2, 1)]);
    assert_eq!(world.backend(&udp(false, sport, 64), TICK + 59 * 250), 1);
    assert_eq!(world.backend(&udp(false, sport, 64), TICK + (59 + 60) * 250), 2);
}

/// Forged SYNs, and forged single segments, enter nothing.
#[test]
fn a_flood_enters_nothing() {
    let world = world(VIP4, Forward::DsrL2, &THREE);
    for step in 0..20_000_u32 {
        let mut frame = tcp(false, 7, if step % 2 == 0 { Tcp::Syn } else { Tcp::Ack }, 0);
        frame[26..30].copy_from_slice(&(0x0b00_0000 + step).to_be_bytes());
        let _ = world.send(&frame, TICK);
    }
    let entered: u64 = (1..=3).map(|backend| world.lanes.counted(backend).entered).sum();
    assert!(entered < 3, "{entered} of a flood were entered");
    let packets: u64 = (1..=3).map(|backend| world.lanes.counted(backend).packets).sum();
    assert_eq!(packets, 20_000);
}

#[test]
fn one_source_goes_to_one_backend_if_that_is_asked_for() {
    let mut world = world(VIP4, Forward::DsrL2, &THREE);
    world.lanes.rules[0][usize::from(SERVICE)].flags = SteerRule::BY_SOURCE;
    let first = world.backend(&tcp(false, 1_000, Tcp::Syn, 0), TICK);
    for sport in 1_001..1_200 {
        assert_eq!(world.backend(&tcp(false, sport, Tcp::Syn, 0), TICK), first);
    }
}

/// The error that a router sends about what a backend sent finds that backend.
#[test]
fn an_error_goes_to_the_backend_of_the_connection_it_quotes() {
    for v6 in [false, true] {
        let (vip, backends) = if v6 { (VIP6, THREE6) } else { (VIP4, THREE) };
        let world = world(vip, Forward::DsrL2, &backends);
        for sport in 1_000..1_030 {
            let backend = world.backend(&tcp(v6, sport, Tcp::Syn, 0), TICK);
            let error = error(v6, sport, PORT);
            let sent = world.send(&error, TICK + 1);
            assert_eq!((sent.code.reason(), sent.service), (Reason::Steered, SERVICE));
            assert_eq!(sent.frame[0], backend);
            assert_eq!(sent.frame[42..], error[42..]);
        }
        // About a port that is not steered, and not about a connection at all: the stack's.
        let sent = world.send(&error(v6, 1_000, PORT + 1), TICK);
        assert_eq!(sent.code.reason(), Reason::Signalling);
        let mut echo = Vec::new();
        let echo_of = if v6 {
            ip(v6, 64).icmpv6_echo_request(1, 1).write(&mut echo, b"ping")
        } else {
            ip(v6, 64).icmpv4_echo_request(1, 1).write(&mut echo, b"ping")
        };
        echo_of.expect("built");
        assert_eq!(world.send(&echo, TICK).code.reason(), Reason::Admitted);
    }
}

/// "Too big" about a segment from the service to the client's port `client_port`.
fn error(v6: bool, client_port: u16, service_port: u16) -> Vec<u8> {
    let mut quoted = tcp(v6, client_port, Tcp::Ack, 8)[14..].to_vec();
    // As the service sent it: addresses and ports the other way round.
    let (at, bytes) = if v6 { (8, 16) } else { (12, 4) };
    let (src, dst) = (
        quoted[at..at + bytes].to_vec(),
        quoted[at + bytes..at + 2 * bytes].to_vec(),
    );
    quoted[at..at + bytes].copy_from_slice(&dst);
    quoted[at + bytes..at + 2 * bytes].copy_from_slice(&src);
    let ports = if v6 { 40 } else { 20 };
    quoted[ports..ports + 2].copy_from_slice(&service_port.to_be_bytes());
    quoted[ports + 2..ports + 4].copy_from_slice(&client_port.to_be_bytes());
    let mut bytes = Vec::new();
    let built = if v6 {
        let kind = Icmpv6Type::PacketTooBig { mtu: 1_280 };
        ip(v6, 64).icmpv6(kind).write(&mut bytes, &quoted)
    } else {
        let header = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1_280 };
        let kind = Icmpv4Type::DestinationUnreachable(header);
        ip(v6, 64).icmpv4(kind).write(&mut bytes, &quoted)
    };
    built.expect("built");
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever arrives, steering neither panics nor alters a frame that it does not send.
    #[test]
    fn any_frame_has_a_reason(mut bytes in prop::collection::vec(any::<u8>(), 0..200), v6 in any::<bool>(), cut in 0_usize..120) {
        let (vip, backends) = if v6 { (VIP6, THREE6) } else { (VIP4, THREE) };
        let world = world(vip, Forward::Ipip, &backends);
        let mut frame = tcp(v6, 77, Tcp::Ack, 60);
        frame.truncate(cut.max(14));
        frame.append(&mut bytes);
        let sent = world.send(&frame, TICK);
        match sent.code.reason().outcome() {
            crate::abi::Outcome::Forward => prop_assert!(sent.frame.len() >= frame.len()),
            crate::abi::Outcome::Answer => prop_assert!(sent.frame.len() < frame.len()),
            _ => prop_assert_eq!(sent.frame, frame),
        }
    }
}
