//! Files that hold keys.
//!
//! What is in them is read here only to measure a secret; parsing keys belongs to authentication.

use std::{io::Read, path::Path};

pub use super::trusted::Fault;
use super::{
    bounds::MAX_KEY_FILE_BYTES,
    trusted::{self, Exposure, Terms},
};

/// What a key file must be like.
const fn terms(exposure: Exposure) -> Terms {
    Terms {
        exposure,
        most_bytes: MAX_KEY_FILE_BYTES,
        may_be_empty: false,
    }
}

/// Reads an HMAC secret: the file's bytes without a final newline, at least `least` of them.
pub fn read_secret(path: &Path, least: usize) -> Result<Vec<u8>, Fault> {
    let mut secret = Vec::new();
    trusted::open(path, terms(Exposure::Secret))?
        .take(MAX_KEY_FILE_BYTES)
        .read_to_end(&mut secret)
        .map_err(|error| trusted::unreadable(path, &error))?;
    // As authentication reads it: some editors end lines in two bytes.
    for end in *b"\n\r" {
        if secret.last() == Some(&end) {
            secret.pop();
        }
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
    trusted::open(path, terms(exposure)).map(drop)
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
