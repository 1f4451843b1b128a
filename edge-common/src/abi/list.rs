//! Keys of the longest-prefix-match tries.

use super::{Addr, assert_layout};

/// Key of an LPM trie over v4-mapped addresses (`struct bpf_lpm_trie_key`, include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LpmKey {
    /// Bits of `addr` that count, of 128.
    pub prefix: u32,
    /// The address; bytes in network order.
    pub addr: Addr,
}
assert_layout!(LpmKey, size = 20, align = 4);
