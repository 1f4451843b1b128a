//! `cargo xtask bench soak [GIB [REQUESTS]]`: large bodies both ways, and many requests, through one gateway whose memory
//! must stay flat.
//!
//! By default 10 GiB down, 10 GiB up and 10,000,000 requests, with one worker of each codec; the origin and the clients
//! live in the same process and hold nothing but fixed buffers. Prints the memory (VmRSS, MiB) as it goes; fails if it
//! grows by more than a bound after the first tenth.

use std::{
    env,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    num::NonZeroU32,
    path::Path,
    process::ExitCode,
    sync::Arc,
    thread,
    time::Instant,
};

use edge_user::{
    config::Config,
    gateway::{Gateway, Limits, NoTokens, Parts, limits::Codec},
    offence::{OffenceKind, OffenceSink, Offender},
};

/// Most growth of memory after the first tenth, in MiB.
const MAX_GROWTH: u64 = 16;

const PIECE: usize = 64 * 1024;
const GIB: u64 = 1 << 30;

struct Nobody;

impl OffenceSink for Nobody {
    fn offence(&self, _: Offender, _: OffenceKind) {}
}

fn main() -> ExitCode {
    let numbers: Vec<u64> = env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let bytes = numbers.first().copied().unwrap_or(10) * GIB;
    let requests = numbers.get(1).copied().unwrap_or(10_000_000);
    let mut failed = false;
    for codec in [Codec::Bytes, Codec::Hyper] {
        if let Err(error) = soak(codec, bytes, requests) {
            eprintln!("{codec:?}: {error}");
            failed = true;
        }
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Does an amount of something through the gateway at an address.
type Step = fn(SocketAddr, u64, &mut Watch) -> std::io::Result<()>;

fn soak(codec: Codec, bytes: u64, requests: u64) -> Result<(), String> {
    let origin = origin(bytes).map_err(|error| error.to_string())?;
    let text = format!(
        "[gateway.access_log]\nenabled = false\n[[listener]]\nname = 'l'\naddress = '127.0.0.1:0'\n[[upstream]]\nname = 'u'\nendpoints = ['{origin}']\n\
         [[route]]\nname = 'r'\npath = '/'\nupstream = 'u'\nauth = 'none'\n"
    );
    let mut config = Config::parse(&text, "soak", Path::new(""))
        .map_err(|error| error.to_string())?
        .config;
    config.workers = NonZeroU32::new(1);
    let limits = Limits {
        codec,
        ..Limits::default()
    };
    let parts = Parts {
        tracer: None,
        authenticator: Arc::new(NoTokens),
        offences: Arc::new(Nobody),
        arrivals: None,
        limits,
        pin: false,
    };
    let gateway = Gateway::bind(&config, parts).map_err(|error| error.to_string())?;
    let (address, handle) = (gateway.addresses()[0].1, gateway.handle());
    let running = thread::spawn(move || gateway.run());
    let steps: [(&str, u64, Step); 3] = [
        ("down", bytes, download),
        ("up", bytes, upload),
        ("requests", requests, ask),
    ];
    let mut verdict = Ok(());
    for (what, amount, step) in steps {
        let mut watch = Watch::new(amount);
        let begun = Instant::now();
        step(address, amount, &mut watch).map_err(|error| format!("{what}: {error}"))?;
        let (first, most) = (watch.first.unwrap_or(watch.most), watch.most);
        println!(
            "{codec:?} {what}: {amount} in {:.1} s; memory {first} MiB after a tenth, {most} MiB at most",
            begun.elapsed().as_secs_f64()
        );
        if most > first + MAX_GROWTH {
            eprintln!("{codec:?} {what}: memory grew by {} MiB", most - first);
            verdict = Err(what.to_owned());
        }
    }
    handle.stop();
    let _ = running.join();
    verdict
}

/// Looks at the memory now and then.
struct Watch {
    amount: u64,
    next: u64,
    first: Option<u64>,
    most: u64,
}

impl Watch {
    fn new(amount: u64) -> Self {
        Self {
            amount,
            next: amount / 10,
            first: None,
            most: 0,
        }
    }

    fn at(&mut self, done: u64) {
        if done < self.next {
            return;
        }
        self.next += self.amount / 50 + 1;
        let now = resident();
        self.first.get_or_insert(now);
        self.most = self.most.max(now);
    }
}

/// VmRSS of this process, in MiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok())
        .map_or(0, |kib| kib / 1024)
}

/// Answers `/down` with so many bytes, reads what is sent to `/up`, and anything else with two bytes.
fn origin(bytes: u64) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream, bytes));
        }
    });
    Ok(address)
}

fn serve(mut stream: TcpStream, bytes: u64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; PIECE];
    while let Some((head, surplus)) = head(&mut stream, &mut buffer)? {
        if head.starts_with("GET /down") {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n")?;
            pour(&mut stream, bytes, |_| {})?;
            continue;
        }
        if head.starts_with("PUT /up") {
            drain(&mut stream, bytes - surplus, |_| {})?;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
    }
    Ok(())
}

/// The next head, and how many bytes came behind it.
fn head(stream: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<Option<(String, u64)>> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Ok(None);
        }
        filled += read;
        if let Some(end) = buffer[..filled]
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
        {
            let text = String::from_utf8_lossy(&buffer[..end]).into_owned();
            return Ok(Some((text, (filled - end - 4) as u64)));
        }
    }
}

fn pour(stream: &mut TcpStream, bytes: u64, mut tell: impl FnMut(u64)) -> std::io::Result<()> {
    let piece = vec![b'x'; PIECE];
    let mut left = bytes;
    while left > 0 {
        let size = left.min(PIECE as u64) as usize;
        stream.write_all(&piece[..size])?;
        left -= size as u64;
        tell(bytes - left);
    }
    Ok(())
}

fn drain(stream: &mut TcpStream, bytes: u64, mut tell: impl FnMut(u64)) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut left = bytes;
    while left > 0 {
        let size = left.min(PIECE as u64) as usize;
        let read = stream.read(&mut piece[..size])?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        left -= read as u64;
        tell(bytes - left);
    }
    Ok(())
}

fn download(address: SocketAddr, bytes: u64, watch: &mut Watch) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET /down HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let mut buffer = vec![0; PIECE];
    let surplus = head(&mut stream, &mut buffer)?.map_or(0, |(_, surplus)| surplus);
    drain(&mut stream, bytes - surplus, |done| watch.at(done))
}

fn upload(address: SocketAddr, bytes: u64, watch: &mut Watch) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "PUT /up HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n"
    )?;
    pour(&mut stream, bytes, |done| watch.at(done))?;
    answered(&mut stream)
}

fn ask(address: SocketAddr, requests: u64, watch: &mut Watch) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    for done in 0..requests {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        answered(&mut stream)?;
        watch.at(done);
    }
    Ok(())
}

/// Reads an answer of two bytes.
fn answered(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 4096];
    let Some((head, mut surplus)) = head(stream, &mut buffer)? else {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    };
    if !head.starts_with("HTTP/1.1 200") {
        return Err(std::io::Error::other(head));
    }
    while surplus < 2 {
        surplus += stream.read(&mut buffer)? as u64;
    }
    Ok(())
}
