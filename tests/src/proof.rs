//! What tests of SYN cookies need: a guarded service with a listener of the test's own, clients whose stacks are set in
//! many ways, and what both ends of a connection know of it.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    daemon::{cli, lab_with},
    frame::Frame,
    lab::{Host, Lab, LabOptions},
    netns::Namespace,
    sender::PacketSocket,
    stage::vips,
    xdp::{Action, ForeignXdp, Mode},
};

/// Port of the guarded service.
pub const PORT: u16 = 4433;
/// Longest wait for one connection.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What one end of a connection knows of what was agreed on (`struct tcp_info`, include/uapi/linux/tcp.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// Timestamps are in use.
    pub stamps: bool,
    /// SACK is in use.
    pub sack: bool,
    /// Window scale of what this end sends and of what it receives, if both scale.
    pub scales: Option<(u8, u8)>,
    /// Largest segment this end sends.
    pub send_mss: u32,
    /// Largest segment this end has announced.
    pub announced_mss: u32,
}

/// What this end of `stream` knows.
pub fn agreed(stream: &TcpStream) -> io::Result<Agreed> {
    let mut info = [0_u8; 104];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: the buffer and its length live until the call returns.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let options = info[5];
    let word = |at: usize| u32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
    Ok(Agreed {
        stamps: options & 1 != 0,
        sack: options & 2 != 0,
        scales: (options & 4 != 0).then_some((info[6] & 0xf, info[6] >> 4)),
        send_mss: word(16),
        // The kernel takes the timestamp of every segment off what it keeps (`tcp_rcv_synsent_state_process`).
        announced_mss: word(84) + if options & 1 != 0 { 12 } else { 0 },
    })
}

/// A server that tells what it knows of each connection, sends back every byte, and counts.
#[derive(Debug)]
pub struct Echo {
    accepted: Mutex<mpsc::Receiver<Agreed>>,
    listeners: Vec<Arc<TcpListener>>,
}

impl Echo {
    /// Listens on every service address of the lab's edge, each with a socket of its own.
    pub fn start(edge: &Namespace) -> Self {
        let (told, accepted) = mpsc::channel();
        let listeners = vips()
            .map(|vip| {
                let listener = edge.enter(|| TcpListener::bind((vip, PORT)).expect("the port is free"));
                let listener = Arc::new(listener);
                let (own, told) = (listener.clone(), told.clone());
                thread::spawn(move || {
                    for stream in own.incoming() {
                        let Ok(stream) = stream else { return };
                        let _ = told.send(agreed(&stream).expect("a socket tells"));
                        thread::spawn(move || echo(stream));
                    }
                });
                listener
            })
            .to_vec();
        Self {
            accepted: Mutex::new(accepted),
            listeners,
        }
    }

    /// What the server knew of the next connection when it took it.
    pub fn next(&self) -> Agreed {
        let accepted = self.accepted.lock().expect("not poisoned");
        accepted.recv_timeout(PATIENCE).expect("a connection is taken")
    }
}

impl Echo {
    /// Ends listening, and what the listeners hold of connections that are not there yet.
    fn stop(&mut self) {
        for listener in self.listeners.drain(..) {
            // SAFETY: a system call on a descriptor that is open; it wakes the thread that accepts.
            unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop();
    }
}

fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
}

/// Sends `bytes` through a connection and reads them back; they have to be the same.
pub fn exchange(stream: &TcpStream, bytes: usize) {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    let chunk: Vec<u8> = (0..1 << 16).map(|n: u32| ((n * 31) >> 3) as u8).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = stream;
            let mut left = bytes;
            while left > 0 {
                let now = left.min(chunk.len());
                writer.write_all(&chunk[..now]).expect("the server takes it");
                left -= now;
            }
            stream.shutdown(Shutdown::Write).expect("shut down");
        });
        let mut reader = stream;
        let (mut got, mut buffer) = (0, vec![0; 1 << 16]);
        while got < bytes {
            let read = reader.read(&mut buffer).expect("the server answers");
            assert!(read > 0, "the server ended after {got} of {bytes} bytes");
            for byte in &buffer[..read] {
                assert_eq!(*byte, chunk[got % chunk.len()], "byte {got}");
                got += 1;
            }
        }
    });
}

/// A lab whose services are guarded as `guard` says (a line of each `[[service]]`), with the shield attached in `mode`.
pub struct Guarded {
    /// The listener.
    pub echo: Echo,
    _peers: Vec<ForeignXdp>,
    /// Where it happens.
    pub lab: Lab,
    config: String,
}

