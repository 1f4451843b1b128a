//! `Stack` over the kernel's helpers: sockets, cookies, and the frame that is answered.
//!
//! The raw cookie helpers came with Linux 6.0; the programs that use them are loaded where they are there.

use aya_ebpf::{
    bindings::{bpf_sock_tuple, iphdr, ipv6hdr, tcphdr},
    helpers::generated::{
        bpf_check_mtu, bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_gen_syncookie,
        bpf_tcp_raw_check_syncookie_ipv4, bpf_tcp_raw_check_syncookie_ipv6, bpf_tcp_raw_gen_syncookie_ipv4,
        bpf_tcp_raw_gen_syncookie_ipv6, bpf_xdp_adjust_tail, bpf_xdp_load_bytes, bpf_xdp_store_bytes,
    },
    programs::XdpContext,
};
use edge_common::{
    abi::Family,
    datapath::{Known, Stack},
    wire::{
        Frame, View,
        segment::{self, Headers, Segment},
    },
};

use crate::{
    frame::{XdpFrame, opaque},
    tables,
};

/// `TCP_LISTEN` (include/net/tcp_states.h).
const LISTEN: u32 = 10;
/// The network namespace that the frame arrived in (`BPF_F_CURRENT_NETNS`).
const THIS_NAMESPACE: u64 = u64::MAX;
/// Most bytes of headers: IPv6 and the longest TCP header.
const MOST: u32 = 100;

/// The stack of the namespace, and the frame that a program was called for.
pub(crate) struct KernelStack<'c> {
    pub(crate) ctx: &'c XdpContext,
    pub(crate) segment: &'c Segment,
}

impl KernelStack<'_> {
    #[inline(always)]
    fn at<T>(&self, word: usize) -> *mut T {
        let start: *const Segment = self.segment;
        // SAFETY: within the segment: words are constants below its length.
        unsafe { start.cast::<u32>().cast_mut().add(word).cast() }
    }
}

/// A length that the verifier knows to be from 1 to 64.
#[inline(always)]
fn tcp_length(bytes: u32) -> u32 {
    (opaque(bytes.wrapping_sub(1)) & 63) + 1
}

/// As many bytes of headers, if that is from 1 to [`MOST`]: in a form that a verifier knows both ends of. That of
/// Linux 6.1 learns no least value from a comparison with zero.
#[inline(always)]
fn header_bytes(bytes: u32) -> Option<u32> {
    let less = opaque(bytes.wrapping_sub(1));
    if less < MOST { Some(less + 1) } else { None }
}

impl Headers for KernelStack<'_> {
    #[inline(always)]
    fn word(&self, at: usize) -> u32 {
        // SAFETY: every index is a constant below the segment's length. Volatile, as the trait wants it.
        unsafe { self.at::<u32>(at).read_volatile() }
    }

    #[inline(always)]
    fn set_word(&self, at: usize, word: u32) {
        // SAFETY: as above.
        unsafe { self.at::<u32>(at).write_volatile(word) }
    }

    #[inline(always)]
    fn option(&self, at: u32) -> u8 {
        // The mask must stay, whatever the compiler knows of the index: the verifier knows less.
        let at = (opaque(at) & 63) as usize;
        // SAFETY: the options begin at byte 60 of 256.
        unsafe { self.at::<u8>(segment::OPTIONS).add(at).read_volatile() }
    }
}

