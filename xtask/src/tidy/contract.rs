//! Every Rust file opens with a `//!` contract.

use super::{Finding, Source};

/// Looks at the first line that is not a `#!` line of a script.
pub(super) fn check(source: &Source) -> Option<Finding> {
    let first = source.lines().find(|(_, line)| !line.starts_with("#!/"));
    let opens = first.is_some_and(|(_, line)| {
        line.strip_prefix("//!")
            .is_some_and(|text| !text.trim().is_empty())
    });
    (!opens).then(|| source.finding(1, "does not open with a `//!` contract"))
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    #[test]
    fn a_file_without_a_contract_is_found() {
        for text in [
            "",
            "fn main() {}\n",
            "//!\nfn main() {}\n",
            "\n//! Too late.\n",
            "/// Of an item.\nfn f() {}\n",
        ] {
            assert!(check(&source("a.rs", text)).is_some(), "{text:?}");
        }
        assert!(check(&source("a.rs", "//! Owns nothing.\n")).is_none());
    }
}
