//! `Tables` over the BPF maps: the look-ups, and the unsafe that they need.

use core::{cell::UnsafeCell, intrinsics};

use aya_ebpf::{
    bindings::xdp_md,
    maps::lpm_trie::{Key, LpmTrie},
};
use edge_common::{
    abi::{
        Addr, AddressFlags, Code, ControlWord, CookieSettings, Hints, Params, PortEntry, SEEN,
        SLOTS_PER_LINE, Sampling, Service, SynRule, SynState, TOLD, Told, ban::BUCKET_WORDS,
        limit::EARNED_WORDS, reason::SCRATCH_WORDS, service::MAX_SERVICES,
    },
    algo::slots::{Cell, Charge},
    datapath::{BRIEF_WORD, Brief, DENY_HINT_MASK, Packet, Tables},
    wire::Frame,
};

use crate::{frame::opaque, maps, parts};

/// A word inside a map's value, shared with other CPUs and user space.
#[repr(transparent)]
pub(crate) struct MapCell(UnsafeCell<u64>);

impl Cell for MapCell {
    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: the pointer is valid while the map is. An aligned 64-bit load does not tear, and the backend
        // has no relaxed atomic load to select.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline(always)]
    fn swap(&self, old: u64, new: u64) -> bool {
        // SAFETY: the pointer is valid and aligned; compiles to one compare-and-exchange.
        let (_, swapped) = unsafe {
            intrinsics::atomic_cxchg::<
                u64,
                { intrinsics::AtomicOrdering::SeqCst },
                { intrinsics::AtomicOrdering::SeqCst },
            >(self.0.get(), old, new)
        };
        swapped
    }

    #[inline(always)]
    fn hide(index: usize) -> usize {
        opaque(index as u32) as usize
    }
}

/// The word of the scratch that is not the packet's, and lies behind it.
const FOUND_WORD: usize = SCRATCH_WORDS - 1;
const _: () = assert!(FOUND_WORD == BRIEF_WORD + 2);

/// The maps of the running program.
pub(crate) struct KernelTables {
    /// The context that the program was called with.
    pub(crate) ctx: *mut xdp_md,
}

impl Tables for KernelTables {
    type Cell = MapCell;

    #[inline(always)]
    fn packet(&self) -> Option<&Packet> {
        let place = maps::PER_CPU.get_ptr(0)?;
        // SAFETY: the element is this CPU's own, begins with room for a `Packet`, and zeros are one.
        Some(unsafe { &*place.cast::<Packet>() })
    }

    #[inline(always)]
    fn word(&self, word: ControlWord) -> u64 {
        match maps::CONTROL.get_ptr(word as u32) {
            // SAFETY: the pointer is to the map's value. User space stores the word whole while this reads it,
            // so the load must be one, and must not be repeated.
            Some(word) => unsafe { word.cast::<u64>().read_volatile() },
            None => 0,
        }
    }

    #[inline(always)]
    fn params(&self) -> &Params {
        maps::constants()
    }

