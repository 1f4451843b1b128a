//! IPv4 headers (RFC 791).

use super::{Frame, View};
use crate::abi::Addr;

/// Bytes of a header without options.
const MIN_HEADER: u32 = 20;

/// The bits of the word at byte 6 that are the fragment's offset.
pub const OFFSET: u16 = 0x1fff;

/// What the pipeline needs of an IPv4 header.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Source, v4-mapped.
    pub src: Addr,
    /// Destination, v4-mapped.
    pub dst: Addr,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Time to live.
    pub hops: u8,
    /// Offset of the payload from the start of the frame.
    pub payload: u32,
    /// Not the first fragment: the payload does not begin with a header.
    pub later_fragment: bool,
    /// Version, header length or total length contradict each other.
    pub malformed: bool,
}

/// Reads the header at `offset`; `None` if the frame ends inside it.
#[inline(always)]
pub fn read<F: Frame>(frame: &F, offset: u32) -> Option<Header> {
    let bytes = frame.view::<20>(offset)?;
    let version_ihl = bytes.u8(0);
    let total = u32::from(bytes.u16_be(2));
    let fragment = bytes.u16_be(6);
    let protocol = bytes.u8(9);
    let src = Addr::from_v4_word(bytes.word(12));
    let dst = Addr::from_v4_word(bytes.word(16));
    let header = u32::from(version_ihl & 0xf) * 4;
    Some(Header {
        src,
        dst,
        protocol,
        hops: bytes.u8(8),
        payload: offset + header,
        later_fragment: fragment & OFFSET != 0,
        malformed: version_ihl >> 4 != 4 || header < MIN_HEADER || total < header,
    })
}