impl Stack for KernelStack<'_> {
    #[inline(always)]
    fn load(&self, offset: u32, word: usize, bytes: u32) -> bool {
        let Some(bytes) = header_bytes(bytes) else {
            return false;
        };
        // SAFETY: the segment has 256 bytes, the word is at most its fifth. The helper checks the frame's end.
        unsafe { bpf_xdp_load_bytes(self.ctx.ctx, offset, self.at(word), bytes) == 0 }
    }

    #[inline(always)]
    fn find(&self, family: Family, tcp_bytes: u32) -> Known {
        let (word, words) = segment::tuple(family);
        // SAFETY: the tuple lies in the segment; the socket is used before it is given back, and only there.
        unsafe {
            let socket = bpf_skc_lookup_tcp(
                self.ctx.ctx.cast(),
                self.at::<bpf_sock_tuple>(word),
                words as u32 * 4,
                THIS_NAMESPACE,
                0,
            );
            if socket.is_null() {
                return Known::Nothing;
            }
            let listens = (&raw const (*socket).state).read_volatile() == LISTEN;
            if listens && tcp_bytes != 0 {
                let (start, ip_bytes) = segment::ip(family);
                bpf_tcp_gen_syncookie(
                    socket.cast(),
                    self.at(start),
                    ip_bytes,
                    self.at(segment::TCP),
                    tcp_length(tcp_bytes),
                );
            }
            bpf_sk_release(socket.cast());
            if listens {
                Known::Listener
            } else {
                Known::Connection
            }
        }
    }

    #[inline(always)]
    fn make(&self, family: Family, tcp_bytes: u32) -> i64 {
        let (start, _) = segment::ip(family);
        let tcp = self.at::<tcphdr>(segment::TCP);
        let length = tcp_length(tcp_bytes);
        // SAFETY: both headers lie in the segment, and 64 bytes behind the begin of the second.
        unsafe {
            match family {
                Family::V4 => bpf_tcp_raw_gen_syncookie_ipv4(self.at::<iphdr>(start), tcp, length),
                Family::V6 => bpf_tcp_raw_gen_syncookie_ipv6(self.at::<ipv6hdr>(start), tcp, length),
            }
        }
    }

    #[inline(always)]
    fn is_proof(&self, family: Family) -> bool {
        let (start, _) = segment::ip(family);
        let tcp = self.at::<tcphdr>(segment::TCP);
        // SAFETY: both headers lie in the segment.
        unsafe {
            match family {
                Family::V4 => bpf_tcp_raw_check_syncookie_ipv4(self.at::<iphdr>(start), tcp) == 0,
                Family::V6 => bpf_tcp_raw_check_syncookie_ipv6(self.at::<ipv6hdr>(start), tcp) == 0,
            }
        }
    }

    #[inline(always)]
    fn mtu(&self) -> u32 {
        let mut mtu = 0;
        // SAFETY: the helper writes the one word. Its answer, whether this frame fits, does not matter.
        unsafe { bpf_check_mtu(self.ctx.ctx.cast(), 0, &raw mut mtu, 0, 0) };
        mtu
    }

    #[inline(always)]
    fn send(&self, offset: u32, word: usize, bytes: u32) -> bool {
        if is_for_a_group(self.ctx) {
            return false;
        }
        let have = (self.ctx.data_end() - self.ctx.data()) as u32;
        let change = (offset + bytes).wrapping_sub(have).cast_signed();
        // SAFETY: the helper checks what the frame has room for.
        if change != 0 && unsafe { bpf_xdp_adjust_tail(self.ctx.ctx, change) } != 0 {
            return false;
        }
        if !turn_around(self.ctx) {
            return false;
        }
        let Some(bytes) = header_bytes(bytes) else {
            return false;
        };
        // SAFETY: as in `load`.
        unsafe { bpf_xdp_store_bytes(self.ctx.ctx, offset, self.at(word), bytes) == 0 }
    }

    #[inline(always)]
    fn hint(&self, element: u32, bit: u64) {
        tables::hint_earned(element, bit);
    }
}

/// Whether the frame was sent to a group (IEEE 802.3 section 3.2.3): an answer would come from one.
#[inline(always)]
fn is_for_a_group(ctx: &XdpContext) -> bool {
    let head = XdpFrame::new(ctx).view::<12>(0);
    head.is_none_or(|head| head.u8(0) & 1 != 0)
}

/// Exchanges the Ethernet addresses.
#[inline(always)]
fn turn_around(ctx: &XdpContext) -> bool {
    let start = ctx.data();
    if start + 12 > ctx.data_end() {
        return false;
    }
    let words = start as *mut u32;
    // SAFETY: the 12 bytes lie before the frame's end. Volatile, since the compiler would split the accesses.
    unsafe {
        let (a, b, c) = (
            words.read_volatile(),
            words.add(1).read_volatile(),
            words.add(2).read_volatile(),
        );
        words.write_volatile(b >> 16 | c << 16);
        words.add(1).write_volatile(c >> 16 | a << 16);
        words.add(2).write_volatile(a >> 16 | b << 16);
    }
    true
}
