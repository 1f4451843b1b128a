//! HTTP/2 by the book: RFC 9113 section by section, RFC 7541 and RFC 8441, by a client of raw frames. What breaks a rule
//! gets the error that the rule names, and nothing of it reaches the origin.

use std::time::Duration;

use super::{
    frames::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, Got, HEADERS, PING, PRIORITY,
        RST_STREAM, SETTINGS, WINDOW_UPDATE, fields, frame, request,
    },
    support::{Edge, Origin, config},
};
use crate::gateway::Limits;

const PUSH_PROMISE: u8 = 5;
const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 0x20;

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const COMPRESSION_ERROR: u32 = 9;

/// Where the RFC has a code of its own and the library says PROTOCOL_ERROR: the connection ends all the same.
const FRAME_SIZE: &[u32] = &[FRAME_SIZE_ERROR, PROTOCOL_ERROR];
const COMPRESSION: &[u32] = &[COMPRESSION_ERROR, PROTOCOL_ERROR];
const FLOW_CONTROL: &[u32] = &[FLOW_CONTROL_ERROR, PROTOCOL_ERROR];
const CLOSED: &[u32] = &[STREAM_CLOSED, PROTOCOL_ERROR];

/// Streams at once.
const STREAMS: u32 = 3;

/// Longest time that an answer takes.
const PATIENCE: Duration = Duration::from_secs(5);

/// What must come of a row.
#[derive(Debug, Clone, Copy)]
enum Want {
    /// The connection ends, with one of these codes.
    Connection(&'static [u32]),
    /// Stream 1 ends, with one of these codes, or the connection with it (RFC 9113, 5.4.2).
    Stream(&'static [u32]),
    /// The request of stream 1 is malformed (RFC 9113, 8.1.1): its stream is reset, or it is answered with a 4xx or 501.
    Malformed,
    /// Stream 1 is answered with 200.
    Served,
    /// What was sent changes nothing: a request on stream 99 is served.
    Ignored,
}

type Row = (&'static str, &'static str, Vec<u8>, Want);

/// A request on stream 1 with these fields, complete.
fn get(fields_of: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(fields_of))
}

/// The same with a field more than a good one has.
fn with(name: &str, value: &str) -> Vec<u8> {
    let block = [request("GET", "/"), fields(&[(name, value)])].concat();
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
}

fn good(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", "/"))
}

/// A request whose body is to come.
fn open(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &request("POST", "/"))
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(
        SETTINGS,
        0,
        0,
        &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat(),
    )
}

