//! The verbs that act on the kernel and end: they work with the daemon running or not.

use std::{fmt::Write as _, path::Path};

use edge_common::abi::BanSource;
use ipnet::IpNet;

use super::{LifecycleError, ask, report, shield::Shield, status::StatusReport};
use crate::{
    admin::client::{self, Call},
    cli::{AttachRequest, BanRequest, DetachRequest, StatusRequest},
    kernel::{
        KernelError, Pins, ShieldTables, attach as attachment,
        bans::{BanEntry, BanOrder, Banned},
    },
};

/// `breakwater attach`. Answers with what it did.
///
/// # Errors
/// The shield cannot be brought up; nothing is half-attached.
pub fn attach(request: &AttachRequest, bpffs: &Path) -> Result<String, LifecycleError> {
    runtime()?.block_on(async {
        let pins = Pins::new(bpffs);
        pins.refuse_other_daemons()?;
        let shield = Shield::bring_up(&request.config, pins, request.replace).await?;
        Ok(describe(&shield))
    })
}

/// One line an interface.
pub(super) fn describe(shield: &Shield) -> String {
    let mut out = String::new();
    for attached in &shield.attached {
        let how = if attached.adopted {
            "updated in place"
        } else {
            "attached"
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{}: {how}, {} mode, program {}",
            attached.interface, attached.mode, attached.program
        );
        if let Some(why) = &attached.native_refused {
            let _ = writeln!(
                out,
                "{}: generic, since native mode was refused: {why}",
                attached.interface
            );
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// `breakwater detach`. Answers with what it did; that there was nothing to do is no error.
///
/// # Errors
/// A pin cannot be removed.
pub fn detach(request: &DetachRequest, bpffs: &Path) -> Result<String, LifecycleError> {
    let pins = Pins::new(bpffs);
    if !pins.exist() {
        return Ok("nothing is attached".into());
    }
    let _lock = pins.lock()?;
    let linked = pins.linked_interfaces()?;
    let named = |name: &String| request.interfaces.is_empty() || request.interfaces.contains(name);
    let (off, rest): (Vec<_>, Vec<_>) = linked.into_iter().partition(named);
    for name in &off {
        attachment::detach(&pins, name)?;
    }
    let mut restored = String::new();
    if rest.is_empty() {
        restored = restore(&pins);
        pins.remove()?;
    }
    Ok(match (off.is_empty(), rest.is_empty()) {
        (true, true) => {
            format!("removed what the shield kept in the kernel; it was on no interface{restored}")
        }
        (true, false) => format!("nothing to do; the shield is on {}", rest.join(", ")),
        (false, _) => format!("detached from {}{restored}", off.join(", ")),
    })
}

/// Puts back the kernel's settings that were changed for SYN cookies. Tells what it did; that it failed too, since the
/// shield is to come off in any case.
fn restore(pins: &Pins) -> String {
    match ShieldTables::open(pins).and_then(|tables| tables.restore_sysctls()) {
        Ok(restored) => restored
            .iter()
            .fold(String::new(), |text, setting| text + "\nput back " + setting),
        Err(error) => {
            tracing::warn!(%error, "could not put the kernel's settings back");
            String::new()
        }
    }
}

/// `breakwater status`.
///
/// # Errors
/// Nothing is attached, or a map cannot be read.
pub fn status(request: &StatusRequest, bpffs: &Path) -> Result<String, LifecycleError> {
    let runtime = runtime()?;
    let shield = runtime.block_on(StatusReport::gather(&Pins::new(bpffs)));
    let socket = ask::socket(request.socket.as_deref(), bpffs);
    let daemon = match runtime.block_on(client::ask(&socket, &Call::Status)) {
        Ok(daemon) => Some(daemon),
        // Whoever names a socket wants to know; else the pinned state is all there is, or all that this user may see.
        Err(error) if request.socket.is_some() => return Err(error.into()),
        Err(error) => {
            tracing::debug!(%error, "no daemon");
            None
        }
    };
    let gateway = daemon.and_then(|mut daemon| Some(daemon["gateway"].take()).filter(|own| !own.is_null()));
    match (shield, gateway) {
        (Err(error), None) => Err(error.into()),
        (shield, gateway) if request.json => {
            let mut document = shield.map_or_else(|_| Ok(serde_json::json!({})), serde_json::to_value);
            if let (Ok(document), Some(gateway)) = (&mut document, gateway) {
                document["gateway"] = gateway;
            }
            json(&document.map_err(|error| LifecycleError::Io {
                what: "writing JSON",
                source: std::io::Error::other(error),
            })?)
        }
        (Ok(shield), None) => Ok(shield.table()),
        (Ok(shield), Some(gateway)) => Ok(format!("{}\n\n{}", shield.table(), report::table(&gateway))),
        (Err(error), Some(gateway)) => Ok(format!("no shield: {error}\n\n{}", report::table(&gateway))),
    }
}

/// `breakwater ban …`.
///
/// # Errors
/// Nothing is attached, the table is full, or the prefix covers this machine.
pub fn ban(request: &BanRequest, bpffs: &Path) -> Result<String, LifecycleError> {
    let pins = Pins::new(bpffs);
    let mut tables = ShieldTables::open(&pins)?;
    match request {
        BanRequest::Add {
            network,
            duration,
            reason,
        } => {
            if let Some(address) = tables.covers_local(network) {
                let why = format!("{address}, an address of this machine");
                return Err(KernelError::BanRefused { net: *network, why }.into());
            }
            let order = BanOrder {
                net: *network,
                duration: Some(*duration),
                source: BanSource::Operator,
                new_connections_only: false,
                repeats: 0,
                note: reason.clone().unwrap_or_default(),
            };
            let time = humantime::format_duration(*duration);
            Ok(match tables.ban(&pins.lock()?, &order)? {
                Banned::Exactly => format!("banned {} for {time}", bare(network)),
                Banned::Within(wide) => format!("the table is full: banned {wide} instead, for {time}"),
            })
        }
        BanRequest::Delete { network } => {
            let lifted = tables.pardon(&pins.lock()?, network)?;
            if lifted.is_empty() {
                return Ok(format!("{} was not banned", bare(network)));
            }
            Ok(format!(
                "lifted the ban on {}",
                lifted.iter().map(bare).collect::<Vec<_>>().join(", ")
            ))
        }
        BanRequest::List { json: as_json } => {
            let mut bans = tables.list_bans();
            bans.sort_by_key(|ban| ban.net);
            if *as_json { json(&bans) } else { Ok(table(&bans)) }
        }
    }
}

/// A host without its prefix length.
fn bare(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

fn table(bans: &[BanEntry]) -> String {
    if bans.is_empty() {
        return "nobody is banned".into();
    }
    let mut out = format!("{:<44} {:>10} {:<11} {}", "NETWORK", "LEFT", "BY", "REASON");
    for ban in bans {
        let left = ban
            .seconds_left
            .map_or_else(|| "for ever".into(), |seconds| format!("{seconds:.0} s"));
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            "\n{:<44} {left:>10} {:<11} {}",
            bare(&ban.net),
            ban.source,
            ban.reason
        );
    }
    out
}

pub(super) fn json(value: &impl serde::Serialize) -> Result<String, LifecycleError> {
    serde_json::to_string_pretty(value).map_err(|error| LifecycleError::Io {
        what: "writing JSON",
        source: std::io::Error::other(error),
    })
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime, LifecycleError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LifecycleError::io("starting a runtime"))
}
