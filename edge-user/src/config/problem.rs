//! What is wrong with a configuration: collected, located, shown.
//!
//! A [`Finding`] is noted while reading, by byte offsets; a [`Problem`] is the same with file, line, column and
//! the source line, free of the text it came from. Values that may be secrets never get into either: messages
//! are written without them and [`snippet`](super::snippet) blanks the source line.

use std::{fmt, ops::Range};

use serde::Serialize;

use super::{
    snippet::Snippet,
    source::{Position, Source},
};

/// Most problems told in one go; the rest is counted.
pub const MAX_PROBLEMS: usize = 100;

/// Whether a problem stops the configuration from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It does.
    Error,
    /// It does not, but somebody should look.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One thing wrong with a configuration. `Display` shows it with its source line, in several lines;
/// [`Problem::one_line`] is for logs; it serialises to one flat object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The file, as it was named.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Path of the key, as in `route[2].auth`; empty for the file as a whole.
    pub key: String,
    /// What is wrong, in one line.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    #[serde(skip)]
    snippet: Snippet,
}

impl Problem {
    /// `file:line:column: error: key: message`.
    pub fn one_line(&self) -> impl fmt::Display {
        let Self {
            severity,
            file,
            line,
            column,
            key,
            message,
            ..
        } = self;
        let separator = if key.is_empty() { "" } else { ": " };
        format!("{file}:{line}:{column}: {severity}: {key}{separator}{message}")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gutter = self.line.to_string().len();
        writeln!(f, "{}: {}", self.severity, self.message)?;
        write!(f, "{:gutter$}--> {}:{}:{}", "", self.file, self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, " ({})", self.key)?;
        }
        write!(f, "\n{:gutter$} |\n{} | {}\n", "", self.line, self.snippet.text)?;
        write!(
            f,
            "{:gutter$} | {:indent$}{}",
            "",
            "",
            self.snippet.carets(),
            indent = self.snippet.indent
        )?;
        if let Some(help) = &self.help {
            write!(f, "\n{:gutter$} = help: {help}", "")?;
        }
        Ok(())
    }
}

/// Where a key or section stands: its bytes and its path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Place {
    pub(super) span: Range<usize>,
    pub(super) key: String,
}

impl Place {
    /// The key itself, quoted, to begin a sentence with.
    pub(super) fn subject(&self) -> String {
        let key = self
            .key
            .rsplit_once('.')
            .map_or(self.key.as_str(), |(_, key)| key);
        format!("`{key}`")
    }
}

/// A place in a file that the configuration names.
#[derive(Debug)]
pub(super) struct Elsewhere {
    file: String,
    position: Position,
    snippet: Snippet,
}

impl Elsewhere {
    /// Where `span` lies in `source`, the text of `file`. The line is only shown if `is_fit`.
    pub(super) fn new(file: &str, source: &Source<'_>, span: &Range<usize>, is_fit: bool) -> Self {
        let snippet = Snippet::cut(source, span);
        Self {
            file: escape(file),
            position: source.position(span.start),
            snippet: if is_fit { snippet } else { snippet.blanked() },
        }
    }
}

/// A problem before it is located.
#[derive(Debug)]
#[must_use]
pub(super) struct Finding {
    severity: Severity,
    place: Place,
    message: String,
    help: Option<String>,
    elsewhere: Option<Box<Elsewhere>>,
}

impl Finding {
    pub(super) fn error(place: Place, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            place,
            message: message.into(),
            help: None,
            elsewhere: None,
        }
    }

    pub(super) fn warning(place: Place, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(place, message)
        }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Shows it in the file that the key names instead of at the key.
    pub(super) fn within(mut self, elsewhere: Elsewhere) -> Self {
        self.elsewhere = Some(Box::new(elsewhere));
        self
    }

    pub(super) fn offset(&self) -> usize {
        self.place.span.start
    }

    pub(super) fn locate(self, file: &str, source: &Source<'_>) -> Problem {
        let (file, position, snippet) = match self.elsewhere {
            Some(elsewhere) => (elsewhere.file, elsewhere.position, elsewhere.snippet),
            None => (
                file.to_owned(),
                source.position(self.place.span.start),
                Snippet::cut(source, &self.place.span),
            ),
        };
        Problem {
            severity: self.severity,
            file,
            line: position.line,
            column: position.column,
            key: escape(&self.place.key),
            message: escape(&self.message),
            help: self.help.as_deref().map(escape),
            snippet,
        }
    }

    /// Problems stand in the configuration's order, those of a file it names in that file's.
    fn order(&self) -> (usize, usize, usize) {
        let line = self
            .elsewhere
            .as_ref()
            .map_or(0, |elsewhere| elsewhere.position.line);
        (self.place.span.start, self.place.span.end, line)
    }
}

/// Names and paths come from the file: nothing in them may move a terminal's cursor or start a log line.
pub(super) fn escape(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    text.chars()
        .fold(String::with_capacity(text.len()), |mut out, c| {
            if c.is_control() {
                out.extend(c.escape_default());
            } else {
                out.push(c);
            }
            out
        })
}

/// The collector. Holds at most [`MAX_PROBLEMS`] of each severity and counts the others.
#[derive(Debug, Default)]
pub(super) struct Findings {
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
    omitted: usize,
}

impl Findings {
    pub(super) fn push(&mut self, finding: Finding) {
        let list = match finding.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        if list.len() < MAX_PROBLEMS {
            list.push(finding);
        } else if finding.severity == Severity::Error {
            self.omitted += 1;
        }
    }

    /// Counts errors that were not even built.
    pub(super) fn omit(&mut self, errors: usize) {
        self.omitted += errors;
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Finding) -> bool) {
        self.errors.retain(&mut keep);
        self.warnings.retain(keep);
    }

    /// Whether an error was found inside `span`.
    pub(super) fn reported_within(&self, span: &Range<usize>) -> bool {
        let inside = |at: &Range<usize>| span.start <= at.start && at.end <= span.end;
        self.errors.iter().any(|error| inside(&error.place.span))
    }

    pub(super) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Errors, warnings (each in the file's order) and the number of errors left out.
    pub(super) fn locate(self, file: &str, source: &Source<'_>) -> (Vec<Problem>, Vec<Problem>, usize) {
        let locate = |mut list: Vec<Finding>| {
            list.sort_by_key(Finding::order);
            list.into_iter()
                .map(|finding| finding.locate(file, source))
                .collect::<Vec<_>>()
        };
        (locate(self.errors), locate(self.warnings), self.omitted)
    }
}
