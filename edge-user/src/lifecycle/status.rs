//! What `status` tells: gathered from the pinned maps, so it works with and without a daemon.

use std::fmt::Write as _;

use edge_common::{
    abi::{
        Alert, Control, CookieSettings, Feature, LimitKind, Reason, service::ADDRESS_ENTRY,
        steer::FLOW_ENTRIES,
    },
    algo::gcra,
};
use serde::Serialize;

use super::steering;
use crate::config::bounds::MAX_LIST;
use crate::kernel::{
    KernelError, Pins, ShieldTables,
    counters::ReasonCount,
    interfaces::Netlink,
    lists::List,
    steering::DirectReport,
    syn::SynReport,
    sysctl::{self, Missing},
};

/// Version of the JSON document, described in docs/operating.md.
const FORMAT: u32 = 1;

/// The state of the shield.
#[derive(Debug, Serialize)]
pub(super) struct StatusReport {
    /// Of this document: changes when a key goes away or means something else.
    format: u32,
    attached: bool,
    interfaces: Vec<InterfaceReport>,
    observe: Observe,
    services: Vec<ServiceReport>,
    /// Services that are steered past user space.
    direct: Vec<DirectReport>,
    /// Connections of those that can be kept at once.
    flow_capacity: u32,
    /// Limits of packets to protected addresses that carry no port.
    address_limits: Vec<LimitReport>,
    /// Packets that no service judged.
    unjudged: Vec<ReasonCount>,
    bans: Fill,
    earned: usize,
    earned_capacity: usize,
    allow: usize,
    deny: usize,
    list_capacity: usize,
    samples_lost: Lost,
    alerts: Alerts,
    ticks_per_second: u32,
    /// What this kernel refused to load.
    missing_features: Vec<MissingFeature>,
    /// Whether SYNs can be answered with cookies at all.
    cookies_ready: bool,
    /// Settings of the kernel that are not as cookies want them.
    settings_missing: Vec<Missing>,
}

#[derive(Debug, Serialize)]
struct MissingFeature {
    feature: &'static str,
    why: String,
}

#[derive(Debug, Serialize)]
struct InterfaceReport {
    interface: String,
    mode: &'static str,
    program: Option<u32>,
}

/// What is only counted and not dropped.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Observe {
    Nothing,
    Everything,
    Reasons(Vec<&'static str>),
}

#[derive(Debug, Serialize)]
struct ServiceReport {
    name: String,
    limits: Vec<LimitReport>,
    /// Its guard against made-up sources, if it has one.
    syn: Option<SynReport>,
    reasons: Vec<ReasonCount>,
}

#[derive(Debug, Serialize)]
struct LimitReport {
    limit: &'static str,
    per_second: f64,
    burst: f64,
}

#[derive(Debug, Serialize)]
struct Fill {
    held: usize,
    capacity: u32,
}

#[derive(Debug, Serialize)]
struct Lost {
    over_budget: u64,
    buffer_full: u64,
}

#[derive(Debug, Serialize)]
struct Alerts {
    bans_aggregated: u64,
    bans_refused: u64,
    bans_over_ceiling: u64,
    earned_refused: u64,
}

impl StatusReport {
    /// Reads everything.
    ///
    /// # Errors
    /// Nothing is attached, or a map cannot be read.
    pub(super) async fn gather(pins: &Pins) -> Result<Self, KernelError> {
        let tables = ShieldTables::open(pins)?;
        let netlink = Netlink::connect()?;
        let mut interfaces = Vec::new();
        for name in pins.linked_interfaces()? {
            let now = netlink.interface(&name).await.ok();
            interfaces.push(InterfaceReport {
                interface: name,
                mode: now.as_ref().map_or("gone", |interface| interface.xdp.name()),
                program: now.and_then(|interface| interface.xdp.program()),
            });
        }
        let mut services = Vec::new();
        for (id, name) in tables.service_names() {
            services.push(ServiceReport {
                name,
                limits: limits(&tables, id),
                syn: tables.syn_report(id),
                reasons: tables.counts(id)?,
            });
        }
        let (over_budget, buffer_full) = tables.lost_samples()?;
        Ok(Self {
            format: FORMAT,
            attached: !interfaces.is_empty(),
            interfaces,
            observe: observe(tables.control()),
            services,
            direct: tables.direct_reports()?,
            flow_capacity: (tables.params.flow_mask + 1) * FLOW_ENTRIES,
            address_limits: limits(&tables, ADDRESS_ENTRY),
            unjudged: tables.counts(0)?,
            bans: Fill {
                held: tables.count_holding_bans(),
                capacity: tables.ban_capacity,
            },
            earned: tables.count_earned(),
            earned_capacity: tables.earned_capacity(),
            allow: tables.list(List::Allow).len(),
            deny: tables.list(List::Deny).len(),
            list_capacity: MAX_LIST,
            samples_lost: Lost {
                over_budget,
                buffer_full,
            },
            alerts: Alerts {
                bans_aggregated: tables.alerts(Alert::BansAggregated),
                bans_refused: tables.alerts(Alert::BansRefused),
                bans_over_ceiling: tables.alerts(Alert::BansOverCeiling),
                earned_refused: tables.alerts(Alert::EarnedRefused),
            },
            ticks_per_second: tables.params.hz,
            missing_features: missing_features(&tables),
            cookies_ready: tables.cookie_settings().has(CookieSettings::READY),
            settings_missing: sysctl::missing(),
        })
    }

