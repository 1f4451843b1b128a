//! The access log: one event per request, target `access`, values as fields.
//!
//! Costs one atomic load when nobody listens. Never holds a query (tokens travel in them), a cookie, a field value
//! or a token; paths are the normalised ones that were matched and forwarded.

use std::{net::SocketAddr, time::Duration};

/// What is told about one request.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// The request's id.
    pub request_id: &'a str,
    /// Peer of the connection.
    pub peer: SocketAddr,
    /// Method, if the head could be read.
    pub method: &'a str,
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
    /// Body bytes from the client and to it.
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

/// Whether anybody listens; ask before putting a record together.
pub fn is_on() -> bool {
    tracing::enabled!(target: "access", tracing::Level::INFO)
}

/// Tells about one request.
pub fn emit(record: &Record<'_>) {
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    tracing::info!(
        target: "access",
        request_id = record.request_id,
        peer = %record.peer,
        method = record.method,
        path = record.path,
        route = record.route,
        upstream = record.upstream.map(tracing::field::display),
        status = record.status,
        reason = record.reason,
        detail = record.detail,
        subject = record.subject,
        received_bytes = record.received,
        sent_bytes = record.sent,
        decide_us = micros(record.timings.decide),
        connect_us = micros(record.timings.connect),
        send_us = micros(record.timings.send),
        wait_us = micros(record.timings.wait),
        body_us = micros(record.timings.body),
        total_us = micros(record.timings.total()),
        tax_us = micros(record.timings.tax),
    );
}
