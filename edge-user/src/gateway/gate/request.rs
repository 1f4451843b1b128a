//! Judges a request head: one body length, one authority, one path, or none.

use super::{
    Field, FieldKind, Span, Version, authority,
    field::{is_token, list},
};
use crate::gateway::{
    path,
    refusal::{Reason, Refusal},
};

/// The parts of a request head, as spans of its buffer; made to be used again.
#[derive(Debug, Default)]
pub struct RequestShape {
    /// Method, a token.
    pub method: Span,
    /// Request target as sent.
    pub target: Span,
    /// Version of the message.
    pub version: Version,
    /// Fields in order.
    pub fields: Vec<Field>,
}

/// How long a request's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestBody {
    /// There is none.
    None,
    /// This many bytes, at least one.
    Length(u64),
    /// Chunked.
    Chunked,
}

/// What the gate found out about a request; only [`judge`] makes one.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one head")]
pub struct JudgedRequest {
    authority: Option<Span>,
    path: PathForm,
    query: Option<Span>,
    /// The body's length.
    pub body: RequestBody,
    /// `Content-Length: 0` was given: kept, as some servers want it with POST.
    pub zero_length: bool,
    /// Whether the client lets the connection live on.
    pub keep_alive: bool,
    /// `Expect: 100-continue` with a body to come.
    pub expects_continue: bool,
    /// A WebSocket handshake (RFC 6455, 4.1): the only upgrade that is passed on.
    pub websocket: bool,
    /// CONNECT: what comes after the head is a tunnel's, or nobody's.
    pub connect: bool,
    /// `TE: trailers`.
    pub takes_trailers: bool,
    /// `Connection` names fields that go no further.
    pub nominates: bool,
}

#[derive(Debug)]
enum PathForm {
    AsSent(Span),
    Rewritten(Box<str>),
    Asterisk,
    /// CONNECT has none: what it names stands in its place.
    Authority(Span),
}

/// A judged request: everything the stages may see.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    bytes: &'a [u8],
    shape: &'a RequestShape,
    judged: &'a JudgedRequest,
    path: &'a str,
}

impl<'a> Request<'a> {
    /// The view of a judged head; `bytes` is the buffer it was parsed in.
    pub fn new(bytes: &'a [u8], shape: &'a RequestShape, judged: &'a JudgedRequest) -> Self {
        let path = match &judged.path {
            PathForm::AsSent(span) => std::str::from_utf8(span.of(bytes)).unwrap_or("/"),
            PathForm::Rewritten(path) => path,
            PathForm::Asterisk => "*",
            PathForm::Authority(span) => std::str::from_utf8(span.of(bytes)).unwrap_or("*"),
        };
        Self {
            bytes,
            shape,
            judged,
            path,
        }
    }

    /// What the gate found.
    pub fn judged(&self) -> &'a JudgedRequest {
        self.judged
    }

    /// Method, in the client's spelling: methods are case-sensitive.
    pub fn method(&self) -> &'a [u8] {
        self.shape.method.of(self.bytes)
    }

    /// Version the client spoke.
    pub fn version(&self) -> Version {
        self.shape.version
    }

    /// Host and port the request is for; absent only in HTTP/1.0.
    pub fn authority(&self) -> Option<&'a [u8]> {
        self.judged.authority.map(|span| span.of(self.bytes))
    }

    /// The normalised path, or `*`; of CONNECT the authority, which no path looks like.
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// The query without `?`, as sent.
    pub fn query(&self) -> Option<&'a [u8]> {
        self.judged.query.map(|span| span.of(self.bytes))
    }

    /// Fields as (kind, name, value), in order.
    pub fn fields(&self) -> impl Iterator<Item = (FieldKind, &'a [u8], &'a [u8])> + use<'a> {
        let bytes = self.bytes;
        self.shape
            .fields
            .iter()
            .map(move |field| (field.kind, field.name.of(bytes), field.value.of(bytes)))
    }

    /// Values of the fields of this name, given in lower case.
    pub fn values(&self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.fields()
            .filter(move |(_, have, _)| have.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, _, value)| value)
    }

    /// Whether sending it twice does no harm (RFC 9110, 9.2.2), as far as its method says.
    pub fn is_idempotent(&self) -> bool {
        matches!(self.method(), b"GET" | b"HEAD" | b"OPTIONS" | b"PUT" | b"DELETE")
    }

    /// Whether `Connection` nominates the field.
    pub fn nominated(&self, name: &[u8]) -> bool {
        self.judged.nominates
            && self
                .fields()
                .filter(|(kind, ..)| *kind == FieldKind::Connection)
                .any(|(_, _, value)| list(value).any(|member| member.eq_ignore_ascii_case(name)))
    }
}