fn window(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

/// A POST with a declared length and these pieces of a body.
fn body(declared: &[&str], pieces: &[&str]) -> Vec<u8> {
    let mut block = request("POST", "/");
    for length in declared {
        block.extend_from_slice(&fields(&[("content-length", length)]));
    }
    let end = if pieces.is_empty() { END_STREAM } else { 0 };
    let mut bytes = frame(HEADERS, END_HEADERS | end, 1, &block);
    for (index, piece) in pieces.iter().enumerate() {
        let last = if index + 1 == pieces.len() { END_STREAM } else { 0 };
        bytes.extend_from_slice(&frame(DATA, last, 1, piece.as_bytes()));
    }
    bytes
}

/// Frames (RFC 9113, 4) and streams (5).
#[expect(clippy::too_many_lines, reason = "a table")]
fn framing() -> Vec<Row> {
    use Want::{Connection, Ignored, Served, Stream};
    let split = |at: usize, flags: u8| {
        let block = request("GET", "/");
        [
            frame(HEADERS, END_STREAM, 1, &block[..at]),
            frame(CONTINUATION, flags, 1, &block[at..]),
        ]
        .concat()
    };
    vec![
        (
            "4.1",
            "a frame of an unknown type",
            frame(0x16, 0xff, 1, b"what"),
            Ignored,
        ),
        (
            "4.1",
            "flags that have no meaning",
            frame(PING, 0x16, 0, b"12345678"),
            Ignored,
        ),
        (
            "4.1",
            "the reserved bit",
            frame(PING, 0, 0x8000_0000, b"12345678"),
            Ignored,
        ),
        (
            "4.2",
            "DATA above the largest frame",
            [open(1), frame(DATA, 0, 1, &[0; 16_385])].concat(),
            Stream(FRAME_SIZE),
        ),
        (
            "4.2",
            "HEADERS above the largest frame",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0; 16_385]),
            Connection(FRAME_SIZE),
        ),
        (
            "4.2",
            "SETTINGS above the largest frame",
            frame(SETTINGS, 0, 0, &[0; 16_386]),
            Connection(FRAME_SIZE),
        ),
        (
            "4.3",
            "a block that cannot be decoded",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 5]),
            Connection(COMPRESSION),
        ),
        (
            "4.3",
            "PRIORITY within a block",
            [
                frame(HEADERS, END_STREAM, 1, &request("GET", "/")),
                frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]),
                frame(CONTINUATION, END_HEADERS, 1, b""),
            ]
            .concat(),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "4.3",
            "another stream's HEADERS within a block",
            [frame(HEADERS, END_STREAM, 1, &request("GET", "/")), good(3)].concat(),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "4.3",
            "another stream's CONTINUATION within a block",
            [
                frame(HEADERS, END_STREAM, 1, &request("GET", "/")),
                frame(CONTINUATION, END_HEADERS, 3, b""),
            ]
            .concat(),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "4.3",
            "DATA within a block",
            [
                frame(HEADERS, 0, 1, &request("POST", "/")),
                frame(DATA, END_STREAM, 1, b"x"),
            ]
            .concat(),
            Connection(&[PROTOCOL_ERROR]),
        ),
        ("4.3", "a block in two pieces", split(3, END_HEADERS), Served),
        (
            "5.1",
            "DATA on an idle stream",
            frame(DATA, END_STREAM, 1, b"x"),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "5.1",
            "RST_STREAM on an idle stream",
            reset(1),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "5.1",
            "WINDOW_UPDATE on an idle stream",
            window(1, 1),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "5.1",
            "CONTINUATION on an idle stream",
            frame(CONTINUATION, END_HEADERS, 1, &request("GET", "/")),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "5.1",
            "PRIORITY on an idle stream",
            frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]),
            Ignored,
        ),
        (
            "5.1",
            "DATA behind the end",
            [good(1), frame(DATA, END_STREAM, 1, b"x")].concat(),
            Stream(CLOSED),
        ),
        (
            "5.1",
            "HEADERS behind the end",
            [good(1), good(1)].concat(),
            Stream(CLOSED),
        ),
        (
            "5.1",
            "CONTINUATION behind the end",
            [good(1), frame(CONTINUATION, END_HEADERS, 1, b"")].concat(),
            Connection(CLOSED),
        ),
        (
            "5.1",
            "DATA behind a reset",
            [open(1), reset(1), frame(DATA, END_STREAM, 1, b"x")].concat(),
            Stream(CLOSED),
        ),
        (
            "5.1",
            "HEADERS behind a reset",
            [open(1), reset(1), good(1)].concat(),
            Stream(CLOSED),
        ),
        (
            "5.1",
            "WINDOW_UPDATE behind a reset",
            [open(1), reset(1), window(1, 1)].concat(),
            Ignored,
        ),
        (
            "5.1.1",
            "a stream with an even number",
            good(2),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "5.1.1",
            "a stream with a smaller number",
            [good(5), good(3)].concat(),
            Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
        (
            "5.1.2",
            "more streams than allowed",
            (0..=STREAMS)
                .rev()
                .map(|at| open(2 * (STREAMS - at) + 1))
                .collect::<Vec<_>>()
                .concat(),
            Stream(&[REFUSED_STREAM, PROTOCOL_ERROR]),
        ),
        (
            "5.5",
            "an extension's frame within a block",
            [
                frame(HEADERS, END_STREAM, 1, &request("GET", "/")),
                frame(0x16, 0, 1, b""),
                frame(CONTINUATION, END_HEADERS, 1, b""),
            ]
            .concat(),
            Connection(&[PROTOCOL_ERROR]),
        ),
    ]
}

