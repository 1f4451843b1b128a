//! Pictures on terminals of several sizes.

use std::net::IpAddr;

use ratatui::{Terminal, backend::TestBackend};

use super::*;

fn rate(service: &str, reason: &'static str, outcome: &'static str, packets: f64) -> Rate {
    Rate {
        service: service.to_owned(),
        reason,
        outcome,
        packets_per_second: packets,
        bytes_per_second: packets * 60.0,
        observed_per_second: 0.0,
        packets: 1,
    }
}

fn empty() -> Picture {
    Picture {
        seconds: 1.0,
        interfaces: vec![
            Shielded {
                interface: "eth0".into(),
                mode: "native",
            },
            Shielded {
                interface: "eth1".into(),
                mode: "generic",
            },
        ],
        observes: false,
        total: Total::default(),
        rates: Vec::new(),
        sources: SourcesPart {
            estimated_from_samples: 0,
            seconds: 0.0,
            not_sampled: 0,
            overwritten: 0,
            heaviest: Vec::new(),
        },
        bans: BansPart {
            held: 0,
            capacity: 65_536,
            list: Vec::new(),
        },
        state: State::Live,
    }
}

/// More of everything than any terminal has lines for.
fn full() -> Picture {
    let mut picture = empty();
    picture.rates = (0..100)
        .map(|number| rate(&format!("service-{number}"), "source_packets", "drop", 12_345.0))
        .collect();
    picture.total = super::super::rates::total(&picture.rates);
    picture.sources.estimated_from_samples = 4_000;
    picture.sources.seconds = 10.0;
    picture.sources.heaviest = (0..100_u8)
        .map(|number| Source {
            heavy: Heavy {
                address: IpAddr::from([0x2001, 0xdb8, 0, 0, 0xffff, 0xffff, 0xffff, u16::from(number)]),
                samples: 40,
                share: 0.01,
                packets_per_second: 123.0,
                reason: "source_packets",
                service: 2,
            },
            service: "service-0".into(),
        })
        .collect();
    picture.bans.held = 100;
    picture.bans.list = (0..100)
        .map(|number| BanEntry {
            net: format!("192.0.2.{number}/32").parse().expect("a network"),
            source: "gateway",
            reason: "20 offences within 1m: bad_token".into(),
            seconds_left: Some(f64::from(number)),
            since: 0.0,
            scope: "everything",
            repeats: 0,
        })
        .collect();
    picture
}

fn drawn(picture: &Picture, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| draw(frame, picture)).expect("drawn");
    let buffer = terminal.backend().buffer().clone();
    (0..height)
        .map(|y| {
            (0..width)
                .map(|x| buffer[(x, y)].symbol().to_owned())
                .collect::<String>()
        })
        .collect()
}

#[test]
fn an_empty_shield_says_so() {
    let text = drawn(&empty(), 120, 30).join("\n");
    for expected in [
        "eth0 native, eth1 generic",
        "passed 0/s",
        "no packet yet",
        "nothing was dropped",
        "nobody is banned",
        "Bans: 0 of 65536",
        "q quit",
    ] {
        assert!(text.contains(expected), "{expected:?} in\n{text}");
    }
}

#[test]
fn a_full_one_shows_each_part_whatever_the_size() {
    for (width, height) in [(200, 60), (120, 30), (110, 20), (80, 24), (60, 40), (40, 24)] {
        let lines = drawn(&full(), width, height);
        let text = lines.join("\n");
        for expected in [
            "dropped",
            "estimated from 4000",
            "Bans: 100",
            "2001:db8::ffff:ffff:ffff:3 ",
        ] {
            assert!(
                text.contains(expected),
                "{expected:?} on {width}x{height}:\n{text}"
            );
        }
        assert!(text.contains("2001:db8"), "{width}x{height}:\n{text}");
        assert!(text.contains("192.0.2."), "{width}x{height}:\n{text}");
    }
}

#[test]
fn small_terminals_lose_parts_from_the_end_and_tiny_ones_say_so() {
    let low = drawn(&full(), 80, 16).join("\n");
    assert!(low.contains("Heaviest") && !low.contains("Bans:"), "{low}");
    let lower = drawn(&full(), 80, 10).join("\n");
    assert!(
        lower.contains("by service") && !lower.contains("Heaviest"),
        "{lower}"
    );
    assert!(drawn(&full(), 20, 5).join("\n").contains("too small"));
    drawn(&full(), 1, 1);
}

#[test]
fn a_shield_that_was_taken_off_and_a_pause_are_told() {
    for (state, expected) in [(State::Off, "has been taken off"), (State::Paused, "paused")] {
        let text = drawn(&Picture { state, ..empty() }, 100, 20).join("\n");
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn numbers_are_short() {
    for (number, expected) in [
        (0.0, "0"),
        (0.04, "0.0"),
        (3.07, "3.1"),
        (12.0, "12"),
        (999.0, "999"),
        (1000.0, "1.0k"),
        (12_345.0, "12.3k"),
        (999_400.0, "999k"),
        (999_600.0, "1.0M"),
        (4_560_000.0, "4.6M"),
        (9e9, "9.0G"),
    ] {
        assert_eq!(short(number), expected, "{number}");
    }
}

#[test]
fn the_text_holds_what_the_screen_does() {
    let text = text(&full());
    for expected in [
        "eth0 native",
        "service-99",
        "Heaviest, estimated from 4000 samples of 10 s",
        "Bans: 100 of 65536",
        "192.0.2.7 ",
    ] {
        assert!(text.contains(expected), "{expected:?} in\n{text}");
    }
}
