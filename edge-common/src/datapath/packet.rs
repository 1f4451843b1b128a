//! The packet as the parser leaves it for the later stages.
//!
//! It lies in a place that the tables provide (in the kernel: a map), not in registers. The parser has dozens of
//! ways out, and values that lie in memory need not be carried along each of them; and a verifier does not track
//! what a map holds, so the later stages are verified once, not once for each of the parser's paths.

use core::cell::Cell;

use crate::{
    abi::{Addr, Code, Family, PerCpu, Reason},
    wire::tcp,
};

/// Transport of a packet, as far as it could be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Not IPv4 or IPv6, or too short to tell.
    NotIp,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP.
    Icmp,
    /// ICMPv6.
    Icmp6,
    /// Another protocol.
    Other,
    /// A fragment that is not the first.
    LaterFragment,
    /// The frame ends inside a header.
    Truncated,
    /// A header contradicts itself, or there are too many extension headers.
    Malformed,
}

/// A packet's headers. Shared and written through [`Cell`]s, so that it can lie in a map.
#[repr(C, align(8))]
#[derive(Debug)]
pub struct Packet {
    /// Source.
    pub src: AddrCell,
    /// Destination.
    pub dst: AddrCell,
    /// Bytes of the frame.
    pub len: Cell<u32>,
    /// Source port, host order; 0 where there is none.
    pub sport: Cell<u16>,
    /// Destination port, host order; 0 where there is none.
    pub dport: Cell<u16>,
    /// Transport.
    pub kind: Cell<Kind>,
    /// TCP flags, or the type of an ICMP or ICMPv6 message.
    pub detail: Cell<u8>,
    /// Code of an ICMP message.
    pub code: Cell<u8>,
    /// IP protocol.
    pub protocol: Cell<u8>,
    /// IPv6 hop limit or IPv4 time to live.
    pub hops: Cell<u8>,
    /// The first reason for which it would have been dropped, were that not only observed.
    pub observed: Cell<Observed>,
    /// Address family of the source.
    pub family: Cell<Family>,
    /// 1 if it brought a SYN cookie back: it opens a connection then, as far as limits go.
    pub proven: Cell<u8>,
}
const _: () = assert!(size_of::<Packet>() == 48);
const _: () = assert!(size_of::<Packet>() <= core::mem::offset_of!(PerCpu, sampling));

/// What a plain packet is, but for its addresses.
#[derive(Clone, Copy, Debug)]
pub struct Brief {
    /// [`Packet::len`].
    pub len: u32,
    /// Both ports as they lie in the packet, as one number: the source port in the upper half.
    pub ports: u32,
    /// [`Packet::kind`].
    pub kind: Kind,
    /// [`Packet::detail`].
    pub detail: u8,
    /// [`Packet::protocol`].
    pub protocol: u8,
    /// [`Packet::hops`].
    pub hops: u8,
    /// [`Packet::family`].
    pub family: Family,
}

/// The 64-bit word of [`Packet`] that [`Brief::words`] begins at.
pub const BRIEF_WORD: usize = core::mem::offset_of!(Packet, len) / 8;
const _: () = {
    use core::mem::offset_of;
    assert!(
        offset_of!(Packet, len) == 32 && offset_of!(Packet, sport) == 36 && offset_of!(Packet, dport) == 38
    );
    assert!(
        offset_of!(Packet, kind) == 40 && offset_of!(Packet, detail) == 41 && offset_of!(Packet, code) == 42
    );
    assert!(offset_of!(Packet, protocol) == 43 && offset_of!(Packet, hops) == 44);
    assert!(offset_of!(Packet, observed) == 45 && offset_of!(Packet, family) == 46);
    assert!(offset_of!(Packet, proven) == 47);
    assert!(
        cfg!(target_endian = "little"),
        "the order of bytes in `Brief::words`"
    );
};

