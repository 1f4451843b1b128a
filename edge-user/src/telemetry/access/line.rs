//! One record as one line of text.

use std::{
    fmt::Display,
    io::Write,
    time::{Duration, SystemTime},
};

use super::Record;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One JSON object.
    #[default]
    Json,
    /// The Common Log Format: client, `-`, subject, date, request line, status, bytes.
    Clf,
}

impl Format {
    /// Appends the line of `record`, which ended at `now`.
    pub fn write(self, out: &mut Vec<u8>, record: &Record<'_>, now: SystemTime) {
        match self {
            Self::Json => json(out, record, now),
            Self::Clf => clf(out, record, now),
        }
        out.push(b'\n');
    }
}

// Writing to memory does not fail: results are not looked at here.

fn json(out: &mut Vec<u8>, record: &Record<'_>, now: SystemTime) {
    let _ = write!(out, "{{\"time\":\"{}\"", humantime::format_rfc3339_micros(now));
    let mut text = |name: &str, value: &str| {
        let _ = write!(out, ",\"{name}\":\"");
        escape(out, value);
        out.push(b'"');
    };
    text("request_id", record.request_id);
    text("trace_id", record.trace_id);
    text("client", &record.client.to_string());
    if record.peer != record.client {
        text("peer", &record.peer.to_string());
    }
    text("scheme", if record.secure { "https" } else { "http" });
    text("version", record.version);
    text("method", record.method);
    text("host", record.host);
    text("path", record.path);
    text("route", record.route);
    if let Some(upstream) = record.upstream {
        text("upstream", &upstream.to_string());
    }
    text("reason", record.reason);
    text("detail", record.detail);
    text("subject", record.subject);
    let mut number = |name: &str, value: &dyn Display| {
        let _ = write!(out, ",\"{name}\":{value}");
    };
    number("status", &record.status);
    number("received_bytes", &record.received);
    number("sent_bytes", &record.sent);
    let timings = &record.timings;
    for (name, duration) in [
        ("decide_us", timings.decide),
        ("connect_us", timings.connect),
        ("send_us", timings.send),
        ("wait_us", timings.wait),
        ("body_us", timings.body),
        ("total_us", timings.total()),
        ("tax_us", timings.tax),
    ] {
        number(name, &micros(duration));
    }
    out.push(b'}');
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A string's content as JSON wants it (RFC 8259, 7); control characters cannot begin a line of their own.
fn escape(out: &mut Vec<u8>, text: &str) {
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
            ' '..='~' => out.push(character as u8),
            _ => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
}

fn clf(out: &mut Vec<u8>, record: &Record<'_>, now: SystemTime) {
    let subject = if record.subject.is_empty() {
        "-"
    } else {
        record.subject
    };
    let _ = write!(out, "{} - ", record.client.ip().to_canonical());
    quotable(out, subject);
    // "Thu, 01 Jan 1970 00:00:00 GMT" in another order.
    let date = httpdate::fmt_http_date(now);
    let part = |from: usize, to: usize| date.get(from..to).unwrap_or_default();
    let _ = write!(
        out,
        " [{}/{}/{}:{} +0000] \"",
        part(5, 7),
        part(8, 11),
        part(12, 16),
        part(17, 25)
    );
    if record.method.is_empty() {
        out.push(b'-');
    } else {
        quotable(out, record.method);
        out.push(b' ');
        quotable(out, record.path);
        let _ = write!(out, " {}", record.version);
    }
    let _ = write!(out, "\" {:03} {}", record.status, record.sent);
}

/// Visible ASCII without what would end a field; everything else in hex, as Apache does it.
fn quotable(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => {
                out.push(b'\\');
                out.push(byte);
            }
            b' ' => out.extend_from_slice(b"\\x20"),
            b'!'..=b'~' => out.push(byte),
            _ => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::access::Timings;

    fn record() -> Record<'static> {
        Record {
            request_id: "00f0",
            trace_id: "0af7",
            client: "192.0.2.1:5000".parse().unwrap(),
            peer: "10.0.0.1:6000".parse().unwrap(),
            secure: true,
            version: "HTTP/1.1",
            method: "GET",
            host: "a.example",
            path: "/a\"b\nc\u{1f600}",
            route: "site",
            upstream: Some("10.0.0.7:80".parse().unwrap()),
            status: 200,
            reason: "",
            detail: "",
            subject: "al ice",
            received: 1,
            sent: 2,
            timings: Timings {
                wait: Duration::from_micros(7),
                ..Timings::default()
            },
        }
    }

    #[test]
    fn json_is_json_on_one_line() {
        let mut out = Vec::new();
        Format::Json.write(&mut out, &record(), SystemTime::UNIX_EPOCH);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["path"], record().path);
        assert_eq!(value["time"], "1970-01-01T00:00:00.000000Z");
        assert_eq!(
            (&value["client"], &value["peer"]),
            (&"192.0.2.1:5000".into(), &"10.0.0.1:6000".into())
        );
        assert_eq!(
            (value["wait_us"].as_u64(), value["total_us"].as_u64()),
            (Some(7), Some(7))
        );
    }

    #[test]
    fn clf_is_what_tools_expect() {
        let mut out = Vec::new();
        Format::Clf.write(&mut out, &record(), SystemTime::UNIX_EPOCH);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "192.0.2.1 - al\\x20ice [01/Jan/1970:00:00:00 +0000] \"GET /a\\\"b\\x0ac\\xf0\\x9f\\x98\\x80 HTTP/1.1\" 200 2\n"
        );
    }
}
