//! Argument values that several verbs share, and what clap has to say about bad ones.

use std::{io::Write, path::Path, time::Duration};

use clap::{Args, error::ErrorKind};
use ipnet::IpNet;

use super::{CliError, Exit, Output, Overrides};
use crate::{
    config::{self, AttachMode, Config, Loaded, Problem, bounds},
    telemetry::logging,
};

/// Which interfaces the shield is put on, and how.
#[derive(Debug, Args)]
pub(super) struct ShieldArgs {
    /// Put the shield on this interface (may be repeated); replaces the configuration's list.
    #[arg(long = "interface", short, value_name = "NAME", value_parser = interface)]
    interfaces: Vec<String>,

    /// How the shield is attached; replaces the configuration's mode.
    #[arg(long, value_name = "MODE", value_enum)]
    mode: Option<Mode>,

    /// Let mode `auto` fall back to `generic` where the driver has no XDP.
    #[arg(long)]
    allow_generic: bool,

    /// Set the kernel's TCP settings that SYN cookies need (net.ipv4.tcp_syncookies, tcp_timestamps, tcp_sack,
    /// tcp_window_scaling); `detach` puts them back.
    #[arg(long)]
    set_sysctls: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// In the driver, else an error that says why (see --allow-generic)
    Auto,
    /// In the driver: the fastest
    Native,
    /// In the network stack: works everywhere, protects less
    Generic,
}

impl ShieldArgs {
    pub(super) fn overrides(self) -> Result<Overrides, CliError> {
        let mode = self.mode.map(|mode| match mode {
            Mode::Auto => AttachMode::Auto,
            Mode::Native => AttachMode::Native,
            Mode::Generic => AttachMode::Generic,
        });
        if self.allow_generic && matches!(mode, Some(AttachMode::Native | AttachMode::Generic)) {
            return Err(CliError::usage(
                "--allow-generic is for --mode auto",
                "leave one of the two out",
            ));
        }
        Ok(Overrides {
            interfaces: self.interfaces,
            mode,
            allow_generic: self.allow_generic,
            set_sysctls: self.set_sysctls,
        })
    }
}

/// Loads a configuration and logs its warnings.
pub(super) fn load(path: &Path) -> Result<Loaded, CliError> {
    let loaded = Config::load(path)?;
    for Problem {
        file,
        line,
        key,
        message,
        help,
        ..
    } in &loaded.warnings
    {
        tracing::warn!(file, line, key, help, "{message}");
    }
    Ok(loaded)
}

/// The name of an interface.
pub(super) fn interface(text: &str) -> Result<String, String> {
    if config::is_interface_name(text) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "an interface name has 1 to {} bytes, without `/`, `:` or blanks",
        bounds::MAX_INTERFACE_BYTES
    ))
}

/// A network, or one address.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    config::parse_network(text).map_err(|(message, help)| format!("{message}; {help}"))
}

/// A duration longer than zero.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration.is_zero() => Err("must be longer than zero".to_owned()),
        Ok(duration) => Ok(duration),
        Err(_) => Err("a number with its unit, as in 30s, 10m, 1h or 2days".to_owned()),
    }
}

/// A log filter, kept as text.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    logging::parse_filter(text).map(|_| text.to_owned()).map_err(|_| {
        "a level (error, warn, info, debug, trace) or directives such as info,edge_user=debug".to_owned()
    })
}

/// Writes what clap says: help and version are answers, everything else is an error.
pub(super) fn explain(error: &clap::Error, out: &mut Output<impl Write>, errors: &mut impl Write) -> Exit {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            match out.line(error.render().to_string().trim_end()) {
                Ok(()) => Exit::Done,
                Err(error) => super::exit::report(&error, errors),
            }
        }
        _ => {
            let _ = writeln!(errors, "{}", error.render().to_string().trim_end());
            Exit::Usage
        }
    }
}
