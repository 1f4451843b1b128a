//! Verdict tables over the in-memory maps: what depends on the interface that a packet came over, which a program that
//! the kernel's harness runs cannot tell.

use core::net::IpAddr;
use std::vec::Vec;

use super::{At, run};
use crate::{
    abi::{Addr, Control, Params, Reason, Service},
    mem::{Bytes, MemTables},
};

const PORT: u16 = 443;
const SERVICE: u16 = 2;

/// A world with a service on this address.
fn world(service: &str, control: u64) -> MemTables {
    let mut tables = MemTables::new(Params {
        hint_mask: 15,
        line_mask: 15,
        front_mask: 15,
        ban_buckets: 16,
        max_bans: 32,
        earned_buckets: 16,
        hz: 250,
        ..Params::default()
    });
    tables.control = Control(control);
    for copy in &mut tables.services {
        copy[usize::from(SERVICE)] = Service {
            addr: address(service),
            id: 1,
            ..Service::default()
        };
    }
    tables.ports[usize::from(PORT)].tcp = [SERVICE; 2];
    tables
}

fn address(text: &str) -> Addr {
    Addr::from(text.parse::<IpAddr>().expect("an address"))
}

/// An ACK to the service's port.
fn ack(src: &str, dst: &str) -> Vec<u8> {
    let mut bytes = std::vec![0; 12];
    match (src.parse().expect("an address"), dst.parse().expect("an address")) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            bytes.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0]);
            bytes.extend(src.octets());
            bytes.extend(dst.octets());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
            bytes.extend(src.octets());
            bytes.extend(dst.octets());
        }
        _ => panic!("two families"),
    }
    bytes.extend(40_000_u16.to_be_bytes());
    bytes.extend(PORT.to_be_bytes());
    bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0]);
    bytes
}

#[test]
fn sources_that_cannot_be_real_are_judged_by_the_interface() {
    const V4: &str = "203.0.113.1";
    const V6: &str = "2001:db8::53";
    let martians = Control::DROP_MARTIANS;
    // What, source, destination, control word, reason from outside. Over the loopback interface all are admitted.
    let rows = [
        ("an honest source", "192.0.2.1", V4, martians, Reason::Admitted),
        ("the service's own address", V4, V4, martians, Reason::SameAddress),
        ("the same, martians let through", V4, V4, 0, Reason::SameAddress),
        ("127.0.0.0/8", "127.1.2.3", V4, martians, Reason::Martian),
        ("the same, let through", "127.1.2.3", V4, 0, Reason::Admitted),
        ("0.0.0.0/8", "0.1.2.3", V4, martians, Reason::Martian),
        (
            "the first multicast address",
            "224.0.0.0",
            V4,
            martians,
            Reason::Martian,
        ),
        (
            "the last address before",
            "223.255.255.255",
            V4,
            martians,
            Reason::Admitted,
        ),
        ("240.0.0.0/4", "240.0.0.1", V4, martians, Reason::Martian),
        ("broadcast", "255.255.255.255", V4, martians, Reason::Martian),
        (
            "an honest source, IPv6",
            "2001:db8::1",
            V6,
            martians,
            Reason::Admitted,
        ),
        (
            "the service's own address, IPv6",
            V6,
            V6,
            martians,
            Reason::SameAddress,
        ),
        ("::1", "::1", V6, martians, Reason::Martian),
        ("::", "::", V6, martians, Reason::Martian),
        ("ff00::/8", "ff02::1", V6, martians, Reason::Martian),
        ("fe80::/10 is real", "fe80::1", V6, martians, Reason::Admitted),
        ("ff00::/8, let through", "ff02::1", V6, 0, Reason::Admitted),
    ];
    for (what, src, dst, control, outside) in rows {
        let tables = world(dst, control);
        let packet = ack(src, dst);
        for (external, expected) in [(true, outside), (false, Reason::Admitted)] {
            let at = At {
                tick: 1_000_000,
                external,
            };
            let verdict = run(&Bytes(&packet), &tables, &at);
            assert_eq!(verdict.reason(), expected, "{what}, external: {external}");
        }
    }
}
