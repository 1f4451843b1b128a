//! What reloads and upgrades cost those who are connected, and the daemon: `cargo xtask bench reload [RELOADS]`.
//!
//! Traffic of every kind runs beside 200 reloads and 10 upgrades, whose faults are counted; then the configuration is
//! reloaded 10,000 times (or as often as asked for), and the daemon's memory is read now and then. Last, the daemon is
//! killed, and it is measured how long it takes until a new one serves.
#![expect(
    clippy::expect_used,
    reason = "a step of a benchmark that fails has to stop it"
)]

use std::{
    fs,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tests::{
    config::Settings,
    daemon::{self, Daemon},
    http::{self, Request},
    lab::VIP_V4,
    long::{LongOrigin, Traffic},
    stage::gateway,
    token::Signer,
    wait::eventually,
};

const RELOADS: usize = 200;
const UPGRADES: usize = 10;
const MANY: usize = 10_000;

/// Resident memory in KiB.
fn resident(process: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero())).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or_default()
}

fn entries(daemon: &Daemon, message: &str) -> Vec<serde_json::Value> {
    let message = format!("\"message\":\"{message}");
    let lines = daemon.log();
    let found = lines.iter().filter(|line| line.contains(&message));
    found.filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn main() {
    let many = std::env::args()
        .find_map(|text| text.parse().ok())
        .unwrap_or(MANY);
    let Some(lab) = daemon::lab("bench-reload") else {
        return;
    };
    let signer = Signer::hs256();
    let origins = [LongOrigin::start(lab.origin()), LongOrigin::start(lab.origin())];
    let text = |round: usize| {
        let mut settings = Settings::standard(&lab, &signer, origins[0].address());
        if round % 2 == 1 {
            settings.upstream.push(origins[1].address());
        }
        "watch = false\n[gateway.access_log]\nenabled = false".clone_into(&mut settings.extra);
        let deny = format!("deny = [\"203.0.113.{}\"]\nmode = ", round % 200);
        // Connections of earlier processes live as long as the run.
        let text = settings
            .text()
            .replacen("shutdown_grace = \"10s\"", "shutdown_grace = \"1h\"", 1);
        text.replacen("mode = ", &deny, 1)
    };
    let daemon = Daemon::start(&lab, &text(0));
    let mut process = daemon.id();
    let address = (VIP_V4, gateway(VIP_V4.into()).port()).into();
    let traffic = Traffic::start(lab.client(), address, 4);
    let reload = |process: Pid, round: usize, done: usize| {
        lab.write("breakwater.toml", text(round));
        kill_process(process, Signal::HUP).expect("it runs");
        eventually("the reload", || {
            (entries(&daemon, "reloaded").len() > done).then_some(())
        });
    };
    for round in 0..RELOADS {
        reload(process, round + 1, round);
        if (round + 1) % (RELOADS / UPGRADES) == 0 {
            let done = entries(&daemon, "upgraded").len();
            kill_process(process, Signal::USR2).expect("it runs");
            eventually("the upgrade", || {
                (entries(&daemon, "upgraded").len() > done).then_some(())
            });
            let last = entries(&daemon, "upgraded").pop().expect("one more");
            let id = last["process"].as_i64().and_then(|id| i32::try_from(id).ok());
            process = id.and_then(Pid::from_raw).expect("a process");
        }
    }
    let seen = traffic.finish();
    let took = |message| {
        let all = entries(&daemon, message);
        median(all.iter().filter_map(|entry| entry["took_us"].as_u64()).collect())
    };
    println!(
        "{RELOADS} reloads (median {} us), {UPGRADES} upgrades (median {} us): {} requests, {} messages, {} events, \
         {} uploads; {} faults {:?}",
        took("reloaded"),
        took("upgraded"),
        seen.requests.load(Ordering::Relaxed),
        seen.messages.load(Ordering::Relaxed),
        seen.events.load(Ordering::Relaxed),
        seen.uploads.load(Ordering::Relaxed),
        seen.faults().len(),
        seen.faults()
    );
    let before = resident(process);
    let begun = Instant::now();
    for round in 0..many {
        lab.write("breakwater.toml", text(round));
        kill_process(process, Signal::HUP).expect("it runs");
        // Signals that come while one is handled are one; the log is bounded, so it is not asked.
        std::thread::sleep(Duration::from_millis(12));
        if round % (many / 10).max(1) == 0 {
            println!("after {round} reloads: {} KiB", resident(process));
        }
    }
    println!(
        "{many} reloads in {:.0} s: {before} KiB before, {} KiB after",
        begun.elapsed().as_secs_f64(),
        resident(process)
    );
    kill_process(process, Signal::KILL).expect("it runs");
    eventually("the end", || test_kill_process(process).is_err().then_some(()));
    let begun = Instant::now();
    let again = Daemon::spawn(&lab, &text(0));
    // A pause of `eventually` would be most of what is measured.
    while http::once(&lab.client().namespace, address, &Request::get("/")).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = begun.elapsed();
    println!("killed, and served again after {} ms", took.as_millis());
    again.sigterm();
}
