//! Layout round trips: what one side writes, the other reads back.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::{Addr, Control, Family, Reason, hint};

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
            control.observes(*reason),
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
    fn hint_fields_do_not_overlap(hash in any::<u64>(), other in any::<u64>()) {
        let params = super::Params { hint_mask: 0xffff, ..Default::default() };
        let (a, b) = (hint::place(hash, &params), hint::place(other, &params));
        let same_field = hash as u32 & 0xffff == other as u32 & 0xffff;
        prop_assert_eq!(a == b, same_field);
        prop_assert!(a.1 + hint::BITS <= 64 && a.0 <= 0xffff / hint::FIELDS_PER_WORD);
    }
}
