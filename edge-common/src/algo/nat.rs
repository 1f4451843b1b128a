//! Translations: which port of the edge's stands for a connection at its backend, and the way back.
//!
//! A place's index is the sum of a hash of the backend's end and the port. So an answer finds its place by its own port, and
//! a packet of the client's by one of the few ports that its flow's hash begins with: one entry serves both ways, and there is
//! no second table that could disagree. An entry is a cache line; whoever changes its first word by compare-and-swap has it,
//! and nobody takes its other words for anything until that says so.
//!
//! Invariants: an entry that is alive and has been answered keeps its place, whatever arrives; what was never answered makes
//! room for others, the oldest first, so a flood of made-up sources displaces its own; at one backend's end, no two
//! connections have one port at a time.

use super::{
    flows::{Info, Owner},
    slots::Cell,
};
use crate::{
    abi::{
        Addr,
        steer::{NAT_WORDS, NATS},
    },
    wire::tcp,
};

/// An entry of the table.
pub type Entry<C> = [C; NAT_WORDS];
/// The words of an entry: what [`Info`] says, the flow's hash, the client's address, the service's, the ports, and what was
/// answered.
const INFO: usize = 0;
const FLOW: usize = 1;
const CLIENT: usize = 2;
const SERVICE: usize = 4;
const PORTS: usize = 6;
const ANSWER: usize = 7;

/// Ports that are tried for a flow.
pub const TRIES: u32 = 8;
/// How far the client's first acknowledgement may be beyond the backend's SYN: it may come with what follows, if it was lost.
const AHEAD: u32 = 1 << 20;

/// How far a connection has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Stage {
    /// The client has not shown that it got an answer.
    Opening = 1,
    /// Datagrams go both ways.
    Datagrams = 2,
    /// A TCP connection whose handshake was completed.
    Open = 3,
    /// A TCP connection of which a FIN or RST was seen.
    Closing = 4,
    /// It is being written.
    Claimed = 5,
}

/// Seconds that an entry outlives its last packet, by [`Stage`].
pub const IDLE_SECONDS: [u32; 8] = [0, 10, 60, 3_600, 30, 1, 0, 0];

/// Whether an entry still stands for a connection.
#[inline(always)]
pub const fn is_alive(info: Info, tick: u64, hz: u32) -> bool {
    info.age(tick) < IDLE_SECONDS[info.class() as usize & 7].wrapping_mul(hz)
}

/// Index of the place of a port at the backend's end that hashes to `home`.
#[inline(always)]
pub const fn place(home: u64, port: u16) -> u32 {
    ((home >> 32) as u32).wrapping_add(port as u32) & (NATS - 1)
}

/// The ports that may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ports {
    /// The first.
    pub low: u16,
    /// The last.
    pub high: u16,
}

impl Ports {
    /// The port that is tried for a flow after `at` others.
    #[inline(always)]
    pub const fn nth(self, hash: u64, at: u32) -> u16 {
        let span = (self.high as u32).wrapping_sub(self.low as u32).wrapping_add(1);
        if span == 0 {
            return self.low;
        }
        let start = (hash as u32) % span;
        let offset = start + at;
        let offset = if offset >= span { offset - span } else { offset };
        self.low.wrapping_add(offset as u16)
    }
}

/// The hash as it is kept: 0 is an empty entry's.
#[inline(always)]
const fn tag(hash: u64) -> u64 {
    if hash == 0 { 1 } else { hash }
}

/// What a place is to a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Fit {
    /// Another's.
    Taken = 0,
    /// Another's who was never answered; the older the better.
    Weak = 1,
    /// Nobody's.
    Free = 2,
    /// It has the flow.
    Found = 3,
}

/// What an entry is to a flow of `owner` at `port`, and for how many ticks it has been idle.
#[inline(always)]
pub fn fit<C: Cell>(entry: &Entry<C>, hash: u64, owner: Owner, port: u16, tick: u64, hz: u32) -> (Fit, u32) {
    let info = Info(entry[INFO].load());
    let age = info.age(tick);
    if !is_alive(info, tick, hz) {
        return (Fit::Free, age);
    }
    let class = info.class();
    if class == Stage::Claimed as u8 {
        return (Fit::Taken, age);
    }
    let is_mine = entry[FLOW].load() == tag(hash)
        && info.0 >> 32 & 0xff_ffff == Info::new(owner, 0, 0).0 >> 32
        && (entry[PORTS].load() >> 32) as u16 == port;
    if is_mine {
        return (Fit::Found, age);
    }
    if class == Stage::Opening as u8 {
        return (Fit::Weak, age);
    }
    (Fit::Taken, age)
}

/// Both ends of a connection as the client has it, and the port that stands for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The client's address.
    pub client: Addr,
    /// The service's address.
    pub service: Addr,
    /// The client's port, host order.
    pub client_port: u16,
    /// The service's port, host order.
    pub service_port: u16,
    /// The edge's port, host order.
    pub port: u16,
    /// IP protocol.
    pub protocol: u8,
}

impl Translation {
    #[inline(always)]
    const fn ports(&self) -> u64 {
        self.client_port as u64
            | (self.service_port as u64) << 16
            | (self.port as u64) << 32
            | (self.protocol as u64) << 48
    }
}

#[inline(always)]
fn put<C: Cell>(cell: &C, value: u64) {
    // Whoever has claimed the entry is alone with it.
    let _ = cell.swap(cell.load(), value);
}

