//! The topology every end-to-end test runs in.
//!
//! ```text
//!  client   eth0 ───── wan0 ┐
//!  attacker eth0 ───── wan1 ├ edge ── lan0 ───── eth0 origin
//!  (more)   eth0 ───── wanN ┘
//! ```
//!
//! The edge is the next hop of every host and forwards between them. The address under protection ([`VIP_V4`],
//! [`VIP_V6`]) is on its loopback, as on an edge that announces it. Hosts lie in different networks (IPv4 /24, IPv6
//! /48), so a limit or ban of one host's network never meets another. Asked for, the outer links carry one or two VLAN
//! tags, which are in the packets' bytes and not in the descriptor beside them, so XDP sees them.
//!
//! Links are direct: nothing but the edge judges, alters or reorders a frame.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result};
use rustix::process::{Signal, kill_process};

use crate::{
    bpffs::BpfDirectory,
    frame::{Frame, Mac, TPID_8021AD, TPID_8021Q, Tag},
    identity::{self, Identity},
    netns::Namespace,
    offload, skip,
    wait::within,
};

/// IPv4 address of the edge's services.
pub const VIP_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// IPv6 address of the edge's services.
pub const VIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
/// A second IPv4 address of the edge, for what is not protected.
pub const OTHER_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// A second IPv6 address of the edge, for what is not protected.
pub const OTHER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 2);
/// Most hosts outside of the edge.
pub const MAX_HOSTS: usize = 16;

/// VLAN tags of the outer links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tagging {
    /// None.
    #[default]
    None,
    /// One 802.1Q tag of this id.
    Single(u16),
    /// An 802.1ad tag around an 802.1Q tag.
    Double {
        /// Id of the service tag.
        outer: u16,
        /// Id of the customer tag.
        inner: u16,
    },
}

/// A machine beside the edge.
#[derive(Debug)]
pub struct Host {
    /// Where it lives.
    pub namespace: Namespace,
    /// The link, below any VLAN: raw frames go here.
    pub interface: &'static str,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    /// Its Ethernet address.
    pub mac: Mac,
    /// The edge's Ethernet address on this link.
    pub edge_mac: Mac,
    /// The edge's interface of this link, below any VLAN: what a shield attaches to.
    pub edge_interface: String,
    /// The edge's IPv4 address on this link.
    pub edge_v4: Ipv4Addr,
    /// The edge's IPv6 address on this link.
    pub edge_v6: Ipv6Addr,
    /// The tags of this link, outermost first.
    pub tags: Vec<Tag>,
}

impl Host {
    /// Its address in the family of `peer`.
    pub fn address_towards(&self, peer: IpAddr) -> IpAddr {
        if peer.is_ipv4() {
            self.v4.into()
        } else {
            self.v6.into()
        }
    }

    /// The frame as this host would send it to the edge: Ethernet addresses and tags of its link.
    pub fn frame(&self, frame: Frame) -> Vec<u8> {
        Frame {
            source_mac: self.mac,
            destination_mac: self.edge_mac,
            tags: self.tags.clone(),
            ..frame
        }
        .bytes()
    }
}

/// How a lab is to be built.
#[derive(Debug, Clone)]
pub struct LabOptions {
    name: String,
    outside: Vec<String>,
    tagging: Tagging,
}

impl LabOptions {
    /// Tags the outer links.
    #[must_use]
    pub fn tagging(mut self, tagging: Tagging) -> Self {
        self.tagging = tagging;
        self
    }

    /// Adds a host outside of the edge, beside `client` and `attacker`.
    #[must_use]
    pub fn host(mut self, role: &str) -> Self {
        self.outside.push(role.to_owned());
        self
    }

    /// Builds the lab. `None`, after saying why, when this machine cannot.
    ///
    /// # Panics
    /// When the machine can and something still fails.
    #[track_caller]
    pub fn build(self) -> Option<Lab> {
        if let Some(reason) = skip::missing() {
            skip::report(&self.name, reason);
            return None;
        }
        identity::sweep();
        match Lab::construct(&self) {
            Ok(lab) => Some(lab),
            Err(error) => {
                if let Some(reason) = lacking(&error) {
                    skip::report(&self.name, reason);
                    return None;
                }
                panic!("building the lab {}: {error:#}", self.name)
            }
        }
    }
}

/// Namespaces, links, a directory for pins and one for files; all gone when dropped.
#[derive(Debug)]
pub struct Lab {
    name: String,
    edge: Namespace,
    outside: Vec<Host>,
    origin: Host,
    bpffs: BpfDirectory,
    directory: PathBuf,
}

impl Lab {
    /// A lab with a client, an attacker and an origin, without VLANs. `None`, after saying why, when this machine
    /// cannot.
    #[track_caller]
    pub fn new(name: &str) -> Option<Self> {
        Self::options(name).build()
    }

