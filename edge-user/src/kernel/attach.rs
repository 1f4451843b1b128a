//! Attaches the shield to interfaces and takes it off again. Both are idempotent.
//!
//! A pinned link keeps the program on its interface when the daemon is gone. A new program takes the old one's
//! place by one atomic update of that link, so no packet passes unfiltered.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    time::Duration,
};

use aya::{
    Ebpf,
    programs::{
        ProgramError, XdpMode,
        links::{FdLink, PinnedLink},
        xdp::{XdpError, XdpLink},
    },
};
use serde::Serialize;

use super::{
    KernelError, Pins, foreign,
    interfaces::{Interface, Netlink, XdpState},
    loader, preflight,
};
use crate::config::AttachMode;

/// How often, and how far apart, an interface is looked at whose link was taken off.
const OFF_LOOKS: u32 = 500;
const OFF_PAUSE: Duration = Duration::from_millis(2);

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
    let adoption = adopt(ebpf, pins, &interface, how)?;
    if matches!(adoption, Adoption::TakenOff(_)) {
        wait_until_off(netlink, name).await?;
    }
    let mut native_refused = None;
    if !matches!(adoption, Adoption::Done) {
        if matches!(adoption, Adoption::NotOurs)
            && let Some(id) = interface.xdp.program()
        {
            make_way(netlink, &interface, id, how).await?;
        }
        native_refused = match attach_new(ebpf, pins, netlink, &interface, how).await {
            Ok(why) => why,
            Err(error) => {
                if let Adoption::TakenOff(mode) = adoption {
                    // Rather in the old mode than not at all.
                    match try_mode(ebpf, pins, &interface, mode) {
                        Ok(()) => tracing::warn!(interface = name, mode = mode_name(mode), "stays as it was"),
                        Err(second) => {
                            tracing::error!(interface = name, %second, "and not in the old mode either");
                        }
                    }
                }
                return Err(error);
            }
        };
    }
    let now = netlink.interface(name).await?;
    Ok(Attached {
        interface: name.to_owned(),
        mode: now.xdp.name(),
        program: now.xdp.program().unwrap_or_default(),
        adopted: matches!(adoption, Adoption::Done),
        native_refused,
    })
}

/// Whether somebody else's program is on `name`: asked while there is the right to learn its name.
///
/// # Errors
/// It is; or there is no such interface.
pub async fn refuse_foreign(pins: &Pins, netlink: &Netlink, name: &str) -> Result<(), KernelError> {
    let interface = netlink.interface(name).await?;
    let is_ours = pins.link(name).exists() || pins.foreign_link(name).is_some();
    match interface.xdp.program() {
        Some(id) if !is_ours => Err(KernelError::ForeignProgram {
            interface: interface.name,
            name: foreign::name(id),
            id,
        }),
        _ => Ok(()),
    }
}

/// Waits until a link that was unpinned is gone: the kernel ends it a moment later, on a thread of its own
/// (kernel/bpf/syscall.c, `bpf_link_put`).
async fn wait_until_off(netlink: &Netlink, name: &str) -> Result<(), KernelError> {
    for _ in 0..OFF_LOOKS {
        if netlink.interface(name).await?.xdp == XdpState::None {
            break;
        }
        tokio::time::sleep(OFF_PAUSE).await;
    }
    Ok(())
}

/// What became of a link of ours.
enum Adoption {
    /// The new program is behind it.
    Done,
    /// There is none.
    NotOurs,
    /// It was in this mode, which is not the wanted one, and is gone.
    TakenOff(XdpMode),
}

/// Takes the shield off `name`. Returns whether it was on.
///
/// # Errors
/// The pin cannot be removed.
pub fn detach(pins: &Pins, name: &str) -> Result<bool, KernelError> {
    unpin(&pins.link(name))
}

fn unpin(link: &Path) -> Result<bool, KernelError> {
    match fs::remove_file(link) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(KernelError::Privilege {
            missing: "the right to change the pinned state".into(),
            what: "taking the shield off",
            works: "without it `check` and `token` work",
        }),
        Err(error) => Err(KernelError::io(format!("removing {}", link.display()))(error)),
    }
}

/// Puts the new program behind an existing link of ours.
fn adopt(ebpf: &mut Ebpf, pins: &Pins, interface: &Interface, how: How) -> Result<Adoption, KernelError> {
    let own = pins.link(&interface.name);
    let foreign = if own.exists() {
        None
    } else {
        pins.foreign_link(&interface.name)
    };
    let path = match &foreign {
        Some(other) => other,
        None if own.exists() => &own,
        None => return Ok(Adoption::NotOurs),
    };
    let was = match interface.xdp {
        XdpState::Generic(_) => Adoption::TakenOff(XdpMode::Skb),
        XdpState::Native(_) => Adoption::TakenOff(XdpMode::Driver),
        XdpState::None | XdpState::Offloaded(_) | XdpState::Several(_) => Adoption::NotOurs,
    };
    let wanted = match (how.mode, interface.xdp) {
        // No program at all: the interface was made anew under the same name, and the link points nowhere.
        (AttachMode::Native, XdpState::Generic(_))
        | (AttachMode::Generic, XdpState::Native(_))
        | (_, XdpState::None) => false,
        _ => true,
    };
    if !wanted {
        tracing::warn!(interface = %interface.name, was = interface.xdp.name(), "attaching anew: the old link does not fit");
        unpin(path)?;
        return Ok(was);
    }
    let pinned = PinnedLink::from_pin(path)
        .map_err(|error| KernelError::io("opening the pinned link")(io::Error::other(error)))?;
    let link = XdpLink::try_from(FdLink::from(pinned))
        .map_err(|error| KernelError::io("opening the pinned link")(io::Error::other(error)))?;
    let program = loader::program(ebpf, loader::PROGRAM)?;
    match program.attach_to_link(link) {
        // The pin holds the link; this handle to it is closed with the object.
        Ok(_id) => {
            if let Some(other) = &foreign {
                take_over_layout(pins, &interface.name, other)?;
            }
            Ok(Adoption::Done)
        }
        // Its interface is gone, or the old program is of another kind (net/core/dev.c, `bpf_xdp_link_update`).
        Err(error) if matches!(os_error(&error), Some(ENOLINK | EINVAL)) => {
            tracing::warn!(interface = %interface.name, %error, "the pinned link is dead: attaching anew");
            unpin(path)?;
            Ok(Adoption::NotOurs)
        }
        // The driver does not want the new program; the old one stays on.
        Err(error) => Err(refused(interface, wanted_mode(interface.xdp), &error)),
    }
}

