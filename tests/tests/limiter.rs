//! Rate limits in the kernel: who is over one is cut, everybody else is served.
#![expect(
    clippy::expect_used,
    reason = "a step of a test that fails has to stop that test"
)]

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    thread,
    time::{Duration, Instant},
};

use tests::{
    capture::Capture,
    daemon::{cli, lab_with},
    frame::{ACK, Frame, SYN, TPID_8021AD, TPID_8021Q, Tag, Tcp, Transport},
    http::{Client, Request},
    lab::{Host, Tagging},
    sender::{Bounds, Flood},
    stage::{
        self, Limit, RAW_PORT, Stage, behind_the_shield, gateway, is_answered, is_raw_segment, segment, vips,
    },
    wait::{PATIENCE, eventually},
};

/// Packets that one source host may send. A client that takes its time stays far below.
const LIMIT: Limit = Limit {
    per_second: 200,
    burst: 200,
};
/// A flood far over the limit, also where the sender is slow.
const FLOOD: Bounds = Bounds {
    frames: 40_000,
    time: Duration::from_secs(4),
    rate: 10_000,
};
/// Pause between two requests of the honest client.
const PAUSE: Duration = Duration::from_millis(50);

/// What of a flood has come through, and what may have.
struct Outcome {
    sent: u64,
    passed: u64,
    allowed: u64,
}

impl Outcome {
    #[track_caller]
    fn assert_cut(&self) {
        let Self {
            sent,
            passed,
            allowed,
        } = *self;
        assert!(
            passed <= allowed,
            "{passed} of {sent} packets passed, at most {allowed} may"
        );
        assert!(
            passed * 2 < sent,
            "{passed} of {sent} packets passed: the flood was no flood"
        );
        // Nothing below its limit is cut: the first burst has to come through, but for what a full queue lost.
        assert!(
            passed >= LIMIT.burst.min(sent) / 2,
            "{passed} of {sent} packets passed: the limit is too tight"
        );
    }
}

/// Lets the attacker flood the gateway while `beside` runs.
fn flood(stage: &Stage, frame: Vec<u8>, beside: impl FnOnce()) -> Outcome {
    let attacker = stage.lab.attacker();
    let capture = behind_the_shield(&stage.lab, attacker);
    let start = Instant::now();
    let flood = Flood::start(attacker, FLOOD, move |_| frame.clone());
    beside();
    let sent = flood.finish();
    let passed = settled(&capture);
    let allowed = LIMIT.allows(start.elapsed());
    Outcome {
        sent,
        passed,
        allowed,
    }
}

/// The number of raw segments that came in, once it has stopped to grow.
fn settled(capture: &Capture) -> u64 {
    let mut before = usize::MAX;
    eventually("the capture to come to rest", || {
        thread::sleep(Duration::from_millis(100));
        let now = capture.count(is_raw_segment);
        let settled = now == before;
        before = now;
        settled.then_some(now as u64)
    })
}

/// Requests on one connection, at the pace of a person in a hurry; every one has to be answered.
fn be_a_client(stage: &Stage, vip: IpAddr) {
    let mut client = Client::connect(&stage.lab.client().namespace, gateway(vip))
        .expect("the client connects during the flood");
    for number in 0..30 {
        let response = client
            .send(&Request::get(&format!("/{number}")))
            .expect("the client is served");
        assert_eq!(response.status, 200);
        assert_eq!(response.json()["target"], format!("/{number}"));
        thread::sleep(PAUSE);
    }
}

fn assert_attacker_is_cut_and_client_served(stage: &Stage) {
    let attacker = stage.lab.attacker();
    for vip in vips() {
        let frame = attacker.frame(segment(attacker, gateway(vip), ACK));
        flood(stage, frame, || be_a_client(stage, vip)).assert_cut();
        // A limit is not a ban: whoever stops is served again.
        eventually("the attacker to be served after its flood", || {
            is_answered(attacker, vip, PAUSE * 4).then_some(())
        });
    }
    let status = cli(&stage.lab, ["status", "--json"]).json();
    assert!(stage::packets(&status, "source_packets") > 0, "{status:#}");
}

