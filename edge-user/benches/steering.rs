//! Nanoseconds a steered packet by mode, beside a program that drops everything, by `BPF_PROG_TEST_RUN`.
//!
//! `cargo xtask bench steering` runs it. The program rewrites its frame and the harness does not restore it, so each run is
//! a call of its own; what a call costs is measured with the empty program and taken off. The kernel does much between
//! two such calls, so the program's caches are cold each time: figures of this kind compare with each other alone ("cold").
//! A relayed packet only loses a hop, so the harness may repeat it as often as it has hops: that is the "warm" figure.
//! Rounds of all paths are interleaved on one pinned CPU; medians of thread CPU time, and of the ratio to the empty program
//! of the same round, are printed. Routes and neighbours are those of a namespace of this thread's own. Needs root.

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf,
    programs::{TestRun, TestRunOptions, Xdp, XdpMode},
};
use edge_user::{
    config::{Affinity, BackendSpec, Direct, Forward, Guard, Limits, Protocol, Rate, Service, Shield},
    kernel::{
        Pins, ShieldTables,
        loader::{self, Sizes},
        services,
    },
};
use rustix::time::{ClockId, clock_gettime};

/// Packets of one measurement by calls of their own, and by the harness's own loop.
const SINGLES: u32 = 4_000;
const REPEAT: u32 = 200_000;
/// Packets of one call that has its frame relayed again and again, and calls.
const HOPS: u32 = 250;
const BURSTS: u32 = 400;
/// Interleaved rounds.
const ROUNDS: usize = 15;
const PORT: u16 = 443;
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

fn main() -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(1);
    rustix::thread::sched_setaffinity(None, &set).context("pinning the bench to a CPU")?;
    let directory = Path::new("/sys/fs/bpf/breakwater-bench-steering");
    let pins = Pins::new(directory);
    let result = bench(&pins);
    pins.remove()?;
    _ = std::fs::remove_dir(directory);
    result
}

/// One path.
struct Case {
    name: &'static str,
    target: &'static str,
    vip: IpAddr,
    /// Every packet from a source of its own.
    flood: bool,
    /// It stays as it is but for its hops.
    relayed: bool,
    action: u32,
}

fn cases() -> Vec<Case> {
    let case = |name: &'static str, target, vip: &str, flood: bool, action| Case {
        relayed: !flood && !name.starts_with("ipip"),
        name,
        target,
        vip: vip.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        flood,
        action,
    };
    vec![
        case("admitted to the stack, IPv4", "", "203.0.113.9", false, XDP_PASS),
        case(
            "dsr-l2, IPv4, a connection",
            "<= 5",
            "203.0.113.1",
            false,
            XDP_REDIRECT,
        ),
        case(
            "dsr-l2, IPv6, a connection",
            "<= 5",
            "2001:db8:ffff::1",
            false,
            XDP_REDIRECT,
        ),
        case(
            "ipip, IPv4 in IPv4, a connection",
            "<= 5",
            "203.0.113.2",
            false,
            XDP_REDIRECT,
        ),
        case(
            "ipip, IPv6 in IPv6, a connection",
            "<= 5",
            "2001:db8:ffff::2",
            false,
            XDP_REDIRECT,
        ),
        case(
            "ipip, IPv4 in IPv6, a connection",
            "<= 5",
            "203.0.113.3",
            false,
            XDP_REDIRECT,
        ),
        case(
            "admitted to the stack, random sources",
            "",
            "203.0.113.9",
            true,
            XDP_PASS,
        ),
        case(
            "dsr-l2, IPv4, random sources",
            "<= 6",
            "203.0.113.1",
            true,
            XDP_REDIRECT,
        ),
        case(
            "ipip, IPv4 in IPv4, random sources",
            "<= 6",
            "203.0.113.2",
            true,
            XDP_REDIRECT,
        ),
    ]
}

