//! The packet pipeline as the kernel runs it, held beside the same pipeline over tables in memory.
//!
//! Runs on any kernel as root, also in the VM: packets go through `BPF_PROG_TEST_RUN`, no interface is touched.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a step of a test that fails has to stop that test"
)]

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use edge_common::abi::{BanSource, Control, Feature, Outcome, Reason, service::MAX_SERVICES};
use edge_user::{
    config::{CookieMode, Guard, Limits, Protocol, Rate, Service, Shield, Syn},
    kernel::bans::BanOrder,
};
use ipnet::IpNet;
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};
use tests::{
    judge::{self, Kernel, Outside},
    packets::{self, Spec, Target},
    rows, skip,
};

/// Packets of the differential test, and on an emulated machine, which takes milliseconds for each.
const PACKETS: u64 = 100_000;
const PACKETS_EMULATED: u64 = 3_000;
/// No machine spends longer on it; what was judged by then counts.
const PATIENCE: Duration = Duration::from_mins(2);
/// Packets in one random world, and the longest it may last: its limits refill by one packet a second, and in half of
/// one they cannot, whatever the tick.
const PACKETS_A_WORLD: u32 = 2_000;
const WORLD_TIME: Duration = Duration::from_millis(500);

/// What the verifier may walk.
const MOST_INSTRUCTIONS: u32 = 50_000;

fn kernel(test: &str) -> Option<Kernel> {
    if let Some(reason) = skip::missing() {
        skip::report(test, reason);
        return None;
    }
    Some(Kernel::load().expect("the program loads"))
}

fn order(net: IpNet, duration: Option<Duration>, new_connections_only: bool) -> BanOrder {
    BanOrder {
        net,
        duration,
        source: BanSource::Operator,
        new_connections_only,
        repeats: 0,
        note: String::new(),
    }
}

#[test]
fn the_verifier_walks_a_bounded_number_of_instructions() {
    let Some(mut kernel) = kernel("verifier") else {
        return;
    };
    for feature in Feature::ALL {
        let why = kernel.why_absent(feature);
        assert!(
            why.is_none(),
            "no {}: {}",
            feature.name(),
            why.unwrap_or_default()
        );
    }
    let walked = kernel.verified_instructions().expect("it is told");
    println!("instructions verified: {walked:?}");
    for (program, count) in walked {
        assert!(
            count < MOST_INSTRUCTIONS,
            "{program}: {count} instructions verified"
        );
    }
}

#[test]
fn every_row_leaves_with_its_reason_in_memory_and_in_the_kernel() {
    let Some(mut kernel) = kernel("rows") else {
        return;
    };
    let (services, shield) = rows::world();
    let local: Vec<IpAddr> = [rows::LOCAL, rows::V4, rows::V6]
        .iter()
        .map(|text| text.parse().expect("an address"))
        .collect();
    kernel
        .configure(&services, &shield, &local, Control::DROP_MARTIANS)
        .expect("configured");
    ban_the_sources(&mut kernel).expect("banned");
    let memory = kernel.copy().expect("copied");
    let mut counts = kernel.counts().expect("counted");
    for row in rows::rows() {
        let verdict = judge::agree(&mut kernel, &memory, &row.packet, None, &mut counts)
            .unwrap_or_else(|error| panic!("{}: {error:#}", row.what));
        assert_eq!(verdict.reason(), row.reason, "{}", row.what);
    }
    assert_eq!(
        kernel.counts().expect("counted"),
        counts,
        "nothing else was counted"
    );
}

fn ban_the_sources(kernel: &mut Kernel) -> Result<()> {
    let lock = kernel.pins.lock()?;
    let host = |text: &str| rows::net(&format!("{text}/32"));
    let mut bans = vec![
        order(host(rows::BANNED), None, false),
        order(
            rows::net(rows::BANNED_NETWORK),
            Some(Duration::from_hours(1)),
            false,
        ),
        order(host(rows::BANNED_SYN), None, true),
        order(host(rows::ALLOWED), None, false),
        order(host(rows::PARDONED), Some(Duration::ZERO), false),
    ];
    bans.extend(
        rows::BANNED_V6
            .iter()
            .map(|text| order(rows::net(text), None, false)),
    );
    for ban in &bans {
        kernel.tables.ban(&lock, ban)?;
    }
    Ok(())
}

