//! How fast bans get into the kernel, one after the other, and out again.
//!
//! `cargo xtask bench bans [-- COUNT]`, 500,000 without a number, half of them IPv6; the table has room for them. Every
//! one goes through the function that the daemon and `breakwater ban` call. Needs root.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use edge_common::abi::BanSource;
use edge_user::kernel::{
    Pins, ShieldTables,
    bans::BanOrder,
    loader::{self, Sizes},
};
use ipnet::IpNet;
use rustix::time::{ClockId, clock_gettime};

const COUNT: u32 = 500_000;

fn main() -> Result<()> {
    let count = match std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with("--"))
    {
        Some(number) => number.parse().context("a number of bans")?,
        None => COUNT,
    };
    let pins = Pins::new(Path::new("/sys/fs/bpf/breakwater-bench-bans"));
    let measured = measure(&pins, count);
    pins.remove()?;
    _ = std::fs::remove_dir("/sys/fs/bpf/breakwater-bench-bans");
    measured
}

fn measure(pins: &Pins, count: u32) -> Result<()> {
    let sizes = Sizes {
        // Room that a hash of buckets does not use to the last entry.
        bans: count.saturating_mul(2),
        ..Sizes::default()
    };
    let _ebpf = loader::load(pins, sizes)?;
    let mut tables = ShieldTables::open(pins)?;
    let lock = pins.lock()?;
    let orders: Vec<BanOrder> = (0..count).map(order).collect();
    let begun = Timed::begin();
    for order in &orders {
        tables.ban(&lock, order)?;
    }
    let written = begun.end(count);
    let held = tables.count_bans();
    ensure!(held == count as usize, "{held} of {count} bans are held");
    let begun = Timed::begin();
    let listed = tables.list_bans().len();
    let read = begun.end(count);
    ensure!(listed == count as usize, "{listed} of {count} bans are listed");
    println!("{count} bans\n  written: {written}\n  listed:  {read}");
    Ok(())
}

/// The wall clock and the thread's CPU time: the second says what a busy machine would have done by itself.
struct Timed {
    wall: Instant,
    cpu: Duration,
}

impl Timed {
    fn begin() -> Self {
        Self {
            wall: Instant::now(),
            cpu: cpu_time(),
        }
    }

    fn end(&self, count: u32) -> String {
        let rate = |time: Duration| f64::from(count) / time.as_secs_f64().max(1e-9);
        let (wall, cpu) = (self.wall.elapsed(), cpu_time().saturating_sub(self.cpu));
        format!(
            "{:.2} s ({:.0}/s), {:.2} s of CPU time ({:.0}/s)",
            wall.as_secs_f64(),
            rate(wall),
            cpu.as_secs_f64(),
            rate(cpu)
        )
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// The ban of the source `number`: no two alike.
fn order(number: u32) -> BanOrder {
    let address: IpAddr = if number.is_multiple_of(2) {
        // A multiplication by an odd number permutes the numbers below a power of two.
        Ipv4Addr::from(0x0100_0000 + (number.wrapping_mul(0x9e37_79b1) & 0x3fff_ffff)).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, (number >> 16) as u16, number as u16, 0, 0, 0, 1).into()
    };
    BanOrder {
        net: IpNet::from(address),
        duration: Some(Duration::from_hours(1)),
        source: BanSource::Gateway,
        new_connections_only: false,
        repeats: 0,
        note: String::new(),
    }
}
