//! XDP programs of others: who they are, and taking one off when the operator asks for it.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use aya::programs::{loaded_links, loaded_programs};

use super::interfaces::Interface;

/// Commands of bpf(2) (include/uapi/linux/bpf.h, `enum bpf_cmd`).
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_GET_FD_BY_ID: libc::c_long = 30;
const BPF_LINK_DETACH: libc::c_long = 34;
/// Words of `struct bpf_link_info` that are asked for, and the one that holds an XDP link's interface.
const INFO_WORDS: usize = 16;
const INFO_INTERFACE: usize = 4;

/// The name that the kernel knows a program by; empty if it has none.
pub fn name(program: u32) -> String {
    loaded_programs()
        .flatten()
        .find(|loaded| loaded.id() == program)
        .and_then(|loaded| loaded.name_as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// Takes the BPF link that holds `program` on `interface` off it; whether there was one. Its owner keeps the link, which
/// is attached to nothing from then on.
///
/// # Errors
/// The kernel refuses: it wants `CAP_SYS_ADMIN` for links of others.
pub fn detach_link(interface: &Interface, program: u32) -> io::Result<bool> {
    for link in loaded_links()
        .flatten()
        .filter(|link| link.program_id() == program)
    {
        let link = by_id(link.id())?;
        if interface_of(&link)? == interface.index {
            let request = [link.as_raw_fd().cast_unsigned()];
            bpf(BPF_LINK_DETACH, &request)?;
            return Ok(true);
        }
    }
    Ok(false)
}

fn by_id(id: u32) -> io::Result<OwnedFd> {
    let fd = bpf(BPF_LINK_GET_FD_BY_ID, &[id])?;
    // SAFETY: the command gives a new file descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn interface_of(link: &OwnedFd) -> io::Result<u32> {
    #[repr(C)]
    struct Request {
        fd: u32,
        length: u32,
        info: u64,
    }
    let mut info = [0_u32; INFO_WORDS];
    let request = Request {
        fd: link.as_raw_fd().cast_unsigned(),
        length: size_of_val(&info) as u32,
        info: info.as_mut_ptr() as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &request)?;
    Ok(info[INFO_INTERFACE])
}

/// Calls bpf(2) with a prefix of `union bpf_attr`.
fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<i32> {
    // SAFETY: `attributes` is a repr(C) prefix of `union bpf_attr` of the given size without padding, and everything it
    // points at lives until the call returns and is as long as it says.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as i32)
    }
}
