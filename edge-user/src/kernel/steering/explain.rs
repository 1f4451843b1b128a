//! Where a flow would go, and why: the kernel's own code over a copy of its tables.

use std::{fmt, net::SocketAddr};

use edge_common::{
    abi::{Addr, Control, Service},
    datapath::steer::{Asked, Why, choose, flow_hash, source_hash},
    mem::MemTables,
    wire::protocol,
};
use serde::Serialize;

use super::{
    super::{KernelError, ShieldTables},
    report::forward_name,
};
use crate::config::Protocol;

/// A flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The client.
    pub from: SocketAddr,
    /// The service.
    pub to: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// Where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// The service that judges it, if one does.
    pub service: Option<String>,
    /// How it is forwarded, if the service is direct.
    pub forward: Option<&'static str>,
    /// The backend.
    pub backend: Option<std::net::IpAddr>,
    /// By what it was chosen.
    pub why: &'static str,
    /// Where a new flow under the same addresses and ports would go, if that is elsewhere.
    pub new_flow: Option<std::net::IpAddr>,
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.service, self.forward, self.backend) {
            (None, ..) => f.write_str("nothing is protected there: it is left to the stack"),
            (Some(service), None, _) => {
                write!(
                    f,
                    "the service `{service}` is this machine's own: what is admitted goes to its stack"
                )
            }
            (Some(service), Some(forward), None) => {
                write!(
                    f,
                    "service `{service}` ({forward}): dropped as no_backend, since {}",
                    self.why
                )
            }
            (Some(service), Some(forward), Some(backend)) => {
                write!(
                    f,
                    "service `{service}` ({forward}): backend {backend}, since {}",
                    self.why
                )?;
                match self.new_flow {
                    Some(new) => write!(f, "\na new flow would go to {new}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl ShieldTables {
    /// Where a flow goes now, if it is admitted. Changes nothing, and counts nothing.
    ///
    /// # Errors
    /// The two addresses are of different families.
    pub fn explain(&self, question: &Question) -> Result<Explained, KernelError> {
        if question.from.is_ipv4() != question.to.is_ipv4() {
            return Err(KernelError::MixedFamilies {
                from: question.from,
                to: question.to,
            });
        }
        let nothing = Explained {
            service: None,
            forward: None,
            backend: None,
            why: "",
            new_flow: None,
        };
        let Some((id, service)) = self.find_service(question) else {
            return Ok(nothing);
        };
        let Some(rule) = self.steer_rule(id) else {
            return Ok(Explained {
                service: Some(service),
                ..nothing
            });
        };
        let (src, dst) = (Addr::from(question.from.ip()), Addr::from(question.to.ip()));
        let (number, tcp) = match question.protocol {
            Protocol::Tcp => (protocol::TCP, Asked::TCP),
            Protocol::Udp => (protocol::UDP, 0),
        };
        let asked = Asked {
            hash: flow_hash(
                &src,
                &dst,
                question.from.port(),
                question.to.port(),
                number,
                &self.params,
            ),
            source: source_hash(&src, src.family(), &self.params),
            service: id,
            flags: tcp,
        };
        let (tables, lanes) = (MemTables::new(self.params), self.copy_steering());
        let copy = self.control().copy(Control::SERVICES);
        let now = self.clock.now();
        let choice = choose(&tables, &lanes, copy, &asked, now);
        // Without what is remembered: what a table filled alike on another machine would say.
        let fresh = lanes.forgetting();
        let new = choose(&tables, &fresh, copy, &asked, now);
        let address = |index: u16| {
            let backend = (index != 0).then(|| self.backends.get(index.into())).flatten()?;
            Some(backend.addr.into())
        };
        Ok(Explained {
            service: Some(service),
            forward: Some(forward_name(rule.forward)),
            backend: address(choice.owner.backend),
            why: match choice.why {
                Why::Nobody => "no backend is up and takes new connections",
                Why::Connection => "the connection table has the flow",
                Why::FirstPacket => "its first packet went there a moment ago",
                Why::Table => "the service's table says so",
            },
            new_flow: address(new.owner.backend).filter(|_| new.owner != choice.owner),
        })
    }

    /// The service in force for a destination.
    fn find_service(&self, question: &Question) -> Option<(u16, String)> {
        let copy = self.control().copy(Control::SERVICES) as usize;
        let entry = self.ports.get(question.to.port().into())?;
        let heads = match question.protocol {
            Protocol::Tcp => entry.tcp,
            Protocol::Udp => entry.udp,
        };
        let (mut index, dst) = (*heads.get(copy)?, Addr::from(question.to.ip()));
        for _ in 0..edge_common::abi::service::MAX_CHAIN {
            let service = self.service(index).filter(|_| index != 0)?;
            let is_local =
                || dst.is_loopback() || self.addresses.get(&dst, 0).is_ok_and(|flags| flags & 1 != 0);
            if service.addr == dst && service.flags & Service::ANY_LOCAL == 0
                || service.flags & Service::ANY_LOCAL != 0 && is_local()
            {
                return self.service_names().into_iter().find(|(id, _)| *id == service.id);
            }
            index = service.next;
        }
        None
    }
}
