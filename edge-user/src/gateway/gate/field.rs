//! Fields by kind: each name is compared once, in the gate; every later decision matches on the kind.
//!
//! Names are compared without regard to case, and with `_` taken for `-`: upstreams behind CGI-like interfaces
//! cannot tell the two apart, so a client could smuggle `Content_Length` or `X_Forwarded_For` past an exact match.

use super::Span;

/// One field of a head.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name, a token, in the sender's spelling.
    pub name: Span,
    /// Its value without surrounding whitespace.
    pub value: Span,
    /// What it means to a proxy.
    pub kind: FieldKind,
}

/// What a field means to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// Nothing: it is passed on.
    Other,
    /// `Host`.
    Host,
    /// `Content-Length`.
    ContentLength,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Connection`.
    Connection,
    /// `Upgrade`.
    Upgrade,
    /// `TE`.
    Te,
    /// `Trailer`.
    Trailer,
    /// `Expect`.
    Expect,
    /// `Accept`.
    Accept,
    /// `Cookie`.
    Cookie,
    /// `Authorization`.
    Authorization,
    /// `X-Request-Id`.
    RequestId,
    /// Other fields of one connection: `Keep-Alive`, `Proxy-Connection`, `Proxy-Authenticate`,
    /// `Proxy-Authorization`, `HTTP2-Settings`.
    HopByHop,
    /// Claims about what came before this proxy: `Forwarded`, `X-Forwarded-*`, `X-Real-IP`, `X-Original-URL` and
    /// their like.
    Forwarding,
    /// `traceparent` and `tracestate` (W3C trace context).
    Trace,
    /// A field that frames or addresses the message, spelled with an underscore.
    Disguised,
}

/// The kind of a field by its name, a token.
pub fn classify(name: &[u8]) -> FieldKind {
    use FieldKind as Kind;
    let candidates: &[(&str, FieldKind)] = match name.len() {
        2 => &[("te", Kind::Te)],
        4 => &[("host", Kind::Host)],
        6 => &[
            ("cookie", Kind::Cookie),
            ("accept", Kind::Accept),
            ("expect", Kind::Expect),
        ],
        7 => &[("upgrade", Kind::Upgrade), ("trailer", Kind::Trailer)],
        9 => &[("forwarded", Kind::Forwarding), ("x-real-ip", Kind::Forwarding)],
        10 => &[
            ("connection", Kind::Connection),
            ("keep-alive", Kind::HopByHop),
            ("tracestate", Kind::Trace),
        ],
        11 => &[("x-client-ip", Kind::Forwarding), ("traceparent", Kind::Trace)],
        12 => &[("x-request-id", Kind::RequestId)],
        13 => &[
            ("authorization", Kind::Authorization),
            ("x-rewrite-url", Kind::Forwarding),
        ],
        14 => &[
            ("content-length", Kind::ContentLength),
            ("http2-settings", Kind::HopByHop),
            ("x-original-url", Kind::Forwarding),
            ("x-original-uri", Kind::Forwarding),
            ("true-client-ip", Kind::Forwarding),
        ],
        16 => &[("proxy-connection", Kind::HopByHop)],
        17 => &[("transfer-encoding", Kind::TransferEncoding)],
        18 => &[("proxy-authenticate", Kind::HopByHop)],
        19 => &[("proxy-authorization", Kind::HopByHop)],
        _ => &[],
    };
    let initial = name.first().map_or(0, u8::to_ascii_lowercase);
    for (known, kind) in candidates {
        // Most names fall here, at their first letter.
        if known.as_bytes().first() == Some(&initial) && alias_of(name, known.as_bytes()) {
            let disguised = name.contains(&b'_')
                && matches!(
                    kind,
                    Kind::Host
                        | Kind::ContentLength
                        | Kind::TransferEncoding
                        | Kind::Connection
                        | Kind::Upgrade
                );
            return if disguised { Kind::Disguised } else { *kind };
        }
    }
    if initial == b'x'
        && name.len() > FORWARDED_PREFIX.len()
        && alias_of(&name[..FORWARDED_PREFIX.len()], FORWARDED_PREFIX)
    {
        return Kind::Forwarding;
    }
    Kind::Other
}

const FORWARDED_PREFIX: &[u8] = b"x-forwarded-";

/// Whether `name` is `known` (lower case, with `-`) to someone who ignores case and takes `_` for `-`.
pub fn alias_of(name: &[u8], known: &[u8]) -> bool {
    name.len() == known.len()
        && name.iter().zip(known).all(|(byte, want)| {
            let byte = if *byte == b'_' {
                b'-'
            } else {
                byte.to_ascii_lowercase()
            };
            byte == *want
        })
}

/// The members of a comma-separated list, trimmed, empty ones left out (RFC 9110, 5.6.1).
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

/// Whether `bytes` is a token (RFC 9110, 5.6.2).
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_every_spelling() {
        let table = [
            ("Host", FieldKind::Host),
            ("hOsT", FieldKind::Host),
            ("Content-Length", FieldKind::ContentLength),
            ("content_length", FieldKind::Disguised),
            ("Transfer_Encoding", FieldKind::Disguised),
            ("X-Forwarded-For", FieldKind::Forwarding),
            ("x_forwarded_for", FieldKind::Forwarding),
            ("X-Forwarded-User", FieldKind::Forwarding),
            ("X-Forwarded-", FieldKind::Other),
            ("X-Real_IP", FieldKind::Forwarding),
            ("Proxy-Connection", FieldKind::HopByHop),
            ("X-Request-ID", FieldKind::RequestId),
            ("Accept", FieldKind::Accept),
            ("Hos", FieldKind::Other),
        ];
        for (name, want) in table {
            assert_eq!(classify(name.as_bytes()), want, "{name}");
        }
    }
}
