//! Why a packet passed or was dropped. The discriminant *is* the index of the counter.

use super::assert_layout;

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It goes on to the stack.
    Pass,
    /// It ends here.
    Drop,
    /// It goes back where it came from, as an answer.
    Answer,
    /// It goes on to a backend.
    Forward,
}

/// One list for the program, `status`, metrics and the documentation.
macro_rules! reasons {
    ($($variant:ident = $index:literal, $outcome:ident, $name:literal, $text:literal;)*) => {
        /// Why a packet passed or was dropped.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = $text] $variant = $index,)*
        }

        impl Reason {
            /// Every reason, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Stable snake-case name, as in metrics and `status --json`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One line for people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Whether packets with this reason pass or end.
            #[inline(always)]
            pub const fn outcome(self) -> Outcome {
                match self { $(Self::$variant => Outcome::$outcome,)* }
            }

            /// The reason behind a counter's index or an event's byte.
            pub const fn from_index(index: u8) -> Option<Self> {
                match index { $($index => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

reasons! {
    NotIp = 0, Pass, "not_ip", "not IPv4 or IPv6, or too short to tell";
    NotProtected = 1, Pass, "not_protected", "for nothing that is protected";
    Admitted = 2, Pass, "admitted", "for a protected service, within its limits";
    AllowListed = 3, Pass, "allow_listed", "would have been dropped, but the source is on the allow list";
    Signalling = 4, Pass, "signalling", "path MTU or neighbour discovery, which is never limited";
    Banned = 5, Drop, "banned", "the source is banned";
    Denied = 6, Drop, "denied", "the source is on the deny list";
    Fragment = 7, Drop, "fragment", "a later fragment: it carries no port to judge by";
    Truncated = 8, Drop, "truncated", "the frame ends inside a header";
    Malformed = 9, Drop, "malformed", "a header contradicts itself, or too many extension headers";
    BadFlags = 10, Drop, "bad_flags", "TCP flags that no connection sends";
    SameAddress = 11, Drop, "same_address", "the source is the destination";
    Martian = 12, Drop, "martian", "the source cannot be real on this interface";
    ZeroPort = 13, Drop, "zero_port", "source port zero";
    SourcePackets = 14, Drop, "source_packets", "the source host is over its packet limit";
    SourceSyns = 15, Drop, "source_syns", "the source host is over its limit of new connections";
    SourceBytes = 16, Drop, "source_bytes", "the source host is over its byte limit";
    NetworkPackets = 17, Drop, "network_packets", "the source network is over its packet limit";
    NetworkSyns = 18, Drop, "network_syns", "the source network is over its limit of new connections";
    NetworkBytes = 19, Drop, "network_bytes", "the source network is over its byte limit";
    SourceIcmp = 20, Drop, "source_icmp", "the source host is over its ICMP limit";
    Contended = 21, Drop, "contended", "too many cores charged the same limiter cell at once";
    Internal = 22, Drop, "internal", "a table the program needs is missing";
    CookieSent = 23, Answer, "cookie_sent", "a new connection, answered with a SYN cookie";
    CookieAccepted = 24, Pass, "cookie_accepted", "brought a SYN cookie back: the source is real";
    BadCookie = 25, Drop, "bad_cookie", "belongs to no connection and brings no SYN cookie back";
    NoConnection = 26, Drop, "no_connection", "ends a connection that there is not";
    SynBudget = 27, Drop, "syn_budget", "the service is over its budget of new connections";
    NewSources = 28, Drop, "new_sources", "the service is over its budget of new sources";
    Steered = 29, Forward, "steered", "for a direct service: sent on to one of its backends";
    NoBackend = 30, Drop, "no_backend", "none of the service's backends takes it";
    NoRoute = 31, Drop, "no_route", "no way to the backend, or its neighbour is not known yet";
    TooBig = 32, Answer, "too_big", "too big for the way to the backend; the sender was told what fits";
    Oversized = 33, Drop, "oversized", "too big for the way to the backend, and of a kind that is not answered";
    HopsExceeded = 34, Drop, "hops_exceeded", "its hops are used up, as if it went round in circles";
    Unforwardable = 35, Drop, "unforwardable", "its headers cannot be rewritten, or there is no room for more";
    NoPort = 36, Drop, "no_port", "no port is free to translate it to";
}

/// A [`Reason`] as the pipeline carries it: a plain byte, since an enum would have a verifier walk the rest of the
/// pipeline once for each of its values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Code(pub u8);

impl Code {
    /// No reason yet: the packet goes on to [`crate::datapath::challenge`]. Its low bits are a reason's that passes.
    pub const CHALLENGE: Self = Self(Self::HANDED);
    /// The same for [`crate::datapath::verify`].
    pub const VERIFY: Self = Self(Self::HANDED + 1);
    /// The same for [`crate::datapath::admit`].
    pub const ADMIT: Self = Self(Self::HANDED + 2);
    /// The same for [`crate::datapath::steer`].
    pub const STEER: Self = Self(Self::HANDED + 3);
    /// The same for [`crate::datapath::steer::translate`] and [`crate::datapath::steer::restore`].
    pub const TRANSLATE: Self = Self(Self::HANDED + 4);
    /// Programs that packets are handed on to.
    pub const PROGRAMS: u32 = 5;
    const HANDED: u8 = 0x80;
    /// No reason: the packet goes on through the pipeline.
    pub const GO_ON: Self = Self(0x7f);

    /// Index of the program that the packet goes on to, if it does.
    #[inline(always)]
    pub const fn handed(self) -> Option<u32> {
        if self.0 < Self::HANDED {
            return None;
        }
        Some((self.0 - Self::HANDED) as u32)
    }

    /// One bit for each reason that drops.
    const DROPS: u64 = {
        let (mut drops, mut index) = (0, 0);
        while index < Reason::ALL.len() {
            if matches!(Reason::ALL[index].outcome(), Outcome::Drop) {
                drops |= 1 << index;
            }
            index += 1;
        }
        drops
    };

    /// Whether a packet that leaves so is dropped.
    #[inline(always)]
    pub const fn drops(self) -> bool {
        Self::DROPS >> (self.0 & 63) & 1 != 0
    }

    /// The reason; what is none counts as [`Reason::Internal`].
    pub const fn reason(self) -> Reason {
        match Reason::from_index(self.0) {
            Some(reason) => reason,
            None => Reason::Internal,
        }
    }
}

impl From<Reason> for Code {
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self(reason as u8)
    }
}

impl Reason {
    /// Whether drops for it can be only counted: what is to go on to a backend and cannot has nowhere else to go.
    pub const fn is_observable(self) -> bool {
        matches!(self.outcome(), Outcome::Drop) && (self as u8) < Self::Steered as u8
    }

    /// Counters a service has: the reasons, rounded up so that the layout can grow.
    pub const SLOTS: u32 = 64;
}
const _: () = assert!(Reason::ALL.len() <= Reason::SLOTS as usize);

/// Element of the per-CPU counter table; index `service id * Reason::SLOTS + reason`, and in the second half of
/// the table the same for packets that were only observed.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes of frames.
    pub bytes: u64,
}
assert_layout!(Counter, size = 16, align = 8);

/// A CPU's sampling: what it has left for the tick, and what it lost.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sampling {
    /// The tick that `left` is about.
    pub tick: u64,
    /// Samples left in it.
    pub left: u64,
    /// Samples not taken since the CPU had used up those of the tick.
    pub over_budget: u64,
    /// Samples not taken since the ring buffer was full: user space reads too slowly.
    pub buffer_full: u64,
}
assert_layout!(Sampling, size = 32, align = 8);

/// Words that a packet's headers take while it is judged ([`crate::datapath::Packet`]).
pub const SCRATCH_WORDS: usize = 7;

/// What a CPU has for itself, in one element: one look-up finds all.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PerCpu {
    /// The packet's headers while it is judged.
    pub scratch: [u64; SCRATCH_WORDS],
    /// Sampling.
    pub sampling: Sampling,
}
assert_layout!(PerCpu, size = 56 + 32, align = 8);

impl Sampling {
    /// Samples a tick and CPU.
    pub const PER_TICK: u64 = 4;
}

/// What user space counts for the operator beside the packets. The discriminant is the index of the counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Alert {
    /// Bans merged into a wider prefix because the table was full.
    BansAggregated = 0,
    /// Bans that found no room at all.
    BansRefused = 1,
    /// Bans held back by the ceiling on bans a minute.
    BansOverCeiling = 2,
    /// Entries of exact state for sources that had earned it and found no room.
    EarnedRefused = 3,
}

impl Alert {
    /// Elements of the alert table.
    pub const SLOTS: u32 = 16;
}
