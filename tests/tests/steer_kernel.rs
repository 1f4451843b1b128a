//! Steering as the kernel runs it, held beside the same code in memory: actions, and every byte that is written.
//!
//! Packets go through `BPF_PROG_TEST_RUN` in a namespace with routes and neighbours of its own; no interface is touched.

#![expect(
    clippy::expect_used,
    reason = "a step of a test that fails has to stop that test"
)]

use std::{
    collections::BTreeSet,
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32},
    sync::atomic::Ordering,
};

use anyhow::{Context, Result, ensure};
use edge_common::{
    abi::{Addr, Code, Outcome, Reason, steer::FLOW_WORDS},
    algo::flows::Info,
    datapath::{self, At, steer},
    mem::{Bytes, MemEgress, MemLanes, MemTables},
};
use edge_user::{
    config::{
        Affinity, BackendSpec, Direct, Forward, Guard, Limits, Nat, PortRange, Protocol, Service, Shield,
    },
    kernel::steering::Change,
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tests::{
    frame::{ACK, FIN, Frame, RST, SYN, Tag, Tcp, Transport, checksum},
    judge::Kernel,
    netns::Namespace,
    skip,
};

const PORT: u16 = 443;
const RELAYED: [&str; 2] = ["203.0.113.1", "2001:db8:ffff::1"];
const WRAPPED: [&str; 2] = ["203.0.113.2", "2001:db8:ffff::2"];
/// Reached through a router, and not at all.
const ROUTED: &str = "203.0.113.3";
const LOST: &str = "203.0.113.4";
const TRANSLATED: [&str; 2] = ["203.0.113.5", "2001:db8:ffff::5"];
/// What backends see of the edge, and where they listen.
const SOURCE: [&str; 2] = ["10.0.0.254", "fd00::fe"];
const TARGET: u16 = 8_443;
const CLIENT: [&str; 2] = ["198.18.1.10", "2001:db8:101::10"];
const PORTS: PortRange = PortRange {
    low: 61_000,
    high: 61_099,
};
/// Packets of the random part.
const PACKETS: u32 = 3_000;
/// MTU of the way to the backends.
const MTU: u32 = 1_500;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Backends of each family, as neighbours of the namespace.
fn neighbours() -> Vec<(IpAddr, [u8; 6])> {
    (1..=3_u8)
        .flat_map(|last| {
            let mac = [2, 0xbe, 0, 0, 0, last];
            [
                (IpAddr::from([10, 0, 0, last]), mac),
                (ip(&format!("fd00::{last}")), mac),
            ]
        })
        .collect()
}

fn world() -> Vec<Service> {
    let service = |vip: &str, protocol, forward, backends: &[&str]| Service {
        name: format!("{vip}-{protocol:?}"),
        address: Some(ip(vip)),
        protocol,
        port: PORT,
        limits: Limits::default(),
        observe: false,
        guard: Guard::None,
        direct: Some(Direct {
            forward,
            nat: None,
            affinity: Affinity::Flow,
            table_size: 1_009,
            backends: backends
                .iter()
                .map(|address| BackendSpec {
                    address: ip(address),
                    weight: NonZeroU32::MIN,
                    port: None,
                })
                .collect(),
            health: None,
        }),
    };
    let (v4, v6) = (
        ["10.0.0.1", "10.0.0.2", "10.0.0.3"],
        ["fd00::1", "fd00::2", "fd00::3"],
    );
    let mixed = ["10.0.0.1", "fd00::2", "10.0.0.3"];
    let mut services = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        services.extend([
            service(RELAYED[0], protocol, Forward::DsrL2, &v4),
            service(RELAYED[1], protocol, Forward::DsrL2, &v6),
            service(WRAPPED[0], protocol, Forward::Ipip, &mixed),
            service(WRAPPED[1], protocol, Forward::Ipip, &mixed),
        ]);
    }
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for (vip, source, backends) in [(TRANSLATED[0], SOURCE[0], &v4), (TRANSLATED[1], SOURCE[1], &v6)] {
            let mut translated = service(vip, protocol, Forward::Nat, backends);
            if let Some(direct) = &mut translated.direct {
                direct.nat = Some(Nat {
                    source: ip(source),
                    ports: PORTS,
                });
                for backend in &mut direct.backends {
                    backend.port = NonZeroU16::new(TARGET);
                }
            }
            services.push(translated);
        }
    }
    services.push(service(ROUTED, Protocol::Tcp, Forward::DsrL2, &["10.9.0.1"]));
    services.push(service(LOST, Protocol::Tcp, Forward::Ipip, &["10.0.0.77"]));
    services
}

