//! W3C trace context: a trace that a request belongs to goes on, a request without one begins one.
//!
//! The request's id is the id of this proxy's span, so log, upstream and trace name a request alike. What begins here
//! is marked as sampled: a service that decides by its caller's mark decides as if there were no proxy.

use super::{
    gate::{FieldKind, Request},
    header_policy::FieldSink,
    request_id::hex,
};

/// Hex digits of a trace's id.
pub(crate) const ID: usize = 32;

/// A trace that a request says it belongs to.
struct Parent<'r> {
    id: &'r [u8],
    flags: &'r [u8],
}

/// The one valid `traceparent` of a request.
fn parent<'r>(request: &Request<'r>) -> Option<Parent<'r>> {
    let mut fields = request
        .fields()
        .filter(|(kind, name, _)| *kind == FieldKind::Trace && name.eq_ignore_ascii_case(b"traceparent"));
    let (_, _, value) = fields.next()?;
    if fields.next().is_some() {
        return None;
    }
    parse(value)
}

/// Takes `VERSION-TRACE-PARENT-FLAGS` apart; versions above 00 may have more at their end.
fn parse(value: &[u8]) -> Option<Parent<'_>> {
    let is_hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let (version, id) = (value.get(..2)?, value.get(3..35)?);
    let (span, flags) = (value.get(36..52)?, value.get(53..55)?);
    let dashes = [2, 35, 52].iter().all(|at| value[*at] == b'-');
    let is_zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
    let length = match version {
        b"00" => value.len() == 55,
        _ => value.len() == 55 || value.get(55) == Some(&b'-'),
    };
    let valid = dashes
        && length
        && version != b"ff"
        && [version, id, span, flags].into_iter().all(is_hex)
        && !is_zero(id)
        && !is_zero(span);
    valid.then_some(Parent { id, flags })
}

/// The id of a request's trace.
pub(crate) fn id_of(request: &Request<'_>, request_id: &[u8]) -> [u8; ID] {
    match parent(request) {
        Some(parent) => std::array::from_fn(|at| parent.id[at]),
        None => begun(request_id),
    }
}

/// The id of a trace that begins with a request: as unique as the request's.
fn begun(request_id: &[u8]) -> [u8; ID] {
    // The other half is the same number stirred (SplitMix64's last steps), so that neither half is constant.
    let number = request_id.iter().fold(0_u64, |number, digit| {
        let value = (digit & 15) + if *digit > b'9' { 9 } else { 0 };
        number << 4 | u64::from(value)
    });
    let mut mixed = number ^ 0x9e37_79b9_7f4a_7c15;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^= mixed >> 31;
    let mut id = [b'0'; ID];
    id[..16].copy_from_slice(&hex(mixed));
    for (into, digit) in id[16..].iter_mut().zip(request_id) {
        *into = *digit;
    }
    id
}

/// Writes the fields of the forwarded request.
pub(crate) fn put(sink: &mut impl FieldSink, request: &Request<'_>, request_id: &[u8]) {
    let mut value = *b"00-00000000000000000000000000000000-0000000000000000-01";
    let parent = parent(request);
    match &parent {
        Some(parent) => {
            value[3..35].copy_from_slice(parent.id);
            value[53..55].copy_from_slice(parent.flags);
        }
        None => value[3..35].copy_from_slice(&begun(request_id)),
    }
    for (into, digit) in value[36..52].iter_mut().zip(request_id) {
        *into = *digit;
    }
    sink.put(b"traceparent", &value);
    // It belongs to the trace that goes on, and to no other.
    if parent.is_some() {
        for (kind, name, state) in request.fields() {
            if kind == FieldKind::Trace && name.eq_ignore_ascii_case(b"tracestate") {
                sink.put(b"tracestate", state);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_parents_count() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(parse(good.as_bytes()).is_some());
        assert!(parse(good.replacen("00-", "cc-", 1).as_bytes()).is_some());
        assert!(parse(format!("{}-more", good.replacen("00-", "cc-", 1)).as_bytes()).is_some());
        for bad in [
            String::new(),
            good[..54].to_owned(),
            format!("{good}-more"),
            format!("{good}0"),
            good.replacen("00-", "ff-", 1),
            good.to_uppercase(),
            good.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            good.replace("b7ad6b7169203331", &"0".repeat(16)),
            good.replace("-b7", "_b7"),
            good.replace("-01", "-0g"),
        ] {
            assert!(parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn traces_begin_apart() {
        let (one, other) = (begun(b"0000000000000001"), begun(b"0000000000000002"));
        assert_ne!(one[..16], other[..16]);
        assert_eq!(&one[16..], b"0000000000000001");
        assert!(one.iter().all(u8::is_ascii_hexdigit));
    }
}