fn bench(pins: &Pins) -> Result<()> {
    network()?;
    let mut ebpf = loader::load_private(Sizes::default(), pins)?;
    let mut tables = ShieldTables::open(pins)?;
    let plan = services::plan(&Shield::default(), &services(), tables.params.hz)?;
    tables.apply_services(&pins.lock()?, &plan, &[], 0, 0)?;
    for name in [loader::PROGRAM, "steer"] {
        let info = loader::program(&mut ebpf, name)?.info()?;
        let count = info.verified_instruction_count().unwrap_or_default();
        println!(
            "{name}: {count} verified instructions, {} bytes of machine code",
            info.size_jitted()
        );
    }
    let cases = cases();
    let frames: Vec<Vec<u8>> = cases.iter().map(|case| frame(case.vip)).collect();
    let mut columns: Vec<Vec<[f64; 3]>> = vec![Vec::new(); cases.len()];
    let keeper: &mut Xdp = loader::program(&mut ebpf, loader::PROGRAM)?;
    // A program that is attached somewhere runs its repeats without a pause of 25 ms a call.
    _ = keeper.attach("lo", XdpMode::Skb);
    let mut floors = Vec::new();
    let mut source = 0;
    for round in 0..=ROUNDS {
        let floor = repeated(&mut ebpf, &frames[0])?;
        let call = singles(&mut ebpf, loader::FLOOR, &frames[0], None, XDP_DROP)?;
        for (index, case) in cases.iter().enumerate() {
            let from = case.flood.then_some(&mut source);
            let nanos = singles(&mut ebpf, loader::PROGRAM, &frames[index], from, case.action)
                .with_context(|| case.name)?;
            let warm = if case.relayed {
                bursts(&mut ebpf, &frames[index], case.action)? / floor
            } else {
                f64::NAN
            };
            if round > 0 {
                let nanos = floor + nanos - call;
                columns[index].push([nanos, nanos / floor, warm]);
            }
        }
        floors.push(floor);
    }
    println!(
        "\n{:<40} {:>8} {:>8} {:>8}   target",
        "steering", "cold ns", "x floor", "warm x"
    );
    println!(
        "{:<40} {:>8.1} {:>8.2} {:>8.2}",
        "empty program",
        median(floors.into_iter()),
        1.0,
        1.0
    );
    for (case, column) in cases.iter().zip(&columns) {
        let of = |which: usize| median(column.iter().map(|values| values[which]));
        let warm = if case.relayed {
            format!("{:.2}", of(2))
        } else {
            "-".to_owned()
        };
        println!(
            "{:<40} {:>8.1} {:>8.2} {warm:>8}   {}",
            case.name,
            of(0),
            of(1),
            case.target
        );
    }
    Ok(())
}

/// Neighbours behind a link of a namespace of this thread's own.
fn network() -> Result<()> {
    // SAFETY: only this thread is affected, and nothing else of the process relies on its namespace.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.context("unshare")?;
    for family in ["ipv4", "ipv6"] {
        std::fs::write(format!("/proc/sys/net/{family}/conf/all/forwarding"), "1\n")?;
    }
    let mut commands = vec![
        "link set lo up".to_owned(),
        "link add out type veth peer name far".to_owned(),
        "link set out up".to_owned(),
        "link set far up".to_owned(),
        "addr add 10.0.0.254/24 dev out".to_owned(),
        "addr add fd00::fe/64 dev out nodad".to_owned(),
    ];
    for last in 1..=3 {
        for address in [format!("10.0.0.{last}"), format!("fd00::{last}")] {
            commands.push(format!(
                "neigh add {address} lladdr 02:be:00:00:00:0{last} dev out nud permanent"
            ));
        }
    }
    for command in commands {
        let status = Command::new("ip")
            .args(command.split(' '))
            .status()
            .context("starting ip")?;
        ensure!(status.success(), "ip {command} failed");
    }
    Ok(())
}

