//! Death and return of the daemon: the kernel goes on protecting, and a restart takes over what it finds.

use std::{
    fs,
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use edge_common::abi::VERSION;
use rustix::process::Signal;
use tests::{
    config::Settings,
    daemon::{self, Daemon, cli},
    frame::ACK,
    http::{Client, Request},
    lab::{Host, Lab},
    link::LinkState,
    origin::{Origin, Reply},
    probe::{self, Connection},
    sender::{Bounds, Flood},
    stage::{
        Limit, SILENCE, Stage, behind_the_shield, gateway, is_answered, is_raw_segment, names_address,
        origin, segment, vips,
    },
    token::Signer,
    wait::{PATIENCE, eventually},
};

const LIMIT: Limit = Limit {
    per_second: 100,
    burst: 100,
};

/// Floods from a third host; whether its limit held.
fn assert_limited(lab: &Lab, host: &Host) {
    for vip in vips() {
        let capture = behind_the_shield(lab, host);
        let start = Instant::now();
        let frame = host.frame(segment(host, gateway(vip), ACK));
        let bounds = Bounds {
            frames: 5000,
            time: Duration::from_secs(5),
            rate: 5000,
        };
        let sent = Flood::start(host, bounds, move |_| frame.clone()).finish();
        thread::sleep(Duration::from_millis(200));
        let passed = capture.count(is_raw_segment) as u64;
        let allowed = LIMIT.allows(start.elapsed());
        assert!(
            passed > 0 && passed <= allowed,
            "{passed} of {sent} packets passed, at most {allowed} may"
        );
        assert!(passed * 2 < sent, "{passed} of {sent} packets passed");
    }
}

#[test]
fn a_killed_daemon_leaves_limits_and_bans_and_a_restart_adopts_them() {
    let stage = Stage::in_lab(
        "kill",
        |options| options.host("flooder"),
        |settings| settings.limit("source_packets", LIMIT),
    );
    let Some(Stage {
        daemon,
        settings,
        origin,
        signer,
        lab,
    }) = stage
    else {
        return;
    };
    let attacker = lab.attacker();
    for vip in vips() {
        cli(
            &lab,
            [
                "ban",
                "add",
                &attacker.address_towards(vip).to_string(),
                "--for",
                "1h",
            ],
        )
        .success();
        assert!(!is_answered(attacker, vip, SILENCE));
    }
    let program = |interface: &str| {
        LinkState::read(lab.edge(), interface)
            .expect("the interface exists")
            .xdp()
    };
    let before: Vec<_> = lab
        .wan_interfaces()
        .iter()
        .map(|interface| program(interface))
        .collect();
    assert!(before.iter().all(Option::is_some));

    daemon.sigkill();
    assert_eq!(
        lab.processes().len(),
        0,
        "the daemon has no helpers that outlive it"
    );
    let after: Vec<_> = lab
        .wan_interfaces()
        .iter()
        .map(|interface| program(interface))
        .collect();
    assert_eq!(before, after, "the programs are the same");
    for vip in vips() {
        assert_eq!(
            probe::connect(&lab.client().namespace, gateway(vip), PATIENCE),
            Connection::Refused,
            "nobody listens, and the client gets to hear it"
        );
        assert_eq!(
            probe::connect(&attacker.namespace, gateway(vip), SILENCE),
            Connection::Silent
        );
    }
    assert_limited(&lab, lab.host("flooder"));
    let bans = cli(&lab, ["ban", "list", "--json"]).json();
    for vip in vips() {
        assert!(
            names_address(&bans, attacker.address_towards(vip)),
            "the command line needs no daemon: {bans:#}"
        );
    }
    cli(&lab, ["status", "--json"]).json();

    let daemon = Daemon::start(&lab, &settings.text());
    let stage = Stage {
        daemon,
        settings,
        origin,
        signer,
        lab,
    };
    let attacker = stage.lab.attacker();
    stage.assert_served(stage.lab.client());
    for vip in vips() {
        assert!(
            names_address(&stage.bans(), attacker.address_towards(vip)),
            "{:#}",
            stage.bans()
        );
        assert!(!is_answered(attacker, vip, SILENCE));
        cli(
            &stage.lab,
            ["ban", "del", &attacker.address_towards(vip).to_string()],
        )
        .success();
        eventually("the pardoned attacker to be answered", || {
            is_answered(attacker, vip, SILENCE).then_some(())
        });
    }
    assert_limited(&stage.lab, stage.lab.host("flooder"));
}

#[test]
fn a_restart_lets_no_banned_packet_through() {
    let Some(Stage {
        daemon,
        settings,
        origin: _origin,
        signer: _signer,
        lab,
    }) = Stage::new("gap", |settings| settings)
    else {
        return;
    };
    let attacker = lab.attacker();
    let vip = vips()[0];
    cli(
        &lab,
        [
            "ban",
            "add",
            &attacker.address_towards(vip).to_string(),
            "--for",
            "1h",
        ],
    )
    .success();
    let capture = behind_the_shield(&lab, attacker);
    let frame = attacker.frame(segment(attacker, gateway(vip), ACK));
    let bounds = Bounds {
        frames: u64::MAX,
        time: PATIENCE * 2,
        rate: 2000,
    };
    let flood = Flood::start(attacker, bounds, move |_| frame.clone());
    flood.wait_for(100);
    let mut daemon = daemon;
    for round in 0..4 {
        // The shield stays either way.
        if round % 2 == 0 {
            daemon.sigkill();
        } else {
            daemon.sigterm();
        }
        daemon = Daemon::start(&lab, &settings.text());
    }
    let sent = flood.stop();
    assert!(sent > 100);
    assert_eq!(capture.count(is_raw_segment), 0, "of {sent} packets");
    drop(daemon);
}

#[test]
fn a_stop_finishes_what_has_begun() {
    let Some(lab) = daemon::lab("stop") else { return };
    let signer = Signer::hs256();
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let origin = {
        let gate = gate.clone();
        Origin::start(&lab.origin().namespace, (lab.origin().v4, 0).into(), move |_| {
            let (open, changed) = &*gate;
            let guard = open.lock().unwrap();
            let _guard = changed
                .wait_timeout_while(guard, PATIENCE, |open| !*open)
                .unwrap();
            Reply::Body(200, b"finished".to_vec())
        })
        .expect("a port is free")
    };
    let daemon = Daemon::start(&lab, &Settings::standard(&lab, &signer, origin.address()).text());
    let vip = vips()[0];
    thread::scope(|scope| {
        let request = scope.spawn(|| {
            let mut client =
                Client::connect(&lab.client().namespace, gateway(vip)).expect("the client connects");
            client.send(&Request::get("/slow"))
        });
        eventually("the request to reach the origin", || {
            (origin.received().len() == 1).then_some(())
        });
        daemon.ask_to_stop();
        eventually("new connections to be refused", || {
            (probe::connect(&lab.attacker().namespace, gateway(vip), SILENCE) == Connection::Refused)
                .then_some(())
        });
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        let response = request.join().unwrap().expect("the request is finished");
        assert_eq!((response.status, response.text().as_str()), (200, "finished"));
    });
    assert!(daemon.wait().success());
    assert_eq!(lab.processes().len(), 0);
}

#[test]
fn detach_restores_every_interface_exactly_and_leaves_no_pin() {
    let Some(lab) = daemon::lab("detach") else { return };
    let signer = Signer::hs256();
    let origin = origin(&lab);
    let settings = Settings::standard(&lab, &signer, origin.address());
    let config = lab.write("breakwater.toml", settings.text());
    let config = config.to_str().expect("the path is text");
    let ends = || -> Vec<LinkState> {
        let hosts = [lab.client(), lab.attacker()];
        let near = hosts.map(|host| LinkState::read(lab.edge(), &host.edge_interface).unwrap());
        let far = hosts.map(|host| LinkState::read(&host.namespace, host.interface).unwrap());
        near.into_iter().chain(far).collect()
    };
    let before = ends();
    let attach = |interface: &str| {
        cli(
            &lab,
            [
                "attach",
                "--config",
                config,
                "--interface",
                interface,
                "--mode",
                "native",
            ],
        )
        .success();
        let xdp = LinkState::read(lab.edge(), interface).unwrap().xdp();
        assert_eq!(xdp.map(|xdp| xdp.mode), Some("native"), "{interface}");
    };
    for round in 0..2 {
        attach("wan0");
        attach("wan1");
        // A second time changes nothing.
        let once = ends();
        attach("wan0");
        assert_eq!(once[1], ends()[1]);
        assert!(!lab.bpffs().pins().is_empty());
        // The shield alone, without a daemon: bans work.
        let vip = vips()[0];
        let listener = lab
            .edge()
            .enter(|| std::net::TcpListener::bind(gateway(vip)))
            .expect("the port is free");
        let address = lab.attacker().v4.to_string();
        cli(&lab, ["ban", "add", &address, "--for", "1h"]).success();
        assert!(!is_answered(lab.attacker(), vip, SILENCE));
        assert!(is_answered(lab.client(), vip, PATIENCE));

        cli(&lab, ["detach"]).success();
        for (after, before) in ends().iter().zip(&before) {
            after.assert_same(before);
        }
        assert_eq!(lab.bpffs().pins(), Vec::<std::path::PathBuf>::new());
        assert!(
            is_answered(lab.attacker(), vip, PATIENCE),
            "round {round}: no ban outlives the shield"
        );
        drop(listener);
        cli(&lab, ["detach"]).success();
    }
    // A shield that a daemon has attached goes the same way.
    Daemon::start(&lab, &settings.text()).sigkill();
    cli(&lab, ["detach"]).success();
    for (after, before) in ends().iter().zip(&before) {
        after.assert_same(before);
    }
    assert_eq!(lab.bpffs().pins(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn another_layouts_shield_is_taken_over_without_a_packet_unjudged_or_left_alone() {
    let Some(lab) = daemon::lab("layout") else { return };
    let signer = Signer::hs256();
    let origin = origin(&lab);
    let mut settings = Settings::standard(&lab, &signer, origin.address());
    let attacker = lab.attacker();
    let vip = vips()[0];
    settings.shield_extra = format!("deny = [\"{}\"]", attacker.address_towards(vip));
    let daemon = Daemon::start(&lab, &settings.text());
    let capture = behind_the_shield(&lab, attacker);
    let frame = attacker.frame(segment(attacker, gateway(vip), ACK));
    let bounds = Bounds {
        frames: u64::MAX,
        time: PATIENCE * 2,
        rate: 2000,
    };
    let flood = Flood::start(attacker, bounds, move |_| frame.clone());
    flood.wait_for(100);
    let all = lab.bpffs().path().join("breakwater");
    let (own, other) = (all.join(format!("v{VERSION}")), all.join("v0"));
    let links = || {
        let pins = lab.bpffs().pins();
        let links = pins
            .into_iter()
            .filter(|pin| pin.to_string_lossy().contains("/links/"));
        links.collect::<Vec<_>>()
    };
    fs::rename(&own, &other).expect("the BPF file system renames directories");
    let theirs = links();
    assert_eq!(theirs.len(), settings.interfaces.len());

    // Beside its daemon nothing is taken over.
    let refused = cli(
        &lab,
        [
            "attach",
            "--config",
            &lab.write("own.toml", settings.text()).display().to_string(),
        ],
    );
    let refused = refused.failure();
    assert!(
        refused.contains("another `breakwater run` has the shield"),
        "{refused}"
    );
    daemon.sigkill();

    // Nor by a start that fails at another interface: the loopback has no native mode.
    let mut unsound = settings.clone();
    unsound.interfaces.push("lo".to_owned());
    let failed = Daemon::spawn(&lab, &unsound.text());
    let log = failed.wait_ready(PATIENCE).expect_err("lo has no native XDP");
    assert!(log.contains("cannot attach to lo in native mode"), "{log}");
    assert!(!failed.wait().success());
    assert_eq!(links(), theirs, "{log}");

    let daemon = Daemon::start(&lab, &settings.text());
    let log = daemon.log().join("\n");
    assert!(
        log.contains("the shield of another version is replaced in place"),
        "{log}"
    );
    assert!(
        log.contains("removed the state of another version's shield"),
        "{log}"
    );
    assert!(
        !other.exists() && links().len() == theirs.len(),
        "{:?}",
        lab.bpffs().pins()
    );

    // From a process that has another layout and hands over.
    fs::rename(&own, &other).expect("as before");
    daemon.signal(Signal::USR2);
    assert!(
        daemon.logged("\"message\":\"upgraded", PATIENCE),
        "{:#?}",
        daemon.log()
    );
    eventually("the other layout to go", || (!other.exists()).then_some(()));
    assert_eq!(links().len(), theirs.len(), "{:?}", lab.bpffs().pins());

    let sent = flood.stop();
    assert!(sent > 100);
    assert_eq!(capture.count(is_raw_segment), 0, "of {sent} packets");
}
