//! Sampled drops, as they travel through the ring buffer.

use super::{Addr, assert_layout};

/// Bytes of the packet that a sample carries.
pub const SNAPSHOT_BYTES: usize = 128;

/// One sampled packet. Written by the program, read by the daemon; 192 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// Tick at which it was taken.
    pub tick: u64,
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port, host order; 0 where there is none.
    pub sport: u16,
    /// Destination port, host order; 0 where there is none.
    pub dport: u16,
    /// Bytes of the frame.
    pub len: u32,
    /// Interface it arrived on.
    pub ifindex: u32,
    /// Identifier of the service that judged it.
    pub service: u16,
    /// [`super::Reason`].
    pub reason: u8,
    /// IP protocol.
    pub protocol: u8,
    /// Bytes of `snapshot` that are valid.
    pub captured: u16,
    /// 1 if the packet was only observed, and passed.
    pub observed: u8,
    /// Zero.
    pub reserved: [u8; 5],
    /// The first bytes of the frame.
    pub snapshot: [u8; SNAPSHOT_BYTES],
}
assert_layout!(Event, size = 192, align = 8);
