//! Program entry points: what the kernel calls.
//!
//! Each is a shell around `edge_common::datapath`: read the clock, run the pipeline, count, act. No decision is
//! taken here.
#![no_std]
#![no_main]
#![allow(
    internal_features,
    reason = "the target has no atomic methods; the intrinsics are all there is"
)]
#![feature(asm_experimental_arch, core_intrinsics)]

mod emit;
mod frame;
mod maps;
mod tables;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::generated::bpf_jiffies64,
    programs::XdpContext,
};
use edge_common::{
    abi::{Outcome, Reason},
    datapath::{self, Arrival},
};

use crate::{frame::XdpFrame, tables::KernelTables};

/// The loopback interface has index 1 in every network namespace (net/core/dev.c, `LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

/// The shield: judges every frame of an interface.
///
/// Like all entry points without aya's macro, whose wrapper costs a call.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub(crate) extern "C" fn breakwater(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let frame = XdpFrame::new(&ctx);
    let ifindex = ctx.ingress_ifindex() as u32;
    // SAFETY: the helper takes nothing and only reads a counter.
    let tick = unsafe { bpf_jiffies64() };
    let arrival = Arrival {
        tick,
        external: ifindex != LOOPBACK,
    };
    let verdict = datapath::run(&frame, &KernelTables, arrival);
    emit::count(&verdict, &frame);
    let drops = matches!(verdict.reason.outcome(), Outcome::Drop);
    if matches!(verdict.reason, Reason::Internal) {
        // Costs ~100 ns, but cannot happen while the maps are those that the loader made.
        aya_log_ebpf::error!(
            &ctx,
            "interface {}: a table that the shield needs is missing",
            ifindex
        );
    }
    if drops || verdict.observed.is_some() {
        emit::sample(&ctx, &verdict, &frame, tick, ifindex);
    }
    if drops {
        xdp_action::XDP_DROP
    } else {
        xdp_action::XDP_PASS
    }
}

/// Drops everything: the floor that benchmarks compare with.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub(crate) extern "C" fn floor(_ctx: *mut xdp_md) -> u32 {
    xdp_action::XDP_DROP
}

/// Tells the time: writes jiffies and the monotonic clock into the first 16 bytes of the frame it is run on.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub(crate) extern "C" fn clock(ctx: *mut xdp_md) -> u32 {
    frame::write_clock(&XdpContext::new(ctx));
    xdp_action::XDP_PASS
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
