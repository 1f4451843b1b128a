//! Regexes of routes: compiled within bounds, matched against the whole, and where in the tree they stand.
//!
//! The engine takes time linear in what it reads, whatever the regex (no backtracking, no look-around).

use regex::{Regex, RegexBuilder};
use regex_syntax::{
    ParserBuilder,
    hir::{Hir, HirKind},
};

/// Most memory that one compiled regex may take, in bytes.
pub const MAX_REGEX_BYTES: usize = 256 * 1024;

/// Most memory that the regexes below one node may take together, in bytes.
pub const MAX_SET_BYTES: usize = 16 * 1024 * 1024;

/// A regex that cannot be compiled, or not within its bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(String);

impl From<regex::Error> for PatternError {
    fn from(error: regex::Error) -> Self {
        match error {
            regex::Error::CompiledTooBig(limit) => Self(format!("compiled it is larger than {limit} bytes")),
            // The last line says what, those before draw the place.
            other => Self(other.to_string().lines().last().unwrap_or_default().to_owned()),
        }
    }
}

/// The regex that matches a whole path or value.
///
/// # Errors
/// It cannot be compiled.
pub fn whole(text: &str) -> Result<Regex, PatternError> {
    // Parsed by itself first: `a)(b` is no regex, though `^(?:a)(b)$` is.
    regex_syntax::parse(text).map_err(|error| {
        let text = error.to_string();
        PatternError(text.lines().last().unwrap_or_default().to_owned())
    })?;
    RegexBuilder::new(&format!("^(?:{text})$"))
        .size_limit(MAX_REGEX_BYTES)
        .build()
        .map_err(PatternError::from)
}

/// The literal segments that every match of a path's regex begins with, as a path; empty if there are none.
pub fn literal_segments(text: &str) -> String {
    let Ok(hir) = ParserBuilder::new().build().parse(text) else {
        return String::new();
    };
    let mut prefix = String::new();
    let whole = literal_prefix(&hir, &mut prefix);
    if !whole {
        // The last segment may go on.
        prefix.truncate(prefix.rfind('/').unwrap_or(0));
    }
    prefix
}

/// Appends the text that every match of `hir` begins with; answers whether that is all of the match.
fn literal_prefix(hir: &Hir, prefix: &mut String) -> bool {
    match hir.kind() {
        HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
            Ok(text) => {
                prefix.push_str(text);
                true
            }
            Err(_) => false,
        },
        HirKind::Capture(capture) => literal_prefix(&capture.sub, prefix),
        HirKind::Concat(parts) => parts.iter().all(|part| literal_prefix(part, prefix)),
        // An assertion takes no text; what it refuses is no matter here.
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Class(_) | HirKind::Repetition(_) | HirKind::Alternation(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regex_stands_below_the_whole_segments_it_begins_with() {
        for (regex, want) in [
            ("/api/v[0-9]+/x", "/api"),
            ("/api/v1", "/api/v1"),
            ("/api/v1/", "/api/v1/"),
            ("/api(/.*)?", ""),
            ("/api/(a|b)/c", "/api"),
            ("^/api/(?P<n>x)/y.*$", "/api/x"),
            (".*\\.css", ""),
            ("/a|/b", ""),
            ("(?i)/api/x", ""),
            ("/caf%C3%A9/.*", "/caf%C3%A9"),
        ] {
            assert_eq!(literal_segments(regex), want, "{regex}");
        }
    }

    #[test]
    fn a_regex_matches_the_whole_path_and_is_whole_itself() {
        let regex = whole("/a|/b").unwrap();
        assert!(regex.is_match("/a") && regex.is_match("/b"));
        assert!(!regex.is_match("/a/x") && !regex.is_match("/x/b"));
        for bad in ["a)(b", "(", "a{2000}{2000}", "(?=x)", "\\1"] {
            assert!(whole(bad).is_err(), "{bad}");
        }
    }
}
