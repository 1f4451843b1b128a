//! Traces as a collector gets them: OTLP over HTTP, read here by the protocol's own field numbers, and by the reference
//! classes of Python's `opentelemetry-proto` where they are installed.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a step of a test that fails has to stop that test"
)]

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    process::{Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};

use tests::{
    http::Request,
    lab::{Lab, VIP_V4},
    stage::Stage,
    wait::PATIENCE,
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A collector that takes everything and shows the bodies that it got, after checking what it is told about them.
fn collector(lab: &Lab, address: SocketAddr) -> Receiver<Vec<u8>> {
    let listener = lab
        .edge()
        .enter(|| TcpListener::bind(address))
        .expect("a free port");
    let (sender, bodies) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head).unwrap_or(0) == 0 {
                    break;
                }
            }
            let head = head.to_ascii_lowercase();
            let field = |name: &str| {
                head.lines()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            };
            assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
            assert_eq!(field("content-type"), Some("application/x-protobuf"));
            let length = field("content-length")
                .and_then(|text| text.parse().ok())
                .expect("a length");
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("the body");
            let answer =
                b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
            reader.get_mut().write_all(answer).expect("it is read");
            if sender.send(body).is_err() {
                return;
            }
        }
    });
    bodies
}

/// A field of a message: a number, or bytes.
#[derive(Debug, Clone, PartialEq)]
enum Field<'b> {
    Number(u64),
    Bytes(&'b [u8]),
}

/// Takes a protobuf message apart (protobuf.dev/programming-guides/encoding).
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (first, rest) = bytes.split_first().expect("it goes on");
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return value;
            }
        }
        panic!("a number without end");
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 | 5 => {
                let length = if tag & 7 == 1 { 8 } else { 4 };
                let (number, rest) = bytes.split_at(length);
                bytes = rest;
                let number = number
                    .iter()
                    .rev()
                    .fold(0, |value, byte| value << 8 | u64::from(*byte));
                Field::Number(number)
            }
            2 => {
                let length = varint(&mut bytes) as usize;
                let (inside, rest) = bytes.split_at(length);
                bytes = rest;
                Field::Bytes(inside)
            }
            kind => panic!("wire type {kind}"),
        };
        found.push((tag >> 3, field));
    }
    found
}

/// The messages in a field.
fn inside(message: &[u8], number: u64) -> Vec<&[u8]> {
    let fields = fields(message).into_iter().filter(|(own, _)| *own == number);
    fields
        .filter_map(|(_, field)| match field {
            Field::Bytes(bytes) => Some(bytes),
            Field::Number(_) => None,
        })
        .collect()
}

