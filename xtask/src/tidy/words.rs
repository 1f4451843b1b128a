//! Words that mean "not finished", and lint exceptions without a reason.
//!
//! The words are put together from halves here, so that this file does not find itself.

use super::{Finding, Source};

/// Reminders; found as whole words only.
const REMINDERS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
/// Code that must not stay, and why.
const CODE: [(&str, &str); 2] = [
    (concat!("dbg", "!("), "is for debugging: remove it"),
    (
        concat!("#[", "ignore"),
        "hides a test: skip aloud at run time, or remove it",
    ),
];
/// Lint exceptions, of an item and of a file.
const EXCEPTIONS: [&str; 2] = [concat!("#[", "allow("), concat!("#![", "allow(")];
/// The most lines that an attribute is looked for its reason.
const ATTRIBUTE_LINES: usize = 20;

/// Looks at every line.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in source.lines() {
        for word in REMINDERS {
            if has_word(line, word) {
                findings.push(source.finding(number, format!("{word}: finish it, or open an issue")));
            }
        }
        for (code, why) in CODE {
            if line.contains(code) {
                findings.push(source.finding(number, format!("{code}: {why}")));
            }
        }
        for exception in EXCEPTIONS {
            if line.contains(exception) && !has_reason(source, number) {
                let what = format!("{exception}: use expect, or where that cannot be, say the reason");
                findings.push(source.finding(number, what));
            }
        }
    }
    findings
}

/// Whether the attribute that begins at a line gives a reason before it ends.
fn has_reason(source: &Source, number: usize) -> bool {
    for (_, line) in source.lines().skip(number - 1).take(ATTRIBUTE_LINES) {
        if line.contains("reason = ") {
            return true;
        }
        if line.contains(")]") {
            return false;
        }
    }
    false
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
        for code in CODE.map(|(code, _)| code).into_iter().chain(EXCEPTIONS) {
            assert_eq!(
                check(&source("a.rs", &format!("    {code}x)]\n"))).len(),
                1,
                "{code}"
            );
        }
    }

    #[test]
    fn an_exception_without_a_reason_is_found_over_several_lines() {
        let attribute = |rest: &str| {
            format!(
                "{}\n    dead_code,\n{rest})]\nfn f() {{}} // reason = 1\n",
                EXCEPTIONS[1]
            )
        };
        assert_eq!(check(&source("a.rs", &attribute(""))).len(), 1);
        assert!(check(&source("a.rs", &attribute("    reason = \"shared\"\n"))).is_empty());
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
