//! The packet pipeline: a list of stages, and one file a stage.
//!
//! A stage is a plain function over [`Frame`] and [`Tables`], so the kernel, the tests and the simulator run the
//! same code. A stage returns `Break(reason)` to leave the pipeline; nothing here writes to a packet.
//!
//! Invariants: a packet for nothing that is protected leaves with [`Reason::NotProtected`] or [`Reason::NotIp`]
//! before any stage that can drop it; every way out has a [`Reason`]; every loop has a constant bound.

mod ban;
mod budget;
mod cookie;
mod limit;
mod lists;
mod newcomers;
mod packet;
mod parse;
mod proof;
mod sanity;
mod service;
pub mod steer;

use core::ops::ControlFlow;

pub use ban::banned;
pub use cookie::{Known, Stack, challenge, verify};
pub use limit::{charged, charged_source};
pub use lists::{ALLOW_LIST, DENY_HINT_MASK, DENY_LIST, V4_GRAIN, V6_GRAIN, deny_hint, listed};
pub use packet::{BRIEF_WORD, Brief, Kind, Observed, Packet};
pub use parse::read;
pub use proof::{admit, prove};
pub use service::{Scope, follow};

use crate::{
    abi::{
        Addr, AddressFlags, Code, Control, ControlWord, CookieSettings, Hints, Params, PortEntry, Reason,
        SLOTS_PER_LINE, Service, SynRule, SynState, Told, ban::BUCKET_WORDS, hint, limit::EARNED_WORDS,
    },
    algo::slots::{self, Cell, Charge},
    wire::Frame,
};

/// A stage's answer: go on with `T`, or leave the pipeline for this reason.
pub type Step<T> = ControlFlow<Code, T>;

/// What is known of a packet's arrival beside its bytes. Asked for when it is needed, since most traffic needs none of
/// it.
pub trait Arrival {
    /// The kernel's jiffies.
    fn tick(&self) -> u64;
    /// It came from outside, not over the loopback interface.
    fn external(&self) -> bool;
}

/// An arrival that is known beforehand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct At {
    /// The kernel's jiffies.
    pub tick: u64,
    /// It came from outside, not over the loopback interface.
    pub external: bool,
}

impl Arrival for At {
    fn tick(&self) -> u64 {
        self.tick
    }

    fn external(&self) -> bool {
        self.external
    }
}

/// Everything a stage may ask of the maps, and nothing else.
pub trait Tables: Sized {
    /// A word shared between cores.
    type Cell: Cell;

