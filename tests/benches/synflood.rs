//! SYNs from 2^24 made-up sources against a service with a budget and cookies, and the same flood with the shield taken
//! off and with nftables' `synproxy` in its place.
//!
//! `cargo xtask bench synflood [SECONDS [CONNECTIONS]]`: 60 seconds and 2,000 new connections without numbers. Two hundred
//! kept connections exchange bytes before, during and after; a thousand bans and as many sources with exact state idle
//! beside the shield's flood and have to be there after it. Needs root; sender, client and edge share the machine's cores,
//! so what is compared are the rows of one run.

use std::{
    fmt,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tests::{
    daemon::cli,
    flood::Idle,
    proof::{Guarded, Held, PORT, SynFlood},
    stage::{packets, vips},
};

const SECONDS: u64 = 60;
const CONNECTIONS: usize = 2_000;
/// Connections whose times are measured before the flood.
const CALM_CONNECTIONS: usize = 200;
/// Kept connections, the threads that use them, and the bytes of one exchange.
const KEPT: usize = 200;
const THREADS: usize = 4;
const CHUNK: usize = 16 << 10;
/// A connection that takes longer has failed: the first SYN, its repetition after a second, and time for an answer.
const LIMIT: Duration = Duration::from_secs(3);
/// How long the kept connections are measured before and after.
const CALM: Duration = Duration::from_secs(3);
/// Idle bans, and as many idle sources with exact state.
const IDLE: u32 = 1_000;
/// The limit is there for the sake of the exact state that it makes: nobody comes near it.
const GUARD: &str = "limits = { source_packets = { per_second = 10000000, burst = 1000000 } }
syn = { budget = { per_second = 2000, burst = 2000 }, cookies = \"auto\", hold = \"2s\" }";

fn main() -> Result<()> {
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .map(|argument| argument.parse().context("a number"))
        .collect::<Result<_>>()?;
    let seconds = Duration::from_secs(numbers.first().copied().unwrap_or(SECONDS));
    let connections = numbers.get(1).map_or(CONNECTIONS, |number| *number as usize);
    let Some(mut guarded) = Guarded::new("bench-synflood", |options| options, "native", GUARD) else {
        return Ok(());
    };
    let idle = Idle::plant(&guarded.lab, IDLE)?;
    println!("{HEADER}");
    row(&guarded, "breakwater", seconds, connections)?;
    idle.check(&guarded.lab)?;
    let status = guarded.status();
    println!(
        "{:<22} {} answered, {} cookies taken back; all of {IDLE} bans and {} idle earned sources were there after it",
        "",
        packets(&status, "cookie_sent"),
        packets(&status, "cookie_accepted"),
        idle.earned(),
    );
    cli(&guarded.lab, ["detach"]).success();
    for (name, cookies) in [("stack, syncookies 1", "1"), ("stack, syncookies 0", "0")] {
        guarded.lab.edge().sysctl("ipv4/tcp_syncookies", cookies)?;
        guarded.relisten();
        row(&guarded, name, seconds, connections)?;
    }
    guarded.relisten();
    match synproxy(&guarded) {
        Ok(()) => row(&guarded, "nftables synproxy", seconds, connections)?,
        Err(why) => println!("SKIPPED: nftables synproxy: not to be had here: {why:#}"),
    }
    Ok(())
}

/// Puts `synproxy` before the service, as nftables' manual has it. The SYN that it sends on to the listener comes by `lo`
/// and has to be tracked.
fn synproxy(guarded: &Guarded) -> Result<()> {
    let edge = guarded.lab.edge();
    edge.sysctl("ipv4/tcp_syncookies", "1")?;
    let rules = format!(
        "table ip proof {{
 chain pre {{ type filter hook prerouting priority raw; iif != lo tcp dport {PORT} tcp flags syn notrack; }}
 chain in {{ type filter hook input priority filter;
  tcp dport {PORT} ct state invalid,untracked synproxy mss 1460 wscale 7 timestamp sack-perm
  ct state invalid drop
 }}
}}
"
    );
    let file = guarded.lab.write("synproxy.nft", rules);
    let mut nft = Command::new("nft");
    nft.arg("-f").arg(file);
    let output = edge.output(nft)?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(
        output.status.success(),
        "{}",
        complaint.lines().next().unwrap_or_default()
    );
    // Else a segment in the middle of a connection begins one.
    edge.sysctl("netfilter/nf_conntrack_tcp_loose", "0")
}

