//! `breakwater doctor`.

use std::path::PathBuf;

use clap::Args;

use super::{
    CliError, DoctorRequest,
    args::{self, interface},
};

/// Arguments of `doctor`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Looks at the kernel, the BPF file system, capabilities, settings, limits and interfaces, and changes nothing. Each line
that is not `ok` has the command that mends it. The exit code is 0 if nothing fails, else that of the first failure:
4 for a missing privilege, 5 for a kernel that cannot, 1 for the rest.

Examples:
  breakwater doctor
  breakwater doctor --config edge.toml
  breakwater doctor --interface eth0 --json")]
pub(super) struct DoctorArgs {
    /// Look with this configuration in mind: its interfaces, ports and limits.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Look at this interface alone; may be repeated. Without it, those of the configuration, or all.
    #[arg(long, value_name = "NAME", value_parser = interface)]
    interface: Vec<String>,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl DoctorArgs {
    pub(super) fn request(self) -> Result<DoctorRequest, CliError> {
        let config = self.config.as_deref().map(args::load).transpose()?;
        Ok(DoctorRequest {
            config: config.map(|loaded| Box::new(loaded.config)),
            interfaces: self.interface,
            json: self.json,
        })
    }
}
