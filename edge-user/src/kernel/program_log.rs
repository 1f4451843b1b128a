//! What the program says in words: it has only trouble to tell, so this is nearly always silent.

use aya::Ebpf;
use aya_log::EbpfLogger;

/// Reads the program's own log lines and hands them to the process's log.
pub struct ProgramLog {
    logger: EbpfLogger<&'static dyn log::Log>,
}

impl ProgramLog {
    /// Takes the loaded object's log buffer; `None` if it cannot be read, which costs nothing but the words.
    pub fn of(ebpf: &mut Ebpf) -> Option<Self> {
        EbpfLogger::init(ebpf)
            .inspect_err(|error| tracing::debug!(%error, "the program's own log cannot be read"))
            .map(|logger| Self { logger })
            .ok()
    }

    /// Hands over what has come since the last time.
    pub fn flush(&mut self) {
        self.logger.flush();
    }
}
