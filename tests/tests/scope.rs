//! What is not protected is not touched: other ports, other addresses, other protocols, forwarded traffic, whoever sends
//! it and however much.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a step of a test that fails has to stop that test"
)]

use std::{
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    thread,
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tests::{
    capture::{Captured, Direction},
    config::Settings,
    daemon::cli,
    frame::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, UDP},
    lab::{Host, OTHER_V4, OTHER_V6, VIP_V4, VIP_V6},
    origin::Origin,
    packets::{self, Spec, Target},
    probe::{self, Connection},
    sender::{Bounds, Flood},
    stage::{Limit, SILENCE, Stage, behind_the_shield, gateway, is_answered, vips},
    wait::{PATIENCE, eventually},
};

/// Everything off limits but a trickle.
const STRICT: Limit = Limit {
    per_second: 1,
    burst: 3,
};

/// A stage whose attacker is banned and whose every limit is next to nothing.
fn strict(name: &str) -> Option<Stage> {
    let stage = Stage::new(name, |settings: Settings| {
        let keys = ["source_packets", "source_syns", "network_packets", "network_syns"];
        let limited = keys
            .into_iter()
            .fold(settings, |settings, key| settings.limit(key, STRICT));
        let bytes = Limit {
            per_second: 2000,
            burst: 4000,
        };
        limited.limit("source_bytes", bytes).limit("network_bytes", bytes)
    })?;
    let attacker = stage.lab.attacker();
    for vip in vips() {
        cli(
            &stage.lab,
            [
                "ban",
                "add",
                &attacker.address_towards(vip).to_string(),
                "--for",
                "1h",
            ],
        )
        .success();
        assert!(!is_answered(attacker, vip, SILENCE), "the ban is in force");
    }
    Some(stage)
}

/// Sends every datagram back, until it gets an empty one.
fn echo(socket: &UdpSocket) {
    let mut buffer = vec![0; 65_536];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        if length == 0 || socket.send_to(&buffer[..length], from).is_err() {
            break;
        }
    }
}

fn assert_unprotected_is_open(stage: &Stage, host: &Host) {
    let (lab, role) = (&stage.lab, host.namespace.role());
    // Other ports of the protected addresses, the protected port of other addresses, and the other transport protocol.
    let port = tests::config::PORT;
    let others: [IpAddr; 2] = [OTHER_V4.into(), OTHER_V6.into()];
    let tcp = vips()
        .map(|vip| SocketAddr::from((vip, port + 1)))
        .into_iter()
        .chain(others.map(|a| (a, port).into()));
    for address in tcp {
        let _listener = lab
            .edge()
            .enter(|| TcpListener::bind(address))
            .expect("the port is free");
        // More connections than any limit would let through.
        for _ in 0..STRICT.burst * 4 {
            assert_eq!(
                probe::connect(&host.namespace, address, PATIENCE),
                Connection::Open,
                "{role} to {address}"
            );
        }
    }
    for address in vips()
        .into_iter()
        .chain(others)
        .map(|address| SocketAddr::from((address, port)))
    {
        let socket = lab
            .edge()
            .enter(|| UdpSocket::bind(address))
            .expect("the port is free");
        thread::scope(|scope| {
            scope.spawn(|| echo(&socket));
            for size in [1, 100, 1400, 4000, 60_000] {
                let payload = vec![size as u8; size];
                // Beyond the MTU there are fragments. Later ones to a protected address carry no port, so they fall
                // under the fragment policy.
                if size < 1400 || others.contains(&address.ip()) {
                    assert!(
                        probe::udp_echo(&host.namespace, address, &payload, PATIENCE),
                        "{role} to {address}, {size} bytes"
                    );
                }
            }
            lab.edge()
                .enter(|| UdpSocket::bind((address.ip(), 0)).unwrap().send_to(&[], address))
                .unwrap();
        });
    }
    for address in others {
        for size in [0, 1000, 20_000] {
            assert!(
                probe::ping(&host.namespace, address, &vec![9; size], PATIENCE),
                "{role} pings {address}"
            );
        }
    }
}

