//! Parts of the pipeline that are functions of their own: the kernel verifies each once, with any arguments, and not
//! once for every way that leads to it. A call costs some nanoseconds, so they are what few packets need.
//!
//! Such a function takes the program's context and numbers, and answers with a number (Linux,
//! Documentation/bpf/verifier.rst and kernel/bpf/btf.c, `btf_prepare_func_args`); the rest it finds in the maps.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use edge_common::{
    abi::{Reason, SLOTS_PER_LINE, limit::EARNED_WORDS},
    algo::{
        flows::Owner,
        nat::Seen,
        slots::{self, Charge},
    },
    datapath::{
        self, Tables as _,
        steer::{self, Asked, Job, Lanes as _, Parcel},
    },
};

use crate::{egress::KernelEgress, emit, frame::XdpFrame, lanes::KernelLanes, tables::KernelTables};

/// Answers of [`charge`].
pub(crate) const ADMITTED: u32 = 0;
pub(crate) const REFUSED: u32 = 1;
const CONTENDED: u32 = 2;

/// Judges and charges a packet that another core was faster than.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn charge(index: u32, tag: u64, now: u64, cost: u64, capacity: u64) -> u32 {
    let tables = KernelTables {
        ctx: core::ptr::null_mut(),
    };
    let Some(line) = tables.line(index) else {
        return REFUSED;
    };
    number(slots::charge(line, tag, now, cost, capacity))
}

#[inline(always)]
const fn number(charge: Charge) -> u32 {
    match charge {
        Charge::Admitted => ADMITTED,
        Charge::Refused => REFUSED,
        Charge::Contended => CONTENDED,
    }
}

/// Charges a front cell for a packet that the tier behind it admitted.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn raise_front(index: u32, tag: u64, now: u64, cost: u64, most: u64) -> u32 {
    let tables = KernelTables {
        ctx: core::ptr::null_mut(),
    };
    if let Some(line) = tables.line(index) {
        slots::raise_front(&line[tag as usize % SLOTS_PER_LINE], now, cost, most);
    }
    0
}

/// Judges and charges a packet of an earned source that another core was faster than.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn charge_exact(bucket: u32, at: u32, now: u64, cost: u64, capacity: u64) -> u32 {
    let tables = KernelTables {
        ctx: core::ptr::null_mut(),
    };
    let Some(words) = tables.earned(bucket) else {
        return REFUSED;
    };
    number(slots::charge_exact(
        &words[at as usize % EARNED_WORDS],
        now,
        cost,
        capacity,
    ))
}

/// What the default tier has charged the source in this CPU's scratch under one limit of a service.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn charged(copy: u32, index: u32, kind: u32, tick: u64) -> u64 {
    let tables = KernelTables {
        ctx: core::ptr::null_mut(),
    };
    datapath::charged_source(&tables, copy & 1, index as u16, kind as u8, tick)
}

/// Looks for the ban on one prefix of the source in this CPU's scratch.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn banned(hash: u64, bits: u32, tick: u64) -> u64 {
    let tables = KernelTables {
        ctx: core::ptr::null_mut(),
    };
    match tables.packet() {
        Some(packet) => datapath::banned(packet, &tables, hash, bits, tick),
        None => 0,
    }
}

/// Looks for the service that the packet in this CPU's scratch is for, behind the first of its port.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn follow(copy: u32, index: u32) -> u32 {
    let tables = KernelTables {
        ctx: core::ptr::null_mut(),
    };
    datapath::follow(&tables, copy & 1, index as u16).into()
}

/// Looks the source in this CPU's scratch up in a list.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn listed(list: u32, copy: u32) -> u32 {
    let tables = KernelTables {
        ctx: core::ptr::null_mut(),
    };
    datapath::listed(&tables, list, copy).into()
}

/// Judges a packet for a guarded service; the answer is a `Code`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn prove(what: u32, tick: u64) -> u32 {
    let tables = KernelTables {
        ctx: core::ptr::null_mut(),
    };
    datapath::prove(&tables, what, tick).0.into()
}

