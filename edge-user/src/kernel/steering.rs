//! Writes and reads what direct services are steered by: rules, backends, Maglev tables, connections.
//!
//! A backend keeps its index as long as its service lists it, since connections remember the index. A table is filled
//! beside the one in force and put in its place by one store. What is drained or down stays so through restarts: it is
//! kept with the backend.

mod explain;
mod report;

use std::{net::IpAddr, num::NonZeroU16};

use edge_common::{
    abi::{
        Addr, Backend, Control, SteerRule,
        service::MAX_SERVICES,
        steer::{BLOCK_WORDS, BLOCKS, MAX_BACKENDS},
    },
    algo::maglev::{self, Share},
    mem::MemLanes,
};

pub use self::{
    explain::{Explained, Question},
    report::{BackendReport, DirectReport},
};
use super::{KernelError, ShieldTables, pins::Lock};
use crate::config::{Affinity, Direct};

/// Word of a [`SteerRule`] that is its table.
const TABLE_WORD: usize = 0;

/// What is to change about a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It answers its checks, or no longer.
    Up(bool),
    /// It is to get no new connections, or to get them again.
    Drained(bool),
}

impl Change {
    const fn of(self, flags: u8) -> u8 {
        let (mask, set) = match self {
            Self::Up(up) => (Backend::UP, up),
            Self::Drained(drained) => (Backend::DRAINED, drained),
        };
        if set { flags | mask } else { flags & !mask }
    }
}

impl ShieldTables {
    /// Writes rules, backends and tables of `directs` (identifier, port, configuration) into copy `copy`, which is not in
    /// force. Backends that are there keep their index and state.
    pub(super) fn write_steering(
        &self,
        copy: u32,
        directs: &[(u16, u16, &Direct)],
        returns: &[(u16, SteerRule)],
    ) -> Result<(), KernelError> {
        for id in 0..MAX_SERVICES {
            self.steer_rules
                .set(copy * MAX_SERVICES + id, SteerRule::default());
        }
        for (id, rule) in returns {
            self.steer_rules.set(copy * MAX_SERVICES + u32::from(*id), *rule);
        }
        let before: Vec<u32> = self.present().map(|(index, _)| index).collect();
        let written = self.write_rules(copy, directs);
        if written.is_err() {
            for (index, backend) in self.present().filter(|(index, _)| !before.contains(index)) {
                self.give_up(index, backend);
            }
        }
        written
    }

    fn write_rules(&self, copy: u32, directs: &[(u16, u16, &Direct)]) -> Result<(), KernelError> {
        let mut taken = self.blocks(1 - copy);
        for (id, port, direct) in directs {
            let no_room = |what| KernelError::NoRoomToSteer { service: *id, what };
            for spec in &direct.backends {
                let weight = u16::try_from(spec.weight.get()).unwrap_or(u16::MAX);
                let new = Backend {
                    addr: Addr::from(spec.address),
                    port: spec.port.map_or(*port, NonZeroU16::get),
                    service: *id,
                    weight,
                    ..Backend::default()
                };
                self.place_backend(new, direct.health.is_some())
                    .ok_or_else(|| no_room("another backend"))?;
            }
            let block = (0..BLOCKS)
                .find(|block| !taken.contains(block))
                .ok_or_else(|| no_room("another table"))?;
            taken.push(block);
            let listed: Vec<Addr> = direct
                .backends
                .iter()
                .map(|spec| Addr::from(spec.address))
                .collect();
            let shares = self.shares(*id, |backend| {
                listed.contains(&backend.addr) && backend.takes_new()
            });
            let rule = SteerRule {
                table: self.fill(block, direct.table_size, &shares),
                size: direct.table_size,
                forward: direct.forward as u8,
                flags: match direct.affinity {
                    Affinity::Flow => 0,
                    Affinity::Source => SteerRule::BY_SOURCE,
                },
                source: direct.nat.map_or(Addr::UNSPECIFIED, |nat| Addr::from(nat.source)),
                ports: direct.nat.map_or([0; 2], |nat| [nat.ports.low, nat.ports.high]),
                ..SteerRule::default()
            };
            self.steer_rules.set(copy * MAX_SERVICES + u32::from(*id), rule);
        }
        Ok(())
    }

