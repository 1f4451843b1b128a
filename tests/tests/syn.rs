//! SYN cookies packet by packet: the programs in the kernel beside the same code in memory, every byte compared.
//!
//! Runs on any kernel with the helpers (Linux 6.0) as root, also in the VM: packets go through `BPF_PROG_TEST_RUN` in a
//! network namespace that has the listeners. What only the kernel can know, its cookie, is taken from its answer.
#![expect(
    clippy::expect_used,
    reason = "a step of a test that fails has to stop that test"
)]

use std::{
    net::{IpAddr, TcpListener},
    time::{Duration, Instant},
};

use edge_common::{
    abi::{Code, Feature, Reason},
    datapath::{self, At},
    mem::{Bytes, MemStack, MemTables},
};
use edge_user::{
    config::{CookieMode, Guard, Limits, Protocol, Rate, Service, Shield, Syn},
    kernel::sysctl,
};
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use tests::{
    frame::{
        ACK, DESTINATION_OPTIONS, Extension, FIN, Fragment, Frame, PSH, RST, SYN, TPID_8021AD, TPID_8021Q,
        Tag, Tcp, Transport,
    },
    judge::{Kernel, counter},
    netns::Namespace,
    skip,
    stage::vips,
};

const PORT: u16 = 443;
/// A service with a listener whose budget is two connections at once.
const TIGHT: u16 = 444;
/// A guarded service that nobody listens on.
const DEAF: u16 = 445;
/// A port of UDP.
const DNS: u16 = 53;
/// A port whose packets are limited: of TCP with a listener and cookies, and of UDP without a guard.
const LIMITED: u16 = 446;
const LIMIT: Rate = Rate {
    per_second: 1,
    burst: 40,
};
/// MTU of the loopback interface, which the harness runs programs for.
const MTU: u32 = 65_536;
const CLIENT_PORT: u16 = 40_000;
/// Most ticks by which the kernel's count may lag behind the clock.
const LAG: u64 = 10_000;

struct World {
    kernel: Kernel,
    _listeners: Vec<TcpListener>,
}

/// Runs `job` in a namespace with listeners and the programs loaded; skips aloud where it cannot.
fn in_world(test: &str, job: impl FnOnce(World) + Send) {
    if let Some(reason) = skip::missing() {
        skip::report(test, reason);
        return;
    }
    let namespace = Namespace::create("syn").expect("a namespace");
    for vip in vips() {
        let length = if vip.is_ipv4() { 32 } else { 128 };
        namespace
            .ip(&format!("address add {vip}/{length} dev lo nodad"))
            .expect("an address");
    }
    for name in ["tcp_syncookies", "tcp_timestamps"] {
        namespace.sysctl(&format!("ipv4/{name}"), "2").expect("a setting");
    }
    namespace.enter(|| {
        let listeners = vips()
            .iter()
            .flat_map(|vip| {
                [PORT, TIGHT, LIMITED].map(|port| TcpListener::bind((*vip, port)).expect("a free port"))
            })
            .collect();
        let mut kernel = Kernel::load().expect("the program loads");
        if let Some(why) = kernel.why_absent(Feature::Cookies) {
            skip::report(test, &why);
            return;
        }
        let settings = sysctl::cookie_settings(true, &kernel.tables.params);
        kernel.tables.write_cookie_settings(settings);
        kernel
            .configure(&services(), &Shield::default(), &vips(), 0)
            .expect("configured");
        job(World {
            kernel,
            _listeners: listeners,
        });
    });
}

fn services() -> Vec<Service> {
    let tight = Rate {
        per_second: 1,
        burst: 2,
    };
    let service = |name: &str, vip: IpAddr, protocol, port, guard| Service {
        direct: None,
        name: format!("{name}-{}", if vip.is_ipv4() { 4 } else { 6 }),
        address: Some(vip),
        protocol,
        port,
        limits: Limits::default(),
        observe: false,
        guard,
    };
    let syn = |budget, cookies| {
        Guard::Syn(Syn {
            budget,
            cookies,
            hold: Duration::from_secs(10),
            window_scale: None,
        })
    };
    vips()
        .into_iter()
        .flat_map(|vip| {
            [
                service("always", vip, Protocol::Tcp, PORT, syn(None, CookieMode::Always)),
                service(
                    "tight",
                    vip,
                    Protocol::Tcp,
                    TIGHT,
                    syn(Some(tight), CookieMode::Auto),
                ),
                service(
                    "deaf",
                    vip,
                    Protocol::Tcp,
                    DEAF,
                    syn(Some(tight), CookieMode::Always),
                ),
                service("dns", vip, Protocol::Udp, DNS, Guard::NewSources(tight)),
                limited(service(
                    "limited-tcp",
                    vip,
                    Protocol::Tcp,
                    LIMITED,
                    syn(None, CookieMode::Always),
                )),
                limited(service("limited-udp", vip, Protocol::Udp, LIMITED, Guard::None)),
            ]
        })
        .collect()
}

