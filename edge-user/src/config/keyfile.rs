//! Files that hold keys: there, readable, regular, of a sane size, and not open to everybody.
//!
//! What is in them is read here only to measure a secret; parsing keys belongs to authentication.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use super::bounds::MAX_KEY_FILE_BYTES;

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

/// Why a key cannot be used; never says what is in it.
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

/// Reads an HMAC secret: the file's bytes without a final newline, at least `least` of them.
pub fn read_secret(path: &Path, least: usize) -> Result<Vec<u8>, Fault> {
    let mut secret = Vec::new();
    open(path, Exposure::Secret)?
        .take(MAX_KEY_FILE_BYTES)
        .read_to_end(&mut secret)
        .map_err(|error| unreadable(path, &error))?;
    if secret.last() == Some(&b'\n') {
        secret.pop();
    }
    long_enough(secret.len(), least, &format!("the secret in {}", path.display()))?;
    Ok(secret)
}

/// Checks an HMAC secret as [`read_secret`] would.
pub(crate) fn check_secret(path: &Path, least: usize) -> Result<(), Fault> {
    read_secret(path, least).map(drop)
}

/// Checks that a key file can be read and by whom.
pub(crate) fn check(path: &Path, exposure: Exposure) -> Result<(), Fault> {
    open(path, exposure).map(drop)
}

/// Checks the length of a secret, in bytes.
pub(crate) fn long_enough(length: usize, least: usize, what: &str) -> Result<(), Fault> {
    if length == 0 {
        return Err(Fault::new(
            format!("{what} is empty"),
            format!("it must be at least {least} random bytes"),
        ));
    }
    if length < least {
        return Err(Fault::new(
            format!("{what} is {length} bytes long, shorter than its hash"),
            format!("at least {least} bytes (RFC 7518 section 3.2), as from `openssl rand -base64 {least}`"),
        ));
    }
    Ok(())
}

/// Opens first and asks afterwards: what is judged is what will be read. Non-blocking, so that a FIFO cannot
/// hang the daemon before it is found not to be a file.
fn open(path: &Path, exposure: Exposure) -> Result<File, Fault> {
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
    if metadata.len() == 0 {
        return Err(Fault::new(format!("{shown} is empty"), "put the key in it"));
    }
    if metadata.len() > MAX_KEY_FILE_BYTES {
        return Err(Fault::new(
            format!("{shown} is larger than {MAX_KEY_FILE_BYTES} bytes"),
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
    if exposure == Exposure::Secret && mode & OTHERS_READ != 0 {
        return Err(Fault::new(
            format!("{shown} can be read by everybody (mode {mode:04o})"),
            format!("chmod 0600 {shown}"),
        ));
    }
    Ok(file)
}

fn unreadable(path: &Path, error: &io::Error) -> Fault {
    let help = match error.kind() {
        io::ErrorKind::NotFound => {
            "it must exist; a relative path in a configuration starts at its directory"
        }
        io::ErrorKind::PermissionDenied => "the daemon's user must be able to read it",
        _ => "the file must be readable",
    };
    Fault::new(format!("cannot read {}: {error}", path.display()), help)
}