const HEADER: &str = "                          SYNs/s  connected   p50 ms   p99 ms  (calm)  half open  req. slab  TCP pages  tracked   kept, MiB/s: before / during / after";

/// One flood, and what it did.
fn row(guarded: &Guarded, name: &str, seconds: Duration, connections: usize) -> Result<()> {
    let (vip, client) = (vips()[0], guarded.lab.client());
    let kept: Vec<TcpStream> = (0..KEPT)
        .map(|_| guarded.connect(client, vip))
        .collect::<std::io::Result<_>>()
        .context("before the flood")?;
    for stream in &kept {
        stream.set_read_timeout(Some(LIMIT))?;
    }
    let (moved, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let measured = thread::scope(|scope| {
        for part in kept.chunks(KEPT / THREADS) {
            scope.spawn(|| exchange(part, &moved, &stop));
        }
        let measured = measure(guarded, seconds, connections, &moved);
        stop.store(true, Ordering::Relaxed);
        measured
    });
    println!("{name:<22} {}", measured?);
    Ok(())
}

/// What a flood did.
struct Row {
    syns_per_second: f64,
    connected: usize,
    tried: usize,
    times: Times,
    calm: Times,
    held: Held,
    kept: [f64; 3],
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Held {
            half_open,
            pages,
            requests,
            tracked,
        } = self.held;
        let [before, during, after] = self.kept;
        let tried = format!("{}/{}", self.connected, self.tried);
        write!(
            f,
            "{:>9.0} {tried:>10} {:>8.1} {:>8.1} {:>7.1} {half_open:>10} {requests:>10} {pages:>10} {tracked:>8}   {before:.0} / {during:.0} / {after:.0}",
            self.syns_per_second,
            self.times.at(50),
            self.times.at(99),
            self.calm.at(99),
        )
    }
}

/// How long connecting took, in order.
struct Times(Vec<Duration>);

impl Times {
    fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// A percentile in milliseconds.
    fn at(&self, percent: usize) -> f64 {
        let index = self.0.len() * percent / 100;
        let time = self.0.get(index.min(self.0.len().saturating_sub(1)));
        time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }
}

fn measure(guarded: &Guarded, seconds: Duration, connections: usize, moved: &AtomicU64) -> Result<Row> {
    let (vip, client) = (vips()[0], guarded.lab.client());
    let calm = || {
        let from = moved.load(Ordering::Relaxed);
        thread::sleep(CALM);
        mebibytes(moved.load(Ordering::Relaxed) - from, CALM)
    };
    let connect = || {
        let start = Instant::now();
        let connected = guarded.connect_within(client, vip, LIMIT).is_ok();
        connected.then(|| start.elapsed())
    };
    let before = calm();
    let calm_times = Times::new((0..CALM_CONNECTIONS).filter_map(|_| connect()).collect());
    let (from, begun) = (moved.load(Ordering::Relaxed), Instant::now());
    let flood = SynFlood::start(guarded.lab.attacker(), vip, seconds);
    let (mut times, mut tried, mut held) = (Vec::with_capacity(connections), 0, Held::default());
    let pause = seconds.mul_f64(0.9) / connections.max(1) as u32;
    for number in 0..connections {
        let due = begun + pause * number as u32;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // Where every connection fails, the flood is over before the last was tried.
        if begun.elapsed() > seconds {
            break;
        }
        tried += 1;
        times.extend(connect());
        if number % 20 == 0 {
            held = held.most(guarded.held());
        }
    }
    let (sent, took) = flood.finish()?;
    let during = mebibytes(moved.load(Ordering::Relaxed) - from, begun.elapsed());
    Ok(Row {
        syns_per_second: sent as f64 / took.as_secs_f64(),
        connected: times.len(),
        tried,
        times: Times::new(times),
        calm: calm_times,
        held,
        kept: [before, during, calm()],
    })
}

fn mebibytes(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64() / f64::from(1 << 20)
}

/// Moves chunks there and back on each connection in turn, until it is stopped.
fn exchange(streams: &[TcpStream], moved: &AtomicU64, stop: &AtomicBool) {
    let mut buffer = vec![7; CHUNK];
    while !stop.load(Ordering::Relaxed) {
        for mut stream in streams {
            if stream.write_all(&buffer).is_err() || stream.read_exact(&mut buffer).is_err() {
                return;
            }
            moved.fetch_add(CHUNK as u64, Ordering::Relaxed);
        }
    }
}
