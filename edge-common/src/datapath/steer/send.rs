//! Writes frames anew: to a neighbour, inside another IP packet, or as an answer that says what would have fit.
//!
//! A frame leaves untagged: the interface it leaves by is the one that its VLAN is on.

use super::{Egress, Layout, Way, Window};
use crate::{
    abi::{Addr, Family},
    datapath::Packet,
    wire::{checksum, eth},
};

/// Bytes of an IPv4 header without options.
pub(super) const IPV4_BYTES: u32 = 20;
/// Bytes of an IPv6 header.
pub(super) const IPV6_BYTES: u32 = 40;
const ETH: usize = eth::HEADER as usize;
const V4: usize = IPV4_BYTES as usize;
const V6: usize = IPV6_BYTES as usize;
/// IP protocol numbers of what is inside: IPv4 (RFC 2003), IPv6 (RFC 2473).
const IPV4_INSIDE: u8 = 4;
const IPV6_INSIDE: u8 = 41;
/// Time to live of packets of our own (RFC 1700).
const HOPS: u32 = 64;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const ICMP_BYTES: u32 = 8;
const ICMP_HEADER: usize = ICMP_BYTES as usize;
/// What an answer quotes: the header and 8 bytes behind it (RFC 792), or as much as is cheap to add up (RFC 4443
/// section 3.2 allows for up to the least MTU).
const QUOTED_4: usize = V4 + 8;
const QUOTED_6: usize = V6 + 88;
/// First 16 bits of outer IPv4 sources, 172.16.0.0/16: a private network (RFC 1918) whose other bits are the flow's.
const SOURCE_4: u32 = 0xac10_0000;
/// First half of outer IPv6 sources, 100::/64: nothing is ever sent there (RFC 6666).
const SOURCE_6: u32 = 0x0100_0000;

/// Protocol number of an encapsulated packet.
#[inline(always)]
pub(super) const fn inner_protocol(family: Family) -> u8 {
    match family {
        Family::V4 => IPV4_INSIDE,
        Family::V6 => IPV6_INSIDE,
    }
}

/// The source of the outer header: the flow's own, so that receivers spread flows over queues and cores.
#[inline(always)]
pub(super) const fn outer_source(family: Family, hash: u64) -> Addr {
    match family {
        Family::V4 => Addr::from_v4_word((SOURCE_4 | (hash >> 8) as u32 & 0xffff).to_be()),
        Family::V6 => Addr([SOURCE_6.to_be(), 0, (hash >> 32) as u32, hash as u32]),
    }
}

/// Sends the packet as it is, with one hop less.
#[inline(always)]
pub(super) fn relay<E: Egress>(egress: &E, layout: &Layout, way: &Way) -> bool {
    if !stretch(egress, layout, 0) {
        return false;
    }
    match layout.family {
        Family::V4 => egress.window::<{ ETH + V4 }>().is_some_and(|frame| {
            link(&frame, way, eth::IPV4);
            hop_v4(&frame, ETH);
            true
        }),
        Family::V6 => egress.window::<{ ETH + V6 }>().is_some_and(|frame| {
            link(&frame, way, eth::IPV6);
            hop_v6(&frame, ETH);
            true
        }),
    }
}

/// Sends the packet, with one hop less, inside another one.
#[inline(always)]
pub(super) fn wrap<E: Egress>(
    egress: &E,
    layout: &Layout,
    way: &Way,
    src: &Addr,
    dst: &Addr,
    hash: u64,
) -> bool {
    match (dst.family(), layout.family) {
        (Family::V4, Family::V4) => {
            stretch(egress, layout, IPV4_BYTES)
                && egress.window::<{ ETH + V4 + V4 }>().is_some_and(|frame| {
                    hop_v4(&frame, ETH + V4);
                    outer_v4(&frame, layout, way, src, dst)
                })
        }
        (Family::V4, Family::V6) => {
            stretch(egress, layout, IPV4_BYTES)
                && egress.window::<{ ETH + V4 + V6 }>().is_some_and(|frame| {
                    hop_v6(&frame, ETH + V4);
                    outer_v4(&frame, layout, way, src, dst)
                })
        }
        (Family::V6, Family::V4) => {
            stretch(egress, layout, IPV6_BYTES)
                && egress.window::<{ ETH + V6 + V4 }>().is_some_and(|frame| {
                    hop_v4(&frame, ETH + V6);
                    outer_v6(&frame, layout, way, src, dst, hash)
                })
        }
        (Family::V6, Family::V6) => {
            stretch(egress, layout, IPV6_BYTES)
                && egress.window::<{ ETH + V6 + V6 }>().is_some_and(|frame| {
                    hop_v6(&frame, ETH + V6);
                    outer_v6(&frame, layout, way, src, dst, hash)
                })
        }
    }
}

