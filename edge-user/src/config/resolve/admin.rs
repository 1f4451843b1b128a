//! `[admin]`: never open to everybody by oversight; `[gateway.traces]`.

use std::{io::Read, net::SocketAddr, path::PathBuf, time::SystemTime};

use super::{Checks, items};
use crate::config::{
    Admin, AdminTcp, AdminTls, CertificateFiles, Group, Traces, bounds,
    certificate::{self, PairFault},
    keyfile::Fault,
    problem::Place,
    raw::{RawAdmin, RawAdminTls, RawConfig, RawTraces},
    section::{Field, Key, Section},
    trusted::{self, Exposure, Terms},
};

/// Resolves the section.
pub(super) fn admin(raw: &RawConfig, checks: &mut Checks<'_>) -> Admin {
    let Some(section) = raw.admin.value() else {
        return Admin::default();
    };
    let admin = Admin {
        enabled: section.enabled.clone().or(true),
        socket: socket(&section.socket, checks),
        group: section.group.field().and_then(|field| group(field, checks)),
        tcp: tcp(section, checks),
        metrics_address: section.metrics_address.value().copied(),
        health_address: section.health_address.value().copied(),
    };
    if let (false, Some(Field { at, .. })) = (admin.enabled, section.socket.field()) {
        checks.warn(
            at,
            "`socket` has no effect: `enabled` is false",
            "remove one of the two",
        );
    }
    addresses(raw, section, checks);
    admin
}

fn socket(key: &Key<String>, checks: &mut Checks<'_>) -> Option<PathBuf> {
    let Field { value, at } = key.field()?;
    let path = checks.base_dir.join(value);
    if value.is_empty() || path.as_os_str().len() > bounds::MAX_SOCKET_PATH_BYTES {
        checks.error_help(
            at,
            format!("a socket's path has 1 to {} bytes", bounds::MAX_SOCKET_PATH_BYTES),
            "as in \"/run/breakwater/admin.sock\"",
        );
    }
    Some(path)
}

/// The group by the machine's own list; a number is one by itself.
fn group(field: &Field<String>, checks: &mut Checks<'_>) -> Option<Group> {
    let Field { value, at } = field;
    let listed = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let by_name = listed.lines().find_map(|line| {
        let mut parts = line.split(':');
        (parts.next()? == value).then(|| parts.nth(1)?.parse().ok())?
    });
    let gid = by_name.or_else(|| value.parse().ok());
    if gid.is_none() {
        checks.error_help(
            at,
            format!("there is no group `{value}` in /etc/group"),
            "make it with groupadd, or give its number",
        );
    }
    Some(Group {
        name: value.clone(),
        gid: gid?,
    })
}

fn tcp(section: &RawAdmin, checks: &mut Checks<'_>) -> Option<AdminTcp> {
    let token_file = section.token_file.field().map(|field| token(field, checks));
    let tls = section.tls.value().map(|raw| tls(raw, checks));
    let Some(Field { value: address, at }) = section.address.field() else {
        if section.address.is_absent() {
            let without_address = [
                section.token_file.field().map(|field| &field.at),
                section.tls.field().map(|field| &field.at),
            ];
            for at in without_address.into_iter().flatten() {
                let message = format!("{} has no effect without `address`", at.subject());
                checks.error_help(at, message, "set `address`, or remove it");
            }
        }
        return None;
    };
    let asks_certificate = section
        .tls
        .value()
        .is_some_and(|tls| !tls.client_ca_file.is_absent());
    if section.token_file.is_absent() && !asks_certificate && !matches!(section.tls, Key::Bad) {
        checks.error_help(
            at,
            format!("whoever reaches `{address}` could change everything: nothing tells who calls"),
            "set `token_file`, or `tls` with a `client_ca_file`",
        );
    }
    if section.tls.is_absent() && !address.ip().to_canonical().is_loopback() {
        checks.warn(
            at,
            "the token goes over the network in the clear",
            "add `[admin.tls]`, or listen on a loopback address",
        );
    }
    Some(AdminTcp {
        address: *address,
        token_file,
        tls: tls.flatten(),
    })
}

fn token(field: &Field<String>, checks: &mut Checks<'_>) -> PathBuf {
    let path = checks.base_dir.join(&field.value);
    if let Err(Fault { message, help }) = read_token(&path) {
        checks.error_help(&field.at, message, help);
    }
    path
}

