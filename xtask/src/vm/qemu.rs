//! Starts QEMU: finds out whether KVM is usable, boots a kernel with an image, and brings back the guest's status.
//!
//! Bounded: every start has a time limit, at which the emulator is ended.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use anyhow::{Context, Result, bail};

use super::{EXIT_MARKER, EXIT_PORT, NO_STATUS, READY_MARKER};
use crate::process::{self, Ended};

/// The emulator.
pub(crate) const PROGRAM: &str = "qemu-system-x86_64";

/// A boot sector that says hello takes 0.3 s even when emulated; a present but broken KVM hangs.
const PROBE_LIMIT: Duration = Duration::from_secs(4);
/// What the probe's sector reports, and what QEMU makes of it.
const PROBE_STATUS: u8 = 0x10;
/// More virtual processors than real ones make an emulated guest many times slower.
const MAX_CPUS: usize = 2;
const MEMORY_MIB: u32 = 1536;

/// How the guest's instructions are executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Accelerator {
    /// By the processor.
    Kvm,
    /// By translation: works everywhere, some ten times slower.
    Tcg,
}

impl Accelerator {
    /// As QEMU names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// How long a guest may take until its command begins: some ten times what one takes. A KVM that gives up leaves its guest
    /// standing without a word.
    fn boot_limit(self) -> Duration {
        match self {
            Self::Kvm => Duration::from_secs(20),
            Self::Tcg => Duration::from_mins(1),
        }
    }

    fn processor(self) -> &'static str {
        match self {
            Self::Kvm => "host",
            Self::Tcg => "max",
        }
    }
}

/// What to boot.
pub(crate) struct Machine<'a> {
    pub(crate) kernel: &'a Path,
    pub(crate) image: &'a Path,
    pub(crate) accelerator: Accelerator,
    pub(crate) limit: Duration,
}

/// KVM if a guest really runs with it, else TCG. The answer is kept in `folder` until the host reboots.
pub(crate) fn accelerator(folder: &Path) -> Result<Accelerator> {
    if fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_err()
    {
        return Ok(Accelerator::Tcg);
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let note = folder.join("accelerator");
    let known = fs::read_to_string(&note).unwrap_or_default();
    for answer in [Accelerator::Kvm, Accelerator::Tcg] {
        if known == format!("{} {boot}", answer.name()) {
            return Ok(answer);
        }
    }
    let answer = if kvm_works(folder)? {
        Accelerator::Kvm
    } else {
        Accelerator::Tcg
    };
    keep(folder, answer)?;
    Ok(answer)
}

/// Keeps the answer about KVM in `folder` until the host reboots.
pub(crate) fn keep(folder: &Path, answer: Accelerator) -> Result<()> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let note = folder.join("accelerator");
    fs::write(note, format!("{} {boot}", answer.name())).context("cannot keep the answer about KVM")
}

fn kvm_works(folder: &Path) -> Result<bool> {
    let sector = folder.join("probe.img");
    fs::write(&sector, probe_sector()).with_context(|| format!("cannot write {}", sector.display()))?;
    let mut qemu = Command::new(PROGRAM);
    devices(&mut qemu)
        // The processor that guests will have: a KVM may run the default one and refuse the host's.
        .args(["-accel", "kvm", "-cpu", Accelerator::Kvm.processor(), "-drive"])
        .arg(format!("file={},format=raw", sector.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Ok(match process::run_limited(&mut qemu, PROBE_LIMIT)? {
        Ended::Exited(status) => status.code() == Some(exit_code(PROBE_STATUS)),
        Ended::TimedOut => false,
    })
}

/// `mov dx, EXIT_PORT; mov al, PROBE_STATUS; out dx, al; hlt; jmp $-1`, and the mark of a boot sector.
fn probe_sector() -> [u8; 512] {
    let port = EXIT_PORT.to_le_bytes();
    let mut sector = [0; 512];
    let code = [0xba, port[0], port[1], 0xb0, PROBE_STATUS, 0xee, 0xf4, 0xeb, 0xfd];
    sector[..code.len()].copy_from_slice(&code);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// Boots, shows what the guest prints, and returns the status of the guest's command.
///
/// # Errors
/// When the emulator does not start, the limit is reached, or the guest died without a status.
pub(crate) fn boot(machine: &Machine<'_>, mut seen: impl FnMut(&str) + Send) -> Result<u8> {
    let cpus = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MAX_CPUS);
    let mut qemu = Command::new(PROGRAM);
    devices(&mut qemu)
        .args([
            "-accel",
            machine.accelerator.name(),
            "-cpu",
            machine.accelerator.processor(),
        ])
        .args([
            "-smp",
            &cpus.to_string(),
            "-m",
            &MEMORY_MIB.to_string(),
            "-serial",
            "stdio",
            "-kernel",
        ])
        .arg(machine.kernel)
        .arg("-initrd")
        .arg(machine.image)
        .args(["-append", &command_line()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = qemu.spawn().with_context(|| format!("cannot start {PROGRAM}"))?;
    let console = child.stdout.take().context("the emulator has no output")?;
    let ready = AtomicBool::new(false);
    let (ended, marked) = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut marked = None;
            let read = process::tee(console, |line| {
                if line.contains(READY_MARKER) {
                    ready.store(true, Ordering::Relaxed);
                }
                if let Some((_, status)) = line.split_once(EXIT_MARKER) {
                    marked = status.parse::<u8>().ok();
                } else {
                    seen(line);
                }
            });
            read.map(|()| marked)
        });
        let ended = wait(&mut child, &ready, machine);
        (ended, reader.join())
    });
    let marked = marked
        .ok()
        .context("the console's reader failed")?
        .context("cannot read the console")?;
    match ended.context("cannot wait for the emulator")? {
        Ended::TimedOut if !ready.into_inner() => {
            let limit = machine.accelerator.boot_limit().as_secs();
            bail!("the guest's command did not begin within {limit} s")
        }
        Ended::TimedOut => bail!("the guest did not finish within {} s", machine.limit.as_secs()),
        Ended::Exited(status) => match outcome(status.code(), marked) {
            Some(NO_STATUS) => bail!("the guest's command left no status of its own"),
            Some(status) => Ok(status),
            None => bail!("the guest ended without reporting a status (QEMU: {status})"),
        },
    }
}