/// Both sides, with the same tables.
struct Pair {
    kernel: Kernel,
    memory: MemTables,
    lanes: MemLanes,
    ways: Vec<(Addr, steer::Way)>,
    /// What both wrote last.
    written: Vec<u8>,
}

impl Pair {
    fn new(namespace: &Namespace) -> Result<Self> {
        namespace.sysctl("ipv4/conf/all/forwarding", "1")?;
        namespace.sysctl("ipv6/conf/all/forwarding", "1")?;
        let mut commands = vec![
            "link add out address 02:be:00:00:00:fe type veth peer name far".to_owned(),
            "link set out up".to_owned(),
            "link set far up".to_owned(),
            "addr add 10.0.0.254/24 dev out".to_owned(),
            "addr add fd00::fe/64 dev out nodad".to_owned(),
            "route add 10.9.0.0/24 via 10.0.0.1".to_owned(),
            format!("route add {}/32 via 10.0.0.2", CLIENT[0]),
            format!("route add {}/128 via fd00::2 dev out", CLIENT[1]),
        ];
        for (address, mac) in neighbours() {
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            commands.push(format!("neigh add {address} lladdr {mac} dev out nud permanent"));
        }
        namespace.ip_batch(commands)?;
        let index = namespace.ip("-o link show dev out")?;
        let interface = index.split(':').next().context("an index")?.trim().parse()?;
        let mut kernel = Kernel::load()?;
        kernel.configure(&world(), &Shield::default(), &[], 0)?;
        let ways = neighbours()
            .into_iter()
            .map(|(address, mac)| (Addr::from(address), way(interface, mac)))
            .chain([(
                Addr::from(ip("10.9.0.1")),
                steer::Way {
                    on_link: 0,
                    ..way(interface, [2, 0xbe, 0, 0, 0, 1])
                },
            )])
            .chain(CLIENT.map(|client| {
                let way = steer::Way {
                    on_link: 0,
                    ..way(interface, [2, 0xbe, 0, 0, 0, 2])
                };
                (Addr::from(ip(client)), way)
            }))
            .collect();
        Ok(Self {
            written: Vec::new(),
            memory: kernel.copy()?,
            lanes: kernel.tables.copy_steering(),
            kernel,
            ways,
        })
    }

    /// Has both judge a frame, and compares action and bytes.
    fn agree(&mut self, frame: &[u8]) -> Result<Reason> {
        let arrival = At {
            tick: self.kernel.tables.clock.now(),
            external: false,
        };
        let verdict = datapath::run(&Bytes(frame), &self.memory, &arrival);
        let egress = MemEgress::new(frame);
        let egress = MemEgress {
            ways: self.ways.iter().copied().collect(),
            ..egress
        };
        let reason = if verdict.code == Code::STEER {
            let (frame, lanes) = (Bytes(frame), &self.lanes);
            let steered = steer::steer(
                &frame,
                &self.memory,
                lanes,
                &egress,
                verdict.service,
                arrival.tick,
            );
            steered.verdict.reason()
        } else {
            verdict.reason()
        };
        let (action, written) = self.kernel.transform(frame)?;
        let expected = match reason.outcome() {
            Outcome::Drop => 1,
            Outcome::Pass => 2,
            Outcome::Answer => 3,
            Outcome::Forward => 4,
        };
        ensure!(
            action == expected,
            "action {action} of the kernel, {reason:?} in memory"
        );
        ensure!(
            written == egress.bytes(),
            "{reason:?}: the kernel wrote\n{written:02x?}\nmemory\n{:02x?}\nof\n{frame:02x?}",
            egress.bytes()
        );
        self.written = written;
        Ok(reason)
    }