impl Guarded {
    /// Builds it; `None`, after saying why, where the machine cannot.
    #[track_caller]
    pub fn new(
        name: &str,
        configure: impl FnOnce(LabOptions) -> LabOptions,
        mode: &str,
        guard: &str,
    ) -> Option<Self> {
        let lab = lab_with(name, configure)?;
        // A stack that knows no way back to a source does not answer its SYNs, and keeps nothing for them.
        lab.edge()
            .ip(&format!("route add {MADE_UP_NET} via {}", lab.attacker().v4))
            .expect("a route to the made-up sources");
        // What is sent back over a veth arrives only where its peer has a program too.
        let peers = [lab.client(), lab.attacker()]
            .map(|host| {
                ForeignXdp::attach(&host.namespace, host.interface, Action::Pass, Mode::Native)
                    .expect("a program on the peer")
            })
            .into();
        let echo = Echo::start(lab.edge());
        let config = config(&lab, mode, guard);
        let guarded = Self {
            echo,
            _peers: peers,
            lab,
            config,
        };
        guarded.attach();
        Some(guarded)
    }

    /// Attaches the shield, anew if it was taken off.
    #[track_caller]
    pub fn attach(&self) {
        let file = self.lab.write("guarded.toml", &self.config);
        let file = file.display().to_string();
        cli(&self.lab, ["attach", "--config", &file, "--set-sysctls"]).success();
    }

    /// What `status --json` says.
    #[track_caller]
    pub fn status(&self) -> Value {
        cli(&self.lab, ["status", "--json"]).json()
    }

    /// Ends the server: the port is free for one of the test's own.
    pub fn stop_listening(&mut self) {
        self.echo.stop();
    }

    /// Listens anew, with empty queues: a listener whose queue was full a moment ago still answers with cookies.
    pub fn relisten(&mut self) {
        self.stop_listening();
        self.echo = Echo::start(self.lab.edge());
    }

    /// Connects from `host`'s namespace.
    pub fn connect(&self, host: &Host, vip: IpAddr) -> io::Result<TcpStream> {
        let to = SocketAddr::new(vip, PORT);
        host.namespace.enter(|| TcpStream::connect_timeout(&to, PATIENCE))
    }
}

fn config(lab: &Lab, mode: &str, guard: &str) -> String {
    let mut text = format!(
        "[shield]\ninterfaces = {:?}\nmode = {mode:?}\n",
        lab.wan_interfaces()
    );
    let services = ["v4", "v6"].into_iter().zip(vips()).map(|(name, vip)| {
        format!(
            "[[service]]\nname = {name:?}\nprotocol = \"tcp\"\nport = {PORT}\naddress = \"{vip}\"\n{guard}\n"
        )
    });
    text.extend(services);
    text
}

/// A counter of `/proc/net/netstat` or `/proc/net/snmp` of a namespace, as `nstat` names it.
pub fn counter(namespace: &Namespace, name: &str) -> u64 {
    namespace.enter(|| {
        ["/proc/thread-self/net/netstat", "/proc/thread-self/net/snmp"]
            .iter()
            .filter_map(|path| std::fs::read_to_string(path).ok())
            .flat_map(|text| pairs(&text))
            .find(|(key, _)| key == name)
            .map_or(0, |(_, value)| value)
    })
}

