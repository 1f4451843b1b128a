//! What became of sentences, counted: for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a sentence came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Carried {
    /// The kernel drops the client's packets.
    InKernel,
    /// The gateway keeps the client out, or slows it down.
    InGateway,
    /// Nothing: offences are only observed.
    Observed,
    /// Nothing: there were too many in this minute.
    OverCeiling,
    /// Nothing: the kernel's table refused it.
    Failed,
}

impl Carried {
    /// Each, in the order of its counter.
    pub const ALL: [Self; 5] = [
        Self::InKernel,
        Self::InGateway,
        Self::Observed,
        Self::OverCeiling,
        Self::Failed,
    ];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InKernel => "in_kernel",
            Self::InGateway => "in_gateway",
            Self::Observed => "observed",
            Self::OverCeiling => "over_ceiling",
            Self::Failed => "failed",
        }
    }
}

/// Sentences of this process by what they came to.
#[derive(Debug, Default)]
pub struct BanTally([AtomicU64; Carried::ALL.len()]);

impl BanTally {
    /// Counts one.
    pub fn count(&self, carried: Carried) {
        self.0[carried as usize].fetch_add(1, Relaxed);
    }

    /// How many came to this.
    pub fn get(&self, carried: Carried) -> u64 {
        self.0[carried as usize].load(Relaxed)
    }
}