/// Frames by their type (RFC 9113, 6).
#[expect(clippy::too_many_lines, reason = "a table")]
fn types() -> Vec<Row> {
    use Want::{Connection, Ignored, Served, Stream};
    let block = request("GET", "/");
    let padded = |padding: u8, block: &[u8]| [&[padding][..], block, &vec![0; usize::from(padding)]].concat();
    vec![
        (
            "6.1",
            "DATA on stream 0",
            frame(DATA, END_STREAM, 0, b"x"),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.1",
            "DATA with more padding than there is",
            [open(1), frame(DATA, PADDED | END_STREAM, 1, &[6, b'x'])].concat(),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.1",
            "DATA with padding",
            [open(1), frame(DATA, PADDED | END_STREAM, 1, &padded(4, b"x"))].concat(),
            Served,
        ),
        (
            "6.2",
            "HEADERS on stream 0",
            frame(HEADERS, END_HEADERS | END_STREAM, 0, &block),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.2",
            "HEADERS with more padding than there is",
            frame(
                HEADERS,
                PADDED | END_HEADERS | END_STREAM,
                1,
                &[&[255][..], &block].concat(),
            ),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.2",
            "HEADERS with padding",
            frame(HEADERS, PADDED | END_HEADERS | END_STREAM, 1, &padded(7, &block)),
            Served,
        ),
        (
            "6.2",
            "HEADERS with a priority",
            frame(
                HEADERS,
                WITH_PRIORITY | END_HEADERS | END_STREAM,
                1,
                &[&[0, 0, 0, 0, 15][..], &block].concat(),
            ),
            Served,
        ),
        (
            "6.3",
            "PRIORITY on stream 0",
            frame(PRIORITY, 0, 0, &[0, 0, 0, 0, 1]),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.3",
            "PRIORITY of four bytes",
            [open(1), frame(PRIORITY, 0, 1, &[0, 0, 0, 0])].concat(),
            Stream(FRAME_SIZE),
        ),
        (
            "6.4",
            "RST_STREAM on stream 0",
            reset(0),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.4",
            "RST_STREAM of three bytes",
            [open(1), frame(RST_STREAM, 0, 1, &[0, 0, 8])].concat(),
            Connection(FRAME_SIZE),
        ),
        (
            "6.5",
            "an acknowledgement with content",
            frame(SETTINGS, ACK, 0, &[0; 6]),
            Connection(FRAME_SIZE),
        ),
        (
            "6.5",
            "SETTINGS on a stream",
            frame(SETTINGS, 0, 1, &[]),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.5",
            "SETTINGS of five bytes",
            frame(SETTINGS, 0, 0, &[0; 5]),
            Connection(FRAME_SIZE),
        ),
        (
            "6.5.2",
            "ENABLE_PUSH of 2",
            setting(2, 2),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.5.2",
            "a window above 2^31 - 1",
            setting(4, 0x8000_0000),
            Connection(FLOW_CONTROL),
        ),
        (
            "6.5.2",
            "a largest frame below 16,384",
            setting(5, 16_383),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.5.2",
            "a largest frame above 2^24 - 1",
            setting(5, 1 << 24),
            Connection(&[PROTOCOL_ERROR]),
        ),
        ("6.5.2", "a setting that nobody knows", setting(0xff, 1), Ignored),
        (
            "8441 3",
            "ENABLE_CONNECT_PROTOCOL of 2",
            setting(8, 2),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.6",
            "PUSH_PROMISE of a client",
            [
                open(1),
                frame(
                    PUSH_PROMISE,
                    END_HEADERS,
                    1,
                    &[&[0, 0, 0, 2][..], &block].concat(),
                ),
            ]
            .concat(),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.7",
            "PING on a stream",
            frame(PING, 0, 1, b"12345678"),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.7",
            "PING of six bytes",
            frame(PING, 0, 0, b"123456"),
            Connection(FRAME_SIZE),
        ),
        (
            "6.7",
            "an acknowledgement of no PING",
            frame(PING, ACK, 0, b"12345678"),
            Ignored,
        ),
        (
            "6.8",
            "GOAWAY on a stream",
            frame(GOAWAY, 0, 1, &[0; 8]),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.8",
            "GOAWAY of four bytes",
            frame(GOAWAY, 0, 0, &[0; 4]),
            Connection(FRAME_SIZE),
        ),
        (
            "6.9",
            "WINDOW_UPDATE of 0 for the connection",
            window(0, 0),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.9",
            "WINDOW_UPDATE of 0 for a stream",
            [open(1), window(1, 0)].concat(),
            Stream(&[PROTOCOL_ERROR]),
        ),
        (
            "6.9",
            "WINDOW_UPDATE of three bytes",
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1]),
            Connection(FRAME_SIZE),
        ),
        (
            "6.9.1",
            "a window of the connection that overflows",
            [window(0, 0x7fff_ffff), window(0, 0x7fff_ffff)].concat(),
            Connection(FLOW_CONTROL),
        ),
        (
            "6.9.1",
            "a window of a stream that overflows",
            [open(1), window(1, 0x7fff_ffff), window(1, 0x7fff_ffff)].concat(),
            Stream(FLOW_CONTROL),
        ),
        (
            "6.9.2",
            "settings that make a window overflow",
            [open(1), window(1, 0x7fff_0000), setting(4, 0x7fff_ffff)].concat(),
            Connection(FLOW_CONTROL),
        ),
        (
            "6.10",
            "CONTINUATION in three pieces",
            [
                frame(HEADERS, END_STREAM, 1, &block[..1]),
                frame(CONTINUATION, 0, 1, &block[1..5]),
                frame(CONTINUATION, END_HEADERS, 1, &block[5..]),
            ]
            .concat(),
            Served,
        ),
        (
            "6.10",
            "CONTINUATION behind a whole block",
            [open(1), frame(CONTINUATION, END_HEADERS, 1, &block)].concat(),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.10",
            "CONTINUATION on stream 0",
            [
                frame(HEADERS, END_STREAM, 1, &block[..1]),
                frame(CONTINUATION, END_HEADERS, 0, &block[1..]),
            ]
            .concat(),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.10",
            "CONTINUATION behind DATA",
            [
                open(1),
                frame(DATA, 0, 1, b"x"),
                frame(CONTINUATION, END_HEADERS, 1, &block),
            ]
            .concat(),
            Connection(&[PROTOCOL_ERROR]),
        ),
    ]
}

