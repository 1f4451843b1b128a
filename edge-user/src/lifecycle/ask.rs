//! The verbs that ask a running daemon for something.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{LifecycleError, verbs};
use crate::{
    admin::{
        self,
        client::{self, Call},
    },
    advise,
    cli::AskRequest,
    history,
};

/// Which socket: the one that was named, or the usual one.
pub(super) fn socket(named: Option<&Path>, bpffs: &Path) -> PathBuf {
    named.map_or_else(|| admin::default_socket(bpffs), Path::to_owned)
}

/// `breakwater reload`, `drain`, `upgrade`. Answers with what the daemon says.
///
/// # Errors
/// No daemon answers, it does not let this user ask, or it refuses.
pub fn ask(request: &AskRequest, bpffs: &Path) -> Result<String, LifecycleError> {
    let socket = socket(request.socket.as_deref(), bpffs);
    let answer = verbs::runtime()?.block_on(client::ask(&socket, &request.call))?;
    if request.json {
        return verbs::json(&answer);
    }
    Ok(match &request.call {
        Call::Reload => reloaded(&answer),
        Call::Drain { .. } => {
            "draining: not ready from now on; the daemon ends when its connections have".to_owned()
        }
        Call::Upgrade => format!("process {} serves now; the old one finishes", answer["process"]),
        Call::Compare(_) => read(answer, history::render)?,
        Call::Advise { .. } => read(answer, advise::render)?,
        Call::Status => return verbs::json(&answer),
    })
}

/// What the daemon says, for people.
fn read<T: DeserializeOwned>(answer: Value, render: fn(&T) -> String) -> Result<String, LifecycleError> {
    let read = serde_json::from_value(answer).map_err(std::io::Error::other);
    read.map(|value| render(&value))
        .map_err(LifecycleError::io("reading the daemon's answer"))
}

/// What a reload has changed, for people.
fn reloaded(answer: &Value) -> String {
    let texts = |key: &str| -> Vec<String> {
        let list = answer[key].as_array().into_iter().flatten();
        list.filter_map(|text| text.as_str().map(ToOwned::to_owned))
            .collect()
    };
    let changes = answer["changes"].as_array().into_iter().flatten();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut lines: Vec<String> = changes
        .map(|change| {
            let parts = [
                word(&change["kind"]),
                word(&change["name"]),
                word(&change["what"]),
            ];
            parts
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    if lines.is_empty() {
        lines.push("reloaded: nothing is different".to_owned());
    } else {
        let took = answer["took_us"].as_f64().unwrap_or(0.0) / 1000.0;
        lines.insert(0, format!("reloaded in {took:.0} ms"));
    }
    lines.extend(
        texts("needs_restart")
            .into_iter()
            .map(|text| format!("not in force: {text}")),
    );
    lines.extend(texts("warnings"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_what_has_changed() {
        let answer = serde_json::json!({
            "took_us": 12_345,
            "changes": [
                {"kind": "route", "name": "api", "what": "added"},
                {"kind": "offences", "name": "", "what": "changed"},
            ],
            "needs_restart": ["gateway.workers"],
            "warnings": ["edge.toml:3: careful"],
        });
        assert_eq!(
            reloaded(&answer),
            "reloaded in 12 ms\nroute api added\noffences changed\nnot in force: gateway.workers\nedge.toml:3: careful"
        );
        assert_eq!(reloaded(&serde_json::json!({})), "reloaded: nothing is different");
    }
}
