//! A program that runs while something is measured: its CPU time and memory, and its end.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a program may take to listen, or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program; ended when dropped.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
}

impl Running {
    /// Starts a command, whose words go to a file beside its configuration.
    pub(super) fn start(command: &mut Command, log: &std::path::Path) -> Result<Self> {
        let file = fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {}", crate::process::shown(command)))?;
        Ok(Self { child })
    }

    /// Waits until it listens.
    pub(super) fn listens(&mut self, address: SocketAddr) -> Result<()> {
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("ended at once ({status}); its log is in the output folder");
            }
            if begun.elapsed() > PATIENCE {
                bail!("does not listen on {address}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Its processes: itself and its children.
    fn pids(&self) -> Vec<u32> {
        let own = self.child.id();
        let children = fs::read_dir(format!("/proc/{own}/task"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
            .flat_map(|text| {
                text.split_whitespace()
                    .filter_map(|pid| pid.parse().ok())
                    .collect::<Vec<u32>>()
            });
        std::iter::once(own).chain(children).collect()
    }

    /// CPU time of all its threads, from the scheduler's own account (`/proc/PID/task/*/schedstat`), nanoseconds.
    pub(super) fn cpu_ns(&self) -> u64 {
        self.pids()
            .into_iter()
            .flat_map(|pid| {
                fs::read_dir(format!("/proc/{pid}/task"))
                    .into_iter()
                    .flatten()
                    .flatten()
            })
            .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
            .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
            .sum()
    }

    /// Proportional set size of its processes (`/proc/PID/smaps_rollup`), KiB.
    pub(super) fn pss_kib(&self) -> u64 {
        self.pids()
            .into_iter()
            .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok())
            .filter_map(|text| {
                let line = text.lines().find(|line| line.starts_with("Pss:"))?.to_owned();
                line.split_whitespace().nth(1)?.parse::<u64>().ok()
            })
            .sum()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if begun.elapsed() > PATIENCE {
                let _ = crate::process::end(&mut self.child);
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}
