//! Bodies coded on their way to the client.
//!
//! What the upstream has sent goes out as soon as the upstream pauses: the coder is flushed whenever nothing more is
//! ready, so events and progress pages arrive as they would without it. While more is ready, it is gathered.
//!
//! Bounds: [`MAX_AT_ONCE`] answers a worker, each with a window of at most [`WINDOW_LOG`] bits; answers beyond that go
//! out as they are. One turn reads at most [`MOST_A_TURN`] bytes.

use std::{
    cell::Cell,
    io::{self, Write},
    task::{Context, Poll},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{
        ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
        VARY,
    },
};

use hyper::body::Frame;

use super::body::{BodyError, FromUpstream};
use crate::{
    config::{Coding, Compress},
    gateway::coding,
};

/// Most answers that one worker codes at once.
const MAX_AT_ONCE: usize = 256;

/// Largest window of a coder, as a power of two: 256 KiB.
const WINDOW_LOG: u32 = 18;

/// Coded bytes that are gathered before they go out, if the upstream does not pause.
const GATHERED: usize = 16 * 1024;

/// Most bytes that are coded in one turn.
const MOST_A_TURN: usize = 256 * 1024;

/// Fields with a digest of the body as it is: coding it would make them lie.
const DIGESTS: [&str; 4] = ["content-md5", "digest", "repr-digest", "content-digest"];

thread_local! {
    /// Answers that this worker codes now.
    static AT_ONCE: Cell<usize> = const { Cell::new(0) };
}

/// A body that is being coded.
pub(super) struct Coded {
    coder: Option<Coder>,
    /// Something was written since the last flush.
    is_dirty: bool,
    taken: usize,
    trailers: Option<HeaderMap>,
}

enum Coder {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

/// Codes the body of an answer with this head, if it may be; changes the head accordingly.
pub(super) fn begin(
    offered: &Compress,
    wanted: Option<Coding>,
    status: StatusCode,
    has_body: bool,
    headers: &mut HeaderMap,
) -> Option<Coded> {
    if !may_code(offered, status, headers) {
        return None;
    }
    // Whether or not this client gets it coded: another one would (RFC 9110, 12.5.5).
    headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if !has_body || length.is_some_and(|length| length < offered.min_bytes) {
        return None;
    }
    let coded = Coded::new(wanted?)?;
    headers.remove(CONTENT_LENGTH);
    headers.remove(ACCEPT_RANGES);
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(wanted?.name()));
    if let Some(etag) = headers.get(ETAG)
        && etag.as_bytes().first() == Some(&b'"')
    {
        // Two codings are not the same bytes (RFC 9110, 8.8.1).
        let weak = [b"W/", etag.as_bytes()].concat();
        match HeaderValue::from_bytes(&weak) {
            Ok(weak) => headers.insert(ETAG, weak),
            Err(_) => headers.remove(ETAG),
        };
    }
    Some(coded)
}

