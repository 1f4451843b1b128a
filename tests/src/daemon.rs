//! The `breakwater` binary in a lab: the daemon, and the verbs of its command line.
//!
//! Owns the contract between the tests and the binary:
//! - `breakwater run --config FILE --bpffs DIR --log json` logs JSON lines to standard error, and one whose message is
//!   `ready` when every listener accepts and every program is attached;
//! - every verb that touches kernel state takes `--bpffs DIR`;
//! - SIGTERM ends the daemon with exit code 0 and leaves the shield in place;
//! - a refusal ends with the exit code that `breakwater --help` lists.
//!
//! Invariant: a dropped [`Daemon`] is a dead one.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    lab::{Lab, LabOptions},
    skip,
    wait::{PATIENCE, within},
};

/// Names the binary under test.
pub const BINARY: &str = "BREAKWATER_BIN";

/// Exit code of a command line that is wrong.
pub const USAGE: i32 = 2;
/// Exit code of a configuration that is invalid.
pub const INVALID_CONFIG: i32 = 3;

/// Most log lines kept.
const MAX_LINES: usize = 100_000;

/// The binary under test: [`BINARY`], or the one built beside the running test.
pub fn binary() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(BINARY) {
        return Some(path.into());
    }
    // target/PROFILE/deps/test-HASH: its own profile first.
    let executable = std::env::current_exe().ok()?;
    let profile = executable.parent()?.parent()?;
    let others = ["release", "quick", "debug"].map(|name| profile.with_file_name(name));
    [profile.to_owned()]
        .into_iter()
        .chain(others)
        .map(|directory| directory.join("breakwater"))
        .find(|path| path.is_file())
}

/// A lab for a test of the binary. `None`, after saying why, when this machine or this build cannot.
#[track_caller]
pub fn lab(name: &str) -> Option<Lab> {
    lab_with(name, |options| options)
}

/// [`lab`], configured first.
#[track_caller]
pub fn lab_with(name: &str, configure: impl FnOnce(LabOptions) -> LabOptions) -> Option<Lab> {
    if binary().is_none() {
        skip::report(
            name,
            format_args!("`breakwater` is not built; build it or set {BINARY}"),
        );
        return None;
    }
    configure(Lab::options(name)).build()
}

/// What a finished command left.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// The standard output of a command that succeeded.
    #[track_caller]
    pub fn success(self) -> String {
        assert_eq!(
            self.code,
            Some(0),
            "stdout: {}\nstderr: {}",
            self.stdout,
            self.stderr
        );
        self.stdout
    }

    /// The JSON that a command printed that succeeded.
    #[track_caller]
    pub fn json(self) -> Value {
        let text = self.success();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
    }

    /// The standard error of a command that failed in an orderly way: exit code between 1 and 100, no panic.
    #[track_caller]
    pub fn failure(self) -> String {
        let orderly =
            self.code.is_some_and(|code| (1..=100).contains(&code)) && !self.stderr.contains("panicked");
        assert!(orderly, "exit code {:?}; stderr: {}", self.code, self.stderr);
        assert!(!self.stderr.trim().is_empty(), "a failure says why");
        self.stderr
    }

    /// The standard error of a command that failed with this exit code.
    #[track_caller]
    pub fn failure_with(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "stderr: {}", self.stderr);
        self.failure()
    }
}

/// Runs a verb on the edge, e.g. `["ban", "list", "--json"]`; `--bpffs` with the lab's directory is added.
#[track_caller]
pub fn cli<S: AsRef<str>>(lab: &Lab, arguments: impl AsRef<[S]>) -> Finished {
    let mut command = command();
    command
        .args(arguments.as_ref().iter().map(AsRef::as_ref))
        .arg("--bpffs")
        .arg(lab.bpffs().path());
    finish(lab, command)
}

/// Runs the binary on the edge with these arguments and no other.
#[track_caller]
pub fn bare_cli<S: AsRef<str>>(lab: &Lab, arguments: impl AsRef<[S]>) -> Finished {
    let mut command = command();
    command.args(arguments.as_ref().iter().map(AsRef::as_ref));
    finish(lab, command)
}

/// The binary, with nothing of the surroundings that changes what it prints.
pub fn command() -> Command {
    let mut command = Command::new(binary().expect("the lab was made for the binary"));
    command
        .env_remove("BREAKWATER_LOG")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    command
}

/// Runs to the end, for at most [`PATIENCE`].
fn finish(lab: &Lab, mut command: Command) -> Finished {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = lab.edge().spawn(command).expect("the binary starts");
    let stdout = collect(child.stdout.take().expect("stdout is a pipe"));
    let stderr = collect(child.stderr.take().expect("stderr is a pipe"));
    let Some(status) = wait(&mut child, PATIENCE) else {
        kill(&mut child);
        panic!(
            "the command did not end; stderr: {}",
            stderr.join().unwrap_or_default()
        );
    };
    let text = |reader: thread::JoinHandle<String>| {
        within(PATIENCE, || reader.is_finished().then_some(()))
            .expect("a command that has ended leaves no process that holds its output");
        reader.join().expect("reading a pipe does not panic")
    };
    Finished {
        code: status.code(),
        stdout: text(stdout),
        stderr: text(stderr),
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: Arc<Log>,
}

#[derive(Debug, Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LogState {
    lines: Vec<String>,
    ended: bool,
}

