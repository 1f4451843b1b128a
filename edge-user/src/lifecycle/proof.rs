//! SYN cookies as the operator meets them: what they need is checked at the start, and what they do is told.

use std::time::Duration;

use edge_common::abi::{CookieMode, CookieSettings};

use crate::{
    admin::Events,
    config::{Guard, Service, Shield},
    kernel::{
        KernelError, ShieldTables,
        services::ServicePlan,
        syn::{Change, Watch},
        sysctl,
    },
};

/// How often the kernel's settings are read again.
const REREAD: Duration = Duration::from_secs(10);

/// Puts in force what answers are to say; sets the kernel's settings first, if that is asked for. Before the rules: without
/// a way to answer they are budgets alone.
pub(super) fn prepare(
    shield: &Shield,
    services: &[Service],
    tables: &ShieldTables,
    has_programs: bool,
) -> Result<(), KernelError> {
    let wants = services.iter().any(|service| match service.guard {
        Guard::Syn(syn) => syn.cookies != CookieMode::Off,
        Guard::None | Guard::NewSources(_) => false,
    });
    if wants && shield.set_sysctls {
        for set in tables.set_sysctls()? {
            tracing::info!(
                setting = set.setting,
                was = set.is,
                is = set.wanted,
                "set for SYN cookies"
            );
        }
    }
    if wants {
        if !has_programs {
            tracing::warn!("this kernel has no helpers for SYN cookies: budgets drop what is over them");
        }
        for missing in sysctl::missing() {
            tracing::warn!(
                help = "`--set-sysctls` or `shield.set_sysctls = true` sets it until `breakwater detach`",
                "{missing}"
            );
        }
    }
    tables.write_cookie_settings(sysctl::cookie_settings(has_programs, &tables.params));
    Ok(())
}

/// Tells when cookies begin and end, and follows the kernel's settings.
pub(super) struct ProofWatch {
    watch: Watch,
    has_programs: bool,
    reread: std::time::Instant,
}

impl ProofWatch {
    pub(super) fn new(has_programs: bool) -> Self {
        Self {
            watch: Watch::default(),
            has_programs,
            reread: std::time::Instant::now(),
        }
    }

    /// One look.
    pub(super) fn look(&mut self, tables: &ShieldTables, plan: &ServicePlan, events: &Events) {
        for change in self.watch.look(tables) {
            match change {
                Change::Engaged { service, engagements } => {
                    tracing::warn!(
                        service,
                        engagements,
                        "over its budget of new connections: SYNs are answered with cookies"
                    );
                    events.add("cookies", "begun", service);
                }
                Change::Ended { service } => {
                    tracing::info!(service, "quiet again: SYNs go to the stack");
                    events.add("cookies", "done", service);
                }
            }
        }
        if self.reread.elapsed() < REREAD {
            return;
        }
        self.reread = std::time::Instant::now();
        let (now, before) = (
            sysctl::cookie_settings(self.has_programs, &tables.params),
            tables.cookie_settings(),
        );
        if now == before {
            return;
        }
        tracing::warn!("the kernel's TCP settings have changed: SYN cookies follow");
        for missing in sysctl::missing() {
            tracing::warn!("{missing}");
        }
        // Rules that ask for cookies must not outlive the programs' readiness, nor precede it.
        if before.has(CookieSettings::READY) && !now.has(CookieSettings::READY) {
            tables.rewrite_syn_rules(plan, false);
        }
        tables.write_cookie_settings(now);
        tables.rewrite_syn_rules(plan, now.has(CookieSettings::READY));
    }
}
