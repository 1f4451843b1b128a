//! `breakwater version`.

use std::io::Write;

use super::{CliError, Exit, Output};

pub(super) fn version(out: &mut Output<impl Write>) -> Result<Exit, CliError> {
    out.line(format_args!(
        "breakwater {} ({}-{})",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS
    ))?;
    Ok(Exit::Done)
}