/// Requests (RFC 9113, 8).
#[expect(clippy::too_many_lines, reason = "a table")]
fn messages() -> Vec<Row> {
    use Want::{Malformed, Served, Stream};
    const M: (&str, &str) = (":method", "GET");
    const S: (&str, &str) = (":scheme", "http");
    const A: (&str, &str) = (":authority", "a");
    const P: (&str, &str) = (":path", "/");
    let trailers = |flags: u8, name: &str, value: &str| {
        [
            open(1),
            frame(DATA, 0, 1, b"x"),
            frame(HEADERS, END_HEADERS | flags, 1, &fields(&[(name, value)])),
        ]
        .concat()
    };
    let path = |path: &str| get(&[M, S, A, (":path", path)]);
    let authority = |authority: &str| get(&[M, S, (":authority", authority), P]);
    let method = |method: &str| get(&[(":method", method), S, A, P]);
    vec![
        ("8.1", "trailers", trailers(END_STREAM, "x-sum", "1"), Served),
        (
            "8.1",
            "HEADERS behind DATA that end nothing",
            trailers(0, "x-sum", "1"),
            Stream(&[PROTOCOL_ERROR]),
        ),
        (
            "8.1",
            "a pseudo-field in trailers, which the library drops",
            trailers(END_STREAM, ":path", "/smuggled"),
            Served,
        ),
        (
            "8.1",
            "content-length in trailers",
            trailers(END_STREAM, "content-length", "1"),
            Malformed,
        ),
        (
            "8.1",
            "an upper-case name in trailers",
            trailers(END_STREAM, "X-Sum", "1"),
            Malformed,
        ),
        (
            "8.1.1",
            "a body shorter than declared",
            body(&["5"], &["hell"]),
            Malformed,
        ),
        (
            "8.1.1",
            "a body longer than declared",
            body(&["5"], &["hello!"]),
            Malformed,
        ),
        (
            "8.1.1",
            "a body longer than declared, in pieces",
            body(&["5"], &["hel", "lo!"]),
            Malformed,
        ),
        (
            "8.1.1",
            "no body where one is declared",
            body(&["5"], &[]),
            Malformed,
        ),
        (
            "8.1.1",
            "a body where none is declared",
            body(&["0"], &["x"]),
            Malformed,
        ),
        ("8.1.1", "two lengths", body(&["5", "6"], &["hello"]), Malformed),
        (
            "8.1.1",
            "a length twice",
            body(&["5", "5"], &["hello"]),
            Malformed,
        ),
        (
            "8.1.1",
            "a length with a sign",
            body(&["+5"], &["hello"]),
            Malformed,
        ),
        (
            "8.1.1",
            "a length in a list",
            body(&["5, 5"], &["hello"]),
            Malformed,
        ),
        (
            "8.1.1",
            "a length that is none",
            body(&["x"], &["hello"]),
            Malformed,
        ),
        (
            "8.1.1",
            "a length that is too long",
            body(&["99999999999999999999"], &["hello"]),
            Malformed,
        ),
        (
            "8.1.1",
            "a body as declared",
            body(&["5"], &["hel", "lo"]),
            Served,
        ),
        ("8.2", "an upper-case name", with("X-A", "1"), Malformed),
        ("8.2.1", "a blank in a name", with("x a", "1"), Malformed),
        ("8.2.1", "a colon in a name", with("x:a", "1"), Malformed),
        ("8.2.1", "an empty name", with("", "1"), Malformed),
        ("8.2.1", "NUL in a name", with("x\0a", "1"), Malformed),
        ("8.2.1", "a line end in a name", with("x\r\na", "1"), Malformed),
        ("8.2.1", "a high byte in a name", with("x\u{e9}", "1"), Malformed),
        ("8.2.1", "NUL in a value", with("x-a", "1\0"), Malformed),
        ("8.2.1", "CR in a value", with("x-a", "1\r2"), Malformed),
        ("8.2.1", "LF in a value", with("x-a", "1\n2"), Malformed),
        (
            "8.2.1",
            "a request in a value",
            with("x-a", "1\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
            Malformed,
        ),
        ("8.2.1", "a blank before a value", with("x-a", " 1"), Malformed),
        ("8.2.1", "a blank behind a value", with("x-a", "1 "), Malformed),
        ("8.2.1", "a tab behind a value", with("x-a", "1\t"), Malformed),
        ("8.2.1", "an empty value", with("x-a", ""), Served),
        ("8.2.1", "a blank within a value", with("x-a", "1 2"), Served),
        ("8.2.2", "connection", with("connection", "close"), Malformed),
        (
            "8.2.2",
            "connection that nominates",
            with("connection", "x-forwarded-for"),
            Malformed,
        ),
        ("8.2.2", "keep-alive", with("keep-alive", "5"), Malformed),
        (
            "8.2.2",
            "proxy-connection",
            with("proxy-connection", "close"),
            Malformed,
        ),
        (
            "8.2.2",
            "transfer-encoding",
            with("transfer-encoding", "chunked"),
            Malformed,
        ),
        (
            "8.2.2",
            "transfer_encoding",
            with("transfer_encoding", "chunked"),
            Malformed,
        ),
        ("8.2.2", "content_length", with("content_length", "5"), Malformed),
        ("8.2.2", "upgrade", with("upgrade", "h2c"), Malformed),
        (
            "8.2.2",
            "te of more than trailers",
            with("te", "trailers, deflate"),
            Malformed,
        ),
        ("8.2.2", "te of trailers", with("te", "trailers"), Served),
        (
            "8.2.3",
            "a cookie in crumbs",
            [
                request("GET", "/"),
                fields(&[("cookie", "a=1"), ("cookie", "b=2")]),
            ]
            .concat()
            .pipe(|block| frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)),
            Served,
        ),
        ("8.3", "an unknown pseudo-field", with(":test", "1"), Malformed),
        (
            "8.3",
            "a response's pseudo-field",
            with(":status", "200"),
            Malformed,
        ),
        (
            "8.3",
            "a pseudo-field behind a field",
            get(&[M, S, ("x-a", "1"), A, P]),
            Malformed,
        ),
        ("8.3.1", "no :method", get(&[S, A, P]), Malformed),
        ("8.3.1", "no :scheme", get(&[M, A, P]), Malformed),
        ("8.3.1", "no :path", get(&[M, S, A]), Malformed),
        ("8.3.1", "no :authority and no host", get(&[M, S, P]), Malformed),
        (
            "8.3.1",
            "host for :authority",
            get(&[M, S, P, ("host", "a")]),
            Served,
        ),
        ("8.3.1", "two :method", get(&[M, M, S, A, P]), Malformed),
        ("8.3.1", "two :scheme", get(&[M, S, S, A, P]), Malformed),
        ("8.3.1", "two :authority", get(&[M, S, A, A, P]), Malformed),
        ("8.3.1", "two :path", get(&[M, S, A, P, P]), Malformed),
        (
            "8.3.1",
            "two :path that differ",
            get(&[M, S, A, P, (":path", "/smuggled")]),
            Malformed,
        ),
        (
            "8.3.1",
            "a scheme that is none",
            get(&[M, (":scheme", "ht tp"), A, P]),
            Malformed,
        ),
        (
            "8.3.1",
            "a line end in the scheme",
            get(&[M, (":scheme", "http\r\n"), A, P]),
            Malformed,
        ),
        (
            "8.3.1",
            "a scheme that is an address",
            get(&[M, (":scheme", "http://b/?"), A, P]),
            Malformed,
        ),
        ("8.3.1", "an empty path", path(""), Malformed),
        ("8.3.1", "a path without a slash", path("a"), Malformed),
        ("8.3.1", "a path in absolute form", path("http://b/"), Malformed),
        ("8.3.1", "an asterisk with GET", path("*"), Malformed),
        (
            "8.3.1",
            "an asterisk with OPTIONS",
            get(&[(":method", "OPTIONS"), S, A, (":path", "*")]),
            Served,
        ),
        ("8.3.1", "a blank in the path", path("/a b"), Malformed),
        ("8.3.1", "a version in the path", path("/a HTTP/1.1"), Malformed),
        (
            "8.3.1",
            "a request in the path",
            path("/ HTTP/1.1\r\nHost: b\r\n\r\nGET /smuggled"),
            Malformed,
        ),
        ("8.3.1", "a tab in the path", path("/a\tb"), Malformed),
        ("8.3.1", "NUL in the path", path("/a\0"), Malformed),
        ("8.3.1", "a high byte in the path", path("/\u{e9}"), Malformed),
        (
            "8.3.1",
            "a fragment in the path, which the library cuts off",
            path("/#smuggled"),
            Served,
        ),
        ("8.3.1", "a backslash in the path", path("/a\\b"), Malformed),
        ("8.3.1", "dot segments", path("/../a"), Malformed),
        ("8.3.1", "two slashes", path("//a"), Malformed),
        ("8.3.1", "a query", path("/?a=b"), Served),
        (
            "8.3.1",
            "a fragment in the query, which the library cuts off",
            path("/?a#smuggled"),
            Served,
        ),
        ("8.3.1", "user information", authority("u@a"), Malformed),
        ("8.3.1", "a blank in the authority", authority("a b"), Malformed),
        (
            "8.3.1",
            "a line end in the authority",
            authority("a\r\nx: y"),
            Malformed,
        ),
        ("8.3.1", "a path in the authority", authority("a/b"), Malformed),
        ("8.3.1", "an empty authority", authority(""), Malformed),
        ("8.3.1", "an empty label", authority("a..b"), Malformed),
        ("8.3.1", "a port that is none", authority("a:99999"), Malformed),
        (
            "8.3.1",
            "a host that differs",
            get(&[M, S, A, P, ("host", "b")]),
            Malformed,
        ),
        (
            "8.3.1",
            "two hosts",
            get(&[M, S, A, P, ("host", "a"), ("host", "a")]),
            Malformed,
        ),
        (
            "8.3.1",
            "a host that agrees",
            get(&[M, S, A, P, ("host", "A")]),
            Served,
        ),
        ("8.3.1", "an empty method", method(""), Malformed),
        (
            "8.3.1",
            "a blank in the method",
            method("GET /smuggled HTTP/1.1"),
            Malformed,
        ),
        ("8.3.1", "a line end in the method", method("GET\r\n"), Malformed),
        ("8.3.1", "a method in lower case", method("get"), Malformed),
        ("8.3.1", "TRACE", method("TRACE"), Malformed),
        ("8.3.1", "the preface's method", method("PRI"), Malformed),
        (
            "8.5",
            "CONNECT with a path",
            get(&[("x", "")]).pipe(|_| get(&[(":method", "CONNECT"), S, A, P])),
            Malformed,
        ),
        (
            "8.5",
            "CONNECT without an authority",
            get(&[(":method", "CONNECT")]),
            Malformed,
        ),
        (
            "8.5",
            "CONNECT that no route allows",
            get(&[(":method", "CONNECT"), (":authority", "a:443")]),
            Malformed,
        ),
        (
            "8441 4",
            ":protocol without CONNECT",
            get(&[M, (":protocol", "websocket"), S, A, P]),
            Malformed,
        ),
        (
            "8441 4",
            ":protocol that nobody speaks",
            get(&[(":method", "CONNECT"), (":protocol", "x"), S, A, P]),
            Malformed,
        ),
        (
            "8441 4",
            ":protocol without a path",
            get(&[(":method", "CONNECT"), (":protocol", "websocket"), A]),
            Malformed,
        ),
    ]
}

