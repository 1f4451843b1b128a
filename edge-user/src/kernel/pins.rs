//! Where the kernel state lives in the BPF file system, and the lock on it.
//!
//! ```text
//! <bpffs>/breakwater/v1/maps/<NAME>      every map
//! <bpffs>/breakwater/v1/links/<ifname>   one XDP link an interface: as long as it exists, the shield works
//! ```
//! The version is that of the map layout ([`edge_common::abi::VERSION`]): programs of another layout never meet
//! these maps.

use std::{
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use edge_common::abi;
use rustix::{
    fs::{FlockOperation, StatFs, flock, statfs},
    process::geteuid,
};

use super::KernelError;

/// Where the BPF file system is usually mounted.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf";
/// Magic number of the BPF file system (include/uapi/linux/magic.h, `BPF_FS_MAGIC`).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// The pin directory of this layout version.
#[derive(Debug, Clone)]
pub struct Pins {
    bpffs: PathBuf,
    root: PathBuf,
}

/// Holds the exclusive right to change the kernel state, until dropped.
#[derive(Debug)]
pub struct Lock {
    directory: File,
}

impl Lock {
    /// The same right, held by another process until both have let go of it.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn double(&self) -> io::Result<OwnedFd> {
        Ok(self.directory.try_clone()?.into())
    }

    /// The right that another process has handed over.
    pub fn adopt(double: OwnedFd) -> Self {
        Self {
            directory: double.into(),
        }
    }

    /// Whether it is the daemon's right to the shield at `pins`, and not to one of another layout.
    pub fn is_claim_of(&self, pins: &Pins) -> bool {
        let identity = |found: fs::Metadata| (found.dev(), found.ino());
        match (self.directory.metadata(), fs::metadata(pins.maps())) {
            (Ok(has), Ok(wanted)) => identity(has) == identity(wanted),
            _ => false,
        }
    }
}

impl Pins {
    /// The pins under the BPF file system (or a directory in one) `bpffs`.
    pub fn new(bpffs: &Path) -> Self {
        let root = bpffs.join("breakwater").join(format!("v{}", abi::VERSION));
        Self {
            bpffs: bpffs.to_path_buf(),
            root,
        }
    }

    /// Directory of the maps.
    pub fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    /// Pin of the map `name`.
    pub fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// Which set of maps is pinned: another one after they were made anew, none while there is none.
    pub fn identity(&self) -> Option<u64> {
        fs::metadata(self.map("CONTROL")).ok().map(|found| found.ino())
    }

    /// Directory of the links.
    pub fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// Pin of the link to the interface `name`.
    pub fn link(&self, name: &str) -> PathBuf {
        self.links().join(name)
    }

    /// The directory that everything is in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether there is any state.
    pub fn exist(&self) -> bool {
        self.map("CONTROL").exists()
    }

