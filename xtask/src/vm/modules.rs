//! Kernel modules for the guest: found in an unpacked package, decompressed, ordered by dependency.
//!
//! A package has no `modules.dep` (that is made when it is installed), so the dependencies are read from the
//! modules themselves.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// What the tests use and Debian builds as modules. What a kernel has built in or lacks is passed over.
const WANTED: [&str; 7] = [
    "veth",
    "dummy",
    "8021q",
    "sch_ingress",
    "tun",
    "ipip",
    "ip6_tunnel",
];
/// Folders that are searched: all that network modules and what they need live in.
const FOLDERS: [&str; 4] = ["drivers/net", "net", "lib", "crypto"];
/// A chain of dependencies longer than this is a broken package.
const MAX_DEPTH: u32 = 16;

/// A module, ready to be loaded.
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// The wanted modules below `folder` (`lib/modules/VERSION`) and what they depend on, in order of loading.
pub(crate) fn collect(folder: &Path) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    for part in FOLDERS {
        index(&folder.join("kernel").join(part), &mut files)?;
    }
    let mut modules = Vec::new();
    for name in WANTED {
        if files.contains_key(name) {
            add(name, &files, &mut modules, MAX_DEPTH)?;
        }
    }
    Ok(modules)
}

fn index(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            index(&path, files)?;
        } else if let Some((stem, _)) = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.split_once(".ko"))
        {
            // The kernel takes '-' and '_' in a module's name for the same.
            files.insert(stem.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn add(name: &str, files: &BTreeMap<String, PathBuf>, modules: &mut Vec<Module>, depth: u32) -> Result<()> {
    if modules.iter().any(|module| module.name == name) {
        return Ok(());
    }
    if depth == 0 {
        bail!("module {name}: its dependencies never end");
    }
    // One that is not in the package is built into the kernel.
    let Some(path) = files.get(name) else {
        return Ok(());
    };
    let bytes = read(path)?;
    for dependency in dependencies(&bytes) {
        add(&dependency.replace('-', "_"), files, modules, depth - 1)?;
    }
    modules.push(Module {
        name: name.to_owned(),
        bytes,
    });
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let packed = path.extension().and_then(|end| end.to_str()).unwrap_or_default();
    let program = match packed {
        "ko" => return fs::read(path).with_context(|| format!("cannot read {}", path.display())),
        "xz" => "xz",
        "zst" => "zstd",
        "gz" => "gzip",
        _ => bail!("{}: unknown compression", path.display()),
    };
    let output = Command::new(program)
        .args(["--decompress", "--stdout"])
        .arg(path)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {program} to unpack {}", path.display()))?;
    if !output.status.success() {
        bail!("{program} cannot unpack {}", path.display());
    }
    Ok(output.stdout)
}

/// The names behind `depends=` in a module's `.modinfo` section, where strings end with a zero byte.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module.get(at + KEY.len()..).unwrap_or_default();
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_modinfo() {
        assert_eq!(
            dependencies(b"\x7fELF\0license=GPL\0depends=garp,mrp\0name=x\0"),
            ["garp", "mrp"]
        );
        assert!(dependencies(b"\x7fELF\0depends=\0name=x\0").is_empty());
        assert!(dependencies(b"\x7fELF").is_empty());
    }

    #[test]
    fn what_a_module_needs_is_loaded_before_it() {
        let folder = std::env::temp_dir().join(format!("breakwater-modules-{}", std::process::id()));
        let net = folder.join("kernel/net");
        fs::create_dir_all(&net).unwrap();
        fs::write(net.join("8021q.ko"), b"\0depends=garp-x,builtin\0").unwrap();
        fs::write(net.join("garp-x.ko"), b"\0depends=\0").unwrap();
        let modules = collect(&folder);
        fs::remove_dir_all(&folder).unwrap();
        let names: Vec<String> = modules.unwrap().into_iter().map(|module| module.name).collect();
        assert_eq!(names, ["garp_x", "8021q"]);
    }

    #[test]
    fn a_circle_of_dependencies_is_an_error() {
        let folder = std::env::temp_dir().join(format!("breakwater-circle-{}", std::process::id()));
        let net = folder.join("kernel/net");
        fs::create_dir_all(&net).unwrap();
        fs::write(net.join("veth.ko"), b"\0depends=a\0").unwrap();
        fs::write(net.join("a.ko"), b"\0depends=veth\0").unwrap();
        let modules = collect(&folder);
        fs::remove_dir_all(&folder).unwrap();
        assert!(modules.is_err());
    }
}
