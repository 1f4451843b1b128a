//! Which fields go through, which end here, and which this proxy writes. One policy for every codec: a codec is a
//! [`FieldSink`].
//!
//! - Fields of one connection (RFC 9110, 7.6.1) and those that `Connection` nominates end here, both ways. What this
//!   proxy writes itself is written after, so no nomination can take it away.
//! - `Host`, `Content-Length` and `Transfer-Encoding` are written from what the gate found, never copied.
//! - `Forwarded`, `X-Forwarded-For`, `-Proto` and `-Host` say what this proxy saw ([`Provenance`]). What a client claims
//!   in them, in `X-Forwarded-*`, `X-Real-IP` and their like, is dropped; a trusted proxy's words are continued.
//! - Identity fields that a permit may set are dropped from every request, on open routes too, in every spelling
//!   (`_` for `-`).
//! - The token is removed from every place where it was found, if the permit says so; what stands beside it keeps its
//!   bytes.
//! - `Upgrade` is never copied: a WebSocket handshake is written anew, anything else (h2c included) ends here.
//! - What a route sets, adds or removes comes after all that; it names no field of the above.
//! - `traceparent` goes on or begins here ([`trace`]).
//! - `X-Request-Id` is written by this proxy. `Via` is not: origins turn compression off when they see it.

use std::{borrow::Cow, io::Write};

use super::{
    authenticate::Permit,
    changes::Changes,
    gate::{FieldKind, JudgedResponse, Request, RequestBody, ResponseBody, ResponseShape, response},
    plan::Plan,
    provenance::Provenance,
    trace,
};
use crate::{
    carrier::{cookie::without_cookie, query::without_parameter},
    config::TokenSource,
};

/// Takes the fields of a forwarded message, in order.
pub trait FieldSink {
    /// Adds a field. The name is a token, the value has no control characters: both passed the gate.
    fn put(&mut self, name: &[u8], value: &[u8]);
}

/// HTTP/1 text.
impl FieldSink for Vec<u8> {
    #[inline]
    fn put(&mut self, name: &[u8], value: &[u8]) {
        self.reserve(name.len() + value.len() + 4);
        self.extend_from_slice(name);
        self.extend_from_slice(b": ");
        self.extend_from_slice(value);
        self.extend_from_slice(b"\r\n");
    }
}

/// How a codec frames and upgrades the forwarded request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// Writes `Content-Length`, `Transfer-Encoding` and `Connection`; else the codec's library does.
    pub framing: bool,
    /// `Expect: 100-continue` is passed on, and the upstream's answer passed back.
    pub expect: bool,
    /// A WebSocket handshake is passed on.
    pub upgrade: bool,
}

/// Writes the fields of the forwarded request.
pub fn request(
    sink: &mut impl FieldSink,
    plan: &Plan,
    request: &Request<'_>,
    permit: &Permit,
    provenance: &Provenance,
    request_id: &[u8],
    dialect: Dialect,
) {
    let judged = request.judged();
    let host = request.authority().unwrap_or(b"localhost");
    sink.put(b"host", host);
    let mut cookies: Option<Vec<u8>> = None;
    for (kind, name, value) in request.fields() {
        match kind {
            FieldKind::Host
            | FieldKind::ContentLength
            | FieldKind::TransferEncoding
            | FieldKind::Connection
            | FieldKind::Upgrade
            | FieldKind::Te
            | FieldKind::Expect
            | FieldKind::RequestId
            | FieldKind::HopByHop
            | FieldKind::Forwarding
            | FieldKind::Trace
            | FieldKind::Disguised => continue,
            FieldKind::Authorization if permit.remove.contains(&TokenSource::Bearer) => continue,
            FieldKind::Other
            | FieldKind::Accept
            | FieldKind::Trailer
            | FieldKind::Cookie
            | FieldKind::Authorization => {}
        }
        let is_taken = permit.remove.iter().any(
            |source| matches!(source, TokenSource::Header(header) if name.eq_ignore_ascii_case(header.as_bytes())),
        );
        let is_dropped = permit
            .changes()
            .is_some_and(|changes| changes.request.drops(name));
        if is_taken || is_dropped || plan.is_identity(name) || request.nominated(name) {
            continue;
        }
        if kind == FieldKind::Cookie {
            // HTTP/2 clients split the field; HTTP/1 servers want one (RFC 9113, 8.2.3).
            join_cookie(
                cookies.get_or_insert_default(),
                &without_token_cookies(value, permit),
            );
        } else {
            sink.put(name, value);
        }
    }
    if let Some(cookies) = cookies.filter(|cookies| !cookies.is_empty()) {
        sink.put(b"cookie", &cookies);
    }
    if let Some(identity) = &permit.identity {
        identity.each_field(&mut |name, value| sink.put(name.as_bytes(), value));
    }
    if let Some(changes) = permit.changes() {
        changes
            .request
            .put()
            .for_each(|(name, value)| sink.put(name, value));
    }
    provenance.put(sink, request, host);
    sink.put(b"x-request-id", request_id);
    trace::put(sink, request, request_id, plan.sampling());
    if judged.takes_trailers {
        sink.put(b"te", b"trailers");
    }
    if dialect.expect && judged.expects_continue {
        sink.put(b"expect", b"100-continue");
    }
    connection_of_request(sink, request, dialect);
}

