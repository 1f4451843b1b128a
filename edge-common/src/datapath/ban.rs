//! Stage 3: bans. The hints keep honest sources away from the exact map.

use super::{Kind, Packet, Step, Tables};
use crate::abi::{
    Ban, BanKey, Family, Params, Reason,
    ban::{V4_PREFIXES, V6_PREFIXES},
    hint,
};

/// Whether the exact table that `bit` stands for may hold the prefix with this hash.
#[inline(always)]
pub(super) fn hinted<T: Tables>(hash: u64, bit: u64, params: &Params, tables: &T) -> bool {
    let (word, shift) = hint::place(hash, params);
    tables.hint_word(word) >> shift & bit != 0
}

/// Leaves with [`Reason::Banned`] if the source, or a prefix it lies in, is banned.
#[inline(always)]
pub(super) fn stage<T: Tables>(
    packet: &Packet,
    keys: &hint::Keys,
    params: &Params,
    tables: &T,
    tick: u64,
) -> Step<()> {
    let asked = Asked {
        packet,
        params,
        tables,
        tick,
    };
    // Each prefix is settled before the next is looked at: a verifier keeps no combinations of them.
    match keys.family {
        Family::V4 => {
            asked.check(keys.host, V4_PREFIXES[0])?;
            asked.check(keys.network, V4_PREFIXES[1])
        }
        Family::V6 => {
            asked.check(keys.others[0], V6_PREFIXES[0])?;
            asked.check(keys.host, V6_PREFIXES[1])?;
            asked.check(keys.others[1], V6_PREFIXES[2])?;
            asked.check(keys.network, V6_PREFIXES[3])
        }
    }
}

struct Asked<'a, T> {
    packet: &'a Packet,
    params: &'a Params,
    tables: &'a T,
    tick: u64,
}

impl<T: Tables> Asked<'_, T> {
    #[inline(always)]
    fn check(&self, hash: u64, prefix: u32) -> Step<()> {
        if hinted(hash, hint::BAN, self.params, self.tables)
            && covers(self.packet, prefix, self.tables, self.tick)
        {
            return Step::Break(Reason::Banned);
        }
        Step::Continue(())
    }
}

#[inline(always)]
fn covers<T: Tables>(packet: &Packet, prefix: u32, tables: &T, tick: u64) -> bool {
    let Some(entry) = tables.ban(&BanKey::new(&packet.src.get(), prefix)) else {
        return false;
    };
    entry.holds(tick) && (entry.scope != Ban::NEW_CONNECTIONS || opens(packet))
}

/// What a ban on new connections drops: TCP SYNs, and whatever has no connection to belong to.
#[inline(always)]
fn opens(packet: &Packet) -> bool {
    !matches!(packet.kind.get(), Kind::Tcp) || packet.opens()
}
