//! `breakwater capture`: from the ring buffer into a file, until somebody or something ends it.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use edge_common::abi::{Event, Reason};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice::index_to_name, socket_with};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::MissedTickBehavior,
};

use super::{LifecycleError, verbs};
use crate::{
    cli::{CaptureRequest, Sampled},
    kernel::{Pins, ShieldTables, tap::Tap},
    live::pcapng::{Recording, Timeline},
};

/// How often the ring buffer is looked at: it holds 1,300 samples, a second's worth of many CPUs.
const LOOK: Duration = Duration::from_millis(10);
/// Samples taken at one look: the whole buffer.
const SAMPLES_AT_ONCE: usize = 1_500;

/// Captures. Answers with what was written and what was not.
///
/// # Errors
/// Nothing is attached, or the file cannot be written.
pub fn capture(request: &CaptureRequest, bpffs: &Path) -> Result<String, LifecycleError> {
    let pins = Pins::new(bpffs);
    let tables = ShieldTables::open(&pins)?;
    let tap = Tap::open(&pins)?;
    let to: Box<dyn Write> = match &request.file {
        Some(file) => Box::new(open(file, request.overwrite)?),
        None => Box::new(io::stdout().lock()),
    };
    let timeline = Timeline {
        tick: tables.clock.now(),
        wall: SystemTime::now(),
        tick_length: Duration::from_secs(1) / tables.params.hz.max(1),
    };
    let lost_before = lost(&tables)?;
    let mut session = Session {
        pins: pins.clone(),
        request,
        tap,
        recording: Recording::begin(BufWriter::new(to), timeline).map_err(writing)?,
        services: tables.service_names().into_iter().collect(),
        interfaces: HashMap::new(),
        filtered: 0,
    };
    let begun = Instant::now();
    let ended = verbs::runtime()?.block_on(session.run());
    match ended {
        Err(LifecycleError::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {
            return Ok("the reader has gone".into());
        }
        other => other?,
    }
    let not_sampled = lost(&tables)?.saturating_sub(lost_before);
    let (packets, filtered, missed) = (
        session.recording.packets(),
        session.filtered,
        session.tap.missed(),
    );
    let summary = summary(request, packets, filtered, not_sampled, missed, begun.elapsed());
    session
        .recording
        .end(tables.clock.now(), not_sampled + missed)
        .map_err(writing)?;
    Ok(summary)
}

struct Session<'r> {
    pins: Pins,
    request: &'r CaptureRequest,
    tap: Tap,
    recording: Recording<BufWriter<Box<dyn Write>>>,
    services: HashMap<u16, String>,
    interfaces: HashMap<u32, String>,
    filtered: u64,
}

impl Session<'_> {
    async fn run(&mut self) -> Result<(), LifecycleError> {
        let on = |kind| signal(kind).map_err(LifecycleError::io("listening for signals"));
        let (mut interrupt, mut terminate) = (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
        let time = self.request.duration;
        let mut over = std::pin::pin!(async move {
            match time {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        });
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The head is for whoever reads along.
        self.recording.flush().map_err(writing)?;
        loop {
            tokio::select! {
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                () = &mut over => break,
                _ = look.tick() => {
                    if self.take()? {
                        return Ok(());
                    }
                }
            }
        }
        self.take().map(|_| ())
    }

    /// Writes what has come; whether the wanted number is reached.
    fn take(&mut self) -> Result<bool, LifecycleError> {
        let mut events = Vec::new();
        let read = self.tap.read(SAMPLES_AT_ONCE, |event| events.push(*event));
        // Taken off meanwhile: what there is, is all there will be.
        let is_off = !self.pins.exist();
        if !is_off {
            read?;
        }
        let before = self.recording.packets();
        for event in &events {
            let name = self
                .interfaces
                .entry(event.ifindex)
                .or_insert_with(|| interface_name(event.ifindex));
            if !wanted(self.request, event, name) {
                self.filtered += 1;
                continue;
            }
            let service = self.services.get(&event.service).map_or("-", String::as_str);
            self.recording
                .add(event, |_| name.clone(), service)
                .map_err(writing)?;
            if Some(self.recording.packets()) == self.request.count {
                self.recording.flush().map_err(writing)?;
                return Ok(true);
            }
        }
        if self.recording.packets() > before {
            self.recording.flush().map_err(writing)?;
        }
        Ok(is_off)
    }
}

fn wanted(request: &CaptureRequest, event: &Event, interface: &str) -> bool {
    let kind = match request.sampled {
        Sampled::Dropped => event.observed == 0,
        Sampled::Observed => event.observed != 0,
        Sampled::Both => true,
    };
    let reason = Reason::from_index(event.reason);
    let source = IpAddr::from(event.src);
    kind && (request.reasons.is_empty() || reason.is_some_and(|reason| request.reasons.contains(&reason)))
        && (request.sources.is_empty() || request.sources.iter().any(|net| net.contains(&source)))
        && (request.interfaces.is_empty() || request.interfaces.iter().any(|name| name == interface))
}

fn summary(
    request: &CaptureRequest,
    packets: u64,
    filtered: u64,
    not_sampled: u64,
    missed: u64,
    time: Duration,
) -> String {
    let to = request
        .file
        .as_ref()
        .map_or_else(|| "standard output".to_owned(), |file| file.display().to_string());
    let mut text = format!(
        "{packets} packets written to {to} in {:.1} s; {not_sampled} more were dropped or observed and not sampled",
        time.as_secs_f64()
    );
    if filtered > 0 {
        // Writing to a string cannot fail.
        let _ = write!(text, "; {filtered} samples did not match");
    }
    if missed > 0 {
        let _ = write!(text, "; {missed} samples were overwritten before they were read");
    }
    text
}

/// Samples that the kernel did not take.
fn lost(tables: &ShieldTables) -> Result<u64, LifecycleError> {
    let (over_budget, buffer_full) = tables.lost_samples()?;
    Ok(over_budget + buffer_full)
}

fn open(file: &Path, overwrite: bool) -> Result<File, LifecycleError> {
    let mut options = OpenOptions::new();
    // Packets are nobody else's business.
    options.write(true).mode(0o600);
    if overwrite {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    options.open(file).map_err(|source| LifecycleError::CaptureFile {
        file: file.to_path_buf(),
        help: if source.kind() == io::ErrorKind::AlreadyExists {
            "\n  name another file, or overwrite it with --force"
        } else {
            ""
        },
        source,
    })
}

fn interface_name(index: u32) -> String {
    socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .and_then(|socket| index_to_name(&socket, index))
        .unwrap_or_else(|_| format!("if{index}"))
}

fn writing(source: io::Error) -> LifecycleError {
    LifecycleError::Io {
        what: "writing the capture",
        source,
    }
}