fn number(message: &[u8], number: u64) -> u64 {
    let found = fields(message).into_iter().find(|(own, _)| *own == number);
    match found {
        Some((_, Field::Number(value))) => value,
        _ => 0,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn text(message: &[u8], number: u64) -> String {
    inside(message, number)
        .first()
        .map_or_else(String::new, |bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// A span, as opentelemetry/proto/trace/v1/trace.proto numbers it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    trace: String,
    id: String,
    parent: String,
    name: String,
    kind: u64,
    start: u64,
    end: u64,
}

fn spans(body: &[u8]) -> Vec<Span> {
    let scopes = inside(body, 1)
        .into_iter()
        .flat_map(|resource| inside(resource, 2));
    let spans = scopes.flat_map(|scope| inside(scope, 2));
    let id = |span: &[u8], field| {
        inside(span, field)
            .first()
            .map_or_else(String::new, |bytes| hex(bytes))
    };
    spans
        .map(|span| Span {
            trace: id(span, 1),
            id: id(span, 2),
            parent: id(span, 4),
            name: text(span, 5),
            kind: number(span, 6),
            start: number(span, 7),
            end: number(span, 8),
        })
        .collect()
}

/// One line a span, by the reference classes; `None` if they are not installed.
fn by_reference(body: &[u8]) -> Option<Vec<String>> {
    const READ: &str = "
import sys
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest as Request
request = Request.FromString(sys.stdin.buffer.read())
for resource in request.resource_spans:
    names = {a.key: a.value.string_value for a in resource.resource.attributes}
    assert names['service.name'] == 'edge-under-test', names
    for scope in resource.scope_spans:
        for s in scope.spans:
            print(s.trace_id.hex(), s.span_id.hex(), s.parent_span_id.hex(), s.kind, s.start_time_unix_nano, s.end_time_unix_nano, s.name)
";
    let python = std::env::var("BREAKWATER_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut child = Command::new(python)
        .args(["-c", READ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(body).ok()?;
    let output = child.wait_with_output().ok()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    if complaint.contains("ModuleNotFoundError") {
        return None;
    }
    assert!(output.status.success(), "{complaint}");
    Some(
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(ToOwned::to_owned)
            .collect(),
    )
}

#[test]
fn sampled_requests_reach_the_collector_phase_by_phase() {
    let address: SocketAddr = (VIP_V4, 4318).into();
    let adjust = |mut settings: tests::config::Settings| {
        settings.extra = format!(
            "[gateway.traces]\nendpoint = \"http://{address}\"\nsample_percent = 0\nservice_name = \"edge-under-test\"\n"
        );
        settings
    };
    let Some(stage) = Stage::new("traces", adjust) else {
        return;
    };
    let bodies = collector(&stage.lab, address);
    let client = stage.lab.client();
    let ask = |parent: Option<&str>| {
        let request = match parent {
            Some(flags) => Request::get("/").field("traceparent", &format!("00-{TRACE}-{PARENT}-{flags}")),
            None => Request::get("/"),
        };
        let response = stage.request(client, VIP_V4.into(), &request).expect("served");
        assert_eq!(response.status, 200);
    };
    // Nothing that begins here is sampled, and a parent that is not stays so.
    ask(None);
    ask(Some("00"));
    ask(Some("01"));
    let body = bodies.recv_timeout(PATIENCE).expect("a batch");
    let spans = spans(&body);
    let received = stage.origin.received();
    let forwarded: Vec<String> = received
        .iter()
        .map(|one| one.values("traceparent").join(","))
        .collect();
    assert!(forwarded[0].ends_with("-00"), "{forwarded:?}");
    assert!(forwarded[1].starts_with(&format!("00-{TRACE}-")) && forwarded[1].ends_with("-00"));
    let server = &spans[0];
    assert_eq!(forwarded[2], format!("00-{TRACE}-{}-01", server.id));
    assert_eq!((server.trace.as_str(), server.parent.as_str()), (TRACE, PARENT));
    assert_eq!((server.name.as_str(), server.kind), ("GET open", 2), "{server:?}");
    let names: Vec<&str> = spans[1..].iter().map(|span| span.name.as_str()).collect();
    assert_eq!(
        names,
        ["decide", "send", "wait", "answer"],
        "one request, and all its phases"
    );
    for phase in &spans[1..] {
        assert_eq!((&phase.trace, &phase.parent), (&server.trace, &server.id));
        assert!(
            server.start <= phase.start && phase.start < phase.end && phase.end <= server.end,
            "{phase:?}"
        );
    }
    let mut ids: Vec<&String> = spans.iter().map(|span| &span.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), spans.len(), "no two spans have one id");
    match by_reference(&body) {
        Some(lines) => {
            let own = spans.iter().map(|span| {
                let Span {
                    trace,
                    id,
                    parent,
                    name,
                    kind,
                    start,
                    end,
                } = span;
                format!("{trace} {id} {parent} {kind} {start} {end} {name}")
            });
            assert_eq!(lines, own.collect::<Vec<_>>());
        }
        None => println!(
            "SKIPPED: sampled_requests_reach_the_collector_phase_by_phase: by Python's opentelemetry-proto, which is not installed"
        ),
    }
}

#[test]
fn a_collector_that_is_not_there_costs_traces_and_nothing_else() {
    let address: SocketAddr = (VIP_V4, 4319).into();
    let adjust = |mut settings: tests::config::Settings| {
        let directory = std::env::temp_dir().join(format!("breakwater-traces-{}.sock", std::process::id()));
        settings.extra = format!(
            "[gateway.traces]\nendpoint = \"http://{address}\"\nsample_percent = 100\n[admin]\nsocket = {directory:?}\n"
        );
        settings
    };
    let Some(stage) = Stage::new("traces-lost", adjust) else {
        return;
    };
    let socket = std::env::temp_dir().join(format!("breakwater-traces-{}.sock", std::process::id()));
    for _ in 0..5 {
        let served = stage.request(stage.lab.client(), VIP_V4.into(), &Request::get("/"));
        assert_eq!(served.expect("served").status, 200);
    }
    let lost = "breakwater_trace_spans_total{result=\"lost\"} 5";
    let told = tests::wait::within(PATIENCE, || {
        let metrics = tests::admin::ask(&socket, "GET", "/metrics", None).ok()?.body;
        metrics.lines().any(|line| line == lost).then_some(())
    });
    assert!(told.is_some(), "they are counted");
    assert!(
        stage
            .daemon
            .logged("traces are lost until the collector takes them", PATIENCE)
    );
}
