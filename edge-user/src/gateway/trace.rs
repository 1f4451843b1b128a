//! W3C trace context: a trace that a request belongs to goes on, a request without one begins one.
//!
//! The request's id is the id of this proxy's span, so log, upstream and trace name a request alike. What begins here
//! is marked as sampled: a service that decides by its caller's mark decides as if there were no proxy. Where traces are
//! sent from here too, it is marked by what was decided here; a trace that goes on was decided by who began it.

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
    span: &'r [u8],
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
    valid.then_some(Parent { id, span, flags })
}

/// The id of a request's trace.
pub(crate) fn id_of(request: &Request<'_>, request_id: &[u8]) -> [u8; ID] {
    match parent(request) {
        Some(parent) => std::array::from_fn(|at| parent.id[at]),
        None => begun(request_id),
    }
}

/// How many of the traces that begin here are sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sampling(u64);

impl Sampling {
    /// So many of a million.
    pub(crate) fn per_million(share: u32) -> Self {
        let part = u128::from(share.min(1_000_000)) * u128::from(u64::MAX) / 1_000_000;
        Self(u64::try_from(part).unwrap_or(u64::MAX))
    }

    /// Whether the trace that begins with this request is: the same answer whenever it is asked.
    fn takes(self, request_id: &[u8]) -> bool {
        self.0 > 0 && stirred(number_of(request_id)) <= self.0
    }
}

/// The ids of a request that is traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) trace: [u8; 16],
    pub(crate) span: [u8; 8],
    pub(crate) parent: Option<[u8; 8]>,
}

/// The ids of a request whose trace is sampled: by who began it, or by `sampling` if it begins here.
pub(crate) fn sampled(request: &Request<'_>, request_id: &[u8], sampling: Sampling) -> Option<Ids> {
    let span = number_of(request_id).to_be_bytes();
    match parent(request) {
        Some(parent) => {
            // The lowest bit of the last digit (W3C trace context, 3.2.2.5.1).
            let is_sampled = parent.flags.last().is_some_and(|digit| digit_of(*digit) & 1 == 1);
            is_sampled.then(|| Ids {
                trace: bytes(parent.id),
                span,
                parent: Some(bytes(parent.span)),
            })
        }
        None => sampling.takes(request_id).then(|| Ids {
            trace: bytes(&begun(request_id)),
            span,
            parent: None,
        }),
    }
}

fn digit_of(digit: u8) -> u8 {
    (digit & 15) + if digit > b'9' { 9 } else { 0 }
}

/// Lower-case hex as bytes.
fn bytes<const N: usize>(hex: &[u8]) -> [u8; N] {
    std::array::from_fn(|at| match hex.get(2 * at..2 * at + 2) {
        Some([high, low]) => digit_of(*high) << 4 | digit_of(*low),
        _ => 0,
    })
}

fn number_of(request_id: &[u8]) -> u64 {
    request_id
        .iter()
        .fold(0, |number, digit| number << 4 | u64::from(digit_of(*digit)))
}

/// SplitMix64's last steps.
fn stirred(number: u64) -> u64 {
    let mut mixed = number ^ 0x9e37_79b9_7f4a_7c15;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 31)
}

/// The id of a trace that begins with a request: as unique as the request's.
fn begun(request_id: &[u8]) -> [u8; ID] {
    // The other half is the same number stirred, so that neither half is constant.
    let mut id = [b'0'; ID];
    id[..16].copy_from_slice(&hex(stirred(number_of(request_id))));
    for (into, digit) in id[16..].iter_mut().zip(request_id) {
        *into = *digit;
    }
    id
}

/// Writes the fields of the forwarded request.
pub(crate) fn put(
    sink: &mut impl FieldSink,
    request: &Request<'_>,
    request_id: &[u8],
    sampling: Option<Sampling>,
) {
    let mut value = *b"00-00000000000000000000000000000000-0000000000000000-01";
    let parent = parent(request);
    if let Some(parent) = &parent {
        value[3..35].copy_from_slice(parent.id);
        value[53..55].copy_from_slice(parent.flags);
    } else {
        value[3..35].copy_from_slice(&begun(request_id));
        if sampling.is_some_and(|sampling| !sampling.takes(request_id)) {
            value[54] = b'0';
        }
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

    #[test]
    fn a_share_is_sampled_and_the_same_request_always_has_the_same_answer() {
        let ids: Vec<[u8; 16]> = (0..20_000_u64)
            .map(|number| hex(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
            .collect();
        let count = |share| {
            let sampling = Sampling::per_million(share);
            ids.iter().filter(|id| sampling.takes(*id)).count()
        };
        assert_eq!((count(0), count(1_000_000)), (0, 20_000));
        assert!((1_800..2_200).contains(&count(100_000)), "{}", count(100_000));
        assert_eq!(count(100_000), count(100_000));
    }

    #[test]
    fn hex_is_bytes() {
        assert_eq!(bytes::<4>(b"00ff1a9c"), [0, 255, 0x1a, 0x9c]);
        assert_eq!(number_of(b"00000000000000ff"), 255);
    }
}
