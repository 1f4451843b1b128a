//! Follows the files that keys and revocations come from.
//!
//! Looks at each file's identity, size and time every second: that sees edits, replacements and swapped links alike,
//! on every file system. A file that cannot be read or understood changes nothing but the status.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use tokio::{task::spawn_blocking, time::sleep};

use super::{
    Authority,
    provider::{self, ProviderState},
    revocation::Revocations,
};

/// Time between two looks: a change is in force this much later.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(1);

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
        tokio::spawn(run(Arc::downgrade(authority), stamps));
    }
}

/// Device, inode, size, and time of the last change in nanoseconds.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

async fn run(authority: Weak<Authority>, mut stamps: Vec<(PathBuf, Stamp)>) {
    loop {
        sleep(WATCH_INTERVAL).await;
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