    /// A lab to be configured first.
    pub fn options(name: &str) -> LabOptions {
        LabOptions {
            name: name.to_owned(),
            outside: vec!["client".to_owned(), "attacker".to_owned()],
            tagging: Tagging::None,
        }
    }

    /// Its name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The machine under test.
    pub fn edge(&self) -> &Namespace {
        &self.edge
    }

    /// The honest host.
    pub fn client(&self) -> &Host {
        &self.outside[0]
    }

    /// The other one.
    pub fn attacker(&self) -> &Host {
        &self.outside[1]
    }

    /// A host by its role.
    pub fn host(&self, role: &str) -> &Host {
        self.outside
            .iter()
            .find(|host| host.namespace.role() == role)
            .expect("the lab has this host")
    }

    /// The machine behind the edge.
    pub fn origin(&self) -> &Host {
        &self.origin
    }

    /// The edge's outer interfaces, below any VLAN.
    pub fn wan_interfaces(&self) -> Vec<String> {
        self.outside
            .iter()
            .map(|host| host.edge_interface.clone())
            .collect()
    }

    /// Where the daemon pins.
    pub fn bpffs(&self) -> &BpfDirectory {
        &self.bpffs
    }

    /// A directory for configuration, keys and logs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes a file into [`Self::directory`], readable by its owner alone.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.directory.join(name);
        fs::write(&path, content).expect("the lab's directory is writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("the owner may restrict a file");
        path
    }

    /// Every process in any of the namespaces, without this one.
    pub fn processes(&self) -> Vec<rustix::process::Pid> {
        self.namespaces().flat_map(Namespace::processes).collect()
    }

    fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        let hosts = self
            .outside
            .iter()
            .chain([&self.origin])
            .map(|host| &host.namespace);
        hosts.chain([&self.edge])
    }

    fn construct(options: &LabOptions) -> Result<Self> {
        assert!(
            options.outside.len() <= MAX_HOSTS,
            "a lab has at most {MAX_HOSTS} hosts"
        );
        let identity = Identity::new();
        // From here on the directories are removed by `Drop`, also when a later step fails.
        let bpffs = BpfDirectory::create(&identity)?;
        let directory = Directory::create(&identity)?;
        let edge = router("edge")?;
        let outside = options
            .outside
            .iter()
            .enumerate()
            .map(|(index, role)| attach_outside(&edge, index, role, options.tagging))
            .collect::<Result<Vec<_>>>()?;
        let origin = attach_origin(&edge)?;
        Ok(Self {
            name: options.name.clone(),
            edge,
            outside,
            origin,
            bpffs,
            directory: directory.keep(),
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Nothing but what the test started can be in these namespaces.
        within(std::time::Duration::from_secs(10), || {
            let left = self.processes();
            for pid in &left {
                let _ = kill_process(*pid, Signal::KILL);
            }
            left.is_empty().then_some(())
        });
        let _ = fs::remove_dir_all(&self.directory);
        if thread::panicking() {
            eprintln!("the lab {} is removed after a panic", self.name);
        }
    }
}

/// A temporary directory that is removed unless kept.
struct Directory(Option<PathBuf>);

impl Directory {
    fn create(identity: &Identity) -> Result<Self> {
        let path = std::env::temp_dir().join(identity.directory());
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(Some(path)))
    }

    fn keep(mut self) -> PathBuf {
        self.0.take().expect("it is kept once")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            let _ = fs::remove_dir_all(path);
        }
    }
}

/// A namespace that forwards and filters no reverse path, with the services' addresses on its loopback.
fn router(role: &str) -> Result<Namespace> {
    let edge = plain(role)?;
    edge.sysctl("ipv4/ip_forward", "1")?;
    edge.sysctl("ipv6/conf/all/forwarding", "1")?;
    edge.ip_batch([
        format!("addr add {VIP_V4}/32 dev lo"),
        format!("addr add {OTHER_V4}/32 dev lo"),
        format!("addr add {VIP_V6}/128 dev lo nodad"),
        format!("addr add {OTHER_V6}/128 dev lo nodad"),
    ])?;
    Ok(edge)
}

/// A namespace in which addresses are usable at once.
fn plain(role: &str) -> Result<Namespace> {
    let namespace = Namespace::create(role)?;
    for scope in ["all", "default"] {
        // A new namespace may inherit these from the machine's own.
        namespace.sysctl(&format!("ipv4/conf/{scope}/rp_filter"), "0")?;
        namespace.sysctl(&format!("ipv6/conf/{scope}/disable_ipv6"), "0")?;
        namespace.sysctl(&format!("ipv6/conf/{scope}/accept_dad"), "0")?;
        namespace.sysctl(&format!("ipv6/conf/{scope}/accept_ra"), "0")?;
    }
    Ok(namespace)
}

