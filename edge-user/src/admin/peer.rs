//! Who is at the other end of the admin socket, as the kernel says it.

use std::os::fd::{AsFd, AsRawFd};

use tokio::net::UnixStream;

/// Most supplementary groups that a process can have (include/uapi/linux/limits.h, `NGROUPS_MAX`).
const MAX_GROUPS: usize = 65_536;

/// Who may use the socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Admitted {
    /// The daemon's own user.
    pub(super) uid: u32,
    /// Members of this group, if there is one.
    pub(super) gid: Option<u32>,
}

impl Admitted {
    /// The daemon's user, root, and a group.
    pub(super) fn new(gid: Option<u32>) -> Self {
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid,
        }
    }

    /// Whether the process that made the connection may.
    pub(super) fn admits(self, stream: &UnixStream) -> bool {
        let Ok(peer) = stream.peer_cred() else {
            return false;
        };
        peer.uid() == 0
            || peer.uid() == self.uid
            || self
                .gid
                .is_some_and(|gid| peer.gid() == gid || groups(stream).contains(&gid))
    }
}

/// The peer's supplementary groups when it connected; none if the kernel does not tell.
fn groups(stream: &UnixStream) -> Vec<u32> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut bytes = (groups.len() * size_of::<libc::gid_t>()) as libc::socklen_t;
        // SAFETY: the descriptor is open as long as `stream` is borrowed, and the kernel writes at most `bytes` bytes
        // to `groups`, which is that long.
        let failed = unsafe {
            libc::getsockopt(
                stream.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        } != 0;
        let count = bytes as usize / size_of::<libc::gid_t>();
        if !failed {
            groups.truncate(count);
            return groups;
        }
        // ERANGE: `bytes` says how many there are (net/core/sock.c).
        let is_short = std::io::Error::last_os_error().raw_os_error() == Some(libc::ERANGE);
        if !is_short || count <= groups.len() || count > MAX_GROUPS {
            return Vec::new();
        }
        groups.resize(count, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_member_by_a_supplementary_group_is_known() {
        let (one, _other) = UnixStream::pair().expect("a pair");
        let own: Vec<u32> = rustix::process::getgroups()
            .expect("groups")
            .iter()
            .map(|gid| gid.as_raw())
            .collect();
        assert_eq!(groups(&one), own);
        let nobody = Admitted {
            uid: u32::MAX,
            gid: None,
        };
        let is_root = rustix::process::geteuid().is_root();
        assert_eq!(nobody.admits(&one), is_root);
        assert!(Admitted::new(None).admits(&one));
    }
}
