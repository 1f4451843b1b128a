//! Proof of return path: answers SYNs with cookies, and lets only those through that bring one back.
//!
//! Both functions run as programs of their own, which the pipeline hands a packet to once bans, lists and sanity checks
//! have let it through ([`super::Hand`]). What only the kernel can do is behind [`Stack`], so tests run the same code.
//!
//! Invariants: nothing is remembered of a packet that proved nothing; a SYN that cannot be answered is at most let
//! through within the budget; a packet of a connection that the stack knows goes on to the limits, whatever its shape; a
//! service whose listener is not on this machine is left to its budget.

use core::ops::ControlFlow;

use super::{
    Judge, Packet, Scope, Tables, Verdict,
    budget::{Admission, Guard},
    limit,
};
use crate::{
    abi::{
        Code, Control, ControlWord, CookieSettings, EarnedHost, Family, Params, Reason, SynRule, TOLD, Told,
        hint,
    },
    algo::{earned, gcra, hash},
    wire::{
        Frame, eth,
        segment::{self, Headers, MAX_TCP_BYTES, TCP_BYTES},
        synack::{self, Own},
        tcp_options,
    },
};

/// What the stack has for the addresses and ports of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    /// Nothing: no process listens there, or not on this machine.
    Nothing,
    /// A socket that listens.
    Listener,
    /// A connection, whatever its state, also one that is being opened or has just been closed.
    Connection,
}

/// The kernel's TCP, as far as cookies need it, and the frame it is asked about.
pub trait Stack: Headers {
    /// Copies `bytes` bytes (at most 100) of the frame at `offset` to word `word` of the headers; whether it has them.
    fn load(&self, offset: u32, word: usize, bytes: u32) -> bool;
    /// What there is for the segment's addresses and ports. With `tcp_bytes` above 0 (the length of the SYN in the
    /// segment) a listener is told that it is under a flood: it takes cookies for two minutes from then on.
    fn find(&self, family: Family, tcp_bytes: u32) -> Known;
    /// The kernel's cookie for the SYN in the segment, in the low half; negative if it makes none.
    fn make(&self, family: Family, tcp_bytes: u32) -> i64;
    /// Whether the segment acknowledges a cookie of the kernel's.
    fn is_proof(&self, family: Family) -> bool;
    /// Largest IP packet that the interface takes.
    fn mtu(&self) -> u32;
    /// Turns the frame into one that goes back where it came from, with `bytes` bytes of the segment from word `word` on
    /// as its IP packet at `offset`; whether it could.
    fn send(&self, offset: u32, word: usize, bytes: u32) -> bool;
    /// Sets the hint that a source host may have exact state: bit `bit` of element `element`.
    fn hint(&self, element: u32, bit: u64);
}

/// Largest segment that an interface without a limit is said to take (`MAX_TCP_WINDOW` of a loopback's 65,536).
const MAX_MSS: u32 = 65_495;
/// Least one (net/ipv4/route.c, `ip_rt_min_advmss`).
const MIN_MSS: u32 = 256;
const MILLIS_A_SECOND: u64 = 1_000;

/// Everything that both programs begin with.
struct Case<'t, T: Tables> {
    judge: Judge<'t, T>,
    guard: Guard<'t, T::Cell>,
}

// Notes behind those of the answer: what is the same for all of a packet's way, and would have it walked once for each
// value.
/// 0 for IPv4: a v4-mapped address in an IPv6 packet does not tell.
const FAMILY: usize = 12;
/// Offset of the IP header.
const OFFSET: usize = 13;
const TCP_LENGTH: usize = 14;

#[inline(always)]
fn family<S: Stack>(stack: &S) -> Family {
    if stack.note(FAMILY) == 0 {
        Family::V4
    } else {
        Family::V6
    }
}

#[inline(always)]
fn open<'t, F: Frame, T: Tables, S: Stack>(
    frame: &F,
    tables: &'t T,
    stack: &S,
    index: u16,
) -> Option<Case<'t, T>> {
    let packet = tables.packet()?;
    let control = Control(tables.word(ControlWord::Control));
    let copy = control.copy(Control::SERVICES);
    let service = tables.service(copy, index)?;
    let guard = Guard {
        rule: tables.syn_rule(copy, service.id)?,
        state: tables.syn_state(service.id)?,
    };
    let (ether_type, offset) = eth::payload(frame);
    stack.set_note(FAMILY, u32::from(ether_type != eth::IPV4));
    stack.set_note(OFFSET, offset);
    Some(Case {
        judge: Judge {
            packet,
            tables,
            control,
            scope: Scope { service },
        },
        guard,
    })
}

