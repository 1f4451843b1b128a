//! Ethernet and VLAN tags.

use super::Frame;

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

/// The EtherType behind the VLAN tags, and where its payload begins; `None` if the frame ends before.
#[inline(always)]
pub fn payload<F: Frame>(frame: &F) -> Option<(u16, u32)> {
    let kind = frame.u16_be(12)?;
    if !is_tag(kind) {
        return Some((kind, HEADER));
    }
    let kind = frame.u16_be(HEADER + 2)?;
    if !is_tag(kind) {
        return Some((kind, HEADER + TAG));
    }
    Some((frame.u16_be(HEADER + TAG + 2)?, HEADER + MAX_TAGS * TAG))
}

#[inline(always)]
fn is_tag(kind: u16) -> bool {
    matches!(kind, VLAN | QINQ | QINQ_OLD)
}
