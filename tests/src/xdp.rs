//! A small XDP program of somebody else: what an operator may already have on an interface.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};

use crate::netns::Namespace;

/// What the program does with every packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// `XDP_DROP`.
    Drop = 1,
    /// `XDP_PASS`.
    Pass = 2,
    /// `XDP_TX`.
    Send = 3,
}

impl Action {
    /// r0 = action; exit
    const fn program(self) -> [u64; 2] {
        [((self as u64) << 32) | 0xb7, 0x95]
    }
}

/// Where it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `XDP_FLAGS_SKB_MODE`.
    Generic = 1 << 1,
    /// `XDP_FLAGS_DRV_MODE`.
    Native = 1 << 2,
}

/// Frames that are made in the kernel, as a driver hands them to XDP: no socket, no buffer of a socket's.
///
/// `BPF_PROG_TEST_RUN` with live frames (Linux 5.18, net/bpf/test_run.c, `xdp_test_run_batch`): the program runs for each,
/// and what it says is done.
#[derive(Debug)]
pub struct Emitter {
    program: OwnedFd,
}

/// The head of `union bpf_attr` for `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
struct RunAttributes {
    program: u32,
    result: u32,
    data_bytes: u32,
    data_out_bytes: u32,
    data: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_bytes: u32,
    context_out_bytes: u32,
    context: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    reserved: u32,
}

const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;

impl Emitter {
    /// [`Action::Send`] sends every frame, [`Action::Drop`] makes it and throws it away.
    ///
    /// # Errors
    /// The kernel refuses the program.
    pub fn new(action: Action) -> Result<Self> {
        let program = load(&action.program()).context("BPF_PROG_LOAD")?;
        Ok(Self { program })
    }

    /// Sends `frame` so many times out of the interface with this index of the thread's network namespace.
    ///
    /// # Errors
    /// The kernel has no live frames, or the interface takes none.
    pub fn emit(&self, index: u32, frame: &[u8], count: u32) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, frame.len() as u32, 0, index, 0, 0_u32];
        let attributes = RunAttributes {
            program: self.program.as_raw_fd().cast_unsigned(),
            data_bytes: frame.len() as u32,
            data: frame.as_ptr() as u64,
            repeat: count,
            context_bytes: size_of_val(&context) as u32,
            context: context.as_ptr() as u64,
            flags: BPF_F_TEST_XDP_LIVE_FRAMES,
            ..RunAttributes::default()
        };
        // SAFETY: as in [`bpf`]; the command gives no descriptor.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_PROG_TEST_RUN,
                std::ptr::from_ref(&attributes),
                size_of::<RunAttributes>(),
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

/// Name the kernel knows the program by.
pub const NAME: &str = "somebody_elses";

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;

/// An attached program; dropping it detaches.
#[derive(Debug)]
pub struct ForeignXdp {
    _program: OwnedFd,
    _link: OwnedFd,
}

impl ForeignXdp {
    /// Loads the program and attaches it to `interface` of `namespace`.
    pub fn attach(namespace: &Namespace, interface: &str, action: Action, mode: Mode) -> Result<Self> {
        namespace.enter(|| attach(interface, &action.program(), mode))
    }

    /// Has all that arrives by `from` leave by `to`: as frames of a driver's, with no socket's buffer behind them.
    ///
    /// # Errors
    /// There is no such interface, or the kernel refuses the program.
    pub fn wire(namespace: &Namespace, from: &str, to: &str) -> Result<Self> {
        namespace.enter(|| {
            let to = rustix::net::netdevice::name_to_index(socket()?, to)?;
            // r1 = to; r2 = 0; call bpf_redirect; exit
            let redirect = [(u64::from(to) << 32) | 0x1b7, 0x2b7, (23 << 32) | 0x85, 0x95];
            attach(from, &redirect, Mode::Native)
        })
    }
}

fn attach(interface: &str, instructions: &[u64], mode: Mode) -> Result<ForeignXdp> {
    let program = load(instructions).context("BPF_PROG_LOAD")?;
    let index = rustix::net::netdevice::name_to_index(socket()?, interface)?;
    let link = link(&program, index, mode).with_context(|| format!("BPF_LINK_CREATE on {interface}"))?;
    Ok(ForeignXdp {
        _program: program,
        _link: link,
    })
}

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
}

/// The head of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkAttributes {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

fn load(instructions: &[u64]) -> io::Result<OwnedFd> {
    let mut attributes = LoadAttributes {
        program_type: BPF_PROG_TYPE_XDP,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
        expected_attach_type: BPF_XDP,
        ..LoadAttributes::default()
    };
    attributes.name[..NAME.len()].copy_from_slice(NAME.as_bytes());
    bpf(BPF_PROG_LOAD, &attributes)
}

fn link(program: &OwnedFd, interface: u32, mode: Mode) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let attributes = LinkAttributes {
        program: program.as_raw_fd().cast_unsigned(),
        interface,
        attach_type: BPF_XDP,
        flags: mode as u32,
    };
    bpf(BPF_LINK_CREATE, &attributes)
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: `attributes` is a repr(C) prefix of `union bpf_attr` of the given size without padding, and everything
    // it points at lives until the call returns. Both commands give a new file descriptor that nobody else owns.
    unsafe {
        let fd = libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        );
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

fn socket() -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    Ok(socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}
