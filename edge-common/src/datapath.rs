//! The packet pipeline: a list of stages, and one file a stage.
//!
//! A stage is a plain function over [`Frame`] and [`Tables`], so the kernel, the tests and the simulator run the
//! same code. A stage returns `Break(reason)` to leave the pipeline; nothing here writes to a packet.
//!
//! Invariants: a packet for nothing that is protected leaves with [`Reason::NotProtected`] or [`Reason::NotIp`]
//! before any stage that can drop it; every way out has a [`Reason`]; every loop has a constant bound.

mod ban;
mod limit;
mod lists;
mod packet;
mod parse;
mod sanity;
mod service;

use core::ops::ControlFlow;

pub use lists::{DENY_HINT_MASK, V4_GRAIN, V6_GRAIN, deny_hint};
pub use packet::{Kind, Observed, Packet};
pub use service::Scope;

use crate::{
    abi::{Addr, AddressFlags, Ban, BanKey, Control, Outcome, Params, PortEntry, Reason, Service, hint},
    algo::sketch::Cell,
    wire::Frame,
};

/// A stage's answer: go on with `T`, or leave the pipeline for this reason.
pub type Step<T> = ControlFlow<Reason, T>;

/// What is known of a packet's arrival beside its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// The kernel's jiffies.
    pub tick: u64,
    /// It came from outside, not over the loopback interface.
    pub external: bool,
}

/// Everything a stage may ask of the maps, and nothing else.
pub trait Tables {
    /// A limiter cell.
    type Cell: Cell;

    /// The place where the packet's headers lie while it is judged.
    fn packet(&self) -> Option<&Packet>;
    /// The control word.
    fn control(&self) -> Control;
    /// The parameters fixed at load.
    fn params(&self) -> Option<&Params>;
    /// Chain heads for `port` in copy `copy` of the port table.
    fn port(&self, copy: u32, port: u16) -> PortEntry;
    /// Service `index` of copy `copy`.
    fn service(&self, copy: u32, index: u16) -> Option<&Service>;
    /// What is known of a destination address.
    fn address(&self, addr: &Addr) -> AddressFlags;
    /// The word of the hint table that holds field `field`.
    fn hint_word(&self, word: u32) -> u64;
    /// The ban on exactly this prefix.
    fn ban(&self, key: &BanKey) -> Option<Ban>;
    /// The word of the deny list's hints.
    fn deny_hint_word(&self, copy: u32, word: u32) -> u64;
    /// Whether copy `copy` of the deny list covers `addr`.
    fn denied(&self, copy: u32, addr: &Addr) -> bool;
    /// Whether copy `copy` of the allow list covers `addr`.
    fn allowed(&self, copy: u32, addr: &Addr) -> bool;
    /// Cell `index` of the default tier: two rows for each [`crate::abi::LimitKind`], in the order of its
    /// discriminants.
    fn cell(&self, index: u32) -> Option<&Self::Cell>;
    /// Exact cells of a source host that earned them, by [`LimitKind::SourcePackets`], `SourceSyns`, `SourceBytes`.
    fn earned(&self, host: &Addr) -> Option<&[Self::Cell; 3]>;
}

/// What the pipeline decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Verdict {
    /// Why; says whether the packet passes.
    pub reason: Reason,
    /// The first reason for which it would have been dropped, were that not only observed.
    pub observed: Observed,
    /// Identifier of the service that judged it, 0 for none.
    pub service: u16,
}

/// Judges one packet. What was read of it lies in [`Tables::packet`] afterwards.
#[inline(always)]
pub fn run<F: Frame, T: Tables>(frame: &F, tables: &T, arrival: Arrival) -> Verdict {
    let Some(packet) = tables.packet() else {
        return Verdict::plain(Reason::Internal);
    };
    parse::stage(frame, packet);
    let control = tables.control();
    let scope = match service::stage(packet, tables, control) {
        ControlFlow::Continue(scope) => scope,
        ControlFlow::Break(reason) => return Verdict::plain(reason),
    };
    let judge = Judge {
        packet,
        tables,
        control,
        scope,
    };
    match judge.stages(arrival) {
        ControlFlow::Continue(()) => judge.settle(Reason::Admitted),
        ControlFlow::Break(reason) => judge.settle(reason),
    }
}

impl Verdict {
    #[inline(always)]
    const fn plain(reason: Reason) -> Self {
        Self {
            reason,
            observed: Observed::NONE,
            service: 0,
        }
    }
}

struct Judge<'t, T: Tables> {
    packet: &'t Packet,
    tables: &'t T,
    control: Control,
    scope: Scope<'t>,
}

impl<T: Tables> Judge<'_, T> {
    /// The stages behind the service look-up, cheap and decisive ones first.
    #[inline(always)]
    fn stages(&self, arrival: Arrival) -> Step<()> {
        let Some(params) = self.tables.params() else {
            return Step::Break(Reason::Internal);
        };
        let packet = self.packet;
        let keys = hint::Keys::new(&packet.src.get(), params);
        self.weigh(ban::stage(packet, &keys, params, self.tables, arrival.tick))?;
        self.weigh(lists::stage(packet, params, self.tables, self.control))?;
        self.weigh(sanity::stage(packet, arrival, self.control))?;
        let Some(service) = self.scope.service else {
            return self.weigh(limit::icmp(
                packet,
                &keys,
                params,
                self.tables,
                &self.scope,
                arrival.tick,
            ));
        };
        self.weigh(limit::stage(
            packet,
            service,
            &keys,
            params,
            self.tables,
            arrival.tick,
        ))
    }

    /// Turns a drop that is only observed into going on, and remembers it.
    #[inline(always)]
    fn weigh(&self, step: Step<()>) -> Step<()> {
        match step {
            Step::Break(reason) if self.observes(reason) => {
                self.packet.observe(reason);
                Step::Continue(())
            }
            other => other,
        }
    }

    #[inline(always)]
    fn observes(&self, reason: Reason) -> bool {
        matches!(reason.outcome(), Outcome::Drop) && (self.control.observes(reason) || self.scope.observe())
    }

    /// Asks the allow list, but only about a packet that is about to be dropped.
    #[inline(always)]
    fn settle(&self, reason: Reason) -> Verdict {
        let observed = self.packet.observed.get();
        let service = self.scope.id();
        let drops = matches!(reason.outcome(), Outcome::Drop) || observed.is_some();
        if drops
            && self.control.has(Control::HAS_ALLOW)
            && self
                .tables
                .allowed(self.control.copy(Control::ALLOW), &self.packet.src.get())
        {
            return Verdict {
                reason: Reason::AllowListed,
                observed: Observed::NONE,
                service,
            };
        }
        Verdict {
            reason,
            observed,
            service,
        }
    }
}

#[cfg(test)]
mod tests;
