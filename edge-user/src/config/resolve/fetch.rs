//! `provider.fetch`: how keys are fetched from a URL, and how long they serve.

use std::time::Duration;

use super::Checks;
use crate::config::{
    RemoteKeys, bounds, keyfile,
    problem::Place,
    raw::RawFetch,
    section::{Field, Key, Section},
    trusted::{Exposure, Fault},
    value::shown,
};

/// The settings for the URL in `url`.
pub(super) fn remote(url: &Field<String>, raw: Option<&RawFetch>, checks: &mut Checks<'_>) -> RemoteKeys {
    let default = RemoteKeys::new(&url.value);
    let Some(raw) = raw else { return default };
    let remote = RemoteKeys {
        ca_file: ca_file(raw, &url.value, checks),
        refresh: checks.duration(&raw.refresh, default.refresh, bounds::MAX_STALE),
        refresh_min: checks.duration(&raw.refresh_min, default.refresh_min, bounds::MAX_STALE),
        refresh_max: checks.duration(&raw.refresh_max, default.refresh_max, bounds::MAX_STALE),
        cooldown: checks.duration(&raw.cooldown, default.cooldown, bounds::MAX_COOLDOWN),
        timeout: checks.duration(&raw.timeout, default.timeout, bounds::MAX_FETCH_TIMEOUT),
        max_stale: checks.duration(&raw.max_stale, default.max_stale, bounds::MAX_STALE),
        url: default.url,
    };
    let times = [
        ("refresh_min", &raw.refresh_min, remote.refresh_min),
        ("refresh", &raw.refresh, remote.refresh),
        ("refresh_max", &raw.refresh_max, remote.refresh_max),
        ("max_stale", &raw.max_stale, remote.max_stale),
    ];
    for pair in times.windows(2) {
        if let [shorter, longer] = pair {
            ascending(*shorter, *longer, raw.at(), checks);
        }
    }
    remote
}

type Time<'r> = (&'static str, &'r Key<Duration>, Duration);

fn ascending(shorter: Time<'_>, longer: Time<'_>, section: &Place, checks: &mut Checks<'_>) {
    let ((shorter, shorter_key, least), (longer, longer_key, most)) = (shorter, longer);
    let is_bad = matches!(shorter_key, Key::Bad) || matches!(longer_key, Key::Bad);
    if least <= most || is_bad {
        return;
    }
    let given = shorter_key.field().or(longer_key.field());
    checks.error_help(
        given.map_or(section, |field| &field.at),
        format!(
            "`{shorter}` ({}) is longer than `{longer}` ({})",
            shown(least),
            shown(most)
        ),
        "refresh_min <= refresh <= refresh_max <= max_stale",
    );
}

fn ca_file(raw: &RawFetch, url: &str, checks: &mut Checks<'_>) -> Option<std::path::PathBuf> {
    let Field { value, at } = raw.ca_file.field()?;
    let path = checks.base_dir.join(value);
    if url.starts_with("http:") {
        checks.error_help(
            at,
            "`ca_file` has no meaning: plain http has no certificate",
            "remove it, or write the URL with https",
        );
    } else if let Err(Fault { message, help }) = keyfile::check(&path, Exposure::Public) {
        checks.error_help(at, message, help);
    }
    Some(path)
}
