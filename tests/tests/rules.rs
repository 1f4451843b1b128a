//! Every rule that needs no state, with real packets from outside: what is dropped, what only observing lets through,
//! and what the policies for fragments, unreadable headers and ICMP say.
#![expect(
    clippy::expect_used,
    reason = "a step of a test that fails has to stop that test"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;
use tests::{
    capture::{Capture, Direction},
    config::{PORT, Settings},
    daemon::{self, cli},
    frame::{ACK, FIN, Fragment, Frame, SYN, Tcp, Transport},
    lab::{Host, Lab},
    sender::PacketSocket,
    stage::{self, RAW_PORT, behind_the_shield, vips},
    token::Signer,
    wait::eventually,
};

/// Frames of each case.
const COUNT: usize = 20;
/// A port that nothing protects: what is sent there tells that all before it has been judged.
const FREE_PORT: u16 = 9;

struct Case {
    what: &'static str,
    reason: &'static str,
    bytes: Vec<u8>,
}

/// Frames of `host` to a protected address that no honest peer sends, one for each reason and address family.
fn cases(host: &Host) -> Vec<Case> {
    let mut cases = Vec::new();
    for vip in vips() {
        let segment = |source: IpAddr, port: u16, flags: u8| {
            let tcp = Tcp {
                source: port,
                destination: PORT,
                sequence: 1,
                acknowledgement: 1,
                flags,
                ..Tcp::default()
            };
            Frame::new(source, vip, Transport::Tcp(tcp))
        };
        let own = host.address_towards(vip);
        let mut add = |what, reason, bytes| cases.push(Case { what, reason, bytes });
        add(
            "SYN with FIN",
            "bad_flags",
            host.frame(segment(own, RAW_PORT, SYN | FIN)),
        );
        add("no flags", "bad_flags", host.frame(segment(own, RAW_PORT, 0)));
        add("source port zero", "zero_port", host.frame(segment(own, 0, ACK)));
        add(
            "the source is the destination",
            "same_address",
            host.frame(segment(vip, RAW_PORT, ACK)),
        );
        let martians: &[IpAddr] = if vip.is_ipv4() {
            &[
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V4(Ipv4Addr::new(224, 0, 0, 1)),
                IpAddr::V4(Ipv4Addr::new(250, 1, 2, 3)),
                IpAddr::V4(Ipv4Addr::new(0, 1, 2, 3)),
            ]
        } else {
            &[
                IpAddr::V6(Ipv6Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)),
                IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            ]
        };
        for martian in martians {
            add(
                "a source that cannot be",
                "martian",
                host.frame(segment(*martian, RAW_PORT, ACK)),
            );
        }
        let later = Frame {
            fragment: Some(Fragment {
                offset: 8,
                more: true,
                identification: 7,
            }),
            payload: vec![0; 64],
            ..segment(own, RAW_PORT, ACK)
        };
        add("a later fragment", "fragment", host.frame(later));
        let mut cut = host.frame(segment(own, RAW_PORT, ACK));
        cut.truncate(cut.len() - 8);
        add("a frame that ends in the TCP header", "truncated", cut);
    }
    // An IPv4 header that is shorter than one can be.
    let [vip, _] = vips();
    let mut short = host.frame(Frame::new(
        host.v4.into(),
        vip,
        Transport::Tcp(Tcp {
            source: RAW_PORT,
            destination: PORT,
            flags: ACK,
            ..Tcp::default()
        }),
    ));
    short[14] = 0x44;
    cases.push(Case {
        what: "a header of 16 bytes",
        reason: "malformed",
        bytes: short,
    });
    cases
}

/// Sends each frame some times, and tells how many of each came through.
fn passed(lab: &Lab, frames: &[Vec<u8>], count: usize) -> Vec<usize> {
    let attacker = lab.attacker();
    let capture = behind_the_shield(lab, attacker);
    let socket = PacketSocket::sending(&attacker.namespace, attacker.interface).expect("a socket");
    for frame in frames {
        for _ in 0..count {
            socket.send(frame).expect("the interface takes frames");
        }
    }
    let [vip, _] = vips();
    let last = attacker.frame(Frame::udp(
        (attacker.v4.into(), RAW_PORT),
        (vip, FREE_PORT),
        b"the last",
    ));
    socket.send(&last).expect("the interface takes frames");
    let arrived = |capture: &Capture, bytes: &[u8]| {
        capture.count(|frame| frame.direction == Direction::In && frame.bytes == bytes)
    };
    eventually("the last frame", || (arrived(&capture, &last) == 1).then_some(()));
    frames.iter().map(|frame| arrived(&capture, frame)).collect()
}

/// Puts the standard configuration with other lines under `[shield]` in force.
fn attach(lab: &Lab, lines: &str) {
    let signer = Signer::hs256();
    let origin = stage::origin(lab);
    let text = Settings::standard(lab, &signer, origin.address()).text();
    let text = text.replacen("observe = false\n", &format!("{lines}\n"), 1);
    let config = lab.write("rules.toml", text);
    cli(lab, ["attach", "--config", config.to_str().expect("text")]).success();
}

