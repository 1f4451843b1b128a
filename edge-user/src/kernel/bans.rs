//! Bans: adding, pardoning, listing, and sweeping what has expired.
//!
//! A ban is in force once its map entry is written; its hint bit is set before. When the table is full, bans of
//! one network are merged into a ban of that network, and an alert is counted: never is one dropped silently.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv6Addr},
    time::{Duration, SystemTime},
};

use aya::maps::MapError;
use edge_common::abi::{
    Addr, AddressFlags, Alert, Ban, BanKey, BanSource, Family,
    ban::{NOTE_BYTES, V4_PREFIXES, V6_PREFIXES},
    hint,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Serialize;

use super::{KernelError, ShieldTables, pins::Lock, services::text};

/// A ban to be made.
#[derive(Debug, Clone)]
pub struct BanOrder {
    /// The prefix; one of the lengths that bans are kept at.
    pub net: IpNet,
    /// For how long; `None` is for ever.
    pub duration: Option<Duration>,
    /// Who asks.
    pub source: BanSource,
    /// Only what opens a connection is dropped.
    pub new_connections_only: bool,
    /// How often the source was banned before.
    pub repeats: u8,
    /// Why, in words; cut to [`NOTE_BYTES`].
    pub note: String,
}

/// A ban as it is listed.
#[derive(Debug, Clone, Serialize)]
pub struct BanEntry {
    /// The prefix.
    pub net: IpNet,
    /// Who asked for it.
    pub source: &'static str,
    /// Why, in words.
    pub reason: String,
    /// Seconds left; absent for ever.
    pub seconds_left: Option<f64>,
    /// When it was made, seconds since the epoch.
    pub since: f64,
    /// `everything` or `new_connections`.
    pub scope: &'static str,
    /// How often the source was banned before.
    pub repeats: u8,
}

/// What a ban came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Banned {
    /// The prefix itself.
    Exactly,
    /// A wider one, since the table was full.
    Within(IpNet),
}

/// The map key of a prefix.
///
/// # Errors
/// The length is not one that bans are kept at.
pub fn key(net: &IpNet) -> Result<BanKey, KernelError> {
    let (bits, lengths) = match net {
        IpNet::V4(v4) => (96 + u32::from(v4.prefix_len()), V4_PREFIXES.as_slice()),
        IpNet::V6(v6) => (u32::from(v6.prefix_len()), V6_PREFIXES.as_slice()),
    };
    if !lengths.contains(&bits) {
        return Err(KernelError::BanPrefix { net: *net });
    }
    Ok(BanKey::new(&Addr::from(net.addr()), bits))
}

/// The prefix of a map key.
fn net(key: &BanKey) -> IpNet {
    let v6 = Ipv6Addr::from(key.addr.to_bytes());
    match (IpAddr::from(key.addr), key.prefix) {
        (IpAddr::V4(v4), 96..=128) => {
            IpNet::V4(Ipv4Net::new(v4, (key.prefix - 96) as u8).unwrap_or_default())
        }
        _ => IpNet::V6(Ipv6Net::new(v6, key.prefix.min(128) as u8).unwrap_or_default()),
    }
}

impl ShieldTables {
    /// Bans a prefix. A ban that it has is set anew by the operator, and only ever lengthened by anybody else.
    ///
    /// # Errors
    /// The prefix length is wrong, it covers an address of this machine, or the table is full of bans that
    /// cannot be merged.
    pub fn ban(&mut self, lock: &Lock, order: &BanOrder) -> Result<Banned, KernelError> {
        let key = key(&order.net)?;
        let now = self.clock.now();
        let mut ban = Ban {
            until: self.clock.after(order.duration),
            since: now,
            source: order.source as u8,
            repeats: order.repeats,
            scope: if order.new_connections_only {
                Ban::NEW_CONNECTIONS
            } else {
                Ban::EVERYTHING
            },
            reserved: [0; 5],
        };
        if let Ok(old) = self.bans.get(&key, 0)
            && old.holds(now)
            && order.source != BanSource::Operator
        {
            ban.until = ban.until.max(old.until);
        }
        self.hints_for(&key, |tables, word, bits| tables.hints.set_bits(word, bits));
        if self.write(&key, &ban)? {
            self.note(&key, &order.note);
            return Ok(Banned::Exactly);
        }
        self.sweep(lock, Duration::ZERO)?;
        if self.write(&key, &ban)? {
            self.note(&key, &order.note);
            return Ok(Banned::Exactly);
        }
        self.aggregate(&key, ban)
    }

