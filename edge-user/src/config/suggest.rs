//! Guesses what a misspelt word was meant to be.

/// Similarity (Jaro-Winkler) above which a word is worth suggesting.
const SIMILAR: f64 = 0.82;

/// The known word most like `word`, if any is like it enough.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // A word far longer than any key is not a typing mistake, and comparing it costs its square.
    if word.len() > 64 {
        return None;
    }
    let word = word.to_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|known| (strsim::jaro_winkler(&word, known), known))
        .filter(|(similarity, _)| *similarity > SIMILAR)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_is_near_and_nothing_else() {
        let known = ["listener", "upstream", "route", "provider", "shield"];
        let rows = [
            ("lisener", Some("listener")),
            ("listeners", Some("listener")),
            ("Route", Some("route")),
            ("upstraem", Some("upstream")),
            ("zebra", None),
            ("", None),
        ];
        for (word, expected) in rows {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
        assert_eq!(nearest(&"listener".repeat(100), known), None);
    }
}
