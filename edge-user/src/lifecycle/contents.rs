//! What is in the files of certificates, as far as a reload has to tell that it is another under the same path.
//!
//! Keeps digests alone, nothing of a key. Whether the files can be used is not judged here.

use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hasher as _},
    path::{Path, PathBuf},
};

use super::changes::{Change, What};
use crate::config::Config;

/// Digests by path; none of what cannot be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Contents(BTreeMap<PathBuf, Option<u64>>);

impl Contents {
    /// Reads every file of certificates, keys and authorities that `config` names.
    pub(super) fn read(config: &Config) -> Self {
        let listeners = config.listeners.iter().filter_map(|one| one.tls.as_ref());
        let ours = listeners.flat_map(|tls| {
            let pairs = tls.certificates.iter();
            pairs
                .flat_map(|pair| [&pair.certificate_file, &pair.key_file])
                .chain(tls.client_certificates.ca_file())
        });
        let upstreams = config.upstreams.iter().filter_map(|one| one.tls.as_ref());
        let theirs = upstreams.flat_map(|tls| {
            let identity = tls.identity.iter();
            identity
                .flat_map(|identity| [&identity.certificate_file, &identity.key_file])
                .chain(&tls.ca_file)
        });
        Self(
            ours.chain(theirs)
                .map(|path| (path.clone(), digest(path)))
                .collect(),
        )
    }

    /// Files that are named in both, and hold something else in `new`.
    pub(super) fn changes(&self, new: &Self) -> Vec<Change> {
        let is_other = |(path, digest): &(&PathBuf, &Option<u64>)| {
            self.0.get(*path).is_some_and(|before| before != *digest)
        };
        let changed = new.0.iter().filter(is_other);
        changed
            .map(|(path, _)| Change {
                kind: "certificate file",
                name: path.display().to_string(),
                what: What::Changed,
            })
            .collect()
    }
}

fn digest(path: &Path) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    hasher.write(&fs::read(path).ok()?);
    Some(hasher.finish())
}
