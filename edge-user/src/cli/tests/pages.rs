//! Every `breakwater …` of the documentation and of the help is a command line that is understood.

use clap::{CommandFactory, error::ErrorKind};

use super::super::Cli;
use crate::documents::{blocks, examples, pages, rows, spans};

/// The commands of a text as a shell reads it: words of each, without quotes, redirections and comments. What
/// is in `$(…)` is a command as well.
fn commands(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let (mut words, mut word, mut open): (Vec<String>, String, bool) = (Vec::new(), String::new(), false);
    let mut quote = None;
    let mut chars = text.chars().peekable();
    let end_word = |word: &mut String, open: &mut bool, words: &mut Vec<String>| {
        if std::mem::take(open) {
            words.push(std::mem::take(word));
        }
    };
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => (quote, open) = (Some(c), true),
            (None, '\\') if chars.peek() == Some(&'\n') => drop(chars.next()),
            (None | Some('"'), '$') if chars.peek() == Some(&'(') => {
                chars.next();
                let inner: String = chars.by_ref().take_while(|c| *c != ')').collect();
                found.extend(commands(&inner));
                (word, open) = (word + "VALUE", true);
            }
            (None, '#') if !open => while chars.next_if(|c| *c != '\n').is_some() {},
            (None, ' ' | '\t') => end_word(&mut word, &mut open, &mut words),
            (None, '\n' | '|' | ';' | '&') => {
                end_word(&mut word, &mut open, &mut words);
                found.push(std::mem::take(&mut words));
            }
            (None, '>' | '<') => {
                end_word(&mut word, &mut open, &mut words);
                while chars.next_if(|c| *c == ' ' || *c == '>').is_some() {}
                while chars.next_if(|c| !c.is_whitespace()).is_some() {}
            }
            (_, c) => (word, open) = (word + c.encode_utf8(&mut [0; 4]), true),
        }
    }
    end_word(&mut word, &mut open, &mut words);
    found.push(words);
    found.retain(|words| !words.is_empty());
    found
}

/// What stands behind a prompt; the line itself if it has none and is no output.
fn line_of(line: &str) -> &str {
    line.strip_prefix("# ")
        .or_else(|| line.strip_prefix("$ "))
        .filter(|rest| rest.starts_with("breakwater ") || rest.contains("| breakwater "))
        .unwrap_or(line)
}

/// The words of each `breakwater` in a text, with an address for `ADDRESS`. Other placeholders are as good as a value.
fn of_breakwater(text: &str) -> Vec<Vec<String>> {
    let lines: String = text
        .lines()
        .flat_map(|line| [line_of(line.trim_start()), "\n"])
        .collect();
    let is_ours = |words: &Vec<String>| words[0] == "breakwater" || words[0].ends_with("/breakwater");
    let mut found: Vec<_> = commands(&lines).into_iter().filter(is_ours).collect();
    for word in found.iter_mut().flatten().filter(|word| *word == "ADDRESS") {
        "192.0.2.7".clone_into(word);
    }
    found
}

/// What is wrong with a command line.
fn refused(words: &[String]) -> Option<clap::Error> {
    let error = Cli::command().try_get_matches_from(words).err()?;
    let shows = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    (!shows).then_some(error)
}

#[test]
fn every_command_line_in_a_block_is_understood() {
    let mut seen = 0;
    for page in pages() {
        for block in blocks(&page.text) {
            for words in of_breakwater(&block.text) {
                if let Some(why) = refused(&words) {
                    panic!("{}:{}: {words:?}: {why}", page.path, block.line);
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 30, "{seen}");
}

/// Prose may leave out what a verb wants beside its name; one with a `…` leaves out something else.
#[test]
fn every_command_line_in_prose_is_understood() {
    const LEFT_OUT: [ErrorKind; 2] = [
        ErrorKind::MissingRequiredArgument,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
    ];
    let mut seen = 0;
    for page in pages() {
        for line in page.text.lines() {
            let lines = spans(line).filter(|span| span.starts_with("breakwater ") && !span.contains('…'));
            for words in lines.flat_map(of_breakwater) {
                if let Some(why) = refused(&words).filter(|why| !LEFT_OUT.contains(&why.kind())) {
                    panic!("{}: {words:?}: {why}", page.path);
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn every_example_of_the_help_is_understood() {
    fn examples(command: &clap::Command, seen: &mut usize) {
        let help = command.get_after_long_help().map(ToString::to_string);
        for line in help.unwrap_or_default().lines() {
            // What an example does stands behind two blanks at least.
            let line = line.trim_start();
            let line = line.split_once("  ").map_or(line, |(line, _)| line);
            for words in of_breakwater(line) {
                if let Some(why) = refused(&words) {
                    panic!("{}: {line}: {why}", command.get_name());
                }
                *seen += 1;
            }
        }
        for verb in command.get_subcommands() {
            examples(verb, seen);
        }
    }
    let mut seen = 0;
    examples(&Cli::command(), &mut seen);
    assert!(seen > 30, "{seen}");
}

/// In comments, further in than prose; what it does stands behind two blanks at least.
#[test]
fn every_command_line_in_an_example_is_understood() {
    let mut seen = 0;
    for example in examples() {
        let lines = example.text.lines().filter_map(|line| line.strip_prefix("#   "));
        for line in lines.map(|line| line.split_once("  ").map_or(line, |(line, _)| line)) {
            for words in of_breakwater(line) {
                if let Some(why) = refused(&words) {
                    panic!("{}: {words:?}: {why}", example.path);
                }
                seen += 1;
            }
        }
    }
    assert!(seen >= 4, "{seen}");
}

/// The help's table of exit codes is that of the pages, in the same words.
#[test]
fn every_exit_code_is_explained_as_in_the_help() {
    let help = Cli::command().render_long_help().to_string();
    let codes = help.split_once("Exit codes:\n").expect("the table").1;
    let told: Vec<(&str, &str)> = codes
        .lines()
        .filter_map(|line| line.trim().split_once("  "))
        .map(|(code, means)| (code, means.split(" (").next().unwrap_or(means)))
        .collect();
    assert_eq!(told.len(), 6, "{codes}");
    for path in ["README.md", "docs/troubleshooting.md"] {
        let page = pages().into_iter().find(|page| page.path == path).expect(path);
        let table = rows(&page.text, "code");
        let written: Vec<(&str, &str)> = table
            .iter()
            .map(|row| (row[0], row[1].split(';').next().unwrap_or(row[1])))
            .collect();
        assert_eq!(written, told, "{path}");
    }
}

#[test]
fn a_shell_s_words_are_taken_apart() {
    let text = "# breakwater a 'b c' \"d\" > e   # f\ncat x | breakwater g - | h\ncurl -H \"A: $(breakwater token)\" u\n\
                output of breakwater\nbreakwater i \\\n  j && target/quick/breakwater k\n";
    let found: Vec<String> = of_breakwater(text).iter().map(|words| words.join("+")).collect();
    assert_eq!(
        found,
        [
            "breakwater+a+b c+d",
            "breakwater+g+-",
            "breakwater+token",
            "breakwater+i+j",
            "target/quick/breakwater+k"
        ]
    );
    let refused = |line: &str| of_breakwater(line).iter().any(|words| refused(words).is_some());
    assert!(!refused("breakwater ban list\n"));
    for bad in [
        "breakwater bann list\n",
        "breakwater status --cold\n",
        "x | breakwater\n",
    ] {
        assert!(refused(bad), "{bad}");
    }
}
