//! Bans: adding, pardoning, listing, and sweeping what has expired.
//!
//! A ban is in force once its entry is written, which takes no system call; its hint bit is set before. When the
//! table is full, bans of one network are merged into a ban of that network, and an alert is counted: never is one
//! dropped silently.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, SystemTime},
};

use edge_common::{
    abi::{
        Addr, AddressFlags, Alert, Ban, BanKey, BanSource, ControlWord, Family,
        ban::{BUCKET_WORDS, NOTE_BYTES, V4_PREFIXES, V6_PREFIXES},
        hint,
    },
    algo::bans::{Full, Store, Writer, hash},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Serialize;

use super::{KernelError, ShieldTables, pins::Lock, services::text};

/// The word of [`hint::Hints`] that is about bans.
const BANS_WORD: usize = 0;

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
        };
        if order.source != BanSource::Operator
            && let Some(old) = self.find_ban(&key)
            && old.holds(now)
        {
            ban.until = ban.until.max(old.until);
        }
        self.set_hint(&key);
        if self.write(&key, &ban) {
            self.note(&key, &order.note);
            return Ok(Banned::Exactly);
        }
        self.sweep(lock, Duration::ZERO)?;
        // The sweep may have cleared the bit: there was no entry that needed it.
        self.set_hint(&key);
        if self.write(&key, &ban) {
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
        let there = self.remove(&key);
        if there {
            self.clear_stale_hints(&[key]);
        }
        Ok(there)
    }

    /// Ends the ban on a prefix, or on what covers it if it is one address: whoever pardons an address wants it to get
    /// through. Returns what was lifted.
    ///
    /// # Errors
    /// The prefix length is wrong.
    pub fn pardon(&mut self, lock: &Lock, prefix: &IpNet) -> Result<Vec<IpNet>, KernelError> {
        if self.unban(lock, prefix)? {
            return Ok(vec![*prefix]);
        }
        let mut lifted = Vec::new();
        if prefix.prefix_len() == prefix.max_prefix_len() {
            for entry in self.list_bans() {
                if entry.net.contains(prefix) && self.unban(lock, &entry.net)? {
                    lifted.push(entry.net);
                }
            }
        }
        Ok(lifted)
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

    /// Number of bans that hold.
    pub fn count_holding_bans(&self) -> usize {
        let now = self.clock.now();
        self.entries().filter(|(_, ban)| ban.holds(now)).count()
    }

    /// Number of entries in the table, ended ones included.
    pub fn count_bans(&self) -> usize {
        self.entries().count()
    }

    /// The entry for exactly this prefix, whether it still holds or not.
    pub fn find_ban(&self, key: &BanKey) -> Option<Ban> {
        self.writer().find(key, self.clock.now())
    }

    /// Removes bans that ended more than `memory` ago. Returns how many.
    ///
    /// # Errors
    /// None; kept for what may come.
    pub fn sweep(&mut self, _lock: &Lock, memory: Duration) -> Result<usize, KernelError> {
        let now = self.clock.now();
        let mut held = 0;
        let ended: Vec<BanKey> = self
            .entries()
            .inspect(|_| held += 1)
            .filter(|(_, ban)| !ban.holds(now) && self.clock.since(ban.until) >= memory)
            .map(|(key, _)| key)
            .collect();
        // Counted anew: whoever was killed between an entry and its count has left it wrong.
        self.control.store(ControlWord::BansHeld as u32, held);
        for key in &ended {
            self.remove(key);
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
        self.writer().entries(self.clock.now())
    }

    fn writer(&self) -> Writer<'_, Self> {
        Writer::new(self, &self.params)
    }

    /// A bucket's words, for tests that hold the table beside another.
    pub fn ban_bucket(&self, index: u32) -> [u64; BUCKET_WORDS] {
        self.bans.get(index).unwrap_or([0; BUCKET_WORDS])
    }

    fn remove(&self, key: &BanKey) -> bool {
        let there = self.writer().remove(key);
        if there {
            self.count_held(u64::MAX);
        }
        there
    }

    /// Adds to the count of entries, wrapping.
    fn count_held(&self, amount: u64) {
        self.control.add(ControlWord::BansHeld as u32, amount);
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
    fn write(&self, key: &BanKey, ban: &Ban) -> bool {
        let held = self.control.load_word(ControlWord::BansHeld as u32, 0);
        let is_full = held >= u64::from(self.ban_capacity);
        if is_full && self.find_ban(key).is_none() {
            return false;
        }
        match self.writer().put(key, ban) {
            Ok(new) => {
                if new {
                    self.count_held(1);
                }
                true
            }
            Err(Full) => false,
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
        if end == 0 {
            return;
        }
        if self.notes.insert(key, bytes, 0).is_err() {
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
                return Err(self.full());
            }
        };
        let mut until = if holds_new { ban.until } else { 0 };
        for member in &members {
            until = until.max(self.find_ban(member).map_or(0, |old| old.until));
        }
        let merged = Ban {
            until,
            source: BanSource::Aggregated as u8,
            scope: Ban::EVERYTHING,
            ..ban
        };
        self.set_hint(&wide);
        // One member goes first, since there is no free entry; its sources are covered again at once.
        if let Some(first) = members.first() {
            self.remove(first);
        }
        if !self.write(&wide, &merged) {
            self.alert(Alert::BansRefused, 1);
            return Err(self.full());
        }
        self.note(&wide, "merged: the ban table was full");
        for member in &members {
            self.remove(member);
            _ = self.notes.remove(member);
        }
        self.clear_stale_hints(&members);
        self.alert(Alert::BansAggregated, 1);
        if holds_new {
            return Ok(Banned::Within(net(&wide)));
        }
        self.set_hint(key);
        if self.write(key, &ban) {
            Ok(Banned::Exactly)
        } else {
            Err(self.full())
        }
    }

    const fn full(&self) -> KernelError {
        KernelError::BansFull {
            capacity: self.ban_capacity,
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

    /// Where the hint of a prefix is: the element, and the bit in its word.
    fn hint(&self, key: &BanKey) -> (u32, u64) {
        let network = hint::Keys::new(&key.addr, key.addr.family(), &self.params);
        (network.element(&self.params), hint::bit(hash(key, &self.params)))
    }

    fn set_hint(&self, key: &BanKey) {
        let (element, bit) = self.hint(key);
        self.hints.set_word_bits(element, BANS_WORD, bit);
    }

    /// Clears the hints of removed bans that no other ban needs.
    fn clear_stale_hints(&self, removed: &[BanKey]) {
        let mut stale: HashMap<u32, u64> = HashMap::new();
        for key in removed {
            let (element, bit) = self.hint(key);
            *stale.entry(element).or_default() |= bit;
        }
        for (key, _) in self.entries() {
            let (element, bit) = self.hint(&key);
            if let Some(bits) = stale.get_mut(&element) {
                *bits &= !bit;
            }
        }
        for (element, bits) in stale {
            self.hints.clear_word_bits(element, BANS_WORD, bits);
        }
    }
}

impl Store for ShieldTables {
    fn load(&self, bucket: u32, word: usize) -> u64 {
        self.bans.load_word(bucket, word)
    }

    fn store(&self, bucket: u32, word: usize, value: u64) {
        self.bans.store_word(bucket, word, value);
    }

    fn moved(&self) {
        self.control.add(ControlWord::BanMoves as u32, 1);
    }
}

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
