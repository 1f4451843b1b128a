//! The source line under a problem, made safe to print.
//!
//! Long lines are cut around the place, tabs become spaces, control characters are dropped, and whatever stands
//! after a key that sounds like a secret, or holds a URL with a user name, is blanked: somebody may have put a secret
//! where it does not belong.

use std::ops::Range;

use super::source::Source;

/// Most characters of a line that are shown.
const MAX_WIDTH: usize = 100;

/// Longest line that is shown at all, in bytes: a list of a million entries may stand in one.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// Characters kept before the place when a long line is cut.
const LEAD: usize = 30;

/// Parts of key names that make a value unfit for printing, unless the key names a file.
const SECRET_WORDS: [&str; 6] = ["secret", "key", "password", "passwd", "token", "credential"];

/// One line with the place marked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Snippet {
    /// The line, or the part of it around the place.
    pub(super) text: String,
    /// Characters before the mark.
    pub(super) indent: usize,
    width: usize,
}

impl Snippet {
    /// Cuts the line that `span` starts in.
    pub(super) fn cut(source: &Source<'_>, span: &Range<usize>) -> Self {
        let (line, _) = source.line(span.start);
        if line.len() > MAX_LINE_BYTES {
            return Self {
                text: format!("(a line of {} bytes)", line.len()),
                ..Self::default()
            };
        }
        let shown: String = blank_secret(line)
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let length = shown.chars().count();
        let indent = (source.position(span.start).column - 1).min(length);
        let width = source.width(span).clamp(1, (length - indent).max(1));
        if length <= MAX_WIDTH {
            return Self {
                text: shown.trim_end().to_owned(),
                indent,
                width,
            };
        }
        let skip = indent.saturating_sub(LEAD);
        let text: String = shown.chars().skip(skip).take(MAX_WIDTH).collect();
        let before = if skip > 0 { "..." } else { "" };
        let after = if skip + MAX_WIDTH < length { "..." } else { "" };
        let indent = indent - skip;
        Self {
            text: format!("{before}{text}{after}"),
            indent: indent + before.len(),
            width: width.min(MAX_WIDTH - indent),
        }
    }

    /// The same with nothing to read: somebody may have named the wrong file, and that may be a secret one.
    pub(super) fn blanked(mut self) -> Self {
        self.text = self.text.chars().map(blank).collect();
        self
    }

    /// The mark, at least one character wide.
    pub(super) fn carets(&self) -> String {
        "^".repeat(self.width.max(1))
    }
}

/// Replaces what follows a `key =` that sounds like a secret; the length stays, so that the mark still fits.
fn blank_secret(line: &str) -> String {
    if line.contains("PRIVATE KEY") {
        return "*".repeat(line.chars().count());
    }
    let Some((name, value)) = line.split_once('=') else {
        return line.to_owned();
    };
    // `{` and `,` start a key inside an inline table: then any of the line's keys may be the secret one.
    let names = line
        .split(['{', ','])
        .filter_map(|part| part.split_once('='))
        .map(|(name, _)| name);
    if !names.chain([name]).any(is_secret_name) && !has_password(line) {
        return line.to_owned();
    }
    // The name of a variable helps; a secret written in its place must not be shown.
    if name.trim().ends_with("_env") && is_variable_name(value.trim().trim_matches(['"', '\''])) {
        return line.to_owned();
    }
    format!("{name}={}", value.chars().map(blank).collect::<String>())
}

fn blank(c: char) -> char {
    if c.is_whitespace() { c } else { '*' }
}

/// Whether a URL of the line has a user name in it, and then perhaps a password.
fn has_password(line: &str) -> bool {
    line.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', '"', '\'']).next().unwrap_or_default();
        authority.contains('@')
    })
}

fn is_secret_name(name: &str) -> bool {
    let name = name.trim().trim_matches(['"', '\'']).to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word)) && !name.ends_with("_file")
}

/// Whether `text` is what variables are called by custom: capitals, digits and `_`. Only then is it shown.
pub(super) fn is_variable_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
        && text
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secret_sounding_keys_are_blanked() {
        let rows = [
            ("secret = \"hunter2\"", "secret = *********"),
            ("  api_key='x'", "  api_key=***"),
            (
                "p = { name = 'a', password = 'b' }",
                "p = * **** * **** ******** * *** *",
            ),
            ("secret_file = \"/etc/s\"", "secret_file = \"/etc/s\""),
            ("secret_env = \"JWT_KEY\"", "secret_env = \"JWT_KEY\""),
            ("secret_env = \"hunter2\"", "secret_env = *********"),
            ("name = \"a\"", "name = \"a\""),
            ("jwks_url = \"https://a/b@c\"", "jwks_url = \"https://a/b@c\""),
            ("url = \"https://u:p@a/b\"", "url = *****************"),
            ("-----BEGIN PRIVATE KEY-----", "***************************"),
        ];
        for (line, expected) in rows {
            assert_eq!(blank_secret(line), expected);
        }
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let line = format!(
            "allow = [{}\"bad\", {}]",
            "\"10.0.0.0/8\", ".repeat(50),
            "\"10.0.0.0/8\", ".repeat(50)
        );
        let at = line.find("\"bad\"").unwrap();
        let snippet = Snippet::cut(&Source::new(&line), &(at..at + 5));
        assert!(snippet.text.chars().count() <= MAX_WIDTH + 6, "{}", snippet.text);
        assert_eq!(&snippet.text[snippet.indent..snippet.indent + 5], "\"bad\"");
        assert_eq!(snippet.carets(), "^^^^^");
    }

    #[test]
    fn endless_lines_are_not_shown() {
        let line = format!("allow = [{}]", "'10.0.0.0/8',".repeat(10_000));
        let snippet = Snippet::cut(&Source::new(&line), &(100..112));
        assert_eq!(
            (snippet.text.as_str(), snippet.carets().as_str()),
            ("(a line of 130010 bytes)", "^")
        );
    }

    #[test]
    fn a_place_past_the_end_still_gets_a_mark() {
        let snippet = Snippet::cut(&Source::new("a = 1\n"), &(6..6));
        assert_eq!(
            (snippet.text.as_str(), snippet.indent, snippet.carets().as_str()),
            ("", 0, "^")
        );
    }
}
