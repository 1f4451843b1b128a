//! The way from the workers to the file: buffers through a bounded queue to one thread, which alone waits for disks.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use super::{Format, Record};

/// Buffers that may wait, of all workers.
const QUEUE: usize = 256;
/// A buffer is handed over when it is this large, or at the next tick.
const BATCH: usize = 16 * 1024;
/// How often it is looked whether the file was moved away.
const LOOK: Duration = Duration::from_secs(1);

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard error.
    Stderr,
    /// A file, appended to; made anew when it was moved away.
    File(PathBuf),
}

/// The log could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("access log: cannot open {}: {source}", path.display())]
pub struct WriterFault {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

#[derive(Debug)]
struct Shared {
    lost: AtomicU64,
    reopen: AtomicBool,
}

enum Message {
    Lines { text: Vec<u8>, count: u64 },
    Stop,
}

/// The access log of a gateway. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AccessLog {
    format: Format,
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
}

impl AccessLog {
    /// Opens the target and starts the thread that writes.
    ///
    /// # Errors
    /// The file cannot be opened, or there can be no thread.
    pub fn open(target: Target, format: Format) -> Result<(Self, JoinHandle<()>), WriterFault> {
        let out = match &target {
            Target::Stderr => Out::Stderr,
            Target::File(path) => Out::open(path)?,
        };
        let (queue, lines) = sync_channel(QUEUE);
        let shared = Arc::new(Shared {
            lost: AtomicU64::new(0),
            reopen: AtomicBool::new(false),
        });
        let of_writer = Arc::clone(&shared);
        let writer = thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write(out, &lines, &of_writer))
            .map_err(|source| WriterFault {
                path: match target {
                    Target::Stderr => PathBuf::from("stderr"),
                    Target::File(path) => path,
                },
                source,
            })?;
        let log = Self {
            format,
            queue,
            shared,
        };
        Ok((log, writer))
    }

    /// A buffer for one worker's lines.
    pub fn lines(&self) -> Lines {
        Lines {
            log: self.clone(),
            text: Vec::new(),
            count: 0,
        }
    }

    /// Lines that were lost: the queue was full, or writing failed.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Has the file opened again before the next line.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Relaxed);
    }

    /// Ends the writer once everything before was written. Waits; not for workers.
    pub fn stop(&self) {
        // A writer that is gone has nothing to end.
        let _ = self.queue.send(Message::Stop);
    }
}

/// Lines of one worker that were not handed over yet.
#[derive(Debug)]
pub struct Lines {
    log: AccessLog,
    text: Vec<u8>,
    count: u64,
}

impl Lines {
    /// Adds the line of a request that ended at `now`.
    pub fn add(&mut self, record: &Record<'_>, now: SystemTime) {
        self.log.format.write(&mut self.text, record, now);
        self.count += 1;
        if self.text.len() >= BATCH {
            self.flush();
        }
    }

    /// Hands over what there is; never waits.
    pub fn flush(&mut self) {
        if self.count == 0 {
            return;
        }
        let next = Vec::with_capacity(self.text.len().min(BATCH) + BATCH / 8);
        let message = Message::Lines {
            text: std::mem::replace(&mut self.text, next),
            count: self.count,
        };
        if self.log.queue.try_send(message).is_err() {
            self.log.shared.lost.fetch_add(self.count, Ordering::Relaxed);
        }
        self.count = 0;
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.flush();
    }
}

/// What is written to.
enum Out {
    Stderr,
    File {
        path: PathBuf,
        file: File,
        inode: (u64, u64),
    },
}

impl Out {
    fn open(path: &Path) -> Result<Self, WriterFault> {
        let fault = |source| WriterFault {
            path: path.to_owned(),
            source,
        };
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(path)
            .map_err(fault)?;
        let metadata = file.metadata().map_err(fault)?;
        Ok(Self::File {
            path: path.to_owned(),
            file,
            inode: (metadata.dev(), metadata.ino()),
        })
    }

    /// Opens the file again if it was moved away, or in any case.
    fn follow(&mut self, always: bool) {
        let Self::File { path, inode, .. } = self else {
            return;
        };
        let now = std::fs::metadata(&path)
            .ok()
            .map(|metadata| (metadata.dev(), metadata.ino()));
        if always || now != Some(*inode) {
            match Self::open(path) {
                Ok(opened) => *self = opened,
                Err(error) => tracing::error!(%error, "the old file is written on"),
            }
        }
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        match self {
            Self::Stderr => io::stderr().write_all(text),
            Self::File { file, .. } => file.write_all(text),
        }
    }
}

fn write(mut out: Out, lines: &Receiver<Message>, shared: &Shared) {
    let mut looked = SystemTime::now();
    let mut failing = false;
    loop {
        let message = lines.recv_timeout(LOOK);
        let now = SystemTime::now();
        let asked = shared.reopen.swap(false, Ordering::Relaxed);
        if asked || now.duration_since(looked).is_ok_and(|since| since >= LOOK) {
            looked = now;
            out.follow(asked);
        }
        match message {
            Ok(Message::Lines { text, count }) => {
                let written = out.write(&text);
                if let Err(error) = &written {
                    shared.lost.fetch_add(count, Ordering::Relaxed);
                    if !failing {
                        tracing::error!(%error, "access log: lines are lost until it can be written again");
                    }
                }
                failing = written.is_err();
            }
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_queue_cannot_take_is_counted_and_nobody_waits() {
        let (queue, lines) = sync_channel(1);
        let log = AccessLog {
            format: Format::Json,
            queue,
            shared: Arc::new(Shared {
                lost: AtomicU64::new(0),
                reopen: AtomicBool::new(false),
            }),
        };
        for _ in 0..3 {
            let mut batch = log.lines();
            batch.text.extend_from_slice(b"x\n");
            batch.count = 1;
            batch.flush();
        }
        assert_eq!(log.lost(), 2);
        drop(lines);
    }
}
