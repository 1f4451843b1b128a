//! `cargo xtask bench`: the measurements, by name.
//!
//! Only dispatches: a measurement is a `cargo bench` target of the crate whose code it measures, or, where whole programs
//! are measured from outside, a module here. Every number in the documentation names the one that prints it.

use anyhow::{Result, bail};
use clap::Args;

use crate::{cargo, process, setup};

mod gateway;
mod instructions;

/// One measurement.
struct Bench {
    name: &'static str,
    package: &'static str,
    target: &'static str,
    /// Profile it is built in: the kernel's time does not hang on how user space was compiled.
    profile: &'static str,
    about: &'static str,
}

const BENCHES: [Bench; 13] = [
    Bench {
        name: "shield",
        package: "edge-user",
        target: "shield",
        profile: "quick",
        about: "ns per packet of the XDP program against an empty one, and its instructions",
    },
    Bench {
        name: "steering",
        package: "edge-user",
        target: "steering",
        profile: "quick",
        about: "ns per steered packet by mode against an empty program",
    },
    Bench {
        name: "relay",
        package: "tests",
        target: "relay",
        profile: "quick",
        about: "CPU time of a GiB and of a connection, steered beside nginx stream and HAProxy mode tcp",
    },
    Bench {
        name: "bans",
        package: "edge-user",
        target: "bans",
        profile: "quick",
        about: "bans a second into the kernel, and out again for a list",
    },
    Bench {
        name: "flood",
        package: "tests",
        target: "flood",
        profile: "quick",
        about: "ten million forged sources over veth: what a client keeps, and that nothing is forgotten",
    },
    Bench {
        name: "synflood",
        package: "tests",
        target: "synflood",
        profile: "quick",
        about: "SYNs from 2^24 forged sources: connections and throughput with cookies, without, and with synproxy",
    },
    Bench {
        name: "dropping",
        package: "tests",
        target: "dropping",
        profile: "quick",
        about: "CPU time per dropped packet over veth: the shield beside nftables, by address and by a meter for each source",
    },
    Bench {
        name: "auth",
        package: "edge-user",
        target: "auth",
        profile: "bench",
        about: "ns per verified token by algorithm, first time and repeated; then over HTTP beside HAProxy and Envoy",
    },
    Bench {
        name: "loop",
        package: "tests",
        target: "loop",
        profile: "quick",
        about: "from a refusal to the first packet that the kernel drops, and the cost of an offence",
    },
    Bench {
        name: "reload",
        package: "tests",
        target: "reload",
        profile: "quick",
        about: "200 reloads and 10 upgrades under traffic: what was lost; 10,000 reloads: memory; killed: back after what time",
    },
    Bench {
        name: "routes",
        package: "edge-user",
        target: "routes",
        profile: "bench",
        about: "ns per route look-up among 10, 1,000 and 10,000 routes",
    },
    Bench {
        name: "soak",
        package: "edge-user",
        target: "soak",
        profile: "quick",
        about: "10 GiB each way and 10,000,000 requests through one worker, whose memory must stay flat",
    },
    Bench {
        name: "tax",
        package: "edge-user",
        target: "tax",
        profile: "bench",
        about: "the gateway's account of its own time beside what an outside client and origin measure",
    },
];

/// Measurements that xtask makes itself.
const OWN: [(&str, &str); 2] = [
    (
        "gateway",
        "CPU, latency and memory of Breakwater beside nginx, HAProxy, Envoy and Caddy",
    ),
    (
        "instructions",
        "user instructions and system calls of one request, the guard against regressions",
    ),
];

/// What to measure.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// One of the names that are listed without it.
    name: Option<String>,
    /// Passed to the measurement.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Runs one measurement, or lists them.
///
/// # Errors
/// When there is no such measurement, or it fails.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Some(name) = &options.name else {
        for Bench {
            name,
            package,
            target,
            about,
            ..
        } in BENCHES
        {
            let here = if cargo::has_target(package, "bench", target)? {
                ""
            } else {
                " (not in this version)"
            };
            println!("{name}: {about}{here}");
        }
        for (name, about) in OWN {
            println!("{name}: {about}");
        }
        return Ok(());
    };
    match name.as_str() {
        "gateway" => return gateway::run(&options.arguments),
        "instructions" => return instructions::run(&options.arguments),
        _ => {}
    }
    let Some(Bench {
        package,
        target,
        profile,
        ..
    }) = BENCHES.into_iter().find(|bench| bench.name == name)
    else {
        let own = OWN.iter().map(|(name, _)| *name);
        let known: Vec<&str> = BENCHES.iter().map(|bench| bench.name).chain(own).collect();
        bail!("there is no measurement {name}; there are: {}", known.join(", "));
    };
    if !cargo::has_target(package, "bench", target)? {
        bail!("{package} has no benchmark {target} in this version");
    }
    setup::run(setup::Options::default())?;
    let mut bench = process::cargo();
    bench
        .args([
            "bench",
            "--locked",
            "--profile",
            profile,
            "--package",
            package,
            "--bench",
            target,
            "--",
        ])
        .args(if target == "auth" {
            &[]
        } else {
            &*options.arguments
        });
    process::run(&mut bench)?;
    if target == "auth" {
        // Arguments are those of `bench gateway`, whose scenarios of tokens come next.
        let scenarios = gateway::scenarios_of_tokens().map(str::to_owned);
        return gateway::run(
            &scenarios
                .chain(options.arguments.iter().cloned())
                .collect::<Vec<_>>(),
        );
    }
    Ok(())
}