/// `ENOLINK` and `EINVAL` (include/uapi/asm-generic/errno.h).
const ENOLINK: i32 = 67;
const EINVAL: i32 = 22;

const fn wanted_mode(state: XdpState) -> XdpMode {
    match state {
        XdpState::Generic(_) => XdpMode::Skb,
        _ => XdpMode::Driver,
    }
}

/// Takes over the link of a shield with another layout of maps, whose program is exchanged already. Its maps cannot be read
/// by this version.
fn take_over_layout(pins: &Pins, name: &str, other: &Path) -> Result<(), KernelError> {
    fs::rename(other, pins.link(name))
        .map_err(KernelError::io(format!("taking over {}", other.display())))?;
    tracing::warn!(
        interface = name,
        from = %other.display(),
        "the shield of another version is replaced in place; its bans and what was listed by hand are not taken over"
    );
    Ok(())
}

/// Gives a link back that was taken over from `other`: the interface keeps a program whatever becomes of this start.
///
/// # Errors
/// The pin cannot be moved.
pub fn give_back(pins: &Pins, name: &str, other: &Path) -> Result<(), KernelError> {
    let own = pins.link(name);
    if other.exists() || !own.exists() {
        return Ok(());
    }
    tracing::warn!(interface = name, to = %other.display(), "the shield stays on: its link is given back");
    fs::rename(own, other).map_err(KernelError::io(format!("giving back {}", other.display())))
}

/// Refuses a foreign program's interface, or clears it if that was asked for.
async fn make_way(netlink: &Netlink, interface: &Interface, id: u32, how: How) -> Result<(), KernelError> {
    let name = foreign::name(id);
    if !how.replace {
        return Err(KernelError::ForeignProgram {
            interface: interface.name.clone(),
            name,
            id,
        });
    }
    // One that was put there by netlink is cleared the same way; one that a BPF link holds goes with the link.
    let by_link = foreign::detach_link(interface, id).unwrap_or(false);
    if !by_link {
        netlink.clear_xdp(interface).await?;
    }
    tracing::warn!(interface = %interface.name, program = id, name, "removed a foreign XDP program");
    Ok(())
}

/// Attaches anew and pins the link. Returns why native mode was refused, if generic was taken instead.
async fn attach_new(
    ebpf: &mut Ebpf,
    pins: &Pins,
    netlink: &Netlink,
    interface: &Interface,
    how: How,
) -> Result<Option<String>, KernelError> {
    if how.mode == AttachMode::Generic {
        return try_mode(ebpf, pins, interface, XdpMode::Skb).map(|()| None);
    }
    let refusal = match try_mode(ebpf, pins, interface, XdpMode::Driver) {
        Ok(()) => return Ok(None),
        Err(KernelError::Attach { reason, .. }) => reason,
        Err(other) => return Err(other),
    };
    let reason = explain(ebpf, netlink, interface, refusal).await;
    let refused = |reason| KernelError::Attach {
        interface: interface.name.clone(),
        mode: mode_name(XdpMode::Driver),
        reason,
    };
    match how.mode {
        AttachMode::Auto if how.allow_generic => {
            try_mode(ebpf, pins, interface, XdpMode::Skb)?;
            Ok(Some(reason))
        }
        AttachMode::Auto => Err(refused(format!(
            "{reason}\n  generic mode works on every interface but protects less: ask for it with \
             `--mode generic`, or let auto take it with shield.allow_generic = true"
        ))),
        AttachMode::Native | AttachMode::Generic => Err(refused(reason)),
    }
}

/// Adds the driver's own words and what of the interface may be in the way.
async fn explain(ebpf: &mut Ebpf, netlink: &Netlink, interface: &Interface, said: String) -> String {
    let fd = loader::program(ebpf, loader::PROGRAM)
        .ok()
        .and_then(|program| Some(program.fd().ok()?.as_fd().as_raw_fd()));
    let mut reason = said;
    if let Some(fd) = fd
        && let Some(words) = netlink.why_not_native(interface, fd).await
    {
        reason.push_str("; the driver says: ");
        reason.push_str(&words);
    }
    for obstacle in preflight::obstacles(interface) {
        reason.push_str("\n  ");
        reason.push_str(&obstacle);
    }
    reason
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
        Some(28) => "too few queues",
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

fn os_error(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(syscall) => syscall.io_error.raw_os_error(),
        ProgramError::XdpError(XdpError::NetlinkError(netlink)) => netlink.raw_os_error(),
        _ => None,
    }
}
