//! Raw frames out of an interface, in batches, bounded by number, time and rate.
//!
//! Invariant: no load without a bound. Every [`Bounds`] names the most frames and the longest time, and a background
//! flood stops when its handle is dropped.

use std::{
    io::{self, IoSlice},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, netdevice::name_to_index, sendmmsg};

use crate::{lab::Host, netns::Namespace, wait::eventually};

/// Frames handed to the kernel in one call.
const BATCH: usize = 32;

/// `ETH_P_ALL` of linux/if_ether.h.
pub(crate) const EVERY_PROTOCOL: u16 = 3;

/// An `AF_PACKET` socket bound to one interface.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
}

/// How much to send at most.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Frames in total.
    pub frames: u64,
    /// Time from the first frame.
    pub time: Duration,
    /// Frames a second.
    pub rate: u32,
}

impl PacketSocket {
    /// A socket that only sends.
    pub fn sending(namespace: &Namespace, interface: &str) -> Result<Self> {
        Self::open(namespace, interface, 0)
    }

    /// A socket that also sees every frame that comes and goes.
    pub(crate) fn seeing(namespace: &Namespace, interface: &str) -> Result<Self> {
        Self::open(namespace, interface, EVERY_PROTOCOL)
    }

    fn open(namespace: &Namespace, interface: &str, protocol: u16) -> Result<Self> {
        namespace.enter(|| {
            // Made with protocol 0, the socket sees nothing until it is bound to its interface.
            // SAFETY: a system call without pointers; the descriptor it gives is owned by nobody else.
            let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
            if fd < 0 {
                return Err(io::Error::last_os_error()).context("opening a packet socket");
            }
            // SAFETY: as above.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            let index = name_to_index(&fd, interface).with_context(|| format!("interface {interface}"))?;
            let address = libc::sockaddr_ll {
                sll_family: libc::AF_PACKET as u16,
                sll_protocol: protocol.to_be(),
                sll_ifindex: index.cast_signed(),
                sll_hatype: 0,
                sll_pkttype: 0,
                sll_halen: 0,
                sll_addr: [0; 8],
            };
            // SAFETY: the address lives until the call returns, and the length is its own.
            let bound = unsafe {
                libc::bind(
                    fd.as_raw_fd(),
                    std::ptr::from_ref(&address).cast(),
                    size_of_val(&address) as libc::socklen_t,
                )
            };
            if bound < 0 {
                return Err(io::Error::last_os_error()).with_context(|| format!("binding to {interface}"));
            }
            Ok(Self { fd })
        })
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.send_batch(&[frame]).map(drop)
    }

    /// Sends frames, a batch a call; gives how many the interface took. A full queue ends the batch without
    /// an error, as it would lose packets on a wire.
    pub fn send_batch(&self, frames: &[impl AsRef<[u8]>]) -> io::Result<usize> {
        let mut sent = 0;
        for chunk in frames.chunks(BATCH) {
            let slices: Vec<_> = chunk.iter().map(|frame| [IoSlice::new(frame.as_ref())]).collect();
            let mut controls: Vec<_> = chunk.iter().map(|_| SendAncillaryBuffer::default()).collect();
            let mut messages: Vec<_> = slices
                .iter()
                .zip(&mut controls)
                .map(|(slice, control)| MMsgHdr::new(slice, control))
                .collect();
            match sendmmsg(&self.fd, &mut messages, SendFlags::empty()) {
                Ok(count) => sent += count,
                Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(sent)
    }

    /// Sends what `next` makes until a bound is met or `stop` is set; gives the number of frames taken.
    fn run(
        &self,
        bounds: Bounds,
        stop: &AtomicBool,
        sent: &AtomicU64,
        mut next: impl FnMut(u64) -> Vec<u8>,
    ) -> io::Result<u64> {
        let start = Instant::now();
        let mut made = 0;
        while made < bounds.frames && start.elapsed() < bounds.time && !stop.load(Ordering::Relaxed) {
            let elapsed_micros = start.elapsed().as_micros() as u64;
            let due = elapsed_micros.saturating_mul(bounds.rate.into()) / 1_000_000 + 1;
            let batch = due
                .saturating_sub(made)
                .min(BATCH as u64)
                .min(bounds.frames - made);
            if batch == 0 {
                thread::sleep(Duration::from_micros(500));
                continue;
            }
            let frames: Vec<_> = (made..made + batch).map(&mut next).collect();
            made += batch;
            sent.fetch_add(self.send_batch(&frames)? as u64, Ordering::Relaxed);
        }
        Ok(sent.load(Ordering::Relaxed))
    }
}

/// A flood that runs beside the test until it is stopped, dropped or out of bounds.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<io::Result<u64>>>,
}

impl Flood {
    /// Starts a flood of what `next` makes; its argument is the frame's number.
    pub fn start(host: &Host, bounds: Bounds, next: impl FnMut(u64) -> Vec<u8> + Send + 'static) -> Self {
        let socket =
            PacketSocket::sending(&host.namespace, host.interface).expect("a host has its interface");
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = thread::spawn({
            let (stop, sent) = (stop.clone(), sent.clone());
            move || socket.run(bounds, &stop, &sent, next)
        });
        Self {
            stop,
            sent,
            thread: Some(thread),
        }
    }

    /// Frames sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until this many frames were sent.
    #[track_caller]
    pub fn wait_for(&self, frames: u64) {
        eventually(format_args!("a flood to reach {frames} frames"), || {
            (self.sent() >= frames).then_some(())
        });
    }

    /// Stops it and gives the number of frames sent.
    pub fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    /// Waits for its bounds and gives the number of frames sent.
    pub fn finish(mut self) -> u64 {
        self.join()
    }

    fn join(&mut self) -> u64 {
        let thread = self.thread.take().expect("a flood is joined once");
        thread
            .join()
            .expect("a flood does not panic")
            .expect("the interface takes frames")
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
