//! `Egress` over the kernel's helpers: the routes, and the frame that is sent.

use aya_ebpf::{
    bindings::{bpf_fib_lookup as FibLookup, xdp_action},
    helpers::generated::{bpf_fib_lookup, bpf_redirect, bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    programs::XdpContext,
};
use edge_common::{
    abi::{Code, Family, Reason},
    datapath::{
        Packet, Tables,
        steer::{Egress, Job, Lanes, Parcel, Query, Sent, Way, Window},
    },
    wire::Frame,
};

use crate::{
    frame::{opaque, opaque_pointer},
    parts,
};

/// Address families (include/linux/socket.h).
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Answers of the look-up (include/uapi/linux/bpf.h, `BPF_FIB_LKUP_RET_*`).
const SUCCESS: i64 = 0;
const FRAG_NEEDED: i64 = 8;

/// The routes of the namespace, and the frame that a program was called for.
pub(crate) struct KernelEgress<'c> {
    pub(crate) ctx: &'c XdpContext,
}

impl KernelEgress<'_> {
    /// Has the frame leave by `interface`.
    #[inline(always)]
    pub(crate) fn leave(&self, interface: u32) -> u32 {
        if interface == self.ingress() {
            return xdp_action::XDP_TX;
        }
        // SAFETY: the helper takes numbers only.
        unsafe { bpf_redirect(interface, 0) }.cast_unsigned() as u32
    }
}

impl Egress for KernelEgress<'_> {
    type Window<const N: usize> = XdpWindow<N>;

    #[inline(always)]
    fn ingress(&self) -> u32 {
        self.ctx.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn route(&self, query: &Query) -> Way {
        // SAFETY: zeros are a value of every field.
        let mut params: FibLookup = unsafe { core::mem::zeroed() };
        params.l4_protocol = query.protocol;
        params.__bindgen_anon_1.tot_len = query.bytes as u16;
        params.ifindex = self.ingress();
        match query.family {
            Family::V4 => {
                params.family = AF_INET;
                params.__bindgen_anon_3.ipv4_src = query.src.0[3];
                params.__bindgen_anon_4.ipv4_dst = query.dst.0[3];
            }
            Family::V6 => {
                params.family = AF_INET6;
                params.__bindgen_anon_3.ipv6_src = query.src.0;
                params.__bindgen_anon_4.ipv6_dst = query.dst.0;
            }
        }
        let size = (size_of::<FibLookup>() as u32).cast_signed();
        // SAFETY: the helper reads and writes the structure of this size.
        let answer = unsafe { bpf_fib_lookup(self.ctx.ctx.cast(), &raw mut params, size, 0) };
        if answer == FRAG_NEEDED {
            return Way {
                code: Way::TOO_BIG,
                // SAFETY: the helper has written it.
                mtu: u32::from(unsafe { params.__bindgen_anon_1.mtu_result }),
                ..Way::none()
            };
        }
        if answer != SUCCESS {
            return Way::none();
        }
        // The helper has put the next hop in the place of the destination.
        // SAFETY: both are plain words.
        let on_link = unsafe {
            match query.family {
                Family::V4 => params.__bindgen_anon_4.ipv4_dst == query.dst.0[3],
                Family::V6 => params.__bindgen_anon_4.ipv6_dst == query.dst.0,
            }
        };
        let (to, from) = (params.dmac, params.smac);
        Way {
            code: Way::FOUND,
            interface: params.ifindex,
            mtu: 0,
            on_link: u32::from(on_link),
            link: [
                u32::from_ne_bytes([to[0], to[1], to[2], to[3]]),
                u32::from_ne_bytes([to[4], to[5], from[0], from[1]]),
                u32::from_ne_bytes([from[2], from[3], from[4], from[5]]),
            ],
        }
    }

    #[inline(always)]
    fn stretch(&self, more: i32) -> bool {
        // SAFETY: the helper checks what the frame has room for.
        unsafe { bpf_xdp_adjust_head(self.ctx.ctx, more.wrapping_neg()) == 0 }
    }

    #[inline(always)]
    fn cut(&self, bytes: u32) -> bool {
        let have = (self.ctx.data_end() - self.ctx.data()) as u32;
        let change = opaque(bytes).wrapping_sub(have).cast_signed();
        // SAFETY: as above.
        change == 0 || unsafe { bpf_xdp_adjust_tail(self.ctx.ctx, change) } == 0
    }

    #[inline(always)]
    fn window<const N: usize>(&self) -> Option<XdpWindow<N>> {
        let start = self.ctx.data();
        // The sum must stay a sum: folded into a comparison of `start`, the verifier learns nothing from it.
        if opaque_pointer(start + N) > self.ctx.data_end() {
            None
        } else {
            Some(XdpWindow(start))
        }
    }

    #[inline(always)]
    fn dispatch<F: Frame>(&self, _frame: &F, _packet: &Packet, parcel: &Parcel) -> Sent {
        let what = u32::from(parcel.backend) | u32::from(parcel.forward) << parts::FORWARD_SHIFT;
        Sent::from_bits(parts::dispatch(self.ctx.ctx, parcel.hash, what))
    }

    #[inline(always)]
    fn translate<F: Frame, T: Tables, L: Lanes>(
        &self,
        _frame: &F,
        _packet: &Packet,
        _tables: &T,
        _lanes: &L,
        job: &Job,
    ) -> Sent {
        handed_on(
            job.hash,
            parts::pack(job.owner) | job.copy << parts::JOB_COPY_SHIFT,
        )
    }

    #[inline(always)]
    fn restore<F: Frame, T: Tables, L: Lanes>(
        &self,
        _frame: &F,
        _packet: &Packet,
        _tables: &T,
        _lanes: &L,
        _tick: u64,
    ) -> Sent {
        handed_on(0, 0)
    }
}

