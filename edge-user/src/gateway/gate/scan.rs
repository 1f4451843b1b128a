//! Finds the end of a head in a growing buffer, and refuses line ends that only some parsers take for one.
//!
//! A resumed scan never looks at a byte twice, so a head that drips in byte by byte costs no more than one that
//! comes at once.

use memchr::{memchr, memchr_iter};

use super::{HeadLimits, MAX_METHOD, field::is_token};
use crate::gateway::refusal::{Reason, Refusal};

/// A line ended by LF alone (RFC 9112, 2.2 lets a recipient accept it; this one does not).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line ended by LF without CR")]
pub struct BareLineFeed;

/// How far a buffer was scanned.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scan {
    seen: usize,
}

impl Scan {
    /// The length of the head with its empty line, once `bytes` holds all of it.
    ///
    /// `bytes` is the buffer of the last call, grown.
    pub fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, BareLineFeed> {
        let from = self.seen.min(bytes.len());
        for found in memchr_iter(b'\n', &bytes[from..]) {
            let at = from + found;
            if at == 0 || bytes[at - 1] != b'\r' {
                return Err(BareLineFeed);
            }
            if at == 1 || bytes[at - 2] == b'\n' {
                return Ok(Some(at + 1));
            }
        }
        self.seen = bytes.len();
        Ok(None)
    }
}

/// Method, two spaces and version beside the target.
const AROUND_TARGET: usize = MAX_METHOD + 11;

/// Whether an incomplete request head, of which there is at least one byte, is above a limit already or cannot become
/// one.
pub fn too_long(unread: &[u8], limits: &HeadLimits) -> Option<Refusal> {
    if !is_token(&unread[..1]) && unread[0] != b'\r' {
        return Some(Refusal::because(Reason::BadSyntax, "request line"));
    }
    let line = limits.target + AROUND_TARGET;
    if unread.len() > line && memchr(b'\n', &unread[..line]).is_none() {
        return Some(Reason::TargetTooLong.into());
    }
    (unread.len() > limits.head).then(|| Reason::HeadTooLarge.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_wherever_the_reads_break() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody\n";
        for cut in 0..head.len() {
            let mut scan = Scan::default();
            let first = scan.end(&head[..cut]).expect("no bare LF before the end");
            let end = if first.is_some() {
                first
            } else {
                scan.end(head).expect("ends before the bare LF")
            };
            assert_eq!(end, Some(head.len() - 5), "cut at {cut}");
        }
    }

    #[test]
    fn a_bare_line_feed_is_refused() {
        for bytes in [
            &b"\n"[..],
            b"GET / HTTP/1.1\nHost: a\n\n",
            b"GET / HTTP/1.1\r\nHost: a\n\r\n",
            b"a\r\n\n",
        ] {
            assert_eq!(Scan::default().end(bytes), Err(BareLineFeed));
        }
    }
}