/// Observing turns every drop of the rows into a pass, and tells the same reason.
#[test]
fn observing_drops_nothing_and_tells_the_reason() {
    let Some(mut kernel) = kernel("observe") else {
        return;
    };
    let (services, shield) = rows::world();
    let everything = Reason::ALL
        .iter()
        .fold(Control(0), |control, reason| control.observing(*reason));
    kernel
        .configure(
            &services,
            &shield,
            &[rows::LOCAL.parse().expect("an address")],
            everything.0,
        )
        .expect("configured");
    ban_the_sources(&mut kernel).expect("banned");
    let memory = kernel.copy().expect("copied");
    let mut counts = kernel.counts().expect("counted");
    let mut observed = 0;
    for row in rows::rows() {
        let verdict = judge::agree(&mut kernel, &memory, &row.packet, None, &mut counts)
            .unwrap_or_else(|error| panic!("{}: {error:#}", row.what));
        assert_eq!(verdict.reason().outcome(), Outcome::Pass, "{}", row.what);
        if row.reason.outcome() == Outcome::Drop {
            assert_eq!(verdict.observed.reason(), Some(row.reason), "{}", row.what);
            observed += 1;
        }
    }
    assert!(observed > 20, "the rows have drops of many reasons");
}

/// Random and mutated packets in random worlds, 100,000 where the machine is fast enough: equal verdicts, equal counters.
#[test]
fn memory_and_kernel_judge_alike() {
    let Some(mut kernel) = kernel("differential") else {
        return;
    };
    match Outside::new() {
        Ok(outside) => outside.enter(|index| judge_at_random(&mut kernel, Some(index))),
        Err(why) => {
            skip::report("differential", format_args!("packets from outside: {why:#}"));
            judge_at_random(&mut kernel, None);
        }
    }
}

fn judge_at_random(kernel: &mut Kernel, outside: Option<u32>) {
    let (mut judged, mut seen) = (0_u64, vec![0_u64; Reason::ALL.len()]);
    let begun = Instant::now();
    // The VM's runner says so.
    let is_emulated = std::env::var_os("BREAKWATER_VM").is_some();
    let wanted = if is_emulated { PACKETS_EMULATED } else { PACKETS };
    for seed in 0.. {
        if judged >= wanted || begun.elapsed() > PATIENCE {
            break;
        }
        let mut rng = SmallRng::seed_from_u64(seed);
        let spec = random_world(kernel, &mut rng).expect("configured");
        let memory = kernel.copy().expect("copied");
        let mut counts = kernel.counts().expect("counted");
        let world = Instant::now();
        for number in 0..PACKETS_A_WORLD {
            if world.elapsed() > WORLD_TIME {
                break;
            }
            let packet = packets::generate(&mut rng, &spec);
            let from = outside.filter(|_| rng.random());
            let verdict = judge::agree(kernel, &memory, &packet, from, &mut counts)
                .unwrap_or_else(|error| panic!("seed {seed}, packet {number}: {error:#}: {packet:02x?}"));
            seen[usize::from(verdict.code.0)] += 1;
            judged += 1;
        }
        assert_eq!(
            kernel.counts().expect("counted"),
            counts,
            "seed {seed}: nothing else was counted"
        );
    }
    let told: Vec<String> = Reason::ALL
        .iter()
        .map(|reason| format!("{} {}", reason.name(), seen[*reason as usize]))
        .collect();
    println!("{judged} packets: {}", told.join(", "));
    assert!(
        judged >= PACKETS_EMULATED,
        "only {judged} packets within {PATIENCE:?}"
    );
    if judged < PACKETS {
        return;
    }
    for reason in [
        Reason::NotIp,
        Reason::NotProtected,
        Reason::Admitted,
        Reason::AllowListed,
        Reason::Banned,
        Reason::Denied,
        Reason::Fragment,
        Reason::Truncated,
        Reason::Malformed,
        Reason::BadFlags,
        Reason::SourcePackets,
        Reason::NetworkPackets,
        Reason::SynBudget,
        Reason::NewSources,
    ] {
        assert!(seen[reason as usize] > 0, "{} never occurred", reason.name());
    }
    for reason in [Reason::Martian, Reason::SameAddress] {
        let occurred = seen[reason as usize] > 0;
        assert_eq!(
            occurred,
            outside.is_some(),
            "{} occurred: {occurred}",
            reason.name()
        );
    }
}

