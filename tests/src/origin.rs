//! An HTTP/1.1 origin server that records what reached it, byte for byte.
//!
//! It reads requests as plainly as the messages a gateway sends allow (`Content-Length` or chunks) and answers what its
//! handler says. Invariant: its port is closed and its threads are told to end when it is dropped.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::netns::Namespace;

/// Most requests kept.
const MAX_REQUESTS: usize = 100_000;

/// A request as it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// From the request line to the empty line, inclusive.
    pub head: Vec<u8>,
    /// The body as on the wire, chunk framing included.
    pub body: Vec<u8>,
}

impl Received {
    /// The request line's second word.
    pub fn target(&self) -> String {
        let head = String::from_utf8_lossy(&self.head);
        head.split(' ').nth(1).unwrap_or_default().to_owned()
    }

    /// Every value of a field, in order.
    pub fn values(&self, name: &str) -> Vec<String> {
        String::from_utf8_lossy(&self.head)
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
            .collect()
    }
}

/// What the origin says.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Status and body, with a length; the connection stays open.
    Body(u16, Vec<u8>),
    /// These bytes as they are; then the connection is closed.
    Raw(Vec<u8>),
    /// Nothing; the connection is closed.
    Close,
    /// Nothing; the connection stays open until the peer or the origin ends.
    Silence,
}

type Handler = dyn Fn(&Received) -> Reply + Send + Sync;

/// A running origin.
pub struct Origin {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    shared: Arc<Shared>,
}

struct Shared {
    handler: Box<Handler>,
    received: Mutex<Vec<Received>>,
    connections: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
}

impl Origin {
    /// Listens in `namespace`; port 0 takes a free one.
    pub fn start(
        namespace: &Namespace,
        address: SocketAddr,
        handler: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = Arc::new(namespace.enter(|| TcpListener::bind(address))?);
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            received: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: Mutex::default(),
        });
        let origin = Self {
            address: listener.local_addr()?,
            listener: listener.clone(),
            shared: shared.clone(),
        };
        thread::spawn(move || accept(&listener, &shared));
        Ok(origin)
    }

    /// An origin that answers every request with 200 and a JSON object of `name`, the target and the body's length.
    pub fn echo(namespace: &Namespace, address: SocketAddr, name: &'static str) -> io::Result<Self> {
        Self::start(namespace, address, move |request| {
            let answer = serde_json::json!({
                "origin": name,
                "target": request.target(),
                "body_bytes": request.body.len(),
            });
            Reply::Body(200, answer.to_string().into_bytes())
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it received so far.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// How many connections it accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        // Ends the accept that is going on.
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        for stream in self.shared.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept() {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        if let Ok(copy) = stream.try_clone() {
            shared.open.lock().unwrap().push(copy);
        }
        let shared = shared.clone();
        thread::spawn(move || {
            // An error ends this connection only; the test sees it at its own end.
            let _ = serve(&stream, &shared);
            let _ = stream.shutdown(Shutdown::Both);
        });
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = receive(&mut reader)? {
        {
            let mut received = shared.received.lock().unwrap();
            if received.len() < MAX_REQUESTS {
                received.push(request.clone());
            }
        }
        let mut writer = stream;
        match (shared.handler)(&request) {
            Reply::Body(status, body) => {
                let head = format!(
                    "HTTP/1.1 {status} Answer\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                writer.write_all(&[head.as_bytes(), &body].concat())?;
            }
            Reply::Raw(bytes) => return writer.write_all(&bytes),
            Reply::Close => return Ok(()),
            Reply::Silence => return reader.read_to_end(&mut Vec::new()).map(drop),
        }
    }
    Ok(())
}

/// The next request; `None` when the peer has closed between requests.
fn receive(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Received>> {
    let mut request = Received {
        head: Vec::new(),
        body: Vec::new(),
    };
    while !request.head.ends_with(b"\r\n\r\n") {
        if reader.read_until(b'\n', &mut request.head)? == 0 {
            return if request.head.is_empty() {
                Ok(None)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
    }
    if let [length] = &request.values("content-length")[..] {
        let length: usize = length
            .parse()
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        request.body.resize(length, 0);
        reader.read_exact(&mut request.body)?;
    } else if request
        .values("transfer-encoding")
        .iter()
        .any(|value| value.eq_ignore_ascii_case("chunked"))
    {
        receive_chunks(reader, &mut request.body)?;
    }
    Ok(Some(request))
}

fn receive_chunks(reader: &mut BufReader<&TcpStream>, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let start = body.len();
        reader.read_until(b'\n', body)?;
        let line = String::from_utf8_lossy(&body[start..]).into_owned();
        let size = usize::from_str_radix(line.trim_end().split(';').next().unwrap_or_default(), 16)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let from = body.len();
        if size == 0 {
            // Trailers up to the empty line.
            while !body[from..].ends_with(b"\r\n\r\n") && &body[from..] != b"\r\n" {
                if reader.read_until(b'\n', body)? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            return Ok(());
        }
        body.resize(from + size + 2, 0);
        reader.read_exact(&mut body[from..])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunked_requests_are_recorded_as_they_came_and_connections_are_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let first = b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunks = b"3;e=1\r\nabc\r\n0\r\nT: v\r\n\r\n";
        let second = b"GET /b HTTP/1.1\r\nX: 1\r\nx: 2\r\n\r\n";
        peer.write_all(&[&first[..], chunks, second].concat()).unwrap();
        drop(peer);
        let mut reader = BufReader::new(&stream);
        let one = receive(&mut reader).unwrap().unwrap();
        assert_eq!((&one.head[..], &one.body[..]), (&first[..], &chunks[..]));
        let two = receive(&mut reader).unwrap().unwrap();
        assert_eq!(
            (two.target().as_str(), two.values("X")),
            ("/b", vec!["1".to_owned(), "2".to_owned()])
        );
        assert_eq!(receive(&mut reader).unwrap(), None);
    }
}
