//! `cargo xtask test`: the set-up, then everything that says whether the tree is sound.
//!
//! What cannot run here is skipped aloud and counted. The last line is always the sum, alone:
//! `N passed, N failed, N skipped`. Bounded: every part has a time limit, and says how long it took.

mod tally;

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::{Args, ValueEnum};

use crate::process::{self, Ended};
use crate::vm::{self, kernel, qemu};
use crate::{cargo, ebpf_tools, setup, tidy};
use tally::{Reader, Tally};

/// The packages that the host's compiler builds: all but what the kernel runs.
const ON_THE_HOST: [&str; 3] = ["--workspace", "--exclude", "edge-ebpf"];
/// Test programs that run in the VM, as far as they are there: package, test target, and a filter on its tests. The
/// tagged links are there because a host's kernel may lack 8021q.
const IN_THE_VM: [(&str, &str, &[&str]); 9] = [
    ("tests", "syn", &[]),
    ("tests", "cookies", &["keep_their_vlan"]),
    ("tests", "kernel", &[]),
    ("tests", "steer_kernel", &[]),
    ("tests", "lab", &["tagged"]),
    ("tests", "limiter", &["tag"]),
    ("tests", "auth", &["a_token_in_a_cookie"]),
    ("tests", "bans", &["refused_tokens"]),
    ("tests", "lifecycle", &["a_killed_daemon"]),
];

const CHECK_LIMIT: Duration = Duration::from_mins(15);
const TESTS_LIMIT: Duration = Duration::from_mins(15);
const VM_LIMIT: Duration = Duration::from_mins(10);

/// What to run.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Parts to run; all of them if none is named.
    parts: Vec<Part>,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Formatting, clippy, tidy.
    Lint,
    /// Unit and property tests.
    Unit,
    /// End-to-end tests in network namespaces. Needs root.
    E2e,
    /// Kernel tests in a VM, on every supported kernel. Needs no root.
    Vm,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Lint => "lint",
            Self::Unit => "unit",
            Self::E2e => "e2e",
            Self::Vm => "vm",
        }
    }

    fn run(self) -> Tally {
        match self {
            Self::Lint => lint(),
            Self::Unit => unit(),
            Self::E2e => e2e(),
            Self::Vm => in_vms(),
        }
    }
}

/// Runs the parts and prints the sum. Returns whether nothing failed.
pub(crate) fn run(options: &Options) -> bool {
    let parts = if options.parts.is_empty() {
        Part::value_variants()
    } else {
        &options.parts
    };
    let began = Instant::now();
    let mut sum = Tally::default();
    if let Err(error) = set_up(parts) {
        sum += failure("set-up", &error);
    } else {
        println!("test: set-up done in {:.0} s", began.elapsed().as_secs_f64());
        for part in Part::value_variants().iter().filter(|part| parts.contains(part)) {
            let began = Instant::now();
            let tally = part.run();
            println!(
                "test: {}: {tally} in {:.0} s",
                part.name(),
                began.elapsed().as_secs_f64()
            );
            sum += tally;
        }
    }
    println!("test: everything in {:.0} s", began.elapsed().as_secs_f64());
    println!("{sum}");
    sum.failed == 0
}

/// Without a compiler nothing can be tested; what else is missing is said again by the part that needs it.
fn set_up(parts: &[Part]) -> Result<()> {
    setup::run(setup::Options::default())?;
    let more = [
        (
            Part::Lint,
            setup::Options {
                lint: true,
                ..Default::default()
            },
        ),
        (
            Part::E2e,
            setup::Options {
                e2e: true,
                ..Default::default()
            },
        ),
        (
            Part::Vm,
            setup::Options {
                vm: true,
                ..Default::default()
            },
        ),
    ];
    for (part, options) in more {
        if parts.contains(&part)
            && let Err(error) = setup::extra(options)
        {
            println!("test: {}: set-up is incomplete: {error:#}", part.name());
        }
    }
    Ok(())
}

fn lint() -> Tally {
    let mut tally = Tally::default();
    tally += check("formatting", process::cargo().args(["fmt", "--all", "--check"]));
    let mut clippy = process::cargo();
    clippy
        .args(["clippy", "--locked"])
        .args(ON_THE_HOST)
        .args(["--all-targets", "--", "-D", "warnings"]);
    tally += check("clippy", &mut clippy);
    tally += ebpf_clippy();
    tally += match tidy::run() {
        Ok(clean) => Tally::of(clean),
        Err(error) => failure("tidy", &error),
    };
    tally
}

/// The eBPF crate is linted by its own compiler, for its own target: the host's knows neither.
fn ebpf_clippy() -> Tally {
    const NAME: &str = "clippy of edge-ebpf";
    let tools = ebpf_tools::find_compiler().and_then(|compiler| Ok((compiler, ebpf_tools::find_linker()?)));
    let (compiler, linker) = match tools {
        Ok(tools) => tools,
        Err(why) => return skipped(NAME, &why),
    };
    if !compiler.cargo_clippy().is_file() {
        return skipped(
            NAME,
            &format!("there is no {}", compiler.cargo_clippy().display()),
        );
    }
    match ebpf_tools::cargo(&compiler, &linker, "clippy", &process::target_dir().join("ebpf")) {
        Ok(mut clippy) => check(
            NAME,
            clippy
                .current_dir(process::workspace())
                .args(["--", "-D", "warnings"]),
        ),
        Err(error) => failure(NAME, &error.into()),
    }
}

