//! Whether a `Host` value or the authority of a target is `uri-host [":" port]` (RFC 9110, 7.2) and nothing more.
//!
//! User information, an empty host, percent-encoding and every delimiter that could end the authority for a more
//! lenient reader are refused.

/// Whether `bytes` names a host, and perhaps a port.
pub fn is_valid(bytes: &[u8]) -> bool {
    let (host, port) = if bytes.first() == Some(&b'[') {
        let Some(close) = bytes.iter().position(|byte| *byte == b']') else {
            return false;
        };
        let address = bytes.get(1..close).unwrap_or_default();
        if !std::str::from_utf8(address).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok()) {
            return false;
        }
        match bytes.get(close + 1..) {
            None | Some([]) => return true,
            Some([b':', port @ ..]) => return is_port(port),
            Some(_) => return false,
        }
    } else {
        match bytes.iter().position(|byte| *byte == b':') {
            Some(colon) => (&bytes[..colon], Some(&bytes[colon + 1..])),
            None => (bytes, None),
        }
    };
    !host.is_empty() && host.iter().copied().all(is_host_byte) && port.is_none_or(is_port)
}

/// Whether two authorities name the same host and port; an absent port is 80 for `http` and 443 for `https`.
pub fn same(one: &[u8], other: &[u8]) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// Letters, digits, hyphen, dot; and underscore, which internal names carry.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

fn is_port(bytes: &[u8]) -> bool {
    (1..=5).contains(&bytes.len())
        && bytes.iter().all(u8::is_ascii_digit)
        && bytes
            .iter()
            .fold(0_u32, |port, digit| port * 10 + u32::from(digit - b'0'))
            <= 65_535
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_and_port() {
        for good in [
            "a",
            "a.b-c_d",
            "localhost:8080",
            "127.0.0.1:80",
            "[::1]",
            "[2001:db8::1]:443",
            "xn--bcher-kva.example",
        ] {
            assert!(is_valid(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a:",
            "a:b",
            "a:99999",
            "a:123456",
            "a b",
            "a,b",
            "u@a",
            "a/b",
            "a?b",
            "a#b",
            "[::1",
            "[]",
            "[a]",
            "[::1]x",
            "::1",
            "a:80:80",
            "a%41",
            "\u{e9}",
            "a;b",
            "a\\b",
            "a:+80",
            "[::1%25eth0]",
        ] {
            assert!(!is_valid(bad.as_bytes()), "{bad}");
        }
    }
}
