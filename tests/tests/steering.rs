//! Direct services end to end: real clients and servers, the binary, an edge with backends on links of their own.
#![expect(
    clippy::expect_used,
    reason = "a step of a test that fails has to stop that test"
)]

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde_json::Value;
use tests::{
    backends::{BACKENDS, Connection, DIRECT_V4, DIRECT_V6, PORT, Steered, await_state},
    capture::{Capture, Direction},
    daemon::{self, Daemon},
    flood,
    frame::{Frame, Tcp, Transport},
    sender::PacketSocket,
};

/// Connections of each family at once.
const CONNECTIONS: usize = 30;
/// Of how many of them `steer explain` is asked, each a process.
const EXPLAINED: usize = 4;

fn connections(stage: &Steered, to: SocketAddr, count: usize) -> Vec<Connection> {
    (0..count).map(|_| stage.connect(to)).collect()
}

fn service(to: SocketAddr) -> &'static str {
    if to.is_ipv4() { "tcp-v4" } else { "tcp-v6" }
}

/// `steer explain`, as JSON.
fn explain(stage: &Steered, from: SocketAddr, to: SocketAddr, protocol: &str) -> Value {
    let (from, to) = (from.to_string(), to.to_string());
    daemon::cli(
        &stage.lab,
        ["steer", "explain", &from, &to, "--proto", protocol, "--json"],
    )
    .json()
}

/// The address of a backend as the service of `to` lists it.
fn address(stage: &Steered, role: &str, to: SocketAddr) -> IpAddr {
    stage.lab.host(role).address_towards(to.ip())
}

/// Both modes: transfers work in both families and both protocols, over all three backends, and what `explain` says is
/// where they are.
fn spreads(forward: &str) {
    let Some(stage) = Steered::new(&format!("steer-{forward}")) else {
        return;
    };
    let daemon = Daemon::start(&stage.lab, &stage.config(forward, &BACKENDS, ""));
    for to in Steered::vips() {
        let mut open = connections(&stage, to, CONNECTIONS);
        for (number, connection) in open.iter_mut().enumerate() {
            connection.echo(20_000).expect("a transfer");
            if number >= EXPLAINED {
                continue;
            }
            let explained = explain(&stage, connection.local(), to, "tcp");
            let backend = address(&stage, &connection.backend, to);
            assert_eq!(explained["backend"], backend.to_string().as_str(), "{explained}");
            assert_eq!(explained["why"], "the connection table has the flow");
        }
        open[0].echo(2_000_000).expect("a long transfer");
        for role in BACKENDS {
            assert!(
                open.iter().any(|open| open.backend == role),
                "{role} has none of {CONNECTIONS}"
            );
        }
        let names: Vec<String> = (0..30)
            .map(|_| stage.ask(to, None).expect("an answer over UDP"))
            .collect();
        for role in BACKENDS {
            assert!(
                names.iter().any(|name| name == role),
                "{role} has none of {names:?}"
            );
        }
        let socket = stage.udp(to);
        let first = stage.ask(to, Some(&socket));
        assert_eq!(stage.ask(to, Some(&socket)), first, "a flow stays");
    }
    let status = daemon::cli(&stage.lab, ["status", "--json"]).json();
    let direct = status["direct"].as_array().expect("direct services");
    assert_eq!(direct.len(), 4);
    let opened: u64 = direct
        .iter()
        .filter(|of| of["service"] == "tcp-v4")
        .flat_map(|of| of["backends"].as_array().expect("backends"))
        .map(|backend| backend["opened"].as_u64().expect("a number"))
        .sum();
    assert!(opened >= CONNECTIONS as u64, "{opened}");
    assert!(tests::stage::packets(&status, "steered") > 0);
    drop(daemon);
}

#[test]
fn frames_to_neighbours_spread_a_service() {
    spreads("dsr-l2");
}

#[test]
fn tunnels_spread_a_service() {
    spreads("ipip");
}

#[test]
fn translated_services_spread_and_answers_come_back() {
    spreads("nat");
}

