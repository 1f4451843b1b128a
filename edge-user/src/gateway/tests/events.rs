//! Long-lived answers as they come: server-sent events, plain and compressed, over HTTP/1.1 and HTTP/2; and WebSockets by
//! a library at both ends.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    process::{Command, Stdio},
    sync::{Arc, Mutex, mpsc},
};

use tungstenite::{Message, WebSocket, protocol::Role};

use super::{
    routing::serving,
    support::{Edge, Origin, OriginConnection, PATIENCE},
};

const ROUTE: &str = "
[[route]]
name = 'events'
path = '/'
upstream = 'o'
auth = 'none'
[route.compress]
types = ['text/event-stream', 'text/*']
min_bytes = 20
";

const EVENTS: usize = 5;

/// Sends the next event only when it is told that the last one has come.
fn origin() -> (Origin, mpsc::Sender<()>) {
    let (next, told) = mpsc::channel();
    let told = Arc::new(Mutex::new(told));
    let origin = Origin::with(move |connection: &mut OriginConnection| {
        while connection.request().is_some() {
            connection.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\
                  Transfer-Encoding: chunked\r\n\r\n",
            );
            for number in 0..EVENTS {
                let event = event(number);
                connection.send(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes());
                if told.lock().unwrap().recv_timeout(PATIENCE).is_err() {
                    // The client waits for an event that is held back.
                    return;
                }
            }
            connection.send(b"0\r\n\r\n");
        }
    });
    (origin, next)
}

fn event(number: usize) -> String {
    format!("id: {number}\ndata: what happened as number {number}\n\n")
}

/// Reads event after event, and asks for the next one with each.
fn read_events(from: &mut impl Read, next: &mpsc::Sender<()>, what: &str) {
    let mut got = String::new();
    for number in 0..EVENTS {
        while !got.contains(&event(number)) {
            let mut part = [0; 512];
            let read = from.read(&mut part).unwrap_or(0);
            assert!(read > 0, "{what}: event {number} is held back: {got:?}");
            got.push_str(&String::from_utf8_lossy(&part[..read]));
        }
        let _ = next.send(());
    }
}

/// A chunked body, decoded as it comes.
struct Dechunked<R> {
    from: R,
    left: usize,
    line: Vec<u8>,
}

impl<R: Read> Read for Dechunked<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let mut byte = [0];
        while self.left == 0 {
            if self.from.read(&mut byte)? == 0 {
                return Ok(0);
            }
            self.line.push(byte[0]);
            if self.line.ends_with(b"\r\n") {
                let text = String::from_utf8_lossy(&self.line).trim().to_owned();
                self.line.clear();
                self.left = usize::from_str_radix(&text, 16).unwrap_or(0);
            }
        }
        let most = self.left.min(into.len());
        let read = self.from.read(&mut into[..most])?;
        self.left -= read;
        Ok(read)
    }
}

#[test]
fn events_arrive_one_by_one() {
    for accept in ["identity", "gzip"] {
        let (origin, next) = origin();
        let edge = serving(&[("o", origin.address)], ROUTE);
        let mut client = edge.connect();
        client.send(
            format!("GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\nAccept-Encoding: {accept}\r\n\r\n")
                .as_bytes(),
        );
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.stream.read_exact(&mut byte).expect("a head");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("text").to_ascii_lowercase();
        assert_eq!(
            head.contains("content-encoding: gzip"),
            accept == "gzip",
            "{head}"
        );
        assert!(!head.contains("content-length"), "{head}");
        let body = Dechunked {
            from: &client.stream,
            left: 0,
            line: Vec::new(),
        };
        if accept == "gzip" {
            read_events(&mut flate2::read::GzDecoder::new(body), &next, accept);
        } else {
            let mut body = body;
            read_events(&mut body, &next, accept);
        }
    }
}

#[test]
fn events_arrive_one_by_one_over_http2() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("SKIPPED: events_arrive_one_by_one_over_http2: no curl");
        return;
    }
    for coded in [false, true] {
        let (origin, next) = origin();
        let edge = serving(&[("o", origin.address)], ROUTE);
        let mut command = Command::new("curl");
        command.args(["-sSN", "--max-time", "20", "--http2-prior-knowledge"]);
        if coded {
            command.arg("--compressed");
        }
        let mut curl = command
            .arg(format!("http://{}/events", edge.address))
            .stdout(Stdio::piped())
            .spawn()
            .expect("curl runs");
        read_events(&mut curl.stdout.take().expect("piped"), &next, "HTTP/2");
        assert!(curl.wait().expect("curl ends").success());
    }
}

/// A WebSocket server of the library: sends back what it gets.
fn echo() -> Origin {
    Origin::with(|connection: &mut OriginConnection| {
        let stream = connection.stream.try_clone().expect("a socket");
        let Ok(mut socket) = tungstenite::accept(stream) else {
            return;
        };
        while let Ok(message) = socket.read() {
            if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
                return;
            }
        }
    })
}

fn talk<S: Read + Write>(socket: &mut WebSocket<S>) {
    let long: Vec<u8> = (0..300_000_u32).map(|number| number as u8).collect();
    for message in [Message::text("hello"), Message::text(""), Message::binary(long)] {
        socket.send(message.clone()).expect("it takes it");
        assert_eq!(socket.read().expect("it answers"), message);
    }
    socket
        .send(Message::Ping(b"there?".to_vec().into()))
        .expect("it takes it");
    assert_eq!(
        socket.read().expect("it answers"),
        Message::Pong(b"there?".to_vec().into())
    );
    socket.close(None).expect("it takes it");
    while let Ok(message) = socket.read() {
        assert!(message.is_close(), "{message:?}");
    }
}

#[test]
fn websockets_by_a_library() {
    let origin = echo();
    let edge = Edge::to(origin.address);
    for _ in 0..3 {
        let client = edge.connect();
        let address = format!("ws://{}/chat", edge.address);
        let (mut socket, response) = tungstenite::client(address, client.stream).expect("a handshake");
        assert_eq!(response.status(), 101);
        talk(&mut socket);
    }
}

/// What the library writes and reads, in memory.
#[derive(Default)]
struct Memory {
    out: Vec<u8>,
    into: VecDeque<u8>,
}

impl Read for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.into.read(buffer)? {
            0 => Err(std::io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn websockets_by_a_library_over_http2() {
    use super::frames::{DATA, END_HEADERS, Frames, HEADERS, fields, frame};
    let origin = echo();
    let edge = Edge::to(origin.address);
    let mut client = Frames::connect(&edge, b"");
    let head = fields(&[
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/chat"),
        ("sec-websocket-version", "13"),
    ]);
    client.send(&frame(HEADERS, END_HEADERS, 1, &head));
    let mut socket = WebSocket::from_raw_socket(Memory::default(), Role::Client, None);
    for text in ["one", "two", "three"] {
        socket.send(Message::text(text)).expect("memory");
        let bytes = std::mem::take(&mut socket.get_mut().out);
        client.send(&frame(DATA, 0, 1, &bytes));
        let answer = loop {
            match socket.read() {
                Ok(message) => break message,
                Err(tungstenite::Error::Io(_)) => {
                    let got = client.next(PATIENCE).expect("a frame");
                    if got.kind == DATA && got.stream == 1 {
                        socket.get_mut().into.extend(got.payload);
                    }
                }
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(answer, Message::text(text));
    }
}
