//! Metrics: what is known at one moment, as text that Prometheus reads.
//!
//! Everything is counted elsewhere, each core for itself; here it is gathered and summed when somebody reads, so that a
//! request pays nothing for being watched. Labels are names from the configuration and fixed words, never an address, a
//! user or anything else that a client can choose: the size of the answer is bounded by the configuration.

use prometheus_client::{collector::Collector, encoding, registry::Registry};

#[cfg(test)]
mod deployed;
mod family;
mod gateway;
mod out;
mod process;
mod shield;
#[cfg(test)]
mod tests;
mod tokens;

pub use family::{ALL, Base, Family, Kind};
pub(crate) use gateway::STATES;
pub use process::ProcessFacts;
pub(crate) use process::since_epoch;
pub use shield::{InterfaceFacts, MapFacts, ShieldFacts};

use crate::{
    auth::AuthStatus,
    gateway::{Closing, CountersSnapshot, LimitSnapshot},
    history,
    offence::OffenceKind,
};
use out::Out;

/// Which of the two text formats is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own, 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What a reader with this `Accept` field wants.
    pub fn of(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// The answer's media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => encoding::prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Everything that is told, at one moment. What there is not (no gateway, no shield) has no rows.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The process.
    pub process: ProcessFacts,
    /// What became of reloads, upgrades and the API's own callers.
    pub upkeep: Upkeep,
    /// The gateway.
    pub gateway: Option<GatewayFacts>,
    /// Tokens.
    pub auth: Option<AuthStatus>,
    /// Offences.
    pub offences: OffenceFacts,
    /// The kernel's side.
    pub shield: Option<ShieldFacts>,
    /// What is remembered.
    pub history: Option<history::State>,
}

/// What was done to the process, and how often.
#[derive(Debug, Clone, Default)]
pub struct Upkeep {
    /// Whether it is ready to serve.
    pub is_ready: bool,
    /// Reloads that were put in force.
    pub reloads_ok: u64,
    /// Reloads that changed nothing because something was wrong.
    pub reloads_failed: u64,
    /// Whether the last one was of those.
    pub last_reload_failed: bool,
    /// When the configuration in force was put in force, seconds since the epoch.
    pub configured_at: f64,
    /// Upgrades that went through, and those that did not.
    pub upgrades: (u64, u64),
    /// Answers of the admin listeners by class of status, from 2xx to 5xx.
    pub admin_answers: [u64; 4],
    /// Callers that were not let in, by reason.
    pub admin_refused: Vec<(&'static str, u64)>,
    /// Spans of traces that were exported, and that were lost.
    pub spans: (u64, u64),
}

/// The gateway at one moment.
#[derive(Debug, Clone)]
pub struct GatewayFacts {
    /// What requests came to.
    pub counters: CountersSnapshot,
    /// Limits.
    pub limits: Vec<LimitSnapshot>,
    /// Connections closed by reason.
    pub closings: Vec<(Closing, u64)>,
    /// Connections open, and that may be.
    pub connections: (usize, usize),
    /// Seconds that each worker was busy.
    pub busy: Vec<f64>,
    /// Endpoints by upstream: its name, and how many are in each state of [`gateway::STATES`].
    pub endpoints: Vec<(String, [usize; 4])>,
    /// Lines of the access log that were lost.
    pub access_lines_lost: u64,
}

/// Offences and sentences at one moment.
#[derive(Debug, Clone, Default)]
pub struct OffenceFacts {
    /// Reported, by kind.
    pub reported: Vec<(OffenceKind, u64)>,
    /// That found the queue full.
    pub lost: u64,
    /// Sentences by what they came to.
    pub sentences: Vec<(&'static str, u64)>,
}

impl Facts {
    /// Writes them down.
    pub fn encode(self, format: Format) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = match format {
            Format::Prometheus => encoding::prometheus_text::encode(&mut text, &registry),
            Format::OpenMetrics => encoding::text::encode(&mut text, &registry),
        };
        text
    }
}

impl Collector for Facts {
    fn encode(&self, encoder: encoding::DescriptorEncoder) -> std::fmt::Result {
        let mut out = Out::new(encoder);
        process::encode(&self.process, &self.upkeep, &mut out)?;
        process::encode_history(self.history.as_ref(), &mut out)?;
        gateway::encode(self.gateway.as_ref(), &mut out)?;
        tokens::encode(self.auth.as_ref(), self.gateway.as_ref(), &mut out)?;
        shield::encode_offences(&self.offences, &mut out)?;
        shield::encode(self.shield.as_ref(), &mut out)
    }
}