    /// Flows in the table, as (hash, backend, class).
    fn flows(lanes: &MemLanes) -> BTreeSet<(u64, u16, u8)> {
        let mut flows = BTreeSet::new();
        for bucket in lanes.buckets() {
            for at in (0..FLOW_WORDS).step_by(2) {
                let info = Info(bucket[at + 1].load(Ordering::Relaxed));
                if info.class() != 0 {
                    flows.insert((
                        bucket[at].load(Ordering::Relaxed),
                        info.owner().backend,
                        info.class(),
                    ));
                }
            }
        }
        flows
    }
}

fn way(interface: u32, mac: [u8; 6]) -> steer::Way {
    let bytes: Vec<u8> = mac.into_iter().chain([2, 0xbe, 0, 0, 0, 0xfe]).collect();
    let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    steer::Way {
        code: steer::Way::FOUND,
        interface,
        mtu: MTU,
        on_link: 1,
        link: [word(0), word(4), word(8)],
    }
}

fn segment(vip: &str, sport: u16, flags: u8, payload: usize) -> Frame {
    let vip = ip(vip);
    let client = ip(CLIENT[usize::from(vip.is_ipv6())]);
    let tcp = Tcp {
        source: sport,
        destination: PORT,
        flags,
        ..Tcp::default()
    };
    let mut frame = Frame::new(client, vip, Transport::Tcp(tcp));
    frame.payload = vec![0x5a; payload];
    frame
}

fn datagram(vip: &str, sport: u16, payload: usize) -> Frame {
    let vip = ip(vip);
    let client = ip(CLIENT[usize::from(vip.is_ipv6())]);
    Frame::udp((client, sport), (vip, PORT), &vec![0xa5; payload])
}

/// An error about a segment that the service sent to the client.
fn error(vip: &str, client_port: u16, kind: u8, code: u8) -> Frame {
    let vip = ip(vip);
    let client = ip(CLIENT[usize::from(vip.is_ipv6())]);
    let tcp = Tcp {
        source: PORT,
        destination: client_port,
        flags: ACK,
        ..Tcp::default()
    };
    let mut quoted = Frame::new(vip, client, Transport::Tcp(tcp));
    quoted.payload = vec![0; 64];
    let message = Transport::Icmp {
        kind,
        code,
        rest: [0, 0, 5, 0],
    };
    let mut frame = Frame::new(client, vip, message);
    frame.payload = quoted.bytes()[14..].to_vec();
    frame
}

fn in_a_namespace(test: &str, job: impl FnOnce(Pair) + Send) {
    if let Some(reason) = skip::missing() {
        skip::report(test, reason);
        return;
    }
    let namespace = Namespace::create("steer").expect("a namespace");
    namespace.enter(|| job(Pair::new(&namespace).expect("both sides are set up")));
}

