//! Which route paths are written the one way that a normalised request path can match.

use regex_syntax::hir::{Hir, HirKind};

use crate::config::{Segment, bounds, pattern};

/// What is wrong, and what to do about it.
type Fault = (String, String);

/// What regexes can and cannot do.
pub(super) const REGEX_HELP: &str = "the syntax is that of the Rust crate `regex`: no look-around and no back-references, so that it takes linear time";

/// Why `path`, a prefix, could never match, or would match something else than it says.
///
/// The rules are those of RFC 3986 sections 3.3 and 6.2.2: a path of `pchar`s, no dot segments, no empty
/// segments, percent-encoding only where needed and in upper case.
pub(super) fn prefix(path: &str) -> Result<(), Fault> {
    if path.contains('{') {
        return fault("a prefix has no parameters", "use `path_template`");
    }
    exact(path)?;
    if path.len() > 1 && path.ends_with('/') {
        return fault(
            "a prefix ends without `/`: it matches whole segments",
            "\"/api\" matches /api, /api/ and /api/x, never /apix",
        );
    }
    Ok(())
}

/// The same for a whole path.
pub(super) fn exact(path: &str) -> Result<(), Fault> {
    let Some(rest) = path.strip_prefix('/') else {
        return fault("a path starts with `/`", "as in \"/\" or \"/api\"");
    };
    if path.contains(['?', '#']) {
        return fault("a path ends before `?` and `#`", "routes match paths only");
    }
    if path.contains("//") {
        return fault(
            "an empty segment never matches",
            "write one `/` where there are two",
        );
    }
    if rest.split('/').any(|segment| segment == "." || segment == "..") {
        return fault(
            "dot segments never match: they are resolved first",
            "write the path they lead to",
        );
    }
    encoding_fault(rest.as_bytes()).map_or(Ok(()), Err)
}

/// A template taken apart.
pub(super) fn template(path: &str) -> Result<Vec<Segment>, Fault> {
    let Some(rest) = path.strip_prefix('/') else {
        return fault("a path starts with `/`", "as in \"/users/{id}\"");
    };
    let mut segments = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    let mut left = rest.split('/').peekable();
    // The segments, with a plain letter where a parameter stands.
    let mut plain = String::new();
    while let Some(text) = left.next() {
        plain.push('/');
        let parameter = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
        let Some(name) = parameter else {
            if text.contains(['{', '}']) {
                return fault(
                    "a parameter is a whole segment",
                    "as in \"/users/{id}\"; use `path_regex` for parts of segments",
                );
            }
            plain.push_str(text);
            segments.push(if text.is_empty() {
                Segment::End
            } else {
                Segment::Literal(text.to_owned())
            });
            continue;
        };
        plain.push('x');
        let bare = name.strip_prefix('*').unwrap_or(name);
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_lowercase())
                && name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        if !is_name(bare) || bare.len() > bounds::MAX_NAME_BYTES {
            return fault(
                "this is not the name of a parameter",
                "small letters, digits and `_`, as in \"{id}\", or \"{*rest}\" for the rest of the path",
            );
        }
        if names.contains(&bare) {
            return fault(
                "two parameters have one name",
                "each has its own, as in \"/{year}/{month}\"",
            );
        }
        names.push(bare);
        if bare == name {
            segments.push(Segment::Parameter(bare.to_owned()));
        } else if left.peek().is_some() {
            return fault("the rest of a path is its end", "`{*name}` is the last segment");
        } else {
            segments.push(Segment::Rest(bare.to_owned()));
        }
    }
    exact(&plain)?;
    if names.is_empty() {
        return fault("a template has a parameter", "use `path_exact`");
    }
    Ok(segments)
}

/// Why `text` is no regex that could match a path.
pub(super) fn regex(text: &str) -> Result<(), Fault> {
    if let Err(error) = pattern::whole(text) {
        return Err((
            format!("this regex cannot be used: {error}"),
            REGEX_HELP.to_owned(),
        ));
    }
    let begins = regex_syntax::parse(text).is_ok_and(|hir| begins_with_slash(&hir) != Some(false));
    if !begins {
        return fault(
            "this regex can never match: it is held against the whole path, which begins with `/`",
            "as in \"/items/[0-9]+\"",
        );
    }
    Ok(())
}

/// Whether what the regex matches begins with a slash; `None` if it may match nothing at its beginning.
fn begins_with_slash(hir: &Hir) -> Option<bool> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => None,
        HirKind::Literal(literal) => literal.0.first().map(|first| *first == b'/'),
        HirKind::Class(class) => Some(match class {
            regex_syntax::hir::Class::Unicode(class) => class
                .ranges()
                .iter()
                .any(|range| range.start() <= '/' && '/' <= range.end()),
            regex_syntax::hir::Class::Bytes(class) => class
                .ranges()
                .iter()
                .any(|range| range.start() <= b'/' && b'/' <= range.end()),
        }),
        HirKind::Repetition(repetition) if repetition.min == 0 => match begins_with_slash(&repetition.sub) {
            Some(true) => Some(true),
            Some(false) | None => None,
        },
        HirKind::Repetition(repetition) => begins_with_slash(&repetition.sub),
        HirKind::Capture(capture) => begins_with_slash(&capture.sub),
        HirKind::Concat(parts) => parts.iter().find_map(begins_with_slash),
        HirKind::Alternation(parts) => {
            let parts: Vec<_> = parts.iter().map(begins_with_slash).collect();
            if parts.contains(&Some(true)) {
                Some(true)
            } else if parts.contains(&None) {
                None
            } else {
                Some(false)
            }
        }
    }
}

