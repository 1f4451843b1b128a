//! Loads the object: makes or adopts the pinned maps, and has the verifier accept the program.

use std::{borrow::Cow, collections::HashMap, thread};

use aya::{
    Ebpf, EbpfLoader,
    maps::Array,
    programs::{ProgramError, ProgramType, Xdp},
    sys::{BpfHelper, is_helper_supported},
};
use caps::{CapSet, Capability};
use edge_common::{
    abi::{
        LimitKind, Params, SLOTS_PER_LINE,
        ban::BUCKET_ENTRIES,
        limit::{EARNED_ENTRY, EARNED_WORDS},
        steer::FLOW_ENTRIES,
    },
    algo::gcra,
};
use rustix::rand::{GetRandomFlags, getrandom};

use super::{
    KernelError, Pins, clock,
    handed::{self, HANDED},
    mapped::Mapped,
    tables, whole,
};

/// The object that the kernel runs.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("BREAKWATER_EBPF_OBJECT"));

/// Name of the shield's program, as the kernel lists it.
pub const PROGRAM: &str = "breakwater";
/// Name of the program that drops everything: the floor of benchmarks.
pub const FLOOR: &str = "floor";
/// Name of the program that judges a packet from another source each time it runs: for benchmarks.
pub const FLOOD: &str = "flood";
/// Name of the program that has a SYN answered again each time it runs: for benchmarks.
pub const AGAIN: &str = "again";
/// Name of the program that tells the time.
const CLOCK: &str = "clock";

/// The least kernel: `bpf_xdp_load_bytes` came with 5.18, 32-bit compare-and-exchange with 5.12, the ring buffer
/// with 5.8, XDP links with 5.9.
pub const LEAST_KERNEL: (u32, u32) = (5, 18);

/// Fewest hint elements: 128 KiB of them.
const MIN_HINTS: u32 = 1 << 13;
/// Most hint elements: 16 MiB of them.
const MAX_HINTS: u32 = 1 << 20;
/// Lines of the front tier for each kind of limit: 64 KiB, so that those of two kinds stay in a core's own cache beside the
/// hints.
const FRONT_LINES: u32 = 1 << 10;
/// Bans for each hint element, when the table of bans is full.
const BANS_A_HINT: u32 = 4;
/// Entries in a bucket of earned sources.
const EARNED_ENTRIES: u32 = (EARNED_WORDS / EARNED_ENTRY) as u32;
/// The ban table is filled to four fifths at most: so far, chains of moves are short.
const BAN_SLACK: (u64, u64) = (5, 4);

/// Sizes of the tables, fixed when they are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Bans kept at once.
    pub bans: u32,
    /// Cells that each kind of limit has in the default tier; a power of two.
    pub cells: u32,
    /// Entries of sources with exact state.
    pub earned: u32,
    /// Connections of direct services that are kept at once; a power of two.
    pub flows: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            bans: 65_536,
            cells: 1 << 18,
            earned: 65_536,
            flows: 1 << 18,
        }
    }
}

/// Every map of the object, in the order of their definition.
pub const MAPS: [&str; 32] = [
    "CONTROL",
    "PARAMS",
    "PORT_TABLE",
    "SERVICES",
    "ADDRESSES",
    "HINTS",
    "BANS",
    "DENY_HINTS",
    "DENY_A",
    "DENY_B",
    "ALLOW_A",
    "ALLOW_B",
    "CELLS",
    "EARNED",
    "COUNTERS",
    "EVENTS",
    "PER_CPU",
    "NAMES",
    "PROGRAMS",
    "EXCHANGE",
    "SYN_RULES",
    "SYN_STATES",
    "COOKIES",
    "LISTENERS",
    "NEWCOMERS",
    "STEER_RULES",
    "STEER_PLACES",
    "BACKENDS",
    "BACKEND_COUNTS",
    "FLOWS",
    "CANDIDATE_FLOWS",
    "TRANSLATIONS",
];
/// Maps that only user space uses.
pub const USER_MAPS: [&str; 4] = ["ALERTS", "NOTES", "SYSCTLS", "ABSENT"];

/// Loads the object with its maps pinned; maps that are pinned already are adopted with what they hold.
///
/// # Errors
/// A capability is missing, the kernel is too old, or the verifier refuses (its log is in the error).
pub fn load(pins: &Pins, sizes: Sizes) -> Result<Ebpf, KernelError> {
    check_kernel()?;
    check_capabilities()?;
    pins.prepare()?;
    let fresh = !pins.exist();
    let result = load_pinned(pins, sizes);
    if result.is_err() && fresh {
        pins.remove()?;
    }
    result
}