    /// The report for people.
    pub(super) fn table(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut out);
        out.truncate(out.trim_end().len());
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        if self.interfaces.is_empty() {
            writeln!(out, "attached to no interface; bans and lists are kept")?;
        }
        for interface in &self.interfaces {
            let program = interface
                .program
                .map_or_else(String::new, |id| format!(", program {id}"));
            writeln!(
                out,
                "{:<16} {} mode{program}",
                interface.interface, interface.mode
            )?;
        }
        match &self.observe {
            Observe::Nothing => {}
            Observe::Everything => writeln!(out, "observing only: nothing is dropped")?,
            Observe::Reasons(reasons) => writeln!(out, "observing only: {}", reasons.join(", "))?,
        }
        writeln!(out)?;
        writeln!(
            out,
            "{:<18} {:<18} {:<8} {:>14} {:>14}",
            "SERVICE", "REASON", "OUTCOME", "PACKETS", "OBSERVED"
        )?;
        for service in &self.services {
            reasons(out, &service.name, &service.reasons)?;
        }
        reasons(out, "-", &self.unjudged)?;
        writeln!(out)?;
        let of_services = self
            .services
            .iter()
            .map(|service| (service.name.as_str(), &service.limits));
        for (name, limits) in of_services.chain([("-", &self.address_limits)]) {
            for limit in limits {
                writeln!(
                    out,
                    "limit {name:<12} {:<16} {:>10.0}/s, burst {:.0}",
                    limit.limit, limit.per_second, limit.burst
                )?;
            }
        }
        if !self.direct.is_empty() {
            writeln!(out, "{}", steering::table(&self.direct))?;
        }
        for missing in &self.missing_features {
            writeln!(out, "no {} on this kernel: {}", missing.feature, missing.why)?;
        }
        self.write_proof(out)?;
        writeln!(
            out,
            "bans {} of {}; earned sources {} of {}; allow list {}; deny list {}, of {}",
            self.bans.held,
            self.bans.capacity,
            self.earned,
            self.earned_capacity,
            self.allow,
            self.deny,
            self.list_capacity
        )?;
        let alerts = &self.alerts;
        if alerts.bans_aggregated + alerts.bans_refused + alerts.bans_over_ceiling > 0 {
            writeln!(
                out,
                "ALERT: {} bans merged for want of room, {} refused, {} held back by the ceiling",
                alerts.bans_aggregated, alerts.bans_refused, alerts.bans_over_ceiling
            )?;
        }
        if alerts.earned_refused > 0 {
            writeln!(
                out,
                "earned sources refused for want of room: {}; they stay in the shared cells",
                alerts.earned_refused
            )?;
        }
        writeln!(
            out,
            "samples lost: {} over budget, {} for want of room",
            self.samples_lost.over_budget, self.samples_lost.buffer_full
        )
    }
}

impl StatusReport {
    /// Budgets and cookies, and what they lack; nothing where nothing is guarded.
    fn write_proof(&self, out: &mut String) -> std::fmt::Result {
        let mut wants_cookies = false;
        for service in &self.services {
            let Some(syn) = &service.syn else { continue };
            wants_cookies |= syn.asks_cookies;
            writeln!(out, "proof {:<12} {syn}", service.name)?;
        }
        if !wants_cookies {
            return Ok(());
        }
        if !self.cookies_ready {
            writeln!(
                out,
                "no SYN cookies: the kernel cannot (Linux 6.0 can), or net.ipv4.tcp_syncookies is not 2; budgets work alone"
            )?;
        }
        for missing in &self.settings_missing {
            writeln!(out, "{missing}")?;
        }
        Ok(())
    }
}

fn missing_features(tables: &ShieldTables) -> Vec<MissingFeature> {
    Feature::ALL
        .into_iter()
        .filter_map(|feature| {
            Some(MissingFeature {
                feature: feature.name(),
                why: tables.why_absent(feature)?,
            })
        })
        .collect()
}

fn reasons(out: &mut String, service: &str, counts: &[ReasonCount]) -> std::fmt::Result {
    for count in counts {
        writeln!(
            out,
            "{service:<18} {:<18} {:<8} {:>14} {:>14}",
            count.reason, count.outcome, count.packets, count.observed
        )?;
    }
    Ok(())
}

fn observe(control: Control) -> Observe {
    let drops = || Reason::ALL.iter().filter(|reason| reason.is_observable());
    let reasons: Vec<_> = drops()
        .filter(|reason| control.observes((**reason).into()))
        .map(|reason| reason.name())
        .collect();
    if reasons.is_empty() {
        Observe::Nothing
    } else if reasons.len() == drops().count() {
        Observe::Everything
    } else {
        Observe::Reasons(reasons)
    }
}

fn limits(tables: &ShieldTables, id: u16) -> Vec<LimitReport> {
    let Some(service) = tables.service(id) else {
        return Vec::new();
    };
    let named = [
        (LimitKind::SourcePackets, "source_packets"),
        (LimitKind::SourceSyns, "source_syns"),
        (LimitKind::SourceBytes, "source_bytes"),
        (LimitKind::NetworkPackets, "network_packets"),
        (LimitKind::NetworkSyns, "network_syns"),
        (LimitKind::NetworkBytes, "network_bytes"),
        (LimitKind::SourceIcmp, "source_icmp"),
    ];
    named
        .into_iter()
        .filter_map(|(kind, limit)| {
            let found = service
                .active_limits()
                .iter()
                .find(|found| found.kind == kind as u8)?;
            let (per_second, burst) = gcra::rate(found, tables.params.hz);
            Some(LimitReport {
                limit,
                per_second,
                burst,
            })
        })
        .collect()
}
