//! Weights, fading, thresholds, repeats and bounds.

use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::config::Weights;

fn settings(threshold: u32) -> Offences {
    Offences {
        threshold: NonZeroU32::new(threshold).expect("not zero"),
        half_life: Duration::from_mins(1),
        ban: Duration::from_mins(1),
        max_ban: Duration::from_mins(10),
        exempt: vec!["192.0.2.0/24".parse().expect("a network")],
        ..Offences::default()
    }
}

fn scores(threshold: u32) -> Scores {
    Scores::new(settings(threshold))
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn peer(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn the_threshold_bans_and_starts_anew_with_the_evidence() {
    let mut scores = scores(20);
    let bad = peer("198.51.100.7");
    // An attack of some seconds needs as many offences as the threshold has points.
    for number in 0..19_u64 {
        assert_eq!(
            scores.note(
                bad,
                OffenceKind::ForgedToken,
                Duration::from_millis(number * 50),
                |_| 0
            ),
            None
        );
    }
    let sentence = scores
        .note(bad, OffenceKind::ForgedToken, at(1), |_| 0)
        .expect("banned");
    assert_eq!(sentence.net, "198.51.100.7/32".parse().expect("a network"));
    assert_eq!(sentence.duration, at(60));
    assert_eq!(sentence.evidence, "20 points in 1s: 20 forged_token");
    assert_eq!(scores.note(bad, OffenceKind::ForgedToken, at(1), |_| 0), None);
}

#[test]
fn kinds_weigh_what_they_are_given() {
    let mut settings = settings(10);
    settings.weights = Weights {
        not_found: 500,
        smuggling: 4000,
        ..Weights::default()
    };
    let mut scores = Scores::new(settings);
    let bad = peer("198.51.100.7");
    for kind in [
        OffenceKind::NotFound,
        OffenceKind::NotFound,
        OffenceKind::Smuggling,
        OffenceKind::AlgorithmAttack,
    ] {
        if let Some(sentence) = scores.note(bad, kind, at(5), |_| 0) {
            let evidence = "10 points in 0s: 2 not_found, 1 algorithm_attack, 1 smuggling; last \
                            algorithm_attack -0s smuggling -0s not_found -0s not_found -0s";
            assert_eq!(sentence.evidence, evidence);
            return;
        }
    }
    panic!("not banned");
}

#[test]
fn a_score_halves_with_every_half_life() {
    let half_life = Duration::from_mins(1);
    let mut score = Score::new(at(0));
    score.add(8000, at(0), half_life);
    for (minutes, value) in [(0, 8000.0), (1, 4000.0), (2, 2000.0), (10, 7.8125)] {
        assert!((score.value(at(60 * minutes), half_life) - value).abs() < 0.001);
    }
    // Once in 100 s forever: never more than 1 / (1 - 2^(-100/60)) = 1.46 points.
    let mut slow = scores(2);
    for number in 0..1000 {
        let kind = OffenceKind::Malformed;
        assert_eq!(
            slow.note(peer("198.51.100.7"), kind, at(number * 100), |_| 0),
            None
        );
    }
}

#[test]
fn each_repeat_doubles_up_to_the_maximum() {
    let mut scores = scores(1);
    let mut ban = |before| scores.note(peer("2001:db8::1"), OffenceKind::BadToken, at(1), |_| before);
    assert_eq!(ban(0).expect("banned").duration, at(60));
    assert_eq!(ban(1).expect("banned").duration, at(120));
    assert_eq!(ban(3).expect("banned").duration, at(480));
    assert_eq!(ban(200).expect("banned").duration, at(600));
}

#[test]
fn hosts_of_one_64_share_a_score_and_mapped_addresses_are_v4() {
    let mut scores = scores(2);
    assert_eq!(
        scores.note(peer("2001:db8:1::1"), OffenceKind::BadToken, at(0), |_| 0),
        None
    );
    let sentence = scores.note(peer("2001:db8:1::ffff:2"), OffenceKind::BadToken, at(0), |_| 0);
    assert_eq!(
        sentence.expect("banned").net,
        "2001:db8:1::/64".parse().expect("a network")
    );
    assert_eq!(
        host(peer("::ffff:198.51.100.7")),
        "198.51.100.7/32".parse().expect("a network")
    );
}

#[test]
fn what_honest_clients_do_bans_nobody_unless_it_is_told_to() {
    let mut scores = scores(1);
    for kind in [
        OffenceKind::MissingToken,
        OffenceKind::Forbidden,
        OffenceKind::NoRoute,
        OffenceKind::Unauthorized,
        OffenceKind::NotFound,
    ] {
        assert_eq!(scores.note(peer("198.51.100.7"), kind, at(0), |_| 0), None);
    }
}

#[test]
fn exempt_peers_are_never_scored() {
    let mut scores = scores(1);
    assert_eq!(
        scores.note(peer("192.0.2.1"), OffenceKind::Smuggling, at(0), |_| 0),
        None
    );
    assert_eq!(
        scores.note(peer("::ffff:192.0.2.1"), OffenceKind::Smuggling, at(0), |_| 0),
        None
    );
}

#[test]
fn a_pardon_starts_anew() {
    let mut scores = scores(3);
    let bad = peer("198.51.100.7");
    for _ in 0..2 {
        assert_eq!(scores.note(bad, OffenceKind::BadToken, at(0), |_| 0), None);
    }
    scores.pardon(&"198.51.100.0/24".parse().expect("a network"));
    for _ in 0..2 {
        assert_eq!(scores.note(bad, OffenceKind::BadToken, at(0), |_| 0), None);
    }
    assert!(scores.note(bad, OffenceKind::BadToken, at(0), |_| 0).is_some());
}

#[test]
fn a_clock_that_goes_back_or_jumps_ahead_bans_nobody_for_nothing() {
    let mut scores = scores(3);
    let one = peer("198.51.100.7");
    let kind = OffenceKind::BadToken;
    assert_eq!(scores.note(one, kind, at(1_000_000), |_| 0), None);
    // Back: nothing fades, nothing is added but what was done.
    assert_eq!(scores.note(one, kind, at(10), |_| 0), None);
    assert!(scores.note(one, kind, at(20), |_| 0).is_some());
    // Ahead: everything has faded.
    assert_eq!(scores.note(one, kind, at(20), |_| 0), None);
    assert_eq!(scores.note(one, kind, at(20), |_| 0), None);
    assert_eq!(scores.note(one, kind, Duration::MAX, |_| 0), None);
}

#[test]
fn a_flood_of_peers_does_not_wash_a_score_away() {
    let mut scores = scores(2);
    let bad = peer("198.51.100.7");
    assert_eq!(scores.note(bad, OffenceKind::BadToken, at(10), |_| 0), None);
    for n in 0..(MAX_PEERS as u32 + 5_000) {
        let other = IpAddr::V4((0x0a00_0000 + n).into());
        assert_eq!(scores.note(other, OffenceKind::BadToken, at(11), |_| 0), None);
    }
    assert!(scores.unscored() >= 5_000);
    assert!(scores.note(bad, OffenceKind::BadToken, at(12), |_| 0).is_some());
}

proptest! {
    /// Looking at a score in between changes nothing, time only takes away, and no score is more than was added.
    #[test]
    fn fading_is_the_same_in_one_step_or_many(
        adds in prop::collection::vec((0_u32..5_000, 0_u64..100_000), 1..60),
        half_life_ms in 1_u64..1_000_000,
        looks in 1_u64..20,
    ) {
        let half_life = Duration::from_millis(half_life_ms);
        let (mut score, mut looked) = (Score::new(Duration::ZERO), Score::new(Duration::ZERO));
        let (mut now, mut sum) = (Duration::ZERO, 0.0);
        for (weight, pause) in adds {
            let step = Duration::from_millis(pause);
            let before = score.value(now, half_life);
            for look in 1..=looks {
                let then = now + step * look as u32 / looks as u32;
                prop_assert!(looked.value(then, half_life) <= before * 1.000_001 + 0.001);
                looked.add(0, then, half_life);
            }
            now += step;
            score.add(weight, now, half_life);
            looked.add(weight, now, half_life);
            sum += f64::from(weight);
            let (one, many) = (score.value(now, half_life), looked.value(now, half_life));
            prop_assert!((one - many).abs() <= 0.001 + one * 1e-6, "{one} and {many}");
            prop_assert!(one <= sum * 1.000_001 && one >= f64::from(weight) * 0.999_999);
        }
    }

    /// However offences come, whoever is banned has done as much as the threshold asks since its last ban, and whoever
    /// does as much at one moment is banned; bans never get shorter with repeats.
    #[test]
    fn bans_are_earned_and_grow(
        offences in prop::collection::vec((0_usize..OffenceKind::COUNT, 0_u64..5_000), 1..400),
        threshold in 1_u32..40,
    ) {
        let settings = settings(threshold);
        let mut scores = Scores::new(settings.clone());
        let one = peer("198.51.100.7");
        let (mut now, mut done, mut bans) = (Duration::ZERO, 0_u64, 0_u8);
        let mut longest = Duration::ZERO;
        for (kind, pause) in offences {
            now += Duration::from_millis(pause);
            let kind = OffenceKind::ALL[kind];
            done += u64::from(kind.weight(&settings.weights));
            if let Some(sentence) = scores.note(one, kind, now, |_| bans) {
                prop_assert!(done + 500 >= u64::from(threshold) * 1000, "{done} for {threshold}");
                prop_assert!(sentence.duration >= longest && sentence.duration <= settings.max_ban);
                longest = sentence.duration;
                bans = bans.saturating_add(1);
                done = 0;
            }
        }
        let at_once = (0..threshold).filter_map(|_| {
            scores.note(peer("203.0.113.1"), OffenceKind::ForgedToken, now, |_| 0)
        });
        prop_assert_eq!(at_once.count(), 1);
    }
}
