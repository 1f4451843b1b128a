//! The maps in memory: what tests and the simulator run the pipeline over.
//!
//! Written for clarity, not speed: a list is searched linearly. It must answer exactly as the kernel's maps do;
//! the differential tests hold the two side by side.

mod lanes;
mod stack;

use core::sync::atomic::{AtomicU64, Ordering};
use std::{collections::HashMap, vec::Vec};

use crate::{
    abi::{
        Addr, AddressFlags, Ban, BanKey, Control, ControlWord, CookieSettings, EarnedHost, Hints, LimitKind,
        LpmKey, Params, PortEntry, SEEN, SLOTS_PER_LINE, Service, SynRule, SynState, TOLD, Told,
        ban::BUCKET_WORDS,
        hint,
        limit::EARNED_WORDS,
        service::{MAX_SERVICES, PORTS},
    },
    algo::{
        bans::{Full, Store, Writer, hash},
        earned::{self, Claim},
        gcra,
        slots::Cell,
    },
    datapath::{DENY_HINT_MASK, Packet, Tables, V6_GRAIN, deny_hint},
    wire::{Frame, View},
};

pub use lanes::{MemEgress, MemLanes};
pub use stack::MemStack;

/// A frame in memory.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Frame for Bytes<'_> {
    type View<const N: usize> = [u8; N];

    fn len(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    fn view<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let start = usize::try_from(offset).ok()?;
        self.0.get(start..start.checked_add(N)?)?.try_into().ok()
    }
}

impl<const N: usize> View for [u8; N] {
    fn u8(&self, at: usize) -> u8 {
        self.get(at).copied().unwrap_or_default()
    }

    fn u16_be(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.u8(at), self.u8(at + 1)])
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_ne_bytes([self.u8(at), self.u8(at + 1), self.u8(at + 2), self.u8(at + 3)])
    }
}

impl Cell for AtomicU64 {
    fn load(&self) -> u64 {
        // Acquire: the table of bans relies on the order of loads, which x86-64 keeps by itself.
        self.load(Ordering::Acquire)
    }

    fn swap(&self, old: u64, new: u64) -> bool {
        self.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
}

/// The table of bans in memory.
#[derive(Debug)]
pub struct MemBans {
    buckets: Vec<[AtomicU64; BUCKET_WORDS]>,
    moves: AtomicU64,
}

impl MemBans {
    /// An empty table.
    pub fn new(buckets: u32) -> Self {
        Self {
            buckets: core::iter::repeat_with(|| core::array::from_fn(|_| AtomicU64::new(0)))
                .take(buckets as usize)
                .collect(),
            moves: AtomicU64::new(0),
        }
    }

    /// A bucket's words.
    ///
    /// # Panics
    /// There is none of this index.
    pub fn bucket(&self, index: u32) -> &[AtomicU64; BUCKET_WORDS] {
        &self.buckets[index as usize]
    }

    /// Moves so far.
    pub fn moves(&self) -> u64 {
        self.moves.load(Ordering::Acquire)
    }
}

impl Store for MemBans {
    fn load(&self, bucket: u32, word: usize) -> u64 {
        self.buckets[bucket as usize][word].load(Ordering::Acquire)
    }

    fn store(&self, bucket: u32, word: usize, value: u64) {
        self.buckets[bucket as usize][word].store(value, Ordering::Release);
    }

