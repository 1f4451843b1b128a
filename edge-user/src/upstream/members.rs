//! The usable endpoints of an upstream: an immutable snapshot, made whenever one comes, goes or changes its share.

use std::sync::Arc;

use super::{endpoint::Endpoint, maglev::Maglev, schedule};
use crate::config::{Balance, Upstream};

/// Full share of an endpoint; those that start slowly have less.
pub const FULL_SHARE: u32 = 20;

/// An endpoint that may be used, and its share in twentieths of its weight.
#[derive(Debug, Clone)]
pub struct Member {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// 1 to [`FULL_SHARE`].
    pub share: u32,
}

/// Why there is nobody to send to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// No name was resolved yet, or none ever.
    Unresolved,
    /// Every endpoint is down.
    Down,
}

/// A set of usable endpoints.
#[derive(Debug)]
pub struct Members {
    endpoints: Box<[Arc<Endpoint>]>,
    round: Box<[u32]>,
    table: Option<Maglev>,
    known: usize,
}

impl Members {
    /// The snapshot of `usable` endpoints out of `all`.
    pub fn new(config: &Upstream, usable: &[Member], all: &[Arc<Endpoint>]) -> Self {
        let chosen: Vec<&Member> = match &config.prefer_zone {
            Some(zone) => preferred(zone, usable, all),
            None => usable.iter().collect(),
        };
        let starting = chosen.iter().any(|member| member.share < FULL_SHARE);
        let unit = if starting { FULL_SHARE } else { 1 };
        let weights: Vec<u32> = chosen
            .iter()
            .map(|member| member.endpoint.weight().get() * member.share.min(unit).max(1))
            .collect();
        let table = matches!(config.balance, Balance::ConsistentHash(_)).then(|| {
            let addresses: Vec<_> = chosen
                .iter()
                .zip(&weights)
                .map(|(member, weight)| (member.endpoint.address(), *weight))
                .collect();
            Maglev::new(&addresses)
        });
        Self {
            endpoints: chosen.iter().map(|member| Arc::clone(&member.endpoint)).collect(),
            round: schedule::round(&weights),
            table,
            known: all.len(),
        }
    }

    /// One of them.
    pub fn get(&self, index: u32) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(index as usize)
    }

    /// How many may be used.
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether none may be.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Why none may be used.
    pub fn absence(&self) -> Absence {
        if self.known == 0 {
            Absence::Unresolved
        } else {
            Absence::Down
        }
    }

    /// Whose turn is the `turn`th.
    pub(super) fn in_turn(&self, turn: usize) -> Option<u32> {
        self.round.get(turn).copied()
    }

    /// How many turns a round has.
    pub(super) fn turns(&self) -> usize {
        self.round.len()
    }

    /// Whose a hash is; the `step`th further one if others are not to be used.
    pub(super) fn by_hash(&self, hash: u64, step: usize) -> Option<u32> {
        self.table.as_ref()?.find(hash, step)
    }
}

/// The usable endpoints of the zone, while they are at least half of those that stand there by weight; else all.
fn preferred<'m>(zone: &str, usable: &'m [Member], all: &[Arc<Endpoint>]) -> Vec<&'m Member> {
    let here = |endpoint: &Endpoint| endpoint.zone() == Some(zone);
    let weight = |endpoint: &Endpoint| u64::from(endpoint.weight().get());
    let standing: u64 = all
        .iter()
        .filter(|endpoint| here(endpoint))
        .map(|endpoint| weight(endpoint))
        .sum();
    let local: Vec<&Member> = usable.iter().filter(|member| here(&member.endpoint)).collect();
    let working: u64 = local.iter().map(|member| weight(&member.endpoint)).sum();
    if !local.is_empty() && working * 2 >= standing {
        local
    } else {
        usable.iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::config::EndpointHost;

    fn endpoint(last: u8, zone: &str) -> Arc<Endpoint> {
        let address = ([10, 0, 0, last], 80).into();
        Arc::new(Endpoint::new(
            address,
            EndpointHost::Address(address),
            NonZeroU32::MIN,
            Some(zone),
            1,
        ))
    }

    #[test]
    fn a_zone_is_preferred_while_half_of_it_works() {
        let config = Upstream {
            prefer_zone: Some("a".into()),
            ..Upstream::new("u", &[])
        };
        let all = [
            endpoint(1, "a"),
            endpoint(2, "a"),
            endpoint(3, "a"),
            endpoint(4, "b"),
        ];
        let usable = |from: usize| -> Vec<Member> {
            all[from..]
                .iter()
                .map(|endpoint| Member {
                    endpoint: Arc::clone(endpoint),
                    share: FULL_SHARE,
                })
                .collect()
        };
        assert_eq!(Members::new(&config, &usable(0), &all).len(), 3);
        assert_eq!(Members::new(&config, &usable(1), &all).len(), 2);
        assert_eq!(
            Members::new(&config, &usable(2), &all).len(),
            2,
            "one of three is too few: the other zone helps"
        );
        assert_eq!(Members::new(&config, &usable(3), &all).len(), 1);
        assert_eq!(Members::new(&config, &[], &all).absence(), Absence::Down);
        assert_eq!(Members::new(&config, &[], &[]).absence(), Absence::Unresolved);
    }

    #[test]
    fn a_slow_start_gets_a_part_of_its_share() {
        let config = Upstream::new("u", &[]);
        let all = [endpoint(1, "a"), endpoint(2, "a")];
        let usable = [
            Member {
                endpoint: Arc::clone(&all[0]),
                share: FULL_SHARE,
            },
            Member {
                endpoint: Arc::clone(&all[1]),
                share: FULL_SHARE / 4,
            },
        ];
        let members = Members::new(&config, &usable, &all);
        let turns: Vec<_> = (0..members.turns())
            .filter_map(|turn| members.in_turn(turn))
            .collect();
        let of = |index| turns.iter().filter(|turn| **turn == index).count();
        assert_eq!(of(0), 4 * of(1));
    }
}