#[test]
fn every_way_out_is_the_same_to_the_byte() {
    in_a_namespace("steer-rows", |mut pair| {
        let mut row = |what: &str, frame: &[u8], reason: Reason| {
            let found = pair
                .agree(frame)
                .unwrap_or_else(|error| panic!("{what}: {error:#}"));
            assert_eq!(found, reason, "{what}");
        };
        for vip in RELAYED.iter().chain(&WRAPPED) {
            for flags in [SYN, ACK, ACK | FIN, RST] {
                for sport in 1_000..1_012 {
                    row(
                        "a segment",
                        &segment(vip, sport, flags, 9).bytes(),
                        Reason::Steered,
                    );
                }
            }
            for sport in 2_000..2_012 {
                row("a datagram", &datagram(vip, sport, 33).bytes(), Reason::Steered);
            }
            let v6 = ip(vip).is_ipv6();
            for sport in 1_000..1_012 {
                let about = if v6 {
                    error(vip, sport, 2, 0)
                } else {
                    error(vip, sport, 3, 4)
                };
                row("an error about a connection", &about.bytes(), Reason::Steered);
                let elsewhere = if v6 {
                    error(vip, sport, 1, 4)
                } else {
                    error(vip, sport, 11, 0)
                };
                row("another error", &elsewhere.bytes(), Reason::Steered);
            }
            let mut last_hop = segment(vip, 7, ACK, 0);
            last_hop.hop_limit = 1;
            row("the last hop", &last_hop.bytes(), Reason::HopsExceeded);
            let mut tagged = segment(vip, 8, ACK, 20);
            tagged.tags = vec![Tag {
                protocol: 0x8100,
                id: 5,
            }];
            row("tagged", &tagged.bytes(), Reason::Steered);
            let mut padded = segment(vip, 9, ACK, 0).bytes();
            padded.resize(80, 0);
            row("padded", &padded, Reason::Steered);
        }
        for (vip, headers) in [(WRAPPED[0], 40), (WRAPPED[1], 60)] {
            // With 20 bytes more it fits, with 40 it does not: which it is depends on the backend's family.
            let exact = MTU as usize - headers - 40;
            row(
                "just fits",
                &segment(vip, 20, ACK, exact).bytes(),
                Reason::Steered,
            );
            for sport in 20..26 {
                let large = segment(vip, sport, ACK, MTU as usize - headers).bytes();
                let reason = pair_of(vip, &large);
                row("too big", &large, reason);
            }
        }
        row(
            "behind a router",
            &segment(ROUTED, 30, SYN, 0).bytes(),
            Reason::NoRoute,
        );
        row(
            "no neighbour",
            &segment(LOST, 30, SYN, 0).bytes(),
            Reason::NoRoute,
        );
        row(
            "not steered",
            &segment("203.0.113.9", 30, SYN, 0).bytes(),
            Reason::NotProtected,
        );
    });
}

/// What becomes of a packet of a whole MTU that is to be wrapped.
fn pair_of(vip: &str, frame: &[u8]) -> Reason {
    // The flag lies in the first byte behind the identification.
    if ip(vip).is_ipv4() && frame[20] & 0x40 == 0 {
        Reason::Oversized
    } else {
        Reason::TooBig
    }
}

#[test]
fn random_packets_are_steered_alike_and_remembered_alike() {
    in_a_namespace("steer-random", |mut pair| {
        let mut rng = SmallRng::seed_from_u64(9);
        let vips = [RELAYED, WRAPPED].concat();
        let mut steered = 0;
        for number in 0..PACKETS {
            if number == PACKETS / 2 {
                // Somebody is drained, and somebody is down.
                let lock = pair.kernel.pins.lock().expect("the lock");
                let tables = &pair.kernel.tables;
                let service = format!("{}-Tcp", RELAYED[0]);
                for (backend, change) in [
                    ("10.0.0.1", Change::Drained(true)),
                    ("10.0.0.2", Change::Up(false)),
                ] {
                    let changed = tables.change_backend(&lock, &service, ip(backend), change);
                    assert!(changed.expect("it is a backend"));
                }
                let before = Pair::flows(&pair.lanes);
                pair.lanes = tables.copy_steering();
                assert_eq!(Pair::flows(&pair.lanes), before, "both remember the same");
            }
            let vip = vips[rng.random_range(0..vips.len())];
            let sport = rng.random_range(1..120);
            let mut frame = match rng.random_range(0..10) {
                0..=2 => segment(vip, sport, SYN, 0),
                3..=6 => segment(vip, sport, ACK, rng.random_range(0..1_460)),
                7 => segment(vip, sport, ACK | FIN, 0),
                8 => datagram(vip, sport, rng.random_range(0..1_400)),
                _ => error(
                    vip,
                    sport,
                    if ip(vip).is_ipv6() { 2 } else { 3 },
                    if ip(vip).is_ipv6() { 0 } else { 4 },
                ),
            };
            frame.hop_limit = rng.random_range(0..70);
            let mut bytes = frame.bytes();
            if rng.random_ratio(1, 20) {
                let at = rng.random_range(14..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8);
            }
            if rng.random_ratio(1, 30) {
                bytes.truncate(rng.random_range(14..bytes.len()));
            }
            let reason = pair
                .agree(&bytes)
                .unwrap_or_else(|error| panic!("packet {number}: {error:#}"));
            steered += u32::from(reason == Reason::Steered);
        }
        assert!(steered > PACKETS / 2, "{steered} of {PACKETS}");
        let kernel = Pair::flows(&pair.kernel.tables.copy_steering());
        assert_eq!(kernel, Pair::flows(&pair.lanes), "both remember the same");
        assert!(kernel.len() > 50, "{} flows", kernel.len());
    });
}

