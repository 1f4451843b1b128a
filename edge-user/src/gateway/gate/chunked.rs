//! Watches a chunked body go by (RFC 9112, 7.1): where it ends, and that every reader would find the same end.
//!
//! Bytes that are passed on are reported as runs of the input, so a body without extensions costs no copy. Chunk
//! extensions are dropped; they are bounded, as are sizes (16 hex digits, 2^63 - 1) and trailers. Trailer fields that frame,
//! address or authenticate a message are refused, whatever they say; so are those that this proxy alone may set.

use std::sync::Arc;

use super::field::{FieldKind, alias_of, classify, is_token};

/// Most bytes of extensions in one body.
pub const MAX_EXTENSIONS: u32 = 16 * 1024;

/// Most bytes of trailers in one body.
pub const MAX_TRAILERS: usize = 8 * 1024;

/// How a chunked body broke its grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkFault {
    /// The size is not 1 to 16 hex digits.
    #[error("chunk size")]
    Size,
    /// CR LF is missing where a line or a chunk ends.
    #[error("chunk line end")]
    LineEnd,
    /// A control character in an extension, or too many of them.
    #[error("chunk extension")]
    Extension,
    /// A trailer that is not a field, is not allowed, or is too long.
    #[error("trailer")]
    Trailer,
}

impl ChunkFault {
    /// A fixed text for the log.
    pub fn text(self) -> &'static str {
        match self {
            Self::Size => "chunk size",
            Self::LineEnd => "chunk line end",
            Self::Extension => "chunk extension",
            Self::Trailer => "trailer",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Within the size, after this many digits.
    Size {
        digits: u8,
    },
    /// Within an extension.
    Extension,
    /// After the CR of a size line.
    SizeLf,
    /// Within the data.
    Data,
    /// After the data: CR, then LF.
    DataCr,
    DataLf,
    /// At the start of a trailer line, within one, after its CR.
    TrailerStart,
    Trailer,
    TrailerLf,
    /// After the CR of the final empty line.
    EndLf,
    Done,
}

/// The position within a chunked body.
#[derive(Debug)]
pub struct Chunked {
    state: State,
    left: u64,
    extensions: u32,
    trailers: usize,
    line: Vec<u8>,
    data: u64,
    /// Fields that no trailer may be, in lower case.
    reserved: Option<Arc<[String]>>,
    /// Lines of trailers, where somebody wants them.
    kept: Option<Vec<Vec<u8>>>,
}

impl Default for Chunked {
    fn default() -> Self {
        Self {
            state: State::Size { digits: 0 },
            left: 0,
            extensions: 0,
            trailers: 0,
            line: Vec::new(),
            data: 0,
            reserved: None,
            kept: None,
        }
    }
}

impl Chunked {
    /// A body whose trailers are none of `reserved` (names in lower case), in no spelling.
    pub fn without(reserved: Arc<[String]>) -> Self {
        Self {
            reserved: Some(reserved),
            ..Self::default()
        }
    }

    /// A body whose trailers are kept for [`Chunked::take_trailers`].
    pub fn keeping_trailers() -> Self {
        Self {
            kept: Some(Vec::new()),
            ..Self::default()
        }
    }

    /// The lines of the trailers that were kept, if there are any.
    pub fn take_trailers(&mut self) -> Option<Vec<Vec<u8>>> {
        self.kept.take().filter(|lines| !lines.is_empty())
    }

    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of data so far, framing left out.
    pub fn data(&self) -> u64 {
        self.data
    }

    /// Takes in the next bytes, reports the runs of them to pass on, and says how many belong to the body.
    ///
    /// # Errors
    /// The body is malformed; what was reported before must not be followed by anything.
    pub fn feed<'i>(&mut self, input: &'i [u8], mut keep: impl FnMut(&'i [u8])) -> Result<usize, ChunkFault> {
        let (mut at, mut run) = (0, 0);
        while at < input.len() && self.state != State::Done {
            if self.state == State::Data {
                at += self.take(input.len() - at);
                continue;
            }
            let in_extension = self.state == State::Extension;
            self.step(input[at])?;
            // An extension's bytes, its semicolon included, end the run before them.
            if self.state == State::Extension {
                keep(&input[run..at.max(run)]);
                run = at + 1;
            } else if in_extension {
                run = at;
            }
            at += 1;
        }
        keep(&input[run.min(at)..at]);
        Ok(at)
    }

