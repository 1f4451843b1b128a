//! Steering's maps in memory, and an egress whose routes are given beforehand.

use core::{
    cell::{Cell, RefCell},
    sync::atomic::AtomicU64,
};
use std::{collections::HashMap, rc::Rc, vec::Vec};

use crate::{
    abi::{
        Addr, Backend, BackendCount, SteerRule,
        service::MAX_SERVICES,
        steer::{BLOCK_WORDS, BLOCKS, CANDIDATES, FLOW_WORDS, MAX_BACKENDS, NAT_WORDS, NATS},
    },
    algo::maglev::{self, Share},
    datapath::steer::{Egress, Lanes, Query, Way, Window},
};

/// The maps.
#[derive(Debug)]
pub struct MemLanes {
    /// Both copies of the rules.
    pub rules: [Vec<SteerRule>; 2],
    /// The tables, four places a word.
    pub places: Vec<u64>,
    /// Backends.
    pub backends: Vec<Backend>,
    flows: Vec<[AtomicU64; FLOW_WORDS]>,
    candidates: Vec<AtomicU64>,
    nats: Vec<[AtomicU64; NAT_WORDS]>,
    counts: RefCell<Vec<BackendCount>>,
}

impl MemLanes {
    /// Empty maps with this mask of the connection table.
    pub fn new(flow_mask: u32) -> Self {
        Self {
            rules: core::array::from_fn(|_| std::vec![SteerRule::default(); MAX_SERVICES as usize]),
            places: std::vec![0; (BLOCKS * BLOCK_WORDS) as usize],
            backends: std::vec![Backend::default(); MAX_BACKENDS as usize],
            flows: core::iter::repeat_with(|| core::array::from_fn(|_| AtomicU64::new(0)))
                .take(flow_mask as usize + 1)
                .collect(),
            candidates: core::iter::repeat_with(AtomicU64::default)
                .take(CANDIDATES as usize)
                .collect(),
            nats: core::iter::repeat_with(|| core::array::from_fn(|_| AtomicU64::new(0)))
                .take(NATS as usize)
                .collect(),
            counts: RefCell::new(std::vec![BackendCount::default(); MAX_BACKENDS as usize]),
        }
    }

    /// What was counted of a backend.
    pub fn counted(&self, backend: u16) -> BackendCount {
        self.counts
            .borrow()
            .get(usize::from(backend))
            .copied()
            .unwrap_or_default()
    }

    /// Buckets of the connection table.
    pub fn buckets(&self) -> &[[AtomicU64; FLOW_WORDS]] {
        &self.flows
    }

    /// The same without anything that is remembered of flows.
    #[must_use]
    pub fn forgetting(&self) -> Self {
        let mask = u32::try_from(self.flows.len()).unwrap_or(1).saturating_sub(1);
        Self {
            rules: self.rules.clone(),
            places: self.places.clone(),
            backends: self.backends.clone(),
            ..Self::new(mask)
        }
    }

    /// The flows' first packets.
    pub fn candidates(&self) -> &[AtomicU64] {
        &self.candidates
    }

    /// Translations.
    pub fn nats(&self) -> &[[AtomicU64; NAT_WORDS]] {
        &self.nats
    }

    /// Fills block `block` with a table of `size` places for these backends, by index and weight, and puts it in force for
    /// service `service` of copy `copy`.
    pub fn spread(&mut self, copy: u32, service: u16, block: u32, size: u32, backends: &[(u16, u32)]) {
        let shares: Vec<Share> = backends
            .iter()
            .map(|(index, weight)| Share {
                index: *index,
                identity: u64::from(*index),
                weight: *weight,
            })
            .collect();
        for (at, word) in maglev::packed(size, &shares).into_iter().enumerate() {
            self.places[(block * BLOCK_WORDS) as usize + at] = word;
        }
        let rule = &mut self.rules[copy as usize][usize::from(service)];
        rule.size = size;
        rule.table = if backends.is_empty() {
            0
        } else {
            SteerRule::table(block, size)
        };
    }
}

impl Lanes for MemLanes {
    type Cell = AtomicU64;

    fn rule(&self, copy: u32, index: u16) -> Option<&SteerRule> {
        self.rules[copy as usize].get(usize::from(index))
    }

