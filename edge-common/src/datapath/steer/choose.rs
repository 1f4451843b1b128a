//! Which backend a flow goes to: the one it is with, the one its first packet went to, or the one that the table names.

use super::{super::Tables, Job, by_source};
use crate::{
    abi::{
        Addr, Backend, Family, Params, SteerRule,
        hint::host_prefix,
        steer::{CANDIDATES, FLOW_WORDS, NAT_WORDS, PLACES_A_WORD},
    },
    algo::{
        flows::{self, Class, Info, NOBODY, Owner},
        hash, maglev, nat,
        slots::Cell,
    },
};

/// Everything that steering may ask of its maps.
pub trait Lanes {
    /// A word shared between cores.
    type Cell: Cell;

    /// The rule of service `index` of copy `copy`.
    fn rule(&self, copy: u32, index: u16) -> Option<&SteerRule>;
    /// The rule's [`SteerRule::table`], read once.
    fn table(&self, rule: &SteerRule) -> u64;
    /// Word `index` of the Maglev tables: four backends.
    fn places(&self, index: u32) -> u64;
    /// Backend `index`.
    fn backend(&self, index: u16) -> Option<&Backend>;
    /// Bucket `index` of the connection table.
    fn flows(&self, index: u32) -> Option<&[Self::Cell; FLOW_WORDS]>;
    /// Cell `index` of the flows' first packets.
    fn candidate(&self, index: u32) -> Option<&Self::Cell>;
    /// Place `index` of the translations.
    fn nat(&self, index: u32) -> Option<&[Self::Cell; NAT_WORDS]>;
    /// What port `port` at place `index` is to a flow of `owner`: a [`nat::Fit`] in the upper half, below it for how many ticks
    /// it has been idle. Apart, so that it can be a function of its own in the kernel: verified once.
    fn fit<T: Tables>(&self, tables: &T, index: u32, port: u16, hash: u64, owner: Owner, tick: u64) -> u64
    where
        Self: Sized,
    {
        fit(tables, self, index, port, hash, owner, tick)
    }
    /// [`super::nat::port`]. Apart for the same reason.
    fn port<T: Tables>(&self, tables: &T, job: &Job, seen: nat::Seen) -> u32
    where
        Self: Sized,
    {
        super::nat::port(tables, self, job, seen)
    }
    /// Counts a packet sent to a backend.
    fn count(&self, backend: u16, bytes: u32, opened: bool, entered: bool);
    /// [`choose`]. Apart, so that it can be a function of its own in the kernel: verified once.
    fn choose<T: Tables>(&self, tables: &T, copy: u32, asked: &Asked, tick: u64) -> Choice
    where
        Self: Sized,
    {
        choose(tables, self, copy, asked, tick)
    }
}

/// A flow, as far as the choice depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Hash of the flow.
    pub hash: u64,
    /// Hash of its source host.
    pub source: u64,
    /// Identifier of the service.
    pub service: u16,
    /// [`Asked::TCP`] and its like.
    pub flags: u32,
}

impl Asked {
    /// It is a TCP connection.
    pub const TCP: u32 = 1 << 16;
    /// The packet opens it.
    pub const OPENS: u32 = 1 << 17;
    /// The packet ends it.
    pub const CLOSES: u32 = 1 << 18;
    /// Something is remembered of the packet: not of one that is only asked about.
    pub const LEARNS: u32 = 1 << 19;

    /// Whether it has this flag.
    #[inline(always)]
    pub const fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Everything but the hashes, as one number of 20 bits.
    #[inline(always)]
    pub const fn to_bits(&self) -> u32 {
        self.service as u32 | self.flags
    }

    /// From that number and the hashes.
    #[inline(always)]
    pub const fn from_bits(bits: u32, hash: u64, source: u64) -> Self {
        Self {
            hash,
            source,
            service: bits as u16,
            flags: bits & (Self::TCP | Self::OPENS | Self::CLOSES | Self::LEARNS),
        }
    }
}

/// What a choice was made by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Why {
    /// No backend takes it.
    Nobody,
    /// The connection table has the flow.
    Connection,
    /// Its first packet went there a moment ago.
    FirstPacket,
    /// The Maglev table says so.
    Table,
}

/// The backend of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice {
    /// Which; backend 0 for none.
    pub owner: Owner,
    /// By what.
    pub why: Why,
    /// The packet is a flow's first.
    pub opened: bool,
    /// The flow was entered into the connection table.
    pub entered: bool,
}

