//! Files that the configuration names: there, readable, regular, of a sane size, and not open to everybody.
//!
//! Knows nothing of what is in them.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

/// Others may read.
const OTHERS_READ: u32 = 0o004;
/// Others may write.
const OTHERS_WRITE: u32 = 0o002;

/// What a file's content is worth to a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exposure {
    /// Everything: nobody else may read it.
    Secret,
    /// Nothing, but replacing it is everything: nobody else may write it.
    Public,
}

/// What a file must be like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// Who may do what with it.
    pub(crate) exposure: Exposure,
    /// Largest size, in bytes.
    pub(crate) most_bytes: u64,
    /// Whether nothing in it means something.
    pub(crate) may_be_empty: bool,
}

/// Why a file or a key cannot be used; never says what is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

impl Fault {
    pub(crate) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: help.into(),
        }
    }
}

/// Opens first and asks afterwards: what is judged is what will be read. Non-blocking, so that a FIFO cannot
/// hang the daemon before it is found not to be a file.
pub(crate) fn open(path: &Path, terms: Terms) -> Result<File, Fault> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)
        .map_err(|error| unreadable(path, &error))?;
    let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
    let shown = path.display();
    if !metadata.is_file() {
        return Err(Fault::new(
            format!("{shown} is not a regular file"),
            "name a file",
        ));
    }
    if metadata.len() == 0 && !terms.may_be_empty {
        return Err(Fault::new(format!("{shown} is empty"), "put the key in it"));
    }
    if metadata.len() > terms.most_bytes {
        return Err(Fault::new(
            format!("{shown} is larger than {} bytes", terms.most_bytes),
            "is it the right file?",
        ));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS_WRITE != 0 {
        return Err(Fault::new(
            format!("{shown} can be written by everybody (mode {mode:04o})"),
            format!("chmod o-w {shown}"),
        ));
    }
    if terms.exposure == Exposure::Secret && mode & OTHERS_READ != 0 {
        return Err(Fault::new(
            format!("{shown} can be read by everybody (mode {mode:04o})"),
            format!("chmod 0600 {shown}"),
        ));
    }
    Ok(file)
}

pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Fault {
    let help = match error.kind() {
        io::ErrorKind::NotFound => {
            "it must exist; a relative path in a configuration starts at its directory"
        }
        io::ErrorKind::PermissionDenied => "the daemon's user must be able to read it",
        _ => "the file must be readable",
    };
    Fault::new(format!("cannot read {}: {error}", path.display()), help)
}
