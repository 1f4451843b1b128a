//! Where the eBPF compiler and its linker are on this machine, and how they are called.
//!
//! Shared by `cargo xtask`, which installs what is missing and lints the eBPF crate, and by `edge-user/build.rs`,
//! which builds it: both must agree on what "found" means. Only looks; never installs, never asks the network,
//! and starts no rustup proxy, since a proxy may begin a download by itself.
//!
//! Invariant: a [`Compiler`] and the LLVM it names have the major version [`LLVM_MAJOR`], which is also the one
//! that the pinned bpf-linker speaks.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target that the kernel runs, little-endian BPF.
pub(crate) const TARGET: &str = "bpfel-unknown-none";
/// Version 3 has the atomics that the limiter needs; BTF carries the map types and the line info.
const RUSTFLAGS: &str = "-Ctarget-cpu=v3 -Cdebuginfo=2 -Clink-arg=--btf";
/// Variables of cargo and rustc that say where to fetch from, not how to build: all others are for the outer build.
const KEPT: [&str; 8] = [
    "CARGO_HOME",
    "RUSTUP_HOME",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTR",
    "CARGO_SOURCE_",
    "CARGO_MAKEFLAGS",
    "CARGO_TERM_",
];

/// The nightly that an ordinary developer's machine gets. Its LLVM must be [`LLVM_MAJOR`].
pub(crate) const NIGHTLY: &str = "nightly-2026-05-20";
/// Debian's packages for machines where rustup cannot download.
pub(crate) const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
/// The last release that loads the compiler's own LLVM at run time instead of needing LLVM's development files.
pub(crate) const LINKER_VERSION: &str = "0.10.4";
/// Bitcode is read by the major version that wrote it.
pub(crate) const LLVM_MAJOR: u32 = 22;

/// A compiler that can build `core` for `bpfel-unknown-none`.
#[derive(Debug)]
pub(crate) struct Compiler {
    /// Its version line and where it came from, for people.
    pub(crate) name: String,
    /// Its cargo, the real one and not a rustup proxy.
    pub(crate) cargo: PathBuf,
    /// Its rustc, the real one and not a rustup proxy.
    pub(crate) rustc: PathBuf,
    /// The LLVM library that it was built with.
    pub(crate) llvm: PathBuf,
}

impl Compiler {
    /// Where the compiler's linter is, if it is installed.
    pub(crate) fn cargo_clippy(&self) -> PathBuf {
        self.cargo.with_file_name("cargo-clippy")
    }
}

/// Names the one of the two compilers that is to be taken: `nightly` or `debian`.
pub(crate) const CHOICE: &str = "BREAKWATER_EBPF_COMPILER";

/// Finds a compiler: the one that [`CHOICE`] names, else the pinned nightly of rustup, and then Debian's packages.
///
/// # Errors
/// One line for each place that was looked at, saying what was missing there.
pub(crate) fn find_compiler() -> Result<Compiler, String> {
    let nightly = || {
        rustup_home()
            .ok_or_else(|| "no home directory".to_owned())
            .and_then(|home| nightly_in(&home))
    };
    match env::var_os(CHOICE)
        .as_deref()
        .map(|choice| choice.to_string_lossy())
    {
        Some(choice) if choice == "nightly" => return nightly(),
        Some(choice) if choice == "debian" => return debian(),
        Some(choice) if !choice.is_empty() => {
            return Err(format!(
                "{CHOICE} is {choice:?}, and not \"nightly\" or \"debian\""
            ));
        }
        _ => {}
    }
    match nightly() {
        Ok(compiler) => Ok(compiler),
        Err(no_nightly) => debian().map_err(|no_debian| format!("{no_nightly}\n{no_debian}")),
    }
}

/// Finds bpf-linker of exactly [`LINKER_VERSION`], in `PATH` or in cargo's own `bin`, which need not be in it.
///
/// # Errors
/// Says which versions were found instead, if any.
pub(crate) fn find_linker() -> Result<PathBuf, String> {
    let mut others = Vec::new();
    for candidate in candidates("bpf-linker") {
        match version_of(&candidate) {
            Some(version) if version == LINKER_VERSION => return Ok(candidate),
            Some(version) => others.push(format!("{} is version {version}", candidate.display())),
            None => others.push(format!("{} does not start", candidate.display())),
        }
    }
    let found = if others.is_empty() {
        "not found".to_owned()
    } else {
        others.join(", ")
    };
    Err(format!("bpf-linker {LINKER_VERSION}: {found}"))
}

/// Every file of that name in `PATH`, then in cargo's `bin`.
pub(crate) fn candidates(program: &str) -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    folders.extend(home("CARGO_HOME", ".cargo").map(|home| home.join("bin")));
    folders
        .into_iter()
        .map(move |folder| folder.join(program))
        .filter(|file| file.is_file())
}