/// Reads the headers of a frame that is not plain into this CPU's scratch.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn read(ctx: *mut xdp_md) -> u32 {
    let tables = KernelTables { ctx };
    if let Some(packet) = tables.packet() {
        datapath::read(&XdpFrame::new(&XdpContext::new(ctx)), packet);
    }
    0
}

/// Tells the daemon's log of a missing table. Costs ~100 ns, but cannot happen while the maps are those that the loader
/// made.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn complain() -> u32 {
    // The log asks nothing of its context.
    aya_log_ebpf::error!(&(), "a table that the shield needs is missing");
    0
}

/// Sends a sample of the packet; `what` is what [`emit::sample`] has packed. Whether there was room.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn send(ctx: *mut xdp_md, what: u32) -> u32 {
    u32::from(emit::send(&XdpContext::new(ctx), what))
}

/// Where [`choose`] is told the copy of the tables in force.
pub(crate) const COPY_SHIFT: u32 = 24;
/// Where [`dispatch`] is told how the packet is to be sent.
pub(crate) const FORWARD_SHIFT: u32 = 16;

/// Chooses the backend of a flow; `what` is an `Asked`, the answer a `Choice`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn choose(hash: u64, source: u64, what: u32, tick: u64) -> u64 {
    let tables = KernelTables {
        ctx: core::ptr::null_mut(),
    };
    let asked = Asked::from_bits(what, hash, source);
    steer::choose(&tables, &KernelLanes, what >> COPY_SHIFT & 1, &asked, tick).to_bits()
}

/// Where [`port`] is told the copy of the tables in force, and the backend's generation.
pub(crate) const JOB_COPY_SHIFT: u32 = 24;
const GENERATION_SHIFT: u32 = 16;

/// A backend, as one number of 24 bits.
#[inline(always)]
pub(crate) const fn pack(owner: Owner) -> u32 {
    owner.backend as u32 | (owner.generation as u32) << GENERATION_SHIFT
}

const fn unpack(owner: u32) -> Owner {
    Owner {
        backend: owner as u16,
        generation: (owner >> GENERATION_SHIFT) as u8,
    }
}

/// What a port (upper half of `place`) at a place (lower half) is to a flow.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn fit(place: u64, hash: u64, owner: u32, tick: u64) -> u64 {
    let tables = KernelTables {
        ctx: core::ptr::null_mut(),
    };
    let port = (place >> 32) as u16;
    steer::fit(
        &tables,
        &KernelLanes,
        place as u32,
        port,
        hash,
        unpack(owner),
        tick,
    )
}

/// The port that stands for a flow; `seen` is a `Seen`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn port(hash: u64, owner: u32, service: u32, tick: u64, seen: u64) -> u32 {
    let tables = KernelTables {
        ctx: core::ptr::null_mut(),
    };
    steer::port(
        &tables,
        &KernelLanes,
        &job(hash, owner, service, tick),
        Seen(seen),
    )
}

pub(crate) const fn job(hash: u64, owner: u32, service: u32, tick: u64) -> Job {
    Job {
        hash,
        owner: unpack(owner),
        service: service as u16,
        copy: owner >> JOB_COPY_SHIFT & 1,
        tick,
    }
}

/// Sends the packet to a backend; the answer is a `Sent`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn dispatch(ctx: *mut xdp_md, hash: u64, what: u32) -> u64 {
    let tables = KernelTables { ctx };
    let context = XdpContext::new(ctx);
    let backend = what as u16;
    let (Some(packet), Some(entry)) = (tables.packet(), KernelLanes.backend(backend)) else {
        return u64::from(Reason::Internal as u8);
    };
    let parcel = Parcel {
        hash,
        forward: (what >> FORWARD_SHIFT) as u8,
        backend,
        to: entry.addr,
    };
    let egress = KernelEgress { ctx: &context };
    steer::dispatch(&XdpFrame::new(&context), packet, &parcel, &egress).to_bits()
}