/// Whether the answer is of a kind that is coded at all.
fn may_code(offered: &Compress, status: StatusCode, headers: &HeaderMap) -> bool {
    let says = |name, word: &str| {
        headers.get_all(name).iter().any(|value| {
            let mut members = value.as_bytes().split(|byte| *byte == b',');
            members.any(|member| member.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
        })
    };
    status.is_success()
        && !matches!(
            status,
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::PARTIAL_CONTENT
        )
        && !headers.contains_key(CONTENT_ENCODING)
        && !headers.contains_key(CONTENT_RANGE)
        && !DIGESTS.iter().any(|name| headers.contains_key(*name))
        && !says(CACHE_CONTROL, "no-transform")
        && headers
            .get(CONTENT_TYPE)
            .is_some_and(|value| coding::is_compressible(offered, value.as_bytes()))
}

impl Coded {
    fn new(coding: Coding) -> Option<Self> {
        let coder = match coding {
            Coding::Gzip => Coder::Gzip(GzEncoder::new(Vec::new(), Compression::new(5))),
            Coding::Brotli => Coder::Brotli(Box::new(brotli::CompressorWriter::new(
                Vec::new(),
                4096,
                4,
                WINDOW_LOG,
            ))),
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).ok()?;
                encoder.window_log(WINDOW_LOG).ok()?;
                Coder::Zstd(encoder)
            }
        };
        let at_once = AT_ONCE.get();
        if at_once >= MAX_AT_ONCE {
            return None;
        }
        AT_ONCE.set(at_once + 1);
        Some(Self {
            coder: Some(coder),
            is_dirty: false,
            taken: 0,
            trailers: None,
        })
    }

    /// Whether everything was coded and taken.
    pub(super) fn is_over(&self) -> bool {
        self.coder.is_none() && self.trailers.is_none()
    }

    /// Whether nothing more is to be coded.
    pub(super) fn is_finished(&self) -> bool {
        self.coder.is_none()
    }

    /// The trailers that came after the body.
    pub(super) fn trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    /// Codes a part of the body; answers with coded bytes if it is time for them to go out.
    pub(super) fn write(&mut self, data: &[u8]) -> io::Result<Option<Bytes>> {
        let Some(coder) = &mut self.coder else {
            return Ok(None);
        };
        coder.write_all(data)?;
        self.is_dirty = true;
        self.taken += data.len();
        if self.taken >= MOST_A_TURN {
            return self.flush();
        }
        Ok(coder.take(GATHERED))
    }

    /// Brings out what was coded so far; nothing if it is out already.
    pub(super) fn flush(&mut self) -> io::Result<Option<Bytes>> {
        self.taken = 0;
        let Some(coder) = &mut self.coder else {
            return Ok(None);
        };
        if std::mem::take(&mut self.is_dirty) {
            coder.flush()?;
        }
        Ok(coder.take(1))
    }

    /// Ends the body; answers with the last coded bytes.
    pub(super) fn finish(&mut self, trailers: Option<HeaderMap>) -> io::Result<Option<Bytes>> {
        self.trailers = trailers;
        let Some(coder) = self.coder.take() else {
            return Ok(None);
        };
        let rest = match coder {
            Coder::Gzip(coder) => coder.finish()?,
            Coder::Brotli(coder) => coder.into_inner(),
            Coder::Zstd(coder) => coder.finish()?,
        };
        Ok((!rest.is_empty()).then(|| Bytes::from(rest)))
    }
}

impl FromUpstream {
    /// The next frame, coded if it is to be.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(mut coded) = self.coded.take() else {
            return self.poll_plain(context);
        };
        let polled = self.poll_coded(context, &mut coded);
        self.coded = Some(coded);
        match polled {
            Ok(polled) => polled.map(|frame| frame.map(Ok)),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }

    fn poll_coded(
        &mut self,
        context: &mut Context<'_>,
        coded: &mut Coded,
    ) -> Result<Poll<Option<Frame<Bytes>>>, BodyError> {
        loop {
            if coded.is_finished() {
                return Ok(Poll::Ready(coded.trailers().map(Frame::trailers)));
            }
            // Each part either comes out of here or is one that is gone from the upstream's.
            let out = match self.poll_plain(context) {
                Poll::Pending => {
                    return Ok(match coded.flush()? {
                        Some(out) => Poll::Ready(Some(Frame::data(out))),
                        None => Poll::Pending,
                    });
                }
                Poll::Ready(None) => coded.finish(None)?,
                Poll::Ready(Some(frame)) => match frame?.into_data() {
                    Ok(data) => coded.write(&data)?,
                    Err(frame) => coded.finish(frame.into_trailers().ok())?,
                },
            };
            if let Some(out) = out {
                return Ok(Poll::Ready(Some(Frame::data(out))));
            }
        }
    }
}

impl Drop for Coded {
    fn drop(&mut self) {
        AT_ONCE.set(AT_ONCE.get() - 1);
    }
}

impl Coder {
    /// What is coded, if it is at least this many bytes.
    fn take(&mut self, least: usize) -> Option<Bytes> {
        let out = match self {
            Self::Gzip(coder) => coder.get_mut(),
            Self::Brotli(coder) => coder.get_mut(),
            Self::Zstd(coder) => coder.get_mut(),
        };
        (out.len() >= least).then(|| Bytes::from(std::mem::take(out)))
    }
}

impl Write for Coder {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(coder) => coder.write(data),
            Self::Brotli(coder) => coder.write(data),
            Self::Zstd(coder) => coder.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(coder) => coder.flush(),
            Self::Brotli(coder) => coder.flush(),
            Self::Zstd(coder) => coder.flush(),
        }
    }
}
