//! Certificate chains, their keys, and the authorities that vouch for clients: out of files, checked as a pair.
//!
//! The same functions serve the check of a configuration and every later reload, so what starts is what would be
//! taken up. Says never what is in a key file.

use std::{
    fmt,
    io::Read,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{RootCertStore, crypto::aws_lc_rs::sign::any_supported_type, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use super::{
    CertificateFiles,
    bounds::MAX_KEY_FILE_BYTES,
    trusted::{self, Exposure, Fault, Terms},
};

/// A certificate that ends within this time is told about.
const SOON: Duration = Duration::from_hours(14 * 24);

/// A name that a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Name {
    /// One host, in lower case.
    Exact(String),
    /// Every host one label below this one.
    Wildcard(String),
}

impl Name {
    /// Reads `example.org` or `*.example.org`; `None` if it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        let (wildcard, host) = match lower.strip_prefix("*.") {
            Some(host) => (true, host),
            None => (false, lower.as_str()),
        };
        let is_label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        if host.len() > 253 || !host.split('.').all(is_label) {
            return None;
        }
        Some(if wildcard {
            Self::Wildcard(host.to_owned())
        } else {
            Self::Exact(host.to_owned())
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Wildcard(host) => write!(f, "*.{host}"),
        }
    }
}

/// A chain with the key that belongs to it.
#[derive(Debug, Clone)]
pub struct Pair {
    /// For the handshake.
    pub key: Arc<CertifiedKey>,
    /// What it is for: as configured, else as the certificate says.
    pub names: Vec<Name>,
    /// When it ends, in seconds since 1970.
    pub ends: i64,
}

impl Pair {
    /// What somebody should know about it, if anything.
    pub fn note(&self, now: SystemTime) -> Option<String> {
        let left = self.ends - seconds(now);
        (left < i64::try_from(SOON.as_secs()).unwrap_or(i64::MAX))
            .then(|| format!("the certificate ends within {} days", left / 86_400 + 1))
    }
}

/// Which of the two files is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairFault {
    /// The chain.
    #[error("{0}")]
    Certificate(Fault),
    /// The key.
    #[error("{0}")]
    Key(Fault),
}

/// Reads a chain and its key, and checks that they belong together and are in force at `now`.
///
/// # Errors
/// A file that cannot be read, is open to others or holds something else; a pair that does not match; a certificate
/// that has ended or not begun.
pub fn load(files: &CertificateFiles, now: SystemTime) -> Result<Pair, PairFault> {
    let shown = files.certificate_file.display();
    let chain = chain(&files.certificate_file).map_err(PairFault::Certificate)?;
    let fault = |message: String, help: &str| Err(PairFault::Certificate(Fault::new(message, help)));
    let Some(Ok((_, leaf))) = chain.first().map(|leaf| X509Certificate::from_der(leaf)) else {
        return fault(
            format!("{shown} does not begin with an X.509 certificate"),
            "the server's own certificate comes first, then those that vouch for it",
        );
    };
    let (begins, ends) = (
        leaf.validity().not_before.timestamp(),
        leaf.validity().not_after.timestamp(),
    );
    if ends < seconds(now) {
        return fault(
            format!(
                "the certificate in {shown} ended on {}",
                leaf.validity().not_after
            ),
            "renew it",
        );
    }
    if begins > seconds(now) {
        return fault(
            format!(
                "the certificate in {shown} begins on {}",
                leaf.validity().not_before
            ),
            "wait until then, or set the clock right",
        );
    }
    let names = if files.names.is_empty() {
        own_names(&leaf)
    } else {
        files.names.iter().filter_map(|name| Name::parse(name)).collect()
    };
    let key = private_key(&files.key_file).map_err(PairFault::Key)?;
    let signer = any_supported_type(&key).map_err(|_| {
        PairFault::Key(Fault::new(
            format!(
                "the key in {} is of a kind that is not supported",
                files.key_file.display()
            ),
            "ECDSA P-256, P-384 or P-521, Ed25519, or RSA of 2048 bits and more",
        ))
    })?;
    let key = CertifiedKey::new(chain, signer);
    if !matches!(key.keys_match(), Ok(())) {
        return Err(PairFault::Key(Fault::new(
            format!(
                "the key in {} is not that of the certificate in {shown}",
                files.key_file.display()
            ),
            "name the key that the certificate was requested with",
        )));
    }
    Ok(Pair {
        key: Arc::new(key),
        names,
        ends,
    })
}

/// Reads the authorities that vouch for client certificates.
///
/// # Errors
/// A file that cannot be read, can be written by others, or holds no usable certificate.
pub fn authorities(path: &Path) -> Result<RootCertStore, Fault> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(path)? {
        roots.add(certificate).map_err(|_| {
            Fault::new(
                format!(
                    "{} holds a certificate that cannot vouch for others",
                    path.display()
                ),
                "certificates of authorities, PEM",
            )
        })?;
    }
    Ok(roots)
}

/// The subject of a certificate, as RFC 4514 writes names; empty if it cannot be read.
pub fn subject(certificate: &[u8]) -> String {
    X509Certificate::from_der(certificate)
        .map(|(_, certificate)| certificate.subject().to_string())
        .unwrap_or_default()
}

fn own_names(leaf: &X509Certificate<'_>) -> Vec<Name> {
    let Ok(Some(extension)) = leaf.subject_alternative_name() else {
        return Vec::new();
    };
    extension
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Name::parse(name),
            _ => None,
        })
        .collect()
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let text = read(path, Exposure::Public)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(Fault::new(
            format!("{} holds no certificate", path.display()),
            "PEM, with -----BEGIN CERTIFICATE-----",
        )),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Fault> {
    let text = read(path, Exposure::Secret)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        Fault::new(
            format!("{} holds no private key", path.display()),
            "PEM without a passphrase, with -----BEGIN PRIVATE KEY-----",
        )
    })
}

fn read(path: &Path, exposure: Exposure) -> Result<Vec<u8>, Fault> {
    let terms = Terms {
        exposure,
        most_bytes: MAX_KEY_FILE_BYTES,
        may_be_empty: false,
    };
    let mut text = Vec::new();
    trusted::open(path, terms)?
        .take(MAX_KEY_FILE_BYTES)
        .read_to_end(&mut text)
        .map_err(|error| trusted::unreadable(path, &error))?;
    Ok(text)
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hosts_or_one_label_below_one() {
        assert_eq!(
            Name::parse("A.example"),
            Some(Name::Exact("a.example".to_owned()))
        );
        assert_eq!(
            Name::parse("*.Example"),
            Some(Name::Wildcard("example".to_owned()))
        );
        for bad in [
            "", "*", "*.", "a..b", "*.*.b", "a.*.b", ".a", "a.", "-a", "a b", "a/b", "f*o.b",
        ] {
            assert_eq!(Name::parse(bad), None, "{bad}");
        }
    }
}
