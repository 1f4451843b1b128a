//! `breakwater revoke`: tokens and subjects that are no longer welcome.

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::{Args, Subcommand};

use super::{CliError, Exit, Output, args};
use crate::auth::{
    Revocation, Revoked,
    revocation_file::{self, Change},
};

/// Arguments of `revoke`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
A revocation is a line in the file that `gateway.revocation_file` names. A running gateway watches the file: a change is
in force with the next request, also for tokens that it has seen before. Without a gateway the file is changed all the
same. The file is replaced whole; comments in it stay, lines that have expired go.

Examples:
  breakwater revoke add --sub alice --for 30days --config edge.toml
  breakwater revoke add --jti 8e3f0a52 --config edge.toml
  breakwater revoke list --config edge.toml
  breakwater revoke del --sub alice --file /etc/breakwater/revoked")]
pub(super) struct RevokeArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Revoke a token or every token of a subject; revoking it again sets the end anew.
    Add {
        #[command(flatten)]
        what: What,
        #[command(flatten)]
        place: FileArgs,
        /// How long, as in 1h or 30days; for good if left out. A token need not be revoked longer than it is valid.
        #[arg(long = "for", value_name = "DURATION", value_parser = args::duration)]
        duration: Option<Duration>,
    },
    /// Take a revocation back.
    Del {
        #[command(flatten)]
        what: What,
        #[command(flatten)]
        place: FileArgs,
    },
    /// List the revocations in force.
    List {
        #[command(flatten)]
        place: FileArgs,
        /// Print JSON instead of lines.
        #[arg(long)]
        json: bool,
    },
}

/// What is revoked.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// One token, by its claim `jti`.
    #[arg(long, value_name = "ID")]
    jti: Option<String>,

    /// Every token of a subject, by the claim `sub`, at every provider.
    #[arg(long, value_name = "SUBJECT")]
    sub: Option<String>,
}

/// Where the file is.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct FileArgs {
    /// The configuration that names the file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The file itself.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl What {
    fn revoked(self) -> Revoked {
        match (self.jti, self.sub) {
            (Some(id), _) => Revoked::Token(id.into()),
            (None, subject) => Revoked::Subject(subject.unwrap_or_default().into()),
        }
    }
}

impl FileArgs {
    fn path(self) -> Result<PathBuf, CliError> {
        if let Some(file) = self.file {
            return Ok(file);
        }
        let config = self.config.unwrap_or_default();
        args::load(&config)?.config.revocation_file.ok_or_else(|| {
            CliError::usage(
                format!("{} names no `gateway.revocation_file`", config.display()),
                "add it to [gateway] and start the gateway anew, or name a file with --file",
            )
        })
    }
}

pub(super) fn revoke(args: RevokeArgs, out: &mut Output<impl Write>) -> Result<Exit, CliError> {
    let now = SystemTime::now();
    let seconds = |time: SystemTime| {
        time.duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs()
            .cast_signed()
    };
    let second = seconds(now);
    match args.action {
        Action::Add {
            what,
            place,
            duration,
        } => {
            let until = match duration.map(|duration| now.checked_add(duration)) {
                Some(None) => {
                    return Err(CliError::usage(
                        "--for reaches beyond every calendar",
                        "leave it out",
                    ));
                }
                Some(Some(until)) => Some(seconds(until)),
                None => None,
            };
            let revocation = Revocation {
                revoked: what.revoked(),
                until,
            };
            let path = place.path()?;
            change(&path, &Change::Add(revocation.clone()), second)?;
            out.line(format_args!("revoked: {revocation}"))?;
        }
        Action::Del { what, place } => {
            let revoked = what.revoked();
            change(&place.path()?, &Change::Delete(revoked.clone()), second)?;
            out.line(format_args!(
                "taken back: {}",
                Revocation { revoked, until: None }
            ))?;
        }
        Action::List { place, json } => {
            let list = revocation_file::list(&place.path()?, second).map_err(|error| failed(&error))?;
            if json {
                out.line(serde_json::Value::Array(list.iter().map(as_json).collect()))?;
            } else if list.is_empty() {
                out.line("nothing is revoked")?;
            } else {
                list.iter().try_for_each(|one| out.line(one))?;
            }
        }
    }
    Ok(Exit::Done)
}

fn change(path: &Path, change: &Change, now: i64) -> Result<(), CliError> {
    revocation_file::apply(path, change, now).map_err(|error| failed(&error))
}

fn failed(error: &revocation_file::EditError) -> CliError {
    CliError::Failed {
        exit: Exit::Runtime,
        message: error.to_string(),
        remedy: None,
    }
}

fn as_json(revocation: &Revocation) -> serde_json::Value {
    let (kind, value) = match &revocation.revoked {
        Revoked::Token(value) => ("jti", value),
        Revoked::Subject(value) => ("sub", value),
    };
    serde_json::json!({ "kind": kind, "value": value, "until": revocation.until })
}
