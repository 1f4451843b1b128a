//! String literals of Rust sources, with the code before each.
//!
//! Knows as much of the language as it takes to tell strings from comments, characters and lifetimes.

/// A string literal, as the program sees it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Literal {
    /// Where it begins, from 1.
    pub(super) line: usize,
    /// The code of its statement before it, without blanks, comments and other strings.
    pub(super) before: String,
    pub(super) text: String,
}

/// Every string literal before the unit tests of a file.
pub(super) fn of(source: &str) -> Vec<Literal> {
    let end = source.find("#[cfg(test)]\nmod tests {").unwrap_or(source.len());
    let chars: Vec<char> = source[..end].chars().collect();
    let mut reader = Reader {
        chars: &chars,
        at: 0,
        line: 1,
    };
    let mut found = Vec::new();
    let mut before = String::new();
    while let Some(c) = reader.next() {
        match c {
            '/' if reader.peek() == Some('/') => reader.skip_past("\n"),
            '/' if reader.peek() == Some('*') => reader.skip_past("*/"),
            '\'' => reader.skip_char(),
            '"' => {
                let line = reader.line;
                let text = if is_raw(&before) {
                    reader.raw(before.chars().rev().take_while(|c| *c == '#').count())
                } else {
                    reader.string()
                };
                found.push(Literal {
                    line,
                    before: before.clone(),
                    text,
                });
            }
            ';' | '{' | '}' => before.clear(),
            c if c.is_whitespace() => {}
            c => before.push(c),
        }
    }
    found
}

fn is_raw(before: &str) -> bool {
    let bare = before.trim_end_matches('#');
    // `for` and other words that end in r are followed by a blank, which is gone here: no string follows them.
    bare.ends_with('r')
}

struct Reader<'c> {
    chars: &'c [char],
    at: usize,
    line: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn skip_past(&mut self, end: &str) {
        let end: Vec<char> = end.chars().collect();
        while self.at < self.chars.len() && !self.chars[self.at..].starts_with(&end) {
            self.next();
        }
        for _ in &end {
            self.next();
        }
    }

    /// What follows a quote: a character, or the name of a lifetime, which is left alone.
    fn skip_char(&mut self) {
        if self.peek() == Some('\\') {
            self.next();
            self.next();
            self.skip_past("'");
        } else if self.chars.get(self.at + 1) == Some(&'\'') {
            self.next();
            self.next();
        }
    }

    fn string(&mut self) -> String {
        let mut text = String::new();
        while let Some(c) = self.next() {
            match c {
                '"' => break,
                '\\' => match self.next() {
                    Some('\n') => {
                        while self.peek().is_some_and(char::is_whitespace) {
                            self.next();
                        }
                    }
                    Some('n') => text.push('\n'),
                    Some(other) => text.push(other),
                    None => break,
                },
                c => text.push(c),
            }
        }
        text
    }

    fn raw(&mut self, hashes: usize) -> String {
        let end: Vec<char> = std::iter::once('"')
            .chain(std::iter::repeat_n('#', hashes))
            .collect();
        let start = self.at;
        while self.at < self.chars.len() && !self.chars[self.at..].starts_with(&end) {
            self.next();
        }
        let text = self.chars[start..self.at].iter().collect();
        for _ in &end {
            self.next();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_told_from_what_looks_like_them() {
        let source = "// \"no\"\nfn f<'a>(c: char) { g('\"', '\\'', \"a \\\"b\\\" \\\n    c\"); /* \"no\" */ h(r#\"d \"e\" \"#) }\n\
                      #[error(\"f\\n  g\")]\n#[cfg(test)]\nmod tests {\n\"no\"\n";
        let found: Vec<(usize, String, String)> = of(source)
            .into_iter()
            .map(|literal| (literal.line, literal.before, literal.text))
            .collect();
        let row = |line, before: &str, text: &str| (line, before.to_owned(), text.to_owned());
        assert_eq!(
            found,
            [
                row(2, "g(,,", "a \"b\" c"),
                row(3, "h(r#", "d \"e\" "),
                row(4, "#[error(", "f\n  g"),
            ]
        );
    }
}
