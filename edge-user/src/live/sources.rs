//! The heaviest sources, estimated from sampled drops.
//!
//! The kernel samples at most a few packets a tick and CPU, so this is a picture of who is dropped most, and no
//! account. A source's rate is its part of the samples of one service and reason, of what was counted for these two:
//! what is sampled more rarely than it occurs counts for as much as it occurs. The last ten seconds are remembered,
//! older samples are forgotten in steps.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use edge_common::abi::{Event, Reason};
use serde::Serialize;

/// How long a sample counts.
const WINDOW: Duration = Duration::from_secs(10);
/// Steps in which samples are forgotten.
const STEPS: usize = 5;
/// Most sources remembered of a step. More cannot be heavy: a step with as many has more than this many samples.
const MAX_SOURCES: usize = 16_384;

/// A source, and what it was dropped for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    source: IpAddr,
    service: u16,
    reason: u8,
}

/// Samples of the last seconds by source.
#[derive(Debug)]
pub struct Sources {
    steps: [HashMap<Key, u64>; STEPS],
    current: usize,
    turned: Instant,
    begun: Instant,
}

/// A source and its part of what was dropped.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Heavy {
    /// Its address.
    pub address: IpAddr,
    /// Samples within the window.
    pub samples: u64,
    /// Part of all samples within the window, 0 to 1.
    pub share: f64,
    /// Packets a second: an estimate.
    pub packets_per_second: f64,
    /// Why most of its packets were dropped.
    pub reason: &'static str,
    /// Identifier of the service that most of its packets were for, 0 for none.
    #[serde(skip)]
    pub service: u16,
}

impl Sources {
    /// Nobody yet.
    pub fn new(now: Instant) -> Self {
        Self {
            steps: std::array::from_fn(|_| HashMap::new()),
            current: 0,
            turned: now,
            begun: now,
        }
    }

    /// Takes note of a sample.
    pub fn note(&mut self, event: &Event, now: Instant) {
        self.turn(now);
        let step = &mut self.steps[self.current];
        let key = Key {
            source: IpAddr::from(event.src),
            service: event.service,
            reason: event.reason,
        };
        if let Some(samples) = step.get_mut(&key) {
            *samples += 1;
        } else if step.len() < MAX_SOURCES {
            step.insert(key, 1);
        }
    }

    /// Forgets what is too old.
    fn turn(&mut self, now: Instant) {
        let step = WINDOW / STEPS as u32;
        let mut turns = 0;
        while now.saturating_duration_since(self.turned) >= step {
            turns += 1;
            if turns > STEPS {
                self.turned = now;
                break;
            }
            self.turned += step;
            self.current = (self.current + 1) % STEPS;
            self.steps[self.current].clear();
        }
    }

    /// The `most` heaviest, with the number of samples that they are taken from. `counted` is what was dropped or
    /// observed by service and reason, packets a second.
    pub fn heaviest(
        &mut self,
        most: usize,
        counted: impl Fn(u16, u8) -> f64,
        now: Instant,
    ) -> (Vec<Heavy>, u64) {
        self.turn(now);
        let mut sums: HashMap<Key, u64> = HashMap::new();
        let mut by_kind: HashMap<(u16, u8), u64> = HashMap::new();
        for (key, samples) in self.steps.iter().flatten() {
            *sums.entry(*key).or_default() += samples;
            *by_kind.entry((key.service, key.reason)).or_default() += samples;
        }
        let total: u64 = by_kind.values().sum();
        // What most of a source's packets were, and their number.
        let mut of: HashMap<IpAddr, (Heavy, u64)> = HashMap::new();
        for (key, samples) in sums {
            let kind = by_kind
                .get(&(key.service, key.reason))
                .copied()
                .unwrap_or(samples);
            let rate = samples as f64 / kind as f64 * counted(key.service, key.reason);
            let (heavy, largest) = of.entry(key.source).or_insert_with(|| {
                let nothing = Heavy {
                    address: key.source,
                    samples: 0,
                    share: 0.0,
                    packets_per_second: 0.0,
                    reason: "unknown",
                    service: 0,
                };
                (nothing, 0)
            });
            heavy.samples += samples;
            heavy.packets_per_second += rate;
            if samples > *largest {
                *largest = samples;
                heavy.reason = Reason::from_index(key.reason).map_or("unknown", Reason::name);
                heavy.service = key.service;
            }
        }
        let mut all: Vec<Heavy> = of.into_values().map(|(heavy, _)| heavy).collect();
        all.sort_unstable_by(|a, b| {
            (b.packets_per_second.total_cmp(&a.packets_per_second))
                .then(b.samples.cmp(&a.samples))
                .then(a.address.cmp(&b.address))
        });
        all.truncate(most);
        for heavy in &mut all {
            heavy.share = heavy.samples as f64 / total.max(1) as f64;
        }
        (all, total)
    }