fn limited(service: Service) -> Service {
    let limits = Limits {
        source_packets: Some(LIMIT),
        ..Limits::default()
    };
    Service { limits, ..service }
}

fn source(vip: IpAddr, number: u8) -> IpAddr {
    if vip.is_ipv4() {
        IpAddr::from([198, 51, 100, number])
    } else {
        IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(number)])
    }
}

fn segment(vip: IpAddr, number: u8, port: u16, flags: u8) -> Frame {
    let tcp = Tcp {
        source: CLIENT_PORT,
        destination: port,
        sequence: 0x1020_3040,
        acknowledgement: 0x5060_7080,
        flags,
        options: Vec::new(),
    };
    Frame {
        source_mac: [2, 0, 0, 0, 0, 1],
        destination_mac: [2, 0, 0, 0, 0, 2],
        ..Frame::new(source(vip, number), vip, Transport::Tcp(tcp))
    }
}

fn with_options(mut frame: Frame, options: &[u8]) -> Frame {
    if let Transport::Tcp(tcp) = &mut frame.transport {
        tcp.options = options.to_vec();
    }
    frame
}

/// Every subset of options in several orders, what browsers' systems send, and lists that contradict themselves.
fn option_lists() -> Vec<Vec<u8>> {
    const MSS: &[u8] = &[2, 4, 5, 0xb4];
    const SACK: &[u8] = &[4, 2];
    const STAMP: &[u8] = &[8, 10, 1, 2, 3, 4, 0, 0, 0, 0];
    const SCALE: &[u8] = &[3, 3, 7];
    let mut rng = SmallRng::seed_from_u64(4);
    let mut lists: Vec<Vec<u8>> = Vec::new();
    for bits in 0..16_u32 {
        let mut parts: Vec<&[u8]> = [MSS, SACK, STAMP, SCALE]
            .into_iter()
            .enumerate()
            .filter(|(index, _)| bits >> index & 1 == 1)
            .map(|(_, part)| part)
            .collect();
        for _ in 0..3 {
            lists.push(parts.concat());
            lists.push(parts.join(&1));
            parts.shuffle(&mut rng);
        }
    }
    for list in [
        // Linux, Windows, macOS and iOS, a scanner.
        &[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 9, 9, 0, 0, 0, 0, 1, 3, 3, 7][..],
        &[2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2],
        &[
            2, 4, 5, 0xb4, 1, 3, 3, 6, 1, 1, 8, 10, 9, 0, 0, 9, 0, 0, 0, 0, 4, 2, 0, 0,
        ],
        &[2, 4, 5, 0xb4],
        // The largest and beyond, the smallest, twice, unknown kinds, MD5, Fast Open.
        &[3, 3, 14, 8, 10, 1, 1, 1, 1, 0, 0, 0, 0],
        &[3, 3, 255, 8, 10, 1, 1, 1, 1, 0, 0, 0, 0],
        &[2, 4, 0, 0],
        &[2, 4, 0, 1],
        &[2, 4, 0xff, 0xff],
        &[
            3, 3, 2, 3, 3, 5, 8, 10, 1, 1, 1, 1, 0, 0, 0, 0, 8, 10, 2, 2, 2, 2, 0, 0, 0, 0,
        ],
        &[34, 2, 4, 2, 253, 6, 1, 2, 3, 4],
        // Lengths of none, of one, beyond the end; nothing but padding.
        &[8, 0, 4, 2],
        &[8, 1, 4, 2],
        &[4, 2, 8, 10, 1, 1],
        &[4, 2, 3],
        &[1; 40],
        &[0; 40],
    ] {
        lists.push(list.to_vec());
    }
    for _ in 0..200 {
        let length = rng.random_range(0..=40);
        lists.push(
            (0..length)
                .map(|_| {
                    *[0, 1, 2, 3, 4, 8, 10, 20]
                        .get(rng.random_range(0..8))
                        .expect("one of eight")
                })
                .collect(),
        );
    }
    lists
}

