//! Floods: who is over a limit is cut and banned, who is not keeps what it had, and nothing that idles is forgotten.
//!
//! Bounded forms; `cargo xtask bench flood` sends ten million.

use std::time::Duration;

use tests::{
    config::Settings,
    daemon::cli,
    flood::{Idle, blast, requests},
    frame::ACK,
    sender::{Bounds, Flood},
    stage::{self, Limit, SILENCE, Stage, gateway, is_answered, names_address, segment, vips},
    wait::{PATIENCE, eventually},
};

/// Far above what a client of these tests sends, far below a flood.
const LIMIT: Limit = Limit {
    per_second: 2_000,
    burst: 2_000,
};
/// Sources of the bounded flood, per address family.
const SOURCES: u64 = 200_000;
/// Idle bans, and as many idle sources with exact state.
const IDLE: u32 = 1_000;
/// Requests of the client beside a flood.
const REQUESTS: u32 = 1_000;

fn endless(stage: &Stage, rate: u32) -> Flood {
    let attacker = stage.lab.attacker();
    let frame = attacker.frame(segment(attacker, gateway(vips()[0]), ACK));
    let bounds = Bounds {
        frames: u64::MAX,
        time: PATIENCE * 2,
        rate,
    };
    Flood::start(attacker, bounds, move |_| frame.clone())
}

#[test]
fn a_client_keeps_its_requests_beside_a_flood_from_one_address() {
    let Some(stage) = Stage::new("flood-one", |settings| settings.limit("source_packets", LIMIT)) else {
        return;
    };
    let flood = endless(&stage, 50_000);
    flood.wait_for(5_000);
    for vip in vips() {
        let (answered, asked) = requests(stage.lab.client(), vip, REQUESTS / 2);
        assert!(
            answered * 1000 >= asked * 999,
            "{answered} of {asked} requests were answered at {vip}"
        );
    }
    let sent = flood.stop();
    let status = cli(&stage.lab, ["status", "--json"]).json();
    let dropped = stage::packets(&status, "source_packets");
    assert!(dropped * 2 > sent, "{dropped} of {sent} were dropped: {status:#}");
}

/// The pollution gate: whatever forged sources send, what was known before is known afterwards, all of it.
#[test]
fn a_flood_of_forged_sources_evicts_no_ban_and_no_earned_source() {
    let Some(stage) = Stage::new("flood-many", |settings| {
        settings
            .limit("source_packets", LIMIT)
            .limit("source_syns", LIMIT)
    }) else {
        return;
    };
    let idle = Idle::plant(&stage.lab, IDLE).expect("planted");
    assert!(
        idle.earned() >= IDLE as usize * 9 / 10,
        "{} sources have exact state",
        idle.earned()
    );
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            vips().map(|vip| blast(stage.lab.attacker(), vip, SOURCES).expect("the interface takes frames"))
        });
        for vip in vips() {
            let (answered, asked) = requests(stage.lab.client(), vip, REQUESTS / 4);
            assert_eq!(answered, asked, "requests at {vip} are answered");
        }
        for blasted in sender.join().expect("a sender does not panic") {
            println!("{} frames in {:.1} s", blasted.sent, blasted.time.as_secs_f64());
            assert!(blasted.sent * 10 >= SOURCES * 9, "{blasted:?}");
        }
    });
    idle.check(&stage.lab).expect("all are there");
    stage.assert_served(stage.lab.client());
}

#[test]
fn who_stays_over_its_limit_is_banned_in_the_kernel_for_longer_each_time() {
    let adjust = |settings: Settings| {
        let settings = settings.limit(
            "source_packets",
            Limit {
                per_second: 50,
                burst: 50,
            },
        );
        Settings {
            extra: "[shield.escalation]\nafter = \"1s\"\nban = \"2s\"\nmax_ban = \"1h\"\n".into(),
            ..settings
        }
    };
    let Some(stage) = Stage::new("flood-escalation", adjust) else {
        return;
    };
    let (attacker, vip) = (stage.lab.attacker(), vips()[0]);
    let bans = || cli(&stage.lab, ["ban", "list", "--json"]).json();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let flood = endless(&stage, 1_000);
        let ban = eventually("the flooder to be banned", || {
            let bans = bans();
            let found = bans
                .as_array()?
                .iter()
                .find(|ban| names_address(ban, attacker.v4.into()))?;
            Some(found.clone())
        });
        flood.stop();
        assert_eq!(ban["source"], "escalation", "{ban:#}");
        seen.push(ban["repeats"].as_u64().expect("a number"));
        assert!(!is_answered(attacker, vip, Duration::from_millis(300)));
        stage.assert_served(stage.lab.client());
        eventually("the ban to end by itself", || {
            is_answered(attacker, vip, SILENCE).then_some(())
        });
    }
    assert_eq!(seen, [0, 1], "the second ban knows of the first");
}
