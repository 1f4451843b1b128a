//! The ways in which a configuration fails to load.

use std::{fmt, io, path::PathBuf};

use super::{problem::Problem, source::MAX_FILE_BYTES};

/// No configuration came of it. `Display` tells every problem with its source line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file as it was named.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is too large to be a configuration.
    #[error("the configuration {} is larger than {MAX_FILE_BYTES} bytes", path.display())]
    TooLarge {
        /// The file as it was named.
        path: PathBuf,
    },
    /// The text is at fault.
    #[error("{0}")]
    Invalid(Report),
}

impl ConfigError {
    /// The problems, if the text is at fault.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Invalid(report) => &report.errors,
            Self::Read { .. } | Self::TooLarge { .. } => &[],
        }
    }
}

/// All that was found in one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// At least one error, in the file's order.
    pub errors: Vec<Problem>,
    /// What was noticed beside.
    pub warnings: Vec<Problem>,
    /// Errors beyond [`MAX_PROBLEMS`](super::problem::MAX_PROBLEMS).
    pub omitted: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in self.warnings.iter().chain(&self.errors) {
            write!(f, "{problem}\n\n")?;
        }
        let count = self.errors.len() + self.omitted;
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{count} error{plural} in the configuration")?;
        if self.omitted > 0 {
            write!(f, " ({} not shown)", self.omitted)?;
        }
        Ok(())
    }
}
