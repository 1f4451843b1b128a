//! Where backends' answers to translated packets come: to the pipeline a service, whose packets go back to clients.
//!
//! Its ports are many, and a service has one place in the chains of all its ports; so those of a protocol follow each other,
//! at the end of each chain that one of them is in.

use std::collections::BTreeMap;

use edge_common::abi::{Addr, Forward, PortEntry, Service, SteerRule, service::MAX_SERVICES};

use super::{ShieldTables, padded};
use crate::config::{self, PortRange, Protocol};

/// An address that backends answer to, over one protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Return {
    /// In the place of a service's; no service's may have a space.
    pub(super) name: String,
    source: Addr,
    pub(super) protocol: Protocol,
    ports: Vec<PortRange>,
}

impl Return {
    /// All that the services have, each once.
    pub(super) fn all(services: &[config::Service]) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for service in services {
            let Some(nat) = service.direct.as_ref().and_then(|direct| direct.nat) else {
                continue;
            };
            let name = match service.protocol {
                Protocol::Tcp => format!("nat {} tcp", nat.source),
                Protocol::Udp => format!("nat {} udp", nat.source),
            };
            match all.iter_mut().find(|known| known.name == name) {
                Some(known) => known.ports.push(nat.ports),
                None => all.push(Self {
                    name,
                    source: Addr::from(nat.source),
                    protocol: service.protocol,
                    ports: vec![nat.ports],
                }),
            }
        }
        all
    }

    /// What packets to it meet: nothing that a service's sources would.
    fn service(&self) -> Service {
        Service {
            addr: self.source,
            flags: Service::DIRECT,
            ..Service::default()
        }
    }

    /// How they are sent on.
    pub(super) fn rule(&self) -> SteerRule {
        SteerRule {
            forward: Forward::Nat as u8,
            flags: SteerRule::RETURNS,
            source: self.source,
            ..SteerRule::default()
        }
    }
}

impl ShieldTables {
    /// Writes where answers come, which is in the chains of many ports: all of a protocol follow each other, at their ends.
    pub(super) fn write_returns(
        &self,
        copy: u32,
        returns: &[(u16, &Return)],
        heads: &mut BTreeMap<u16, PortEntry>,
    ) {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let mut next = 0;
            for (id, to) in returns.iter().filter(|(_, to)| to.protocol == protocol) {
                self.services.set(
                    copy * MAX_SERVICES + u32::from(*id),
                    Service {
                        id: *id,
                        next,
                        ..to.service()
                    },
                );
                self.names.set(u32::from(*id), padded(&to.name));
                next = *id;
                for ports in &to.ports {
                    for port in ports.low..=ports.high {
                        *head(heads.entry(port).or_default(), protocol, copy) = *id;
                    }
                }
            }
        }
    }
}

/// The head of a copy's chain for a protocol.
pub(super) fn head(entry: &mut PortEntry, protocol: Protocol, copy: u32) -> &mut u16 {
    match protocol {
        Protocol::Tcp => &mut entry.tcp[copy as usize],
        Protocol::Udp => &mut entry.udp[copy as usize],
    }
}
