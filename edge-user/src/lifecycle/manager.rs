//! What the service manager is told (sd_notify(3)), and what it brought: sockets of its own, or those of the process before.
//!
//! Everything here does nothing where there is no manager.

use std::{
    net::TcpListener,
    os::fd::{AsFd as _, BorrowedFd, FromRawFd as _},
    time::Duration,
};

use rustix::net::sockopt::socket_acceptconn;
use sd_notify::NotifyState;
use tokio::{task::JoinHandle, time::MissedTickBehavior};

/// Name of the stored sockets.
const STORED: &str = "listeners";
/// Sockets in one message (net/core/scm.c, `SCM_MAX_FD`).
const AT_ONCE: usize = 64;

/// Sockets that came with the start: by socket activation, or kept for a process that ended.
pub(super) fn sockets() -> Vec<TcpListener> {
    let given = match sd_notify::listen_fds() {
        Ok(given) => given,
        Err(error) => {
            tracing::warn!(%error, "the service manager's sockets cannot be used");
            return Vec::new();
        }
    };
    given
        .filter_map(|descriptor| {
            // SAFETY: the manager has opened it for this process (sd_listen_fds(3)), and nobody else here takes it.
            let socket = unsafe { TcpListener::from_raw_fd(descriptor) };
            let is_listener = socket_acceptconn(&socket).unwrap_or(false);
            let _ = rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC);
            is_listener.then_some(socket)
        })
        .collect()
}

/// It serves.
pub(super) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// It is about to read its configuration again; [`ready`] ends that.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "no clock for the service manager"),
    }
}

/// It is about to end.
pub(super) fn stopping() {
    tell(&[
        NotifyState::Stopping,
        NotifyState::Status("finishing connections"),
    ]);
}

/// Another process is the service from now on.
pub(super) fn succeeded_by(process: u32) {
    tell(&[NotifyState::MainPid(process)]);
}

/// Has the manager keep these sockets, and no others, for a process that comes after this one.
pub(super) fn store(sockets: &[TcpListener]) {
    tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(STORED)]);
    for some in sockets.chunks(AT_ONCE) {
        let descriptors: Vec<BorrowedFd<'_>> = some.iter().map(|socket| socket.as_fd()).collect();
        let state = [NotifyState::FdStore, NotifyState::FdName(STORED)];
        if let Err(error) = sd_notify::notify_with_fds(&state, &descriptors) {
            tracing::debug!(%error, "the service manager does not keep sockets");
        }
    }
}

/// Tells the manager again and again that the daemon's own thread turns; ends when it is aborted.
pub(super) fn watchdog() -> Option<JoinHandle<()>> {
    // The process before this one may have been the one that is named beside it.
    let limit: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    let mut ticks = tokio::time::interval(Duration::from_micros((limit / 3).max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Some(tokio::spawn(async move {
        loop {
            ticks.tick().await;
            tell(&[NotifyState::Watchdog]);
        }
    }))
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager does not listen");
    }
}