    /// Ends a ban. Returns whether there was one.
    ///
    /// # Errors
    /// The prefix length is wrong.
    pub fn unban(&mut self, _lock: &Lock, prefix: &IpNet) -> Result<bool, KernelError> {
        let key = key(prefix)?;
        let there = self.bans.remove(&key).is_ok();
        _ = self.notes.remove(&key);
        if there {
            self.clear_stale_hints(&[key]);
        }
        Ok(there)
    }

    /// Every ban that holds, in no order.
    pub fn list_bans(&self) -> Vec<BanEntry> {
        let now = self.clock.now();
        let wall = SystemTime::now();
        self.entries()
            .filter(|(_, ban)| ban.holds(now))
            .map(|(key, ban)| self.entry(&key, &ban, wall))
            .collect()
    }

    /// Number of entries in the table, expired ones included.
    pub fn count_bans(&self) -> usize {
        self.bans.keys().flatten().count()
    }

    /// The entry for exactly this prefix, whether it still holds or not.
    pub fn find_ban(&self, key: &BanKey) -> Option<Ban> {
        self.bans.get(key, 0).ok()
    }

    /// Removes bans that ended more than `memory` ago. Returns how many.
    ///
    /// # Errors
    /// An entry cannot be removed.
    pub fn sweep(&mut self, _lock: &Lock, memory: Duration) -> Result<usize, KernelError> {
        let now = self.clock.now();
        let ended: Vec<BanKey> = self
            .entries()
            .filter(|(_, ban)| !ban.holds(now) && self.clock.since(ban.until) >= memory)
            .map(|(key, _)| key)
            .collect();
        for key in &ended {
            match self.bans.remove(key) {
                Ok(()) | Err(MapError::KeyNotFound) => _ = self.notes.remove(key),
                Err(error) => return Err(KernelError::map("removing a ban")(error)),
            }
        }
        if !ended.is_empty() {
            self.clear_stale_hints(&ended);
        }
        Ok(ended.len())
    }

    /// What of this machine a prefix covers, if anything: such a ban would cut the operator off.
    pub fn covers_local(&self, prefix: &IpNet) -> Option<IpAddr> {
        let local = |flags: u32| AddressFlags(flags).has(AddressFlags::LOCAL);
        self.addresses
            .iter()
            .flatten()
            .filter(|(_, flags)| local(*flags))
            .map(|(addr, _)| IpAddr::from(addr))
            .find(|address| prefix.contains(address))
    }

    fn entries(&self) -> impl Iterator<Item = (BanKey, Ban)> {
        self.bans.iter().flatten()
    }

    fn entry(&self, key: &BanKey, ban: &Ban, wall: SystemTime) -> BanEntry {
        let since = wall
            .checked_sub(self.clock.since(ban.since))
            .unwrap_or(SystemTime::UNIX_EPOCH);
        BanEntry {
            net: net(key),
            source: BanSource::from_byte(ban.source).name(),
            reason: self
                .notes
                .get(key, 0)
                .map_or_else(|_| String::new(), |bytes| text(&bytes)),
            seconds_left: self.clock.until(ban.until).map(|left| left.as_secs_f64()),
            since: since
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs_f64(),
            scope: if ban.scope == Ban::NEW_CONNECTIONS {
                "new_connections"
            } else {
                "everything"
            },
            repeats: ban.repeats,
        }
    }

    /// Writes an entry; `false` if the table is full.
    fn write(&mut self, key: &BanKey, ban: &Ban) -> Result<bool, KernelError> {
        match self.bans.insert(key, ban, 0) {
            Ok(()) => Ok(true),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(E2BIG) => Ok(false),
            Err(error) => Err(KernelError::map("writing a ban")(error)),
        }
    }

