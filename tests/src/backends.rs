//! A lab whose edge steers a service to three machines, and what runs on those.
//!
//! The backends are outer hosts of a [`Lab`]; each has the service's address on its loopback and answers clients itself,
//! through the edge as a router.

use std::{
    fmt::Write as _,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::net::{Shutdown, shutdown};

use crate::{
    daemon,
    decap::Decapsulator,
    lab::{Host, Lab, VIP_V4, VIP_V6},
    offload,
    wait::within,
    xdp::{Action, ForeignXdp, Mode},
};

/// The service's IPv4 address; not one of the edge's.
pub const DIRECT_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
/// The service's IPv6 address.
pub const DIRECT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x80);
/// Its port.
pub const PORT: u16 = 7777;
/// Roles of the backends.
pub const BACKENDS: [&str; 3] = ["b1", "b2", "b3"];

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The lab with backends ready. Dropped in the order of the fields.
pub struct Steered {
    /// What runs on each backend, in the order of [`BACKENDS`].
    pub servers: Vec<Server>,
    _tunnels: Vec<Decapsulator>,
    _passes: Vec<ForeignXdp>,
    /// Where it all happens.
    pub lab: Lab,
}

impl Steered {
    /// Builds it; `None`, after saying why, when this machine or this build cannot.
    #[track_caller]
    pub fn new(name: &str) -> Option<Self> {
        let lab = daemon::lab_with(name, |options| {
            BACKENDS.iter().fold(options, |options, role| options.host(role))
        })?;
        Some(Self::in_lab(lab).expect("the lab takes backends"))
    }

    fn in_lab(lab: Lab) -> Result<Self> {
        let (mut servers, mut tunnels, mut passes) = (Vec::new(), Vec::new(), Vec::new());
        // What leaves an XDP program for a veth needs a program on the other end, and has the checksums it came with.
        for role in ["client", "attacker"].iter().chain(&BACKENDS) {
            let host = lab.host(role);
            offload::switch_off(&host.namespace, host.interface, &["tx-checksum-ip-generic"])?;
            passes.push(ForeignXdp::attach(
                &host.namespace,
                host.interface,
                Action::Pass,
                Mode::Native,
            )?);
        }
        for role in BACKENDS {
            let host = lab.host(role);
            host.namespace.ip_batch([
                format!("addr add {DIRECT_V4}/32 dev lo"),
                format!("addr add {DIRECT_V6}/128 dev lo nodad"),
            ])?;
            for (name, outer) in [("tun4", IpAddr::from(host.v4)), ("tun6", host.v6.into())] {
                tunnels.push(Decapsulator::start(&host.namespace, name, outer)?);
                host.namespace
                    .sysctl(&format!("ipv4/conf/{name}/rp_filter"), "0")?;
            }
            servers.push(Server::start(role, host)?);
        }
        // Neighbours are known from the start.
        for role in BACKENDS {
            let host = lab.host(role);
            lab.edge().ip_batch([
                format!(
                    "neigh replace {} lladdr {} dev {}",
                    host.v4,
                    mac(host),
                    host.edge_interface
                ),
                format!(
                    "neigh replace {} lladdr {} dev {}",
                    host.v6,
                    mac(host),
                    host.edge_interface
                ),
            ])?;
        }
        Ok(Self {
            servers,
            _tunnels: tunnels,
            _passes: passes,
            lab,
        })
    }

    /// Configuration of a shield on every outer interface and one service for each family, over TCP and UDP.
    pub fn config(&self, forward: &str, backends: &[&str], extra: &str) -> String {
        let mut text = format!(
            "[shield]\ninterfaces = {:?}\nmode = \"native\"\n{extra}\n",
            self.lab.wan_interfaces()
        );
        for (family, vip) in [("v4", IpAddr::from(DIRECT_V4)), ("v6", DIRECT_V6.into())] {
            for protocol in ["tcp", "udp"] {
                let _ = write!(
                    text,
                    "[[service]]\nname = \"{protocol}-{family}\"\nprotocol = \"{protocol}\"\nport = {PORT}\naddress = \
                     \"{vip}\"\nkind = \"direct\"\nforward = \"{forward}\"\n"
                );
                if forward == "nat" {
                    let source = if vip.is_ipv4() {
                        IpAddr::from(VIP_V4)
                    } else {
                        VIP_V6.into()
                    };
                    let _ = writeln!(text, "nat_source = \"{source}\"");
                }
                if protocol == "tcp" {
                    text += "health = { probe = \"tcp\", interval = \"50ms\", timeout = \"500ms\", rise = 1, fall = 1 }\n";
                }
                for role in backends {
                    let address = self.lab.host(role).address_towards(vip);
                    let _ = write!(text, "[[service.backend]]\naddress = \"{address}\"\n");
                }
            }
        }
        text
    }

    /// The service's address in either family.
    pub fn vips() -> [SocketAddr; 2] {
        [(DIRECT_V4, PORT).into(), (DIRECT_V6, PORT).into()]
    }

