//! `Tables` over the BPF maps: the look-ups, and the unsafe that they need.

use core::{cell::UnsafeCell, intrinsics};

use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use edge_common::{
    abi::{
        Addr, AddressFlags, Ban, BanKey, CELLS_PER_BUCKET, Control, Params, PortEntry, Service,
        service::{MAX_SERVICES, PORTS},
    },
    algo::sketch::Cell,
    datapath::{DENY_HINT_MASK, Packet, Tables},
};

use crate::maps;

/// A limiter cell inside a map's value, shared with other CPUs.
#[repr(transparent)]
pub(crate) struct MapCell(UnsafeCell<u32>);

impl Cell for MapCell {
    #[inline(always)]
    fn load(&self) -> u32 {
        // SAFETY: the pointer is valid while the map is. An aligned 32-bit load does not tear, and the backend
        // has no relaxed atomic load to select.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline(always)]
    fn swap(&self, old: u32, new: u32) -> bool {
        // SAFETY: the pointer is valid and aligned; compiles to one compare-and-exchange.
        let (_, swapped) = unsafe {
            intrinsics::atomic_cxchg::<
                u32,
                { intrinsics::AtomicOrdering::SeqCst },
                { intrinsics::AtomicOrdering::SeqCst },
            >(self.0.get(), old, new)
        };
        swapped
    }
}

/// The maps of the running program.
pub(crate) struct KernelTables;

impl Tables for KernelTables {
    type Cell = MapCell;

    #[inline(always)]
    fn packet(&self) -> Option<&Packet> {
        let place = maps::SCRATCH.get_ptr(0)?;
        // SAFETY: the element is this CPU's own, `Packet`-sized and aligned, and zeros are a packet.
        Some(unsafe { &*place.cast::<Packet>() })
    }

    #[inline(always)]
    fn control(&self) -> Control {
        match maps::CONTROL.get_ptr(0) {
            // SAFETY: the pointer is to the map's value. User space stores the word whole while this reads it,
            // so the load must be one, and must not be repeated.
            Some(word) => unsafe { word.read_volatile() },
            None => Control::default(),
        }
    }

    #[inline(always)]
    fn params(&self) -> Option<&Params> {
        maps::PARAMS.get(0)
    }

    #[inline(always)]
    fn port(&self, copy: u32, port: u16) -> PortEntry {
        maps::PORT_TABLE
            .get(copy * PORTS + u32::from(port))
            .copied()
            .unwrap_or_default()
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
    fn hint_word(&self, word: u32) -> u64 {
        maps::HINTS.get(word).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn ban(&self, key: &BanKey) -> Option<Ban> {
        // SAFETY: an element that is replaced meanwhile stays readable until the program ends (preallocated
        // maps reuse elements, so a torn value is possible; at worst one packet meets another ban's expiry).
        unsafe { maps::BANS.get(key) }.copied()
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
    fn cell(&self, index: u32) -> Option<&MapCell> {
        let bucket = maps::CELLS.get_ptr(index / CELLS_PER_BUCKET)?;
        // SAFETY: the slot is below the bucket's length, and `MapCell` is a transparent 32-bit word.
        Some(unsafe { &*bucket.cast::<MapCell>().add((index % CELLS_PER_BUCKET) as usize) })
    }

    #[inline(always)]
    fn earned(&self, host: &Addr) -> Option<&[MapCell; 3]> {
        let state = maps::EARNED.get_ptr(host)?;
        // SAFETY: `Earned` begins with its three 32-bit cells.
        Some(unsafe { &*state.cast::<[MapCell; 3]>() })
    }
}

#[inline(always)]
fn covers(trie: &LpmTrie<Addr, u8>, addr: &Addr) -> bool {
    trie.get(Key::new(128, *addr)).is_some()
}
