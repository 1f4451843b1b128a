//! `[listener.tls]`: what it says, and whether its files hold what they must.

use std::{path::PathBuf, time::SystemTime};

use super::{Checks, items};
use crate::config::{
    CertificateFiles, ClientCertificates, ListenerTls, bounds,
    certificate::{self, Name, PairFault},
    keyfile::Fault,
    problem::Place,
    raw::{ClientCertificateMode, RawCertificate, RawTls},
    section::{Field, Key, Section},
    value::Item,
};

/// Resolves the table; `None` if it has no certificate.
pub(super) fn tls(raw: &RawTls, checks: &mut Checks<'_>) -> Option<ListenerTls> {
    let handshake_timeout = checks.duration(
        &raw.handshake_timeout,
        bounds::DEFAULT_HANDSHAKE_TIMEOUT,
        bounds::MAX_HANDSHAKE_TIMEOUT,
    );
    let client_certificates = client_certificates(raw, checks);
    let asks = !matches!(
        raw.client_certificates.value(),
        None | Some(ClientCertificateMode::None)
    );
    let subject_header = header(&raw.subject_header, asks, checks);
    let fingerprint_header = header(&raw.fingerprint_header, asks, checks);
    let field = raw.certificates.required(raw.at(), checks.findings)?;
    checks.bounded(&raw.certificates, bounds::MAX_CERTIFICATES);
    checks.not_empty(
        field,
        "TLS needs a certificate",
        "as in [{ certificate_file = \"site.pem\", key_file = \"site.key\" }]",
    );
    let places: Vec<Place> = field.value.iter().map(|item| item.at(&field.at)).collect();
    let mut claimed: Vec<(String, String, Place)> = Vec::new();
    let certificates = field
        .value
        .iter()
        .zip(&places)
        .filter_map(|(item, at)| pair(&item.value, at, &mut claimed, checks))
        .collect();
    checks.unique(
        "name",
        claimed
            .iter()
            .map(|(name, shown, at)| (name.as_str(), shown.clone(), at)),
    );
    Some(ListenerTls {
        certificates,
        unknown_name: raw.unknown_name.clone().or_default(),
        minimum: raw.minimum.clone().or_default(),
        http2: raw.http2.clone().or(true),
        handshake_timeout,
        client_certificates,
        subject_header,
        fingerprint_header,
    })
}

/// One certificate with its key; the names it is for go to `claimed`.
fn pair(
    raw: &RawCertificate,
    at: &Place,
    claimed: &mut Vec<(String, String, Place)>,
    checks: &mut Checks<'_>,
) -> Option<CertificateFiles> {
    let names = names(&raw.names, checks);
    let certificate = raw.certificate_file.required(raw.at(), checks.findings);
    let key = raw.key_file.required(raw.at(), checks.findings);
    let (certificate, key) = (certificate?, key?);
    let files = CertificateFiles {
        certificate_file: checks.base_dir.join(&certificate.value),
        key_file: checks.base_dir.join(&key.value),
        names,
    };
    match certificate::load(&files, SystemTime::now()) {
        Ok(pair) => {
            if let Some(note) = pair.note(SystemTime::now()) {
                checks.warn(
                    &certificate.at,
                    note,
                    "renew it; a new one is taken up when its files change",
                );
            }
            let place = raw.names.field().map_or(at, |field| &field.at);
            claimed.extend(pair.names.iter().map(|name| {
                let name = name.to_string();
                (name.clone(), name, place.clone())
            }));
        }
        Err(PairFault::Certificate(Fault { message, help })) => {
            checks.error_help(&certificate.at, message, help);
        }
        Err(PairFault::Key(Fault { message, help })) => checks.error_help(&key.at, message, help),
    }
    Some(files)
}

fn names(key: &Key<Vec<Item<String>>>, checks: &mut Checks<'_>) -> Vec<String> {
    checks.bounded(key, bounds::MAX_CERTIFICATE_NAMES);
    let Some(Field { value: list, at }) = key.field() else {
        return Vec::new();
    };
    for item in list {
        if Name::parse(&item.value).is_none() {
            checks.error_help(
                &item.at(at),
                format!("`{}` is not a name a certificate can be for", item.value),
                "as in \"example.org\" or \"*.example.org\"; `*` stands for one label",
            );
        }
    }
    items(key).iter().map(|item| item.value.clone()).collect()
}

fn client_certificates(raw: &RawTls, checks: &mut Checks<'_>) -> ClientCertificates {
    let mode = raw.client_certificates.clone().or(ClientCertificateMode::None);
    let Some(Field { value, at }) = raw.client_ca_file.field() else {
        if mode != ClientCertificateMode::None
            && raw.client_ca_file.is_absent()
            && let Some(field) = raw.client_certificates.field()
        {
            checks.error_help(
                &field.at,
                "client certificates need `client_ca_file`: somebody has to vouch for them",
                "name a PEM file with the authorities",
            );
        }
        return ClientCertificates::None;
    };
    let path: PathBuf = checks.base_dir.join(value);
    if mode == ClientCertificateMode::None {
        checks.error_help(
            at,
            "`client_ca_file` has no effect: clients are not asked for certificates",
            "set `client_certificates` to \"optional\" or \"required\"",
        );
        return ClientCertificates::None;
    }
    if let Err(Fault { message, help }) = certificate::authorities(&path) {
        checks.error_help(at, message, help);
    }
    match mode {
        ClientCertificateMode::Required => ClientCertificates::Required(path),
        ClientCertificateMode::Optional | ClientCertificateMode::None => ClientCertificates::Optional(path),
    }
}

/// A header that takes something of a client's certificate.
fn header(key: &Key<String>, asks: bool, checks: &mut Checks<'_>) -> Option<String> {
    let Field { value, at } = key.field()?;
    if !super::forward::is_free_header(value) {
        checks.error_help(
            at,
            format!("`{value}` cannot carry an identity"),
            "a header name that means nothing else to a proxy, as in \"x-client-subject\"",
        );
    }
    if !asks {
        checks.error_help(
            at,
            format!(
                "{} has no effect: clients are not asked for certificates",
                at.subject()
            ),
            "set `client_certificates` to \"optional\" or \"required\"",
        );
    }
    Some(value.to_ascii_lowercase())
}
