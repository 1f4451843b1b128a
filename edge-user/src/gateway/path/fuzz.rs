//! What must hold for the normaliser on any bytes, as a function that panics where it does not: for fuzzing and for
//! property tests.
//!
//! Beside the invariants it has a second normaliser, made from the table of [`super`] in another way: it decodes whole
//! segments first and spells them anew, where the first goes byte by byte.

use std::fmt::Write;

use super::{PathFault, Rules, normalise_by};

/// Checks one input by every combination of rules.
///
/// # Panics
/// Something does not hold.
pub fn check(raw: &[u8]) {
    for bits in 0..8_u8 {
        check_by(
            raw,
            Rules {
                resolve_dots: bits & 1 != 0,
                merge_slashes: bits & 2 != 0,
                keep_encoded_slashes: bits & 4 != 0,
            },
        );
    }
}

fn check_by(raw: &[u8], rules: Rules) {
    let once = normalise_by(raw, rules);
    let second = again(raw, rules);
    assert_eq!(
        once.as_deref().ok(),
        second.as_deref(),
        "the two normalisers differ on {:?} by {rules:?}: {once:?}",
        raw.escape_ascii().to_string()
    );
    let Ok(once) = once else { return };
    assert!(once.starts_with('/') && once.len() <= raw.len() * 3);
    assert!(
        once.bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"\\#?\"<>`".contains(&byte))
    );
    assert_eq!(
        normalise_by(once.as_bytes(), rules).as_deref(),
        Ok(&*once),
        "not idempotent"
    );
    // What may be refused is refused by the strict rules, or is not there any more.
    let strict = normalise_by(once.as_bytes(), Rules::default());
    let has_slash = once.contains(super::ENCODED_SLASH);
    assert_eq!(
        strict.as_deref(),
        if has_slash {
            Err(&PathFault::Separator)
        } else {
            Ok(&*once)
        }
    );
    // However often an upstream decodes separators and dots, it finds the segments that were matched.
    let mut seen = once.replace("%2E", ".").replace("%2F", "/");
    seen.push('/');
    assert!(
        !seen.contains("/../") && !seen.contains("/./") && !seen.contains("/..;") && !seen.contains("/.;")
    );
    assert!(!once.contains("//"));
    // What the serialised output decodes to is text.
    assert!(std::str::from_utf8(&super::decoded(&once)).is_ok());
}

/// The second normaliser: the path, if it has one reading.
fn again(raw: &[u8], rules: Rules) -> Option<String> {
    let rest = raw.strip_prefix(b"/")?;
    let mut stack: Vec<Vec<u8>> = Vec::new();
    let parts: Vec<&[u8]> = rest.split(|byte| *byte == b'/').collect();
    for (at, part) in parts.iter().enumerate() {
        let is_last = at + 1 == parts.len();
        let text = segment(part, rules)?;
        match text.as_slice() {
            b"" if !is_last => {
                if !rules.merge_slashes {
                    // Before anything else is resolved: `/a//..` has no reading either.
                    return None;
                }
                continue;
            }
            b"." | b".." if !rules.resolve_dots => return None,
            b"." => {}
            b".." => {
                let parent = stack.pop()?;
                if parent.contains(&b'/') {
                    return None;
                }
            }
            _ => {
                let before: Vec<&[u8]> = text.split(|byte| *byte == b'/').collect();
                let spoils = |piece: &&[u8]| {
                    let name = piece.split(|byte| *byte == b';').next().unwrap_or_default();
                    name == b"." || name == b".."
                };
                let has_hole = before.len() > 1
                    && (before.iter().rev().skip(1).any(|piece| piece.is_empty())
                        || !is_last && before.last().is_some_and(|piece| piece.is_empty()));
                if before.iter().any(spoils) || has_hole {
                    return None;
                }
                stack.push(text);
                continue;
            }
        }
        if is_last {
            stack.push(Vec::new());
        }
    }
    let spelled = stack.iter().fold(String::new(), |mut path, text| {
        path.push('/');
        for byte in text {
            spell(*byte, &mut path);
        }
        path
    });
    Some(if spelled.is_empty() {
        "/".to_owned()
    } else {
        spelled
    })
}

/// A segment without its encoding, if all of it may stand in a path. A slash in it was an encoded one; a percent sign
/// that was sent as `%25` and what cannot be told apart otherwise is told apart by [`spell`].
fn segment(part: &[u8], rules: Rules) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut at = 0;
    while let Some(&byte) = part.get(at) {
        if byte == b'%' {
            let digits = std::str::from_utf8(part.get(at + 1..at + 3)?).ok()?;
            if digits.starts_with('+') {
                return None;
            }
            let byte = u8::from_str_radix(digits, 16).ok()?;
            if byte == MARK {
                return None;
            }
            let is_slash = byte == b'/';
            if byte < 0x20 || byte == 0x7f || byte == b'\\' || is_slash && !rules.keep_encoded_slashes {
                return None;
            }
            // Reserved characters mean something else encoded than plain.
            if b"!$&'()*+,;=:@".contains(&byte) {
                text.push(MARK);
            }
            text.push(byte);
            at += 3;
        } else {
            if !byte.is_ascii_graphic() || b"\\#?\"<>`".contains(&byte) {
                return None;
            }
            text.push(byte);
            at += 1;
        }
    }
    let unmarked: Vec<u8> = text.iter().copied().filter(|byte| *byte != MARK).collect();
    std::str::from_utf8(&unmarked).ok()?;
    Some(text)
}

/// Stands before a reserved character that was encoded; never part of UTF-8, and refused where it was sent.
const MARK: u8 = 0xff;

fn spell(byte: u8, path: &mut String) {
    let is_plain = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte);
    if byte == MARK {
        path.push('\u{1}');
    } else if is_plain && path.ends_with('\u{1}') {
        path.pop();
        encode(byte, path);
    } else if is_plain {
        path.push(char::from(byte));
    } else {
        encode(byte, path);
    }
}

fn encode(byte: u8, path: &mut String) {
    // Writing to memory does not fail.
    let _ = write!(path, "%{byte:02X}");
}
