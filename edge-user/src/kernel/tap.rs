//! Looks into the ring buffer of sampled drops without taking anything from its reader.
//!
//! The kernel lets any process that may open the map look at the buffer's pages; only the *reader's position* makes
//! room for new samples. So a tap keeps a position of its own, and any number of them see every sample beside the
//! daemon. What is overwritten before a tap has looked at it is counted ([`Tap::missed`]), exactly, since positions
//! count bytes and all samples are of one size.
//!
//! Where no daemon reads, the buffer would fill up and stay full. Then whichever tap gets the reader's lock
//! ([`Pins::reader`]) moves the reader's position up to what it has seen itself. The lock is held for that moment
//! only: a daemon that starts waits for it, and taps then find it taken.
//!
//! Layout and protocol: kernel/bpf/ringbuf.c. The second place in user space, beside `mapped.rs`, that reads BPF
//! memory; every access to a position is atomic, every other a copy that is checked afterwards.

use std::{
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering, fence},
};

use aya::maps::MapData;
use edge_common::abi::Event;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::{KernelError, Pins, tables::open};

/// Bytes before each sample: its length and the distance to the buffer's start (`struct bpf_ringbuf_hdr`).
const HEADER: u64 = 8;
/// Set in the length of a sample that is still being written (include/uapi/linux/bpf.h, `BPF_RINGBUF_BUSY_BIT`).
const BUSY: u32 = 1 << 31;
/// Set in the length of a sample that was given up.
const DISCARDED: u32 = 1 << 30;
/// Bytes from one sample to the next.
const STRIDE: u64 = HEADER + size_of::<Event>() as u64;
/// How near to being overwritten a sample is no longer trusted: the kernel writes a sample's header before it moves
/// its position, and other processors may see later writes before that move.
const MARGIN: u64 = 64 * STRIDE;

/// A reader that takes nothing.
#[derive(Debug)]
pub struct Tap {
    pins: Pins,
    reader: Mapping,
    writer: Mapping,
    bytes: u64,
    page: usize,
    at: u64,
    missed: u64,
}

impl Tap {
    /// Opens the pinned ring buffer; samples from now on are seen.
    ///
    /// # Errors
    /// Nothing is pinned, or it cannot be opened or mapped.
    pub fn open(pins: &Pins) -> Result<Self, KernelError> {
        let map = open(pins, "EVENTS")?;
        let bytes = map
            .info()
            .map_err(KernelError::map("describing EVENTS"))?
            .max_entries();
        let page = rustix::param::page_size();
        // The data pages are mapped twice in a row, so that a sample never wraps.
        let reader = Mapping::new(&map, 0, page, ProtFlags::READ | ProtFlags::WRITE)?;
        let writer = Mapping::new(&map, page as u64, page + 2 * bytes as usize, ProtFlags::READ)?;
        let mut tap = Self {
            pins: pins.clone(),
            reader,
            writer,
            bytes: bytes.into(),
            page,
            at: 0,
            missed: 0,
        };
        tap.at = tap.end();
        Ok(tap)
    }

    /// Hands over the samples that have come since the last time, at most `most`.
    ///
    /// # Errors
    /// The reader's lock cannot be asked for.
    pub fn read(&mut self, most: usize, mut take: impl FnMut(&Event)) -> Result<(), KernelError> {
        for _ in 0..most {
            match self.next() {
                Next::Nothing => break,
                Next::Sample(event) => take(&event),
                Next::Skipped => {}
            }
        }
        self.make_room()
    }

    /// Samples that were overwritten before they were looked at.
    pub const fn missed(&self) -> u64 {
        self.missed
    }

