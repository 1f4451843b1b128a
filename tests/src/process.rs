//! Child processes that cannot outlive the tests.
//!
//! Every child is started with a parent-death signal. The kernel binds that signal to the *thread* that forked, and a
//! test's helper threads come and go, so one thread that lives as long as the process does all the forking.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::{Child, Command},
    sync::{Arc, LazyLock, mpsc},
    thread,
};

use rustix::{
    process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

type Job = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts `command`, in `namespace` if one is given; it is killed when this process ends in whatever way.
pub fn spawn(mut command: Command, namespace: Option<Arc<OwnedFd>>) -> io::Result<Child> {
    static FORKER: LazyLock<mpsc::Sender<Job>> = LazyLock::new(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, answer) in queue {
                let _ = answer.send(command.spawn());
            }
        });
        jobs
    });

    let parent = Pid::from_raw(i32::try_from(std::process::id()).expect("process ids are positive"));
    // SAFETY: between fork and exec the closure makes three system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            if getppid() != parent {
                return Err(io::Error::other("the parent has ended"));
            }
            if let Some(namespace) = &namespace {
                use std::os::fd::AsFd;
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            }
            Ok(())
        });
    }
    let (answer, result) = mpsc::channel();
    FORKER
        .send((command, answer))
        .expect("the forking thread lives as long as the process");
    result.recv().expect("the forking thread answers every job")
}

/// Kills every process that has an argument containing `needle`, except this one.
pub(crate) fn kill_by_argument(needle: &str) {
    for pid in all() {
        let arguments = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        if String::from_utf8_lossy(&arguments).contains(needle) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Every process on the machine except this one.
pub(crate) fn all() -> Vec<Pid> {
    let own = i32::try_from(std::process::id()).expect("process ids are positive");
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|&pid| pid != own)
        .filter_map(Pid::from_raw)
        .collect()
}
