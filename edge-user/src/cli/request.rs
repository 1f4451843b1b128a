//! What the layers below are asked to do: plain values, already checked.

use std::{path::PathBuf, time::Duration};

use edge_common::abi::Reason;
use ipnet::IpNet;

use crate::{
    admin::client::Call,
    config::{AttachMode, Config},
    kernel::lists::List,
};

/// Where the daemon's configuration comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum ConfigSource {
    /// The built-in quick start. It needs what only the process has: load it by
    /// [`Quickstart::load`](crate::config::Quickstart::load), then [`Overrides::apply`].
    Quickstart,
    /// A file.
    File {
        /// Where it is, for reloads: load it by [`Config::load`], then [`Overrides::apply`].
        path: PathBuf,
        /// What was in it, checked, overrides applied.
        config: Box<Config>,
    },
}

/// What the command line sets over the configuration, also over a reloaded one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overrides {
    /// Replace `shield.interfaces` if there are any.
    pub interfaces: Vec<String>,
    /// Replaces `shield.mode`.
    pub mode: Option<AttachMode>,
    /// Sets `shield.allow_generic`.
    pub allow_generic: bool,
    /// Sets `shield.set_sysctls`.
    pub set_sysctls: bool,
}

impl Overrides {
    /// Puts the overrides over `config`.
    pub fn apply(&self, config: &mut Config) {
        if !self.interfaces.is_empty() {
            config.shield.interfaces.clone_from(&self.interfaces);
        }
        if let Some(mode) = self.mode {
            config.shield.mode = mode;
        }
        config.shield.allow_generic |= self.allow_generic;
        config.shield.set_sysctls |= self.set_sysctls;
    }
}

/// `breakwater run`.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRequest {
    /// Which configuration.
    pub source: ConfigSource,
    /// What the command line sets over it.
    pub overrides: Overrides,
}

/// `breakwater attach`.
#[derive(Debug, Clone, PartialEq)]
pub struct AttachRequest {
    /// What the shield enforces, on which interfaces (at least one) and how; overrides applied.
    pub config: Config,
    /// Replace a foreign program on an interface instead of refusing.
    pub replace: bool,
}

/// `breakwater reload`, `drain`, `upgrade`: what the running daemon is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskRequest {
    /// What for.
    pub call: Call,
    /// Its socket, if not the usual one.
    pub socket: Option<PathBuf>,
    /// Print its answer as it is.
    pub json: bool,
}

/// `breakwater advise`.
#[derive(Debug, Clone)]
pub enum AdviseRequest {
    /// Of the running daemon.
    Ask(AskRequest),
    /// Of a configuration and the history that it names.
    Read {
        /// Checked.
        config: Box<Config>,
        /// How much of the history.
        last: Duration,
        /// How to answer.
        format: Format,
    },
}

/// `breakwater detach`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachRequest {
    /// From which interfaces; all if empty.
    pub interfaces: Vec<String>,
}

/// `breakwater doctor`.
#[derive(Debug, Clone, PartialEq)]
pub struct DoctorRequest {
    /// What is to run here.
    pub config: Option<Box<Config>>,
    /// Which interfaces; those of the configuration, or all, if empty.
    pub interfaces: Vec<String>,
    /// As JSON.
    pub json: bool,
}

/// `breakwater status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusRequest {
    /// The daemon's socket, if not the usual one.
    pub socket: Option<PathBuf>,
    /// As JSON.
    pub json: bool,
}

/// `breakwater ban …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BanRequest {
    /// Ban a network that the ban map can hold.
    Add {
        /// IPv4 /32 or /24, IPv6 /128, /64, /56 or /48; no bits beyond the prefix.
        network: IpNet,
        /// From now.
        duration: Duration,
        /// For people; one line of at most [`MAX_REASON_CHARS`](super::MAX_REASON_CHARS).
        reason: Option<String>,
    },
    /// Lift a ban.
    Delete {
        /// Exactly as it was banned.
        network: IpNet,
    },
    /// Show the bans in force.
    List {
        /// As JSON.
        json: bool,
    },
}

/// `breakwater capture`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureRequest {
    /// Where to write; standard output if absent.
    pub file: Option<PathBuf>,
    /// What of it.
    pub sampled: Sampled,
    /// Only these reasons; all if empty.
    pub reasons: Vec<Reason>,
    /// Only these sources; all if empty.
    pub sources: Vec<IpNet>,
    /// Only these interfaces; all if empty.
    pub interfaces: Vec<String>,
    /// Packets after which it ends.
    pub count: Option<u64>,
    /// Time after which it ends.
    pub duration: Option<Duration>,
    /// Whether a file that is there may be overwritten.
    pub overwrite: bool,
}

/// Which samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampled {
    /// Of what was dropped.
    Dropped,
    /// Of what was only observed, and passed.
    Observed,
    /// Of both.
    Both,
}

/// `breakwater top`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopRequest {
    /// Time between two readings.
    pub interval: Duration,
    /// One picture, as text or JSON, instead of a live view.
    pub once: Option<Format>,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// `breakwater list …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListRequest {
    /// Show what is in force.
    Show {
        /// Only this list.
        list: Option<List>,
        /// How.
        format: Format,
    },
    /// Change one of the lists.
    Change {
        /// Which.
        list: List,
        /// How.
        change: ListChange,
        /// The networks; none twice.
        networks: Vec<IpNet>,
        /// For good, in the file that this configuration names.
        config: Option<PathBuf>,
    },
}

/// What becomes of the networks that a change names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListChange {
    /// They are added.
    Add,
    /// They are taken off.
    Remove,
    /// They are the operator's part from now on.
    Replace,
}

/// What `service` is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceRequest {
    /// Show the direct services.
    List {
        /// How.
        format: Format,
    },
    /// Give a backend no new connections, or give it some again.
    Drain {
        /// Name of the service.
        service: String,
        /// Address of the backend.
        backend: std::net::IpAddr,
        /// Which of the two.
        drained: bool,
    },
}

/// What `steer` is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SteerRequest {
    /// The flow.
    pub question: crate::kernel::steering::Question,
    /// How to answer.
    pub format: Format,
}

/// `breakwater diff`.
#[derive(Debug, Clone)]
pub struct DiffRequest {
    /// The configuration that is in force, checked.
    pub old: Box<Config>,
    /// The other.
    pub new: Box<Config>,
    /// What was asked for.
    pub recorded: crate::lifecycle::Shapes,
    /// How to answer.
    pub format: Format,
}

/// What `explain` is asked for.
#[derive(Debug, Clone)]
pub struct ExplainRequest {
    /// The configuration, checked.
    pub config: Box<Config>,
    /// The request.
    pub asked: crate::gateway::explain::Asked,
    /// Keys that a provider fetches are fetched.
    pub fetch_keys: bool,
    /// How to answer.
    pub format: Format,
}
