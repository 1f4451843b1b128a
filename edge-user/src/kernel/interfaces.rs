//! Network interfaces, as netlink describes them.

use std::{net::IpAddr, os::fd::RawFd};

use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_route::{
    address::AddressAttribute,
    link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached},
};

use rtnetlink::sys::AsyncSocket as _;

use super::KernelError;

/// Attachment modes (include/uapi/linux/if_link.h).
const XDP_FLAGS_UPDATE_IF_NOEXIST: u32 = 1 << 0;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const XDP_FLAGS_HW_MODE: u32 = 1 << 3;

/// How a program is attached to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpState {
    /// None is.
    None,
    /// In the driver.
    Native(u32),
    /// In the stack.
    Generic(u32),
    /// On the card.
    Offloaded(u32),
    /// Several at once, in different modes; the id of one.
    Several(u32),
}

impl XdpState {
    /// Id of the attached program.
    pub const fn program(self) -> Option<u32> {
        match self {
            Self::None => None,
            Self::Native(id) | Self::Generic(id) | Self::Offloaded(id) | Self::Several(id) => Some(id),
        }
    }

    /// Name of the mode.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Native(_) => "native",
            Self::Generic(_) => "generic",
            Self::Offloaded(_) => "offloaded",
            Self::Several(_) => "several",
        }
    }
}

/// One interface.
#[derive(Debug, Clone)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Index.
    pub index: u32,
    /// MTU in bytes.
    pub mtu: u32,
    /// Transmit queues; 0 if the kernel does not tell.
    pub tx_queues: u32,
    /// Attached program.
    pub xdp: XdpState,
}

/// A connection to the kernel's routing subsystem.
#[derive(Debug)]
pub struct Netlink {
    handle: rtnetlink::Handle,
    task: tokio::task::JoinHandle<()>,
}

impl Netlink {
    /// Connects.
    ///
    /// # Errors
    /// No netlink socket can be made.
    pub fn connect() -> Result<Self, KernelError> {
        let (mut connection, handle, _messages) =
            rtnetlink::new_connection().map_err(KernelError::io("opening a netlink socket"))?;
        // Refusals in words, where a driver has some; without them there is still the number.
        _ = connection.socket_mut().socket_mut().set_ext_ack(true);
        Ok(Self {
            handle,
            task: tokio::spawn(connection),
        })
    }

