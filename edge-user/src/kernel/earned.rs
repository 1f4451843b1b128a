//! Exact limiter state for sources that earned it, by completing a handshake.
//!
//! The program may add entries as well (for a handshake that it saw itself). What the default tier has
//! charged a source is charged to what it earns, so nobody has his burst twice. Only what was verified is added, so a flood
//! of made-up sources finds nothing to fill; what has been idle for a while is forgotten; who finds no room stays in the
//! default tier. No method takes a system call.

use std::{
    collections::HashMap,
    iter,
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use edge_common::{
    abi::{
        Addr, Control, EarnedHost, Limit, Service, hint,
        limit::{EARNED_ENTRY, EARNED_KINDS},
        service::MAX_CHAIN,
    },
    algo::{
        earned::{self, Claim},
        gcra,
    },
    datapath::charged,
};

use super::ShieldTables;

/// The word of [`hint::Hints`] that is about earned sources.
const EARNED_WORD: usize = 1;

/// What became of sources that earned exact state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Earning {
    /// Entries added.
    pub added: usize,
    /// Entries that were there.
    pub known: usize,
    /// Entries for which there was no room.
    pub refused: usize,
}

/// Limits of hosts that a service has, by kind; of one that it has not the burst is 0.
#[derive(Debug, Clone, Copy)]
pub struct HostLimits {
    salt: u16,
    limits: [Limit; EARNED_KINDS],
}

impl HostLimits {
    /// Those of `service`, if it has any.
    fn of(service: &Service) -> Option<Self> {
        let own = service
            .active_limits()
            .iter()
            .filter(|limit| usize::from(limit.kind) < EARNED_KINDS);
        let mut limits = [Limit::default(); EARNED_KINDS];
        let mut salt = None;
        for limit in own {
            limits[usize::from(limit.kind)] = *limit;
            salt = Some(limit.salt);
        }
        salt.map(|salt| Self { salt, limits })
    }

    /// Those of these services, each once.
    fn each(services: impl Iterator<Item = Service>) -> Vec<Self> {
        let mut all: Vec<_> = services.filter_map(|service| Self::of(&service)).collect();
        all.sort_unstable_by_key(|limits| limits.salt);
        all.dedup_by_key(|limits| limits.salt);
        all
    }
}

impl ShieldTables {
    /// Gives `source` exact state under every set of limits in force that limits hosts.
    pub fn earn(&self, source: IpAddr) -> Earning {
        self.earn_under(source, &self.host_limits())
    }

    /// Gives `source` exact state under these limits ([`ShieldTables::host_limits`]).
    pub fn earn_under(&self, source: IpAddr, limits: &[HostLimits]) -> Earning {
        let addr = Addr::from(source);
        let host = EarnedHost::new(&addr, addr.family());
        let mut earning = Earning::default();
        let keys = host.keys(&self.params);
        let (element, bit) = (keys.element(&self.params), hint::bit(keys.host));
        let [first, second] = earned::places(keys.host, self.params.earned_buckets);
        let (Some(first), Some(second)) = (self.earned.words(first), self.earned.words(second)) else {
            return earning;
        };
        // The bit first: an entry without is never found. One too many costs a look-up.
        self.hints.set_word_bits(element, EARNED_WORD, bit);
        for HostLimits { salt, limits } in limits {
            let now = gcra::now(self.clock.now());
            let charged = |kind: usize| match &limits[kind] {
                Limit { capacity: 0, .. } => 0,
                limit => charged(limit, keys.host, &self.params, now, |line| self.lines.words(line)),
            };
            match earned::claim_either([first, second], host, *salt, now, &charged) {
                Claim::Added => earning.added += 1,
                Claim::Known => earning.known += 1,
                Claim::Refused => earning.refused += 1,
            }
        }
        earning
    }

    /// Limits of hosts of the services in force, each once.
    pub fn host_limits(&self) -> Vec<HostLimits> {
        let ids = self.service_names().into_iter().map(|(id, _)| id);
        HostLimits::each(ids.filter_map(|id| self.service(id)))
    }

