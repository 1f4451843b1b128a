//! Stage 3: bans. The hints keep honest sources away from the exact table.

use super::{Kind, Packet, Step, Tables};
use crate::{
    abi::{
        Code, ControlWord, Family, Params, Reason,
        ban::{Stamp, V4_PREFIXES, V6_PREFIXES, buckets},
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
        // Only two prefixes of IPv4 are worth room in the middle of the pipeline.
        let stamp = match self.packet.family.get() {
            Family::V4 => self.glance(hash, bits),
            Family::V6 => self.tables.banned(hash, bits, self.tick),
        };
        let stamp = Stamp(stamp);
        !stamp.is_free() && (!stamp.spares_connections() || opens(self.packet))
    }

    #[inline(always)]
    fn glance(&self, hash: u64, bits: u32) -> u64 {
        let moves = self.tables.word(ControlWord::BanMoves);
        let stamp = look(self.packet, self.params, self.tables, hash, bits, self.tick);
        // Whoever moved an entry has put it into its new bucket first.
        if stamp != Stamp::FREE.0 || self.tables.word(ControlWord::BanMoves) == moves {
            return stamp;
        }
        self.tables.banned(hash, bits, self.tick)
    }
}

/// The [`Stamp`] of the ban that holds for the source's prefix of `bits`, whose hash is `hash`, or a free one. Looks again
/// if entries were moved meanwhile.
#[inline(always)]
pub fn banned<T: Tables>(packet: &Packet, tables: &T, hash: u64, bits: u32, tick: u64) -> u64 {
    let mut looks = 0;
    while looks < bans::LOOKS {
        let moves = tables.word(ControlWord::BanMoves);
        let stamp = look(packet, tables.params(), tables, hash, bits, tick);
        if stamp != Stamp::FREE.0 || tables.word(ControlWord::BanMoves) == moves {
            return stamp;
        }
        looks += 1;
    }
    Stamp::FREE.0
}

#[inline(always)]
fn look<T: Tables>(packet: &Packet, params: &Params, tables: &T, hash: u64, bits: u32, tick: u64) -> u64 {
    let prefix = packet.src.get().masked(bits);
    for bucket in buckets(hash, params.ban_buckets) {
        if let Some(bucket) = tables.bans(bucket)
            && let Some(stamp) = bans::holding(bucket, prefix.high(), prefix.low(), bits, tick)
        {
            return stamp.0;
        }
    }
    Stamp::FREE.0
}

/// What a ban on new connections drops: TCP SYNs, and whatever has no connection to belong to.
#[inline(always)]
fn opens(packet: &Packet) -> bool {
    !matches!(packet.kind.get(), Kind::Tcp) || packet.opens()
}