fn pairs(text: &str) -> Vec<(String, u64)> {
    let lines: Vec<&str> = text.lines().collect();
    lines
        .chunks_exact(2)
        .flat_map(|pair| {
            let prefix = pair[0].split(':').next().unwrap_or_default().to_owned();
            let values = pair[1].split_ascii_whitespace().skip(1);
            pair[0]
                .split_ascii_whitespace()
                .skip(1)
                .zip(values)
                .map(move |(key, value)| (format!("{prefix}{key}"), value.parse().unwrap_or(0)))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// SYNs from made-up sources, as fast as one thread sends.
pub struct SynFlood {
    thread: thread::JoinHandle<anyhow::Result<(u64, Duration)>>,
}

/// The made-up sources are 44.0.0.0/8.
const MADE_UP: u32 = 0x2c00_0000;
const MADE_UP_NET: &str = "44.0.0.0/8";
/// Frames of one batch.
const BATCH: u64 = 32;
/// Where addresses and checksums lie in an untagged frame with IPv4.
const IP_SUM: usize = 24;
const SOURCE: usize = 26;
const TCP_SUM: usize = 50;

impl SynFlood {
    /// Floods the guarded service at `vip`, an IPv4 address, for so long. The link carries no tags.
    pub fn start(host: &Host, vip: IpAddr, time: Duration) -> Self {
        let socket =
            PacketSocket::sending(&host.namespace, host.interface).expect("a host has its interface");
        let template = host.frame(Frame::syn(
            (std::net::Ipv4Addr::from(MADE_UP).into(), 1_024),
            (vip, PORT),
        ));
        let thread = thread::spawn(move || {
            let begun = std::time::Instant::now();
            let (mut made, mut sent) = (0_u64, 0_u64);
            let mut frames = vec![template; BATCH as usize];
            while begun.elapsed() < time {
                for frame in &mut frames {
                    // A multiplication by an odd number permutes the numbers below a power of two.
                    let source = (made as u32).wrapping_mul(0x9e37_79b1) & 0x00ff_ffff;
                    set_source(frame, MADE_UP | source);
                    made += 1;
                }
                sent += socket.send_batch(&frames)? as u64;
            }
            Ok((sent, begun.elapsed()))
        });
        Self { thread }
    }

    /// Waits for its end: frames sent, and how long that took.
    ///
    /// # Errors
    /// The interface takes no frames.
    pub fn finish(self) -> anyhow::Result<(u64, Duration)> {
        self.thread.join().expect("a flood does not panic")
    }
}

/// Changes the source, and both checksums with it (RFC 1624).
fn set_source(frame: &mut [u8], source: u32) {
    let word = |frame: &[u8], at: usize| u32::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let new = source.to_be_bytes();
    let mut change = 0;
    for half in [0, 2] {
        change += (0xffff - word(frame, SOURCE + half)) + word(&new, half);
    }
    for at in [IP_SUM, TCP_SUM] {
        let mut sum = (0xffff - word(frame, at)) + change;
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        frame[at..at + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    }
    frame[SOURCE..SOURCE + 4].copy_from_slice(&new);
}

impl Guarded {
    /// Connects within a time of the caller's.
    pub fn connect_within(&self, host: &Host, vip: IpAddr, limit: Duration) -> io::Result<TcpStream> {
        let to = SocketAddr::new(vip, PORT);
        host.namespace.enter(|| TcpStream::connect_timeout(&to, limit))
    }

    /// What the edge's stack holds now.
    pub fn held(&self) -> Held {
        self.lab.edge().enter(|| {
            let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
            let sockets = read("/proc/thread-self/net/tcp");
            let half_open = sockets
                .lines()
                .filter(|line| line.split_ascii_whitespace().nth(3) == Some("03"))
                .count() as u64;
            let stat = read("/proc/thread-self/net/sockstat");
            let pages = field(&stat, "TCP:", Iterator::last);
            let slabs = read("/proc/slabinfo");
            Held {
                half_open,
                pages,
                requests: field(&slabs, "request_sock_TCP ", |mut fields| fields.next()),
                tracked: read("/proc/sys/net/netfilter/nf_conntrack_count")
                    .trim()
                    .parse()
                    .unwrap_or(0),
            }
        })
    }
}

/// What a stack holds of connections that are not there yet.
#[derive(Debug, Clone, Copy, Default)]
pub struct Held {
    /// Connections in SYN-RECV.
    pub half_open: u64,
    /// Pages of all TCP sockets' buffers (`sockstat`), of the whole machine.
    pub pages: u64,
    /// Objects in use in the slab of half-open connections, of the whole machine.
    pub requests: u64,
    /// Entries of the connection tracking.
    pub tracked: u64,
}

impl Held {
    /// The greater of each.
    #[must_use]
    pub fn most(self, other: Self) -> Self {
        Self {
            half_open: self.half_open.max(other.half_open),
            pages: self.pages.max(other.pages),
            requests: self.requests.max(other.requests),
            tracked: self.tracked.max(other.tracked),
        }
    }
}

/// One of the numbers that follow `name` at the beginning of a line.
fn field<'t>(
    text: &'t str,
    name: &str,
    choose: impl FnOnce(std::str::SplitAsciiWhitespace<'t>) -> Option<&'t str>,
) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| choose(line.split_ascii_whitespace()))
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_source_has_the_checksums_of_a_frame_made_with_it() {
        let vip = IpAddr::from([203, 0, 113, 1]);
        let made =
            |source: u32| Frame::syn((std::net::Ipv4Addr::from(source).into(), 1_024), (vip, PORT)).bytes();
        let mut frame = made(MADE_UP);
        for source in [0x2c01_0203, 0x2cff_ffff, 0x2c00_0000, 0x2c80_0001] {
            set_source(&mut frame, source);
            assert_eq!(frame, made(source));
        }
    }
}