/// Fills the kernel's tables at random and says what packets should be about.
///
/// Limits are so slow that no time of the test refills them: the outcome does not hang on the tick.
fn random_world(kernel: &mut Kernel, rng: &mut SmallRng) -> Result<Spec> {
    let sources = sources(rng);
    let targets = targets();
    let services: Vec<Service> = targets
        .iter()
        .enumerate()
        .map(|(index, target)| Service {
            name: format!("s{index}"),
            address: (index % 4 != 3).then_some(target.address),
            protocol: if target.protocol == tests::frame::TCP {
                Protocol::Tcp
            } else {
                Protocol::Udp
            },
            port: target.port,
            limits: random_limits(rng),
            observe: rng.random_ratio(1, 10),
            guard: random_guard(rng, target.protocol),
            direct: None,
        })
        .collect();
    let some = |rng: &mut SmallRng, share: u32| -> Vec<IpNet> {
        let mut nets: Vec<IpNet> = sources
            .iter()
            .filter_map(|source| {
                let chosen = rng.random_ratio(share, 100);
                chosen.then(|| IpNet::new(*source, wider(source, rng)).expect("a length").trunc())
            })
            .collect();
        nets.sort_unstable();
        nets.dedup();
        nets
    };
    let shield = Shield {
        allow: if rng.random() { some(rng, 10) } else { Vec::new() },
        deny: if rng.random() { some(rng, 10) } else { Vec::new() },
        icmp: rng.random::<bool>().then_some(Rate {
            per_second: 1,
            burst: 3,
        }),
        ..Shield::default()
    };
    let mut bits = Control(0);
    for (mask, share) in [
        (Control::PASS_FRAGMENTS, 3),
        (Control::PASS_MALFORMED, 3),
        (Control::DROP_MARTIANS, 2),
    ] {
        if rng.random_ratio(1, share) {
            bits.0 |= mask;
        }
    }
    for reason in Reason::ALL {
        if rng.random_ratio(1, 12) {
            bits = bits.observing(*reason);
        }
    }
    let local: Vec<IpAddr> = targets.iter().map(|target| target.address).collect();
    kernel.configure(&services, &shield, &local, bits.0)?;
    let old: Vec<IpNet> = kernel.tables.list_bans().iter().map(|ban| ban.net).collect();
    let lock = kernel.pins.lock()?;
    for net in old {
        kernel.tables.unban(&lock, &net)?;
    }
    kernel.tables.forget_earned();
    for source in &sources {
        let known = rng.random_range(0..16);
        if known < 4 {
            let lengths: &[u8] = match source {
                IpAddr::V4(_) => &[32, 24],
                IpAddr::V6(_) => &[128, 64, 56, 48],
            };
            let length = *lengths.choose(rng).context("a length")?;
            let duration =
                [None, Some(Duration::ZERO), Some(Duration::from_hours(1))][rng.random_range(0..3)];
            kernel.tables.ban(
                &lock,
                &order(
                    IpNet::new(*source, length)?.trunc(),
                    duration,
                    rng.random_ratio(1, 4),
                ),
            )?;
        } else if known < 7 {
            kernel.tables.earn(*source);
        }
    }
    Ok(Spec {
        services: targets,
        sources,
        valid: 40,
        noise: 5,
    })
}

fn targets() -> Vec<Target> {
    let target = |address: &str, protocol, port| Target {
        address: address.parse().expect("an address"),
        protocol,
        port,
    };
    let (tcp, udp) = (tests::frame::TCP, tests::frame::UDP);
    vec![
        target(rows::V4, tcp, 443),
        target("203.0.113.2", tcp, 443),
        target(rows::V6, tcp, 443),
        target(rows::LOCAL, tcp, 9000),
        target(rows::V4, udp, 53),
        target(rows::V6, udp, 53),
        target("203.0.113.3", tcp, 443),
    ]
}