    fn table(&self, rule: &SteerRule) -> u64 {
        rule.table
    }

    fn places(&self, index: u32) -> u64 {
        self.places.get(index as usize).copied().unwrap_or_default()
    }

    fn backend(&self, index: u16) -> Option<&Backend> {
        self.backends.get(usize::from(index))
    }

    fn flows(&self, index: u32) -> Option<&[AtomicU64; FLOW_WORDS]> {
        self.flows.get(index as usize)
    }

    fn candidate(&self, index: u32) -> Option<&AtomicU64> {
        self.candidates.get(index as usize)
    }

    fn nat(&self, index: u32) -> Option<&[AtomicU64; NAT_WORDS]> {
        self.nats.get(index as usize)
    }

    fn count(&self, backend: u16, bytes: u32, opened: bool, entered: bool) {
        if let Some(count) = self.counts.borrow_mut().get_mut(usize::from(backend)) {
            count.packets += 1;
            count.bytes += u64::from(bytes);
            count.opened += u64::from(opened);
            count.entered += u64::from(entered);
        }
    }
}

/// A frame, and the ways that there are.
#[derive(Debug)]
pub struct MemEgress {
    /// The frame; what is sent, once it was.
    pub frame: Rc<RefCell<Vec<u8>>>,
    /// The interface it came in by.
    pub ingress: u32,
    /// Ways by destination, with the largest packet of each.
    pub ways: HashMap<Addr, Way>,
    /// What was asked for last.
    pub asked: Cell<Option<Query>>,
}

impl MemEgress {
    /// One for this frame, without any way.
    pub fn new(frame: &[u8]) -> Self {
        Self {
            frame: Rc::new(RefCell::new(frame.to_vec())),
            ingress: 1,
            ways: HashMap::new(),
            asked: Cell::new(None),
        }
    }

    /// The frame now.
    pub fn bytes(&self) -> Vec<u8> {
        self.frame.borrow().clone()
    }
}

/// The first bytes of a frame in memory.
#[derive(Debug)]
pub struct MemWindow<const N: usize>(Rc<RefCell<Vec<u8>>>);

impl<const N: usize> MemWindow<N> {
    fn get<const B: usize>(&self, at: usize) -> [u8; B] {
        assert!(at + B <= N, "within the window");
        let frame = self.0.borrow();
        core::array::from_fn(|byte| frame[at + byte])
    }

    fn set(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= N, "within the window");
        self.0.borrow_mut()[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

impl<const N: usize> Window for MemWindow<N> {
    fn u8(&self, at: usize) -> u8 {
        let [byte] = self.get(at);
        byte
    }

    fn half(&self, at: usize) -> u16 {
        u16::from_ne_bytes(self.get(at))
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.get(at))
    }

    fn set_u8(&self, at: usize, value: u8) {
        self.set(at, &[value]);
    }

    fn set_half(&self, at: usize, value: u16) {
        self.set(at, &value.to_ne_bytes());
    }

    fn set_word(&self, at: usize, value: u32) {
        self.set(at, &value.to_ne_bytes());
    }
}

impl Egress for MemEgress {
    type Window<const N: usize> = MemWindow<N>;

    fn ingress(&self) -> u32 {
        self.ingress
    }

    fn route(&self, query: &Query) -> Way {
        self.asked.set(Some(*query));
        let Some(way) = self.ways.get(&query.dst) else {
            return Way::none();
        };
        let code = if query.bytes > way.mtu {
            Way::TOO_BIG
        } else {
            way.code
        };
        Way { code, ..*way }
    }

    fn stretch(&self, more: i32) -> bool {
        let mut frame = self.frame.borrow_mut();
        match usize::try_from(more) {
            Ok(more) => {
                frame.splice(0..0, core::iter::repeat_n(0, more));
            }
            Err(_) => {
                frame.drain(..more.unsigned_abs() as usize);
            }
        }
        true
    }

    fn cut(&self, bytes: u32) -> bool {
        self.frame.borrow_mut().truncate(bytes as usize);
        true
    }

    fn window<const N: usize>(&self) -> Option<MemWindow<N>> {
        (self.frame.borrow().len() >= N).then(|| MemWindow(Rc::clone(&self.frame)))
    }
}
