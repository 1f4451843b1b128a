//! The lab itself: what the other tests stand on has to hold without the system under test.

use std::{
    io::Write,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    process::{Command, Stdio},
    time::Duration,
};

use tests::{
    capture::{Capture, Direction},
    frame::{self, DESTINATION_OPTIONS, Extension, Frame, HOP_BY_HOP},
    http::{Client, Request},
    lab::{Host, Lab, OTHER_V4, Tagging, VIP_V4, VIP_V6},
    link::LinkState,
    origin::Origin,
    probe::{self, Connection},
    sender::{Bounds, Flood, PacketSocket},
    skip,
    wait::{PATIENCE, eventually},
    xdp::{self, Action, ForeignXdp, Mode},
};

/// Long enough for an answer on a slow machine, short enough to wait for none.
const SILENCE: Duration = Duration::from_millis(1500);

fn vips() -> [IpAddr; 2] {
    [VIP_V4.into(), VIP_V6.into()]
}

fn assert_reachable(host: &Host, limit: Duration) {
    for vip in vips() {
        assert!(
            probe::ping(&host.namespace, vip, &[7; 1400], limit),
            "{} reaches {vip}",
            host.namespace.role()
        );
    }
}

#[test]
fn every_host_reaches_the_edge_and_what_is_behind_it() {
    let Some(lab) = Lab::options("reach").host("neighbour").build() else {
        return;
    };
    for role in ["client", "attacker", "neighbour"] {
        let host = lab.host(role);
        assert_reachable(host, PATIENCE);
        for origin in [IpAddr::from(lab.origin().v4), lab.origin().v6.into()] {
            assert!(
                probe::ping(&host.namespace, origin, b"forwarded", PATIENCE),
                "{role} reaches {origin}"
            );
        }
    }
    assert_eq!(lab.wan_interfaces(), ["wan0", "wan1", "wan2"]);
}

#[test]
fn connections_are_open_refused_or_silent() {
    let Some(lab) = Lab::new("connections") else {
        return;
    };
    for vip in vips() {
        let listener = lab
            .edge()
            .enter(|| TcpListener::bind((vip, 0)))
            .expect("a port is free");
        let open = listener.local_addr().expect("a listener has an address");
        let client = &lab.client().namespace;
        assert_eq!(probe::connect(client, open, PATIENCE), Connection::Open);
        assert!(probe::syn_is_answered(lab.client(), 40_001, open, PATIENCE));
        drop(listener);
        assert_eq!(probe::connect(client, open, PATIENCE), Connection::Refused);
        assert!(!probe::syn_is_answered(lab.client(), 40_002, open, SILENCE));
    }
    // Nobody answers at the address of a network that does not exist.
    lab.edge()
        .ip("route add blackhole 192.0.2.0/24")
        .expect("a route can be added");
    let nowhere = SocketAddr::from(([192, 0, 2, 1], 80));
    assert_eq!(
        probe::connect(&lab.client().namespace, nowhere, SILENCE),
        Connection::Silent
    );
}

#[test]
fn two_labs_do_not_meet() {
    let (Some(one), Some(other)) = (Lab::new("one"), Lab::new("other")) else {
        return;
    };
    let listener = one
        .edge()
        .enter(|| TcpListener::bind((VIP_V4, 0)))
        .expect("a port is free");
    let address = listener.local_addr().expect("a listener has an address");
    assert_eq!(
        probe::connect(&one.client().namespace, address, PATIENCE),
        Connection::Open
    );
    assert_eq!(
        probe::connect(&other.client().namespace, address, PATIENCE),
        Connection::Refused
    );
    assert_ne!(one.bpffs().path(), other.bpffs().path());
    assert_ne!(one.directory(), other.directory());
}

