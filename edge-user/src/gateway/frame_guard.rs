//! Counts what HTTP/2 clients make this proxy do for nothing, frame by frame, before the library sees any of it.
//!
//! A frame of nine bytes can cost a look-up, a wake-up, an answer or a request at an upstream. Frames that carry nothing
//! are paid from a budget that time, and work done for the client, refill; who empties it is cut off. Streams that are
//! reset, by the client (CVE-2023-44487) or by its mistakes (CVE-2025-8671, "MadeYouReset"), are paid from another.
//! Knows bytes and time, and nothing else; frames are RFC 9113's, section 6.

use std::time::{Duration, Instant};

/// Frames without content at once, and a second.
const CONTROL: Budget = Budget {
    burst: 512,
    per_second: 32,
};
/// Reset streams at once, and a second.
const RESETS: Budget = Budget {
    burst: 200,
    per_second: 10,
};
/// What a response or a piece of it earns: clients answer pieces with up to two `WINDOW_UPDATE`.
const EARNED_BY_FRAME: u32 = 2;
/// How much content from the client earns one frame.
const BYTES_TO_EARN: usize = 4096;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Frame head; and the error code, which a reset is judged by.
const HEAD: usize = 9;
const WITH_CODE: usize = HEAD + 4;
/// What the client's preface is before its first frame.
const PREFACE: usize = 24;

/// The client makes more work than sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flood {
    /// Frames that carry nothing.
    #[error("too many HTTP/2 frames without content")]
    Control,
    /// Streams that are reset.
    #[error("too many HTTP/2 streams reset")]
    Resets,
}

#[derive(Debug, Clone, Copy)]
struct Budget {
    burst: u32,
    per_second: u32,
}

/// What is left of a budget.
#[derive(Debug)]
struct Purse {
    budget: Budget,
    left: u32,
    since: Instant,
}

impl Purse {
    fn full(budget: Budget, now: Instant) -> Self {
        Self {
            budget,
            left: budget.burst,
            since: now,
        }
    }

    fn earn(&mut self, amount: u32) {
        self.left = self.left.saturating_add(amount).min(self.budget.burst);
    }

    /// Takes one; false if there is none.
    fn pay(&mut self, now: Instant) -> bool {
        if self.left == 0 {
            let each = Duration::from_secs(1) / self.budget.per_second;
            let earned = now.saturating_duration_since(self.since).as_nanos() / each.as_nanos();
            self.earn(u32::try_from(earned).unwrap_or(u32::MAX));
            self.since = now;
        }
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        true
    }
}

/// A frame whose head is known.
#[derive(Debug, Clone, Copy)]
struct Frame {
    kind: u8,
    flags: u8,
    len: usize,
    code: u32,
}

/// Finds frames in one direction's bytes, however they are cut.
#[derive(Debug, Default)]
struct Walk {
    head: [u8; WITH_CODE],
    have: usize,
    skip: usize,
}

impl Walk {
    /// The next frame whose head ends within `bytes`, which moves on past it.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            *bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return None;
            }
            let len =
                usize::from(self.head[0]) << 16 | usize::from(self.head[1]) << 8 | usize::from(self.head[2]);
            let has_code = self.have >= HEAD && self.head[3] == RST_STREAM && len >= WITH_CODE - HEAD;
            let want = if has_code { WITH_CODE } else { HEAD };
            let take = (want - self.have).min(bytes.len());
            self.head[self.have..self.have + take].copy_from_slice(&bytes[..take]);
            self.have += take;
            *bytes = &bytes[take..];
            if self.have < want {
                return None;
            }
            let len =
                usize::from(self.head[0]) << 16 | usize::from(self.head[1]) << 8 | usize::from(self.head[2]);
            let frame = Frame {
                kind: self.head[3],
                flags: self.head[4],
                len,
                code: u32::from_be_bytes([self.head[9], self.head[10], self.head[11], self.head[12]]),
            };
            if want == HEAD && frame.kind == RST_STREAM && len >= WITH_CODE - HEAD {
                continue;
            }
            self.skip = len - (want - HEAD);
            self.have = 0;
            return Some(frame);
        }
    }

    fn is_between_frames(&self) -> bool {
        self.have == 0 && self.skip == 0
    }
}

