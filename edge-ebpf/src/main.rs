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

mod egress;
mod emit;
mod frame;
mod lanes;
mod maps;
mod parts;
mod stack;
mod tables;

use core::cell::Cell;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    programs::XdpContext,
};
use edge_common::{
    abi::{Code, Outcome, Reason},
    datapath::{
        self, Arrival, Tables, Verdict,
        steer::{Lanes as _, Steered},
    },
    wire::{Frame, segment::Segment},
};

use crate::{
    egress::KernelEgress,
    frame::{XdpArrival, XdpFrame},
    lanes::KernelLanes,
    stack::KernelStack,
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
    if let Some(program) = verdict.code.handed() {
        return hand_on(ctx, &verdict, program);
    }
    conclude(ctx, &verdict, frame.len())
}

/// Where a program lies in [`maps::PROGRAMS`].
const fn place(code: Code) -> u32 {
    match code.handed() {
        Some(place) => place,
        None => u32::MAX,
    }
}
const CHALLENGE: u32 = place(Code::CHALLENGE);
const VERIFY: u32 = place(Code::VERIFY);
const ADMIT: u32 = place(Code::ADMIT);
const STEER: u32 = place(Code::STEER);
const TRANSLATE: u32 = place(Code::TRANSLATE);
const _: () = assert!(Code::PROGRAMS == 5);

/// Calls a program of [`maps::PROGRAMS`]. Does not return, unless the program is missing, which cannot happen while rules
/// ask for it. In assembly with the number in its text: the compiler would make one call of all.
macro_rules! tail_call {
    ($ctx:expr, $program:ident) => {
        // SAFETY: what the helper takes (include/uapi/linux/bpf.h, `bpf_tail_call`, 12): the context, the map, the number.
        unsafe {
            core::arch::asm!(
                "r3 = {program}",
                "call 12",
                program = const $program,
                in("r1") $ctx.ctx,
                in("r2") (&raw const maps::PROGRAMS),
                lateout("r0") _, lateout("r1") _, lateout("r2") _, lateout("r3") _, lateout("r4") _, lateout("r5") _,
            );
        }
    };
}

/// Has another program go on with the packet.
#[inline(always)]
fn hand_on(ctx: &XdpContext, verdict: &Verdict, program: u32) -> u32 {
    if let Some(exchange) = exchange() {
        exchange.service.set(u32::from(verdict.service));
        // Numbers that a verifier knows: the kernel makes them jumps to the program, and else calls by way of a table,
        // which its mitigations make dear.
        match program {
            ADMIT => tail_call!(ctx, ADMIT),
            CHALLENGE => tail_call!(ctx, CHALLENGE),
            VERIFY => tail_call!(ctx, VERIFY),
            TRANSLATE => tail_call!(ctx, TRANSLATE),
            _ => tail_call!(ctx, STEER),
        }
    }
    xdp_action::XDP_DROP
}

/// What one program hands to the next beside the packet, whose headers lie in their own place.
#[repr(C)]
pub(crate) struct Exchange {
    segment: Segment,
    /// Identifier of the service.
    service: Cell<u32>,
    /// The backend that a packet is translated for, and the copy of the tables in force ([`parts::port`]); no backend for an
    /// answer.
    owner: Cell<u32>,
    /// Hash of the flow.
    hash: Cell<u64>,
}

#[inline(always)]
fn exchange<'a>() -> Option<&'a Exchange> {
    let place = maps::EXCHANGE.get_ptr(0)?;
    // SAFETY: the element is this CPU's own, `Exchange`-sized and aligned, and zeros are one.
    Some(unsafe { &*place.cast::<Exchange>() })
}

/// Judges a SYN by the limits and the budget of a guarded service. Called by the shield alone.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub(crate) extern "C" fn admit(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(exchange) = exchange() else {
        return xdp_action::XDP_DROP;
    };
    let tables = KernelTables { ctx: ctx.ctx };
    let service = exchange.service.get() as u16;
    let verdict = datapath::admit(&tables, service, XdpArrival(&ctx).tick());
    if let Some(program) = verdict.code.handed() {
        return hand_on(&ctx, &verdict, program);
    }
    conclude(&ctx, &verdict, length(&tables))
}

/// Answers a SYN with a cookie. Called by the shield alone.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub(crate) extern "C" fn challenge(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(exchange) = exchange() else {
        return xdp_action::XDP_DROP;
    };
    let tables = KernelTables { ctx: ctx.ctx };
    let stack = KernelStack {
        ctx: &ctx,
        segment: &exchange.segment,
    };
    let service = exchange.service.get() as u16;
    let (frame, tick) = (XdpFrame::new(&ctx), XdpArrival(&ctx).tick());
    let verdict = datapath::challenge(&frame, &tables, &stack, service, tick);
    conclude(&ctx, &verdict, length(&tables))
}