/// Reads a bearer token: one line of visible ASCII.
///
/// # Errors
/// What is wrong with the file or what is in it.
pub(crate) fn read_token(path: &std::path::Path) -> Result<Vec<u8>, Fault> {
    let terms = Terms {
        exposure: Exposure::Secret,
        most_bytes: bounds::MAX_ADMIN_TOKEN_BYTES as u64 + 2,
        may_be_empty: false,
    };
    let mut token = Vec::new();
    trusted::open(path, terms)?
        .take(terms.most_bytes)
        .read_to_end(&mut token)
        .map_err(|error| trusted::unreadable(path, &error))?;
    let token = token.trim_ascii_end();
    if token.len() < bounds::MIN_ADMIN_TOKEN_BYTES || !token.iter().all(u8::is_ascii_graphic) {
        return Err(Fault::new(
            format!(
                "the token in {} is not {} or more visible characters on one line",
                path.display(),
                bounds::MIN_ADMIN_TOKEN_BYTES
            ),
            "as from `openssl rand -hex 32`",
        ));
    }
    Ok(token.to_vec())
}

/// `[gateway.traces]`.
pub(super) fn traces(raw: &RawTraces, checks: &mut Checks<'_>) -> Option<Traces> {
    let Field { value, at } = raw.endpoint.required(raw.at(), checks.findings)?;
    let service_name = raw.service_name.clone().or("breakwater".to_owned());
    if let Some(Field { value, at }) = raw.service_name.field()
        && (value.is_empty() || value.len() > bounds::MAX_NAME_BYTES || value.chars().any(char::is_control))
    {
        checks.error(at, format!("a name has 1 to {} bytes", bounds::MAX_NAME_BYTES));
    }
    let url: Option<http::Uri> = value.parse().ok();
    let parts = url.and_then(|url| {
        let authority = url.authority()?;
        let is_plain = url.scheme_str() == Some("http") && !authority.as_str().contains('@');
        let port = url.port_u16().unwrap_or(80);
        let path = match url.path() {
            "/" | "" => "/v1/traces".to_owned(),
            path => path.to_owned(),
        };
        (is_plain && url.query().is_none()).then(|| (format!("{}:{port}", authority.host()), path))
    });
    let Some((authority, path)) = parts else {
        checks.error_help(
            at,
            "this is not a collector that traces can be sent to",
            "as in \"http://127.0.0.1:4318\"; a collector elsewhere is reached through one on this machine",
        );
        return None;
    };
    Some(Traces {
        authority,
        path,
        service_name,
        sampled_per_million: raw.sample_percent.value().map_or(10_000, |percent| percent.0),
    })
}

fn tls(raw: &RawAdminTls, checks: &mut Checks<'_>) -> Option<AdminTls> {
    let client_ca_file = raw.client_ca_file.field().map(|Field { value, at }| {
        let path = checks.base_dir.join(value);
        if let Err(Fault { message, help }) = certificate::authorities(&path) {
            checks.error_help(at, message, help);
        }
        path
    });
    let certificate = raw.certificate_file.required(raw.at(), checks.findings);
    let key = raw.key_file.required(raw.at(), checks.findings);
    let (certificate, key) = (certificate?, key?);
    let files = CertificateFiles {
        certificate_file: checks.base_dir.join(&certificate.value),
        key_file: checks.base_dir.join(&key.value),
        names: Vec::new(),
    };
    match certificate::load(&files, SystemTime::now()) {
        Ok(pair) => {
            if let Some(note) = pair.note(SystemTime::now()) {
                checks.warn(&certificate.at, note, "renew it");
            }
        }
        Err(PairFault::Certificate(Fault { message, help })) => {
            checks.error_help(&certificate.at, message, help);
        }
        Err(PairFault::Key(Fault { message, help })) => checks.error_help(&key.at, message, help),
    }
    Some(AdminTls {
        certificate: files,
        client_ca_file,
    })
}

/// No address is used twice, but for metrics and health, which may share one.
fn addresses(raw: &RawConfig, section: &RawAdmin, checks: &mut Checks<'_>) {
    let listeners = items(&raw.listener)
        .iter()
        .filter_map(|item| item.value.address.field());
    let mut own: Vec<&Field<SocketAddr>> = [&section.address, &section.metrics_address]
        .into_iter()
        .filter_map(Key::field)
        .collect();
    let health = section.health_address.field();
    let shares = health.is_some_and(|health| {
        section
            .metrics_address
            .field()
            .is_some_and(|metrics| metrics.value == health.value)
    });
    own.extend(health.filter(|_| !shares));
    let taken: Vec<(SocketAddr, String, &Place)> = listeners
        .chain(own)
        .filter(|field| field.value.port() != 0)
        .map(|field| (field.value, field.value.to_string(), &field.at))
        .collect();
    // Two listeners with one address were told already.
    let first_own = taken.len();
    let mut seen: Vec<SocketAddr> = Vec::with_capacity(first_own);
    for (address, shown, at) in taken {
        if seen.contains(&address) && at.key.starts_with("admin.") {
            checks.error_help(
                at,
                format!("the address `{shown}` is taken"),
                "each listener has its own; only `metrics_address` and `health_address` may be the same",
            );
        }
        seen.push(address);
    }
}