/// The answer in memory at one tick, with the kernel's cookie.
fn answer(memory: &MemTables, packet: &[u8], cookie: u32, tick: u64) -> (Reason, Vec<u8>) {
    let at = At {
        tick,
        external: false,
    };
    let verdict = datapath::run(&Bytes(packet), memory, &at);
    assert_eq!(verdict.code, Code::CHALLENGE, "{packet:02x?}");
    let mut stack = MemStack::new(packet);
    (stack.cookie, stack.mtu) = (cookie.into(), MTU);
    let verdict = datapath::challenge(&Bytes(packet), memory, &stack, verdict.service, tick);
    (verdict.reason(), stack.frame.into_inner())
}

fn tcp_at(frame: &[u8]) -> usize {
    let mut at = 12;
    while matches!(frame[at..at + 2], [0x81, 0] | [0x88, 0xa8]) {
        at += 4;
    }
    at + 2 + if frame[at] == 8 { 20 } else { 40 }
}

fn word(frame: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(frame[at..at + 4].try_into().expect("four bytes"))
}

#[test]
fn every_syn_is_answered_with_the_same_bytes_in_memory_and_in_the_kernel() {
    in_world("syn-answers", |mut world| {
        let memory = world.kernel.copy().expect("copied");
        let tags = [
            vec![],
            vec![Tag {
                protocol: TPID_8021Q,
                id: 7,
            }],
            vec![
                Tag {
                    protocol: TPID_8021AD,
                    id: 8,
                },
                Tag {
                    protocol: TPID_8021Q,
                    id: 9,
                },
            ],
        ];
        let mut compared = 0;
        for (number, options) in option_lists().iter().enumerate() {
            for vip in vips() {
                let mut frame = with_options(segment(vip, 10, PORT, SYN), options);
                frame.tags.clone_from(&tags[number % 3]);
                // Data with a SYN, as with Fast Open, is not taken; ECN is not agreed on.
                frame.payload = vec![7; [0, 0, 11, 900][number % 4]];
                if let Transport::Tcp(tcp) = &mut frame.transport {
                    tcp.flags |= [0, 0xc0][number % 2];
                }
                let packet = frame.bytes();
                let before = world.kernel.tables.clock.now();
                let (action, out) = world.kernel.transform(&packet).expect("judged");
                let after = world.kernel.tables.clock.now();
                assert_eq!(action, 3, "{options:?} at {vip}");
                let cookie = word(&out, tcp_at(&out) + 4);
                // The kernel's ticks lag behind the clock where the machine is busy or emulated.
                let same = (before.saturating_sub(LAG)..=after + 1).rev().any(|tick| {
                    let (reason, bytes) = answer(&memory, &packet, cookie, tick);
                    reason == Reason::CookieSent && bytes == out
                });
                assert!(
                    same,
                    "{options:?} at {vip}: {out:02x?}, but in memory {:02x?}",
                    answer(&memory, &packet, cookie, after).1
                );
                compared += 1;
            }
        }
        println!("{compared} answers compared");
    });
}

/// Counters of all services of the world; reading the whole table takes too long where budgets refill meanwhile.
fn counts(kernel: &Kernel) -> Vec<(Reason, u64)> {
    let services = services().len() as u16 + 2;
    (0..services)
        .flat_map(|service| Reason::ALL.iter().map(move |reason| (service, *reason)))
        .map(|(service, reason)| {
            let index = counter(service, reason as u8, false);
            (reason, kernel.count(index).expect("counted"))
        })
        .collect()
}

fn judged(world: &mut World, frame: &Frame) -> (u32, Vec<u8>, Vec<Reason>) {
    let before = counts(&world.kernel);
    let (action, out) = world.kernel.transform(&frame.bytes()).expect("judged");
    let reasons = counts(&world.kernel)
        .into_iter()
        .zip(before)
        .filter(|((_, now), (_, then))| now != then)
        .map(|((reason, _), _)| reason)
        .collect();
    (action, out, reasons)
}

#[track_caller]
fn expect(world: &mut World, frame: &Frame, action: u32, reason: Reason, what: &str) -> Vec<u8> {
    let (found, out, reasons) = judged(world, frame);
    assert_eq!((found, reasons), (action, vec![reason]), "{what}: {frame:?}");
    out
}

