//! The kernel's TCP settings that SYN cookies need: read, judged, set if asked for, and put back when the shield goes.
//!
//! What a setting was before lies in a pinned map, so whoever detaches can put it back, daemon or not. A setting that
//! somebody else has changed meanwhile is left alone.

use std::{fs, io, path::PathBuf};

use edge_common::abi::{CookieSettings, Params};

use super::{KernelError, ShieldTables};

/// Where the settings of this network namespace are.
const ROOT: &str = "/proc/sys/net";
/// A setting that was changed: the old value in the low half, the new one above.
const CHANGED: u64 = 1 << 63;
/// `MAX_TCP_WSCALE`.
const MAX_SCALE: u32 = 14;
/// Receive buffer that a socket begins with where the file cannot be read (net/ipv4/tcp.c, `tcp_init`).
const DEFAULT_BUFFER: u32 = 131_072;

/// One setting, with the value that cookies want.
#[derive(Debug, Clone, Copy)]
struct Setting {
    /// Element of the pinned map; never reused.
    slot: u32,
    name: &'static str,
    wanted: u32,
    /// Whether a value will do.
    suffices: fn(u32) -> bool,
    /// What is lost without.
    without: &'static str,
}

const SETTINGS: [Setting; 4] = [
    Setting {
        slot: 0,
        name: "ipv4/tcp_syncookies",
        wanted: 2,
        suffices: |value| value == 2,
        without: "no SYN cookies at all: with less the stack takes them back only while it is flooded itself",
    },
    Setting {
        slot: 1,
        name: "ipv4/tcp_timestamps",
        wanted: 2,
        suffices: |value| value == 2,
        without: "no timestamps, SACK or window scale in connections that begin with a cookie: with 1 the stack adds a \
                  secret offset to the timestamp that carries them",
    },
    Setting {
        slot: 2,
        name: "ipv4/tcp_sack",
        wanted: 1,
        suffices: |value| value != 0,
        without: "no SACK in connections that begin with a cookie",
    },
    Setting {
        slot: 3,
        name: "ipv4/tcp_window_scaling",
        wanted: 1,
        suffices: |value| value != 0,
        without: "no window scale in connections that begin with a cookie",
    },
];

/// A setting that is not as cookies want it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Missing {
    /// As `sysctl` names it.
    pub setting: String,
    /// What it is.
    pub is: u32,
    /// What it should be.
    pub wanted: u32,
    /// What is lost.
    pub without: &'static str,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            setting,
            is,
            wanted,
            without,
        } = self;
        write!(f, "{setting} is {is}, not {wanted}: {without}")
    }
}

/// What is not as cookies want it.
pub fn missing() -> Vec<Missing> {
    SETTINGS
        .iter()
        .filter_map(|setting| {
            let is = read(setting.name).ok()?;
            (!(setting.suffices)(is)).then(|| Missing {
                setting: format!("net.{}", setting.name.replace('/', ".")),
                is,
                wanted: setting.wanted,
                without: setting.without,
            })
        })
        .collect()
}

/// What answers are to say, by the settings as they are now; `has_programs` says whether they can be given at all.
pub fn cookie_settings(has_programs: bool, params: &Params) -> CookieSettings {
    let holds = |name: &str| {
        SETTINGS
            .iter()
            .filter(|setting| setting.name.ends_with(name))
            .all(|setting| read(setting.name).is_ok_and(setting.suffices))
    };
    let mut flags = 0;
    for (name, flag) in [
        ("tcp_timestamps", CookieSettings::STAMPS),
        ("tcp_sack", CookieSettings::SACK),
        ("tcp_window_scaling", CookieSettings::SCALING),
    ] {
        if holds(name) {
            flags |= flag;
        }
    }
    if has_programs && holds("tcp_syncookies") {
        flags |= CookieSettings::READY;
    }
    let buffers = read_all("ipv4/tcp_rmem").unwrap_or_default();
    let initial = buffers.get(1).copied().unwrap_or(DEFAULT_BUFFER);
    let largest = buffers.get(2).copied().unwrap_or(initial);
    let most = read("core/rmem_max").unwrap_or(0).max(largest);
    let space = space(initial);
    CookieSettings {
        flags,
        space,
        scale: scale(most.max(space)),
        epoch_ms: epoch_ms(params),
    }
}

/// Milliseconds of the stack's clock at tick 0, less a tick and a millisecond: the moment that the parameters name may
/// lie a whole tick behind its tick's beginning.
fn epoch_ms(params: &Params) -> u32 {
    let hz = u64::from(params.hz.max(1));
    let at_epoch = params.epoch_ns / 1_000_000;
    let behind = 1_000 / hz + 1;
    at_epoch
        .wrapping_sub(params.epoch_tick.wrapping_mul(1_000) / hz)
        .wrapping_sub(behind) as u32
}

