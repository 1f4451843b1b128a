//! Judges an upstream's response head: one body length or a 502 (RFC 9112, 6.3).

use super::{
    Field, FieldKind, Span, Version,
    field::{is_token, list},
    request::content_length,
};
use crate::gateway::refusal::{Reason, Refusal};

/// The parts of a response head, as spans of its buffer; made to be used again.
#[derive(Debug, Default)]
pub struct ResponseShape {
    /// Status code.
    pub status: u16,
    /// Reason phrase.
    pub phrase: Span,
    /// Version of the message.
    pub version: Version,
    /// Fields in order.
    pub fields: Vec<Field>,
}

/// Most interim responses to one request.
pub const MAX_INTERIM: u32 = 64;

/// How long a response's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseBody {
    /// There is none.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunked.
    Chunked,
    /// Up to the end of the connection.
    UntilClose,
}

/// What the request was, as far as its response depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The method was HEAD.
    pub head: bool,
    /// A WebSocket upgrade was passed on.
    pub websocket: bool,
}

/// What the gate found out about a response; only [`judge`] makes one.
#[derive(Debug)]
pub struct JudgedResponse {
    /// The body's length.
    pub body: ResponseBody,
    /// `Content-Length` as declared, also where no body follows (HEAD, 304).
    pub declared: Option<u64>,
    /// Whether the upstream's connection may be used again after the body.
    pub keep_alive: bool,
    /// `Connection` names fields that go no further.
    pub nominates: bool,
}

/// Decides whether a response head has one reading.
pub fn judge(bytes: &[u8], shape: &ResponseShape, asked: Asked) -> Result<JudgedResponse, Refusal> {
    let (mut length, mut chunked) = (None, false);
    let (mut close, mut keep_alive, mut nominates) = (false, false, false);
    for field in &shape.fields {
        let value = field.value.of(bytes);
        match field.kind {
            FieldKind::ContentLength => {
                let declared = content_length(value).ok_or(malformed("Content-Length"))?;
                if length.replace(declared).is_some() {
                    return Err(malformed("several Content-Length fields"));
                }
            }
            FieldKind::TransferEncoding => {
                if chunked || shape.version != Version::Http11 || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(malformed("Transfer-Encoding other than one chunked"));
                }
                chunked = true;
            }
            FieldKind::Connection => {
                for member in list(value) {
                    if !is_token(member) {
                        return Err(malformed("Connection"));
                    }
                    close |= member.eq_ignore_ascii_case(b"close");
                    keep_alive |= member.eq_ignore_ascii_case(b"keep-alive");
                    nominates |= ![&b"close"[..], b"keep-alive", b"upgrade"]
                        .iter()
                        .any(|known| member.eq_ignore_ascii_case(known));
                }
            }
            _ => {}
        }
    }
    if chunked && length.is_some() {
        return Err(malformed("Content-Length and Transfer-Encoding"));
    }
    let body = match shape.status {
        101 if !asked.websocket => return Err(malformed("101 that nobody asked for")),
        100..=199 if chunked || length.is_some_and(|length| length > 0) => {
            return Err(malformed("body in an interim response"));
        }
        204 if chunked || length.is_some_and(|length| length > 0) => return Err(malformed("body in 204")),
        100..=199 | 204 | 304 => ResponseBody::None,
        200..=599 if asked.head => ResponseBody::None,
        200..=599 => match (length, chunked) {
            (_, true) => ResponseBody::Chunked,
            (Some(length), false) => ResponseBody::Length(length),
            (None, false) => ResponseBody::UntilClose,
        },
        _ => return Err(malformed("status code")),
    };
    let keep_alive = match shape.version {
        Version::Http10 => keep_alive && !close,
        Version::Http11 | Version::Http2 => !close,
    } && body != ResponseBody::UntilClose;
    Ok(JudgedResponse {
        body,
        declared: length,
        keep_alive,
        nominates,
    })
}

/// Whether a 101 says that it goes on as a WebSocket, and nothing else (RFC 6455, 4.1).
pub fn upgrades_to_websocket(bytes: &[u8], shape: &ResponseShape) -> bool {
    let mut upgrades = shape
        .fields
        .iter()
        .filter(|field| field.kind == FieldKind::Upgrade);
    upgrades
        .next()
        .is_some_and(|field| field.value.of(bytes).eq_ignore_ascii_case(b"websocket"))
        && upgrades.next().is_none()
}

/// Whether a response field of this name is nominated by `Connection`.
pub fn nominated(bytes: &[u8], fields: &[Field], name: &[u8]) -> bool {
    fields
        .iter()
        .filter(|field| field.kind == FieldKind::Connection)
        .any(|field| list(field.value.of(bytes)).any(|member| member.eq_ignore_ascii_case(name)))
}

fn malformed(detail: &'static str) -> Refusal {
    Refusal::because(Reason::UpstreamMalformed, detail)
}
