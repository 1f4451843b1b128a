//! `[offences]`: when refusals become a ban.

use std::num::NonZeroU32;

use super::{Checks, bans, shield::networks};
use crate::config::{
    BanScope, Offences, Weights, bounds,
    raw::RawOffences,
    section::{Field, Section},
};

/// `offences.threshold` as a checked constant.
const DEFAULT_THRESHOLD: NonZeroU32 = match NonZeroU32::new(bounds::DEFAULT_THRESHOLD) {
    Some(threshold) => threshold,
    None => NonZeroU32::MIN,
};

/// `offences.slow_per_second` as a checked constant.
const DEFAULT_SLOW_PER_SECOND: NonZeroU32 = match NonZeroU32::new(bounds::DEFAULT_SLOW_PER_SECOND) {
    Some(requests) => requests,
    None => NonZeroU32::MIN,
};

/// `offences.max_bans_per_minute` as a checked constant.
const DEFAULT_MAX_BANS_PER_MINUTE: NonZeroU32 = match NonZeroU32::new(bounds::DEFAULT_MAX_BANS_PER_MINUTE) {
    Some(bans) => bans,
    None => NonZeroU32::MIN,
};

impl Default for Offences {
    fn default() -> Self {
        Self {
            threshold: DEFAULT_THRESHOLD,
            half_life: bounds::DEFAULT_HALF_LIFE,
            ban: bounds::DEFAULT_BAN,
            max_ban: bounds::DEFAULT_MAX_BAN,
            scope: BanScope::Everything,
            shared: Vec::new(),
            shared_scope: BanScope::NewConnections,
            slow_per_second: DEFAULT_SLOW_PER_SECOND,
            observe: false,
            exempt: Vec::new(),
            exempt_local: true,
            max_bans_per_minute: DEFAULT_MAX_BANS_PER_MINUTE,
            weights: Weights::default(),
            probes: DEFAULT_PROBES.iter().map(|path| (*path).to_owned()).collect(),
        }
    }
}

/// What scanners look for on every host, and few sites have.
const DEFAULT_PROBES: [&str; 16] = [
    "/.env",
    "/.git/",
    "/.svn/",
    "/.aws/",
    "/.ssh/",
    "/.DS_Store",
    "/wp-login.php",
    "/wp-admin",
    "/wp-includes",
    "/xmlrpc.php",
    "/phpmyadmin",
    "/phpunit",
    "/vendor/phpunit",
    "/cgi-bin/",
    "/server-status",
    "/actuator",
];

pub(super) fn offences(raw: Option<&RawOffences>, checks: &mut Checks<'_>) -> Offences {
    let default = Offences::default();
    let Some(raw) = raw else { return default };
    checks.bounded(&raw.exempt, bounds::MAX_ITEMS);
    checks.bounded(&raw.shared, bounds::MAX_ITEMS);
    let slow_per_second = raw
        .slow_per_second
        .field()
        .and_then(|field| checks.count(field, bounds::MAX_SLOW_PER_SECOND));
    let threshold = raw
        .threshold
        .field()
        .and_then(|field| checks.count(field, bounds::MAX_THRESHOLD));
    let (ban, max_ban) = bans::lengths(
        (&raw.ban, default.ban),
        (&raw.max_ban, default.max_ban),
        raw.at(),
        checks,
    );
    let max_bans_per_minute = raw
        .max_bans_per_minute
        .field()
        .and_then(|field| checks.count(field, bounds::MAX_BANS_PER_MINUTE));
    Offences {
        threshold: threshold.unwrap_or(default.threshold),
        half_life: checks.duration(&raw.half_life, default.half_life, bounds::MAX_HALF_LIFE),
        ban,
        max_ban,
        scope: raw.scope.clone().or(default.scope),
        shared: networks(&raw.shared),
        shared_scope: raw.shared_scope.clone().or(default.shared_scope),
        slow_per_second: slow_per_second.unwrap_or(default.slow_per_second),
        observe: raw.observe.clone().or(default.observe),
        exempt: networks(&raw.exempt),
        exempt_local: raw.exempt_local.clone().or(default.exempt_local),
        max_bans_per_minute: max_bans_per_minute.unwrap_or(default.max_bans_per_minute),
        weights: raw.weights.value().map_or(default.weights, Weights::take),
        probes: probes(raw, checks).unwrap_or(default.probes),
    }
}

/// `offences.probes`: prefixes in the one spelling that a normalised path has.
fn probes(raw: &RawOffences, checks: &mut Checks<'_>) -> Option<Vec<String>> {
    let Field { value: list, at } = raw.probes.field()?;
    checks.bounded(&raw.probes, bounds::MAX_PROBES);
    for item in list {
        let path = &item.value;
        let is_path = path.len() > 1
            && path.len() <= bounds::MAX_PATH_BYTES
            && path.starts_with('/')
            && path
                .bytes()
                .all(|byte| (0x21..0x7f).contains(&byte) && !matches!(byte, b'?' | b'#' | b'\\'));
        if !is_path {
            checks.error_help(
                &item.at(at),
                "this is not the beginning of a path below `/`",
                "as in \"/.env\" or \"/wp-\"",
            );
        }
    }
    Some(list.iter().map(|item| item.value.clone()).collect())
}