    /// The place where the packet's headers lie while it is judged.
    fn packet(&self) -> Option<&Packet>;
    /// A word of the control table.
    fn word(&self, word: ControlWord) -> u64;
    /// The parameters fixed at load.
    fn params(&self) -> &Params;
    /// Chain heads for `port`.
    fn port(&self, port: u16) -> PortEntry;
    /// Service `index` of copy `copy`.
    fn service(&self, copy: u32, index: u16) -> Option<&Service>;
    /// What is known of a destination address.
    fn address(&self, addr: &Addr) -> AddressFlags;
    /// Element `index` of the hint table.
    fn hints(&self, index: u32) -> Hints;
    /// Bucket `index` of the ban table.
    fn bans(&self, index: u32) -> Option<&[Self::Cell; BUCKET_WORDS]>;
    /// The word of the deny list's hints.
    fn deny_hint_word(&self, copy: u32, word: u32) -> u64;
    /// Whether copy `copy` of the deny list covers `addr`.
    fn denied(&self, copy: u32, addr: &Addr) -> bool;
    /// Whether copy `copy` of the allow list covers `addr`.
    fn allowed(&self, copy: u32, addr: &Addr) -> bool;
    /// Line `index` of the default tier: a region for each [`crate::abi::LimitKind`], in the order of its
    /// discriminants; first those of the front, then those behind it.
    fn line(&self, index: u32) -> Option<&[Self::Cell; SLOTS_PER_LINE]>;
    /// [`slots::charge`] on line `index`. Apart, so that it can be a function of its own in the kernel: verified once,
    /// and not in the way.
    fn charge(&self, index: u32, tag: u64, now: u64, cost: u64, capacity: u64) -> Charge {
        match self.line(index) {
            Some(line) => slots::charge(line, tag, now, cost, capacity),
            None => Charge::Refused,
        }
    }
    /// [`slots::raise_front`] on the key's cell in line `index`. Apart for the same reason.
    fn raise_front(&self, index: u32, tag: u64, now: u64, cost: u64, most: u64) {
        if let Some(line) = self.line(index) {
            slots::raise_front(&line[tag as usize % SLOTS_PER_LINE], now, cost, most);
        }
    }
    /// [`slots::charge_exact`] on word `at` of a bucket of earned sources. Apart for the same reason.
    fn charge_exact(&self, bucket: u32, at: u32, now: u64, cost: u64, capacity: u64) -> Charge {
        match self.earned(bucket) {
            Some(words) => slots::charge_exact(&words[at as usize % EARNED_WORDS], now, cost, capacity),
            None => Charge::Refused,
        }
    }
    /// [`charged_source`]. Apart for the same reason.
    fn charged(&self, copy: u32, index: u16, kind: u8, tick: u64) -> u64 {
        charged_source(self, copy, index, kind, tick)
    }
    /// [`banned`] for the packet in [`Self::packet`]. Apart for the same reason.
    fn banned(&self, hash: u64, bits: u32, tick: u64) -> u64
    where
        Self: Sized,
    {
        self.packet()
            .map_or(0, |packet| banned(packet, self, hash, bits, tick))
    }
    /// [`read`]. Apart for the same reason, and not in the way of the packets that need none of it.
    fn read<F: Frame>(&self, frame: &F, packet: &Packet) {
        read(frame, packet);
    }
    /// [`follow`]. Apart for the same reason: most ports have one service.
    fn follow(&self, copy: u32, index: u16) -> u16 {
        follow(self, copy, index)
    }
    /// [`Self::denied`] or [`Self::allowed`] (`list` is [`DENY_LIST`] or [`ALLOW_LIST`]) for the source of the packet in
    /// [`Self::packet`]. Apart for the same reason.
    fn listed(&self, list: u32, copy: u32) -> bool {
        listed(self, list, copy)
    }
    /// [`prove`]. Apart for the same reason.
    fn prove(&self, what: u32, tick: u64) -> Code {
        prove(self, what, tick)
    }
    /// Whoever goes on reads what lies in [`Self::packet`] anew. In the kernel, the compiler would else carry it in
    /// registers along each of the ways that lead here, and a verifier would follow each to the end.
    fn forget(&self) {}
    /// Answers with what it is given. In the kernel it goes through memory that a verifier does not track: it would
    /// else walk what follows once for each of the values that a search can end with.
    fn launder(&self, index: u32) -> u32;
    /// Keeps where a search ended, for [`Self::found`], which a verifier does not track either.
    fn set_found(&self, place: u64);
    /// What was kept for this packet; 0 if nothing was.
    fn found(&self) -> u64;
    /// Writes what a plain packet is into [`Self::packet`], but for its addresses. Apart, so that the kernel can do it with
    /// two stores.
    fn note(&self, packet: &Packet, brief: Brief) {
        packet.note(brief);
        self.set_found(0);
    }
    /// Bucket `index` of the table of earned sources.
    fn earned(&self, index: u32) -> Option<&[Self::Cell; EARNED_WORDS]>;
    /// The rule of service `index` of copy `copy`.
    fn syn_rule(&self, copy: u32, index: u16) -> Option<&SynRule>;
    /// The state behind the rules of the service with identifier `service`.
    fn syn_state(&self, service: u16) -> Option<&[Self::Cell; SynState::CELLS]>;
    /// What answers with cookies say of this machine.
    fn cookie_settings(&self) -> CookieSettings;
    /// When the listener behind element `index` was last told that it is under a flood.
    fn told(&self, index: u32) -> Told;
    /// Keeps that.
    fn set_told(&self, index: u32, told: Told);
    /// Cell `index` of the UDP sources seen lately.
    fn seen(&self, index: u32) -> Option<&Self::Cell>;
}

/// What the pipeline decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Verdict {
    /// Why; says whether the packet passes.
    pub code: Code,
    /// The first reason for which it would have been dropped, were that not only observed.
    pub observed: Observed,
    /// Identifier of the service that judged it, 0 for none.
    pub service: u16,
}

/// Judges one packet. What was read of it lies in [`Tables::packet`] afterwards, unless nothing it is for is
/// protected.
#[inline(always)]
pub fn run<F: Frame, T: Tables, A: Arrival>(frame: &F, tables: &T, arrival: &A) -> Verdict {
    let (plain, port) = parse::glance(frame);
    let mut entry = None;
    if !matches!(plain, parse::Plain::No) {
        let found = tables.port(port);
        if !service::protects(found, plain.is_udp()) {
            return Verdict::plain(Reason::NotProtected.into());
        }
        entry = Some(found);
    }
    let Some(packet) = tables.packet() else {
        return Verdict::plain(Reason::Internal.into());
    };
    parse::stage(frame, packet, plain, tables);
    tables.forget();
    let control = Control(tables.word(ControlWord::Control));
    let scope = match service::stage(packet, tables, control, entry) {
        ControlFlow::Continue(scope) => scope,
        ControlFlow::Break(code) => return Verdict::plain(code),
    };
    tables.forget();
    let judge = Judge {
        packet,
        tables,
        control,
        scope,
    };
    match judge.stages(arrival) {
        ControlFlow::Continue(()) => judge.settle(judge.passing(Reason::Admitted)),
        ControlFlow::Break(code) => judge.settle(code),
    }
}

