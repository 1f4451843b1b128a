//! Messages in the documentation: each is one that the program has, and each that the program ends or warns with is there.
//!
//! Tables whose first column is headed `message` list them; `…` stands for what differs from time to time. They stand
//! there whole, so that whoever looks for a part of one finds it.

use super::{Finding, Source, literals};

/// Without this page nothing has to be found.
const PAGE: &str = "docs/troubleshooting.md";
/// Whose messages.
const PROGRAM: &str = "edge-user/src/";
/// What clients and upstreams did wrong. It is told by its reason, which has a table of its own.
const TOLD_BY_REASON: [&str; 10] = [
    "auth/refusal",
    "gateway/frame_guard",
    "gateway/gate",
    "gateway/h1_codec",
    "gateway/hyper_codec",
    "gateway/path",
    "gateway/proxy_protocol",
    "upstream/check",
    "upstream/connect",
    "upstream/resolve",
];
/// Calls that tell what is wrong with a configuration.
const OF_CONFIGURATIONS: [&str; 6] = [
    "error(",
    "error_help(",
    "warn(",
    "fault(",
    "Fault::new(",
    "BadText::new(",
];
/// Fewer letters say nothing to look for: `{what}: {source}`.
const FEWEST_LETTERS: usize = 10;

/// Looks at every page of `docs`.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let of_program: Vec<&Source> = sources
        .iter()
        .filter(|source| {
            source.is_rust() && source.path.starts_with(PROGRAM) && !source.path.contains("/tests")
        })
        .collect();
    let said: Vec<Said<'_>> = of_program.iter().flat_map(|source| of(source)).collect();
    let mut findings = Vec::new();
    let mut told = Vec::new();
    for page in sources
        .iter()
        .filter(|source| source.path.starts_with("docs/") && source.has_ending("md"))
    {
        for (number, message) in quoted(page) {
            if !said.iter().any(|said| said.shape == message) {
                findings.push(page.finding(number, format!("the program does not say `{message}`")));
            }
            told.push(message);
        }
    }
    if !sources.iter().any(|source| source.path == PAGE) {
        return findings;
    }
    for Said {
        source, line, shape, ..
    } in said.iter().filter(|said| said.is_wanted)
    {
        if !told.contains(&shape.as_str()) {
            findings.push(source.finding(*line, format!("no page has the message `{shape}`")));
        }
    }
    findings
}

/// A literal of the program.
struct Said<'s> {
    source: &'s Source,
    line: usize,
    shape: String,
    /// Whether a page has to have it.
    is_wanted: bool,
}

fn of(source: &Source) -> Vec<Said<'_>> {
    let file = source.path.trim_start_matches(PROGRAM);
    let mut said = Vec::new();
    let mut last = String::new();
    for literal in literals::of(&source.text) {
        let is_first = last.is_empty() || !literal.before.starts_with(&last);
        let shape = shape(&literal.text);
        let letters = shape.chars().filter(|c| c.is_alphabetic()).count();
        said.push(Said {
            source,
            line: literal.line,
            is_wanted: letters >= FEWEST_LETTERS && is_message(file, &literal.before, is_first),
            shape,
        });
        last = literal.before;
    }
    said
}

/// Whether a literal is what a verb ends with, what is wrong with a configuration, or what the log warns of. What
/// follows the first literal of a call is what to do about it.
fn is_message(file: &str, before: &str, is_first: bool) -> bool {
    let ends = ["#[error(", "CliError::usage(", "CliError::usage(format!("]
        .iter()
        .any(|call| before.ends_with(call));
    let is_wrong =
        is_first && file.starts_with("config/") && OF_CONFIGURATIONS.iter().any(|call| before.contains(call));
    let warns = before.contains("warn!(") || before.contains("error!(");
    ends && !TOLD_BY_REASON.iter().any(|other| file.starts_with(other)) || is_wrong || warns
}

/// The first line of a message, with `…` for each placeholder.
fn shape(text: &str) -> String {
    let first = text.lines().next().unwrap_or_default();
    let mut shape = String::new();
    let mut chars = first.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '{' | '}' if chars.peek() == Some(&c) => {
                chars.next();
                shape.push(c);
            }
            '{' => {
                // A placeholder in a placeholder does not occur.
                chars.by_ref().find(|c| *c == '}');
                shape.push('…');
            }
            c => shape.push(c),
        }
    }
    while shape.contains("……") {
        shape = shape.replace("……", "…");
    }
    shape
}

/// Messages in the first cells of tables, with their lines.
fn quoted(page: &Source) -> Vec<(usize, &str)> {
    let mut within = false;
    let mut found = Vec::new();
    for (number, line) in page.lines() {
        let Some(row) = line.strip_prefix("| ") else {
            within &= line.starts_with('|');
            continue;
        };
        if row.starts_with("message |") {
            within = true;
        } else if within {
            // Two quotes around what has quotes in it.
            let mark = if row.starts_with("``") { "``" } else { "`" };
            let message = row.strip_prefix(mark).and_then(|rest| rest.split_once(mark));
            found.extend(message.map(|(message, _)| (number, message.trim())));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    const CODE: &str = "#[error(\"the table {name:?} is `full`\\n  empty it\")]\nfn f() { warn!(%x, \"no more {}\", y); g(\"quiet\") }\n\
                        fn u() { CliError::usage(format!(\"{} names nothing\", x), \"name it\") }\n#[error(\"{what}: {why}\")]\n";

    fn found(page: &str) -> Vec<String> {
        let sources = [
            source("edge-user/src/kernel/error.rs", CODE),
            source(
                "edge-user/src/gateway/gate/chunk.rs",
                "#[error(\"the size of a chunk\")]\n",
            ),
            source(
                "edge-user/src/config/resolve.rs",
                "fn c() { checks.error_help(at, \"this is of no use at all\", \"leave it out, then\") }\n",
            ),
            source("edge-user/src/cli/tests.rs", "#[error(\"only of a test\")]\n"),
            source(PAGE, page),
        ];
        check(&sources).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_page_with_all_and_nothing_else_is_good() {
        let page = "| message | do |\n|---|---|\n| `` the table … is `full` `` | a |\n| `no more …` (log) | b |\n\
                    | `… names nothing` | c |\n| `this is of no use at all` | c |\n\n| word | is |\n|---|---|\n| `anything` | d |\n";
        // Eight letters are too few to be asked for.
        assert_eq!(found(page), [""; 0]);
    }

    #[test]
    fn what_is_missing_and_what_is_made_up_is_found() {
        let all = found("# Empty\n");
        assert_eq!(all.len(), 3, "{all:#?}");
        assert!(
            all[0].starts_with("edge-user/src/kernel/error.rs:1: ")
                && all[0].contains("the table … is `full`")
        );
        let page = "| message | do |\n|---|---|\n| `the table … is empty` | a |\n";
        let made_up = format!("{PAGE}:3: the program does not say `the table … is empty`");
        assert!(found(page).contains(&made_up));
        // Of a test, and of what is told by its reason.
        for other in ["only of a test", "quiet and more"] {
            let page = format!("| message | do |\n|---|---|\n| `{other}` | a |\n");
            assert_eq!(found(&page).len(), 4, "{other}");
        }
    }
}
