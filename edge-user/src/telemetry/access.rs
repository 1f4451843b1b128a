//! The access log: one line per request, as JSON or in the Common Log Format, to a file or stderr.
//!
//! A worker puts lines together in a buffer of its own and hands whole buffers to one thread that writes them; it never
//! waits, and what the queue cannot take is lost and counted. Never holds a query (tokens travel in them), a cookie, a
//! field value but `Host`, or a token; paths are the normalised ones that were matched and forwarded.

use std::{net::SocketAddr, time::Duration};

mod line;
mod writer;

pub use line::Format;
pub use writer::{AccessLog, Lines, Target, WriterFault};

/// What is told about one request.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// The request's id.
    pub request_id: &'a str,
    /// The trace that it belongs to (W3C trace context), if its head could be read.
    pub trace_id: &'a str,
    /// The client.
    pub client: SocketAddr,
    /// Peer of the connection; another address only behind the PROXY protocol.
    pub peer: SocketAddr,
    /// Whether it came over TLS.
    pub secure: bool,
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2.0`; empty if the head could not be read.
    pub version: &'a str,
    /// Method, if the head could be read.
    pub method: &'a str,
    /// Authority that was asked for.
    pub host: &'a str,
    /// Normalised path, if there is one.
    pub path: &'a str,
    /// Name of the route, if one was found.
    pub route: &'a str,
    /// Endpoint that answered or failed, if one was tried.
    pub upstream: Option<SocketAddr>,
    /// Status the client got; 0 if it got none.
    pub status: u16,
    /// Why it was refused; empty if it was not.
    pub reason: &'static str,
    /// The finer reason.
    pub detail: &'a str,
    /// Who asked, by an admitted token.
    pub subject: &'a str,
    /// Body bytes from the client.
    pub received: u64,
    /// Body bytes to the client.
    pub sent: u64,
    /// Where the time went.
    pub timings: Timings,
}

/// Where a request's time went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// From the end of the request head to the decision where it goes.
    pub decide: Duration,
    /// From there until the upstream had the request head; connecting included.
    pub send: Duration,
    /// Of that, waiting for a new connection.
    pub connect: Duration,
    /// From there to the upstream's response head.
    pub wait: Duration,
    /// From the response head to the last byte of its body.
    pub body: Duration,
    /// The proxy's own time: everything but waiting for the client and the upstream.
    pub tax: Duration,
}

impl Timings {
    /// From the end of the request head to the last byte of the response.
    pub fn total(&self) -> Duration {
        self.decide + self.send + self.wait + self.body
    }
}
