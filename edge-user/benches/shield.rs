//! Nanoseconds a packet by path, beside a program that drops everything, by `BPF_PROG_TEST_RUN`.
//!
//! `cargo xtask bench shield` runs it. Rounds of all paths are interleaved on one pinned CPU and medians of thread
//! CPU time are printed, with the ratio to the empty program of the same round: the ratio travels, the
//! nanoseconds do not. Needs root.

#[path = "shield/cookies.rs"]
mod cookies;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use aya::programs::{TestRun, TestRunOptions, Xdp, XdpMode};
use edge_common::abi::{BanSource, Control};
use edge_user::{
    config::{Limits, Protocol, Rate, Service, Shield},
    kernel::{
        Pins, ShieldTables,
        bans::BanOrder,
        lists::List,
        loader::{self, Sizes},
        pins::Lock,
        services,
    },
};
use rustix::time::{ClockId, clock_gettime};

/// Packets of one measurement.
const REPEAT: u32 = 200_000;
/// Interleaved rounds.
const ROUNDS: usize = 15;
/// Factor and addend that lead the flood program through all 2^32 sources, and those that keep it at one.
const EVERY_SOURCE: (u32, u32) = (1_664_525, 1_013_904_223);
const ONE_SOURCE: (u32, u32) = (1, 0);

const EDGE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PORT: u16 = 443;

fn main() -> Result<()> {
    // `cargo bench` passes `--bench`; anything else is a filter on the paths' names.
    let filter: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"))
        .collect();
    pin_to_cpu(1)?;
    let pins = Pins::new(Path::new("/sys/fs/bpf/breakwater-bench"));
    let result = bench(&pins, &filter);
    pins.remove()?;
    _ = std::fs::remove_dir("/sys/fs/bpf/breakwater-bench");
    result
}

/// One path through the pipeline.
struct Case {
    name: &'static str,
    /// Ratio to the empty program that the path is meant to stay under.
    target: Option<f64>,
    program: &'static str,
    packet: Vec<u8>,
    /// What the program must answer, so that the path measured is the one meant.
    action: u32,
    /// Control bits that are set meanwhile.
    control: u64,
}

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

fn bench(pins: &Pins, filter: &[String]) -> Result<()> {
    let mut ebpf = loader::load_private(Sizes::default(), pins)?;
    let lock = pins.lock()?;
    let mut tables = ShieldTables::open(pins)?;
    prepare(&mut tables, &lock)?;
    // A program that is attached somewhere runs its repeats without a pause of 25 ms a call.
    let keeper: &mut Xdp = loader::program(&mut ebpf, loader::FLOOR)?;
    keep_attached(keeper);
    report_size(&mut ebpf)?;

    let cases: Vec<Case> = cases()
        .into_iter()
        .filter(|case| {
            case.name == FLOOR
                || filter.is_empty()
                || filter.iter().any(|word| case.name.contains(word.as_str()))
        })
        .collect();
    let mut samples: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for round in 0..=ROUNDS {
        for (index, case) in cases.iter().enumerate() {
            tables.control.set_bits(0, case.control);
            let nanos = measure(&mut ebpf, case)?;
            tables.control.clear_bits(0, case.control);
            if round > 0 {
                samples.entry(index).or_default().push(nanos);
            }
        }
    }
    print(&cases, &samples);
    cookies::run(&mut ebpf, &mut tables, &lock)
}

const FLOOR: &str = "empty program";

fn cases() -> Vec<Case> {
    let tcp = |src: [u8; 4], port: u16, flags: u8| frame(src, port, flags);
    vec![
        Case {
            name: FLOOR,
            target: None,
            program: loader::FLOOR,
            packet: tcp([10, 1, 0, 1], PORT, 0x10),
            action: XDP_DROP,
            control: 0,
        },
        Case {
            name: "to nothing protected",
            target: Some(1.8),
            program: loader::PROGRAM,
            packet: tcp([10, 1, 0, 1], 80, 0x10),
            action: XDP_PASS,
            control: 0,
        },
        Case {
            name: "banned source",
            target: Some(2.3),
            program: loader::PROGRAM,
            packet: tcp([10, 9, 0, 9], PORT, 0x10),
            action: XDP_DROP,
            control: 0,
        },
        Case {
            name: "limited, default tier",
            target: Some(3.0),
            program: loader::PROGRAM,
            packet: tcp([10, 1, 0, 2], PORT, 0x10),
            action: XDP_DROP,
            control: 0,
        },
        Case {
            name: "admitted, default tier",
            target: None,
            program: loader::PROGRAM,
            packet: tcp([10, 1, 0, 3], 8443, 0x10),
            action: XDP_PASS,
            control: 0,
        },
        Case {
            name: "admitted, exact state",
            target: Some(3.5),
            program: loader::PROGRAM,
            packet: tcp([10, 1, 0, 4], 8443, 0x10),
            action: XDP_PASS,
            control: 0,
        },
        Case {
            name: "one source, through the flood program",
            target: None,
            program: loader::FLOOD,
            packet: walking(ONE_SOURCE),
            action: XDP_PASS,
            control: 0,
        },
        Case {
            name: "2^32 sources, through it",
            target: Some(4.0),
            program: loader::FLOOD,
            packet: walking(EVERY_SOURCE),
            action: XDP_PASS,
            control: 0,
        },
        Case {
            name: "admitted, deny list of 10,000",
            target: None,
            program: loader::PROGRAM,
            packet: tcp([10, 1, 0, 3], 8443, 0x10),
            action: XDP_PASS,
            control: Control::HAS_DENY,
        },
    ]
}

