//! `xtask guest-init`: process 1 of the VM. Mounts what tests expect, loads the modules, runs the one command, and
//! ends the machine with the command's status.
//!
//! Runs inside the guest only, and refuses any other place. Reports the status twice: to QEMU's isa-debug-exit
//! device, and as a line on the console for the case that QEMU's own exit code is lost.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, mount};
use rustix::process::{WaitOptions, wait};
use rustix::system::{RebootCommand, init_module, reboot, uname};

use super::{
    COMMAND_FILE, EXIT_MARKER, EXIT_PORT, GUEST_ENVIRONMENT, MODULES_FOLDER, NO_STATUS, READY_MARKER,
};

/// Time for the console to send its last line.
const CONSOLE_DRAIN: Duration = Duration::from_millis(500);

/// What is mounted where, and with which type.
const MOUNTS: [(&str, &str); 9] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("devpts", "/dev/pts"),
    ("tmpfs", "/dev/shm"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("bpf", "/sys/fs/bpf"),
    ("tracefs", "/sys/kernel/tracing"),
];

/// Runs as process 1, and so never returns in a guest.
///
/// # Errors
/// When it is not process 1.
pub(crate) fn run() -> Result<()> {
    if std::process::id() != 1 {
        bail!("guest-init is process 1 of the VM that `cargo xtask vm` boots, and nothing else");
    }
    let status = prepare().and_then(|()| command()).unwrap_or_else(|error| {
        println!("breakwater-vm: {error:#}");
        NO_STATUS
    });
    println!("{EXIT_MARKER}{status}");
    // The port ends the emulator at once, and what the console has not sent by then is lost.
    std::thread::sleep(CONSOLE_DRAIN);
    if let Err(error) = report(status) {
        println!("breakwater-vm: cannot write to port {EXIT_PORT:#x}: {error}");
    }
    reboot(RebootCommand::PowerOff).context("cannot power off")
}

fn prepare() -> Result<()> {
    for (kind, target) in MOUNTS {
        fs::create_dir_all(target).with_context(|| format!("cannot create {target}"))?;
        mount(kind, target, kind, MountFlags::empty(), None)
            .with_context(|| format!("cannot mount {target}"))?;
    }
    let mut modules: Vec<_> = fs::read_dir(MODULES_FOLDER)?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    modules.sort();
    for module in &modules {
        load(module).with_context(|| format!("cannot load {}", module.display()))?;
    }
    let status = Command::new("/bin/ip")
        .args(["link", "set", "lo", "up"])
        .status()
        .context("cannot start ip")?;
    if !status.success() {
        bail!("cannot bring lo up ({status})");
    }
    let seconds = fs::read_to_string("/proc/uptime")?;
    let seconds = seconds.split_whitespace().next().unwrap_or_default();
    println!(
        "breakwater-vm: Linux {}, {} modules{READY_MARKER}{seconds} s after boot",
        uname().release().to_string_lossy(),
        modules.len()
    );
    Ok(())
}

fn load(module: &Path) -> Result<()> {
    init_module(&fs::read(module)?, c"").map_err(Into::into)
}

/// Runs the command of the image, and collects whatever orphans die meanwhile, as process 1 has to.
fn command() -> Result<u8> {
    let words = fs::read_to_string(COMMAND_FILE).with_context(|| format!("cannot read {COMMAND_FILE}"))?;
    let mut words = words.split('\0');
    let program = words.next().context("the command is empty")?;
    let child = Command::new(program)
        .args(words)
        .env_clear()
        .envs(GUEST_ENVIRONMENT)
        .current_dir("/tmp")
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    loop {
        let Some((pid, status)) = wait(WaitOptions::empty()).context("cannot wait for the command")? else {
            continue;
        };
        if u32::try_from(pid.as_raw_nonzero().get()).is_ok_and(|pid| pid == child.id()) {
            let code = status.exit_status().and_then(|code| u8::try_from(code).ok());
            if let Some(signal) = status.terminating_signal() {
                println!("breakwater-vm: {program} was ended by signal {signal}");
            }
            return Ok(code.filter(|code| *code < NO_STATUS).unwrap_or(NO_STATUS));
        }
    }
}

/// Writes to the device's port, which ends the machine: QEMU then exits with `status * 2 + 1`.
///
/// By instruction, since Debian's cloud kernels have no `/dev/port`.
#[cfg(target_arch = "x86_64")]
fn report(status: u8) -> io::Result<()> {
    // SAFETY: takes no pointer; permits this thread, which is process 1 of a throw-away machine, one port.
    if unsafe { libc::ioperm(EXIT_PORT.into(), 1, 1) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: writes one byte to the port just permitted, which belongs to QEMU's exit device; touches no memory.
    unsafe {
        std::arch::asm!("out dx, al", in("dx") EXIT_PORT, in("al") status, options(nomem, nostack, preserves_flags));
    }
    Ok(())
}

#[cfg(not(target_arch = "x86_64"))]
fn report(_status: u8) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
