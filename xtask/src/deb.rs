//! `cargo xtask deb`: a Debian package of the release, with manual pages, completions and the configuration's schema.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{build, process};

/// The tool that puts the package together, and its version.
const TOOL: (&str, &str) = ("cargo-deb", "3.8.0");

/// How to build it.
#[derive(Args, Debug)]
#[group(id = "deb")]
pub(crate) struct Options {
    /// Package the build of `cargo xtask run`, which takes minutes less: to try the package, not to ship it.
    #[arg(long)]
    quick: bool,
}

/// Builds the package and prints where it is.
///
/// # Errors
/// When the build fails, or the tool cannot be had.
pub(crate) fn run(options: &Options) -> Result<()> {
    let profile = if options.quick { "quick" } else { "release" };
    let binary = build::in_profile(profile)?;
    papers(&binary)?;
    let tool = tool()?;
    let mut command = Command::new(tool);
    command.args([
        "deb",
        "--no-build",
        "--package",
        "edge-user",
        "--profile",
        profile,
    ]);
    let package = process::target_dir().join("debian");
    command.arg("--output").arg(&package);
    process::run(&mut command).context("the package could not be put together")?;
    println!("deb: in {}", package.display());
    Ok(())
}

/// Has the binary write its manual pages, completions and schema.
fn papers(binary: &Path) -> Result<()> {
    let folder = process::target_dir().join("deb");
    let man = folder.join("man");
    if man.exists() {
        fs::remove_dir_all(&man).with_context(|| man.display().to_string())?;
    }
    fs::create_dir_all(&man).with_context(|| man.display().to_string())?;
    process::run(Command::new(binary).arg("man").arg(&man).stdout(Stdio::null()))?;
    for (verb, name) in [
        (&["completions", "bash"][..], "breakwater.bash"),
        (&["completions", "zsh"], "_breakwater"),
        (&["completions", "fish"], "breakwater.fish"),
        (&["schema"], "breakwater.schema.json"),
    ] {
        let path = folder.join(name);
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        process::run(Command::new(binary).args(verb).stdout(file))?;
    }
    Ok(())
}

/// The tool: the one that is there, or one of our own below `target`.
fn tool() -> Result<PathBuf> {
    let (name, version) = TOOL;
    if process::in_path(name) {
        return Ok(name.into());
    }
    let root = process::target_dir().join("tools");
    let own = root.join("bin").join(name);
    if !own.is_file() {
        println!("deb: installing {name} {version} below {}", root.display());
        let mut install = process::cargo();
        install.args(["install", "--locked", "--version", version, name, "--root"]);
        process::run(install.arg(&root)).with_context(|| format!("install {name} {version} by hand"))?;
    }
    if !own.is_file() {
        bail!("{} is not there after its installation", own.display());
    }
    Ok(own)
}
