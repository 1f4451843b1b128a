//! `breakwater list`: who is never dropped, and who always.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ipnet::IpNet;

use super::{CliError, Format, ListChange, ListRequest, args};
use crate::{config::listfile, kernel::lists};

/// Arguments of `list`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
A list has two parts: what the configuration says (shield.allow, deny, allow_file, deny_file), and what was added by
hand with `list add`. Both are in force together. A start, a restart or a reload changes the first and leaves the
second; these commands change the second and leave the first. What was added by hand stays until it is taken off, or
until `detach` or a reboot takes the shield off.

With --config FILE a change is for good: it is written to the file that the configuration names as shield.deny_file or
allow_file, and put in force.

Every change is seen by the kernel whole or not at all, and works with the daemon running or not.

Examples:
  breakwater list show deny
  breakwater list add deny 198.51.100.0/24 2001:db8:bad::/48
  breakwater list add deny --file feed.txt
  breakwater list replace deny feed.txt              what was added by hand is this feed from now on
  breakwater list add allow 192.0.2.7 --config edge.toml
  breakwater list del deny 198.51.100.0/24")]
pub(super) struct ListArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the networks in force, each with where it comes from.
    Show {
        /// Only this list.
        #[arg(value_name = "LIST")]
        list: Option<List>,
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Add networks; what is there already stays.
    Add(Which),
    /// Take networks off.
    Del(Which),
    /// Make the networks of a file all that was added by hand.
    Replace {
        /// `allow` or `deny`.
        #[arg(value_name = "LIST")]
        list: List,
        /// One network a line; `#` starts a comment.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum List {
    /// Never dropped
    Allow,
    /// Always dropped
    Deny,
}

impl From<List> for lists::List {
    fn from(list: List) -> Self {
        match list {
            List::Allow => Self::Allow,
            List::Deny => Self::Deny,
        }
    }
}

#[derive(Debug, Args)]
struct Which {
    /// `allow` or `deny`.
    #[arg(value_name = "LIST")]
    list: List,
    /// Addresses or networks.
    #[arg(value_name = "ADDR[/LEN]", value_parser = args::network, required_unless_present = "file")]
    networks: Vec<IpNet>,
    /// Those of a file, one a line; `#` starts a comment.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// For good: also in the file that this configuration names.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ListArgs {
    pub(super) fn request(self) -> Result<ListRequest, CliError> {
        let (which, change) = match self.action {
            Action::Show { list, json } => {
                let format = if json { Format::Json } else { Format::Text };
                let list = list.map(Into::into);
                return Ok(ListRequest::Show { list, format });
            }
            Action::Add(which) => (which, ListChange::Add),
            Action::Del(which) => (which, ListChange::Remove),
            Action::Replace { list, file } => {
                let which = Which {
                    list,
                    networks: Vec::new(),
                    file: Some(file),
                    config: None,
                };
                (which, ListChange::Replace)
            }
        };
        let mut networks = which.networks;
        if let Some(file) = &which.file {
            networks.extend(listfile::read(file)?);
        }
        networks.sort_unstable();
        networks.dedup();
        Ok(ListRequest::Change {
            list: which.list.into(),
            change,
            networks,
            config: which.config,
        })
    }
}
