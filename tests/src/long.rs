//! Traffic that takes its time: connections that live through reloads and upgrades, and say afterwards what was lost.
//!
//! An origin that speaks HTTP/1.1, WebSockets and server-sent events, and the clients for it. A client fails only where a
//! user would notice: a request that was answered wrongly or not at all, a message that is missing, an upload that ended.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;

use crate::{
    http::{Client, Request},
    lab::Host,
    netns::Namespace,
    wait::PATIENCE,
};

/// Path of the WebSocket that answers with what it is told.
pub const ECHO: &str = "/echo";
/// Path of the events.
pub const EVENTS: &str = "/events";
/// Time between two events, and two parts of an upload.
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes of one part of an upload.
const PART: usize = 2048;

/// The origin; its port is closed when it is dropped.
pub struct LongOrigin {
    address: SocketAddr,
    listener: Arc<TcpListener>,
}

impl LongOrigin {
    /// Listens on a free port of the host.
    ///
    /// # Panics
    /// No port is free.
    pub fn start(host: &Host) -> Self {
        let bind = || TcpListener::bind((host.v4, 0));
        let listener = Arc::new(host.namespace.enter(bind).expect("a port is free"));
        let address = listener.local_addr().expect("it is bound");
        let accepting = Arc::clone(&listener);
        thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                // What a client does wrong ends its connection.
                thread::spawn(move || serve(stream));
            }
        });
        Self { address, listener }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for LongOrigin {
    fn drop(&mut self) {
        // A listening socket that is shut down accepts no more (Linux).
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
    }
}

fn serve(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let field = |name: &str| {
            head.lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(own, _)| own.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.trim().to_owned())
        };
        if target.starts_with(ECHO) {
            let key = field("sec-websocket-key").unwrap_or_default();
            return echo(reader, &key);
        }
        if target.starts_with(EVENTS) {
            return events(reader.into_inner());
        }
        let body = match (field("content-length"), field("transfer-encoding")) {
            (Some(length), _) => {
                let length = length.parse().map_err(io::Error::other)?;
                io::copy(&mut Read::by_ref(&mut reader).take(length), &mut io::sink())?
            }
            (None, Some(_)) => chunked(&mut reader)?,
            (None, None) => 0,
        };
        let answer = format!("got {body}");
        let response = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{answer}",
            answer.len()
        );
        reader.get_mut().write_all(response.as_bytes())?;
    }
}

fn chunked(reader: &mut BufReader<TcpStream>) -> io::Result<u64> {
    let mut total = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let length = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        io::copy(&mut Read::by_ref(reader).take(length + 2), &mut io::sink())?;
        if length == 0 {
            return Ok(total);
        }
        total += length;
    }
}

fn echo(mut reader: BufReader<TcpStream>, key: &str) -> io::Result<()> {
    let accept = digest(
        &SHA1_FOR_LEGACY_USE_ONLY,
        format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes(),
    );
    let accept = base64::engine::general_purpose::STANDARD.encode(accept);
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    reader.get_mut().write_all(head.as_bytes())?;
    while let Some((opcode, payload)) = read_frame(&mut reader)? {
        if opcode == 8 {
            break;
        }
        let mut frame = vec![0x80 | opcode, payload.len() as u8];
        frame.extend(payload);
        reader.get_mut().write_all(&frame)?;
    }
    Ok(())
}

/// A frame of at most 125 bytes; none at the end.
fn read_frame(reader: &mut impl Read) -> io::Result<Option<(u8, Vec<u8>)>> {
    let mut head = [0; 2];
    match reader.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let (masked, length) = (head[1] & 0x80 != 0, usize::from(head[1] & 0x7f));
    let mut mask = [0; 4];
    if masked {
        reader.read_exact(&mut mask)?;
    }
    let mut payload = vec![0; length];
    reader.read_exact(&mut payload)?;
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Ok(Some((head[0] & 0x0f, payload)))
}

fn events(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    )?;
    for number in 0_u64.. {
        let event = format!("data: {number}\n\n");
        write!(stream, "{:x}\r\n{event}\r\n", event.len())?;
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// What the clients have seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Requests that were answered as they should be.
    pub requests: AtomicU64,
    /// WebSocket messages that came back.
    pub messages: AtomicU64,
    /// Events that came in.
    pub events: AtomicU64,
    /// Uploads that ended well.
    pub uploads: AtomicU64,
    faults: Mutex<Vec<String>>,
}

impl Seen {
    fn fault(&self, what: String) {
        self.faults.lock().expect("not poisoned").push(what);
    }

    /// What went wrong.
    pub fn faults(&self) -> Vec<String> {
        self.faults.lock().expect("not poisoned").clone()
    }
}

/// Clients at work.
pub struct Traffic {
    /// What they have seen.
    pub seen: Arc<Seen>,
    ending: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Begins: `clients` that ask again and again on kept connections, as many WebSockets, one stream of events, and one
    /// upload after the other.
    pub fn start(host: &Host, gateway: SocketAddr, clients: usize) -> Self {
        let mut traffic = Self {
            seen: Arc::default(),
            ending: Arc::default(),
            threads: Vec::new(),
        };
        for _ in 0..clients {
            traffic.begin(host, "requests", move |work| ask(work, gateway));
            traffic.begin(host, "websocket", move |work| talk(work, gateway));
        }
        traffic.begin(host, "events", move |work| listen(work, gateway));
        traffic.begin(host, "upload", move |work| upload(work, gateway));
        traffic
    }

