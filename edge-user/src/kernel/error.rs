//! What can go wrong with the kernel side, in words that say what to do.

use std::{io, path::PathBuf};

use crate::config::PortRange;

/// Why an operation on the shield failed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A capability is missing.
    #[error("missing {missing}: {what}\n  run as root, or grant the capability; {works}")]
    Privilege {
        /// The capabilities, comma-separated.
        missing: String,
        /// What needs them.
        what: &'static str,
        /// What still works without.
        works: &'static str,
    },
    /// The kernel cannot run the program.
    #[error("this kernel cannot run the shield: {0}")]
    Unsupported(String),
    /// There is no BPF file system where the state is pinned.
    #[error("no BPF file system at {path}: {source}\n  mount one: mount -t bpf bpf {path}")]
    NoBpffs {
        /// Where it was expected.
        path: PathBuf,
        /// Why it could not be mounted.
        source: io::Error,
    },
    /// No such interface.
    #[error("interface {0} does not exist; `ip link` lists them")]
    NoInterface(String),
    /// Something else is attached.
    #[error(
        "interface {interface} already runs the XDP program {name:?} (id {id})\n  \
         it is not Breakwater's: detach it, or let `--replace` take its place"
    )]
    ForeignProgram {
        /// The interface.
        interface: String,
        /// Name of the program, as the kernel keeps it.
        name: String,
        /// Its id.
        id: u32,
    },
    /// The driver refused.
    #[error("cannot attach to {interface} in {mode} mode: {reason}")]
    Attach {
        /// The interface.
        interface: String,
        /// `native` or `generic`.
        mode: &'static str,
        /// What the kernel said, and what it usually means.
        reason: String,
    },
    /// Another daemon runs.
    #[error(
        "another `breakwater run` has the shield at {0}\n  stop it first, or give this one a place of its own with --bpffs"
    )]
    Claimed(PathBuf),
    /// Somebody else made the pin directory, or may write to it.
    #[error(
        "{0} belongs to somebody else, or others may write to it: they could take the shield off\n  see who made it, and remove it"
    )]
    ForeignDirectory(PathBuf),
    /// The shield is not there.
    #[error(
        "the shield is not attached (nothing pinned at {0})\n  `breakwater run` or `breakwater attach` starts it"
    )]
    NotAttached(PathBuf),
    /// What is pinned is not what was pinned.
    #[error(
        "the pinned state at {root} is damaged: {what}\n  what is attached goes on as it is; \
         `breakwater detach` takes it off, with its bans, and the next start makes it anew"
    )]
    Damaged {
        /// Where.
        root: PathBuf,
        /// The first thing that is wrong.
        what: String,
    },
    /// The ban table is full of bans that cannot be merged.
    #[error(
        "the ban table is full ({capacity} bans) and no two of them share a network to merge\n  raise shield.max_bans"
    )]
    BansFull {
        /// Its capacity.
        capacity: u32,
    },
    /// The prefix length is not one that bans are kept at.
    #[error("cannot ban {net}: bans are kept at /32 and /24 (IPv4) and /128, /64, /56 and /48 (IPv6)")]
    BanPrefix {
        /// What was asked for.
        net: ipnet::IpNet,
    },
    /// An address that must never be banned.
    #[error("refusing to ban {net}: it covers {why}")]
    BanRefused {
        /// What was asked for.
        net: ipnet::IpNet,
        /// What it covers.
        why: String,
    },
    /// A list would have more entries than it has room for.
    #[error(
        "the {list} list would have {count} networks, {by_operator} of them added by hand; {most} is the most\n  \
         join neighbouring networks, or remove some"
    )]
    ListFull {
        /// `allow` or `deny`.
        list: &'static str,
        /// Entries it would have.
        count: usize,
        /// Those only in the operator's part.
        by_operator: usize,
        /// Room.
        most: usize,
    },
    /// What is to be removed would stay in force.
    #[error(
        "the configuration has {} on the {list} list: nothing was removed\n  \
         remove it there as well, or let `--config FILE` do it",
        some(nets)
    )]
    ListedElsewhere {
        /// `allow` or `deny`.
        list: &'static str,
        /// Which.
        nets: Vec<ipnet::IpNet>,
    },
    /// What is to be listed is on the other list.
    #[error(
        "{} is on the {other} list: nothing was changed\n  \
         allowing beats denying, so remove it there first; a narrower network on the allow list makes an exception",
        some(nets)
    )]
    Contradicted {
        /// The other list.
        other: &'static str,
        /// Which.
        nets: Vec<ipnet::IpNet>,
    },
    /// More services than the tables hold.
    #[error("{count} services: at most {max} fit")]
    TooManyServices {
        /// Wanted.
        count: usize,
        /// Most.
        max: u32,
    },
    /// A direct service, and no program that steers.
    #[error(
        "service.direct: `{service}` cannot be direct on this kernel: {why}\n  \
         nothing was attached for it; without `direct` the service works"
    )]
    CannotSteer {
        /// Name of the service.
        service: String,
        /// What the kernel said.
        why: String,
    },
    /// No room for a direct service.
    #[error(
        "service {service}: the kernel's tables have no room for {what}; `breakwater detach` empties them"
    )]
    NoRoomToSteer {
        /// Identifier of the service.
        service: u16,
        /// For what.
        what: &'static str,
    },
    /// No direct service of this name.
    #[error("no direct service is called `{0}`; `breakwater service list` shows those there are")]
    NoSuchDirect(String),
    /// No backend of this address.
    #[error(
        "the service `{service}` has no backend {backend}; `breakwater service list` shows those there are"
    )]
    NoSuchBackend {
        /// Name of the service.
        service: String,
        /// Its address.
        backend: std::net::IpAddr,
    },
    /// A flow between address families.
    #[error("{from} and {to} are of different address families")]
    MixedFamilies {
        /// The client.
        from: std::net::SocketAddr,
        /// The service.
        to: std::net::SocketAddr,
    },
    /// A backend that no route leads to.
    #[error(
        "service.backend.address: {backend}, a backend of `{service}`, is in no network that a route leads to"
    )]
    Unreachable {
        /// Name of the service.
        service: String,
        /// Its address.
        backend: std::net::IpAddr,
    },
    /// Backends would answer to an address of somebody else's.
    #[error(
        "service.nat_source: {address}, of `{service}`, is no address of this machine, so no answer comes here"
    )]
    NatSource {
        /// Name of the service.
        service: String,
        /// The address.
        address: std::net::IpAddr,
    },
    /// The stack gives ports that answers come to to connections of its own.
    #[error(
        "service.nat_ports: {ports}, of `{service}`, are also this machine's own ({own}): name others, or `sysctl -w \
         net.ipv4.ip_local_port_range`"
    )]
    NatPorts {
        /// Name of the service.
        service: String,
        /// Its ports.
        ports: PortRange,
        /// The stack's.
        own: PortRange,
    },
    /// The kernel answers no look-up of a route for packets that arrive here.
    #[error(
        "{setting} is 0, and the kernel looks up no route for what arrives on {interface} then; direct services need it: \
         `sysctl -w {setting}=1`"
    )]
    NotForwarding {
        /// The interface.
        interface: String,
        /// Name of the setting.
        setting: String,
    },
    /// A rate that cells cannot count at this kernel's tick rate.
    #[error("service {service}: {limit}: {reason}")]
    Rate {
        /// The service.
        service: String,
        /// Which limit.
        limit: &'static str,
        /// Why.
        reason: String,
    },
    /// A map operation failed.
    #[error("{what}: {source}")]
    Map {
        /// What was attempted.
        what: &'static str,
        /// aya's word for it.
        source: aya::maps::MapError,
    },
    /// A program operation failed. The verifier's whole log is too long for anybody but a developer; its last word is told.
    #[error("{what}: {}", super::handed::why(source))]
    Program {
        /// What was attempted.
        what: &'static str,
        /// aya's word for it.
        source: Box<aya::programs::ProgramError>,
    },
    /// The object could not be loaded.
    #[error("loading the shield: {0}")]
    Load(Box<aya::EbpfError>),
    /// A file operation failed.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// The system's word for it.
        source: io::Error,
    },
}

