//! `[history]`.

use std::{path::PathBuf, time::Duration};

use super::{Checks, shown};
use crate::config::{
    History, bounds,
    raw::RawConfig,
    section::{Field, Key},
};

/// Resolves the section; there is no history without it.
pub(super) fn history(raw: &RawConfig, checks: &mut Checks<'_>) -> Option<History> {
    let section = raw.history.value()?;
    let within = |key: &Key<Duration>,
                  usual: Duration,
                  (least, most): (Duration, Duration),
                  checks: &mut Checks<'_>| {
        let duration = checks.duration(key, usual, most);
        if let Some(Field { value, at }) = key.field()
            && !value.is_zero()
            && *value < least
        {
            checks.error(at, format!("{} must be at least {}", at.subject(), shown(least)));
        }
        duration
    };
    let keep = within(&section.keep, bounds::DEFAULT_HISTORY, bounds::HISTORY, checks);
    let every = within(
        &section.every,
        bounds::DEFAULT_HISTORY_CELL,
        bounds::HISTORY_CELL,
        checks,
    );
    if let Some(Field { value, at }) = section.every.field()
        && (value.subsec_nanos() != 0 || value.as_secs() != 0 && 86_400 % value.as_secs() != 0)
    {
        checks.error_help(
            at,
            "`every` must divide a day into whole seconds",
            "so that cells of different days lie over each other, as 10s, 1m and 5m do",
        );
    }
    let max_bytes = section.max_bytes.clone().or(bounds::DEFAULT_HISTORY_BYTES);
    if let Some(Field { value, at }) = section.max_bytes.field()
        && !(bounds::HISTORY_BYTES.0..=bounds::HISTORY_BYTES.1).contains(value)
    {
        let (least, most) = bounds::HISTORY_BYTES;
        checks.error(
            at,
            format!("`max_bytes` must be between {least} and {most}, is {value}"),
        );
    }
    let path = match section.path.field() {
        None => PathBuf::from(bounds::DEFAULT_HISTORY_PATH),
        Some(Field { value, at }) => {
            let path = checks.base_dir.join(value);
            // A pipe would be waited for.
            let is_other = path.metadata().is_ok_and(|found| !found.is_file());
            if value.is_empty() || is_other {
                checks.error_help(
                    at,
                    "`path` must be that of a file",
                    format!("as in {:?}", bounds::DEFAULT_HISTORY_PATH),
                );
            }
            path
        }
    };
    Some(History {
        path,
        keep,
        max_bytes,
        every,
    })
}
