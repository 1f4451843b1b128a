//! The one normalised path: what is matched, authorised, logged and forwarded is the same string.
//!
//! What has one reading is brought to one spelling; what two servers could read differently is refused.
//!
//! | in the path | treatment |
//! |---|---|
//! | `%41` (an encoded unreserved character, RFC 3986, 2.3) | decoded |
//! | `%c3%a9`, `%25`, other encodings | kept, hex digits in upper case |
//! | `[` `]` `^` `{` `|` `}` unencoded | encoded |
//! | `.` and `..` segments, also as `%2e`, also before `;` | refused |
//! | `//` | refused |
//! | `\`, `%5c`, `%2f` | refused |
//! | control characters, NUL, bytes above 0x7f; `%00`-`%1f`, `%7f` | refused |
//! | `%c0`, `%c1`, `%f5`-`%ff` (never part of UTF-8: overlong forms) | refused |
//! | `%` without two hex digits | refused |
//! | `"`, `<`, `>`, `` ` ``, `#`, space | refused |
//!
//! Invariants: total (no input panics), idempotent (a normalised path normalises to itself), never longer than
//! three times its input, never empty, always begins with `/`.

use std::borrow::Cow;

/// Why a path has no single reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// It does not begin with `/`.
    #[error("does not begin with a slash")]
    NotAbsolute,
    /// A `.` or `..` segment, in any spelling.
    #[error("dot segment")]
    DotSegment,
    /// An empty segment before the last.
    #[error("duplicate slash")]
    DuplicateSlash,
    /// A backslash, or a separator in encoded form.
    #[error("backslash or encoded separator")]
    Separator,
    /// A control character, in any spelling.
    #[error("control character")]
    Control,
    /// A byte above 0x7f, or an encoded byte that UTF-8 never has.
    #[error("not UTF-8")]
    NotUtf8,
    /// `%` without two hex digits.
    #[error("invalid percent-encoding")]
    Encoding,
    /// A character that ends a path or never occurs in one.
    #[error("invalid character")]
    Character,
}

impl PathFault {
    /// A fixed text for the log.
    pub fn text(self) -> &'static str {
        match self {
            Self::NotAbsolute => "does not begin with a slash",
            Self::DotSegment => "dot segment",
            Self::DuplicateSlash => "duplicate slash",
            Self::Separator => "backslash or encoded separator",
            Self::Control => "control character",
            Self::NotUtf8 => "not UTF-8",
            Self::Encoding => "invalid percent-encoding",
            Self::Character => "invalid character",
        }
    }
}

/// Brings `raw` (the target up to `?`) to its one spelling.
///
/// # Errors
/// The path has more than one reading; see the table of the module.
pub fn normalise(raw: &[u8]) -> Result<Cow<'_, str>, PathFault> {
    if raw.first() != Some(&b'/') {
        return Err(PathFault::NotAbsolute);
    }
    // Nearly every path is in its one spelling already: one pass over a table, no copy.
    let mut previous = 0;
    for &byte in raw {
        if CLASSES[usize::from(byte)] != Class::Plain || (previous == b'/' && matches!(byte, b'/' | b'.')) {
            return rewrite(raw).map(Cow::Owned);
        }
        previous = byte;
    }
    std::str::from_utf8(raw)
        .map(Cow::Borrowed)
        .map_err(|_| PathFault::NotUtf8)
}

/// The slow road: something needs a decision.
fn rewrite(raw: &[u8]) -> Result<String, PathFault> {
    let mut path = String::with_capacity(raw.len() + 8);
    let mut rest = raw.iter().copied();
    while let Some(byte) = rest.next() {
        match CLASSES[usize::from(byte)] {
            Class::Plain => path.push(char::from(byte)),
            Class::Encode => push_encoded(&mut path, byte),
            Class::Percent => {
                let (Some(high), Some(low)) = (rest.next().and_then(hex), rest.next().and_then(hex)) else {
                    return Err(PathFault::Encoding);
                };
                push_decoded(&mut path, high << 4 | low)?;
            }
            Class::Backslash => return Err(PathFault::Separator),
            Class::Control => return Err(PathFault::Control),
            Class::High => return Err(PathFault::NotUtf8),
            Class::Never => return Err(PathFault::Character),
        }
    }
    check_segments(&path)?;
    Ok(path)
}

/// Appends what `%XX` stands for: the character itself if it is unreserved, else the encoding in upper case.
fn push_decoded(path: &mut String, byte: u8) -> Result<(), PathFault> {
    match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => path.push(char::from(byte)),
        b'/' | b'\\' => return Err(PathFault::Separator),
        0..=0x1f | 0x7f => return Err(PathFault::Control),
        0xc0 | 0xc1 | 0xf5..=0xff => return Err(PathFault::NotUtf8),
        _ => push_encoded(path, byte),
    }
    Ok(())
}

