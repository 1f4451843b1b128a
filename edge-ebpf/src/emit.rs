//! Counters and sampled events.

use aya_ebpf::{helpers::generated::bpf_xdp_load_bytes, programs::XdpContext};
use edge_common::{
    abi::{Code, Event, Reason, SNAPSHOT_BYTES, Sampling, service::MAX_SERVICES},
    datapath::{Arrival, Observed, Packet, Tables, Verdict},
};

use crate::{
    frame::{XdpArrival, opaque},
    maps, parts,
    tables::{self, KernelTables},
};

/// Counts the verdict for its service, and beside it what was only observed.
#[inline(always)]
pub(crate) fn count(verdict: &Verdict, bytes: u32) {
    add(verdict.service, verdict.code.0, 0, bytes);
    if verdict.observed.is_some() {
        add(
            verdict.service,
            verdict.observed.0,
            MAX_SERVICES * Reason::SLOTS,
            bytes,
        );
    }
}

#[inline(always)]
fn add(service: u16, reason: u8, base: u32, bytes: u32) {
    let index = base + u32::from(service) * Reason::SLOTS + u32::from(reason);
    if let Some(counter) = maps::COUNTERS.get_ptr_mut(index) {
        // SAFETY: the element is this CPU's own, and the program is not preempted by another packet on it.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += u64::from(bytes);
        }
    }
}

/// Sends a sample to user space, if this CPU has any left for this tick.
#[inline(always)]
pub(crate) fn sample(ctx: &XdpContext, verdict: &Verdict) {
    let Some(sampling) = tables::sampling() else {
        return;
    };
    let tick = XdpArrival(ctx).tick();
    if sampling.tick != tick {
        sampling.tick = tick;
        sampling.left = Sampling::PER_TICK;
    }
    if sampling.left == 0 {
        sampling.over_budget += 1;
        return;
    }
    sampling.left -= 1;
    let what =
        u32::from(verdict.service) | u32::from(verdict.code.0) << 16 | u32::from(verdict.observed.0) << 24;
    if parts::send(ctx.ctx, what) == 0 {
        sampling.buffer_full += 1;
    }
}

/// Sends a sample of a verdict that [`sample`] has packed; whether there was room.
#[inline(always)]
pub(crate) fn send(ctx: &XdpContext, what: u32) -> bool {
    let verdict = Verdict {
        service: what as u16,
        code: Code((what >> 16) as u8),
        observed: Observed((what >> 24) as u8),
    };
    let tables = KernelTables { ctx: ctx.ctx };
    let Some(packet) = tables.packet() else {
        return false;
    };
    let Some(mut entry) = maps::EVENTS.reserve::<Event>(0) else {
        return false;
    };
    let arrival = XdpArrival(ctx);
    // SAFETY: the entry is `Event`-sized and 8-aligned; every field is written.
    unsafe {
        fill(
            entry.as_mut_ptr(),
            ctx,
            &verdict,
            packet,
            packet.len.get(),
            arrival.tick(),
        );
    };
    entry.submit(0);
    true
}

#[inline(always)]
unsafe fn fill(event: *mut Event, ctx: &XdpContext, verdict: &Verdict, packet: &Packet, len: u32, tick: u64) {
    let observed = verdict.observed;
    // SAFETY: the caller vouches for `event`. The helper checks the frame's bounds itself.
    unsafe {
        (*event).tick = tick;
        (*event).src = packet.src.get();
        (*event).dst = packet.dst.get();
        (*event).sport = packet.sport.get();
        (*event).dport = packet.dport.get();
        (*event).len = len;
        (*event).ifindex = ctx.ingress_ifindex() as u32;
        (*event).service = verdict.service;
        (*event).reason = if observed.is_some() {
            observed.0
        } else {
            verdict.code.0
        };
        (*event).protocol = packet.protocol.get();
        (*event).observed = u8::from(observed.is_some());
        (*event).reserved = [0; 5];
        let snapshot = &raw mut (*event).snapshot;
        // The mask changes nothing (no frame is empty), but shows the verifier a size from 1 to the snapshot's.
        let short = if len < SNAPSHOT_BYTES as u32 {
            len
        } else {
            SNAPSHOT_BYTES as u32
        };
        let wanted = (opaque(short.wrapping_sub(1)) & (SNAPSHOT_BYTES as u32 - 1)) + 1;
        let got = bpf_xdp_load_bytes(ctx.ctx, 0, snapshot.cast(), wanted) == 0;
        (*event).captured = if got { wanted as u16 } else { 0 };
    }
}
