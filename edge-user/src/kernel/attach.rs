//! Attaches the shield to interfaces and takes it off again. Both are idempotent.
//!
//! A pinned link keeps the program on its interface when the daemon is gone. A new program takes the old one's
//! place by one atomic update of that link, so no packet passes unfiltered.

use std::{fs, io};

use aya::{
    Ebpf,
    programs::{
        ProgramError, XdpMode,
        links::{FdLink, PinnedLink},
        loaded_programs,
        xdp::{XdpError, XdpLink},
    },
};
use serde::Serialize;

use super::{
    KernelError, Pins,
    interfaces::{Interface, Netlink, XdpState},
    loader,
};
use crate::config::AttachMode;

/// What an attachment came to.
#[derive(Debug, Clone, Serialize)]
pub struct Attached {
    /// The interface.
    pub interface: String,
    /// `native` or `generic`.
    pub mode: &'static str,
    /// Id of the program.
    pub program: u32,
    /// The program took the place of an earlier one of ours.
    pub adopted: bool,
    /// Why native mode was refused, where generic was taken instead.
    pub native_refused: Option<String>,
}

/// How to attach.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// Wanted mode.
    pub mode: AttachMode,
    /// `auto` may fall back to generic.
    pub allow_generic: bool,
    /// Take a foreign program's place.
    pub replace: bool,
}

/// Attaches the loaded object to `name`, or updates the link that is there.
///
/// # Errors
/// No such interface, a foreign program on it, or the driver refuses.
pub async fn attach(
    ebpf: &mut Ebpf,
    pins: &Pins,
    netlink: &Netlink,
    name: &str,
    how: How,
) -> Result<Attached, KernelError> {
    let interface = netlink.interface(name).await?;
    let adopted = adopt(ebpf, pins, &interface, how)?;
    let mut native_refused = None;
    if !adopted {
        if let Some(id) = interface.xdp.program() {
            make_way(netlink, &interface, id, how).await?;
        }
        native_refused = attach_new(ebpf, pins, &interface, how)?;
    }
    let now = netlink.interface(name).await?;
    Ok(Attached {
        interface: name.to_owned(),
        mode: now.xdp.name(),
        program: now.xdp.program().unwrap_or_default(),
        adopted,
        native_refused,
    })
}

/// Takes the shield off `name`. Returns whether it was on.
///
/// # Errors
/// The pin cannot be removed.
pub fn detach(pins: &Pins, name: &str) -> Result<bool, KernelError> {
    match fs::remove_file(pins.link(name)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(KernelError::Privilege {
            missing: "the right to change the pinned state".into(),
            what: "taking the shield off",
            works: "without it `check` and `token` work",
        }),
        Err(error) => Err(KernelError::io(format!("removing {}", pins.link(name).display()))(error)),
    }
}

/// Puts the new program behind an existing link of ours. Returns whether there was one that works.
fn adopt(ebpf: &mut Ebpf, pins: &Pins, interface: &Interface, how: How) -> Result<bool, KernelError> {
    let path = pins.link(&interface.name);
    if !path.exists() {
        return Ok(false);
    }
    let wanted = match (how.mode, interface.xdp) {
        // No program at all: the interface was made anew under the same name, and the link points nowhere.
        (AttachMode::Native, XdpState::Generic(_))
        | (AttachMode::Generic, XdpState::Native(_))
        | (_, XdpState::None) => false,
        _ => true,
    };
    if !wanted {
        tracing::warn!(interface = %interface.name, was = interface.xdp.name(), "attaching anew: the old link does not fit");
        detach(pins, &interface.name)?;
        return Ok(false);
    }
    let pinned = PinnedLink::from_pin(&path)
        .map_err(|error| KernelError::io("opening the pinned link")(io::Error::other(error)))?;
    let link = XdpLink::try_from(FdLink::from(pinned))
        .map_err(|error| KernelError::io("opening the pinned link")(io::Error::other(error)))?;
    let program = loader::program(ebpf, loader::PROGRAM)?;
    match program.attach_to_link(link) {
        // The pin holds the link; this handle to it is closed with the object.
        Ok(_id) => Ok(true),
        Err(error) => {
            tracing::warn!(interface = %interface.name, %error, "the pinned link is dead: attaching anew");
            detach(pins, &interface.name)?;
            Ok(false)
        }
    }
}

