//! Array maps mapped into memory: words that the program and user space share without a system call.
//!
//! The one place in user space that reads and writes BPF memory directly. Elements are accessed through
//! volatile or atomic operations only, since the program runs meanwhile; no reference to one is ever made.

use std::{
    marker::PhantomData,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::{Pod, maps::MapData};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::KernelError;

/// An array map of `T`, mapped read-write. The map must have been made with `BPF_F_MMAPABLE`.
#[derive(Debug)]
pub struct Mapped<T> {
    start: NonNull<u8>,
    bytes: usize,
    len: u32,
    _elements: PhantomData<T>,
}

// SAFETY: the mapping belongs to the process, not to a thread, and every access is volatile or atomic.
unsafe impl<T: Send> Send for Mapped<T> {}
// SAFETY: as above; no method hands out a reference to an element.
unsafe impl<T: Sync> Sync for Mapped<T> {}

impl<T: Pod> Mapped<T> {
    /// Bytes from one element to the next: the kernel rounds values up to 8 (kernel/bpf/arraymap.c).
    const STRIDE: usize = size_of::<T>().next_multiple_of(8);

    /// Maps `map` into memory.
    ///
    /// # Errors
    /// The map's values are not `T`-sized, or it cannot be mapped.
    pub fn new(map: &MapData) -> Result<Self, KernelError> {
        let info = map
            .info()
            .map_err(KernelError::map("reading a map's description"))?;
        let len = info.max_entries();
        if info.value_size() as usize != size_of::<T>() {
            return Err(KernelError::Unsupported(format!(
                "a pinned map has {}-byte values instead of {}; `breakwater detach` first",
                info.value_size(),
                size_of::<T>()
            )));
        }
        let bytes = (len as usize * Self::STRIDE).next_multiple_of(rustix::param::page_size());
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map.fd().as_fd(),
                0,
            )
        }
        .map_err(|error| KernelError::io("mapping a BPF array into memory")(error.into()))?;
        let start = NonNull::new(start.cast::<u8>()).ok_or_else(|| {
            KernelError::io("mapping a BPF array into memory")(std::io::ErrorKind::Other.into())
        })?;
        Ok(Self {
            start,
            bytes,
            len,
            _elements: PhantomData,
        })
    }

    /// Number of elements.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Element `index`, or `None` beyond the end.
    pub fn get(&self, index: u32) -> Option<T> {
        let element = self.element(index)?;
        // SAFETY: in bounds and aligned (the stride is a multiple of 8, the start of a page); `Pod` takes any bytes.
        Some(unsafe { element.cast::<T>().as_ptr().read_volatile() })
    }

    /// Writes element `index`; whether it exists.
    pub fn set(&self, index: u32, value: T) -> bool {
        let Some(element) = self.element(index) else {
            return false;
        };
        // SAFETY: as for `get`.
        unsafe { element.cast::<T>().as_ptr().write_volatile(value) };
        true
    }

    /// Word `word` of element `index`, loaded in one instant; 0 beyond the end.
    pub fn load_word(&self, index: u32, word: usize) -> u64 {
        self.word(index, word)
            .map_or(0, |word| word.load(Ordering::SeqCst))
    }

    /// Stores word `word` of element `index` in one instant, and in the order of the calls.
    pub fn store_word(&self, index: u32, word: usize, value: u64) {
        if let Some(word) = self.word(index, word) {
            word.store(value, Ordering::Release);
        }
    }

    /// Sets bits of a word atomically.
    pub fn set_word_bits(&self, index: u32, word: usize, bits: u64) {
        if let Some(word) = self.word(index, word) {
            word.fetch_or(bits, Ordering::SeqCst);
        }
    }

    /// Clears bits of a word atomically.
    pub fn clear_word_bits(&self, index: u32, word: usize, bits: u64) {
        if let Some(word) = self.word(index, word) {
            word.fetch_and(!bits, Ordering::SeqCst);
        }
    }

    fn word(&self, index: u32, word: usize) -> Option<&AtomicU64> {
        let element = self.element(index)?;
        if word >= Self::STRIDE / size_of::<u64>() {
            return None;
        }
        // SAFETY: within the element, whose stride is a multiple of 8 and whose start is 8-aligned; valid while the
        // mapping (so `self`) lives. The program writes the word with atomic or whole stores only.
        Some(unsafe { AtomicU64::from_ptr(element.cast::<u64>().as_ptr().add(word)) })
    }

    fn element(&self, index: u32) -> Option<NonNull<u8>> {
        if index >= self.len {
            return None;
        }
        // SAFETY: below `len * STRIDE`, which the mapping covers.
        Some(unsafe { self.start.add(index as usize * Self::STRIDE) })
    }
}

impl<const N: usize> Mapped<[u64; N]> {
    /// The words of element `index`, shared with the program.
    pub fn words(&self, index: u32) -> Option<&[AtomicU64; N]> {
        let element = self.element(index)?;
        // SAFETY: in bounds and 8-aligned; atomics may be shared, and are valid while the mapping (so `self`) lives.
        // The program accesses the words with atomic or whole operations only.
        Some(unsafe { element.cast::<[AtomicU64; N]>().as_ref() })
    }
}

impl Mapped<u64> {
    /// Sets bits of element `index` atomically.
    pub fn set_bits(&self, index: u32, bits: u64) {
        self.set_word_bits(index, 0, bits);
    }

    /// Clears bits of element `index` atomically.
    pub fn clear_bits(&self, index: u32, bits: u64) {
        self.clear_word_bits(index, 0, bits);
    }

    /// Adds to element `index` atomically.
    pub fn add(&self, index: u32, amount: u64) {
        if let Some(word) = self.word(index, 0) {
            word.fetch_add(amount, Ordering::SeqCst);
        }
    }

    /// Stores element `index` in one instant.
    pub fn store(&self, index: u32, value: u64) {
        self.store_word(index, 0, value);
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing borrowed from it outlives it.
        _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
