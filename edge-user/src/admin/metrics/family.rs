//! The one table of metrics: name, kind, labels, help. Nothing is told that is not in it, and the documentation is
//! generated from it.

use prometheus_client::{metrics::MetricType, registry::Unit};

/// What a family counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// Things.
    None,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

impl Base {
    /// As the encoder wants it.
    pub(super) fn unit(self) -> Option<Unit> {
        match self {
            Self::None => None,
            Self::Seconds => Some(Unit::Seconds),
            Self::Bytes => Some(Unit::Bytes),
        }
    }
}

/// What a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts in buckets.
    Histogram,
}

impl Kind {
    /// As the encoder wants it.
    pub(super) fn metric_type(self) -> MetricType {
        match self {
            Self::Counter => MetricType::Counter,
            Self::Gauge => MetricType::Gauge,
            Self::Histogram => MetricType::Histogram,
        }
    }

    /// Its name in the exposition.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric.
#[derive(Debug)]
pub struct Family {
    /// Without the suffixes that follow from kind and base.
    pub(super) stem: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it counts in.
    pub base: Base,
    /// Names of its labels, in their order.
    pub labels: &'static [&'static str],
    /// What it tells, in one sentence without its full stop.
    pub help: &'static str,
}

impl Family {
    /// The whole name, as queries write it.
    pub fn name(&self) -> String {
        let unit = self
            .base
            .unit()
            .map_or_else(String::new, |unit| format!("_{}", unit.as_str()));
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{}{unit}{total}", self.stem)
    }
}

macro_rules! families {
    ($($id:ident: $kind:ident $base:ident $stem:literal [$($label:literal),*] $help:literal;)+) => {
        $(
            #[doc = $help]
            pub(super) const $id: &Family = &Family {
                stem: $stem,
                kind: Kind::$kind,
                base: Base::$base,
                labels: &[$($label),*],
                help: $help,
            };
        )+

        /// Every metric, in the order of the exposition.
        pub const ALL: &[&Family] = &[$($id),+];
    };
}

