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
mod parts;
mod tables;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    programs::XdpContext,
};
use edge_common::{abi::Reason, datapath};

use crate::{
    frame::{XdpArrival, XdpFrame},
    tables::KernelTables,
};

/// The shield: judges every frame of an interface.
///
/// Like all entry points without aya's macro, whose wrapper costs a call.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub(crate) extern "C" fn breakwater(ctx: *mut xdp_md) -> u32 {
    judge(&XdpContext::new(ctx))
}

/// Judges, counts, acts.
#[inline(always)]
fn judge(ctx: &XdpContext) -> u32 {
    let frame = XdpFrame::new(ctx);
    let tables = KernelTables { ctx: ctx.ctx };
    let verdict = datapath::run(&frame, &tables, &XdpArrival(ctx));
    emit::count(&verdict, &frame);
    let drops = verdict.code.drops();
    if drops || verdict.observed.is_some() {
        emit::sample(ctx, &verdict);
    }
    if verdict.code.0 == Reason::Internal as u8 {
        // Costs ~100 ns, but cannot happen while the maps are those that the loader made.
        aya_log_ebpf::error!(ctx, "a table that the shield needs is missing");
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

/// The shield before a packet from another source each time it runs: for benchmarks, which have the kernel repeat one
/// packet.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub(crate) extern "C" fn flood(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    frame::next_source(&ctx);
    judge(&ctx)
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
