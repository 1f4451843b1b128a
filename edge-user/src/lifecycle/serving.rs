//! A daemon that serves: signals and orders, until the end, and the end itself.
//!
//! Owns the order in which a daemon goes: not ready, no listeners, no connections.

use std::time::Duration;

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{sleep, timeout},
};

use super::{
    LifecycleError,
    conductor::Conductor,
    handover::Way,
    manager,
    reload::{Cause, Order, Phase},
};
use crate::gateway::{Gateway, Handle, RunError, Summary};

/// Serves until somebody asks for the end or the gateway dies, and carries out what else is asked for.
pub(super) async fn serve(
    gateway: Option<Gateway>,
    mut conductor: Conductor,
    mut asked: Asked,
    way: Option<&Way>,
    ready: impl FnOnce(),
) -> Result<(), LifecycleError> {
    let handle = gateway.as_ref().map(Gateway::handle);
    let mut running = gateway.map(|gateway| tokio::task::spawn_blocking(move || gateway.run()));
    if let Some(handle) = &handle {
        tokio::select! {
            () = handle.ready() => {}
            ended = ended(&mut running) => return finish(ended),
        }
    }
    if let Some(way) = way {
        way.ready()
            .map_err(|error| LifecycleError::Handover(error.into()))?;
    }
    conductor.orders.phase.send_replace(Phase::Ready);
    ready();
    manager::ready();
    conductor.store_sockets();
    let watchdog = manager::watchdog();
    let delay = loop {
        tokio::select! {
            signal = asked.next() => match signal {
                // Who sits at a terminal does not wait for a load balancer.
                Ask::Interrupt => break Duration::ZERO,
                Ask::Stop => break conductor.orders.in_force.load().config.lifecycle.drain_delay,
                Ask::Reload => {
                    if let Some(handle) = &handle {
                        handle.reopen_access_log();
                    }
                    conductor.reload_unasked(Cause::Signal).await;
                }
                Ask::Upgrade => if conductor.upgrade().await.is_ok() {
                    return leave(handle, running, &conductor, asked).await;
                },
            },
            Some(order) = conductor.orders.waiting.recv() => match order {
                Order::Reload(cause, answer) => {
                    // Whoever asked may be gone.
                    let _ = answer.send(conductor.reload(cause).await);
                }
                Order::Drain(deadline, answer) => {
                    if let (Some(handle), Some(deadline)) = (&handle, deadline) {
                        handle.set_grace(deadline);
                    }
                    let _ = answer.send(Ok(()));
                    break conductor.orders.in_force.load().config.lifecycle.drain_delay;
                }
                Order::Upgrade(answer) => {
                    let done = conductor.upgrade().await;
                    let upgraded = done.is_ok();
                    let _ = answer.send(done);
                    if upgraded {
                        return leave(handle, running, &conductor, asked).await;
                    }
                }
            },
            () = Conductor::files_changed(&mut conductor.files) => {
                conductor.reload_unasked(Cause::Files).await;
            }
            ended = ended(&mut running) => return finish(ended),
        }
    };
    let drained = drain(handle, running, &conductor, asked, delay).await;
    if let Some(watchdog) = watchdog {
        watchdog.abort();
    }
    drained
}

/// So long connections have after their time is up: to hear of it.
const GOODBYE: Duration = Duration::from_secs(1);

/// Another process has the listeners: connections end with the answer that is due, or when their time is up.
async fn leave(
    handle: Option<Handle>,
    mut running: Option<Running>,
    conductor: &Conductor,
    mut asked: Asked,
) -> Result<(), LifecycleError> {
    conductor.orders.phase.send_replace(Phase::Finishing);
    let Some(handle) = handle else {
        return Ok(());
    };
    let grace = conductor.orders.in_force.load().config.shutdown_grace;
    tracing::info!(
        connections = handle.connections(),
        "the new process accepts: finishing what is open"
    );
    handle.close_listeners();
    handle.leave();
    tokio::select! {
        () = none_left(&handle, grace) => {}
        () = asked.stop() => {}
        ended = ended(&mut running) => return finish(ended),
    }
    handle.set_grace(GOODBYE);
    handle.stop();
    finish(ended(&mut running).await)
}

/// So long connections that came at the last moment have for their first request, and idle ones for one more.
const LAST_CALL: Duration = Duration::from_millis(100);

/// Not ready any more, then no listeners, then no connections.
async fn drain(
    handle: Option<Handle>,
    mut running: Option<Running>,
    conductor: &Conductor,
    mut asked: Asked,
    delay: Duration,
) -> Result<(), LifecycleError> {
    let phase = &conductor.orders.phase;
    phase.send_replace(Phase::Draining);
    manager::stopping();
    if !delay.is_zero() {
        tracing::info!(?delay, "not ready any more: listeners close after the delay");
        tokio::select! {
            () = sleep(delay) => {}
            // A second signal does not wait.
            () = asked.stop() => {}
            ended = ended(&mut running) => return finish(ended),
        }
    }
    phase.send_replace(Phase::Finishing);
    let Some(handle) = handle else {
        return Ok(());
    };
    tracing::info!(
        connections = handle.connections(),
        "stopping: finishing what is in flight"
    );
    handle.leave();
    handle.close_listeners();
    tokio::select! {
        () = none_left(&handle, LAST_CALL) => {}
        ended = ended(&mut running) => return finish(ended),
    }
    handle.stop();
    tokio::select! {
        ended = ended(&mut running) => finish(ended),
        // A second signal does not wait for connections.
        () = asked.stop() => Ok(()),
    }
}

/// Waits until no connection is left, at most this long.
async fn none_left(handle: &Handle, limit: Duration) {
    let gone = async {
        while handle.connections() > 0 {
            sleep(LOOK_AGAIN).await;
        }
    };
    let _ = timeout(limit, gone).await;
}

/// Time between two looks whether connections are left.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

type Running = tokio::task::JoinHandle<Result<Summary, RunError>>;

/// Waits for the gateway to end, for ever if there is none.
async fn ended(running: &mut Option<Running>) -> Result<Result<Summary, RunError>, tokio::task::JoinError> {
    match running {
        Some(running) => running.await,
        None => std::future::pending().await,
    }
}

fn finish(ended: Result<Result<Summary, RunError>, tokio::task::JoinError>) -> Result<(), LifecycleError> {
    let summary = ended.map_err(|error| LifecycleError::Io {
        what: "running the gateway",
        source: std::io::Error::other(error),
    })??;
    if summary.cut > 0 {
        tracing::warn!(
            connections = summary.cut,
            "cut: they did not end within the grace"
        );
    }
    Ok(())
}

/// What a signal asks for.
enum Ask {
    /// The end, by somebody at a terminal.
    Interrupt,
    /// The end.
    Stop,
    /// Files are to be read again.
    Reload,
    /// A new process is to take over.
    Upgrade,
}

/// The signals.
pub(super) struct Asked {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    second_user: Signal,
}

impl Asked {
    pub(super) fn listen() -> Result<Self, LifecycleError> {
        let on = |kind| signal(kind).map_err(LifecycleError::io("listening for signals"));
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
            second_user: on(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next. Cancel safe.
    async fn next(&mut self) -> Ask {
        tokio::select! {
            _ = self.interrupt.recv() => Ask::Interrupt,
            _ = self.terminate.recv() => Ask::Stop,
            _ = self.hangup.recv() => Ask::Reload,
            _ = self.second_user.recv() => Ask::Upgrade,
        }
    }

    /// Waits until somebody asks for the end.
    async fn stop(&mut self) {
        while matches!(self.next().await, Ask::Reload | Ask::Upgrade) {}
    }
}
