//! Whose connections were accepted: what the shield keeps exact state for.
//!
//! A worker tells of a peer once in a while, however many connections it opens, over a bounded queue. Telling takes no
//! lock, never waits and wakes nobody: the reader looks by itself. What finds the queue full is counted, and told with the
//! peer's next connection. The peer is who sends the packets: behind the PROXY protocol that is the proxy.

use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

/// Arrivals that may wait: what 40,000 new peers a second are between two looks.
pub const QUEUE: usize = 4_096;
/// How often the reader should look.
pub const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Peers that a worker remembers to have told of.
const REMEMBERED: usize = 4_096;
/// The longest that a worker remembers it.
const MAX_REPEAT: Duration = Duration::from_mins(1);

/// A peer whose handshake is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Where its packets come from.
    pub peer: IpAddr,
    /// The port of this machine that it connected to.
    pub port: u16,
}

/// The workers' end.
#[derive(Debug, Clone)]
pub struct Teller {
    queue: SyncSender<Arrival>,
    lost: Arc<AtomicU64>,
    repeat: Duration,
}

/// The reader's end.
#[derive(Debug)]
pub struct Arrivals {
    queue: Receiver<Arrival>,
}

/// Both ends. A peer that goes on connecting is told of again before `idle` is over, so that state which is forgotten after
/// that time comes back.
pub fn channel(idle: Duration) -> (Teller, Arrivals) {
    let (queue, arrivals) = sync_channel(QUEUE);
    let teller = Teller {
        queue,
        lost: Arc::default(),
        repeat: (idle / 2).min(MAX_REPEAT),
    };
    (teller, Arrivals { queue: arrivals })
}

impl Teller {
    /// Arrivals that found the queue full.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Whether there was room.
    fn tell(&self, arrival: Arrival) -> bool {
        let told = self.queue.try_send(arrival).is_ok();
        if !told {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        told
    }
}

impl Arrivals {
    /// What has arrived since the last call; at most [`QUEUE`]. Never waits.
    pub fn take(&self) -> impl Iterator<Item = Arrival> {
        self.queue.try_iter().take(QUEUE)
    }
}

/// What one worker knows of whom it has told. Never leaves its thread.
#[derive(Debug)]
pub(crate) struct Doorman {
    teller: Teller,
    hasher: RandomState,
    begun: Instant,
    known: Box<[Cell<Known>]>,
}

/// A peer that was told of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Known {
    host: u64,
    port: u16,
    /// Milliseconds since the worker began, and 1; 0 is nobody.
    at: u64,
}

impl Doorman {
    /// One that has told of nobody.
    pub(crate) fn new(teller: Teller, hasher: RandomState, begun: Instant) -> Self {
        Self {
            teller,
            hasher,
            begun,
            known: vec![Cell::default(); REMEMBERED].into(),
        }
    }

    /// Tells of a peer, unless that was done lately.
    pub(crate) fn arrived(&self, peer: IpAddr, port: u16, now: Instant) {
        let host = host(peer);
        let Some(cell) = self.known.get(self.place(host, port)) else {
            return;
        };
        let at = now.saturating_duration_since(self.begun).as_millis() as u64 + 1;
        let known = cell.get();
        let is_known = (known.host, known.port) == (host, port) && known.at != 0;
        if is_known && u128::from(at - known.at) < self.teller.repeat.as_millis() {
            return;
        }
        if self.teller.tell(Arrival { peer, port }) {
            cell.set(Known { host, port, at });
        }
    }

    /// Where a peer is remembered; whoever else comes to be remembered there takes the place.
    fn place(&self, host: u64, port: u16) -> usize {
        self.hasher.hash_one((host, port)) as usize % REMEMBERED
    }
}

/// What the shield takes for one source: an IPv4 address, an IPv6 /64.
fn host(peer: IpAddr) -> u64 {
    match peer.to_canonical() {
        // Where IPv6 has multicast addresses.
        IpAddr::V4(address) => 0xffff << 48 | u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(10);

    fn doorman() -> (Doorman, Arrivals, Instant) {
        let (teller, arrivals) = channel(IDLE);
        let now = Instant::now();
        (Doorman::new(teller, RandomState::new(), now), arrivals, now)
    }

    fn peers(arrivals: &Arrivals) -> Vec<(String, u16)> {
        let taken = arrivals.take();
        taken
            .map(|arrival| (arrival.peer.to_string(), arrival.port))
            .collect()
    }

    #[test]
    fn a_peer_is_told_of_once_in_a_while_and_for_each_port() {
        let peer = IpAddr::from([192, 0, 2, 1]);
        let apart = |doorman: &Doorman| doorman.place(host(peer), 80) != doorman.place(host(peer), 443);
        let seeds = std::iter::repeat_with(doorman);
        let (doorman, arrivals, now) = seeds.into_iter().find(|(doorman, ..)| apart(doorman)).unwrap();
        for _ in 0..1_000 {
            doorman.arrived(peer, 80, now);
        }
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        doorman.arrived(mapped, 80, now);
        assert_eq!(peers(&arrivals), [("192.0.2.1".to_owned(), 80)]);
        doorman.arrived(peer, 443, now);
        assert_eq!(peers(&arrivals), [("192.0.2.1".to_owned(), 443)]);
        doorman.arrived(peer, 80, now + IDLE * 49 / 100);
        assert_eq!(peers(&arrivals), []);
        doorman.arrived(peer, 443, now + IDLE / 2);
        assert_eq!(peers(&arrivals), [("192.0.2.1".to_owned(), 443)]);
    }

    #[test]
    fn the_addresses_of_an_ipv6_host_are_one_peer() {
        let (doorman, arrivals, now) = doorman();
        for address in ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"] {
            doorman.arrived(address.parse().unwrap(), 80, now);
        }
        let told = [("2001:db8::1".to_owned(), 80), ("2001:db8:0:1::1".to_owned(), 80)];
        assert_eq!(peers(&arrivals), told);
    }

    #[test]
    fn what_finds_no_room_is_counted_and_told_later() {
        let (doorman, arrivals, now) = doorman();
        let filler = doorman.teller.clone();
        let peer = IpAddr::from([192, 0, 2, 1]);
        let other = Arrival {
            peer: IpAddr::from([192, 0, 2, 2]),
            port: 80,
        };
        while filler.tell(other) {}
        assert_eq!(filler.lost(), 1);
        doorman.arrived(peer, 80, now);
        assert_eq!(filler.lost(), 2);
        assert_eq!(arrivals.take().filter(|taken| *taken == other).count(), QUEUE);
        doorman.arrived(peer, 80, now);
        assert_eq!(peers(&arrivals), [("192.0.2.1".to_owned(), 80)]);
    }
}
