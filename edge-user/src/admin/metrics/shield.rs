//! The kernel's side: packets by service and reason, bans, tables and how full they are.

use std::collections::BTreeMap;

use edge_common::abi::{Alert, BanSource};

use super::{OffenceFacts, family as f, out::Out};
use crate::{
    config::bounds::MAX_LIST,
    kernel::{KernelError, Pins, ShieldTables, counters::ReasonCount, interfaces::Netlink, lists::List},
};

/// The shield at one moment.
#[derive(Debug, Clone, Default)]
pub struct ShieldFacts {
    /// Where it is on.
    pub interfaces: Vec<InterfaceFacts>,
    /// Counters by name of the service; `-` for packets that no service judged.
    pub services: Vec<(String, Vec<ReasonCount>)>,
    /// Bans in force by who asked for them.
    pub bans: BTreeMap<&'static str, u64>,
    /// Bans merged for want of room, and bans refused.
    pub merged_refused: (u64, u64),
    /// Of guarded services, whether cookies are engaged, and how often that began.
    pub cookies: Vec<(String, bool, u64)>,
    /// Sources that earned exact state for which there was no room.
    pub earned_refused: u64,
    /// How full tables are.
    pub maps: Vec<MapFacts>,
    /// Samples lost over the budget, and for want of room.
    pub samples_lost: (u64, u64),
}

/// One interface.
#[derive(Debug, Clone)]
pub struct InterfaceFacts {
    /// Its name.
    pub name: String,
    /// `native`, `generic`, …; `none` if the shield was taken off it, `gone` if there is no such interface.
    pub mode: &'static str,
}

impl InterfaceFacts {
    /// Whether packets go through the shield.
    pub fn is_attached(&self) -> bool {
        !matches!(self.mode, "none" | "gone")
    }
}

/// How full a table is.
#[derive(Debug, Clone, Copy)]
pub struct MapFacts {
    /// Its name.
    pub name: &'static str,
    /// What is in it.
    pub entries: usize,
    /// What can be.
    pub capacity: usize,
}

impl ShieldFacts {
    /// Where the shield is linked, and whether it is on there.
    ///
    /// # Errors
    /// Pins or interfaces cannot be read.
    pub async fn interfaces(pins: &Pins) -> Result<Vec<InterfaceFacts>, KernelError> {
        let linked = pins.linked_interfaces()?;
        let netlink = Netlink::connect()?;
        let mut interfaces = Vec::with_capacity(linked.len());
        for name in linked {
            let now = netlink.interface(&name).await.ok();
            let mode = now.map_or("gone", |interface| interface.xdp.name());
            interfaces.push(InterfaceFacts { name, mode });
        }
        Ok(interfaces)
    }

    /// Reads everything.
    ///
    /// # Errors
    /// Nothing is pinned, or a table cannot be read.
    pub async fn gather(pins: &Pins) -> Result<Self, KernelError> {
        let interfaces = Self::interfaces(pins).await?;
        let tables = ShieldTables::open(pins)?;
        let mut services = vec![("-".to_owned(), tables.every_count(0)?)];
        let mut cookies = Vec::new();
        for (id, name) in tables.service_names() {
            if let Some(report) = tables.syn_report(id).filter(|report| report.cookies.is_some()) {
                cookies.push((name.clone(), report.engaged, report.engagements));
            }
            services.push((name, tables.every_count(id)?));
        }
        // Where there is none there is a zero: what is not there cannot be drawn.
        let mut bans: BTreeMap<_, _> = BanSource::ALL.iter().map(|source| (source.name(), 0)).collect();
        for ban in tables.list_bans() {
            *bans.entry(ban.source).or_default() += 1;
        }
        let map = |name, entries, capacity| MapFacts {
            name,
            entries,
            capacity,
        };
        Ok(Self {
            interfaces,
            maps: vec![
                map("bans", tables.count_holding_bans(), tables.ban_capacity as usize),
                map("earned", tables.count_earned(), tables.earned_capacity()),
                map("allow", tables.list(List::Allow).len(), MAX_LIST),
                map("deny", tables.list(List::Deny).len(), MAX_LIST),
                map(
                    "services",
                    services.len() - 1,
                    edge_common::abi::service::MAX_SERVICES as usize - 1,
                ),
            ],
            services,
            cookies,
            earned_refused: tables.alerts(Alert::EarnedRefused),
            bans,
            merged_refused: (
                tables.alerts(Alert::BansAggregated),
                tables.alerts(Alert::BansRefused),
            ),
            samples_lost: tables.lost_samples()?,
        })
    }
}

pub(super) fn encode_offences(offences: &OffenceFacts, out: &mut Out<'_>) -> std::fmt::Result {
    let reported = offences.reported.iter();
    out.counters(f::OFFENCES, reported.map(|(kind, count)| ([kind.name()], *count)))?;
    out.counter(f::OFFENCES_LOST, offences.lost)?;
    let sentences = offences.sentences.iter();
    out.counters(
        f::SENTENCES,
        sentences.map(|(outcome, count)| ([*outcome], *count)),
    )
}

pub(super) fn encode(shield: Option<&ShieldFacts>, out: &mut Out<'_>) -> std::fmt::Result {
    let none = ShieldFacts::default();
    let shield = shield.unwrap_or(&none);
    let bans = shield.bans.iter();
    out.gauges(f::BANS, bans.map(|(source, count)| ([*source], *count as f64)))?;
    out.counter(f::BANS_MERGED, shield.merged_refused.0)?;
    out.counter(f::BANS_REFUSED, shield.merged_refused.1)?;
    out.counter(f::EARNED_REFUSED, shield.earned_refused)?;
    let cookies = || shield.cookies.iter();
    out.gauges(
        f::ENGAGED,
        cookies().map(|(service, engaged, _)| ([service.as_str()], f64::from(*engaged))),
    )?;
    out.counters(
        f::ENGAGEMENTS,
        cookies().map(|(service, _, times)| ([service.as_str()], *times)),
    )?;
    let interfaces = shield.interfaces.iter();
    out.gauges(
        f::ATTACHED,
        interfaces.map(|own| ([own.name.as_str(), own.mode], f64::from(own.is_attached()))),
    )?;
    out.family(f::PACKETS, |rows| {
        each(shield, |service, count| {
            rows.counter(&[service, count.outcome, count.reason], count.packets)
        })
    })?;
    out.family(f::PACKET_BYTES, |rows| {
        each(shield, |service, count| {
            rows.counter(&[service, count.outcome, count.reason], count.bytes)
        })
    })?;
    out.family(f::OBSERVED, |rows| {
        each(shield, |service, count| {
            if count.outcome == "drop" {
                rows.counter(&[service, count.reason], count.observed)?;
            }
            Ok(())
        })
    })?;
    let maps = &shield.maps;
    out.gauges(
        f::MAP_ENTRIES,
        maps.iter().map(|map| ([map.name], map.entries as f64)),
    )?;
    out.gauges(
        f::MAP_CAPACITY,
        maps.iter().map(|map| ([map.name], map.capacity as f64)),
    )?;
    let (over_budget, buffer_full) = shield.samples_lost;
    out.counters(
        f::SAMPLES_LOST,
        [(["over_budget"], over_budget), (["buffer_full"], buffer_full)],
    )
}

fn each(
    shield: &ShieldFacts,
    mut row: impl FnMut(&str, &ReasonCount) -> std::fmt::Result,
) -> std::fmt::Result {
    for (service, counts) in &shield.services {
        counts.iter().try_for_each(|count| row(service, count))?;
    }
    Ok(())
}
