//! Which content coding an answer gets: what the client takes (RFC 9110, 12.5.3) held against what the route offers.
//!
//! Compressing is only ever done where a route asks for it: an answer with a secret and something that the client chose
//! in one body tells about the secret by its length (BREACH).

use super::gate::{Request, field::list};
use crate::config::{Coding, Compress};

/// Types that a range of types may stand for at its end: `text/*`.
const ANY_SUBTYPE: &str = "/*";

/// The coding for an answer to the request; none if the client does not want one of those offered, or wants none more.
pub fn negotiate(offered: &Compress, request: &Request<'_>) -> Option<Coding> {
    // HEAD has no body to code; what is said about it is what the upstream says (RFC 9110, 9.3.2).
    if request.method() == b"HEAD" {
        return None;
    }
    let mut values = request.values("accept-encoding").peekable();
    values.peek()?;
    let members: Vec<(&[u8], u16)> = values.flat_map(list).filter_map(member).collect();
    let quality = |name: &str| {
        let of = |wanted: &[u8]| {
            members
                .iter()
                .find(|(have, _)| have.eq_ignore_ascii_case(wanted))
                .map(|(_, quality)| *quality)
        };
        of(name.as_bytes()).or_else(|| of(b"*"))
    };
    // Plain is as good as the best coding unless the client says otherwise.
    let plain = members
        .iter()
        .find(|(have, _)| have.eq_ignore_ascii_case(b"identity"))
        .map_or(0, |(_, quality)| *quality);
    let mut best: Option<(u16, Coding)> = None;
    for coding in &offered.algorithms {
        let quality = quality(coding.name()).unwrap_or(0);
        // Earlier ones are the route's choice among equals.
        if quality > 0 && quality >= plain && best.is_none_or(|(best, _)| quality > best) {
            best = Some((quality, *coding));
        }
    }
    best.map(|(_, coding)| coding)
}

/// `name;q=0.5` as name and thousandths; nothing if the weight is malformed.
fn member(text: &[u8]) -> Option<(&[u8], u16)> {
    let (name, parameters) = match memchr::memchr(b';', text) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => return Some((text, 1000)),
    };
    let parameters = parameters.trim_ascii();
    let weight = parameters
        .strip_prefix(b"q=")
        .or_else(|| parameters.strip_prefix(b"Q="))?;
    Some((name.trim_ascii_end(), thousandths(weight)?))
}

/// `0.5` as 500 (RFC 9110, 12.4.2).
fn thousandths(weight: &[u8]) -> Option<u16> {
    let (whole, fraction) = match weight {
        [whole] => (whole, &[][..]),
        [whole, b'.', fraction @ ..] => (whole, fraction),
        _ => return None,
    };
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u16::from(byte - b'0'));
    if !matches!(whole, b'0' | b'1') || fraction.len() > 3 {
        return None;
    }
    let mut value = digit(whole)? * 1000;
    for (byte, place) in fraction.iter().zip([100, 10, 1]) {
        value += digit(byte)? * place;
    }
    (value <= 1000).then_some(value)
}

/// Whether the route compresses answers of this `Content-Type`.
pub fn is_compressible(offered: &Compress, content_type: &[u8]) -> bool {
    let end = memchr::memchr(b';', content_type).unwrap_or(content_type.len());
    let essence = content_type[..end].trim_ascii();
    offered
        .types
        .iter()
        .any(|known| match known.strip_suffix(ANY_SUBTYPE) {
            Some(range) => {
                essence.len() > range.len()
                    && essence[range.len()] == b'/'
                    && essence[..range.len()].eq_ignore_ascii_case(range.as_bytes())
            }
            None => essence.eq_ignore_ascii_case(known.as_bytes()),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_thousandths() {
        for (text, want) in [
            ("gzip", Some(1000)),
            ("gzip;q=1", Some(1000)),
            ("gzip; q=0.5", Some(500)),
            ("gzip ;Q=0.001", Some(1)),
            ("gzip;q=0", Some(0)),
            ("gzip;q=1.000", Some(1000)),
            ("gzip;q=1.001", None),
            ("gzip;q=0.0001", None),
            ("gzip;q=2", None),
            ("gzip;q=", None),
            ("gzip;q=.5", None),
            ("gzip;x=1", None),
        ] {
            assert_eq!(
                member(text.as_bytes()).map(|(_, quality)| quality),
                want,
                "{text}"
            );
        }
    }

    #[test]
    fn types_by_name_and_range() {
        let offered = Compress {
            types: vec!["text/*".into(), "application/json".into()],
            ..Compress::default()
        };
        for (text, want) in [
            ("text/html", true),
            ("TEXT/html; charset=utf-8", true),
            ("application/json ;x", true),
            ("application/jsonp", false),
            ("text", false),
            ("textual/x", false),
            ("image/png", false),
            ("", false),
        ] {
            assert_eq!(is_compressible(&offered, text.as_bytes()), want, "{text}");
        }
    }
}
