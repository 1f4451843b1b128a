//! Standard output that may be closed at any time: `breakwater status | head` ends quietly.

use std::io::{self, Stdout, Write};

use super::CliError;

/// Where a command writes its answer.
pub struct Output<W> {
    to: W,
    closed: bool,
}

impl Output<Stdout> {
    /// The process's standard output.
    pub fn stdout() -> Self {
        Self::new(io::stdout())
    }
}

impl<W: Write> Output<W> {
    /// Writes to `to`.
    pub fn new(to: W) -> Self {
        Self { to, closed: false }
    }

    /// Writes one line. Once the reader has gone, writes nothing; that is no error.
    pub fn line(&mut self, line: impl std::fmt::Display) -> Result<(), CliError> {
        if self.closed {
            return Ok(());
        }
        match writeln!(self.to, "{line}").and_then(|()| self.to.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            Err(error) => Err(CliError::Output(error)),
        }
    }

    /// Whether the reader has gone, so that a command may stop early.
    pub fn is_closed(&self) -> bool {
        self.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_silent_and_a_full_disk_is_not() {
        let mut closed = Output::new(Failing(io::ErrorKind::BrokenPipe));
        assert!(closed.line("x").is_ok() && closed.is_closed() && closed.line("y").is_ok());
        let mut full = Output::new(Failing(io::ErrorKind::StorageFull));
        assert!(matches!(full.line("x"), Err(CliError::Output(_))));
    }
}