#[test]
fn an_attacker_over_its_limit_is_cut_in_the_driver_while_the_client_is_served() {
    let Some(stage) = Stage::new("limiter", |settings| settings.limit("source_packets", LIMIT)) else {
        return;
    };
    assert_attacker_is_cut_and_client_served(&stage);
}

#[test]
fn generic_mode_cuts_as_well() {
    let adjust = |settings: tests::config::Settings| {
        tests::config::Settings {
            mode: "generic",
            ..settings
        }
        .limit("source_packets", LIMIT)
    };
    let Some(stage) = Stage::new("limiter-generic", adjust) else {
        return;
    };
    assert_attacker_is_cut_and_client_served(&stage);
}

#[test]
fn tagged_links_are_limited_and_served() {
    for tagging in [
        Tagging::Single(100),
        Tagging::Double {
            outer: 200,
            inner: 100,
        },
    ] {
        let stage = Stage::in_lab(
            "limiter-vlan",
            |options| options.tagging(tagging),
            |settings| settings.limit("source_packets", LIMIT),
        );
        let Some(stage) = stage else { return };
        assert_attacker_is_cut_and_client_served(&stage);
    }
}

#[test]
fn tags_hide_nobody_from_the_limit() {
    // Raw frames only, so that it also runs where the kernel has no VLAN devices.
    let Some(stage) = Stage::new("limiter-tags", |settings| settings.limit("source_packets", LIMIT)) else {
        return;
    };
    let attacker = stage.lab.attacker();
    let (outer, inner) = (
        Tag {
            protocol: TPID_8021AD,
            id: 200,
        },
        Tag {
            protocol: TPID_8021Q,
            id: 100,
        },
    );
    for tags in [vec![inner], vec![outer, inner]] {
        for vip in vips() {
            let frame = Frame {
                source_mac: attacker.mac,
                destination_mac: attacker.edge_mac,
                tags: tags.clone(),
                ..segment(attacker, gateway(vip), ACK)
            };
            // Another address of the attacker's network each time: its own limit, untouched.
            let frame = Frame {
                source: neighbour(attacker, vip, tags.len()),
                ..frame
            };
            flood(&stage, frame.bytes(), || be_a_client(&stage, vip)).assert_cut();
        }
    }
}

fn neighbour(host: &Host, vip: IpAddr, number: usize) -> IpAddr {
    let number = 100 + number as u16;
    match host.address_towards(vip) {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            Ipv4Addr::new(a, b, c, number as u8).into()
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            // Hosts are limited by /64.
            Ipv6Addr::new(a, b, c, number, 0, 0, 0, 1).into()
        }
    }
}

#[test]
fn new_connections_are_limited_apart_from_packets() {
    let limit = Limit {
        per_second: 5,
        burst: 10,
    };
    let Some(stage) = Stage::new("limiter-syn", |settings| settings.limit("source_syns", limit)) else {
        return;
    };
    let attacker = stage.lab.attacker();
    for vip in vips() {
        // A connection from before goes on, however many more are asked for.
        let mut established =
            Client::connect(&attacker.namespace, gateway(vip)).expect("the attacker may connect once");
        let capture = behind_the_shield(&stage.lab, attacker);
        let start = Instant::now();
        let frame = attacker.frame(segment(attacker, gateway(vip), SYN));
        let bounds = Bounds {
            frames: 1000,
            time: PATIENCE,
            rate: 1000,
        };
        let sent = Flood::start(attacker, bounds, move |_| frame.clone()).finish();
        let is_syn = |frame: &tests::capture::Captured| {
            is_raw_segment(frame)
                && tests::probe::transport(&frame.bytes).is_some_and(|(_, tcp)| tcp[13] & (SYN | ACK) == SYN)
        };
        for _ in 0..20 {
            assert_eq!(
                established
                    .send(&Request::get("/"))
                    .expect("established connections go on")
                    .status,
                200
            );
        }
        let passed = capture.count(is_syn) as u64;
        // The connection that the gateway accepted earns the source exact state meanwhile, which begins where it was.
        let allowed = limit.allows(start.elapsed());
        assert!(
            (1..=allowed).contains(&passed),
            "{passed} of {sent} SYNs passed, at most {allowed} may"
        );
        stage.assert_served(stage.lab.client());
    }
}

