//! Who has gone too far: offences in, bans out. Pure: the time is an argument.
//!
//! An offence adds its weight to its client's score, and a score halves with every half-life. When it reaches the
//! threshold, the client is to be banned and starts anew. IPv6 clients are taken by their /64, since one host has all of
//! it. Memory is bounded: when it is full, whose score has faded is forgotten, and if nobody's has, new clients are not
//! scored, so that nobody can flood a score away.

use std::{
    collections::HashMap,
    fmt::Write as _,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{OffenceKind, networks::Networks};
use crate::config::Offences;

/// Clients scored at once.
pub const MAX_PEERS: usize = 65_536;

/// Least time between two looks for clients to forget.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// Offences kept one by one as evidence.
const EVIDENCE: usize = 4;

/// A point, in the unit of weights and scores.
const POINT: f64 = 1000.0;

/// A ban that the scores call for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// The client, or its /64.
    pub net: IpNet,
    /// How long.
    pub duration: Duration,
    /// How often it was banned before.
    pub repeats: u8,
    /// What it did last, in words.
    pub evidence: String,
}

/// Scores of all clients.
#[derive(Debug)]
pub struct Scores {
    settings: Offences,
    exempt: Networks,
    peers: HashMap<IpNet, Peer>,
    looked: Option<Duration>,
    unscored: u64,
}

#[derive(Debug)]
struct Peer {
    score: Score,
    begun: Duration,
    counts: [u16; OffenceKind::COUNT],
    /// The last offences, oldest first.
    last: [Option<(OffenceKind, Duration)>; EVIDENCE],
}

/// A score that fades, in thousandths of a point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    value: f64,
    at: Duration,
}

impl Score {
    /// Nothing yet.
    pub const fn new(at: Duration) -> Self {
        Self { value: 0.0, at }
    }

    /// What is left of it at `now`, in thousandths of a point. A clock that went back takes nothing away.
    pub fn value(&self, now: Duration, half_life: Duration) -> f64 {
        let age = now.saturating_sub(self.at).as_secs_f64();
        self.value * (-age / half_life.as_secs_f64().max(f64::MIN_POSITIVE)).exp2()
    }

    /// Adds a weight at `now`.
    pub fn add(&mut self, weight: u32, now: Duration, half_life: Duration) {
        self.value = self.value(now, half_life) + f64::from(weight);
        self.at = now.max(self.at);
    }

    /// Whether it comes to this many points, rounded: an attack that takes seconds is not to be ahead by a fraction.
    pub fn reaches(&self, points: u32, now: Duration, half_life: Duration) -> bool {
        (self.value(now, half_life) / POINT).round() >= f64::from(points)
    }
}

impl Scores {
    /// No scores yet.
    pub fn new(settings: Offences) -> Self {
        Self {
            exempt: settings.exempt.iter().copied().collect(),
            settings,
            peers: HashMap::new(),
            looked: None,
            unscored: 0,
        }
    }

    /// Takes note of an offence at `now` (any steady clock). `before` is how often the client was banned already.
    ///
    /// Returns the ban that it calls for, if it does.
    pub fn note(
        &mut self,
        peer: IpAddr,
        kind: OffenceKind,
        now: Duration,
        before: impl FnOnce(&IpNet) -> u8,
    ) -> Option<Sentence> {
        let weight = kind.weight(&self.settings.weights);
        if weight == 0 || self.exempt.contains(peer) {
            return None;
        }
        let net = host(peer);
        let half_life = self.settings.half_life;
        if !self.peers.contains_key(&net) && self.peers.len() >= MAX_PEERS {
            self.forget_faded(now);
            if self.peers.len() >= MAX_PEERS {
                self.unscored = self.unscored.saturating_add(1);
                return None;
            }
        }
        let scored = self.peers.entry(net).or_insert_with(|| Peer::new(now));
        scored.note(kind, weight, now, half_life);
        if !scored
            .score
            .reaches(self.settings.threshold.get(), now, half_life)
        {
            return None;
        }
        let evidence = scored.evidence(now, half_life);
        self.peers.remove(&net);
        let repeats = before(&net);
        Some(Sentence {
            net,
            duration: doubled(self.settings.ban, repeats).min(self.settings.max_ban),
            repeats,
            evidence,
        })
    }

    /// Forgets a client's offences, as a pardon does.
    pub fn pardon(&mut self, net: &IpNet) {
        self.peers.retain(|peer, _| !net.contains(peer));
    }

    /// Offences that were not scored since the table was full.
    pub fn unscored(&self) -> u64 {
        self.unscored
    }

    /// Takes other settings; scores made under the old ones count on.
    pub fn configure(&mut self, settings: Offences) {
        self.exempt = settings.exempt.iter().copied().collect();
        self.settings = settings;
    }

    /// Looks through the whole table, so not more often than every [`LOOK`]: new clients must not buy a scan each.
    fn forget_faded(&mut self, now: Duration) {
        if self
            .looked
            .is_some_and(|looked| now.saturating_sub(looked) < LOOK)
        {
            return;
        }
        self.looked = Some(now);
        let half_life = self.settings.half_life;
        self.peers
            .retain(|_, peer| peer.score.value(now, half_life) * 2.0 >= POINT);
    }
}

impl Peer {
    fn new(now: Duration) -> Self {
        Self {
            score: Score::new(now),
            begun: now,
            counts: [0; OffenceKind::COUNT],
            last: [None; EVIDENCE],
        }
    }

    fn note(&mut self, kind: OffenceKind, weight: u32, now: Duration, half_life: Duration) {
        if self.score.value(now, half_life) * 2.0 < POINT {
            // What faded is no evidence of what comes now.
            self.counts = [0; OffenceKind::COUNT];
            self.begun = now;
        }
        self.score.add(weight, now, half_life);
        let count = &mut self.counts[kind.index()];
        *count = count.saturating_add(1);
        self.last.rotate_left(1);
        self.last[EVIDENCE - 1] = Some((kind, now));
    }

    /// The score, what it is made of, and the last offences with their age.
    fn evidence(&self, now: Duration, half_life: Duration) -> String {
        let whole =
            |time: Duration| humantime::format_duration(Duration::from_secs(time.as_secs())).to_string();
        let points = (self.score.value(now, half_life) / POINT).round();
        let mut text = format!("{points} points in {}:", whole(now.saturating_sub(self.begun)));
        let mut kinds: Vec<_> = OffenceKind::ALL
            .iter()
            .map(|kind| (self.counts[kind.index()], kind.name()))
            .filter(|(count, _)| *count > 0)
            .collect();
        kinds.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        for (position, (count, name)) in kinds.iter().enumerate() {
            let comma = if position > 0 { "," } else { "" };
            let _ = write!(text, "{comma} {count} {name}");
        }
        if kinds.len() > 1 {
            text.push_str("; last");
            for (kind, at) in self.last.iter().rev().flatten() {
                let _ = write!(text, " {} -{}", kind.name(), whole(now.saturating_sub(*at)));
            }
        }
        text
    }
}

/// A time that doubles with each repeat.
pub(super) fn doubled(first: Duration, repeats: u8) -> Duration {
    first.saturating_mul(1_u32.checked_shl(u32::from(repeats)).unwrap_or(u32::MAX))
}

/// The prefix that a client is scored and banned by: IPv4 /32, IPv6 /64. A v4-mapped address is IPv4.
pub fn host(peer: IpAddr) -> IpNet {
    match peer.to_canonical() {
        IpAddr::V4(v4) => IpNet::V4(Ipv4Net::from(v4)),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            let network = Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0);
            IpNet::V6(Ipv6Net::new(network, 64).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests;