fn attach_outside(edge: &Namespace, index: usize, role: &str, tagging: Tagging) -> Result<Host> {
    let net = u8::try_from(index + 1).expect("there are few hosts");
    let block = 0x100 + u16::from(net);
    let host = Host {
        namespace: plain(role)?,
        interface: "eth0",
        v4: Ipv4Addr::new(198, 18, net, 10),
        v6: Ipv6Addr::new(0x2001, 0xdb8, block, 0, 0, 0, 0, 0x10),
        mac: [2, 0xbb, 0, 0, net, 2],
        edge_mac: [2, 0xbb, 0, 0, net, 1],
        edge_interface: format!("wan{index}"),
        edge_v4: Ipv4Addr::new(198, 18, net, 1),
        edge_v6: Ipv6Addr::new(0x2001, 0xdb8, block, 0, 0, 0, 0, 1),
        tags: tagging.tags(),
    };
    connect(edge, &host)?;
    Ok(host)
}

fn attach_origin(edge: &Namespace) -> Result<Host> {
    let host = Host {
        namespace: plain("origin")?,
        interface: "eth0",
        v4: Ipv4Addr::new(198, 51, 100, 10),
        v6: Ipv6Addr::new(0x2001, 0xdb8, 0xaaaa, 0, 0, 0, 0, 0x10),
        mac: [2, 0xbb, 0, 1, 0, 2],
        edge_mac: [2, 0xbb, 0, 1, 0, 1],
        edge_interface: "lan0".to_owned(),
        edge_v4: Ipv4Addr::new(198, 51, 100, 1),
        edge_v6: Ipv6Addr::new(0x2001, 0xdb8, 0xaaaa, 0, 0, 0, 0, 1),
        tags: Vec::new(),
    };
    connect(edge, &host)?;
    Ok(host)
}

/// Makes the link between the edge and a host, with its VLAN devices, addresses and routes.
fn connect(edge: &Namespace, host: &Host) -> Result<()> {
    let near = &host.edge_interface;
    edge.ip_batch([format!(
        "link add {near} address {} type veth peer name {} address {} netns {}",
        mac_text(host.edge_mac),
        host.interface,
        mac_text(host.mac),
        host.namespace.path().display(),
    )])?;
    if !host.tags.is_empty() {
        // The host writes its tags into the packets' bytes; the edge may do as it likes.
        let features = ["tx-vlan-hw-insert", "tx-vlan-stag-hw-insert"];
        offload::switch_off(&host.namespace, host.interface, &features)?;
    }
    let (mut far_commands, far) = vlan_commands(host.interface, &host.tags);
    let (mut near_commands, near) = vlan_commands(near, &host.tags);
    far_commands.extend([
        format!("addr add {}/24 dev {far}", host.v4),
        format!("addr add {}/64 dev {far} nodad", host.v6),
        format!("route add default via {} dev {far}", host.edge_v4),
        format!("route add ::/0 via {} dev {far}", host.edge_v6),
    ]);
    near_commands.extend([
        format!("addr add {}/24 dev {near}", host.edge_v4),
        format!("addr add {}/64 dev {near} nodad", host.edge_v6),
    ]);
    host.namespace.ip_batch(far_commands)?;
    edge.ip_batch(near_commands)
}

/// Commands that bring a link and its VLAN devices up, and the device that carries the addresses.
fn vlan_commands(link: &str, tags: &[Tag]) -> (Vec<String>, String) {
    let mut commands = vec![format!("link set {link} up")];
    let mut device = link.to_owned();
    for tag in tags {
        let inner = format!("{device}.{}", tag.id);
        let protocol = if tag.protocol == TPID_8021AD {
            "802.1ad"
        } else {
            "802.1Q"
        };
        commands.push(format!(
            "link add link {device} name {inner} type vlan protocol {protocol} id {}",
            tag.id
        ));
        // Room for both tags within the link's own frame size.
        commands.push(format!("link set {inner} mtu 1492 up"));
        device = inner;
    }
    (commands, device)
}

impl Tagging {
    /// The tags, outermost first.
    pub fn tags(self) -> Vec<Tag> {
        match self {
            Self::None => Vec::new(),
            Self::Single(id) => vec![Tag {
                protocol: TPID_8021Q,
                id,
            }],
            Self::Double { outer, inner } => {
                vec![
                    Tag {
                        protocol: TPID_8021AD,
                        id: outer,
                    },
                    Tag {
                        protocol: TPID_8021Q,
                        id: inner,
                    },
                ]
            }
        }
    }
}

fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Says which feature of the machine an error shows to be missing; `None` if it is a defect.
fn lacking(error: &anyhow::Error) -> Option<String> {
    let text = format!("{error:#}");
    // What `ip` and the kernel say when a device type's module is neither built in nor loadable.
    let unknown = [
        "Unknown device type",
        "Operation not supported",
        "Operation not permitted",
        "EPERM",
    ];
    unknown
        .iter()
        .any(|phrase| text.contains(phrase))
        .then(|| text.lines().next().unwrap_or_default().to_owned())
}
