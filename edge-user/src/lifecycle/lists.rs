//! `breakwater list`: the lists in the kernel, and the files that keep them.

use std::{collections::HashSet, fmt::Write as _, fs, path::Path};

use ipnet::IpNet;

use super::{LifecycleError, verbs};
use crate::{
    cli::{Format, ListChange, ListRequest},
    config::{Config, listfile},
    kernel::{
        KernelError, Pins, ShieldTables,
        lists::{Changed, List, Listed, Part},
    },
};

/// Networks named in an answer; of more, the number is told.
const NAMED: usize = 5;

/// `breakwater list …`.
///
/// # Errors
/// Nothing is attached, a list has no room, or the change would say two things; nothing is changed then.
pub fn list(request: &ListRequest, bpffs: &Path) -> Result<String, LifecycleError> {
    let pins = Pins::new(bpffs);
    match request {
        ListRequest::Show { list, format } => show(&ShieldTables::open(&pins)?, *list, *format),
        ListRequest::Change {
            list,
            change,
            networks,
            config: Some(config),
        } => for_good(&pins, *list, *change, networks, config),
        ListRequest::Change {
            list,
            change,
            networks,
            config: None,
        } => by_hand(&pins, *list, *change, networks),
    }
}

fn show(tables: &ShieldTables, list: Option<List>, format: Format) -> Result<String, LifecycleError> {
    let wanted = list.map_or_else(|| vec![List::Allow, List::Deny], |list| vec![list]);
    let mut lists = Vec::with_capacity(wanted.len());
    for list in wanted {
        lists.push((list, tables.listed(list)?));
    }
    match format {
        Format::Json => {
            let document: serde_json::Map<_, _> = lists
                .into_iter()
                .map(|(list, entries)| (list.name().to_owned(), serde_json::json!(entries)))
                .collect();
            verbs::json(&document)
        }
        Format::Text => Ok(table(&lists)),
    }
}

fn table(lists: &[(List, Vec<Listed>)]) -> String {
    let mut out = format!("{:<6} {:<44} {}", "LIST", "NETWORK", "FROM");
    for (list, entries) in lists {
        for Listed { network, from } in entries {
            let from: Vec<_> = from
                .iter()
                .map(|part| match part {
                    Part::Config => "config",
                    Part::Operator => "operator",
                })
                .collect();
            // Writing to a string cannot fail.
            let _ = write!(
                out,
                "\n{:<6} {:<44} {}",
                list.name(),
                network.to_string(),
                from.join(", ")
            );
        }
        if entries.is_empty() {
            let _ = write!(out, "\n{:<6} {:<44}", list.name(), "(empty)");
        }
    }
    out
}

/// Changes the operator's part.
fn by_hand(
    pins: &Pins,
    list: List,
    change: ListChange,
    networks: &[IpNet],
) -> Result<String, LifecycleError> {
    let mut tables = ShieldTables::open(pins)?;
    let lock = pins.lock()?;
    if change != ListChange::Remove {
        refuse_contradictions(&tables, list, networks)?;
    }
    let changed = match change {
        ListChange::Add => tables.add_by_hand(&lock, list, networks)?,
        ListChange::Remove => tables.remove_by_hand(&lock, list, networks)?,
        ListChange::Replace => tables.set_part(&lock, list, Part::Operator, networks)?,
    };
    let mut answer = told(list, change, networks, &changed);
    if changed.added > 0 {
        answer.push_str("\nkept until `list del`, `detach` or a reboot; with --config FILE it is for good");
    }
    Ok(answer)
}