/// Tells segments of connections from those of none. Called by the shield alone.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub(crate) extern "C" fn verify(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(exchange) = exchange() else {
        return xdp_action::XDP_DROP;
    };
    let tables = KernelTables { ctx: ctx.ctx };
    let stack = KernelStack {
        ctx: &ctx,
        segment: &exchange.segment,
    };
    let service = exchange.service.get() as u16;
    let (frame, tick) = (XdpFrame::new(&ctx), XdpArrival(&ctx).tick());
    let verdict = datapath::verify(&frame, &tables, &stack, service, tick);
    conclude(&ctx, &verdict, length(&tables))
}

/// Sends a packet to its backend. Called by the shield alone.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub(crate) extern "C" fn steer(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(exchange) = exchange() else {
        return xdp_action::XDP_DROP;
    };
    let tables = KernelTables { ctx: ctx.ctx };
    let service = exchange.service.get() as u16;
    let (frame, tick) = (XdpFrame::new(&ctx), XdpArrival(&ctx).tick());
    let egress = KernelEgress { ctx: &ctx };
    let steered = datapath::steer::steer(&frame, &tables, &KernelLanes, &egress, service, tick);
    if steered.verdict.code.0 == Code::TRANSLATE.0 {
        return hand_on(&ctx, &steered.verdict, TRANSLATE);
    }
    leave(&ctx, &tables, &egress, &steered)
}

/// Sends a packet to its backend, or an answer to its client, from other addresses and ports. Called by [`steer`] alone.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub(crate) extern "C" fn translate(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let tables = KernelTables { ctx: ctx.ctx };
    let (Some(exchange), Some(packet)) = (exchange(), tables.packet()) else {
        return xdp_action::XDP_DROP;
    };
    let (frame, tick) = (XdpFrame::new(&ctx), XdpArrival(&ctx).tick());
    let egress = KernelEgress { ctx: &ctx };
    let service = exchange.service.get();
    let job = parts::job(exchange.hash.get(), exchange.owner.get(), service, tick);
    let sent = if job.owner.backend == 0 {
        datapath::steer::restore(&frame, packet, &tables, &KernelLanes, &egress, tick)
    } else {
        datapath::steer::translate(&frame, packet, &tables, &KernelLanes, &egress, &job)
    };
    if sent.code.0 == Reason::Steered as u8 && job.owner.backend != 0 {
        KernelLanes.count(job.owner.backend, packet.len.get(), packet.opens(), false);
    }
    let steered = sent.by(job.service, packet.observed.get());
    leave(&ctx, &tables, &egress, &steered)
}

/// Counts what became of a packet that was to be sent on, and has it leave.
#[inline(always)]
fn leave(ctx: &XdpContext, tables: &KernelTables, egress: &KernelEgress<'_>, steered: &Steered) -> u32 {
    if steered.verdict.code.0 == Reason::Steered as u8 {
        emit::count(&steered.verdict, length(tables));
        if steered.verdict.observed.is_some() {
            emit::sample(ctx, &steered.verdict);
        }
        return egress.leave(steered.interface);
    }
    conclude(ctx, &steered.verdict, length(tables))
}

/// Bytes of the frame as it arrived.
#[inline(always)]
fn length(tables: &KernelTables) -> u32 {
    tables.packet().map_or(0, |packet| packet.len.get())
}

/// Counts the verdict, and acts on it.
#[inline(always)]
fn conclude(ctx: &XdpContext, verdict: &Verdict, bytes: u32) -> u32 {
    emit::count(verdict, bytes);
    let drops = verdict.code.drops();
    if drops || verdict.observed.is_some() {
        emit::sample(ctx, verdict);
    }
    if verdict.code.0 == Reason::Internal as u8 {
        parts::complain();
    }
    if drops {
        xdp_action::XDP_DROP
    } else if verdict.code.0 == Reason::CookieSent as u8 || verdict.code.0 == Reason::TooBig as u8 {
        xdp_action::XDP_TX
    } else {
        xdp_action::XDP_PASS
    }
}
const _: () = assert!(matches!(Reason::CookieSent.outcome(), Outcome::Answer));
const _: () = assert!(matches!(Reason::TooBig.outcome(), Outcome::Answer));

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

/// The shield before the SYN that its own last run has answered, turned back into a SYN: for benchmarks, too.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub(crate) extern "C" fn again(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    frame::turn_back(&ctx);
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
