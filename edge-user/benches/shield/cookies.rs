//! SYN cookies: a SYN answered, a segment of nobody's dropped, a segment of a connection passed.
//!
//! An answered SYN is another frame, and the harness does not restore it: a program for benchmarks does, which turns the
//! answer back into a SYN before the shield sees it (some stores, counted as the shield's). Where the answer is longer than
//! the SYN, single runs are measured, each with cold caches, and the empty program's single runs are taken off.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf,
    programs::{TestRun, TestRunOptions},
};
use edge_common::abi::Feature;
use edge_user::{
    config::{CookieMode, Guard, Limits, Protocol, Service, Shield, Syn},
    kernel::{ShieldTables, handed, loader, pins::Lock, services, sysctl},
};

use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{EDGE, REPEAT, XDP_DROP, XDP_PASS, median, thread_ns};

const PORT: u16 = 4433;
const XDP_TX: u32 = 3;
/// Single runs of one round, and rounds.
const SINGLES: u32 = 20_000;
const ROUNDS: usize = 9;

/// Measures and prints; in the namespace that the bench has moved its thread to.
pub(crate) fn run(ebpf: &mut Ebpf, tables: &mut ShieldTables, lock: &Lock) -> Result<()> {
    if !handed::has(ebpf, Feature::Cookies) {
        println!("\nSYN cookies: this kernel has no helpers for them");
        return Ok(());
    }
    // Held, so that what is attached there stays.
    let _before = std::fs::File::open("/proc/thread-self/ns/net")?;
    let (_listener, near, far) = stage()?;
    let service = Service {
        direct: None,
        name: "cookies".into(),
        address: Some(EDGE.into()),
        protocol: Protocol::Tcp,
        port: PORT,
        limits: Limits::default(),
        observe: false,
        guard: Guard::Syn(Syn {
            budget: None,
            cookies: CookieMode::Always,
            hold: Duration::from_secs(10),
            window_scale: None,
        }),
    };
    tables.write_cookie_settings(sysctl::cookie_settings(true, &tables.params));
    let plan = services::plan(&Shield::default(), &[service], tables.params.hz)?;
    tables.apply_services(lock, &plan, &[], 0, 0)?;

    let known = segment(near.local_addr()?, 0x10, &[]);
    let nobody = segment("10.1.0.9:40000".parse()?, 0x10, &[]);
    let reset = segment("10.1.0.9:40000".parse()?, 0x04, &[]);
    let bare = segment("10.1.0.9:40000".parse()?, 0x02, &[]);
    let linux = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 9, 9, 0, 0, 0, 0, 1, 3, 3, 7];
    let full = segment("10.1.0.9:40000".parse()?, 0x02, &linux);
    let short = segment("10.1.0.9:40000".parse()?, 0x02, &linux[..4]);

    // To everybody: all is done but the sending, and the frame stays as it is.
    let mut unsent = full.clone();
    unsent[..6].fill(0xff);

    let mut columns: [Vec<f64>; 8] = Default::default();
    for round in 0..=ROUNDS {
        let floor = repeated(ebpf, loader::FLOOR, &nobody, XDP_DROP)?;
        let single_floor = singles(ebpf, loader::FLOOR, &full, XDP_DROP)?;
        let row = [
            floor,
            repeated(ebpf, loader::AGAIN, &full, XDP_TX)?,
            repeated(ebpf, loader::AGAIN, &short, XDP_TX)?,
            floor + singles(ebpf, loader::PROGRAM, &bare, XDP_TX)? - single_floor,
            repeated(ebpf, loader::PROGRAM, &nobody, XDP_DROP)?,
            repeated(ebpf, loader::PROGRAM, &reset, XDP_DROP)?,
            repeated(ebpf, loader::PROGRAM, &known, XDP_PASS)?,
            repeated(ebpf, loader::PROGRAM, &unsent, XDP_DROP)?,
        ];
        if round > 0 {
            for (column, value) in columns.iter_mut().zip(row) {
                column.push(value);
            }
        }
    }
    drop((near, far));
    let floors = columns[0].clone();
    println!(
        "\n{:<34} {:>8} {:>8}   target",
        "SYN cookies, always", "ns", "x floor"
    );
    let names = [
        ("empty program", ""),
        ("SYN with Linux's options, answered", "<= 7.5"),
        ("SYN with one option, answered", "<= 7.5"),
        ("SYN without options, single runs", ""),
        ("ACK of no connection, dropped", "<= 4"),
        ("RST of no connection, dropped", "<= 4"),
        ("segment of a connection, passed", ""),
        ("SYN with Linux's options, not sent", ""),
    ];
    for ((name, target), column) in names.into_iter().zip(&columns) {
        let mut ratios: Vec<f64> = column
            .iter()
            .zip(&floors)
            .map(|(value, floor)| value / floor)
            .collect();
        println!(
            "{name:<34} {:>8.1} {:>8.2}   {target}",
            median(&mut column.clone()),
            median(&mut ratios)
        );
    }
    Ok(())
}