impl Verdict {
    #[inline(always)]
    const fn plain(code: Code) -> Self {
        Self {
            code,
            observed: Observed::NONE,
            service: 0,
        }
    }

    /// Why; says whether the packet passes.
    pub const fn reason(&self) -> Reason {
        self.code.reason()
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
    fn stages<A: Arrival>(&self, arrival: &A) -> Step<()> {
        let (packet, tables) = (self.packet, self.tables);
        let params = tables.params();
        let keys = &hint::Keys::new(&packet.src.get(), packet.family.get(), params);
        let hints = tables.hints(keys.element(params));
        let tick = arrival.tick();
        self.weigh_one(ban::stage(packet, keys, hints, params, tables, tick))?;
        tables.forget();
        self.weigh_one(lists::stage(packet, params, tables, self.control))?;
        tables.forget();
        self.weigh(sanity::stage(packet, arrival, self.control))?;
        tables.forget();
        if !self.scope.by_port() && limit::signalling(packet).is_break() {
            return ControlFlow::Break(self.passing(Reason::Signalling));
        }
        if self.is_guarded() {
            self.guard(tick)?;
        }
        tables.forget();
        self.weigh_one(limit::stage(
            packet,
            &self.scope,
            keys,
            hints,
            params,
            tables,
            tick,
        ))
    }

    #[inline(always)]
    fn is_guarded(&self) -> bool {
        self.scope.service.flags & Service::GUARDED != 0
    }

    #[inline(always)]
    fn guard(&self, tick: u64) -> Step<()> {
        // Nobody is challenged where what is over the budget is only observed.
        let observes = if self.observes(Reason::SynBudget.into()) {
            proof::OBSERVES
        } else {
            0
        };
        match self.tables.prove(u32::from(self.scope.id()) | observes, tick) {
            Code::GO_ON => Step::Continue(()),
            code => self.weigh(Step::Break(code)),
        }
    }

    /// Turns a drop that is only observed into going on, and remembers it.
    #[inline(always)]
    fn weigh(&self, step: Step<()>) -> Step<()> {
        match step {
            // What follows is verified once, not once for each reason.
            Step::Break(code) => {
                self.weigh_one(Step::Break(Code(self.tables.launder(u32::from(code.0)) as u8)))
            }
            Step::Continue(()) => Step::Continue(()),
        }
    }

    /// The same for a stage that has one reason.
    #[inline(always)]
    fn weigh_one(&self, step: Step<()>) -> Step<()> {
        match step {
            Step::Break(code) if self.observes(code) => {
                self.packet.observe(code);
                Step::Continue(())
            }
            other => other,
        }
    }

    #[inline(always)]
    fn observes(&self, code: Code) -> bool {
        code.drops() && (self.control.observes(code) || self.scope.observe())
    }

    /// What a packet that passes leaves with: one of a direct service goes on to a backend, and so may a message about a
    /// connection of one.
    #[inline(always)]
    fn passing(&self, reason: Reason) -> Code {
        let is_steered = if self.scope.by_port() {
            self.scope.service.flags & Service::DIRECT != 0
        } else {
            self.control.has(Control::HAS_DIRECT)
                && matches!(self.packet.kind.get(), Kind::Icmp | Kind::Icmp6)
        };
        if is_steered { Code::STEER } else { reason.into() }
    }

    /// Asks the allow list, but only about a packet that is about to be dropped.
    #[inline(always)]
    fn settle(&self, code: Code) -> Verdict {
        self.tables.forget();
        let observed = self.packet.observed.get();
        let service = self.scope.id();
        let drops = code.drops() || observed.is_some();
        if drops
            && self.control.has(Control::HAS_ALLOW)
            && self.tables.listed(ALLOW_LIST, self.control.copy(Control::ALLOW))
        {
            self.packet.observed.set(Observed::NONE);
            return Verdict {
                code: self.passing(Reason::AllowListed),
                observed: Observed::NONE,
                service,
            };
        }
        Verdict {
            code,
            observed,
            service,
        }
    }
}

#[cfg(test)]
mod tests;
