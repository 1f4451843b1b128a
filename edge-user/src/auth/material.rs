//! Key material that lies on this machine: secret files, environment variables, PEM and JWKS files.
//!
//! Reads at start and when a watched file changed, never while a request waits.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use jsonwebtoken::{Algorithm, DecodingKey};
use rustls::{
    pki_types::{
        CertificateDer,
        pem::{PemObject, SectionKind},
    },
    server::ParsedCertificate,
};
use thiserror::Error;

use super::{
    jwk::{self, JwksError, Origin, Skipped},
    key::{Key, KeyError, Material},
};

/// Largest file read for keys or revocations, in bytes.
pub(super) const MAX_FILE_BYTES: u64 = 32 * 1024 * 1024;
const WORLD_READABLE: u32 = 0o004;

/// Why keys cannot be loaded.
#[derive(Debug, Error)]
pub enum MaterialError {
    /// The file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is larger than any key file.
    #[error("{} is larger than {MAX_FILE_BYTES} bytes", .0.display())]
    TooLarge(PathBuf),
    /// Everybody on the machine can forge tokens.
    #[error("{} holds a shared secret and is readable by everybody: chmod o-r", .0.display())]
    WorldReadable(PathBuf),
    /// The environment variable is not there.
    #[error("environment variable {0} is not set")]
    NoVariable(String),
    /// A file without a PEM section that holds a public key.
    #[error("{} holds no PEM public key or certificate", .0.display())]
    NoPem(PathBuf),
    /// A private key has no business on the verifying side.
    #[error("{} holds a private key; give the public key alone", .0.display())]
    PrivateKey(PathBuf),
    /// A key that cannot be used.
    #[error("{place}: {error}")]
    Key {
        /// File, variable or document.
        place: String,
        /// Why.
        error: KeyError,
    },
    /// A JWKS document that cannot be used.
    #[error("{place}: {error}")]
    Jwks {
        /// File.
        place: String,
        /// Why.
        error: JwksError,
    },
    /// A weak key in a file: an operator's mistake, so nothing is left out silently.
    #[error("{place}: {skipped}")]
    Weak {
        /// File.
        place: String,
        /// Which key, and why.
        skipped: Skipped,
    },
}

/// A shared secret from a file: its bytes without one final newline.
pub(super) fn secret_file(path: &Path, algorithms: &[Algorithm]) -> Result<Vec<Key>, MaterialError> {
    let bytes = read_secret(path)?;
    let secret = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
    secret_key(&path.display().to_string(), secret, algorithms)
}

/// A shared secret from an environment variable.
pub(super) fn secret_env(name: &str, algorithms: &[Algorithm]) -> Result<Vec<Key>, MaterialError> {
    use std::os::unix::ffi::OsStrExt;
    let value = std::env::var_os(name).ok_or_else(|| MaterialError::NoVariable(name.to_owned()))?;
    secret_key(
        &format!("environment variable {name}"),
        value.as_bytes(),
        algorithms,
    )
}

/// A shared secret that is already in memory.
pub(super) fn secret_key(
    place: &str,
    secret: &[u8],
    algorithms: &[Algorithm],
) -> Result<Vec<Key>, MaterialError> {
    one(place, &Material::Secret(secret), algorithms)
}

/// The first public key or certificate of a PEM file. A certificate's key is taken; its names and dates are not
/// looked at, since the operator vouches for the file.
pub(super) fn pem_file(path: &Path, algorithms: &[Algorithm]) -> Result<Vec<Key>, MaterialError> {
    let bytes = read(path)?;
    let place = path.display().to_string();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(&bytes) {
        let (kind, der) = section.map_err(|_| MaterialError::NoPem(path.to_owned()))?;
        match kind {
            SectionKind::PublicKey => return one(&place, &Material::Spki(&der), algorithms),
            SectionKind::Certificate => {
                let certificate = CertificateDer::from(der);
                let invalid = |_| MaterialError::Key {
                    place: place.clone(),
                    error: KeyError::Invalid,
                };
                let spki = ParsedCertificate::try_from(&certificate)
                    .map_err(invalid)?
                    .subject_public_key_info();
                return one(&place, &Material::Spki(&spki), algorithms);
            }
            SectionKind::RsaPrivateKey | SectionKind::PrivateKey | SectionKind::EcPrivateKey => {
                return Err(MaterialError::PrivateKey(path.to_owned()));
            }
            _ => {}
        }
    }
    // The older label, `RSA PUBLIC KEY` of PKCS #1.
    let pkcs1 = DecodingKey::from_rsa_pem(&bytes).map_err(|_| MaterialError::NoPem(path.to_owned()))?;
    let der = pkcs1
        .try_get_as_bytes()
        .map_err(|_| MaterialError::NoPem(path.to_owned()))?;
    one(&place, &Material::Pkcs1(der), algorithms)
}

/// Every usable key of a JWKS file.
pub(super) fn jwks_file(path: &Path, algorithms: &[Algorithm]) -> Result<Vec<Key>, MaterialError> {
    let place = path.display().to_string();
    let bytes = if algorithms.iter().any(|algorithm| is_hmac(*algorithm)) {
        read_secret(path)?
    } else {
        read(path)?
    };
    let parsed = jwk::parse(&bytes, algorithms, Origin::File).map_err(|error| MaterialError::Jwks {
        place: place.clone(),
        error,
    })?;
    for skipped in parsed.skipped {
        if matches!(skipped.reason, jwk::SkipReason::Key(_)) {
            return Err(MaterialError::Weak { place, skipped });
        }
        tracing::warn!(file = place, %skipped, "a key of the JWKS is not used");
    }
    Ok(parsed.keys)
}

/// Whether it is verified with a shared secret.
pub(super) fn is_hmac(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)
}

fn one(place: &str, material: &Material<'_>, algorithms: &[Algorithm]) -> Result<Vec<Key>, MaterialError> {
    let key = Key::new(None, material, algorithms);
    Ok(vec![key.map_err(|error| MaterialError::Key {
        place: place.to_owned(),
        error,
    })?])
}

/// Reads a whole file of bounded size.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, MaterialError> {
    read_open(path, open(path)?)
}

fn read_secret(path: &Path) -> Result<Vec<u8>, MaterialError> {
    let file = open(path)?;
    // The mode of what was opened, not of what the path names a moment later.
    let metadata = file.metadata().map_err(|error| unreadable(path, error))?;
    if metadata.mode() & WORLD_READABLE != 0 {
        return Err(MaterialError::WorldReadable(path.to_owned()));
    }
    read_open(path, file)
}

fn open(path: &Path) -> Result<File, MaterialError> {
    File::open(path).map_err(|error| unreadable(path, error))
}

fn read_open(path: &Path, file: File) -> Result<Vec<u8>, MaterialError> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(path, error))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(MaterialError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}

fn unreadable(path: &Path, error: io::Error) -> MaterialError {
    MaterialError::Read {
        path: path.to_owned(),
        error,
    }
}