/// A listener on the edge's address and a connection to it, in a network namespace of this thread's own: in the one that
/// the bench has made, the loopback interface drops everything.
fn stage() -> Result<(TcpListener, TcpStream, TcpStream)> {
    // SAFETY: only this thread is affected, and nothing else of the process relies on its namespace.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("unshare")?;
    for arguments in [
        vec!["link", "set", "lo", "up"],
        vec!["address", "replace", "10.0.0.1/32", "dev", "lo"],
    ] {
        let status = Command::new("ip")
            .args(&arguments)
            .status()
            .context("starting ip")?;
        ensure!(status.success(), "ip {arguments:?} failed");
    }
    for name in ["tcp_syncookies", "tcp_timestamps"] {
        let mut file = std::fs::File::create(format!("/proc/sys/net/ipv4/{name}"))?;
        file.write_all(b"2\n")?;
    }
    let listener = TcpListener::bind((EDGE, PORT))?;
    let near = TcpStream::connect((EDGE, PORT))?;
    let (far, _) = listener.accept()?;
    Ok((listener, near, far))
}

fn repeated(ebpf: &mut Ebpf, name: &'static str, packet: &[u8], action: u32) -> Result<f64> {
    let program = loader::program(ebpf, name)?;
    let before = thread_ns();
    let result = program.test_run(TestRunOptions {
        data_in: Some(packet),
        repeat: REPEAT,
        ..TestRunOptions::new()
    })?;
    let nanos = (thread_ns() - before) as f64 / f64::from(REPEAT);
    ensure!(
        result.return_value == action,
        "{name}: {} instead of {action}",
        result.return_value
    );
    Ok(nanos)
}

fn singles(ebpf: &mut Ebpf, name: &'static str, packet: &[u8], action: u32) -> Result<f64> {
    let program = loader::program(ebpf, name)?;
    let before = thread_ns();
    for _ in 0..SINGLES {
        let result = program.test_run(TestRunOptions {
            data_in: Some(packet),
            ..TestRunOptions::new()
        })?;
        ensure!(
            result.return_value == action,
            "{name}: {} instead of {action}",
            result.return_value
        );
    }
    Ok((thread_ns() - before) as f64 / f64::from(SINGLES))
}

/// A TCP segment to the service.
fn segment(from: SocketAddr, flags: u8, options: &[u8]) -> Vec<u8> {
    let SocketAddr::V4(from) = from else {
        return Vec::new();
    };
    let tcp_bytes = 20 + options.len();
    let mut bytes = vec![0_u8; 34 + tcp_bytes];
    bytes[12..14].copy_from_slice(&0x0800_u16.to_be_bytes());
    bytes[14] = 0x45;
    bytes[16..18].copy_from_slice(&(20 + tcp_bytes as u16).to_be_bytes());
    bytes[22] = 64;
    bytes[23] = 6;
    bytes[26..30].copy_from_slice(&from.ip().octets());
    bytes[30..34].copy_from_slice(&EDGE.octets());
    bytes[34..36].copy_from_slice(&from.port().to_be_bytes());
    bytes[36..38].copy_from_slice(&PORT.to_be_bytes());
    bytes[46] = (tcp_bytes as u8 / 4) << 4;
    bytes[47] = flags;
    bytes[54..].copy_from_slice(options);
    bytes
}
