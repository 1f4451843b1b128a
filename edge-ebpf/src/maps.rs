//! The maps, nothing else. Sizes that depend on the configuration are set at load; these are the defaults.
//!
//! All are pinned by the loader under their names, in a directory that carries the version of their layout.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LpmTrie, PerCpuArray, ProgramArray, RingBuf},
};
use edge_common::{
    abi::{
        Addr, Alert, Backend, BackendCount, BanKey, Code, Control, ControlWord, CookieSettings, Counter,
        Feature, Hints, LimitKind, Params, PerCpu, PortEntry, Reason, SEEN, SLOTS_PER_LINE, Service,
        SteerRule, SynRule, SynState, TOLD, Told,
        ban::{BUCKET_ENTRIES, BUCKET_WORDS, NOTE_BYTES},
        feature::WHY_BYTES,
        limit::EARNED_WORDS,
        service::{MAX_SERVICES, NAME_BYTES, PORTS},
        steer::{CANDIDATES, FLOW_WORDS, MAX_BACKENDS, NAT_WORDS, NATS, PLACES},
    },
    datapath::DENY_HINT_MASK,
};

use crate::frame::opaque_pointer;

/// Copies of every double-buffered table.
const COPIES: u32 = 2;
const DEFAULT_BUCKETS: u32 = 65_536 / BUCKET_ENTRIES as u32;
const DEFAULT_HINTS: u32 = 1 << 15;
const DEFAULT_LINES: u32 = 1 << 14;
const DEFAULT_EARNED: u32 = 65_536 / 2;
const DEFAULT_FLOWS: u32 = 1 << 16;
const MAX_NOTES: u32 = 65_536;
const MAX_LIST: u32 = 1_000_000;
const EVENT_BYTES: u32 = 1 << 18;

/// A cache line of limiter cells. Arrays that are mappable begin on a page, so that a line is one.
pub(crate) type Line = [u64; SLOTS_PER_LINE];
/// A bucket of bans.
pub(crate) type Bucket = [u64; BUCKET_WORDS];
/// A bucket of earned sources.
pub(crate) type Earned = [u64; EARNED_WORDS];

/// A bucket of connections.
pub(crate) type Flows = [u64; FLOW_WORDS];

/// The parameters, as the loader knows them: the verifier takes them for constants. (Zeros, until it writes them.)
#[unsafe(no_mangle)]
static CONSTANTS: Params = Params {
    seeds: [0; 2],
    hint_mask: 0,
    line_mask: 0,
    front_mask: 0,
    ban_buckets: 0,
    max_bans: 0,
    earned_buckets: 0,
    hz: 0,
    flow_mask: 0,
    epoch_tick: 0,
    epoch_ns: 0,
};

/// The parameters.
#[inline(always)]
pub(crate) fn constants() -> &'static Params {
    // SAFETY: the address of a static. The compiler must not see whose, or it would take the zeros for granted.
    unsafe { &*(opaque_pointer(&raw const CONSTANTS as usize) as *const Params) }
}

#[map]
pub(crate) static CONTROL: Array<Control> = Array::with_max_entries(ControlWord::COUNT, BPF_F_MMAPABLE);

/// The parameters, for user space.
#[map]
pub(crate) static PARAMS: Array<Params> = Array::with_max_entries(1, 0);

#[map]
pub(crate) static PORT_TABLE: Array<PortEntry> = Array::with_max_entries(PORTS, BPF_F_MMAPABLE);

#[map]
pub(crate) static SERVICES: Array<Service> = Array::with_max_entries(MAX_SERVICES * COPIES, BPF_F_MMAPABLE);

#[map]
pub(crate) static ADDRESSES: HashMap<Addr, u32> = HashMap::with_max_entries(4_096, 0);

#[map]
pub(crate) static HINTS: Array<Hints> = Array::with_max_entries(DEFAULT_HINTS, BPF_F_MMAPABLE);