    /// How many seconds the samples are of.
    pub fn seconds(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.begun)
            .min(WINDOW)
            .as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use edge_common::abi::{Addr, SNAPSHOT_BYTES};

    use super::*;

    fn event(source: [u8; 4], reason: Reason) -> Event {
        Event {
            tick: 0,
            src: Addr::from(IpAddr::from(source)),
            dst: Addr::UNSPECIFIED,
            sport: 1,
            dport: 2,
            len: 60,
            ifindex: 1,
            service: 2,
            reason: reason as u8,
            protocol: 6,
            captured: 0,
            observed: 0,
            reserved: [0; 5],
            snapshot: [0; SNAPSHOT_BYTES],
        }
    }

    #[test]
    fn a_rate_is_a_part_of_what_was_counted_for_the_same_reason() {
        let start = Instant::now();
        let mut sources = Sources::new(start);
        // Two of three of the rarely sampled reason, and the only one of the other.
        for last in [1, 1, 2] {
            sources.note(&event([192, 0, 2, last], Reason::SourcePackets), start);
        }
        for _ in 0..3 {
            sources.note(&event([192, 0, 2, 3], Reason::Denied), start);
        }
        let counted = |service, reason| {
            assert_eq!(service, 2);
            if reason == Reason::Denied as u8 {
                30.0
            } else {
                900.0
            }
        };
        let (heavy, total) = sources.heaviest(10, counted, start);
        assert_eq!(total, 6);
        let told: Vec<_> = heavy
            .iter()
            .map(|heavy| {
                (
                    heavy.address.to_string(),
                    heavy.samples,
                    heavy.packets_per_second.round() as i64,
                    heavy.reason,
                )
            })
            .collect();
        let expected = [
            ("192.0.2.1", 2, 600, "source_packets"),
            ("192.0.2.2", 1, 300, "source_packets"),
            ("192.0.2.3", 3, 30, "denied"),
        ];
        assert_eq!(
            told,
            expected.map(|(address, samples, rate, reason)| (address.to_owned(), samples, rate, reason))
        );
        assert_eq!(sources.heaviest(1, counted, start).0.len(), 1);
    }

    #[test]
    fn a_source_is_shown_once_with_what_most_of_it_was() {
        let start = Instant::now();
        let mut sources = Sources::new(start);
        for reason in [Reason::Banned, Reason::Denied, Reason::Banned] {
            sources.note(&event([192, 0, 2, 1], reason), start);
        }
        let (heavy, _) = sources.heaviest(10, |_, _| 10.0, start);
        assert_eq!(heavy.len(), 1);
        assert_eq!((heavy[0].samples, heavy[0].reason), (3, "banned"));
        assert!((heavy[0].packets_per_second - 20.0).abs() < 1e-9);
        assert!((heavy[0].share - 1.0).abs() < 1e-9);
    }

    #[test]
    fn samples_are_forgotten_after_the_window_however_long_nobody_looked() {
        let start = Instant::now();
        let mut sources = Sources::new(start);
        let held = |after: Duration, sources: &mut Sources| sources.heaviest(9, |_, _| 1.0, start + after).1;
        sources.note(&event([192, 0, 2, 1], Reason::Denied), start);
        assert_eq!(held(Duration::from_secs(7), &mut sources), 1);
        assert_eq!(held(Duration::from_secs(11), &mut sources), 0);
        let later = Duration::from_hours(1);
        sources.note(&event([192, 0, 2, 1], Reason::Denied), start + later);
        assert_eq!(held(later, &mut sources), 1);
    }

    #[test]
    fn a_flood_of_sources_is_bounded_and_hides_nobody_known() {
        let start = Instant::now();
        let mut sources = Sources::new(start);
        for number in 0..2 * MAX_SOURCES as u32 {
            sources.note(&event(number.to_be_bytes(), Reason::Denied), start);
            sources.note(&event([255, 0, 0, 1], Reason::Banned), start);
        }
        assert_eq!(sources.steps[0].len(), MAX_SOURCES);
        assert_eq!(
            sources.heaviest(1, |_, _| 1.0, start).0[0].address,
            IpAddr::from([255, 0, 0, 1])
        );
    }
}