fn sources(rng: &mut SmallRng) -> Vec<IpAddr> {
    let impossible = [rows::V4, rows::V6, "127.0.0.9", "240.1.2.3", "::1"];
    let impossible = impossible.map(|text| text.parse().expect("an address"));
    (0..40_u8)
        .map(|number| {
            if rng.random_ratio(1, 2) {
                IpAddr::from([198, 51, 100 + number % 4, number])
            } else {
                IpAddr::from([
                    0x2001,
                    0xdb8,
                    0,
                    u16::from(number % 5),
                    0,
                    0,
                    0,
                    u16::from(number),
                ])
            }
        })
        .chain(impossible)
        .collect()
}

fn wider(source: &IpAddr, rng: &mut SmallRng) -> u8 {
    let (least, most) = if source.is_ipv4() { (16, 32) } else { (24, 128) };
    rng.random_range(least..=most)
}

fn random_limits(rng: &mut SmallRng) -> Limits {
    let mut slow = |per_second: u64, burst: u64| rng.random_ratio(1, 3).then_some(Rate { per_second, burst });
    Limits {
        source_packets: slow(1, 10),
        source_syns: slow(1, 3),
        source_bytes: slow(10, 20_000),
        network_packets: slow(1, 30),
        network_syns: slow(1, 8),
        network_bytes: slow(10, 40_000),
    }
}

/// Budgets alone: cookies take a stack, and are compared in `syn.rs`.
fn random_guard(rng: &mut SmallRng, protocol: u8) -> Guard {
    let budget = Rate {
        per_second: 1,
        burst: rng.random_range(2..20),
    };
    match (rng.random_ratio(1, 3), protocol) {
        (false, _) => Guard::None,
        (true, tests::frame::TCP) => Guard::Syn(Syn {
            budget: Some(budget),
            cookies: CookieMode::Off,
            hold: Duration::from_secs(1),
            window_scale: None,
        }),
        (true, _) => Guard::NewSources(budget),
    }
}

/// What makes a source impossible holds outside alone: a machine speaks to itself from any address of its own.
#[test]
fn impossible_sources_are_dropped_outside_and_nowhere_else() {
    let Some(mut kernel) = kernel("impossible") else {
        return;
    };
    let outside = match Outside::new() {
        Ok(outside) => outside,
        Err(why) => return skip::report("impossible", format_args!("{why:#}")),
    };
    outside.enter(|index| {
        for (bits, martian) in [(Control::DROP_MARTIANS, Reason::Martian), (0, Reason::Admitted)] {
            judge_from_outside(&mut kernel, index, bits, martian);
        }
    });
}

fn judge_from_outside(kernel: &mut Kernel, index: u32, bits: u64, martian: Reason) {
    let (services, shield) = rows::world();
    let local = [rows::V4, rows::V6].map(|text| text.parse().expect("an address"));
    kernel
        .configure(&services, &shield, &local, bits)
        .expect("configured");
    let memory = kernel.copy().expect("copied");
    let mut counts = kernel.counts().expect("counted");
    for row in rows::from_outside() {
        let reason = if row.reason == Reason::Martian {
            martian
        } else {
            row.reason
        };
        for (from, expected) in [(Some(index), reason), (None, Reason::Admitted)] {
            let verdict = judge::agree(kernel, &memory, &row.packet, from, &mut counts)
                .unwrap_or_else(|error| panic!("{} from {from:?}: {error:#}", row.what));
            assert_eq!(verdict.reason(), expected, "{} from {from:?}", row.what);
        }
    }
}

#[test]
fn the_counter_table_is_as_large_as_it_is_indexed() {
    assert_eq!(judge::counter(0, 0, true), MAX_SERVICES * Reason::SLOTS);
    assert!(Reason::ALL.len() <= Reason::SLOTS as usize);
}
