//! The kernels that the VM tests boot: Debian's packages, unpacked into a cache and never installed.
//!
//! Package names change with every release, so the newest is looked up when the cache has none; from then on the
//! cached one stays until its folder (`target/vm/kernels/RELEASE`) is removed. Needs no root if the lists are there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use crate::{apt, process};

/// The releases that must work: the oldest that Breakwater supports, and a current long-term one.
pub(crate) const RELEASES: [&str; 2] = ["6.1", "6.12"];

/// A kernel image and its modules.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// As `uname -r` will say.
    pub(crate) version: String,
    /// The bootable image.
    pub(crate) image: PathBuf,
    /// `lib/modules/VERSION`; absent for a kernel that was given by its path alone.
    pub(crate) modules: Option<PathBuf>,
}

/// Finds what `--kernel` names: a release (`6.1`), or a path to an image.
pub(crate) fn named(name: &str) -> Result<Kernel> {
    if RELEASES.contains(&name) {
        return find_or_fetch(name).map(|(kernel, _)| kernel);
    }
    let path = Path::new(name);
    if !path.is_file() {
        bail!(
            "--kernel {name}: neither one of {} nor a file",
            RELEASES.join(", ")
        );
    }
    // An image beside its own lib/modules, as in an unpacked package, brings them along.
    let version = file_name(path).trim_start_matches("vmlinuz-").to_owned();
    let modules = path
        .ancestors()
        .nth(2)
        .map(|root| root.join("lib/modules").join(&version));
    let modules = modules.filter(|folder| folder.is_dir());
    Ok(Kernel {
        version,
        image: path.to_owned(),
        modules,
    })
}

/// The cached kernel of a release, or else the newest that Debian has. The flag says whether it was fetched.
pub(crate) fn find_or_fetch(release: &str) -> Result<(Kernel, bool)> {
    let cache = process::target_dir().join("vm/kernels").join(release);
    if let Some(kernel) = cached(&cache) {
        return Ok((kernel, false));
    }
    if std::env::consts::ARCH != "x86_64" {
        bail!("the VM tests boot x86-64 kernels with this machine's binaries: they need an x86-64 machine");
    }
    if !apt::available() {
        bail!("kernel {release} is taken from Debian's packages, and this is no Debian system");
    }
    let package = match newest(release).and_then(|package| fetch(&package, &cache).map(|()| package)) {
        Ok(package) => package,
        // The lists are missing, or so old that the archive has dropped what they know. Only this needs root.
        Err(error) => {
            println!("setup: kernel {release}: {error:#}; fetching the package lists");
            apt::update().with_context(|| format!("kernel {release}"))?;
            let package = newest(release)?;
            fetch(&package, &cache)?;
            package
        }
    };
    let kernel = cached(&cache).ok_or_else(|| anyhow!("{package} holds no kernel image"))?;
    Ok((kernel, true))
}

fn cached(cache: &Path) -> Option<Kernel> {
    let boot = cache.join("boot");
    let images = fs::read_dir(boot).ok()?.flatten().map(|entry| entry.path());
    let image = images
        .into_iter()
        .find(|path| file_name(path).starts_with("vmlinuz-"))?;
    let version = file_name(&image).trim_start_matches("vmlinuz-").to_owned();
    let modules = ["lib/modules", "usr/lib/modules"].map(|folder| cache.join(folder).join(&version));
    Some(Kernel {
        version,
        image,
        modules: modules.into_iter().find(|folder| folder.is_dir()),
    })
}

fn newest(release: &str) -> Result<String> {
    let names = apt::search(&format!("^linux-image-{}\\.", release.replace('.', "\\.")))?;
    let name =
        best(release, &names).with_context(|| format!("no Debian package holds a kernel {release}"))?;
    Ok(name.to_owned())
}

/// The newest signed image; the cloud flavour has all that the tests need in a third of the size.
fn best<'a>(release: &str, names: &'a [String]) -> Option<&'a str> {
    let of_flavour = |suffix: &str| {
        let wanted = names.iter().filter_map(|name| {
            let version = name.strip_prefix("linux-image-")?.strip_suffix(suffix)?;
            let rest = version.strip_prefix(release)?.strip_prefix('.')?;
            // What is left of another flavour's name has letters beyond Debian's own "+deb12".
            let plain = rest.chars().all(|c| c.is_ascii_digit() || "+-.deb".contains(c));
            plain.then(|| (numbers(version), name.as_str()))
        });
        wanted.max().map(|(_, name)| name)
    };
    of_flavour("-cloud-amd64").or_else(|| of_flavour("-amd64"))
}

fn numbers(text: &str) -> Vec<u64> {
    text.split(|c: char| !c.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

/// Unpacks into a neighbour first, so that an interrupted run leaves no half kernel in the cache.
fn fetch(package: &str, cache: &Path) -> Result<()> {
    println!("setup: kernel: fetching {package}");
    let unfinished = cache.with_file_name(format!("{}-unfinished", file_name(cache)));
    let _ = fs::remove_dir_all(&unfinished);
    let _ = fs::remove_dir_all(cache);
    let root = unfinished.join("root");
    fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
    apt::download(package, &unfinished)?;
    let archive = fs::read_dir(&unfinished)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|end| end == "deb"))
        .ok_or_else(|| anyhow!("apt-get downloaded no {package}"))?;
    process::run(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(&root))?;
    fs::rename(&root, cache).with_context(|| format!("cannot create {}", cache.display()))?;
    fs::remove_dir_all(&unfinished)?;
    Ok(())
}

fn file_name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| format!("linux-image-{name}")).collect()
    }

    #[test]
    fn the_newest_is_chosen_by_number_not_by_letter() {
        let known = names(&["6.1.0-9-cloud-amd64", "6.1.0-47-cloud-amd64", "6.1.0-47-amd64"]);
        assert_eq!(best("6.1", &known), Some("linux-image-6.1.0-47-cloud-amd64"));
    }

    #[test]
    fn other_flavours_and_releases_are_passed_over() {
        let known = names(&[
            "6.12.107+deb12-cloud-amd64",
            "6.12.111+deb12-amd64",
            "6.12.111+deb12-cloud-amd64-unsigned",
            "6.12.111+deb12-rt-amd64",
            "6.12-cloud-amd64",
        ]);
        assert_eq!(
            best("6.12", &known),
            Some("linux-image-6.12.107+deb12-cloud-amd64")
        );
        assert_eq!(best("6.1", &known), None);
    }

    #[test]
    fn without_a_cloud_flavour_the_plain_one_does() {
        let known = names(&["6.12.111+deb12-amd64", "6.12.111+deb12-rt-amd64"]);
        assert_eq!(best("6.12", &known), Some("linux-image-6.12.111+deb12-amd64"));
    }
}