/// A backend fails: the others' connections go on, new ones avoid it. It comes back by a drain's end; a restart of the
/// daemon and a flood of made-up sources leave every connection where it is.
#[test]
fn connections_stay_where_they_are() {
    let Some(stage) = Steered::new("steer-stay") else {
        return;
    };
    let two = &BACKENDS[..2];
    let daemon = Daemon::start(&stage.lab, &stage.config("dsr-l2", two, ""));
    let mut all: Vec<(SocketAddr, Connection)> = Steered::vips()
        .into_iter()
        .flat_map(|to| {
            connections(&stage, to, CONNECTIONS)
                .into_iter()
                .map(move |open| (to, open))
        })
        .collect();
    for (_, open) in &mut all {
        open.echo(1_000).expect("a transfer");
    }
    // A backend more, by a restart: no established connection moves.
    daemon.sigterm();
    let daemon = Daemon::start(&stage.lab, &stage.config("dsr-l2", &BACKENDS, ""));
    for (_, open) in &mut all {
        open.echo(1_000).expect("a connection from before the restart");
    }
    for to in Steered::vips() {
        let new = connections(&stage, to, CONNECTIONS);
        assert!(
            new.iter().any(|open| open.backend == "b3"),
            "the new backend gets new connections"
        );
    }
    // A flood of made-up sources.
    let from = stage.lab.attacker();
    for vip in [IpAddr::from(DIRECT_V4), DIRECT_V6.into()] {
        flood::blast_port(from, vip, PORT, 100_000).expect("a flood");
    }
    for (_, open) in &mut all {
        open.echo(1_000).expect("a connection after the flood");
    }
    let report = daemon::cli(&stage.lab, ["service", "list", "--json"]).json();
    let held: u64 = report
        .as_array()
        .expect("services")
        .iter()
        .flat_map(|of| of["backends"].as_array().expect("backends"))
        .map(|backend| backend["connections"].as_u64().expect("a number"))
        .sum();
    assert!(
        (all.len() as u64..1_000).contains(&held),
        "{held} connections are held"
    );
    // One drains: no new connection, those it has go on.
    for to in Steered::vips() {
        let backend = address(&stage, "b3", to).to_string();
        daemon::cli(&stage.lab, ["service", "drain", service(to), &backend]).success();
        let new = connections(&stage, to, CONNECTIONS);
        assert!(new.iter().all(|open| open.backend != "b3"), "b3 is drained");
        daemon::cli(&stage.lab, ["service", "undrain", service(to), &backend]).success();
    }
    // One dies: what it has is lost, nothing else.
    stage.servers[0].kill();
    for to in Steered::vips() {
        await_state(&stage.lab, service(to), address(&stage, "b1", to), false);
        let new = connections(&stage, to, CONNECTIONS);
        assert!(new.iter().all(|open| open.backend != "b1"), "b1 is down");
    }
    for (_, open) in all.iter_mut().filter(|(_, open)| open.backend != "b1") {
        open.echo(1_000).expect("a connection of another backend");
    }
    drop(daemon);
}

/// What outgrows the way to a backend by its outer header is told its sender, whose stack sends less then.
#[test]
fn senders_are_told_what_fits_a_tunnel() {
    let Some(stage) = Steered::new("steer-mtu") else {
        return;
    };
    let daemon = Daemon::start(&stage.lab, &stage.config("ipip", &BACKENDS, ""));
    for to in Steered::vips() {
        // Full segments: 1,500 bytes and an outer header are too much.
        let mut open = stage.connect(to);
        open.echo(300_000).expect("a transfer of full segments");
    }
    let status = daemon::cli(&stage.lab, ["status", "--json"]).json();
    assert!(tests::stage::packets(&status, "too_big") >= 1, "{status}");
    drop(daemon);
}

/// An error about what a backend sent finds that backend, also over the tunnel.
#[test]
fn an_error_reaches_the_backend_it_is_about() {
    let Some(stage) = Steered::new("steer-icmp") else {
        return;
    };
    let daemon = Daemon::start(&stage.lab, &stage.config("dsr-l2", &BACKENDS, ""));
    let to: SocketAddr = (DIRECT_V4, PORT).into();
    let open = stage.connect(to);
    let host = stage.lab.host(&open.backend);
    let capture = Capture::start(&host.namespace, host.interface).expect("a host has its interface");
    let client = stage.lab.client();
    // "Fragmentation needed" from the client's side, about a segment of the service's.
    let IpAddr::V4(own) = open.local().ip() else {
        panic!("an IPv4 connection")
    };
    let quoted = Frame::new(
        DIRECT_V4.into(),
        own.into(),
        Transport::Tcp(Tcp {
            source: PORT,
            destination: open.local().port(),
            ..Tcp::default()
        }),
    )
    .bytes();
    let mut error = Frame::new(
        own.into(),
        DIRECT_V4.into(),
        Transport::Icmp {
            kind: 3,
            code: 4,
            rest: [0, 0, 5, 0],
        },
    );
    error.payload = quoted[14..14 + 28].to_vec();
    let socket =
        PacketSocket::sending(&client.namespace, client.interface).expect("a host has its interface");
    socket
        .send(&client.frame(error))
        .expect("the interface takes a frame");
    let arrived = capture.wait_for(Duration::from_secs(10), |frame| {
        frame.direction == Direction::In
            && frame.bytes.len() >= 36
            && frame.bytes[23] == 1
            && frame.bytes[34..36] == [3, 4]
            && frame.bytes[30..34] == DIRECT_V4.octets()
    });
    assert!(arrived.is_some(), "the error did not reach {}", open.backend);
    drop(daemon);
}

#[test]
fn a_backend_in_no_network_and_an_interface_that_does_not_forward_are_told() {
    let Some(stage) = Steered::new("steer-bad") else {
        return;
    };
    let lost = stage
        .config("ipip", &["b1"], "")
        .replace(&stage.lab.host("b1").v4.to_string(), "100.64.0.1");
    stage
        .lab
        .edge()
        .ip("route add unreachable 100.64.0.0/10")
        .expect("a route");
    let file = stage.lab.write("lost.toml", lost).display().to_string();
    let said = daemon::cli(&stage.lab, ["attach", "--config", &file]).failure_with(daemon::INVALID_CONFIG);
    assert!(said.contains("service.backend.address: 100.64.0.1"), "{said}");
    let good = stage.lab.write("good.toml", stage.config("ipip", &["b1"], ""));
    stage
        .lab
        .edge()
        .sysctl("ipv4/conf/wan0/forwarding", "0")
        .expect("a setting");
    let said = daemon::cli(&stage.lab, ["attach", "--config", &good.display().to_string()]).failure();
    assert!(said.contains("net.ipv4.conf.wan0.forwarding is 0"), "{said}");
    daemon::cli(&stage.lab, ["status"]).failure();
}
