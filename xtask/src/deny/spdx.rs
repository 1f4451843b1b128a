//! Licence expressions (SPDX 2.3, annex D): whether a set of licences is enough for one.
//!
//! `AND` binds closer than `OR`; the old `MIT/Apache-2.0` of early crates means `OR`.

/// Deeper nesting is not a licence.
const MAX_DEPTH: u32 = 16;

/// Whether the licences of `allowed` satisfy an expression.
///
/// # Errors
/// Says what about the expression is not understood.
pub(super) fn satisfied(expression: &str, allowed: &[String]) -> Result<bool, String> {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser {
        words: &words,
        allowed,
    };
    let result = parser.any(MAX_DEPTH)?;
    match parser.words {
        [] => Ok(result),
        [word, ..] => Err(format!("unexpected {word:?}")),
    }
}

struct Parser<'a> {
    words: &'a [&'a str],
    allowed: &'a [String],
}

impl<'a> Parser<'a> {
    fn any(&mut self, depth: u32) -> Result<bool, String> {
        let mut result = self.all(depth)?;
        while self.take("OR") {
            result |= self.all(depth)?;
        }
        Ok(result)
    }

    fn all(&mut self, depth: u32) -> Result<bool, String> {
        let mut result = self.one(depth)?;
        while self.take("AND") {
            result &= self.one(depth)?;
        }
        Ok(result)
    }

    fn one(&mut self, depth: u32) -> Result<bool, String> {
        let depth = depth.checked_sub(1).ok_or("nested too deeply")?;
        if self.take("(") {
            let result = self.any(depth)?;
            return if self.take(")") {
                Ok(result)
            } else {
                Err("a parenthesis is not closed".to_owned())
            };
        }
        let licence = self.licence()?.to_owned();
        let full = if self.take("WITH") {
            format!("{licence} WITH {}", self.licence()?)
        } else {
            licence
        };
        Ok(self.allowed.contains(&full))
    }

    fn licence(&mut self) -> Result<&'a str, String> {
        match *self.words {
            [word, ..] if ["AND", "OR", "WITH", "(", ")"].contains(&word) => {
                Err(format!("unexpected {word:?}"))
            }
            [word, ref rest @ ..] => {
                self.words = rest;
                Ok(word)
            }
            [] => Err("it ends too early".to_owned()),
        }
    }

    fn take(&mut self, wanted: &str) -> bool {
        match self.words {
            [word, rest @ ..] if *word == wanted => {
                self.words = rest;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_mit_and_isc(expression: &str) -> Result<bool, String> {
        satisfied(
            expression,
            &["MIT".to_owned(), "ISC".to_owned(), "A WITH E".to_owned()],
        )
    }

    #[test]
    fn expressions_are_judged() {
        for (expression, expected) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("GPL-3.0/MIT", true),
            ("GPL-3.0 AND MIT", false),
            ("MIT AND ISC", true),
            ("MIT OR GPL-3.0 AND BSD", true),
            ("(MIT OR GPL-3.0) AND GPL-3.0", false),
            ("(MIT OR GPL-3.0) AND (ISC)", true),
            ("A", false),
            ("A WITH E", true),
            ("MIT WITH E", false),
        ] {
            assert_eq!(with_mit_and_isc(expression), Ok(expected), "{expression}");
        }
    }

    #[test]
    fn nonsense_is_an_error_and_never_allowed() {
        for expression in [
            "", "MIT OR", "(MIT", "MIT)", "MIT ISC", "OR MIT", "MIT WITH", "()",
        ] {
            assert!(with_mit_and_isc(expression).is_err(), "{expression}");
        }
        assert!(with_mit_and_isc(&format!("{}MIT{}", "(".repeat(99), ")".repeat(99))).is_err());
    }
}
