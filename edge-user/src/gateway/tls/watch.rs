//! Follows the files that certificates, keys and authorities come from.
//!
//! A thread looks at each file's identity, size and time every second; that sees edits, replacements and swapped links
//! alike. What has changed is read as a whole; if it is not good, what was in force stays so, and that is told once for
//! each change.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, SystemTime},
};

use super::Terminator;

/// Time between two looks: a change is in force this much later.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// Device, inode, size, and time of the last change.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// Looks until the other end of `stop` is gone.
pub(crate) fn run(terminators: impl Fn() -> Vec<Arc<Terminator>>, stop: &Receiver<()>) {
    // The first look reads every file again, so that no change falls between loading and watching.
    let mut seen: HashMap<String, Vec<Stamp>> = HashMap::new();
    while stop.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let terminators = terminators();
        seen.retain(|listener, _| terminators.iter().any(|one| one.listener() == listener));
        for terminator in terminators {
            let now: Vec<Stamp> = terminator.files().map(|path| stamp(path)).collect();
            let before = seen.insert(terminator.listener().to_owned(), now.clone());
            if before.as_ref() != Some(&now) {
                reload(&terminator, before.is_none());
            }
        }
    }
}

/// Reads a listener's files again, and tells what came of it.
pub(crate) fn reload(terminator: &Terminator, quietly: bool) {
    let listener = terminator.listener();
    match terminator.reload(SystemTime::now()) {
        Ok(()) if quietly => {}
        Ok(()) => tracing::info!(listener, "certificates read again, in force from now on"),
        Err(error) => tracing::error!(listener, %error, "certificates stay as they were"),
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
