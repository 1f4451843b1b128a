//! File names and lengths.

use super::{Finding, Source};

/// Lines of code that is not a test.
const MAX_LINES: usize = 500;
/// Folders whose files may be as long as their tables need.
const EXEMPT: [&str; 3] = ["tests", "benches", "fuzz"];

/// No `mod.rs`, and no file that holds more than one thing.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let name = source.path.rsplit('/').next().unwrap_or_default();
    if !source.is_rust() {
        return findings;
    }
    if name == "mod.rs" {
        findings.push(source.finding(1, "is a mod.rs: name the file after its module"));
    }
    let exempt = name == "tests.rs" || source.path.split('/').any(|folder| EXEMPT.contains(&folder));
    let lines = length(&source.text);
    if !exempt && lines > MAX_LINES {
        findings.push(source.finding(
            MAX_LINES + 1,
            format!("has {lines} lines before its tests, over {MAX_LINES}"),
        ));
    }
    findings
}

/// Lines before the unit tests, which come last.
fn length(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests {"));
    tests.unwrap_or(lines.len())
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    #[test]
    fn mod_rs_is_found() {
        assert_eq!(check(&source("a/mod.rs", "")).len(), 1);
        assert!(check(&source("a/model.rs", "")).is_empty());
    }

    #[test]
    fn a_long_file_is_found_unless_its_tests_make_it_long() {
        let code = "let x = 1;\n".repeat(MAX_LINES);
        assert!(check(&source("a/src/b.rs", &code)).is_empty());
        let longer = format!("{code}let y = 1;\n");
        assert_eq!(check(&source("a/src/b.rs", &longer)).len(), 1);
        assert!(check(&source("tests/tests/b.rs", &longer)).is_empty());
        assert!(check(&source("a/src/b/tests.rs", &longer)).is_empty());
        let tested = format!("{code}#[cfg(test)]\nmod tests {{\n{code}}}\n");
        assert!(check(&source("a/src/b.rs", &tested)).is_empty());
    }
}
