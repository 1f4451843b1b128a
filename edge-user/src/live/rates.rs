//! Packets and bytes a second by service and reason: the difference of two readings.

use std::collections::HashMap;

use edge_common::abi::Reason;
use serde::Serialize;

use super::reading::Reading;

/// What one reason comes to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rate {
    /// Name of the service, `-` for what no service judged.
    pub service: String,
    /// Name of the reason.
    pub reason: &'static str,
    /// `pass` or `drop`.
    pub outcome: &'static str,
    /// Packets a second.
    pub packets_per_second: f64,
    /// Bytes a second.
    pub bytes_per_second: f64,
    /// Packets a second that would have been dropped, but were only observed.
    pub observed_per_second: f64,
    /// Packets since the shield's tables were made, observed ones included where they passed as such.
    pub packets: u64,
}

/// Sums over services and reasons.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Total {
    /// Packets a second that passed.
    pub passed: f64,
    /// Packets a second that were dropped.
    pub dropped: f64,
    /// Packets a second that would have been dropped.
    pub observed: f64,
    /// Bytes a second that passed.
    pub passed_bytes: f64,
    /// Bytes a second that were dropped.
    pub dropped_bytes: f64,
}

/// The rates between two readings, drops first, the highest first.
pub fn between(before: &Reading, now: &Reading) -> Vec<Rate> {
    let seconds = now
        .at
        .saturating_duration_since(before.at)
        .as_secs_f64()
        .max(1e-3);
    let mut old = HashMap::new();
    for counted in &before.counted {
        for count in &counted.reasons {
            old.insert((counted.service.as_str(), count.reason), *count);
        }
    }
    let mut rates = Vec::new();
    for counted in &now.counted {
        for count in &counted.reasons {
            let was = old.get(&(counted.service.as_str(), count.reason));
            // Saturating: tables that were made anew begin at nothing again.
            let per_second = |now: u64, was: u64| now.saturating_sub(was) as f64 / seconds;
            rates.push(Rate {
                service: counted.service.clone(),
                reason: count.reason,
                outcome: count.outcome,
                packets_per_second: per_second(count.packets, was.map_or(0, |was| was.packets)),
                bytes_per_second: per_second(count.bytes, was.map_or(0, |was| was.bytes)),
                observed_per_second: per_second(count.observed, was.map_or(0, |was| was.observed)),
                packets: count.packets
                    + if count.outcome == "drop" {
                        count.observed
                    } else {
                        0
                    },
            });
        }
    }
    rates.sort_by(|a, b| {
        (b.outcome == "drop")
            .cmp(&(a.outcome == "drop"))
            .then(weight(b).total_cmp(&weight(a)))
            .then_with(|| (&a.service, a.reason).cmp(&(&b.service, b.reason)))
    });
    rates
}

fn weight(rate: &Rate) -> f64 {
    rate.packets_per_second + rate.observed_per_second
}

/// What was dropped or only observed of a service for a reason, packets a second, by the kernel's numbers for both; `names`
/// is a reading that knows the service.
pub fn of(rates: &[Rate], names: &Reading, service: u16, reason: u8) -> f64 {
    let (service, reason) = (names.name(service), Reason::from_index(reason).map(Reason::name));
    let of = rates
        .iter()
        .filter(|rate| rate.service == service && Some(rate.reason) == reason);
    of.map(weight).sum()
}

/// The sums of `rates`.
pub fn total(rates: &[Rate]) -> Total {
    let mut total = Total::default();
    for rate in rates {
        if rate.outcome == "drop" {
            total.dropped += rate.packets_per_second;
            total.dropped_bytes += rate.bytes_per_second;
        } else {
            total.passed += rate.packets_per_second;
            total.passed_bytes += rate.bytes_per_second;
        }
        total.observed += rate.observed_per_second;
    }
    total
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{super::reading::Counted, *};
    use crate::kernel::counters::ReasonCount;

    fn reading(at: Instant, counts: &[(&str, &'static str, &'static str, u64, u64)]) -> Reading {
        let counted = counts
            .iter()
            .map(|(service, reason, outcome, packets, observed)| Counted {
                service: (*service).to_owned(),
                reasons: vec![ReasonCount {
                    reason,
                    outcome,
                    packets: *packets,
                    bytes: packets * 100,
                    observed: *observed,
                }],
            });
        Reading {
            at,
            interfaces: Vec::new(),
            counted: counted.collect(),
            names: Vec::new(),
            not_sampled: 0,
            observes: false,
        }
    }

    #[test]
    fn rates_are_differences_over_time_and_drops_come_first() {
        let start = Instant::now();
        let before = reading(start, &[("web", "admitted", "pass", 100, 0)]);
        let now = reading(
            start + Duration::from_secs(2),
            &[
                ("web", "admitted", "pass", 300, 0),
                ("web", "banned", "drop", 10, 4),
            ],
        );
        let rates = between(&before, &now);
        assert_eq!(rates[0].reason, "banned");
        assert!((rates[0].packets_per_second - 5.0).abs() < 1e-9);
        assert!((rates[0].observed_per_second - 2.0).abs() < 1e-9);
        assert!((rates[1].packets_per_second - 100.0).abs() < 1e-9);
        let total = total(&rates);
        assert!((total.passed - 100.0).abs() < 1e-9 && (total.dropped - 5.0).abs() < 1e-9);
        assert!((total.dropped_bytes - 500.0).abs() < 1e-9);
    }

    #[test]
    fn counters_that_began_anew_give_no_negative_rate() {
        let start = Instant::now();
        let before = reading(start, &[("web", "admitted", "pass", 100, 0)]);
        let now = reading(
            start + Duration::from_secs(1),
            &[("web", "admitted", "pass", 5, 0)],
        );
        assert!(between(&before, &now)[0].packets_per_second.abs() < 1e-9);
    }
}
