//! Starting other programs: with a time limit, with what is run shown, with errors that name the command.
//!
//! Never leaves a child behind: what exceeds its limit is ended together with its descendants. Children stay in
//! xtask's own process group, so that Ctrl-C reaches them too.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How often a limited child is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Variables that `cargo run` sets for xtask and that would make an inner cargo believe it builds xtask.
const OF_CARGO_RUN: [&str; 3] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];

/// How a limited child ended.
pub(crate) enum Ended {
    /// By itself.
    Exited(ExitStatus),
    /// By us, at its limit.
    TimedOut,
}

/// The outer cargo, in the workspace, with the environment that a shell would give it.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if OF_CARGO_RUN.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command.current_dir(workspace());
    command
}

/// The workspace's root.
pub(crate) fn workspace() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map_or_else(|| manifest.clone(), PathBuf::from)
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => workspace().join(folder),
        None => workspace().join("target"),
    }
}

/// Runs a command to its end and fails unless it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs a command and returns what it wrote to standard output; fails unless it succeeds.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{} failed ({}): {}",
            shown(command),
            output.status,
            complaint.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command for at most `limit`.
pub(crate) fn run_limited(command: &mut Command, limit: Duration) -> Result<Ended> {
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    wait_limited(&mut child, limit).with_context(|| format!("cannot wait for {}", shown(command)))
}

/// Waits for a child, and ends it with all its descendants at the limit.
pub(crate) fn wait_limited(child: &mut Child, limit: Duration) -> io::Result<Ended> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Ended::Exited(status));
        }
        if Instant::now() >= deadline {
            end(child)?;
            return Ok(Ended::TimedOut);
        }
        thread::sleep(POLL);
    }
}

/// Ends a child and all its descendants.
pub(crate) fn end(child: &mut Child) -> io::Result<()> {
    for pid in descendants(child.id()) {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // One that has just ended by itself is as good as one that we ended.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    child.kill()?;
    child.wait().map(drop)
}

/// The ids of all processes below `root`, nearest first.
fn descendants(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| {
            Some((
                pid,
                parent_in(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?,
            ))
        })
        .collect();
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(&parent) = tree.get(next) {
        tree.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    tree.split_off(1)
}

/// The parent's id in a `/proc/PID/stat` line: the second field after the command, which may hold anything.
fn parent_in(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Passes a stream on line by line while it arrives, and returns all of it.
pub(crate) fn tee(stream: impl Read, mut seen: impl FnMut(&str)) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        seen(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
    }
}

/// A command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// A command that changes the system: as it is for root, through sudo otherwise.
///
/// # Errors
/// Without root and without sudo, says what would have been run.
pub(crate) fn as_root(program: &str, arguments: &[&str]) -> Result<Command> {
    let mut command = if is_root() {
        Command::new(program)
    } else if in_path("sudo") {
        let mut sudo = Command::new("sudo");
        sudo.arg(program);
        sudo
    } else {
        bail!(
            "this needs root, and there is no sudo. As root, run: {program} {}",
            arguments.join(" ")
        );
    };
    command.args(arguments);
    Ok(command)
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether a program is in `PATH`, or in the folders for administrators that a user's `PATH` may lack.
pub(crate) fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_a_hostile_command_name() {
        assert_eq!(parent_in("7 (a) S 1 (b)) R 42 7 7 0"), Some(42));
        assert_eq!(parent_in("nonsense"), None);
    }

    #[test]
    fn the_limit_ends_grandchildren_too() {
        let mut child = Command::new("sh")
            .args(["-c", "sleep 60 & echo $!; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let grandchild = PathBuf::from(format!("/proc/{}/stat", line.trim()));
        assert!(grandchild.exists());
        assert!(matches!(
            wait_limited(&mut child, Duration::from_millis(50)).unwrap(),
            Ended::TimedOut
        ));
        let gone = |stat: &PathBuf| fs::read_to_string(stat).map_or(true, |text| text.contains(") Z "));
        let deadline = Instant::now() + Duration::from_secs(5);
        while !gone(&grandchild) && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        assert!(gone(&grandchild));
    }

    #[test]
    fn lines_are_passed_on_without_their_ends() {
        let mut lines = Vec::new();
        tee(&b"one\r\ntwo\nthr\xffee"[..], |line| lines.push(line.to_owned())).unwrap();
        assert_eq!(lines, ["one", "two", "thr\u{fffd}ee"]);
    }
}
