//! The load of `cargo xtask bench instructions` over HTTP/2 (RFC 9113), by prior knowledge: as many requests as there
//! are streams go out in one write, then all answers are read.
//!
//! Frames are written by hand, so that each round is the same to the byte: the first request of a connection names its
//! fields, later ones point at them in HPACK's dynamic table (RFC 7541), as browsers' do.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Result, bail};

/// Connections of the load.
pub(super) const CONNECTIONS: usize = 4;

/// Streams of each connection that are asked at once.
pub(super) const STREAMS: usize = 8;

/// Kinds of frames, and flags.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// HPACK: an indexed field, and a literal one that is indexed from then on.
const INDEXED: u8 = 0x80;
const LITERAL: u8 = 0x40;

/// The static table's `:method GET` and `:scheme http`; and its names of what follows in [`FIELDS`].
const GET: u8 = INDEXED | 2;
const HTTP: u8 = INDEXED | 6;

/// Index of the name in the static table, and value, in the order in which they are sent.
const FIELDS: [(u8, &str); 6] = [
    (4, "/api/one/items?page=2"),
    (1, "bench.example"),
    (58, "bench/1.0"),
    (19, "application/json"),
    (16, "gzip, br"),
    (32, "theme=dark; session=abcdefgh"),
];

/// First index of the dynamic table.
const DYNAMIC: u8 = 62;

/// One connection.
struct Connection {
    stream: TcpStream,
    next: u32,
    unread: Vec<u8>,
}

/// Asks `rounds` times on every stream of every connection.
pub(super) fn ask(address: SocketAddr, rounds: usize) -> Result<()> {
    let mut connections: Vec<Connection> = super::connect(address, CONNECTIONS)?
        .into_iter()
        .map(|stream| Connection {
            stream,
            next: 1,
            unread: Vec::new(),
        })
        .collect();
    for connection in &mut connections {
        let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        frame(&mut hello, SETTINGS, 0, 0, &[]);
        // Enough for all answers of a run.
        frame(&mut hello, WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
        connection.stream.write_all(&hello)?;
    }
    for _ in 0..rounds {
        for connection in &mut connections {
            connection.send()?;
        }
        for connection in &mut connections {
            connection.receive()?;
        }
    }
    Ok(())
}

impl Connection {
    fn send(&mut self) -> Result<()> {
        let mut out = Vec::new();
        for _ in 0..STREAMS {
            let mut block = vec![GET, HTTP];
            for (at, (name, value)) in (0_u8..).zip(FIELDS) {
                if self.next == 1 {
                    block.extend([LITERAL | name, u8::try_from(value.len())?]);
                    block.extend(value.as_bytes());
                } else {
                    // The newest entry has the lowest index.
                    block.push(INDEXED | (DYNAMIC + (FIELDS.len() as u8 - 1) - at));
                }
            }
            frame(&mut out, HEADERS, END_STREAM | END_HEADERS, self.next, &block);
            self.next += 2;
        }
        Ok(self.stream.write_all(&out)?)
    }

    /// Reads until every stream has ended.
    fn receive(&mut self) -> Result<()> {
        let mut left = STREAMS;
        let mut buffer = [0; 16 * 1024];
        while left > 0 {
            let read = self.stream.read(&mut buffer)?;
            if read == 0 {
                bail!("closed instead of answered");
            }
            self.unread.extend_from_slice(&buffer[..read]);
            while let Some((kind, flags, payload)) = next(&self.unread) {
                match kind {
                    SETTINGS if flags & ACK == 0 => {
                        let mut out = Vec::new();
                        frame(&mut out, SETTINGS, ACK, 0, &[]);
                        self.stream.write_all(&out)?;
                    }
                    DATA | HEADERS if flags & END_STREAM != 0 => left -= 1,
                    // `:status 200` is indexed; everything else is not what was asked for.
                    HEADERS if payload.first() != Some(&(INDEXED | 8)) => bail!("answered {payload:?}"),
                    RST_STREAM | GOAWAY => bail!("refused: {payload:?}"),
                    _ => {}
                }
                let len = 9 + payload.len();
                self.unread.drain(..len);
            }
        }
        Ok(())
    }
}

/// The frame at the beginning of `bytes`, if it is whole: kind, flags, payload.
fn next(bytes: &[u8]) -> Option<(u8, u8, &[u8])> {
    let (head, rest) = bytes.split_at_checked(9)?;
    let len = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    Some((head[3], head[4], rest.get(..len)?))
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let len = (payload.len() as u32).to_be_bytes();
    out.extend([len[1], len[2], len[3], kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_when_they_are_whole() {
        let mut bytes = Vec::new();
        frame(&mut bytes, DATA, END_STREAM, 3, b"body");
        assert_eq!(next(&bytes), Some((DATA, END_STREAM, &b"body"[..])));
        assert_eq!(next(&bytes[..12]), None);
    }
}