/// Has the program that translates go on: its stack and its verification are its own.
#[inline(always)]
fn handed_on(hash: u64, owner: u32) -> Sent {
    let Some(exchange) = crate::exchange() else {
        return Sent {
            code: Reason::Internal.into(),
            interface: 0,
        };
    };
    exchange.hash.set(hash);
    exchange.owner.set(owner);
    Sent {
        code: Code::TRANSLATE,
        interface: 0,
    }
}

/// The first `N` bytes of the frame, which begins at this address.
pub(crate) struct XdpWindow<const N: usize>(usize);

impl<const N: usize> XdpWindow<N> {
    #[inline(always)]
    fn at<T>(&self, at: usize) -> *mut T {
        (self.0 + at) as *mut T
    }

    #[inline(always)]
    fn read<T: Default>(&self, at: usize) -> T {
        if at + size_of::<T>() > N {
            return T::default();
        }
        // SAFETY: within the N bytes that `window` checked. Volatile, since the compiler would split an access that it
        // believes unaligned.
        unsafe { self.at::<T>(at).read_volatile() }
    }

    #[inline(always)]
    fn write<T>(&self, at: usize, value: T) {
        if at + size_of::<T>() <= N {
            // SAFETY: as above.
            unsafe { self.at::<T>(at).write_volatile(value) };
        }
    }
}

impl<const N: usize> Window for XdpWindow<N> {
    #[inline(always)]
    fn u8(&self, at: usize) -> u8 {
        self.read(at)
    }

    #[inline(always)]
    fn half(&self, at: usize) -> u16 {
        self.read(at)
    }

    #[inline(always)]
    fn word(&self, at: usize) -> u32 {
        self.read(at)
    }

    #[inline(always)]
    fn set_u8(&self, at: usize, value: u8) {
        self.write(at, value);
    }

    #[inline(always)]
    fn set_half(&self, at: usize, value: u16) {
        self.write(at, value);
    }

    #[inline(always)]
    fn set_word(&self, at: usize, value: u32) {
        self.write(at, value);
    }
}
