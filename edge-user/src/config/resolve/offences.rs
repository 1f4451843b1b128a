//! `[offences]`: when refusals become a ban.

use std::num::NonZeroU32;

use super::{Checks, bans, shield::networks};
use crate::config::{Offences, bounds, raw::RawOffences, section::Section};

/// `offences.threshold` as a checked constant.
const DEFAULT_THRESHOLD: NonZeroU32 = match NonZeroU32::new(bounds::DEFAULT_THRESHOLD) {
    Some(threshold) => threshold,
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
            window: bounds::DEFAULT_OFFENCE_WINDOW,
            ban: bounds::DEFAULT_BAN,
            max_ban: bounds::DEFAULT_MAX_BAN,
            observe: false,
            exempt: Vec::new(),
            exempt_local: true,
            max_bans_per_minute: DEFAULT_MAX_BANS_PER_MINUTE,
        }
    }
}

pub(super) fn offences(raw: Option<&RawOffences>, checks: &mut Checks<'_>) -> Offences {
    let default = Offences::default();
    let Some(raw) = raw else { return default };
    checks.bounded(&raw.exempt, bounds::MAX_ITEMS);
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
        window: checks.duration(&raw.window, default.window, bounds::MAX_OFFENCE_WINDOW),
        ban,
        max_ban,
        observe: raw.observe.clone().or(default.observe),
        exempt: networks(&raw.exempt),
        exempt_local: raw.exempt_local.clone().or(default.exempt_local),
        max_bans_per_minute: max_bans_per_minute.unwrap_or(default.max_bans_per_minute),
    }
}
