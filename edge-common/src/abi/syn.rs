//! Proof of return path: a service's budget for new connections (or, over UDP, new sources), and its SYN cookies.

use super::{Limit, assert_layout};
use crate::algo::gcra;

/// When SYNs are answered with cookies. The discriminant is [`SynRule::mode`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum CookieMode {
    /// Never: what is over the budget is dropped.
    Off = 0,
    /// From the moment the budget is exceeded until it has been quiet for a while.
    Auto = 1,
    /// Every SYN.
    Always = 2,
}

/// A service's rule, in the table beside its [`super::Service`]; consulted only with [`super::Service::GUARDED`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SynRule {
    /// New connections (or new sources) of the whole service; all zero means no budget.
    pub budget: Limit,
    /// The rate below which it is quiet; half of the budget.
    pub calm: Limit,
    /// How long it must have been quiet before cookies end, in ticks.
    pub hold_ticks: u32,
    /// [`CookieMode`].
    pub mode: u8,
    /// Window scale of the service's listener, or [`SynRule::OWN_SCALE`].
    pub scale: u8,
    /// Notes of user space's; the program never reads it.
    pub reserved: u16,
}
assert_layout!(SynRule, size = 72, align = 8);

impl SynRule {
    /// The window scale is the machine's ([`CookieSettings::scale`]).
    pub const OWN_SCALE: u8 = u8::MAX;
}

/// A service's state, by its identifier; a cache line of cells that all CPUs share.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SynState {
    /// See the constants.
    pub cells: [u64; Self::CELLS],
}
assert_layout!(SynState, size = 64, align = 8);

impl SynState {
    /// Number of cells.
    pub const CELLS: usize = 8;
    /// Theoretical arrival time of the budget.
    pub const BUDGET: usize = 0;
    /// Theoretical arrival time of the quiet rate.
    pub const CALM: usize = 1;
    /// Tick until which cookies are engaged. It ages by itself: nobody has to be alive for cookies to end.
    pub const UNTIL: usize = 2;
    /// How often cookies were engaged.
    pub const ENGAGEMENTS: usize = 3;
    /// Tick at which they were engaged last.
    pub const SINCE: usize = 4;

    /// What a service begins with, at `tick`: zeros are a time as well (see [`gcra::unused`]).
    pub const fn unused(tick: u64) -> Self {
        let mut cells = [0; Self::CELLS];
        cells[Self::BUDGET] = gcra::unused(tick);
        cells[Self::CALM] = gcra::unused(tick);
        Self { cells }
    }
}

/// What an answer with a cookie says of this machine: fixed by the daemon from the kernel's settings, one for all services.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CookieSettings {
    /// [`CookieSettings::STAMPS`] and its like.
    pub flags: u32,
    /// Bytes of receive buffer that the stack offers to begin with.
    pub space: u32,
    /// Window scale that the stack will compute for a connection made from a cookie.
    pub scale: u32,
    /// The stack's clock of milliseconds at tick 0, wrapping, and behind by a little more than a tick: a connection's
    /// later timestamps must not go back behind its first (RFC 7323, PAWS).
    pub epoch_ms: u32,
}
assert_layout!(CookieSettings, size = 16, align = 4);

impl CookieSettings {
    /// Timestamps may carry options: `net.ipv4.tcp_timestamps` is 2.
    pub const STAMPS: u32 = 1 << 0;
    /// SACK may be agreed on: `net.ipv4.tcp_sack` is 1.
    pub const SACK: u32 = 1 << 1;
    /// A window scale may be agreed on: `net.ipv4.tcp_window_scaling` is 1.
    pub const SCALING: u32 = 1 << 2;
    /// The programs that answer and verify are loaded, and the stack takes cookies (`net.ipv4.tcp_syncookies` is 2).
    pub const READY: u32 = 1 << 3;

    /// Whether all bits of `mask` are set.
    #[inline(always)]
    pub const fn has(&self, mask: u32) -> bool {
        self.flags & mask == mask
    }
}

/// When a listener was last told that it is under a flood: the stack believes no cookie without (net/ipv4/tcp.c,
/// `tcp_synq_no_recent_overflow`). Both words are written apart; a torn pair costs one more telling.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Told {
    /// Hash of the address and port.
    pub tag: u32,
    /// Low 32 bits of the tick.
    pub tick: u32,
}
assert_layout!(Told, size = 8, align = 4);

/// Elements of the table of [`Told`]; a power of two.
pub const TOLD: u32 = 4_096;
/// Cells of the table of UDP sources seen lately; a power of two.
pub const SEEN: u32 = 1 << 16;
/// How long a UDP source counts as known after its last packet, in seconds.
pub const SEEN_SECONDS: u32 = 60;
