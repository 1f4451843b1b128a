//! Tokens and subjects that are no longer welcome, from a file and from the operator at run time.
//!
//! Matched on parsed claims, never on token bytes: a token has many spellings, its `jti` has one. A change moves
//! the generation on after it is in place, so a cached token is checked again exactly when something changed.

pub mod edit;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use thiserror::Error;

use super::{claims::Names, material, unix_seconds};

/// Most revocations kept from the file, and as many from run time.
pub const MAX_REVOCATIONS: usize = 200_000;
/// Longest revoked value, in bytes.
const MAX_VALUE_BYTES: usize = 1024;
/// The year 10000, in seconds since 1970: later times have no RFC 3339 form.
const LAST_DATE: u64 = 253_402_300_800;

/// What is revoked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Revoked {
    /// One token, by its `jti`.
    Token(Box<str>),
    /// Every token of a subject, by `sub`.
    Subject(Box<str>),
}

/// One revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// What.
    pub revoked: Revoked,
    /// Until when, in seconds since 1970; for good if absent.
    pub until: Option<i64>,
}

/// Why revocations are not taken.
#[derive(Debug, Error)]
pub enum RevocationError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] material::MaterialError),
    /// A line that says nothing.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// File.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// No room for more.
    #[error("more than {MAX_REVOCATIONS} revocations")]
    TooMany,
    /// Empty, or longer than any identifier.
    #[error("a revoked value has from 1 to {MAX_VALUE_BYTES} bytes")]
    Value,
}

/// Everything revoked.
#[derive(Debug, Default)]
pub struct Revocations {
    lists: RwLock<Lists>,
    generation: AtomicU64,
}

#[derive(Debug, Default)]
struct Lists {
    file: Set,
    runtime: Set,
}

/// What a file revokes.
#[derive(Debug, Default)]
pub(super) struct FileRevocations(Set);

/// Until when, by what. `i64::MAX` stands for ever.
type Set = HashMap<Revoked, i64>;

impl Revocations {
    /// Changes with every change of the lists.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether a token of these names is revoked at this second.
    pub(super) fn covers(&self, names: &Names, now: i64) -> bool {
        let lists = self.lists.read().unwrap_or_else(PoisonError::into_inner);
        if lists.file.is_empty() && lists.runtime.is_empty() {
            return false;
        }
        let token = names.token_id().map(|id| Revoked::Token(id.into()));
        let subject = names.subject().map(|subject| Revoked::Subject(subject.into()));
        token.iter().chain(&subject).any(|revoked| {
            [&lists.file, &lists.runtime]
                .iter()
                .any(|set| set.get(revoked).is_some_and(|until| now < *until))
        })
    }

    /// Revokes at run time. A second revocation of the same thing replaces the first.
    pub fn add(&self, revocation: Revocation, now: SystemTime) -> Result<(), RevocationError> {
        let now = unix_seconds(now);
        self.change(|lists| {
            if lists.runtime.len() >= MAX_REVOCATIONS {
                lists.runtime.retain(|_, until| now < *until);
            }
            if lists.runtime.len() >= MAX_REVOCATIONS {
                return Err(RevocationError::TooMany);
            }
            put(&mut lists.runtime, revocation)
        })
    }

    /// Takes a run-time revocation back; false if there was none. One of the file's stays.
    pub fn remove(&self, revoked: &Revoked) -> bool {
        self.change(|lists| lists.runtime.remove(revoked).is_some())
    }

    /// The run-time revocations.
    pub fn list(&self) -> Vec<Revocation> {
        let lists = self.lists.read().unwrap_or_else(PoisonError::into_inner);
        let expiry = |until: i64| (until != i64::MAX).then_some(until);
        lists
            .runtime
            .iter()
            .map(|(revoked, until)| Revocation {
                revoked: revoked.clone(),
                until: expiry(*until),
            })
            .collect()
    }

