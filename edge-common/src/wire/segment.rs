//! The IP and TCP headers of one segment, copied out of its frame into a place of fixed size.
//!
//! The TCP header begins at a fixed word, whatever the family; the IP header ends there. So offsets are constants,
//! options are read with a mask instead of a check against the frame's end, and addresses and ports lie beside each
//! other as the kernel's socket look-up wants them. Words are as they lie in the packet (network byte order).
//! Nothing here is a guess about the frame: what was not loaded is stale, and the length says how much was.

use core::cell::Cell;

use crate::abi::{Addr, Family};

/// Words of the place: an IPv6 header, the longest TCP header, notes; a power of two.
pub const WORDS: usize = 64;
/// Where the TCP header begins.
pub const TCP: usize = 10;
/// Bytes of a TCP header without options, and with as many as fit.
pub const TCP_BYTES: u32 = 20;
/// Most bytes of a TCP header (RFC 9293 section 3.1: the data offset has four bits).
pub const MAX_TCP_BYTES: u32 = 60;
/// First of the words behind the longest header.
const NOTES: usize = 32;
/// First word of the options.
pub const OPTIONS: usize = TCP + 5;

/// IPv4 without options, IPv6 without extension headers: the word the header begins at, and its bytes.
#[inline(always)]
pub const fn ip(family: Family) -> (usize, u32) {
    match family {
        Family::V4 => (TCP - 5, 20),
        Family::V6 => (0, 40),
    }
}

/// First word and number of words of the addresses and ports, source first: the shape of `struct bpf_sock_tuple`
/// (include/uapi/linux/bpf.h).
#[inline(always)]
pub const fn tuple(family: Family) -> (usize, usize) {
    match family {
        Family::V4 => (TCP - 2, 3),
        Family::V6 => (TCP - 8, 9),
    }
}

/// Where one segment's headers lie. What is read is read from there every time, and what is written is there: a verifier
/// does not track what a map holds, so it does not walk the rest once for each value that could be there.
pub trait Headers {
    /// One word as it lies in the packet.
    fn word(&self, at: usize) -> u32;
    /// Writes one word as it is to lie in the packet.
    fn set_word(&self, at: usize, word: u32);
    /// One byte, counted from the first option.
    fn option(&self, at: u32) -> u8;

    /// One word, as a number.
    #[inline(always)]
    fn number(&self, at: usize) -> u32 {
        u32::from_be(self.word(at))
    }

    /// Writes a number in network byte order.
    #[inline(always)]
    fn set(&self, at: usize, number: u32) {
        self.set_word(at, number.to_be());
    }

    /// A note: one of the words behind the longest header.
    #[inline(always)]
    fn note(&self, which: usize) -> u32 {
        self.word(NOTES + which)
    }

    /// Keeps a note.
    #[inline(always)]
    fn set_note(&self, which: usize, value: u32) {
        self.set_word(NOTES + which, value);
    }

    /// Bytes of the TCP header by its own account.
    #[inline(always)]
    fn tcp_bytes(&self) -> u32 {
        (self.number(TCP + 3) >> 28) * 4
    }

    /// Puts addresses (words as in the packet) and ports (host order) where they belong, the rest untouched.
    #[inline(always)]
    fn set_tuple(&self, family: Family, src: &Addr, dst: &Addr, sport: u16, dport: u16) {
        match family {
            Family::V4 => {
                self.set_word(TCP - 2, src.0[3]);
                self.set_word(TCP - 1, dst.0[3]);
            }
            Family::V6 => {
                for (at, (source, destination)) in src.0.iter().zip(dst.0).enumerate() {
                    self.set_word(TCP - 8 + at, *source);
                    self.set_word(TCP - 4 + at, destination);
                }
            }
        }
        self.set(TCP, u32::from(sport) << 16 | u32::from(dport));
    }

    /// Whether what was loaded is a TCP header directly behind an IP header without options, extensions or fragments.
    #[inline(always)]
    fn is_plain(&self, family: Family) -> bool {
        let (start, _) = ip(family);
        let first = self.number(start);
        match family {
            Family::V4 => {
                // More fragments, and a fragment's offset.
                let fragment = self.number(start + 1) & 0x3fff;
                first >> 24 == 0x45 && fragment == 0 && self.number(start + 2) >> 16 & 0xff == 6
            }
            Family::V6 => first >> 28 == 6 && self.number(start + 1) >> 8 & 0xff == 6,
        }
    }
}

/// One segment's headers. Shared and written through [`Cell`]s, so that it can lie in a map.
#[repr(C, align(8))]
#[derive(Debug)]
pub struct Segment {
    words: [Cell<u32>; WORDS],
}
const _: () = assert!(size_of::<Segment>() == WORDS * 4);

impl Segment {
    /// All zero.
    pub const fn new() -> Self {
        Self {
            words: [const { Cell::new(0) }; WORDS],
        }
    }

    /// The words as bytes, for tests and whoever copies them.
    #[cfg(any(test, feature = "std"))]
    pub fn bytes(&self) -> [u8; WORDS * 4] {
        let mut bytes = [0; WORDS * 4];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(&self.words) {
            chunk.copy_from_slice(&word.get().to_ne_bytes());
        }
        bytes
    }

    /// Copies `bytes` to where word `at` begins; what does not fit is left out.
    #[cfg(any(test, feature = "std"))]
    pub fn load(&self, at: usize, bytes: &[u8]) {
        let mut all = self.bytes();
        let start = at * 4;
        for (to, from) in all.iter_mut().skip(start).zip(bytes) {
            *to = *from;
        }
        for (word, chunk) in self.words.iter().zip(all.chunks_exact(4)) {
            word.set(u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
        }
    }
}

impl Headers for Segment {
    fn word(&self, at: usize) -> u32 {
        self.words[at % WORDS].get()
    }

    fn set_word(&self, at: usize, word: u32) {
        self.words[at % WORDS].set(word);
    }

    fn option(&self, at: u32) -> u8 {
        self.word(OPTIONS + (at / 4) as usize).to_ne_bytes()[(at % 4) as usize]
    }
}

impl Default for Segment {
    fn default() -> Self {
        Self::new()
    }
}