fn load_pinned(pins: &Pins, sizes: Sizes) -> Result<Ebpf, KernelError> {
    let pinned = whole::parameters(pins)?;
    let params = match pinned {
        Some(params) => {
            whole::check(pins, &entries(&params))?;
            params
        }
        None => draw(sizes)?,
    };
    let mut ebpf = {
        let mut loader = EbpfLoader::new();
        for name in MAPS.into_iter().chain(USER_MAPS) {
            loader.map_pin_path(name, Cow::Owned(pins.map(name)));
        }
        sized(&mut loader, &params)
            .override_global("CONSTANTS", &params, true)
            .load(OBJECT)
            .map_err(|error| KernelError::Load(Box::new(error)))?
    };
    let mut verdicts = verify(&mut ebpf);
    for name in [PROGRAM, CLOCK] {
        verdicts
            .remove(name)
            .ok_or_else(|| lacks(name))?
            .map_err(KernelError::program("loading the program"))?;
    }
    handed::place(&mut ebpf, pins, verdicts)?;
    if pinned.is_none() {
        write_parameters(&mut ebpf, pins, params)?;
    }
    Ok(ebpf)
}

/// What came of loading programs, by name.
pub(super) type Verdicts = HashMap<&'static str, Result<(), ProgramError>>;

/// Has the verifier look at every program that the shield needs, at once: a start waits for the longest, not for all.
fn verify(ebpf: &mut Ebpf) -> Verdicts {
    let wanted = [PROGRAM, CLOCK]
        .into_iter()
        .chain(HANDED.iter().map(|handed| handed.name));
    let wanted: Vec<&'static str> = wanted.collect();
    let programs = ebpf.programs_mut().filter_map(|(name, program)| {
        let name = wanted.iter().find(|wanted| **wanted == name)?;
        let program: &mut Xdp = program.try_into().ok()?;
        Some((*name, program))
    });
    thread::scope(|scope| {
        let running: Vec<_> = programs
            .map(|(name, program)| (name, scope.spawn(move || program.load())))
            .collect();
        let ended = running.into_iter().map(|(name, thread)| {
            let verdict = thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (name, verdict)
        });
        ended.collect()
    })
}

/// Loads the object beside whatever is pinned, with maps of its own: for tests and benchmarks.
///
/// # Errors
/// As [`load`].
pub fn load_private(sizes: Sizes, directory: &Pins) -> Result<Ebpf, KernelError> {
    let mut ebpf = load(directory, sizes)?;
    for name in [FLOOR, FLOOD, AGAIN] {
        program(&mut ebpf, name)?
            .load()
            .map_err(KernelError::program("loading the program"))?;
    }
    Ok(ebpf)
}

