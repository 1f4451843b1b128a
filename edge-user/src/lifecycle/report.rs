//! What the daemon alone knows, told to `breakwater status`: keys, caches, limits, refusals, losses.
//!
//! A socket beside other run-time files, for the user that runs the daemon only. Whoever connects is told one JSON document
//! and nothing is read from it. One at a time, each with a time limit.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{self, Read},
    os::unix::{
        fs::{DirBuilderExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::UnixListener, task::JoinHandle, time::timeout};

use crate::{auth::Authority, gateway::Handle, offence::queue::Reporter};

/// Where the sockets are.
const DIRECTORY: &str = "/run/breakwater";
/// Longest time that one telling, or one asking, may take.
const LIMIT: Duration = Duration::from_secs(2);
/// Longest document that is read.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The daemon's end; the socket goes with it.
pub(super) struct Reporting {
    task: JoinHandle<()>,
    path: PathBuf,
}

/// What is told about.
pub(super) struct Told {
    pub(super) authority: Arc<Authority>,
    pub(super) gateway: Handle,
    pub(super) reporter: Reporter,
}

impl Reporting {
    /// Begins to tell. A machine that gives no place for the socket costs the report, and nothing else.
    pub(super) fn begin(bpffs: &Path, told: Told) -> Option<Self> {
        let path = socket(bpffs);
        let listener = bind(&path)
            .inspect_err(|error| tracing::debug!(%error, path = %path.display(), "no report of the gateway"))
            .ok()?;
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let document = told.document().to_string();
                // Who asks and does not read is not waited for.
                let _ = timeout(LIMIT, stream.write_all(document.as_bytes())).await;
            }
        });
        Some(Self { task, path })
    }
}

impl Drop for Reporting {
    fn drop(&mut self) {
        self.task.abort();
        let _ = fs::remove_file(&self.path);
    }
}

/// One socket for each BPF file system, as there is one daemon for each.
fn socket(bpffs: &Path) -> PathBuf {
    let plain = |char: char| if char.is_ascii_alphanumeric() { char } else { '-' };
    let name: String = bpffs.to_string_lossy().chars().map(plain).collect();
    // A socket's path has 107 bytes; the end of a long name tells most.
    let start = name.len().saturating_sub(64);
    Path::new(DIRECTORY).join(format!("gateway{}.sock", &name[start..]))
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(DIRECTORY)?;
    // One that nobody answers was left by a daemon that was killed.
    if UnixStream::connect(path).is_err() {
        let _ = fs::remove_file(path);
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

impl Told {
    fn document(&self) -> Value {
        let counters = self.gateway.counters();
        let refusals: BTreeMap<_, _> = counters
            .refusals
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| (reason.slug(), *count))
            .collect();
        let closings: BTreeMap<_, _> = self
            .gateway
            .closings()
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(closing, count)| (closing.slug(), count))
            .collect();
        json!({
            "connections": self.gateway.connections(),
            "closings": closings,
            "access_lines_lost": self.gateway.lost_access_lines(),
            "auth": self.authority.status(),
            "limits": self.gateway.limits(),
            "refusals": refusals,
            "offences_lost": self.reporter.lost(),
            "arrivals_lost": self.gateway.lost_arrivals(),
        })
    }
}

/// Asks the daemon of this BPF file system; none if there is none, or it is another user's.
pub(super) fn ask(bpffs: &Path) -> Option<Value> {
    let mut stream = UnixStream::connect(socket(bpffs)).ok()?;
    stream.set_read_timeout(Some(LIMIT)).ok()?;
    let mut text = String::new();
    Read::by_ref(&mut stream)
        .take(MAX_BYTES)
        .read_to_string(&mut text)
        .ok()?;
    serde_json::from_str(&text).ok()
}