    /// Gives up the backends that no service lists any more; their connections go to others.
    pub(super) fn forget_backends(&self, directs: &[(u16, u16, &Direct)]) {
        for (index, backend) in self.present() {
            let is_listed = directs.iter().any(|(id, _, direct)| {
                *id == backend.service
                    && direct
                        .backends
                        .iter()
                        .any(|spec| Addr::from(spec.address) == backend.addr)
            });
            if !is_listed {
                self.give_up(index, backend);
            }
        }
    }

    /// Changes the state of a backend, and the table of its service with it. Whether anything changed.
    ///
    /// # Errors
    /// There is no such service or backend.
    pub fn change_backend(
        &self,
        _lock: &Lock,
        service: &str,
        address: IpAddr,
        change: Change,
    ) -> Result<bool, KernelError> {
        let id = self.direct(service)?;
        let addr = Addr::from(address);
        let Some((index, backend)) = self
            .present()
            .find(|(_, backend)| backend.service == id && backend.addr == addr)
        else {
            return Err(KernelError::NoSuchBackend {
                service: service.to_owned(),
                backend: address,
            });
        };
        let changed = Backend {
            flags: change.of(backend.flags),
            ..backend
        };
        if changed == backend {
            return Ok(false);
        }
        // Whoever gets flows has to be up before the table names him, and is named by none when he is no longer.
        let comes = changed.takes_new();
        if comes {
            self.backends
                .store_word(index, Backend::STATE_WORD, changed.state());
        }
        self.retable(id, |other| {
            if other.addr == addr {
                comes
            } else {
                other.takes_new()
            }
        })?;
        if !comes {
            self.backends
                .store_word(index, Backend::STATE_WORD, changed.state());
        }
        Ok(true)
    }

    /// Fills the table of a service in force anew, with the backends that `takes` says.
    fn retable(&self, id: u16, takes: impl Fn(&Backend) -> bool) -> Result<(), KernelError> {
        let copy = self.control().copy(Control::SERVICES);
        let place = copy * MAX_SERVICES + u32::from(id);
        let rule = self.steer_rules.get(place).unwrap_or_default();
        let used = self.blocks(copy);
        let block = (0..BLOCKS)
            .find(|block| !used.contains(block))
            .ok_or(KernelError::NoRoomToSteer {
                service: id,
                what: "another table",
            })?;
        let shares = self.shares(id, takes);
        let table = self.fill(block, rule.size, &shares);
        self.steer_rules.store_word(place, TABLE_WORD, table);
        Ok(())
    }

    /// Fills a block with a table, and answers with what a rule says of it: nothing, if there is nobody in it.
    fn fill(&self, block: u32, size: u32, shares: &[Share]) -> u64 {
        if shares.is_empty() {
            return 0;
        }
        let start = block * BLOCK_WORDS;
        for (at, word) in (start..).zip(maglev::packed(size, shares)) {
            self.steer_places.store(at, word);
        }
        SteerRule::table(block, size)
    }

    /// Blocks that the rules of a copy use.
    fn blocks(&self, copy: u32) -> Vec<u32> {
        (0..MAX_SERVICES)
            .filter_map(|id| self.steer_rules.get(copy * MAX_SERVICES + id)?.block())
            .collect()
    }

    /// The parts that the backends of a service have in its table.
    fn shares(&self, id: u16, takes: impl Fn(&Backend) -> bool) -> Vec<Share> {
        self.present()
            .filter(|(_, backend)| backend.service == id && takes(backend))
            .filter_map(|(index, backend)| {
                Some(Share {
                    index: u16::try_from(index).ok()?,
                    // The address alone: other machines with the same backends spread alike.
                    identity: maglev::mix(maglev::mix(backend.addr.high()) ^ backend.addr.low()),
                    weight: backend.weight.into(),
                })
            })
            .collect()
    }

