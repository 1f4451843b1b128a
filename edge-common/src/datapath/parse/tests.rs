//! The short way reads what the long way reads, of every packet that it takes.

use proptest::prelude::*;
use std::vec::Vec;

use super::{Plain, glance, stage};
use crate::{
    abi::Params,
    datapath::{Packet, Tables as _},
    mem::{Bytes, MemTables},
    wire::{Frame as _, eth, protocol},
};

std::thread_local! {
    /// Made once: it is large.
    static TABLES: MemTables = MemTables::new(Params {
        ban_buckets: 2,
        earned_buckets: 2,
        hz: 250,
        ..Params::default()
    });
}

/// What a way has read, as one value.
fn all(packet: &Packet) -> impl PartialEq + core::fmt::Debug + use<> {
    (
        (packet.src.get(), packet.dst.get(), packet.family.get()),
        (packet.len.get(), packet.sport.get(), packet.dport.get()),
        (packet.kind.get(), packet.detail.get(), packet.code.get()),
        (packet.protocol.get(), packet.hops.get()),
        (packet.observed.get(), packet.proven.get()),
    )
}

fn read(frame: &[u8], plain: Plain) -> impl PartialEq + core::fmt::Debug + use<> {
    let packet = Packet::new();
    // What was there before does not matter.
    packet.proven.set(1);
    packet.family.set(crate::abi::Family::V6);
    TABLES.with(|tables| {
        tables.set_found(1);
        stage(&Bytes(frame), &packet, plain, tables);
        assert_eq!(tables.found(), 0);
    });
    all(&packet)
}

/// A frame of the plain shape, its other bytes as they come; then a few bytes are changed, and it is cut.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let shape = (
        any::<bool>(),
        any::<bool>(),
        prop::collection::vec(any::<u8>(), 60..120),
    );
    let changes = prop::collection::vec((0_usize..60, any::<u8>()), 0..3);
    let cut = prop_oneof![4 => Just(usize::MAX), 1 => 0_usize..90];
    (shape, changes, cut).prop_map(|((v6, udp, bytes), changes, cut)| {
        let mut frame = shaped(v6, udp, &bytes);
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(cut);
        frame
    })
}

fn shaped(v6: bool, udp: bool, bytes: &[u8]) -> Vec<u8> {
    let mut frame = bytes.to_vec();
    let transport = if udp { protocol::UDP } else { protocol::TCP };
    let kind = if v6 { eth::IPV6 } else { eth::IPV4 };
    frame[12..14].copy_from_slice(&kind.to_be_bytes());
    if v6 {
        frame[14] = 0x60 | frame[14] & 0xf;
        frame[20] = transport;
        frame.resize(120, 7);
    } else {
        frame[14] = 0x45;
        frame[16] |= 1;
        frame[20] &= 0xe0;
        frame[21] = 0;
        frame[23] = transport;
    }
    frame
}

#[test]
fn plain_packets_are_taken_for_what_they_are() {
    let kinds = [
        (false, false, Plain::Tcp4),
        (false, true, Plain::Udp4),
        (true, false, Plain::Tcp6),
        (true, true, Plain::Udp6),
    ];
    for (v6, udp, expected) in kinds {
        let frame = shaped(v6, udp, &[1; 90]);
        assert_eq!(glance(&Bytes(&frame)).0, expected);
        assert_eq!(read(&frame, expected), read(&frame, Plain::No));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn the_short_way_reads_what_the_long_way_reads(frame in frames()) {
        let (plain, port) = glance(&Bytes(&frame));
        if !matches!(plain, Plain::No) {
            prop_assert_eq!(read(&frame, plain), read(&frame, Plain::No));
            let packet = Packet::new();
            super::read(&Bytes(&frame), &packet);
            prop_assert_eq!(packet.dport.get(), port);
            prop_assert!(Bytes(&frame).len() >= 42);
        }
    }
}
