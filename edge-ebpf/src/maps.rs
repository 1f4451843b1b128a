//! The maps, nothing else. Sizes that depend on the configuration are set at load; these are the defaults.
//!
//! All are pinned by the loader under their names, in a directory that carries the version of their layout.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf},
};
use edge_common::{
    abi::{
        Addr, Alert, Ban, BanKey, CELLS_PER_BUCKET, Control, Counter, Earned, LimitKind, Params, PortEntry,
        Reason, Sampling, Service,
        ban::NOTE_BYTES,
        hint,
        service::{MAX_SERVICES, NAME_BYTES, PORTS},
    },
    datapath::{DENY_HINT_MASK, Packet},
};

/// Copies of every double-buffered table.
const COPIES: u32 = 2;
const DEFAULT_BANS: u32 = 65_536;
const DEFAULT_HINTS: u32 = 1 << 18;
const DEFAULT_CELLS: u32 = 1 << 18;
const DEFAULT_EARNED: u32 = 65_536;
const MAX_NOTES: u32 = 65_536;
const MAX_LIST: u32 = 1_000_000;
const EVENT_BYTES: u32 = 1 << 18;

/// A cache line of limiter cells.
#[repr(C, align(8))]
pub(crate) struct Bucket(pub(crate) [u32; CELLS_PER_BUCKET as usize]);

#[map]
pub(crate) static CONTROL: Array<Control> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
pub(crate) static PARAMS: Array<Params> = Array::with_max_entries(1, 0);

#[map]
pub(crate) static PORT_TABLE: Array<PortEntry> = Array::with_max_entries(PORTS * COPIES, BPF_F_MMAPABLE);

#[map]
pub(crate) static SERVICES: Array<Service> = Array::with_max_entries(MAX_SERVICES * COPIES, BPF_F_MMAPABLE);

#[map]
pub(crate) static ADDRESSES: HashMap<Addr, u32> = HashMap::with_max_entries(4_096, 0);

#[map]
pub(crate) static HINTS: Array<u64> =
    Array::with_max_entries(DEFAULT_HINTS / hint::FIELDS_PER_WORD, BPF_F_MMAPABLE);

#[map]
pub(crate) static BANS: HashMap<BanKey, Ban> = HashMap::with_max_entries(DEFAULT_BANS, 0);

#[map]
pub(crate) static DENY_HINTS: Array<u64> =
    Array::with_max_entries((DENY_HINT_MASK + 1) / 64 * COPIES, BPF_F_MMAPABLE);

#[map]
pub(crate) static DENY_A: LpmTrie<Addr, u8> = LpmTrie::with_max_entries(MAX_LIST, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static DENY_B: LpmTrie<Addr, u8> = LpmTrie::with_max_entries(MAX_LIST, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static ALLOW_A: LpmTrie<Addr, u8> = LpmTrie::with_max_entries(MAX_LIST, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static ALLOW_B: LpmTrie<Addr, u8> = LpmTrie::with_max_entries(MAX_LIST, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static CELLS: Array<Bucket> =
    Array::with_max_entries(DEFAULT_CELLS / CELLS_PER_BUCKET * 2 * LimitKind::COUNT as u32, 0);

#[map]
pub(crate) static EARNED: HashMap<Addr, Earned> = HashMap::with_max_entries(DEFAULT_EARNED, 0);

/// Second half: packets that were only observed.
#[map]
pub(crate) static COUNTERS: PerCpuArray<Counter> =
    PerCpuArray::with_max_entries(MAX_SERVICES * Reason::SLOTS * 2, 0);

/// Where a packet's headers lie while it is judged: a `Packet`, whose cells a static may not have.
#[map]
pub(crate) static SCRATCH: PerCpuArray<[u64; size_of::<Packet>() / 8]> = PerCpuArray::with_max_entries(1, 0);

#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(EVENT_BYTES, 0);

#[map]
pub(crate) static SAMPLING: PerCpuArray<Sampling> = PerCpuArray::with_max_entries(1, 0);

/// Names of the services by identifier, for whoever finds the maps without a daemon. The program never asks.
#[map]
pub(crate) static NAMES: Array<[u8; NAME_BYTES]> = Array::with_max_entries(MAX_SERVICES, BPF_F_MMAPABLE);

/// What user space counts beside the packets (`edge_common::abi::Alert`). The program never asks.
#[map]
pub(crate) static ALERTS: Array<u64> = Array::with_max_entries(Alert::SLOTS, BPF_F_MMAPABLE);

/// Why the operator made a ban, in words. The program never asks.
#[map]
pub(crate) static NOTES: HashMap<BanKey, [u8; NOTE_BYTES]> =
    HashMap::with_max_entries(MAX_NOTES, BPF_F_NO_PREALLOC);
