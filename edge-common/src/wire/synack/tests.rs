//! Every combination of options, its answer byte by byte and as an independent parser reads it.

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice, TcpHeaderSlice, TcpOptionElement};
use proptest::prelude::*;
use std::{format, vec, vec::Vec};

use super::*;
use crate::wire::{
    segment::Segment,
    tcp_options::{self, MAX_SCALE},
};

const OWN: Own = Own {
    cookie: 0xdead_beef,
    mss: 1460,
    space: 65_536,
    scale: 7,
    now_ms: 1_000_000,
};

/// A SYN's headers with these option bytes (a multiple of four).
fn syn(family: Family, options: &[u8]) -> Segment {
    let segment = Segment::new();
    let length = TCP_BYTES + options.len() as u32;
    match family {
        Family::V4 => {
            segment.set(5, 0x4500_0000 | (20 + length));
            segment.set(7, 64 << 24 | 6 << 16);
            segment.set(8, 0xc633_6407);
            segment.set(9, 0xcb00_7101);
        }
        Family::V6 => {
            segment.set(0, 6 << 28 | 0x12345);
            segment.set(1, length << 16 | 6 << 8 | 64);
            for at in 2..10 {
                segment.set(at, 0x2001_0db8 + at as u32);
            }
        }
    }
    segment.set(TCP, (40_000 << 16) + 443);
    segment.set(TCP + 1, u32::MAX);
    segment.set(TCP + 2, 0x5555_5555);
    segment.set(TCP + 3, (length / 4) << 28 | 0x02 << 16 | 0xfaf0);
    segment.set(TCP + 4, 0xaaaa_bbbb);
    segment.load(OPTIONS, options);
    segment
}

fn read(segment: &Segment) -> Offer {
    tcp_options::read(segment.tcp_bytes() - TCP_BYTES, segment);
    tcp_options::offer(segment)
}

fn padded(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = parts.concat();
    while bytes.len() % 4 != 0 {
        bytes.push(0);
    }
    bytes
}

/// The same by hand, from the RFCs.
fn expected_options(sack: bool, scale: Option<u8>, stamp: Option<u32>) -> Vec<u8> {
    let mut bytes = vec![2, 4, 5, 0xb4];
    let Some(stamp) = stamp else { return bytes };
    bytes.extend(if sack { [4, 2] } else { [1, 1] });
    bytes.extend([8, 10]);
    // 1,000,000 ms is 15,625 times 64: any option lies ahead of it, so it is the 64 ms before, with the options.
    let code = u32::from(scale.unwrap_or(15)) | if sack { 16 } else { 0 };
    let own = if code == 0 { 1_000_000 } else { 999_936 + code };
    bytes.extend(own.to_be_bytes());
    bytes.extend(stamp.to_be_bytes());
    if scale.is_some() {
        bytes.extend([1, 3, 3, 7]);
    }
    bytes
}

#[test]
fn every_combination_of_options_is_answered_as_the_stack_would() {
    for family in [Family::V4, Family::V6] {
        for (sack, scale, stamp) in [false, true].into_iter().flat_map(|sack| {
            [None, Some(0), Some(7), Some(14), Some(200)]
                .into_iter()
                .flat_map(move |scale| [None, Some(0x0102_0304)].map(|stamp| (sack, scale, stamp)))
        }) {
            let mut parts: Vec<Vec<u8>> = vec![vec![2, 4, 0x05, 0xb4]];
            if sack {
                parts.push(vec![4, 2]);
            }
            if let Some(stamp) = stamp {
                parts.push([&[8, 10][..], &u32::to_be_bytes(stamp), &[0; 4]].concat());
            }
            if let Some(scale) = scale {
                parts.push(vec![1, 3, 3, scale]);
            }
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let segment = syn(family, &padded(&parts));
            read(&segment);
            let length = answer(&segment, family, &OWN);
            let what = format!("{family:?} sack {sack} scale {scale:?} stamp {stamp:?}");
            let scale = scale.map(|scale: u8| scale.min(MAX_SCALE));
            let options = expected_options(sack, scale, stamp);
            assert_eq!(length as usize, 20 + options.len(), "{what}");
            check(&segment, family, length, &options, &what);
        }
    }
}

