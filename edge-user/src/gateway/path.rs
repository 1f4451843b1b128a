//! The one normalised path: what is matched, authorised, logged and forwarded is the same string.
//!
//! What has one reading is brought to one spelling; what two servers could read differently is refused, unless the
//! configuration says which reading it is ([`Rules`]): the path that comes out has that reading alone.
//!
//! | in the path | treatment |
//! |---|---|
//! | `%41` (an encoded unreserved character, RFC 3986, 2.3) | decoded |
//! | `%c3%a9`, `%25`, other encodings | kept, hex digits in upper case |
//! | `[` `]` `^` `{` `|` `}` unencoded | encoded |
//! | `.` and `..` segments, also as `%2e` | refused, or resolved (RFC 3986, 5.2.4); above the root: refused |
//! | `.` and `..` before `;` | refused |
//! | `//` | refused, or one |
//! | `\`, `%5c` | refused |
//! | `%2f` | refused, or kept where it makes no dot segment and no empty one; see [`super::route`] |
//! | control characters, NUL, bytes above 0x7f; `%00`-`%1f`, `%7f` | refused |
//! | encoded bytes that are not UTF-8 (overlong forms, surrogates, lone bytes) | refused |
//! | `%` without two hex digits | refused |
//! | `"`, `<`, `>`, `` ` ``, `#`, space | refused |
//!
//! Invariants: total (no input panics), idempotent (a normalised path normalises to itself), never longer than
//! three times its input, never empty, always begins with `/`.

use std::borrow::Cow;

pub mod fuzz;

/// Which reading is meant where there are several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// Dot segments are resolved instead of refused.
    pub resolve_dots: bool,
    /// Slashes in a row are one instead of refused.
    pub merge_slashes: bool,
    /// `%2F` is part of a segment instead of refused.
    pub keep_encoded_slashes: bool,
}

impl Rules {
    /// Refuses only what no rules let through.
    pub const LOOSEST: Self = Self {
        resolve_dots: true,
        merge_slashes: true,
        keep_encoded_slashes: true,
    };
}

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

/// Brings `raw` (the target up to `?`) to its one spelling; refuses all that may be refused.
///
/// # Errors
/// The path has more than one reading; see the table of the module.
pub fn normalise(raw: &[u8]) -> Result<Cow<'_, str>, PathFault> {
    normalise_by(raw, Rules::default())
}

/// The same by other rules.
///
/// # Errors
/// The path has more than one reading by these rules; see the table of the module.
pub fn normalise_by(raw: &[u8], rules: Rules) -> Result<Cow<'_, str>, PathFault> {
    if raw.first() != Some(&b'/') {
        return Err(PathFault::NotAbsolute);
    }
    // Nearly every path is in its one spelling already: one pass over a table, no copy.
    let mut previous = 0;
    for &byte in raw {
        if CLASSES[usize::from(byte)] != Class::Plain || (previous == b'/' && matches!(byte, b'/' | b'.')) {
            return rewrite(raw, rules).map(Cow::Owned);
        }
        previous = byte;
    }
    std::str::from_utf8(raw)
        .map(Cow::Borrowed)
        .map_err(|_| PathFault::NotUtf8)
}

/// The slow road: something needs a decision.
fn rewrite(raw: &[u8], rules: Rules) -> Result<String, PathFault> {
    let mut path = String::with_capacity(raw.len() + 8);
    let mut rest = raw.iter().copied();
    let mut beyond_ascii = false;
    while let Some(byte) = rest.next() {
        match CLASSES[usize::from(byte)] {
            Class::Plain => path.push(char::from(byte)),
            Class::Encode => push_encoded(&mut path, byte),
            Class::Percent => {
                let (Some(high), Some(low)) = (rest.next().and_then(hex), rest.next().and_then(hex)) else {
                    return Err(PathFault::Encoding);
                };
                let byte = high << 4 | low;
                beyond_ascii |= !byte.is_ascii();
                push_decoded(&mut path, byte, rules)?;
            }
            Class::Backslash => return Err(PathFault::Separator),
            Class::Control => return Err(PathFault::Control),
            Class::High => return Err(PathFault::NotUtf8),
            Class::Never => return Err(PathFault::Character),
        }
    }
    if beyond_ascii && std::str::from_utf8(&decoded(&path)).is_err() {
        return Err(PathFault::NotUtf8);
    }
    if rules.resolve_dots || rules.merge_slashes {
        path = settle(&path, rules)?;
    }
    check_segments(&path)?;
    if rules.keep_encoded_slashes && path.contains(ENCODED_SLASH) {
        // Whoever decodes it must not find other segments than those that can be seen.
        check_segments(&path.replace(ENCODED_SLASH, "/")).map_err(|_| PathFault::Separator)?;
    }
    Ok(path)
}

/// How a slash within a segment is spelled.
pub(super) const ENCODED_SLASH: &str = "%2F";

/// The path without its encoding.
fn decoded(path: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        let encoded = if byte == b'%' {
            rest.next().and_then(hex).zip(rest.next().and_then(hex))
        } else {
            None
        };
        bytes.push(encoded.map_or(byte, |(high, low)| high << 4 | low));
    }
    bytes
}

/// Appends what `%XX` stands for: the character itself if it is unreserved, else the encoding in upper case.
fn push_decoded(path: &mut String, byte: u8, rules: Rules) -> Result<(), PathFault> {
    match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => path.push(char::from(byte)),
        b'/' if rules.keep_encoded_slashes => path.push_str(ENCODED_SLASH),
        b'/' | b'\\' => return Err(PathFault::Separator),
        0..=0x1f | 0x7f => return Err(PathFault::Control),
        _ => push_encoded(path, byte),
    }
    Ok(())
}

