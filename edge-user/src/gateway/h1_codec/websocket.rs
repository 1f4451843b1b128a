//! Where WebSocket frames begin and end (RFC 6455, 5.2), so that a stop can say goodbye between two of them.
//!
//! Nothing is judged: a stream that is no WebSocket merely has its boundaries elsewhere.

/// Follows the frames of one direction.
#[derive(Debug, Default)]
pub(super) struct Frames {
    header: [u8; LONGEST_HEADER],
    have: usize,
    left: u64,
    closed: bool,
    goodbye: Option<Vec<u8>>,
}

/// Two bytes, an eight-byte length, a mask.
const LONGEST_HEADER: usize = 14;

/// A close frame from a server: 1001, going away (RFC 6455, 7.4.1).
pub(super) const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];

impl Frames {
    /// Takes in the next bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let skip = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.left -= skip as u64;
                bytes = bytes.get(skip..).unwrap_or_default();
                continue;
            }
            self.header[self.have] = *first;
            self.have += 1;
            bytes = rest;
            if let Some((header, payload)) = self.length()
                && self.have == header
            {
                self.closed |= self.header[0] & 0x0f == 8;
                self.left = payload;
                self.have = 0;
            }
        }
    }

    /// Wants to end with this frame as soon as the one under way has ended.
    pub(super) fn bid(&mut self, frame: &[u8]) {
        self.goodbye.get_or_insert_with(|| frame.to_vec());
    }

    /// The goodbye, if one is wanted and this is the place for it.
    pub(super) fn take_goodbye(&mut self) -> Option<Vec<u8>> {
        if self.is_between() {
            self.goodbye.take()
        } else {
            None
        }
    }

    /// Whether the last byte was the last of a frame, and that no goodbye.
    fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0 && !self.closed
    }

    /// Length of header and payload, once the header tells.
    fn length(&self) -> Option<(usize, u64)> {
        if self.have < 2 {
            return None;
        }
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        let extended = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            short => return Some((2 + mask, u64::from(short))),
        };
        if self.have < 2 + extended {
            return None;
        }
        let length = self.header[2..2 + extended]
            .iter()
            .fold(0, |length, byte| length << 8 | u64::from(*byte));
        Some((2 + extended + mask, length))
    }
}

/// The same frame from a client, which masks what it sends (RFC 6455, 5.3).
pub(super) fn masked_going_away(mask: [u8; 4]) -> [u8; 8] {
    let [first, _, high, low] = GOING_AWAY;
    [
        first,
        0x82,
        mask[0],
        mask[1],
        mask[2],
        mask[3],
        high ^ mask[0],
        low ^ mask[1],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, masked: bool, len: usize) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match len {
            0..=125 => bytes.push(mask + len as u8),
            126..=0xffff => {
                bytes.push(mask + 126);
                bytes.extend_from_slice(&(len as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask + 127);
                bytes.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        if masked {
            bytes.extend_from_slice(&[1, 2, 3, 4]);
        }
        bytes.resize(bytes.len() + len, 0xff);
        bytes
    }

    #[test]
    fn boundaries_are_found_however_the_bytes_come() {
        for len in [0, 1, 125, 126, 127, 65_535, 65_536] {
            for masked in [false, true] {
                let bytes = [frame(1, masked, len), frame(2, masked, 3)].concat();
                for piece in [1, 7, bytes.len()] {
                    let (mut frames, mut between) = (Frames::default(), 0);
                    for part in bytes.chunks(piece) {
                        assert!(frames.have < LONGEST_HEADER);
                        frames.feed(part);
                        between += usize::from(frames.is_between());
                    }
                    assert!(frames.is_between(), "{len} {masked} by {piece}");
                    assert!(between <= 2, "{len} {masked} by {piece}: {between}");
                    frames.feed(&bytes[..1]);
                    assert!(!frames.is_between());
                }
            }
        }
    }

    #[test]
    fn nothing_follows_a_goodbye() {
        for goodbye in [
            GOING_AWAY.to_vec(),
            masked_going_away([9, 8, 7, 6]).to_vec(),
            frame(8, true, 2),
        ] {
            let mut frames = Frames::default();
            frames.feed(&goodbye);
            assert!(!frames.is_between());
            assert_eq!((frames.have, frames.left), (0, 0));
        }
        let masked = masked_going_away([9, 8, 7, 6]);
        assert_eq!([masked[6] ^ 9, masked[7] ^ 8], [0x03, 0xe9]);
    }
}
