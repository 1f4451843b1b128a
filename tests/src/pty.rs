//! A terminal of our own, for commands that draw on one.
//!
//! Invariant: a dropped [`Terminal`] has killed what ran on it.

use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex},
    thread,
};

use anyhow::{Context, Result};
use rustix::{
    io::dup,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use crate::{
    netns::Namespace,
    wait::{PATIENCE, eventually, within},
};

/// A command on a terminal.
#[derive(Debug)]
pub struct Terminal {
    master: OwnedFd,
    child: Child,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts `command` on a terminal of `columns` and `rows`.
    pub fn start(namespace: &Namespace, mut command: Command, columns: u16, rows: u16) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).context("making a terminal")?;
        grantpt(&master)?;
        unlockpt(&master)?;
        resize(&master, columns, rows)?;
        let name = ptsname(&master, Vec::new())?;
        let slave = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().context("its name is text")?)?;
        command
            .env("TERM", "xterm-256color")
            .stdin(slave.try_clone()?)
            .stdout(slave.try_clone()?)
            .stderr(slave);
        let child = namespace.spawn(command)?;
        let written = Arc::new(Mutex::new(Vec::new()));
        let mut reader = File::from(dup(&master)?);
        thread::spawn({
            let written = written.clone();
            move || {
                let mut bytes = [0; 4096];
                // An error is the other end's close.
                while let Ok(count @ 1..) = reader.read(&mut bytes) {
                    written.lock().unwrap().extend_from_slice(&bytes[..count]);
                }
            }
        });
        Ok(Self {
            master,
            child,
            written,
        })
    }

    /// Everything that was written to the terminal, escape sequences and all.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    /// Waits until `text` was written after the first `skipped` bytes.
    #[track_caller]
    pub fn wait_for(&self, text: &str, skipped: usize) {
        eventually(format_args!("{text:?} on the terminal"), || {
            let written = self.written.lock().unwrap();
            let new = String::from_utf8_lossy(written.get(skipped..)?).into_owned();
            new.contains(text).then_some(())
        });
    }

    /// Types.
    pub fn type_in(&self, keys: &str) -> Result<()> {
        rustix::io::write(&self.master, keys.as_bytes())?;
        Ok(())
    }

    /// Gives the terminal another size, as a window manager does.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        resize(&self.master, columns, rows)?;
        // The command is no leader of a session with this terminal, so it is told here.
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::WINCH)?;
        Ok(())
    }

    /// Waits for the command's end.
    pub fn wait(mut self) -> Option<(ExitStatus, String)> {
        let status = within(PATIENCE, || self.child.try_wait().ok().flatten())?;
        Some((status, self.written()))
    }
}

fn resize(master: impl AsFd, columns: u16, rows: u16) -> Result<()> {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(tcsetwinsize(master, size)?)
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
