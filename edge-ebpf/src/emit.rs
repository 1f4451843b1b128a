//! Counters and sampled events.

use aya_ebpf::{helpers::generated::bpf_xdp_load_bytes, programs::XdpContext};
use edge_common::{
    abi::{Event, Lost, Reason, SNAPSHOT_BYTES, service::MAX_SERVICES},
    datapath::{Judged, Packet},
    wire::Frame,
};

use crate::{
    frame::{XdpFrame, opaque},
    maps,
};

/// Counts the verdict for its service, and beside it what was only observed.
#[inline(always)]
pub(crate) fn count(judged: &Judged, frame: &XdpFrame) {
    let verdict = &judged.verdict;
    add(verdict.service, verdict.reason, 0, frame.len());
    if let Some(observed) = verdict.observed {
        add(
            verdict.service,
            observed,
            MAX_SERVICES * Reason::SLOTS,
            frame.len(),
        );
    }
}

#[inline(always)]
fn add(service: u16, reason: Reason, base: u32, bytes: u32) {
    let index = base + u32::from(service) * Reason::SLOTS + reason as u32;
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
pub(crate) fn sample(ctx: &XdpContext, judged: &Judged, frame: &XdpFrame, tick: u64, ifindex: u32) {
    let Some(packet) = &judged.packet else { return };
    if !within_budget(tick) {
        lost(|lost| &mut lost.over_budget);
        return;
    }
    let Some(mut entry) = maps::EVENTS.reserve::<Event>(0) else {
        lost(|lost| &mut lost.buffer_full);
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the entry is `Event`-sized and 8-aligned; every field is written.
    unsafe { fill(event, ctx, judged, packet, frame.len(), tick, ifindex) };
    entry.submit(0);
}

#[inline(always)]
unsafe fn fill(
    event: *mut Event,
    ctx: &XdpContext,
    judged: &Judged,
    packet: &Packet,
    len: u32,
    tick: u64,
    ifindex: u32,
) {
    let verdict = &judged.verdict;
    let reason = verdict.observed.unwrap_or(verdict.reason);
    // SAFETY: the caller vouches for `event`. The helper checks the frame's bounds itself.
    unsafe {
        (*event).tick = tick;
        (*event).src = packet.src;
        (*event).dst = packet.dst;
        (*event).sport = packet.sport;
        (*event).dport = packet.dport;
        (*event).len = len;
        (*event).ifindex = ifindex;
        (*event).service = verdict.service;
        (*event).reason = reason as u8;
        (*event).protocol = packet.protocol;
        (*event).observed = u8::from(verdict.observed.is_some());
        (*event).reserved = [0; 5];
        let snapshot = &raw mut (*event).snapshot;
        let wanted = opaque(len).clamp(1, SNAPSHOT_BYTES as u32);
        let got = bpf_xdp_load_bytes(ctx.ctx, 0, snapshot.cast(), wanted) == 0;
        (*event).captured = if got { wanted as u16 } else { 0 };
    }
}

#[inline(always)]
fn within_budget(tick: u64) -> bool {
    let (Some(budget), Some(params)) = (maps::BUDGET.get_ptr_mut(0), maps::PARAMS.get(0)) else {
        return false;
    };
    // SAFETY: the element is this CPU's own.
    unsafe {
        if (*budget).tick != tick {
            (*budget).tick = tick;
            (*budget).left = params.samples_per_tick;
        }
        if (*budget).left == 0 {
            return false;
        }
        (*budget).left -= 1;
    }
    true
}

#[inline(always)]
fn lost(which: impl Fn(&mut Lost) -> &mut u64) {
    if let Some(element) = maps::LOST.get_ptr_mut(0) {
        // SAFETY: the element is this CPU's own.
        unsafe { *which(&mut *element) += 1 };
    }
}
