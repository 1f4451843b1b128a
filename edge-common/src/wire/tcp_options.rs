//! TCP options of a SYN (RFC 9293 section 3.2, RFC 7323, RFC 2018), read as Linux reads them
//! (net/ipv4/tcp_input.c, `tcp_parse_options`): the last of equal options counts, a length that contradicts itself ends
//! the list.

use super::segment::{Headers, OPTIONS};

/// Ends the list.
pub const END: u8 = 0;
/// Padding.
pub const NOP: u8 = 1;
/// Maximum segment size, 4 bytes.
pub const MSS: u8 = 2;
/// Window scale, 3 bytes.
pub const SCALE: u8 = 3;
/// SACK permitted, 2 bytes.
pub const SACK_PERMITTED: u8 = 4;
/// Timestamps, 10 bytes.
pub const TIMESTAMPS: u8 = 8;

/// Largest window scale (RFC 7323 section 2.3); larger ones count as this.
pub const MAX_SCALE: u8 = 14;
/// No window scale was offered.
pub const NO_SCALE: u8 = 0xf;
/// Most options in a header: 40 bytes of padding.
const MAX_OPTIONS: u32 = 40;

/// What a SYN offers. Plain numbers rather than options of Rust's: a payload that is never written upsets the verifier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// Window scale, or [`NO_SCALE`].
    pub scale: u8,
    /// SACK permitted: 1 or 0.
    pub sack: u8,
    /// There is a timestamp: 1 or 0.
    pub stamped: u8,
    /// The sender's timestamp, as it lies in the packet; 0 without one.
    pub stamp: u32,
}

// Notes, in memory rather than in variables: a verifier walks the loop once for each turn then, and not once for each
// combination of options.
const AT: usize = 0;
const OFFERED_SCALE: usize = 1;
const OFFERED_SACK: usize = 2;
const STAMPED: usize = 3;
const STAMP: usize = 4;

/// Bytes of the options that Linux sends with a SYN, and what of their words is the same in each: maximum segment size;
/// SACK permitted and the begin of a timestamp; padding and the window scale.
const USUAL_BYTES: u32 = 20;
const USUAL_FIRST: u32 = 0x0204;
const USUAL_SECOND: u32 = 0x0402_080a;
const USUAL_LAST: u32 = 0x01_0303;

/// Reads the options, which are `end` bytes, at most 40; [`offer`] tells what was found.
#[inline(always)]
pub fn read<H: Headers>(end: u32, headers: &H) {
    if !read_usual(end, headers) {
        walk(end, headers);
    }
}

/// Reads options that lie as Linux's do, at once; whether they did.
#[inline(always)]
fn read_usual<H: Headers>(end: u32, headers: &H) -> bool {
    let last = headers.number(OPTIONS + 4);
    let is_usual = end == USUAL_BYTES
        && headers.number(OPTIONS) >> 16 == USUAL_FIRST
        && headers.number(OPTIONS + 1) == USUAL_SECOND
        && last >> 8 == USUAL_LAST;
    if !is_usual {
        return false;
    }
    headers.set_note(OFFERED_SCALE, allowed(last as u8).into());
    headers.set_note(OFFERED_SACK, 1);
    headers.set_note(STAMPED, 1);
    headers.set_note(STAMP, headers.word(OPTIONS + 2));
    true
}

/// A window scale as it counts.
#[inline(always)]
const fn allowed(scale: u8) -> u8 {
    if scale > MAX_SCALE { MAX_SCALE } else { scale }
}

#[inline(always)]
fn walk<H: Headers>(end: u32, headers: &H) {
    headers.set_note(AT, 0);
    headers.set_note(OFFERED_SCALE, NO_SCALE.into());
    headers.set_note(OFFERED_SACK, 0);
    headers.set_note(STAMPED, 0);
    headers.set_note(STAMP, 0);
    let mut seen = 0;
    while seen < MAX_OPTIONS {
        seen += 1;
        let at = headers.note(AT);
        if at >= end {
            break;
        }
        let kind = headers.option(at);
        if kind == NOP {
            headers.set_note(AT, at + 1);
            continue;
        }
        if kind == END {
            break;
        }
        let length = u32::from(headers.option(at + 1));
        // The length byte itself may lie behind the end: then what it says does too, or is too short.
        if length < 2 || at + length > end {
            break;
        }
        headers.set_note(AT, at + length);
        if kind == SCALE && length == 3 {
            headers.set_note(OFFERED_SCALE, allowed(headers.option(at + 2)).into());
        } else if kind == SACK_PERMITTED && length == 2 {
            headers.set_note(OFFERED_SACK, 1);
        } else if kind == TIMESTAMPS && length == 10 {
            headers.set_note(STAMPED, 1);
            let stamp = u32::from_ne_bytes([
                headers.option(at + 2),
                headers.option(at + 3),
                headers.option(at + 4),
                headers.option(at + 5),
            ]);
            headers.set_note(STAMP, stamp);
        }
    }
}

/// What [`read`] found.
#[inline(always)]
pub fn offer<H: Headers>(headers: &H) -> Offer {
    Offer {
        scale: headers.note(OFFERED_SCALE) as u8,
        sack: headers.note(OFFERED_SACK) as u8,
        stamped: headers.note(STAMPED) as u8,
        stamp: headers.note(STAMP),
    }
}

/// Takes out of what was found what this machine does not do; each argument is 1 if it does, and 0 if not.
#[inline(always)]
pub fn restrict<H: Headers>(headers: &H, stamps: u32, sack: u32, scaling: u32) {
    headers.set_note(STAMPED, headers.note(STAMPED) & stamps);
    headers.set_note(OFFERED_SACK, headers.note(OFFERED_SACK) & sack);
    headers.set_note(
        OFFERED_SCALE,
        headers.note(OFFERED_SCALE) | ((1 - (scaling & 1)) * u32::from(NO_SCALE)),
    );
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::segment::Segment;

    fn segment(options: &[u8]) -> Segment {
        let segment = Segment::new();
        segment.load(OPTIONS, options);
        segment
    }

    #[test]
    fn what_linux_sends_is_read_at_once() {
        let linux = [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];
        let segment = segment(&linux);
        assert!(read_usual(20, &segment));
        let expected = Offer {
            scale: 7,
            sack: 1,
            stamped: 1,
            stamp: u32::from_ne_bytes([1, 2, 3, 4]),
        };
        assert_eq!(offer(&segment), expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn read_at_once_or_one_by_one_is_the_same(
            stamps in any::<[u8; 8]>(),
            mss in any::<[u8; 2]>(),
            scale in any::<u8>(),
            changes in prop::collection::vec((0_usize..20, any::<u8>()), 0..2),
            end in prop_oneof![3 => Just(20_u32), 1 => (0_u32..=10).prop_map(|words| words * 4)],
        ) {
            let mut bytes = [0; 40];
            bytes[..8].copy_from_slice(&[2, 4, mss[0], mss[1], 4, 2, 8, 10]);
            bytes[8..16].copy_from_slice(&stamps);
            bytes[16..20].copy_from_slice(&[1, 3, 3, scale]);
            for (at, value) in changes {
                bytes[at] = value;
            }
            let (one, other) = (segment(&bytes), segment(&bytes));
            read(end, &one);
            walk(end, &other);
            prop_assert_eq!(offer(&one), offer(&other));
        }
    }
}
