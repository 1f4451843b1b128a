//! hyper's heads in the form that the gate and the header policy know: fields as spans of one buffer.

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::gateway::{
    gate::{Field, FieldKind, RequestShape, ResponseShape, Span, Version, field::classify},
    header_policy::FieldSink,
};

/// A buffer and the shapes of the heads laid out in it.
#[derive(Debug, Default)]
pub(super) struct Laid<S> {
    pub(super) bytes: Vec<u8>,
    pub(super) shape: S,
}

/// Lays out a request head.
pub(super) fn request(parts: &http::request::Parts, version: Version) -> Laid<RequestShape> {
    let mut laid = Laid::<RequestShape> {
        bytes: Vec::with_capacity(1024),
        ..Laid::default()
    };
    laid.shape.method = append(&mut laid.bytes, parts.method.as_str().as_bytes());
    laid.shape.version = match parts.version {
        http::Version::HTTP_10 => Version::Http10,
        _ => version,
    };
    let target = parts
        .uri
        .path_and_query()
        .map_or("", http::uri::PathAndQuery::as_str);
    let start = laid.bytes.len();
    if let (Some(scheme), Some(authority)) = (parts.uri.scheme_str(), parts.uri.authority()) {
        if target == "*" {
            // In HTTP/1 it stands alone, and the authority in a field (RFC 9112, 3.2.4).
            let name = append(&mut laid.bytes, b"host");
            let value = append(&mut laid.bytes, authority.as_str().as_bytes());
            let kind = FieldKind::Host;
            laid.shape.fields.push(Field { name, value, kind });
        } else {
            laid.bytes.extend_from_slice(scheme.as_bytes());
            laid.bytes.extend_from_slice(b"://");
            laid.bytes.extend_from_slice(authority.as_str().as_bytes());
        }
    } else if parts.method == Method::CONNECT
        && let Some(authority) = parts.uri.authority()
    {
        laid.bytes.extend_from_slice(authority.as_str().as_bytes());
    }
    let start = if target == "*" { laid.bytes.len() } else { start };
    laid.bytes.extend_from_slice(target.as_bytes());
    laid.shape.target = Span::new(start, laid.bytes.len());
    fields(&mut laid.bytes, &mut laid.shape.fields, &parts.headers, |value| {
        value
    });
    laid
}

/// Lays out a response head.
pub(super) fn response(parts: &http::response::Parts) -> Laid<ResponseShape> {
    let mut laid = Laid::<ResponseShape> {
        bytes: Vec::with_capacity(1024),
        ..Laid::default()
    };
    laid.shape.status = parts.status.as_u16();
    laid.shape.version = if parts.version == http::Version::HTTP_10 {
        Version::Http10
    } else {
        Version::Http11
    };
    // There may be blanks around values over HTTP/2, which hyper lets by.
    let (bytes, trim) = (&mut laid.bytes, <[u8]>::trim_ascii);
    fields(bytes, &mut laid.shape.fields, &parts.headers, trim);
    laid
}

fn fields(bytes: &mut Vec<u8>, into: &mut Vec<Field>, headers: &HeaderMap, of: fn(&[u8]) -> &[u8]) {
    into.reserve_exact(headers.len());
    for (name, value) in headers {
        let kind = classify(name.as_str().as_bytes());
        let name = append(bytes, name.as_str().as_bytes());
        let value = append(bytes, of(value.as_bytes()));
        into.push(Field { name, value, kind });
    }
}

fn append(bytes: &mut Vec<u8>, part: &[u8]) -> Span {
    let start = bytes.len();
    bytes.extend_from_slice(part);
    Span::new(start, bytes.len())
}

/// hyper's heads as a sink.
pub(super) struct HeaderMapSink(pub(super) HeaderMap);

impl FieldSink for HeaderMapSink {
    fn put(&mut self, name: &[u8], value: &[u8]) {
        // What passed the gate is a name and a value to hyper too; what were not would not be forwarded.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            self.0.append(name, value);
        }
    }
}
