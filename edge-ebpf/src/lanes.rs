//! `Lanes` over the BPF maps: the look-ups of steering, and the unsafe that they need.

use edge_common::{
    abi::{
        Backend, SteerRule,
        service::MAX_SERVICES,
        steer::{CANDIDATES, FLOW_WORDS, MAX_BACKENDS, NAT_WORDS, NATS},
    },
    algo::{flows::Owner, nat::Seen},
    datapath::{
        Tables,
        steer::{Asked, Choice, Job, Lanes},
    },
};

use crate::{maps, parts, tables::MapCell};

/// The maps of the running program.
pub(crate) struct KernelLanes;

impl Lanes for KernelLanes {
    type Cell = MapCell;

    #[inline(always)]
    fn rule(&self, copy: u32, index: u16) -> Option<&SteerRule> {
        if u32::from(index) >= MAX_SERVICES {
            return None;
        }
        maps::STEER_RULES.get(copy * MAX_SERVICES + u32::from(index))
    }

    #[inline(always)]
    fn table(&self, rule: &SteerRule) -> u64 {
        // SAFETY: an aligned word of the map, stored whole by user space. Volatile, so that it is read once.
        unsafe { (&raw const rule.table).read_volatile() }
    }

    #[inline(always)]
    fn places(&self, index: u32) -> u64 {
        maps::STEER_PLACES.get(index).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn backend(&self, index: u16) -> Option<&Backend> {
        maps::BACKENDS.get(u32::from(index) & (MAX_BACKENDS - 1))
    }

    #[inline(always)]
    fn flows(&self, index: u32) -> Option<&[MapCell; FLOW_WORDS]> {
        let bucket = maps::FLOWS.get_ptr(index)?;
        // SAFETY: `MapCell` is a transparent 64-bit word, and the element has as many.
        Some(unsafe { &*bucket.cast::<[MapCell; FLOW_WORDS]>() })
    }

    #[inline(always)]
    fn candidate(&self, index: u32) -> Option<&MapCell> {
        let cell = maps::CANDIDATE_FLOWS.get_ptr(index & (CANDIDATES - 1))?;
        // SAFETY: `MapCell` is a transparent 64-bit word.
        Some(unsafe { &*cell.cast::<MapCell>() })
    }

    #[inline(always)]
    fn nat(&self, index: u32) -> Option<&[MapCell; NAT_WORDS]> {
        let entry = maps::TRANSLATIONS.get_ptr(index & (NATS - 1))?;
        // SAFETY: `MapCell` is a transparent 64-bit word, and the element has as many.
        Some(unsafe { &*entry.cast::<[MapCell; NAT_WORDS]>() })
    }

    #[inline(always)]
    fn fit<T: Tables>(&self, _tables: &T, index: u32, port: u16, hash: u64, owner: Owner, tick: u64) -> u64 {
        let place = u64::from(index) | u64::from(port) << 32;
        parts::fit(place, hash, parts::pack(owner), tick)
    }

    #[inline(always)]
    fn port<T: Tables>(&self, _tables: &T, job: &Job, seen: Seen) -> u32 {
        let owner = parts::pack(job.owner) | job.copy << parts::JOB_COPY_SHIFT;
        parts::port(job.hash, owner, u32::from(job.service), job.tick, seen.0)
    }

    #[inline(always)]
    fn count(&self, backend: u16, bytes: u32, opened: bool, entered: bool) {
        if let Some(count) = maps::BACKEND_COUNTS.get_ptr_mut(u32::from(backend) & (MAX_BACKENDS - 1)) {
            // SAFETY: the element is this CPU's own, and the program is not preempted by another packet on it.
            unsafe {
                (*count).packets += 1;
                (*count).bytes += u64::from(bytes);
                (*count).opened += u64::from(opened);
                (*count).entered += u64::from(entered);
            }
        }
    }

    #[inline(always)]
    fn choose<T: Tables>(&self, _tables: &T, copy: u32, asked: &Asked, tick: u64) -> Choice {
        let what = asked.to_bits() | copy << parts::COPY_SHIFT;
        Choice::from_bits(parts::choose(asked.hash, asked.source, what, tick))
    }
}
