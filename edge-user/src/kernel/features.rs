//! Which offloads an interface has switched on, as `ethtool -k` shows them.
//!
//! Speaks the `SIOCETHTOOL` interface of linux/ethtool.h with buffers of 32-bit words, of which all its structures here
//! are made. Only asks.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETH_SS_FEATURES: u32 = 4;
/// `ETH_GSTRING_LEN`.
const NAME_BYTES: usize = 32;
/// Most features a kernel may name; today it is about 64.
const MAX_FEATURES: usize = 1_024;
/// Words of a block of 32 features (`struct ethtool_get_features_block`), and which of them says what is on.
const BLOCK_WORDS: usize = 4;
const ACTIVE: usize = 2;

/// Names of the features that are on.
///
/// # Errors
/// There is no such interface, or the kernel does not tell.
pub fn switched_on(interface: &str) -> io::Result<Vec<String>> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // Command, padding, a 64-bit mask of string sets, and the length of the one asked for.
    let mut info = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0, 0];
    if cfg!(target_endian = "big") {
        info.swap(2, 3);
    }
    ask(&socket, interface, &mut info)?;
    let count = (info[4] as usize).min(MAX_FEATURES);
    let mut names = vec![0; 3 + count * NAME_BYTES / 4];
    names[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count as u32]);
    ask(&socket, interface, &mut names)?;
    let blocks = count.div_ceil(32);
    let mut states = vec![0; 2 + blocks * BLOCK_WORDS];
    states[..2].copy_from_slice(&[ETHTOOL_GFEATURES, blocks as u32]);
    ask(&socket, interface, &mut states)?;
    let is_on = |index: usize| {
        states
            .get(2 + index / 32 * BLOCK_WORDS + ACTIVE)
            .is_some_and(|word| word >> (index % 32) & 1 != 0)
    };
    Ok(names[3..]
        .chunks(NAME_BYTES / 4)
        .enumerate()
        .filter(|(index, _)| is_on(*index))
        .map(|(_, words)| {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            super::services::text(&bytes)
        })
        .collect())
}

fn ask(socket: &OwnedFd, interface: &str, words: &mut [u32]) -> io::Result<()> {
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
    // lengths among the words say, and the caller has sized the slice by them.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_tells_and_a_missing_one_is_an_error() {
        let on = switched_on("lo").expect("lo is everywhere");
        assert!(on.iter().any(|name| name == "loopback"), "{on:?}");
        assert!(switched_on("no-such-if").is_err());
        assert!(switched_on("a-name-that-is-too-long").is_err());
    }
}
