//! Who has gone too far: offences in, bans out. Pure: the time is an argument.
//!
//! A peer's last offences are kept as moments; when as many as the threshold lie within the window, the peer is to
//! be banned and starts anew. IPv6 peers are taken by their /64, since one host has all of it. Memory is bounded:
//! when it is full, who has been quiet for a window is forgotten, and if nobody has, new peers are not scored, so
//! that nobody can flood a score away.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::OffenceKind;
use crate::config::Offences;

/// Peers scored at once.
pub const MAX_PEERS: usize = 65_536;

/// Least time between two looks for peers to forget.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// Offences kept as evidence.
const EVIDENCE: usize = 4;

/// A ban that the scores call for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// The peer, or its /64.
    pub net: IpNet,
    /// How long.
    pub duration: Duration,
    /// How often it was banned before.
    pub repeats: u8,
    /// What it did last, in words.
    pub evidence: String,
}

/// Scores of all peers.
#[derive(Debug)]
pub struct Scores {
    settings: Offences,
    peers: HashMap<IpNet, Peer>,
    looked: Option<Duration>,
    unscored: u64,
}

#[derive(Debug, Default)]
struct Peer {
    /// Moments of the last offences, oldest first; at most the threshold.
    moments: VecDeque<Duration>,
    kinds: VecDeque<OffenceKind>,
}

impl Scores {
    /// No scores yet.
    pub fn new(settings: Offences) -> Self {
        Self {
            settings,
            peers: HashMap::new(),
            looked: None,
            unscored: 0,
        }
    }

    /// Takes note of an offence at `now` (any steady clock). `before` is how often the peer was banned already.
    ///
    /// Returns the ban that it calls for, if it does.
    pub fn note(
        &mut self,
        peer: IpAddr,
        kind: OffenceKind,
        now: Duration,
        before: impl FnOnce(&IpNet) -> u8,
    ) -> Option<Sentence> {
        if !kind.is_scored() || self.settings.exempt.iter().any(|net| net.contains(&peer)) {
            return None;
        }
        let net = host(peer);
        let window = self.settings.window;
        if !self.peers.contains_key(&net) && self.peers.len() >= MAX_PEERS {
            self.forget_quiet(now);
            if self.peers.len() >= MAX_PEERS {
                self.unscored = self.unscored.saturating_add(1);
                return None;
            }
        }
        let threshold = usize::try_from(self.settings.threshold.get()).unwrap_or(usize::MAX);
        let scored = self.peers.entry(net).or_default();
        scored.moments.push_back(now);
        scored.kinds.push_back(kind);
        if scored.kinds.len() > EVIDENCE {
            scored.kinds.pop_front();
        }
        while scored
            .moments
            .front()
            .is_some_and(|first| now.saturating_sub(*first) > window)
        {
            scored.moments.pop_front();
        }
        if scored.moments.len() < threshold {
            return None;
        }
        let evidence = scored.evidence(window);
        self.peers.remove(&net);
        let repeats = before(&net);
        Some(Sentence {
            net,
            duration: doubled(self.settings.ban, repeats).min(self.settings.max_ban),
            repeats,
            evidence,
        })
    }

    /// Forgets a peer's offences, as a pardon does.
    pub fn pardon(&mut self, net: &IpNet) {
        self.peers.retain(|peer, _| !net.contains(peer));
    }

    /// Offences that were not scored since the table was full.
    pub fn unscored(&self) -> u64 {
        self.unscored
    }

    /// Takes other settings; offences noted under the old ones count on.
    pub fn configure(&mut self, settings: Offences) {
        self.settings = settings;
    }

    /// Looks through the whole table, so not more often than every [`LOOK`]: new peers must not buy a scan each.
    fn forget_quiet(&mut self, now: Duration) {
        if self
            .looked
            .is_some_and(|looked| now.saturating_sub(looked) < LOOK)
        {
            return;
        }
        self.looked = Some(now);
        let window = self.settings.window;
        self.peers.retain(|_, peer| {
            peer.moments
                .back()
                .is_some_and(|last| now.saturating_sub(*last) <= window)
        });
    }
}

impl Peer {
    fn evidence(&self, window: Duration) -> String {
        let kinds: Vec<&str> = self.kinds.iter().map(|kind| kind.name()).collect();
        let last = kinds.last().copied().unwrap_or("nothing");
        let same = kinds.iter().all(|kind| *kind == last);
        let what = if same { last.to_owned() } else { kinds.join(", ") };
        format!(
            "{} offences within {}: {what}",
            self.moments.len(),
            humantime::format_duration(window)
        )
    }
}

