//! OTLP as bytes: the messages of opentelemetry-proto 1.x that a trace needs, field numbers as in
//! opentelemetry/proto/{collector/trace/v1/trace_service,trace/v1/trace,common/v1/common,resource/v1/resource}.proto.

use std::time::{Duration, UNIX_EPOCH};

use prost::Message;

use super::Traced;

#[derive(Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Message)]
struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 3")]
    value: Option<Value>,
}

#[derive(prost::Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "3")]
    Number(i64),
}

/// SpanKind.
const INTERNAL: i32 = 1;
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
/// StatusCode.
const ERROR: i32 = 2;
/// W3C's sampled, as the low bits of `flags` have it.
const SAMPLED: u32 = 1;

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::Text(value.into()))
}

fn number(key: &str, value: u64) -> KeyValue {
    attribute(key, Value::Number(i64::try_from(value).unwrap_or(i64::MAX)))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
    }
}

/// A request for the collector with these requests' spans.
pub fn encode(service: &str, batch: &[Box<Traced>]) -> Vec<u8> {
    let spans = batch.iter().flat_map(|traced| spans(traced)).collect();
    let request = Request {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![
                    text("service.name", service),
                    text("service.version", env!("CARGO_PKG_VERSION")),
                ],
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(Scope {
                    name: "breakwater".to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                }),
                spans,
            }],
        }],
    };
    request.encode_to_vec()
}

/// The request's span, and one for each phase it came to. Attributes are named by the semantic conventions for HTTP.
fn spans(traced: &Traced) -> Vec<Span> {
    let start = nanos(traced.start.duration_since(UNIX_EPOCH).unwrap_or_default());
    let total = traced.decide + traced.send + traced.wait + traced.body;
    let mut spans = vec![server(traced, start, total)];
    let mut from = start;
    let phases = [
        ("decide", INTERNAL, traced.decide),
        ("send", INTERNAL, traced.send),
        ("wait", CLIENT, traced.wait),
        ("answer", INTERNAL, traced.body),
    ];
    for (index, (name, kind, took)) in phases.into_iter().enumerate() {
        let until = from.saturating_add(nanos(took));
        let is_upstream = matches!(name, "send" | "wait");
        if took > Duration::ZERO && (!is_upstream || traced.upstream.is_some()) {
            let mut attributes = Vec::new();
            if let Some(upstream) = traced.upstream.filter(|_| is_upstream) {
                attributes.push(text("server.address", upstream.ip().to_string()));
                attributes.push(number("server.port", upstream.port().into()));
            }
            if name == "send" {
                attributes.push(number("breakwater.connect_us", micros(traced.connect)));
            }
            spans.push(Span {
                trace_id: traced.trace.to_vec(),
                id: child(traced.span, index as u64 + 1).to_vec(),
                parent_span_id: traced.span.to_vec(),
                name: name.to_owned(),
                kind,
                start_time_unix_nano: from,
                end_time_unix_nano: until,
                attributes,
                status: None,
                flags: SAMPLED,
            });
        }
        from = until;
    }
    spans
}

fn server(traced: &Traced, start: u64, total: Duration) -> Span {
    let mut attributes = vec![
        text("http.request.method", traced.method.as_str()),
        text("url.path", traced.path.as_str()),
        text("url.scheme", traced.scheme),
        number("http.response.status_code", traced.status.into()),
        number("http.request.body.size", traced.received),
        number("http.response.body.size", traced.sent),
    ];
    if !traced.route.is_empty() {
        attributes.push(text("breakwater.route", traced.route.as_str()));
    }
    if !traced.reason.is_empty() {
        attributes.push(text("error.type", traced.reason));
    }
    let has_failed = traced.status == 0 || traced.status >= 500;
    Span {
        trace_id: traced.trace.to_vec(),
        id: traced.span.to_vec(),
        parent_span_id: traced.parent.map_or_else(Vec::new, |parent| parent.to_vec()),
        name: format!("{} {}", traced.method, traced.route)
            .trim_end()
            .to_owned(),
        kind: SERVER,
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(nanos(total)),
        attributes,
        status: has_failed.then(|| Status {
            message: traced.reason.to_owned(),
            code: ERROR,
        }),
        flags: SAMPLED,
    }
}

/// The id of a phase's span: the request's, stirred (SplitMix64's last steps), and never zero.
fn child(span: [u8; 8], index: u64) -> [u8; 8] {
    let mut mixed = u64::from_be_bytes(span).wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)).max(1).to_be_bytes()
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