fn check(segment: &Segment, family: Family, length: u32, options: &[u8], what: &str) {
    let bytes = segment.bytes();
    let (start, ip) = segment::ip(family);
    let packet = &bytes[start * 4..start * 4 + (ip + length) as usize];
    let tcp = TcpHeaderSlice::from_slice(&packet[ip as usize..])
        .expect(what)
        .to_header();
    let sum = match family {
        Family::V4 => {
            let header = Ipv4HeaderSlice::from_slice(packet).expect(what).to_header();
            assert_eq!(usize::from(header.total_len), packet.len(), "{what}");
            assert_eq!(header.header_checksum, header.calc_header_checksum(), "{what}");
            assert_eq!(header.source, [203, 0, 113, 1], "{what}");
            assert_eq!(header.destination, [198, 51, 100, 7], "{what}");
            assert!(header.dont_fragment && header.time_to_live == 64, "{what}");
            tcp.calc_checksum_ipv4(&header, &[])
        }
        Family::V6 => {
            let header = Ipv6HeaderSlice::from_slice(packet).expect(what).to_header();
            assert_eq!(u32::from(header.payload_length), length, "{what}");
            assert_eq!(header.source[3], 0xb8 + 6, "{what}");
            assert_eq!(header.destination[3], 0xb8 + 2, "{what}");
            tcp.calc_checksum_ipv6(&header, &[])
        }
    };
    assert_eq!(tcp.checksum, sum.expect(what), "{what}");
    assert_eq!((tcp.source_port, tcp.destination_port), (443, 40_000), "{what}");
    assert_eq!(
        (tcp.sequence_number, tcp.acknowledgment_number),
        (0xdead_beef, 0),
        "{what}"
    );
    assert!(tcp.syn && tcp.ack && !tcp.ece && !tcp.fin && !tcp.rst, "{what}");
    assert_eq!(tcp.options.as_slice(), options, "{what}");
    let segment_bytes = if options.len() > 4 { 1448 } else { 1460 };
    assert_eq!(
        u32::from(tcp.window_size),
        65_536 / segment_bytes * segment_bytes,
        "{what}"
    );
    let read: Result<Vec<_>, _> = tcp.options_iterator().collect();
    let read = read.expect(what);
    assert!(
        read.contains(&TcpOptionElement::MaximumSegmentSize(1460)),
        "{what}"
    );
}

#[test]
fn the_timestamp_never_lies_ahead_of_the_clock_and_carries_the_options() {
    for now_ms in (0..400).chain(u32::MAX - 200..=u32::MAX) {
        for scale in 0..=NO_SCALE {
            for sack in [0, 1] {
                let offer = Offer {
                    scale,
                    sack,
                    stamped: 1,
                    stamp: 0,
                };
                let stamp = stamp(&offer, now_ms);
                assert!(
                    now_ms.wrapping_sub(stamp) < 128,
                    "{now_ms} {scale} {sack}: {stamp}"
                );
                assert_eq!(stamp & 0xf, u32::from(scale));
                assert_eq!(stamp >> 4 & 3, u32::from(sack));
            }
        }
    }
}

#[test]
fn windows_are_whole_segments_and_fit_sixteen_bits() {
    assert_eq!(window(65_536, 1448), 65_160);
    assert_eq!(window(65_536, 1460), 64_240);
    assert_eq!(window(65_536, 65_483), 65_483);
    assert_eq!(window(1 << 20, 1460), 65_535);
    assert_eq!(window(500, 1460), 500);
    assert_eq!(window(500, 0), 500);
}

/// The same list read the plain way.
fn reference(options: &[u8]) -> Offer {
    let mut offer = Offer {
        scale: NO_SCALE,
        sack: 0,
        stamped: 0,
        stamp: 0,
    };
    let mut rest = options;
    loop {
        match rest {
            [] | [0, ..] => return offer,
            [1, tail @ ..] => rest = tail,
            [kind, length, ..] if (2..=rest.len()).contains(&usize::from(*length)) => {
                let (option, tail) = rest.split_at(usize::from(*length));
                match (kind, option) {
                    (3, [_, _, scale]) => offer.scale = (*scale).min(14),
                    (4, [_, _]) => offer.sack = 1,
                    (8, [_, _, a, b, c, d, ..]) if option.len() == 10 => {
                        offer.stamped = 1;
                        offer.stamp = u32::from_ne_bytes([*a, *b, *c, *d]);
                    }
                    _ => {}
                }
                rest = tail;
            }
            _ => return offer,
        }
    }
}

proptest! {
    #[test]
    fn options_are_read_as_the_plain_reader_does(
        words in 0_usize..=10,
        bytes in prop::collection::vec(prop_oneof![
            3 => prop::sample::select(vec![0_u8, 1, 2, 3, 4, 8, 10, 30]), 1 => any::<u8>()
        ], 40),
        v6: bool,
    ) {
        let family = if v6 { Family::V6 } else { Family::V4 };
        let options = &bytes[..words * 4];
        prop_assert_eq!(read(&syn(family, options)), reference(options));
    }

    #[test]
    fn any_syn_is_answered_with_right_checksums(
        words in 0_usize..=10, bytes in prop::collection::vec(any::<u8>(), 40),
        cookie: u32, mss: u16, space in 0_u32..2_000_000, scale in 0_u8..15, now_ms: u32,
    ) {
        for family in [Family::V4, Family::V6] {
            let segment = syn(family, &bytes[..words * 4]);
            read(&segment);
            let length = answer(&segment, family, &Own { cookie, mss, space, scale, now_ms });
            let all = segment.bytes();
            let (start, ip) = segment::ip(family);
            let packet = &all[start * 4..start * 4 + (ip + length) as usize];
            let tcp = TcpHeaderSlice::from_slice(&packet[ip as usize..]).unwrap().to_header();
            let sum = match family {
                Family::V4 => {
                    let header = Ipv4HeaderSlice::from_slice(packet).unwrap().to_header();
                    prop_assert_eq!(header.header_checksum, header.calc_header_checksum());
                    tcp.calc_checksum_ipv4(&header, &[])
                }
                Family::V6 => tcp.calc_checksum_ipv6(&Ipv6HeaderSlice::from_slice(packet).unwrap().to_header(), &[]),
            };
            prop_assert_eq!(tcp.checksum, sum.unwrap());
        }
    }
}
