//! The stack in memory: a frame, what is known of its connection, and the kernel's part of a cookie, given beforehand.

use core::cell::{Cell, RefCell};
use std::vec::Vec;

use crate::{
    abi::Family,
    datapath::{Known, Stack},
    wire::segment::{Headers, Segment},
};

/// What tests and the simulator run [`crate::datapath::challenge`] and [`crate::datapath::verify`] over.
#[derive(Debug)]
pub struct MemStack {
    /// The frame; the answer, once it was sent.
    pub frame: RefCell<Vec<u8>>,
    /// What there is for its addresses and ports.
    pub known: Known,
    /// What the kernel makes of a SYN.
    pub cookie: i64,
    /// Whether the kernel knows the cookie that a segment brings back.
    pub proof: bool,
    /// Largest IP packet of the interface.
    pub mtu: u32,
    /// How often the listener was told that it is under a flood.
    pub tellings: Cell<u32>,
    /// Hints that were set.
    pub hints: RefCell<Vec<(u32, u64)>>,
    segment: Segment,
}

impl MemStack {
    /// A stack with a listener, for this frame.
    pub fn new(frame: &[u8]) -> Self {
        Self {
            frame: RefCell::new(frame.to_vec()),
            known: Known::Listener,
            cookie: 0,
            proof: false,
            mtu: 1_500,
            tellings: Cell::new(0),
            hints: RefCell::new(Vec::new()),
            segment: Segment::new(),
        }
    }
}

impl Headers for MemStack {
    fn word(&self, at: usize) -> u32 {
        self.segment.word(at)
    }

    fn set_word(&self, at: usize, word: u32) {
        self.segment.set_word(at, word);
    }

    fn option(&self, at: u32) -> u8 {
        self.segment.option(at)
    }
}

impl Stack for MemStack {
    fn load(&self, offset: u32, word: usize, bytes: u32) -> bool {
        let frame = self.frame.borrow();
        let (start, end) = (offset as usize, (offset + bytes) as usize);
        match frame.get(start..end) {
            Some(part) => {
                self.segment.load(word, part);
                true
            }
            None => false,
        }
    }

    fn find(&self, _family: Family, tcp_bytes: u32) -> Known {
        if matches!(self.known, Known::Listener) && tcp_bytes != 0 {
            self.tellings.set(self.tellings.get() + 1);
        }
        self.known
    }

    fn make(&self, _family: Family, _tcp_bytes: u32) -> i64 {
        self.cookie
    }

    fn is_proof(&self, _family: Family) -> bool {
        self.proof
    }

    fn mtu(&self) -> u32 {
        self.mtu
    }

    fn send(&self, offset: u32, word: usize, bytes: u32) -> bool {
        let mut frame = self.frame.borrow_mut();
        if frame.len() < 12 || frame[0] & 1 != 0 {
            return false;
        }
        frame.resize((offset + bytes) as usize, 0);
        let (one, other) = frame.split_at_mut(6);
        one.swap_with_slice(&mut other[..6]);
        let all = self.segment.bytes();
        let from = word * 4;
        frame[offset as usize..].copy_from_slice(&all[from..from + bytes as usize]);
        true
    }

    fn hint(&self, element: u32, bit: u64) {
        self.hints.borrow_mut().push((element, bit));
    }
}