/// Packets counted for a reason, in every service and in none: dropped, observed.
fn counted(lab: &Lab, reason: &str) -> (u64, u64) {
    let status = cli(lab, ["status", "--json"]).json();
    let services = status["services"].as_array().expect("a list").iter();
    let lists = services
        .map(|service| &service["reasons"])
        .chain([&status["unjudged"]]);
    let counts = lists.flat_map(|list| list.as_array().expect("a list"));
    let of = |count: &Value, key: &str| count[key].as_u64().expect("a number");
    counts
        .filter(|count| count["reason"] == reason)
        .fold((0, 0), |sum, count| {
            (sum.0 + of(count, "packets"), sum.1 + of(count, "observed"))
        })
}

#[test]
fn rules_drop_what_they_name_and_let_it_pass_one_by_one_when_observed() {
    let Some(lab) = daemon::lab("rules") else { return };
    let cases = cases(lab.attacker());
    let frames: Vec<Vec<u8>> = cases.iter().map(|case| case.bytes.clone()).collect();
    let reasons = [
        "bad_flags",
        "zero_port",
        "same_address",
        "martian",
        "fragment",
        "truncated",
        "malformed",
    ];
    for observed in [&[][..], &["martian", "fragment"], &reasons] {
        let before: Vec<_> = reasons
            .iter()
            .map(|reason| counted_or_none(&lab, reason))
            .collect();
        attach(&lab, &format!("observe = {}", toml_list(observed)));
        let passed = passed(&lab, &frames, COUNT);
        for (case, passed) in cases.iter().zip(passed) {
            let expected = if observed.contains(&case.reason) { COUNT } else { 0 };
            assert_eq!(
                passed, expected,
                "{} ({}), observing {observed:?}",
                case.what, case.reason
            );
        }
        for (reason, (dropped, seen)) in reasons.iter().zip(before) {
            let sent = (COUNT * cases.iter().filter(|case| case.reason == *reason).count()) as u64;
            let now = counted(&lab, reason);
            let expected = if observed.contains(reason) {
                (dropped, seen + sent)
            } else {
                (dropped + sent, seen)
            };
            assert_eq!(now, expected, "{reason}, observing {observed:?}");
        }
    }
    cli(&lab, ["detach"]).success();
}

fn counted_or_none(lab: &Lab, reason: &str) -> (u64, u64) {
    if lab.bpffs().pins().is_empty() {
        (0, 0)
    } else {
        counted(lab, reason)
    }
}

fn toml_list(reasons: &[&str]) -> String {
    if reasons.is_empty() {
        "false".to_owned()
    } else {
        format!("{reasons:?}")
    }
}

#[test]
fn policies_let_fragments_and_unreadable_headers_pass() {
    let Some(lab) = daemon::lab("rules-policy") else {
        return;
    };
    let cases = cases(lab.attacker());
    let frames: Vec<Vec<u8>> = cases.iter().map(|case| case.bytes.clone()).collect();
    for (lines, let_through) in [
        ("fragments = \"pass\"", &["fragment"][..]),
        ("malformed = \"pass\"", &["truncated", "malformed"]),
        ("drop_martians = false", &["martian"]),
    ] {
        attach(&lab, lines);
        for (case, passed) in cases.iter().zip(passed(&lab, &frames, COUNT)) {
            let expected = if let_through.contains(&case.reason) {
                COUNT
            } else {
                0
            };
            assert_eq!(passed, expected, "{} ({}), with {lines}", case.what, case.reason);
        }
    }
    cli(&lab, ["detach"]).success();
}

#[test]
fn icmp_is_limited_and_path_mtu_messages_are_not() {
    let Some(lab) = daemon::lab("rules-icmp") else {
        return;
    };
    attach(&lab, "icmp = { per_second = 1, burst = 10 }");
    let attacker = lab.attacker();
    for vip in vips() {
        let own = attacker.address_towards(vip);
        let echo = attacker.frame(Frame::echo_request(own, vip, 1, 1));
        let (kind, code) = if vip.is_ipv4() { (3, 4) } else { (2, 0) };
        let mut too_big = Frame::new(
            own,
            vip,
            Transport::Icmp {
                kind,
                code,
                rest: [0, 0, 0x05, 0x78],
            },
        );
        too_big.payload = Frame::syn((vip, PORT), (own, 40_000)).bytes().split_off(14);
        let frames = [echo, attacker.frame(too_big)];
        let passed = passed(&lab, &frames, 100);
        // The burst, and one a second: this takes no half a minute.
        assert!(
            (10..=40).contains(&passed[0]),
            "{} echo requests passed at {vip}",
            passed[0]
        );
        assert_eq!(passed[1], 100, "path MTU messages pass at {vip}");
    }
    assert!(counted(&lab, "source_icmp").0 >= 60);
    let status = cli(&lab, ["status", "--json"]).json();
    assert_eq!(status["address_limits"][0]["limit"], "source_icmp", "{status:#}");
    cli(&lab, ["detach"]).success();
}
