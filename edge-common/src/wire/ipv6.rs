//! IPv6 headers and extension headers (RFC 8200).

use super::{Frame, protocol};
use crate::abi::Addr;

/// Bytes of the fixed header.
pub const HEADER: u32 = 40;
/// Most extension headers that are looked through.
pub const MAX_EXTENSIONS: u32 = 6;

/// What the pipeline needs of the fixed header.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Source.
    pub src: Addr,
    /// Destination.
    pub dst: Addr,
    /// Next header.
    pub next: u8,
    /// The version is not 6.
    pub malformed: bool,
}

/// Where the chain of extension headers ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Chain {
    /// At a payload of this protocol and offset.
    Payload {
        /// Protocol of the payload.
        protocol: u8,
        /// Offset from the start of the frame.
        offset: u32,
    },
    /// In a fragment that is not the first.
    LaterFragment,
    /// The frame ends before.
    Truncated,
    /// More than [`MAX_EXTENSIONS`].
    TooLong,
}

/// Reads the fixed header at `offset`; `None` if the frame ends inside it.
#[inline(always)]
pub fn read<F: Frame>(frame: &F, offset: u32) -> Option<Header> {
    let version = frame.u8(offset)? >> 4;
    let next = frame.u8(offset + 6)?;
    let src = frame.addr(offset + 8)?;
    let dst = frame.addr(offset + 24)?;
    Some(Header {
        src,
        dst,
        next,
        malformed: version != 6,
    })
}

/// Walks the extension headers from `next` at `offset`.
#[inline(always)]
pub fn walk<F: Frame>(frame: &F, next: u8, offset: u32) -> Chain {
    let mut kind = next;
    let mut at = offset;
    let mut seen = 0;
    while is_extension(kind) {
        if seen == MAX_EXTENSIONS {
            return Chain::TooLong;
        }
        let (Some(following), Some(length)) = (frame.u8(at), frame.u8(at + 1)) else {
            return Chain::Truncated;
        };
        let bytes = match kind {
            protocol::FRAGMENT => {
                let Some(field) = frame.u16_be(at + 2) else {
                    return Chain::Truncated;
                };
                if field & 0xfff8 != 0 {
                    return Chain::LaterFragment;
                }
                8
            }
            // In 4-octet units, minus 2 (RFC 4302 section 2.2).
            protocol::AUTHENTICATION => (u32::from(length) + 2) * 4,
            // In 8-octet units, not counting the first (RFC 8200 section 4).
            _ => (u32::from(length) + 1) * 8,
        };
        at += bytes;
        kind = following;
        seen += 1;
    }
    Chain::Payload {
        protocol: kind,
        offset: at,
    }
}

#[inline(always)]
fn is_extension(kind: u8) -> bool {
    matches!(
        kind,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION
            | protocol::MOBILITY
    )
}
