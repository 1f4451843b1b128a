//! Allow and deny lists: written into the copy that is not in force, then one flip.
//!
//! A list has two parts: what the configuration says, and what the operator added by hand. An entry carries the parts
//! it is in, so that a start, a reload or a command changes its own part and leaves the other; what is in force is both
//! together. A single network that nothing covers is written in place; everything else goes the long way.

use std::{collections::HashMap, net::IpAddr};

use aya::maps::{
    MapData, MapError,
    lpm_trie::{Key, LpmTrie},
};
use edge_common::{
    abi::{Addr, Control, ControlWord, LpmKey},
    datapath::{DENY_HINT_MASK, V6_GRAIN, deny_hint},
    mem::hinted_addresses,
};
use ipnet::IpNet;
use serde::Serialize;

use super::{KernelError, ShieldTables, change::wait_for_packets, pins::Lock};
use crate::config::bounds::MAX_LIST;

/// Words of one copy of the deny hints.
const HINT_WORDS: u32 = (DENY_HINT_MASK + 1) / 64;

/// Which list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// Never dropped.
    Allow,
    /// Always dropped.
    Deny,
}

impl List {
    /// `allow` or `deny`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Allow => Self::Deny,
            Self::Deny => Self::Allow,
        }
    }

    /// The bits of the control word that select its copy and say that it has entries.
    const fn bits(self) -> (u64, u64) {
        match self {
            Self::Allow => (Control::ALLOW, Control::HAS_ALLOW),
            Self::Deny => (Control::DENY, Control::HAS_DENY),
        }
    }
}

/// Who put an entry there: a bit of the trie's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Part {
    /// The configuration and its files.
    Config = 1,
    /// The operator, by the command line.
    Operator = 2,
}

/// An entry in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The network.
    pub network: IpNet,
    /// The parts it is in.
    pub from: Vec<Part>,
}

/// What a change came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changed {
    /// Networks that were put into the part.
    pub added: usize,
    /// Networks that were taken out of it.
    pub removed: usize,
    /// Networks to remove that were not in it.
    pub absent: Vec<IpNet>,
}

pub(super) type Entries = HashMap<LpmKey, u8>;
type Trie = LpmTrie<MapData, Addr, u8>;

/// The trie's key of a prefix.
pub fn lpm_key(net: &IpNet) -> LpmKey {
    let prefix = match net {
        IpNet::V4(v4) => 96 + u32::from(v4.prefix_len()),
        IpNet::V6(v6) => u32::from(v6.prefix_len()),
    };
    LpmKey {
        prefix,
        addr: Addr::from(net.network()),
    }
}

impl ShieldTables {
    /// Makes `nets` the whole list, in the configuration's part, at one instant.
    ///
    /// # Errors
    /// Too many, or the trie cannot be written; the old list stays in force then.
    pub fn replace_list(&mut self, _lock: &Lock, list: List, nets: &[IpNet]) -> Result<(), KernelError> {
        let wanted = nets
            .iter()
            .map(|net| (lpm_key(net), Part::Config as u8))
            .collect();
        self.put_in_force(list, &self.list_entries(list)?, &wanted)
    }

    /// Makes `nets` a part of the list at one instant, and leaves the other part as it is.
    ///
    /// # Errors
    /// Too many with the other part, or the trie cannot be written; the old list stays in force then.
    pub fn set_part(
        &mut self,
        _lock: &Lock,
        list: List,
        part: Part,
        nets: &[IpNet],
    ) -> Result<Changed, KernelError> {
        let (old, wanted) = self.with_part(list, part, nets)?;
        let has = |entries: &Entries, key: &LpmKey| entries.get(key).is_some_and(|p| p & part as u8 != 0);
        let changed = Changed {
            added: wanted
                .keys()
                .filter(|key| has(&wanted, key) && !has(&old, key))
                .count(),
            removed: old
                .keys()
                .filter(|key| has(&old, key) && !has(&wanted, key))
                .count(),
            absent: Vec::new(),
        };
        self.put_in_force(list, &old, &wanted)?;
        Ok(changed)
    }

