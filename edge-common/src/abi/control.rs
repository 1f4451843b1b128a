//! The words that steer the program: one that changes while it runs, and the parameters fixed at load.

use super::{Code, Reason, assert_layout};

/// Elements of the control table: 64-bit words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum ControlWord {
    /// The [`Control`] word.
    Control = 0,
    /// Entries of the ban table that were moved from one bucket to another, ever.
    BanMoves = 1,
    /// Entries in the ban table. The program never asks.
    BansHeld = 2,
}

impl ControlWord {
    /// Number of words.
    pub const COUNT: u32 = 3;
}

/// The control word: which copy of each double-buffered table is in force, and the switches.
///
/// One 64-bit word, read once a packet, so a change of several tables becomes visible at one instant.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Control(pub u64);
assert_layout!(Control, size = 8, align = 8);

impl Control {
    /// Which copy of the service tables is in force.
    pub const SERVICES: u64 = 1 << 0;
    /// Which copy of the deny list is in force.
    pub const DENY: u64 = 1 << 1;
    /// Which copy of the allow list is in force.
    pub const ALLOW: u64 = 1 << 2;
    /// The deny list in force has entries.
    pub const HAS_DENY: u64 = 1 << 8;
    /// The allow list in force has entries.
    pub const HAS_ALLOW: u64 = 1 << 9;
    /// The deny list in force has IPv6 entries too short for the hints: every IPv6 source is looked up.
    pub const DENY_SHORT_V6: u64 = 1 << 10;
    /// Later fragments to a protected address pass (the default drops them).
    pub const PASS_FRAGMENTS: u64 = 1 << 17;
    /// Packets to a protected address whose headers are cut short or malformed pass.
    pub const PASS_MALFORMED: u64 = 1 << 18;
    /// Sources that cannot be real on an external interface are dropped.
    pub const DROP_MARTIANS: u64 = 1 << 19;
    /// Some service is on "every local address", so every local address is protected.
    pub const ANY_LOCAL: u64 = 1 << 20;
    /// Some service is steered past user space.
    pub const HAS_DIRECT: u64 = 1 << 21;
    /// First of the 32 bits, one a [`Reason`], that say what is only counted and not dropped.
    const OBSERVE_SHIFT: u32 = 32;

    /// Whether all bits of `mask` are set.
    #[inline(always)]
    pub const fn has(self, mask: u64) -> bool {
        self.0 & mask == mask
    }

    /// Whether drops for a reason are only counted.
    #[inline(always)]
    pub const fn observes(self, code: Code) -> bool {
        code.0 < 32 && self.0 >> Self::OBSERVE_SHIFT >> (code.0 & 31) & 1 == 1
    }

    /// The same with drops for `reason` only counted, one of the first 32.
    #[must_use]
    pub const fn observing(self, reason: Reason) -> Self {
        if reason as u32 >= 32 {
            return self;
        }
        Self(self.0 | 1 << (Self::OBSERVE_SHIFT + reason as u32))
    }

    /// Index of the copy in force of the table that `mask` selects: 0 or 1.
    #[inline(always)]
    pub const fn copy(self, mask: u64) -> u32 {
        if self.has(mask) { 1 } else { 0 }
    }
}

/// Parameters fixed when the maps are made: the seeds must outlive the daemon, since pinned tables were filled
/// under them. They are pinned for user space, and constants of the program.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Params {
    /// Secret seeds of the hash; drawn at the first attach.
    pub seeds: [u64; 2],
    /// Number of [`super::hint::Hints`] minus one (a power of two minus one).
    pub hint_mask: u32,
    /// Number of lines a limit kind has in the cell table, minus one (a power of two minus one).
    pub line_mask: u32,
    /// The same of the front tier.
    pub front_mask: u32,
    /// Buckets of the ban table.
    pub ban_buckets: u32,
    /// Bans that are kept at once.
    pub max_bans: u32,
    /// Buckets of the table of earned sources.
    pub earned_buckets: u32,
    /// Timer ticks a second of the running kernel.
    pub hz: u32,
    /// Buckets of the connection table minus one (a power of two minus one).
    pub flow_mask: u32,
    /// A moment of the kernel's jiffies …
    pub epoch_tick: u64,
    /// … and the same moment on `CLOCK_MONOTONIC`, in nanoseconds: the two advance in step, since jiffies are
    /// counted off that clock (kernel/time/tick-sched.c, `tick_do_update_jiffies64`).
    pub epoch_ns: u64,
}
assert_layout!(Params, size = 64, align = 8);
