//! The strict gate: what two parsers could read differently goes no further.
//!
//! One gate stands in front of every codec. [`scan`] finds the end of a head and judges its line ends, [`parse`]
//! takes it apart in place, [`request`] and [`response`] decide whether its parts have one reading, [`chunked`]
//! watches the framing of bodies. Nothing is copied: a head stays in the buffer it arrived in, and a [`Span`] says
//! where each part lies, so that the parts may be kept across an `await`.
//!
//! Invariant: a request that passed has exactly one body length, one authority, one path, and no byte that a more
//! lenient parser would take for a line end.

pub mod authority;
pub mod chunked;
pub mod field;
pub mod fuzz;
pub mod parse;
pub mod request;
pub mod response;
pub mod scan;

use crate::config::bounds;

pub use field::{Field, FieldKind};
pub use request::{JudgedRequest, Request, RequestBody, RequestShape};
pub use response::{JudgedResponse, ResponseBody, ResponseShape};

/// Most fields in one head, whatever is configured: where a parsed head has room on the stack.
pub const MAX_FIELDS: usize = bounds::MAX_HEADER_COUNT as usize;

/// Largest length of a body or a chunk: what every server can count to.
pub const MAX_LENGTH: u64 = i64::MAX as u64;

/// Longest method that is passed on, in bytes.
pub const MAX_METHOD: usize = 32;

/// Bounds of a head; sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Request target.
    pub target: usize,
    /// Whole head, first line and final empty line included.
    pub head: usize,
    /// Number of fields; at most [`MAX_FIELDS`].
    pub fields: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self {
            target: bounds::DEFAULT_TARGET_BYTES as usize,
            head: bounds::DEFAULT_HEADER_BYTES as usize,
            fields: bounds::DEFAULT_HEADER_COUNT as usize,
        }
    }
}

/// HTTP/1 minor versions, and HTTP/2, which has no head in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
    /// HTTP/2.
    Http2,
}

/// Where a part of a head lies in its buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The span from `start` up to `end`.
    pub fn new(start: usize, end: usize) -> Self {
        Self {
            start: start as u32,
            end: end as u32,
        }
    }

    /// The span of `part` within `whole`; empty if it does not lie there.
    pub fn within(whole: &[u8], part: &[u8]) -> Self {
        let offset = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
        if offset <= whole.len() && part.len() <= whole.len() - offset {
            Self::new(offset, offset + part.len())
        } else {
            Self::default()
        }
    }

    /// The bytes it names; empty if `bytes` is not the buffer it was made for.
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes
            .get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }

    /// Where it begins.
    pub fn start(self) -> usize {
        self.start as usize
    }

    /// Where it ends.
    pub fn end(self) -> usize {
        self.end as usize
    }

    /// Its part from `from` up to `to`, both relative to its start.
    #[must_use]
    pub fn part(self, from: usize, to: usize) -> Self {
        Self::new(self.start() + from, (self.start() + to).min(self.end()))
    }
}