    /// Describes the interface `name`.
    ///
    /// # Errors
    /// There is none, or netlink fails.
    pub async fn interface(&self, name: &str) -> Result<Interface, KernelError> {
        let mut links = Box::pin(self.handle.link().get().match_name(name).execute());
        match links.try_next().await {
            Ok(Some(message)) => Ok(describe(name, &message)),
            Ok(None) | Err(rtnetlink::Error::NetlinkError(_)) => {
                Err(KernelError::NoInterface(name.to_owned()))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Takes whatever XDP program is on `interface` off it.
    ///
    /// A program attached by plain netlink goes with an fd of -1 (include/uapi/linux/if_link.h, `IFLA_XDP_FD`).
    /// One that a BPF link holds belongs to the process or pin that holds the link; the kernel refuses.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn clear_xdp(&self, interface: &Interface) -> Result<(), KernelError> {
        let flags = match interface.xdp {
            XdpState::None => return Ok(()),
            XdpState::Native(_) => XDP_FLAGS_DRV_MODE,
            XdpState::Generic(_) => XDP_FLAGS_SKB_MODE,
            XdpState::Offloaded(_) => XDP_FLAGS_HW_MODE,
            XdpState::Several(_) => 0,
        };
        let mut message = LinkMessage::default();
        message.header.index = interface.index;
        message
            .attributes
            .push(LinkAttribute::Xdp(vec![LinkXdp::Fd(-1), LinkXdp::Flags(flags)]));
        self.handle
            .link()
            .set(message)
            .execute()
            .await
            .map_err(|error| KernelError::Attach {
                interface: interface.name.clone(),
                mode: interface.xdp.name(),
                reason: format!("the foreign program cannot be removed: {error}"),
            })
    }

    /// The driver's own words for refusing a program in native mode: only a netlink request gets to hear them, so one
    /// is made for what a BPF link was just refused for.
    pub async fn why_not_native(&self, interface: &Interface, program: RawFd) -> Option<String> {
        let mut message = LinkMessage::default();
        message.header.index = interface.index;
        message.attributes.push(LinkAttribute::Xdp(vec![
            LinkXdp::Fd(program),
            LinkXdp::Flags(XDP_FLAGS_DRV_MODE | XDP_FLAGS_UPDATE_IF_NOEXIST),
        ]));
        match self.handle.link().set(message).execute().await {
            Err(rtnetlink::Error::NetlinkError(refusal)) => words(&refusal.header),
            Err(_) => None,
            // Allowed after all: take it back, it is held by no link.
            Ok(()) => {
                let now = self.interface(&interface.name).await.ok()?;
                _ = self.clear_xdp(&now).await;
                None
            }
        }
    }

    /// Every address of this machine.
    ///
    /// # Errors
    /// Netlink fails.
    pub async fn addresses(&self) -> Result<Vec<IpAddr>, KernelError> {
        let messages: Vec<_> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(failed)?;
        let mut addresses: Vec<IpAddr> = messages
            .iter()
            .flat_map(|message| &message.attributes)
            .filter_map(|attribute| match attribute {
                // For a point-to-point link `Address` is the peer's, `Local` ours; elsewhere they are the same.
                AddressAttribute::Local(address) | AddressAttribute::Address(address @ IpAddr::V6(_)) => {
                    Some(*address)
                }
                _ => None,
            })
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        Ok(addresses)
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reports changes of this machine's addresses.
#[derive(Debug)]
pub struct AddressWatch {
    changes: tokio::sync::mpsc::Receiver<()>,
    task: tokio::task::JoinHandle<()>,
}

impl AddressWatch {
    /// Subscribes.
    ///
    /// # Errors
    /// No netlink socket can be made.
    pub fn subscribe() -> Result<Self, KernelError> {
        let groups = [
            rtnetlink::MulticastGroup::Ipv4Ifaddr,
            rtnetlink::MulticastGroup::Ipv6Ifaddr,
        ];
        let (connection, _handle, mut messages) = rtnetlink::new_multicast_connection(&groups)
            .map_err(KernelError::io("subscribing to address changes"))?;
        // Room for one: a change that comes while one waits is covered by the same look.
        let (sender, changes) = tokio::sync::mpsc::channel(1);
        let task = tokio::spawn(async move {
            let mut connection = std::pin::pin!(connection);
            loop {
                tokio::select! {
                    () = &mut connection => break,
                    message = messages.next() => match message {
                        Some(_) => _ = sender.try_send(()),
                        None => break,
                    },
                }
            }
        });
        Ok(Self { changes, task })
    }

    /// Waits for the next change; never returns once the subscription broke.
    pub async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for AddressWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn describe(name: &str, message: &LinkMessage) -> Interface {
    let (mut mtu, mut tx_queues) = (0, 0);
    let mut xdp = XdpState::None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(bytes) => mtu = *bytes,
            LinkAttribute::NumTxQueues(queues) => tx_queues = *queues,
            LinkAttribute::Xdp(parts) => xdp = xdp_state(parts),
            _ => {}
        }
    }
    Interface {
        name: name.to_owned(),
        index: message.header.index,
        mtu,
        tx_queues,
        xdp,
    }
}

fn xdp_state(parts: &[LinkXdp]) -> XdpState {
    let id = |parts: &[LinkXdp]| {
        parts.iter().find_map(|part| match part {
            LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => {
                Some(*id)
            }
            _ => None,
        })
    };
    let Some(program) = id(parts) else {
        return XdpState::None;
    };
    let attached = parts.iter().find_map(|part| match part {
        LinkXdp::Attached(attached) => Some(*attached),
        _ => None,
    });
    match attached {
        Some(XdpAttached::Driver) => XdpState::Native(program),
        Some(XdpAttached::SocketBuffer) => XdpState::Generic(program),
        Some(XdpAttached::Hardware) => XdpState::Offloaded(program),
        Some(XdpAttached::Multiple) => XdpState::Several(program),
        _ => XdpState::None,
    }
}

/// The text of an extended acknowledgement: it follows the request that is sent back, in attributes
/// (include/uapi/linux/netlink.h, `NLMSGERR_ATTR_MSG`).
fn words(answer: &[u8]) -> Option<String> {
    const TEXT: u16 = 1;
    let number = |at: usize, bytes: usize| {
        let mut word = [0; 4];
        word[..bytes].copy_from_slice(answer.get(at..at + bytes)?);
        Some(u32::from_le_bytes(word) as usize)
    };
    let mut at = number(0, 4)?.next_multiple_of(4);
    while let (Some(length), Some(kind)) = (number(at, 2), number(at + 2, 2)) {
        if length < 4 {
            return None;
        }
        if kind == usize::from(TEXT) {
            let text = answer.get(at + 4..at + length)?;
            return Some(super::services::text(text));
        }
        at += length.next_multiple_of(4);
    }
    None
}

fn failed(error: rtnetlink::Error) -> KernelError {
    KernelError::Io {
        what: "asking netlink".into(),
        source: std::io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_refusal_follow_the_request_and_other_attributes() {
        // A request of 18 bytes, an attribute of another kind, the text.
        let mut answer = vec![0; 20];
        answer[0] = 18;
        answer.extend([8, 0, 2, 0, 1, 2, 3, 4]);
        answer.extend([11, 0, 1, 0]);
        answer.extend(b"too large\0\0");
        answer[28] = 14;
        assert_eq!(words(&answer).as_deref(), Some("too large"));
        // The last byte is padding.
        for cut in 0..answer.len() - 1 {
            assert_eq!(
                words(&answer[..cut]).filter(|text| text.len() == 9),
                None,
                "{cut}"
            );
        }
        assert_eq!(words(&[0; 64]), None);
    }
}