#[test]
fn a_flood_of_random_sources_costs_nobody_else_anything() {
    let Some(stage) = Stage::new("limiter-random", |settings| {
        settings.limit("source_packets", LIMIT)
    }) else {
        return;
    };
    let banned: Vec<IpAddr> = (1..=5).map(|last| IpAddr::from([192, 0, 2, last])).collect();
    for address in &banned {
        cli(&stage.lab, ["ban", "add", &address.to_string(), "--for", "1h"]).success();
    }
    let attacker = stage.lab.attacker();
    let (source_mac, destination_mac) = (attacker.mac, attacker.edge_mac);
    let bounds = Bounds {
        frames: 60_000,
        ..FLOOD
    };
    let flood = Flood::start(attacker, bounds, move |number| {
        // Spread over 1.0.0.0 to 126.255.255.255: no two alike, none with a route back.
        let mixed = (number as u32).wrapping_mul(0x9e37_79b1);
        let source = Ipv4Addr::from(0x0100_0000 + mixed % 0x7e00_0000);
        let tcp = Tcp {
            source: RAW_PORT,
            destination: tests::config::PORT,
            flags: ACK,
            ..Tcp::default()
        };
        let frame = Frame::new(source.into(), tests::lab::VIP_V4.into(), Transport::Tcp(tcp));
        Frame {
            source_mac,
            destination_mac,
            ..frame
        }
        .bytes()
    });
    for vip in vips() {
        be_a_client(&stage, vip);
    }
    assert!(flood.finish() > 1000);
    let bans = stage.bans();
    for address in banned {
        assert!(
            stage::names_address(&bans, address),
            "{address} is still banned: {bans:#}"
        );
    }
}

#[test]
fn observing_drops_nothing_and_counts_what_it_would() {
    let adjust = |settings: tests::config::Settings| {
        tests::config::Settings {
            observe: true,
            ..settings
        }
        .limit("source_packets", LIMIT)
    };
    let Some(stage) = Stage::new("limiter-observe", adjust) else {
        return;
    };
    let attacker = stage.lab.attacker();
    let capture = behind_the_shield(&stage.lab, attacker);
    let frame = attacker.frame(segment(attacker, gateway(vips()[0]), ACK));
    let start = Instant::now();
    // Slow enough for every queue, five times over the limit.
    let bounds = Bounds {
        frames: 2000,
        time: PATIENCE,
        rate: 1000,
    };
    let sent = Flood::start(attacker, bounds, move |_| frame.clone()).finish();
    let allowed = LIMIT.allows(start.elapsed());
    assert_eq!(settled(&capture), sent);
    let status = cli(&stage.lab, ["status", "--json"]).json();
    let told = stage::packets(&status, "source_packets");
    assert!(
        told >= sent - allowed,
        "{told} of {sent} packets were over the limit: {status:#}"
    );
    assert!(
        status.to_string().contains("observe"),
        "the status says that nothing is dropped: {status:#}"
    );
}

#[test]
fn a_lab_with_more_hosts_is_shielded_on_every_link() {
    let Some(lab) = lab_with("limiter-links", |options| options.host("neighbour")) else {
        return;
    };
    let signer = tests::token::Signer::hs256();
    let origin = stage::origin(&lab);
    let settings = tests::config::Settings::standard(&lab, &signer, origin.address());
    let _daemon = tests::daemon::Daemon::start(&lab, &settings.text());
    for interface in lab.wan_interfaces() {
        let state = tests::link::LinkState::read(lab.edge(), &interface).expect("the interface exists");
        assert_eq!(state.xdp().map(|xdp| xdp.mode), Some("native"), "{interface}");
    }
}