    fn moved(&self) {
        self.moves.fetch_add(1, Ordering::AcqRel);
    }
}

/// Every table of the pipeline, in memory.
#[derive(Debug)]
pub struct MemTables {
    /// The control word.
    pub control: Control,
    /// The parameters.
    pub params: Params,
    /// The port table.
    pub ports: Vec<PortEntry>,
    /// Both copies of the service table.
    pub services: [Vec<Service>; 2],
    /// Flags by address.
    pub addresses: HashMap<Addr, AddressFlags>,
    /// Hints.
    pub hints: Vec<Hints>,
    /// Bans.
    pub bans: MemBans,
    /// Both copies of the deny list.
    pub deny: [Vec<LpmKey>; 2],
    /// Both copies of the deny hints.
    pub deny_hints: [HashMap<u32, u64>; 2],
    /// Both copies of the allow list.
    pub allow: [Vec<LpmKey>; 2],
    /// Both copies of the rules of services.
    pub syn_rules: [Vec<SynRule>; 2],
    /// What answers with cookies say.
    pub cookie_settings: CookieSettings,
    packet: Packet,
    found: std::cell::Cell<u64>,
    syn_states: Vec<[AtomicU64; SynState::CELLS]>,
    told: Vec<std::cell::Cell<Told>>,
    seen: Vec<AtomicU64>,
    lines: Vec<[AtomicU64; SLOTS_PER_LINE]>,
    earned: Vec<[AtomicU64; EARNED_WORDS]>,
}

impl MemTables {
    /// Empty tables: nothing is protected.
    pub fn new(params: Params) -> Self {
        let lines = (params.front_mask + params.line_mask + 2) as usize * LimitKind::COUNT;
        let unused = gcra::unused(params.epoch_tick);
        Self {
            control: Control::default(),
            params,
            ports: std::vec![PortEntry::default(); PORTS as usize],
            services: core::array::from_fn(|_| std::vec![Service::default(); MAX_SERVICES as usize]),
            addresses: HashMap::new(),
            hints: std::vec![Hints::default(); params.hint_mask as usize + 1],
            bans: MemBans::new(params.ban_buckets),
            deny: [Vec::new(), Vec::new()],
            deny_hints: [HashMap::new(), HashMap::new()],
            allow: [Vec::new(), Vec::new()],
            syn_rules: core::array::from_fn(|_| std::vec![SynRule::default(); MAX_SERVICES as usize]),
            cookie_settings: CookieSettings::default(),
            packet: Packet::new(),
            found: std::cell::Cell::new(0),
            syn_states: core::iter::repeat_with(|| core::array::from_fn(|_| AtomicU64::new(0)))
                .take(MAX_SERVICES as usize)
                .collect(),
            told: std::vec![std::cell::Cell::default(); TOLD as usize],
            seen: core::iter::repeat_with(AtomicU64::default)
                .take(SEEN as usize)
                .collect(),
            lines: core::iter::repeat_with(|| core::array::from_fn(|_| AtomicU64::new(unused)))
                .take(lines)
                .collect(),
            earned: core::iter::repeat_with(|| core::array::from_fn(|_| AtomicU64::new(0)))
                .take(params.earned_buckets as usize)
                .collect(),
        }
    }

    /// Adds a ban with its hint.
    ///
    /// # Errors
    /// The table is full.
    pub fn ban(&mut self, key: &BanKey, ban: &Ban) -> Result<(), Full> {
        let network = hint::Keys::new(&key.addr, key.addr.family(), &self.params);
        let element = network.element(&self.params) as usize;
        self.hints[element].bans |= hint::bit(hash(key, &self.params));
        Writer::new(&self.bans, &self.params).put(key, ban).map(drop)
    }

    /// Gives a source host that has sent nothing exact state under the limits with this salt, with its hint.
    pub fn earn(&mut self, host: EarnedHost, salt: u16, tick: u64) -> Claim {
        let keys = host.keys(&self.params);
        self.hints[keys.element(&self.params) as usize].earned |= hint::bit(keys.host);
        let places = earned::places(keys.host, self.params.earned_buckets);
        let buckets = places.map(|bucket| &self.earned[bucket as usize]);
        earned::claim_either(buckets, host, salt, gcra::now(tick), &|_| 0)
    }

    /// What all CPUs share of a service's guard.
    pub fn set_syn_state(&self, service: u16, state: SynState) {
        let cells = self.syn_states.get(usize::from(service)).into_iter().flatten();
        for (cell, word) in cells.zip(state.cells) {
            cell.store(word, Ordering::Relaxed);
        }
    }

    /// The buckets of earned sources.
    pub fn earned_buckets(&self) -> &[[AtomicU64; EARNED_WORDS]] {
        &self.earned
    }