#[test]
fn unprotected_ports_addresses_and_protocols_are_open_to_the_banned_and_the_limited() {
    let Some(stage) = strict("scope") else { return };
    assert_unprotected_is_open(&stage, stage.lab.attacker());
    assert_unprotected_is_open(&stage, stage.lab.client());
}

#[test]
fn forwarded_traffic_is_untouched() {
    let Some(stage) = strict("scope-forward") else {
        return;
    };
    let lab = &stage.lab;
    // The very port that is protected on the edge itself.
    for address in [IpAddr::from(lab.origin().v4), lab.origin().v6.into()] {
        let address = SocketAddr::from((address, tests::config::PORT));
        let body = vec![b'x'; 1 << 20];
        let origin = {
            let body = body.clone();
            let reply = move |_: &tests::origin::Received| tests::origin::Reply::Body(200, body.clone());
            Origin::start(&lab.origin().namespace, address, reply).expect("the port is free")
        };
        for host in [lab.attacker(), lab.client()] {
            let mut client =
                tests::http::Client::connect(&host.namespace, address).expect("the origin is reached");
            for _ in 0..3 {
                let upload = tests::http::Request::new("POST", "/").body(body.clone());
                assert!(client.send(&upload).expect("the origin answers").body == body);
            }
            assert!(probe::ping(&host.namespace, address.ip(), &[1; 1400], PATIENCE));
        }
        assert_eq!(origin.received().len(), 6);
        assert!(origin.received().iter().all(|request| request.body == body));
    }
}

#[test]
fn neighbours_find_each_other_again() {
    let Some(stage) = strict("scope-neighbours") else {
        return;
    };
    for host in [stage.lab.attacker(), stage.lab.client()] {
        for _ in 0..5 {
            host.namespace
                .ip(&format!("neigh flush dev {}", host.interface))
                .expect("entries can be flushed");
            stage
                .lab
                .edge()
                .ip(&format!("neigh flush dev {}", host.edge_interface))
                .expect("entries can be flushed");
            for address in [
                IpAddr::from(OTHER_V4),
                OTHER_V6.into(),
                host.edge_v4.into(),
                host.edge_v6.into(),
            ] {
                assert!(
                    probe::ping(&host.namespace, address, b"again", PATIENCE),
                    "{address}"
                );
            }
        }
    }
}

#[test]
fn path_mtu_discovery_passes_to_a_protected_address() {
    let Some(stage) = strict("scope-pmtu") else { return };
    // A router on the client's side says "fragmentation needed" and "packet too big", again and again, past every limit.
    let client = stage.lab.client();
    let capture = behind_the_shield(&stage.lab, client);
    let socket = tests::sender::PacketSocket::sending(&client.namespace, client.interface).unwrap();
    let count = 20;
    for vip in vips() {
        let source = client.address_towards(vip);
        let (kind, code) = if vip.is_ipv4() { (3, 4) } else { (2, 0) };
        let transport = tests::frame::Transport::Icmp {
            kind,
            code,
            rest: [0, 0, 0x05, 0x78],
        };
        let mut frame = tests::frame::Frame::new(source, vip, transport);
        // The head of the packet that was too big: the edge's answer to the client.
        frame.payload = tests::frame::Frame::syn((vip, tests::config::PORT), (source, 40_000))
            .bytes()
            .split_off(14);
        let bytes = client.frame(frame);
        for _ in 0..count {
            socket.send(&bytes).unwrap();
        }
        eventually("every message to arrive", || {
            let arrived = capture.count(|seen| seen.direction == Direction::In && seen.bytes == bytes);
            (arrived == count).then_some(())
        });
    }
}

