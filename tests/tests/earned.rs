//! Exact state for whoever the gateway accepted a connection from: who earns it, who does not, and how it ends.
#![expect(
    clippy::expect_used,
    reason = "a step of a test that fails has to stop that test"
)]

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{IpAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use edge_user::kernel::{Pins, ShieldTables};
use tests::{
    config::Settings,
    daemon::{Daemon, cli},
    flood::blast,
    frame::ACK,
    http::{Client, Request},
    lab::{Host, Lab},
    sender::{Bounds, Flood},
    stage::{Limit, Stage, behind_the_shield, gateway, is_raw_segment, segment, vips},
    wait::{PATIENCE, eventually},
};

/// Above what the requests of these tests send, below a flood.
const LIMIT: Limit = Limit {
    per_second: 1_000,
    burst: 1_000,
};
/// Sources that are made up.
const MADE_UP: u64 = 20_000;
/// `shield.earned_idle` where it should not come to pass, and where it should.
const LONG: &str = "earned_idle = '10m'";
const SHORT: &str = "earned_idle = '1s'";

fn earned(lab: &Lab) -> BTreeSet<IpAddr> {
    let tables = ShieldTables::open(&Pins::new(lab.bpffs().path())).expect("the shield is pinned");
    tables.list_earned().collect()
}

/// What the shield takes for one source: an address, or the first one of a /64.
fn source(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

fn sources(host: &Host) -> BTreeSet<IpAddr> {
    vips().map(|vip| source(host.address_towards(vip))).into()
}

fn clients(lab: &Lab) -> [Client; 2] {
    vips().map(|vip| Client::connect(&lab.client().namespace, gateway(vip)).expect("the client connects"))
}

fn ask(client: &mut Client) {
    let answer = client.send(&Request::get("/")).expect("the client is served");
    assert_eq!(answer.status, 200);
}

fn restart(daemon: Daemon, lab: &Lab, settings: &Settings, shield_extra: &str) -> Daemon {
    daemon.sigkill();
    let settings = Settings {
        shield_extra: shield_extra.into(),
        ..settings.clone()
    };
    Daemon::start(lab, &settings.text())
}

/// How long a flood is sent; to begin and to end it may take longer.
const SENDING: Duration = Duration::from_secs(2);

/// How much of a flood of one earned source comes through, and how long that took.
fn flood(lab: &Lab, vip: IpAddr) -> (u64, Duration) {
    let host = lab.client();
    let capture = behind_the_shield(lab, host);
    let frame = host.frame(segment(host, gateway(vip), ACK));
    let bounds = Bounds {
        frames: u64::MAX,
        time: SENDING,
        rate: 8_000,
    };
    let begun = Instant::now();
    let sent = Flood::start(host, bounds, move |_| frame.clone()).finish();
    let time = begun.elapsed();
    assert!(sent > 2 * LIMIT.allows(time), "{sent} frames are no flood");
    let mut before = usize::MAX;
    let passed = eventually("the capture to come to rest", || {
        thread::sleep(Duration::from_millis(50));
        let now = capture.count(is_raw_segment);
        let rests = now == before;
        before = now;
        rests.then_some(now as u64)
    });
    (passed, time)
}

#[test]
fn a_connection_earns_exact_state_and_nothing_else_does() {
    let Some(stage) = Stage::new("earned", |settings| Settings {
        shield_extra: LONG.into(),
        ..settings.limit("source_packets", LIMIT)
    }) else {
        return;
    };
    let Stage {
        daemon,
        settings,
        origin,
        signer,
        lab,
    } = stage;
    assert_eq!(earned(&lab), BTreeSet::new());
    let own = sources(lab.client());

    // Whoever has answered has earned it; whoever has only sent has not.
    let kept = clients(&lab);
    eventually("the client to earn exact state", || {
        (earned(&lab) == own).then_some(())
    });
    for vip in vips() {
        blast(lab.attacker(), vip, MADE_UP).expect("the interface takes frames");
    }
    // One more look of the enforcer's at what has arrived.
    thread::sleep(2 * edge_user::gateway::arrivals::LOOK_EVERY);
    assert_eq!(earned(&lab), own);
    let status = cli(&lab, ["status", "--json"]).json();
    assert_eq!(status["earned"], own.len(), "{status:#}");
    assert_eq!(status["alerts"]["earned_refused"], 0, "{status:#}");

    // The limit holds: not less, not more.
    for vip in vips() {
        let (passed, time) = flood(&lab, vip);
        let least = LIMIT.burst + LIMIT.per_second * SENDING.as_millis() as u64 * 98 / 100_000;
        let most = LIMIT.allows(time);
        assert!(
            (least - LIMIT.per_second / 20..=most).contains(&passed),
            "{passed} passed in {time:?}, should be {least} to {most}"
        );
    }
    drop(kept);

    // A killed daemon leaves it, a new one finds it.
    let daemon = restart(daemon, &lab, &settings, LONG);
    assert_eq!(earned(&lab), own);

    // What idles is forgotten, what is used is not.
    let daemon = restart(daemon, &lab, &settings, SHORT);
    eventually("idle sources to be forgotten", || {
        earned(&lab).is_empty().then_some(())
    });
    let mut kept = clients(&lab);
    eventually("the client to earn it again", || {
        (earned(&lab) == own).then_some(())
    });
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        for client in &mut kept {
            ask(client);
        }
        assert_eq!(earned(&lab), own, "after {:?}", begun.elapsed());
        thread::sleep(Duration::from_millis(100));
    }
    eventually("the idle client to be forgotten", || {
        earned(&lab).is_empty().then_some(())
    });
    daemon.sigterm();
    drop((origin, signer));
}

#[test]
fn behind_the_proxy_protocol_it_is_the_proxy_that_earns() {
    let adjust = |settings: Settings| Settings {
        listener_extra: "proxy_protocol = [\"0.0.0.0/0\", \"::/0\"]".into(),
        ..settings.limit("source_packets", LIMIT)
    };
    let Some(stage) = Stage::new("earned-proxy", adjust) else {
        return;
    };
    let proxy = stage.lab.client();
    let [vip, _] = vips();
    let mut stream = proxy
        .namespace
        .enter(|| TcpStream::connect_timeout(&gateway(vip), PATIENCE))
        .expect("the proxy connects");
    let request = "PROXY TCP4 192.0.2.99 203.0.113.1 1234 8080\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("the gateway reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the gateway answers");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let own = BTreeSet::from([proxy.address_towards(vip)]);
    eventually("the proxy to earn exact state", || {
        (earned(&stage.lab) == own).then_some(())
    });
}