/// Enters a flow in the place of one that is no more, or was never answered; whether it could.
#[inline(always)]
pub fn claim<C: Cell>(
    entry: &Entry<C>,
    hash: u64,
    owner: Owner,
    translation: &Translation,
    tick: u64,
    hz: u32,
) -> bool {
    let old = Info(entry[INFO].load());
    if is_alive(old, tick, hz) && old.class() != Stage::Opening as u8 {
        return false;
    }
    let claimed = Info::new(owner, Stage::Claimed as u8, tick);
    if !entry[INFO].swap(old.0, claimed.0) {
        return false;
    }
    let (client, service) = (translation.client.to_words(), translation.service.to_words());
    put(&entry[FLOW], tag(hash));
    put(&entry[CLIENT], client[0]);
    put(&entry[CLIENT + 1], client[1]);
    put(&entry[SERVICE], service[0]);
    put(&entry[SERVICE + 1], service[1]);
    put(&entry[PORTS], translation.ports());
    put(&entry[ANSWER], 0);
    entry[INFO].swap(claimed.0, Info::new(owner, Stage::Opening as u8, tick).0)
}

/// What an entry stands for, if it is `port` over `protocol`, with its [`Info`].
#[inline(always)]
pub fn read<C: Cell>(
    entry: &Entry<C>,
    port: u16,
    protocol: u8,
    tick: u64,
    hz: u32,
) -> Option<(Translation, Info)> {
    let info = Info(entry[INFO].load());
    let (flow, ports) = (entry[FLOW].load(), entry[PORTS].load());
    let translation = Translation {
        client: Addr::from_words([entry[CLIENT].load(), entry[CLIENT + 1].load()]),
        service: Addr::from_words([entry[SERVICE].load(), entry[SERVICE + 1].load()]),
        client_port: ports as u16,
        service_port: (ports >> 16) as u16,
        port: (ports >> 32) as u16,
        protocol: (ports >> 48) as u8,
    };
    let is_it = is_alive(info, tick, hz) && translation.port == port && translation.protocol == protocol;
    // Somebody else's by now, or somewhere in between.
    let (after, same) = (Info(entry[INFO].load()), entry[FLOW].load() == flow);
    let is_whole = info.class() != Stage::Claimed as u8 && after.class() != Stage::Claimed as u8 && same;
    (is_it && is_whole).then_some((translation, info))
}

/// A packet, as far as an entry changes with it: in the lower half a number of its segment, above it the segment's flags, where
/// no branch has to put them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen(pub u64);

impl Seen {
    /// It is a TCP segment.
    pub const TCP: u64 = 1 << 32;
    /// It has SYN.
    pub const OPENS: u64 = (tcp::SYN as u64) << Self::FLAGS;
    /// It has ACK.
    pub const ACKNOWLEDGES: u64 = (tcp::ACK as u64) << Self::FLAGS;
    /// It has FIN or RST.
    pub const CLOSES: u64 = ((tcp::FIN | tcp::RST) as u64) << Self::FLAGS;
    const FLAGS: u32 = 40;

    /// A segment with these flags.
    #[inline(always)]
    pub const fn segment(flags: u8, number: u32) -> Self {
        Self(Self::TCP | (flags as u64) << Self::FLAGS | number as u64)
    }

    /// Whether it has this flag.
    #[inline(always)]
    pub const fn is(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    /// Sequence number of a backend's segment, acknowledgement number of a client's.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self.0 as u32
    }
}

/// There was an answer; in the lower half the acknowledgement that a client who got it sends.
const ANSWERED: u64 = 1 << 32;

/// Takes note of a packet of the client's.
#[inline(always)]
pub fn sent<C: Cell>(entry: &Entry<C>, seen: Seen, tick: u64, hz: u32) {
    let info = Info(entry[INFO].load());
    let answer = entry[ANSWER].load();
    let class = info.class();
    let is_opening = class == Stage::Opening as u8;
    let next = if seen.is(Seen::CLOSES) {
        closed(class)
    } else if seen.is(Seen::TCP) && seen.is(Seen::OPENS) {
        if class == Stage::Closing as u8 {
            put(&entry[ANSWER], 0);
            Stage::Opening as u8
        } else {
            class
        }
    } else if is_opening && answer & ANSWERED != 0 {
        if !seen.is(Seen::TCP) {
            Stage::Datagrams as u8
        } else if seen.is(Seen::ACKNOWLEDGES) && seen.number().wrapping_sub(answer as u32) < AHEAD {
            Stage::Open as u8
        } else {
            class
        }
    } else {
        class
    };
    touch(entry, info, next, tick, hz);
}

/// Takes note of a packet of the backend's.
#[inline(always)]
pub fn answered<C: Cell>(entry: &Entry<C>, info: Info, seen: Seen, tick: u64, hz: u32) {
    if info.class() == Stage::Opening as u8
        && (!seen.is(Seen::TCP) || seen.is(Seen::OPENS) && seen.is(Seen::ACKNOWLEDGES))
    {
        let answer = ANSWERED | u64::from(seen.number().wrapping_add(1));
        if entry[ANSWER].load() != answer {
            put(&entry[ANSWER], answer);
        }
    }
    let class = if seen.is(Seen::CLOSES) {
        closed(info.class())
    } else {
        info.class()
    };
    touch(entry, info, class, tick, hz);
}

/// What ends without having been open still makes room for others: its sender may be made up.
#[inline(always)]
const fn closed(class: u8) -> u8 {
    if class == Stage::Opening as u8 {
        class
    } else {
        Stage::Closing as u8
    }
}

/// A word that all CPUs read is not written with every packet.
#[inline(always)]
fn touch<C: Cell>(entry: &Entry<C>, old: Info, class: u8, tick: u64, hz: u32) {
    if old.age(tick) < hz && old.class() == class {
        return;
    }
    // Whoever was faster has said the same, or has taken the place of somebody idle.
    let _ = entry[INFO].swap(old.0, Info::new(old.owner(), class, tick).0);
}

#[cfg(test)]
mod tests;
