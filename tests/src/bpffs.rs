//! A private directory in the BPF file system: where one lab's daemon pins its programs, links and maps.
//!
//! Invariant: the directory and every pin in it are gone when the value is dropped.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount};

use crate::identity::Identity;

/// Where the BPF file system is mounted.
pub const MOUNT_POINT: &str = "/sys/fs/bpf";

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// A directory below [`MOUNT_POINT`].
#[derive(Debug)]
pub struct BpfDirectory {
    path: PathBuf,
}

impl BpfDirectory {
    /// Mounts the BPF file system if it is missing and makes the directory.
    pub fn create(identity: &Identity) -> Result<Self> {
        ensure_mounted().with_context(|| format!("mounting the BPF file system on {MOUNT_POINT}"))?;
        let path = Path::new(MOUNT_POINT).join(identity.directory());
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self { path })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every pin below the directory, as paths relative to it, sorted.
    pub fn pins(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![self.path.clone()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    open.push(entry.path());
                } else {
                    found.push(entry.path().strip_prefix(&self.path).unwrap().to_owned());
                }
            }
        }
        found.sort();
        found
    }
}

impl Drop for BpfDirectory {
    fn drop(&mut self) {
        // The daemon may have removed it on its own.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn ensure_mounted() -> io::Result<()> {
    let kind = rustix::fs::statfs(MOUNT_POINT)?.f_type;
    if u64::try_from(kind).ok() == Some(BPF_FS_MAGIC) {
        return Ok(());
    }
    mount("bpf", MOUNT_POINT, "bpf", MountFlags::empty(), None)?;
    Ok(())
}
