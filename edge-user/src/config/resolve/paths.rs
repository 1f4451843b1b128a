//! Which route paths are written the one way that a normalised request path can match.

/// Why `path` could never match, or would match something else than it says.
///
/// The rules are those of RFC 3986 sections 3.3 and 6.2.2: a path of `pchar`s, no dot segments, no empty
/// segments, percent-encoding only where needed and in upper case.
pub(super) fn fault(path: &str) -> Option<(String, String)> {
    let fault = |message: &str, help: &str| Some((message.to_owned(), help.to_owned()));
    let Some(rest) = path.strip_prefix('/') else {
        return fault("a path starts with `/`", "as in \"/\" or \"/api\"");
    };
    if rest.is_empty() {
        return None;
    }
    if path.contains(['?', '#']) {
        return fault("a path ends before `?` and `#`", "routes match paths only");
    }
    if path.contains("//") {
        return fault(
            "an empty segment never matches",
            "write one `/` where there are two",
        );
    }
    if path.ends_with('/') {
        return fault(
            "a prefix ends without `/`: it matches whole segments",
            "\"/api\" matches /api, /api/ and /api/x, never /apix",
        );
    }
    if rest.split('/').any(|segment| segment == "." || segment == "..") {
        return fault(
            "dot segments never match: they are resolved first",
            "write the path they lead to",
        );
    }
    encoding_fault(rest.as_bytes())
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
    use super::fault;

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
            assert_eq!(fault(good), None, "{good}");
        }
        let bad = [
            ("", "a path starts"),
            ("api", "a path starts"),
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
            let (found, _) = fault(path).unwrap_or_else(|| panic!("{path} was accepted"));
            assert!(found.starts_with(message), "{path}: {found}");
        }
    }
}
