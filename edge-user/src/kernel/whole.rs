//! Whether what is pinned is what the object defines: before a program is loaded on it, and in words.
//!
//! Somebody may have removed a pin, put another in its place, or run another build that pins other maps under the same
//! version. The program that is attached goes on with the maps it has; what must not be is that another is put in its
//! place which judges by tables that are not its own. Only looks, never mends: what would have to be thrown away is the
//! operator's (bans, limits that are used up).

use std::fs;

use aya::maps::MapData;
use aya_obj::{Map, Object};
use edge_common::abi::Params;

use super::{
    KernelError, Pins,
    loader::{MAPS, OBJECT, USER_MAPS},
    tables,
};

/// The parameters that the pinned tables were made with; none if there are no tables, or they were never finished.
///
/// # Errors
/// A program is attached and what it was made with cannot be read.
pub(super) fn parameters(pins: &Pins) -> Result<Option<Params>, KernelError> {
    match tables::parameters(pins) {
        Ok(params) => Ok(Some(params).filter(|params| params.hz != 0)),
        Err(error) if !pins.linked_interfaces()?.is_empty() => {
            Err(damaged(pins, format!("map PARAMS cannot be read ({error})")))
        }
        Err(_) => Ok(None),
    }
}

/// Compares every pinned map with its definition; `entries` names those whose number of entries is drawn.
///
/// # Errors
/// [`KernelError::Damaged`], with the first that is missing or another.
pub(super) fn check(pins: &Pins, entries: &[(&str, u32)]) -> Result<(), KernelError> {
    let object = Object::parse(OBJECT)
        .map_err(|error| KernelError::Unsupported(format!("the object is not one: {error}")))?;
    for name in MAPS.into_iter().chain(USER_MAPS) {
        let Some(defined) = object.maps.get(name) else {
            continue;
        };
        let drawn = entries.iter().find(|(other, _)| *other == name);
        let entries = drawn.map_or(defined.max_entries(), |(_, entries)| *entries);
        compare(pins, name, defined, entries).map_err(|what| damaged(pins, format!("map {name} {what}")))?;
    }
    Ok(())
}

/// What is wrong with one.
fn compare(pins: &Pins, name: &str, defined: &Map, entries: u32) -> Result<(), String> {
    let path = pins.map(name);
    match fs::symlink_metadata(&path) {
        Err(error) => return Err(format!("is missing ({error})")),
        Ok(found) if !found.is_file() => return Err("is not a map".to_owned()),
        Ok(_) => {}
    }
    let map = MapData::from_pin(&path).map_err(|error| format!("cannot be opened ({error})"))?;
    let info = map
        .info()
        .map_err(|error| format!("tells nothing of itself ({error})"))?;
    let kind = info.map_type().map_err(|error| error.to_string())? as u32;
    let found = [kind, info.key_size(), info.value_size(), info.max_entries()];
    let wanted = [
        defined.map_type(),
        defined.key_size(),
        defined.value_size(),
        entries,
    ];
    // Tables by CPU and rings take the machine's numbers where the definition has none.
    let is_same = found
        .iter()
        .zip(wanted)
        .all(|(found, wanted)| wanted == 0 || *found == wanted);
    if is_same {
        return Ok(());
    }
    let shape = |[kind, key, value, entries]: [u32; 4]| {
        format!("type {kind} with {key}-byte keys, {value}-byte values and {entries} entries")
    };
    Err(format!("is of {} instead of {}", shape(found), shape(wanted)))
}

fn damaged(pins: &Pins, what: String) -> KernelError {
    KernelError::Damaged {
        root: pins.root().to_path_buf(),
        what,
    }
}
