//! `Frame` over the kernel's packet pointers.

use core::intrinsics::is_val_statically_known;

use aya_ebpf::{
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns},
    programs::XdpContext,
};
use edge_common::{
    abi::Addr,
    datapath::Arrival,
    wire::{Frame, View},
};

/// The loopback interface has index 1 in every network namespace (net/core/dev.c, `LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

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
}

/// Hides a number's origin from the optimiser, which would otherwise prove a range check away that the verifier
/// needs to see.
#[inline(always)]
pub(crate) fn opaque(mut offset: u32) -> u32 {
    // SAFETY: the statement assigns the register to itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) offset) };
    offset
}

/// The same for an address.
#[inline(always)]
pub(crate) fn opaque_pointer(mut address: usize) -> usize {
    // SAFETY: the statement assigns the register to itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) address) };
    address
}

/// The arrival of the frame that an XDP program was called for.
pub(crate) struct XdpArrival<'c>(pub(crate) &'c XdpContext);

impl Arrival for XdpArrival<'_> {
    #[inline(always)]
    fn tick(&self) -> u64 {
        // SAFETY: the helper takes nothing and only reads a counter; the verifier inlines it.
        unsafe { bpf_jiffies64() }
    }

    #[inline(always)]
    fn external(&self) -> bool {
        self.0.ingress_ifindex() as u32 != LOOPBACK
    }
}

impl Frame for XdpFrame {
    type View<const N: usize> = XdpView<N>;

    #[inline(always)]
    fn len(&self) -> u32 {
        (self.end - self.data) as u32
    }

    #[inline(always)]
    fn view<const N: usize>(&self, offset: u32) -> Option<XdpView<N>> {
        if !is_val_statically_known(offset) && opaque(offset) > MAX_OFFSET {
            return None;
        }
        let start = self.data + offset as usize;
        // The sum must stay a sum: folded into a comparison of `start`, the verifier learns nothing from it.
        if opaque_pointer(start + N) > self.end {
            None
        } else {
            Some(XdpView(start))
        }
    }
}

/// `N` bytes of the frame, at this address.
pub(crate) struct XdpView<const N: usize>(usize);

impl<const N: usize> XdpView<N> {
    #[inline(always)]
    fn read<T: Default>(&self, at: usize) -> T {
        if at + size_of::<T>() > N {
            return T::default();
        }
        // SAFETY: within the N bytes that `view` checked. BPF loads need no alignment where the kernel has
        // efficient unaligned access, and header fields are aligned once the network header is. Volatile, since
        // the compiler would split a load that it believes unaligned.
        unsafe { ((self.0 + at) as *const T).read_volatile() }
    }
}

impl<const N: usize> View for XdpView<N> {
    #[inline(always)]
    fn u8(&self, at: usize) -> u8 {
        self.read(at)
    }

    #[inline(always)]
    fn u16_be(&self, at: usize) -> u16 {
        u16::from_be(self.read(at))
    }

    #[inline(always)]
    fn word(&self, at: usize) -> u32 {
        self.read(at)
    }

    #[inline(always)]
    fn addr(&self, at: usize) -> Addr {
        Addr::from_words([self.read(at), self.read(at + 8)])
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

/// Replaces the IPv4 source `x` by `a * x + c` modulo 2^32, with `a` and `c` from the first 8 bytes, the Ethernet
/// addresses: 1 and 0 keep it, others walk through all sources there are.
#[inline(always)]
pub(crate) fn next_source(ctx: &XdpContext) {
    let start = ctx.data();
    if start + 34 > ctx.data_end() {
        return;
    }
    // SAFETY: the 34 bytes lie before the frame's end.
    unsafe {
        let factor = (start as *const u32).read_volatile();
        let addend = ((start + 4) as *const u32).read_volatile();
        let source = (start + 26) as *mut u32;
        source.write_volatile(source.read_volatile().wrapping_mul(factor).wrapping_add(addend));
    }
}

/// Turns an answer to a plain SYN over IPv4 back into a SYN, if the frame is one: with Linux's options where the header has
/// room for them, else with the first of them.
#[inline(always)]
pub(crate) fn turn_back(ctx: &XdpContext) {
    const SYN_ACK: u8 = 0x12;
    const OPTIONS: [u32; 5] = [0x0204_05b4, 0x0402_080a, 0x0000_0909, 0, 0x0103_0307];
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + 58 > end {
        return;
    }
    // SAFETY: the 58 bytes lie before the frame's end.
    unsafe {
        if ((start + 47) as *const u8).read_volatile() != SYN_ACK {
            return;
        }
        let addresses = (start + 26) as *mut u32;
        let (source, destination) = (addresses.read_volatile(), addresses.add(1).read_volatile());
        addresses.write_volatile(destination);
        addresses.add(1).write_volatile(source);
        let ports = (start + 34) as *mut u32;
        ports.write_volatile(ports.read_volatile().rotate_left(16));
        ((start + 38) as *mut u64).write_volatile(0);
        ((start + 47) as *mut u8).write_volatile(0x02);
        ((start + 54) as *mut u32).write_volatile(OPTIONS[0].to_be());
    }
    if start + 74 > end {
        return;
    }
    // SAFETY: the 74 bytes lie before the frame's end.
    unsafe {
        ((start + 58) as *mut u32).write_volatile(OPTIONS[1].to_be());
        ((start + 62) as *mut u32).write_volatile(OPTIONS[2].to_be());
        ((start + 66) as *mut u32).write_volatile(OPTIONS[3].to_be());
        ((start + 70) as *mut u32).write_volatile(OPTIONS[4].to_be());
    }
}