const DROP: u32 = 1;
const PASS: u32 = 2;
const TX: u32 = 3;

#[test]
fn only_what_brings_the_cookie_back_passes() {
    in_world("syn-verify", |mut world| {
        for vip in vips() {
            let syn = with_options(segment(vip, 20, PORT, SYN), &[2, 4, 5, 0xb4]);
            let answer = expect(&mut world, &syn, TX, Reason::CookieSent, "a SYN");
            let cookie = word(&answer, tcp_at(&answer) + 4);
            let ack = |number: u8, flags: u8, off: u32| {
                let mut frame = segment(vip, number, PORT, flags);
                if let Transport::Tcp(tcp) = &mut frame.transport {
                    tcp.sequence = tcp.sequence.wrapping_add(1);
                    tcp.acknowledgement = cookie.wrapping_add(1).wrapping_add(off);
                }
                frame
            };
            let earned = world.kernel.tables.count_earned();
            for (number, flags, off, action, reason, what) in [
                (20, ACK, 100, DROP, Reason::BadCookie, "another number"),
                (20, ACK, 1 << 24, DROP, Reason::BadCookie, "another minute"),
                (21, ACK, 0, DROP, Reason::BadCookie, "another source"),
                (20, RST, 0, DROP, Reason::NoConnection, "a reset"),
                (
                    20,
                    RST | ACK,
                    0,
                    DROP,
                    Reason::NoConnection,
                    "a reset with the cookie",
                ),
                (
                    20,
                    SYN | ACK,
                    0,
                    DROP,
                    Reason::NoConnection,
                    "an answer to nothing",
                ),
            ] {
                expect(&mut world, &ack(number, flags, off), action, reason, what);
            }
            assert_eq!(
                world.kernel.tables.count_earned(),
                earned,
                "nobody earned anything by that"
            );
            for (flags, what) in [
                (ACK, "the cookie"),
                (ACK | PSH, "the cookie with data"),
                (ACK | FIN, "the cookie and the end"),
            ] {
                expect(&mut world, &ack(20, flags, 0), PASS, Reason::CookieAccepted, what);
            }
            assert_eq!(
                world.kernel.tables.count_earned(),
                earned + 1,
                "the source earned exact state"
            );
            let mut tagged = ack(20, ACK, 0);
            tagged.tags = vec![Tag {
                protocol: TPID_8021Q,
                id: 7,
            }];
            expect(
                &mut world,
                &tagged,
                PASS,
                Reason::CookieAccepted,
                "the cookie in a VLAN",
            );
        }
    });
}

/// Whoever has spent a part of his burst before he proves himself has the rest of it afterwards.
#[test]
fn a_burst_is_not_had_twice_for_a_cookie() {
    in_world("syn-burst", |mut world| {
        for (number, before) in [(60, 5), (61, 30), (62, 100)] {
            for vip in vips() {
                let from = if vip.is_ipv4() {
                    source(vip, number)
                } else {
                    // IPv6 hosts are /64s.
                    IpAddr::from([0x2001, 0xdb8, 9, u16::from(number), 0, 0, 0, 1])
                };
                let start = Instant::now();
                let mut passed = 0;
                let udp = Frame::udp((from, CLIENT_PORT), (vip, LIMITED), b"many").bytes();
                for _ in 0..before {
                    passed += u64::from(world.kernel.transform(&udp).expect("judged").0 == PASS);
                }
                let opening = Frame {
                    source: from,
                    ..segment(vip, number, LIMITED, SYN)
                };
                let answer = expect(&mut world, &opening, TX, Reason::CookieSent, "a SYN");
                let mut proof = Frame {
                    source: from,
                    ..segment(vip, number, LIMITED, ACK)
                };
                if let Transport::Tcp(tcp) = &mut proof.transport {
                    tcp.sequence = tcp.sequence.wrapping_add(1);
                    tcp.acknowledgement = word(&answer, tcp_at(&answer) + 4).wrapping_add(1);
                }
                let earned = world.kernel.tables.count_earned();
                let proof = proof.bytes();
                for _ in 0..2 * LIMIT.burst {
                    passed += u64::from(world.kernel.transform(&proof).expect("judged").0 == PASS);
                }
                assert_eq!(
                    world.kernel.tables.count_earned(),
                    earned + 1,
                    "{from} proved itself"
                );
                let most = LIMIT.burst + LIMIT.per_second * (start.elapsed().as_secs() + 1);
                assert!(
                    (LIMIT.burst..=most).contains(&passed),
                    "{passed} of {from} passed, {before} of them at most before, should be {} to {most}",
                    LIMIT.burst
                );
            }
        }
    });
}

