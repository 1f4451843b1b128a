//! The maps in memory: what tests and the simulator run the pipeline over.
//!
//! Written for clarity, not speed: a list is searched linearly. It must answer exactly as the kernel's maps do;
//! the differential tests hold the two side by side.

use core::sync::atomic::{AtomicU32, Ordering};
use std::{collections::HashMap, vec::Vec};

use crate::{
    abi::{
        Addr, AddressFlags, Ban, BanKey, Control, Earned, LimitKind, LpmKey, Params, PortEntry, Service,
        hint,
        service::{MAX_SERVICES, PORTS},
    },
    algo::sketch::Cell,
    datapath::{DENY_HINT_MASK, Packet, Tables, V6_GRAIN, deny_hint},
    wire::{Frame, View},
};

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

impl Cell for AtomicU32 {
    fn load(&self) -> u32 {
        self.load(Ordering::Relaxed)
    }

    fn swap(&self, old: u32, new: u32) -> bool {
        self.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

/// Every table of the pipeline, in memory.
#[derive(Debug)]
pub struct MemTables {
    /// The control word.
    pub control: Control,
    /// The parameters.
    pub params: Params,
    /// Both copies of the port table.
    pub ports: [Vec<PortEntry>; 2],
    /// Both copies of the service table.
    pub services: [Vec<Service>; 2],
    /// Flags by address.
    pub addresses: HashMap<Addr, AddressFlags>,
    /// Hint words.
    pub hints: Vec<u64>,
    /// Bans.
    pub bans: HashMap<BanKey, Ban>,
    /// Both copies of the deny list.
    pub deny: [Vec<LpmKey>; 2],
    /// Both copies of the deny hints.
    pub deny_hints: [HashMap<u32, u64>; 2],
    /// Both copies of the allow list.
    pub allow: [Vec<LpmKey>; 2],
    packet: Packet,
    cells: Vec<AtomicU32>,
    earned: HashMap<Addr, [AtomicU32; 3]>,
}

impl MemTables {
    /// Empty tables: nothing is protected.
    pub fn new(params: Params) -> Self {
        let hint_words = params.hint_mask / hint::FIELDS_PER_WORD + 1;
        let cells = (params.cell_mask as usize + 1) * 2 * LimitKind::COUNT;
        Self {
            control: Control::default(),
            params,
            ports: core::array::from_fn(|_| std::vec![PortEntry::default(); PORTS as usize]),
            services: core::array::from_fn(|_| std::vec![Service::default(); MAX_SERVICES as usize]),
            addresses: HashMap::new(),
            hints: std::vec![0; hint_words as usize],
            bans: HashMap::new(),
            deny: [Vec::new(), Vec::new()],
            deny_hints: [HashMap::new(), HashMap::new()],
            allow: [Vec::new(), Vec::new()],
            packet: Packet::new(),
            cells: core::iter::repeat_with(AtomicU32::default).take(cells).collect(),
            earned: HashMap::new(),
        }
    }

    /// Adds a ban with its hint.
    pub fn ban(&mut self, key: BanKey, ban: Ban) {
        self.set_hint(hint::prefix(&key.addr, key.prefix, &self.params), hint::BAN);
        self.bans.insert(key, ban);
    }

    /// Gives a source host exact state, with its hint.
    pub fn earn(&mut self, host: Addr, state: Earned) {
        let host = host.masked(hint::host_prefix(host.family()));
        self.set_hint(
            hint::prefix(&host, hint::host_prefix(host.family()), &self.params),
            hint::EARNED,
        );
        self.earned.insert(host, state.cells.map(AtomicU32::new));
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

    fn set_hint(&mut self, hash: u64, bits: u64) {
        let (word, shift) = hint::place(hash, &self.params);
        self.hints[word as usize] |= bits << shift;
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
    type Cell = AtomicU32;

    fn packet(&self) -> Option<&Packet> {
        Some(&self.packet)
    }

    fn control(&self) -> Control {
        self.control
    }

    fn params(&self) -> Option<&Params> {
        Some(&self.params)
    }

    fn port(&self, copy: u32, port: u16) -> PortEntry {
        self.ports[copy as usize][usize::from(port)]
    }

    fn service(&self, copy: u32, index: u16) -> Option<&Service> {
        self.services[copy as usize].get(usize::from(index))
    }

    fn address(&self, addr: &Addr) -> AddressFlags {
        self.addresses.get(addr).copied().unwrap_or_default()
    }

    fn hint_word(&self, word: u32) -> u64 {
        self.hints.get(word as usize).copied().unwrap_or_default()
    }

    fn ban(&self, key: &BanKey) -> Option<Ban> {
        self.bans.get(key).copied()
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

    fn cell(&self, index: u32) -> Option<&AtomicU32> {
        self.cells.get(index as usize)
    }

    fn earned(&self, host: &Addr) -> Option<&[AtomicU32; 3]> {
        self.earned.get(host)
    }
}
