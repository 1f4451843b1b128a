//! Rules of services against made-up sources: what the configuration says, as the program reads it, and their state.

use std::time::Duration;

use edge_common::{
    abi::{Control, CookieMode, CookieSettings, Limit, Service, SynRule, SynState, service::MAX_SERVICES},
    algo::gcra::{self, MIN_BURST_TICKS},
};
use serde::Serialize;

use super::{
    KernelError, ShieldTables,
    services::{ServicePlan, scale_one},
};
use crate::config::{Guard, Rate, Syn};

/// The rule of a service on a kernel with `hz` ticks a second; `None` if it is not guarded.
///
/// # Errors
/// A rate that cells cannot count.
pub(super) fn rule(service: &str, guard: Guard, hz: u32) -> Result<Option<SynRule>, KernelError> {
    match guard {
        Guard::None => Ok(None),
        Guard::NewSources(rate) => Ok(Some(SynRule {
            budget: scale_one(service, "new_sources", rate, hz, false)?,
            ..SynRule::default()
        })),
        Guard::Syn(syn) => Ok(Some(SynRule {
            budget: match syn.budget {
                Some(rate) => scale_one(service, "syn.budget", rate, hz, false)?,
                None => Limit::default(),
            },
            calm: syn.budget.map_or_else(Limit::default, |rate| calm(rate, hz)),
            hold_ticks: hold_ticks(&syn, hz),
            mode: syn.cookies as u8,
            scale: syn.window_scale.unwrap_or(SynRule::OWN_SCALE),
            reserved: u16::from(syn.cookies != CookieMode::Off) * ASKS,
        })),
    }
}

/// Half of the budget, with half of its burst if the clock allows one so small.
fn calm(budget: Rate, hz: u32) -> Limit {
    let per_second = (budget.per_second / 2).max(1);
    let least = per_second.div_ceil(u64::from(hz.max(1))) * MIN_BURST_TICKS;
    gcra::scale(per_second, (budget.burst / 2).max(least), hz, false).unwrap_or_default()
}

fn hold_ticks(syn: &Syn, hz: u32) -> u32 {
    let ticks = syn.hold.as_millis() * u128::from(hz) / 1_000;
    u32::try_from(ticks).unwrap_or(u32::MAX).max(1)
}

/// Bit of [`SynRule::reserved`], which the program never reads: cookies are asked for, whether there are any or not.
const ASKS: u16 = 1;

/// What `status` tells of a guarded service.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SynReport {
    /// New connections (over UDP: new sources) a second, if there is a budget.
    pub per_second: Option<f64>,
    /// How many at once.
    pub burst: Option<f64>,
    /// `off`, `auto` or `always`; absent over UDP.
    pub cookies: Option<&'static str>,
    /// Whether the configuration asks for cookies, whatever the kernel can.
    pub asks_cookies: bool,
    /// Whether SYNs are answered with cookies now.
    pub engaged: bool,
    /// How often that began, with `auto`.
    pub engagements: u64,
    /// For how many seconds it has been so.
    pub engaged_seconds: Option<f64>,
}

impl std::fmt::Display for SynReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = if self.cookies.is_some() {
            "new connections"
        } else {
            "new sources"
        };
        match (self.per_second, self.burst) {
            (Some(rate), Some(burst)) => write!(f, "{what} {rate:.0}/s, burst {burst:.0}")?,
            _ => write!(f, "{what} without a budget")?,
        }
        let Some(cookies) = self.cookies else {
            return Ok(());
        };
        write!(f, "; cookies {cookies}")?;
        if cookies == "auto" {
            write!(f, ", engaged {} times", self.engagements)?;
        }
        match (self.engaged, self.engaged_seconds) {
            (true, Some(seconds)) => write!(f, ", engaged now for {seconds:.0} s"),
            (true, None) => write!(f, ", engaged now"),
            (false, _) => Ok(()),
        }
    }
}

impl ShieldTables {
    /// Writes the rule of service `index` into copy `copy` of the table; without cookies unless they are `ready`.
    pub(super) fn write_syn_rule(&self, copy: u32, index: u16, rule: Option<SynRule>, ready: bool) {
        let mut rule = rule.unwrap_or_default();
        if !ready {
            rule.mode = CookieMode::Off as u8;
        }
        self.syn_rules.set(copy * MAX_SERVICES + u32::from(index), rule);
        // Never written yet: the program charges a cell to a time that is not zero.
        if self.syn_states.get(u32::from(index)) == Some(SynState::default()) {
            self.syn_states
                .set(u32::from(index), SynState::unused(self.clock.now()));
        }
    }

