//! Whether the gateway tax is what an outside client and origin measure.
//!
//! `cargo bench -p edge-user --bench tax`. One thread is both client and origin, so one clock times every leg: request sent
//! to request arrived, answer sent to answer arrived. The same legs are timed through a relay that only reads and writes
//! and knows its own time; what is left of its legs is the way through the kernel. The gateway's legs less that way are
//! its own time as seen from outside, and are held against the median of its histogram. Gateway and relay share one CPU,
//! client and origin have another.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a bench that cannot go on has failed"
)]
#![expect(clippy::cast_precision_loss, reason = "figures are printed with a few digits")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use edge_user::{
    config::Config,
    gateway::{Gateway, Handle, Limits, NoTokens, Parts, tax::Phase},
    offence::NoOffences,
};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Rounds; each measures both ways by turns.
const ROUNDS: usize = 40;
/// Requests of one way in one round.
const BATCH: usize = 100;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn main() {
    tie(1);
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = origin.local_addr().unwrap();
    let (gateway, handle) = gateway(target);
    let relay = Relay::start(target);
    println!(
        "{:>10} {:>14} {:>14} {:>14} {:>7}",
        "request", "way us", "outside us", "tax us", "ratio"
    );
    for fields in [0, 8, 32, 90] {
        let request = request(fields);
        let (mut through, mut around) = (
            Way::open(gateway, &origin, &request),
            Way::open(relay.address, &origin, &request),
        );
        let (mut outside, mut kernel) = (Vec::new(), Vec::new());
        let before = handle.counters();
        for _ in 0..ROUNDS {
            for _ in 0..BATCH {
                let own = relay.own_ns();
                let legs = around.once(&request);
                kernel.push(legs - (relay.settled(own) - own) as f64);
            }
            for _ in 0..BATCH {
                outside.push(through.once(&request));
            }
        }
        let after = handle.counters();
        let way = median(&mut kernel);
        let outside = median(&mut outside) - way;
        let tax = after.routes[0].tax.since(&before.routes[0].tax);
        let tax = tax.phase(Phase::Total).quantile_ns(0.5);
        println!(
            "{:>10} {:>14.2} {:>14.2} {:>14.2} {:>7.3}",
            request.len(),
            way / 1e3,
            outside / 1e3,
            tax / 1e3,
            tax / outside
        );
    }
    handle.stop();
}

/// A request with this many large fields.
fn request(fields: usize) -> Vec<u8> {
    let mut request = b"GET /a HTTP/1.1\r\nHost: a\r\n".to_vec();
    for number in 0..fields {
        write!(request, "X-Field-{number}: {}\r\n", "v".repeat(400)).unwrap();
    }
    request.extend_from_slice(b"\r\n");
    request
}

fn gateway(target: SocketAddr) -> (SocketAddr, Handle) {
    let text = format!(
        "[gateway]\nworkers = 1\naccess_log = {{ enabled = false }}\n[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:0\"\n\
         [[upstream]]\nname = \"o\"\nendpoints = [\"{target}\"]\n\
         [[route]]\nname = \"r\"\npath = \"/\"\nupstream = \"o\"\nauth = \"none\"\n"
    );
    let config = Config::parse(&text, "bench", Path::new("."))
        .expect("a good configuration")
        .config;
    let parts = Parts {
        tracer: None,
        authenticator: Arc::new(NoTokens),
        offences: Arc::new(NoOffences),
        arrivals: None,
        limits: Limits::default(),
        pin: false,
    };
    let gateway = Gateway::bind(&config, parts).unwrap();
    let (address, handle) = (gateway.addresses()[0].1, gateway.handle());
    thread::spawn(move || {
        // The worker's thread inherits it.
        tie(0);
        gateway.run()
    });
    while !handle.is_ready() {
        thread::yield_now();
    }
    (address, handle)
}

/// Reads and writes, and knows how long that takes.
struct Relay {
    address: SocketAddr,
    own: Arc<AtomicU64>,
}

impl Relay {
    fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let own = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&own);
        thread::spawn(move || {
            tie(0);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            for client in listener.incoming().flatten() {
                runtime.block_on(pass(client, target, &count));
            }
        });
        Self { address, own }
    }

    fn own_ns(&self) -> u64 {
        self.own.load(Ordering::Acquire)
    }

    /// Its time once it has counted the request whose answer is here.
    fn settled(&self, before: u64) -> u64 {
        loop {
            let now = self.own_ns();
            if now != before {
                return now;
            }
            std::hint::spin_loop();
        }
    }
}

/// Passes requests to `target` and answers back, each by one read and one write.
async fn pass(client: TcpStream, target: SocketAddr, own: &AtomicU64) {
    let open = |stream: TcpStream| {
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        tokio::net::TcpStream::from_std(stream).unwrap()
    };
    let (client, upstream) = (open(client), open(TcpStream::connect(target).unwrap()));
    let mut buffer = vec![0; 256 * 1024];
    let mut spent = 0;
    loop {
        for (from, to) in [(&client, &upstream), (&upstream, &client)] {
            loop {
                if from.readable().await.is_err() {
                    return;
                }
                let begun = Instant::now();
                match from.try_read(&mut buffer) {
                    Ok(0) => return,
                    Ok(read) => {
                        assert_eq!(to.try_write(&buffer[..read]).unwrap(), read);
                        spent += begun.elapsed().as_nanos() as u64;
                        break;
                    }
                    Err(_) => {}
                }
            }
        }
        own.fetch_add(spent, Ordering::Release);
        spent = 0;
    }
}

/// A client's connection and the origin's end of it.
struct Way {
    client: TcpStream,
    origin: TcpStream,
    buffer: Vec<u8>,
}

impl Way {
    fn open(proxy: SocketAddr, origin: &TcpListener, request: &[u8]) -> Self {
        let mut client = TcpStream::connect(proxy).unwrap();
        client.set_nodelay(true).unwrap();
        client.write_all(request).unwrap();
        let (mut upstream, _) = origin.accept().unwrap();
        upstream.set_nodelay(true).unwrap();
        let mut buffer = vec![0; 256 * 1024];
        read_head(&mut upstream, &mut buffer);
        upstream.write_all(ANSWER).unwrap();
        read_answer(&mut client, &mut buffer);
        Self {
            client,
            origin: upstream,
            buffer,
        }
    }

    /// One request; both legs together, nanoseconds.
    fn once(&mut self, request: &[u8]) -> f64 {
        let begun = Instant::now();
        self.client.write_all(request).unwrap();
        read_head(&mut self.origin, &mut self.buffer);
        let there = begun.elapsed();
        let begun = Instant::now();
        self.origin.write_all(ANSWER).unwrap();
        read_answer(&mut self.client, &mut self.buffer);
        (there + begun.elapsed()).as_nanos() as f64
    }
}

fn read_head(stream: &mut TcpStream, buffer: &mut [u8]) {
    let mut have = 0;
    while !buffer[..have].ends_with(b"\r\n\r\n") {
        have += stream.read(&mut buffer[have..]).unwrap();
    }
}

fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) {
    let mut have = 0;
    while !buffer[..have].ends_with(b"\r\n\r\nok") {
        have += stream.read(&mut buffer[have..]).unwrap();
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Ties this thread to a CPU, if there is one of that number.
fn tie(cpu: usize) {
    let mut one = CpuSet::new();
    one.set(cpu);
    let _ = sched_setaffinity(None, &one);
}
