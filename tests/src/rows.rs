//! Verdicts as a table: a description, a packet, and the reason it must leave with.
//!
//! The world they are judged in is [`world`]. The same rows go before the tables in memory and the loaded program.

use std::net::IpAddr;

use edge_common::abi::Reason;
use edge_user::config::{Limits, Protocol, Rate, Service, Shield};

use crate::frame::{
    ACK, DESTINATION_OPTIONS, ETHERTYPE_ARP, Extension, FIN, Fragment, Frame, PSH, SYN, TPID_8021AD,
    TPID_8021Q, Tag, Tcp, Transport, URG,
};

/// One row.
pub struct Row {
    /// What it shows.
    pub what: &'static str,
    /// The frame.
    pub packet: Vec<u8>,
    /// The reason it must leave with.
    pub reason: Reason,
}

/// The protected IPv4 address.
pub const V4: &str = "203.0.113.1";
/// The protected IPv6 address.
pub const V6: &str = "2001:db8:ffff::1";
/// An address of the machine that only a service on every local address protects.
pub const LOCAL: &str = "203.0.113.77";
/// Sources: nothing is known of the first; the others are what their names say.
pub const CLIENT: &str = "198.51.100.10";
/// Banned by itself.
pub const BANNED: &str = "198.51.101.66";
/// In a banned /24.
pub const BANNED_NETWORK: &str = "198.51.102.0/24";
/// Banned as to new connections only.
pub const BANNED_SYN: &str = "198.51.103.66";
/// Its ban has ended.
pub const PARDONED: &str = "198.51.104.66";
/// In a denied network.
pub const DENIED: &str = "192.0.2.0/25";
/// Allowed, though banned.
pub const ALLOWED: &str = "198.51.105.1";
/// Prefixes of IPv6 bans.
pub const BANNED_V6: [&str; 4] = [
    "2001:db8:a::66/128",
    "2001:db8:b:1::/64",
    "2001:db8:c:100::/56",
    "2001:db8:d::/48",
];
/// A denied IPv6 network.
pub const DENIED_V6: &str = "2001:db8:e::/48";

/// Services and settings of the world.
pub fn world() -> (Vec<Service>, Shield) {
    let service = |name: &str, address: Option<&str>, protocol, port| Service {
        name: name.into(),
        address: address.map(ip),
        protocol,
        port,
        limits: Limits::default(),
        observe: false,
        guard: edge_user::config::Guard::None,
        direct: None,
    };
    let mut limited = service("limited", Some(V4), Protocol::Tcp, 8080);
    limited.limits.source_syns = Some(Rate {
        per_second: 1,
        burst: 2,
    });
    let services = vec![
        service("web", Some(V4), Protocol::Tcp, 443),
        service("web6", Some(V6), Protocol::Tcp, 443),
        service("dns", Some(V4), Protocol::Udp, 53),
        service("any", None, Protocol::Tcp, 9000),
        limited,
    ];
    let shield = Shield {
        allow: vec![net(&format!("{ALLOWED}/32"))],
        deny: vec![net(DENIED), net(DENIED_V6)],
        ..Shield::default()
    };
    (services, shield)
}

/// The rows.
pub fn rows() -> Vec<Row> {
    let mut rows = scope();
    rows.extend(sources());
    rows.extend(shapes());
    rows
}

/// Rows about where a packet comes from: the reasons are those of packets from outside, on the loopback interface all of
/// them are admitted.
pub fn from_outside() -> Vec<Row> {
    [
        ("a source as usual", CLIENT, V4, Reason::Admitted),
        ("its own address", V4, V4, Reason::SameAddress),
        ("its own IPv6 address", V6, V6, Reason::SameAddress),
        ("loopback", "127.0.0.1", V4, Reason::Martian),
        ("the last of loopback", "127.255.255.255", V4, Reason::Martian),
        ("beside loopback", "128.0.0.1", V4, Reason::Admitted),
        ("unspecified", "0.0.0.0", V4, Reason::Martian),
        ("this network", "0.255.255.255", V4, Reason::Martian),
        ("beside this network", "1.0.0.0", V4, Reason::Admitted),
        ("multicast", "224.0.0.1", V4, Reason::Martian),
        ("the last of multicast", "239.255.255.255", V4, Reason::Martian),
        ("before multicast", "223.255.255.255", V4, Reason::Admitted),
        ("reserved", "240.0.0.1", V4, Reason::Martian),
        ("broadcast", "255.255.255.255", V4, Reason::Martian),
        ("a private address", "10.0.0.1", V4, Reason::Admitted),
        ("IPv6 loopback", "::1", V6, Reason::Martian),
        ("IPv6 unspecified", "::", V6, Reason::Martian),
        ("IPv6 multicast", "ff02::1", V6, Reason::Martian),
        ("an IPv6 address as usual", "2001:db8:1::1", V6, Reason::Admitted),
        ("a link-local IPv6 address", "fe80::1", V6, Reason::Admitted),
    ]
    .into_iter()
    .map(|(what, source, destination, reason)| row(what, tcp(source, destination, 443, ACK), reason))
    .collect()
}

