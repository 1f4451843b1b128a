//! Layout round trips: what one side writes, the other reads back.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::{
    Addr, Ban, BanKey, Control, Family, Reason,
    ban::{Stamp, V4_PREFIXES, V6_PREFIXES, entry, info},
};

#[test]
fn a_mapped_address_has_the_bytes_of_rfc_4291() {
    let addr = Addr::from(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 33)));
    assert_eq!(
        addr.to_bytes(),
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 33]
    );
    assert_eq!(addr, Addr::from_v4_word(u32::from_ne_bytes([192, 0, 2, 33])));
    assert_eq!(addr.family(), Family::V4);
}

#[test]
fn reasons_are_their_own_index() {
    for (index, reason) in Reason::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, index, "{}", reason.name());
        assert_eq!(Reason::from_index(index as u8), Some(*reason));
    }
    assert_eq!(Reason::from_index(Reason::ALL.len() as u8), None);
}

#[test]
fn observing_one_reason_leaves_the_others() {
    let control = Control(Control::HAS_DENY)
        .observing(Reason::Banned)
        .observing(Reason::Internal);
    for reason in Reason::ALL {
        assert_eq!(
            control.observes((*reason).into()),
            matches!(reason, Reason::Banned | Reason::Internal)
        );
    }
    assert!(control.has(Control::HAS_DENY) && !control.has(Control::SERVICES));
}

proptest! {
    #[test]
    fn addresses_survive_the_round_trip(bits in any::<u128>()) {
        let v6 = Ipv6Addr::from(bits);
        prop_assert_eq!(IpAddr::from(Addr::from(IpAddr::V6(v6))), v6.to_canonical());
    }

    #[test]
    fn a_mask_keeps_exactly_its_bits(bits in any::<u128>(), prefix in 0_u32..=128) {
        let masked = Addr::from_bytes(bits.to_be_bytes()).masked(prefix);
        let expected = if prefix == 0 { 0 } else { bits & (u128::MAX << (128 - prefix)) };
        prop_assert_eq!(u128::from_be_bytes(masked.to_bytes()), expected);
    }

    #[test]
    fn an_entry_says_what_was_written(
        bits in any::<u128>(),
        length in prop::sample::select(std::vec![128_u32, 120, 64, 56, 48]),
        until in 1_u64..1 << 48,
        age in 0_u64..1 << 39,
        source in 0_u8..4,
        repeats in any::<u8>(),
        scope in 0_u8..2,
        old in any::<u64>(),
    ) {
        let key = BanKey::new(&Addr::from_bytes(bits.to_be_bytes()), length);
        let now = 1 << 41;
        let ban = Ban { until, since: now - age, source, repeats, scope };
        let stamp = Stamp::new(length, &ban, Stamp(old));
        prop_assert!(stamp.is_for(length) && !stamp.is_free() && stamp.freed().is_free());
        prop_assert_ne!(stamp.0 & Stamp::VERSION, old & Stamp::VERSION);
        let words = [key.addr.high(), key.addr.low(), stamp.0, info(&key, &ban)];
        prop_assert_eq!(entry(words, now), (key, ban));
    }
}

#[test]
fn the_lengths_of_bans_differ_in_their_stamps() {
    let lengths: std::collections::HashSet<u64> = V4_PREFIXES
        .iter()
        .chain(&V6_PREFIXES)
        .map(|bits| Stamp::length(*bits))
        .collect();
    assert_eq!(lengths.len(), 5, "128 is a length of both families");
}
