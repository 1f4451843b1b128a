//! Allow and deny lists: written into the copy that is not in force, then one flip.

use std::{collections::HashMap, net::IpAddr};

use aya::maps::lpm_trie::{Key, LpmTrie};
use edge_common::{
    abi::{Addr, Control, LpmKey},
    datapath::{DENY_HINT_MASK, V6_GRAIN, deny_hint},
    mem::hinted_addresses,
};
use ipnet::IpNet;

use super::{KernelError, ShieldTables, pins::Lock};

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
    /// Replaces a list at one instant.
    ///
    /// # Errors
    /// The trie cannot be written; the old list stays in force then.
    pub fn replace_list(&mut self, _lock: &Lock, list: List, nets: &[IpNet]) -> Result<(), KernelError> {
        let control = self.control();
        let (selector, filled) = match list {
            List::Allow => (Control::ALLOW, Control::HAS_ALLOW),
            List::Deny => (Control::DENY, Control::HAS_DENY),
        };
        let next = 1 - control.copy(selector);
        let keys: Vec<LpmKey> = nets.iter().map(lpm_key).collect();
        let trie = match list {
            List::Allow => &mut self.allow[next as usize],
            List::Deny => &mut self.deny[next as usize],
        };
        refill(trie, &keys)?;
        let mut word = control.0 ^ selector;
        word = if keys.is_empty() {
            word & !filled
        } else {
            word | filled
        };
        if list == List::Deny {
            let short = keys.iter().any(|key| key.prefix < V6_GRAIN);
            word = if short {
                word | Control::DENY_SHORT_V6
            } else {
                word & !Control::DENY_SHORT_V6
            };
            self.write_deny_hints(next, &keys);
        }
        self.control.store(0, word);
        // The copy that was in force is emptied, so that a large list is not kept twice.
        let old = control.copy(selector) as usize;
        let trie = match list {
            List::Allow => &mut self.allow[old],
            List::Deny => &mut self.deny[old],
        };
        refill(trie, &[])
    }

    /// The prefixes of a list in force.
    pub fn list(&self, list: List) -> Vec<IpNet> {
        let control = self.control();
        let trie = match list {
            List::Allow => &self.allow[control.copy(Control::ALLOW) as usize],
            List::Deny => &self.deny[control.copy(Control::DENY) as usize],
        };
        trie.keys()
            .flatten()
            .filter_map(|key| prefix(key.data(), key.prefix_len()))
            .collect()
    }

    fn write_deny_hints(&self, copy: u32, keys: &[LpmKey]) {
        let mut words: HashMap<u32, u64> = HashMap::new();
        for addr in keys.iter().flat_map(hinted_addresses) {
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

fn refill(trie: &mut LpmTrie<aya::maps::MapData, Addr, u8>, keys: &[LpmKey]) -> Result<(), KernelError> {
    let old: Vec<Key<Addr>> = trie.keys().flatten().collect();
    for key in old {
        trie.remove(&key).map_err(KernelError::map("emptying a list"))?;
    }
    for key in keys {
        trie.insert(&Key::new(key.prefix, key.addr), 1, 0)
            .map_err(KernelError::map("filling a list"))?;
    }
    Ok(())
}

fn prefix(addr: Addr, bits: u32) -> Option<IpNet> {
    match IpAddr::from(addr) {
        IpAddr::V4(v4) if bits >= 96 => IpNet::new(IpAddr::V4(v4), (bits - 96) as u8).ok(),
        _ => IpNet::new(IpAddr::V6(addr.to_bytes().into()), bits as u8).ok(),
    }
}
