//! TCP options of a SYN (RFC 9293 section 3.2, RFC 7323, RFC 2018), read as Linux reads them
//! (net/ipv4/tcp_input.c, `tcp_parse_options`): the last of equal options counts, a length that contradicts itself ends
//! the list.

use super::segment::Headers;

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

/// Reads the options, which are `end` bytes, at most 40; [`offer`] tells what was found.
#[inline(always)]
pub fn read<H: Headers>(end: u32, headers: &H) {
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
            let scale = headers.option(at + 2);
            let scale = if scale > MAX_SCALE { MAX_SCALE } else { scale };
            headers.set_note(OFFERED_SCALE, scale.into());
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