    /// Adds `nets` to the operator's part of the list at one instant.
    ///
    /// # Errors
    /// As [`Self::set_part`].
    pub fn add_by_hand(&mut self, _lock: &Lock, list: List, nets: &[IpNet]) -> Result<Changed, KernelError> {
        let part = Part::Operator as u8;
        if let [net] = nets
            && self.add_in_place(list, part, net)?
        {
            return Ok(Changed {
                added: 1,
                ..Changed::default()
            });
        }
        let old = self.list_entries(list)?;
        let mut wanted = old.clone();
        let mut added = 0;
        for net in nets {
            let parts = wanted.entry(lpm_key(net)).or_default();
            added += usize::from(*parts & part == 0);
            *parts |= part;
        }
        self.put_in_force(list, &old, &wanted)?;
        Ok(Changed {
            added,
            ..Changed::default()
        })
    }

    /// Takes `nets` out of the operator's part of the list at one instant; what is not in it is told.
    ///
    /// # Errors
    /// The configuration has one of them, so it would stay in force: nothing is changed then.
    pub fn remove_by_hand(
        &mut self,
        _lock: &Lock,
        list: List,
        nets: &[IpNet],
    ) -> Result<Changed, KernelError> {
        if let [net] = nets
            && let Some(removed) = self.remove_in_place(list, net)?
        {
            return Ok(Changed {
                removed: usize::from(removed),
                absent: if removed { Vec::new() } else { nets.to_vec() },
                ..Changed::default()
            });
        }
        let old = self.list_entries(list)?;
        let mut wanted = old.clone();
        let (mut changed, mut elsewhere) = (Changed::default(), Vec::new());
        for net in nets {
            let key = lpm_key(net);
            match wanted.get(&key).copied() {
                None => changed.absent.push(*net),
                Some(parts) if parts & Part::Config as u8 != 0 => elsewhere.push(*net),
                Some(_) => {
                    wanted.remove(&key);
                    changed.removed += 1;
                }
            }
        }
        if !elsewhere.is_empty() {
            return Err(KernelError::ListedElsewhere {
                list: list.name(),
                nets: elsewhere,
            });
        }
        self.put_in_force(list, &old, &wanted)?;
        Ok(changed)
    }

    /// Those of `nets` that the other list has: allowing beats denying, so such an entry says two things.
    ///
    /// # Errors
    /// The trie cannot be read.
    pub fn contradicted(&self, list: List, nets: &[IpNet]) -> Result<Vec<IpNet>, KernelError> {
        let other = self.list_entries(list.other())?;
        Ok(nets
            .iter()
            .filter(|net| other.contains_key(&lpm_key(net)))
            .copied()
            .collect())
    }

    /// The prefixes of a list in force.
    pub fn list(&self, list: List) -> Vec<IpNet> {
        self.trie(list)
            .keys()
            .flatten()
            .filter_map(|key| prefix(key.data(), key.prefix_len()))
            .collect()
    }

    /// The entries of a list in force, in the order of addresses.
    ///
    /// # Errors
    /// The trie cannot be read.
    pub fn listed(&self, list: List) -> Result<Vec<Listed>, KernelError> {
        let mut listed: Vec<Listed> = self
            .list_entries(list)?
            .into_iter()
            .filter_map(|(key, parts)| {
                let from = [Part::Config, Part::Operator]
                    .into_iter()
                    .filter(|part| parts & *part as u8 != 0);
                Some(Listed {
                    network: prefix(key.addr, key.prefix)?,
                    from: from.collect(),
                })
            })
            .collect();
        listed.sort_unstable_by_key(|entry| entry.network);
        Ok(listed)
    }

    /// The copy in force.
    fn trie(&self, list: List) -> &Trie {
        let copy = self.control().copy(list.bits().0) as usize;
        match list {
            List::Allow => &self.allow[copy],
            List::Deny => &self.deny[copy],
        }
    }

