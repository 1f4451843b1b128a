//! The book's list of pages: every page of `docs` is in it, once, and everything in it is there.

use super::{Finding, Source, links};

/// The list.
const LIST: &str = "docs/SUMMARY.md";

/// Looks at the list and at every page of `docs`. That what it links to is there is for [`links`].
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let Some(list) = sources.iter().find(|source| source.path == LIST) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    let mut listed = Vec::new();
    for (number, link) in links::links(&list.text) {
        let Some(path) = links::joined("docs", link) else {
            findings.push(list.finding(number, format!("{link} is outside of the tree")));
            continue;
        };
        if listed.contains(&path) {
            findings.push(list.finding(number, format!("has {path} twice")));
        }
        if !sources.iter().any(|source| source.path == path) {
            findings.push(list.finding(number, format!("has {path}, which is no page")));
        }
        listed.push(path);
    }
    let pages = sources
        .iter()
        .filter(|source| source.path.starts_with("docs/") && source.has_ending("md") && source.path != LIST);
    for page in pages.filter(|page| !listed.contains(&page.path)) {
        findings.push(page.finding(1, format!("is not in {LIST}: nobody who reads the book finds it")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    fn found(list: &str) -> Vec<String> {
        let sources = [
            source("docs/a.md", "# A\n"),
            source("docs/adr/b.md", "# B\n"),
            source("README.md", "# C\n"),
            source(LIST, list),
        ];
        check(&sources).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_list_of_everything_is_good() {
        assert_eq!(
            found("- [A](a.md)\n  - [B](adr/b.md)\n- [C](../README.md)\n"),
            [""; 0]
        );
    }

    #[test]
    fn what_is_missing_twice_or_made_up_is_found() {
        let missing = found("- [A](a.md)\n");
        assert_eq!(missing.len(), 1, "{missing:?}");
        assert!(missing[0].starts_with("docs/adr/b.md:1: "));
        for more in ["- [A](a.md)\n", "- [D](d.md)\n", "- [E](../../e.md)\n"] {
            let found = found(&format!("- [A](a.md)\n- [B](adr/b.md)\n{more}"));
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with("docs/SUMMARY.md:3: "), "{found:?}");
        }
        assert_eq!(check(&[source("docs/a.md", "")]), []);
    }
}
