//! HTTP/2 floods, by a client of raw frames: each ends with its connection within a second and in little memory, and
//! honest clients are served.
//!
//! Memory is that of a process, so the floods run in one of their own: [`run`] starts it.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use super::{
    frames::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, PRIORITY,
        RST_STREAM, SETTINGS, WINDOW_UPDATE, fields, frame, number, request,
    },
    support::{Edge, Origin, config},
};
use crate::gateway::{Closing, Limits};

const IN_CHILD: &str = "BREAKWATER_TEST_FLOODS";
const WITHIN: Duration = Duration::from_secs(1);
const MOST_MEMORY: usize = 16 << 20;
/// Longest time that a flood goes on if nobody ends it.
const PATIENCE: Duration = Duration::from_secs(3);

#[test]
fn floods_end_within_a_second_and_sixteen_mebibytes() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "gateway::tests::bytes::floods::run",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(IN_CHILD, "1")
        .output()
        .expect("the test runs itself");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("floods: "), "{said}");
}

/// Highest memory use so far, and from now on.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

fn resident() -> usize {
    // Writing 5 sets the peak to what is used now (proc(5)).
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    peak()
}

/// What goes on until the connection ends.
type Flood = Box<dyn FnMut() -> Vec<u8>>;

/// A flood by name: what is sent first, and then again and again.
#[expect(clippy::too_many_lines, reason = "a table")]
fn floods() -> Vec<(&'static str, Vec<u8>, Flood)> {
    let open = |stream| frame(HEADERS, END_HEADERS, stream, &request("POST", "/"));
    let same = |bytes: Vec<u8>| -> Flood {
        let many = bytes.repeat(16);
        Box::new(move || many.clone())
    };
    // On a new stream each time.
    let streams = |make: fn(u32) -> Vec<u8>| -> Flood {
        let mut stream = 1;
        Box::new(move || {
            stream += 2;
            make(stream)
        })
    };
    vec![
        (
            "rapid reset",
            Vec::new(),
            streams(|stream| {
                let get = frame(HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", "/"));
                [get, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
            }),
        ),
        (
            "made you reset, by window updates of zero",
            Vec::new(),
            streams(|stream| {
                let post = frame(HEADERS, END_HEADERS, stream, &request("POST", "/"));
                [post, frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat()
            }),
        ),
        (
            "made you reset, by windows that overflow",
            Vec::new(),
            streams(|stream| {
                let post = frame(HEADERS, END_HEADERS, stream, &request("POST", "/"));
                let update = frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes());
                [post, update].concat()
            }),
        ),
        (
            "made you reset, by data after the end",
            Vec::new(),
            streams(|stream| {
                let get = frame(HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", "/"));
                [get, frame(DATA, 0, stream, b"x")].concat()
            }),
        ),
        (
            "made you reset, by a body longer than declared",
            Vec::new(),
            streams(|stream| {
                let mut head = request("POST", "/");
                head.extend_from_slice(&fields(&[("content-length", "1")]));
                [
                    frame(HEADERS, END_HEADERS, stream, &head),
                    frame(DATA, 0, stream, b"xx"),
                ]
                .concat()
            }),
        ),
        (
            "made you reset, by malformed requests",
            Vec::new(),
            streams(|stream| {
                let head = fields(&[(":method", "GET"), (":path", "/"), (":path", "/")]);
                frame(HEADERS, END_HEADERS | END_STREAM, stream, &head)
            }),
        ),
        (
            "continuations without end",
            frame(HEADERS, 0, 1, &request("GET", "/")),
            same(frame(CONTINUATION, 0, 1, &fields(&[("x", "y")]))),
        ),
        (
            "empty continuations",
            frame(HEADERS, 0, 1, &request("GET", "/")),
            same(frame(CONTINUATION, 0, 1, b"")),
        ),
        (
            "large continuations",
            frame(HEADERS, 0, 1, &request("GET", "/")),
            Box::new(|| frame(CONTINUATION, 0, 1, &fields(&[("x", &"y".repeat(16_000))]))),
        ),
        ("pings", Vec::new(), same(frame(PING, 0, 0, &[7; 8]))),
        ("answers to pings", Vec::new(), same(frame(PING, ACK, 0, &[7; 8]))),
        ("empty settings", Vec::new(), same(frame(SETTINGS, 0, 0, b""))),
        (
            "settings",
            Vec::new(),
            same(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255])),
        ),
        (
            "answers to settings",
            Vec::new(),
            same(frame(SETTINGS, ACK, 0, b"")),
        ),
        ("empty data", open(1), same(frame(DATA, 0, 1, b""))),
        ("padding alone", open(1), same(frame(DATA, 8, 1, &[1, 0]))),
        ("crumbs of data", open(1), same(frame(DATA, 0, 1, b"x"))),
        (
            "window updates",
            Vec::new(),
            same(frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())),
        ),
        (
            "window updates of a stream",
            open(1),
            same(frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes())),
        ),
        (
            "priorities",
            Vec::new(),
            same(frame(PRIORITY, 0, 3, &[0, 0, 0, 1, 16])),
        ),
        (
            "priorities of ever new streams",
            Vec::new(),
            streams(|stream| frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 1])),
        ),
        ("frames of no kind", Vec::new(), same(frame(0x42, 0, 0, b"?"))),
        (
            "more streams than allowed",
            Vec::new(),
            streams(|stream| frame(HEADERS, END_HEADERS, stream, &request("POST", "/"))),
        ),
    ]
}

