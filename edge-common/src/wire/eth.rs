//! Ethernet and VLAN tags.

use super::{Frame, View};

/// Bytes of an Ethernet header.
pub const HEADER: u32 = 14;
/// Bytes of a VLAN tag (IEEE 802.1Q).
pub const TAG: u32 = 4;
/// Most VLAN tags that are looked through (802.1ad, "QinQ").
pub const MAX_TAGS: u32 = 2;

const VLAN: u16 = 0x8100;
const QINQ: u16 = 0x88a8;
/// Older Q-in-Q type that switches still send.
const QINQ_OLD: u16 = 0x9100;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;

/// Not an EtherType (below 0x600 it is a length): the frame ends before one.
const NONE: u16 = 0;

/// The EtherType behind the VLAN tags, and where its payload begins. A frame that ends before has none that is known.
#[inline(always)]
pub fn payload<F: Frame>(frame: &F) -> (u16, u32) {
    // Plain numbers rather than an option: an option's payload that is never written upsets the verifier.
    let kind = frame.view::<14>(0).map_or(NONE, |header| header.u16_be(12));
    if !is_tag(kind) {
        return (kind, HEADER);
    }
    let kind = frame.view::<4>(HEADER).map_or(NONE, |tag| tag.u16_be(2));
    if !is_tag(kind) {
        return (kind, HEADER + TAG);
    }
    let kind = frame.view::<4>(HEADER + TAG).map_or(NONE, |tag| tag.u16_be(2));
    (kind, HEADER + MAX_TAGS * TAG)
}

#[inline(always)]
fn is_tag(kind: u16) -> bool {
    matches!(kind, VLAN | QINQ | QINQ_OLD)
}
