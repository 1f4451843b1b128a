//! How many connections are open, in total and by peer, and who may open another.
//!
//! Asked once per connection, never per request. The locks are sharded by peer and held for one map operation.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

const SHARDS: usize = 64;

/// Why a connection was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnedAway {
    /// The gateway is full.
    Full,
    /// The peer has as many as it may.
    Peer,
}

/// Counts of open connections.
#[derive(Debug, Clone)]
pub struct Connections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    open: AtomicUsize,
    limit: AtomicUsize,
    per_peer: AtomicUsize,
    peers: [Mutex<HashMap<IpAddr, usize>>; SHARDS],
    hasher: RandomState,
}

/// One open connection; it is counted until this is dropped.
#[derive(Debug)]
pub struct Slot {
    connections: Connections,
    client: Option<IpAddr>,
}

impl Connections {
    /// Room for `limit` connections, `per_peer` of one address.
    pub fn new(limit: usize, per_peer: usize) -> Self {
        Self(Arc::new(Inner {
            open: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
            per_peer: AtomicUsize::new(per_peer),
            peers: std::array::from_fn(|_| Mutex::new(HashMap::new())),
            hasher: RandomState::new(),
        }))
    }

    /// Room for so many from now on; nobody who is in is turned out.
    pub fn resize(&self, limit: usize, per_peer: usize) {
        self.0.limit.store(limit, Ordering::Relaxed);
        self.0.per_peer.store(per_peer, Ordering::Relaxed);
    }

    /// Counts a connection of a client that is not known yet, if there is room.
    pub fn open_one(&self) -> Result<Slot, TurnedAway> {
        if self.0.open.fetch_add(1, Ordering::Relaxed) >= self.0.limit.load(Ordering::Relaxed) {
            self.0.open.fetch_sub(1, Ordering::Relaxed);
            return Err(TurnedAway::Full);
        }
        Ok(Slot {
            connections: self.clone(),
            client: None,
        })
    }

    /// Counts a connection of `client`, if there is room.
    pub fn open_for(&self, client: IpAddr) -> Result<Slot, TurnedAway> {
        let mut slot = self.open_one()?;
        slot.count_for(client)?;
        Ok(slot)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    fn shard(&self, peer: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        let at = self.0.hasher.hash_one(peer) as usize % SHARDS;
        // A count is right even if a holder of the lock panicked: it is changed in one step.
        self.0.peers[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Counts it for `client` from now on, if that may have another; once for each slot.
    pub fn count_for(&mut self, client: IpAddr) -> Result<(), TurnedAway> {
        let client = client.to_canonical();
        let mut peers = self.connections.shard(client);
        let count = peers.entry(client).or_insert(0);
        if *count >= self.connections.0.per_peer.load(Ordering::Relaxed) {
            return Err(TurnedAway::Peer);
        }
        *count += 1;
        drop(peers);
        self.client = Some(client);
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connections.0.open.fetch_sub(1, Ordering::Relaxed);
        let Some(client) = self.client else { return };
        let mut peers = self.connections.shard(client);
        if let Some(count) = peers.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                peers.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_in_total_and_by_peer() {
        let connections = Connections::new(3, 2);
        let [one, other] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
        let held = connections.open_for(one).expect("room");
        let second = connections.open_for(one).expect("room");
        assert_eq!(connections.open_for(one).err(), Some(TurnedAway::Peer));
        let mapped = "::ffff:192.0.2.1".parse().expect("an address");
        assert_eq!(connections.open_for(mapped).err(), Some(TurnedAway::Peer));
        let third = connections.open_for(other).expect("room");
        assert_eq!(connections.open_for(other).err(), Some(TurnedAway::Full));
        drop((held, second, third));
        assert_eq!(connections.open(), 0);
        assert!(
            connections
                .0
                .peers
                .iter()
                .all(|shard| shard.lock().expect("not poisoned").is_empty())
        );
    }
}