#[test]
fn frames_for_nothing_protected_pass_byte_for_byte() {
    const COUNT: usize = 3000;
    let Some(stage) = strict("scope-bytes") else {
        return;
    };
    let attacker = stage.lab.attacker();
    let mut rng = StdRng::seed_from_u64(0x5eed);
    let spec = Spec {
        services: vec![
            Target {
                address: OTHER_V4.into(),
                protocol: UDP,
                port: tests::config::PORT,
            },
            Target {
                address: OTHER_V6.into(),
                protocol: UDP,
                port: tests::config::PORT,
            },
        ],
        sources: vec![attacker.v4.into(), attacker.v6.into()],
        valid: 30,
        noise: 20,
    };
    let frames: Vec<Vec<u8>> = std::iter::repeat_with(|| unprotected(&mut rng, &spec, attacker))
        .take(COUNT)
        .collect();
    let capture = behind_the_shield(&stage.lab, attacker);
    let queue = frames.clone();
    // Slowly: a frame that a full queue loses would look like one that was dropped.
    let bounds = Bounds {
        frames: COUNT as u64,
        time: PATIENCE,
        rate: 2000,
    };
    let sent = Flood::start(attacker, bounds, move |number| queue[number as usize].clone()).finish();
    assert_eq!(sent, COUNT as u64, "the interface takes every frame");
    let sent_by_attacker =
        |seen: &Captured| seen.direction == Direction::In && seen.bytes[6..12] == attacker.mac;
    let is_ours = |seen: &Captured| sent_by_attacker(seen) && is_marked(&seen.bytes);
    tests::wait::within(PATIENCE / 6, || (capture.count(is_ours) >= COUNT).then_some(()));
    let passed: Vec<Vec<u8>> = capture
        .stop()
        .into_iter()
        .filter(is_ours)
        .map(|seen| seen.bytes)
        .collect();
    for (number, (passed, sent)) in passed.iter().zip(&frames).enumerate() {
        assert_eq!(passed, sent, "frame {number}");
    }
    assert_eq!(passed.len(), COUNT);
    // All of that has not cost the protected service anything.
    assert!(is_answered(stage.lab.client(), vips()[0], PATIENCE));
}

/// Longest frame that the link takes.
const LINK_FRAME: usize = 1514;

/// A random frame to the edge that is not for a protected service. Marked, to be told from the kernel's own frames; never
/// tagged, since the kernel takes tags off before a capture sees them.
fn unprotected(rng: &mut impl Rng, spec: &Spec, host: &Host) -> Vec<u8> {
    loop {
        let mut bytes = packets::generate(rng, spec);
        bytes.truncate(LINK_FRAME);
        bytes[..6].copy_from_slice(&host.edge_mac);
        bytes[6..12].copy_from_slice(&host.mac);
        if bytes.len() >= 40 && is_plain_ip(&bytes) && !names_protected(&bytes) {
            let end = bytes.len();
            bytes[end - 4..].copy_from_slice(&MARK);
            if !names_protected(&bytes) {
                return bytes;
            }
        }
    }
}

const MARK: [u8; 4] = [0xb4, 0xea, 0x4b, 0x11];

fn is_marked(bytes: &[u8]) -> bool {
    bytes.ends_with(&MARK)
}

fn is_plain_ip(bytes: &[u8]) -> bool {
    let ethertype = u16::from_be_bytes([bytes[12], bytes[13]]);
    ethertype == ETHERTYPE_IPV4 || ethertype == ETHERTYPE_IPV6
}

/// Whether a protected address occurs anywhere in the frame.
fn names_protected(bytes: &[u8]) -> bool {
    let contains = |address: &[u8]| bytes.windows(address.len()).any(|window| window == address);
    contains(&VIP_V4.octets()) || contains(&VIP_V6.octets())
}

#[test]
fn the_protected_service_is_judged_all_the_same() {
    // The counterpart of the others: with these limits and bans, what is protected is closed.
    let Some(stage) = strict("scope-judged") else {
        return;
    };
    for vip in vips() {
        assert!(!is_answered(stage.lab.attacker(), vip, SILENCE), "banned");
        let client = &stage.lab.client().namespace;
        let attempts = STRICT.burst * 4;
        let open = (0..attempts)
            .filter(|_| probe::connect(client, gateway(vip), Duration::from_millis(300)) == Connection::Open)
            .count() as u64;
        assert!(
            (1..attempts).contains(&open),
            "{open} of {attempts} connections were made"
        );
    }
}
