//! The guest's file system: programs with the libraries that they load, kernel modules, and the command to run.
//!
//! There is no C library for static linking on an ordinary machine, so the host's shared ones go along. Symbols for
//! debuggers are stripped: the image is copied and unpacked on every boot.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow};

use super::cpio::Archive;
use super::{COMMAND_FILE, MODULES_FOLDER, modules};

/// What goes into the image.
pub(crate) struct Contents<'a> {
    /// Programs and their path in the guest.
    pub(crate) programs: Vec<(PathBuf, String)>,
    /// The kernel's `lib/modules/VERSION`.
    pub(crate) modules: Option<&'a Path>,
    /// Program in the guest, and arguments.
    pub(crate) command: Vec<String>,
}

/// Writes the image to `path`.
pub(crate) fn write(path: &Path, contents: &Contents<'_>) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    for folder in ["/proc", "/sys", "/dev", "/tmp", "/run", "/root", MODULES_FOLDER] {
        archive.folder(folder)?;
    }
    // The kernel opens these for process 1 before anything is mounted.
    archive.device("/dev/console", 5, 1)?;
    archive.device("/dev/null", 1, 3)?;
    let mut libraries = BTreeSet::new();
    for (program, name) in &contents.programs {
        libraries.extend(libraries_of(program)?);
        archive.file(name, &stripped(program)?)?;
    }
    for library in libraries {
        let data = fs::read(&library).with_context(|| format!("cannot read {library}"))?;
        archive.file(&library, &data)?;
    }
    if let Some(folder) = contents.modules {
        for (order, module) in modules::collect(folder)?.iter().enumerate() {
            archive.file(
                &format!("{MODULES_FOLDER}/{order:02}-{}.ko", module.name),
                &module.bytes,
            )?;
        }
    }
    archive.file(COMMAND_FILE, contents.command.join("\0").as_bytes())?;
    archive
        .finish()?
        .into_inner()
        .map_err(|error| anyhow!("cannot write {}: {error}", path.display()))?
        .flush()?;
    Ok(())
}

/// The libraries that a program loads, the loader among them, as absolute paths.
fn libraries_of(program: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd")
        .arg(program)
        .stderr(Stdio::null())
        .output()
        .context("cannot start ldd")?;
    // It fails for a program that loads none, which needs none.
    Ok(parse_ldd(&String::from_utf8_lossy(&output.stdout)))
}

/// Lines are `name => /path (address)` or `/path (address)`; the kernel's own vDSO has no path.
fn parse_ldd(listing: &str) -> Vec<String> {
    let path = |line: &str| {
        let library = line.split_once("=> ").map_or(line, |(_, path)| path);
        let path = library.split_whitespace().next()?;
        path.starts_with('/').then(|| path.to_owned())
    };
    listing.lines().filter_map(path).collect()
}

fn stripped(program: &Path) -> Result<Vec<u8>> {
    let output = std::env::temp_dir().join(format!("breakwater-strip-{}", std::process::id()));
    let strip = Command::new("strip")
        .args(["--strip-debug", "-o"])
        .arg(&output)
        .arg(program)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let data = fs::read(if strip { &output } else { program });
    let _ = fs::remove_file(&output);
    data.with_context(|| format!("cannot read {}", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found_in_the_listing() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                       \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1e)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f1f)\n";
        assert_eq!(
            parse_ldd(listing),
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
        );
        assert!(parse_ldd("\tstatically linked\n").is_empty());
    }
}