#[map]
pub(crate) static BANS: Array<Bucket> = Array::with_max_entries(DEFAULT_BUCKETS, BPF_F_MMAPABLE);

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
pub(crate) static CELLS: Array<Line> =
    Array::with_max_entries(DEFAULT_LINES * LimitKind::COUNT as u32, BPF_F_MMAPABLE);

#[map]
pub(crate) static EARNED: Array<Earned> = Array::with_max_entries(DEFAULT_EARNED, BPF_F_MMAPABLE);

/// Second half: packets that were only observed.
#[map]
pub(crate) static COUNTERS: PerCpuArray<Counter> =
    PerCpuArray::with_max_entries(MAX_SERVICES * Reason::SLOTS * 2, 0);

/// What a CPU has for itself. Its scratch is a `Packet`, whose cells a static may not have.
#[map]
pub(crate) static PER_CPU: PerCpuArray<PerCpu> = PerCpuArray::with_max_entries(1, 0);

#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(EVENT_BYTES, 0);

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

/// Programs that the shield hands packets on to (`edge_common::abi::Code::handed`).
#[map]
pub(crate) static PROGRAMS: ProgramArray = ProgramArray::with_max_entries(Code::PROGRAMS, 0);

/// What is handed on with a packet: an `Exchange`.
#[map]
pub(crate) static EXCHANGE: PerCpuArray<[u64; size_of::<crate::Exchange>() / 8]> =
    PerCpuArray::with_max_entries(1, 0);

#[map]
pub(crate) static SYN_RULES: Array<SynRule> = Array::with_max_entries(MAX_SERVICES * COPIES, BPF_F_MMAPABLE);

#[map]
pub(crate) static SYN_STATES: Array<SynState> = Array::with_max_entries(MAX_SERVICES, BPF_F_MMAPABLE);

#[map]
pub(crate) static COOKIES: Array<CookieSettings> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
pub(crate) static LISTENERS: Array<Told> = Array::with_max_entries(TOLD, 0);

#[map]
pub(crate) static NEWCOMERS: Array<u64> = Array::with_max_entries(SEEN, BPF_F_MMAPABLE);

#[map]
pub(crate) static STEER_RULES: Array<SteerRule> =
    Array::with_max_entries(MAX_SERVICES * COPIES, BPF_F_MMAPABLE);

/// The Maglev tables, four places a word.
#[map]
pub(crate) static STEER_PLACES: Array<u64> = Array::with_max_entries(PLACES, BPF_F_MMAPABLE);

#[map]
pub(crate) static BACKENDS: Array<Backend> = Array::with_max_entries(MAX_BACKENDS, BPF_F_MMAPABLE);

#[map]
pub(crate) static BACKEND_COUNTS: PerCpuArray<BackendCount> = PerCpuArray::with_max_entries(MAX_BACKENDS, 0);

/// Connections of direct services.
#[map]
pub(crate) static FLOWS: Array<Flows> = Array::with_max_entries(DEFAULT_FLOWS, BPF_F_MMAPABLE);

/// First packets of their flows.
#[map]
pub(crate) static CANDIDATE_FLOWS: Array<u64> = Array::with_max_entries(CANDIDATES, BPF_F_MMAPABLE);

/// Translations of direct services' connections.
#[map]
pub(crate) static TRANSLATIONS: Array<[u64; NAT_WORDS]> = Array::with_max_entries(NATS, BPF_F_MMAPABLE);

/// Settings of the kernel that the daemon changed, as they were before (`edge_user::kernel::sysctl`). The program never
/// asks.
#[map]
pub(crate) static SYSCTLS: Array<u64> = Array::with_max_entries(8, BPF_F_MMAPABLE);

/// Why a feature is missing on this kernel, in words; empty for those that are there. The program never asks.
#[map]
pub(crate) static ABSENT: Array<[u8; WHY_BYTES]> = Array::with_max_entries(Feature::COUNT, BPF_F_MMAPABLE);
