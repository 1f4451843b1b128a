//! Takes packets out of IP tunnels in user space: this kernel may have no tunnel devices, and the lab needs none.
//!
//! A raw socket gets what arrives for the tunnel's protocol, and a TUN device hands what is inside to the stack.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    mem::MaybeUninit,
    net::IpAddr,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Namespace;

/// `TUNSETIFF` (linux/if_tun.h).
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
/// How often a receiver looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// A tunnel's end; dropping it ends it.
#[derive(Debug)]
pub struct Decapsulator {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Decapsulator {
    /// Takes IPv4 and IPv6 out of packets of `outer`'s family that arrive in `namespace`, through a device `name`.
    pub fn start(namespace: &Namespace, name: &str, outer: IpAddr) -> Result<Self> {
        let tun = Arc::new(namespace.enter(|| tun(name))?);
        namespace.ip_batch([format!("link set {name} up")])?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for protocol in [4, 41] {
            let domain = if outer.is_ipv4() {
                Domain::IPV4
            } else {
                Domain::IPV6
            };
            let socket =
                namespace.enter(|| Socket::new(domain, Type::RAW, Some(Protocol::from(protocol))))?;
            socket.set_read_timeout(Some(LOOK))?;
            socket.set_recv_buffer_size(8 << 20)?;
            let (tun, stop) = (Arc::clone(&tun), Arc::clone(&stop));
            threads.push(std::thread::spawn(move || {
                pump(&socket, &tun, outer.is_ipv4(), &stop);
            }));
        }
        Ok(Self { stop, threads })
    }
}

impl Drop for Decapsulator {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn pump(socket: &Socket, tun: &File, has_header: bool, stop: &AtomicBool) {
    let mut buffer = vec![MaybeUninit::<u8>::uninit(); 65_536];
    while !stop.load(Ordering::Relaxed) {
        let Ok(bytes) = socket.recv(&mut buffer) else {
            continue;
        };
        // SAFETY: the kernel has written so many.
        let packet = unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), bytes) };
        // A raw IPv4 socket gets the outer header too (raw(7)), and ours has no options.
        let inner = if has_header {
            packet.get(20..)
        } else {
            Some(packet)
        };
        if let Some(inner) = inner {
            // A device that is full drops, as one does.
            let _ = (&*tun).write(inner);
        }
    }
}

fn tun(name: &str) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .context("opening /dev/net/tun")?;
    // SAFETY: ifreq is plain data, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    ensure!(name.len() < request.ifr_name.len(), "{name} is too long");
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
    // SAFETY: the request lives until the call returns.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
    ensure!(result == 0, "TUNSETIFF: {}", std::io::Error::last_os_error());
    Ok(file)
}
