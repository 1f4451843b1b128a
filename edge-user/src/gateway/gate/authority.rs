//! Whether a `Host` value or the authority of a target is `uri-host [":" port]` (RFC 9110, 7.2) and nothing more.
//!
//! User information, an empty host, percent-encoding and every delimiter that could end the authority for a more
//! lenient reader are refused; so is what no name can be (RFC 1035, 2.3.4): an empty label, one of more than 63 bytes,
//! 253 bytes in all. Without that `a..example` or `.example` would be a host that no route names, and fall to the
//! routes for every host. One dot at the end is the same name.

/// Longest name, in bytes, without the dot at its end (RFC 1035, 2.3.4).
const MAX_NAME: usize = 253;

/// Longest label of a name, in bytes.
const MAX_LABEL: usize = 63;

/// Whether `bytes` names a host, and perhaps a port.
pub fn is_valid(bytes: &[u8]) -> bool {
    let (host, port) = if bytes.first() == Some(&b'[') {
        let Some(close) = bytes.iter().position(|byte| *byte == b']') else {
            return false;
        };
        let address = bytes.get(1..close).unwrap_or_default();
        // No zone (RFC 6874): it means something on the client's machine only.
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
    is_name(host) && port.is_none_or(is_port)
}

/// Whether `bytes` names a host and a port: the form that CONNECT has (RFC 9112, 3.2.3).
pub fn has_port(bytes: &[u8]) -> bool {
    let behind = bytes.iter().rposition(|byte| matches!(byte, b':' | b']'));
    is_valid(bytes) && behind.is_some_and(|at| bytes.get(at) == Some(&b':'))
}

/// Whether `host` is labels with dots between them, perhaps with one at the end.
fn is_name(host: &[u8]) -> bool {
    let name = host.strip_suffix(b".").unwrap_or(host);
    let mut label = 0;
    for byte in name {
        match byte {
            b'.' if label == 0 => return false,
            b'.' => label = 0,
            byte if is_label_byte(*byte) && label < MAX_LABEL => label += 1,
            _ => return false,
        }
    }
    label > 0 && name.len() <= MAX_NAME
}

/// Whether two authorities name the same host and port; an absent port is 80 for `http` and 443 for `https`.
pub fn same(one: &[u8], other: &[u8]) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// Letters, digits, hyphen; and underscore, which internal names carry.
fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// Whether `bytes` is a port that can be asked for: not 0 (RFC 6335, 6), no leading zero, which some read as octal.
fn is_port(bytes: &[u8]) -> bool {
    (1..=5).contains(&bytes.len())
        && bytes[0] != b'0'
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
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn only_host_and_port() {
        let label = "a".repeat(63);
        let name = [label.as_str(), &label, &label, &label[..61]].join(".");
        for good in [
            "a",
            "A.Example",
            "a.b-c_d",
            "_service.example",
            "-a-.example",
            "example.org.",
            "example.org.:80",
            "localhost:8080",
            "a:1",
            "a:65535",
            "127.0.0.1:80",
            "0x7f.1",
            "[::1]",
            "[::ffff:192.0.2.1]",
            "[2001:DB8::1]:443",
            "xn--bcher-kva.example",
            &label,
            &name,
            &format!("{name}."),
        ] {
            assert!(is_valid(good.as_bytes()), "{good}");
        }
        for bad in [
            // No host, or no port after the colon.
            "",
            ":80",
            "a:",
            "[::1]:",
            // No name has an empty label.
            ".",
            "..",
            ".a",
            "a..",
            "a..b",
            ".:80",
            "..:80",
            "a..:80",
            // Longer than a name can be.
            &format!("{label}a"),
            &format!("{label}a.example"),
            &format!("{name}a"),
            &format!("a.{name}"),
            // A port is 1 to 65535, written in one way.
            "a:b",
            "a:0",
            "a:00",
            "a:080",
            "a:65536",
            "a:99999",
            "a:123456",
            "a:-1",
            "a:+80",
            "a: 80",
            "a:80 ",
            "a:80:80",
            "a:\u{661}",
            // User information, and what may end an authority.
            "u@a",
            "u:p@a",
            "@a",
            "a@",
            "a b",
            "a\tb",
            "a,b",
            "a;b",
            "a/b",
            "a\\b",
            "a?b",
            "a#b",
            "http://a",
            "//a",
            "a'",
            "a\"",
            "(a)",
            "a!",
            "a$",
            "a&b",
            "a*",
            "*",
            "*.a",
            "a+b",
            "a=b",
            "~a",
            "a|b",
            "{a}",
            "<a>",
            "a^",
            "a`",
            // Encoded, or not ASCII.
            "a%41",
            "%61",
            "a%2eb",
            "a%00",
            "a%zz",
            "\u{e9}",
            "a\u{3002}b",
            "a\0",
            "a\r",
            "a\n",
            "a\x7f",
            // Addresses of IPv6: in brackets, whole, without a zone, and of no future version.
            "::1",
            "2001:db8::1",
            "[::1",
            "::1]",
            "[]",
            "[a]",
            "[::1]x",
            "[::1]80",
            "[::1]:0",
            "[::1]:99999",
            "[[::1]]",
            "x[::1]",
            "[::1].",
            "[127.0.0.1]",
            "[::1%25eth0]",
            "[::1%eth0]",
            "[v1.a]",
            "[ ::1]",
            "[1:2:3:4:5:6:7:8:9]",
        ] {
            assert!(!is_valid(bad.as_bytes()), "{bad:?}");
        }
    }
}
