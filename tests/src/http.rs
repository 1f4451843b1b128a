//! A small, strict, blocking HTTP/1.1 client (RFC 9112).
//!
//! It accepts nothing that two readers could read differently: no bare line feed, no folded field, no length beside
//! chunks. So a response that it accepts is well-formed, and a test never passes by a client's leniency. It sends what
//! it is told, byte for byte.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::{netns::Namespace, wait::PATIENCE};

/// Longest accepted head in bytes.
const MAX_HEAD: u64 = 64 << 10;

/// Longest accepted body in bytes.
const MAX_BODY: u64 = 16 << 20;

/// A request to be sent.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    target: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// A request without body or fields; `Host` is added when it is sent, unless set.
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            fields: Vec::new(),
            body: Vec::new(),
        }
    }

    /// A GET.
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// Adds a field.
    #[must_use]
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds `Authorization: Bearer`.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.field("Authorization", &format!("Bearer {token}"))
    }

    /// Adds a cookie.
    #[must_use]
    pub fn cookie(self, name: &str, value: &str) -> Self {
        self.field("Cookie", &format!("{name}={value}"))
    }

    /// Sets the body and its `Content-Length`.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.field("Content-Length", &length)
    }

    fn bytes(&self, host: SocketAddr) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        let mut add = |name: &str, value: &str| head.extend([name, ": ", value, "\r\n"]);
        if !self
            .fields
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            add("Host", &host.to_string());
        }
        for (name, value) in &self.fields {
            add(name, value);
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend(&self.body);
        bytes
    }
}

/// A well-formed response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Fields in order, values without surrounding blanks.
    pub fields: Vec<(String, String)>,
    /// The body, chunks joined.
    pub body: Vec<u8>,
    /// Trailer fields of a chunked body.
    pub trailers: Vec<(String, String)>,
    /// The peer keeps the connection open.
    pub keeps_alive: bool,
}

impl Response {
    /// The value of a field that occurs at most once.
    ///
    /// # Panics
    /// When it occurs more often.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self
            .fields
            .iter()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} occurs once in {:?}", self.fields);
        value
    }

    /// The body as text, for messages and comparison.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// A connection, used for one request after another.
#[derive(Debug)]
pub struct Client {
    peer: SocketAddr,
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects from `namespace`; every later operation may take [`PATIENCE`].
    pub fn connect(namespace: &Namespace, peer: SocketAddr) -> io::Result<Self> {
        Self::connect_within(namespace, peer, PATIENCE)
    }