/// The guard of one connection.
#[derive(Debug)]
pub(crate) struct FrameGuard {
    preface: usize,
    incoming: Walk,
    outgoing: Walk,
    control: Purse,
    resets: Purse,
    content: usize,
    in_head: bool,
    /// Kind of the first frame that came.
    first: Option<u8>,
}

impl FrameGuard {
    /// The guard of a connection that begins now, with the client's preface.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            preface: PREFACE,
            incoming: Walk::default(),
            outgoing: Walk::default(),
            control: Purse::full(CONTROL, now),
            resets: Purse::full(RESETS, now),
            content: 0,
            in_head: false,
            first: None,
        }
    }

    /// Counts what came from the client.
    ///
    /// # Errors
    /// A budget is used up.
    pub(crate) fn received(&mut self, bytes: &[u8], now: Instant) -> Result<(), Flood> {
        let preface = self.preface.min(bytes.len());
        self.preface -= preface;
        let mut rest = &bytes[preface..];
        while let Some(frame) = self.incoming.next(&mut rest) {
            self.first.get_or_insert(frame.kind);
            match frame.kind {
                DATA if frame.len > 0 => {
                    self.content += frame.len;
                    self.control
                        .earn(u32::try_from(self.content / BYTES_TO_EARN).unwrap_or(u32::MAX));
                    self.content %= BYTES_TO_EARN;
                }
                DATA if frame.flags & END_STREAM != 0 => {}
                HEADERS => self.in_head = frame.flags & END_HEADERS == 0,
                RST_STREAM => self.reset(now)?,
                kind => {
                    if kind == CONTINUATION {
                        self.in_head = frame.flags & END_HEADERS == 0;
                    }
                    if !self.control.pay(now) {
                        return Err(Flood::Control);
                    }
                }
            }
        }
        Ok(())
    }

    /// Counts what went to the client.
    ///
    /// # Errors
    /// The client's mistakes made too many streams end.
    pub(crate) fn sent(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Flood> {
        /// `PROTOCOL_ERROR`, `FLOW_CONTROL_ERROR`, `STREAM_CLOSED`, `FRAME_SIZE_ERROR`, `REFUSED_STREAM`.
        const MISTAKES: [u32; 5] = [1, 3, 5, 6, 7];
        while let Some(frame) = self.outgoing.next(&mut bytes) {
            match frame.kind {
                DATA | HEADERS => {
                    self.control.earn(EARNED_BY_FRAME);
                    if frame.flags & END_STREAM != 0 {
                        self.resets.earn(1);
                    }
                }
                RST_STREAM if MISTAKES.contains(&frame.code) => self.reset(now)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the first frame is none of settings, of which the client's preface consists in part (RFC 9113, 3.4).
    pub(crate) fn lacks_settings(&self) -> bool {
        self.first.is_some_and(|kind| kind != SETTINGS)
    }

    /// Whether the fields of a request have begun and not ended.
    pub(crate) fn is_in_head(&self) -> bool {
        self.in_head || self.preface > 0
    }

    /// Whether a frame of this proxy's could be put in front of the next one.
    pub(crate) fn may_interject(&self) -> bool {
        self.outgoing.is_between_frames()
    }

    fn reset(&mut self, now: Instant) -> Result<(), Flood> {
        if self.resets.pay(now) {
            Ok(())
        } else {
            Err(Flood::Resets)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = (payload.len() as u32).to_be_bytes();
        [&len[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn open(now: Instant) -> FrameGuard {
        let mut guard = FrameGuard::new(now);
        guard.received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", now).unwrap();
        guard
    }

    /// How many of `frame` it takes at once.
    fn taken(guard: &mut FrameGuard, frame: &[u8], now: Instant) -> usize {
        let taken = (0..100_000)
            .take_while(|_| guard.received(frame, now).is_ok())
            .count();
        // The connection would be over; the next frame begins anew.
        guard.incoming = Walk::default();
        taken
    }

    #[test]
    fn frames_without_content_are_paid_for_and_time_pays_back() {
        let now = Instant::now();
        for (kind, flags, payload) in [
            (DATA, 0, &b""[..]),
            (2, 0, &[0; 5]),
            (4, 0, b""),
            (6, 0, &[0; 8]),
            (8, 0, &[0, 0, 0, 1]),
            (9, 0, b""),
            (0x42, 0, b""),
        ] {
            let mut guard = open(now);
            let frame = frame(kind, flags, payload);
            assert_eq!(taken(&mut guard, &frame, now), 512, "{kind}");
            let later = now + Duration::from_secs(1);
            assert_eq!(taken(&mut guard, &frame, later), 32, "{kind}");
        }
    }

    #[test]
    fn work_done_pays_back() {
        let now = Instant::now();
        let mut guard = open(now);
        let update = frame(8, 0, &[0, 0, 0, 1]);
        assert_eq!(taken(&mut guard, &update, now), 512);
        guard.sent(&frame(DATA, 0, b"event"), now).unwrap();
        assert_eq!(taken(&mut guard, &update, now), 2, "for each piece sent");
        guard.received(&frame(DATA, 0, &[0; 8192]), now).unwrap();
        assert_eq!(taken(&mut guard, &update, now), 2, "for content that came");
        // Answers to pings earn nothing.
        guard.sent(&frame(6, 1, &[0; 8]), now).unwrap();
        assert_eq!(taken(&mut guard, &update, now), 0);
    }

    #[test]
    fn resets_of_either_side_are_paid_for() {
        let now = Instant::now();
        let reset = frame(RST_STREAM, 0, &8_u32.to_be_bytes());
        let mut guard = open(now);
        assert_eq!(taken(&mut guard, &reset, now), 200);
        guard
            .sent(&frame(HEADERS, END_STREAM | END_HEADERS, b"h"), now)
            .unwrap();
        assert_eq!(taken(&mut guard, &reset, now), 1, "a whole answer pays for one");
        let mut guard = open(now);
        let ours = |code: u32| frame(RST_STREAM, 0, &code.to_be_bytes());
        for _ in 0..1000 {
            guard.sent(&ours(2), now).unwrap();
        }
        for _ in 0..200 {
            guard.sent(&ours(1), now).unwrap();
        }
        assert_eq!(guard.sent(&ours(5), now), Err(Flood::Resets));
    }

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let now = Instant::now();
        let bytes = [
            &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
            &frame(4, 0, &[0; 6]),
            &frame(HEADERS, 0, b"half"),
            &frame(CONTINUATION, END_HEADERS, b""),
            &frame(RST_STREAM, 0, &[0, 0, 0, 8]),
            &frame(DATA, 0, &[6; 300]),
            &frame(6, 0, &[0; 8]),
        ]
        .concat();
        for piece in [1, 2, 3, 5, 7, 9, 11, 64, bytes.len()] {
            let mut guard = FrameGuard::new(now);
            assert!(guard.is_in_head());
            for part in bytes.chunks(piece) {
                guard.received(part, now).unwrap();
            }
            assert_eq!((guard.control.left, guard.resets.left), (509, 199), "by {piece}");
            assert!(guard.incoming.is_between_frames() && !guard.is_in_head());
        }
        let mut guard = open(now);
        guard.received(&frame(HEADERS, 0, b"half"), now).unwrap();
        assert!(guard.is_in_head());
    }

    #[test]
    fn settings_come_first() {
        let now = Instant::now();
        for (kind, lacks) in [(SETTINGS, false), (HEADERS, true), (6, true)] {
            let mut guard = open(now);
            assert!(!guard.lacks_settings());
            let _ = guard.received(&frame(kind, 0, &[0; 6]), now);
            let _ = guard.received(&frame(6, 0, &[0; 8]), now);
            assert_eq!(guard.lacks_settings(), lacks, "{kind}");
        }
    }
}
