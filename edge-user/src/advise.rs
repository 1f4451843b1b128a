//! Which addresses could be steered past the gateway, and what of its own time that would save.
//!
//! [`advise`] is a pure function of a configuration and of measured figures. A service of `kind = "direct"` takes a whole
//! address and port, so what can go is a listener's address, or hosts that get an address of their own; never a path.
//! A saving is what the history has measured. Where it has nothing there is no number, and what steering costs is not told.

mod figures;
mod needs;
mod snippet;
mod text;
mod units;

use serde::{Deserialize, Serialize};

use crate::config::{AuthPolicy, Config};
pub use figures::{Figures, Measured, Period, USUAL, last, measure};
pub use needs::Reason;
pub use text::render;

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The address can be steered as it is.
    Direct,
    /// It could, if the hosts had an address of their own.
    OwnAddress,
    /// It must stay with the gateway.
    Stays,
}

/// What the advice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The addresses of listeners.
    Listener,
    /// Hosts.
    Host,
}

/// A route of an [`Advice`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteAdvice {
    /// Its name.
    pub name: String,
    /// What of it only the gateway can do.
    pub needs: Vec<Reason>,
    /// What it cost, if that was measured.
    pub measured: Option<Measured>,
}

/// One thing that could be steered, or not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Advice {
    /// What [`Self::names`] are.
    pub kind: Kind,
    /// Listeners or hosts.
    pub names: Vec<String>,
    /// What can be done.
    pub verdict: Verdict,
    /// Why it must stay; empty if it need not.
    pub reasons: Vec<Reason>,
    /// What has to be done first; empty if it must stay.
    pub first: Vec<String>,
    /// The routes in question.
    pub routes: Vec<RouteAdvice>,
    /// Requests of those that were measured.
    pub requests: Option<u64>,
    /// The gateway's own time that they took, seconds.
    pub seconds: Option<f64>,
    /// As much a day, at the measured rate.
    pub seconds_a_day: Option<f64>,
    /// Other listeners serve the routes too, and the history does not tell them apart.
    pub at_most: bool,
    /// What could be added to the configuration; none if it must stay, or there is no room.
    pub snippet: Option<String>,
}

/// The answer to `breakwater advise`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// When it was measured.
    pub period: Option<Period>,
    /// Why nothing was measured.
    pub unmeasured: Option<String>,
    /// The largest saving first, then what must stay.
    pub advice: Vec<Advice>,
}

/// Advises.
pub fn report(config: &Config, figures: Figures) -> Report {
    Report {
        advice: advise(config, &figures),
        period: figures.period,
        unmeasured: figures.unmeasured,
    }
}

/// What could be steered, the largest saving first, and then what must stay, the most expensive first.
pub fn advise(config: &Config, figures: &Figures) -> Vec<Advice> {
    let mut advice: Vec<(units::Unit<'_>, Advice)> = units::units(config)
        .into_iter()
        .map(|unit| {
            let routes = unit.routes.iter().filter_map(|index| {
                let name = &config.routes.get(*index)?.name;
                Some(RouteAdvice {
                    name: name.clone(),
                    needs: needs::of_route(config, *index),
                    measured: figures.routes.get(name).cloned(),
                })
            });
            let mut routes: Vec<RouteAdvice> = routes.collect();
            let cost = |route: &RouteAdvice| route.measured.as_ref().map_or(-1.0, |found| found.seconds);
            routes.sort_by(|one, other| cost(other).total_cmp(&cost(one)));
            let measured = || routes.iter().filter_map(|route| route.measured.as_ref());
            let is_measured = measured().next().is_some();
            let requests = measured().map(|found| found.requests);
            let requests = is_measured.then(|| requests.fold(0, u64::saturating_add));
            let seconds: Option<f64> = is_measured.then(|| measured().map(|found| found.seconds).sum());
            let advice = Advice {
                kind: unit.kind,
                names: unit.names.clone(),
                verdict: unit.verdict,
                reasons: unit.reasons.clone(),
                first: Vec::new(),
                routes,
                requests,
                seconds,
                seconds_a_day: seconds
                    .zip(figures.period)
                    .map(|(seconds, period)| period.a_day(seconds)),
                at_most: unit.at_most,
                snippet: None,
            };
            (unit, advice)
        })
        .collect();
    let rank = |one: &Advice| (one.verdict != Verdict::Stays, one.seconds.unwrap_or(-1.0));
    advice.sort_by(|(_, one), (_, other)| {
        let ((goes, saves), (other_goes, other_saves)) = (rank(one), rank(other));
        other_goes.cmp(&goes).then(other_saves.total_cmp(&saves))
    });
    // In this order, as there is not room for any number.
    let mut places = snippet::Places::of(config);
    let written = advice.into_iter().map(|(unit, mut advice)| {
        if let Some(upstream) = unit.upstream(config)
            && unit.verdict != Verdict::Stays
        {
            (advice.first, advice.snippet) = snippet::write(config, &unit, upstream, &mut places);
        }
        advice
    });
    written.collect()
}

/// The first route that asks for a token.
fn guarded(config: &Config) -> Option<&str> {
    let asks = |route: &&crate::config::Route| !matches!(route.auth, AuthPolicy::None);
    config.routes.iter().find(asks).map(|route| route.name.as_str())
}

#[cfg(test)]
mod tests;