    /// Replaces copy `copy` of the deny list, with its hints.
    pub fn set_deny(&mut self, copy: usize, entries: &[LpmKey]) {
        let mut hints: HashMap<u32, u64> = HashMap::new();
        for entry in entries {
            for addr in hinted_addresses(entry) {
                let (word, bit) = deny_hint(&addr, &self.params);
                *hints.entry(word).or_default() |= 1 << bit;
            }
        }
        self.deny_hints[copy] = hints;
        self.deny[copy] = entries.to_vec();
    }
}

/// One address in each hint grain that a deny entry covers. IPv6 entries shorter than the grain have none: they
/// are found through [`Control::DENY_SHORT_V6`].
pub fn hinted_addresses(entry: &LpmKey) -> Vec<Addr> {
    use crate::{abi::Family, datapath::V4_GRAIN};
    // An entry that covers more than the v4-mapped range has IPv4 addresses in it only if it is that range.
    match entry.addr.family() {
        Family::V4 if entry.prefix < V4_GRAIN => {
            let first = u32::from_be(entry.addr.0[3]);
            (0..1_u32 << (V4_GRAIN - entry.prefix.max(96)))
                .map(|step| Addr::from_v4_word((first.wrapping_add(step << 8)).to_be()))
                .collect()
        }
        Family::V6 if entry.prefix < V6_GRAIN => Vec::new(),
        Family::V4 | Family::V6 => std::vec![entry.addr],
    }
}

fn covers(list: &[LpmKey], addr: &Addr) -> bool {
    list.iter()
        .any(|entry| addr.masked(entry.prefix) == entry.addr.masked(entry.prefix))
}

impl Tables for MemTables {
    type Cell = AtomicU64;

    fn packet(&self) -> Option<&Packet> {
        Some(&self.packet)
    }

    fn word(&self, word: ControlWord) -> u64 {
        match word {
            ControlWord::Control => self.control.0,
            ControlWord::BanMoves => self.bans.moves.load(Ordering::Acquire),
            ControlWord::BansHeld => 0,
        }
    }

    fn params(&self) -> &Params {
        &self.params
    }

    fn port(&self, port: u16) -> PortEntry {
        self.ports[usize::from(port)]
    }

    fn service(&self, copy: u32, index: u16) -> Option<&Service> {
        self.services[copy as usize].get(usize::from(index))
    }

    fn address(&self, addr: &Addr) -> AddressFlags {
        self.addresses.get(addr).copied().unwrap_or_default()
    }

    fn hints(&self, index: u32) -> Hints {
        self.hints.get(index as usize).copied().unwrap_or_default()
    }

    fn bans(&self, index: u32) -> Option<&[AtomicU64; BUCKET_WORDS]> {
        self.bans.buckets.get(index as usize)
    }

    fn deny_hint_word(&self, copy: u32, word: u32) -> u64 {
        debug_assert!(word <= DENY_HINT_MASK >> 6);
        self.deny_hints[copy as usize]
            .get(&word)
            .copied()
            .unwrap_or_default()
    }

    fn denied(&self, copy: u32, addr: &Addr) -> bool {
        covers(&self.deny[copy as usize], addr)
    }

    fn allowed(&self, copy: u32, addr: &Addr) -> bool {
        covers(&self.allow[copy as usize], addr)
    }

    fn line(&self, index: u32) -> Option<&[AtomicU64; SLOTS_PER_LINE]> {
        self.lines.get(index as usize)
    }

    fn launder(&self, index: u32) -> u32 {
        index
    }

    fn set_found(&self, place: u64) {
        self.found.set(place);
    }

    fn found(&self) -> u64 {
        self.found.get()
    }

    fn earned(&self, index: u32) -> Option<&[AtomicU64; EARNED_WORDS]> {
        self.earned.get(index as usize)
    }

    fn syn_rule(&self, copy: u32, index: u16) -> Option<&SynRule> {
        self.syn_rules[copy as usize].get(usize::from(index))
    }

    fn syn_state(&self, service: u16) -> Option<&[AtomicU64; SynState::CELLS]> {
        self.syn_states.get(usize::from(service))
    }

    fn cookie_settings(&self) -> CookieSettings {
        self.cookie_settings
    }

    fn told(&self, index: u32) -> Told {
        self.told
            .get(index as usize)
            .map(std::cell::Cell::get)
            .unwrap_or_default()
    }

    fn set_told(&self, index: u32, told: Told) {
        if let Some(cell) = self.told.get(index as usize) {
            cell.set(told);
        }
    }

    fn seen(&self, index: u32) -> Option<&AtomicU64> {
        self.seen.get(index as usize)
    }
}