impl Daemon {
    /// Starts the daemon on the edge and waits until it is ready.
    ///
    /// # Panics
    /// When it ends or takes longer than [`PATIENCE`]; the message has its log.
    #[track_caller]
    pub fn start(lab: &Lab, config: &str) -> Self {
        let daemon = Self::spawn(lab, config);
        if let Err(log) = daemon.wait_ready(PATIENCE) {
            panic!("the daemon is not ready; its log:\n{log}\nits configuration:\n{config}");
        }
        daemon
    }

    /// Starts the daemon on the edge and does not wait.
    pub fn spawn(lab: &Lab, config: &str) -> Self {
        Self::spawn_by(lab, config, command())
    }

    /// [`Self::spawn`] with a command of the caller's choice, to which the arguments are added.
    pub fn spawn_by(lab: &Lab, config: &str, mut command: Command) -> Self {
        let file = lab.write("breakwater.toml", config);
        command
            .arg("run")
            .arg("--config")
            .arg(file)
            .arg("--bpffs")
            .arg(lab.bpffs().path());
        command
            .args(["--log", "json"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = lab.edge().spawn(command).expect("the binary starts");
        let log = Arc::new(Log::default());
        let stderr = child.stderr.take().expect("stderr is a pipe");
        thread::spawn({
            let log = log.clone();
            move || follow(stderr, &log)
        });
        Self { child, log }
    }

    /// Waits until a log line says `ready`. The error is the log, when the daemon ended or the limit passed.
    pub fn wait_ready(&self, limit: Duration) -> Result<(), String> {
        let found = self
            .log
            .wait(limit, |lines| lines.iter().any(|line| is_ready(line)));
        if found { Ok(()) } else { Err(self.log().join("\n")) }
    }

    /// Waits until a log line contains `text`; whether one did.
    pub fn logged(&self, text: &str, limit: Duration) -> bool {
        self.log
            .wait(limit, |lines| lines.iter().any(|line| line.contains(text)))
    }

    /// The log so far.
    pub fn log(&self) -> Vec<String> {
        self.log.state.lock().unwrap().lines.clone()
    }

    /// Asks the daemon to stop; does not wait.
    pub fn ask_to_stop(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits for the daemon to end.
    #[track_caller]
    pub fn wait(mut self) -> ExitStatus {
        match wait(&mut self.child, PATIENCE) {
            Some(status) => status,
            None => panic!("the daemon does not end; its log:\n{}", self.log().join("\n")),
        }
    }

    /// Stops the daemon as a service manager does; it has to end with exit code 0.
    #[track_caller]
    pub fn sigterm(self) {
        self.ask_to_stop();
        let log = self.log.clone();
        let status = self.wait();
        assert!(
            status.success(),
            "{status}; the log:\n{}",
            log.state.lock().unwrap().lines.join("\n")
        );
    }

    /// Waits for a daemon that was asked to stop; it has to end with exit code 0.
    #[track_caller]
    pub fn ended_well(self) {
        let status = self.wait();
        assert!(status.success(), "{status}");
    }

    /// Whether its process has ended.
    ///
    /// # Panics
    /// It cannot be asked.
    pub fn has_ended(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("a child can be waited for")
            .is_some()
    }

    /// Kills the daemon; it has no chance to do anything about it.
    #[track_caller]
    pub fn sigkill(self) {
        self.signal(Signal::KILL);
        let status = self.wait();
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{status}");
    }

    /// Its process.
    ///
    /// # Panics
    /// The kernel gave it none.
    pub fn id(&self) -> Pid {
        i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a child has a process id")
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// It was waited for.
    pub fn signal(&self, signal: Signal) {
        let pid = self.id();
        kill_process(pid, signal).expect("a child that was not waited for can be signalled");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        kill(&mut self.child);
        if thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log().join("\n"));
        }
    }
}

impl Log {
    /// Waits until `found` holds of the lines, at most until the log ends or `limit` passes.
    fn wait(&self, limit: Duration, found: impl Fn(&[String]) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.state.lock().unwrap();
        loop {
            if found(&state.lines) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }
}

fn follow(stderr: impl Read, log: &Log) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        let mut state = log.state.lock().unwrap();
        if state.lines.len() < MAX_LINES {
            state.lines.push(line);
        }
        log.changed.notify_all();
    }
    log.state.lock().unwrap().ended = true;
    log.changed.notify_all();
}

/// A JSON line whose message is `ready`; the message is a field or stands at the top.
fn is_ready(line: &str) -> bool {
    let Ok(entry) = serde_json::from_str::<Value>(line) else {
        return false;
    };
    [entry.pointer("/fields/message"), entry.pointer("/message")]
        .into_iter()
        .flatten()
        .any(|message| message == "ready")
}

fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    within(limit, || child.try_wait().expect("a child can be waited for"))
}

fn kill(child: &mut Child) {
    // Both fail only when it has ended already.
    let _ = child.kill();
    let _ = child.wait();
}