/// Changes the file that `config` names, then the configuration's part.
fn for_good(
    pins: &Pins,
    list: List,
    change: ListChange,
    networks: &[IpNet],
    config: &Path,
) -> Result<String, LifecycleError> {
    let shield = Config::load(config)?.config.shield;
    let (configured, file, other) = match list {
        List::Allow => (shield.allow, shield.allow_file, shield.deny),
        List::Deny => (shield.deny, shield.deny_file, shield.allow),
    };
    let file = file.ok_or_else(|| LifecycleError::NoListFile {
        config: config.to_path_buf(),
        list: list.name(),
    })?;
    let unwritable = |source| LifecycleError::ListFile {
        file: file.clone(),
        source,
    };
    let text = fs::read_to_string(&file).map_err(unwritable)?;
    let in_file: HashSet<IpNet> = listfile::read(&file)?.into_iter().collect();
    let had: HashSet<IpNet> = configured.iter().copied().collect();
    let asked: HashSet<IpNet> = networks.iter().copied().collect();
    let (new, wanted, changed) = if change == ListChange::Remove {
        if let Some(network) = networks
            .iter()
            .find(|network| had.contains(network) && !in_file.contains(network))
        {
            return Err(LifecycleError::InlineEntry {
                config: config.to_path_buf(),
                list: list.name(),
                network: *network,
            });
        }
        let wanted: Vec<IpNet> = configured
            .into_iter()
            .filter(|network| !asked.contains(network))
            .collect();
        let changed = Changed {
            removed: had.len() - wanted.len(),
            absent: networks
                .iter()
                .filter(|network| !had.contains(network))
                .copied()
                .collect(),
            ..Changed::default()
        };
        (listfile::edited(&text, &[], networks), wanted, changed)
    } else {
        let twice: Vec<IpNet> = other
            .into_iter()
            .filter(|network| asked.contains(network))
            .collect();
        if !twice.is_empty() {
            return Err(contradicted(list, twice));
        }
        let add: Vec<IpNet> = networks
            .iter()
            .filter(|network| !had.contains(network))
            .copied()
            .collect();
        let changed = Changed {
            added: add.len(),
            ..Changed::default()
        };
        let wanted = configured.into_iter().chain(add.iter().copied()).collect();
        (listfile::edited(&text, &add, &[]), wanted, changed)
    };
    let mut answer = told(list, change, networks, &changed);
    if !pins.exist() {
        listfile::write(&file, &new).map_err(unwritable)?;
        let _ = write!(
            answer,
            "\nwritten to {}; the shield is not attached",
            file.display()
        );
        return Ok(answer);
    }
    let mut tables = ShieldTables::open(pins)?;
    let lock = pins.lock()?;
    if change == ListChange::Add {
        refuse_contradictions(&tables, list, networks)?;
    }
    // The kernel first: it is what may have no room. Should the file then not be written, the old part comes back.
    tables.set_part(&lock, list, Part::Config, &wanted)?;
    if let Err(source) = listfile::write(&file, &new) {
        let old: Vec<IpNet> = had.into_iter().collect();
        tables.set_part(&lock, list, Part::Config, &old)?;
        return Err(unwritable(source));
    }
    if change == ListChange::Remove {
        tables.remove_by_hand(&lock, list, networks)?;
    }
    let _ = write!(answer, "\nwritten to {} and in force", file.display());
    Ok(answer)
}

fn refuse_contradictions(
    tables: &ShieldTables,
    list: List,
    networks: &[IpNet],
) -> Result<(), LifecycleError> {
    let twice = tables.contradicted(list, networks)?;
    if twice.is_empty() {
        Ok(())
    } else {
        Err(contradicted(list, twice))
    }
}

fn contradicted(list: List, nets: Vec<IpNet>) -> LifecycleError {
    KernelError::Contradicted {
        other: list.other().name(),
        nets,
    }
    .into()
}

/// What a change came to, in one line.
fn told(list: List, change: ListChange, networks: &[IpNet], changed: &Changed) -> String {
    let name = list.name();
    let these = |networks: &[IpNet]| {
        if networks.len() > NAMED {
            format!("{} networks", networks.len())
        } else {
            let named: Vec<_> = networks.iter().map(ToString::to_string).collect();
            named.join(", ")
        }
    };
    match change {
        ListChange::Add if changed.added == 0 => {
            format!("{}: on the {name} list already", these(networks))
        }
        ListChange::Add if changed.added == networks.len() => {
            format!("added {} to the {name} list", these(networks))
        }
        ListChange::Add => format!(
            "added {} of {} networks to the {name} list; the others were on it",
            changed.added,
            networks.len()
        ),
        ListChange::Remove if changed.absent.is_empty() => {
            format!("took {} off the {name} list", these(networks))
        }
        ListChange::Remove if changed.removed == 0 => {
            format!("not on the {name} list: {}", these(&changed.absent))
        }
        ListChange::Remove => format!(
            "took {} networks off the {name} list; not on it: {}",
            changed.removed,
            these(&changed.absent)
        ),
        ListChange::Replace => format!(
            "what was added to the {name} list by hand is now {} networks: {} more, {} less",
            networks.len(),
            changed.added,
            changed.removed
        ),
    }
}