    fn trie_mut(&mut self, list: List, copy: u32) -> &mut Trie {
        match list {
            List::Allow => &mut self.allow[copy as usize],
            List::Deny => &mut self.deny[copy as usize],
        }
    }

    fn list_entries(&self, list: List) -> Result<Entries, KernelError> {
        self.trie(list)
            .iter()
            .map(|entry| {
                let (key, parts) = entry.map_err(KernelError::map("reading a list"))?;
                let key = LpmKey {
                    prefix: key.prefix_len(),
                    addr: key.data(),
                };
                // What a version without parts wrote came from a configuration.
                Ok((key, parts.max(Part::Config as u8)))
            })
            .collect()
    }

    /// Adds a network that no entry covers; `false` if one may.
    fn add_in_place(&mut self, list: List, part: u8, net: &IpNet) -> Result<bool, KernelError> {
        let key = lpm_key(net);
        let trie_key = Key::new(key.prefix, key.addr);
        let (selector, filled) = list.bits();
        let control = self.control();
        let copy = control.copy(selector);
        match self.trie(list).get(&trie_key, 0) {
            Ok(_) => return Ok(false),
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(KernelError::map("reading a list")(error)),
        }
        let mut bits = filled;
        if list == List::Deny {
            // Before the entry, as everywhere: a hint too many costs a look-up, one too few lets a source pass.
            for addr in hinted_addresses(&key) {
                let (word, bit) = deny_hint(&addr, &self.params);
                self.deny_hints.set_bits(copy * HINT_WORDS + word, 1 << bit);
            }
            bits |= if key.prefix < V6_GRAIN {
                Control::DENY_SHORT_V6
            } else {
                0
            };
        }
        match self.trie_mut(list, copy).insert(&trie_key, part, 0) {
            Ok(()) => {}
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(ENOSPC) => {
                return Err(full(list, MAX_LIST + 1, 0));
            }
            Err(error) => return Err(KernelError::map("filling a list")(error)),
        }
        self.control.set_bits(0, bits);
        Ok(true)
    }

    /// Removes a network if the operator's part alone can have it, and tells whether it had; `None` if the
    /// configuration may have it. The hints that it leaves behind cost a look-up, until the list is written anew.
    fn remove_in_place(&mut self, list: List, net: &IpNet) -> Result<Option<bool>, KernelError> {
        let key = lpm_key(net);
        let trie_key = Key::new(key.prefix, key.addr);
        // The entry itself if there is one, else the one that covers it.
        match self.trie(list).get(&trie_key, 0) {
            Ok(parts) if parts == Part::Operator as u8 => {}
            Ok(_) => return Ok(None),
            Err(MapError::KeyNotFound) => return Ok(Some(false)),
            Err(error) => return Err(KernelError::map("reading a list")(error)),
        }
        let (selector, filled) = list.bits();
        let copy = self.control().copy(selector);
        match self.trie_mut(list, copy).remove(&trie_key) {
            Ok(()) => {}
            Err(MapError::KeyNotFound) => return Ok(Some(false)),
            Err(error) => return Err(KernelError::map("emptying a list")(error)),
        }
        if self.trie(list).keys().next().is_none() {
            self.control.clear_bits(0, filled);
        }
        Ok(Some(true))
    }

    /// The entries in force, and those that would be with `nets` as this part.
    pub(super) fn with_part(
        &self,
        list: List,
        part: Part,
        nets: &[IpNet],
    ) -> Result<(Entries, Entries), KernelError> {
        let old = self.list_entries(list)?;
        let mut wanted: Entries = old
            .iter()
            .map(|(key, parts)| (*key, parts & !(part as u8)))
            .filter(|(_, parts)| *parts != 0)
            .collect();
        for net in nets {
            *wanted.entry(lpm_key(net)).or_default() |= part as u8;
        }
        Ok((old, wanted))
    }

