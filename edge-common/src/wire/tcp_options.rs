//! TCP options of a SYN (RFC 9293 section 3.2, RFC 7323, RFC 2018), read as Linux reads them
//! (net/ipv4/tcp_input.c, `tcp_parse_options`): the last of equal options counts, a length that contradicts itself ends
//! the list.

use super::segment::{Segment, TCP_BYTES};

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

/// Reads the options of the header in `segment`. `end` is where they end by the header's own account, in bytes from the
/// first option, at most 40.
#[inline(always)]
pub fn read(segment: &Segment) -> Offer {
    let mut offer = Offer {
        scale: NO_SCALE,
        sack: 0,
        stamped: 0,
        stamp: 0,
    };
    let end = segment.tcp_bytes().saturating_sub(TCP_BYTES);
    let mut at = 0;
    let mut seen = 0;
    while seen < MAX_OPTIONS && at < end {
        seen += 1;
        let kind = segment.option(at);
        if kind == NOP {
            at += 1;
            continue;
        }
        if kind == END || end - at < 2 {
            break;
        }
        let length = u32::from(segment.option(at + 1));
        if length < 2 || length > end - at {
            break;
        }
        match (kind, length) {
            (SCALE, 3) => {
                let scale = segment.option(at + 2);
                offer.scale = if scale > MAX_SCALE { MAX_SCALE } else { scale };
            }
            (SACK_PERMITTED, 2) => offer.sack = 1,
            (TIMESTAMPS, 10) => {
                offer.stamped = 1;
                offer.stamp = u32::from_be_bytes([
                    segment.option(at + 2),
                    segment.option(at + 3),
                    segment.option(at + 4),
                    segment.option(at + 5),
                ])
                .to_be();
            }
            _ => {}
        }
        at += length;
    }
    offer
}
