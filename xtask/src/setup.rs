//! `cargo xtask setup`: finds what building and testing need, and installs what is missing.
//!
//! Says for every item whether it was found or installed. Idempotent: a second run only looks. Touches nothing
//! that it finds.

use std::fmt::Display;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;

use crate::apt::{self, Lists};
use crate::ebpf_tools::{self, DEBIAN_PACKAGES, LINKER_VERSION, NIGHTLY};
use crate::process::{self, Ended};
use crate::vm;

/// A download of ~150 MB; a machine that cannot reach it often hangs instead of failing.
const RUSTUP_LIMIT: Duration = Duration::from_mins(4);

/// The linker's work is done in the compiler's LLVM: optimising its own code makes its build longer and no link shorter.
const LINKER_PROFILE: [(&str, &str); 4] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "false"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
];

/// What the end-to-end tests start: `ip`, and an HTTP client that is not ours.
const E2E: [(&str, &str); 2] = [("ip", "iproute2"), ("curl", "curl")];
/// What the dashboard is tested in.
const BROWSER: (&str, &str) = ("chromium", "chromium");
/// What the VM tests start: an emulator, and what the guest's image is made of.
const VM: [(&str, &str); 3] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("ip", "iproute2"),
    ("xz", "xz-utils"),
];

/// What to set up beside the build.
#[derive(Args, Debug, Default, Clone, Copy)]
pub(crate) struct Options {
    /// Also what the end-to-end tests need.
    #[arg(long)]
    pub(crate) e2e: bool,
    /// Also what the VM tests need: QEMU and the two kernels.
    #[arg(long)]
    pub(crate) vm: bool,
    /// Also the linter for the eBPF crate.
    #[arg(long)]
    pub(crate) lint: bool,
}

/// Sets up what the build needs, and what `options` ask for.
///
/// # Errors
/// For the first item that is neither there nor installable, with the commands that would help.
pub(crate) fn run(options: Options) -> Result<()> {
    compiler()?;
    linker()?;
    extra(options)
}

/// Sets up what `options` ask for, and not what the build needs.
pub(crate) fn extra(options: Options) -> Result<()> {
    if options.lint {
        ebpf_clippy()?;
    }
    if options.e2e {
        programs("end-to-end tests", &E2E)?;
        browser();
    }
    if options.vm {
        programs("VM tests", &VM)?;
        for release in vm::kernel::RELEASES {
            let began = Instant::now();
            let (kernel, fetched) = vm::kernel::find_or_fetch(release)?;
            if fetched {
                installed(&format!("kernel {release}"), &kernel.version, began);
            } else {
                found(&format!("kernel {release}"), &kernel.version);
            }
        }
    }
    Ok(())
}

fn compiler() -> Result<()> {
    let why = match ebpf_tools::find_compiler() {
        Ok(compiler) => {
            found("eBPF compiler", &compiler.name);
            return Ok(());
        }
        Err(why) => why,
    };
    for line in why.lines() {
        println!("setup: eBPF compiler: {line}");
    }
    let began = Instant::now();
    let by_rustup = rustup(&[
        "toolchain",
        "install",
        NIGHTLY,
        "--profile",
        "minimal",
        "--component",
        "rust-src",
    ]);
    let result = by_rustup.or_else(|error| {
        println!("setup: rustup could not: {error:#}");
        println!(
            "setup: eBPF compiler: installing Debian's {}",
            DEBIAN_PACKAGES.join(" ")
        );
        apt::install(&DEBIAN_PACKAGES, Lists::Fresh)
    });
    let compiler = result
        .and_then(|()| ebpf_tools::find_compiler().map_err(|why| anyhow!(why)))
        .with_context(|| {
            format!(
                "no eBPF compiler could be installed. Either of these helps:\n  \
             rustup toolchain install {NIGHTLY} --profile minimal --component rust-src\n  \
             apt-get install --no-install-recommends {}",
                DEBIAN_PACKAGES.join(" ")
            )
        })?;
    installed("eBPF compiler", &compiler.name, began);
    Ok(())
}

fn rustup(arguments: &[&str]) -> Result<()> {
    let program = ebpf_tools::candidates("rustup")
        .next()
        .context("there is no rustup")?;
    println!(
        "setup: rustup {} (limit {} s)",
        arguments.join(" "),
        RUSTUP_LIMIT.as_secs()
    );
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    match process::run_limited(&mut command, RUSTUP_LIMIT)? {
        Ended::Exited(status) if status.success() => Ok(()),
        Ended::Exited(status) => bail!("rustup failed ({status})"),
        Ended::TimedOut => bail!("rustup did not finish within {} s", RUSTUP_LIMIT.as_secs()),
    }
}

fn linker() -> Result<()> {
    let why = match ebpf_tools::find_linker() {
        Ok(path) => {
            found(
                "eBPF linker",
                &format!("bpf-linker {LINKER_VERSION}, {}", path.display()),
            );
            return Ok(());
        }
        Err(why) => why,
    };
    println!("setup: eBPF linker: {why}");
    println!("setup: eBPF linker: building bpf-linker {LINKER_VERSION} with cargo, about two minutes");
    let began = Instant::now();
    let mut install = process::cargo();
    install
        .args([
            "install",
            &format!("bpf-linker@{LINKER_VERSION}"),
            "--locked",
            "--force",
        ])
        .envs(LINKER_PROFILE);
    process::run(&mut install)?;
    let path = ebpf_tools::find_linker().map_err(|why| anyhow!(why))?;
    installed("eBPF linker", &path.display(), began);
    Ok(())
}

fn ebpf_clippy() -> Result<()> {
    let compiler = ebpf_tools::find_compiler().map_err(|why| anyhow!(why))?;
    let driver = compiler.cargo_clippy();
    if driver.is_file() {
        found("eBPF linter", &driver.display());
        return Ok(());
    }
    let began = Instant::now();
    if compiler.rustc.starts_with("/usr/bin") {
        println!("setup: eBPF linter: installing Debian's rust-web-clippy");
        apt::install(&["rust-web-clippy"], Lists::Any)?;
    } else {
        rustup(&["component", "add", "--toolchain", NIGHTLY, "clippy"])?;
    }
    installed("eBPF linter", &driver.display(), began);
    Ok(())
}

/// Installs the packages of those programs that are not there.
fn programs(purpose: &str, needed: &[(&str, &'static str)]) -> Result<()> {
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(program, _)| !process::in_path(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        let names: Vec<&str> = needed.iter().map(|(program, _)| *program).collect();
        found(purpose, &names.join(", "));
        return Ok(());
    }
    println!("setup: {purpose}: installing {}", missing.join(" "));
    let began = Instant::now();
    apt::install(&missing, Lists::Any)?;
    installed(purpose, &missing.join(", "), began);
    Ok(())
}

/// Installs the browser that the dashboard's tests use. Not every system has one as a package that can be installed
/// unattended, and everything else can be tested without it.
fn browser() {
    let (program, package) = BROWSER;
    if let Err(error) = programs("browser", &[BROWSER]) {
        println!(
            "setup: browser: {error:#}\nsetup: browser: tests of the dashboard are skipped; put `{program}` into PATH (Debian: \
             apt-get install --no-install-recommends {package}) to run them"
        );
    }
}

fn found(item: &str, what: &dyn Display) {
    println!("setup: {item}: {what}");
}

fn installed(item: &str, what: &dyn Display, began: Instant) {
    println!(
        "setup: {item}: installed {what} in {:.0} s",
        began.elapsed().as_secs_f64()
    );
}