    /// Backends with their indices.
    fn present(&self) -> impl Iterator<Item = (u32, Backend)> {
        (1..MAX_BACKENDS)
            .filter_map(|index| Some((index, self.backends.get(index)?)))
            .filter(|(_, backend)| backend.flags & Backend::PRESENT != 0)
    }

    /// Finds or makes the entry of a backend. One that is not checked is taken to be up, whatever was found out before.
    fn place_backend(&self, new: Backend, is_checked: bool) -> Option<()> {
        let known = self
            .present()
            .find(|(_, backend)| backend.service == new.service && backend.addr == new.addr);
        if let Some((index, backend)) = known {
            let up = if is_checked { 0 } else { Backend::UP };
            let now = Backend {
                weight: new.weight,
                port: new.port,
                flags: backend.flags | up,
                ..backend
            };
            self.backends.store_word(index, Backend::STATE_WORD, now.state());
            return Some(());
        }
        let (index, old) = (1..MAX_BACKENDS)
            .filter_map(|index| Some((index, self.backends.get(index)?)))
            .find(|(_, backend)| backend.flags & Backend::PRESENT == 0)?;
        let new = Backend {
            // Connections of whoever had the index are nobody's.
            generation: old.generation.wrapping_add(1),
            flags: Backend::PRESENT | Backend::UP,
            ..new
        };
        self.backends.set(index, Backend { flags: 0, ..new });
        self.backends.store_word(index, Backend::STATE_WORD, new.state());
        Some(())
    }

    /// Makes an index free.
    fn give_up(&self, index: u32, backend: Backend) {
        let gone = Backend { flags: 0, ..backend };
        self.backends.store_word(index, Backend::STATE_WORD, gone.state());
    }

    /// Identifier of the direct service with this name.
    fn direct(&self, name: &str) -> Result<u16, KernelError> {
        self.directs()
            .into_iter()
            .find(|(_, known)| known == name)
            .map(|(id, _)| id)
            .ok_or_else(|| KernelError::NoSuchDirect(name.to_owned()))
    }

    /// The direct services in force.
    fn directs(&self) -> Vec<(u16, String)> {
        self.service_names()
            .into_iter()
            .filter(|(id, _)| self.steer_rule(*id).is_some())
            .collect()
    }

    /// The rule in force of a service, if it is direct.
    fn steer_rule(&self, id: u16) -> Option<SteerRule> {
        use edge_common::abi::Service;

        let service = self.service(id)?;
        if service.flags & Service::DIRECT == 0 {
            return None;
        }
        let copy = self.control().copy(Control::SERVICES);
        self.steer_rules
            .get(copy * MAX_SERVICES + u32::from(id))
            .filter(|rule| rule.flags & SteerRule::RETURNS == 0)
    }

    /// Everything about steering, in memory: what `steer explain` and tests run the kernel's code over.
    pub fn copy_steering(&self) -> MemLanes {
        let mut copy = MemLanes::new(self.params.flow_mask);
        for half in 0..2_u32 {
            for index in 0..MAX_SERVICES {
                let rule = self.steer_rules.get(half * MAX_SERVICES + index);
                copy.rules[half as usize][index as usize] = rule.unwrap_or_default();
            }
        }
        for (index, word) in (0..).zip(&mut copy.places) {
            *word = self.steer_places.load_word(index, 0);
        }
        for (index, backend) in (0..).zip(&mut copy.backends) {
            *backend = self.backends.get(index).unwrap_or_default();
        }
        let order = std::sync::atomic::Ordering::Relaxed;
        for (index, bucket) in (0..).zip(copy.buckets()) {
            for (word, cell) in bucket.iter().enumerate() {
                cell.store(self.flows.load_word(index, word), order);
            }
        }
        for (index, entry) in (0..).zip(copy.nats()) {
            for (word, cell) in entry.iter().enumerate() {
                cell.store(self.translations.load_word(index, word), order);
            }
        }
        for (index, cell) in (0..).zip(copy.candidates()) {
            cell.store(self.candidates.load_word(index, 0), order);
        }
        copy
    }
}
