//! Stage 4: the deny list. A bitmap over coarse prefixes stands before the trie, the dearest look-up there is.

use super::{Packet, Step, Tables};
use crate::{
    abi::{Addr, Code, Control, Family, Params, Reason},
    algo::hash,
};

/// IPv4 sources are hinted by their /24.
pub const V4_GRAIN: u32 = 96 + 24;
/// IPv6 sources are hinted by their /32; entries shorter than that set [`Control::DENY_SHORT_V6`].
pub const V6_GRAIN: u32 = 32;
/// Number of hint bits of one copy, minus one.
pub const DENY_HINT_MASK: u32 = (1 << 24) - 1;

/// The list of sources that are dropped.
pub const DENY_LIST: u32 = 0;
/// The list of sources that are never dropped.
pub const ALLOW_LIST: u32 = 1;

/// Leaves with [`Reason::Denied`] if the source is on the deny list.
#[inline(always)]
pub(super) fn stage<T: Tables>(packet: &Packet, params: &Params, tables: &T, control: Control) -> Step<()> {
    if !control.has(Control::HAS_DENY) {
        return Step::Continue(());
    }
    let (copy, src) = (control.copy(Control::DENY), packet.src.get());
    if hinted(&src, params, tables, control, copy) && tables.listed(DENY_LIST, copy) {
        return Step::Break(Code(Reason::Denied as u8));
    }
    Step::Continue(())
}

/// Whether the source of the packet in [`Tables::packet`] is on a list.
#[inline(always)]
pub fn listed<T: Tables>(tables: &T, list: u32, copy: u32) -> bool {
    let Some(packet) = tables.packet() else {
        return false;
    };
    let src = packet.src.get();
    if list == DENY_LIST {
        tables.denied(copy, &src)
    } else {
        tables.allowed(copy, &src)
    }
}

#[inline(always)]
fn hinted<T: Tables>(src: &Addr, params: &Params, tables: &T, control: Control, copy: u32) -> bool {
    if control.has(Control::DENY_SHORT_V6) && src.family() == Family::V6 {
        return true;
    }
    let (word, bit) = deny_hint(src, params);
    tables.deny_hint_word(copy, word) >> bit & 1 == 1
}

/// Where the deny hint of an address lies: the word's index and the bit in it.
///
/// An IPv4 address has the bit of its /24 number; an IPv6 address that of the hash of its /32.
#[inline(always)]
pub const fn deny_hint(addr: &Addr, params: &Params) -> (u32, u32) {
    let index = match addr.family() {
        Family::V4 => u32::from_be(addr.0[3]) >> 8,
        Family::V6 => hash::index(hash::word(addr.0[0] as u64, &params.seeds), DENY_HINT_MASK),
    };
    (index >> 6, index & 63)
}
