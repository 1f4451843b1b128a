//! A daemon that changes while it serves: reloads and upgrades under traffic of every kind.
#![expect(
    clippy::expect_used,
    reason = "a step of a test that fails has to stop that test"
)]

use std::{
    fmt::Write as _,
    net::SocketAddr,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tests::{
    config::Settings,
    daemon::{self, Daemon, cli},
    frame::ACK,
    lab::{Lab, VIP_V4},
    long::{LongOrigin, Traffic},
    sender::{Bounds, Flood},
    stage::{Limit, behind_the_shield, gateway, is_raw_segment, segment, vips},
    token::Signer,
    wait::{PATIENCE, eventually},
};

/// Kinds of configuration: each differs from the next in upstreams, routes, limits of both kinds and lists.
const KINDS: usize = 4;

fn settings(lab: &Lab, signer: &Signer, origins: [&LongOrigin; 2], kind: usize) -> String {
    let mut settings = Settings::standard(lab, signer, origins[0].address());
    if kind % 2 == 1 {
        settings.upstream.push(origins[1].address());
    }
    settings.limits = vec![(
        "source_packets",
        Limit {
            per_second: 100_000 + kind as u64,
            burst: 100_000,
        },
    )];
    "watch = false".clone_into(&mut settings.extra);
    let mut text = settings.text();
    text = text.replacen(
        "mode = ",
        &format!("deny = [\"203.0.113.{}\"]\nmode = ", 10 + kind),
        1,
    );
    for extra in 0..kind {
        let _ = write!(
            text,
            "\n[[route]]\nname = \"extra-{extra}\"\npath = \"/extra-{extra}\"\nupstream = \"web\"\nauth = \"none\"\n"
        );
    }
    let (certificate, key) = (lab.directory().join("edge.pem"), lab.directory().join("edge.key"));
    let _ = write!(
        text,
        "\n[[listener]]\nname = \"tls\"\naddress = \"{}\"\ntls.certificates = [{{ certificate_file = \"{}\", key_file = \"{}\" }}]\n",
        tls(),
        certificate.display(),
        key.display()
    );
    let _ = write!(
        text,
        "\n[[limit]]\nname = \"all\"\nby = [\"address\"]\nrequests = {}\nper = \"1s\"\n",
        1_000_000 + kind
    );
    text
}

/// Where TLS is spoken: a port that the shield does not judge.
fn tls() -> SocketAddr {
    (VIP_V4, 9443).into()
}

/// Puts another certificate where the listener's is; vouches for itself.
fn certify(lab: &Lab) {
    let names = vec![VIP_V4.to_string()];
    let own = rcgen::generate_simple_self_signed(names).expect("a certificate");
    lab.write("edge.pem", own.cert.pem());
    lab.write("edge.key", own.signing_key.serialize_pem());
}

/// Asks over TLS, trusting exactly the certificate that lies there now.
fn asks_over_tls(lab: &Lab) -> Result<(), String> {
    let mut command = std::process::Command::new("curl");
    command.args([
        "-sS",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "--max-time",
        "10",
        "--cacert",
    ]);
    command
        .arg(lab.directory().join("edge.pem"))
        .arg(format!("https://{}/", tls()));
    let output = lab
        .client()
        .namespace
        .output(command)
        .map_err(|error| error.to_string())?;
    match &*output.stdout {
        b"200" => Ok(()),
        other => Err(format!(
            "{:?} {}",
            String::from_utf8_lossy(other),
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

fn count(daemon: &Daemon, message: &str) -> usize {
    let message = format!("\"message\":\"{message}");
    daemon.log().iter().filter(|line| line.contains(&message)).count()
}

/// Has the daemon read its file again and waits until it has.
fn reload(daemon: &Daemon, before: usize) {
    daemon.signal(Signal::HUP);
    eventually("the reload", || {
        (count(daemon, "reloaded") + count(daemon, "not reloaded") > before).then_some(())
    });
}

/// Processes that upgrades have started, the last one last.
fn successors(daemon: &Daemon) -> Vec<Pid> {
    let lines = daemon.log();
    let upgraded = lines
        .iter()
        .filter(|line| line.contains("\"message\":\"upgraded"));
    upgraded
        .filter_map(|line| {
            let entry: serde_json::Value = serde_json::from_str(line).ok()?;
            Pid::from_raw(i32::try_from(entry["process"].as_i64()?).ok()?)
        })
        .collect()
}

#[test]
fn reloads_and_upgrades_lose_nothing_and_the_shield_is_never_off() {
    let Some(lab) = daemon::lab("reload") else {
        return;
    };
    let signer = Signer::hs256();
    let origins = [LongOrigin::start(lab.origin()), LongOrigin::start(lab.origin())];
    certify(&lab);
    let text = |kind| settings(&lab, &signer, [&origins[0], &origins[1]], kind);
    let daemon = Daemon::start(&lab, &text(0));
    let attacker = lab.attacker();
    let vip = vips()[0];
    let banned = attacker.address_towards(vip).to_string();
    cli(&lab, ["ban", "add", &banned, "--for", "1h"]).success();
    let capture = behind_the_shield(&lab, attacker);
    let frame = attacker.frame(segment(attacker, gateway(vip), ACK));
    let bounds = Bounds {
        frames: u64::MAX,
        time: PATIENCE * 4,
        rate: 1000,
    };
    let flood = Flood::start(attacker, bounds, move |_| frame.clone());
    flood.wait_for(10);
    let traffic = Traffic::start(lab.client(), (VIP_V4, gateway(vip).port()).into(), 2);
    let seen = traffic.seen.clone();
    let moved = |what: &str| {
        let count = || seen.requests.load(Ordering::Relaxed);
        let before = count();
        eventually(what, || (count() > before + 5).then_some(()));
    };
    moved("traffic before");
    for round in 1..=20 {
        lab.write("breakwater.toml", text(round % KINDS));
        certify(&lab);
        reload(&daemon, round - 1);
        asks_over_tls(&lab).expect("the new certificate is in force");
        moved("traffic between reloads");
    }
    assert_eq!(count(&daemon, "not reloaded"), 0, "{:#?}", daemon.log());
    let told = daemon
        .log()
        .into_iter()
        .filter(|line| line.contains("edge.pem changed"))
        .count();
    assert_eq!(told, 20, "{:#?}", daemon.log());

    // A mistake changes nothing, and says where it is.
    lab.write("breakwater.toml", text(1).replacen("half_life", "halflife", 1));
    reload(&daemon, 20);
    let told = daemon
        .log()
        .into_iter()
        .find(|line| line.contains("not reloaded"));
    let told = told.expect("it is told");
    assert!(
        told.contains("breakwater.toml:") && told.contains("offences.halflife"),
        "{told}"
    );
    // Nor does a process that does not start.
    daemon.signal(Signal::USR2);
    assert!(daemon.logged("not upgraded", PATIENCE));
    moved("traffic after mistakes");

    lab.write("breakwater.toml", text(2));
    daemon.signal(Signal::USR2);
    eventually("the first upgrade", || {
        (successors(&daemon).len() == 1).then_some(())
    });
    moved("traffic on the second process");
    kill_process(successors(&daemon)[0], Signal::USR2).expect("it runs");
    eventually("the second upgrade", || {
        (successors(&daemon).len() == 2).then_some(())
    });
    moved("traffic on the third process");

    let seen = traffic.finish();
    assert_eq!(seen.faults(), Vec::<String>::new(), "{:#?}", daemon.log());
    let numbers = [&seen.messages, &seen.events, &seen.uploads].map(|count| count.load(Ordering::Relaxed));
    assert!(
        numbers[0] > 50 && numbers[1] > 20 && numbers[2] == 1,
        "{numbers:?}"
    );
    let sent = flood.stop();
    assert!(sent > 100, "{sent}");
    assert_eq!(capture.count(is_raw_segment), 0, "of {sent} banned packets");
    let bans = cli(&lab, ["ban", "list", "--json"]).json();
    assert!(bans.to_string().contains(&banned), "{bans:#}");

    let last = *successors(&daemon).last().expect("two upgrades");
    eventually("the second process to end", || {
        test_kill_process(successors(&daemon)[0]).is_err().then_some(())
    });
    kill_process(last, Signal::TERM).expect("it runs");
    eventually("the last process to end", || {
        test_kill_process(last).is_err().then_some(())
    });
    assert!(
        daemon.wait().success(),
        "the first process ended in an orderly way"
    );
}

#[test]
fn files_are_followed_and_a_drain_says_so_before_it_closes() {
    let Some(lab) = daemon::lab("follow") else {
        return;
    };
    let signer = Signer::hs256();
    let origins = [LongOrigin::start(lab.origin()), LongOrigin::start(lab.origin())];
    certify(&lab);
    let text = |kind| {
        settings(&lab, &signer, [&origins[0], &origins[1]], kind).replacen(
            "watch = false",
            "watch = true\ndrain_delay = \"400ms\"",
            1,
        )
    };
    let daemon = Daemon::start(&lab, &text(0));
    let begun = Instant::now();
    lab.write("new.toml", text(3));
    std::fs::rename(
        lab.directory().join("new.toml"),
        lab.directory().join("breakwater.toml"),
    )
    .expect("one directory");
    assert!(daemon.logged("\"cause\":\"Files\"", PATIENCE));
    assert!(
        begun.elapsed() < Duration::from_secs(5) && count(&daemon, "reloaded") == 1,
        "{:#?}",
        daemon.log()
    );
    assert!(daemon.logged("route extra-2 added", PATIENCE));

    let address = (VIP_V4, gateway(vips()[0]).port()).into();
    let asks = || {
        let client = &lab.client().namespace;
        tests::http::once(client, address, &tests::http::Request::get("/"))
    };
    let begun = Instant::now();
    daemon.ask_to_stop();
    assert!(daemon.logged("not ready any more", PATIENCE));
    assert_eq!(
        asks().map(|response| response.status).ok(),
        Some(200),
        "it accepts still"
    );
    daemon.ended_well();
    assert!(begun.elapsed() >= Duration::from_millis(400));
    assert!(asks().is_err(), "nobody listens");
}