/// Compression (RFC 7541).
fn compression() -> Vec<Row> {
    let block = |bytes: &[u8]| {
        frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            1,
            &[&request("GET", "/")[..], bytes].concat(),
        )
    };
    let connection = Want::Connection(COMPRESSION);
    vec![
        (
            "7541 2.3.3",
            "an index beyond the table",
            block(&[0xc6]),
            connection,
        ),
        (
            "7541 2.3.3",
            "a literal whose name is beyond the table",
            block(&[0x7f, 0x50, 1, b'x']),
            connection,
        ),
        ("7541 6.1", "index 0", block(&[0x80]), connection),
        (
            "7541 5.1",
            "a number that has no end",
            block(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            connection,
        ),
        (
            "7541 5.2",
            "a text that breaks off",
            block(&[0, 5, b'x']),
            connection,
        ),
        (
            "7541 5.2",
            "padding of Huffman's code longer than seven bits",
            block(&[0, 1, b'x', 0x82, 0x1f, 0xff]),
            connection,
        ),
        (
            "7541 5.2",
            "padding of Huffman's code that is not all ones",
            block(&[0, 1, b'x', 0x81, 0x18]),
            connection,
        ),
        (
            "7541 5.2",
            "the end of Huffman's code",
            block(&[0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]),
            connection,
        ),
        (
            "7541 6.3",
            "a table above its largest size",
            frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                1,
                &[&[0x3f, 0xe2, 0x1f][..], &request("GET", "/")].concat(),
            ),
            connection,
        ),
        (
            "7541 4.2",
            "a change of the table's size behind a field",
            block(&[0x20]),
            connection,
        ),
        (
            "7541 4.2",
            "a change of the table's size before all",
            frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                1,
                &[&[0x20][..], &request("GET", "/")].concat(),
            ),
            Want::Served,
        ),
    ]
}

