//! What `status` and `service list` tell of direct services.

use std::{fmt, net::IpAddr};

use edge_common::{
    abi::{Backend, BackendCount, Forward, SteerRule},
    algo::flows::Info,
};
use serde::Serialize;

use super::super::{KernelError, ShieldTables};

/// A direct service.
#[derive(Debug, Clone, Serialize)]
pub struct DirectReport {
    /// Its name.
    pub service: String,
    /// `dsr-l2`, `ipip` or `nat`.
    pub forward: &'static str,
    /// `flow` or `source`.
    pub affinity: &'static str,
    /// Places of its table.
    pub table_size: u32,
    /// Its backends, by address.
    pub backends: Vec<BackendReport>,
}

/// One of its backends.
#[derive(Debug, Clone, Serialize)]
pub struct BackendReport {
    /// Its address.
    pub address: IpAddr,
    /// Its weight.
    pub weight: u16,
    /// It answers its checks, or has none.
    pub up: bool,
    /// It gets no new connections.
    pub drained: bool,
    /// Connections that the table has.
    pub connections: u64,
    /// Packets sent to it.
    pub packets: u64,
    /// Bytes sent to it.
    pub bytes: u64,
    /// Connections opened (over UDP: first packets of flows).
    pub opened: u64,
}

impl fmt::Display for BackendReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match (self.up, self.drained) {
            (false, false) => "down",
            (false, true) => "down, drained",
            (true, false) => "up",
            (true, true) => "drained",
        };
        write!(
            f,
            "{:<39} {:<14} {:>6} {:>11} {:>12} {:>12} {:>14}",
            self.address.to_string(),
            state,
            self.weight,
            self.connections,
            self.opened,
            self.packets,
            self.bytes
        )
    }
}

impl BackendReport {
    /// The heads of the columns of its line.
    pub fn header() -> String {
        format!(
            "{:<39} {:<14} {:>6} {:>11} {:>12} {:>12} {:>14}",
            "BACKEND", "STATE", "WEIGHT", "CONNECTIONS", "OPENED", "PACKETS", "BYTES"
        )
    }
}

impl ShieldTables {
    /// Every direct service in force.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn direct_reports(&self) -> Result<Vec<DirectReport>, KernelError> {
        let directs = self.directs();
        if directs.is_empty() {
            return Ok(Vec::new());
        }
        let connections = self.connections();
        let mut reports = Vec::with_capacity(directs.len());
        for (id, service) in directs {
            let Some(rule) = self.steer_rule(id) else { continue };
            let mut backends = Vec::new();
            for (index, backend) in self.present().filter(|(_, backend)| backend.service == id) {
                let count = self.backend_count(index)?;
                let held = connections.get(index as usize).copied().unwrap_or_default();
                backends.push(report(&backend, &count, held));
            }
            backends.sort_by_key(|backend| backend.address);
            reports.push(DirectReport {
                service,
                forward: forward_name(rule.forward),
                affinity: if rule.flags & SteerRule::BY_SOURCE == 0 {
                    "flow"
                } else {
                    "source"
                },
                table_size: rule.size,
                backends,
            });
        }
        Ok(reports)
    }

    fn backend_count(&self, index: u32) -> Result<BackendCount, KernelError> {
        let values = self
            .backend_counts
            .get(&index, 0)
            .map_err(KernelError::map("reading BACKEND_COUNTS"))?;
        Ok(values
            .iter()
            .fold(BackendCount::default(), |sum, cpu| BackendCount {
                packets: sum.packets + cpu.packets,
                bytes: sum.bytes + cpu.bytes,
                opened: sum.opened + cpu.opened,
                entered: sum.entered + cpu.entered,
            }))
    }

    /// Connections that are alive, by index of the backend.
    fn connections(&self) -> Vec<u64> {
        let mut held = vec![0; edge_common::abi::steer::MAX_BACKENDS as usize];
        let (now, hz) = (self.clock.now(), self.params.hz);
        for bucket in 0..self.flows.len() {
            for word in (1..edge_common::abi::steer::FLOW_WORDS).step_by(2) {
                let info = Info(self.flows.load_word(bucket, word));
                let owner = info.owner();
                if info.is_alive(now, hz)
                    && let Some(count) = held.get_mut(usize::from(owner.backend))
                    && self
                        .backends
                        .get(owner.backend.into())
                        .is_some_and(|backend| backend.generation == owner.generation)
                {
                    *count += 1;
                }
            }
        }
        held
    }
}

/// The configuration's word for a way of forwarding.
pub(super) fn forward_name(forward: u8) -> &'static str {
    Forward::from_number(forward).map_or("unknown", Forward::name)
}

fn report(backend: &Backend, count: &BackendCount, connections: u64) -> BackendReport {
    BackendReport {
        address: backend.addr.into(),
        weight: backend.weight,
        up: backend.flags & Backend::UP != 0,
        drained: backend.flags & Backend::DRAINED != 0,
        connections,
        packets: count.packets,
        bytes: count.bytes,
        opened: count.opened,
    }
}