    /// Makes `wanted` the list in force, unless it is.
    fn put_in_force(&mut self, list: List, old: &Entries, wanted: &Entries) -> Result<(), KernelError> {
        let Some(filled) = self.fill_list(list, old, wanted)? else {
            return Ok(());
        };
        let word = filled.word(self.control().0);
        self.control.store(ControlWord::Control as u32, word);
        wait_for_packets();
        // The copy that was in force is emptied, so that a large list is not kept twice.
        self.empty_list(list, filled.before)
    }

    /// Writes `wanted` into the copy that is not in force; `None` if it is what is in force.
    pub(super) fn fill_list(
        &mut self,
        list: List,
        old: &Entries,
        wanted: &Entries,
    ) -> Result<Option<FilledList>, KernelError> {
        if old == wanted {
            return Ok(None);
        }
        if wanted.len() > MAX_LIST {
            let by_operator = wanted
                .values()
                .filter(|parts| **parts == Part::Operator as u8)
                .count();
            return Err(full(list, wanted.len(), by_operator));
        }
        let (selector, filled) = list.bits();
        let before = self.control().copy(selector);
        let next = 1 - before;
        let spare = self.trie_mut(list, next);
        empty(spare)?;
        for (key, parts) in wanted {
            spare
                .insert(&Key::new(key.prefix, key.addr), parts, 0)
                .map_err(KernelError::map("filling a list"))?;
        }
        let mut set = if next == 1 { selector } else { 0 };
        let mut owned = selector | filled;
        if !wanted.is_empty() {
            set |= filled;
        }
        if list == List::Deny {
            owned |= Control::DENY_SHORT_V6;
            if wanted.keys().any(|key| key.prefix < V6_GRAIN) {
                set |= Control::DENY_SHORT_V6;
            }
            self.write_deny_hints(next, wanted.keys());
        }
        Ok(Some(FilledList { before, owned, set }))
    }

    /// Empties a copy that is not in force.
    pub(super) fn empty_list(&mut self, list: List, copy: u32) -> Result<(), KernelError> {
        empty(self.trie_mut(list, copy))
    }

    fn write_deny_hints<'k>(&self, copy: u32, keys: impl Iterator<Item = &'k LpmKey>) {
        let mut words: HashMap<u32, u64> = HashMap::new();
        for addr in keys.flat_map(hinted_addresses) {
            let (word, bit) = deny_hint(&addr, &self.params);
            *words.entry(word).or_default() |= 1 << bit;
        }
        for word in 0..HINT_WORDS {
            let bits = words.get(&word).copied().unwrap_or_default();
            if self.deny_hints.get(copy * HINT_WORDS + word) != Some(bits) {
                self.deny_hints.store(copy * HINT_WORDS + word, bits);
            }
        }
    }
}

/// A list that is written and not in force.
pub(super) struct FilledList {
    /// The copy that is in force until it is.
    pub(super) before: u32,
    owned: u64,
    set: u64,
}

impl FilledList {
    /// The control word that puts it in force.
    pub(super) const fn word(&self, control: u64) -> u64 {
        control & !self.owned | self.set
    }
}

/// "No space left on device": how a full trie says so.
const ENOSPC: i32 = 28;

fn full(list: List, count: usize, by_operator: usize) -> KernelError {
    KernelError::ListFull {
        list: list.name(),
        count,
        by_operator,
        most: MAX_LIST,
    }
}

fn empty(trie: &mut Trie) -> Result<(), KernelError> {
    let old: Vec<Key<Addr>> = trie
        .keys()
        .collect::<Result<_, _>>()
        .map_err(KernelError::map("reading a list"))?;
    for key in old {
        trie.remove(&key).map_err(KernelError::map("emptying a list"))?;
    }
    Ok(())
}

fn prefix(addr: Addr, bits: u32) -> Option<IpNet> {
    match IpAddr::from(addr) {
        IpAddr::V4(v4) if bits >= 96 => IpNet::new(IpAddr::V4(v4), (bits - 96) as u8).ok(),
        _ => IpNet::new(IpAddr::V6(addr.to_bytes().into()), bits as u8).ok(),
    }
}
