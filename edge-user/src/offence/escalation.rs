//! From a limit to a ban: a source that stays over its limit is banned, each time for longer. Pure.
//!
//! Sampled drops come in; a source is over its limit as long as drops of it are seen at least every
//! [`GAP`]. Memory is bounded like that of the scores.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use edge_common::abi::Reason;
use ipnet::IpNet;

use super::score::{LOOK, MAX_PEERS, Sentence, doubled, host};
use crate::config::Escalation;

/// A source of which no drop was seen for this long was back within its limit. Samples are budgeted, so it is
/// generous.
const GAP: Duration = Duration::from_secs(2);

/// Who is over a limit, and since when.
#[derive(Debug)]
pub struct Escalator {
    settings: Escalation,
    streaks: HashMap<IpNet, Streak>,
    looked: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Streak {
    since: Duration,
    last: Duration,
}

impl Escalator {
    /// Nobody is over a limit yet.
    pub fn new(settings: Escalation) -> Self {
        Self {
            settings,
            streaks: HashMap::new(),
            looked: None,
        }
    }

    /// Takes other settings; who is over a limit stays known.
    pub fn configure(&mut self, settings: Escalation) {
        self.settings = settings;
    }

    /// Takes note of a sampled drop. `before` is how often the source was banned already.
    ///
    /// Returns the ban that it calls for, if it does.
    pub fn note(
        &mut self,
        src: IpAddr,
        reason: Reason,
        now: Duration,
        before: impl FnOnce(&IpNet) -> u8,
    ) -> Option<Sentence> {
        if !is_host_limit(reason) {
            return None;
        }
        let net = host(src);
        if self.streaks.len() >= MAX_PEERS && !self.streaks.contains_key(&net) {
            self.forget_ended(now);
            if self.streaks.len() >= MAX_PEERS {
                return None;
            }
        }
        let streak = self.streaks.entry(net).or_insert(Streak {
            since: now,
            last: now,
        });
        if now.saturating_sub(streak.last) > GAP {
            streak.since = now;
        }
        streak.last = now;
        let over = now.saturating_sub(streak.since);
        if over < self.settings.after {
            return None;
        }
        self.streaks.remove(&net);
        let repeats = before(&net);
        Some(Sentence {
            net,
            duration: doubled(self.settings.ban, repeats).min(self.settings.max_ban),
            repeats,
            evidence: format!("over its limit for {} s: {}", over.as_secs(), reason.name()),
        })
    }
}

impl Escalator {
    /// Looks through the whole table, so not more often than every [`LOOK`].
    fn forget_ended(&mut self, now: Duration) {
        if self
            .looked
            .is_none_or(|looked| now.saturating_sub(looked) >= LOOK)
        {
            self.looked = Some(now);
            self.streaks
                .retain(|_, streak| now.saturating_sub(streak.last) <= GAP);
        }
    }
}

/// Only limits of the source itself: a neighbour's flood must not ban who shares the network.
const fn is_host_limit(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::SourcePackets | Reason::SourceSyns | Reason::SourceBytes | Reason::SourceIcmp
    )
}

#[cfg(test)]
mod tests {
    //! Streaks, gaps and repeats.

    use super::*;

    fn escalator() -> Escalator {
        Escalator::new(Escalation {
            after: Duration::from_secs(10),
            ban: Duration::from_mins(1),
            max_ban: Duration::from_mins(5),
        })
    }

    fn src() -> IpAddr {
        IpAddr::from([198, 51, 100, 7])
    }

    #[test]
    fn ten_seconds_over_the_limit_ban_and_repeats_double() {
        let mut escalator = escalator();
        for (before, expected) in [(0, 60), (1, 120), (2, 240), (3, 300)] {
            let bans: Vec<Sentence> = (0..=20)
                .filter_map(|half| {
                    let now = Duration::from_millis(before * 100_000 + half * 500);
                    escalator.note(src(), Reason::SourcePackets, now, |_| before as u8)
                })
                .collect();
            assert_eq!(bans.len(), 1, "{bans:?}");
            assert_eq!(bans[0].duration, Duration::from_secs(expected));
        }
    }

    #[test]
    fn a_pause_starts_the_count_anew_and_other_reasons_do_not_count() {
        let mut escalator = escalator();
        for second in 0..9 {
            assert_eq!(
                escalator.note(src(), Reason::SourceBytes, Duration::from_secs(second), |_| 0),
                None
            );
        }
        for second in 12..21 {
            assert_eq!(
                escalator.note(src(), Reason::SourceBytes, Duration::from_secs(second), |_| 0),
                None
            );
        }
        for second in 0..100 {
            assert_eq!(
                escalator.note(src(), Reason::NetworkPackets, Duration::from_secs(second), |_| 0),
                None
            );
            assert_eq!(
                escalator.note(src(), Reason::Banned, Duration::from_secs(second), |_| 0),
                None
            );
        }
    }
}
