//! Query parameters: finding one by its decoded name, and taking it out.
//!
//! Names and values are percent-decoded before they are compared, because whoever reads the query behind the gateway
//! will decode them too: `%74oken=…` is the parameter `token`.

use std::borrow::Cow;

/// Decoded values of every parameter of this name.
pub fn values<'a>(query: &'a [u8], name: &str) -> impl Iterator<Item = Cow<'a, [u8]>> {
    query
        .split(|byte| *byte == b'&')
        .filter_map(move |pair| value_of(pair, name.as_bytes()))
}

/// A query without the parameters of this name; every other parameter keeps its bytes.
pub fn without_parameter(query: &[u8], name: &str) -> Vec<u8> {
    let others = query
        .split(|byte| *byte == b'&')
        .filter(|pair| value_of(pair, name.as_bytes()).is_none());
    others.collect::<Vec<_>>().join(&b'&')
}

fn value_of<'a>(pair: &'a [u8], name: &[u8]) -> Option<Cow<'a, [u8]>> {
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    (decode(&pair[..equals]).as_ref() == name).then(|| decode(&pair[equals + 1..]))
}

/// Percent-decoding, with `+` as a space as in forms; a `%` without two hex digits stays.
fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match (first, after) {
            (b'%', [high, low, tail @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    decoded.push(high << 4 | low);
                    rest = tail;
                }
                _ => decoded.push(b'%'),
            },
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(*byte),
        }
    }
    Cow::Owned(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_decoded() {
        let rows: [(&str, &[&str]); 8] = [
            ("t=a", &["a"]),
            ("x=1&t=a&t=b", &["a", "b"]),
            ("%74=a%2Eb", &["a.b"]),
            ("T=a&tt=b&t", &[]),
            ("t=%zz%4", &["%zz%4"]),
            ("t=a+b", &["a b"]),
            ("t=", &[""]),
            ("", &[]),
        ];
        for (query, expected) in rows {
            let found: Vec<_> = values(query.as_bytes(), "t")
                .map(|v| String::from_utf8_lossy(&v).into_owned())
                .collect();
            assert_eq!(found, expected, "{query}");
        }
    }

    #[test]
    fn removal_keeps_every_other_byte() {
        let rows = [
            ("t=a", ""),
            ("t=a&x=%74", "x=%74"),
            ("x=1&t=a&y=2", "x=1&y=2"),
            ("x=1&&%74=a&&y", "x=1&&&y"),
            ("x=1", "x=1"),
        ];
        for (query, expected) in rows {
            assert_eq!(
                String::from_utf8_lossy(&without_parameter(query.as_bytes(), "t")),
                expected,
                "{query}"
            );
        }
    }
}
