//! Heads as text: status lines, what this proxy answers itself, and the fields that a codec adds to the header policy's.

use std::io::Write;

use super::timers::Timers;
use crate::gateway::{
    answer::Reply,
    gate::{ResponseShape, Span},
    header_policy::FieldSink,
    refusal::{Form, Refusal, status_text},
};

/// How the client's connection goes on after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Persistence {
    /// As HTTP/1.1 has it: nothing is said.
    Kept,
    /// The client speaks HTTP/1.0 and asked for it: it is told.
    KeptAloud,
    /// It ends.
    Closed,
}

impl Persistence {
    /// How a connection goes on that is `kept` or not.
    pub(super) fn of(kept: bool, http10: bool) -> Self {
        match (kept, http10) {
            (false, _) => Self::Closed,
            (true, true) => Self::KeptAloud,
            (true, false) => Self::Kept,
        }
    }

    /// Says it.
    pub(super) fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::Kept => {}
            Self::KeptAloud => out.extend_from_slice(b"connection: keep-alive\r\n"),
            Self::Closed => out.extend_from_slice(b"connection: close\r\n"),
        }
    }
}

/// A sink for response fields that notices whether there is a date.
pub(super) struct ResponseSink<'o> {
    pub(super) out: &'o mut Vec<u8>,
    pub(super) dated: bool,
}

impl FieldSink for ResponseSink<'_> {
    #[inline]
    fn put(&mut self, name: &[u8], value: &[u8]) {
        self.dated |= name.len() == 4 && name.eq_ignore_ascii_case(b"date");
        self.out.put(name, value);
    }
}

/// Begins a response with the upstream's status and phrase.
pub(super) fn status_line(out: &mut Vec<u8>, bytes: &[u8], shape: &ResponseShape) {
    out.extend_from_slice(b"HTTP/1.1 ");
    put_status(out, shape.status);
    out.push(b' ');
    if shape.phrase != Span::default() {
        out.extend_from_slice(shape.phrase.of(bytes));
    }
    out.extend_from_slice(b"\r\n");
}

/// Adds the date (RFC 9110, 6.6.1).
pub(super) fn date(out: &mut Vec<u8>, timers: &Timers) {
    out.extend_from_slice(b"date: ");
    out.extend_from_slice(&timers.date());
    out.extend_from_slice(b"\r\n");
}

/// Writes the answer to a refused request; it is told by its id, in a form.
pub(super) fn refusal(
    out: &mut Vec<u8>,
    refusal: &Refusal,
    told: (&str, Form),
    bodiless: bool,
    persistence: Persistence,
    timers: &Timers,
) {
    let status = refusal.status();
    let (request_id, form) = told;
    let body = refusal.body(request_id, form);
    out.extend_from_slice(b"HTTP/1.1 ");
    put_status(out, status);
    out.push(b' ');
    out.extend_from_slice(status_text(status).as_bytes());
    out.extend_from_slice(b"\r\ncontent-type: ");
    out.extend_from_slice(form.media_type().as_bytes());
    out.extend_from_slice(b"\r\n");
    // Writing to memory does not fail.
    let _ = write!(out, "content-length: {}\r\nvary: accept\r\n", body.len());
    for (name, value) in &refusal.fields {
        // What no field may hold is left out: the status says the most of it.
        if value.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
            out.put(name.as_bytes(), value.as_bytes());
        }
    }
    date(out, timers);
    persistence.put(out);
    out.extend_from_slice(b"\r\n");
    if !bodiless {
        out.extend_from_slice(body.as_bytes());
    }
}

/// Writes an answer of this proxy's own; `tell` adds what is said about limits.
pub(super) fn reply(
    out: &mut Vec<u8>,
    reply: &Reply,
    tell: impl FnOnce(&mut Vec<u8>),
    bodiless: bool,
    persistence: Persistence,
    timers: &Timers,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    put_status(out, reply.status);
    out.push(b' ');
    let phrase = http::StatusCode::from_u16(reply.status)
        .ok()
        .and_then(|status| status.canonical_reason());
    out.extend_from_slice(phrase.unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in &reply.fields {
        out.put(name.as_bytes(), value);
    }
    // Neither has a body (RFC 9110, 8.6).
    if !matches!(reply.status, 204 | 304) {
        // Writing to memory does not fail.
        let _ = write!(out, "content-length: {}\r\n", reply.body.len());
    }
    tell(out);
    date(out, timers);
    persistence.put(out);
    out.extend_from_slice(b"\r\n");
    if !bodiless {
        out.extend_from_slice(&reply.body);
    }
}

fn put_status(out: &mut Vec<u8>, status: u16) {
    let digit = |place: u16| b'0' + (status / place % 10) as u8;
    out.extend_from_slice(&[digit(100), digit(10), digit(1)]);
}
