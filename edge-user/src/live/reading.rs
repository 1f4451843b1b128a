//! One look at the shield: counters, bans, interfaces, what was not sampled.

use std::time::Instant;

use serde::Serialize;

use crate::kernel::{
    KernelError, Pins, ShieldTables, bans::BanEntry, counters::ReasonCount, interfaces::Netlink,
};

/// An interface that the shield is on.
#[derive(Debug, Clone, Serialize)]
pub struct Shielded {
    /// Its name.
    pub interface: String,
    /// `native` or `generic`; `gone` if there is no such interface any more.
    pub mode: &'static str,
}

/// The counters of one service at one moment.
#[derive(Debug, Clone)]
pub struct Counted {
    /// Its name, `-` for what no service judged.
    pub service: String,
    /// Reasons with any packet.
    pub reasons: Vec<ReasonCount>,
}

/// One look.
#[derive(Debug, Clone)]
pub struct Reading {
    /// When.
    pub at: Instant,
    /// Where the shield is.
    pub interfaces: Vec<Shielded>,
    /// What was counted since the maps were made.
    pub counted: Vec<Counted>,
    /// Names of services by identifier.
    pub names: Vec<(u16, String)>,
    /// Dropped packets of which no sample was taken, since the maps were made.
    pub not_sampled: u64,
    /// Something is only observed.
    pub observes: bool,
}

/// Bans in force at one moment.
#[derive(Debug, Clone, Default)]
pub struct Bans {
    /// The newest first.
    pub list: Vec<BanEntry>,
    /// Room in the table.
    pub capacity: u32,
}

impl Reading {
    /// Looks.
    ///
    /// # Errors
    /// A counter cannot be read.
    pub async fn take(pins: &Pins, tables: &ShieldTables, netlink: &Netlink) -> Result<Self, KernelError> {
        let mut interfaces = Vec::new();
        for interface in pins.linked_interfaces()? {
            let now = netlink.interface(&interface).await;
            let mode = now.map_or("gone", |now| now.xdp.name());
            interfaces.push(Shielded { interface, mode });
        }
        let names = tables.service_names();
        let mut counted = Vec::with_capacity(names.len() + 1);
        for (id, name) in &names {
            counted.push(Counted {
                service: name.clone(),
                reasons: tables.counts(*id)?,
            });
        }
        counted.push(Counted {
            service: "-".into(),
            reasons: tables.counts(0)?,
        });
        let (over_budget, buffer_full) = tables.lost_samples()?;
        let control = tables.control();
        Ok(Self {
            at: Instant::now(),
            interfaces,
            counted,
            not_sampled: over_budget + buffer_full,
            observes: edge_common::abi::Reason::ALL
                .iter()
                .any(|reason| control.observes((*reason).into())),
            names,
        })
    }

    /// The name of a service, `-` if it has none.
    pub fn name(&self, service: u16) -> &str {
        self.names
            .iter()
            .find(|(id, _)| *id == service)
            .map_or("-", |(_, name)| name)
    }
}

impl Bans {
    /// Reads the table.
    pub fn take(tables: &ShieldTables) -> Self {
        let mut list = tables.list_bans();
        list.sort_by(|a, b| b.since.total_cmp(&a.since).then(a.net.cmp(&b.net)));
        Self {
            list,
            capacity: tables.ban_capacity,
        }
    }
}