#[test]
fn frames_built_by_hand_pass_the_kernels_checks() {
    let Some(lab) = Lab::new("frames") else { return };
    let client = lab.client();
    let socket = PacketSocket::sending(&client.namespace, client.interface).expect("the interface exists");
    for vip in vips() {
        let receiver = lab
            .edge()
            .enter(|| UdpSocket::bind((vip, 5300)))
            .expect("the port is free");
        receiver
            .set_read_timeout(Some(PATIENCE))
            .expect("a positive time limit is valid");
        let source = (client.address_towards(vip), 4000);
        let mut plain = Frame::udp(source, (vip, 5300), b"plain");
        let mut odd = Frame::udp(source, (vip, 5300), b"odd");
        if vip.is_ipv4() {
            odd.options = vec![1, 1, 1, 1];
        } else {
            odd.extensions = vec![
                Extension {
                    kind: HOP_BY_HOP,
                    body: vec![1, 4, 0, 0, 0, 0],
                },
                Extension {
                    kind: DESTINATION_OPTIONS,
                    body: vec![1, 4, 0, 0, 0, 0],
                },
            ];
        }
        // A datagram in two fragments, the second first.
        let whole = Frame::udp(source, (vip, 5300), b"eight...and the rest");
        plain.hop_limit = 3;
        let mut frames = vec![client.frame(plain), client.frame(odd)];
        frames.extend(fragments(client, &whole));
        socket.send_batch(&frames).expect("the interface takes frames");
        let mut buffer = [0; 64];
        for expected in [&b"plain"[..], b"odd", b"eight...and the rest"] {
            let (length, from) = receiver.recv_from(&mut buffer).expect("the datagram arrives");
            assert_eq!((&buffer[..length], from), (expected, SocketAddr::from(source)));
        }
    }
}

/// Two frames that make up the datagram of `whole`, the later part first.
fn fragments(host: &Host, whole: &Frame) -> [Vec<u8>; 2] {
    let bytes = Frame {
        source_mac: [0; 6],
        ..whole.clone()
    }
    .bytes();
    let segment = &bytes[14 + if whole.source.is_ipv4() { 20 } else { 40 }..];
    let (head, tail) = segment.split_at(16);
    [(2, false, tail), (0, true, head)].map(|(offset, more, part)| {
        let fragment = frame::Fragment {
            offset,
            more,
            identification: 99,
        };
        let transport = frame::Transport::Other(frame::UDP);
        host.frame(Frame {
            transport,
            payload: part.to_vec(),
            fragment: Some(fragment),
            ..whole.clone()
        })
    })
}

#[test]
fn a_frame_with_a_wrong_checksum_is_not_delivered() {
    let Some(lab) = Lab::new("checksum") else { return };
    let client = lab.client();
    let receiver = lab
        .edge()
        .enter(|| UdpSocket::bind((VIP_V4, 5300)))
        .expect("the port is free");
    receiver
        .set_read_timeout(Some(PATIENCE))
        .expect("a positive time limit is valid");
    let datagram =
        |text: &[u8]| client.frame(Frame::udp((client.v4.into(), 4000), (VIP_V4.into(), 5300), text));
    let mut wrong = datagram(b"wrong");
    wrong[40] ^= 1;
    let socket = PacketSocket::sending(&client.namespace, client.interface).expect("the interface exists");
    socket
        .send_batch(&[wrong, datagram(b"right")])
        .expect("the interface takes frames");
    let mut buffer = [0; 64];
    let (length, _) = receiver.recv_from(&mut buffer).expect("the right one arrives");
    assert_eq!(&buffer[..length], b"right");
}

#[test]
fn floods_keep_their_bounds_and_captures_keep_every_frame() {
    let Some(lab) = Lab::new("flood") else { return };
    let attacker = lab.attacker();
    let capture = Capture::start(lab.edge(), &attacker.edge_interface).expect("the interface exists");
    let frame = attacker.frame(Frame::udp(
        (attacker.v4.into(), 1),
        (OTHER_V4.into(), 9),
        &[0; 32],
    ));
    let bounds = Bounds {
        frames: 2000,
        time: PATIENCE,
        rate: 20_000,
    };
    let wanted = frame.clone();
    let sent = Flood::start(attacker, bounds, move |_| frame.clone()).finish();
    assert_eq!(sent, 2000);
    eventually("all frames to arrive", || {
        (capture.count(|seen| seen.direction == Direction::In && seen.bytes == wanted) == 2000).then_some(())
    });
    capture.stop();

    let endless = Bounds {
        frames: u64::MAX,
        time: PATIENCE,
        rate: 1000,
    };
    let frame = attacker.frame(Frame::udp((attacker.v4.into(), 1), (OTHER_V4.into(), 9), &[]));
    let flood = Flood::start(attacker, endless, move |_| frame.clone());
    flood.wait_for(50);
    assert!(flood.stop() >= 50);
}

