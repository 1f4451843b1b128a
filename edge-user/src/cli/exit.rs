//! How a command ends: its exit code, and one clear line if it failed.

use std::{io, io::Write, process::ExitCode};

use crate::{
    config::{ConfigError, keyfile::Fault, listfile::ListFileError},
    lifecycle::LifecycleError,
};

/// Exit codes, as the help lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[must_use]
pub enum Exit {
    /// Done.
    Done = 0,
    /// It failed while running.
    Runtime = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The configuration is invalid.
    InvalidConfig = 3,
    /// A privilege is missing.
    Privilege = 4,
    /// The kernel cannot do it.
    Kernel = 5,
}

impl Exit {
    /// The one with this number.
    pub(super) const fn of(code: u8) -> Self {
        match code {
            0 => Self::Done,
            2 => Self::Usage,
            3 => Self::InvalidConfig,
            4 => Self::Privilege,
            5 => Self::Kernel,
            _ => Self::Runtime,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file of networks.
    #[error(transparent)]
    List(#[from] ListFileError),
    /// The combination of arguments.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do about it.
        remedy: Option<String>,
    },
    /// A key.
    #[error(transparent)]
    Key(#[from] Fault),
    /// Standard output could not be written, for another reason than that nobody reads it any more.
    #[error("cannot write the answer: {0}")]
    Output(io::Error),
    /// What a lower layer reports, with the exit code that fits.
    #[error("{message}")]
    Failed {
        /// How the process ends.
        exit: Exit,
        /// What failed, in one line.
        message: String,
        /// What to do about it.
        remedy: Option<String>,
    },
}

impl From<LifecycleError> for CliError {
    fn from(error: LifecycleError) -> Self {
        let exit = Exit::of(error.exit_code());
        // The first line says what failed, the rest what to do.
        let text = error.to_string();
        let (message, remedy) = match text.split_once("\n  ") {
            Some((message, remedy)) => (message.to_owned(), Some(remedy.to_owned())),
            None => (text, None),
        };
        Self::Failed {
            exit,
            message,
            remedy,
        }
    }
}

impl CliError {
    pub(super) fn usage(message: impl Into<String>, remedy: &str) -> Self {
        let remedy = (!remedy.is_empty()).then(|| remedy.to_owned());
        Self::Usage {
            message: message.into(),
            remedy,
        }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::List(_) => Exit::InvalidConfig,
            Self::Usage { .. } => Exit::Usage,
            Self::Key(_) | Self::Output(_) => Exit::Runtime,
            Self::Failed { exit, .. } => *exit,
        }
    }

    fn remedy(&self) -> Option<&str> {
        match self {
            Self::Config(ConfigError::Read { .. }) => Some("name a file that this user can read"),
            Self::Config(_) | Self::List(ListFileError::Lines(_)) | Self::Output(_) => None,
            Self::Key(fault) | Self::List(ListFileError::File(fault)) => Some(&fault.help),
            Self::Usage { remedy, .. } | Self::Failed { remedy, .. } => remedy.as_deref(),
        }
    }
}

/// Writes the error and its remedy, and says how the process ends.
pub(super) fn report(error: &CliError, errors: &mut impl Write) -> Exit {
    let prefix = match error {
        // Each problem in it carries its own.
        CliError::Config(ConfigError::Invalid(_)) | CliError::List(ListFileError::Lines(_)) => "",
        _ => "error: ",
    };
    // Nobody is left to tell if this fails.
    let _ = writeln!(errors, "{prefix}{error}");
    if let Some(remedy) = error.remedy() {
        let _ = writeln!(errors, "help: {remedy}");
    }
    error.exit()
}
