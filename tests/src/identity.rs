//! Whose a directory is: the name of everything a lab leaves outside of namespaces.
//!
//! A name carries the owner's process id and start time, so a later run can tell what a killed one left behind from
//! what a running one still uses. Namespaces need no name: they are held by file descriptors and end with the process.

use std::{
    fs,
    path::Path,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{bpffs, process};

/// What every name starts with.
pub const PREFIX: &str = "breakwater-test-";

/// Name of one lab, unique on the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pid: u32,
    /// Clock ticks after boot at which the process started: tells a reused process id.
    started: u64,
    serial: u32,
}

impl Identity {
    /// A new name of this process.
    pub fn new() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let pid = std::process::id();
        Self {
            pid,
            started: start_time(pid).expect("/proc/self/stat is readable"),
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// The directory name.
    pub fn directory(&self) -> String {
        format!("{PREFIX}{}-{}-{}", self.pid, self.started, self.serial)
    }

    fn parse(directory: &str) -> Option<Self> {
        let mut parts = directory.strip_prefix(PREFIX)?.splitn(3, '-');
        let identity = Self {
            pid: parts.next()?.parse().ok()?,
            started: parts.next()?.parse().ok()?,
            serial: parts.next()?.parse().ok()?,
        };
        Some(identity)
    }

    fn owner_lives(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self::new()
    }
}

/// Removes what killed test processes have left: their bpffs and temporary directories, and any process that still
/// has one of them on its command line. Directories of living owners are left alone. Runs once a process.
pub fn sweep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for parent in [Path::new(bpffs::MOUNT_POINT), &std::env::temp_dir()] {
            sweep_directory(parent);
        }
    });
}

fn sweep_directory(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let stale = name
            .to_str()
            .and_then(Identity::parse)
            .filter(|identity| !identity.owner_lives());
        if let Some(identity) = stale {
            // The slash keeps serial 1 from matching serial 12.
            process::kill_by_argument(&format!("/{}", identity.directory()));
            // Another test process may be sweeping the same directory.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Field 22 of `/proc/PID/stat` (proc_pid_stat(5)).
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in parentheses and may contain anything.
    let (_, after_command) = stat.rsplit_once(')')?;
    after_command.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_parse_back() {
        let (one, other) = (Identity::new(), Identity::new());
        assert_ne!(one, other);
        assert_eq!(Identity::parse(&one.directory()), Some(one.clone()));
        assert!(one.owner_lives());
    }

    #[test]
    fn a_reused_process_id_is_not_the_owner() {
        let mut identity = Identity::new();
        identity.started += 1;
        assert!(!identity.owner_lives());
    }

    #[test]
    fn foreign_names_are_never_ours() {
        for name in [
            "breakwater",
            "breakwater-test-",
            "breakwater-test-1-2",
            "breakwater-test-a-b-c",
            "tmp1",
        ] {
            assert_eq!(Identity::parse(name), None, "{name}");
        }
    }

    #[test]
    fn the_sweep_removes_only_what_the_dead_left() {
        let parent = std::env::temp_dir().join(format!("sweep-{}", std::process::id()));
        let living = Identity::new();
        let mut dead = living.clone();
        dead.started += 1;
        for name in [living.directory(), dead.directory(), "unrelated".to_owned()] {
            fs::create_dir_all(parent.join(name).join("inner")).unwrap();
        }
        sweep_directory(&parent);
        assert!(parent.join(living.directory()).exists());
        assert!(parent.join("unrelated").exists());
        assert!(!parent.join(dead.directory()).exists());
        fs::remove_dir_all(parent).unwrap();
    }
}
