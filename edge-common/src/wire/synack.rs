//! Turns a SYN's headers, in place, into the SYN-ACK that answers it with a cookie.
//!
//! The answer is the one Linux would give under SYN cookies: the order of options of `tcp_options_write`
//! (net/ipv4/tcp_output.c), the window of `tcp_select_initial_window`, and the client's options coded into the low bits
//! of the timestamp, where the stack looks for them when the ACK comes (net/ipv4/syncookies.c, `cookie_init_timestamp`).
//! Without a timestamp there is nowhere to keep them, so neither SACK nor a window scale is agreed on then. ECN is not.

use super::{
    checksum,
    segment::{self, OPTIONS, Segment, TCP, TCP_BYTES},
    tcp,
    tcp_options::{self, NO_SCALE, Offer},
};
use crate::abi::Family;

/// Low bits of a timestamp that carry options (`TSBITS`).
const STAMP_BITS: u32 = 6;
/// SACK permitted (`TS_OPT_SACK`); the four bits below it are the window scale.
const STAMP_SACK: u32 = 1 << 4;
/// Bytes that timestamps take of every segment (`TCPOLEN_TSTAMP_ALIGNED`).
const STAMP_BYTES: u32 = 12;
/// Hop limit of the answer (`IPDEFTTL`).
const HOPS: u32 = 64;
/// Largest window without scaling.
const MAX_WINDOW: u32 = 65_535;
/// Don't fragment.
const DONT_FRAGMENT: u32 = 0x4000;

/// What the answer says of this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Own {
    /// Initial sequence number: the cookie.
    pub cookie: u32,
    /// Largest segment that this side takes, in bytes.
    pub mss: u16,
    /// Bytes of receive buffer that the stack would offer to begin with.
    pub space: u32,
    /// Window scale of this side.
    pub scale: u8,
    /// The clock that the stack stamps its segments with, in milliseconds.
    pub now_ms: u32,
}

/// The timestamp that carries `offer`, not ahead of `now_ms` (`cookie_init_timestamp`).
#[inline(always)]
pub const fn stamp(offer: &Offer, now_ms: u32) -> u32 {
    let sack = if offer.sack != 0 { STAMP_SACK } else { 0 };
    let options = offer.scale as u32 | sack;
    let whole = now_ms >> STAMP_BITS << STAMP_BITS;
    if options > now_ms - whole {
        (whole | options).wrapping_sub(1 << STAMP_BITS)
    } else {
        whole | options
    }
}

/// The window to offer: whole segments of `space`, if there is room for one (`tcp_select_initial_window`).
#[inline(always)]
pub const fn window(space: u32, segment: u32) -> u32 {
    let whole = if segment == 0 || space <= segment {
        space
    } else {
        space / segment * segment
    };
    if whole > MAX_WINDOW { MAX_WINDOW } else { whole }
}

/// Bytes of the TCP header that answers `offer`.
#[inline(always)]
pub const fn tcp_bytes(offer: &Offer) -> u32 {
    let stamped = if offer.stamped != 0 { STAMP_BYTES } else { 0 };
    let scaled = if offer.stamped != 0 && offer.scale != NO_SCALE {
        4
    } else {
        0
    };
    TCP_BYTES + 4 + stamped + scaled
}

/// Rewrites `segment`, the headers of a plain SYN, as the answer. Returns the bytes of its TCP header.
#[inline(always)]
pub fn answer(segment: &Segment, family: Family, offer: &Offer, own: &Own) -> u32 {
    let length = tcp_bytes(offer);
    let acknowledged = segment.number(TCP + 1).wrapping_add(1);
    let ports = segment.number(TCP);
    segment.set(TCP, ports.rotate_left(16));
    segment.set(TCP + 1, own.cookie);
    segment.set(TCP + 2, acknowledged);
    let stamped = if offer.stamped != 0 { STAMP_BYTES } else { 0 };
    let window = window(own.space, u32::from(own.mss).saturating_sub(stamped));
    let flags = u32::from(tcp::SYN | tcp::ACK);
    segment.set(TCP + 3, (length / 4) << 28 | flags << 16 | window);
    segment.set(TCP + 4, 0);
    options(segment, offer, own);
    network(segment, family, length);
    seal(segment, family, length);
    length
}

#[inline(always)]
fn options(segment: &Segment, offer: &Offer, own: &Own) {
    let option = |kind: u8, length: u32| u32::from(kind) << 8 | length;
    segment.set(OPTIONS, option(tcp_options::MSS, 4) << 16 | u32::from(own.mss));
    // Words that the answer does not have stay zero: the checksum runs over all that there could be.
    let (mut stamps, mut own_stamp, mut echo, mut scale) = (0, 0, 0, 0);
    if offer.stamped != 0 {
        let before = if offer.sack != 0 {
            option(tcp_options::SACK_PERMITTED, 2)
        } else {
            option(tcp_options::NOP, u32::from(tcp_options::NOP))
        };
        stamps = before << 16 | option(tcp_options::TIMESTAMPS, 10);
        own_stamp = stamp(offer, own.now_ms);
        echo = offer.stamp;
        if offer.scale != NO_SCALE {
            scale =
                option(tcp_options::NOP, u32::from(tcp_options::SCALE)) << 16 | 3 << 8 | u32::from(own.scale);
        }
    }
    segment.set(OPTIONS + 1, stamps);
    segment.set(OPTIONS + 2, own_stamp);
    segment.set_word(OPTIONS + 3, echo);
    segment.set(OPTIONS + 4, scale);
}

#[inline(always)]
fn network(segment: &Segment, family: Family, length: u32) {
    let (start, bytes) = segment::ip(family);
    match family {
        Family::V4 => {
            segment.set(start, 0x4500_0000 | (bytes + length));
            segment.set(start + 1, DONT_FRAGMENT);
            segment.set(start + 2, HOPS << 24 | 6 << 16);
            swap(segment, start + 3, start + 4);
            let sum = checksum::finish(checksum::add(segment, start, 5, 0));
            // The checksum is the second half of the word as it lies in memory.
            segment.set(start + 2, HOPS << 24 | 6 << 16 | u32::from(u16::from_be(sum)));
        }
        Family::V6 => {
            segment.set(start, 6 << 28);
            segment.set(start + 1, length << 16 | 6 << 8 | HOPS);
            for at in 2..6 {
                swap(segment, start + at, start + at + 4);
            }
        }
    }
}

/// Writes the TCP checksum: pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1), header, options.
#[inline(always)]
fn seal(segment: &Segment, family: Family, length: u32) {
    let (first, count) = segment::tuple(family);
    // Addresses, without the ports.
    let pseudo = u64::from((6 << 16 | length).to_be());
    let sum = checksum::add(segment, first, count - 1, pseudo);
    let sum = checksum::add(segment, TCP, OPTIONS + 5 - TCP, sum);
    segment.set(TCP + 4, u32::from(u16::from_be(checksum::finish(sum))) << 16);
}

#[inline(always)]
fn swap(segment: &Segment, one: usize, other: usize) {
    let word = segment.word(one);
    segment.set_word(one, segment.word(other));
    segment.set_word(other, word);
}

#[cfg(test)]
mod tests;