impl Choice {
    const OPENED: u64 = 1 << 32;
    const ENTERED: u64 = 1 << 33;

    /// As one number, without the reason.
    #[inline(always)]
    pub const fn to_bits(&self) -> u64 {
        (self.owner.backend as u64) << 8
            | self.owner.generation as u64
            | (self.opened as u64) << 32
            | (self.entered as u64) << 33
    }

    /// From that number.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self {
            owner: Owner {
                backend: (bits >> 8) as u16,
                generation: bits as u8,
            },
            why: Why::Nobody,
            opened: bits & Self::OPENED != 0,
            entered: bits & Self::ENTERED != 0,
        }
    }
}

/// [`Lanes::fit`].
#[inline(always)]
pub fn fit<T: Tables, L: Lanes>(
    tables: &T,
    lanes: &L,
    index: u32,
    port: u16,
    hash: u64,
    owner: Owner,
    tick: u64,
) -> u64 {
    let Some(entry) = lanes.nat(index) else {
        return 0;
    };
    let hz = tables.params().hz;
    let (fit, age) = nat::fit(entry, hash, owner, port, tick, if hz == 0 { 1 } else { hz });
    (fit as u64) << 32 | u64::from(age)
}

/// Hash of a flow from `src` to `dst`.
#[inline(always)]
pub const fn flow_hash(src: &Addr, dst: &Addr, sport: u16, dport: u16, protocol: u8, params: &Params) -> u64 {
    let seeds = &params.seeds;
    let ports = (sport as u64) << 32 | (dport as u64) << 16 | protocol as u64;
    if let (Family::V4, Family::V4) = (src.family(), dst.family()) {
        return hash::pair((src.0[3] as u64) << 32 | dst.0[3] as u64, ports, seeds);
    }
    let from = hash::pair(src.high(), src.low(), seeds);
    hash::pair(hash::pair(from ^ dst.high(), dst.low(), seeds), ports, seeds)
}

/// Hash of a source host: IPv4 /32, IPv6 /64.
#[inline(always)]
pub const fn source_hash(src: &Addr, family: Family, params: &Params) -> u64 {
    let host = src.masked(host_prefix(family));
    hash::pair(host.high(), host.low(), &params.seeds)
}

/// Chooses the backend of a flow, and remembers what is to be remembered of it.
#[inline(always)]
pub fn choose<T: Tables, L: Lanes>(tables: &T, lanes: &L, copy: u32, asked: &Asked, tick: u64) -> Choice {
    let params = tables.params();
    let hz = if params.hz == 0 { 1 } else { params.hz };
    let case = Case {
        lanes,
        asked,
        tick,
        hz,
        mask: params.flow_mask,
    };
    let known = case.known();
    if known != NOBODY {
        return case.chosen(known, Why::Connection, false);
    }
    let cell = lanes.candidate((asked.hash >> 28) as u32 & (CANDIDATES - 1));
    let second = tick / u64::from(hz);
    let remembered = match cell {
        Some(cell) => flows::remembered(cell.load(), asked.hash, second),
        None => NOBODY,
    };
    if remembered != NOBODY && case.takes(flows::owner(remembered)) {
        let entered = asked.is(Asked::LEARNS)
            && !asked.is(Asked::OPENS)
            && !asked.is(Asked::CLOSES)
            && case.enter(flows::owner(remembered));
        return case.chosen(remembered, Why::FirstPacket, entered);
    }
    let Some(rule) = lanes.rule(copy, asked.service) else {
        return case.chosen(NOBODY, Why::Nobody, false);
    };
    let picked = case.pick(rule);
    if picked == NOBODY {
        return case.chosen(NOBODY, Why::Nobody, false);
    }
    if asked.is(Asked::LEARNS)
        && !asked.is(Asked::CLOSES)
        && let Some(cell) = cell
    {
        // Whoever is faster has a flow of his own to remember.
        let _ = cell.swap(
            cell.load(),
            flows::candidate(asked.hash, flows::owner(picked), second),
        );
    }
    case.chosen(picked, Why::Table, false)
}

struct Case<'c, L> {
    lanes: &'c L,
    asked: &'c Asked,
    tick: u64,
    hz: u32,
    mask: u32,
}

