//! The gateway: rate, errors and duration of requests by route and upstream, its own time, its connections.

use super::{
    GatewayFacts, family as f,
    out::{Out, Rows, Values},
};
use crate::gateway::{
    CountersSnapshot,
    durations::{BOUNDS_NS, DurationsSnapshot},
    tax::{HistogramSnapshot, Phase, lower_bound_ns},
};

/// States of endpoints, in the order of [`GatewayFacts::endpoints`].
pub(crate) const STATES: [&str; 4] = ["unchecked", "up", "down", "ejected"];

/// Classes of statuses.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Bounds of the tax histograms in nanoseconds: each is a bound of the buckets that were counted in (1 µs to 17 ms).
const TAX_BOUNDS_NS: [u64; 15] = {
    let mut bounds = [0; 15];
    let mut index = 0;
    while index < bounds.len() {
        bounds[index] = 1024 << index;
        index += 1;
    }
    bounds
};

pub(super) fn encode(gateway: Option<&GatewayFacts>, out: &mut Out<'_>) -> std::fmt::Result {
    let none = GatewayFacts {
        counters: CountersSnapshot::default(),
        limits: Vec::new(),
        closings: Vec::new(),
        connections: (0, 0),
        busy: Vec::new(),
        endpoints: Vec::new(),
        access_lines_lost: 0,
    };
    let gateway = gateway.unwrap_or(&none);
    connections(gateway, out)?;
    routes(gateway, out)?;
    upstreams(gateway, out)?;
    out.counter(f::ACCESS_LOST, gateway.access_lines_lost)
}

fn connections(gateway: &GatewayFacts, out: &mut Out<'_>) -> std::fmt::Result {
    out.gauge(f::CONNECTIONS, gateway.connections.0 as f64)?;
    out.gauge(f::CONNECTIONS_MAX, gateway.connections.1 as f64)?;
    let closings = gateway.closings.iter();
    out.counters(
        f::CLOSED,
        closings.map(|(closing, count)| ([closing.slug()], *count)),
    )?;
    out.gauge(f::WORKERS, gateway.busy.len() as f64)?;
    out.family(f::BUSY, |rows| {
        let mut workers = gateway.busy.iter().enumerate();
        workers.try_for_each(|(worker, busy)| rows.seconds(&[&worker.to_string()], *busy))
    })
}

fn routes(gateway: &GatewayFacts, out: &mut Out<'_>) -> std::fmt::Result {
    let routes = &gateway.counters.routes;
    out.family(f::REQUESTS, |rows| {
        for route in routes {
            by_class(rows, &route.name, &route.statuses)?;
            rows.counter(&[&route.name, "none"], route.unanswered)?;
        }
        Ok(())
    })?;
    out.family(f::DURATION, |rows| {
        let mut asked = routes.iter().filter(|route| route.durations.count() > 0);
        asked.try_for_each(|route| durations(rows, &[&route.name], &route.durations))
    })?;
    let by_route = |count: fn(&crate::gateway::counters::RouteSnapshot) -> u64| {
        routes
            .iter()
            .map(move |route| ([route.name.as_str()], count(route)))
    };
    out.counters(f::RECEIVED, by_route(|route| route.received))?;
    out.counters(f::SENT, by_route(|route| route.sent))?;
    out.family(f::TAX, |rows| {
        for route in routes {
            tax(rows, &[&route.name], route.tax.phase(Phase::Total))?;
        }
        Ok(())
    })?;
    out.family(f::TAX_PHASE, |rows| {
        for route in routes {
            for phase in [Phase::Decide, Phase::Send, Phase::Answer] {
                tax(rows, &[&route.name, phase.name()], route.tax.phase(phase))?;
            }
        }
        Ok(())
    })?;
    let counters = &gateway.counters;
    let refusals = counters.refusals.iter();
    out.counters(
        f::REFUSALS,
        refusals.map(|(reason, count)| ([reason.slug()], *count)),
    )?;
    out.counter(f::RETRIES, counters.retries)?;
    out.counters(
        f::MIRRORED,
        [(["sent"], counters.mirrored), (["dropped"], counters.unmirrored)],
    )?;
    let limits = &gateway.limits;
    out.counters(
        f::LIMIT_REFUSED,
        limits.iter().map(|limit| ([limit.name.as_str()], limit.refused)),
    )?;
    out.counters(
        f::LIMIT_OBSERVED,
        limits.iter().map(|limit| ([limit.name.as_str()], limit.observed)),
    )
}

