//! Every frame that an interface sees, kept in memory.
//!
//! Invariant: bounded by [`MAX_FRAMES`]; what the kernel or the bound loses is counted, so that a test can tell "did not
//! come" from "was not kept".

use std::{
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Result;

use crate::{netns::Namespace, sender::PacketSocket, wait::within};

/// Most frames kept.
pub const MAX_FRAMES: usize = 100_000;

/// Receive buffer asked of the kernel, in bytes.
const BUFFER: usize = 16 << 20;

/// Which way a frame went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Received by the interface.
    In,
    /// Sent by the interface.
    Out,
}

/// A captured frame. A VLAN tag that the kernel has taken off is not among the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// Which way it went.
    pub direction: Direction,
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
}

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    frames: Mutex<Vec<Captured>>,
    lost: AtomicU64,
}

impl Capture {
    /// Starts to capture; frames that pass after the return of this function are seen.
    pub fn start(namespace: &Namespace, interface: &str) -> Result<Self> {
        let socket = PacketSocket::seeing(namespace, interface)?;
        // The larger buffer is a help, not a need.
        let _ = socket2::SockRef::from(socket.fd()).set_recv_buffer_size(BUFFER);
        socket2::SockRef::from(socket.fd()).set_read_timeout(Some(Duration::from_millis(50)))?;
        let shared = Arc::new(Shared::default());
        let thread = thread::spawn({
            let shared = shared.clone();
            move || receive(&socket, &shared)
        });
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// The number of frames so far for which `wanted` holds.
    pub fn count(&self, mut wanted: impl FnMut(&Captured) -> bool) -> usize {
        self.shared
            .frames
            .lock()
            .unwrap()
            .iter()
            .filter(|frame| wanted(frame))
            .count()
    }

    /// Waits for a frame for which `wanted` holds, among those already seen too.
    pub fn wait_for(&self, limit: Duration, mut wanted: impl FnMut(&Captured) -> bool) -> Option<Captured> {
        within(limit, || {
            self.shared
                .frames
                .lock()
                .unwrap()
                .iter()
                .find(|frame| wanted(frame))
                .cloned()
        })
    }

    /// Ends the capture and gives its frames in order.
    ///
    /// # Panics
    /// When frames were lost: a test that counts would be wrong.
    pub fn stop(mut self) -> Vec<Captured> {
        self.join();
        let lost = self.shared.lost.load(Ordering::Relaxed);
        assert_eq!(lost, 0, "the capture lost frames");
        std::mem::take(&mut self.shared.frames.lock().unwrap())
    }

    fn join(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.join();
    }
}

fn receive(socket: &PacketSocket, shared: &Shared) {
    let mut buffer = vec![0; 65_536];
    loop {
        // Read before the receive: what came before the stop is still taken.
        let stopping = shared.stop.load(Ordering::Relaxed);
        let flags = if stopping { libc::MSG_DONTWAIT } else { 0 };
        match receive_one(socket, &mut buffer, flags) {
            Some((direction, length)) => keep(
                shared,
                Captured {
                    direction,
                    bytes: buffer[..length].to_vec(),
                },
            ),
            None if stopping => break,
            None => {}
        }
    }
    shared
        .lost
        .fetch_add(u64::from(kernel_losses(socket)), Ordering::Relaxed);
}

fn keep(shared: &Shared, frame: Captured) {
    let mut frames = shared.frames.lock().unwrap();
    if frames.len() < MAX_FRAMES {
        frames.push(frame);
    } else {
        shared.lost.fetch_add(1, Ordering::Relaxed);
    }
}

fn receive_one(socket: &PacketSocket, buffer: &mut [u8], flags: i32) -> Option<(Direction, usize)> {
    // SAFETY: sockaddr_ll is plain data, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: buffer and address live until the call returns, and the lengths are their own.
    let received = unsafe {
        libc::recvfrom(
            socket.fd().as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            flags,
            std::ptr::from_mut(&mut address).cast(),
            &raw mut length,
        )
    };
    let received = usize::try_from(received).ok()?;
    let direction = if address.sll_pkttype == libc::PACKET_OUTGOING {
        Direction::Out
    } else {
        Direction::In
    };
    Some((direction, received))
}

/// `PACKET_STATISTICS` of packet(7).
fn kernel_losses(socket: &PacketSocket) -> u32 {
    let mut statistics = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let mut length = size_of_val(&statistics) as libc::socklen_t;
    // SAFETY: the structure lives until the call returns, and the length is its own.
    let result = unsafe {
        libc::getsockopt(
            socket.fd().as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            std::ptr::from_mut(&mut statistics).cast(),
            &raw mut length,
        )
    };
    if result == 0 { statistics.tp_drops } else { 0 }
}
