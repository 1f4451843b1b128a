//! `breakwater attach`: the shield without the gateway.

use std::path::PathBuf;

use clap::Args;

use super::{
    AttachRequest, CliError,
    args::{self, ShieldArgs},
};

/// Arguments of `attach`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Loads the XDP program, its services, limits and lists, and pins all of it in the kernel, where it goes on working
after this command has ended. Attaching again updates what has changed and loses no ban.

Examples:
  breakwater attach --config edge.toml
  breakwater attach --config edge.toml --interface eth0 --mode native")]
pub(super) struct AttachArgs {
    /// The configuration whose services, limits and lists the shield enforces.
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,

    #[command(flatten)]
    shield: ShieldArgs,

    /// Replace another XDP program on an interface; without it such a program is named and left alone.
    #[arg(long)]
    replace: bool,
}

impl AttachArgs {
    pub(super) fn request(self) -> Result<AttachRequest, CliError> {
        let overrides = self.shield.overrides()?;
        let mut config = args::load(&self.config)?.config;
        overrides.apply(&mut config);
        if config.shield.interfaces.is_empty() {
            return Err(CliError::usage(
                format!("no interface to attach to: {} names none", self.config.display()),
                "add `--interface NAME`, or `interfaces` to its [shield]",
            ));
        }
        Ok(AttachRequest {
            config,
            replace: self.replace,
        })
    }
}
