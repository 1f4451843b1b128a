//! Stage 5: packets that no honest peer sends.

use super::{Arrival, Kind, Packet, Step};
use crate::{
    abi::{Addr, Code, Control, Family, Reason},
    wire::tcp,
};

/// Leaves with the reason of the first check that fails.
#[inline(always)]
pub(super) fn stage<A: Arrival>(packet: &Packet, arrival: &A, control: Control) -> Step<()> {
    let drops = match packet.kind.get() {
        Kind::Tcp if !tcp::is_possible(packet.detail.get()) => Some(Reason::BadFlags),
        // UDP may leave its source port out (RFC 768); TCP may not.
        Kind::Tcp if packet.sport.get() == 0 => Some(Reason::ZeroPort),
        Kind::LaterFragment if !control.has(Control::PASS_FRAGMENTS) => Some(Reason::Fragment),
        Kind::Truncated if !control.has(Control::PASS_MALFORMED) => Some(Reason::Truncated),
        Kind::Malformed if !control.has(Control::PASS_MALFORMED) => Some(Reason::Malformed),
        _ => {
            let src = packet.src.get();
            if src.is(&packet.dst.get()) && arrival.external() {
                Some(Reason::SameAddress)
            } else if control.has(Control::DROP_MARTIANS) && is_martian(&src) && arrival.external() {
                Some(Reason::Martian)
            } else {
                None
            }
        }
    };
    match drops {
        Some(reason) => Step::Break(Code(reason as u8)),
        None => Step::Continue(()),
    }
}

/// A source that cannot be real: loopback, unspecified, multicast, broadcast, IPv4 240.0.0.0/4 (RFC 6890).
#[inline(always)]
fn is_martian(src: &Addr) -> bool {
    let reserved = match src.family() {
        Family::V4 => u32::from_be(src.0[3]) >> 28 == 0xf,
        Family::V6 => false,
    };
    reserved || src.is_loopback() || src.is_unspecified() || src.is_multicast_or_broadcast()
}