impl KernelError {
    /// Wraps an I/O error with what was attempted.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// Wraps a map error with what was attempted.
    pub fn map(what: &'static str) -> impl FnOnce(aya::maps::MapError) -> Self {
        move |source| Self::Map { what, source }
    }

    /// Wraps a program error with what was attempted.
    pub fn program(what: &'static str) -> impl FnOnce(aya::programs::ProgramError) -> Self {
        move |source| Self::Program {
            what,
            source: Box::new(source),
        }
    }

    /// The process's exit code for it.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Privilege { .. } => 4,
            Self::Unsupported(_) | Self::CannotSteer { .. } => 5,
            Self::NoBpffs { .. }
            | Self::NoInterface(_)
            | Self::ForeignProgram { .. }
            | Self::Attach { .. }
            | Self::NotAttached(_)
            | Self::Claimed(_)
            | Self::ForeignDirectory(_)
            | Self::BansFull { .. }
            | Self::ListedElsewhere { .. }
            | Self::Contradicted { .. }
            | Self::Map { .. }
            | Self::Program { .. }
            | Self::Load(_)
            | Self::Damaged { .. }
            | Self::NoRoomToSteer { .. }
            | Self::NotForwarding { .. }
            | Self::Io { .. } => 1,
            Self::NoSuchDirect(_)
            | Self::NoSuchBackend { .. }
            | Self::MixedFamilies { .. }
            | Self::BanPrefix { .. }
            | Self::BanRefused { .. } => 2,
            Self::Unreachable { .. }
            | Self::NatSource { .. }
            | Self::NatPorts { .. }
            | Self::ListFull { .. }
            | Self::TooManyServices { .. }
            | Self::Rate { .. } => 3,
        }
    }
}

/// The first few of a list.
fn some(nets: &[ipnet::IpNet]) -> String {
    const SHOWN: usize = 5;
    let mut text = nets
        .iter()
        .take(SHOWN)
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    if nets.len() > SHOWN {
        text.push_str(" and more");
    }
    text
}
