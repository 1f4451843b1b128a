//! Who is kept out by the gateway itself, because the kernel cannot do it: clients behind a proxy, clients that are to be
//! slowed down and not dropped, and everybody where there is no shield.
//!
//! The enforcer writes, every worker reads; nothing is locked. A fixed number of places, found by a seeded hash: when a
//! set of them is full, whoever would be free first is.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::score::host;

/// Places in a set.
const WAYS: usize = 8;
/// Sets: 65,536 clients in 1.5 MiB.
const SETS: usize = 8_192;

/// What becomes of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Custody {
    /// It is refused.
    Refused,
    /// Its open connections go on, new ones are refused.
    NewRefused,
    /// It gets a few requests a second.
    Slowed,
}

/// Bits of a time that say what becomes of the client; a time has 4 ns of precision left.
const KIND: u64 = 3;

#[derive(Debug, Default)]
struct Set {
    /// Seeded hash of the client; 0 is nobody.
    tags: [AtomicU64; WAYS],
    /// Until when, in nanoseconds since the beginning, with the custody in its lowest bits.
    until: [AtomicU64; WAYS],
    /// The time that requests of a slowed client have paid for (GCRA).
    paid: [AtomicU64; WAYS],
}

/// Everybody who is kept out.
#[derive(Debug)]
pub struct Detained {
    begun: Instant,
    hasher: RandomState,
    sets: Box<[Set]>,
    /// Nobody is kept out beyond it: most gateways never look further.
    latest: AtomicU64,
    /// Nanoseconds that one request of a slowed client pays for.
    interval: AtomicU64,
}

impl Detained {
    /// Nobody; `per_second` is what slowed clients get.
    pub fn new(begun: Instant, per_second: u32) -> Self {
        Self {
            begun,
            hasher: RandomState::new(),
            sets: std::iter::repeat_with(Set::default).take(SETS).collect(),
            latest: AtomicU64::new(0),
            interval: AtomicU64::new(interval(per_second)),
        }
    }

    /// Slowed clients get `per_second` from now on.
    pub fn configure(&self, per_second: u32) {
        self.interval.store(interval(per_second), Ordering::Relaxed);
    }

    fn at(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.begun).as_nanos()).unwrap_or(u64::MAX)
    }

    fn tag(&self, client: IpAddr) -> u64 {
        self.hasher.hash_one(host(client)).max(1)
    }

    fn find(&self, tag: u64) -> Option<(&Set, usize)> {
        let set = &self.sets[(tag >> 32) as usize % SETS];
        let way = set
            .tags
            .iter()
            .position(|own| own.load(Ordering::Acquire) == tag)?;
        Some((set, way))
    }

    /// Keeps a client out, longer than it was or otherwise than it was.
    pub fn put(&self, client: IpAddr, custody: Custody, now: Instant, duration: Duration) {
        let tag = self.tag(client);
        let until = self.at(now + duration) & !KIND | custody as u64;
        let (set, way) = self.find(tag).unwrap_or_else(|| {
            let set = &self.sets[(tag >> 32) as usize % SETS];
            let ends = |way: &usize| set.until[*way].load(Ordering::Relaxed);
            let way = (0..WAYS).min_by_key(ends).unwrap_or(0);
            set.until[way].store(0, Ordering::Relaxed);
            set.paid[way].store(0, Ordering::Relaxed);
            set.tags[way].store(tag, Ordering::Release);
            (set, way)
        });
        set.until[way].store(until, Ordering::Release);
        self.latest.fetch_max(until, Ordering::Release);
    }

    /// Lets a client go; whether it was kept out.
    pub fn lift(&self, client: IpAddr) -> bool {
        self.find(self.tag(client))
            .is_some_and(|(set, way)| set.until[way].swap(0, Ordering::AcqRel) != 0)
    }

    /// What becomes of a client.
    pub fn custody(&self, client: IpAddr, now: Instant) -> Option<Custody> {
        let now = self.at(now);
        if now >= self.latest.load(Ordering::Acquire) {
            return None;
        }
        let (set, way) = self.find(self.tag(client))?;
        let until = set.until[way].load(Ordering::Acquire);
        if now >= until & !KIND {
            return None;
        }
        Some(match until & KIND {
            1 => Custody::NewRefused,
            2 => Custody::Slowed,
            _ => Custody::Refused,
        })
    }

    /// Whether a request of a slowed client is within what it gets, which it then uses up.
    pub fn admits(&self, client: IpAddr, now: Instant) -> bool {
        let Some((set, way)) = self.find(self.tag(client)) else {
            return true;
        };
        let now = self.at(now);
        let paid = set.paid[way].load(Ordering::Relaxed);
        let interval = self.interval.load(Ordering::Relaxed);
        let next = paid.max(now).saturating_add(interval);
        // Another request of the same client at the same moment got it.
        next - now <= interval
            && set.paid[way]
                .compare_exchange(paid, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

fn interval(per_second: u32) -> u64 {
    1_000_000_000 / u64::from(per_second.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u32) -> IpAddr {
        IpAddr::V4((0xc633_6400 + number).into())
    }

    #[test]
    fn kept_out_until_the_end_or_until_lifted() {
        let begun = Instant::now();
        let detained = Detained::new(begun, 1);
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(detained.custody(client(1), at(0)), None);
        for (number, custody) in [
            (1, Custody::Refused),
            (2, Custody::NewRefused),
            (3, Custody::Slowed),
        ] {
            detained.put(client(number), custody, at(0), Duration::from_secs(10));
            assert_eq!(detained.custody(client(number), at(9)), Some(custody));
            assert_eq!(detained.custody(client(number), at(11)), None);
        }
        assert!(detained.lift(client(1)) && !detained.lift(client(1)) && !detained.lift(client(9)));
        assert_eq!(detained.custody(client(1), at(0)), None);
        detained.put(client(1), Custody::Slowed, at(20), Duration::from_secs(10));
        assert_eq!(
            detained.custody(client(1), at(21)),
            Some(Custody::Slowed),
            "again, otherwise"
        );
        // Hosts of one /64 are one client.
        detained.put(
            "2001:db8::1".parse().expect("v6"),
            Custody::Refused,
            at(0),
            Duration::from_mins(1),
        );
        assert!(
            detained
                .custody("2001:db8::2".parse().expect("v6"), at(1))
                .is_some()
        );
    }

    #[test]
    fn the_slowed_get_their_rate() {
        let begun = Instant::now();
        let detained = Detained::new(begun, 10);
        detained.put(client(1), Custody::Slowed, begun, Duration::from_mins(1));
        let passed = (0..1000_u64)
            .filter(|ms| detained.admits(client(1), begun + Duration::from_millis(*ms)))
            .count();
        assert_eq!(passed, 10);
        assert!(detained.admits(client(2), begun), "others are not slowed");
    }

    #[test]
    fn a_flood_of_clients_keeps_within_its_places() {
        let begun = Instant::now();
        let detained = Detained::new(begun, 1);
        for number in 0..200_000 {
            detained.put(
                client(number),
                Custody::Refused,
                begun,
                Duration::from_secs(u64::from(number) + 1),
            );
        }
        let held = (0..200_000).filter(|number| detained.custody(client(*number), begun).is_some());
        let (mut count, mut last) = (0, 0);
        for number in held {
            count += 1;
            last = last.max(number);
        }
        assert!(count <= SETS * WAYS && count > SETS * WAYS / 2, "{count}");
        assert_eq!(last, 199_999);
    }
}
