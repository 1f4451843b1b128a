//! What a reload changes for the loop, and how another process takes its place.

use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::oneshot;

use super::{Enforcer, told};
use crate::{
    config::{Config, Escalation, Offences},
    kernel::services::ServicePlan,
    offence::escalation::Escalator,
};

/// What the loop is told while it runs.
pub(in crate::lifecycle) enum Told {
    /// Other settings are in force.
    Renewed(Box<Renewal>),
    /// Another process looks after the tables from now on.
    Retired(oneshot::Sender<()>),
}

/// Other settings.
#[derive(Debug)]
pub(in crate::lifecycle) struct Renewal {
    pub(in crate::lifecycle) settings: Offences,
    /// Clients that are never banned, beside those of the settings.
    pub(in crate::lifecycle) never: Vec<IpNet>,
    pub(in crate::lifecycle) escalation: Option<Escalation>,
    /// How long idle sources keep exact state.
    pub(in crate::lifecycle) earned_idle: Duration,
    /// The services that are in force now, if there is a shield.
    pub(in crate::lifecycle) shield: Option<ServicePlan>,
}

impl Renewal {
    /// What `config` says.
    pub(in crate::lifecycle) fn of(config: &Config, shield: Option<ServicePlan>) -> Self {
        // Whom a listener trusts speaks for others, and whom the shield lets through is meant to get through.
        let trusted = config.listeners.iter().flat_map(|listener| {
            let spoken_for = listener.proxy_protocol.iter();
            spoken_for.chain(&listener.trusted_proxies).copied()
        });
        Self {
            settings: config.offences.clone(),
            never: trusted.chain(config.shield.allow.iter().copied()).collect(),
            escalation: config.shield.escalation,
            earned_idle: config.shield.earned_idle,
            shield,
        }
    }
}

impl Enforcer {
    /// Takes other settings; scores, bans and streaks stay.
    pub(super) fn renew(&mut self, renewal: Renewal) {
        let Renewal {
            settings,
            never,
            escalation,
            earned_idle,
            shield,
        } = renewal;
        self.earning.configure(earned_idle);
        self.scores.configure(settings.clone());
        self.exempt = settings.exempt.iter().copied().chain(never).collect();
        self.shared = settings.shared.iter().copied().collect();
        self.ceiling.configure(settings.max_bans_per_minute.get());
        self.escalator = match (self.escalator.take(), escalation) {
            (Some(mut escalator), Some(escalation)) => {
                escalator.configure(escalation);
                Some(escalator)
            }
            (None, Some(escalation)) => Some(Escalator::new(escalation)),
            (_, None) => None,
        };
        self.settings = settings;
        if let (Some(own), Some(plan)) = (&mut self.shield, shield) {
            own.plan = plan;
            // Addresses may have come and gone under the plan before, while this one was put in force.
            let local = own.local.clone();
            if let Err(error) = own.tables.refresh_addresses(&own.plan, &local) {
                told(&error);
            }
        }
    }
}
