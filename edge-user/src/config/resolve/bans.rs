//! How long bans are: a first one and the longest, and when packets over a limit lead to one.

use std::time::Duration;

use super::Checks;
use crate::config::{
    Escalation, bounds,
    problem::Place,
    raw::RawEscalation,
    section::{Field, Key, Section},
    value::shown,
};

/// The first ban and the longest one of the section at `section`.
pub(super) fn lengths(
    (ban, default_ban): (&Key<Duration>, Duration),
    (max_ban, default_max_ban): (&Key<Duration>, Duration),
    section: &Place,
    checks: &mut Checks<'_>,
) -> (Duration, Duration) {
    let longest = checks.duration(max_ban, default_max_ban, bounds::LONGEST_BAN);
    let first = checks.duration(ban, default_ban, bounds::LONGEST_BAN);
    let is_bad = matches!(ban, Key::Bad) || matches!(max_ban, Key::Bad);
    if first > longest && !is_bad {
        let given = ban.field().or(max_ban.field());
        checks.error_help(
            given.map_or(section, |field| &field.at),
            format!(
                "the first ban ({}) is longer than the longest one ({})",
                shown(first),
                shown(longest)
            ),
            format!("lower `{0}.ban` or raise `{0}.max_ban`", section.key),
        );
    }
    (first, longest)
}

/// `shield.escalation`, which is off unless it is there.
pub(super) fn escalation(raw: Option<&RawEscalation>, checks: &mut Checks<'_>) -> Option<Escalation> {
    let raw = raw?;
    let after = checks.duration(
        &raw.after,
        bounds::DEFAULT_ESCALATION_AFTER,
        bounds::MAX_ESCALATION_AFTER,
    );
    if let Some(Field { value, at }) = raw.after.field()
        && !value.is_zero()
        && *value < bounds::MIN_ESCALATION_AFTER
    {
        checks.error_help(
            at,
            format!("`after` must be at least {}", shown(bounds::MIN_ESCALATION_AFTER)),
            "what is over a limit for less is a burst; the limit has dropped it",
        );
    }
    let (ban, max_ban) = lengths(
        (&raw.ban, bounds::DEFAULT_ESCALATION_BAN),
        (&raw.max_ban, bounds::DEFAULT_ESCALATION_MAX_BAN),
        raw.at(),
        checks,
    );
    Some(Escalation { after, ban, max_ban })
}
