//! Bodies stream, both ways, and memory does not follow their size.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use super::support::{Edge, Origin};

const MIB: usize = 1024 * 1024;
const BODY: usize = 100 * MIB;

/// Growth that says nothing: other tests of this process run beside this one and take memory of their own. A body that
/// was gathered would take all of [`BODY`].
const SLACK: usize = 64 * 1024 * 1024;

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

fn pattern(offset: usize, buffer: &mut [u8]) {
    for (index, byte) in buffer.iter_mut().enumerate() {
        *byte = ((offset + index) % 251) as u8;
    }
}

/// Reads `len` bytes of the pattern, slower than they could come.
fn check_pattern(stream: &mut impl Read, len: usize) {
    let (mut at, mut buffer, mut want) = (0, vec![0; 64 * 1024], vec![0; 64 * 1024]);
    while at < len {
        let read = stream.read(&mut buffer).expect("more of the body");
        assert!(read > 0, "ended after {at}");
        pattern(at, &mut want[..read]);
        assert!(
            buffer[..read] == want[..read],
            "differs within {at}..{}",
            at + read
        );
        at += read;
    }
    assert_eq!(at, len);
}

fn send_pattern(stream: &mut TcpStream, len: usize, chunked: bool) {
    let (mut at, mut buffer) = (0, vec![0; 64 * 1024]);
    while at < len {
        let part = buffer.len().min(len - at);
        pattern(at, &mut buffer[..part]);
        if chunked {
            write!(stream, "{part:x}\r\n").unwrap();
        }
        stream.write_all(&buffer[..part]).unwrap();
        if chunked {
            stream.write_all(b"\r\n").unwrap();
        }
        at += part;
    }
    if chunked {
        stream.write_all(b"0\r\n\r\n").unwrap();
    }
}

#[test]
fn a_hundred_mebibytes_down_in_constant_memory() {
    let origin = Origin::with(|connection| {
        connection.request();
        connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n").as_bytes());
        send_pattern(&mut connection.stream, BODY, false);
    });
    let edge = Edge::to(origin.address);
    let mut client = edge.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    // A client that reads nothing holds the origin back, not the bytes.
    let before = resident();
    thread::sleep(Duration::from_millis(200));
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    check_pattern(&mut client.stream, BODY);
    let grown = resident().saturating_sub(before);
    assert!(grown < SLACK, "grew by {} KiB", grown / 1024);
}

#[test]
fn a_hundred_mebibytes_up_in_constant_memory() {
    for chunked in [false, true] {
        let origin = Origin::with(move |connection| {
            let head = connection.head().expect("a head");
            assert_eq!(head.contains("chunked"), chunked, "{head}");
            // Read slowly at first, so that whoever buffers has time to.
            thread::sleep(Duration::from_millis(200));
            if chunked {
                let body = connection.body(head).body.len();
                assert_eq!(body, BODY / 10);
            } else {
                let mut stream = connection.stream.try_clone().unwrap();
                let rest = connection.take_buffered();
                let mut all = rest.as_slice().chain(&mut stream);
                check_pattern(&mut all, BODY);
            }
            connection.send(super::support::OK);
        });
        let edge = Edge::to(origin.address);
        let mut client = edge.connect();
        let before = resident();
        if chunked {
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
            send_pattern(&mut client.stream, BODY / 10, true);
        } else {
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY}\r\n\r\n").as_bytes());
            send_pattern(&mut client.stream, BODY, false);
        }
        assert_eq!(client.response().status, 200);
        let grown = resident().saturating_sub(before);
        assert!(grown < SLACK + BODY / 10, "grew by {} KiB", grown / 1024);
    }
}

#[test]
fn events_arrive_one_by_one() {
    let side = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let side_address = side.local_addr().unwrap();
    let origin = Origin::with(move |connection| {
        connection.request();
        connection.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        let mut acknowledged = [0];
        for event in 0..5 {
            connection.send(format!("8\r\ndata: {event}\n\r\n").as_bytes());
            // The next event is sent only after the client has seen this one.
            let mut side = TcpStream::connect(side_address).unwrap();
            side.read_exact(&mut acknowledged).unwrap();
        }
        connection.send(b"0\r\n\r\n");
    });
    let edge = Edge::to(origin.address);
    let mut client = edge.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut got = String::new();
    for event in 0..5 {
        while !got.contains(&format!("data: {event}\n")) {
            let mut part = [0; 512];
            let read = client.stream.read(&mut part).expect("the event");
            assert!(read > 0);
            got.push_str(std::str::from_utf8(&part[..read]).unwrap());
        }
        side.accept().unwrap().0.write_all(b"x").unwrap();
    }
}

#[test]
fn expect_continue_is_answered_before_the_body() {
    let origin = Origin::with(|connection| {
        while let Some(head) = connection.head() {
            if head.to_ascii_lowercase().contains("expect: 100-continue") {
                connection.send(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            connection.body(head);
            connection.send(super::support::OK);
        }
    });
    let edge = Edge::to(origin.address);
    let mut client = edge.connect();
    for _ in 0..2 {
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(client.response().status, 100);
        client.send(b"hello");
        assert_eq!(client.response().status, 200);
        assert_eq!(origin.last().body, b"hello");
    }
}

#[test]
fn trailers_pass_both_ways() {
    let origin = Origin::answering(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 9\r\n\r\n",
    );
    let edge = Edge::to(origin.address);
    let mut client = edge.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n");
    let got = client.read_all();
    assert!(
        got.to_ascii_lowercase().ends_with("0\r\nx-sum: 9\r\n\r\n"),
        "{got:?}"
    );
}