/// A time that doubles with each repeat.
pub(super) fn doubled(first: Duration, repeats: u8) -> Duration {
    first.saturating_mul(1_u32.checked_shl(u32::from(repeats)).unwrap_or(u32::MAX))
}

/// The prefix that a peer is scored and banned by: IPv4 /32, IPv6 /64. A v4-mapped address is IPv4.
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
mod tests {
    //! Thresholds, windows, repeats and bounds.

    use std::num::NonZeroU32;

    use super::*;

    fn scores(threshold: u32) -> Scores {
        Scores::new(Offences {
            threshold: NonZeroU32::new(threshold).expect("not zero"),
            window: Duration::from_mins(1),
            ban: Duration::from_mins(1),
            max_ban: Duration::from_mins(10),
            exempt: vec!["192.0.2.0/24".parse().expect("a network")],
            ..Offences::default()
        })
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn peer(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_threshold_within_the_window_bans_and_starts_anew() {
        let mut scores = scores(3);
        let bad = peer("198.51.100.7");
        assert_eq!(scores.note(bad, OffenceKind::BadToken, at(0), |_| 0), None);
        assert_eq!(scores.note(bad, OffenceKind::BadToken, at(30), |_| 0), None);
        let sentence = scores
            .note(bad, OffenceKind::BadToken, at(60), |_| 0)
            .expect("banned");
        assert_eq!(sentence.net, "198.51.100.7/32".parse().expect("a network"));
        assert_eq!(sentence.duration, at(60));
        assert!(sentence.evidence.contains("3 offences") && sentence.evidence.contains("bad_token"));
        assert_eq!(scores.note(bad, OffenceKind::BadToken, at(60), |_| 0), None);
    }

    #[test]
    fn offences_spread_over_more_than_the_window_do_not() {
        let mut scores = scores(3);
        for minute in 0..100 {
            assert_eq!(
                scores.note(
                    peer("198.51.100.7"),
                    OffenceKind::Malformed,
                    at(minute * 31),
                    |_| 0
                ),
                None
            );
        }
    }

    #[test]
    fn each_repeat_doubles_up_to_the_maximum() {
        let mut scores = scores(1);
        let mut ban = |before| scores.note(peer("2001:db8::1"), OffenceKind::BadToken, at(1), |_| before);
        assert_eq!(ban(0).expect("banned").duration, at(60));
        assert_eq!(ban(1).expect("banned").duration, at(120));
        assert_eq!(ban(3).expect("banned").duration, at(480));
        assert_eq!(ban(200).expect("banned").duration, at(600));
    }

    #[test]
    fn hosts_of_one_64_share_a_score_and_mapped_addresses_are_v4() {
        let mut scores = scores(2);
        assert_eq!(
            scores.note(peer("2001:db8:1::1"), OffenceKind::BadToken, at(0), |_| 0),
            None
        );
        let sentence = scores.note(peer("2001:db8:1::ffff:2"), OffenceKind::BadToken, at(0), |_| 0);
        assert_eq!(
            sentence.expect("banned").net,
            "2001:db8:1::/64".parse().expect("a network")
        );
        assert_eq!(
            host(peer("::ffff:198.51.100.7")),
            "198.51.100.7/32".parse().expect("a network")
        );
    }

    #[test]
    fn what_honest_clients_do_bans_nobody() {
        let mut scores = scores(1);
        for kind in [
            OffenceKind::MissingToken,
            OffenceKind::Forbidden,
            OffenceKind::NoRoute,
        ] {
            assert_eq!(scores.note(peer("198.51.100.7"), kind, at(0), |_| 0), None);
        }
    }

    #[test]
    fn exempt_peers_are_never_scored() {
        let mut scores = scores(1);
        assert_eq!(
            scores.note(peer("192.0.2.1"), OffenceKind::Smuggling, at(0), |_| 0),
            None
        );
    }

    #[test]
    fn a_flood_of_peers_does_not_wash_a_score_away() {
        let mut scores = scores(2);
        let bad = peer("198.51.100.7");
        assert_eq!(scores.note(bad, OffenceKind::BadToken, at(10), |_| 0), None);
        for n in 0..(MAX_PEERS as u32 + 5_000) {
            let other = IpAddr::V4((0x0a00_0000 + n).into());
            assert_eq!(scores.note(other, OffenceKind::BadToken, at(11), |_| 0), None);
        }
        assert!(scores.unscored() >= 5_000);
        assert!(scores.note(bad, OffenceKind::BadToken, at(12), |_| 0).is_some());
    }
}
