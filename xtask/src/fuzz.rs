//! `cargo xtask fuzz`: the targets of `tests/fuzz`, by cargo-fuzz and the nightly compiler that builds the eBPF program; and
//! the admin API, by schemathesis.

mod admin;

use std::{fs, process::Command};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{ebpf_tools, process};

/// Where the targets are.
const FOLDER: &str = "tests/fuzz";

/// Not a target of libFuzzer.
const ADMIN: &str = "admin";

/// What to fuzz.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// One of the names that are listed without it.
    name: Option<String>,
    /// Afterwards keep only the inputs that add coverage.
    #[arg(long)]
    minimise: bool,
    /// Passed to the fuzzer, as in `-- -max_total_time=300`.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Runs one target, or lists them.
///
/// # Errors
/// When there is no such target, cargo-fuzz or the compiler is missing, or an input breaks something.
pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = process::workspace().join(FOLDER);
    let mut known = Vec::new();
    for entry in fs::read_dir(folder.join("fuzz_targets")).context(FOLDER)? {
        let path = entry?.path();
        if let Some(name) = path.file_stem().and_then(|name| name.to_str()) {
            known.push(name.to_owned());
        }
    }
    known.push(ADMIN.to_owned());
    known.sort();
    let Some(name) = &options.name else {
        for name in &known {
            println!("{name}");
        }
        return Ok(());
    };
    if !known.contains(name) {
        bail!("there is no target {name}; there are: {}", known.join(", "));
    }
    if name == ADMIN {
        return admin::run(&options.arguments);
    }
    fuzz(&folder, name, "run", &options.arguments)?;
    if options.minimise {
        fuzz(&folder, name, "cmin", &[])?;
    }
    Ok(())
}

fn fuzz(folder: &std::path::Path, name: &str, verb: &str, arguments: &[String]) -> Result<()> {
    let toolchain = format!("+{}", ebpf_tools::NIGHTLY);
    let mut command = Command::new("cargo");
    // The outer cargo's own compiler must not leak in.
    for variable in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN", "RUSTFLAGS"] {
        command.env_remove(variable);
    }
    command
        .current_dir(process::workspace())
        .args([&toolchain, "fuzz", verb, "--fuzz-dir", FOLDER]);
    if manifest_wants_user(folder, name)? {
        command.args(["--features", "user"]);
    }
    command.arg(name);
    if !arguments.is_empty() {
        command.arg("--").args(arguments);
    }
    process::run(&mut command).context(
        "cargo-fuzz comes with `cargo install cargo-fuzz --locked`, the compiler with `cargo xtask setup`",
    )
}

/// Whether a target lies behind the feature `user`.
fn manifest_wants_user(folder: &std::path::Path, name: &str) -> Result<bool> {
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).context("its Cargo.toml")?;
    Ok(manifest
        .split("[[bin]]")
        .skip(1)
        .any(|part| part.contains(&format!("name = \"{name}\"")) && part.contains("required-features")))
}