/// Which traffic is judged at all.
fn scope() -> Vec<Row> {
    let mut arp = vec![0_u8; 60];
    arp[12..14].copy_from_slice(&ETHERTYPE_ARP.to_be_bytes());
    vec![
        row("ARP passes", arp, Reason::NotIp),
        row(
            "a frame of an Ethernet header alone passes",
            vec![0; 14],
            Reason::NotIp,
        ),
        row(
            "an IPv4 header cut short passes",
            tcp(CLIENT, V4, 443, ACK)[..30].to_vec(),
            Reason::NotIp,
        ),
        row("a service is judged", tcp(CLIENT, V4, 443, ACK), Reason::Admitted),
        row(
            "another port passes",
            tcp(CLIENT, V4, 80, ACK),
            Reason::NotProtected,
        ),
        row(
            "another address passes",
            tcp(CLIENT, "203.0.113.2", 443, ACK),
            Reason::NotProtected,
        ),
        row(
            "TCP to a UDP service's port passes",
            tcp(CLIENT, V4, 53, ACK),
            Reason::NotProtected,
        ),
        row("UDP to it is judged", udp(CLIENT, V4, 53), Reason::Admitted),
        row(
            "IPv6 is judged",
            tcp("2001:db8::9", V6, 443, ACK),
            Reason::Admitted,
        ),
        row(
            "every local address is judged",
            tcp(CLIENT, LOCAL, 9000, ACK),
            Reason::Admitted,
        ),
        row(
            "so is loopback",
            tcp("127.0.0.1", "127.9.9.9", 9000, ACK),
            Reason::Admitted,
        ),
        row(
            "an address of another machine is not local",
            tcp(CLIENT, "192.0.2.200", 9000, ACK),
            Reason::NotProtected,
        ),
        row(
            "a banned source's other traffic passes",
            tcp(BANNED, V4, 80, ACK),
            Reason::NotProtected,
        ),
        row(
            "another protocol passes",
            other(CLIENT, V4, 47),
            Reason::NotProtected,
        ),
        row(
            "one VLAN tag",
            tagged(tcp_frame(CLIENT, V4, 443, ACK), &[TPID_8021Q]),
            Reason::Admitted,
        ),
        row(
            "two",
            tagged(tcp_frame(BANNED, V4, 443, ACK), &[TPID_8021AD, TPID_8021Q]),
            Reason::Banned,
        ),
        row(
            "three are not looked through",
            tagged(
                tcp_frame(BANNED, V4, 443, ACK),
                &[TPID_8021AD, TPID_8021Q, TPID_8021Q],
            ),
            Reason::NotIp,
        ),
    ]
}

/// What is known of a source.
fn sources() -> Vec<Row> {
    let mut rows = vec![
        row("a banned host", tcp(BANNED, V4, 443, ACK), Reason::Banned),
        row(
            "its neighbour",
            tcp("198.51.101.67", V4, 443, ACK),
            Reason::Admitted,
        ),
        row(
            "a banned network",
            tcp("198.51.102.200", V4, 443, ACK),
            Reason::Banned,
        ),
        row(
            "a ban on new connections, opening",
            tcp(BANNED_SYN, V4, 443, SYN),
            Reason::Banned,
        ),
        row("and within one", tcp(BANNED_SYN, V4, 443, ACK), Reason::Admitted),
        row(
            "a ban that has ended",
            tcp(PARDONED, V4, 443, ACK),
            Reason::Admitted,
        ),
        row(
            "a denied network",
            tcp("192.0.2.127", V4, 443, ACK),
            Reason::Denied,
        ),
        row(
            "its other half",
            tcp("192.0.2.128", V4, 443, ACK),
            Reason::Admitted,
        ),
        row(
            "a denied IPv6 network",
            tcp("2001:db8:e::1", V6, 443, ACK),
            Reason::Denied,
        ),
        row(
            "banned, but allowed",
            tcp(ALLOWED, V4, 443, ACK),
            Reason::AllowListed,
        ),
        row(
            "the first SYN within the limit",
            tcp("198.51.106.1", V4, 8080, SYN),
            Reason::Admitted,
        ),
        row("the second", tcp("198.51.106.1", V4, 8080, SYN), Reason::Admitted),
        row(
            "the third is over it",
            tcp("198.51.106.1", V4, 8080, SYN),
            Reason::SourceSyns,
        ),
        row(
            "its other segments are not",
            tcp("198.51.106.1", V4, 8080, ACK),
            Reason::Admitted,
        ),
        row(
            "nor is another host",
            tcp("198.51.106.2", V4, 8080, SYN),
            Reason::Admitted,
        ),
    ];
    for (inside, outside) in [
        ("2001:db8:a::66", "2001:db8:a::67"),
        ("2001:db8:b:1:ffff::1", "2001:db8:b:2::1"),
        ("2001:db8:c:1ff::1", "2001:db8:c:200::1"),
        ("2001:db8:d:ffff::1", "2001:db8:f::1"),
    ] {
        rows.push(row(
            "a banned IPv6 prefix",
            tcp(inside, V6, 443, ACK),
            Reason::Banned,
        ));
        rows.push(row(
            "and what is beside it",
            tcp(outside, V6, 443, ACK),
            Reason::Admitted,
        ));
    }
    rows
}