/// Both ends of a frame, after its sums were added up.
fn ends(frame: &[u8]) -> ((IpAddr, u16), (IpAddr, u16)) {
    let (source, destination, transport) = if frame[12..14] == [0x08, 0x00] {
        let ip: [u8; 20] = frame[14..34].try_into().expect("a header");
        assert_eq!(checksum(&[&ip]), 0, "the header's sum");
        let address = |at: usize| IpAddr::from([ip[at], ip[at + 1], ip[at + 2], ip[at + 3]]);
        (address(12), address(16), 34)
    } else {
        let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).expect("16 bytes"));
        (address(22), address(38), 54)
    };
    let segment = &frame[transport..];
    let protocol = if source.is_ipv4() { frame[23] } else { frame[20] };
    let addresses = if source.is_ipv4() {
        &frame[26..34]
    } else {
        &frame[22..54]
    };
    let length = u16::try_from(segment.len())
        .expect("a short packet")
        .to_be_bytes();
    let pseudo = [addresses, &[0, protocol], &length].concat();
    assert_eq!(checksum(&[&pseudo, segment]), 0, "the segment's sum");
    let port = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
    ((source, port(0)), (destination, port(2)))
}

/// A segment of `from` to `to`.
fn between(from: (IpAddr, u16), to: (IpAddr, u16), flags: u8, numbers: (u32, u32)) -> Vec<u8> {
    let tcp = Tcp {
        source: from.1,
        destination: to.1,
        flags,
        sequence: numbers.0,
        acknowledgement: numbers.1,
        ..Tcp::default()
    };
    let mut frame = Frame::new(from.0, to.0, Transport::Tcp(tcp));
    frame.payload = b"odd".to_vec();
    frame.bytes()
}

impl Pair {
    /// Has both judge a packet that goes on; both its ends then.
    fn through(&mut self, what: &str, frame: &[u8]) -> ((IpAddr, u16), (IpAddr, u16)) {
        let reason = self.agree(frame).with_context(|| what.to_owned());
        assert_eq!(reason.expect("both agree"), Reason::Steered, "{what}");
        ends(&self.written)
    }

    /// Translations in a table but for their time: everything else of each.
    fn translations(lanes: &MemLanes) -> BTreeSet<Vec<u64>> {
        let words = lanes.nats().iter().map(|entry| {
            let mut words: Vec<u64> = entry.iter().map(|word| word.load(Ordering::Relaxed)).collect();
            words[0] &= !u64::from(u32::MAX);
            words
        });
        words.filter(|words| words[0] != 0).collect()
    }
}