/// Answers a SYN to `service` with a cookie.
#[inline(always)]
pub fn challenge<F: Frame, T: Tables, S: Stack>(
    frame: &F,
    tables: &T,
    stack: &S,
    service: u16,
    tick: u64,
) -> Verdict {
    let Some(case) = open(frame, tables, stack, service) else {
        return Verdict::plain(Reason::Internal.into());
    };
    let reason = case.challenge(frame, stack, tick);
    case.judge.settle(reason.into())
}

/// Judges a segment to `service` that opens nothing: a connection's, a cookie's, or nobody's.
#[inline(always)]
pub fn verify<F: Frame, T: Tables, S: Stack>(
    frame: &F,
    tables: &T,
    stack: &S,
    service: u16,
    tick: u64,
) -> Verdict {
    let Some(case) = open(frame, tables, stack, service) else {
        return Verdict::plain(Reason::Internal.into());
    };
    let code = case.verify(stack, service, tick);
    case.judge.settle(code)
}

impl<T: Tables> Case<'_, T> {
    #[inline(always)]
    fn challenge<F: Frame, S: Stack>(&self, frame: &F, stack: &S, tick: u64) -> Reason {
        let tcp_bytes = load_syn(frame, stack);
        if tcp_bytes == 0 {
            return self.leave(tick);
        }
        let (packet, tables) = (self.judge.packet, self.judge.tables);
        let place = Place::of(packet, tables.params());
        let is_told = place.is_told(tables, tick);
        // Only a source that has proved itself can have a connection in its closing, whose ports it may use again.
        let source = Source::of(&self.judge);
        let may_have = tables.hints(source.element).earned & source.bit != 0;
        if !is_told || may_have {
            let tell = if is_told { 0 } else { tcp_bytes };
            match stack.find(family(stack), tell) {
                Known::Listener if is_told => {}
                Known::Listener => place.set_told(tables, tick),
                Known::Connection | Known::Nothing => return self.leave(tick),
            }
        }
        let cookie = stack.make(family(stack), tcp_bytes);
        if cookie < 0 {
            return self.leave(tick);
        }
        let settings = tables.cookie_settings();
        let flag = |mask: u32| u32::from(settings.has(mask));
        tcp_options::restrict(
            stack,
            flag(CookieSettings::STAMPS),
            flag(CookieSettings::SACK),
            flag(CookieSettings::SCALING),
        );
        let own = self.own(
            family(stack),
            cookie.cast_unsigned() as u32,
            stack.mtu(),
            &settings,
            tick,
        );
        let tcp_bytes = synack::answer(stack, family(stack), &own);
        let (start, ip_bytes) = segment::ip(family(stack));
        if stack.send(stack.note(OFFSET), start, ip_bytes + tcp_bytes) {
            Reason::CookieSent
        } else {
            Reason::SynBudget
        }
    }

    #[inline(always)]
    fn own(&self, family: Family, cookie: u32, mtu: u32, settings: &CookieSettings, tick: u64) -> Own {
        let (_, ip_bytes) = segment::ip(family);
        let mss = mtu.saturating_sub(ip_bytes + TCP_BYTES);
        let mss = if mss > MAX_MSS { MAX_MSS } else { mss };
        let mss = if mss < MIN_MSS { MIN_MSS } else { mss };
        let scale = self.guard.rule.scale;
        let scale = if scale == SynRule::OWN_SCALE {
            settings.scale as u8
        } else {
            scale
        };
        Own {
            cookie,
            mss: mss as u16,
            space: settings.space,
            scale,
            now_ms: milliseconds(tick, settings, self.judge.tables.params().hz),
        }
    }

    /// A SYN that is not answered: to the stack within the budget, nowhere over it.
    #[inline(always)]
    fn leave(&self, tick: u64) -> Reason {
        match self.guard.admit(tick) {
            Admission::Within => Reason::Admitted,
            Admission::Over => Reason::SynBudget,
        }
    }

    #[inline(always)]
    fn verify<S: Stack>(&self, stack: &S, service: u16, tick: u64) -> Code {
        let packet = self.judge.packet;
        let (src, dst) = (packet.src.get(), packet.dst.get());
        stack.set_tuple(family(stack), &src, &dst, packet.sport.get(), packet.dport.get());
        match stack.find(family(stack), 0) {
            Known::Connection | Known::Nothing => {}
            Known::Listener => {
                let acknowledges = packet.acknowledges();
                if acknowledges && proves(stack) {
                    let source = Source::of(&self.judge);
                    source.earn(&self.judge, stack, service, tick);
                    packet.proven.set(1);
                } else {
                    let refused = if acknowledges {
                        Reason::BadCookie
                    } else {
                        Reason::NoConnection
                    };
                    if let ControlFlow::Break(code) = self.judge.weigh(ControlFlow::Break(refused.into())) {
                        return code;
                    }
                }
            }
        }
        let tables = self.judge.tables;
        let params = tables.params();
        let keys = &hint::Keys::new(&src, packet.family.get(), params);
        let hints = tables.hints(keys.element(params));
        let step = limit::stage(packet, &self.judge.scope, keys, hints, params, tables, tick);
        match self.judge.weigh(step) {
            ControlFlow::Continue(()) if packet.proven.get() != 0 => Reason::CookieAccepted.into(),
            ControlFlow::Continue(()) => Reason::Admitted.into(),
            ControlFlow::Break(code) => code,
        }
    }
}

