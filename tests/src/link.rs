//! What an interface looks like, to tell whether it was restored exactly.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::netns::Namespace;

/// Everything `ip -details link show` says of an interface and nothing that moves by itself: no packet counters.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkState(Value);

/// How an XDP program is attached, and which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedXdp {
    /// `native`, `generic` or `offloaded`.
    pub mode: &'static str,
    /// Program id.
    pub id: u64,
    /// Program name, at most 15 characters.
    pub name: String,
}

impl LinkState {
    /// Reads the state of one interface.
    pub fn read(namespace: &Namespace, interface: &str) -> Result<Self> {
        let text = namespace.ip(&format!("-details -json link show dev {interface}"))?;
        let mut links: Value = serde_json::from_str(&text).with_context(|| format!("ip printed {text:?}"))?;
        let Some(link) = links.get_mut(0).map(Value::take) else {
            bail!("no interface {interface}")
        };
        Ok(Self(link))
    }

    /// The XDP program on the interface.
    pub fn xdp(&self) -> Option<AttachedXdp> {
        let xdp = self.0.get("xdp")?;
        // `ip` lists programs of several modes under "attached" and of one mode directly.
        let single = xdp
            .get("attached")
            .and_then(|attached| attached.get(0))
            .unwrap_or(xdp);
        let program = single.get("prog")?;
        let mode = match single.get("mode").and_then(Value::as_u64) {
            Some(1) => "native",
            Some(2) => "generic",
            _ => "offloaded",
        };
        Some(AttachedXdp {
            mode,
            id: program.get("id")?.as_u64()?,
            name: program
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
        })
    }

    /// Compares with the state before; the error lists every field that differs.
    pub fn assert_same(&self, before: &Self) {
        let (Value::Object(old), Value::Object(new)) = (&before.0, &self.0) else {
            panic!("ip printed something else than an object")
        };
        let mut differences = Vec::new();
        for key in old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))) {
            if old.get(key) != new.get(key) {
                differences.push(format!("{key}: {:?} -> {:?}", old.get(key), new.get(key)));
            }
        }
        assert!(
            differences.is_empty(),
            "the interface was not restored: {}",
            differences.join("; ")
        );
    }
}