#[test]
fn tagged_links_carry_traffic_and_xdp_sees_the_tags() {
    for tagging in [
        Tagging::Single(100),
        Tagging::Double {
            outer: 200,
            inner: 100,
        },
    ] {
        let Some(lab) = Lab::options("vlan").tagging(tagging).build() else {
            return;
        };
        let client = lab.client();
        // A program in the driver keeps the kernel from moving the tag out of the packet before the program ran.
        let program = ForeignXdp::attach(lab.edge(), &client.edge_interface, Action::Pass, Mode::Native)
            .expect("veth takes a native program");
        let capture = Capture::start(&client.namespace, client.interface).expect("the interface exists");
        assert_reachable(client, PATIENCE);
        let tagged = capture.count(|seen| {
            let header: Vec<u8> = tagging
                .tags()
                .iter()
                .flat_map(|tag| [tag.protocol.to_be_bytes(), tag.id.to_be_bytes()].concat())
                .collect();
            seen.direction == Direction::Out && seen.bytes[12..].starts_with(&header)
        });
        assert!(tagged >= 2, "{tagging:?}: the tags are in the bytes");
        drop(program);

        // Raw frames of this link are tagged too, and are understood.
        let listener = lab
            .edge()
            .enter(|| TcpListener::bind((VIP_V4, 0)))
            .expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        assert_eq!(
            probe::connect(&client.namespace, address, PATIENCE),
            Connection::Open
        );
        assert!(
            probe::syn_is_answered(client, 40_003, address, PATIENCE),
            "{tagging:?}"
        );
    }
}

#[test]
fn a_native_program_drops_and_its_removal_restores_the_link_exactly() {
    let Some(lab) = Lab::new("native") else { return };
    let client = lab.client();
    let read = || {
        let edge = LinkState::read(lab.edge(), &client.edge_interface).expect("the interface exists");
        let host = LinkState::read(&client.namespace, client.interface).expect("the interface exists");
        (edge, host)
    };
    let before = read();
    assert_eq!(before.0.xdp(), None);
    for mode in [Mode::Native, Mode::Generic] {
        let program = ForeignXdp::attach(lab.edge(), &client.edge_interface, Action::Drop, mode)
            .expect("veth takes programs");
        let attached = read().0.xdp().expect("ip shows the program");
        assert_eq!(
            attached.mode,
            if mode == Mode::Native { "native" } else { "generic" }
        );
        assert_eq!(attached.name, xdp::NAME);
        assert!(attached.id > 0);
        assert!(
            !probe::ping(&client.namespace, VIP_V4.into(), b"", SILENCE),
            "{mode:?}: nothing passes"
        );
        let attacker = &lab.attacker().namespace;
        assert!(
            probe::ping(attacker, VIP_V4.into(), b"", PATIENCE),
            "{mode:?}: the other link is untouched"
        );
        drop(program);
        assert_reachable(client, PATIENCE);
        let after = read();
        after.0.assert_same(&before.0);
        after.1.assert_same(&before.1);
    }
}

#[test]
#[should_panic(expected = "mtu: Some(Number(1500)) -> Some(Number(1400))")]
fn a_link_that_was_not_restored_is_noticed() {
    let Some(lab) = Lab::new("restored") else {
        panic!("mtu: Some(Number(1500)) -> Some(Number(1400))")
    };
    let before = LinkState::read(lab.edge(), "wan0").expect("the interface exists");
    lab.edge()
        .ip("link set wan0 mtu 1400")
        .expect("the MTU can be set");
    LinkState::read(lab.edge(), "wan0")
        .expect("the interface exists")
        .assert_same(&before);
}

/// A process that ends only when it is killed.
fn endless() -> Command {
    let mut command = Command::new("ip");
    command.arg("monitor").stdin(Stdio::null()).stdout(Stdio::null());
    command
}

