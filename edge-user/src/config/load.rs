//! From text to [`Config`]: syntax, then shape, then sense, each reporting everything it finds.

use std::{ffi::OsString, path::Path};

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::{
    ConfigError, Document, Loaded, Report, bounds,
    places::Places,
    problem::{Finding, Findings, Place},
    quickstart::Quickstart,
    raw::RawConfig,
    resolve::{self, Checks},
    section::KeyPath,
    source::{self, ReadError, Source},
    value::FromToml,
};

/// What checking depends on beside the text.
#[derive(Clone, Copy)]
pub struct LoadOptions<'o> {
    /// Clock ticks a second of the kernel that will run the limits; the least burst follows from it.
    pub kernel_hz: u32,
    /// Most entries of `shield.allow` and of `shield.deny`.
    pub max_list: usize,
    /// Looks up an environment variable.
    pub env: fn(&str) -> Option<OsString>,
    /// What the built-in quick start may refer to; no file may.
    pub(super) quickstart: Option<&'o Quickstart>,
}

impl Default for LoadOptions<'_> {
    fn default() -> Self {
        Self {
            kernel_hz: bounds::LOWEST_KERNEL_HZ,
            max_list: bounds::MAX_LIST,
            env: |name| std::env::var_os(name),
            quickstart: None,
        }
    }
}

/// Reads and checks a file; relative paths in it start at its directory.
pub(super) fn load(path: &Path, options: &LoadOptions<'_>) -> Result<Loaded, ConfigError> {
    let origin = path.display().to_string();
    match source::read(path) {
        Ok(text) => {
            // Absolute, so that key files are found again after the process has changed its directory.
            let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            parse(
                &text,
                &origin,
                absolute.parent().unwrap_or(Path::new("")),
                options,
            )
        }
        Err(ReadError::Io(source)) => Err(ConfigError::Read {
            path: path.to_owned(),
            source,
        }),
        Err(ReadError::TooLarge) => Err(ConfigError::TooLarge {
            path: path.to_owned(),
        }),
        Err(ReadError::NotUtf8 { before, byte }) => {
            let at = Place {
                span: before.len()..before.len(),
                key: String::new(),
            };
            let message = format!("the file is not UTF-8: byte 0x{byte:02x} is out of place");
            let mut findings = Findings::default();
            findings.push(Finding::error(at, message).help("save it as UTF-8"));
            Err(invalid(findings, &origin, &Source::new(&before)))
        }
    }
}

/// Checks a text; `origin` is what problems call the file.
pub(super) fn parse(
    text: &str,
    origin: &str,
    base_dir: &Path,
    options: &LoadOptions<'_>,
) -> Result<Loaded, ConfigError> {
    let source = Source::new(text);
    let mut findings = Findings::default();
    let (document, syntax_errors) = DeTable::parse_recoverable(text);
    let syntax_errors: Vec<_> = syntax_errors
        .iter()
        .map(|error| syntax_finding(error, text))
        .collect();

    let whole = document.span();
    let shown = Document::of(document.get_ref());
    let document = Spanned::new(whole.clone(), DeValue::Table(document.into_inner()));
    let raw = RawConfig::from_toml(document, &KeyPath::Root, &mut findings);

    if !syntax_errors.is_empty() {
        keep_independent(&mut findings, &syntax_errors, &source);
        first_of_each_line(syntax_errors, &source).for_each(|error| findings.push(error));
        return Err(invalid(findings, origin, &source));
    }
    let Some(raw) = raw else {
        return Err(invalid(findings, origin, &source));
    };
    let mut config = resolve::resolve(
        &raw,
        &mut Checks {
            findings: &mut findings,
            options,
            base_dir,
        },
    );
    if findings.has_errors() {
        return Err(invalid(findings, origin, &source));
    }
    config.document = shown;
    let (_, warnings, _) = findings.locate(origin, &source);
    Ok(Loaded {
        config,
        warnings,
        places: Places::new(&raw, origin, &source),
    })
}

fn invalid(findings: Findings, origin: &str, source: &Source<'_>) -> ConfigError {
    let (errors, warnings, omitted) = findings.locate(origin, source);
    ConfigError::Invalid(Report {
        errors,
        warnings,
        omitted,
    })
}

fn syntax_finding(error: &toml::de::Error, text: &str) -> Finding {
    let span = error.span().unwrap_or(text.len()..text.len());
    Finding::error(
        Place {
            span,
            key: String::new(),
        },
        error.message(),
    )
}

/// One slip of the pen often breaks several rules of the grammar; the first tells where.
fn first_of_each_line(mut errors: Vec<Finding>, source: &Source<'_>) -> impl Iterator<Item = Finding> {
    errors.sort_by_key(Finding::offset);
    errors.dedup_by_key(|error| source.position(error.offset()).line);
    errors.into_iter()
}

/// Of what else was found beside syntax errors, keeps what they cannot have caused.
///
/// The parser recovers from a bad value in `key = value`; a broken header or an unclosed string moves whole
/// lines to where they do not belong, and then nothing else that was found is worth telling.
fn keep_independent(findings: &mut Findings, syntax_errors: &[Finding], source: &Source<'_>) {
    let broken: Vec<_> = syntax_errors
        .iter()
        .map(|error| source.position(error.offset()).line)
        .collect();
    let recovered = syntax_errors.iter().all(|error| {
        let (line, _) = source.line(error.offset());
        line.contains('=') && !line.trim_start().starts_with('[')
    });
    findings.retain(|finding| recovered && !broken.contains(&source.position(finding.offset()).line));
}
