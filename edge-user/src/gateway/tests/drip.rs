//! Clients that take their answers in drips: each drip is progress, all of them are too little.

use std::{
    io::{ErrorKind, Read},
    thread,
    time::{Duration, Instant},
};

use super::{
    frames::{END_HEADERS, END_STREAM, Frames, HEADERS, WINDOW_UPDATE, frame, request},
    support::{Edge, Origin, config, eventually},
};
use crate::{
    gateway::{Limits, Reason},
    offence::OffenceKind,
};

/// An origin with more to say than any buffer holds.
fn large() -> Origin {
    Origin::with(|connection| {
        while connection.request().is_some() {
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n");
            for _ in 0..1024 {
                connection.send(&vec![b'x'; 65_536]);
            }
        }
    })
}

fn edge(origin: &Origin, min_read_rate: u32, stall_timeout: Duration) -> Edge {
    let limits = Limits {
        stall_timeout,
        min_read_rate,
        ..Limits::default()
    };
    Edge::start(&config(&[&[origin.address]], &[("/", 0, false)]), limits)
}

#[test]
fn who_opens_its_window_by_a_byte_at_a_time_is_cut_off() {
    let origin = large();
    for (rate, is_cut) in [(10_000, true), (0, false)] {
        let edge = edge(&origin, rate, Duration::from_millis(400));
        // The window of a stream is one byte (SETTINGS_INITIAL_WINDOW_SIZE, 4).
        let mut client = Frames::connect(&edge, &[0, 4, 0, 0, 0, 1]);
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &request("GET", "/")));
        let one = frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes());
        let cut = client.flood(Duration::from_millis(2500), || {
            thread::sleep(Duration::from_millis(20));
            one.clone()
        });
        assert_eq!(cut.is_some(), is_cut, "{cut:?}");
        let is_told = edge.offences.kinds().contains(&OffenceKind::SlowClient);
        if is_cut {
            eventually("scored", || {
                edge.offences.kinds().contains(&OffenceKind::SlowClient)
            });
        } else {
            assert!(!is_told);
        }
    }
}

#[test]
fn who_reads_too_slowly_is_cut_off() {
    let origin = large();
    // The kernel takes an answer in lumps, so the patient one is patient for longer than any of them takes.
    for (rate, stall, is_cut) in [(50_000_000, 400, true), (1000, 10_000, false)] {
        let edge = edge(&origin, rate, Duration::from_millis(stall));
        let mut client = edge.connect();
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        // Steady, and in all about 6 MB a second at most.
        let (begun, mut part) = (Instant::now(), vec![0; 32 * 1024]);
        let mut ended = false;
        while begun.elapsed() < Duration::from_secs(2) && !ended {
            ended = match client.stream.read(&mut part) {
                Ok(0) => true,
                Ok(_) => false,
                Err(error) => error.kind() != ErrorKind::Interrupted,
            };
            thread::sleep(Duration::from_millis(5));
            if edge.counters().refused(Reason::ClientStalled) > 0 {
                break;
            }
        }
        assert_eq!(
            edge.counters().refused(Reason::ClientStalled) > 0,
            is_cut,
            "{rate}"
        );
    }
}
