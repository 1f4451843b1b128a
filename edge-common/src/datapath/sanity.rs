//! Stage 5: packets that no honest peer sends.

use super::{Arrival, Kind, Packet, Step};
use crate::{
    abi::{Addr, Control, Family, Reason},
    wire::tcp,
};

/// Leaves with the reason of the first check that fails.
#[inline(always)]
pub(super) fn stage(packet: &Packet, arrival: Arrival, control: Control) -> Step<()> {
    match packet.kind.get() {
        Kind::Tcp if !tcp::is_possible(packet.detail.get()) => return Step::Break(Reason::BadFlags),
        // UDP may leave its source port out (RFC 768); TCP may not.
        Kind::Tcp if packet.sport.get() == 0 => return Step::Break(Reason::ZeroPort),
        Kind::LaterFragment if !control.has(Control::PASS_FRAGMENTS) => return Step::Break(Reason::Fragment),
        Kind::Truncated if !control.has(Control::PASS_MALFORMED) => return Step::Break(Reason::Truncated),
        Kind::Malformed if !control.has(Control::PASS_MALFORMED) => return Step::Break(Reason::Malformed),
        _ => {}
    }
    if arrival.external {
        let src = packet.src.get();
        if src == packet.dst.get() {
            return Step::Break(Reason::SameAddress);
        }
        if control.has(Control::DROP_MARTIANS) && is_martian(&src) {
            return Step::Break(Reason::Martian);
        }
    }
    Step::Continue(())
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
