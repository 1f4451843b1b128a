//! A change of everything that the shield's tables say, seen by packets at one instant: the copies that are not in force
//! are filled first, then one store of the control word switches all of them.
//!
//! Bans, earned sources, limiter cells and counters are in no such copy; nothing here touches them.

use std::{net::IpAddr, time::Duration};

use edge_common::abi::ControlWord;
use ipnet::IpNet;

use super::{
    KernelError, ShieldTables,
    lists::{List, Part},
    pins::Lock,
    services::{FilledServices, ServicePlan},
};

/// What is to be different.
#[derive(Debug, Clone)]
pub struct TableChange<'c> {
    /// The services, all of them.
    pub plan: &'c ServicePlan,
    /// The machine's addresses.
    pub local: &'c [IpAddr],
    /// Bits of the control word that take the values of `bits`.
    pub mask: u64,
    /// Their values.
    pub bits: u64,
    /// The configuration's part of the allow list, if it is another.
    pub allow: Option<&'c [IpNet]>,
    /// The configuration's part of the deny list, if it is another.
    pub deny: Option<&'c [IpNet]>,
}

/// A change that is written and not in force. It holds the lock on the tables.
#[must_use = "it is neither in force nor taken back"]
pub struct Staged {
    lock: Lock,
    services: FilledServices,
    word: u64,
    /// Copies of lists that are no longer in force once it is.
    lists: Vec<(List, u32)>,
}

impl ShieldTables {
    /// Writes a change beside what is in force.
    ///
    /// # Errors
    /// Too many entries, or a table cannot be written; nothing is different then.
    pub fn stage(&mut self, lock: Lock, change: &TableChange<'_>) -> Result<Staged, KernelError> {
        let mut word = self.control().0;
        let mut lists = Vec::new();
        for (list, nets) in [(List::Allow, change.allow), (List::Deny, change.deny)] {
            let Some(nets) = nets else { continue };
            let (old, wanted) = self.with_part(list, Part::Config, nets)?;
            if let Some(filled) = self.fill_list(list, &old, &wanted)? {
                word = filled.word(word);
                lists.push((list, filled.before));
            }
        }
        let services = self.fill_services(change.plan, change.local)?;
        word = word & !change.mask | change.bits & change.mask;
        word = services.word(word);
        Ok(Staged {
            lock,
            services,
            word,
            lists,
        })
    }

    /// Puts a change in force.
    pub fn commit(&mut self, staged: Staged) {
        let Staged {
            lock,
            services,
            word,
            lists,
        } = staged;
        self.control.store(ControlWord::Control as u32, word);
        self.settle(&services);
        if !lists.is_empty() {
            wait_for_packets();
        }
        for (list, before) in lists {
            // A large list is not kept twice.
            if let Err(error) = self.empty_list(list, before) {
                tracing::warn!(%error, "the list that was in force is still in memory");
            }
        }
        drop(lock);
    }

    /// Takes back a change that is not in force.
    pub fn abandon(&mut self, staged: Staged) {
        self.take_back_addresses(&staged.services);
        for (list, before) in staged.lists {
            if let Err(error) = self.empty_list(list, 1 - before) {
                tracing::warn!(%error, "the list that did not come into force is still in memory");
            }
        }
        drop(staged.lock);
    }
}

/// Waits until no packet is judged by what was in force before: the kernel's grace period
/// (kernel/sched/membarrier.c, `MEMBARRIER_CMD_GLOBAL` is `synchronize_rcu`).
pub(super) fn wait_for_packets() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the call takes three numbers and touches no memory of ours.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if done != 0 {
        // Not to be had with nohz_full; no packet takes as long.
        std::thread::sleep(Duration::from_millis(20));
    }
}