/// What of a buffer is offered as window (`tcp_win_from_space`): half, or what `tcp_adv_win_scale` says before Linux 6.6.
fn space(buffer: u32) -> u32 {
    let shift = fs::read_to_string(format!("{ROOT}/ipv4/tcp_adv_win_scale"))
        .ok()
        .and_then(|text| text.trim().parse::<i32>().ok())
        .unwrap_or(1);
    let by_setting = if shift <= 0 {
        buffer.checked_shr(shift.unsigned_abs()).unwrap_or(0)
    } else {
        buffer - buffer.checked_shr(shift.unsigned_abs()).unwrap_or(0)
    };
    // Later kernels begin with half whatever the setting says: the smaller of the two is right for both.
    by_setting.min(buffer / 2)
}

/// The window scale for a window of `most` bytes (`tcp_select_initial_window`).
const fn scale(most: u32) -> u32 {
    let Some(bits) = most.checked_ilog2() else {
        return 0;
    };
    let scale = bits.saturating_sub(15);
    if scale > MAX_SCALE { MAX_SCALE } else { scale }
}

impl ShieldTables {
    /// Sets what cookies want, and keeps what was there before.
    ///
    /// # Errors
    /// A setting cannot be written; those before it stay set, and are put back by [`Self::restore_sysctls`].
    pub fn set_sysctls(&self) -> Result<Vec<Missing>, KernelError> {
        let before = missing();
        for setting in &SETTINGS {
            let is = read(setting.name).map_err(KernelError::io(format!("reading {}", setting.name)))?;
            if (setting.suffices)(is) {
                continue;
            }
            // Before the change: a daemon that dies between the two has recorded one too many, not one too few.
            let record = CHANGED | u64::from(setting.wanted) << 32 | u64::from(is);
            if self.sysctls.get(setting.slot).unwrap_or_default() & CHANGED == 0 {
                self.sysctls.set(setting.slot, record);
            }
            write(setting.name, setting.wanted)?;
        }
        Ok(before)
    }

    /// Puts back what [`Self::set_sysctls`] changed. Returns the settings, as `name = value`.
    ///
    /// # Errors
    /// A setting cannot be written.
    pub fn restore_sysctls(&self) -> Result<Vec<String>, KernelError> {
        let mut restored = Vec::new();
        for setting in &SETTINGS {
            let record = self.sysctls.get(setting.slot).unwrap_or_default();
            if record & CHANGED == 0 {
                continue;
            }
            let (old, new) = (record as u32, (record >> 32 & 0x7fff_ffff) as u32);
            if read(setting.name).is_ok_and(|is| is == new) {
                write(setting.name, old)?;
                restored.push(format!("net.{} = {old}", setting.name.replace('/', ".")));
            }
            self.sysctls.set(setting.slot, 0);
        }
        Ok(restored)
    }

    /// Puts the settings of answers in force.
    pub fn write_cookie_settings(&self, settings: CookieSettings) {
        self.cookies.set(0, settings);
    }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(ROOT).join(name)
}

fn read_all(name: &str) -> io::Result<Vec<u32>> {
    Ok(fs::read_to_string(path(name))?
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect())
}

fn read(name: &str) -> io::Result<u32> {
    read_all(name)?
        .first()
        .copied()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a number"))
}

fn write(name: &str, value: u32) -> Result<(), KernelError> {
    fs::write(path(name), format!("{value}\n")).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => KernelError::Privilege {
            missing: "the right to write /proc/sys/net (CAP_NET_ADMIN in the owning user namespace)".into(),
            what: "setting what SYN cookies need (--set-sysctls)",
            works: "without the flag the shield works with the settings as they are",
        },
        _ => KernelError::io(format!("setting net.{} to {value}", name.replace('/', ".")))(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_scales_are_the_kernels() {
        // tcp_rmem[2] of 6 MiB, of 32 MiB; a machine without scaling; the largest there is.
        for (most, expected) in [
            (6_291_456, 7),
            (33_554_432, 10),
            (65_535, 0),
            (0, 0),
            (u32::MAX, 14),
        ] {
            assert_eq!(scale(most), expected, "{most}");
        }
    }

    #[test]
    fn half_of_the_buffer_is_offered() {
        assert!(space(131_072) <= 65_536);
    }

    #[test]
    fn a_record_keeps_both_values() {
        let record = CHANGED | 2 << 32 | 1;
        assert_eq!((record as u32, (record >> 32 & 0x7fff_ffff) as u32), (1, 2));
    }
}
