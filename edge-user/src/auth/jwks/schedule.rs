//! When the next fetch is due. Pure: the answer's age and the dice are arguments.

use std::time::Duration;

use crate::config::RemoteKeys;

/// First pause after a failure; doubled with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Doublings after which the pause grows no more.
const MAX_DOUBLINGS: u32 = 16;
/// One part in this many of the pause may be taken away by jitter, so that many nodes do not ask at once.
const JITTER_PART: u32 = 10;

/// Pause after a good answer that may be kept for `max_age`. Never longer than the configured most.
pub(super) fn after_success(remote: &RemoteKeys, max_age: Option<Duration>, dice: u8) -> Duration {
    let wanted = max_age
        .unwrap_or(remote.refresh)
        .max(remote.refresh_min)
        .min(remote.refresh_max);
    shorten(wanted, dice)
}

/// Pause after the n-th failure in a row, from 1.
pub(super) fn after_failure(remote: &RemoteKeys, failures: u32, dice: u8) -> Duration {
    let doublings = failures.saturating_sub(1).min(MAX_DOUBLINGS);
    shorten((FIRST_RETRY * (1 << doublings)).min(remote.refresh_min), dice)
}

fn shorten(pause: Duration, dice: u8) -> Duration {
    pause.saturating_sub(pause / u32::from(u8::MAX) * u32::from(dice) / JITTER_PART)
}

/// How long an answer may be kept (RFC 9111 section 4.2.1): `max-age` less `Age`; nothing at all for `no-store` and
/// `no-cache`; none if it does not say.
pub(super) fn max_age(cache_control: &str, age: Option<&str>) -> Option<Duration> {
    let directives = cache_control
        .split(',')
        .map(|directive| directive.trim().to_ascii_lowercase());
    let mut longest = None;
    for directive in directives {
        if directive == "no-store" || directive == "no-cache" {
            return Some(Duration::ZERO);
        }
        if let Some(seconds) = directive.strip_prefix("max-age=") {
            longest = seconds.trim_matches('"').parse().ok();
        }
    }
    let age = age.and_then(|age| age.trim().parse().ok()).unwrap_or(0);
    longest.map(|seconds: u64| Duration::from_secs(seconds.saturating_sub(age)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_heard_within_bounds() {
        let remote = RemoteKeys::new("https://id.example");
        let seconds = Duration::from_secs;
        for (max_age, expected) in [
            (None, 300),
            (Some(0), 60),
            (Some(100), 100),
            (Some(u64::MAX), 900),
        ] {
            let max_age = max_age.map(seconds);
            assert_eq!(after_success(&remote, max_age, 0), seconds(expected));
            let shortest = after_success(&remote, max_age, 255);
            assert!(shortest >= seconds(expected) * 89 / 100 && shortest < seconds(expected));
        }
        for (failures, expected) in [(1, 1), (2, 2), (5, 16), (7, 60), (u32::MAX, 60)] {
            assert_eq!(after_failure(&remote, failures, 0), seconds(expected));
        }
    }

    #[test]
    fn cache_control_is_read() {
        let rows = [
            ("max-age=60", None, Some(60)),
            ("public, Max-Age=60, must-revalidate", Some("20"), Some(40)),
            ("max-age=60", Some("90"), Some(0)),
            ("max-age=\"5\"", None, Some(5)),
            ("no-store", None, Some(0)),
            ("max-age=60, no-cache", None, Some(0)),
            ("max-age=-1", None, None),
            ("max-age=99999999999999999999999", None, None),
            ("", None, None),
        ];
        for (value, age, expected) in rows {
            assert_eq!(max_age(value, age), expected.map(Duration::from_secs), "{value}");
        }
    }
}
