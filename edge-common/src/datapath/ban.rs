//! Stage 3: bans. The hints keep honest sources away from the exact table.

use super::{Kind, Packet, Step, Tables};
use crate::{
    abi::{
        Code, ControlWord, Family, Params, Reason,
        ban::{V4_PREFIXES, V6_PREFIXES, buckets},
        hint::{self, Hints, Keys},
    },
    algo::bans,
};

/// Leaves with [`Reason::Banned`] if the source, or a prefix it lies in, is banned.
#[inline(always)]
pub(super) fn stage<T: Tables>(
    packet: &Packet,
    keys: &Keys,
    hints: Hints,
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
    let word = hints.bans;
    match packet.family.get() {
        Family::V4 => {
            if word & (hint::bit(keys.host) | hint::bit(keys.network)) == 0 {
                return Step::Continue(());
            }
            asked.check(word, keys.host, V4_PREFIXES[0])?;
            asked.check(word, keys.network, V4_PREFIXES[1])
        }
        Family::V6 => {
            // No ban in any network that shares the word: the commonest case.
            if word == 0 {
                return Step::Continue(());
            }
            let hash = |bits| hint::prefix(&packet.src.get(), Family::V6, bits, params);
            asked.check(word, hash(V6_PREFIXES[0]), V6_PREFIXES[0])?;
            asked.check(word, keys.host, V6_PREFIXES[1])?;
            asked.check(word, hash(V6_PREFIXES[2]), V6_PREFIXES[2])?;
            asked.check(word, keys.network, V6_PREFIXES[3])
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
    fn check(&self, word: u64, hash: u64, bits: u32) -> Step<()> {
        if word & hint::bit(hash) != 0 && self.covers(hash, bits) {
            return Step::Break(Code(Reason::Banned as u8));
        }
        Step::Continue(())
    }

    #[inline(always)]
    fn covers(&self, hash: u64, bits: u32) -> bool {
        let prefix = self.packet.src.get().masked(bits);
        let [first, second] = buckets(hash, self.params.ban_buckets);
        let mut looks = 0;
        while looks < bans::LOOKS {
            let moves = self.tables.word(ControlWord::BanMoves);
            let holds = self.holds(first, prefix.high(), prefix.low(), bits);
            if holds || self.holds(second, prefix.high(), prefix.low(), bits) {
                return true;
            }
            // Whoever moved an entry has put it into its new bucket first.
            if self.tables.word(ControlWord::BanMoves) == moves {
                return false;
            }
            looks += 1;
        }
        false
    }

    #[inline(always)]
    fn holds(&self, bucket: u32, high: u64, low: u64, bits: u32) -> bool {
        let Some(bucket) = self.tables.bans(bucket) else {
            return false;
        };
        let held = bans::holding(bucket, high, low, bits, self.tick);
        held.is_some_and(|stamp| !stamp.spares_connections() || opens(self.packet))
    }
}

/// What a ban on new connections drops: TCP SYNs, and whatever has no connection to belong to.
#[inline(always)]
fn opens(packet: &Packet) -> bool {
    !matches!(packet.kind.get(), Kind::Tcp) || packet.opens()
}