impl<L: Lanes> Case<'_, L> {
    #[inline(always)]
    fn chosen(&self, owner: u32, why: Why, entered: bool) -> Choice {
        let is_first = if self.asked.is(Asked::TCP) {
            self.asked.is(Asked::OPENS)
        } else {
            why as u8 == Why::Table as u8
        };
        Choice {
            owner: if owner == NOBODY {
                Owner {
                    backend: 0,
                    generation: 0,
                }
            } else {
                flows::owner(owner)
            },
            why,
            opened: is_first,
            entered,
        }
    }

    /// The owner that the connection table names, as [`flows::owner`] takes it.
    #[inline(always)]
    fn known(&self) -> u32 {
        let [one, other] = flows::places(self.asked.hash, self.mask);
        match self.known_in(one) {
            NOBODY => self.known_in(other),
            owner => owner,
        }
    }

    #[inline(always)]
    fn known_in(&self, place: u32) -> u32 {
        let Some(bucket) = self.lanes.flows(place) else {
            return NOBODY;
        };
        let at = flows::find(bucket, self.asked.hash);
        if at == 0 {
            return NOBODY;
        }
        let info = Info(bucket[at % FLOW_WORDS].load());
        if !info.is_alive(self.tick, self.hz) || !self.keeps(info) {
            return NOBODY;
        }
        if self.asked.is(Asked::LEARNS) {
            let class = if self.asked.is(Asked::CLOSES) {
                Class::Closing as u8
            } else {
                info.class()
            };
            flows::touch(bucket, at, info, class, self.tick, self.hz);
        }
        let owner = info.owner();
        u32::from(owner.backend) << 8 | u32::from(owner.generation)
    }

    /// Whether a packet stays with the backend of its connection. One that opens another under the same addresses and
    /// ports may go elsewhere if the old one is ending, or the backend gets no more.
    #[inline(always)]
    fn keeps(&self, info: Info) -> bool {
        let owner = info.owner();
        let Some(backend) = self.lanes.backend(owner.backend) else {
            return false;
        };
        let is_it = backend.generation == owner.generation && backend.service == self.asked.service;
        if self.asked.is(Asked::OPENS) {
            return is_it && backend.takes_new() && info.class() != Class::Closing as u8;
        }
        is_it && backend.serves()
    }

    /// Whether a backend that was chosen a moment ago still takes the flow.
    #[inline(always)]
    fn takes(&self, owner: Owner) -> bool {
        let Some(backend) = self.lanes.backend(owner.backend) else {
            return false;
        };
        let is_it = backend.generation == owner.generation && backend.service == self.asked.service;
        is_it
            && if self.asked.is(Asked::OPENS) {
                backend.takes_new()
            } else {
                backend.serves()
            }
    }

    #[inline(always)]
    fn enter(&self, owner: Owner) -> bool {
        let class = if self.asked.is(Asked::TCP) {
            Class::Open as u8
        } else {
            Class::Datagrams as u8
        };
        let [one, other] = flows::places(self.asked.hash, self.mask);
        let (Some(one), Some(other)) = (self.lanes.flows(one), self.lanes.flows(other)) else {
            return false;
        };
        let hash = self.asked.hash;
        // The entry of a flow whose backend is gone is given to the new one.
        flows::hand_over(one, hash, owner, class, self.tick)
            || flows::hand_over(other, hash, owner, class, self.tick)
            || flows::insert(one, hash, owner, class, self.tick, self.hz)
            || flows::insert(other, hash, owner, class, self.tick, self.hz)
    }

    /// The owner that the Maglev table names.
    #[inline(always)]
    fn pick(&self, rule: &SteerRule) -> u32 {
        let table = self.lanes.table(rule);
        let (start, size) = (table as u32, (table >> 32) as u32);
        if size == 0 {
            return NOBODY;
        }
        let by = if by_source(rule) {
            self.asked.source
        } else {
            self.asked.hash
        };
        let place = maglev::place(by, size);
        let word = self.lanes.places(start + place / PLACES_A_WORD);
        let index = (word >> (place % PLACES_A_WORD * 16)) as u16;
        let Some(backend) = self.lanes.backend(index) else {
            return NOBODY;
        };
        // One that went down while the table was being filled anew.
        if index == 0 || backend.service != self.asked.service || !backend.serves() {
            return NOBODY;
        }
        u32::from(index) << 8 | u32::from(backend.generation)
    }
}
