//! Switching device features, as `ethtool -K` does: the lab's machines need no `ethtool`.
//!
//! Speaks the `SIOCETHTOOL` interface of linux/ethtool.h with buffers of 32-bit words, of which all its structures here
//! are made.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::netns::Namespace;

const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETH_SS_FEATURES: u32 = 4;
/// `ETH_GSTRING_LEN`.
const NAME_LENGTH: usize = 32;
/// Most features a kernel may name; today it is about 64.
const MAX_FEATURES: usize = 1024;

/// Switches features of an interface off, by the names that `ethtool -k` shows.
pub fn switch_off(namespace: &Namespace, interface: &str, features: &[&str]) -> Result<()> {
    switch(namespace, interface, features, false)
}

/// Switches features of an interface on.
pub fn switch_on(namespace: &Namespace, interface: &str, features: &[&str]) -> Result<()> {
    switch(namespace, interface, features, true)
}

fn switch(namespace: &Namespace, interface: &str, features: &[&str], on: bool) -> Result<()> {
    namespace.enter(|| {
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        let names = names(&socket, interface).with_context(|| format!("features of {interface}"))?;
        let mut request = vec![ETHTOOL_SFEATURES, names.len().div_ceil(32) as u32];
        request.resize(2 + 2 * names.len().div_ceil(32), 0);
        for feature in features {
            let Some(index) = names.iter().position(|name| name == feature) else {
                bail!("{interface} has no feature {feature}")
            };
            // Each block is a pair: which bits to change, and to what. Zero is off.
            request[2 + 2 * (index / 32)] |= 1 << (index % 32);
            request[3 + 2 * (index / 32)] |= u32::from(on) << (index % 32);
        }
        ethtool(&socket, interface, &mut request)
            .with_context(|| format!("switching {features:?} of {interface}"))
    })
}

fn names(socket: &OwnedFd, interface: &str) -> Result<Vec<String>> {
    // Command, padding, a 64-bit mask of string sets, and the length of the one asked for.
    let mut info = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0, 0];
    if cfg!(target_endian = "big") {
        info.swap(2, 3);
    }
    ethtool(socket, interface, &mut info)?;
    let count = info[4] as usize;
    if count > MAX_FEATURES {
        bail!("the kernel names {count} features");
    }
    let mut strings = vec![ETHTOOL_GSTRINGS, ETH_SS_FEATURES, info[4]];
    strings.resize(3 + count * NAME_LENGTH / 4, 0);
    ethtool(socket, interface, &mut strings)?;
    let bytes: Vec<u8> = strings[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let name = |bytes: &[u8]| {
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    };
    Ok(bytes.chunks(NAME_LENGTH).map(name).collect())
}

fn ethtool(socket: &OwnedFd, interface: &str, words: &mut [u32]) -> io::Result<()> {
    // SAFETY: ifreq is plain data, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    // SAFETY: the request and the words it points at live until the call returns; the kernel writes no further than the
    // lengths among the words say, and the callers have sized the slice by them.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
