//! The text of a configuration and where an offset lies in it.
//!
//! Reads a file with a bound on its size and requires UTF-8. Knows nothing of TOML.

use std::{
    fs::File,
    io::{self, Read},
    ops::Range,
    path::Path,
};

/// Largest configuration file, in bytes: a million prefixes in their longest spelling fit.
pub const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Why a file could not become text.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The operating system refused.
    Io(io::Error),
    /// More than [`MAX_FILE_BYTES`].
    TooLarge,
    /// Not UTF-8; the text up to the first bad byte, and that byte.
    NotUtf8 { before: String, byte: u8 },
}

/// Reads `path` whole.
pub(super) fn read(path: &Path) -> Result<String, ReadError> {
    text(File::open(path).map_err(ReadError::Io)?)
}

/// Reads an open file whole.
pub(super) fn text(file: impl Read) -> Result<String, ReadError> {
    let mut bytes = Vec::new();
    // A pipe or a device has no length to ask for, so the bound is on what is read.
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(ReadError::Io)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ReadError::TooLarge);
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let mut bytes = error.into_bytes();
        let byte = bytes.get(valid).copied().unwrap_or_default();
        bytes.truncate(valid);
        ReadError::NotUtf8 {
            before: String::from_utf8(bytes).unwrap_or_default(),
            byte,
        }
    })
}

/// Text with an index of its lines.
pub(super) struct Source<'t> {
    text: &'t str,
    line_starts: Vec<usize>,
}

/// A place as people name it: both counted from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl<'t> Source<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let after_newlines = text
            .bytes()
            .enumerate()
            .filter(|(_, byte)| *byte == b'\n')
            .map(|(at, _)| at + 1);
        Self {
            text,
            line_starts: std::iter::once(0).chain(after_newlines).collect(),
        }
    }

    /// Where `offset` lies; an offset beyond the text is its end.
    pub(super) fn position(&self, offset: usize) -> Position {
        let line = self.line_index(offset);
        let start = self.line_starts.get(line).copied().unwrap_or_default();
        let offset = self.floor_boundary(offset);
        let column = self
            .text
            .get(start..offset)
            .map_or(0, |before| before.chars().count());
        Position {
            line: line + 1,
            column: column + 1,
        }
    }

    /// The line `offset` lies in, without its end, and the range of bytes it takes.
    pub(super) fn line(&self, offset: usize) -> (&'t str, Range<usize>) {
        let line = self.line_index(offset);
        let start = self.line_starts.get(line).copied().unwrap_or_default();
        let end = self.line_starts.get(line + 1).copied().unwrap_or(self.text.len());
        let text = self
            .text
            .get(start..end)
            .unwrap_or_default()
            .trim_end_matches(['\n', '\r']);
        (text, start..start + text.len())
    }

    /// The number of characters in `span` that lie on the line it starts in.
    pub(super) fn width(&self, span: &Range<usize>) -> usize {
        let (_, line) = self.line(span.start);
        let start = self.floor_boundary(span.start);
        let end = self.floor_boundary(span.end.min(line.end));
        self.text.get(start..end).map_or(0, |text| text.chars().count())
    }

    fn line_index(&self, offset: usize) -> usize {
        self.line_starts
            .partition_point(|start| *start <= offset)
            .saturating_sub(1)
    }

    fn floor_boundary(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_from_one_and_by_characters() {
        let source = Source::new("a\nüb = 1\r\n\nlast");
        let rows = [
            (0, 1, 1),
            (1, 1, 2),
            (2, 2, 1),
            (3, 2, 1), // inside the two bytes of `ü`
            (4, 2, 2),
            (11, 3, 1),
            (12, 4, 1),
            (16, 4, 5),
            (999, 4, 5),
        ];
        for (offset, line, column) in rows {
            assert_eq!(
                source.position(offset),
                Position { line, column },
                "offset {offset}"
            );
        }
        assert_eq!(source.line(5), ("üb = 1", 2..9));
        assert_eq!(source.line(999).0, "last");
        assert_eq!(source.width(&(2..400)), 6);
        assert_eq!(Source::new("").position(7), Position { line: 1, column: 1 });
    }

    #[test]
    fn a_file_that_is_not_utf8_says_where() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("latin1.toml");
        std::fs::write(&path, b"# ok\nname = \"M\xfcller\"\n").unwrap();
        match read(&path) {
            Err(ReadError::NotUtf8 { before, byte: 0xfc }) => assert_eq!(before, "# ok\nname = \"M"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn endless_input_is_refused_at_the_bound() {
        assert!(matches!(read(Path::new("/dev/zero")), Err(ReadError::TooLarge)));
    }
}