#[test]
fn translated_packets_come_back_as_they_went() {
    in_a_namespace("steer-nat", |mut pair| {
        for (vip, source, client) in [
            (TRANSLATED[0], SOURCE[0], CLIENT[0]),
            (TRANSLATED[1], SOURCE[1], CLIENT[1]),
        ] {
            let (vip, source) = ((ip(vip), PORT), ip(source));
            let mut used = BTreeSet::new();
            for sport in 1_000..1_040 {
                let client = (ip(client), sport);
                let (own, backend) = pair.through("a SYN", &between(client, vip, SYN, (7, 0)));
                assert_eq!((own.0, backend.1), (source, TARGET));
                assert!((PORTS.low..=PORTS.high).contains(&own.1));
                assert!(used.insert((own, backend)), "no two have one port at a backend");
                let again = pair.through("the SYN again", &between(client, vip, SYN, (7, 0)));
                assert_eq!(again, (own, backend));
                let back = pair.through("an answer", &between(backend, own, SYN | ACK, (99, 8)));
                assert_eq!(back, (vip, client));
                let numbers = [(8, 100), (8, 1 << 30)];
                for numbers in numbers {
                    let there = pair.through("what follows", &between(client, vip, ACK, numbers));
                    assert_eq!(there, (own, backend));
                }
                let back = pair.through("an end", &between(backend, own, ACK | FIN, (100, 8)));
                assert_eq!(back, (vip, client));
            }
            for sport in 2_000..2_030 {
                let client = (ip(client), sport);
                let there = Frame::udp(client, vip, b"question?").bytes();
                let (own, backend) = pair.through("a datagram", &there);
                let back = pair.through("its answer", &Frame::udp(backend, own, b"answer").bytes());
                assert_eq!(back, (vip, client));
            }
            let mut row = |what: &str, frame: &[u8], reason: Reason| {
                let found = pair
                    .agree(frame)
                    .unwrap_or_else(|error| panic!("{what}: {error:#}"));
                assert_eq!(found, reason, "{what}");
            };
            let (backend, strange) = (used.iter().next().expect("one").1, (ip(client_of(vip.0)), 9));
            let unused = (PORTS.low..=PORTS.high)
                .find(|port| !used.contains(&((source, *port), backend)))
                .expect("there are more ports than connections");
            row(
                "an answer to nobody",
                &between(backend, (source, unused), ACK, (1, 1)),
                Reason::Admitted,
            );
            row(
                "somebody who is no backend",
                &between(strange, (source, 61_000), ACK, (1, 1)),
                Reason::Admitted,
            );
            row(
                "a port beyond those",
                &between(backend, (source, 61_100), ACK, (1, 1)),
                Reason::NotProtected,
            );
            row(
                "an end of nothing",
                &between((ip(client_of(vip.0)), 3_000), vip, RST, (1, 0)),
                Reason::NoConnection,
            );
            let mut last = Frame::udp((ip(client_of(vip.0)), 3_001), vip, b"x");
            last.hop_limit = 1;
            row("the last hop", &last.bytes(), Reason::HopsExceeded);
            let mut large = Frame::udp((ip(client_of(vip.0)), 3_002), vip, &[1; 1_500]);
            large.hop_limit = 9;
            row("more than fits", &large.bytes(), Reason::TooBig);
            let mut extended = Frame::udp((ip(client_of(vip.0)), 3_003), vip, b"x");
            if vip.0.is_ipv4() {
                extended.options = vec![1; 4];
                row("options", &extended.bytes(), Reason::Unforwardable);
            }
        }
        let kernel = Pair::translations(&pair.kernel.tables.copy_steering());
        assert_eq!(kernel, Pair::translations(&pair.lanes), "both remember the same");
        assert!(kernel.len() >= 140, "{} translations", kernel.len());
    });
}

fn client_of(vip: IpAddr) -> &'static str {
    CLIENT[usize::from(vip.is_ipv6())]
}

/// More connections than a backend's ports: those that were answered stay, others are told that there is no port.
#[test]
fn ports_that_are_used_up_are_told_and_open_connections_keep_theirs() {
    in_a_namespace("steer-ports", |mut pair| {
        let (vip, client) = ((ip(TRANSLATED[0]), PORT), ip(CLIENT[0]));
        let mut open = Vec::new();
        let mut refused = 0;
        for sport in 1_000..1_600 {
            let syn = between((client, sport), vip, SYN, (7, 0));
            match pair.agree(&syn).expect("both agree") {
                Reason::Steered => {
                    let (own, backend) = ends(&pair.written);
                    pair.through("an answer", &between(backend, own, SYN | ACK, (99, 8)));
                    pair.through(
                        "the handshake's end",
                        &between((client, sport), vip, ACK, (8, 100)),
                    );
                    open.push((sport, own, backend));
                }
                Reason::NoPort => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(refused > 200, "{refused} found no port");
        assert!(open.len() > 200, "{} of 300 ports are used", open.len());
        for (sport, own, backend) in open {
            let there = pair.through("later", &between((client, sport), vip, ACK, (8, 100)));
            assert_eq!(there, (own, backend), "it keeps its port");
        }
    });
}
