//! `cargo xtask bench gateway`: what a request costs here and elsewhere, measured side by side.
//!
//! An origin, Breakwater and whichever peers are installed run at once. Every proxy is tied to one CPU, origin and load
//! to another; a round measures each proxy for some seconds, one after the other, and rounds are repeated, so that a
//! noisy minute meets all. CPU time is the kernel's count for the proxy's threads, not a guess from a rate. The
//! configurations stay in the output folder with the results.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Parser;

use crate::process;

mod chart;
mod idle;
mod jwt;
mod load;
mod origin;
mod proxies;
mod report;
mod running;
mod scenarios;

use proxies::{Kind, Site};
use scenarios::{SCENARIOS, Scenario};

/// What to measure.
#[derive(Parser, Debug)]
#[command(name = "cargo xtask bench gateway", no_binary_name = true)]
pub(crate) struct Options {
    /// Scenarios; without any, all of them. `list` lists them.
    scenarios: Vec<String>,
    /// Peers to measure beside Breakwater, by name; without it, those that are installed.
    #[arg(long, value_delimiter = ',')]
    peers: Option<Vec<String>>,
    /// Rounds.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Seconds of load for each proxy and round.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// CPU of the proxies.
    #[arg(long, default_value_t = 0)]
    proxy_cpu: u32,
    /// CPU of origin and load.
    #[arg(long, default_value_t = 1)]
    load_cpu: u32,
    /// Everything runs at real-time priority (`chrt -f 10`): for latencies beside other work. Not for a machine that
    /// somebody else is using.
    #[arg(long)]
    realtime: bool,
    /// Profile that Breakwater is built in.
    #[arg(long, default_value = "release")]
    profile: String,
    /// A binary to measure instead of building one.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Where configurations and results go.
    #[arg(long)]
    output: Option<PathBuf>,
}

/// One measurement of one proxy in one round.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    /// Requests answered.
    requests: u64,
    /// Bytes of bodies.
    bytes: u64,
    /// CPU time of the proxy.
    cpu_ns: u64,
    /// How long the load ran.
    wall: Duration,
    /// Latency, microseconds.
    p50_us: f64,
    p99_us: f64,
    /// The origin's own median latency in the same round.
    direct_us: f64,
    /// Proportional set size, KiB.
    pss_kib: u64,
    /// Answers that were not wanted.
    errors: u64,
}

/// All samples by scenario and proxy.
pub(crate) type Samples = BTreeMap<(usize, &'static str), Vec<Sample>>;

/// Measures.
///
/// # Errors
/// When something does not start or answer.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let options = Options::try_parse_from(arguments)?;
    if options.scenarios.iter().any(|name| name == "list") {
        for scenario in &SCENARIOS {
            println!("{}: {}", scenario.name, scenario.about);
        }
        return Ok(());
    }
    let scenarios = chosen(&options.scenarios)?;
    for (program, package) in [
        ("wrk", "wrk"),
        ("nginx", "nginx"),
        ("openssl", "openssl"),
        ("taskset", "util-linux"),
    ] {
        if !process::in_path(program) {
            bail!("{program} is missing (it makes the load or is the origin): apt-get install {package}");
        }
    }
    let folder = options
        .output
        .clone()
        .unwrap_or_else(|| process::target_dir().join("bench-gateway"));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => crate::build::in_profile(&options.profile)?,
    };
    let mut site = Site::prepare(&folder, options.proxy_cpu, options.load_cpu, options.realtime)?;
    if scenarios.iter().any(|(_, scenario)| scenario.tokens.is_some()) {
        jwt::prepare(&site)?;
    }
    let origin = origin::Origins::start(&mut site)?;
    let kinds = peers(options.peers.as_deref())?;
    println!("load average before: {}", load_average());
    let mut samples = Samples::new();
    for (index, scenario) in &scenarios {
        println!("\n{}: {}", scenario.name, scenario.about);
        let proxies = proxies::start(&site, &binary, &kinds, scenario)?;
        for round in 0..options.rounds {
            let mut measured = Vec::with_capacity(proxies.len());
            for proxy in &proxies {
                let sample = scenario
                    .measure(&site, proxy, Duration::from_secs(options.seconds))
                    .with_context(|| format!("{} in round {round}", proxy.name))?;
                if sample.errors > 0 {
                    println!("  {}: {} wrong answers", proxy.name, sample.errors);
                }
                measured.push((proxy.name, sample));
            }
            let direct = measured.iter().find(|(name, _)| *name == report::DIRECT);
            let direct_us = direct.map_or(0.0, |(_, sample)| sample.p50_us);
            for (name, sample) in measured {
                let sample = Sample { direct_us, ..sample };
                samples.entry((*index, name)).or_default().push(sample);
            }
        }
        drop(proxies);
        report::print(scenario, *index, &samples);
    }
    drop(origin);
    let results = report::write(&folder, &options, &samples)?;
    let chart = chart::write(&folder, &samples)?;
    println!("\n{}\n{}", results.display(), chart.display());
    Ok(())
}

/// How busy the machine is: what was measured beside other work is worth less.
fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let words: Vec<&str> = text.split_whitespace().take(3).collect();
    words.join(" ")
}

/// Names of the scenarios that are about tokens.
pub(crate) fn scenarios_of_tokens() -> impl Iterator<Item = &'static str> {
    let about_tokens = SCENARIOS.iter().filter(|scenario| scenario.tokens.is_some());
    about_tokens.map(|scenario| scenario.name)
}

fn chosen(names: &[String]) -> Result<Vec<(usize, &'static Scenario)>> {
    for name in names {
        if !SCENARIOS.iter().any(|scenario| scenario.name == name) {
            let known: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
            bail!("there is no scenario {name}; there are: {}", known.join(", "));
        }
    }
    Ok(SCENARIOS
        .iter()
        .enumerate()
        .filter(|(_, scenario)| names.is_empty() || names.iter().any(|name| name == scenario.name))
        .collect())
}

/// The peers to measure: those asked for, which must be there, or those that are.
fn peers(asked: Option<&[String]>) -> Result<Vec<Kind>> {
    let mut kinds = Vec::new();
    for kind in Kind::PEERS {
        let wanted = asked.is_none_or(|names| names.iter().any(|name| name == kind.name()));
        match (wanted, kind.program()) {
            (true, Some(_)) => kinds.push(kind),
            (true, None) if asked.is_some() => bail!("{} is not installed: {}", kind.name(), kind.install()),
            (true, None) => println!("without {}; to have it: {}", kind.name(), kind.install()),
            (false, _) => {}
        }
    }
    if let Some(name) = asked
        .unwrap_or_default()
        .iter()
        .find(|name| !Kind::PEERS.iter().any(|kind| kind.name() == name.as_str()))
    {
        bail!("there is no peer {name}");
    }
    Ok(kinds)
}