fn services() -> Vec<Service> {
    let rate = Rate {
        per_second: 100_000_000,
        burst: 1_000_000,
    };
    let service = |vip: &str, forward: Option<Forward>, v6: bool| Service {
        name: vip.into(),
        address: vip.parse().ok(),
        protocol: Protocol::Tcp,
        port: PORT,
        limits: Limits {
            source_packets: Some(rate),
            source_syns: Some(rate),
            network_packets: Some(rate),
            ..Limits::default()
        },
        observe: false,
        guard: Guard::None,
        direct: forward.map(|forward| Direct {
            forward,
            nat: None,
            affinity: Affinity::Flow,
            table_size: 65_537,
            backends: (1..=3_u8)
                .map(|last| BackendSpec {
                    address: if v6 {
                        IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)])
                    } else {
                        IpAddr::from([10, 0, 0, last])
                    },
                    weight: NonZeroU32::MIN,
                    port: None,
                })
                .collect(),
            health: None,
        }),
    };
    vec![
        service("203.0.113.9", None, false),
        service("203.0.113.1", Some(Forward::DsrL2), false),
        service("2001:db8:ffff::1", Some(Forward::DsrL2), true),
        service("203.0.113.2", Some(Forward::Ipip), false),
        service("2001:db8:ffff::2", Some(Forward::Ipip), true),
        service("203.0.113.3", Some(Forward::Ipip), true),
    ]
}

fn repeated(ebpf: &mut Ebpf, packet: &[u8]) -> Result<f64> {
    let program = loader::program(ebpf, loader::FLOOR)?;
    let before = thread_ns();
    program.test_run(TestRunOptions {
        data_in: Some(packet),
        repeat: REPEAT,
        ..TestRunOptions::new()
    })?;
    Ok((thread_ns() - before) as f64 / f64::from(REPEAT))
}

/// Nanoseconds of a packet that is relayed until its hops are nearly used up.
fn bursts(ebpf: &mut Ebpf, packet: &[u8], action: u32) -> Result<f64> {
    let program = loader::program(ebpf, loader::PROGRAM)?;
    let before = thread_ns();
    for _ in 0..BURSTS {
        let result = program.test_run(TestRunOptions {
            data_in: Some(packet),
            repeat: HOPS,
            ..TestRunOptions::new()
        })?;
        ensure!(
            result.return_value == action,
            "{} instead of {action}",
            result.return_value
        );
    }
    Ok((thread_ns() - before) as f64 / f64::from(BURSTS * HOPS))
}

/// Nanoseconds of one call with one packet; with a `source`, each from another.
fn singles(
    ebpf: &mut Ebpf,
    name: &'static str,
    packet: &[u8],
    mut source: Option<&mut u32>,
    action: u32,
) -> Result<f64> {
    let program = loader::program(ebpf, name)?;
    let mut packet = packet.to_vec();
    let before = thread_ns();
    for _ in 0..SINGLES {
        if let Some(source) = source.as_mut() {
            **source = source.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Within 1.0.0.0 to 127.255.255.255.
            packet[26..30].copy_from_slice(&(**source & 0x7eff_ffff | 0x0100_0000).to_be_bytes());
        }
        let result = program.test_run(TestRunOptions {
            data_in: Some(&packet),
            ..TestRunOptions::new()
        })?;
        ensure!(
            result.return_value == action,
            "{} instead of {action}",
            result.return_value
        );
    }
    Ok((thread_ns() - before) as f64 / f64::from(SINGLES))
}

/// An ACK to the service.
fn frame(vip: IpAddr) -> Vec<u8> {
    let mut bytes = vec![0_u8; 14];
    match vip {
        IpAddr::V4(vip) => {
            bytes[12..14].copy_from_slice(&0x0800_u16.to_be_bytes());
            bytes.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 255, 6, 0, 0, 10, 1, 0, 3]);
            bytes.extend(vip.octets());
        }
        IpAddr::V6(vip) => {
            bytes[12..14].copy_from_slice(&0x86dd_u16.to_be_bytes());
            bytes.extend([0x60, 0, 0, 0, 0, 20, 6, 255]);
            bytes.extend([0x20, 1, 0xd, 0xb8, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
            bytes.extend(vip.octets());
        }
    }
    bytes.extend(40_000_u16.to_be_bytes());
    bytes.extend(PORT.to_be_bytes());
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 4, 0, 0, 0, 0, 0]);
    bytes
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn thread_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}
