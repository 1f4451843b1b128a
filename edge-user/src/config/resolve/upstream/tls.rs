//! `upstream.tls`: whom to trust, what to ask for, what to show.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{Checks, endpoint::is_name};
use crate::config::{
    ClientIdentity, UpstreamTls, keyfile,
    raw_upstream::RawUpstreamTls,
    section::{Field, Key},
    trusted::{Exposure, Fault},
};

pub(super) fn tls(raw: &RawUpstreamTls, checks: &mut Checks<'_>) -> UpstreamTls {
    let ca_file = certificates(&raw.ca_file, checks);
    let certificate_file = certificates(&raw.certificate_file, checks);
    let key_file = private_key(&raw.key_file, checks);
    let skip_verification = raw.insecure_accept_any_certificate.value() == Some(&true);
    if let Some(server_name) = raw.server_name.field()
        && !is_name(&server_name.value)
        && server_name.value.parse::<IpAddr>().is_err()
    {
        checks.error_help(
            &server_name.at,
            format!(
                "`{}` is not a name that a certificate could be for",
                server_name.value
            ),
            "as in \"app.internal\"; without a port",
        );
    }
    if skip_verification && let Some(field) = raw.insecure_accept_any_certificate.field() {
        match raw.ca_file.field() {
            Some(ca_file) => checks.error_help(
                &ca_file.at,
                "`ca_file` says whom to trust, and `insecure_accept_any_certificate` to trust everybody",
                "remove one of them",
            ),
            None => checks.warn(
                &field.at,
                "connections to this upstream are encrypted, and to whom is not known: anybody on the way can answer",
                "name its authority with `ca_file` instead",
            ),
        }
    }
    let identity = match (&raw.certificate_file, &raw.key_file) {
        (Key::Set(field), Key::Absent(_)) => {
            checks.error(
                &field.at,
                "a client certificate needs its key: `key_file` is missing",
            );
            None
        }
        (Key::Absent(_), Key::Set(field)) => {
            checks.error(
                &field.at,
                "a client's key needs its certificate: `certificate_file` is missing",
            );
            None
        }
        _ => certificate_file
            .zip(key_file)
            .map(|(certificate_file, key_file)| ClientIdentity {
                certificate_file,
                key_file,
            }),
    };
    UpstreamTls {
        ca_file,
        server_name: raw.server_name.value().cloned(),
        identity,
        skip_verification,
    }
}

fn certificates(key: &Key<String>, checks: &mut Checks<'_>) -> Option<PathBuf> {
    file(key, Exposure::Public, checks, |path| {
        let mut found = CertificateDer::pem_file_iter(path).map_err(|_| NO_PEM)?;
        match found.next() {
            Some(Ok(_)) if found.all(|certificate| certificate.is_ok()) => Ok(()),
            Some(_) => Err(NO_PEM),
            None => Err("there is no certificate in it"),
        }
    })
}

fn private_key(key: &Key<String>, checks: &mut Checks<'_>) -> Option<PathBuf> {
    file(key, Exposure::Secret, checks, |path| {
        PrivateKeyDer::from_pem_file(path)
            .map(drop)
            .map_err(|_| "there is no private key in it")
    })
}

const NO_PEM: &str = "this is not PEM";

/// A file that is there, fit for its purpose, and has in it what `has` looks for.
fn file(
    key: &Key<String>,
    exposure: Exposure,
    checks: &mut Checks<'_>,
    has: fn(&Path) -> Result<(), &'static str>,
) -> Option<PathBuf> {
    let Field { value, at } = key.field()?;
    let path = checks.base_dir.join(value);
    if let Err(Fault { message, help }) = keyfile::check(&path, exposure) {
        checks.error_help(at, message, help);
    } else if let Err(message) = has(&path) {
        checks.error(at, format!("{}: {message}", path.display()));
    }
    Some(path)
}
