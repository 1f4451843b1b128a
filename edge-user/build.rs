//! Builds `edge-ebpf` and hands the linked object's path to the crate as `BREAKWATER_EBPF_OBJECT`.
//!
//! The object is built by another compiler than the crate: one with the sources of `core`, in a target folder of
//! its own (`target/ebpf`, shared by all profiles, so `core` is built once). Never installs anything: what is
//! missing is `cargo xtask setup`'s business.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[path = "../xtask/src/ebpf_tools.rs"]
#[expect(dead_code, reason = "the installing half of it belongs to xtask")]
mod ebpf_tools;

/// What the object is built from, relative to the workspace.
const INPUTS: [&str; 7] = [
    "edge-ebpf/src",
    "edge-ebpf/Cargo.toml",
    "edge-common/src",
    "edge-common/Cargo.toml",
    "xtask/src/ebpf_tools.rs",
    "Cargo.toml",
    "Cargo.lock",
];

fn main() -> ExitCode {
    match build() {
        Ok(object) => {
            println!("cargo::rustc-env=BREAKWATER_EBPF_OBJECT={}", object.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            for line in error.to_string().lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<PathBuf, Box<dyn Error>> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?);
    let workspace = manifest.parent().ok_or("the crate has no parent folder")?;
    for input in INPUTS {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }

    println!("cargo::rerun-if-env-changed={}", ebpf_tools::CHOICE);

    let missing =
        |why: String| format!("cannot build the eBPF program: run `cargo xtask setup` first\n{why}");
    let compiler = ebpf_tools::find_compiler().map_err(missing)?;
    let linker = ebpf_tools::find_linker().map_err(missing)?;
    let target = target_folder(&out).join("ebpf");
    let status = ebpf_tools::cargo(&compiler, &linker, "build", &target)?
        .current_dir(workspace)
        .status()?;
    if !status.success() {
        return Err(format!("the eBPF build failed ({status}); its messages are above").into());
    }
    // A copy: another profile's build may replace the shared one while this crate is compiled.
    let object = out.join("edge-ebpf");
    fs::copy(target.join(ebpf_tools::TARGET).join("ebpf/edge-ebpf"), &object)?;
    Ok(object)
}

/// The outermost folder above `out` that cargo marked as its own.
fn target_folder(out: &Path) -> PathBuf {
    let marked = out
        .ancestors()
        .filter(|folder| folder.join("CACHEDIR.TAG").is_file())
        .last();
    marked.unwrap_or(out).to_owned()
}
