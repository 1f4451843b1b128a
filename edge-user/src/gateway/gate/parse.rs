//! Takes a whole head apart in place: syntax only.
//!
//! httparse walks the bytes; what it tolerates and this gate does not (LF line ends, leading empty lines) was
//! refused by the scan, or is refused here.

use std::mem::MaybeUninit;

use super::{
    Field, HeadLimits, MAX_FIELDS, MAX_METHOD, RequestShape, ResponseShape, Span, Version, field::classify,
};
use crate::gateway::refusal::{Reason, Refusal};

/// Takes `head` apart, which is one request head up to and with its empty line.
pub fn request(head: &[u8], limits: &HeadLimits, shape: &mut RequestShape) -> Result<(), Refusal> {
    if !head.first().is_some_and(u8::is_ascii_graphic) {
        return Err(Refusal::because(Reason::BadSyntax, "request line"));
    }
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let most = limits.fields.min(MAX_FIELDS);
    let status = parsed
        .parse_with_uninit_headers(head, &mut fields[..most])
        .map_err(request_fault)?;
    let (httparse::Status::Complete(len), Some(method), Some(target)) = (status, parsed.method, parsed.path)
    else {
        return Err(Refusal::because(Reason::BadSyntax, "head breaks off"));
    };
    if len != head.len() {
        return Err(Refusal::because(Reason::BadSyntax, "empty line within the head"));
    }
    if method.len() > MAX_METHOD {
        return Err(Refusal::because(Reason::BadSyntax, "method too long"));
    }
    if target.len() > limits.target {
        return Err(Refusal::new(Reason::TargetTooLong));
    }
    shape.version = if parsed.version == Some(0) {
        Version::Http10
    } else {
        Version::Http11
    };
    shape.method = Span::within(head, method.as_bytes());
    shape.target = Span::within(head, target.as_bytes());
    keep_fields(head, parsed.headers, &mut shape.fields);
    Ok(())
}

/// Takes `head` apart, which is one response head up to and with its empty line.
pub fn response(head: &[u8], shape: &mut ResponseShape) -> Result<(), Refusal> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, head, &mut fields)
        .map_err(|fault| Refusal::because(Reason::UpstreamMalformed, fault_text(fault)))?;
    let (httparse::Status::Complete(len), Some(code)) = (status, parsed.code) else {
        return Err(Refusal::because(Reason::UpstreamMalformed, "head breaks off"));
    };
    if len != head.len() || !head.starts_with(b"HTTP/1.") {
        return Err(Refusal::because(Reason::UpstreamMalformed, "status line"));
    }
    shape.version = if parsed.version == Some(0) {
        Version::Http10
    } else {
        Version::Http11
    };
    shape.status = code;
    shape.phrase = parsed
        .reason
        .map_or_else(Span::default, |text| Span::within(head, text.as_bytes()));
    keep_fields(head, parsed.headers, &mut shape.fields);
    Ok(())
}

fn keep_fields(head: &[u8], parsed: &[httparse::Header<'_>], fields: &mut Vec<Field>) {
    fields.clear();
    fields.extend(parsed.iter().map(|field| Field {
        name: Span::within(head, field.name.as_bytes()),
        value: Span::within(head, field.value),
        kind: classify(field.name.as_bytes()),
    }));
}

fn request_fault(fault: httparse::Error) -> Refusal {
    let reason = match fault {
        httparse::Error::TooManyHeaders => Reason::HeadTooLarge,
        _ => Reason::BadSyntax,
    };
    Refusal::because(reason, fault_text(fault))
}

fn fault_text(fault: httparse::Error) -> &'static str {
    match fault {
        httparse::Error::HeaderName => "field name",
        httparse::Error::HeaderValue => "field value",
        httparse::Error::NewLine => "line end",
        httparse::Error::Status => "status code",
        httparse::Error::Token => "first line",
        httparse::Error::TooManyHeaders => "too many fields",
        httparse::Error::Version => "version",
    }
}
