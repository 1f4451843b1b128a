//! What a machine lacks is said aloud, once per test, and counted by whoever reads the output.
//!
//! Invariant: a skipped test prints a line that starts with [`PREFIX`] on the process's real standard output. The test
//! harness captures `println!`, so the line is written past that capture.

use std::{fmt::Display, io::Write, process::Command};

/// How the line of a skipped test starts.
pub const PREFIX: &str = "SKIPPED: ";

/// Says that a test is skipped, and why.
pub fn report(test: &str, reason: impl Display) {
    // The leading newline ends the "test name ... " that the harness has printed on a single thread.
    let line = format!("\n{PREFIX}{test}: {reason}\n");
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

/// The first thing a lab needs that this machine lacks.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root (network namespaces, raw sockets, XDP)".to_owned());
    }
    if Command::new("ip").arg("-V").output().is_err() {
        return Some("needs `ip` (package iproute2)".to_owned());
    }
    None
}
