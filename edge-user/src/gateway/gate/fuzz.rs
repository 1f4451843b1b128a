//! What must hold for the gate on any bytes, as a function that panics where it does not: for fuzzing and for property
//! tests.
//!
//! Beside the invariants it has a second reader of heads and of chunks, made in the plainest way there is: what passed
//! the gate must mean the same to it, and written anew it must mean the same to the gate.

#![expect(
    clippy::panic,
    clippy::expect_used,
    clippy::match_wild_err_arm,
    reason = "panicking is what it is for"
)]

use super::{
    Field, HeadLimits, JudgedRequest, Request, RequestBody, RequestShape, ResponseBody, ResponseShape, Span,
    chunked::Chunked,
    parse, request,
    response::{self, Asked},
    scan::Scan,
};

/// Checks one input as a request, as a response and as a chunked body.
///
/// # Panics
/// Something does not hold.
pub fn check(raw: &[u8]) {
    chunks(raw);
    let Ok(Some(len)) = Scan::default().end(raw) else {
        return;
    };
    let head = &raw[..len];
    if let Some((shape, judged)) = judge_head(head) {
        check_request(head, &shape, &judged);
    }
    for (is_head, websocket) in [(false, false), (true, false), (false, true)] {
        check_response(
            head,
            Asked {
                head: is_head,
                websocket,
            },
        );
    }
}

fn judge_head(head: &[u8]) -> Option<(RequestShape, JudgedRequest)> {
    let mut shape = RequestShape::default();
    parse::request(head, &HeadLimits::default(), &mut shape).ok()?;
    let judged = request::judge(head, &shape).ok()?;
    Some((shape, judged))
}

fn check_request(head: &[u8], shape: &RequestShape, found: &JudgedRequest) {
    let plain = fields(head);
    assert_eq!(plain.len(), shape.fields.len(), "another number of fields");
    one_reading(head, &shape.fields, &plain);
    let of = |name: &str| values(&plain, name);
    let (lengths, codings) = (of("content-length"), of("transfer-encoding"));
    let body = match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => RequestBody::None,
        ([length], []) => match length.parse() {
            Ok(0) => RequestBody::None,
            Ok(length) => RequestBody::Length(length),
            Err(_) => panic!("a length that is none: {length:?}"),
        },
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => RequestBody::Chunked,
        other => panic!("two lengths: {other:?}"),
    };
    assert_eq!(found.body, body);
    assert!(of("host").len() <= 1);
    let request = Request::new(head, shape, found);
    if let (Some(authority), [host]) = (request.authority(), of("host").as_slice()) {
        assert!(authority.eq_ignore_ascii_case(host.as_bytes()));
    }
    assert_eq!(found.connect, request.method() == b"CONNECT");
    if found.connect {
        // Host and port and nothing else, no body, and nothing behind it.
        let target = shape.target.of(head);
        assert_eq!(request.path().as_bytes(), target);
        assert!(
            target
                .rsplit(|byte| *byte == b':')
                .next()
                .is_some_and(|port| { (1..=5).contains(&port.len()) && port.iter().all(u8::is_ascii_digit) })
        );
        assert!(!target.iter().any(|byte| b"/?#@,".contains(byte)));
        assert!(lengths.is_empty() && codings.is_empty() && !found.keep_alive);
        assert_eq!(of("host").len(), 1);
    } else {
        assert!(request.path() == "*" || request.path().starts_with('/'));
    }
    assert!(!request.path().bytes().any(|byte| byte <= b' ' || byte >= 0x7f));
    // Written anew it is the same request.
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    // The last eight bytes of the line: a target may look like a version.
    let version = line.last_chunk::<8>().map(<[u8; 8]>::as_slice);
    let mut again = [request.method(), b" ", shape.target.of(head), b" "].concat();
    again.extend_from_slice(version.unwrap_or_default());
    let again = spell(again, head, &shape.fields);
    let (shape2, found2) = judge_head(&again).expect("what passed passes again");
    assert_eq!(found2.body, found.body);
    assert_eq!(found2.keep_alive, found.keep_alive);
    let second = Request::new(&again, &shape2, &found2);
    assert_eq!(second.path(), request.path());
    assert_eq!(second.query(), request.query());
    assert_eq!(second.authority(), request.authority());
}

fn check_response(head: &[u8], asked: Asked) {
    let mut shape = ResponseShape::default();
    if parse::response(head, &mut shape).is_err() {
        return;
    }
    let Ok(found) = response::judge(head, &shape, asked) else {
        return;
    };
    let plain = fields(head);
    assert_eq!(plain.len(), shape.fields.len(), "another number of fields");
    one_reading(head, &shape.fields, &plain);
    let (lengths, codings) = (
        values(&plain, "content-length"),
        values(&plain, "transfer-encoding"),
    );
    assert!(lengths.len() + codings.len() <= 1, "two lengths");
    assert!((100..600).contains(&shape.status));
    let bodiless = matches!(shape.status, 100..=199 | 204 | 304) || asked.head;
    match found.body {
        ResponseBody::None => assert!(bodiless),
        ResponseBody::Length(length) => assert_eq!(lengths[0].parse(), Ok(length)),
        ResponseBody::Chunked => assert!(codings[0].eq_ignore_ascii_case("chunked")),
        ResponseBody::UntilClose => assert!(lengths.is_empty() && codings.is_empty() && !found.keep_alive),
    }
    assert!(shape.status != 101 || asked.websocket);
}