#[test]
fn what_is_not_answered_is_left_to_the_budget() {
    in_world("syn-budget", |mut world| {
        for vip in vips() {
            // Within the budget: to the stack. Over it: cookies, at once.
            for number in 0..2 {
                let syn = segment(vip, 30 + number, TIGHT, SYN);
                expect(&mut world, &syn, PASS, Reason::Admitted, "within the budget");
            }
            // Before there are cookies, segments are the stack's affair.
            let syn = segment(vip, 33, TIGHT, SYN);
            expect(&mut world, &syn, TX, Reason::CookieSent, "over the budget");
            let report = world.kernel.tables.service_names();
            let engaged = report
                .iter()
                .filter_map(|(id, _)| world.kernel.tables.syn_report(*id))
                .filter(|report| report.cookies == Some("auto") && report.engaged)
                .count();
            assert!(engaged >= 1, "status tells");
            // Of a shape that is not answered, and the budget is spent.
            let mut odd = segment(vip, 34, TIGHT, SYN);
            if vip.is_ipv4() {
                odd.options = vec![1, 1, 1, 0];
            } else {
                odd.extensions = vec![Extension {
                    kind: DESTINATION_OPTIONS,
                    body: vec![1, 4, 0, 0, 0, 0],
                }];
            }
            expect(&mut world, &odd, DROP, Reason::SynBudget, "with IP options");
            let mut part = segment(vip, 35, TIGHT, SYN);
            part.fragment = Some(Fragment {
                offset: 0,
                more: true,
                identification: 9,
            });
            expect(&mut world, &part, DROP, Reason::SynBudget, "a first fragment");
            let mut group = segment(vip, 36, TIGHT, SYN);
            group.destination_mac = [0xff; 6];
            expect(&mut world, &group, DROP, Reason::SynBudget, "sent to everybody");
            // Nobody listens: the budget alone, and what comes besides is the stack's to refuse.
            for number in 0..2 {
                let syn = segment(vip, 40 + number, DEAF, SYN);
                expect(&mut world, &syn, PASS, Reason::Admitted, "nobody listens");
            }
            let syn = segment(vip, 43, DEAF, SYN);
            expect(
                &mut world,
                &syn,
                DROP,
                Reason::SynBudget,
                "nobody listens, over the budget",
            );
            let ack = segment(vip, 44, DEAF, ACK);
            expect(&mut world, &ack, PASS, Reason::Admitted, "nobody listens");
        }
    });
}

#[test]
fn over_udp_known_sources_pass_and_new_ones_are_counted() {
    in_world("udp-sources", |mut world| {
        for vip in vips() {
            // IPv6 hosts are /64s.
            let from = |number: u8| {
                if vip.is_ipv4() {
                    source(vip, 50 + number)
                } else {
                    IpAddr::from([0x2001, 0xdb8, 9, u16::from(number), 0, 0, 0, 1])
                }
            };
            let udp = |number: u8| Frame::udp((from(number), 5_000), (vip, DNS), b"question");
            let began = Instant::now();
            for number in [0, 1, 0, 1, 1, 0] {
                expect(&mut world, &udp(number), PASS, Reason::Admitted, "a known source");
            }
            // One more is let in each second, which an emulated machine takes; the clock's tick may be 10 ms early.
            let (mut within, mut over) = (0, 0);
            for number in 2..10 {
                match judged(&mut world, &udp(number)) {
                    (PASS, _, reasons) if reasons == [Reason::Admitted] => within += 1,
                    (DROP, _, reasons) if reasons == [Reason::NewSources] => over += 1,
                    (action, _, reasons) => panic!("a new source: {action} {reasons:?}"),
                }
            }
            let refilled = (began.elapsed().as_millis() + 10) / 1_000;
            assert!(
                within <= refilled && over > 0,
                "{within} within, {over} over, {refilled} refilled"
            );
            expect(&mut world, &udp(0), PASS, Reason::Admitted, "known all along");
        }
    });
}