families! {
    BUILD_INFO: Gauge None "breakwater_build_info" ["version", "format"]
        "Always 1; the version, and the version of what is pinned in the kernel, are its labels";
    START_TIME: Gauge Seconds "process_start_time" []
        "When the process began, since the epoch";
    CPU: Counter Seconds "process_cpu" []
        "Processor time of the process, user and system";
    MEMORY: Gauge Bytes "process_resident_memory" []
        "Memory of the process that is in RAM";
    OPEN_FDS: Gauge None "process_open_fds" []
        "File descriptors in use";
    MAX_FDS: Gauge None "process_max_fds" []
        "File descriptors that may be in use";
    READY: Gauge None "breakwater_ready" []
        "Whether /readyz says yes";
    RELOADS: Counter None "breakwater_reloads" ["result"]
        "Reloads of the configuration, by what they came to: ok, failed";
    RELOADED: Gauge Seconds "breakwater_config_last_success_timestamp" []
        "When the configuration in force was put in force, since the epoch";
    RELOAD_OK: Gauge None "breakwater_config_last_reload_successful" []
        "Whether the last reload succeeded; 1 if there was none";
    UPGRADES: Counter None "breakwater_upgrades" ["result"]
        "Upgrades, by what they came to: ok (that led to this process), failed (that it began)";
    ADMIN_REQUESTS: Counter None "breakwater_admin_requests" ["code"]
        "Requests to the admin listeners, by class of the answer's status";
    ADMIN_REFUSED: Counter None "breakwater_admin_refused" ["reason"]
        "Callers that the admin listeners did not let in: peer, token, tls, crowded";

    CONNECTIONS: Gauge None "breakwater_connections" []
        "Client connections open";
    CONNECTIONS_MAX: Gauge None "breakwater_connections_max" []
        "Client connections that may be open";
    CLOSED: Counter None "breakwater_connections_closed" ["reason"]
        "Connections that were closed before, or beside, any request";
    WORKERS: Gauge None "breakwater_workers" []
        "Workers of the gateway";
    BUSY: Counter Seconds "breakwater_worker_busy" ["worker"]
        "Time that a worker was busy; its rate is the share of a core that is used";

    REQUESTS: Counter None "breakwater_requests" ["route", "code"]
        "Requests of a route, by class of the answer's status; none if the client left without one";
    DURATION: Histogram Seconds "breakwater_request_duration" ["route"]
        "From the request's head to the last byte of its answer";
    RECEIVED: Counter Bytes "breakwater_request_body" ["route"]
        "Bodies of requests";
    SENT: Counter Bytes "breakwater_response_body" ["route"]
        "Bodies of answers";
    TAX: Histogram Seconds "breakwater_gateway_tax" ["route"]
        "The gateway's own time of a request: everything but waiting for client and upstream";
    TAX_PHASE: Histogram Seconds "breakwater_gateway_tax_phase" ["route", "phase"]
        "The gateway's own time of a request by phase: decide, send, answer";
    REFUSALS: Counter None "breakwater_refusals" ["reason"]
        "Requests that were refused or failed, of all routes and of none";
    RETRIES: Counter None "breakwater_retries" []
        "Requests sent to an upstream a second time";
    MIRRORED: Counter None "breakwater_mirrored_requests" ["result"]
        "Copies of requests that were due: sent, dropped";
    LIMIT_REFUSED: Counter None "breakwater_limit_refused" ["limit"]
        "Requests refused by a limit";
    LIMIT_OBSERVED: Counter None "breakwater_limit_observed" ["limit"]
        "Requests over a limit that is only observed";

    UPSTREAM_REQUESTS: Counter None "breakwater_upstream_requests" ["upstream", "code"]
        "Requests that an upstream answered, by class of the status";
    UPSTREAM_FAILURES: Counter None "breakwater_upstream_failures" ["upstream", "reason"]
        "Requests that came to nothing at an upstream";
    UPSTREAM_DURATION: Histogram Seconds "breakwater_upstream_duration" ["upstream"]
        "From the decision to the upstream's response head, connecting and retries included";
    ENDPOINTS: Gauge None "breakwater_upstream_endpoints" ["upstream", "state"]
        "Endpoints of an upstream: unchecked, up, down, ejected";
    UPSTREAM_CONNECTS: Counter None "breakwater_upstream_connects" []
        "Connections made to upstreams";
    UPSTREAM_REUSES: Counter None "breakwater_upstream_reuses" []
        "Times that an upstream connection was used again";

    VERIFIED: Counter None "breakwater_authenticated_requests" ["route"]
        "Requests with a verified token";
    UNVERIFIED: Counter None "breakwater_authentication_failures" ["reason"]
        "Requests refused for their token, or for want of one";
    CACHE_HITS: Counter None "breakwater_token_cache_hits" []
        "Tokens that were known already";
    CACHE_MISSES: Counter None "breakwater_token_cache_misses" []
        "Tokens that had to be verified, good and bad";
    CACHE_EVICTIONS: Counter None "breakwater_token_cache_evictions" []
        "Tokens put out of the cache for others";
    CACHE_ENTRIES: Gauge None "breakwater_token_cache_entries" []
        "Tokens in the cache";
    CACHE_BYTES: Gauge Bytes "breakwater_token_cache" []
        "Memory of the cache of tokens, estimated";
    REVOCATIONS: Gauge None "breakwater_revocations" ["source"]
        "Revocations in force: file, runtime";
    KEYS: Gauge None "breakwater_provider_keys" ["provider"]
        "Keys that a provider's tokens are checked with";
    KEYS_AGE: Gauge Seconds "breakwater_provider_keys_age" ["provider"]
        "Time since a provider's keys were last obtained";
    KEYS_STATE: Gauge None "breakwater_provider_state" ["provider", "state"]
        "1 for the state that a provider's keys are in: fresh, stale, missing";
    FETCHES: Counter None "breakwater_provider_fetches" ["provider"]
        "Fetches of a provider's keys";
    FETCH_FAILURES: Counter None "breakwater_provider_failures" ["provider"]
        "Times that a provider's keys could not be obtained";

    OFFENCES: Counter None "breakwater_offences" ["kind"]
        "Offences of clients, whether they weigh anything or not";
    OFFENCES_LOST: Counter None "breakwater_offences_lost" []
        "Offences that found the queue full";
    SENTENCES: Counter None "breakwater_sentences" ["outcome"]
        "Clients whose offences crossed the threshold, by what became of it";
    BANS: Gauge None "breakwater_bans" ["source"]
        "Bans in force in the kernel, by who asked for them";
    BANS_MERGED: Counter None "breakwater_bans_merged" []
        "Bans that were merged to wider networks because the table was full";
    BANS_REFUSED: Counter None "breakwater_bans_refused" []
        "Bans that the full table could not take";
    EARNED_REFUSED: Counter None "breakwater_earned_refused" []
        "Sources that have proved themselves and found no room in the table of exact state";
    ENGAGED: Gauge None "breakwater_syn_cookies_engaged" ["service"]
        "Whether SYNs to a guarded service are answered with cookies now";
    ENGAGEMENTS: Counter None "breakwater_syn_cookie_engagements" ["service"]
        "How often a service went over its budget of new connections, so that cookies began";
    ACCESS_LOST: Counter None "breakwater_access_log_lines_lost" []
        "Lines of the access log that could not be written";
    SPANS: Counter None "breakwater_trace_spans" ["result"]
        "Sampled requests whose spans were sent to the collector: exported, lost";
    HISTORY_OK: Gauge None "breakwater_history_writing" []
        "1 while the history of routes is written, 0 if that fails or none is configured";
    HISTORY_CELLS: Counter None "breakwater_history_cells" ["result"]
        "Cells of time that went into the history of routes, and that were lost";
    HISTORY_BYTES: Gauge Bytes "breakwater_history_size" []
        "Size of the history's file without its log";

    ATTACHED: Gauge None "breakwater_shield_attached" ["interface", "mode"]
        "Whether the shield is on an interface, and how";
    PACKETS: Counter None "breakwater_shield_packets" ["service", "outcome", "reason"]
        "Packets by service and reason; those that no service judged have the service -";
    PACKET_BYTES: Counter Bytes "breakwater_shield" ["service", "outcome", "reason"]
        "Bytes of these packets";
    OBSERVED: Counter None "breakwater_shield_observed_packets" ["service", "reason"]
        "Packets that would have been dropped, and were only observed";
    MAP_ENTRIES: Gauge None "breakwater_map_entries" ["map"]
        "Entries of a table in the kernel";
    MAP_CAPACITY: Gauge None "breakwater_map_capacity" ["map"]
        "Entries that a table in the kernel can take";
    SAMPLES_LOST: Counter None "breakwater_shield_samples_lost" ["reason"]
        "Samples of dropped packets that were lost: over_budget, buffer_full";
}