    /// How many there are: from the file, and from run time.
    pub fn counts(&self) -> (usize, usize) {
        let lists = self.lists.read().unwrap_or_else(PoisonError::into_inner);
        (lists.file.len(), lists.runtime.len())
    }

    /// The revocations of a file, all or none.
    pub(super) fn read_file(path: &Path) -> Result<FileRevocations, RevocationError> {
        Ok(FileRevocations(parse(path, &material::read(path)?)?))
    }

    /// Puts a file's revocations in place of those that came from one before.
    pub(super) fn replace_file(&self, revocations: FileRevocations) {
        self.change(|lists| lists.file = revocations.0);
    }

    fn change<R>(&self, change: impl FnOnce(&mut Lists) -> R) -> R {
        let result = change(&mut self.lists.write().unwrap_or_else(PoisonError::into_inner));
        self.generation.fetch_add(1, Ordering::Release);
        result
    }
}

fn put(set: &mut Set, revocation: Revocation) -> Result<(), RevocationError> {
    let (Revoked::Token(value) | Revoked::Subject(value)) = &revocation.revoked;
    if value.is_empty() || value.len() > MAX_VALUE_BYTES {
        return Err(RevocationError::Value);
    }
    set.insert(revocation.revoked, revocation.until.unwrap_or(i64::MAX));
    Ok(())
}

/// Reads `jti VALUE [UNTIL]` and `sub VALUE [UNTIL]`, one a line; `#` begins a comment line.
fn parse(path: &Path, bytes: &[u8]) -> Result<Set, RevocationError> {
    let error = |line: usize, problem| RevocationError::Line {
        path: path.to_owned(),
        line,
        problem,
    };
    let text = std::str::from_utf8(bytes).map_err(|utf8| {
        let line = bytes[..utf8.valid_up_to()].split(|byte| *byte == b'\n').count();
        error(line, "not UTF-8")
    })?;
    let mut set = Set::new();
    for (number, line) in text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
    {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        put(
            &mut set,
            parse_line(line).map_err(|problem| error(number, problem))?,
        )
        .map_err(|_| error(number, "the value is empty or too long"))?;
        if set.len() > MAX_REVOCATIONS {
            return Err(RevocationError::TooMany);
        }
    }
    Ok(set)
}

fn parse_line(line: &str) -> Result<Revocation, &'static str> {
    let (kind, rest) = line
        .split_once([' ', '\t'])
        .ok_or("expected: jti or sub, a value, and until when")?;
    let (value, rest) = value(rest.trim_start())?;
    let revoked = match kind {
        "jti" => Revoked::Token(value.into()),
        "sub" => Revoked::Subject(value.into()),
        _ => return Err("a line begins with jti or sub"),
    };
    let until = match rest.trim() {
        "" => None,
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().map_err(|_| "not a time")?)
        }
        date => {
            let time = humantime::parse_rfc3339(date)
                .map_err(|_| "not a time: seconds since 1970, or a date like 2030-01-31T00:00:00Z")?;
            Some(unix_seconds(time))
        }
    };
    Ok(Revocation { revoked, until })
}

/// A bare word, or a JSON string for values with spaces.
fn value(text: &str) -> Result<(String, &str), &'static str> {
    if !text.starts_with('"') {
        let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
        return Ok((word.to_owned(), rest));
    }
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<String>();
    match stream.next() {
        Some(Ok(value)) => Ok((value, &text[stream.byte_offset()..])),
        _ => Err("a quoted value is a JSON string"),
    }
}