/// Copies a SYN's headers and reads its options. Answers the bytes of its TCP header, 0 if it is not of the plain shape that is answered.
#[inline(always)]
fn load_syn<F: Frame, S: Stack>(frame: &F, stack: &S) -> u32 {
    let family = family(stack);
    let (start, ip_bytes) = segment::ip(family);
    let offset = stack.note(OFFSET);
    let there = frame.len().saturating_sub(offset);
    let most = ip_bytes + MAX_TCP_BYTES;
    let bytes = if there > most { most } else { there };
    if bytes < ip_bytes + TCP_BYTES || !stack.load(offset, start, bytes) {
        return 0;
    }
    let tcp_bytes = stack.tcp_bytes();
    if !stack.is_plain(family) || tcp_bytes < TCP_BYTES || ip_bytes + tcp_bytes > bytes {
        return 0;
    }
    stack.set_note(TCP_LENGTH, tcp_bytes);
    tcp_options::read(stack.note(TCP_LENGTH) - TCP_BYTES, stack);
    stack.note(TCP_LENGTH)
}

#[inline(always)]
fn proves<S: Stack>(stack: &S) -> bool {
    let family = family(stack);
    let (start, ip_bytes) = segment::ip(family);
    stack.load(stack.note(OFFSET), start, ip_bytes + TCP_BYTES)
        && stack.is_plain(family)
        && stack.is_proof(family)
}

/// The stack's millisecond clock (`tcp_clock_ms`), as far as the settings know it.
#[inline(always)]
const fn milliseconds(tick: u64, settings: &CookieSettings, hz: u32) -> u32 {
    let hz = if hz == 0 { 1 } else { hz };
    ((tick * MILLIS_A_SECOND / hz as u64) as u32).wrapping_add(settings.epoch_ms)
}

/// Where a packet's source is kept once it has proved itself.
struct Source {
    hash: u64,
    element: u32,
    bit: u64,
}

impl Source {
    #[inline(always)]
    fn of<T: Tables>(judge: &Judge<'_, T>) -> Self {
        let (packet, params) = (judge.packet, judge.tables.params());
        let keys = hint::Keys::new(&packet.src.get(), packet.family.get(), params);
        Self {
            hash: keys.host,
            element: keys.element(params),
            bit: hint::bit(keys.host),
        }
    }

    /// Gives the source exact state under the limits of its service, which has this index, if there is room.
    #[inline(always)]
    fn earn<T: Tables, S: Stack>(&self, judge: &Judge<'_, T>, stack: &S, service: u16, tick: u64) {
        let (packet, tables) = (judge.packet, judge.tables);
        let [one, other] = earned::places(self.hash, tables.params().earned_buckets);
        let (Some(one), Some(other)) = (tables.earned(one), tables.earned(other)) else {
            return;
        };
        let host = EarnedHost::new(&packet.src.get(), packet.family.get());
        let salt = judge.scope.service.limits[0].salt;
        // The bit first: an entry without is never found. One too many costs a look-up.
        stack.hint(self.element, self.bit);
        let copy = judge.control.copy(Control::SERVICES);
        let charged = |kind: usize| tables.charged(copy, service, kind as u8, tick);
        let _ = earned::claim_either([one, other], host, salt, gcra::now(tick), &charged);
    }
}

/// Where it is kept when a listener was last told.
struct Place {
    index: u32,
    tag: u32,
}

impl Place {
    #[inline(always)]
    fn of(packet: &Packet, params: &Params) -> Self {
        let dst = packet.dst.get();
        let h = hash::pair(
            dst.high(),
            dst.low() ^ u64::from(packet.dport.get()),
            &params.seeds,
        );
        Self {
            index: hash::index(h, TOLD - 1),
            tag: h as u32,
        }
    }

    /// Whether the listener was told within the last second: one that was started meanwhile waits no longer than that.
    #[inline(always)]
    fn is_told<T: Tables>(&self, tables: &T, tick: u64) -> bool {
        let told = tables.told(self.index);
        told.tag == self.tag && (tick as u32).wrapping_sub(told.tick) < tables.params().hz
    }

    #[inline(always)]
    fn set_told<T: Tables>(&self, tables: &T, tick: u64) {
        tables.set_told(
            self.index,
            Told {
                tag: self.tag,
                tick: tick as u32,
            },
        );
    }
}
