//! Loads the object: makes or adopts the pinned maps, and has the verifier accept the program.

use std::borrow::Cow;

use aya::{Ebpf, EbpfLoader, maps::Array, programs::Xdp};
use caps::{CapSet, Capability};
use edge_common::abi::{CELLS_PER_BUCKET, LimitKind, Params, hint};
use rustix::rand::{GetRandomFlags, getrandom};

use super::{KernelError, Pins, clock};

/// The object that the kernel runs.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("BREAKWATER_EBPF_OBJECT"));

/// Name of the shield's program, as the kernel lists it.
pub const PROGRAM: &str = "breakwater";
/// Name of the program that drops everything: the floor of benchmarks.
pub const FLOOR: &str = "floor";
/// Name of the program that tells the time.
const CLOCK: &str = "clock";

/// The least kernel: `bpf_xdp_load_bytes` came with 5.18, 32-bit compare-and-exchange with 5.12, the ring buffer
/// with 5.8, XDP links with 5.9.
pub const LEAST_KERNEL: (u32, u32) = (5, 18);

/// Hint fields for each ban there is room for.
const HINTS_PER_BAN: u32 = 8;
/// Fewest hint fields: 64 KiB of them.
const MIN_HINTS: u32 = 1 << 18;
/// Most hint fields: 4 MiB of them.
const MAX_HINTS: u32 = 1 << 24;

/// Sizes of the tables, fixed when they are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Bans kept at once.
    pub bans: u32,
    /// Cells in a row of the default tier; a power of two.
    pub cells: u32,
    /// Sources with exact state.
    pub earned: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            bans: 65_536,
            cells: 1 << 18,
            earned: 65_536,
        }
    }
}

/// Every map of the object, in the order of their definition.
pub const MAPS: [&str; 19] = [
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
    "SAMPLING",
    "NAMES",
    "SCRATCH",
];
/// Maps that only user space uses.
pub const USER_MAPS: [&str; 2] = ["ALERTS", "NOTES"];

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
    let mut ebpf = {
        let mut loader = EbpfLoader::new();
        for name in MAPS.into_iter().chain(USER_MAPS) {
            loader.map_pin_path(name, Cow::Owned(pins.map(name)));
        }
        sized(&mut loader, sizes)
            .load(OBJECT)
            .map_err(|error| KernelError::Load(Box::new(error)))?
    };
    for name in [PROGRAM, CLOCK] {
        program(&mut ebpf, name)?
            .load()
            .map_err(KernelError::program("loading the program"))?;
    }
    initialise(&mut ebpf, sizes)?;
    Ok(ebpf)
}

/// Loads the object beside whatever is pinned, with maps of its own: for tests and benchmarks.
///
/// # Errors
/// As [`load`].
pub fn load_private(sizes: Sizes, directory: &Pins) -> Result<Ebpf, KernelError> {
    let mut ebpf = load(directory, sizes)?;
    program(&mut ebpf, FLOOR)?
        .load()
        .map_err(KernelError::program("loading the program"))?;
    Ok(ebpf)
}

fn sized<'a, 'b>(loader: &'b mut EbpfLoader<'a>, sizes: Sizes) -> &'b mut EbpfLoader<'a> {
    loader
        .map_max_entries("BANS", sizes.bans)
        .map_max_entries("HINTS", hint_fields(sizes.bans) / hint::FIELDS_PER_WORD)
        .map_max_entries(
            "CELLS",
            sizes.cells / CELLS_PER_BUCKET * 2 * LimitKind::COUNT as u32,
        )
        .map_max_entries("EARNED", sizes.earned)
}

fn hint_fields(bans: u32) -> u32 {
    bans.saturating_mul(HINTS_PER_BAN)
        .clamp(MIN_HINTS, MAX_HINTS)
        .next_power_of_two()
}

/// A program of the loaded object by name.
///
/// # Errors
/// The object has no such XDP program.
pub fn program<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut Xdp, KernelError> {
    ebpf.program_mut(name)
        .ok_or_else(|| KernelError::Unsupported(format!("the object lacks the program {name}")))?
        .try_into()
        .map_err(KernelError::program("finding the program"))
}

/// Fills in the parameters, unless the maps were adopted with theirs.
fn initialise(ebpf: &mut Ebpf, sizes: Sizes) -> Result<(), KernelError> {
    let missing = || KernelError::Unsupported("the object lacks the map PARAMS".into());
    let read = |ebpf: &Ebpf| -> Result<Params, KernelError> {
        let array: Array<_, Params> =
            Array::try_from(ebpf.map("PARAMS").ok_or_else(missing)?).map_err(KernelError::map("PARAMS"))?;
        array.get(&0, 0).map_err(KernelError::map("PARAMS"))
    };
    if read(ebpf)?.hz != 0 {
        return Ok(());
    }
    let (epoch_tick, epoch_ns) = read_clock(ebpf)?;
    let params = Params {
        seeds: [random()?, random()?],
        hint_mask: hint_fields(sizes.bans) - 1,
        cell_mask: sizes.cells - 1,
        hz: clock::ticks_per_second(),
        reserved: 0,
        epoch_tick,
        epoch_ns,
    };
    let map = ebpf.map_mut("PARAMS").ok_or_else(missing)?;
    let mut array: Array<_, Params> = Array::try_from(map).map_err(KernelError::map("PARAMS"))?;
    array.set(0, params, 0).map_err(KernelError::map("PARAMS"))
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

fn check_kernel() -> Result<(), KernelError> {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found < LEAST_KERNEL {
        let (major, minor) = LEAST_KERNEL;
        return Err(KernelError::Unsupported(format!(
            "it is {release}; {major}.{minor} is the least, for the helper that copies a dropped packet's first \
             bytes (6.1 and later are tested)"
        )));
    }
    Ok(())
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