    /// A connection of the client to the service.
    pub fn connect(&self, to: SocketAddr) -> Connection {
        let stream = self
            .lab
            .client()
            .namespace
            .enter(|| TcpStream::connect_timeout(&to, PATIENCE))
            .expect("the service takes connections");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a stream has time limits");
        let mut name = [0; 2];
        let mut connection = Connection {
            stream,
            backend: String::new(),
        };
        connection
            .stream
            .read_exact(&mut name)
            .expect("the backend says who it is");
        connection.backend = String::from_utf8_lossy(&name).into_owned();
        connection
    }

    /// Asks over UDP, from `socket` or a new one; which backend answers.
    pub fn ask(&self, to: SocketAddr, socket: Option<&UdpSocket>) -> Option<String> {
        let own;
        let socket = if let Some(socket) = socket {
            socket
        } else {
            own = self.udp(to);
            &own
        };
        socket.send_to(b"who", to).expect("a datagram is sent");
        let mut answer = [0; 16];
        let (bytes, from) = socket.recv_from(&mut answer).ok()?;
        assert_eq!(from, to, "the service answers");
        Some(String::from_utf8_lossy(&answer[..bytes]).into_owned())
    }

    /// A socket of the client's.
    pub fn udp(&self, to: SocketAddr) -> UdpSocket {
        let any: IpAddr = if to.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = self
            .lab
            .client()
            .namespace
            .enter(|| UdpSocket::bind((any, 0)))
            .expect("a port is free");
        socket
            .set_read_timeout(Some(Duration::from_secs(2)))
            .expect("a socket has time limits");
        socket
    }
}

fn mac(host: &Host) -> String {
    host.mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A connection to a backend that echoes.
pub struct Connection {
    stream: TcpStream,
    /// The backend's name.
    pub backend: String,
}

impl Connection {
    /// The client's address and port.
    pub fn local(&self) -> SocketAddr {
        self.stream
            .local_addr()
            .expect("a connected socket has an address")
    }

    /// Sends `bytes` and reads as many back.
    ///
    /// # Errors
    /// The connection is broken, or something else came back.
    pub fn echo(&mut self, bytes: usize) -> std::io::Result<()> {
        let sent: Vec<u8> = (0..bytes).map(|at| (at * 31 % 251) as u8).collect();
        let mut writer = self.stream.try_clone()?;
        let mut back = vec![0; bytes];
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| writer.write_all(&sent));
            self.stream.read_exact(&mut back)?;
            writing.join().expect("a writer does not panic")
        })?;
        if back == sent {
            Ok(())
        } else {
            Err(ErrorKind::InvalidData.into())
        }
    }
}

/// A backend's echo over TCP, which begins with its name, and its name over UDP, for both families.
pub struct Server {
    stop: Arc<AtomicBool>,
    /// Connections taken.
    pub taken: Arc<AtomicU64>,
    listener: TcpListener,
}

impl Server {
    fn start(name: &'static str, host: &Host) -> Result<Self> {
        let namespace = &host.namespace;
        let listener = namespace
            .enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)))
            .context("listening on a backend")?;
        let stop = Arc::new(AtomicBool::new(false));
        let taken = Arc::new(AtomicU64::new(0));
        let (accepting, flag, count) = (listener.try_clone()?, Arc::clone(&stop), Arc::clone(&taken));
        std::thread::spawn(move || {
            while let Ok((stream, peer)) = accepting.accept() {
                if flag.load(Ordering::Relaxed) {
                    return;
                }
                // A check of the edge's is no client.
                count.fetch_add(u64::from(!is_edge(peer.ip())), Ordering::Relaxed);
                std::thread::spawn(move || echo(name, stream));
            }
        });
        // An answer has to come from where the question went.
        let own = [(host.v4, PORT).into(), (host.v6, PORT).into()];
        for address in Steered::vips().into_iter().chain(own) {
            let socket = namespace.enter(|| UdpSocket::bind(address))?;
            std::thread::spawn(move || {
                let mut buffer = [0; 2_048];
                while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(name.as_bytes(), from);
                }
            });
        }
        Ok(Self {
            stop,
            taken,
            listener,
        })
    }

    /// Ends the listening socket: the backend refuses connections from now on.
    pub fn kill(&self) {
        self.stop.store(true, Ordering::Relaxed);
        shutdown(self.listener.as_fd(), Shutdown::Both).expect("a listener can be shut down");
    }
}

fn is_edge(peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    let last = match peer {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    };
    last == 1
}

fn echo(name: &str, mut stream: TcpStream) {
    let mut buffer = vec![0; 65_536];
    if stream.write_all(name.as_bytes()).is_err() {
        return;
    }
    while let Ok(bytes) = stream.read(&mut buffer) {
        if bytes == 0 || stream.write_all(&buffer[..bytes]).is_err() {
            return;
        }
    }
}

/// Waits until `breakwater service list` says this of a backend of a service.
#[track_caller]
pub fn await_state(lab: &Lab, service: &str, backend: IpAddr, up: bool) {
    let mut last = serde_json::Value::Null;
    let seen = within(crate::wait::PATIENCE, || {
        last = daemon::cli(lab, ["service", "list", "--json"]).json();
        let of = last.as_array()?.iter().find(|of| of["service"] == service)?;
        let found = of["backends"]
            .as_array()?
            .iter()
            .find(|of| of["address"] == backend.to_string().as_str())?;
        (found["up"] == up).then_some(())
    });
    assert!(seen.is_some(), "{backend} of {service} is not up = {up}: {last}");
}
