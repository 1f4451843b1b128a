//! Notices that a file has changed which the daemon was configured by.
//!
//! The kernel tells what happens in the directories, also in those that links lead through (editors replace a file by
//! another name's, Kubernetes swaps a link); each file's identity, size and time then say whether it is another. They are
//! looked at now and then besides, for file systems that tell nothing. Changes that come together are one.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout_at},
};

use crate::config::Config;

/// Time between two looks where nothing is told.
const LOOK: Duration = Duration::from_secs(2);
/// So long it has to be quiet before files are looked at: they are often written in several steps.
const QUIET: Duration = Duration::from_millis(50);
/// So long after the first sign they are looked at whatever goes on.
const PATIENCE: Duration = Duration::from_secs(1);
/// Links that are followed from one file.
const MAX_LINKS: usize = 16;

/// Device, inode, size, and time of the last change; none if there is no such file.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// The files, as they were last.
pub(super) struct Files {
    stamps: Vec<(PathBuf, Stamp)>,
    directories: BTreeSet<PathBuf>,
    watcher: Option<RecommendedWatcher>,
    signs: mpsc::Receiver<()>,
    /// Since when there was a sign that has not been looked into.
    sign: Option<Instant>,
}

impl Files {
    /// Watches `files` from now on.
    pub(super) fn watch(files: Vec<PathBuf>) -> Self {
        // One sign that waits says as much as many.
        let (sender, signs) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading is not changing.
            if event.is_ok_and(|event| !event.kind.is_access()) {
                let _ = sender.try_send(());
            }
        });
        let mut all = Self {
            stamps: Vec::new(),
            directories: BTreeSet::new(),
            watcher: watcher
                .inspect_err(|error| tracing::debug!(%error, "files are looked at every two seconds"))
                .ok(),
            signs,
            sign: None,
        };
        all.follow(files);
        all
    }

    /// Watches `files` instead, as they are now.
    pub(super) fn follow(&mut self, files: Vec<PathBuf>) {
        self.stamps = files
            .into_iter()
            .map(|path| (path.clone(), stamp(&path)))
            .collect();
        self.follow_directories();
    }

    /// Watches exactly `files`; those that were watched before are compared with what they were then.
    pub(super) fn extend(&mut self, files: Vec<PathBuf>) {
        let before = std::mem::take(&mut self.stamps);
        let known = |path: &PathBuf| {
            before
                .iter()
                .find(|(own, _)| own == path)
                .map(|(_, stamp)| *stamp)
        };
        self.stamps = files
            .into_iter()
            .map(|path| {
                let stamp = known(&path).unwrap_or_else(|| stamp(&path));
                (path, stamp)
            })
            .collect();
        self.follow_directories();
    }

    fn follow_directories(&mut self) {
        let wanted: BTreeSet<PathBuf> = self
            .stamps
            .iter()
            .flat_map(|(path, _)| directories(path))
            .collect();
        let Some(watcher) = &mut self.watcher else { return };
        for gone in self.directories.difference(&wanted) {
            // It may be gone itself.
            let _ = watcher.unwatch(gone);
        }
        for new in wanted.difference(&self.directories) {
            if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                tracing::debug!(%error, directory = %new.display(), "looked at every two seconds");
            }
        }
        self.directories = wanted;
    }

    /// Waits until one of the files is another. Cancel safe.
    pub(super) async fn changed(&mut self) {
        loop {
            if let Some(since) = self.sign {
                let quiet = (Instant::now() + QUIET).min(since + PATIENCE);
                if Instant::now() < quiet
                    && matches!(timeout_at(quiet, self.signs.recv()).await, Ok(Some(())))
                {
                    continue;
                }
                self.sign = None;
            } else {
                tokio::select! {
                    Some(()) = self.signs.recv() => {
                        self.sign = Some(Instant::now());
                        continue;
                    }
                    () = sleep(LOOK) => {}
                }
            }
            let mut is_other = false;
            for (path, seen) in &mut self.stamps {
                let now = stamp(path);
                is_other |= now != *seen;
                *seen = now;
            }
            if is_other {
                // A link may lead elsewhere now.
                self.follow_directories();
                return;
            }
        }
    }
}

/// What a reload reads and nobody else follows: certificates, keys and revocations are taken up by whoever uses them.
pub(super) fn of(path: &Path, config: &Config) -> Vec<PathBuf> {
    let mut files = vec![path.to_owned()];
    files.extend(config.shield.allow_file.clone());
    files.extend(config.shield.deny_file.clone());
    for tls in config
        .upstreams
        .iter()
        .filter_map(|upstream| upstream.tls.as_ref())
    {
        files.extend(tls.ca_file.clone());
        if let Some(identity) = &tls.identity {
            files.push(identity.certificate_file.clone());
            files.push(identity.key_file.clone());
        }
    }
    files
}

/// The directories in which something can make `path` another file.
fn directories(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        // A directory of the way may be a link, too.
        if let Ok(target) = fs::read_link(&parent) {
            let above = parent.parent().unwrap_or(Path::new("."));
            found.push(above.to_owned());
            found.push(above.join(target));
        }
        found.push(parent.clone());
        match fs::read_link(&path) {
            Ok(target) => path = parent.join(target),
            Err(_) => break,
        }
    }
    found
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

#[cfg(test)]
mod tests {
    //! Each way in which a file becomes another.

    use std::os::unix::fs::symlink;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn edits_replacements_and_swapped_links_are_noticed_and_reading_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        fs::write(at("plain"), "1").expect("written");
        fs::create_dir(at("one")).expect("made");
        fs::create_dir(at("two")).expect("made");
        for version in ["one", "two"] {
            fs::write(at(version).join("edge.toml"), version).expect("written");
        }
        // As Kubernetes mounts a ConfigMap.
        symlink("one", at("..data")).expect("linked");
        symlink("..data/edge.toml", at("edge.toml")).expect("linked");
        let mut files = Files::watch(vec![at("plain"), at("edge.toml"), at("absent")]);
        let soon = Duration::from_millis(1500);

        fs::write(at("plain"), "12").expect("written");
        timeout(soon, files.changed()).await.expect("an edit");
        fs::write(at("new"), "123").expect("written");
        fs::rename(at("new"), at("plain")).expect("renamed");
        timeout(soon, files.changed()).await.expect("a replacement");
        symlink("two", at("..next")).expect("linked");
        fs::rename(at("..next"), at("..data")).expect("swapped");
        timeout(soon, files.changed()).await.expect("a swapped link");
        fs::write(at("two").join("edge.toml"), "three").expect("written");
        timeout(soon, files.changed())
            .await
            .expect("an edit behind the link");
        fs::write(at("absent"), "now").expect("written");
        timeout(soon, files.changed()).await.expect("a new file");
        fs::remove_file(at("absent")).expect("removed");
        timeout(soon, files.changed()).await.expect("a file that went");

        fs::read(at("plain")).expect("read");
        fs::write(at("other"), "nobody's").expect("written");
        assert!(
            timeout(Duration::from_millis(400), files.changed())
                .await
                .is_err(),
            "nothing that matters has changed"
        );
    }
}
