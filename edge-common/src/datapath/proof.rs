//! What a guarded service asks beside its limits: proof of return path, or room in its budget.

use core::ops::ControlFlow;

use super::{
    Judge, Kind, Scope, Tables, Verdict,
    budget::{Admission, Guard},
    limit, newcomers,
};
use crate::abi::{Code, Control, ControlWord, Reason, hint};

/// What is over the budget is only observed.
pub(super) const OBSERVES: u32 = 1 << 16;

/// Judges the packet in [`Tables::packet`] for a guarded service, before the limits: nothing of a source counts before it
/// has proved itself, since made-up sources would fill the limiter's cells. `what` is the service's index, perhaps with
/// [`OBSERVES`]. Answers [`Code::GO_ON`] if there is nothing to say.
#[inline(always)]
pub fn prove<T: Tables>(tables: &T, what: u32, tick: u64) -> Code {
    let control = Control(tables.word(ControlWord::Control));
    let service = what as u16;
    let (Some(packet), Some(rule), Some(state)) = (
        tables.packet(),
        tables.syn_rule(control.copy(Control::SERVICES), service),
        tables.syn_state(service),
    ) else {
        return Reason::Internal.into();
    };
    let guard = Guard { rule, state };
    let is_engaged = what & OBSERVES == 0 && guard.is_engaged(tick);
    match packet.kind.get() {
        Kind::Udp => newcomers::judge(&guard, service, packet, tables, tick),
        Kind::Tcp if packet.opens() && !is_engaged => Code::ADMIT,
        Kind::Tcp if packet.opens() => {
            guard.note(tick);
            Code::CHALLENGE
        }
        Kind::Tcp if is_engaged => Code::VERIFY,
        _ => Code::GO_ON,
    }
}

/// Judges a SYN to a guarded service while no cookies are engaged: the limits, and behind them the budget, so that nobody
/// can spend it alone. The first SYN over it engages cookies, and is handed on.
#[inline(always)]
pub fn admit<T: Tables>(tables: &T, service: u16, tick: u64) -> Verdict {
    let control = Control(tables.word(ControlWord::Control));
    let copy = control.copy(Control::SERVICES);
    let (Some(packet), Some(judging), Some(rule), Some(state)) = (
        tables.packet(),
        tables.service(copy, service),
        tables.syn_rule(copy, service),
        tables.syn_state(service),
    ) else {
        return Verdict::plain(Reason::Internal.into());
    };
    let judge = Judge {
        packet,
        tables,
        control,
        scope: Scope { service: judging },
    };
    let params = tables.params();
    let keys = &hint::Keys::new(&packet.src.get(), packet.family.get(), params);
    let hints = tables.hints(keys.element(params));
    let limited = limit::stage(packet, &judge.scope, keys, hints, params, tables, tick);
    if let ControlFlow::Break(code) = judge.weigh(limited) {
        return judge.settle(code);
    }
    let guard = Guard { rule, state };
    if guard.admit(tick) == Admission::Within {
        return judge.settle(judge.passing(Reason::Admitted));
    }
    // Nobody is challenged where what is over the budget is only observed.
    if guard.engage(tick) && !judge.observes(Reason::SynBudget.into()) {
        return judge.settle(Code::CHALLENGE);
    }
    match judge.weigh(ControlFlow::Break(Reason::SynBudget.into())) {
        ControlFlow::Break(code) => judge.settle(code),
        ControlFlow::Continue(()) => judge.settle(judge.passing(Reason::Admitted)),
    }
}