    /// The same, and reports runs of data alone: sizes, line ends and trailers are left out.
    ///
    /// # Errors
    /// As [`Chunked::feed`].
    pub fn feed_data<'i>(
        &mut self,
        input: &'i [u8],
        mut keep: impl FnMut(&'i [u8]),
    ) -> Result<usize, ChunkFault> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if self.state == State::Data {
                let take = self.take(input.len() - at);
                keep(&input[at..at + take]);
                at += take;
            } else {
                self.step(input[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    /// Takes in up to `there` bytes of data; answers with how many.
    fn take(&mut self, there: usize) -> usize {
        let take = usize::try_from(self.left).map_or(there, |left| left.min(there));
        self.left -= take as u64;
        self.data += take as u64;
        if self.left == 0 {
            self.state = State::DataCr;
        }
        take
    }

    fn step(&mut self, byte: u8) -> Result<(), ChunkFault> {
        self.state = match (self.state, byte) {
            (State::Size { digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < 16 => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                self.left = if digits == 0 { 0 } else { self.left << 4 } | u64::from(digit);
                // Many servers keep lengths in a signed number; there a larger one is negative.
                if self.left > super::MAX_LENGTH {
                    return Err(ChunkFault::Size);
                }
                State::Size { digits: digits + 1 }
            }
            (State::Size { digits: 1.. } | State::Extension, b'\r') => State::SizeLf,
            (State::Size { digits: 1.. }, b';') => State::Extension,
            (State::Size { .. }, _) => return Err(ChunkFault::Size),
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extensions += 1;
                if self.extensions > MAX_EXTENSIONS {
                    return Err(ChunkFault::Extension);
                }
                State::Extension
            }
            (State::Extension, _) => return Err(ChunkFault::Extension),
            (State::SizeLf, b'\n') if self.left == 0 => State::TrailerStart,
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { digits: 0 },
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::EndLf, b'\n') => State::Done,
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::TrailerLf, b'\n') => {
                check_trailer(&self.line, self.reserved.as_deref().unwrap_or_default())?;
                match &mut self.kept {
                    Some(kept) => kept.push(std::mem::take(&mut self.line)),
                    None => self.line.clear(),
                }
                State::TrailerStart
            }
            (State::TrailerStart | State::Trailer, b'\t' | b' '..=b'~' | 0x80..) => {
                self.trailers += 1;
                if self.trailers > MAX_TRAILERS {
                    return Err(ChunkFault::Trailer);
                }
                self.line.push(byte);
                State::Trailer
            }
            (State::TrailerStart | State::Trailer, _) => return Err(ChunkFault::Trailer),
            (State::SizeLf | State::DataCr | State::DataLf | State::EndLf | State::TrailerLf, _) => {
                return Err(ChunkFault::LineEnd);
            }
            (State::Data | State::Done, _) => self.state,
        };
        Ok(())
    }
}

/// Whether a field of this name may be a trailer: it means nothing to a proxy (RFC 9110, 6.5.1), and is none of
/// `reserved`. An upstream may merge trailers into what it takes for the head.
pub fn is_trailer(name: &[u8], reserved: &[String]) -> bool {
    let is_reserved = || reserved.iter().any(|field| alias_of(name, field.as_bytes()));
    let is_early = || EARLY.iter().any(|field| alias_of(name, field.as_bytes()));
    is_token(name) && classify(name) == FieldKind::Other && !is_early() && !is_reserved()
}

/// Fields that say what a message is, how it is to be read or who asks, and come too late behind it (RFC 9110, 6.5.1):
/// whoever merges trailers into a head would let them change it.
const EARLY: [&str; 16] = [
    "age",
    "cache-control",
    "content-encoding",
    "content-location",
    "content-range",
    "content-type",
    "expires",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "max-forwards",
    "range",
    "set-cookie",
    "www-authenticate",
];

fn check_trailer(line: &[u8], reserved: &[String]) -> Result<(), ChunkFault> {
    let colon = line
        .iter()
        .position(|byte| *byte == b':')
        .ok_or(ChunkFault::Trailer)?;
    if is_trailer(&line[..colon], reserved) {
        Ok(())
    } else {
        Err(ChunkFault::Trailer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pass(input: &[u8], piece: usize) -> Result<(Vec<u8>, usize, bool), ChunkFault> {
        let (mut chunked, mut kept, mut used) = (Chunked::default(), Vec::new(), 0);
        for part in input.chunks(piece.max(1)) {
            let took = chunked.feed(part, |run| kept.extend_from_slice(run))?;
            used += took;
            if took < part.len() {
                break;
            }
        }
        Ok((kept, used, chunked.is_done()))
    }

    #[test]
    fn bodies_pass_and_extensions_are_dropped() {
        let table: [(&[u8], &[u8], usize); 6] = [
            (b"0\r\n\r\n", b"0\r\n\r\n", 5),
            (b"5\r\nhello\r\n0\r\n\r\nGET", b"5\r\nhello\r\n0\r\n\r\n", 15),
            (b"5;a=b\r\nhello\r\n0;x\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", 21),
            (b"5;\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", 16),
            (
                b"0\r\nX-Sum: 1\r\nY: 2\r\n\r\n",
                b"0\r\nX-Sum: 1\r\nY: 2\r\n\r\n",
                21,
            ),
            (
                b"00A\r\n0123456789\r\n0\r\n\r\n",
                b"00A\r\n0123456789\r\n0\r\n\r\n",
                22,
            ),
        ];
        for (input, want, len) in table {
            for piece in 1..=input.len() {
                assert_eq!(
                    pass(input, piece),
                    Ok((want.to_vec(), len, true)),
                    "{input:?} by {piece}"
                );
            }
        }
    }

    #[test]
    fn ambiguous_chunks_are_refused() {
        let table: [(&[u8], ChunkFault); 18] = [
            (b"\r\n", ChunkFault::Size),
            (b"g\r\n", ChunkFault::Size),
            (b"0x5\r\nhello", ChunkFault::Size),
            (b"+5\r\n", ChunkFault::Size),
            (b"-5\r\n", ChunkFault::Size),
            (b" 5\r\n", ChunkFault::Size),
            (b"5 \r\n", ChunkFault::Size),
            (b"5 ;a\r\n", ChunkFault::Size),
            (b"5\nhello\r\n", ChunkFault::Size),
            (b"10000000000000000\r\n", ChunkFault::Size),
            (b"5\rhello", ChunkFault::LineEnd),
            (b"5;a\nhello", ChunkFault::Extension),
            (b"5;\0\r\nhello", ChunkFault::Extension),
            (b"5\r\nhelloo\r\n", ChunkFault::LineEnd),
            (b"5\r\nhello\n0\r\n\r\n", ChunkFault::LineEnd),
            (b"0\r\nContent-Length: 5\r\n\r\n", ChunkFault::Trailer),
            (b"0\r\nno colon\r\n\r\n", ChunkFault::Trailer),
            (b"0\r\nX_Forwarded_For: a\r\n\r\n", ChunkFault::Trailer),
        ];
        for (input, want) in table {
            assert_eq!(pass(input, 7), Err(want), "{}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn reserved_names_are_no_trailers() {
        let reserved = ["x-user".to_owned()];
        for (name, want) in [
            ("x-sum", true),
            ("X-User", false),
            ("x_USER", false),
            ("x-users", true),
            ("host", false),
            ("Content_Type", false),
            ("set-cookie", false),
            ("grpc-status", true),
            ("a b", false),
        ] {
            assert_eq!(is_trailer(name.as_bytes(), &reserved), want, "{name}");
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let mut input = b"5;".to_vec();
        input.resize(MAX_EXTENSIONS as usize + 10, b'x');
        assert_eq!(pass(&input, 4096), Err(ChunkFault::Extension));
        let mut input = b"0\r\nX: ".to_vec();
        input.resize(MAX_TRAILERS + 10, b'x');
        assert_eq!(pass(&input, 4096), Err(ChunkFault::Trailer));
    }

    proptest! {
        #[test]
        fn total_and_independent_of_the_cuts(input in proptest::collection::vec(
            prop_oneof![Just(b'\r'), Just(b'\n'), Just(b';'), Just(b'0'), Just(b'5'), any::<u8>()], 0..60),
            piece in 1_usize..9) {
            prop_assert_eq!(pass(&input, piece), pass(&input, input.len().max(1)));
        }

        #[test]
        fn what_was_passed_on_passes_again(sizes in proptest::collection::vec(1_usize..40, 0..5), ext in "[a-z;= ]{0,9}") {
            let mut input = Vec::new();
            for size in sizes {
                input.extend_from_slice(format!("{size:x};{ext}\r\n").as_bytes());
                input.resize(input.len() + size, b'd');
                input.extend_from_slice(b"\r\n");
            }
            input.extend_from_slice(b"0\r\n\r\n");
            let (kept, _, done) = pass(&input, 16).expect("well-formed");
            prop_assert!(done);
            let len = kept.len();
            prop_assert_eq!(pass(&kept, 3), Ok((kept, len, true)));
        }
    }
}
