//! The Cookie header (RFC 6265 section 4.2.1): finding one cookie's values, and taking one cookie out.
//!
//! Works on bytes and keeps every byte of the cookies it does not take out.

use memchr::memchr;

/// Values of every cookie of this name in one Cookie field value, surrounding double quotes taken off.
///
/// Names compare byte for byte: `Token` is not `token`.
pub fn values<'a>(field: &'a [u8], name: &str) -> impl Iterator<Item = &'a [u8]> {
    pairs(field)
        .filter_map(move |pair| value_of(pair, name.as_bytes()))
        .map(unquote)
}

/// A Cookie field value without the cookies of this name; empty if nothing else was in it.
///
/// Every other cookie keeps its bytes and its order; with each removed cookie goes one separator.
pub fn without_cookie(field: &[u8], name: &str) -> Vec<u8> {
    let mut kept = Vec::with_capacity(field.len());
    let (mut has_kept, mut has_removed) = (false, false);
    for pair in pairs(field) {
        if value_of(pair, name.as_bytes()).is_some() {
            has_removed = true;
            continue;
        }
        if has_kept {
            kept.push(b';');
        }
        // The space after the separator that went.
        let moves_up = has_removed && !has_kept;
        kept.extend_from_slice(if moves_up { trim_start(pair) } else { pair });
        has_kept = true;
    }
    kept
}

/// The parts between semicolons. Tokens are long and cookies many: this search is most of what a known token costs.
fn pairs(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(field);
    std::iter::from_fn(move || {
        let text = rest?;
        match memchr(b';', text) {
            Some(end) => {
                rest = Some(&text[end + 1..]);
                Some(&text[..end])
            }
            None => rest.take(),
        }
    })
}

fn value_of<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let pair = trim_start(pair);
    let equals = memchr(b'=', pair)?;
    (trim_end(&pair[..equals]) == name).then(|| trim_end(trim_start(&pair[equals + 1..])))
}

fn unquote(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn trim_start(bytes: &[u8]) -> &[u8] {
    let spaces = bytes.iter().take_while(|byte| is_space(**byte)).count();
    &bytes[spaces..]
}

fn trim_end(bytes: &[u8]) -> &[u8] {
    let spaces = bytes.iter().rev().take_while(|byte| is_space(**byte)).count();
    &bytes[..bytes.len() - spaces]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(field: &str, name: &str) -> Vec<String> {
        values(field.as_bytes(), name)
            .map(|value| String::from_utf8_lossy(value).into_owned())
            .collect()
    }

    #[test]
    fn values_by_exact_name() {
        let rows: [(&str, &[&str]); 12] = [
            ("t=a", &["a"]),
            ("x=1; t=a; y=2", &["a"]),
            ("x=1;t=a;y=2", &["a"]),
            ("t=a; t=b", &["a", "b"]),
            ("T=a", &[]),
            ("xt=a; tx=b", &[]),
            ("t=\"a.b.c\"", &["a.b.c"]),
            ("t=\"a", &["\"a"]),
            ("t", &[]),
            ("t=", &[""]),
            ("\tt = a ", &["a"]),
            ("x=t=a", &[]),
        ];
        for (field, expected) in rows {
            assert_eq!(found(field, "t"), expected, "{field}");
        }
    }

    #[test]
    fn removal_keeps_every_other_byte() {
        let rows = [
            ("t=a", ""),
            ("t=a; x=1", "x=1"),
            ("x=1; t=a", "x=1"),
            ("x=1; t=a; y=\"2;z\"", "x=1; y=\"2;z\""),
            ("x=1;t=a;y=2", "x=1;y=2"),
            ("t=a;x=1", "x=1"),
            ("t=a; t=b;  x=1 ", "x=1 "),
            ("x=1", "x=1"),
            (" x=1;  y=\u{e9}; ", " x=1;  y=\u{e9}; "),
            (" x=1; t=a", " x=1"),
            ("x=1; t=a;", "x=1;"),
            ("T=a; xt=b; t", "T=a; xt=b; t"),
            ("", ""),
        ];
        for (field, expected) in rows {
            assert_eq!(
                String::from_utf8_lossy(&without_cookie(field.as_bytes(), "t")),
                expected,
                "{field}"
            );
        }
    }

    proptest! {
        #[test]
        fn removal_takes_one_name_and_nothing_else(
            cookies in prop::collection::vec(("t|T|tt|x|", "[a-z\"=,\u{e9} ]{0,6}", "; |;| ;\t|;;"), 0..8),
        ) {
            let cookies = cookies.iter().map(|(name, value, end)| [name, "=", value, end].concat());
            let field = cookies.collect::<Vec<_>>().concat();
            let rest = without_cookie(field.as_bytes(), "t");
            prop_assert_eq!(values(&rest, "t").count(), 0);
            let others = |field: &[u8]| -> Vec<Vec<u8>> {
                let kept = pairs(field).filter(|pair| value_of(pair, b"t").is_none());
                kept.map(|pair| trim_end(trim_start(pair)).to_vec()).collect()
            };
            prop_assert_eq!(others(&rest), others(field.as_bytes()));
            let count = values(field.as_bytes(), "t").count();
            prop_assert!(count > 0 || rest == field.as_bytes());
        }
    }
}