    /// Names of the interfaces that have a pinned link, sorted.
    ///
    /// # Errors
    /// The directory cannot be read (not if it does not exist).
    pub fn linked_interfaces(&self) -> Result<Vec<String>, KernelError> {
        let mut names = Vec::new();
        let entries = match fs::read_dir(self.links()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
            Err(error) => {
                return Err(KernelError::io(format!("reading {}", self.links().display()))(
                    error,
                ));
            }
        };
        for entry in entries {
            let entry = entry.map_err(KernelError::io("reading the pinned links"))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Names of the layouts of other versions that have state here.
    pub fn other_layouts(&self) -> Vec<String> {
        let Some(all) = self.root.parent() else {
            return Vec::new();
        };
        let entries = fs::read_dir(all).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter(|entry| entry.path() != self.root && entry.path().join("maps").is_dir())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// The link to the interface `name` that another layout's shield has there.
    pub fn foreign_link(&self, name: &str) -> Option<PathBuf> {
        let all = self.root.parent()?;
        let links = self
            .other_layouts()
            .into_iter()
            .map(|layout| all.join(layout).join("links").join(name));
        links.into_iter().find(|path| path.exists())
    }

    /// Refuses to go on beside a daemon that has the shield under another layout: its links would be taken from under it.
    ///
    /// # Errors
    /// There is one.
    pub fn refuse_other_daemons(&self) -> Result<(), KernelError> {
        let all = self.root.parent().unwrap_or(&self.root);
        let claimed = |layout: &String| is_claimed(&all.join(layout).join("maps"));
        match self.other_layouts().iter().find(|layout| claimed(layout)) {
            Some(layout) => Err(KernelError::Claimed(all.join(layout))),
            None => Ok(()),
        }
    }

    /// Removes the state of another layout whose links are all gone, which is no shield any more. A daemon that has claimed
    /// it may go back to it; with `retired` there is none that would.
    ///
    /// # Errors
    /// A pin cannot be removed.
    pub fn remove_forsaken(&self, retired: bool) -> Result<Vec<String>, KernelError> {
        let Some(all) = self.root.parent() else {
            return Ok(Vec::new());
        };
        let mut removed = Vec::new();
        for layout in self.other_layouts() {
            let root = all.join(&layout);
            if fs::read_dir(root.join("links")).is_ok_and(|mut links| links.next().is_some())
                || !retired && is_claimed(&root.join("maps"))
            {
                continue;
            }
            let other = Self {
                bpffs: self.bpffs.clone(),
                root,
            };
            other.remove()?;
            removed.push(layout);
        }
        Ok(removed)
    }

    /// Makes the directories, mounting the BPF file system if it is missing.
    ///
    /// # Errors
    /// No BPF file system and none can be mounted; the directory cannot be made.
    pub fn prepare(&self) -> Result<(), KernelError> {
        let mount_point = existing_ancestor(&self.bpffs);
        if !is_bpffs(&mount_point) {
            mount_bpffs(Path::new(DEFAULT_BPFFS), &self.bpffs)?;
        }
        for directory in [
            self.bpffs.join("breakwater"),
            self.root.clone(),
            self.maps(),
            self.links(),
        ] {
            let made = fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory);
            made.map_err(KernelError::io(format!("making {}", directory.display())))?;
            // Where everybody may write (a BPF file system's default), somebody else may have been first: who owns
            // a directory can take the pins out of it, and the shield off with them.
            let found = fs::symlink_metadata(&directory)
                .map_err(KernelError::io(format!("looking at {}", directory.display())))?;
            let is_ours = found.uid() == geteuid().as_raw() || found.uid() == 0;
            if !found.is_dir() || !is_ours || found.mode() & 0o022 != 0 {
                return Err(KernelError::ForeignDirectory(directory));
            }
        }
        Ok(())
    }

    /// Claims the shield for a daemon, as long as the answer is kept: two daemons would undo each other's work.
    ///
    /// # Errors
    /// Another one has it.
    pub fn claim(&self) -> Result<Lock, KernelError> {
        let directory = File::open(self.maps()).map_err(KernelError::io("opening the pin directory"))?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock { directory }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(KernelError::Claimed(self.root.clone())),
            Err(error) => Err(KernelError::io("claiming the shield")(error.into())),
        }
    }

    /// The right to take samples out of the ring buffer, as long as the answer is kept. With `wait` it waits for
    /// whoever has it, else it is `None` if somebody has.
    ///
    /// # Errors
    /// There is nothing pinned.
    pub fn reader(&self, wait: bool) -> Result<Option<Lock>, KernelError> {
        let directory = File::open(self.links()).map_err(KernelError::io("opening the pin directory"))?;
        let operation = if wait {
            FlockOperation::LockExclusive
        } else {
            FlockOperation::NonBlockingLockExclusive
        };
        match flock(&directory, operation) {
            Ok(()) => Ok(Some(Lock { directory })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(KernelError::io("asking for the ring buffer")(error.into())),
        }
    }

    /// Takes the lock, waiting for whoever has it.
    ///
    /// # Errors
    /// There is nothing pinned.
    pub fn lock(&self) -> Result<Lock, KernelError> {
        let directory = File::open(&self.root).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => KernelError::NotAttached(self.root.clone()),
            _ => KernelError::io(format!("opening {}", self.root.display()))(error),
        })?;
        flock(&directory, FlockOperation::LockExclusive)
            .map_err(|error| KernelError::io(format!("locking {}", self.root.display()))(error.into()))?;
        Ok(Lock { directory })
    }

    /// Removes every pin of this layout and the directories that are left empty. Links first: the program must be
    /// gone before its maps are.
    ///
    /// # Errors
    /// A pin cannot be removed.
    pub fn remove(&self) -> Result<(), KernelError> {
        for directory in [self.links(), self.maps()] {
            let Ok(entries) = fs::read_dir(&directory) else {
                continue;
            };
            for entry in entries.flatten() {
                fs::remove_file(entry.path())
                    .map_err(KernelError::io(format!("removing {}", entry.path().display())))?;
            }
        }
        for directory in [
            self.links(),
            self.maps(),
            self.root.clone(),
            self.bpffs.join("breakwater"),
        ] {
            // Fails where another layout version still has pins, which is as it should be.
            _ = fs::remove_dir(directory);
        }
        Ok(())
    }
}

/// Mode of the directory `path` in a BPF file system; none if it is in none.
///
/// # Errors
/// It cannot be looked at.
pub fn state_of(path: &Path) -> io::Result<Option<u32>> {
    let at = existing_ancestor(path);
    if !is_bpffs(&at) {
        return Ok(None);
    }
    Ok(Some(fs::metadata(at)?.mode()))
}

/// Whether a process is the daemon of the shield with these maps.
fn is_claimed(maps: &Path) -> bool {
    // Asked of a descriptor of its own, which lets go at once what it was given.
    File::open(maps).is_ok_and(|directory| {
        flock(&directory, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
    })
}

fn existing_ancestor(path: &Path) -> PathBuf {
    path.ancestors()
        .find(|ancestor| ancestor.exists())
        .unwrap_or(Path::new("/"))
        .to_path_buf()
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|StatFs { f_type, .. }| f_type.cast_unsigned() & 0xffff_ffff == BPF_FS_MAGIC)
}

fn mount_bpffs(at: &Path, wanted: &Path) -> Result<(), KernelError> {
    let refused = |source: io::Error| KernelError::NoBpffs {
        path: at.to_path_buf(),
        source,
    };
    if !wanted.starts_with(at) {
        return Err(KernelError::NoBpffs {
            path: wanted.to_path_buf(),
            source: io::Error::new(io::ErrorKind::Unsupported, "not a BPF file system"),
        });
    }
    rustix::mount::mount(
        "bpf",
        at,
        "bpf",
        rustix::mount::MountFlags::empty(),
        Some(c"mode=0700"),
    )
    .map_err(|error| refused(error.into()))?;
    tracing::info!(path = %at.display(), "mounted a BPF file system");
    Ok(())
}