/// Maps whose number of entries is not the object's, and theirs.
fn entries(params: &Params) -> [(&'static str, u32); 5] {
    let lines = (params.front_mask + params.line_mask + 2) * LimitKind::COUNT as u32;
    [
        ("BANS", params.ban_buckets),
        ("HINTS", params.hint_mask + 1),
        ("CELLS", lines),
        ("EARNED", params.earned_buckets),
        ("FLOWS", params.flow_mask + 1),
    ]
}

fn sized<'a, 'b>(loader: &'b mut EbpfLoader<'a>, params: &Params) -> &'b mut EbpfLoader<'a> {
    for (name, entries) in entries(params) {
        loader.map_max_entries(name, entries);
    }
    loader
}

/// Parameters for tables of these sizes, with seeds of their own; the clock is read later.
fn draw(sizes: Sizes) -> Result<Params, KernelError> {
    let (more, less) = BAN_SLACK;
    let entries = u64::from(sizes.bans) * more / less;
    let buckets = entries.div_ceil(BUCKET_ENTRIES as u64).max(2);
    let hints = (sizes.bans / BANS_A_HINT)
        .clamp(MIN_HINTS, MAX_HINTS)
        .next_power_of_two();
    let lines = (sizes.cells / SLOTS_PER_LINE as u32).next_power_of_two();
    Ok(Params {
        seeds: [random()?, random()?],
        hint_mask: hints - 1,
        line_mask: lines - 1,
        front_mask: FRONT_LINES.min(lines) - 1,
        ban_buckets: u32::try_from(buckets).unwrap_or(u32::MAX),
        max_bans: sizes.bans,
        // Half full at most, nearly nobody finds both buckets full.
        flow_mask: (sizes.flows / FLOW_ENTRIES).next_power_of_two() - 1,
        earned_buckets: (sizes.earned.saturating_mul(2) / EARNED_ENTRIES).max(2),
        hz: clock::ticks_per_second(),
        ..Params::default()
    })
}

/// A program of the loaded object by name.
///
/// # Errors
/// The object has no such XDP program.
pub fn program<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut Xdp, KernelError> {
    ebpf.program_mut(name)
        .ok_or_else(|| lacks(name))?
        .try_into()
        .map_err(KernelError::program("finding the program"))
}

/// The object is not the one that this was written for.
pub(super) fn lacks(name: &str) -> KernelError {
    KernelError::Unsupported(format!("the object lacks the program {name}"))
}

/// Writes the parameters, with the clock, into their map: from then on the tables are made.
fn write_parameters(ebpf: &mut Ebpf, pins: &Pins, params: Params) -> Result<(), KernelError> {
    let missing = || KernelError::Unsupported("the object lacks the map PARAMS".into());
    let (epoch_tick, epoch_ns) = read_clock(ebpf)?;
    let map = ebpf.map_mut("PARAMS").ok_or_else(missing)?;
    let mut array: Array<_, Params> = Array::try_from(map).map_err(KernelError::map("PARAMS"))?;
    let params = Params {
        epoch_tick,
        epoch_ns,
        ..params
    };
    empty_cells(pins, &params)?;
    array.set(0, params, 0).map_err(KernelError::map("PARAMS"))
}

/// Makes every limiter cell one that was never used.
fn empty_cells(pins: &Pins, params: &Params) -> Result<(), KernelError> {
    let cells: Mapped<[u64; SLOTS_PER_LINE]> = Mapped::new(&tables::open(pins, "CELLS")?)?;
    let unused = gcra::unused(params.epoch_tick);
    for line in 0..cells.len() {
        for word in 0..SLOTS_PER_LINE {
            cells.store_word(line, word, unused);
        }
    }
    Ok(())
}

/// Reads jiffies and the monotonic clock at one moment, by running the clock program on a dummy frame.
fn read_clock(ebpf: &mut Ebpf) -> Result<(u64, u64), KernelError> {
    use aya::programs::{TestRun, TestRunOptions};

    let frame = [0_u8; 64];
    let mut out = [0_u8; 64];
    let program = program(ebpf, CLOCK)?;
    let options = TestRunOptions {
        data_in: Some(&frame),
        data_out: Some(&mut out),
        ..TestRunOptions::new()
    };
    program
        .test_run(options)
        .map_err(KernelError::program("reading the kernel's clock"))?;
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&out[at..at + 8]);
        u64::from_ne_bytes(bytes)
    };
    Ok((word(0), word(8)))
}

fn random() -> Result<u64, KernelError> {
    let mut bytes = [0; 8];
    getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|error| KernelError::io("drawing the hash seeds")(error.into()))?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Major and minor number of the running kernel.
pub fn kernel_version() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn check_kernel() -> Result<(), KernelError> {
    if kernel_version() < LEAST_KERNEL {
        let uname = rustix::system::uname();
        let release = uname.release().to_string_lossy();
        let (major, minor) = LEAST_KERNEL;
        return Err(KernelError::Unsupported(format!(
            "it is {release}; {major}.{minor} is the least, for the helper that copies a dropped packet's first \
             bytes (6.1 and later are tested)"
        )));
    }
    Ok(())
}

/// Whether this kernel has the helpers that make and check SYN cookies (`bpf_tcp_raw_*_syncookie_*`, Linux 6.0). Has the
/// verifier look at programs that call them, and runs nothing.
///
/// # Errors
/// The right to load programs is missing.
pub fn has_cookie_helpers() -> Result<bool, KernelError> {
    const HELPERS: [BpfHelper; 2] = [
        BpfHelper::BPF_FUNC_tcp_raw_gen_syncookie_ipv4,
        BpfHelper::BPF_FUNC_tcp_raw_check_syncookie_ipv6,
    ];
    for helper in HELPERS {
        let has = is_helper_supported(ProgramType::Xdp, helper);
        if !has.map_err(KernelError::program("asking the kernel"))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Checks for the capabilities that loading and attaching take.
///
/// # Errors
/// Those that are missing.
pub fn check_capabilities() -> Result<(), KernelError> {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    if has(Capability::CAP_SYS_ADMIN) && has(Capability::CAP_NET_ADMIN) {
        return Ok(());
    }
    let missing: Vec<String> = [
        Capability::CAP_BPF,
        Capability::CAP_NET_ADMIN,
        Capability::CAP_PERFMON,
    ]
    .into_iter()
    .filter(|capability| !has(*capability))
    .map(|capability| capability.to_string())
    .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(KernelError::Privilege {
        missing: missing.join(", "),
        what: "loading and attaching the XDP program",
        works: "without it the gateway alone works (no interfaces under [shield]), and `check` and `token`",
    })
}