    fn begin(
        &mut self,
        host: &Host,
        name: &'static str,
        work: impl FnOnce(&Work) -> io::Result<()> + Send + 'static,
    ) {
        let own = Work {
            namespace: host.namespace.clone(),
            seen: Arc::clone(&self.seen),
            ending: Arc::clone(&self.ending),
        };
        self.threads.push(thread::spawn(move || {
            if let Err(error) = work(&own) {
                own.seen.fault(format!("{name}: {error}"));
            }
        }));
    }

    /// Ends it in an orderly way; what was seen.
    pub fn finish(self) -> Arc<Seen> {
        self.ending.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("clients do not panic");
        }
        self.seen
    }
}

struct Work {
    namespace: Namespace,
    seen: Arc<Seen>,
    ending: Arc<AtomicBool>,
}

impl Work {
    fn goes_on(&self) -> bool {
        !self.ending.load(Ordering::Relaxed)
    }

    fn connect(&self, gateway: SocketAddr) -> io::Result<Client> {
        Client::connect(&self.namespace, gateway)
    }
}

/// Every request has its answer. A connection is left only if the answer before said so.
fn ask(work: &Work, gateway: SocketAddr) -> io::Result<()> {
    let mut client = work.connect(gateway)?;
    while work.goes_on() {
        match client.send(&Request::get("/")) {
            Ok(response) if response.status == 200 && response.body == b"got 0" => {
                work.seen.requests.fetch_add(1, Ordering::Relaxed);
                if response.keeps_alive {
                    continue;
                }
            }
            Ok(response) => work.seen.fault(format!("request: {response:?}")),
            Err(error) => work.seen.fault(format!("request: {error}")),
        }
        client = work.connect(gateway)?;
    }
    Ok(())
}

/// Every message comes back, in order, on one connection.
fn talk(work: &Work, gateway: SocketAddr) -> io::Result<()> {
    let mut client = work.connect(gateway)?;
    let response = client.send(
        &Request::get(ECHO)
            .field("Connection", "Upgrade")
            .field("Upgrade", "websocket")
            .field("Sec-WebSocket-Version", "13")
            .field("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    )?;
    if response.status != 101 {
        return Err(io::Error::other(format!("{response:?}")));
    }
    let mut stream = client.stream().try_clone()?;
    for number in 0_u64.. {
        if !work.goes_on() {
            break;
        }
        let payload = number.to_be_bytes();
        let mut frame = vec![0x82, 0x80 | payload.len() as u8, 1, 2, 3, 4];
        frame.extend(
            payload
                .iter()
                .zip([1, 2, 3, 4].iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        stream.write_all(&frame)?;
        match read_frame(&mut stream)? {
            Some((2, back)) if back == payload => {
                work.seen.messages.fetch_add(1, Ordering::Relaxed);
            }
            other => return Err(io::Error::other(format!("message {number}: {other:?}"))),
        }
        thread::sleep(PAUSE / 4);
    }
    stream.write_all(&[0x88, 0x80, 0, 0, 0, 0])
}

/// Events come in without a gap, on one connection.
fn listen(work: &Work, gateway: SocketAddr) -> io::Result<()> {
    let mut client = work.connect(gateway)?;
    client.write(format!("GET {EVENTS} HTTP/1.1\r\nHost: {gateway}\r\n\r\n").as_bytes())?;
    let mut lines = BufReader::new(client.stream().try_clone()?);
    let mut expected = 0;
    let mut line = String::new();
    while work.goes_on() {
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            return Err(io::Error::other(format!("ended before event {expected}")));
        }
        if let Some(number) = line.trim().strip_prefix("data: ") {
            if number.parse() != Ok(expected) {
                return Err(io::Error::other(format!("{number} in place of {expected}")));
            }
            expected += 1;
            work.seen.events.store(expected, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Uploads arrive whole, however slow; each takes as long as the traffic does, or some seconds.
fn upload(work: &Work, gateway: SocketAddr) -> io::Result<()> {
    const PARTS: usize = 5_000;
    let mut client = work.connect(gateway)?;
    client.write(
        format!("POST / HTTP/1.1\r\nHost: {gateway}\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes(),
    )?;
    let part = [b'x'; PART];
    let mut sent = 0;
    while work.goes_on() && sent < PARTS * PART {
        client.write(format!("{PART:x}\r\n").as_bytes())?;
        client.write(&part)?;
        client.write(b"\r\n")?;
        sent += PART;
        thread::sleep(PAUSE);
    }
    client.write(b"0\r\n\r\n")?;
    client.stream().set_read_timeout(Some(PATIENCE))?;
    let response = client.read("POST")?;
    if response.body != format!("got {sent}").as_bytes() {
        return Err(io::Error::other(format!("{sent} bytes sent: {response:?}")));
    }
    work.seen.uploads.fetch_add(1, Ordering::Relaxed);
    Ok(())
}