/// The document for people.
pub(super) fn table(report: &Value) -> String {
    let mut out = String::new();
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let _ = writeln!(out, "gateway: {} connections", number(&report["connections"]));
    let auth = &report["auth"];
    for provider in auth["providers"].as_array().into_iter().flatten() {
        let keys = provider["keys"].as_array().map_or(0, Vec::len);
        let _ = write!(
            out,
            "provider {:<12} {keys} keys, {}",
            provider["name"].as_str().unwrap_or_default(),
            provider["freshness"].as_str().unwrap_or_default()
        );
        if let Some(time) = provider["last_success"].as_u64() {
            let _ = write!(out, ", obtained {} ago", ago(time));
        }
        if number(&provider["fetches"]) > 0 {
            let _ = write!(out, ", {} fetches", number(&provider["fetches"]));
        }
        if let Some(error) = provider["error"].as_str() {
            let _ = write!(out, "; {error}");
        }
        out.push('\n');
    }
    let cache = &auth["cache"];
    let (hits, misses) = (number(&cache["hits"]), number(&cache["misses"]));
    if hits + misses > 0 {
        let share = 100.0 * hits as f64 / (hits + misses) as f64;
        let _ = writeln!(
            out,
            "token cache: {share:.1} % of {} found, {} kept; revocations: {}",
            hits + misses,
            number(&cache["entries"]),
            number(&auth["file_revocations"]) + number(&auth["runtime_revocations"])
        );
    }
    for limit in report["limits"].as_array().into_iter().flatten() {
        let _ = writeln!(
            out,
            "limit {:<15} {} refused, {} observed",
            limit["name"].as_str().unwrap_or_default(),
            number(&limit["refused"]),
            number(&limit["observed"])
        );
    }
    let refusals: Vec<_> = report["refusals"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    if !refusals.is_empty() {
        let _ = writeln!(out, "refused: {}", refusals.join(", "));
    }
    let closings: Vec<_> = report["closings"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    if !closings.is_empty() {
        let _ = writeln!(out, "connections closed: {}", closings.join(", "));
    }
    if number(&report["access_lines_lost"]) > 0 {
        let _ = writeln!(
            out,
            "ALERT: {} lines of the access log were lost",
            number(&report["access_lines_lost"])
        );
    }
    if number(&report["arrivals_lost"]) > 0 {
        let _ = writeln!(
            out,
            "{} accepted connections found the queue full: their peers earn exact state with the next",
            number(&report["arrivals_lost"])
        );
    }
    if number(&report["offences_lost"]) > 0 {
        let _ = writeln!(
            out,
            "ALERT: {} offences found the queue full",
            number(&report["offences_lost"])
        );
    }
    out.truncate(out.trim_end().len());
    out
}

fn ago(second: u64) -> humantime::FormattedDuration {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    humantime::format_duration(Duration::from_secs(now.saturating_sub(second)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bpf_file_system_has_a_socket_with_a_path_that_fits() {
        let one = socket(Path::new("/sys/fs/bpf"));
        assert_eq!(one, Path::new("/run/breakwater/gateway-sys-fs-bpf.sock"));
        let long = socket(Path::new(&format!("/{}", "a/".repeat(300))));
        assert!(long.as_os_str().len() < 107, "{}", long.display());
        assert!(ask(Path::new("/nowhere/at/all")).is_none());
    }

    #[test]
    fn the_table_says_what_matters() {
        let report = json!({
            "connections": 3,
            "auth": {
                "providers": [{"name": "sso", "keys": [1, 2], "freshness": "stale", "fetches": 9, "error": "status 500"}],
                "cache": {"hits": 999, "misses": 1, "entries": 7},
                "file_revocations": 2, "runtime_revocations": 0,
            },
            "limits": [{"name": "login", "refused": 12, "observed": 0}],
            "refusals": {"rate_limited": 12, "token_refused": 3},
            "closings": {"http2_flood": 1, "tls_malformed": 2},
            "access_lines_lost": 4,
            "offences_lost": 5,
            "arrivals_lost": 6,
        });
        let text = table(&report);
        for line in [
            "gateway: 3 connections",
            "provider sso          2 keys, stale, 9 fetches; status 500",
            "token cache: 99.9 % of 1000 found, 7 kept; revocations: 2",
            "limit login           12 refused, 0 observed",
            "refused: rate_limited 12, token_refused 3",
            "connections closed: http2_flood 1, tls_malformed 2",
            "ALERT: 4 lines of the access log were lost",
            "ALERT: 5 offences found the queue full",
            "6 accepted connections found the queue full: their peers earn exact state with the next",
        ] {
            assert!(text.lines().any(|own| own == line), "{line:?} in\n{text}");
        }
    }
}