/// A revocation as a line of a file.
fn shown(revocation: &Revocation) -> String {
    let (kind, value) = match &revocation.revoked {
        Revoked::Token(value) => ("jti", value),
        Revoked::Subject(value) => ("sub", value),
    };
    let is_word = |char: char| !char.is_whitespace() && !char.is_control() && char != '"';
    let value = if value.chars().all(is_word) {
        value.to_string()
    } else {
        serde_json::Value::from(&**value).to_string()
    };
    let until = revocation.until.map(|until| {
        let seconds = u64::try_from(until).unwrap_or_default();
        // Dates that cannot be written are far enough away as a number.
        match UNIX_EPOCH.checked_add(Duration::from_secs(seconds)) {
            Some(time) if seconds < LAST_DATE => format!(" {}", humantime::format_rfc3339_seconds(time)),
            _ => format!(" {seconds}"),
        }
    });
    format!("{kind} {value}{}", until.unwrap_or_default())
}

impl std::fmt::Display for Revocation {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&shown(self))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::claims::Claims, *};
    use serde_json::{Value, json};

    fn names(value: Value) -> Names {
        let Value::Object(map) = value else {
            panic!("an object")
        };
        Names::of(&Claims::new(map))
    }

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let text = "# gone\n\njti t-1\nsub alice 200\r\n\tsub \"two words\\u0021\" 1970-01-01T00:05:00Z\njti t-2 0\n";
        let set = parse(Path::new("list"), text.as_bytes()).unwrap();
        assert_eq!(set.len(), 4);
        assert_eq!(set[&Revoked::Token("t-1".into())], i64::MAX);
        assert_eq!(set[&Revoked::Subject("alice".into())], 200);
        assert_eq!(set[&Revoked::Subject("two words!".into())], 300);
        for (bad, line) in [
            ("jti", 1),
            ("\nuser x", 2),
            ("jti a tomorrow", 1),
            ("jti a -5", 1),
            ("jti \"a", 1),
            ("jti a\nsub \"\"", 2),
            ("jti a 99999999999999999999", 1),
        ] {
            let error = parse(Path::new("list"), bad.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("list:{line}: ")), "{bad:?}: {error}");
        }
        assert!(
            parse(Path::new("list"), b"jti a\nsub \xff")
                .unwrap_err()
                .to_string()
                .starts_with("list:2: ")
        );
    }

    #[test]
    fn matched_on_claims_until_they_expire() {
        let revocations = Revocations::default();
        let alice = names(json!({"sub": "alice", "jti": "t-1"}));
        let now = SystemTime::UNIX_EPOCH;
        assert!(!revocations.covers(&alice, 0));
        let before = revocations.generation();
        let revoked = Revoked::Subject("alice".into());
        revocations
            .add(
                Revocation {
                    revoked: revoked.clone(),
                    until: Some(100),
                },
                now,
            )
            .unwrap();
        assert_ne!(revocations.generation(), before);
        assert!(revocations.covers(&alice, 99) && !revocations.covers(&alice, 100));
        // A subject's name is not a token's.
        assert!(!revocations.covers(&names(json!({"sub": "bob", "jti": "alice"})), 0));
        assert!(!revocations.covers(&names(json!({})), 0));
        assert_eq!(revocations.list().len(), 1);
        assert!(revocations.remove(&revoked) && !revocations.remove(&revoked));
        assert!(!revocations.covers(&alice, 0));
        let empty = Revocation {
            revoked: Revoked::Token("".into()),
            until: None,
        };
        assert!(revocations.add(empty, now).is_err());
    }

    #[test]
    fn a_full_list_drops_what_expired_and_then_refuses() {
        let revocations = Revocations::default();
        let token = |number: usize, until| Revocation {
            revoked: Revoked::Token(number.to_string().into()),
            until,
        };
        for number in 0..MAX_REVOCATIONS {
            let until = (number == 0).then_some(5);
            revocations
                .change(|lists| put(&mut lists.runtime, token(number, until)))
                .unwrap();
        }
        let later = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
        assert!(revocations.add(token(MAX_REVOCATIONS, None), later).is_ok());
        assert!(matches!(
            revocations.add(token(MAX_REVOCATIONS + 1, None), later),
            Err(RevocationError::TooMany)
        ));
    }
}