/// Writes how the forwarded request is framed, and what its connection is for.
fn connection_of_request(sink: &mut impl FieldSink, request: &Request<'_>, dialect: Dialect) {
    let judged = request.judged();
    match judged.body {
        RequestBody::Length(length) => put_length(sink, length),
        RequestBody::Chunked if dialect.framing => sink.put(b"transfer-encoding", b"chunked"),
        RequestBody::None if judged.zero_length => sink.put(b"content-length", b"0"),
        RequestBody::Chunked | RequestBody::None => {}
    }
    let upgrade = dialect.upgrade && judged.websocket;
    if upgrade {
        sink.put(b"upgrade", b"websocket");
    }
    let nominated: &[u8] = match (upgrade, judged.takes_trailers) {
        (true, true) => b"upgrade, te",
        (true, false) => b"upgrade",
        (false, true) => b"te",
        (false, false) => return,
    };
    sink.put(b"connection", nominated);
}

/// Writes the fields of the response that goes back to the client.
pub fn response(
    sink: &mut impl FieldSink,
    bytes: &[u8],
    shape: &ResponseShape,
    judged: &JudgedResponse,
    changes: Option<&Changes>,
    dialect: Dialect,
) {
    for field in &shape.fields {
        match field.kind {
            FieldKind::ContentLength
            | FieldKind::TransferEncoding
            | FieldKind::Connection
            | FieldKind::Upgrade
            | FieldKind::Te
            | FieldKind::HopByHop => continue,
            FieldKind::Other
            | FieldKind::Accept
            | FieldKind::Host
            | FieldKind::Trailer
            | FieldKind::Expect
            | FieldKind::Cookie
            | FieldKind::Authorization
            | FieldKind::RequestId
            | FieldKind::Forwarding
            | FieldKind::Trace
            | FieldKind::Disguised => {}
        }
        let name = field.name.of(bytes);
        if changes.is_some_and(|changes| changes.response.drops(name)) {
            continue;
        }
        if !(judged.nominates && response::nominated(bytes, &shape.fields, name)) {
            sink.put(name, field.value.of(bytes));
        }
    }
    if let Some(changes) = changes {
        changes
            .response
            .put()
            .for_each(|(name, value)| sink.put(name, value));
    }
    // 204 and 1xx have no length (RFC 9110, 8.6); HEAD and 304 may declare one without a body.
    if let Some(length) = judged.declared
        && shape.status != 204
        && shape.status >= 200
    {
        put_length(sink, length);
    } else if dialect.framing && judged.body == ResponseBody::Chunked {
        sink.put(b"transfer-encoding", b"chunked");
    }
}

fn put_length(sink: &mut impl FieldSink, length: u64) {
    let mut digits = [0_u8; 20];
    let mut rest = &mut digits[..];
    // Twenty bytes hold every u64.
    let written = write!(rest, "{length}").map_or(0, |()| 20 - rest.len());
    sink.put(b"content-length", &digits[..written]);
}

/// Appends the pairs of one `Cookie` field to those of others.
fn join_cookie(cookies: &mut Vec<u8>, more: &[u8]) {
    if !cookies.is_empty() && !more.is_empty() {
        cookies.extend_from_slice(b"; ");
    }
    cookies.extend_from_slice(more);
}

/// A `Cookie` value without the cookies that a token was found in.
fn without_token_cookies<'v>(value: &'v [u8], permit: &Permit) -> Cow<'v, [u8]> {
    let mut value = Cow::Borrowed(value);
    for source in &permit.remove {
        if let TokenSource::Cookie(name) = source {
            value = Cow::Owned(without_cookie(&value, name));
        }
    }
    value
}

/// Appends the forwarded target: the normalised path or what the route makes of it, and the query without a token.
pub fn put_target(out: &mut Vec<u8>, request: &Request<'_>, permit: &Permit) {
    let path = permit.changes().and_then(|changes| changes.path.as_deref());
    out.extend_from_slice(path.unwrap_or_else(|| request.path()).as_bytes());
    let Some(query) = request.query() else { return };
    let mut rest = Cow::Borrowed(query);
    for source in &permit.remove {
        if let TokenSource::Query(name) = source {
            rest = Cow::Owned(without_parameter(&rest, name));
        }
    }
    // A query of nothing but the token goes with its question mark.
    if !rest.is_empty() || query.is_empty() {
        out.push(b'?');
        out.extend_from_slice(&rest);
    }
}
