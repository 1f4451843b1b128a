//! `breakwater service`: the direct services, and who of their backends gets new connections.

use std::net::IpAddr;

use clap::{Args, Subcommand};

use super::{Format, ServiceRequest};

/// Arguments of `service`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
A service of kind \"direct\" is spread over its backends in the kernel, without entering the gateway. A drained backend
gets no new connections and finishes those it has; it stays drained, through restarts too, until `undrain` or `detach`.
It works with the daemon running or not.

Examples:
  breakwater service list
  breakwater service drain dns 10.0.0.7
  breakwater service undrain dns 10.0.0.7")]
pub(super) struct ServiceArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the direct services with their backends.
    List {
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Give a backend no new connections.
    Drain(Which),
    /// Give it new connections again.
    Undrain(Which),
}

#[derive(Debug, Args)]
struct Which {
    /// Name of the service.
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Address of the backend.
    #[arg(value_name = "BACKEND")]
    backend: IpAddr,
}

impl ServiceArgs {
    pub(super) fn request(self) -> ServiceRequest {
        let (which, drained) = match self.action {
            Action::List { json } => {
                let format = if json { Format::Json } else { Format::Text };
                return ServiceRequest::List { format };
            }
            Action::Drain(which) => (which, true),
            Action::Undrain(which) => (which, false),
        };
        ServiceRequest::Drain {
            service: which.service,
            backend: which.backend,
            drained,
        }
    }
}