/// Refuses a foreign program's interface, or clears it if that was asked for.
async fn make_way(netlink: &Netlink, interface: &Interface, id: u32, how: How) -> Result<(), KernelError> {
    let name = loaded_programs()
        .flatten()
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned))
        .unwrap_or_default();
    if !how.replace {
        return Err(KernelError::ForeignProgram {
            interface: interface.name.clone(),
            name,
            id,
        });
    }
    netlink.clear_xdp(interface).await?;
    tracing::warn!(interface = %interface.name, program = id, name, "removed a foreign XDP program");
    Ok(())
}

/// Attaches anew and pins the link. Returns why native mode was refused, if generic was taken instead.
fn attach_new(
    ebpf: &mut Ebpf,
    pins: &Pins,
    interface: &Interface,
    how: How,
) -> Result<Option<String>, KernelError> {
    match how.mode {
        AttachMode::Native => try_mode(ebpf, pins, interface, XdpMode::Driver).map(|()| None),
        AttachMode::Generic => try_mode(ebpf, pins, interface, XdpMode::Skb).map(|()| None),
        AttachMode::Auto => match try_mode(ebpf, pins, interface, XdpMode::Driver) {
            Ok(()) => Ok(None),
            Err(KernelError::Attach { reason, .. }) if how.allow_generic => {
                try_mode(ebpf, pins, interface, XdpMode::Skb)?;
                Ok(Some(reason))
            }
            Err(KernelError::Attach {
                interface,
                mode,
                reason,
            }) => Err(KernelError::Attach {
                interface,
                mode,
                reason: format!(
                    "{reason}\n  generic mode works on every interface but protects less: ask for it with \
                     `--mode generic`, or let auto take it with shield.allow_generic = true"
                ),
            }),
            Err(other) => Err(other),
        },
    }
}

fn try_mode(ebpf: &mut Ebpf, pins: &Pins, interface: &Interface, mode: XdpMode) -> Result<(), KernelError> {
    let program = loader::program(ebpf, loader::PROGRAM)?;
    let id = program
        .attach_to_if_index(interface.index, mode)
        .map_err(|error| refused(interface, mode, &error))?;
    let link = program
        .take_link(id)
        .map_err(KernelError::program("taking the link"))?;
    let link = FdLink::try_from(link).map_err(|_| KernelError::Attach {
        interface: interface.name.clone(),
        mode: mode_name(mode),
        reason: "the kernel gave no link to pin; it is needed for the shield to outlive the daemon".into(),
    })?;
    link.pin(pins.link(&interface.name))
        .map_err(|error| KernelError::io("pinning the link")(io::Error::other(error)))?;
    Ok(())
}

const fn mode_name(mode: XdpMode) -> &'static str {
    match mode {
        XdpMode::Skb => "generic",
        XdpMode::Default | XdpMode::Driver | XdpMode::Hardware => "native",
    }
}

/// Puts the kernel's refusal into words.
fn refused(interface: &Interface, mode: XdpMode, error: &ProgramError) -> KernelError {
    let code = os_error(error);
    let said = code.map_or_else(
        || error.to_string(),
        |code| io::Error::from_raw_os_error(code).to_string(),
    );
    let meaning = match code {
        Some(95) => "the driver has no native XDP",
        Some(22 | 34) if interface.mtu > MAX_NATIVE_MTU => {
            "the MTU is too large for one page a packet: lower it to 3498 or less"
        }
        Some(22) => {
            "large receive offload or hardware GRO may be on: `ethtool -K IFACE lro off rx-gro-hw off`"
        }
        Some(28) => "too few transmit queues for one a CPU: `ethtool -L IFACE combined N`",
        Some(16) => "another program is attached",
        Some(1) => "not permitted: CAP_NET_ADMIN is missing",
        _ => "",
    };
    let reason = if meaning.is_empty() {
        said
    } else {
        format!("{said}: {meaning}")
    };
    KernelError::Attach {
        interface: interface.name.clone(),
        mode: mode_name(mode),
        reason,
    }
}

/// What fits a 4 KiB page beside 256 bytes of headroom and the skb's trailer.
const MAX_NATIVE_MTU: u32 = 3_498;

fn os_error(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(syscall) => syscall.io_error.raw_os_error(),
        ProgramError::XdpError(XdpError::NetlinkError(netlink)) => netlink.raw_os_error(),
        _ => None,
    }
}