    fn next(&mut self) -> Next {
        let end = self.end();
        if self.is_lost(end) {
            let keep = end.saturating_sub(self.bytes / 2);
            // To the next sample's start: positions are multiples of the one size that there is.
            let skipped = keep.saturating_sub(self.at).div_ceil(STRIDE);
            self.missed += skipped;
            self.at += skipped * STRIDE;
        }
        if self.at >= end {
            return Next::Nothing;
        }
        let length = self.header();
        if length & BUSY != 0 {
            return Next::Nothing;
        }
        let event = self.copy();
        // Looked at again after the copy: what was overwritten meanwhile is not believed.
        fence(Ordering::Acquire);
        if self.is_lost(self.end()) {
            return Next::Skipped;
        }
        let (is_whole, length) = (length & DISCARDED == 0, length & !(BUSY | DISCARDED));
        self.at += HEADER + u64::from(length).next_multiple_of(8);
        if is_whole && length as usize == size_of::<Event>() {
            Next::Sample(Box::new(event))
        } else {
            Next::Skipped
        }
    }

    /// Whether the sample at our position may be overwritten while the kernel's position is `end`: only what the reader
    /// has left behind ever is.
    fn is_lost(&self, end: u64) -> bool {
        end.saturating_sub(self.at) > self.bytes.saturating_sub(MARGIN)
            && self.reader.position().load(Ordering::Acquire) > self.at
    }

    /// Moves the reader's position up to ours, if nobody else reads.
    fn make_room(&self) -> Result<(), KernelError> {
        let read = self.reader.position();
        if read.load(Ordering::Acquire) >= self.at {
            return Ok(());
        }
        if let Some(_lock) = self.pins.reader(false)?
            && read.load(Ordering::Acquire) < self.at
        {
            read.store(self.at, Ordering::Release);
        }
        Ok(())
    }

    /// The kernel's position: the end of what was reserved so far.
    fn end(&self) -> u64 {
        self.writer.position().load(Ordering::Acquire)
    }

    fn header(&self) -> u32 {
        // SAFETY: in bounds, since an offset below the buffer's size lies in its first mapping; 8-aligned.
        let header = unsafe { self.data().cast::<u64>().as_ptr().read_volatile() };
        // Little-endian or not, the length is the first of the two words.
        let [a, b, c, d, ..] = header.to_ne_bytes();
        u32::from_ne_bytes([a, b, c, d])
    }

    fn copy(&self) -> Event {
        // SAFETY: header and sample end within the second mapping of the data; `Event` is plain integers, so any
        // bytes are one, also bytes that are being overwritten, which the caller finds out and discards.
        unsafe {
            self.data()
                .add(HEADER as usize)
                .cast::<Event>()
                .as_ptr()
                .read_volatile()
        }
    }

    /// Where our position lies in the mapping.
    fn data(&self) -> NonNull<u8> {
        let offset = self.page + (self.at & (self.bytes - 1)) as usize;
        // SAFETY: below one page and the buffer's size, which the mapping covers twice.
        unsafe { self.writer.start.add(offset) }
    }
}

/// What lies at a tap's position.
enum Next {
    Nothing,
    Sample(Box<Event>),
    Skipped,
}

/// Pages of the map. They begin with a position.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is accessed atomically or by checked copies.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(map: &MapData, offset: u64, bytes: usize, rights: ProtFlags) -> Result<Self, KernelError> {
        let refused = KernelError::io("mapping EVENTS into memory");
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                bytes,
                rights,
                MapFlags::SHARED,
                map.fd().as_fd(),
                offset,
            )
        };
        match start.map(|start| NonNull::new(start.cast::<u8>())) {
            Ok(Some(start)) => Ok(Self { start, bytes }),
            Ok(None) => Err(refused(std::io::ErrorKind::Other.into())),
            Err(error) => Err(refused(error.into())),
        }
    }

    /// The position at the start of the pages, in bytes since the map was made.
    fn position(&self) -> &AtomicU64 {
        // SAFETY: the page is mapped while `self` lives, its start is aligned, and kernel and user space write the
        // position whole. It is a kernel `unsigned long`: 64 bits, as the supported machines have.
        unsafe { AtomicU64::from_ptr(self.start.cast::<u64>().as_ptr()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing borrowed from it outlives it.
        _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
