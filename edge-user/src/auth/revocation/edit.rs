//! Changing a file of revocations from outside the daemon, which watches it.
//!
//! A change is seen whole or not at all: the new text is written beside the file and put in its place. Two changes at
//! once take turns. Comments, order and lines that are not concerned stay; lines that have expired go.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

use super::{
    MAX_REVOCATIONS, MAX_VALUE_BYTES, Revocation, RevocationError, Revoked, parse, parse_line, shown,
};

/// Mode of a file that is made here: whoever runs the daemon may read it, nobody else may write it.
const NEW_FILE_MODE: u32 = 0o644;

/// A change of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Revoke; what is revoked already gets the new end.
    Add(Revocation),
    /// Take a revocation back.
    Delete(Revoked),
}

/// Why a file was not changed.
#[derive(Debug, Error)]
pub enum EditError {
    /// What is in it, or the value, is not usable.
    #[error(transparent)]
    Revocations(#[from] RevocationError),
    /// It cannot be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing to take back.
    #[error("{} does not revoke {what}", path.display())]
    Absent {
        /// Which file.
        path: PathBuf,
        /// What.
        what: String,
    },
}

/// What a file revokes at this second, in its order, each once.
pub fn list(path: &Path, now: i64) -> Result<Vec<Revocation>, EditError> {
    let text = read(path)?;
    parse(path, text.as_bytes())?;
    let mut list: Vec<Revocation> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(one) = revocation(line) {
            list.retain(|other| other.revoked != one.revoked);
            list.push(one);
        }
    }
    list.retain(|one| one.until.is_none_or(|until| now < until));
    Ok(list)
}

