//! Stage 3: bans. The hints keep honest sources away from the exact map.

use super::{Kind, Packet, Step, Tables};
use crate::{
    abi::{Addr, Ban, BanKey, Family, Params, Reason, ban, hint},
    wire::tcp,
};

/// Which exact tables are worth a look-up for this source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hints {
    /// The table of earned sources.
    pub(super) earned: bool,
    /// Some ban, at one of the prefix lengths.
    bans: [bool; hint::MAX_KEYS],
    family: Family,
}

/// Reads the hints of a source.
#[inline(always)]
pub(super) fn hints<T: Tables>(keys: &hint::Keys, params: &Params, tables: &T) -> Hints {
    let host = field(keys.host, params, tables);
    let network = field(keys.network, params, tables);
    let (first, third) = match keys.family {
        Family::V4 => (0, 0),
        Family::V6 => (
            field(keys.others[0], params, tables),
            field(keys.others[1], params, tables),
        ),
    };
    Hints {
        earned: host & hint::EARNED != 0,
        bans: [
            first & hint::BAN != 0,
            host & hint::BAN != 0,
            third & hint::BAN != 0,
            network & hint::BAN != 0,
        ],
        family: keys.family,
    }
}

#[inline(always)]
fn field<T: Tables>(hash: u64, params: &Params, tables: &T) -> u64 {
    let (word, shift) = hint::place(hash, params);
    tables.hint_word(word) >> shift
}

/// Leaves with [`Reason::Banned`] if the source, or a prefix it lies in, is banned.
#[inline(always)]
pub(super) fn stage<T: Tables>(packet: &Packet, hints: &Hints, tables: &T, tick: u64) -> Step<()> {
    let [first, host, third, network] = hints.bans;
    if !(first | host | third | network) {
        return Step::Continue(());
    }
    let prefixes = match hints.family {
        // The first and the third stay clear for IPv4.
        Family::V4 => [
            ban::V4_PREFIXES[0],
            ban::V4_PREFIXES[0],
            ban::V4_PREFIXES[0],
            ban::V4_PREFIXES[1],
        ],
        Family::V6 => ban::V6_PREFIXES,
    };
    check(first, packet, prefixes[0], tables, tick)?;
    check(host, packet, prefixes[1], tables, tick)?;
    check(third, packet, prefixes[2], tables, tick)?;
    check(network, packet, prefixes[3], tables, tick)
}

#[inline(always)]
fn check<T: Tables>(hinted: bool, packet: &Packet, prefix: u32, tables: &T, tick: u64) -> Step<()> {
    if hinted && covers(&packet.src, prefix, tables, tick, packet.kind) {
        return Step::Break(Reason::Banned);
    }
    Step::Continue(())
}

#[inline(always)]
fn covers<T: Tables>(src: &Addr, prefix: u32, tables: &T, tick: u64, kind: Kind) -> bool {
    let Some(entry) = tables.ban(&BanKey::new(src, prefix)) else {
        return false;
    };
    entry.holds(tick) && (entry.scope != Ban::NEW_CONNECTIONS || opens(kind))
}

/// What a ban on new connections drops: TCP SYNs, and whatever has no connection to belong to.
#[inline(always)]
fn opens(kind: Kind) -> bool {
    match kind {
        Kind::Tcp { flags } => tcp::opens(flags),
        Kind::Udp | Kind::Icmp { .. } | Kind::Icmp6 { .. } | Kind::Other => true,
        Kind::LaterFragment | Kind::Truncated | Kind::Malformed => true,
    }
}