/// What a translated packet has instead of its own.
pub(super) struct Ends {
    pub(super) src: Addr,
    pub(super) dst: Addr,
    /// Both ports as they lie in the packet.
    pub(super) ports: u32,
}

/// Bytes of the headers of TCP, without options, and of UDP.
const TCP: usize = 20;
const UDP: usize = 8;
/// Where their checksums lie.
const TCP_SUM: usize = 16;
const UDP_SUM: usize = 6;

/// Sends the packet, with one hop less, from and to other addresses and ports.
#[inline(always)]
pub(super) fn translate<E: Egress>(
    egress: &E,
    layout: &Layout,
    way: &Way,
    ends: &Ends,
    is_tcp: bool,
) -> bool {
    if !stretch(egress, layout, 0) {
        return false;
    }
    match (layout.family, is_tcp) {
        (Family::V4, true) => egress
            .window::<{ ETH + V4 + TCP }>()
            .is_some_and(|frame| rewrite_v4(&frame, way, ends, TCP_SUM)),
        (Family::V4, false) => egress
            .window::<{ ETH + V4 + UDP }>()
            .is_some_and(|frame| rewrite_v4(&frame, way, ends, UDP_SUM)),
        (Family::V6, true) => egress
            .window::<{ ETH + V6 + TCP }>()
            .is_some_and(|frame| rewrite_v6(&frame, way, ends, TCP_SUM)),
        (Family::V6, false) => egress
            .window::<{ ETH + V6 + UDP }>()
            .is_some_and(|frame| rewrite_v6(&frame, way, ends, UDP_SUM)),
    }
}

#[inline(always)]
fn rewrite_v4<W: Window>(frame: &W, way: &Way, ends: &Ends, sum_at: usize) -> bool {
    let mut change = replace(frame, ETH + 12, ends.src.0[3]);
    change += replace(frame, ETH + 16, ends.dst.0[3]);
    frame.set_half(
        ETH + 10,
        checksum::finish(u64::from(!frame.half(ETH + 10)) + change),
    );
    change += replace(frame, ETH + V4, ends.ports);
    let at = ETH + V4 + sum_at;
    // Over IPv4, UDP may go without (RFC 768).
    if sum_at != UDP_SUM || frame.half(at) != 0 {
        set_sum(frame, at, change, sum_at);
    }
    link(frame, way, eth::IPV4);
    hop_v4(frame, ETH);
    true
}

#[inline(always)]
fn rewrite_v6<W: Window>(frame: &W, way: &Way, ends: &Ends, sum_at: usize) -> bool {
    let (mut change, mut at) = (0, 0);
    while at < 4 {
        change += replace(frame, ETH + 8 + at * 4, ends.src.0[at]);
        change += replace(frame, ETH + 24 + at * 4, ends.dst.0[at]);
        at += 1;
    }
    change += replace(frame, ETH + V6, ends.ports);
    set_sum(frame, ETH + V6 + sum_at, change, sum_at);
    link(frame, way, eth::IPV6);
    hop_v6(frame, ETH);
    true
}

/// Writes a word, and answers with what that adds to a sum (RFC 1624, equation 3).
#[inline(always)]
fn replace<W: Window>(frame: &W, at: usize, new: u32) -> u64 {
    let old = frame.word(at);
    frame.set_word(at, new);
    u64::from(!old) + u64::from(new)
}

