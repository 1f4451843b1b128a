//! IPv6 headers and extension headers (RFC 8200).

use super::{Frame, View, protocol};
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
    /// Hop limit.
    pub hops: u8,
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
    let bytes = frame.view::<40>(offset)?;
    let malformed = bytes.u8(0) >> 4 != 6;
    Some(Header {
        src: bytes.addr(8),
        dst: bytes.addr(24),
        next: bytes.u8(6),
        hops: bytes.u8(7),
        malformed,
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
        // Every extension header has at least 8 bytes.
        let Some(header) = frame.view::<8>(at) else {
            return Chain::Truncated;
        };
        let length = u32::from(header.u8(1));
        at += match kind {
            protocol::FRAGMENT if header.u16_be(2) & 0xfff8 != 0 => return Chain::LaterFragment,
            protocol::FRAGMENT => 8,
            // In 4-octet units, minus 2 (RFC 4302 section 2.2).
            protocol::AUTHENTICATION => (length + 2) * 4,
            // In 8-octet units, not counting the first (RFC 8200 section 4).
            _ => (length + 1) * 8,
        };
        kind = header.u8(0);
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
