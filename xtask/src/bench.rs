//! `cargo xtask bench`: the measurements, by name.
//!
//! Only dispatches: each measurement is a `cargo bench` target of the crate whose code it measures, and every number
//! in the documentation names the one that prints it.

use anyhow::{Result, bail};
use clap::Args;

use crate::{cargo, process, setup};

/// Name, package, target, and what it measures.
const BENCHES: [(&str, &str, &str, &str); 1] = [(
    "shield",
    "edge-user",
    "shield",
    "ns per packet of the XDP program against an empty one, and its instructions",
)];

/// What to measure.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// One of the names that are listed without it.
    name: Option<String>,
    /// Passed to the measurement.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Runs one measurement, or lists them.
///
/// # Errors
/// When there is no such measurement, or it fails.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Some(name) = &options.name else {
        for (name, package, target, about) in BENCHES {
            let here = if cargo::has_target(package, "bench", target)? {
                ""
            } else {
                " (not in this version)"
            };
            println!("{name}: {about}{here}");
        }
        return Ok(());
    };
    let Some((_, package, target, _)) = BENCHES.into_iter().find(|(known, ..)| known == name) else {
        let known: Vec<&str> = BENCHES.iter().map(|(name, ..)| *name).collect();
        bail!("there is no measurement {name}; there are: {}", known.join(", "));
    };
    if !cargo::has_target(package, "bench", target)? {
        bail!("{package} has no benchmark {target} in this version");
    }
    setup::run(setup::Options::default())?;
    let mut bench = process::cargo();
    bench
        .args(["bench", "--locked", "--package", package, "--bench", target, "--"])
        .args(&options.arguments);
    process::run(&mut bench)
}