#[inline(always)]
fn set_sum<W: Window>(frame: &W, at: usize, change: u64, sum_at: usize) {
    let sum = checksum::finish(u64::from(!frame.half(at)) + change);
    // A sum of zero would say that there is none (RFC 768).
    let is_none = sum_at == UDP_SUM && sum == 0;
    frame.set_half(at, if is_none { 0xffff } else { sum });
}

/// Makes room for `more` bytes before the IP header, where Ethernet's comes directly before.
#[inline(always)]
fn stretch<E: Egress>(egress: &E, layout: &Layout, more: u32) -> bool {
    let change = (more + eth::HEADER).wrapping_sub(layout.offset).cast_signed();
    change == 0 || egress.stretch(change)
}

#[inline(always)]
fn link<W: Window>(frame: &W, way: &Way, ether_type: u16) {
    frame.set_word(0, way.link[0]);
    frame.set_word(4, way.link[1]);
    frame.set_word(8, way.link[2]);
    frame.set_half(12, ether_type.to_be());
}

/// One hop less, and the checksum as it is then (RFC 1624, equation 3).
#[inline(always)]
fn hop_v4<W: Window>(frame: &W, at: usize) {
    let hops = frame.u8(at + 8);
    frame.set_u8(at + 8, hops.wrapping_sub(1));
    let sum = u32::from(u16::from_be(frame.half(at + 10))) + 0x0100;
    frame.set_half(at + 10, ((sum + u32::from(sum >= 0xffff)) as u16).to_be());
}

#[inline(always)]
fn hop_v6<W: Window>(frame: &W, at: usize) {
    let hops = frame.u8(at + 7);
    frame.set_u8(at + 7, hops.wrapping_sub(1));
}

#[inline(always)]
fn outer_v4<W: Window>(frame: &W, layout: &Layout, way: &Way, src: &Addr, dst: &Addr) -> bool {
    link(frame, way, eth::IPV4);
    header_v4(
        frame,
        u32::from(layout.class) << 16 | (layout.bytes + IPV4_BYTES) & 0xffff,
        inner_protocol(layout.family),
        src,
        dst,
    );
    true
}

/// An IPv4 header behind Ethernet's, never to be fragmented: whether it fits has been asked (RFC 2003 section 3.1).
#[inline(always)]
fn header_v4<W: Window>(frame: &W, class_and_bytes: u32, protocol: u8, src: &Addr, dst: &Addr) {
    let words = [
        (0x4500_0000 | class_and_bytes).to_be(),
        0x0000_4000_u32.to_be(),
        (HOPS << 24 | u32::from(protocol) << 16).to_be(),
        src.0[3],
        dst.0[3],
    ];
    let mut sum = 0;
    let mut at = 0;
    while at < words.len() {
        sum += u64::from(words[at]);
        frame.set_word(ETH + at * 4, words[at]);
        at += 1;
    }
    frame.set_half(ETH + 10, checksum::finish(sum));
}

#[inline(always)]
fn outer_v6<W: Window>(frame: &W, layout: &Layout, way: &Way, src: &Addr, dst: &Addr, hash: u64) -> bool {
    link(frame, way, eth::IPV6);
    // A label of the flow's (RFC 6437), which routers spread by.
    let first = u32::from(layout.class) << 20 | (hash >> 12) as u32 & 0xf_ffff;
    header_v6(
        frame,
        first,
        layout.bytes,
        inner_protocol(layout.family),
        src,
        dst,
    );
    true
}

#[inline(always)]
fn header_v6<W: Window>(frame: &W, first: u32, bytes: u32, next: u8, src: &Addr, dst: &Addr) {
    frame.set_word(ETH, (0x6000_0000 | first).to_be());
    frame.set_word(
        ETH + 4,
        ((bytes & 0xffff) << 16 | u32::from(next) << 8 | HOPS).to_be(),
    );
    let mut at = 0;
    while at < 4 {
        frame.set_word(ETH + 8 + at * 4, src.0[at]);
        frame.set_word(ETH + 24 + at * 4, dst.0[at]);
        at += 1;
    }
}

