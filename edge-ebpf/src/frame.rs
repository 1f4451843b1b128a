//! `Frame` over the kernel's packet pointers.

use core::mem::MaybeUninit;

use aya_ebpf::{
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns},
    programs::XdpContext,
};
use edge_common::{abi::Addr, wire::Frame};

/// No header is looked for beyond this offset. The bound keeps an offset a small positive number for the
/// verifier, whatever header lengths it was added up from.
const MAX_OFFSET: u32 = 2_047;

/// The frame that an XDP program was called for.
#[derive(Clone, Copy)]
pub(crate) struct XdpFrame {
    data: usize,
    end: usize,
}

impl XdpFrame {
    #[inline(always)]
    pub(crate) fn new(ctx: &XdpContext) -> Self {
        Self {
            data: ctx.data(),
            end: ctx.data_end(),
        }
    }

    /// A pointer to a `T` at `offset`, if the frame holds all of it.
    #[inline(always)]
    fn at<T>(&self, offset: u32) -> Option<*const T> {
        if opaque(offset) > MAX_OFFSET {
            return None;
        }
        let start = self.data + offset as usize;
        if start + size_of::<T>() > self.end {
            None
        } else {
            Some(start as *const T)
        }
    }
}

/// Hides a number's origin from the optimiser, which would otherwise prove a range check away that the verifier
/// needs to see.
#[inline(always)]
pub(crate) fn opaque(mut offset: u32) -> u32 {
    // SAFETY: the statement assigns the register to itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) offset) };
    offset
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn len(&self) -> u32 {
        (self.end - self.data) as u32
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let start = self.at::<[u8; N]>(offset)?;
        // SAFETY: `at` checked that N bytes lie before the frame's end.
        Some(unsafe { start.read() })
    }

    #[inline(always)]
    fn u16_be(&self, offset: u32) -> Option<u16> {
        let start = self.at::<u16>(offset)?;
        // SAFETY: `at` checked the end. BPF loads need no alignment where the kernel has efficient unaligned
        // access, and header fields are aligned to their size once the network header is.
        Some(u16::from_be(unsafe { start.read_volatile() }))
    }

    #[inline(always)]
    fn word(&self, offset: u32) -> Option<u32> {
        let start = self.at::<u32>(offset)?;
        // SAFETY: as for `u16_be`.
        Some(unsafe { start.read_volatile() })
    }

    #[inline(always)]
    fn addr(&self, offset: u32) -> Option<Addr> {
        let start = self.at::<[u32; 4]>(offset)?.cast::<u32>();
        let mut words = [const { MaybeUninit::<u32>::uninit() }; 4];
        let [a, b, c, d] = &mut words;
        // SAFETY: `at` checked all 16 bytes; alignment as for `u16_be`. Each word is written before it is read.
        unsafe {
            a.write(start.read_volatile());
            b.write(start.add(1).read_volatile());
            c.write(start.add(2).read_volatile());
            d.write(start.add(3).read_volatile());
            Some(Addr([
                a.assume_init(),
                b.assume_init(),
                c.assume_init(),
                d.assume_init(),
            ]))
        }
    }
}

/// Writes jiffies and nanoseconds of the monotonic clock, 8 bytes each in native order, over the frame's start.
#[inline(always)]
pub(crate) fn write_clock(ctx: &XdpContext) {
    let start = ctx.data();
    if start + 16 > ctx.data_end() {
        return;
    }
    // SAFETY: the 16 bytes lie before the frame's end; the helpers only read clocks.
    unsafe {
        (start as *mut u64).write_volatile(bpf_jiffies64());
        ((start + 8) as *mut u64).write_volatile(bpf_ktime_get_ns());
    }
}
