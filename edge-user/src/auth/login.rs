//! Sending a browser to log in, with a way back that cannot be turned against it.

use thiserror::Error;

use crate::config::Login;

/// Longest way back that is carried, in bytes; a longer one becomes `/`.
const MAX_RETURN_BYTES: usize = 2048;

/// Why a login address cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LoginError {
    /// Neither `https://…`, nor `http://` on loopback, nor a path.
    #[error("login URL {0:?} is neither an https URL nor a path that begins with one slash")]
    Url(String),
    /// Not an origin.
    #[error("return origin {0:?} is not scheme, host and port alone")]
    Origin(String),
    /// Not a parameter name.
    #[error("return parameter {0:?} is not made of letters, digits, - and _")]
    Parameter(String),
}

/// Value of `Location` for a request of this target (path and query, as received).
///
/// The way back is always a path of this site: a target that a browser could read as another host, or that holds a
/// control character, becomes `/`. Everything but unreserved characters is percent-encoded, so the target can neither
/// end the parameter nor the header. For GET and HEAD only: a form cannot be sent again after a login.
pub fn location(login: &Login, target: &[u8]) -> String {
    let Some(parameter) = &login.return_parameter else {
        return login.url.clone();
    };
    let (url, fragment) = match login.url.split_once('#') {
        Some((url, fragment)) => (url, Some(fragment)),
        None => (login.url.as_str(), None),
    };
    let mut location = String::with_capacity(url.len() + parameter.len() + 3 * target.len() + 16);
    location.push_str(url);
    location.push(if url.contains('?') { '&' } else { '?' });
    location.push_str(parameter);
    location.push('=');
    encode(
        login.return_origin.as_deref().unwrap_or_default().as_bytes(),
        &mut location,
    );
    encode(safe_target(target), &mut location);
    if let Some(fragment) = fragment {
        location.push('#');
        location.push_str(fragment);
    }
    location
}

/// Browsers read `//host` and `/\host` as another host, and drop tabs and line ends before they look.
fn safe_target(target: &[u8]) -> &[u8] {
    let is_local = matches!(target, [b'/'] | [b'/', b'!'..=b'.' | b'0'..=b'[' | b']'..=b'~', ..]);
    let is_clean = target
        .iter()
        .all(|byte| (0x21..0x7f).contains(byte) && *byte != b'\\');
    if is_local && is_clean && target.len() <= MAX_RETURN_BYTES {
        target
    } else {
        b"/"
    }
}

fn encode(bytes: &[u8], into: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            into.push(char::from(*byte));
        } else {
            into.push('%');
            into.push(char::from(HEX[usize::from(byte >> 4)]));
            into.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

/// Checks a configured login address.
pub(super) fn validate(login: &Login) -> Result<(), LoginError> {
    let is_visible = login
        .url
        .bytes()
        .all(|byte| (0x21..0x7f).contains(&byte) && byte != b'\\');
    let is_path = login.url.starts_with('/') && !login.url.starts_with("//");
    if !is_visible || !(is_path || is_secure(&login.url)) {
        return Err(LoginError::Url(login.url.clone()));
    }
    if let Some(origin) = &login.return_origin {
        let host = origin.split_once("://").map_or("", |(_, host)| host);
        if !is_secure(origin) || host.is_empty() || !host.bytes().all(is_authority_byte) {
            return Err(LoginError::Origin(origin.clone()));
        }
    }
    match &login.return_parameter {
        Some(name)
            if name.is_empty()
                || !name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) =>
        {
            Err(LoginError::Parameter(name.clone()))
        }
        _ => Ok(()),
    }
}

fn is_secure(url: &str) -> bool {
    let is_loopback = |rest: &str| {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        ["localhost", "127.0.0.1", "[::1]"].iter().any(|name| {
            host.strip_prefix(name)
                .is_some_and(|port| port.is_empty() || port.starts_with(':'))
        })
    };
    url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty())
        || url.strip_prefix("http://").is_some_and(is_loopback)
}

fn is_authority_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':' | b'[' | b']')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(url: &str, parameter: Option<&str>, origin: Option<&str>) -> Login {
        Login {
            url: url.into(),
            return_parameter: parameter.map(Into::into),
            return_origin: origin.map(Into::into),
        }
    }

    #[test]
    fn the_way_back_stays_on_this_site() {
        let plain = login("/login", Some("next"), None);
        let rows: [(&str, &str); 11] = [
            ("/a?b=c&d", "%2Fa%3Fb%3Dc%26d"),
            ("/", "%2F"),
            ("//evil.example", "%2F"),
            ("/\\evil.example", "%2F"),
            ("/a\\..\\evil", "%2F"),
            ("/\t/evil.example", "%2F"),
            ("https://evil.example/", "%2F"),
            ("", "%2F"),
            ("/a\r\nSet-Cookie: x=1", "%2F"),
            ("/%2e", "%2F%252e"),
            ("/\u{e9}", "%2F"),
        ];
        for (target, expected) in rows {
            assert_eq!(
                location(&plain, target.as_bytes()),
                format!("/login?next={expected}"),
                "{target:?}"
            );
        }
        let long = format!("/{}", "a".repeat(4000));
        assert_eq!(location(&plain, long.as_bytes()), "/login?next=%2F");
        let full = login(
            "https://id.example/go?app=1#top",
            Some("to"),
            Some("https://app.example"),
        );
        assert_eq!(
            location(&full, b"/x"),
            "https://id.example/go?app=1&to=https%3A%2F%2Fapp.example%2Fx#top"
        );
        assert_eq!(location(&login("/login", None, None), b"/x"), "/login");
    }

    #[test]
    fn addresses_are_checked() {
        for url in [
            "/login",
            "https://id.example/",
            "http://localhost:1/x",
            "http://127.0.0.1",
        ] {
            assert_eq!(validate(&login(url, Some("next"), None)), Ok(()), "{url}");
        }
        for url in [
            "",
            "login",
            "//x",
            "http://x/",
            "http://localhost.evil/",
            "https://",
            "/a b",
            "/a\\b",
            "javascript:1",
        ] {
            assert!(validate(&login(url, None, None)).is_err(), "{url}");
        }
        for origin in [
            "https://a/b",
            "app.example",
            "https://",
            "https://a?b",
            "http://a",
        ] {
            assert!(validate(&login("/l", None, Some(origin))).is_err(), "{origin}");
        }
        assert!(validate(&login("/l", Some("a&b"), None)).is_err());
    }
}