    fn note(&mut self, key: &BanKey, note: &str) {
        let mut bytes = [0; NOTE_BYTES];
        let mut end = note.len().min(NOTE_BYTES);
        while !note.is_char_boundary(end) {
            end -= 1;
        }
        bytes[..end].copy_from_slice(&note.as_bytes()[..end]);
        // Words are a courtesy: a ban without them is still a ban.
        if end > 0 && self.notes.insert(key, bytes, 0).is_err() {
            tracing::debug!("no room for a ban's note");
        }
    }

    /// Makes room by merging the network that holds most bans, preferring the one the new ban lies in.
    fn aggregate(&mut self, key: &BanKey, ban: Ban) -> Result<Banned, KernelError> {
        let groups = self.groups();
        let own = wider(key).find(|wide| groups.get(wide).is_some_and(|members| !members.is_empty()));
        let busiest = groups
            .iter()
            .filter(|(_, members)| members.len() > 1)
            .max_by_key(|(_, members)| members.len());
        let (wide, members, holds_new) = match (own, busiest) {
            (Some(own), _) => (own, groups.get(&own).cloned().unwrap_or_default(), true),
            (None, Some((wide, members))) => (*wide, members.clone(), false),
            (None, None) => {
                self.alert(Alert::BansRefused, 1);
                return Err(KernelError::BansFull {
                    capacity: self.ban_capacity,
                });
            }
        };
        let mut until = if holds_new { ban.until } else { 0 };
        for member in &members {
            until = until.max(self.bans.get(member, 0).map_or(0, |old| old.until));
        }
        let merged = Ban {
            until,
            source: BanSource::Aggregated as u8,
            scope: Ban::EVERYTHING,
            ..ban
        };
        self.hints_for(&wide, |tables, word, bits| tables.hints.set_bits(word, bits));
        // One member goes first, since there is no free entry; its sources are covered again at once.
        let mut members = members.iter();
        if let Some(first) = members.next() {
            _ = self.bans.remove(first);
        }
        self.write(&wide, &merged)?;
        self.note(&wide, "merged: the ban table was full");
        for member in members {
            _ = self.bans.remove(member);
            _ = self.notes.remove(member);
        }
        self.alert(Alert::BansAggregated, 1);
        if holds_new {
            return Ok(Banned::Within(net(&wide)));
        }
        if self.write(key, &ban)? {
            Ok(Banned::Exactly)
        } else {
            Err(KernelError::BansFull {
                capacity: self.ban_capacity,
            })
        }
    }

    /// Bans by the next wider prefixes that they could be merged into.
    fn groups(&self) -> HashMap<BanKey, Vec<BanKey>> {
        let mut groups: HashMap<BanKey, Vec<BanKey>> = HashMap::new();
        for (key, _) in self.entries() {
            for wide in wider(&key) {
                groups.entry(wide).or_default().push(key);
            }
        }
        groups
    }

    fn hints_for(&self, key: &BanKey, act: impl Fn(&Self, u32, u64)) {
        let (word, shift) = hint::place(hint::prefix(&key.addr, key.prefix, &self.params), &self.params);
        act(self, word, hint::BAN << shift);
    }

    /// Clears the hints of removed bans that no other ban needs.
    fn clear_stale_hints(&self, removed: &[BanKey]) {
        let place =
            |key: &BanKey| hint::place(hint::prefix(&key.addr, key.prefix, &self.params), &self.params);
        let needed: HashSet<(u32, u32)> = self.bans.keys().flatten().map(|key| place(&key)).collect();
        for (word, shift) in removed.iter().map(place).filter(|at| !needed.contains(at)) {
            self.hints.clear_bits(word, hint::BAN << shift);
        }
    }
}

/// "Argument list too long": how a full hash map says so.
const E2BIG: i32 = 7;

/// The wider prefixes that a ban can be merged into, nearest first.
fn wider(key: &BanKey) -> impl Iterator<Item = BanKey> + use<> {
    let lengths = match key.addr.family() {
        Family::V4 => V4_PREFIXES.as_slice(),
        Family::V6 => V6_PREFIXES.as_slice(),
    };
    let key = *key;
    lengths
        .iter()
        .filter(move |length| **length < key.prefix)
        .map(move |length| BanKey::new(&key.addr, *length))
}