/// The fields of a head, by cutting it at its line ends and at the first colon of each line.
fn fields(head: &[u8]) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect::<String>();
    let mut lines = head.split(|byte| *byte == b'\n').skip(1);
    let mut fields = Vec::new();
    for line in lines.by_ref() {
        let line = line.strip_suffix(b"\r").expect("a line end that only some see");
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|byte| *byte == b':').expect("a field");
        let blank = |c: char| c == ' ' || c == '\t';
        let value = text(&line[colon + 1..]);
        fields.push((text(&line[..colon]), value.trim_matches(blank).to_owned()));
    }
    fields
}

/// The values of fields that anybody could take for `name`.
fn values<'f>(fields: &'f [(String, String)], name: &str) -> Vec<&'f str> {
    fields
        .iter()
        .filter(|(have, _)| have.replace('_', "-").eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
        .collect()
}

/// Both readers found the same fields, and nothing in them ends a line.
fn one_reading(head: &[u8], found: &[Field], plain: &[(String, String)]) {
    let same = |span: Span, text: &str| {
        let bytes: Vec<u8> = text.chars().map(|c| c as u8).collect();
        assert_eq!(span.of(head), bytes);
        assert!(!bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    };
    for (field, (name, value)) in found.iter().zip(plain) {
        same(field.name, name);
        same(field.value, value);
    }
}

fn spell(mut line: Vec<u8>, head: &[u8], fields: &[Field]) -> Vec<u8> {
    line.extend_from_slice(b"\r\n");
    for field in fields {
        for part in [field.name.of(head), b": ", field.value.of(head), b"\r\n"] {
            line.extend_from_slice(part);
        }
    }
    line.extend_from_slice(b"\r\n");
    line
}

/// A chunked body: what is passed on has no extension, ends where the first reader says, and holds the same data.
fn chunks(raw: &[u8]) {
    let (mut chunked, mut kept, mut data) = (Chunked::default(), Vec::new(), Vec::new());
    let Ok(used) = chunked.feed(raw, |run| kept.extend_from_slice(run)) else {
        return;
    };
    let mut second = Chunked::default();
    let Ok(again) = second.feed_data(raw, |run| data.extend_from_slice(run)) else {
        panic!("the two ways to feed differ");
    };
    assert_eq!((used, chunked.is_done()), (again, second.is_done()));
    assert_eq!(chunked.data(), data.len() as u64);
    if chunked.is_done() {
        assert_eq!(plain_chunks(&kept), Some(data));
    }
}

/// The data of a whole chunked body without extensions.
fn plain_chunks(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    loop {
        let end = body.windows(2).position(|pair| pair == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).ok()?, 16).ok()?;
        body = &body[end + 2..];
        if size == 0 {
            return body.ends_with(b"\r\n").then_some(data);
        }
        data.extend_from_slice(body.get(..size)?);
        body = body.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pieces that heads and chunks are made of, good ones and bad ones.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            proptest::sample::select(vec![
                "GET / HTTP/1.1\r\n",
                "POST /a?b HTTP/1.1\r\n",
                "GET http://a/ HTTP/1.0\r\n",
                "OPTIONS * HTTP/1.1\r\n",
                "HTTP/1.1 200 OK\r\n",
                "HTTP/1.0 304 x\r\n",
                "HTTP/1.1 101 x\r\n",
                "Host: a\r\n",
                "Host: a:80\r\n",
                "Content-Length: 5\r\n",
                "content_length: 5\r\n",
                "Content-Length:5 \r\n",
                "Transfer-Encoding: chunked\r\n",
                "Transfer-Encoding:\tCHUNKED\t\r\n",
                "Connection: close\r\n",
                "Connection: upgrade, x\r\n",
                "Upgrade: websocket\r\n",
                "X: y\r\n",
                " folded\r\n",
                "5\r\nhello\r\n",
                "5;x\r\nhello\r\n",
                "0\r\n",
                "\r\n",
                "\n",
                "\r",
                ":",
                " ",
                "\t",
                "\0",
                "\u{e9}",
                "0",
                "f",
                ";",
            ])
            .prop_map(|text| text.as_bytes().to_vec()),
            proptest::collection::vec(any::<u8>(), 0..3),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn holds_for_anything(raw in pieces()) {
            check(&raw);
        }
    }

    #[test]
    fn the_fuzzers_corpus_holds() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/gate");
        let inputs = std::fs::read_dir(folder)
            .expect("the corpus")
            .map(|entry| std::fs::read(entry.expect("an input").path()).expect("an input"));
        assert!(
            inputs.map(|input| check(&input)).count() >= 12,
            "inputs are missing"
        );
    }
}