    /// Writes the rules in force anew, with cookies if they are `ready`.
    pub fn rewrite_syn_rules(&self, plan: &ServicePlan, ready: bool) {
        let copy = self.control().copy(Control::SERVICES);
        for (id, name) in self.service_names() {
            if let Some(rule) = plan.rule(&name) {
                self.write_syn_rule(copy, id, Some(rule), ready);
            }
        }
    }

    /// What answers with cookies say of this machine, and whether there are any.
    pub fn cookie_settings(&self) -> CookieSettings {
        self.cookies.get(0).unwrap_or_default()
    }

    /// The rule in force of the service with this identifier.
    pub fn syn_rule(&self, id: u16) -> Option<SynRule> {
        let copy = self.control().copy(Control::SERVICES);
        let service = self.service(id)?;
        if service.flags & Service::GUARDED == 0 {
            return None;
        }
        self.syn_rules.get(copy * MAX_SERVICES + u32::from(id))
    }

    /// What is to be told of the service with this identifier; `None` if it is not guarded.
    pub fn syn_report(&self, id: u16) -> Option<SynReport> {
        let rule = self.syn_rule(id)?;
        let state = self.syn_states.get(u32::from(id)).unwrap_or_default();
        let now = self.clock.now();
        let until = state.cells[SynState::UNTIL];
        let is_auto = rule.mode == CookieMode::Auto as u8;
        let is_ready = self.cookie_settings().has(CookieSettings::READY);
        let engaged_now = is_auto && until > now;
        let since = now.saturating_sub(state.cells[SynState::SINCE]);
        let budget = gcra::rate(&rule.budget, self.params.hz);
        let hz = f64::from(self.params.hz.max(1));
        let has_budget = rule.budget.capacity != 0;
        Some(SynReport {
            per_second: has_budget.then_some(budget.0),
            burst: has_budget.then_some(budget.1),
            cookies: (rule.hold_ticks != 0).then(|| mode_name(rule.mode)),
            asks_cookies: rule.reserved & ASKS != 0,
            engaged: is_ready && (engaged_now || rule.mode == CookieMode::Always as u8),
            engagements: state.cells[SynState::ENGAGEMENTS],
            engaged_seconds: engaged_now.then(|| since as f64 / hz),
        })
    }
}

const fn mode_name(mode: u8) -> &'static str {
    if mode == CookieMode::Always as u8 {
        "always"
    } else if mode == CookieMode::Auto as u8 {
        "auto"
    } else {
        "off"
    }
}

/// How often the daemon looks whether cookies were engaged or have ended: the latter happens with no packet to tell it.
pub const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Tells changes: which services are engaged, as of the last look.
#[derive(Debug, Default)]
pub struct Watch {
    engaged: Vec<u16>,
    engagements: std::collections::HashMap<u16, u64>,
}

/// Cookies began or ended for a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The budget was exceeded.
    Engaged {
        /// Name of the service.
        service: String,
        /// How often by now.
        engagements: u64,
    },
    /// It has been quiet for the hold time.
    Ended {
        /// Name of the service.
        service: String,
    },
}

impl Watch {
    /// What has changed since the last look. The first look tells who is engaged.
    pub fn look(&mut self, tables: &ShieldTables) -> Vec<Change> {
        let mut changes = Vec::new();
        for (id, service) in tables.service_names() {
            let Some(report) = tables.syn_report(id) else {
                continue;
            };
            if report.cookies != Some("auto") {
                continue;
            }
            let was = self.engaged.contains(&id);
            // Engaged and ended, or the other way round, between two looks: both are told.
            let missed = self.engagements.insert(id, report.engagements) != Some(report.engagements);
            if was && (!report.engaged || missed) {
                self.engaged.retain(|known| *known != id);
                changes.push(Change::Ended {
                    service: service.clone(),
                });
            }
            if report.engaged && (!was || missed) {
                self.engaged.push(id);
                changes.push(Change::Engaged {
                    service,
                    engagements: report.engagements,
                });
            }
        }
        changes
    }
}