/// What the fields say, while they are walked.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one head")]
struct Findings {
    host: Option<Span>,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    upgrade_to: Option<Span>,
    expects: bool,
    trailers: bool,
    nominates: bool,
}

/// Decides whether a head has one reading.
///
/// # Errors
/// The refusal to answer with; the connection must be closed if its reason says so.
pub fn judge(bytes: &[u8], shape: &RequestShape) -> Result<JudgedRequest, Refusal> {
    judge_by(bytes, shape, path::Rules::default())
}

/// The same, with other rules for the path.
///
/// # Errors
/// As [`judge`].
pub fn judge_by(bytes: &[u8], shape: &RequestShape, rules: path::Rules) -> Result<JudgedRequest, Refusal> {
    let method = shape.method.of(bytes);
    if !is_token(method) || matches!(method, b"PRI") || is_misspelt(method) {
        return Err(Refusal::because(Reason::BadSyntax, "method"));
    }
    if method == b"TRACE" {
        return Err(Refusal::new(Reason::MethodNotServed));
    }
    let mut found = Findings::default();
    for field in &shape.fields {
        walk(&mut found, bytes, shape.version, field)?;
    }
    let body = body_of(&found)?;
    if method == b"CONNECT" {
        return connect(bytes, shape, &found, body);
    }
    let target = Target::split(bytes, shape)?;
    let authority = one_authority(bytes, shape.version, target.authority, found.host)?;
    let path = match target.path {
        Some(span) => match path::normalise_by(span.of(bytes), rules) {
            Ok(std::borrow::Cow::Borrowed(_)) => PathForm::AsSent(span),
            Ok(std::borrow::Cow::Owned(path)) => PathForm::Rewritten(path.into_boxed_str()),
            Err(fault) => return Err(Refusal::because(Reason::BadPath, fault.text())),
        },
        None if method == b"OPTIONS" && target.asterisk => PathForm::Asterisk,
        None if target.asterisk => {
            return Err(Refusal::because(Reason::BadTarget, "asterisk without OPTIONS"));
        }
        None => PathForm::Rewritten("/".into()),
    };
    let websocket = found.upgrade
        && shape.version == Version::Http11
        && method == b"GET"
        && body == RequestBody::None
        && found
            .upgrade_to
            .is_some_and(|span| span.of(bytes).eq_ignore_ascii_case(b"websocket"));
    Ok(JudgedRequest {
        authority,
        path,
        query: target.query,
        body,
        zero_length: found.length == Some(0),
        keep_alive: match shape.version {
            Version::Http10 => found.keep_alive && !found.close,
            Version::Http11 | Version::Http2 => !found.close,
        },
        expects_continue: found.expects && body != RequestBody::None && shape.version != Version::Http10,
        websocket,
        connect: false,
        takes_trailers: found.trailers,
        nominates: found.nominates,
    })
}

