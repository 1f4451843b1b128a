//! Turns a SYN's headers, in place, into the SYN-ACK that answers it with a cookie.
//!
//! The answer is the one Linux would give under SYN cookies: the order of options of `tcp_options_write`
//! (net/ipv4/tcp_output.c), the window of `tcp_select_initial_window`, and the client's options coded into the low bits
//! of the timestamp, where the stack looks for them when the ACK comes (net/ipv4/syncookies.c, `cookie_init_timestamp`).
//! Without a timestamp there is nowhere to keep them, so neither SACK nor a window scale is agreed on then. ECN is not.

use super::{
    checksum,
    segment::{self, Headers, OPTIONS, TCP, TCP_BYTES},
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

// Notes behind those of the options.
const WINDOW: usize = 8;
const LENGTH: usize = 9;

/// Rewrites the headers of a plain SYN, whose options were read ([`tcp_options::read`]), as the answer. Returns the bytes
/// of its TCP header.
#[inline(always)]
pub fn answer<H: Headers>(headers: &H, family: Family, own: &Own) -> u32 {
    let offer = tcp_options::offer(headers);
    headers.set_note(LENGTH, tcp_bytes(&offer));
    let stamped = if offer.stamped != 0 { STAMP_BYTES } else { 0 };
    headers.set_note(
        WINDOW,
        window(own.space, u32::from(own.mss).saturating_sub(stamped)),
    );
    let length = headers.note(LENGTH);
    headers.set(TCP, headers.number(TCP).rotate_left(16));
    headers.set(TCP + 2, headers.number(TCP + 1).wrapping_add(1));
    headers.set(TCP + 1, own.cookie);
    let flags = u32::from(tcp::SYN | tcp::ACK);
    headers.set(TCP + 3, (length / 4) << 28 | flags << 16 | headers.note(WINDOW));
    headers.set(TCP + 4, 0);
    options(headers, &offer, own);
    network(headers, family, length);
    seal(headers, family, length);
    length
}

#[inline(always)]
fn options<H: Headers>(headers: &H, offer: &Offer, own: &Own) {
    let option = |kind: u8, length: u32| u32::from(kind) << 8 | length;
    headers.set(OPTIONS, option(tcp_options::MSS, 4) << 16 | u32::from(own.mss));
    // Words that the answer does not have are zero: the checksum runs over all that there could be.
    for at in 1..5 {
        headers.set_word(OPTIONS + at, 0);
    }
    if offer.stamped == 0 {
        return;
    }
    let before = if offer.sack != 0 {
        option(tcp_options::SACK_PERMITTED, 2)
    } else {
        option(tcp_options::NOP, u32::from(tcp_options::NOP))
    };
    headers.set(OPTIONS + 1, before << 16 | option(tcp_options::TIMESTAMPS, 10));
    headers.set(OPTIONS + 2, stamp(offer, own.now_ms));
    headers.set_word(OPTIONS + 3, offer.stamp);
    if offer.scale != NO_SCALE {
        let scale = option(tcp_options::NOP, u32::from(tcp_options::SCALE)) << 16;
        headers.set(OPTIONS + 4, scale | 3 << 8 | u32::from(own.scale));
    }
}

#[inline(always)]
fn network<H: Headers>(headers: &H, family: Family, length: u32) {
    let (start, bytes) = segment::ip(family);
    match family {
        Family::V4 => {
            headers.set(start, 0x4500_0000 | (bytes + length));
            headers.set(start + 1, DONT_FRAGMENT);
            headers.set(start + 2, HOPS << 24 | 6 << 16);
            swap(headers, start + 3, start + 4);
            let sum = checksum::finish(checksum::add(headers, start, 5, 0));
            // The checksum is the second half of the word as it lies in memory.
            headers.set(start + 2, HOPS << 24 | 6 << 16 | u32::from(u16::from_be(sum)));
        }
        Family::V6 => {
            headers.set(start, 6 << 28);
            headers.set(start + 1, length << 16 | 6 << 8 | HOPS);
            for at in 2..6 {
                swap(headers, start + at, start + at + 4);
            }
        }
    }
}

/// Writes the TCP checksum: pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1), header, options.
#[inline(always)]
fn seal<H: Headers>(headers: &H, family: Family, length: u32) {
    let (first, count) = segment::tuple(family);
    // Addresses, without the ports.
    let pseudo = u64::from((6 << 16 | length).to_be());
    let sum = checksum::add(headers, first, count - 1, pseudo);
    let sum = checksum::add(headers, TCP, OPTIONS + 5 - TCP, sum);
    headers.set(TCP + 4, u32::from(u16::from_be(checksum::finish(sum))) << 16);
}

#[inline(always)]
fn swap<H: Headers>(headers: &H, one: usize, other: usize) {
    let word = headers.word(one);
    headers.set_word(one, headers.word(other));
    headers.set_word(other, word);
}

#[cfg(test)]
mod tests;