/// Hands a value on.
trait Pipe: Sized {
    fn pipe<T>(self, to: impl FnOnce(Self) -> T) -> T {
        to(self)
    }
}

impl<T> Pipe for T {}

fn code(got: &Got, at: usize) -> u32 {
    let bytes = got.payload.get(at..at + 4).expect("an error code");
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}

/// The status of a response head, as far as its first field tells it without a Huffman code.
fn status(block: &[u8]) -> Option<u16> {
    // The static table (RFC 7541, appendix A).
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [first @ 0x88..=0x8e, ..] => INDEXED.get(usize::from(first - 0x88)).copied(),
        // A literal with the name of entry 8, with or without Huffman's code: 40x and 501 are all that are asked for.
        [0x48 | 0x08, 3, digits @ ..] => std::str::from_utf8(&digits[..3]).ok()?.parse().ok(),
        [0x48 | 0x08, 0x82, 0x68 | 0x69 | 0x6c | 0x6d, ..] => Some(499),
        _ => None,
    }
}

/// What came first that says something about a row.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    Goaway(u32),
    Reset(u32, u32),
    Head(u32, Option<u16>),
    Pong,
    Closed,
}

fn came(frames: &mut Frames) -> Came {
    loop {
        let Some(got) = frames.next(PATIENCE) else {
            return Came::Closed;
        };
        match got.kind {
            GOAWAY if code(&got, 4) != 0 => return Came::Goaway(code(&got, 4)),
            RST_STREAM => return Came::Reset(got.stream, code(&got, 0)),
            HEADERS => return Came::Head(got.stream, status(&got.payload)),
            PING if got.flags & ACK != 0 && got.payload == b"finished" => return Came::Pong,
            _ => {}
        }
    }
}

