//! Follows the files that keys and revocations come from.
//!
//! The kernel tells when something changes in their directories (inotify), and they are looked at then; besides, each
//! file's identity, size and time is looked at every second: that sees edits, replacements and swapped links alike, on
//! every file system. A file that cannot be read or understood changes nothing but the status.

use std::{
    collections::BTreeSet,
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use rustix::fs::inotify;
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::spawn_blocking,
    time::sleep,
};

use super::{
    Authority,
    provider::{self, ProviderState},
    revocation::Revocations,
};

/// Longest time between two looks: a change is in force this much later at the latest.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest time between two looks, whatever goes on in the directories.
const LEAST_INTERVAL: Duration = Duration::from_millis(5);

/// Starts the task; it ends soon after the authority is no longer used by anybody.
pub(super) fn spawn(authority: &Arc<Authority>) {
    let files = authority
        .providers()
        .iter()
        .filter_map(|state| state.key_file())
        .chain(authority.revocation_file());
    // The first look reads every file again, so that no change falls between loading and watching.
    let stamps: Vec<_> = files.map(|path| (path.to_owned(), None)).collect();
    if !stamps.is_empty() {
        let changes = Changes::of(stamps.iter().map(|(path, _)| path.as_path()));
        tokio::spawn(run(Arc::downgrade(authority), stamps, changes));
    }
}

/// Device, inode, size, and time of the last change in nanoseconds.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

async fn run(authority: Weak<Authority>, mut stamps: Vec<(PathBuf, Stamp)>, mut changes: Changes) {
    loop {
        sleep(LEAST_INTERVAL).await;
        tokio::select! {
            () = sleep(WATCH_INTERVAL) => {}
            () = changes.next() => {}
        }
        let Some(authority) = authority.upgrade() else {
            return;
        };
        let look = spawn_blocking(move || {
            for (path, seen) in &mut stamps {
                let now = stamp(path);
                if now != *seen {
                    *seen = now;
                    changed(&authority, path);
                }
            }
            stamps
        });
        match look.await {
            Ok(same) => stamps = same,
            Err(error) => {
                tracing::error!(%error, "key and revocation files are no longer watched");
                return;
            }
        }
    }
}

/// What the kernel tells about the directories of the watched files; nothing where it cannot.
struct Changes(Option<AsyncFd<OwnedFd>>);

impl Changes {
    fn of<'p>(files: impl Iterator<Item = &'p Path>) -> Self {
        let directories: BTreeSet<_> = files
            .filter_map(Path::parent)
            .map(|parent| {
                if parent.as_os_str().is_empty() {
                    Path::new(".")
                } else {
                    parent
                }
            })
            .collect();
        let watching = || -> io::Result<AsyncFd<OwnedFd>> {
            let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
            let wanted = inotify::WatchFlags::CLOSE_WRITE
                | inotify::WatchFlags::MOVED_TO
                | inotify::WatchFlags::CREATE
                | inotify::WatchFlags::DELETE
                | inotify::WatchFlags::ATTRIB;
            for directory in directories {
                inotify::add_watch(&watch, directory, wanted)?;
            }
            // SAFETY: an owned descriptor stays open, and the same, for as long as its owner, which is never exchanged.
            Ok(unsafe { AsyncFd::register_with_interest(watch, Interest::READABLE) }?)
        };
        Self(
            watching()
                .inspect_err(|error| tracing::debug!(%error, "no inotify: files are looked at every second"))
                .ok(),
        )
    }

    /// Waits until something changed.
    async fn next(&mut self) {
        let Some(watch) = &self.0 else {
            return std::future::pending().await;
        };
        let read = async {
            loop {
                let mut ready = watch.readable().await?;
                let mut events = [0; 4096];
                let read = ready.try_io(|watch| Ok(rustix::io::read(watch.get_ref(), &mut events)?));
                // What the events say does not matter: every file is looked at.
                if let Ok(result) = read {
                    return result;
                }
            }
        };
        if let Err(error) = read.await {
            tracing::debug!(%error, "inotify ended: files are looked at every second");
            self.0 = None;
        }
    }
}

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    ))
}

fn changed(authority: &Authority, path: &Path) {
    for state in authority
        .providers()
        .iter()
        .filter(|state| state.key_file() == Some(path))
    {
        reload_keys(state);
    }
    if authority.revocation_file() == Some(path) {
        match Revocations::read_file(path) {
            Ok(revocations) => authority.revocations().replace_file(revocations),
            Err(error) => tracing::error!(%error, "revocations stay as they were"),
        }
    }
}

fn reload_keys(state: &ProviderState) {
    let name = &state.config().name;
    match provider::local_keys(state.config()) {
        Ok(keys) => {
            if state.note_success(keys, SystemTime::now()) {
                tracing::info!(provider = name, "other keys are in force");
            }
        }
        Err(error) => {
            tracing::error!(provider = name, %error, "keys stay as they were");
            state.note_failure(&error, SystemTime::now());
        }
    }
}