/// Decides about CONNECT (RFC 9110, 9.3.6): the target is host and port and nothing more, there is no body, and the
/// connection serves nothing else: behind the head there may be bytes for a tunnel that does not come about (RFC 9112,
/// 9.3), and they must not be taken for a request.
fn connect(
    bytes: &[u8],
    shape: &RequestShape,
    found: &Findings,
    body: RequestBody,
) -> Result<JudgedRequest, Refusal> {
    let target = shape.target.of(bytes);
    match shape.version {
        Version::Http11 | Version::Http2 if authority::has_port(target) => {}
        Version::Http11 => return Err(Refusal::because(Reason::BadTarget, "CONNECT to no host and port")),
        Version::Http2 if authority::is_valid(target) => {
            return Err(Refusal::because(Reason::BadTarget, "CONNECT without a port"));
        }
        // HTTP/1.0 has none, and over HTTP/2 this is a protocol that nobody speaks (RFC 8441, 4).
        Version::Http10 | Version::Http2 => return Err(Refusal::new(Reason::MethodNotServed)),
    }
    if body != RequestBody::None || found.length.is_some() {
        return Err(Refusal::because(Reason::BadFraming, "CONNECT with a body"));
    }
    let authority = one_authority(bytes, shape.version, Some(shape.target), found.host)?;
    Ok(JudgedRequest {
        authority,
        path: PathForm::Authority(shape.target),
        query: None,
        body,
        zero_length: false,
        keep_alive: false,
        expects_continue: false,
        websocket: false,
        connect: true,
        takes_trailers: found.trailers,
        nominates: found.nominates,
    })
}

/// Methods that everybody knows (RFC 9110, 9.3; RFC 5789; RFC 9113, 3.4).
const KNOWN_METHODS: [&[u8]; 10] = [
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI",
];

/// Whether a method differs from a known one in nothing but case. Methods are case-sensitive (RFC 9110, 9.1), and not
/// for every server: `trace` or `connect` passed on as something unknown could be served as what it looks like.
fn is_misspelt(method: &[u8]) -> bool {
    method.iter().any(u8::is_ascii_lowercase)
        && KNOWN_METHODS
            .iter()
            .any(|known| known.eq_ignore_ascii_case(method))
}

/// Notes what one field says, and refuses what contradicts another.
fn walk(found: &mut Findings, bytes: &[u8], version: Version, field: &Field) -> Result<(), Refusal> {
    let value = field.value.of(bytes);
    // In HTTP/1 blanks around a value are none of it; in HTTP/2 there must not be any (RFC 9113, 8.2.1).
    if version == Version::Http2 && value.trim_ascii().len() != value.len() {
        return Err(Refusal::because(Reason::BadField, "blanks around a value"));
    }
    match field.kind {
        FieldKind::Host => {
            if found.host.replace(field.value).is_some() {
                return Err(Refusal::because(Reason::BadHost, "several Host fields"));
            }
        }
        FieldKind::ContentLength => {
            let length =
                content_length(value).ok_or(Refusal::because(Reason::BadFraming, "Content-Length"))?;
            if found.length.replace(length).is_some() {
                return Err(Refusal::because(
                    Reason::BadFraming,
                    "several Content-Length fields",
                ));
            }
        }
        FieldKind::TransferEncoding => {
            if version != Version::Http11 {
                return Err(Refusal::because(
                    Reason::BadFraming,
                    "Transfer-Encoding outside HTTP/1.1",
                ));
            }
            if found.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal::because(
                    Reason::BadFraming,
                    "Transfer-Encoding other than one chunked",
                ));
            }
            found.chunked = true;
        }
        FieldKind::Connection => connection(found, version, value)?,
        FieldKind::Upgrade => found.upgrade_to = Some(field.value),
        FieldKind::Te => found.trailers |= list(value).any(|member| member.eq_ignore_ascii_case(b"trailers")),
        FieldKind::Expect => {
            if found.expects || !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(Refusal::new(Reason::UnknownExpectation));
            }
            found.expects = true;
        }
        FieldKind::Disguised => {
            return Err(Refusal::because(
                Reason::BadFraming,
                "framing field with an underscore",
            ));
        }
        FieldKind::Other
        | FieldKind::Accept
        | FieldKind::Trailer
        | FieldKind::Cookie
        | FieldKind::Authorization
        | FieldKind::RequestId
        | FieldKind::HopByHop
        | FieldKind::Trace
        | FieldKind::Forwarding => {}
    }
    Ok(())
}