fn fault<T>(message: &str, help: &str) -> Result<T, Fault> {
    Err((message.to_owned(), help.to_owned()))
}

fn encoding_fault(bytes: &[u8]) -> Option<(String, String)> {
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte != b'%' {
            if !is_pchar(byte) && byte != b'/' {
                let shown = byte.escape_ascii();
                let message = format!("the byte `{shown}` cannot stand in a path");
                return Some((message, format!("percent-encode it: `%{byte:02X}`")));
            }
            at += 1;
            continue;
        }
        let digits = bytes
            .get(at + 1..at + 3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let decoded = digits
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let (Some(digits), Some(decoded)) = (digits, decoded) else {
            return Some((
                "`%` needs two hex digits".to_owned(),
                "a literal `%` is `%25`".to_owned(),
            ));
        };
        if let Some(fault) = escape_fault(digits, decoded) {
            return Some(fault);
        }
        at += 3;
    }
    None
}

fn escape_fault(digits: &str, decoded: u8) -> Option<(String, String)> {
    if matches!(decoded, b'/' | b'\\' | 0) {
        return Some((
            format!("`%{digits}` never matches: a request with it is refused"),
            "two servers could read it differently".to_owned(),
        ));
    }
    if is_unreserved(decoded) {
        let message = format!("`%{digits}` never matches: it is decoded first");
        return Some((message, format!("write `{}`", decoded as char)));
    }
    if digits.bytes().any(|digit| digit.is_ascii_lowercase()) {
        let message = format!("`%{digits}` never matches: escapes are put in upper case first");
        return Some((message, format!("write `%{}`", digits.to_ascii_uppercase())));
    }
    None
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn is_pchar(byte: u8) -> bool {
    is_unreserved(byte) || b"!$&'()*+,;=:@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::{exact, prefix, regex, template};

    #[test]
    fn only_the_normal_spelling_is_accepted() {
        for good in [
            "/",
            "/api",
            "/api/v1",
            "/a.b/~c",
            "/%C3%BC",
            "/a:b@c;d=1,2",
            "/...",
            "/.well-known/x",
        ] {
            assert_eq!(prefix(good), Ok(()), "{good}");
        }
        let bad = [
            ("", "a path starts"),
            ("api", "a path starts"),
            ("/{id}", "a prefix has no parameters"),
            ("/api/", "a prefix ends"),
            ("//", "an empty segment"),
            ("/a//b", "an empty segment"),
            ("/a/../b", "dot segments"),
            ("/.", "dot segments"),
            ("/a?b", "a path ends before"),
            ("/a#b", "a path ends before"),
            ("/a b", "the byte ` `"),
            ("/ü", "the byte `\\xc3`"),
            ("/a\\b", "the byte `\\\\`"),
            ("/a\0", "the byte `\\x00`"),
            ("/%", "`%` needs"),
            ("/%4", "`%` needs"),
            ("/%+4", "`%` needs"),
            ("/%2F", "`%2F` never"),
            ("/%00", "`%00` never"),
            ("/%5c", "`%5c` never"),
            ("/%2E%2E/x", "`%2E` never"),
            ("/%c3%bc", "`%c3` never"),
        ];
        for (path, message) in bad {
            let Err((found, _)) = prefix(path) else {
                panic!("{path} was accepted")
            };
            assert!(found.starts_with(message), "{path}: {found}");
        }
    }

    #[test]
    fn exact_paths_may_end_with_a_slash() {
        for good in ["/", "/a", "/a/"] {
            assert_eq!(exact(good), Ok(()), "{good}");
        }
        assert!(exact("/a//").is_err());
    }

    #[test]
    fn templates_have_whole_segments() {
        for good in [
            "/{id}",
            "/u/{id}/",
            "/u/{id}/p/{page_2}",
            "/{*rest}",
            "/f/{*rest}",
        ] {
            assert!(template(good).is_ok(), "{good}: {:?}", template(good));
        }
        for (path, message) in [
            ("{id}", "a path starts"),
            ("/u", "a template has"),
            ("/u{id}", "a parameter is a whole"),
            ("/{id}.json", "a parameter is a whole"),
            ("/{}", "this is not the name"),
            ("/{Id}", "this is not the name"),
            ("/{a}/{a}", "two parameters"),
            ("/{*a}/b", "the rest of a path"),
            ("/{a}//b", "an empty segment"),
            ("/../{a}", "dot segments"),
            ("/é/{a}", "the byte"),
        ] {
            let Err((found, _)) = template(path) else {
                panic!("{path} was accepted")
            };
            assert!(found.starts_with(message), "{path}: {found}");
        }
    }

    #[test]
    fn regexes_can_match_a_path() {
        for good in [
            "/a", ".*", "(/a|/b)", "^/x$", "[/a]b", "(x)?/a", "x*/a", "(a|/b)", "\\W",
        ] {
            assert_eq!(regex(good), Ok(()), "{good}");
        }
        for (text, message) in [
            ("a.*", "this regex can never"),
            ("(a|b)/", "this regex can never"),
            ("[a-z]+/", "this regex can never"),
            ("(", "this regex cannot be used"),
            ("(?=/a)", "this regex cannot be used"),
            ("/a{1000}{1000}", "this regex cannot be used"),
        ] {
            let Err((found, _)) = regex(text) else {
                panic!("{text} was accepted")
            };
            assert!(found.starts_with(message), "{text}: {found}");
        }
    }
}
