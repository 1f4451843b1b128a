//! `breakwater check`: a configuration on trial.

use std::{io::Write, path::PathBuf};

use clap::{Args, ValueEnum};

use super::{CliError, Exit, Output};
use crate::{
    auth,
    config::{Config, ConfigError, Loaded, Problem},
};

/// Arguments of `check`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The answer goes to standard output. The exit code is 0 if the configuration can be used and 3 if not; --strict makes
it 3 for warnings too. Lists, keys and environment variables are read, nothing is fetched, nothing is changed.

Examples:
  breakwater check edge.toml
  breakwater check edge.toml --format json --strict")]
pub(super) struct CheckArgs {
    /// The configuration.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// How problems are shown.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,

    /// Fail on warnings.
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// With the source line, for people
    Human,
    /// file:line:column: severity: key: message, for editors and logs
    Line,
    /// One JSON object, for programs
    Json,
}

pub(super) fn check(args: &CheckArgs, out: &mut Output<impl Write>) -> Result<Exit, CliError> {
    let checked = Config::load(&args.file).and_then(|loaded| auth::load(&loaded).map(|_| loaded));
    let (report, summary) = match checked {
        Ok(Loaded { config, warnings, .. }) => (
            Findings {
                warnings,
                ..Findings::default()
            },
            Some(summary(&config)),
        ),
        Err(ConfigError::Invalid(report)) => (
            Findings {
                errors: report.errors,
                warnings: report.warnings,
                omitted: report.omitted,
            },
            None,
        ),
        Err(error @ (ConfigError::Read { .. } | ConfigError::TooLarge { .. })) => return Err(error.into()),
    };
    let valid = summary.is_some() && (!args.strict || report.warnings.is_empty());
    match args.format {
        Format::Human => report.human(out)?,
        Format::Line => report.lines(out)?,
        Format::Json => report.json(valid, args, out)?,
    }
    if args.format != Format::Json {
        out.line(format_args!(
            "{}: {}",
            args.file.display(),
            report.verdict(valid, summary)
        ))?;
    }
    Ok(if valid { Exit::Done } else { Exit::InvalidConfig })
}

#[derive(Default)]
struct Findings {
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    omitted: usize,
}

impl Findings {
    fn all(&self) -> impl Iterator<Item = &Problem> {
        self.warnings.iter().chain(&self.errors)
    }

    fn human(&self, out: &mut Output<impl Write>) -> Result<(), CliError> {
        self.all()
            .try_for_each(|problem| out.line(format_args!("{problem}\n")))
    }

    fn lines(&self, out: &mut Output<impl Write>) -> Result<(), CliError> {
        self.all().try_for_each(|problem| out.line(problem.one_line()))
    }

    fn json(&self, valid: bool, args: &CheckArgs, out: &mut Output<impl Write>) -> Result<(), CliError> {
        out.line(serde_json::json!({
            "file": args.file.display().to_string(),
            "valid": valid,
            "problems": self.all().collect::<Vec<_>>(),
            "omitted": self.omitted,
        }))
    }

    fn verdict(&self, valid: bool, summary: Option<String>) -> String {
        let warnings = count(self.warnings.len(), "warning");
        match summary {
            Some(summary) if valid && self.warnings.is_empty() => format!("valid: {summary}"),
            Some(summary) if valid => format!("valid, with {warnings}: {summary}"),
            Some(_) => format!("invalid: {warnings}, and --strict"),
            None => {
                let errors = count(self.errors.len() + self.omitted, "error");
                match self.omitted {
                    0 => format!("invalid: {errors}"),
                    omitted => format!("invalid: {errors}, {omitted} of them not shown"),
                }
            }
        }
    }
}

fn summary(config: &Config) -> String {
    [
        count(config.shield.interfaces.len(), "interface"),
        count(config.services.len(), "service"),
        count(config.listeners.len(), "listener"),
        count(config.routes.len(), "route"),
        count(config.upstreams.len(), "upstream"),
        count(config.providers.len(), "provider"),
    ]
    .join(", ")
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