#[test]
fn nothing_is_left_after_a_panic() {
    let mut left = None;
    let panicked = std::thread::scope(|scope| {
        let inner = scope.spawn(|| {
            let Some(lab) = Lab::new("panic") else { return };
            let child = lab.edge().spawn(endless()).expect("ip starts");
            assert_eq!(lab.processes().len(), 1);
            left = Some((child, lab.bpffs().path().to_owned(), lab.directory().to_owned()));
            panic!("on purpose");
        });
        inner.join().is_err()
    });
    let Some((mut child, bpffs, directory)) = left else {
        return;
    };
    assert!(panicked);
    assert!(!bpffs.exists());
    assert!(!directory.exists());
    assert_eq!(
        child.wait().expect("a child can be waited for").code(),
        None,
        "a signal has ended it"
    );
}

/// Environment variable that makes the process started by the next test the one that is killed.
const VICTIM: &str = "BREAKWATER_LAB_VICTIM";

#[test]
fn nothing_is_left_after_a_kill_and_the_next_lab() {
    const NAME: &str = "nothing_is_left_after_a_kill_and_the_next_lab";
    if std::env::var_os(VICTIM).is_some() {
        let Some(lab) = Lab::new("victim") else { return };
        std::fs::create_dir(lab.bpffs().path().join("pins")).expect("bpffs takes directories");
        let child = lab.edge().spawn(endless()).expect("ip starts");
        let line = format!(
            "\nVICTIM {} {} {}\n",
            lab.bpffs().path().display(),
            lab.directory().display(),
            child.id()
        );
        std::io::stdout()
            .write_all(line.as_bytes())
            .expect("stdout is open");
        std::thread::sleep(PATIENCE);
        drop(child);
        return;
    }
    if let Some(reason) = skip::missing() {
        return skip::report(NAME, reason);
    }
    let mut command = Command::new(std::env::current_exe().expect("a test has an executable"));
    command
        .args([NAME, "--exact", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut victim = tests::process::spawn(command, None).expect("the test starts itself");
    let lines = std::io::BufRead::lines(std::io::BufReader::new(
        victim.stdout.take().expect("stdout is a pipe"),
    ));
    let words = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("VICTIM ").map(str::to_owned))
        .expect("the victim says what it has");
    victim.kill().expect("a child can be killed");
    victim.wait().expect("a child can be waited for");
    let [bpffs, directory, pid] = words.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{words}")
    };
    eventually("the victim's child to die with it", || {
        (!std::path::Path::new(&format!("/proc/{pid}/ns/net")).exists()).then_some(())
    });
    // The sweep runs once a process, so a fresh process makes the next lab.
    let mut next = Command::new(std::env::current_exe().expect("a test has an executable"));
    next.args(["two_labs_do_not_meet", "--exact"])
        .stdout(Stdio::null());
    assert!(next.status().expect("the test starts itself").success());
    assert!(!std::path::Path::new(bpffs).exists(), "{bpffs}");
    assert!(!std::path::Path::new(directory).exists(), "{directory}");
}

#[test]
fn the_client_and_the_origin_understand_each_other() {
    let Some(lab) = Lab::new("http") else { return };
    let at = SocketAddr::from((lab.origin().v6, 0));
    let origin = Origin::echo(&lab.origin().namespace, at, "one").expect("a port is free");
    let mut client = Client::connect(&lab.client().namespace, origin.address()).expect("the origin listens");
    for number in 0..3 {
        let request = Request::new("POST", &format!("/{number}"))
            .cookie("session", "abc")
            .body("hello");
        let response = client.send(&request).expect("the origin answers");
        assert_eq!(response.status, 200);
        assert_eq!(response.json()["target"], format!("/{number}"));
    }
    assert_eq!(origin.connections(), 1);
    let received = origin.received();
    assert_eq!(received.len(), 3);
    assert_eq!(received[2].values("cookie"), ["session=abc"]);
    assert_eq!(received[2].body, b"hello");
    let address = origin.address();
    drop(origin);
    eventually("the port to be closed", || {
        (probe::connect(&lab.client().namespace, address, PATIENCE) == Connection::Refused).then_some(())
    });
}