fn upstreams(gateway: &GatewayFacts, out: &mut Out<'_>) -> std::fmt::Result {
    let upstreams = &gateway.counters.upstreams;
    out.family(f::UPSTREAM_REQUESTS, |rows| {
        let mut upstreams = upstreams.iter();
        upstreams.try_for_each(|upstream| by_class(rows, &upstream.name, &upstream.statuses))
    })?;
    out.family(f::UPSTREAM_FAILURES, |rows| {
        for upstream in upstreams {
            for (reason, count) in &upstream.failures {
                rows.counter(&[&upstream.name, reason.slug()], *count)?;
            }
        }
        Ok(())
    })?;
    out.family(f::UPSTREAM_DURATION, |rows| {
        let mut asked = upstreams.iter().filter(|upstream| upstream.durations.count() > 0);
        asked.try_for_each(|upstream| durations(rows, &[&upstream.name], &upstream.durations))
    })?;
    out.family(f::ENDPOINTS, |rows| {
        for (name, counts) in &gateway.endpoints {
            for (state, count) in STATES.iter().zip(counts) {
                rows.gauge(&[name, state], *count as f64)?;
            }
        }
        Ok(())
    })?;
    out.counter(f::UPSTREAM_CONNECTS, gateway.counters.upstream_connects)?;
    out.counter(f::UPSTREAM_REUSES, gateway.counters.upstream_reuses)
}

fn by_class(rows: &mut Rows<'_>, name: &str, statuses: &[u64; 5]) -> std::fmt::Result {
    let mut counts = CLASSES.iter().zip(statuses);
    counts.try_for_each(|(class, count)| rows.counter(&[name, class], *count))
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn durations(rows: &mut Rows<'_>, values: Values<'_>, durations: &DurationsSnapshot) -> std::fmt::Result {
    let bounds = BOUNDS_NS.iter().map(|bound| seconds(*bound));
    let buckets: Vec<_> = bounds.chain([f64::INFINITY]).zip(durations.counts).collect();
    rows.histogram(values, seconds(durations.sum_ns), &buckets)
}

/// Fine buckets in coarse ones. A route that was never asked for has no row.
fn tax(rows: &mut Rows<'_>, values: Values<'_>, histogram: &HistogramSnapshot) -> std::fmt::Result {
    if histogram.count == 0 {
        return Ok(());
    }
    let bounds = TAX_BOUNDS_NS.iter().map(|bound| seconds(*bound));
    let mut buckets: Vec<_> = bounds.chain([f64::INFINITY]).map(|bound| (bound, 0)).collect();
    for (fine, count) in &histogram.buckets {
        // A fine bucket ends where it ends: at most at the coarse bound it is counted under.
        let end = lower_bound_ns(fine + 1);
        let coarse = TAX_BOUNDS_NS.partition_point(|bound| *bound < end);
        if let Some((_, sum)) = buckets.get_mut(coarse) {
            *sum += count;
        }
    }
    rows.histogram(values, seconds(histogram.sum_ns), &buckets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tax::BUCKETS;

    #[test]
    fn coarse_bounds_are_bounds_of_fine_buckets() {
        let fine: Vec<u64> = (0..=BUCKETS).map(lower_bound_ns).collect();
        assert!(TAX_BOUNDS_NS.iter().all(|bound| fine.contains(bound)));
    }
}
