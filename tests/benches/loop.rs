//! `cargo xtask bench loop`: from the refusal that crosses the threshold to the first packet that the kernel drops, end
//! to end over veth; and what an offence costs a worker and the enforcer.
//!
//! The reaction is seen from the outside: a client that has just read the refusal that is one too many goes on asking, one
//! request after the other, on a connection that is open already. The first request that is not answered was dropped by
//! the kernel; the time from the refusal to its sending is what is reported, so each figure is at most one exchange of
//! the client (told as well) too long.
#![expect(clippy::expect_used, reason = "a measurement that cannot go on has to stop")]

use std::{
    hint::black_box,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use edge_user::{
    config::{Offences, Weights},
    offence::{
        OffenceKind, OffenceSink, Offender,
        detained::Detained,
        queue::{QUEUE, Reporter},
        score::Scores,
    },
};
use tests::{
    config::{PRIVATE, Settings},
    daemon::cli,
    http::{Client, Request},
    stage::{Stage, gateway, vips},
    token::forged,
};

/// Reactions that are measured.
const ROUNDS: usize = 100;
/// Refusals that ban.
const THRESHOLD: u32 = 3;
/// A request that is not answered within this was dropped.
const DROPPED: Duration = Duration::from_millis(250);

fn main() {
    reaction();
    costs();
}

fn reaction() {
    let Some(stage) = Stage::new("bench-loop", |settings| Settings {
        offences: (THRESHOLD, "60s", "10m"),
        ..settings
    }) else {
        println!("reaction: not measured on this machine");
        return;
    };
    let (attacker, vip) = (stage.lab.attacker(), vips()[0]);
    let bad = Request::get(PRIVATE).bearer(&forged(&stage.signer.token()));
    let open = Request::get("/");
    let (mut reactions, mut exchanges) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut offender =
            Client::connect_within(&attacker.namespace, gateway(vip), DROPPED).expect("connects");
        let mut witness =
            Client::connect_within(&attacker.namespace, gateway(vip), DROPPED).expect("connects");
        for _ in 0..10 {
            let begun = Instant::now();
            witness.send(&open).expect("the witness is served");
            exchanges.push(begun.elapsed());
        }
        for _ in 0..THRESHOLD {
            offender.send(&bad).expect("a refusal");
        }
        let refused = Instant::now();
        let reaction = loop {
            let sent = refused.elapsed();
            if witness.send(&open).is_err() {
                break sent;
            }
            assert!(sent < Duration::from_secs(5), "nobody was banned");
        };
        reactions.push(reaction);
        cli(&stage.lab, ["ban", "del", &attacker.v4.to_string()]).success();
    }
    println!("refusal to first dropped packet, {ROUNDS} times over veth (aim: p99 below 10 ms)");
    tell("reaction", &mut reactions);
    tell("one exchange of the witness", &mut exchanges);
}

fn tell(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    println!(
        "  {what:<28} median {:>9.1?}  p90 {:>9.1?}  p99 {:>9.1?}  most {:>9.1?}",
        at(50),
        at(90),
        at(99),
        at(100)
    );
}

/// Median nanoseconds of CPU time for one of `count`, of nine rounds.
fn each(count: u32, mut round: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..9)
        .map(|_| {
            let begun = cpu_time();
            round();
            cpu_time().saturating_sub(begun).as_nanos() as f64 / f64::from(count)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

fn costs() {
    let settings = Offences::default();
    let one = Offender::peer(IpAddr::from([192, 0, 2, 1]));
    let count = QUEUE as u32 / 2;
    println!("CPU time of one offence (100,000 a second on one core are 10,000 ns each)");
    let mut queued = Vec::new();
    let report = each(count, || {
        let detained = Arc::new(Detained::new(Instant::now(), 1));
        let (reporter, reports) = Reporter::new(&Weights::default(), detained);
        for _ in 0..count {
            reporter.offence(black_box(one), OffenceKind::ForgedToken);
        }
        assert_eq!(reporter.lost(), 0);
        queued.push(reports);
    });
    println!("  a worker reports one         {report:>8.0} ns");
    let ignored = {
        let detained = Arc::new(Detained::new(Instant::now(), 1));
        let (reporter, _reports) = Reporter::new(&Weights::default(), detained);
        each(count, || {
            for _ in 0..count {
                reporter.offence(black_box(one), OffenceKind::NotFound);
            }
        })
    };
    println!("  one that weighs nothing      {ignored:>8.0} ns");
    for clients in [1_u32, 1_000, 60_000] {
        let mut scores = Scores::new(Offences {
            threshold: 1_000_000.try_into().expect("not zero"),
            ..settings.clone()
        });
        let mut number = 0_u32;
        let count = 200_000;
        let score = each(count, || {
            for _ in 0..count {
                number = number.wrapping_add(2_654_435_761);
                let address = IpAddr::V4((0x0a00_0000 + number % clients).into());
                black_box(scores.note(address, OffenceKind::ForgedToken, Duration::from_secs(1), |_| 0));
            }
        });
        println!("  scoring one, of {clients:>6} clients {score:>6.0} ns");
    }
}
