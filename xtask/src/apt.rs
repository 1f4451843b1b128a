//! Debian packages: which are missing, and how to install or fetch them.
//!
//! Never installs what is there already, and never removes or upgrades anything on purpose.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::process;

/// Bounds each connection, so that an unreachable third-party list costs seconds.
const PATIENCE: [&str; 6] = [
    "-o",
    "Acquire::http::Timeout=20",
    "-o",
    "Acquire::Retries=1",
    "-o",
    "DPkg::Lock::Timeout=120",
];

/// Whether this machine has Debian's package tools.
pub(crate) fn available() -> bool {
    process::in_path("apt-get") && process::in_path("dpkg-query")
}

/// How old the package lists may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lists {
    /// As they are, if they do: any version of the packages is good.
    Any,
    /// Fetched now: an old list may know an old version only.
    Fresh,
}

/// Installs packages, or upgrades them to what the lists know.
pub(crate) fn install(packages: &[&str], lists: Lists) -> Result<()> {
    if !available() {
        bail!(
            "this is no Debian system. Install what these packages hold: {}",
            packages.join(" ")
        );
    }
    let mut arguments = PATIENCE.to_vec();
    arguments.extend(["install", "--yes", "--no-install-recommends", "--quiet"]);
    arguments.extend(packages);
    if lists == Lists::Any {
        let mut first = process::as_root("apt-get", &arguments)?;
        // It may fail for want of lists: its complaint would only mislead.
        noninteractive(&mut first).stderr(Stdio::null());
        if first.status().context("cannot start apt-get")?.success() {
            return Ok(());
        }
    }
    update()?;
    let mut second = process::as_root("apt-get", &arguments)?;
    process::run(noninteractive(&mut second))
        .with_context(|| format!("cannot install {}", packages.join(" ")))
}

/// Fetches the package lists.
pub(crate) fn update() -> Result<()> {
    let mut arguments = PATIENCE.to_vec();
    arguments.extend(["update", "--quiet"]);
    let mut update = process::as_root("apt-get", &arguments)?;
    let status = update
        .stdout(Stdio::null())
        .status()
        .context("cannot start apt-get")?;
    if !status.success() {
        // One broken third-party list makes the whole command fail; the others have arrived all the same.
        println!("  apt-get update had complaints ({status}); going on with the lists that arrived");
    }
    Ok(())
}

/// The names of all known packages that match a regular expression.
pub(crate) fn search(pattern: &str) -> Result<Vec<String>> {
    let listing = process::output(Command::new("apt-cache").args(["search", "--names-only", pattern]))?;
    Ok(listing
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect())
}

/// Downloads a package into `folder` without installing it. Needs no root.
pub(crate) fn download(package: &str, folder: &Path) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.args(PATIENCE)
        .args(["download", "--quiet", package])
        .current_dir(folder);
    if process::is_root() {
        // apt's own unprivileged user cannot write to a developer's folders.
        apt.args(["-o", "APT::Sandbox::User=root"]);
    }
    process::run(&mut apt)
}

fn noninteractive(command: &mut Command) -> &mut Command {
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
}
