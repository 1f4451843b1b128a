//! Which URLs the configuration may name.
//!
//! Faults never repeat the URL: somebody may have put a password into it.

use http::Uri;

use crate::config::{bounds, trusted::Fault};

/// Hosts that plain http may name: what is sent there stays on this machine.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// A URL that keys are fetched from.
pub(super) fn keys(url: &str) -> Result<(), Fault> {
    let (_, target) = absolute(url)?;
    if target.contains('#') {
        return Err(Fault::new(
            "a fragment is never sent",
            "end the URL before the `#`",
        ));
    }
    Ok(())
}

/// An issuer that has a discovery document (OpenID Connect Discovery 1.0 section 3: no query, no fragment).
pub(super) fn issuer(url: &str) -> Result<(), Fault> {
    let (_, target) = absolute(url)?;
    if target.contains(['?', '#']) {
        return Err(Fault::new(
            "an issuer has no query and no fragment",
            "as in \"https://login.example.org/realms/main\"; the discovery document is found below it",
        ));
    }
    if target
        .trim_end_matches('/')
        .ends_with("/.well-known/openid-configuration")
    {
        return Err(Fault::new(
            "this is the discovery document, not the issuer",
            "end the URL before `/.well-known`",
        ));
    }
    Ok(())
}

/// A login page: a URL, or a path of the same site.
pub(super) fn login(url: &str) -> Result<(), Fault> {
    if !url.starts_with('/') {
        return absolute(url).map(drop);
    }
    // Browsers read `//host` and `/\host` as another host.
    if url.starts_with("//") {
        return Err(Fault::new(
            "a path starts with one slash",
            "as in \"/login\"; another host is named with its scheme",
        ));
    }
    is_writable(url)
}

/// An origin (RFC 6454): scheme, host and perhaps a port.
pub(super) fn origin(url: &str) -> Result<(), Fault> {
    let (authority, target) = absolute(url)?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
    if !target.is_empty() || !authority.bytes().all(is_plain) {
        return Err(Fault::new(
            "an origin is scheme, host and port alone",
            "as in \"https://app.example.org\", without a final slash",
        ));
    }
    Ok(())
}

/// Authority and target of an absolute URL.
fn absolute(url: &str) -> Result<(&str, &str), Fault> {
    const HELP: &str = "as in \"https://login.example.org/keys\"";
    is_writable(url)?;
    let (is_secure, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return Err(Fault::new("this is not an https URL", HELP)),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    if authority.contains('@') {
        return Err(Fault::new(
            "a user name in a URL ends up in logs",
            "remove what stands before the `@`",
        ));
    }
    let without_fragment = url.split('#').next().unwrap_or_default();
    let parsed = without_fragment.parse::<Uri>().ok();
    let Some(host) = parsed.as_ref().and_then(Uri::authority).filter(|parsed| {
        let has_port = parsed.as_str().len() > parsed.host().len();
        !parsed.host().is_empty() && (!has_port || parsed.port_u16().is_some())
    }) else {
        return Err(Fault::new("this is not a URL with a host", HELP));
    };
    if !is_secure && !LOOPBACK.contains(&host.host()) {
        return Err(Fault::new(
            "plain http is possible for this machine only: anybody on the way could answer",
            "write https; http is for localhost, 127.0.0.1 and [::1]",
        ));
    }
    Ok((authority, target))
}

/// Characters that a URL has, and a sane length.
fn is_writable(url: &str) -> Result<(), Fault> {
    if url.is_empty() || url.len() > bounds::MAX_URL_BYTES {
        return Err(Fault::new(
            format!("a URL has 1 to {} bytes", bounds::MAX_URL_BYTES),
            "as in \"https://login.example.org/keys\"",
        ));
    }
    match url
        .bytes()
        .find(|byte| !byte.is_ascii_graphic() || *byte == b'\\')
    {
        Some(byte) => Err(Fault::new(
            format!("the byte `{}` cannot stand in a URL", byte.escape_ascii()),
            format!("percent-encode it: `%{byte:02X}`"),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// URL, and whether it may be that of keys, an issuer, a login page and an origin.
    const ROWS: [(&str, [bool; 4]); 26] = [
        ("https://id.example", [true, true, true, true]),
        ("https://id.example:8443", [true, true, true, true]),
        ("https://[2001:db8::1]:8443", [true, true, true, true]),
        ("https://id.example/", [true, true, true, false]),
        ("https://id.example/a/b", [true, true, true, false]),
        ("https://id.example/a?b=c", [true, false, true, false]),
        ("https://id.example/a#b", [false, false, true, false]),
        (
            "https://id.example/.well-known/openid-configuration",
            [true, false, true, false],
        ),
        ("http://localhost:1", [true, true, true, true]),
        ("http://127.0.0.1:1/x", [true, true, true, false]),
        ("http://[::1]/x", [true, true, true, false]),
        ("http://localhost.evil/x", [false; 4]),
        ("http://10.0.0.1/x", [false; 4]),
        ("http://id.example", [false; 4]),
        ("https://", [false; 4]),
        ("https://user@id.example", [false; 4]),
        ("https://u:p@id.example/x", [false; 4]),
        ("https://id.example:/", [false; 4]),
        ("https://id.example:99999/", [false; 4]),
        ("https://a b/", [false; 4]),
        ("https://id.example/\u{e9}", [false; 4]),
        ("https://id.example\\x", [false; 4]),
        ("ftp://id.example/", [false; 4]),
        ("", [false; 4]),
        ("/login?a=b#c", [false, false, true, false]),
        ("//id.example/login", [false; 4]),
    ];

    #[test]
    fn each_kind_of_url_has_its_shape() {
        for (url, expected) in ROWS {
            let found = [keys, issuer, login, origin].map(|check| check(url).is_ok());
            assert_eq!(found, expected, "{url}");
        }
        let long = format!("https://id.example/{}", "a".repeat(bounds::MAX_URL_BYTES));
        assert!(keys(&long).is_err());
    }

    #[test]
    fn faults_do_not_repeat_the_url() {
        for (url, _) in ROWS.iter().filter(|(url, _)| !url.is_empty()) {
            for fault in [keys, issuer, login, origin]
                .iter()
                .filter_map(|check| check(url).err())
            {
                assert!(!fault.to_string().contains(url), "{fault}");
            }
        }
    }
}