    /// Connects from `namespace`; connecting and every read and write may take `limit`.
    pub fn connect_within(namespace: &Namespace, peer: SocketAddr, limit: Duration) -> io::Result<Self> {
        let stream = namespace.enter(|| TcpStream::connect_timeout(&peer, limit))?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            peer,
            stream: BufReader::new(stream),
        })
    }

    /// The connection, for what a request cannot express.
    pub fn stream(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    /// Sends a request and reads its response.
    pub fn send(&mut self, request: &Request) -> io::Result<Response> {
        self.write(&request.bytes(self.peer))?;
        self.read(&request.method)
    }

    /// Sends bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Reads the final response to a request of this method; interim responses are skipped.
    pub fn read(&mut self, method: &str) -> io::Result<Response> {
        loop {
            let response = self.read_one(method)?;
            if !(100..200).contains(&response.status) || response.status == 101 {
                return Ok(response);
            }
        }
    }

    fn read_one(&mut self, method: &str) -> io::Result<Response> {
        let mut budget = MAX_HEAD;
        let status = parse_status(&self.line(&mut budget)?)?;
        let fields = self.fields(&mut budget)?;
        let values = |name: &str| -> Vec<&str> {
            fields
                .iter()
                .filter(|(other, _)| other.eq_ignore_ascii_case(name))
                .map(|(_, v)| v.as_str())
                .collect()
        };
        let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
        let mut keeps_alive = !values("connection")
            .iter()
            .any(|value| value.eq_ignore_ascii_case("close"));
        let bodyless = method == "HEAD" || (100..200).contains(&status) || status == 204 || status == 304;
        let (mut body, mut trailers) = (Vec::new(), Vec::new());
        match (lengths[..].as_ref(), codings[..].as_ref()) {
            _ if bodyless => {}
            ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => {
                body = self.chunks()?;
                trailers = self.fields(&mut { MAX_HEAD })?;
            }
            ([length], []) => body = self.exactly(parse_length(length)?)?,
            ([], []) => {
                keeps_alive = false;
                (&mut self.stream).take(MAX_BODY).read_to_end(&mut body)?;
            }
            (lengths, codings) => return Err(invalid(format!("framing: {lengths:?} beside {codings:?}"))),
        }
        Ok(Response {
            status,
            fields,
            body,
            trailers,
            keeps_alive,
        })
    }

    /// A line without its CRLF.
    fn line(&mut self, budget: &mut u64) -> io::Result<String> {
        let mut line = Vec::new();
        (&mut self.stream).take(*budget).read_until(b'\n', &mut line)?;
        *budget -= line.len() as u64;
        if line.is_empty() && *budget > 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the peer closed the connection",
            ));
        }
        let Some(content) = line.strip_suffix(b"\r\n") else {
            return Err(invalid(format!(
                "a line ends early or without CRLF: {:?}",
                String::from_utf8_lossy(&line)
            )));
        };
        if content.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return Err(invalid("CR, LF or NUL within a line".to_owned()));
        }
        String::from_utf8(content.to_vec()).map_err(|error| invalid(error.to_string()))
    }

    /// Fields up to the empty line.
    fn fields(&mut self, budget: &mut u64) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line(budget)?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| invalid(format!("no colon in {line:?}")))?;
            if name.is_empty() || !name.bytes().all(is_token_byte) {
                return Err(invalid(format!("field name {name:?}")));
            }
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line(&mut { MAX_HEAD })?;
            let digits = line.split(';').next().unwrap_or_default();
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(invalid(format!("chunk size {line:?}")));
            }
            let size = u64::from_str_radix(digits, 16).map_err(|error| invalid(error.to_string()))?;
            if size == 0 {
                return Ok(body);
            }
            body.extend(self.exactly(size)?);
            if body.len() as u64 > MAX_BODY {
                return Err(invalid("the body is too long".to_owned()));
            }
            if !self.line(&mut 2)?.is_empty() {
                return Err(invalid("bytes after a chunk".to_owned()));
            }
        }
    }

    fn exactly(&mut self, length: u64) -> io::Result<Vec<u8>> {
        if length > MAX_BODY {
            return Err(invalid(format!("a body of {length} bytes")));
        }
        let mut body = vec![0; usize::try_from(length).map_err(|error| invalid(error.to_string()))?];
        self.stream.read_exact(&mut body)?;
        Ok(body)
    }
}

/// One request on a connection of its own.
pub fn once(namespace: &Namespace, peer: SocketAddr, request: &Request) -> io::Result<Response> {
    Client::connect(namespace, peer)?.send(request)
}

fn parse_status(line: &str) -> io::Result<u16> {
    let rest = line
        .strip_prefix("HTTP/1.1 ")
        .ok_or_else(|| invalid(format!("status line {line:?}")))?;
    let (code, _reason) = rest
        .split_once(' ')
        .ok_or_else(|| invalid(format!("status line {line:?}")))?;
    match code.parse() {
        Ok(status) if code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit()) => Ok(status),
        _ => Err(invalid(format!("status code {code:?}"))),
    }
}

fn parse_length(value: &str) -> io::Result<u64> {
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid(format!("Content-Length {value:?}")));
    }
    value
        .parse()
        .map_err(|_| invalid(format!("Content-Length {value:?}")))
}

/// RFC 9110, 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn invalid(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// What the client makes of these bytes, after which the connection ends.
    fn read(bytes: &'static [u8]) -> io::Result<Response> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = listener.local_addr().unwrap();
        let server = thread::spawn(move || listener.accept().unwrap().0.write_all(bytes).unwrap());
        let stream = BufReader::new(TcpStream::connect(peer).unwrap());
        let response = Client { peer, stream }.read("GET");
        server.join().unwrap();
        response
    }

    #[test]
    fn well_formed_responses_are_read() {
        let cases: [(&[u8], u16, &str, bool); 6] = [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, "hi", true),
            (b"HTTP/1.1 200 \r\nConnection: close\r\ncontent-length:0\r\n\r\n", 200, "", false),
            (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, "until the end", false),
            (b"HTTP/1.1 204 No Content\r\n\r\n", 204, "", true),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", 404, "", true),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nA;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\n",
                200,
                "ab0123456789",
                true,
            ),
        ];
        for (bytes, status, body, keeps_alive) in cases {
            let response = read(bytes).unwrap();
            assert_eq!(
                (response.status, response.text().as_str(), response.keeps_alive),
                (status, body, keeps_alive),
                "{}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn ambiguous_and_broken_responses_are_refused() {
        let cases: [&[u8]; 13] = [
            b"",
            b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
            b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: +0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nab\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        ];
        for bytes in cases {
            assert!(read(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }
}