    /// The same of the TCP services on `port`. Where there is none the packets may come by another port that was
    /// translated, so it is those of all services then.
    pub fn host_limits_on(&self, port: u16) -> Vec<HostLimits> {
        let copy = self.control().copy(Control::SERVICES) as usize;
        let heads = self.ports.get(u32::from(port)).unwrap_or_default();
        let mut next = heads.tcp[copy];
        let chain = iter::from_fn(|| {
            let service = self.service(next).filter(|_| next != 0)?;
            next = service.next;
            Some(service)
        });
        let found: Vec<_> = chain.take(MAX_CHAIN as usize).collect();
        if found.is_empty() {
            return self.host_limits();
        }
        HostLimits::each(found.into_iter())
    }

    /// Forgets sources that have been idle for `idle`, and those under limits that are not in force any more. Returns
    /// how many.
    pub fn forget_idle(&self, idle: Duration) -> usize {
        let limits = self.host_limits();
        let now = gcra::now(self.clock.now());
        let most = gcra::now(self.clock.ticks(idle));
        self.forget(|salt, cells| {
            !limits.iter().any(|limits| limits.salt == salt)
                || cells.iter().all(|cell| gcra::idle(*cell, now) > most)
        })
    }

    /// Forgets every earned source.
    pub fn forget_earned(&self) -> usize {
        self.forget(|_, _| true)
    }

    /// Number of entries: a source has one under each set of limits.
    pub fn count_earned(&self) -> usize {
        self.entries_of_earned().count()
    }

    /// Entries that there is room for.
    pub fn earned_capacity(&self) -> usize {
        self.earned.len() as usize * (edge_common::abi::limit::EARNED_WORDS / EARNED_ENTRY)
    }

    /// Sources with exact state, once for each set of limits.
    pub fn list_earned(&self) -> impl Iterator<Item = IpAddr> {
        self.entries_of_earned()
            .map(|entry| EarnedHost(entry[0].load(Ordering::Relaxed)).addr().into())
    }

    fn entries_of_earned(&self) -> impl Iterator<Item = &[AtomicU64]> {
        (0..self.earned.len())
            .filter_map(|bucket| self.earned.words(bucket))
            .flat_map(|words| words.chunks_exact(EARNED_ENTRY))
            .filter(|entry| entry[0].load(Ordering::Acquire) != EarnedHost::FREE.0)
    }

    /// Forgets the entries that `ends` says, with the hints that no other entry needs.
    fn forget(&self, ends: impl Fn(u16, &[u64; EARNED_KINDS]) -> bool) -> usize {
        let mut count = 0;
        let mut stale: HashMap<u32, u64> = HashMap::new();
        for entry in self.entries_of_earned() {
            let cells = std::array::from_fn(|kind| entry[1 + kind].load(Ordering::Relaxed));
            if ends((cells[0] & gcra::TAG_MASK) as u16, &cells) {
                let (element, bit) = self.hint_of_earned(entry);
                *stale.entry(element).or_default() |= bit;
                entry[0].store(EarnedHost::FREE.0, Ordering::Release);
                count += 1;
            }
        }
        if count == 0 {
            return 0;
        }
        // Nobody who is left misses a bit, not for a moment: without it he would have another burst in the default tier.
        for entry in self.entries_of_earned() {
            let (element, bit) = self.hint_of_earned(entry);
            if let Some(bits) = stale.get_mut(&element) {
                *bits &= !bit;
            }
        }
        // Set again after that for whoever the program has added meanwhile.
        for (element, bits) in &stale {
            self.hints.clear_word_bits(*element, EARNED_WORD, *bits);
        }
        for entry in self.entries_of_earned() {
            let (element, bit) = self.hint_of_earned(entry);
            if stale.get(&element).is_some_and(|bits| bits & bit != 0) {
                self.hints.set_word_bits(element, EARNED_WORD, bit);
            }
        }
        count
    }

    fn hint_of_earned(&self, entry: &[AtomicU64]) -> (u32, u64) {
        let keys = EarnedHost(entry[0].load(Ordering::Relaxed)).keys(&self.params);
        (keys.element(&self.params), hint::bit(keys.host))
    }
}