/// Changes a file; one that is not there is made by an addition.
///
/// # Errors
/// The file stays as it was.
pub fn apply(path: &Path, change: &Change, now: i64) -> Result<(), EditError> {
    let fault = |what, path: &Path| {
        let path = path.to_owned();
        move |source| EditError::Io { what, path, source }
    };
    // Where the file is, and not a link to it.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let held = File::open(directory).map_err(fault("open the directory of", path))?;
    flock(&held, FlockOperation::LockExclusive)
        .map_err(io::Error::from)
        .map_err(fault("lock the directory of", path))?;
    let (old, before) = match fs::metadata(path) {
        Ok(metadata) => (read(path)?, Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && matches!(change, Change::Add(_)) => {
            (String::new(), None)
        }
        Err(error) => return Err(fault("read", path)(error)),
    };
    parse(path, old.as_bytes())?;
    let new = edited(path, &old, change, now)?;
    // What is written is what the daemon will take.
    parse(path, new.as_bytes())?;
    let beside = beside(path);
    let _ = fs::remove_file(&beside);
    let written = write(&beside, &new, before.as_ref())
        .and_then(|()| fs::rename(&beside, path))
        .and_then(|()| held.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written.map_err(fault("write", path))
}

fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

fn write(path: &Path, text: &str, like: Option<&fs::Metadata>) -> io::Result<()> {
    let mode = like.map_or(NEW_FILE_MODE, |metadata| metadata.mode() & 0o777);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    if let Some(metadata) = like {
        // Not everybody may give files away; the daemon reads it either way or says why not.
        let _ = fchown(&file, Some(metadata.uid()), Some(metadata.gid()));
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn read(path: &Path) -> Result<String, EditError> {
    fs::read_to_string(path).map_err(|source| EditError::Io {
        what: "read",
        path: path.to_owned(),
        source,
    })
}

fn revocation(line: &str) -> Option<Revocation> {
    (!line.is_empty() && !line.starts_with('#'))
        .then(|| parse_line(line).ok())
        .flatten()
}

/// The text after a change.
fn edited(path: &Path, old: &str, change: &Change, now: i64) -> Result<String, EditError> {
    let revoked = match change {
        Change::Add(revocation) => &revocation.revoked,
        Change::Delete(revoked) => revoked,
    };
    let mut new = String::with_capacity(old.len() + 64);
    let (mut kept, mut was_there) = (0, false);
    for line in old.lines() {
        if let Some(one) = revocation(line.trim()) {
            let is_it = one.revoked == *revoked;
            was_there |= is_it;
            if is_it || one.until.is_some_and(|until| until <= now) {
                continue;
            }
            kept += 1;
        }
        new.push_str(line);
        new.push('\n');
    }
    match change {
        Change::Add(_) if kept >= MAX_REVOCATIONS => return Err(RevocationError::TooMany.into()),
        Change::Add(revocation) => {
            let (Revoked::Token(value) | Revoked::Subject(value)) = &revocation.revoked;
            if value.is_empty() || value.len() > MAX_VALUE_BYTES {
                return Err(RevocationError::Value.into());
            }
            new.push_str(&shown(revocation));
            new.push('\n');
        }
        Change::Delete(_) if !was_there => {
            let what = shown(&Revocation {
                revoked: revoked.clone(),
                until: None,
            });
            return Err(EditError::Absent {
                path: path.to_owned(),
                what,
            });
        }
        Change::Delete(_) => {}
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    //! What changes, what stays, and what is refused.

    use proptest::prelude::*;

    use super::*;

    fn subject(name: &str, until: Option<i64>) -> Revocation {
        Revocation {
            revoked: Revoked::Subject(name.into()),
            until,
        }
    }

    #[test]
    fn comments_and_other_lines_stay_and_what_expired_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revoked");
        fs::write(&path, "# kept\n\n  jti old 5\njti \"a b\" 900\nsub alice\n").unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        apply(&path, &Change::Add(subject("alice", Some(700))), 10).unwrap();
        apply(&path, &Change::Add(subject("#x y", None)), 10).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "# kept\n\njti \"a b\" 900\nsub alice 1970-01-01T00:11:40Z\nsub \"#x y\"\n"
        );
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        apply(&path, &Change::Delete(Revoked::Token("a b".into())), 10).unwrap();
        let left = list(&path, 10).unwrap();
        assert_eq!(left, [subject("alice", Some(700)), subject("#x y", None)]);
        assert_eq!(list(&path, 700).unwrap(), [subject("#x y", None)]);
        let absent = apply(&path, &Change::Delete(Revoked::Subject("bob".into())), 10).unwrap_err();
        assert!(absent.to_string().contains("does not revoke sub bob"), "{absent}");
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_made_and_a_bad_one_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revoked");
        assert!(apply(&path, &Change::Delete(Revoked::Subject("x".into())), 0).is_err());
        apply(&path, &Change::Add(subject("x", None)), 0).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "sub x\n");
        fs::write(&path, "sub x\nnonsense\n").unwrap();
        let error = apply(&path, &Change::Add(subject("y", None)), 0)
            .unwrap_err()
            .to_string();
        assert!(error.contains("revoked:2: "), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "sub x\nnonsense\n");
        assert!(
            apply(
                &directory.path().join("no/where"),
                &Change::Add(subject("y", None)),
                0
            )
            .is_err()
        );
    }

    #[test]
    fn changes_at_once_take_turns() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revoked");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    for number in 0..10 {
                        apply(
                            path,
                            &Change::Add(subject(&format!("{writer}-{number}"), None)),
                            0,
                        )
                        .unwrap();
                    }
                });
            }
        });
        assert_eq!(list(&path, 0).unwrap().len(), 40);
    }

    proptest! {
        #[test]
        fn any_value_is_read_as_it_was_written(value in "\\PC{1,40}|[ \\t\"#\\\\\\n\\r]{1,9}", until in prop::option::of(0_i64..4_000_000_000)) {
            let one = Revocation { revoked: Revoked::Token(value.into()), until };
            let set = parse(Path::new("list"), shown(&one).as_bytes()).unwrap();
            prop_assert_eq!(set.get(&one.revoked).copied(), Some(until.unwrap_or(i64::MAX)));
        }
    }
}
