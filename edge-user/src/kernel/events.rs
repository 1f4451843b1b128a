//! The ring buffer of sampled drops, as the daemon reads it: one at a time takes samples out. Whoever else wants to see
//! them has a [`super::tap::Tap`].

use aya::maps::{Map, MapData, RingBuf};
use edge_common::abi::Event;
use tokio::io::unix::AsyncFd;

use super::{KernelError, Pins, pins::Lock, tables::open};

/// Reads samples.
pub struct EventReader {
    ring: AsyncFd<RingBuf<MapData>>,
    _lock: Option<Lock>,
}

impl EventReader {
    /// Opens the pinned ring buffer.
    ///
    /// # Errors
    /// Nothing is pinned, or it cannot be opened.
    pub fn open(pins: &Pins) -> Result<Self, KernelError> {
        let lock = pins.reader(true)?;
        let ring = RingBuf::try_from(Map::RingBuf(open(pins, "EVENTS")?))
            .map_err(KernelError::map("opening EVENTS"))?;
        // SAFETY: the ring buffer owns its file descriptor and answers with the same one as long as it lives.
        let ring = unsafe { AsyncFd::register(ring) }
            .map_err(|error| KernelError::io("polling EVENTS")(error.into()))?;
        Ok(Self { ring, _lock: lock })
    }

    /// Waits for samples and hands each to `take`, at most `most` of them.
    ///
    /// # Errors
    /// Polling fails.
    pub async fn read(&mut self, most: usize, mut take: impl FnMut(&Event)) -> Result<(), KernelError> {
        let mut ready = self
            .ring
            .readable_mut()
            .await
            .map_err(KernelError::io("polling EVENTS"))?;
        let ring = ready.get_inner_mut();
        for _ in 0..most {
            let Some(item) = ring.next() else {
                ready.clear_ready();
                return Ok(());
            };
            if let Some(event) = decode(&item) {
                take(&event);
            }
        }
        Ok(())
    }
}

/// An event from its bytes; `None` if the length is wrong.
fn decode(bytes: &[u8]) -> Option<Event> {
    if bytes.len() != size_of::<Event>() {
        return None;
    }
    // SAFETY: the length is that of `Event`, which is `Pod`: any bytes are a value, and no alignment is assumed.
    Some(unsafe { bytes.as_ptr().cast::<Event>().read_unaligned() })
}
