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
mod parse;
mod sanity;
mod service;

use core::ops::ControlFlow;

pub use lists::{DENY_HINT_MASK, V4_GRAIN, V6_GRAIN, deny_hint};
pub use parse::{Kind, Packet};
pub use service::Scope;

use crate::{
    abi::{
        Addr, AddressFlags, Ban, BanKey, Control, LimitKind, Outcome, Params, PortEntry, Reason, Service,
        hint,
    },
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
    /// Cell `index` of row `row` of the default tier.
    fn cell(&self, kind: LimitKind, row: u32, index: u32) -> Option<&Self::Cell>;
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
    pub observed: Option<Reason>,
    /// Identifier of the service that judged it, 0 for none.
    pub service: u16,
}

/// A verdict with the packet it is about, for counters and samples.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Judged {
    /// The decision.
    pub verdict: Verdict,
    /// The packet, where it could be read.
    pub packet: Option<Packet>,
}

/// Judges one packet.
#[inline(always)]
pub fn run<F: Frame, T: Tables>(frame: &F, tables: &T, arrival: Arrival) -> Judged {
    let packet = match parse::stage(frame) {
        ControlFlow::Continue(packet) => packet,
        ControlFlow::Break(reason) => {
            return Judged {
                verdict: Verdict::plain(reason),
                packet: None,
            };
        }
    };
    let control = tables.control();
    let scope = match service::stage(&packet, tables, control) {
        ControlFlow::Continue(scope) => scope,
        ControlFlow::Break(reason) => {
            return Judged {
                verdict: Verdict::plain(reason),
                packet: Some(packet),
            };
        }
    };
    let mut judge = Judge {
        tables,
        control,
        scope,
        observed: None,
    };
    let reason = match judge.stages(frame, &packet, arrival) {
        ControlFlow::Continue(()) => Reason::Admitted,
        ControlFlow::Break(reason) => reason,
    };
    Judged {
        verdict: judge.settle(&packet, reason),
        packet: Some(packet),
    }
}

impl Verdict {
    #[inline(always)]
    const fn plain(reason: Reason) -> Self {
        Self {
            reason,
            observed: None,
            service: 0,
        }
    }
}

struct Judge<'t, T: Tables> {
    tables: &'t T,
    control: Control,
    scope: Scope<'t>,
    observed: Option<Reason>,
}

impl<T: Tables> Judge<'_, T> {
    /// The stages behind the service look-up, cheap and decisive ones first.
    #[inline(always)]
    fn stages<F: Frame>(&mut self, frame: &F, packet: &Packet, arrival: Arrival) -> Step<()> {
        let Some(params) = self.tables.params() else {
            return Step::Break(Reason::Internal);
        };
        let keys = hint::Keys::new(&packet.src, params);
        let hints = ban::hints(&keys, params, self.tables);
        self.weigh(ban::stage(packet, &hints, self.tables, arrival.tick))?;
        self.weigh(lists::stage(packet, params, self.tables, self.control))?;
        self.weigh(sanity::stage(packet, arrival, self.control))?;
        let Some(service) = self.scope.service else {
            return self.weigh(limit::icmp(
                frame,
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
            hints.earned,
            params,
            self.tables,
            arrival.tick,
        ))
    }

    /// Turns a drop that is only observed into going on, and remembers it.
    #[inline(always)]
    fn weigh(&mut self, step: Step<()>) -> Step<()> {
        match step {
            Step::Break(reason) if self.observes(reason) => {
                self.observed.get_or_insert(reason);
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
    fn settle(&self, packet: &Packet, reason: Reason) -> Verdict {
        let mut verdict = Verdict {
            reason,
            observed: self.observed,
            service: self.scope.id(),
        };
        let drops = matches!(reason.outcome(), Outcome::Drop) || self.observed.is_some();
        if drops
            && self.control.has(Control::HAS_ALLOW)
            && self
                .tables
                .allowed(self.control.copy(Control::ALLOW), &packet.src)
        {
            verdict.reason = Reason::AllowListed;
            verdict.observed = None;
        }
        verdict
    }
}

#[cfg(test)]
mod tests;
