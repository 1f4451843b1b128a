//! Why starting or running failed, with the exit code that fits.

use std::{io, path::PathBuf};

use super::{handover::HandoverError, sandbox::SandboxError};
use crate::{
    admin::{AdminError, client::ClientError},
    auth::LoadError,
    config::{ConfigError, listfile::ListFileError},
    gateway::{RunError, SetupError},
    history::StoreError,
    kernel::KernelError,
};

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// The kernel side.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The admin API could not be set up.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The running daemon did not do it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The gateway could not be set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The gateway died.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The built-in configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Keys or revocations that cannot be loaded, one a line.
    #[error("{}", join(.0))]
    Keys(Vec<LoadError>),
    /// Nothing to do.
    #[error("nothing to run: the configuration has neither an interface to shield nor a listener")]
    Nothing,
    /// The file to capture into.
    #[error("cannot write {}: {source}{help}", file.display())]
    CaptureFile {
        /// Which.
        file: PathBuf,
        /// What to do about it.
        help: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The configuration names no file that a list could be kept in.
    #[error("{} names no shield.{list}_file to keep the change in\n  add `{list}_file = \"{list}.list\"` to its [shield], and make that file", config.display())]
    NoListFile {
        /// The configuration.
        config: PathBuf,
        /// `allow` or `deny`.
        list: &'static str,
    },
    /// What is to be removed stands in the configuration itself.
    #[error("{} itself has {network} under shield.{list}: nothing was changed\n  remove it there, then `breakwater attach --config` or a restart puts it in force", config.display())]
    InlineEntry {
        /// The configuration.
        config: PathBuf,
        /// `allow` or `deny`.
        list: &'static str,
        /// Which.
        network: ipnet::IpNet,
    },
    /// The file of a list cannot be used.
    #[error(transparent)]
    List(#[from] ListFileError),
    /// The file of a list could not be written.
    #[error("cannot write {}: {source}\n  nothing was changed", file.display())]
    ListFile {
        /// Which.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process could not take over, or be taken over from.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// Rights could not be given up.
    #[error("{0}\n  `sandbox = false` under [gateway] goes on without")]
    Sandbox(#[from] SandboxError),
    /// The terminal does not do what a live view needs.
    #[error("the terminal: {0}\n  for one picture use `top --once`")]
    Terminal(io::Error),
    /// The history cannot be read.
    #[error("the history cannot be read: {0}")]
    History(#[from] StoreError),
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

fn join(errors: &[LoadError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

impl LifecycleError {
    /// Wraps an I/O error with what was attempted.
    pub fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }

    /// The process's exit code: 1 runtime, 2 usage, 3 configuration, 4 privilege, 5 kernel.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Kernel(error) => error.exit_code(),
            Self::Client(error) => error.exit_code(),
            Self::Handover(error) => error.exit_code(),
            Self::Admin(error) => error.exit_code(),
            Self::Setup(SetupError::Plan(_) | SetupError::Tls { .. })
            | Self::Config(_)
            | Self::List(_)
            | Self::NoListFile { .. }
            | Self::Keys(_)
            | Self::Nothing => 3,
            Self::Setup(SetupError::Bind(error))
                if error.source.kind() == io::ErrorKind::PermissionDenied =>
            {
                4
            }
            Self::Setup(SetupError::Bind(_) | SetupError::AccessLog(_) | SetupError::Supervisor(_))
            | Self::Run(_)
            | Self::CaptureFile { .. }
            | Self::ListFile { .. }
            | Self::InlineEntry { .. }
            | Self::Sandbox(_)
            | Self::Terminal(_)
            | Self::History(_)
            | Self::Io { .. } => 1,
        }
    }
}
