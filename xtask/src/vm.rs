//! `cargo xtask vm`: boots a kernel under QEMU with one test program, and ends with that program's status.
//!
//! Needs no root. The guest has no disk and no network; its file system is an image made for each boot.

pub(crate) mod cpio;
pub(crate) mod guest;
pub(crate) mod image;
pub(crate) mod kernel;
pub(crate) mod modules;
pub(crate) mod qemu;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;

use crate::{cargo, process};
use qemu::Accelerator;

/// Where the guest finds process 1, its command and its modules.
const GUEST_INIT: &str = "/bin/xtask";
const COMMAND_FILE: &str = "/etc/breakwater-vm";
const MODULES_FOLDER: &str = "/modules";
/// The port of QEMU's isa-debug-exit device.
const EXIT_PORT: u16 = 0xf4;
/// What the line on the console holds that is printed before the command begins.
const READY_MARKER: &str = ", ready ";
/// How often a guest is booted that dies before its command begins: emulation now and then loses the race against a kernel that
/// rewrites its own code.
const BOOTS: u32 = 4;
/// How the line on the console starts that repeats the status.
const EXIT_MARKER: &str = "breakwater-vm: exit ";
/// Reported for a command that did not start, was killed, or had a status that does not fit.
const NO_STATUS: u8 = 127;
/// What programs in the guest see.
const GUEST_ENVIRONMENT: [(&str, &str); 6] = [
    ("PATH", "/bin"),
    ("HOME", "/root"),
    ("TMPDIR", "/tmp"),
    ("RUST_BACKTRACE", "1"),
    ("BREAKWATER_BIN", "/bin/breakwater"),
    ("BREAKWATER_VM", "1"),
];

/// What to boot and what to run.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// 6.1, 6.12, or the path of a kernel image.
    #[arg(long)]
    kernel: String,
    /// Emulate even if KVM works.
    #[arg(long)]
    no_kvm: bool,
    /// Seconds until the guest is ended.
    #[arg(long, default_value_t = 900)]
    limit: u64,
    /// A test target of package `tests`, PACKAGE:TARGET, or the path of a program; then its arguments.
    #[arg(last = true, required = true, value_name = "TEST")]
    test: Vec<String>,
}

/// A boot, from the point of view of `cargo xtask test`.
pub(crate) struct Boot<'a> {
    pub(crate) kernel: &'a kernel::Kernel,
    pub(crate) accelerator: Accelerator,
    /// The program that is run, and its arguments.
    pub(crate) program: &'a Path,
    pub(crate) arguments: &'a [String],
    /// `breakwater`, if it goes along.
    pub(crate) daemon: Option<&'a Path>,
    pub(crate) limit: Duration,
}

/// Boots and returns the status of the test.
///
/// # Errors
/// When something is missing, does not build, or the guest leaves no status.
pub(crate) fn run(options: &Options) -> Result<u8> {
    if !process::in_path(qemu::PROGRAM) {
        bail!("there is no {}: run `cargo xtask setup --vm`", qemu::PROGRAM);
    }
    let Some((test, arguments)) = options.test.split_first() else {
        bail!("name a test")
    };
    let kernel = kernel::named(&options.kernel)?;
    let is_path = test.contains('/');
    let program = if is_path {
        PathBuf::from(test)
    } else {
        built(test)?
    };
    let daemon = if is_path { None } else { Some(cargo::daemon()?) };
    let accelerator = if options.no_kvm {
        Accelerator::Tcg
    } else {
        qemu::accelerator(&folder()?)?
    };
    let boot = Boot {
        kernel: &kernel,
        accelerator,
        program: &program,
        arguments,
        daemon: daemon.as_deref(),
        limit: Duration::from_secs(options.limit),
    };
    boot.run(|line| println!("{line}"))
}

impl Boot<'_> {
    /// Boots, hands every line that the guest prints to `seen`, and returns the status of the program.
    pub(crate) fn run(&self, mut seen: impl FnMut(&str) + Send) -> Result<u8> {
        let began = Instant::now();
        let folder = folder()?;
        let in_guest = format!("/bin/{}", name_in_guest(self.program)?);
        let ip = crate::ebpf_tools::candidates("ip")
            .chain(["/usr/sbin/ip", "/sbin/ip"].map(PathBuf::from))
            .find(|path| path.is_file())
            .context("there is no `ip`: run `cargo xtask setup --vm`")?;
        let mut programs = vec![
            (
                std::env::current_exe().context("xtask cannot find itself")?,
                GUEST_INIT.to_owned(),
            ),
            (ip, "/bin/ip".to_owned()),
            (self.program.to_owned(), in_guest.clone()),
        ];
        programs.extend(
            self.daemon
                .map(|daemon| (daemon.to_owned(), "/bin/breakwater".to_owned())),
        );
        let mut command = vec![in_guest];
        command.extend(self.arguments.iter().cloned());
        let image = folder.join(format!("image-{}.cpio", std::process::id()));
        let contents = image::Contents {
            programs,
            modules: self.kernel.modules.as_deref(),
            command,
        };
        image::write(&image, &contents)?;
        let size = fs::metadata(&image)?.len() >> 20;
        println!(
            "vm: Linux {} by {}, image of {size} MiB made in {:.1} s",
            self.kernel.version,
            self.accelerator.name(),
            began.elapsed().as_secs_f64()
        );
        let mut machine = qemu::Machine {
            kernel: &self.kernel.image,
            image: &image,
            accelerator: self.accelerator,
            limit: self.limit,
        };
        let mut boots = 1;
        let status = loop {
            let mut ready = false;
            let status = qemu::boot(&machine, |line| {
                ready |= line.contains(READY_MARKER);
                seen(line);
            });
            match status {
                Err(error) if !ready && boots < BOOTS => {
                    println!("vm: {error:#}: booting once more");
                    if machine.accelerator == Accelerator::Kvm {
                        println!("vm: KVM does not run this guest: emulating it");
                        // The probe believed it, and a whole guest did not even begin.
                        qemu::keep(&folder, Accelerator::Tcg)?;
                        machine.accelerator = Accelerator::Tcg;
                    }
                    boots += 1;
                }
                status => break status,
            }
        };
        fs::remove_file(&image).with_context(|| format!("cannot remove {}", image.display()))?;
        let status = status?;
        println!("vm: status {status} after {:.1} s", began.elapsed().as_secs_f64());
        Ok(status)
    }
}

/// Where everything about VMs is kept.
pub(crate) fn folder() -> Result<PathBuf> {
    let folder = process::target_dir().join("vm");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

fn built(test: &str) -> Result<PathBuf> {
    let (package, target) = test.split_once(':').unwrap_or(("tests", test));
    cargo::test_program(package, target)
}

/// The file's name; for a test program, without the hash that cargo adds.
fn name_in_guest(program: &Path) -> Result<&str> {
    let name = program.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| anyhow!("{} has no usable name", program.display()))?;
    Ok(match name.rsplit_once('-') {
        Some((stem, hash)) if hash.len() == 16 && hash.chars().all(|c| c.is_ascii_hexdigit()) => stem,
        _ => name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_hash_is_cut_off_a_program_s_name() {
        assert_eq!(
            name_in_guest(Path::new("/t/debug/deps/kernel-0123456789abcdef")).unwrap(),
            "kernel"
        );
        assert_eq!(
            name_in_guest(Path::new("/usr/bin/busybox-static")).unwrap(),
            "busybox-static"
        );
    }
}
