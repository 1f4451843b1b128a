//! `[offences]`: when refusals become a ban.

use std::num::NonZeroU32;

use super::{Checks, shield::networks};
use crate::config::{Offences, bounds, raw::RawOffences, section::Section};

/// `offences.threshold` as a checked constant.
const DEFAULT_THRESHOLD: NonZeroU32 = match NonZeroU32::new(bounds::DEFAULT_THRESHOLD) {
    Some(threshold) => threshold,
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
    let max_ban = checks.duration(&raw.max_ban, default.max_ban, bounds::LONGEST_BAN);
    let ban = checks.duration(&raw.ban, default.ban, bounds::LONGEST_BAN);
    if ban > max_ban {
        let at = raw
            .ban
            .field()
            .or(raw.max_ban.field())
            .map_or(raw.at(), |field| &field.at);
        checks.error_help(
            at,
            format!(
                "the first ban ({}) is longer than the longest one ({})",
                humantime::format_duration(ban),
                humantime::format_duration(max_ban)
            ),
            "lower `offences.ban` or raise `offences.max_ban`",
        );
    }
    Offences {
        threshold: threshold.unwrap_or(default.threshold),
        window: checks.duration(&raw.window, default.window, bounds::MAX_OFFENCE_WINDOW),
        ban,
        max_ban,
        observe: raw.observe.clone().or(default.observe),
        exempt: networks(&raw.exempt),
        exempt_local: true,
    }
}
