//! Counters by service and reason, merged over the CPUs.

use edge_common::abi::{Counter, Reason, service::MAX_SERVICES};
use serde::Serialize;

use super::{KernelError, ShieldTables};

/// Packets and bytes of one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ReasonCount {
    /// Name of the reason.
    pub reason: &'static str,
    /// `pass` or `drop`.
    pub outcome: &'static str,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Packets that would have been dropped, but were only observed.
    pub observed: u64,
}

impl ShieldTables {
    /// The counters of one service (0: packets that no service judged), reasons without any packet left out.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn counts(&self, service: u16) -> Result<Vec<ReasonCount>, KernelError> {
        let mut counts = self.every_count(service)?;
        counts.retain(|count| count.packets != 0 || count.observed != 0);
        Ok(counts)
    }

    /// The counters of one service, each reason of the list.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn every_count(&self, service: u16) -> Result<Vec<ReasonCount>, KernelError> {
        let mut counts = Vec::with_capacity(Reason::ALL.len());
        for reason in Reason::ALL {
            let index = u32::from(service) * Reason::SLOTS + *reason as u32;
            let counted = self.sum(index)?;
            let observed = self.sum(MAX_SERVICES * Reason::SLOTS + index)?;
            counts.push(ReasonCount {
                reason: reason.name(),
                outcome: match reason.outcome() {
                    edge_common::abi::Outcome::Pass => "pass",
                    edge_common::abi::Outcome::Drop => "drop",
                    edge_common::abi::Outcome::Answer => "answer",
                    edge_common::abi::Outcome::Forward => "forward",
                },
                packets: counted.packets,
                bytes: counted.bytes,
                observed: observed.packets,
            });
        }
        Ok(counts)
    }

    /// Samples lost: over the CPUs' budgets, and for want of room in the ring buffer.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn lost_samples(&self) -> Result<(u64, u64), KernelError> {
        let lost = self
            .per_cpu
            .get(&0, 0)
            .map_err(KernelError::map("reading PER_CPU"))?;
        Ok(lost.iter().fold((0, 0), |(budget, full), cpu| {
            (budget + cpu.sampling.over_budget, full + cpu.sampling.buffer_full)
        }))
    }

    fn sum(&self, index: u32) -> Result<Counter, KernelError> {
        let values = self
            .counters
            .get(&index, 0)
            .map_err(KernelError::map("reading COUNTERS"))?;
        Ok(values.iter().fold(Counter::default(), |sum, cpu| Counter {
            packets: sum.packets + cpu.packets,
            bytes: sum.bytes + cpu.bytes,
        }))
    }
}