/// Headers, good and bad.
fn shapes() -> Vec<Row> {
    let mut rows = vec![
        row("no flags", tcp(CLIENT, V4, 443, 0), Reason::BadFlags),
        row("SYN and FIN", tcp(CLIENT, V4, 443, SYN | FIN), Reason::BadFlags),
        row("Xmas", tcp(CLIENT, V4, 443, FIN | PSH | URG), Reason::BadFlags),
        row("SYN and ACK", tcp(CLIENT, V4, 443, SYN | ACK), Reason::Admitted),
        row("source port zero", zero_port(), Reason::ZeroPort),
        row("ping", icmp(CLIENT, V4, 8, 0), Reason::Admitted),
        row(
            "fragmentation needed is signalling",
            icmp(CLIENT, V4, 3, 4),
            Reason::Signalling,
        ),
        row(
            "but nothing of a banned source passes",
            icmp(BANNED, LOCAL, 3, 4),
            Reason::Banned,
        ),
        row(
            "packet too big",
            icmp("2001:db8::9", V6, 2, 0),
            Reason::Signalling,
        ),
        row(
            "cut short behind the ports",
            tcp(CLIENT, V4, 443, ACK)[..46].to_vec(),
            Reason::Truncated,
        ),
        row(
            "the same to another port",
            tcp(CLIENT, V4, 80, ACK)[..46].to_vec(),
            Reason::NotProtected,
        ),
        row(
            "cut short before the ports",
            tcp(CLIENT, V4, 443, ACK)[..36].to_vec(),
            Reason::Truncated,
        ),
        row("a header length below 20", patched(14, 0x44), Reason::Malformed),
        row(
            "a total length below the header's",
            patched(17, 10),
            Reason::Malformed,
        ),
    ];
    let mut options = tcp_frame(BANNED, V4, 443, ACK);
    options.options = vec![1; 12];
    rows.push(row(
        "IPv4 options are looked through",
        options.bytes(),
        Reason::Banned,
    ));
    for (offset, what, reason) in [
        (0, "a first fragment has its ports", Reason::Admitted),
        (64, "a later one has none", Reason::Fragment),
    ] {
        let mut frame = tcp_frame(CLIENT, V4, 443, ACK);
        frame.payload = vec![0; 64];
        frame.fragment = Some(Fragment {
            offset,
            more: true,
            identification: 7,
        });
        rows.push(row(what, frame.bytes(), reason));
    }
    for count in 0..=7_usize {
        let mut frame = tcp_frame("2001:db8::9", V6, 443, ACK);
        frame.extensions = vec![
            Extension {
                kind: DESTINATION_OPTIONS,
                body: Vec::new(),
            };
            count
        ];
        let reason = if count <= 6 {
            Reason::Admitted
        } else {
            Reason::Malformed
        };
        rows.push(row("up to six are looked through", frame.bytes(), reason));
    }
    rows
}

fn row(what: &'static str, packet: Vec<u8>, reason: Reason) -> Row {
    Row { what, packet, reason }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Parses a network.
pub fn net(text: &str) -> ipnet::IpNet {
    text.parse().expect("a network")
}

fn tcp_frame(source: &str, destination: &str, port: u16, flags: u8) -> Frame {
    let header = Tcp {
        source: 40_000,
        destination: port,
        flags,
        ..Tcp::default()
    };
    Frame::new(ip(source), ip(destination), Transport::Tcp(header))
}

fn tcp(source: &str, destination: &str, port: u16, flags: u8) -> Vec<u8> {
    tcp_frame(source, destination, port, flags).bytes()
}

fn udp(source: &str, destination: &str, port: u16) -> Vec<u8> {
    Frame::udp((ip(source), 40_000), (ip(destination), port), b"x").bytes()
}

fn other(source: &str, destination: &str, protocol: u8) -> Vec<u8> {
    Frame::new(ip(source), ip(destination), Transport::Other(protocol)).bytes()
}

fn icmp(source: &str, destination: &str, kind: u8, code: u8) -> Vec<u8> {
    let message = Transport::Icmp {
        kind,
        code,
        rest: [0; 4],
    };
    Frame::new(ip(source), ip(destination), message).bytes()
}

fn tagged(mut frame: Frame, protocols: &[u16]) -> Vec<u8> {
    frame.tags = protocols
        .iter()
        .map(|protocol| Tag {
            protocol: *protocol,
            id: 5,
        })
        .collect();
    frame.bytes()
}

fn zero_port() -> Vec<u8> {
    let mut bytes = tcp(CLIENT, V4, 443, ACK);
    bytes[34..36].fill(0);
    bytes
}

fn patched(at: usize, byte: u8) -> Vec<u8> {
    let mut bytes = tcp(CLIENT, V4, 443, ACK);
    bytes[at] = byte;
    if at == 17 {
        bytes[16] = 0;
    }
    bytes
}
