//! Network namespaces without names.
//!
//! A namespace is made by a thread that unshares and is held by one file descriptor. It ends, with its links, routes and
//! attached XDP programs, when the last descriptor and the last process in it are gone, so a killed test leaves none.
//!
//! Never does: move a thread of the caller. [`Namespace::enter`] runs its job on a thread of its own.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    panic::resume_unwind,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result, bail};
use rustix::{
    process::Pid,
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};

use crate::process;

/// One network namespace.
#[derive(Debug, Clone)]
pub struct Namespace {
    role: String,
    fd: Arc<OwnedFd>,
}

impl Namespace {
    /// Makes an empty namespace whose loopback is up. `role` is for messages.
    pub fn create(role: &str) -> Result<Self> {
        let made = thread::spawn(|| -> Result<OwnedFd> {
            // SAFETY: only the network namespace is unshared; file descriptors stay shared with the process.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("unshare")?;
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        });
        let fd = match made.join() {
            Ok(made) => made.with_context(|| format!("making the network namespace of {role}"))?,
            Err(panic) => resume_unwind(panic),
        };
        let namespace = Self {
            role: role.to_owned(),
            fd: Arc::new(fd),
        };
        namespace.ip_batch(["link set lo up"])?;
        Ok(namespace)
    }

    /// What it was made for.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// A path that other processes can open, for `ip link … netns PATH`; valid while this value lives.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd()).into()
    }

    /// Runs `job` in the namespace. Sockets it makes stay there and work from any thread.
    ///
    /// # Panics
    /// When the job panics, with its panic.
    pub fn enter<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        let result = thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("a held namespace can be entered");
                job()
            });
            inside.join()
        });
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Starts a thread that lives in the namespace.
    pub fn spawn_thread<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let namespace = self.clone();
        thread::spawn(move || {
            move_into_link_name_space(namespace.fd.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("a held namespace can be entered");
            job()
        })
    }

    /// Starts a process in the namespace; it dies with this process.
    pub fn spawn(&self, command: Command) -> std::io::Result<std::process::Child> {
        process::spawn(command, Some(self.fd.clone()))
    }

    /// Runs a process in the namespace to its end and collects its output.
    pub fn output(&self, mut command: Command) -> Result<Output> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let program = command.get_program().to_os_string();
        let child = self
            .spawn(command)
            .with_context(|| format!("starting {}", program.display()))?;
        child
            .wait_with_output()
            .with_context(|| format!("waiting for {}", program.display()))
    }

    /// Runs `ip` with these arguments, separated by blanks, and gives its standard output.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        let mut command = Command::new("ip");
        command.args(arguments.split_ascii_whitespace());
        let output = self.output(command)?;
        if !output.status.success() {
            bail!(
                "{}: ip {arguments}: {}",
                self.role,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs several `ip` commands in one process; stops at the first that fails.
    pub fn ip_batch<S: AsRef<str>>(&self, commands: impl IntoIterator<Item = S>) -> Result<()> {
        let mut text = String::new();
        for command in commands {
            text.push_str(command.as_ref());
            text.push('\n');
        }
        let mut command = Command::new("ip");
        command
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = self.spawn(command).context("starting ip")?;
        let mut stdin = child.stdin.take().expect("stdin is a pipe");
        stdin.write_all(text.as_bytes())?;
        drop(stdin);
        let mut complaint = String::new();
        child
            .stderr
            .take()
            .expect("stderr is a pipe")
            .read_to_string(&mut complaint)?;
        if !child.wait()?.success() {
            bail!(
                "{}: ip -batch: {}; the batch was:\n{text}",
                self.role,
                complaint.trim()
            );
        }
        Ok(())
    }

    /// Writes a sysctl of the namespace, by its path below `/proc/sys/net`.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<()> {
        self.enter(|| fs::write(format!("/proc/sys/net/{path}"), value))
            .with_context(|| format!("{}: setting net/{path} to {value}", self.role))
    }

    /// The processes in the namespace, without this one.
    pub fn processes(&self) -> Vec<Pid> {
        let own = rustix::fs::fstat(&self.fd).expect("a held namespace has an inode");
        process::all()
            .into_iter()
            .filter(|pid| {
                let path = format!("/proc/{}/ns/net", pid.as_raw_nonzero());
                rustix::fs::stat(path)
                    .is_ok_and(|other| (other.st_dev, other.st_ino) == (own.st_dev, own.st_ino))
            })
            .collect()
    }
}
