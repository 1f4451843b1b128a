//! The process: what it is, what it uses, what was done to it.

use std::{fs, time::SystemTime};

use super::{Upkeep, family as f, out::Out};
use crate::history;

/// The process at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessFacts {
    /// When it began, seconds since the epoch.
    pub started: f64,
    /// Processor time in seconds.
    pub cpu_seconds: f64,
    /// Bytes in RAM.
    pub resident: u64,
    /// Descriptors in use.
    pub open_fds: u64,
    /// Descriptors that may be.
    pub max_fds: u64,
}

impl ProcessFacts {
    /// Reads them; what /proc does not tell is 0.
    pub fn read(started: SystemTime) -> Self {
        let usage = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The name may have blanks: fields are counted from its closing bracket (proc_pid_stat(5)).
        let after = usage.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields: Vec<u64> = after
            .split_ascii_whitespace()
            .map(|field| field.parse().unwrap_or(0))
            .collect();
        let field = |index: usize| fields.get(index).copied().unwrap_or(0);
        let per_second = rustix::param::clock_ticks_per_second().max(1) as f64;
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        Self {
            started: since_epoch(started),
            cpu_seconds: (field(11) + field(12)) as f64 / per_second,
            resident: field(21) * rustix::param::page_size() as u64,
            // The directory itself is open while it is counted.
            open_fds: fs::read_dir("/proc/self/fd").map_or(0, |fds| (fds.count() as u64).saturating_sub(1)),
            max_fds: limit.current.unwrap_or(u64::MAX),
        }
    }
}

/// Seconds since the epoch.
pub(crate) fn since_epoch(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

/// What is remembered of routes; nothing if there is no history.
pub(super) fn encode_history(history: Option<&history::State>, out: &mut Out<'_>) -> std::fmt::Result {
    let history = history.cloned().unwrap_or_default();
    out.gauge(f::HISTORY_OK, f64::from(history.is_writing))?;
    let cells = [(["written"], history.written), (["lost"], history.lost)];
    out.counters(f::HISTORY_CELLS, cells)?;
    out.gauge(f::HISTORY_BYTES, history.bytes as f64)
}

pub(super) fn encode(process: &ProcessFacts, upkeep: &Upkeep, out: &mut Out<'_>) -> std::fmt::Result {
    let format = edge_common::abi::VERSION.to_string();
    out.gauges(
        f::BUILD_INFO,
        [([env!("CARGO_PKG_VERSION"), format.as_str()], 1.0)],
    )?;
    out.gauge(f::START_TIME, process.started)?;
    out.family(f::CPU, |rows| rows.seconds(&[], process.cpu_seconds))?;
    out.gauge(f::MEMORY, process.resident as f64)?;
    out.gauge(f::OPEN_FDS, process.open_fds as f64)?;
    out.gauge(f::MAX_FDS, process.max_fds as f64)?;
    out.gauge(f::READY, f64::from(upkeep.is_ready))?;
    out.counters(
        f::RELOADS,
        [(["ok"], upkeep.reloads_ok), (["failed"], upkeep.reloads_failed)],
    )?;
    out.gauge(f::RELOADED, upkeep.configured_at)?;
    out.gauge(f::RELOAD_OK, f64::from(!upkeep.last_reload_failed))?;
    let (ok, failed) = upkeep.upgrades;
    out.counters(f::UPGRADES, [(["ok"], ok), (["failed"], failed)])?;
    let classes = ["2xx", "3xx", "4xx", "5xx"].map(|class| [class]);
    out.counters(f::ADMIN_REQUESTS, classes.into_iter().zip(upkeep.admin_answers))?;
    let refused = upkeep.admin_refused.iter();
    out.counters(
        f::ADMIN_REFUSED,
        refused.map(|(reason, count)| ([*reason], *count)),
    )?;
    let (exported, lost) = upkeep.spans;
    out.counters(f::SPANS, [(["exported"], exported), (["lost"], lost)])
}