/// Waits for the emulator's end, within the limit of the boot and then of the command.
fn wait(child: &mut Child, ready: &AtomicBool, machine: &Machine<'_>) -> io::Result<Ended> {
    let began = Instant::now();
    let booting = || !ready.load(Ordering::Relaxed);
    while booting() && began.elapsed() < machine.accelerator.boot_limit() {
        if let Some(status) = child.try_wait()? {
            return Ok(Ended::Exited(status));
        }
        thread::sleep(Duration::from_millis(50));
    }
    let left = if booting() { Duration::ZERO } else { machine.limit };
    process::wait_limited(child, left)
}

/// The guest's status, from QEMU's exit code or else from the console; `None` if they contradict each other.
fn outcome(code: Option<i32>, marked: Option<u8>) -> Option<u8> {
    let reported = code
        .filter(|code| code % 2 == 1)
        .and_then(|code| u8::try_from(code / 2).ok());
    match (reported, marked) {
        // QEMU itself fails with 1, which would read as success: only the console tells them apart.
        (Some(0), None) => None,
        (Some(reported), Some(marked)) => (reported == marked).then_some(marked),
        (reported, marked) => reported.or(marked),
    }
}

/// What QEMU exits with when a guest reports `status`.
fn exit_code(status: u8) -> i32 {
    i32::from(status) * 2 + 1
}

fn devices(qemu: &mut Command) -> &mut Command {
    qemu.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-device",
    ])
    .arg(format!("isa-debug-exit,iobase={EXIT_PORT:#x},iosize=0x04"))
}

/// `no_timer_check`: an emulated timer on a busy host fails the kernel's check. `panic=-1`: a panic, and so an oops, ends the VM.
fn command_line() -> String {
    let options = "console=ttyS0 loglevel=4 panic=-1 no_timer_check random.trust_cpu=on mitigations=off nokaslr audit=0 oops=panic";
    format!("{options} rdinit={} -- guest-init", super::GUEST_INIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_needs_a_witness_that_is_not_contradicted() {
        assert_eq!(outcome(Some(exit_code(0)), Some(0)), Some(0));
        assert_eq!(outcome(Some(exit_code(101)), Some(101)), Some(101));
        assert_eq!(outcome(Some(exit_code(101)), None), Some(101));
        assert_eq!(
            outcome(Some(0), Some(3)),
            Some(3),
            "powered off after the line was printed"
        );
        assert_eq!(outcome(Some(1), None), None, "QEMU's own failure is no success");
        assert_eq!(outcome(Some(0), None), None, "a reboot after a panic");
        assert_eq!(outcome(Some(exit_code(1)), Some(0)), None);
    }

    #[test]
    fn a_boot_sector_ends_the_emulator_with_its_status() {
        let folder = std::env::temp_dir().join(format!("breakwater-sector-{}", std::process::id()));
        fs::write(&folder, probe_sector()).unwrap();
        let mut qemu = Command::new(PROGRAM);
        devices(&mut qemu)
            .args(["-accel", "tcg", "-drive"])
            .arg(format!("file={},format=raw", folder.display()));
        let ended = process::run_limited(&mut qemu, Duration::from_mins(1));
        fs::remove_file(&folder).unwrap();
        match ended {
            Ok(Ended::Exited(status)) => assert_eq!(status.code(), Some(exit_code(PROBE_STATUS))),
            Ok(Ended::TimedOut) => panic!("the emulator did not end"),
            // Unit tests run before anything is installed; the VM tests are what needs the emulator.
            Err(_) => assert!(!process::in_path(PROGRAM)),
        }
    }
}