fn push_encoded(path: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    path.push('%');
    path.push(char::from(DIGITS[usize::from(byte >> 4)]));
    path.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// Refuses segments that some server would resolve or drop.
fn check_segments(path: &str) -> Result<(), PathFault> {
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Err(PathFault::DuplicateSlash);
        }
        // A path parameter hides dots from some parsers and not from others: `..;x`.
        let name = segment.split(';').next().unwrap_or(segment);
        if matches!(name, "." | "..") {
            return Err(PathFault::DotSegment);
        }
    }
    Ok(())
}

/// The value of a hex digit.
fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Plain,
    Encode,
    Percent,
    Backslash,
    Control,
    High,
    Never,
}

static CLASSES: [Class; 256] = {
    let mut table = [Class::Plain; 256];
    let mut index = 0;
    while index < 256 {
        table[index] = match index as u8 {
            b'%' => Class::Percent,
            b'\\' => Class::Backslash,
            b' ' | b'#' | b'?' | b'"' | b'<' | b'>' | b'`' => Class::Never,
            0..=0x1f | 0x7f => Class::Control,
            0x80..=0xff => Class::High,
            b'[' | b']' | b'^' | b'{' | b'|' | b'}' => Class::Encode,
            _ => Class::Plain,
        };
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_spelling_or_a_refusal() {
        let kept = [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/", "/a/"),
            ("/%41bc", "/Abc"),
            ("/%7euser", "/~user"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/100%25", "/100%25"),
            ("/%252e%252e/", "/%252e%252e/"),
            ("/a|b[1]", "/a%7Cb%5B1%5D"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a..b/...", "/a..b/..."),
            ("/a;v=1/b,c:d@e!$&'()*+=", "/a;v=1/b,c:d@e!$&'()*+="),
            ("/%3fx", "/%3Fx"),
        ];
        for (raw, want) in kept {
            assert_eq!(normalise(raw.as_bytes()).as_deref(), Ok(want), "{raw}");
        }
        let refused: [(&[u8], PathFault); 28] = [
            (b"", PathFault::NotAbsolute),
            (b"a", PathFault::NotAbsolute),
            (b"*", PathFault::NotAbsolute),
            (b"//", PathFault::DuplicateSlash),
            (b"/a//b", PathFault::DuplicateSlash),
            (b"//evil.example/x", PathFault::DuplicateSlash),
            (b"/.", PathFault::DotSegment),
            (b"/a/./b", PathFault::DotSegment),
            (b"/a/../b", PathFault::DotSegment),
            (b"/a/%2e%2E/b", PathFault::DotSegment),
            (b"/a/.%2e", PathFault::DotSegment),
            (b"/a/..;/b", PathFault::DotSegment),
            (b"/a/%2e;x=1/b", PathFault::DotSegment),
            (b"/a%2fb", PathFault::Separator),
            (b"/a%2Fb", PathFault::Separator),
            (b"/a\\b", PathFault::Separator),
            (b"/a%5cb", PathFault::Separator),
            (b"/a%00", PathFault::Control),
            (b"/a%0d%0aX: y", PathFault::Control),
            (b"/a\x00", PathFault::Control),
            (b"/a\x7f", PathFault::Control),
            (b"/\xc3\xa9", PathFault::NotUtf8),
            (b"/%c0%af", PathFault::NotUtf8),
            (b"/%ff", PathFault::NotUtf8),
            (b"/%", PathFault::Encoding),
            (b"/%4", PathFault::Encoding),
            (b"/%zz", PathFault::Encoding),
            (b"/a#b", PathFault::Character),
        ];
        for (raw, want) in refused {
            assert_eq!(normalise(raw), Err(want), "{}", String::from_utf8_lossy(raw));
        }
    }

    #[test]
    fn a_normal_path_is_not_copied() {
        assert!(matches!(normalise(b"/api/v1/users;x=1"), Ok(Cow::Borrowed(_))));
        assert!(matches!(normalise(b"/.well-known"), Ok(Cow::Owned(_))));
    }

    proptest! {
        #[test]
        fn total_idempotent_and_bounded(raw in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut path = vec![b'/'];
            path.extend(raw);
            if let Ok(once) = normalise(&path) {
                prop_assert!(once.starts_with('/'));
                prop_assert!(once.len() <= path.len() * 3);
                prop_assert!(once.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\#?".contains(&byte)));
                prop_assert_eq!(normalise(once.as_bytes()), Ok(Cow::Borrowed(once.as_ref())));
            }
        }

        #[test]
        fn what_is_kept_has_no_hidden_segments(raw in "(/|%2[eEfF]|\\.|a|%5c|;|%41|%25){0,12}") {
            if let Ok(path) = normalise(format!("/{raw}").as_bytes()) {
                prop_assert!(!path.contains("//"));
                let mut decoded = path.replace("%2E", ".").replace("%2F", "/");
                decoded.push('/');
                prop_assert!(!decoded.contains("/../") && !decoded.contains("/./"));
            }
        }
    }
}