#[test]
fn http2_is_what_its_rfcs_say() {
    let origin = Origin::ok();
    let limits = Limits {
        streams: STREAMS,
        ..Limits::default()
    };
    let edge = Edge::start(&config(&[&[origin.address]], &[("/", 0, false)]), limits);
    let rows = [framing(), types(), messages(), compression()].concat();
    assert!(rows.len() >= 150, "{} rows", rows.len());
    let mut wrong = Vec::new();
    for (section, what, bytes, want) in &rows {
        let before = origin.seen().len();
        let mut frames = Frames::connect(&edge, &[]);
        frames.send(bytes);
        if let Want::Ignored = want {
            frames.send(&good(99));
        }
        // A row that is passed over in silence ends here.
        frames.send(&frame(PING, 0, 0, b"finished"));
        let mut first = came(&mut frames);
        // An answer may take longer than that of a PING.
        if first == Came::Pong && !matches!(want, Want::Connection(_)) {
            first = came(&mut frames);
        }
        let is_right = match (want, &first) {
            (Want::Connection(codes) | Want::Stream(codes), Came::Goaway(code))
            | (Want::Stream(codes), Came::Reset(_, code)) => codes.contains(code),
            (Want::Malformed, Came::Head(1, status)) => {
                status.is_some_and(|status| (400..=501).contains(&status))
            }
            (Want::Malformed, Came::Reset(1, _) | Came::Goaway(PROTOCOL_ERROR))
            | (Want::Served, Came::Head(1, Some(200)))
            | (Want::Ignored, Came::Head(99, Some(200))) => true,
            _ => false,
        };
        if !is_right {
            wrong.push(format!("{section}, {what}: {first:?}, not {want:?}"));
        }
        // Of what is malformed in its head nothing is sent on; a body may turn out to be malformed behind it.
        let smuggled = origin.seen()[before..].iter().any(|seen| {
            matches!(want, Want::Malformed) && !what.contains("body") && !what.contains("trailers")
                || seen.head.contains("smuggled")
        });
        if smuggled {
            wrong.push(format!("{section}, {what}: it reached the origin"));
        }
    }
    assert!(wrong.is_empty(), "of {} rows:\n{}", rows.len(), wrong.join("\n"));
    println!("conformance: {} rows", rows.len());
}

