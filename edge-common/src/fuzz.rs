//! What every packet must leave true, whatever its bytes: the body of the fuzz target `packet`, and of its replay.
//!
//! One input is two bytes of settings and a frame. Worlds are made once; where the outcome is compared they have no
//! limits, so that they do not remember anything.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::vec;

use crate::{
    abi::{
        Addr, AddressFlags, Ban, BanKey, Control, EarnedHost, Family, Limit, LimitKind, LpmKey, Outcome,
        Params, PortEntry, Reason, Service, limit::MAX_LIMITS,
    },
    datapath::{self, At, Verdict},
    mem::{Bytes, MemTables},
};

/// Addresses that the worlds know, so that a fuzzer finds them in its seeds.
const V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53);
const BANNED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const DENIED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 0);
const ALLOWED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const EARNED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);
/// Any tick; bans hold at it.
const TICK: u64 = 1_000_000;

/// Worlds that inputs are judged in.
pub struct Worlds {
    empty: MemTables,
    strict: MemTables,
    observing: MemTables,
    limited: MemTables,
}

impl Default for Worlds {
    fn default() -> Self {
        Self::new()
    }
}

impl Worlds {
    /// Makes them.
    pub fn new() -> Self {
        let everything = Reason::ALL
            .iter()
            .fold(Control(0), |control, reason| control.observing(*reason));
        let mut observing = world(false);
        observing.control.0 |= everything.0;
        Self {
            empty: MemTables::new(params()),
            strict: world(false),
            observing,
            limited: world(true),
        }
    }

    /// Judges one input.
    ///
    /// # Panics
    /// A packet breaks what must hold of every packet.
    pub fn check(&mut self, input: &[u8]) {
        let [settings, arrival, frame @ ..] = input else {
            return;
        };
        let arrival = At {
            tick: TICK,
            external: arrival & 1 != 0,
        };
        let bits = settings_of(*settings);
        let judge = |world: &mut MemTables| {
            world.control.0 = world.control.0 & !ALL_SETTINGS | bits;
            datapath::run(&Bytes(frame), world, &arrival)
        };
        let nothing: Verdict = judge(&mut self.empty);
        assert!(
            matches!(nothing.reason(), Reason::NotIp | Reason::NotProtected),
            "nothing is protected, and yet: {nothing:?}"
        );
        let verdict = judge(&mut self.strict);
        assert_eq!(verdict, judge(&mut self.strict), "the second time is the first");
        assert!(
            !matches!(verdict.reason(), Reason::Internal | Reason::Contended),
            "{verdict:?}"
        );
        assert!(!verdict.observed.is_some(), "nothing is observed: {verdict:?}");
        assert_eq!(
            matches!(nothing.reason(), Reason::NotIp),
            matches!(verdict.reason(), Reason::NotIp),
            "what is IP does not hang on what is protected"
        );
        let observed = judge(&mut self.observing);
        assert_eq!(observed.reason().outcome(), Outcome::Pass, "{observed:?}");
        if matches!(verdict.reason().outcome(), Outcome::Drop) {
            assert_eq!(
                observed.observed.reason(),
                Some(verdict.reason()),
                "observing tells another reason"
            );
        }
        let limited = judge(&mut self.limited);
        assert!(!matches!(limited.reason(), Reason::Internal), "{limited:?}");
        if !matches!(verdict.reason(), Reason::Admitted) {
            assert_eq!(limited.reason(), verdict.reason(), "limits come last");
        }
    }
}

const ALL_SETTINGS: u64 = Control::PASS_FRAGMENTS | Control::PASS_MALFORMED | Control::DROP_MARTIANS;

fn settings_of(byte: u8) -> u64 {
    [
        Control::PASS_FRAGMENTS,
        Control::PASS_MALFORMED,
        Control::DROP_MARTIANS,
    ]
    .iter()
    .enumerate()
    .filter(|(bit, _)| byte >> bit & 1 != 0)
    .fold(0, |bits, (_, setting)| bits | setting)
}

fn params() -> Params {
    Params {
        seeds: [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210],
        hint_mask: (1 << 10) - 1,
        line_mask: (1 << 5) - 1,
        front_mask: (1 << 2) - 1,
        ban_buckets: 8,
        earned_buckets: 8,
        hz: 250,
        ..Params::default()
    }
}

fn addr(address: impl Into<IpAddr>) -> Addr {
    Addr::from(address.into())
}