/// Turns the frame into the message that only packets of up to `fits` bytes go through (RFC 1191, RFC 8201), from the
/// service's address to the sender, back where it came from.
#[inline(always)]
pub(super) fn answer<E: Egress>(egress: &E, layout: &Layout, packet: &Packet, fits: u32) -> bool {
    let quoted = match layout.family {
        Family::V4 => QUOTED_4,
        Family::V6 => QUOTED_6,
    };
    if layout.bytes < quoted as u32 {
        return false;
    }
    let Some(frame) = egress.window::<ETH>() else {
        return false;
    };
    // Whoever sent to a group gets no answer (RFC 1122 section 3.2.2).
    if frame.u8(0) & 1 != 0 {
        return false;
    }
    let (a, b, c) = (frame.word(0), frame.word(4), frame.word(8));
    let back = Way {
        link: [b >> 16 | c << 16, c >> 16 | a << 16, a >> 16 | b << 16],
        ..Way::none()
    };
    let (src, dst) = (packet.dst.get(), packet.src.get());
    match layout.family {
        Family::V4 => answer_v4(egress, &back, &src, &dst, fits),
        Family::V6 => answer_v6(egress, &back, &src, &dst, fits),
    }
}

#[inline(always)]
fn answer_v4<E: Egress>(egress: &E, back: &Way, src: &Addr, dst: &Addr, fits: u32) -> bool {
    const BYTES: usize = V4 + ICMP_HEADER + QUOTED_4;
    if !egress.stretch((IPV4_BYTES + ICMP_BYTES).cast_signed()) || !egress.cut((ETH + BYTES) as u32) {
        return false;
    }
    let Some(frame) = egress.window::<{ ETH + BYTES }>() else {
        return false;
    };
    link(&frame, back, eth::IPV4);
    header_v4(&frame, BYTES as u32, ICMP, src, dst);
    // Destination unreachable, fragmentation needed.
    frame.set_word(ETH + V4, 0x0304_0000_u32.to_be());
    frame.set_word(ETH + V4 + 4, (fits & 0xffff).to_be());
    let sum = add::<_, { ETH + V4 }, { (ICMP_HEADER + QUOTED_4) / 4 }>(&frame, 0);
    frame.set_half(ETH + V4 + 2, checksum::finish(sum));
    true
}

#[inline(always)]
fn answer_v6<E: Egress>(egress: &E, back: &Way, src: &Addr, dst: &Addr, fits: u32) -> bool {
    const BYTES: usize = ICMP_HEADER + QUOTED_6;
    if !egress.stretch((IPV6_BYTES + ICMP_BYTES).cast_signed()) || !egress.cut((ETH + V6 + BYTES) as u32) {
        return false;
    }
    let Some(frame) = egress.window::<{ ETH + V6 + BYTES }>() else {
        return false;
    };
    link(&frame, back, eth::IPV6);
    header_v6(&frame, 0, BYTES as u32, ICMPV6, src, dst);
    // Packet too big.
    frame.set_word(ETH + V6, 0x0200_0000_u32.to_be());
    frame.set_word(ETH + V6 + 4, fits.to_be());
    // The addresses are in the sum as well (RFC 8200 section 8.1).
    let pseudo = u64::from((BYTES as u32).to_be()) + u64::from(u32::from(ICMPV6).to_be());
    let sum = add::<_, { ETH + 8 }, 8>(&frame, pseudo);
    let sum = add::<_, { ETH + V6 }, { BYTES / 4 }>(&frame, sum);
    frame.set_half(ETH + V6 + 2, checksum::finish(sum));
    true
}

/// Adds `WORDS` words from `AT` on.
#[inline(always)]
fn add<W: Window, const AT: usize, const WORDS: usize>(frame: &W, mut sum: u64) -> u64 {
    let mut at = 0;
    while at < WORDS {
        sum += u64::from(frame.word(AT + at * 4));
        at += 1;
    }
    sum
}
