//! HTTP/2 frame by frame: a client that sends what no library would.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use super::support::Edge;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// One frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields without compression (RFC 7541, 6.2.2).
pub(super) fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            number(&mut block, 7, 0, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// A number with a prefix of `bits` (RFC 7541, 5.1).
pub(super) fn number(block: &mut Vec<u8>, bits: u32, high: u8, value: usize) {
    let most = (1_usize << bits) - 1;
    if value < most {
        block.push(high | value as u8);
        return;
    }
    block.push(high | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}

/// The fields of a request.
pub(super) fn request(method: &str, path: &str) -> Vec<u8> {
    fields(&[
        (":method", method),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", path),
    ])
}

/// A frame that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

/// The client.
pub(super) struct Frames {
    stream: TcpStream,
    came: Vec<u8>,
}

impl Frames {
    /// Connects, and sends the preface and these settings.
    pub(super) fn connect(edge: &Edge, settings: &[u8]) -> Self {
        let mut stream = TcpStream::connect(edge.address).expect("the gateway listens");
        stream.set_nodelay(true).unwrap();
        stream
            .write_all(
                &[
                    &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
                    &frame(SETTINGS, 0, 0, settings),
                ]
                .concat(),
            )
            .unwrap();
        Self {
            stream,
            came: Vec::new(),
        }
    }

    /// Sends bytes; false if the other end is gone.
    pub(super) fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream
            .set_write_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        self.stream.write_all(bytes).is_ok()
    }

    /// The next frame; `None` at the end or if none comes in time.
    pub(super) fn next(&mut self, patience: Duration) -> Option<Got> {
        self.stream.set_read_timeout(Some(patience)).unwrap();
        loop {
            if self.came.len() >= 9 {
                let len = u32::from_be_bytes([0, self.came[0], self.came[1], self.came[2]]) as usize;
                if self.came.len() >= 9 + len {
                    let rest = self.came.split_off(9 + len);
                    let whole = std::mem::replace(&mut self.came, rest);
                    return Some(Got {
                        kind: whole[3],
                        flags: whole[4],
                        stream: u32::from_be_bytes([whole[5] & 0x7f, whole[6], whole[7], whole[8]]),
                        payload: whole[9..].to_vec(),
                    });
                }
            }
            let mut part = [0; 16 * 1024];
            match self.stream.read(&mut part) {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.came.extend_from_slice(&part[..read]),
            }
        }
    }

    /// Reads without waiting; false if the other end is gone.
    fn drain(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let mut part = [0; 16 * 1024];
        let is_open = loop {
            match self.stream.read(&mut part) {
                Ok(0) => break false,
                Ok(_) => {}
                Err(error) => break error.kind() == ErrorKind::WouldBlock,
            }
        };
        self.stream.set_nonblocking(false).unwrap();
        is_open
    }

    /// Sends what `more` makes, again and again, until the connection is closed; answers how long that took, or `None`
    /// if it is still open after `patience`.
    pub(super) fn flood(
        &mut self,
        patience: Duration,
        mut more: impl FnMut() -> Vec<u8>,
    ) -> Option<Duration> {
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if !self.send(&more()) || !self.drain() {
                return Some(begun.elapsed());
            }
        }
        None
    }

    /// Waits for the end; answers how long it took.
    pub(super) fn closed_within(&mut self, patience: Duration) -> Option<Duration> {
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if !self.drain() {
                return Some(begun.elapsed());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }
}
