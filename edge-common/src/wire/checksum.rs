//! The Internet checksum (RFC 1071) over words of a segment's [`Headers`].
//!
//! A sum of 32-bit words folds to the same 16 bits as the sum of their halves, in either byte order; so words are added
//! as they lie in memory, and the folded result is stored as it is.

use super::segment::Headers;

/// Adds `count` words from `from` on.
#[inline(always)]
pub fn add<H: Headers>(headers: &H, from: usize, count: usize, mut sum: u64) -> u64 {
    let mut at = from;
    while at < from + count {
        sum += u64::from(headers.word(at));
        at += 1;
    }
    sum
}

/// The one's complement of the folded sum: what belongs into the packet, as it lies there.
#[inline(always)]
pub const fn finish(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    !(sum as u16)
}