    #[inline(always)]
    fn port(&self, port: u16) -> PortEntry {
        maps::PORT_TABLE.get(u32::from(port)).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn service(&self, copy: u32, index: u16) -> Option<&Service> {
        if u32::from(index) >= MAX_SERVICES {
            return None;
        }
        maps::SERVICES.get(copy * MAX_SERVICES + u32::from(index))
    }

    #[inline(always)]
    fn address(&self, addr: &Addr) -> AddressFlags {
        // SAFETY: an aligned 32-bit value, written whole by user space.
        AddressFlags(unsafe { maps::ADDRESSES.get(addr) }.copied().unwrap_or_default())
    }

    #[inline(always)]
    fn hints(&self, index: u32) -> Hints {
        match maps::HINTS.get_ptr(index) {
            // SAFETY: the pointer is to the map's value; each word is stored whole by user space.
            Some(hints) => unsafe { hints.read_volatile() },
            None => Hints::default(),
        }
    }

    #[inline(always)]
    fn bans(&self, index: u32) -> Option<&[MapCell; BUCKET_WORDS]> {
        let bucket = maps::BANS.get_ptr(index)?;
        // SAFETY: `MapCell` is a transparent 64-bit word, and the element has as many.
        Some(unsafe { &*bucket.cast::<[MapCell; BUCKET_WORDS]>() })
    }

    #[inline(always)]
    fn deny_hint_word(&self, copy: u32, word: u32) -> u64 {
        maps::DENY_HINTS
            .get(copy * ((DENY_HINT_MASK + 1) / 64) + word)
            .copied()
            .unwrap_or_default()
    }

    #[inline(always)]
    fn denied(&self, copy: u32, addr: &Addr) -> bool {
        if copy == 0 {
            covers(&maps::DENY_A, addr)
        } else {
            covers(&maps::DENY_B, addr)
        }
    }

    #[inline(always)]
    fn allowed(&self, copy: u32, addr: &Addr) -> bool {
        if copy == 0 {
            covers(&maps::ALLOW_A, addr)
        } else {
            covers(&maps::ALLOW_B, addr)
        }
    }

    #[inline(always)]
    fn line(&self, index: u32) -> Option<&[MapCell; SLOTS_PER_LINE]> {
        let line = maps::CELLS.get_ptr(index)?;
        // SAFETY: `MapCell` is a transparent 64-bit word, and the element has as many.
        Some(unsafe { &*line.cast::<[MapCell; SLOTS_PER_LINE]>() })
    }

    #[inline(always)]
    fn charge(&self, index: u32, tag: u64, now: u64, cost: u64, capacity: u64) -> Charge {
        judged(parts::charge(index, tag, now, cost, capacity))
    }

    #[inline(always)]
    fn raise_front(&self, index: u32, tag: u64, now: u64, cost: u64, most: u64) {
        parts::raise_front(index, tag, now, cost, most);
    }

    #[inline(always)]
    fn charge_exact(&self, bucket: u32, at: u32, now: u64, cost: u64, capacity: u64) -> Charge {
        judged(parts::charge_exact(bucket, at, now, cost, capacity))
    }

    #[inline(always)]
    fn charged(&self, copy: u32, index: u16, kind: u8, tick: u64) -> u64 {
        parts::charged(copy, u32::from(index), u32::from(kind), tick)
    }

    #[inline(always)]
    fn banned(&self, hash: u64, bits: u32, tick: u64) -> u64 {
        parts::banned(hash, bits, tick)
    }

    #[inline(always)]
    fn read<F: Frame>(&self, _frame: &F, _packet: &Packet) {
        parts::read(self.ctx);
    }

    #[inline(always)]
    fn forget(&self) {
        // The compiler takes the assembly in it to change any memory.
        opaque(0);
    }

    #[inline(always)]
    fn follow(&self, copy: u32, index: u16) -> u16 {
        parts::follow(copy, u32::from(index)) as u16
    }

    #[inline(always)]
    fn listed(&self, list: u32, copy: u32) -> bool {
        parts::listed(list, copy) != 0
    }

    #[inline(always)]
    fn prove(&self, what: u32, tick: u64) -> Code {
        Code(parts::prove(what, tick) as u8)
    }

    #[inline(always)]
    fn launder(&self, index: u32) -> u32 {
        self.set_found(u64::from(index));
        let index = self.found() as u32;
        self.set_found(0);
        index
    }

    #[inline(always)]
    fn set_found(&self, place: u64) {
        if let Some(scratch) = maps::PER_CPU.get_ptr_mut(0) {
            // SAFETY: the element is this CPU's own, and the program is not preempted by another packet on it. The last
            // word of the scratch is not the packet's. Volatile, so that the compiler does not take the short cut.
            unsafe { (&raw mut (*scratch).scratch[FOUND_WORD]).write_volatile(place) };
        }
    }

    #[inline(always)]
    fn found(&self) -> u64 {
        match maps::PER_CPU.get_ptr_mut(0) {
            // SAFETY: as above.
            Some(scratch) => unsafe { (&raw const (*scratch).scratch[FOUND_WORD]).read_volatile() },
            None => 0,
        }
    }

    #[inline(always)]
    fn note(&self, packet: &Packet, brief: Brief) {
        let [first, second] = brief.words();
        // SAFETY: the 16 bytes behind the addresses are the fields that `Brief::words` has in their order, and each byte
        // is valid there. Volatile, since the compiler would split the stores.
        unsafe {
            let words = core::ptr::from_ref(packet)
                .cast::<u64>()
                .cast_mut()
                .add(BRIEF_WORD);
            words.write_volatile(first);
            words.add(1).write_volatile(second);
            words.add(2).write_volatile(0);
        }
    }

    #[inline(always)]
    fn earned(&self, index: u32) -> Option<&[MapCell; EARNED_WORDS]> {
        let bucket = maps::EARNED.get_ptr(index)?;
        // SAFETY: `MapCell` is a transparent 64-bit word, and the element has as many.
        Some(unsafe { &*bucket.cast::<[MapCell; EARNED_WORDS]>() })
    }

    #[inline(always)]
    fn syn_rule(&self, copy: u32, index: u16) -> Option<&SynRule> {
        if u32::from(index) >= MAX_SERVICES {
            return None;
        }
        maps::SYN_RULES.get(copy * MAX_SERVICES + u32::from(index))
    }

    #[inline(always)]
    fn syn_state(&self, service: u16) -> Option<&[MapCell; SynState::CELLS]> {
        let state = maps::SYN_STATES.get_ptr(u32::from(service))?;
        // SAFETY: `SynState` is its 64-bit cells.
        Some(unsafe { &*state.cast::<[MapCell; SynState::CELLS]>() })
    }

    #[inline(always)]
    fn cookie_settings(&self) -> CookieSettings {
        maps::COOKIES.get(0).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn told(&self, index: u32) -> Told {
        maps::LISTENERS
            .get(index & (TOLD - 1))
            .copied()
            .unwrap_or_default()
    }

    #[inline(always)]
    fn set_told(&self, index: u32, told: Told) {
        if let Some(place) = maps::LISTENERS.get_ptr_mut(index & (TOLD - 1)) {
            // SAFETY: two aligned words; whoever reads a half of the old and a half of the new tells once more.
            unsafe { place.write_volatile(told) };
        }
    }

    #[inline(always)]
    fn seen(&self, index: u32) -> Option<&MapCell> {
        let cell = maps::NEWCOMERS.get_ptr(index & (SEEN - 1))?;
        // SAFETY: `MapCell` is a transparent 64-bit word.
        Some(unsafe { &*cell.cast::<MapCell>() })
    }
}

/// Sets the hint that a host may have exact state.
#[inline(always)]
pub(crate) fn hint_earned(element: u32, bit: u64) {
    if let Some(hints) = maps::HINTS.get_ptr_mut(element) {
        // SAFETY: an aligned 64-bit word of the map; user space changes it atomically too.
        unsafe {
            let word = &raw mut (*hints).earned;
            intrinsics::atomic_or::<u64, u64, { intrinsics::AtomicOrdering::SeqCst }>(word, bit);
        }
    }
}

/// The answer behind a part's number.
#[inline(always)]
const fn judged(answer: u32) -> Charge {
    match answer {
        parts::ADMITTED => Charge::Admitted,
        parts::REFUSED => Charge::Refused,
        _ => Charge::Contended,
    }
}

/// This CPU's sampling.
#[inline(always)]
pub(crate) fn sampling() -> Option<&'static mut Sampling> {
    let place = maps::PER_CPU.get_ptr_mut(0)?;
    // SAFETY: the element is this CPU's own, and the program is not preempted by another packet on it.
    Some(unsafe { &mut (*place).sampling })
}

#[inline(always)]
fn covers(trie: &LpmTrie<Addr, u8>, addr: &Addr) -> bool {
    trie.get(Key::new(128, *addr)).is_some()
}
