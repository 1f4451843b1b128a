//! Words that mean "not finished", and lint exceptions without a reason.
//!
//! The words are put together from halves here, so that this file does not find itself.

use super::{Finding, Source};

/// Reminders; found as whole words only.
const REMINDERS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
/// Code that must not stay, and what to do instead.
const CODE: [(&str, &str); 4] = [
    (concat!("dbg", "!("), "is for debugging: remove it"),
    (
        concat!("#[", "ignore"),
        "hides a test: skip aloud at run time, or remove it",
    ),
    (concat!("#[", "allow("), "use #[expect(…, reason = \"…\")]"),
    (concat!("#![", "allow("), "use #![expect(…, reason = \"…\")]"),
];

/// Looks at every line.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in source.lines() {
        for word in REMINDERS {
            if has_word(line, word) {
                findings.push(source.finding(number, format!("{word}: finish it, or open an issue")));
            }
        }
        for (code, advice) in CODE {
            if line.contains(code) {
                findings.push(source.finding(number, format!("{code}: {advice}")));
            }
        }
    }
    findings
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .any(|found| found == word)
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    #[test]
    fn each_word_is_found_with_its_line() {
        for word in REMINDERS {
            let findings = check(&source("a.rs", &format!("fn f() {{}}\n// {word}: later\n")));
            assert_eq!(findings.len(), 1, "{word}");
            assert_eq!(findings[0].line, 2);
        }
        for (code, _) in CODE {
            assert_eq!(
                check(&source("a.rs", &format!("    {code}x)]\n"))).len(),
                1,
                "{code}"
            );
        }
    }

    #[test]
    fn longer_words_and_expectations_are_not() {
        let text = format!(
            "let {0}S = 1;\n#[expect(dead_code, reason = \"x\")]\n#[allow_x]\n",
            REMINDERS[0]
        );
        assert!(check(&source("a.rs", &text)).is_empty());
    }
}
