//! Floods from very many sources, as fast as one thread sends, and what must survive them.

use std::{
    collections::BTreeSet,
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use edge_common::abi::BanSource;
use edge_user::kernel::{Pins, ShieldTables, bans::BanOrder};
use ipnet::IpNet;

use crate::{
    frame::{ACK, Frame, SYN, Tcp, Transport},
    http::{Client, Request},
    lab::{Host, Lab},
    sender::PacketSocket,
    stage::{RAW_PORT, gateway},
};

/// Frames handed to the kernel in one call.
const BATCH: usize = 64;
/// `PACKET_QDISC_BYPASS` of linux/if_packet.h.
const QDISC_BYPASS: libc::c_int = 20;
/// Where the source address lies in an untagged frame, and its length.
const V4_SOURCE: std::ops::Range<usize> = 26..30;
const V6_SOURCE: std::ops::Range<usize> = 22..38;

/// What a flood came to.
#[derive(Debug, Clone, Copy)]
pub struct Blasted {
    /// Frames that the interface took.
    pub sent: u64,
    /// From the first to the last.
    pub time: Duration,
}

/// Sends `frames` segments of `host` to the gateway at `vip`, no two from one source address, as fast as it goes.
pub fn blast(host: &Host, vip: IpAddr, frames: u64) -> Result<Blasted> {
    blast_port(host, vip, crate::config::PORT, frames)
}

/// [`blast`] to another port.
pub fn blast_port(host: &Host, vip: IpAddr, port: u16, frames: u64) -> Result<Blasted> {
    let template = |flags| {
        let tcp = Tcp {
            source: RAW_PORT,
            destination: port,
            flags,
            ..Tcp::default()
        };
        host.frame(Frame::new(host.address_towards(vip), vip, Transport::Tcp(tcp)))
    };
    // Every second frame opens a connection.
    let buffers = (0..BATCH).map(|index| template(if index.is_multiple_of(2) { SYN } else { ACK }));
    let socket = PacketSocket::sending(&host.namespace, host.interface)?;
    pour(&socket, buffers.collect(), frames, |buffer, made| {
        put_source(buffer, vip, made);
    })
}

/// Sends `buffers` in turn, each as `change` makes it of the one before for the number of the frame.
fn pour(
    socket: &PacketSocket,
    mut buffers: Vec<Vec<u8>>,
    frames: u64,
    mut change: impl FnMut(&mut [u8], u64),
) -> Result<Blasted> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value lives until the call returns, and the length is its own.
    let result = unsafe {
        libc::setsockopt(
            socket.fd().as_raw_fd(),
            libc::SOL_PACKET,
            QDISC_BYPASS,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    ensure!(result == 0, "PACKET_QDISC_BYPASS: {}", io::Error::last_os_error());
    let mut vectors: Vec<libc::iovec> = buffers
        .iter_mut()
        .map(|buffer| libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = vectors
        .iter_mut()
        .map(|vector| {
            // SAFETY: plain data, for which zero is a value.
            let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
            message.msg_hdr.msg_iov = vector;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    let begun = Instant::now();
    let (mut made, mut sent) = (0, 0);
    while made < frames {
        let count = (frames - made).min(BATCH as u64) as usize;
        for buffer in &mut buffers[..count] {
            change(buffer, made);
            made += 1;
        }
        // SAFETY: the messages point at the vectors and those at the buffers, which all live as long as this function
        // and do not move; nothing else writes to them during the call.
        let took = unsafe {
            libc::sendmmsg(
                socket.fd().as_raw_fd(),
                messages.as_mut_ptr(),
                count as libc::c_uint,
                0,
            )
        };
        match (took, io::Error::last_os_error().raw_os_error()) {
            (0.., _) => sent += u64::from(took.unsigned_abs()),
            // A full queue loses frames, as a wire does.
            (_, Some(libc::ENOBUFS | libc::EAGAIN)) => {}
            (_, code) => return Err(io::Error::from_raw_os_error(code.unwrap_or(0))).context("sendmmsg"),
        }
    }
    Ok(Blasted {
        sent,
        time: begun.elapsed(),
    })
}

/// The source of frame `number`: spread over 1.0.0.0 to 126.255.255.255, or over /64 networks of 2000::/8 without
/// that of documentation. No two are alike within 2^30 frames.
fn put_source(frame: &mut [u8], vip: IpAddr, number: u64) {
    // A multiplication by an odd number permutes the numbers below a power of two.
    let mixed = (number as u32).wrapping_mul(0x9e37_79b1) & 0x3fff_ffff;
    if vip.is_ipv4() {
        frame[V4_SOURCE].copy_from_slice(&Ipv4Addr::from(0x0100_0000 + mixed).octets());
    } else {
        let source = Ipv6Addr::new(
            0x2002,
            (mixed >> 16) as u16,
            mixed as u16,
            number as u16,
            0,
            0,
            0,
            1,
        );
        frame[V6_SOURCE].copy_from_slice(&source.octets());
    }
}

/// Idle bans and sources with exact state, in the tables of a running shield.
#[derive(Debug)]
pub struct Idle {
    bans: BTreeSet<IpNet>,
    earned: usize,
}

impl Idle {
    /// Bans `count` addresses for an hour, and has as many sources earn exact state.
    ///
    /// The bans are written by the functions that `breakwater ban` calls; a thousand processes would say no more.
    pub fn plant(lab: &Lab, count: u32) -> Result<Self> {
        let pins = Pins::new(lab.bpffs().path());
        let mut tables = ShieldTables::open(&pins)?;
        let lock = pins.lock()?;
        let mut bans = BTreeSet::new();
        for number in 0..count {
            // Outside of what floods are sent from.
            let address: IpAddr = if number.is_multiple_of(2) {
                Ipv4Addr::from(0xc000_0000 + number * 7919).into()
            } else {
                Ipv6Addr::new(0x2a00, number as u16, 7, 0, 0, 0, 0, 1).into()
            };
            let net = IpNet::from(address);
            tables.ban(
                &lock,
                &BanOrder {
                    net,
                    duration: Some(Duration::from_hours(1)),
                    source: BanSource::Operator,
                    new_connections_only: false,
                    repeats: 0,
                    note: String::new(),
                },
            )?;
            bans.insert(net);
            _ = tables.earn(Ipv4Addr::from(0xc100_0000 + number * 104_729).into());
        }
        Ok(Self {
            bans,
            earned: tables.count_earned(),
        })
    }

    /// Fails if a ban or a source that earned its state is gone.
    pub fn check(&self, lab: &Lab) -> Result<()> {
        let tables = ShieldTables::open(&Pins::new(lab.bpffs().path()))?;
        let now: BTreeSet<IpNet> = tables.list_bans().into_iter().map(|ban| ban.net).collect();
        let lost: Vec<_> = self.bans.difference(&now).collect();
        ensure!(
            lost.is_empty(),
            "{} of {} bans are gone: {lost:?}",
            lost.len(),
            self.bans.len()
        );
        let earned = tables.count_earned();
        ensure!(
            earned >= self.earned,
            "of {} sources with exact state {earned} are left",
            self.earned
        );
        Ok(())
    }

    /// How many sources have exact state.
    pub const fn earned(&self) -> usize {
        self.earned
    }
}

/// Requests on kept connections while something else goes on: how many were answered with 200, of how many.
pub fn requests(host: &Host, vip: IpAddr, count: u32) -> (u32, u32) {
    let connect = || Client::connect(&host.namespace, gateway(vip)).ok();
    let mut client = connect();
    let mut answered = 0;
    for number in 0..count {
        let request = Request::get(&format!("/{number}"));
        match client.as_mut().and_then(|client| client.send(&request).ok()) {
            Some(response) if response.status == 200 => answered += 1,
            // A connection that broke costs its request, not those after it.
            _ => client = connect(),
        }
    }
    (answered, count)
}