/// Notes what a `Connection` field says (RFC 9110, 7.6.1).
fn connection(found: &mut Findings, version: Version, value: &[u8]) -> Result<(), Refusal> {
    if version == Version::Http2 {
        return Err(Refusal::because(Reason::BadField, "Connection in HTTP/2"));
    }
    for member in list(value) {
        if !is_token(member) {
            return Err(Refusal::because(Reason::BadField, "Connection"));
        }
        if member.eq_ignore_ascii_case(b"close") {
            found.close = true;
        } else if member.eq_ignore_ascii_case(b"keep-alive") {
            found.keep_alive = true;
        } else if member.eq_ignore_ascii_case(b"upgrade") {
            found.upgrade = true;
        } else {
            found.nominates = true;
        }
    }
    Ok(())
}

fn body_of(found: &Findings) -> Result<RequestBody, Refusal> {
    match (found.length, found.chunked) {
        (Some(_), true) => Err(Refusal::because(
            Reason::BadFraming,
            "Content-Length and Transfer-Encoding",
        )),
        (None, true) => Ok(RequestBody::Chunked),
        (None | Some(0), false) => Ok(RequestBody::None),
        (Some(length), false) => Ok(RequestBody::Length(length)),
    }
}

/// `Content-Length` as digits alone (RFC 9110, 8.6): no sign, no list, no whitespace within.
pub(super) fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length = value
        .iter()
        .fold(0, |length, digit| length * 10 + u64::from(digit - b'0'));
    (length <= super::MAX_LENGTH).then_some(length)
}

/// The one authority of a request: `Host`, or the target's, which must agree with it (RFC 9112, 3.2).
fn one_authority(
    bytes: &[u8],
    version: Version,
    target: Option<Span>,
    host: Option<Span>,
) -> Result<Option<Span>, Refusal> {
    for span in [target, host].into_iter().flatten() {
        if !authority::is_valid(span.of(bytes)) {
            return Err(Refusal::because(Reason::BadHost, "invalid authority"));
        }
    }
    match (target, host) {
        (Some(target), Some(host)) if !authority::same(target.of(bytes), host.of(bytes)) => {
            Err(Refusal::because(Reason::BadHost, "Host contradicts the target"))
        }
        (None, None) if version != Version::Http10 => Err(Refusal::because(Reason::BadHost, "no Host")),
        (Some(_), None) if version == Version::Http11 => Err(Refusal::because(Reason::BadHost, "no Host")),
        (target, host) => Ok(host.or(target)),
    }
}

/// A request target taken apart (RFC 9112, 3.2).
struct Target {
    authority: Option<Span>,
    path: Option<Span>,
    query: Option<Span>,
    asterisk: bool,
}

impl Target {
    fn split(bytes: &[u8], shape: &RequestShape) -> Result<Self, Refusal> {
        let span = shape.target;
        let raw = span.of(bytes);
        if raw == b"*" {
            return Ok(Self {
                authority: None,
                path: None,
                query: None,
                asterisk: true,
            });
        }
        let (authority, start) = if raw.first() == Some(&b'/') {
            (None, 0)
        } else {
            let scheme = [&b"http://"[..], b"https://"]
                .into_iter()
                .find(|scheme| {
                    raw.get(..scheme.len())
                        .is_some_and(|have| have.eq_ignore_ascii_case(scheme))
                })
                .ok_or(Refusal::because(Reason::BadTarget, "form"))?
                .len();
            let end = raw[scheme..]
                .iter()
                .position(|byte| matches!(byte, b'/' | b'?' | b'#'));
            let end = end.map_or(raw.len(), |end| scheme + end);
            (Some(span.part(scheme, end)), end)
        };
        let question = memchr::memchr(b'?', raw).filter(|at| *at >= start);
        let path_end = question.unwrap_or(raw.len());
        let query = question.map(|at| span.part(at + 1, raw.len()));
        if let Some(query) = query {
            let allowed = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'"' | b'<' | b'>');
            if !query.of(bytes).iter().all(allowed) {
                return Err(Refusal::because(Reason::BadTarget, "query"));
            }
        }
        let path = (path_end > start).then(|| span.part(start, path_end));
        Ok(Self {
            authority,
            path,
            query,
            asterisk: false,
        })
    }
}