fn unit() -> Tally {
    let mut tests = process::cargo();
    tests
        .args(["test", "--locked"])
        .args(ON_THE_HOST)
        .args(["--exclude", "tests", "--no-fail-fast"]);
    tests_of("unit tests", &mut tests)
}

/// Tests that need root say so themselves and are counted as skipped. One at a time: they measure rates.
fn e2e() -> Tally {
    let daemon = match cargo::daemon() {
        Ok(daemon) => daemon,
        Err(error) => return failure("the daemon for the end-to-end tests", &error),
    };
    let mut tests = process::cargo();
    tests
        .args([
            "test",
            "--locked",
            "--package",
            "tests",
            "--no-fail-fast",
            "--",
            "--test-threads=1",
        ])
        .env("BREAKWATER_BIN", daemon);
    tests_of("end-to-end tests", &mut tests)
}

fn in_vms() -> Tally {
    let mut tally = Tally::default();
    for (package, target, filter) in IN_THE_VM {
        let name = format!("VM test {package}:{target}");
        let program = match cargo::has_target(package, "test", target) {
            Ok(true) => {
                cargo::test_program(package, target).and_then(|program| Ok((program, cargo::daemon()?)))
            }
            Ok(false) => {
                tally += skipped(&name, "this version has no such test");
                continue;
            }
            Err(error) => Err(error),
        };
        let (program, daemon) = match program {
            Ok(programs) => programs,
            Err(error) => {
                tally += failure(&name, &error);
                continue;
            }
        };
        for release in kernel::RELEASES {
            let name = format!("{name} on Linux {release}");
            tally += in_vm(release, &program, filter, &daemon)
                .unwrap_or_else(|why| skipped(&name, &format!("{why:#}")));
        }
    }
    tally
}

/// # Errors
/// Says what this machine lacks for booting at all. What happens after that is in the tally.
fn in_vm(release: &str, program: &Path, filter: &[&str], daemon: &Path) -> Result<Tally> {
    if !process::in_path(qemu::PROGRAM) {
        return Err(anyhow!("there is no {}", qemu::PROGRAM));
    }
    let (kernel, _) = kernel::find_or_fetch(release)?;
    let arguments: Vec<String> = ["--test-threads=1"]
        .iter()
        .chain(filter)
        .map(ToString::to_string)
        .collect();
    let boot = vm::Boot {
        kernel: &kernel,
        accelerator: qemu::accelerator(&vm::folder()?)?,
        program,
        arguments: &arguments,
        daemon: Some(daemon),
        limit: VM_LIMIT,
    };
    let mut reader = Reader::default();
    let status = boot.run(|line| {
        println!("{line}");
        reader.line(line);
    });
    if let Err(error) = &status {
        println!("test: VM with Linux {release}: FAILED: {error:#}");
    }
    Ok(reader.finish(status.is_ok_and(|status| status == 0)))
}

/// Runs a command that checks one thing.
fn check(name: &str, command: &mut Command) -> Tally {
    let began = Instant::now();
    let result = process::run_limited(command.stdin(Stdio::null()), CHECK_LIMIT);
    let passed = match result {
        Ok(Ended::Exited(status)) => status.success(),
        Ok(Ended::TimedOut) => return failure(name, &anyhow!("no end within {} s", CHECK_LIMIT.as_secs())),
        Err(error) => return failure(name, &error),
    };
    let verdict = if passed { "ok" } else { "FAILED" };
    println!(
        "test: {name}: {verdict} in {:.0} s",
        began.elapsed().as_secs_f64()
    );
    Tally::of(passed)
}

/// Runs a command that runs test programs, shows what they print, and counts.
fn tests_of(name: &str, command: &mut Command) -> Tally {
    match counted(command) {
        Ok((Ended::Exited(status), reader)) => reader.finish(status.success()),
        Ok((Ended::TimedOut, reader)) => {
            println!("test: {name}: FAILED: no end within {} s", TESTS_LIMIT.as_secs());
            reader.finish(false)
        }
        Err(error) => failure(name, &error),
    }
}

fn counted(command: &mut Command) -> Result<(Ended, Reader)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {}", process::shown(command)))?;
    let output = child.stdout.take().context("a child has no output")?;
    thread::scope(|scope| {
        let reading = scope.spawn(move || {
            let mut reader = Reader::default();
            let read = process::tee(output, |line| {
                println!("{line}");
                reader.line(line);
            });
            read.map(|()| reader)
        });
        let ended = process::wait_limited(&mut child, TESTS_LIMIT).context("cannot wait for the tests")?;
        let reader = reading
            .join()
            .map_err(|_| anyhow!("the output's reader failed"))?;
        Ok((ended, reader.context("cannot read the tests' output")?))
    })
}

fn failure(name: &str, error: &anyhow::Error) -> Tally {
    println!("test: {name}: FAILED: {error:#}");
    Tally::of(false)
}

fn skipped(name: &str, why: &str) -> Tally {
    println!("test: {name}: SKIPPED: {}", why.replace('\n', "; "));
    Tally::skip()
}
