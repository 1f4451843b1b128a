//! TCP flags (RFC 9293 section 3.1).

/// FIN.
pub const FIN: u8 = 0x01;
/// SYN.
pub const SYN: u8 = 0x02;
/// RST.
pub const RST: u8 = 0x04;
/// ACK.
pub const ACK: u8 = 0x10;
/// URG.
pub const URG: u8 = 0x20;
/// PSH.
pub const PSH: u8 = 0x08;

/// Opens a connection: SYN without ACK.
#[inline(always)]
pub const fn opens(flags: u8) -> bool {
    flags & (SYN | ACK) == SYN
}

/// Whether some connection sends this set: every segment but a SYN or RST carries ACK, and SYN, FIN and RST
/// exclude each other (RFC 9293 section 3.10.7; nmap's null, FIN and Xmas scans are the ones that do not).
#[inline(always)]
pub const fn is_possible(flags: u8) -> bool {
    POSSIBLE >> (flags & 0x3f) & 1 == 1
}

/// A bit for each set of the six flags, set if the set is possible.
const POSSIBLE: u64 = {
    let mut sets = 0;
    let mut flags = 0_u8;
    while flags < 64 {
        let exclusive = flags & (SYN | FIN | RST);
        let is_one = exclusive & exclusive.wrapping_sub(1) == 0;
        let has_subject = flags & (SYN | RST | ACK) != 0;
        let acknowledges = flags & ACK != 0 || flags & (PSH | URG) == 0;
        if is_one && has_subject && acknowledges {
            sets |= 1 << flags;
        }
        flags += 1;
    }
    sets
};