fn world(limited: bool) -> MemTables {
    let mut world = MemTables::new(params());
    let limits_of = |kinds: &[LimitKind]| {
        let mut service = Service::default();
        for (place, kind) in service.limits.iter_mut().zip(kinds).take(MAX_LIMITS) {
            *place = Limit {
                cost: 1_000 << 16,
                capacity: 10_000 << 16,
                front: 2_000 << 16,
                rest: 8,
                salt: 7,
                kind: *kind as u8,
                flags: kind.flags(),
            };
            service.active += u16::from(limited);
        }
        service
    };
    let ports: [LimitKind; MAX_LIMITS] = [
        LimitKind::SourceSyns,
        LimitKind::SourcePackets,
        LimitKind::SourceBytes,
        LimitKind::NetworkSyns,
        LimitKind::NetworkPackets,
        LimitKind::NetworkBytes,
    ];
    // Identifier, address, protocol and port; 1 is the entry for what has no port.
    let services = [
        (2, addr(V4), 0, 443_u16, true),
        (3, addr(V6), 0, 443, true),
        (4, Addr::UNSPECIFIED, Service::ANY_LOCAL, 9000, true),
        (5, addr(V4), 0, 53, false),
    ];
    world.services[0][1] = limits_of(&[LimitKind::SourceIcmp]);
    for (id, address, flags, port, is_tcp) in services {
        let entry: &mut PortEntry = &mut world.ports[usize::from(port)];
        let head = if is_tcp {
            &mut entry.tcp[0]
        } else {
            &mut entry.udp[0]
        };
        world.services[0][usize::from(id)] = Service {
            addr: address,
            next: *head,
            id,
            flags,
            ..limits_of(&ports)
        };
        *head = id;
    }
    for address in [addr(V4), addr(V6)] {
        world.addresses.insert(
            address,
            AddressFlags(AddressFlags::PROTECTED | AddressFlags::LOCAL),
        );
    }
    let ban = Ban {
        until: TICK + 1,
        ..Ban::default()
    };
    for key in [
        BanKey::new(&addr(BANNED), 128),
        BanKey::new(&addr(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0)), 48),
    ] {
        _ = world.ban(&key, &ban);
    }
    world.set_deny(0, &[entry(DENIED, 24)]);
    world.allow[0] = vec![entry(ALLOWED, 32)];
    _ = world.earn(EarnedHost::new(&addr(EARNED), Family::V4), 7, TICK);
    world.control.0 = Control::HAS_DENY | Control::HAS_ALLOW | Control::ANY_LOCAL;
    world
}

fn entry(address: Ipv4Addr, length: u32) -> LpmKey {
    LpmKey {
        prefix: 96 + length,
        addr: addr(address),
    }
}

#[cfg(test)]
mod tests {
    //! Replays what fuzzing has found, on any compiler.

    use std::{fs, path::Path, vec::Vec};

    use super::*;

    #[test]
    fn every_packet_of_the_corpus_leaves_true_what_must_be() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/packet");
        let mut worlds = Worlds::new();
        let mut files = 0;
        let mut reasons = [false; Reason::SLOTS as usize];
        for file in fs::read_dir(&corpus).expect("the corpus is in the tree") {
            let input = fs::read(file.expect("an entry").path()).expect("a file");
            worlds.check(&input);
            files += 1;
            let arrival = At {
                tick: TICK,
                external: input.get(1).is_some_and(|byte| byte & 1 != 0),
            };
            let verdict = datapath::run(
                &Bytes(input.get(2..).unwrap_or_default()),
                &worlds.strict,
                &arrival,
            );
            reasons[usize::from(verdict.code.0)] = true;
        }
        assert!(files >= 40, "{files} files");
        let missing: Vec<_> = [
            Reason::NotIp,
            Reason::NotProtected,
            Reason::Admitted,
            Reason::AllowListed,
            Reason::Signalling,
            Reason::Banned,
            Reason::Denied,
            Reason::Fragment,
            Reason::Truncated,
            Reason::Malformed,
            Reason::BadFlags,
            Reason::SameAddress,
            Reason::Martian,
            Reason::ZeroPort,
        ]
        .into_iter()
        .filter(|reason| !reasons[*reason as usize])
        .collect();
        assert!(
            missing.is_empty(),
            "no packet of the corpus leaves with {missing:?}"
        );
    }
}
