//! Times as people say them: `1 week ago`, `yesterday`, `2026-11-19 14:00`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// With which time another one is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum With {
    /// The same, so much earlier.
    Ago(Duration),
    /// What begins here, seconds since the epoch.
    From(i64),
    /// What comes directly before.
    Before,
}

/// What is understood, for messages.
pub(super) const WITH: &str =
    "as in \"1 week ago\", \"yesterday\", \"2h ago\", \"before\" or \"2026-11-19 14:00\"";

impl With {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        match text {
            "yesterday" => return Some(Self::Ago(Duration::from_hours(24))),
            "last week" => return Some(Self::Ago(Duration::from_hours(7 * 24))),
            "before" => return Some(Self::Before),
            _ => {}
        }
        if let Some(duration) = text.strip_suffix("ago") {
            let duration = humantime::parse_duration(duration.trim()).ok()?;
            return (duration.as_secs() > 0).then_some(Self::Ago(duration));
        }
        moment(text).map(Self::From)
    }
}

/// A moment: RFC 3339, or date and time in UTC with the seconds left out or not.
pub(super) fn moment(text: &str) -> Option<i64> {
    let text = text.trim();
    let colons = text.matches(':').count();
    let full = match (text.len(), colons) {
        (10, 0) => format!("{text} 00:00:00"),
        (16, 1) => format!("{text}:00"),
        _ => text.to_owned(),
    };
    humantime::parse_rfc3339_weak(&full).ok().and_then(seconds)
}

fn seconds(time: SystemTime) -> Option<i64> {
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_understood_or_refused() {
        let ago = |hours| Some(With::Ago(Duration::from_hours(hours)));
        for (text, want) in [
            ("1 week ago", ago(168)),
            ("1week ago", ago(168)),
            ("last week", ago(168)),
            ("yesterday", ago(24)),
            ("2h ago", ago(2)),
            ("before", Some(With::Before)),
            ("1970-01-02", Some(With::From(86_400))),
            ("1970-01-01 00:01", Some(With::From(60))),
            ("1970-01-01T00:01:01Z", Some(With::From(61))),
            ("0s ago", None),
            ("ago", None),
            ("soon", None),
            ("", None),
            ("1970-13-01", None),
            ("1 week", None),
        ] {
            assert_eq!(With::parse(text), want, "{text}");
        }
    }
}