/// Resolves dot segments and merges slashes, as far as the rules say so; what they leave is checked afterwards.
fn settle(path: &str, rules: Rules) -> Result<String, PathFault> {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "" if rules.merge_slashes && !is_last => continue,
            "." if rules.resolve_dots => {}
            ".." if rules.resolve_dots => {
                // Above the root, after an empty segment, and after one that some take for several, servers differ.
                match kept.pop() {
                    None | Some("") => return Err(PathFault::DotSegment),
                    Some(parent) if parent.contains(ENCODED_SLASH) => return Err(PathFault::Separator),
                    Some(_) => {}
                }
            }
            _ => {
                check_segment(segment)?;
                kept.push(segment);
                continue;
            }
        }
        if is_last {
            kept.push("");
        }
    }
    let mut settled = String::with_capacity(path.len());
    for segment in kept {
        settled.push('/');
        settled.push_str(segment);
    }
    Ok(settled)
}

fn push_encoded(path: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    path.push('%');
    path.push(char::from(DIGITS[usize::from(byte >> 4)]));
    path.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// Refuses segments that some server would resolve or drop.
pub(super) fn check_segments(path: &str) -> Result<(), PathFault> {
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Err(PathFault::DuplicateSlash);
        }
        check_segment(segment)?;
    }
    Ok(())
}

/// A path parameter hides dots from some parsers and not from others: `..;x`.
fn check_segment(segment: &str) -> Result<(), PathFault> {
    let name = segment.split(';').next().unwrap_or(segment);
    if matches!(name, "." | "..") {
        return Err(PathFault::DotSegment);
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
        let refused: [(&[u8], PathFault); 33] = [
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
            (b"/%e9", PathFault::NotUtf8),
            (b"/%C3a%A9", PathFault::NotUtf8),
            (b"/%e0%80%af", PathFault::NotUtf8),
            (b"/%ed%a0%80", PathFault::NotUtf8),
            (b"/%f4%90%80%80", PathFault::NotUtf8),
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

    #[test]
    fn other_rules_say_which_reading_is_meant() {
        let dots = Rules {
            resolve_dots: true,
            ..Rules::default()
        };
        let slashes = Rules {
            merge_slashes: true,
            ..Rules::default()
        };
        let kept = Rules {
            keep_encoded_slashes: true,
            ..Rules::default()
        };
        let all = Rules {
            resolve_dots: true,
            merge_slashes: true,
            keep_encoded_slashes: true,
        };
        let rows: [(&str, Rules, Result<&str, PathFault>); 30] = [
            ("/a/./b/../c", dots, Ok("/a/c")),
            ("/a/b/..", dots, Ok("/a/")),
            ("/a/.", dots, Ok("/a/")),
            ("/a/%2e%2E/b", dots, Ok("/b")),
            ("/.", dots, Ok("/")),
            ("/a/..", dots, Ok("/")),
            ("/..", dots, Err(PathFault::DotSegment)),
            ("/a/../../b", dots, Err(PathFault::DotSegment)),
            ("/a/..;x/b", dots, Err(PathFault::DotSegment)),
            ("/a//../b", dots, Err(PathFault::DotSegment)),
            ("/a//b", dots, Err(PathFault::DuplicateSlash)),
            ("//a///b//", slashes, Ok("/a/b/")),
            ("//", slashes, Ok("/")),
            ("/a/./b", slashes, Err(PathFault::DotSegment)),
            ("/a//../b", all, Ok("/b")),
            ("//..//b", all, Err(PathFault::DotSegment)),
            ("/a%2fb", kept, Ok("/a%2Fb")),
            ("/a%2F", kept, Ok("/a%2F")),
            ("/%2fa", kept, Err(PathFault::Separator)),
            ("/a%2f%2fb", kept, Err(PathFault::Separator)),
            ("/a%2f/b", kept, Err(PathFault::Separator)),
            ("/a%2f..", kept, Err(PathFault::Separator)),
            ("/a%2f..%2fb", all, Err(PathFault::Separator)),
            ("/..%2fa", all, Err(PathFault::Separator)),
            ("/a%5cb", all, Err(PathFault::Separator)),
            ("/a%2f%2e;x/b", all, Err(PathFault::Separator)),
            ("/a%2fb/../c", all, Err(PathFault::Separator)),
            ("/a%2fb/./c", all, Ok("/a%2Fb/c")),
            ("/..;x/../b", dots, Err(PathFault::DotSegment)),
            ("/x/a%2f../../b", all, Err(PathFault::Separator)),
        ];
        for (raw, rules, want) in rows {
            let found = normalise_by(raw.as_bytes(), rules);
            assert_eq!(found.as_deref().map_err(|fault| *fault), want, "{raw} {rules:?}");
        }
    }

    proptest! {
        #[test]
        fn holds_for_any_bytes(raw in proptest::collection::vec(any::<u8>(), 0..80)) {
            fuzz::check(&raw);
        }

        #[test]
        fn holds_for_what_looks_like_a_path(raw in "(/|//|%2[eEfF]|%5[cC]|\\.|\\.\\.|a|;|;x|%41|%25|%[cC]3|%[aA]9|%[eE]0%80|\\||%){0,16}") {
            let mut path = vec![b'/'];
            path.extend(raw.bytes());
            fuzz::check(&path);
        }
    }

    #[test]
    fn the_fuzzers_corpus_holds() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/path");
        let inputs = std::fs::read_dir(folder).expect("the corpus");
        let inputs = inputs.map(|entry| std::fs::read(entry.expect("an entry").path()).expect("an input"));
        assert!(
            inputs.map(|input| fuzz::check(&input)).count() >= 20,
            "the corpus is there"
        );
    }
}