/// The child's part.
#[test]
fn run() {
    if std::env::var_os(IN_CHILD).is_none() {
        return;
    }
    let origin = Origin::ok();
    let edge = Edge::to(origin.address);
    assert_eq!(edge.connect().get("/").status, 200);
    let mut count = 0;
    for (name, first, more) in floods() {
        let before = resident();
        let mut client = Frames::connect(&edge, b"");
        client.send(&first);
        let took = client.flood(PATIENCE, more);
        let memory = peak().saturating_sub(before);
        println!("{name}: {took:?}, {} KiB", memory >> 10);
        assert!(took.is_some_and(|took| took < WITHIN), "{name}: {took:?}");
        assert!(memory < MOST_MEMORY, "{name}: {memory} bytes");
        assert_eq!(edge.connect().get("/").status, 200, "after {name}");
        count += 1;
    }
    let closings = edge.handle.closings();
    let counted = closings
        .iter()
        .find(|(closing, _)| *closing == Closing::Http2Flood)
        .unwrap()
        .1;
    println!("counted as floods: {counted} of {count}");
    assert!(counted >= count * 3 / 4, "{counted} of {count}");
    slow();
    bomb();
    println!("floods: {count}");
}

/// A piece of a large answer.
static PIECE: [u8; 64 << 10] = [0; 64 << 10];

/// Clients that open everything and read nothing, or begin and do not end.
fn slow() {
    let origin = Origin::with(|connection| {
        while connection.request().is_some() {
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n");
            for _ in 0..64 {
                connection.send(&PIECE);
            }
        }
    });
    let limits = Limits {
        head_timeout: Duration::from_millis(300),
        stall_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let edge = Edge::start(&config(&[&[origin.address]], &[("/", 0, false)]), limits);
    for (name, settings, sent) in [
        // A window of nothing: each of the streams waits for the client.
        ("windows of nothing", vec![0, 4, 0, 0, 0, 0], {
            let get = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", "/"));
            (0..100).flat_map(|n| get(n * 2 + 1)).collect()
        }),
        (
            "a head that does not end",
            Vec::new(),
            frame(HEADERS, 0, 1, &request("GET", "/")),
        ),
        (
            "a body that does not come",
            Vec::new(),
            frame(HEADERS, END_HEADERS, 1, &request("POST", "/")),
        ),
        ("no request at all", Vec::new(), Vec::new()),
    ] {
        let before = resident();
        let mut client = Frames::connect(&edge, &settings);
        client.send(&sent);
        let took = client.closed_within(PATIENCE * 3);
        let memory = peak().saturating_sub(before);
        println!("{name}: {took:?}, {} KiB", memory >> 10);
        assert!(took.is_some_and(|took| took < PATIENCE * 2), "{name}: {took:?}");
        assert!(memory < MOST_MEMORY, "{name}: {memory} bytes");
    }
}

/// A small request that means many large fields: one entry of the table, named again and again.
fn bomb() {
    let origin = Origin::ok();
    let edge = Edge::to(origin.address);
    let mut block = request("GET", "/");
    // Literal with incremental indexing (RFC 7541, 6.2.1), then its index.
    block.push(0x40);
    number(&mut block, 7, 0, 1);
    block.push(b'x');
    number(&mut block, 7, 0, 3000);
    block.extend_from_slice(&[b'y'; 3000]);
    for _ in 0..10_000 {
        number(&mut block, 7, 0x80, 62);
    }
    let before = resident();
    let mut client = Frames::connect(&edge, b"");
    let begun = Instant::now();
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block));
    let answered = std::iter::from_fn(|| client.next(WITHIN))
        .any(|got| [HEADERS, RST_STREAM, GOAWAY].contains(&got.kind));
    let memory = peak().saturating_sub(before);
    println!("a bomb of fields: {:?}, {} KiB", begun.elapsed(), memory >> 10);
    assert!(answered, "it is refused, not left alone");
    assert!(memory < MOST_MEMORY, "{memory} bytes");
    assert!(origin.seen().is_empty());
}