impl Brief {
    /// The words of a [`Packet`] from [`BRIEF_WORD`] on: all that is not an address, nothing observed, nothing proven.
    #[inline(always)]
    pub const fn words(self) -> [u64; 2] {
        let ports = self.ports.rotate_left(16) as u64;
        let known = (self.kind as u64)
            | (self.protocol as u64) << 24
            | (Observed::NONE.0 as u64) << 40
            | (self.family as u64) << 48;
        [
            self.len as u64 | ports << 32,
            known | (self.detail as u64) << 8 | (self.hops as u64) << 32,
        ]
    }
}

impl Packet {
    /// Writes what a plain packet is.
    pub fn note(&self, brief: Brief) {
        self.len.set(brief.len);
        self.sport.set((brief.ports >> 16) as u16);
        self.dport.set(brief.ports as u16);
        self.kind.set(brief.kind);
        self.detail.set(brief.detail);
        self.code.set(0);
        self.protocol.set(brief.protocol);
        self.hops.set(brief.hops);
        self.observed.set(Observed::NONE);
        self.family.set(brief.family);
        self.proven.set(0);
    }

    /// An unread packet.
    pub const fn new() -> Self {
        Self {
            src: AddrCell::new(Addr::UNSPECIFIED),
            dst: AddrCell::new(Addr::UNSPECIFIED),
            len: Cell::new(0),
            sport: Cell::new(0),
            dport: Cell::new(0),
            kind: Cell::new(Kind::NotIp),
            detail: Cell::new(0),
            code: Cell::new(0),
            protocol: Cell::new(0),
            hops: Cell::new(0),
            observed: Cell::new(Observed::NONE),
            family: Cell::new(Family::V4),
            proven: Cell::new(0),
        }
    }

    /// Whether it opens a TCP connection.
    #[inline(always)]
    pub fn opens(&self) -> bool {
        matches!(self.kind.get(), Kind::Tcp) && tcp::opens(self.detail.get())
    }

    /// Whether it opens a connection, or completes one that nothing was charged for yet.
    #[inline(always)]
    pub fn begins(&self) -> bool {
        self.opens() || self.proven.get() != 0
    }

    /// Whether it is a TCP segment that may complete a handshake.
    #[inline(always)]
    pub fn acknowledges(&self) -> bool {
        self.detail.get() & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::ACK
    }

    /// Remembers the first reason for which it would have been dropped.
    #[inline(always)]
    pub fn observe(&self, code: Code) {
        if !self.observed.get().is_some() {
            self.observed.set(Observed(code.0));
        }
    }
}

impl Default for Packet {
    fn default() -> Self {
        Self::new()
    }
}

/// An address that is written and read in words of 64 bits. What is read soon after it was written has to be read in the
/// same pieces: a processor waits for its store to reach the cache otherwise.
#[repr(C, align(8))]
#[derive(Debug)]
pub struct AddrCell([Cell<u64>; 2]);

impl AddrCell {
    /// Holds `addr`.
    pub const fn new(addr: Addr) -> Self {
        let [first, second] = addr.to_words();
        Self([Cell::new(first), Cell::new(second)])
    }

    /// The address.
    #[inline(always)]
    pub fn get(&self) -> Addr {
        Addr::from_words([self.0[0].get(), self.0[1].get()])
    }

    /// Replaces it.
    #[inline(always)]
    pub fn set(&self, addr: Addr) {
        let [first, second] = addr.to_words();
        self.0[0].set(first);
        self.0[1].set(second);
    }
}

/// A reason that was only observed, or none; a plain byte, since an enum would have the verifier walk the rest of
/// the pipeline once for each of its values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Observed(pub u8);

impl Observed {
    /// Nothing was.
    pub const NONE: Self = Self(u8::MAX);

    /// Whether something was.
    #[inline(always)]
    pub const fn is_some(self) -> bool {
        self.0 != Self::NONE.0
    }

    /// The reason, if something was.
    pub const fn reason(self) -> Option<Reason> {
        Reason::from_index(self.0)
    }
}