fn prepare(tables: &mut ShieldTables, lock: &Lock) -> Result<()> {
    let service = |name: &str, port, per_second, burst| Service {
        name: name.into(),
        address: Some(IpAddr::V4(EDGE)),
        protocol: Protocol::Tcp,
        port,
        limits: Limits {
            source_packets: Some(Rate { per_second, burst }),
            source_syns: Some(Rate { per_second, burst }),
            network_packets: Some(Rate { per_second, burst }),
            ..Limits::default()
        },
        observe: false,
        guard: edge_user::config::Guard::None,
        direct: None,
    };
    let services = [
        // Refuses nearly all of the repeats.
        service("limited", PORT, 100, 100),
        // Admits all: 300,000 a round at most, and the burst refills before the next.
        service("roomy", 8443, 100_000_000, 1_000_000),
    ];
    let plan = services::plan(&Shield::default(), &services, tables.params.hz)?;
    tables.apply_services(lock, &plan, &[], 0, 0)?;
    tables.ban(
        lock,
        &BanOrder {
            net: "10.9.0.9/32".parse()?,
            duration: Some(Duration::from_hours(1)),
            source: BanSource::Operator,
            new_connections_only: false,
            repeats: 0,
            note: String::new(),
        },
    )?;
    tables.earn("10.1.0.4".parse()?);
    let deny: Vec<_> = (0..10_000_u32)
        .map(|n| ipnet::IpNet::new(IpAddr::V4(Ipv4Addr::from(0xc000_0000 | (n * 7919) << 8)), 24))
        .collect::<Result<_, _>>()?;
    tables.replace_list(lock, List::Deny, &deny)?;
    tables.control.clear_bits(0, Control::HAS_DENY);
    Ok(())
}

fn measure(ebpf: &mut aya::Ebpf, case: &Case) -> Result<f64> {
    let program = loader::program(ebpf, case.program)?;
    let before = thread_ns();
    let result = program.test_run(TestRunOptions {
        data_in: Some(&case.packet),
        repeat: REPEAT,
        ..TestRunOptions::new()
    })?;
    let nanos = (thread_ns() - before) as f64 / f64::from(REPEAT);
    anyhow::ensure!(
        result.return_value == case.action,
        "{}: the program answered {} instead of {}",
        case.name,
        result.return_value,
        case.action
    );
    Ok(nanos)
}

fn print(cases: &[Case], samples: &BTreeMap<usize, Vec<f64>>) {
    let floor = samples.get(&0).cloned().unwrap_or_default();
    println!(
        "{:<34} {:>8} {:>8} {:>8}   target",
        "path", "ns", "spread", "x floor"
    );
    for (index, case) in cases.iter().enumerate() {
        let Some(values) = samples.get(&index) else {
            continue;
        };
        let mut nanos = values.clone();
        let mut ratios: Vec<f64> = values
            .iter()
            .zip(&floor)
            .map(|(value, floor)| value / floor)
            .collect();
        let (low, high) = (quantile(&mut nanos, 0.1), quantile(&mut nanos, 0.9));
        let target = case
            .target
            .map_or_else(String::new, |target| format!("<= {target}"));
        println!(
            "{:<34} {:>8.1} {:>8} {:>8.2}   {target}",
            case.name,
            median(&mut nanos),
            format!("{low:.0}-{high:.0}"),
            median(&mut ratios)
        );
    }
}

fn report_size(ebpf: &mut aya::Ebpf) -> Result<()> {
    let info = loader::program(ebpf, loader::PROGRAM)?.info()?;
    println!(
        "verified instructions: {}; translated: {} bytes; machine code: {} bytes\n",
        info.verified_instruction_count().unwrap_or_default(),
        info.size_translated().unwrap_or_default(),
        info.size_jitted()
    );
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let rank = (0..=last)
        .min_by_key(|rank| ((*rank as f64 - last as f64 * q).abs() * 1e3) as i64)
        .unwrap_or_default();
    values.get(rank).copied().unwrap_or_default()
}

fn thread_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

fn pin_to_cpu(cpu: usize) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).context("pinning the bench to a CPU")
}

/// Attaches the program to the loopback interface of a namespace of this thread's own, for as long as it lives. Where
/// that fails the figures only take longer.
fn keep_attached(program: &mut Xdp) {
    // SAFETY: only this thread is affected, and nothing else of the process relies on its namespace.
    if unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.is_ok() {
        _ = program.attach("lo", XdpMode::Skb);
    }
}

/// A segment whose Ethernet addresses tell the flood program how to go on from its source.
fn walking((factor, addend): (u32, u32)) -> Vec<u8> {
    let mut bytes = frame([10, 1, 0, 3], 8443, 0x10);
    bytes[0..4].copy_from_slice(&factor.to_ne_bytes());
    bytes[4..8].copy_from_slice(&addend.to_ne_bytes());
    bytes
}

/// A minimal TCP segment to the edge.
fn frame(src: [u8; 4], port: u16, flags: u8) -> Vec<u8> {
    let mut bytes = vec![0_u8; 64];
    bytes[12..14].copy_from_slice(&0x0800_u16.to_be_bytes());
    bytes[14] = 0x45;
    bytes[16..18].copy_from_slice(&50_u16.to_be_bytes());
    bytes[22] = 64;
    bytes[23] = 6;
    bytes[26..30].copy_from_slice(&src);
    bytes[30..34].copy_from_slice(&EDGE.octets());
    bytes[34..36].copy_from_slice(&40_000_u16.to_be_bytes());
    bytes[36..38].copy_from_slice(&port.to_be_bytes());
    bytes[46] = 0x50;
    bytes[47] = flags;
    bytes
}
