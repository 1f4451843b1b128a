//! SYN cookies, end to end: connections begin without the stack having seen a SYN, and are what they would have been.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a step of a test that fails has to stop that test"
)]

use std::{
    net::{IpAddr, Ipv4Addr, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::Value;
use tests::{
    capture::{Capture, Direction},
    config::Settings,
    daemon::{Daemon, cli, lab_with},
    frame::{Frame, Transport},
    lab::{Host, Tagging},
    origin::{Origin, Reply},
    probe,
    proof::{self, Agreed, Guarded, agreed, counter, exchange},
    sender::{Bounds, Flood, PacketSocket},
    skip,
    stage::{gateway, packets, vips},
    token::Signer,
    wait::{eventually, within},
    xdp::{Action, ForeignXdp, Mode},
};

const ALWAYS: &str = "syn = { cookies = \"always\" }";

/// How a client's stack is set.
#[derive(Debug, Clone, Copy)]
struct Client {
    stamps: bool,
    sack: bool,
    scaling: bool,
    /// `TCP_MAXSEG`, if it is set.
    mss: Option<u32>,
}

const LINUX: Client = Client {
    stamps: true,
    sack: true,
    scaling: true,
    mss: None,
};

fn clients() -> Vec<Client> {
    let mut all = vec![LINUX];
    for bits in 1..8 {
        let on = |bit: u32| bits & bit == 0;
        all.push(Client {
            stamps: on(1),
            sack: on(2),
            scaling: on(4),
            mss: None,
        });
    }
    all.push(Client {
        mss: Some(536),
        ..LINUX
    });
    all.push(Client {
        mss: Some(1300),
        stamps: false,
        ..LINUX
    });
    all
}

fn connect(guarded: &Guarded, host: &Host, client: Client, vip: IpAddr) -> TcpStream {
    let word = |on: bool| if on { "1" } else { "0" };
    for (name, value) in [
        ("tcp_timestamps", client.stamps),
        ("tcp_sack", client.sack),
        ("tcp_window_scaling", client.scaling),
    ] {
        host.namespace
            .sysctl(&format!("ipv4/{name}"), word(value))
            .expect("the client's stack is set");
    }
    let Some(mss) = client.mss else {
        return guarded.connect(host, vip).expect("the handshake completes");
    };
    host.namespace.enter(|| {
        use socket2::{Domain, Socket, Type};
        let domain = if vip.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::STREAM, None).expect("a socket");
        // SAFETY: the option's value lives until the call returns.
        let set = unsafe {
            libc::setsockopt(
                std::os::fd::AsRawFd::as_raw_fd(&socket),
                libc::IPPROTO_TCP,
                libc::TCP_MAXSEG,
                (&raw const mss).cast(),
                size_of::<u32>() as libc::socklen_t,
            )
        };
        assert_eq!(set, 0, "TCP_MAXSEG");
        let to = std::net::SocketAddr::new(vip, proof::PORT);
        socket
            .connect_timeout(&to.into(), proof::PATIENCE)
            .expect("the handshake completes");
        socket.into()
    })
}

/// The largest segment that the cookie keeps of what the client said (`msstab` of net/ipv4/syncookies.c and of net/ipv6).
fn kept_mss(said: u32, vip: IpAddr) -> u32 {
    let table = if vip.is_ipv4() {
        [536, 1300, 1440, 1460]
    } else {
        [1220, 1420, 1440, 8940]
    };
    *table.iter().rev().find(|mss| **mss <= said).unwrap_or(&table[0])
}

/// Every client completes a handshake with a cookie, both ends have agreed on the same, and bytes go through.
fn every_client_is_served(guarded: &Guarded, clients: &[Client], bytes: usize) {
    let edge = guarded.lab.edge();
    let host = guarded.lab.client();
    for (number, client) in clients.iter().enumerate() {
        for vip in vips() {
            let taken = counter(edge, "TcpExtSyncookiesRecv");
            let stream = connect(guarded, host, *client, vip);
            exchange(&stream, if number == 0 { bytes } else { bytes.min(1 << 20) });
            let server = guarded.echo.next();
            let own = agreed(&stream).expect("a socket tells");
            let what = format!("{client:?} at {vip}: the server {server:?}, the client {own:?}");
            assert_eq!(counter(edge, "TcpExtSyncookiesRecv"), taken + 1, "{what}");
            // Options travel in the timestamp alone.
            let expected = Agreed {
                stamps: client.stamps,
                sack: client.stamps && client.sack,
                ..server
            };
            assert_eq!(server, expected, "{what}");
            assert_eq!((own.stamps, own.sack), (server.stamps, server.sack), "{what}");
            assert_eq!(server.scales.is_some(), client.stamps && client.scaling, "{what}");
            let turned = server.scales.map(|(send, receive)| (receive, send));
            assert_eq!(own.scales, turned, "{what}");
            // Less than that of an Ethernet where the link's tag takes of its MTU.
            let said = own.announced_mss;
            assert!(client.mss.is_none_or(|mss| said == mss), "{what}");
            let stamp_bytes = if client.stamps { 12 } else { 0 };
            assert_eq!(server.send_mss, kept_mss(said, vip) - stamp_bytes, "{what}");
        }
    }
    assert_eq!(
        counter(edge, "TcpExtSyncookiesSent"),
        0,
        "the stack sent none itself"
    );
    assert_eq!(
        counter(edge, "TcpExtSyncookiesFailed"),
        0,
        "the stack refused none"
    );
    let status = guarded.status();
    let connections = clients.len() as u64;
    for reason in ["cookie_sent", "cookie_accepted"] {
        assert!(packets(&status, reason) >= connections, "{reason}: {status:#}");
    }
}

/// Where the machine is emulated, bytes are moved to see that they are, not how many can be.
fn volume() -> usize {
    if std::env::var_os("BREAKWATER_VM").is_some() {
        1 << 20
    } else {
        100 << 20
    }
}

#[test]
fn connections_begun_by_cookies_are_what_they_would_have_been() {
    let Some(guarded) = Guarded::new("cookies", |options| options, "native", ALWAYS) else {
        return;
    };
    every_client_is_served(&guarded, &clients(), volume());
}

/// An HTTP client as it is installed, the gateway behind the guard, an origin behind that: all bytes come, over connections that
/// the kernel began.
#[test]
fn curl_fetches_a_large_file_through_a_guarded_gateway() {
    let Some(lab) = lab_with("cookies-curl", |options| options) else {
        return;
    };
    let client = lab.client();
    // What is sent back over a veth arrives only where its peer has a program too.
    let _peer = ForeignXdp::attach(&client.namespace, client.interface, Action::Pass, Mode::Native)
        .expect("a program on the peer");
    let file: Vec<u8> = (0..volume() as u32).map(|n| ((n * 31) >> 3) as u8).collect();
    let body = file.clone();
    let origin = Origin::start(&lab.origin().namespace, (lab.origin().v4, 0).into(), move |_| {
        Reply::Body(200, body.clone())
    })
    .expect("a port is free");
    let settings = Settings {
        guard: ALWAYS.into(),
        shield_extra: "set_sysctls = true".into(),
        ..Settings::standard(&lab, &Signer::hs256(), origin.address())
    };
    let _daemon = Daemon::start(&lab, &settings.text());
    for vip in vips() {
        let taken = counter(lab.edge(), "TcpExtSyncookiesRecv");
        let mut command = Command::new("curl");
        let limit = proof::PATIENCE.as_secs().to_string();
        command.args(["-sS", "--fail", "-g", "--max-time", &limit]);
        command.arg(format!("http://{}/file", gateway(vip)));
        let output = client.namespace.output(command).expect("curl runs");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{vip}: {complaint}");
        // Not `assert_eq`, which would print both.
        assert!(output.stdout == file, "{vip}: {} bytes", output.stdout.len());
        assert_eq!(counter(lab.edge(), "TcpExtSyncookiesRecv"), taken + 1, "{vip}");
        let status = cli(&lab, ["status", "--json"]).json();
        for reason in ["cookie_sent", "cookie_accepted"] {
            // The most that any service has of it.
            assert_eq!(packets(&status, reason), 1, "{reason}: {status:#}");
        }
    }
}

/// iperf3 as it is installed: its control connection and its data connection both begin by cookies, over IPv4 and IPv6, there and
/// back.
#[test]
fn iperf3_moves_a_hundred_mebibytes_each_way() {
    if Command::new("iperf3").arg("--version").output().is_err() {
        return skip::report("iperf3_moves_a_hundred_mebibytes_each_way", "needs `iperf3`");
    }
    let Some(mut guarded) = Guarded::new("cookies-iperf3", |options| options, "native", ALWAYS) else {
        return;
    };
    guarded.stop_listening();
    let (edge, client) = (guarded.lab.edge(), guarded.lab.client());
    let port = proof::PORT.to_string();
    let mut command = Command::new("iperf3");
    command.args(["-s", "-p", &port]).stdout(Stdio::null());
    let mut server = edge.spawn(command).expect("iperf3 starts");
    for vip in vips() {
        for way in [&[][..], &["--reverse"]] {
            let before = counter(edge, "TcpExtSyncookiesRecv");
            let bytes = volume();
            // The server ends its count when the client has sent its last byte, not when it has come.
            let asked = bytes + (32 << 20);
            let mut said = String::new();
            let received = within(proof::PATIENCE, || {
                let mut command = Command::new("iperf3");
                command.args([
                    "-J",
                    "-p",
                    &port,
                    "-n",
                    &asked.to_string(),
                    "-c",
                    &vip.to_string(),
                ]);
                command.args(way);
                let output = client.namespace.output(command).expect("iperf3 runs");
                said = String::from_utf8_lossy(&output.stdout).into_owned();
                let told: Value = serde_json::from_str(&said).ok()?;
                told["end"]["sum_received"]["bytes"].as_f64()
            });
            let received = received.unwrap_or_else(|| panic!("{vip} {way:?}: {said}"));
            // The server may end its count before the last bytes of a client that only counts what it has sent.
            assert!(
                received >= bytes as f64 * 0.9,
                "{vip} {way:?}: {received} of {bytes}"
            );
            let begun = counter(edge, "TcpExtSyncookiesRecv") - before;
            assert!(begun >= 2, "{vip} {way:?}: {begun} connections by cookies");
        }
    }
    server.kill().expect("it runs");
    server.wait().expect("it ends");
}

#[test]
fn generic_mode_answers_too() {
    let Some(guarded) = Guarded::new("cookies-generic", |options| options, "generic", ALWAYS) else {
        return;
    };
    every_client_is_served(&guarded, &clients()[..2], 8 << 20);
}

#[test]
fn answers_keep_their_vlan() {
    let tagged = |options: tests::lab::LabOptions| options.tagging(Tagging::Single(7));
    let Some(guarded) = Guarded::new("cookies-vlan", tagged, "native", ALWAYS) else {
        return;
    };
    every_client_is_served(&guarded, &clients()[..2], 1 << 20);
}

/// Options as systems send them: Linux, Windows, macOS, a phone without SACK, a scanner, nothing, a small segment.
const SENT: [&[u8]; 8] = [
    &[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 9, 9, 0, 0, 0, 0, 1, 3, 3, 7],
    &[2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2],
    &[
        2, 4, 5, 0xb4, 1, 3, 3, 6, 1, 1, 8, 10, 9, 0, 0, 9, 0, 0, 0, 0, 4, 2, 0, 0,
    ],
    &[2, 4, 5, 0x50, 1, 1, 8, 10, 9, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 14],
    &[2, 4, 5, 0xb4],
    &[],
    &[2, 4, 2, 24, 4, 2, 8, 10, 0, 0, 9, 9, 0, 0, 0, 0],
    &[2, 4, 35, 0, 1, 1, 8, 10, 0, 0, 9, 9, 0, 0, 0, 0],
];

/// IP packets of the SYN-ACKs that `host` gets for each of [`SENT`], sent from ports of their own.
fn answers(host: &Host, first_port: u16) -> Vec<Vec<u8>> {
    let capture = Capture::start(&host.namespace, host.interface).expect("a capture");
    let socket = PacketSocket::sending(&host.namespace, host.interface).expect("a socket");
    let mut ports = first_port..;
    vips()
        .into_iter()
        .flat_map(|vip| SENT.map(|options| (vip, options)))
        .map(|(vip, options)| {
            let port = ports.next().expect("a port");
            let mut syn = Frame::syn((host.address_towards(vip), port), (vip, proof::PORT));
            if let Transport::Tcp(tcp) = &mut syn.transport {
                tcp.options = options.to_vec();
            }
            socket.send(&host.frame(syn)).expect("sent");
            let answer = capture.wait_for(proof::PATIENCE, |seen| {
                seen.direction == Direction::In
                    && probe::transport(&seen.bytes)
                        .is_some_and(|(_, tcp)| tcp[2..4] == port.to_be_bytes() && tcp[13] & 0x12 == 0x12)
            });
            answer
                .unwrap_or_else(|| panic!("{options:?} at {vip} is answered"))
                .bytes[14..]
                .to_vec()
        })
        .collect()
}

/// Blanks what must differ: cookie, checksums, the clock in the timestamp above its low six bits, the flow label.
fn comparable(mut packet: Vec<u8>) -> Vec<u8> {
    let tcp = if packet[0] >> 4 == 4 {
        packet[10..12].fill(0);
        20
    } else {
        packet[1] &= 0xf0;
        packet[2..4].fill(0);
        40
    };
    packet[tcp + 4..tcp + 8].fill(0);
    packet[tcp + 16..tcp + 18].fill(0);
    // Behind the segment size come the timestamps, if any.
    if packet.len() > tcp + 24 {
        packet[tcp + 28..tcp + 31].fill(0);
        packet[tcp + 31] &= 0x3f;
    }
    packet
}

/// With the shield and without it, a SYN gets the same answer but for what has to differ; and detaching puts the kernel's
/// settings back.
#[test]
fn the_answer_is_the_one_that_the_stack_gives() {
    let Some(guarded) = Guarded::new("cookies-answer", |options| options, "native", ALWAYS) else {
        return;
    };
    let (edge, host) = (guarded.lab.edge(), guarded.lab.client());
    let read = |name: &str| {
        edge.enter(|| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")))
            .expect("a setting")
    };
    let names = ["tcp_syncookies", "tcp_timestamps"];
    assert_eq!(names.map(read), ["2\n", "2\n"], "--set-sysctls sets them");
    let ours = answers(host, 2_000);
    assert_eq!(
        counter(edge, "TcpExtSyncookiesSent"),
        0,
        "the stack was not asked"
    );
    let said = cli(&guarded.lab, ["detach"]).success();
    assert!(said.contains("net.ipv4.tcp_timestamps = 1"), "{said}");
    assert_eq!(names.map(read), ["1\n", "1\n"], "detaching puts them back");
    for name in names {
        edge.sysctl(&format!("ipv4/{name}"), "2").expect("a setting");
    }
    let theirs = answers(host, 3_000);
    assert!(
        counter(edge, "TcpExtSyncookiesSent") >= theirs.len() as u64,
        "the stack sent cookies"
    );
    for (number, (own, other)) in ours.into_iter().zip(theirs).enumerate() {
        let (mut own, mut other) = (comparable(own), comparable(other));
        // The client's port.
        for packet in [&mut own, &mut other] {
            let tcp = if packet[0] >> 4 == 4 { 20 } else { 40 };
            packet[tcp + 2..tcp + 4].fill(0);
        }
        assert_eq!(own, other, "options {:?}", SENT[number % SENT.len()]);
    }
}

/// Rate and burst of a budget that a flood exceeds at once, and honest clients do not.
const AUTO: &str = "syn = { budget = { per_second = 200, burst = 200 }, cookies = \"auto\", hold = \"1s\" }";
const FLOOD: Bounds = Bounds {
    frames: 400_000,
    time: Duration::from_secs(5),
    rate: 60_000,
};
const CONNECTIONS: usize = 150;

/// SYNs from 2^24 made-up sources: honest clients connect throughout, the stack's queue stays within the budget; with no
/// daemon alive cookies begin with the flood and end after it.
#[test]
fn a_flood_of_made_up_sources_engages_cookies_and_nobody_honest_is_refused() {
    let Some(guarded) = Guarded::new("cookies-flood", |options| options, "native", AUTO) else {
        return;
    };
    let (client, attacker) = (guarded.lab.client(), guarded.lab.attacker());
    let vip = vips()[0];
    let engaged = || {
        let status = guarded.status();
        let services = status["services"].as_array().expect("services").clone();
        services.iter().any(|service| service["syn"]["engaged"] == true)
    };
    assert!(!engaged());
    let sender = PacketFactory::new(attacker, vip);
    let mut rng = SmallRng::seed_from_u64(24);
    let flood = Flood::start(attacker, FLOOD, move |_| {
        sender.syn(rng.random::<u32>() & 0xff_ffff)
    });
    flood.wait_for(2_000);
    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut most_half_open = 0;
    for number in 0..CONNECTIONS {
        let start = Instant::now();
        let stream = guarded
            .connect(client, vip)
            .expect("an honest client connects during the flood");
        slowest = slowest.max(start.elapsed());
        if number % 10 == 0 {
            exchange(&stream, 1_000);
            most_half_open = most_half_open.max(guarded.held().half_open);
        }
    }
    let was_engaged = engaged();
    let sent = flood.stop();
    println!(
        "{CONNECTIONS} connections in {:?} during {sent} made-up SYNs; the slowest {slowest:?}; at most {most_half_open} half open",
        begun.elapsed()
    );
    assert!(was_engaged, "{:#}", guarded.status());
    let status = guarded.status();
    assert!(packets(&status, "cookie_sent") > sent / 2, "{status:#}");
    assert!(
        packets(&status, "cookie_accepted") >= CONNECTIONS as u64 - 1,
        "{status:#}"
    );
    assert!(most_half_open <= 400, "{most_half_open} half open");
    assert!(slowest < Duration::from_secs(1), "a SYN was lost: {slowest:?}");
    eventually("cookies to end", || (!engaged()).then_some(()));
    let before = packets(&guarded.status(), "cookie_sent");
    drop(guarded.connect(client, vip).expect("served after the flood"));
    assert_eq!(
        packets(&guarded.status(), "cookie_sent"),
        before,
        "its SYN went to the stack"
    );
}

/// Makes SYNs from made-up sources of 44.0.0.0/8.
struct PacketFactory {
    template: Frame,
    host: (tests::frame::Mac, tests::frame::Mac, Vec<tests::frame::Tag>),
}

impl PacketFactory {
    fn new(host: &Host, vip: IpAddr) -> Self {
        Self {
            template: Frame::syn((Ipv4Addr::new(44, 0, 0, 1).into(), 1_024), (vip, proof::PORT)),
            host: (host.mac, host.edge_mac, host.tags.clone()),
        }
    }

    fn syn(&self, source: u32) -> Vec<u8> {
        let (own, edge, tags) = &self.host;
        Frame {
            source_mac: *own,
            destination_mac: *edge,
            tags: tags.clone(),
            source: Ipv4Addr::from(0x2c00_0000 | source).into(),
            ..self.template.clone()
        }
        .bytes()
    }
}
