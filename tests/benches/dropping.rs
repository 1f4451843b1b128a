//! What it costs the machine to drop a packet: the shield beside nftables, over veth, with one sender.
//!
//! `cargo xtask bench dropping [-- FRAMES [ROUNDS]]`, 1,000,000 frames and 9 rounds without numbers. One thread, tied to a CPU,
//! has the kernel make the same frame again and again and send it over veth as a driver's frame ([`Emitter`]), so that XDP
//! meets it as it would on a network card and the stack makes its own buffer of it. They are received in the softirq that
//! follows, so their whole way is CPU time of that thread, or of that CPU's ksoftirqd where the softirq is put off. What it
//! takes to make a frame and throw it away is taken off; crossing the veth is in all of the others. Rounds are interleaved;
//! medians are printed. Needs root.

use std::{collections::BTreeMap, fs, net::IpAddr, process::Command, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use rustix::{
    thread::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
};
use tests::{
    daemon::cli,
    frame::{ACK, Frame, Tcp, Transport},
    lab::{Host, Lab},
    netns::Namespace,
    offload,
    proof::counter,
    stage::{RAW_PORT, packets, vips},
    xdp::{Action, Emitter, ForeignXdp, Mode},
};

const FRAMES: u64 = 1_000_000;
const ROUNDS: usize = 9;
const PORT: u16 = 4433;
/// Packets a second of one source, far below what is sent.
const RATE: u32 = 1_000;
/// The host whose link has an empty program, and the one whose packets nftables sees.
const EMPTY: &str = "empty";
const PLAIN: &str = "plain";
/// Last byte of an address that is banned, beside the attacker's own.
const BANNED: u8 = 77;

/// One way to drop.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Sending,
    Empty,
    Banned,
    Limited,
    RawDrop,
    Meter,
}

impl Way {
    const ALL: [Self; 6] = [
        Self::Sending,
        Self::Empty,
        Self::Banned,
        Self::Limited,
        Self::RawDrop,
        Self::Meter,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Sending => "made and thrown away",
            Self::Empty => "XDP, an empty program that drops",
            Self::Banned => "breakwater, a banned source",
            Self::Limited => "breakwater, a source over its limit",
            Self::RawDrop => "nftables, raw, a set of addresses",
            Self::Meter => "nftables, raw, a meter for each source",
        }
    }

    /// The rules of nftables that drop, if it is they who do.
    fn rules(self, source: IpAddr, vip: IpAddr) -> Option<String> {
        let chain = |set: &str, rule: &str| {
            Some(format!(
                "table ip dropping {{
 {set}
 chain pre {{
  type filter hook prerouting priority raw;
  {rule}
 }}
}}
"
            ))
        };
        match self {
            Self::RawDrop => chain(
                &format!(
                    "set banned {{ type ipv4_addr; flags timeout; elements = {{ {source} timeout 1h }}; }}"
                ),
                "ip saddr @banned drop",
            ),
            Self::Meter => chain(
                "set sources { type ipv4_addr; flags dynamic,timeout; timeout 1m; size 65536; }",
                &format!(
                    "ip daddr {vip} tcp dport {PORT} add @sources {{ ip saddr limit rate over {RATE}/second burst {RATE} packets }} drop"
                ),
            ),
            _ => None,
        }
    }
}

/// Everything that is measured, set up.
struct Bench {
    lab: Lab,
    /// Where everything runs: the last one, which interrupts find last.
    cpu: usize,
    sender: Emitter,
    nobody: Emitter,
    _empty: ForeignXdp,
}

fn main() -> Result<()> {
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .map(|argument| argument.parse().context("a number"))
        .collect::<Result<_>>()?;
    let frames = numbers.first().copied().unwrap_or(FRAMES);
    let rounds = numbers.get(1).map_or(ROUNDS, |number| *number as usize);
    let Some(bench) = Bench::new()? else { return Ok(()) };
    let mut costs: BTreeMap<Way, Vec<f64>> = BTreeMap::new();
    for round in 0..rounds {
        for way in Way::ALL {
            match bench.measure(way, frames) {
                Ok(cost) => costs.entry(way).or_default().push(cost),
                Err(why) if round == 0 => println!("SKIPPED: {}: {why:#}", way.name()),
                Err(why) => return Err(why),
            }
        }
    }
    report(&mut costs);
    Ok(())
}