/// The preface and the settings behind it (RFC 9113, 3.4).
#[test]
fn what_does_not_begin_as_http2_is_no_http2() {
    let origin = Origin::ok();
    let edge = Edge::to(origin.address);
    for (what, bytes) in [
        (
            "a preface with a fault",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r".to_vec(),
        ),
        (
            "a preface of HTTP/1.1",
            b"PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n".to_vec(),
        ),
        (
            "a preface without settings",
            [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &good(1)].concat(),
        ),
        (
            "a preface behind a request",
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
                .to_vec(),
        ),
    ] {
        let before = origin.seen().len();
        let answer = edge.exchange_lossy(&bytes);
        let served = usize::from(what.contains("behind a request"));
        assert_eq!(origin.seen().len() - before, served, "{what}: {answer:?}");
    }
}

/// Settings are acknowledged, PING is answered with what it brought, windows hold back what does not fit (RFC 9113, 6.5.3,
/// 6.7, 6.9.2).
#[test]
fn what_asks_for_an_answer_gets_it() {
    let origin = Origin::ok();
    let edge = Edge::to(origin.address);
    let mut frames = Frames::connect(&edge, &[0, 4, 0, 0, 0, 1]);
    frames.send(&[frame(PING, 0, 0, b"breakwat"), good(1)].concat());
    let (mut acknowledged, mut ponged, mut data) = (false, false, Vec::new());
    while data.is_empty() || !acknowledged || !ponged {
        let got = frames.next(PATIENCE).expect("a frame");
        acknowledged |= got.kind == SETTINGS && got.flags & ACK != 0;
        ponged |= got.kind == PING && got.flags & ACK != 0 && got.payload == b"breakwat";
        if got.kind == DATA {
            data.push(got);
        }
    }
    assert_eq!(data[0].payload, b"o", "one byte fits into the window");
    frames.send(&window(1, 10));
    let rest = loop {
        let got = frames.next(PATIENCE).expect("a frame");
        if got.kind == DATA {
            break got;
        }
    };
    assert_eq!(
        (rest.payload.as_slice(), rest.flags & END_STREAM),
        (&b"k"[..], END_STREAM)
    );
}