/// A cargo of `compiler` that does `verb` to `edge-ebpf`, in the target folder `target`: `build`, or `clippy` where
/// the compiler has a linter.
///
/// # Errors
/// When the folder for the one LLVM cannot be made.
pub(crate) fn cargo(compiler: &Compiler, linker: &Path, verb: &str, target: &Path) -> io::Result<Command> {
    let llvm = private_link(&compiler.llvm, &target.join("llvm"))?;
    // Called by its own name: cargo would look for the subcommand among rustup's proxies first.
    let program = if verb == "clippy" {
        &compiler.cargo_clippy()
    } else {
        &compiler.cargo
    };
    let mut cargo = Command::new(program);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let of_rust = text.starts_with("CARGO") || text.starts_with("RUST");
        if of_rust && !KEPT.iter().any(|kept| text.starts_with(kept)) {
            cargo.env_remove(&name);
        }
    }
    cargo
        .args([
            verb,
            "--locked",
            "--package",
            "edge-ebpf",
            "--bin",
            "edge-ebpf",
            "--profile",
            "ebpf",
        ])
        .args(["-Zbuild-std=core", "--target", TARGET, "--target-dir"])
        .arg(target)
        .env("CARGO", &compiler.cargo)
        .env("RUSTC", &compiler.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS", RUSTFLAGS)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker)
        .env("LD_LIBRARY_PATH", llvm);
    Ok(cargo)
}

/// A folder that holds nothing but the one LLVM: the linker takes the first it meets in `LD_LIBRARY_PATH`, and a
/// system's library folder may hold several.
fn private_link(llvm: &Path, folder: &Path) -> io::Result<PathBuf> {
    let link = folder.join(file_name(llvm));
    if fs::read_link(&link).is_ok_and(|target| target == llvm) && entries(folder).count() == 1 {
        return Ok(folder.to_owned());
    }
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    symlink(llvm, &link)?;
    Ok(folder.to_owned())
}

/// Rustup's folder, whether it exists or not.
fn rustup_home() -> Option<PathBuf> {
    home("RUSTUP_HOME", ".rustup")
}

fn home(variable: &str, default: &str) -> Option<PathBuf> {
    let named = env::var_os(variable)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from);
    named.or_else(|| env::home_dir().map(|home| home.join(default)))
}

fn nightly_in(rustup: &Path) -> Result<Compiler, String> {
    let toolchains = rustup.join("toolchains");
    let sysroot = entries(&toolchains)
        .find(|path| {
            file_name(path)
                .strip_prefix(NIGHTLY)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        })
        .ok_or_else(|| format!("rustup's {NIGHTLY}: not installed"))?;
    compiler(&sysroot, &sysroot.join("lib"), NIGHTLY).map_err(|why| format!("rustup's {NIGHTLY}: {why}"))
}

fn debian() -> Result<Compiler, String> {
    let libraries = PathBuf::from(format!("/usr/lib/{}-linux-gnu", env::consts::ARCH));
    compiler(Path::new("/usr"), &libraries, "Debian").map_err(|why| format!("Debian's rustc-web: {why}"))
}

fn compiler(sysroot: &Path, libraries: &Path, origin: &str) -> Result<Compiler, String> {
    let (cargo, rustc) = (sysroot.join("bin/cargo"), sysroot.join("bin/rustc"));
    if !cargo.is_file() || !rustc.is_file() {
        return Err("not installed".to_owned());
    }
    // Debian's rustup package puts its proxy at /usr/bin/rustc; asking that one could start a download.
    if fs::canonicalize(&rustc).is_ok_and(|target| file_name(&target).starts_with("rustup")) {
        return Err("not installed (it is a rustup proxy)".to_owned());
    }
    if !sysroot
        .join("lib/rustlib/src/rust/library/core/Cargo.toml")
        .is_file()
    {
        return Err("has no library sources (rust-src)".to_owned());
    }
    let about = output(&rustc, "-vV").ok_or("rustc does not start")?;
    let major = field(&about, "LLVM version: ").and_then(|version| version.split('.').next()?.parse().ok());
    if major != Some(LLVM_MAJOR) {
        let found = field(&about, "LLVM version: ").unwrap_or("unknown");
        return Err(format!("its LLVM is {found}, not {LLVM_MAJOR}"));
    }
    let llvm = entries(libraries)
        .find(|path| file_name(path).starts_with(&format!("libLLVM.so.{LLVM_MAJOR}")))
        .ok_or_else(|| format!("no libLLVM.so.{LLVM_MAJOR} in {}", libraries.display()))?;
    let version = about.lines().next().unwrap_or_default();
    Ok(Compiler {
        name: format!("{version}, {origin}"),
        cargo,
        rustc,
        llvm,
    })
}

fn version_of(program: &Path) -> Option<String> {
    output(program, "--version")?
        .split_whitespace()
        .nth(1)
        .map(str::to_owned)
}

fn output(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key))
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths.into_iter()
}

fn file_name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}