/// Medians: of all, without making the frame, and without crossing the veth to an empty program either; and the ratios.
fn report(costs: &mut BTreeMap<Way, Vec<f64>>) {
    let all: BTreeMap<Way, f64> = costs
        .iter_mut()
        .map(|(way, times)| (*way, median(times)))
        .collect();
    let of = |way| all.get(&way).copied().unwrap_or(f64::NAN);
    let (made, empty) = (of(Way::Sending), of(Way::Empty));
    println!(
        "{:<42} {:>9} {:>12} {:>14}",
        "ns per packet", "in all", "after making", "beyond empty"
    );
    for (way, time) in &all {
        println!(
            "{:<42} {time:>9.0} {:>12.0} {:>14.0}",
            way.name(),
            time - made,
            time - empty
        );
    }
    for (ours, theirs) in [(Way::Banned, Way::RawDrop), (Way::Limited, Way::Meter)] {
        println!(
            "{} / {}: {:.1}, beyond an empty program {:.1}",
            theirs.name(),
            ours.name(),
            (of(theirs) - made) / (of(ours) - made),
            (of(theirs) - empty) / (of(ours) - empty),
        );
    }
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Bench {
    fn new() -> Result<Option<Self>> {
        let hosts = |options: tests::lab::LabOptions| options.host(EMPTY).host(PLAIN);
        let Some(lab) = tests::daemon::lab_with("bench-dropping", hosts) else {
            return Ok(None);
        };
        let config = format!(
            "[shield]\ninterfaces = [{:?}]\nmode = \"native\"\n[[service]]\nname = \"one\"\nprotocol = \"tcp\"\nport = {PORT}\n\
             address = \"{}\"\nlimits.source_packets = {{ per_second = {RATE}, burst = {RATE} }}\n",
            lab.attacker().edge_interface,
            vips()[0],
        );
        let file = lab.write("dropping.toml", config).display().to_string();
        cli(&lab, ["attach", "--config", &file]).success();
        let banned = source(lab.attacker(), true).to_string();
        cli(&lab, ["ban", "add", &banned, "--for", "1h"]).success();
        let empty = lab.host(EMPTY);
        let program = ForeignXdp::attach(lab.edge(), &empty.edge_interface, Action::Drop, Mode::Native)?;
        // A veth takes a driver's frames where its other end has a program, or this.
        let plain = &lab.host(PLAIN).edge_interface;
        offload::switch_on(lab.edge(), plain, &["rx-gro"])?;
        let cpu = thread::available_parallelism().map_or(1, std::num::NonZero::get) - 1;
        Ok(Some(Self {
            lab,
            cpu,
            sender: Emitter::new(Action::Send)?,
            nobody: Emitter::new(Action::Drop)?,
            _empty: program,
        }))
    }

    /// Nanoseconds of CPU time for a packet sent, and received and dropped `way`'s way.
    fn measure(&self, way: Way, frames: u64) -> Result<f64> {
        let host = match way {
            Way::Sending | Way::Banned | Way::Limited => self.lab.attacker(),
            Way::Empty => self.lab.host(EMPTY),
            Way::RawDrop | Way::Meter => self.lab.host(PLAIN),
        };
        let source = source(host, way == Way::Banned);
        let emitter = if way == Way::Sending {
            &self.nobody
        } else {
            &self.sender
        };
        let tcp = Tcp {
            source: RAW_PORT,
            destination: PORT,
            flags: ACK,
            ..Tcp::default()
        };
        let frame = host.frame(Frame::new(source, vips()[0], Transport::Tcp(tcp)));
        let edge = self.lab.edge();
        let rules = way.rules(source, vips()[0]);
        if let Some(rules) = &rules {
            nft(edge, &self.lab, rules)?;
        }
        let before = (counter(edge, "IpInDelivers"), self.dropped(way));
        let cost = self.sent(emitter, host, &frame, frames)?;
        let after = (counter(edge, "IpInDelivers"), self.dropped(way));
        if rules.is_some() {
            nft(edge, &self.lab, "delete table ip dropping")?;
        }
        // What a burst and the rate let through is no packet in fifty.
        let passed = after.0 - before.0;
        ensure!(
            passed * 50 < frames,
            "{passed} of {frames} packets passed: {}",
            way.name()
        );
        let dropped = after.1 - before.1;
        let counted = matches!(way, Way::Banned | Way::Limited);
        ensure!(
            !counted || dropped * 50 > frames * 49,
            "{dropped} of {frames} were dropped: {}",
            way.name()
        );
        Ok(cost)
    }

    /// What the shield says it has dropped this way.
    fn dropped(&self, way: Way) -> u64 {
        let reason = match way {
            Way::Banned => "banned",
            Way::Limited => "source_packets",
            _ => return 0,
        };
        packets(&cli(&self.lab, ["status", "--json"]).json(), reason)
    }

    /// Sends on the bench's CPU, and tells what that cost for each frame.
    fn sent(&self, emitter: &Emitter, host: &Host, frame: &[u8], frames: u64) -> Result<f64> {
        let count = u32::try_from(frames)?;
        host.namespace.enter(|| {
            let mut one = CpuSet::new();
            one.set(self.cpu);
            sched_setaffinity(None, &one)?;
            let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
            let index = rustix::net::netdevice::name_to_index(&socket, host.interface)?;
            emitter.emit(index, frame, count / 20)?;
            let before = (thread_time(), softirq_time(self.cpu)?);
            emitter.emit(index, frame, count)?;
            let own = thread_time().saturating_sub(before.0);
            // What was put off is done by then.
            thread::sleep(Duration::from_millis(20));
            let put_off = softirq_time(self.cpu)?.saturating_sub(before.1);
            Ok((own + put_off).as_secs_f64() * 1e9 / frames as f64)
        })
    }
}

/// A host's own address, or the one beside it that is banned.
fn source(host: &Host, banned: bool) -> IpAddr {
    let mut octets = host.v4.octets();
    if banned {
        octets[3] = BANNED;
    }
    octets.into()
}

fn nft(edge: &Namespace, lab: &Lab, rules: &str) -> Result<()> {
    let file = lab.write("dropping.nft", rules);
    let mut nft = Command::new("nft");
    nft.arg("-f").arg(file);
    let output = edge.output(nft).context("nft (package nftables)")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "nft: {}",
        complaint.lines().next().unwrap_or_default()
    );
    Ok(())
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// CPU time of the thread that does the softirqs of `cpu` that were put off.
fn softirq_time(cpu: usize) -> Result<Duration> {
    let name = format!("ksoftirqd/{cpu}");
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        if fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name) {
            let stat = fs::read_to_string(path.join("schedstat"))?;
            let nanos = stat
                .split_ascii_whitespace()
                .next()
                .and_then(|nanos| nanos.parse().ok());
            return nanos.map(Duration::from_nanos).context("schedstat");
        }
    }
    anyhow::bail!("there is no {name}")
}
