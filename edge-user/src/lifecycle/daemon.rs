//! `breakwater run`: from a configuration to a running edge, and down again.
//!
//! The order matters: keys are loaded and listeners bound before the shield is attached, so a mistake leaves the
//! machine as it was. A stop leaves the shield working; only the quick start takes it off.

use std::{
    cell::Cell,
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use super::{
    LifecycleError,
    authenticate::TokenGate,
    conductor::{Conductor, Origin},
    earning::Earning,
    enforcer::{Enforcer, Renewal},
    handover::{Inherited, Program, Way},
    manager, quickstart,
    reload::{self, Cause, Order, Phase},
    report::{Reporting, Told},
    shield::Shield,
    verbs,
};
use crate::{
    auth::Authority,
    cli::{ConfigSource, RunRequest},
    config::Config,
    gateway::{Gateway, Handle, Limits, Parts, Pool, RunError, Summary, arrivals},
    kernel::{Pins, loader, pins::Lock},
    offence::{detained::Detained, queue::Reporter},
};

/// Runs until a signal asks for the end. `say` prints to the terminal.
///
/// # Errors
/// It could not start (nothing is left behind then), or the gateway died.
pub fn run(request: RunRequest, bpffs: &Path, say: &mut dyn FnMut(&str)) -> Result<(), LifecycleError> {
    let runtime = verbs::runtime()?;
    let program = Program::own().map_err(LifecycleError::io("finding this program"))?;
    let (way, claim, pool) = match Inherited::take()? {
        Some(Inherited { sockets, claim, way }) => (Some(way), claim, sockets),
        None => (None, None, manager::sockets()),
    };
    let ran = start(
        request,
        bpffs,
        say,
        &runtime,
        program,
        (way.as_ref(), claim, Pool::new(pool)),
    );
    if let (Some(way), Err(error)) = (&way, &ran) {
        way.failed(&error.to_string());
    }
    ran
}

/// What another process hands over: the way to it, the claim on the shield, sockets.
type Given<'w> = (Option<&'w Way>, Option<OwnedFd>, Pool);

fn start(
    request: RunRequest,
    bpffs: &Path,
    say: &mut dyn FnMut(&str),
    runtime: &Runtime,
    program: Program,
    (way, claimed, mut pool): Given<'_>,
) -> Result<(), LifecycleError> {
    let mut prepared = None;
    let pins = Pins::new(bpffs);
    let was_there = pins.exist();
    let has_shield = match &request.source {
        ConfigSource::File { config, .. } => !config.shield.interfaces.is_empty(),
        ConfigSource::Quickstart => true,
    };
    // Before anything of a running daemon's could be touched: its key, its tables.
    let claim = if has_shield {
        loader::check_capabilities()?;
        pins.prepare()?;
        Some(match claimed {
            Some(claimed) => Lock::adopt(claimed),
            None => pins.claim()?,
        })
    } else {
        None
    };
    let mut origin = None;
    let config = match request.source {
        ConfigSource::File { path, config } => {
            let overrides = request.overrides;
            origin = Some(Origin { path, overrides });
            *config
        }
        ConfigSource::Quickstart => {
            let fresh = quickstart::prepare().inspect_err(|_| take_back(&pins, was_there))?;
            let mut config = fresh.config.clone();
            request.overrides.apply(&mut config);
            prepared = Some(fresh);
            config
        }
    };
    if config.shield.interfaces.is_empty() && config.listeners.is_empty() {
        return Err(LifecycleError::Nothing);
    }
    let ran = runtime.block_on(async {
        let stop = Asked::listen()?;
        let authority = load_keys(&config)?;
        let slow = config.offences.slow_per_second.get();
        let detained = Arc::new(Detained::new(Instant::now(), slow));
        let (reporter, offences) = Reporter::new(&config.offences.weights, Arc::clone(&detained));
        let has_shield = !config.shield.interfaces.is_empty();
        let (teller, arrivals) = has_shield
            .then(|| arrivals::channel(config.shield.earned_idle))
            .unzip();
        let earning = Earning::new(arrivals, config.shield.earned_idle);
        let gateway = bind(&config, &authority, reporter.clone(), teller, &mut pool)?;
        let shield = if config.shield.interfaces.is_empty() {
            None
        } else {
            Some(Shield::bring_up(&config, pins.clone(), false).await?)
        };
        authority.spawn_tasks();
        let shielded = shield.as_ref().map_or_else(|| "none".to_owned(), summary);
        tell(shield.as_ref(), gateway.as_ref());
        let pinned = shield
            .as_ref()
            .map(|shield| (shield.pins.clone(), shield.has_cookies));
        let enforcer = Enforcer::new(shield, Renewal::of(&config, None), Arc::clone(&detained), earning);
        let (renew, renewals) = mpsc::channel(1);
        let (begin, begun) = oneshot::channel::<()>();
        let enforcer = tokio::spawn(async move {
            // Only one process enforces.
            let _ = begun.await;
            enforcer.run(offences, renewals).await
        });
        let told = gateway.as_ref().map(|gateway| Told {
            authority: Arc::clone(&authority),
            gateway: gateway.handle(),
            reporter: reporter.clone(),
        });
        let reporting = Cell::new(None);
        let config = Arc::new(config);
        let (reloader, orders) = reload::channel(Arc::clone(&config), Arc::clone(&authority));
        let mut conductor = Conductor {
            origin,
            orders,
            gateway: gateway.as_ref().map(Gateway::handle),
            shield: pinned,
            reporter,
            detained,
            enforcer: renew,
            files: None,
            started: config,
            claim,
            program,
        };
        conductor.follow_files();
        let ready = || {
            let _ = begin.send(());
            reporting.set(told.and_then(|told| Reporting::begin(bpffs, told)));
            tracing::info!("ready");
            if let Some(prepared) = &prepared {
                say(&prepared.banner(&shielded));
            }
        };
        let served = serve(gateway, conductor, stop, way, ready, || drop(reporting.take())).await;
        drop(reloader);
        enforcer.abort();
        drop(reporting);
        served
    });
    // A failed start, and the quick start in any case, leave nothing that was not there.
    if !was_there && (ran.is_err() && !pins.exist() || prepared.is_some()) {
        pins.remove()?;
    }
    ran?;
    tracing::info!("stopped");
    Ok(())
}

/// Removes the pin directories of a start that came to nothing.
fn take_back(pins: &Pins, was_there: bool) {
    if !was_there && let Err(error) = pins.remove() {
        tracing::warn!(%error, "could not take back a failed start");
    }
}

/// Loads every provider's key.
fn load_keys(config: &Config) -> Result<Arc<Authority>, LifecycleError> {
    let revocations = config.revocation_file.as_deref();
    Authority::load(&config.providers, revocations, None, SystemTime::now())
        .map(Arc::new)
        .map_err(LifecycleError::Keys)
}

fn bind(
    config: &Config,
    authority: &Arc<Authority>,
    reporter: Reporter,
    arrivals: Option<arrivals::Teller>,
    pool: &mut Pool,
) -> Result<Option<Gateway>, LifecycleError> {
    if config.listeners.is_empty() {
        return Ok(None);
    }
    let parts = Parts {
        authenticator: Arc::new(TokenGate::new(Arc::clone(authority))),
        offences: Arc::new(reporter),
        arrivals,
        limits: Limits::of(&config.limits),
        pin: true,
    };
    let gateway = Gateway::bind_with(config, parts, pool)?;
    for unused in pool.rest().iter().filter_map(|socket| socket.local_addr().ok()) {
        tracing::warn!(address = %unused, "a socket was handed over that no listener asks for");
    }
    Ok(Some(gateway))
}

/// Interfaces and modes in a few words.
fn summary(shield: &Shield) -> String {
    let all: Vec<String> = shield
        .attached
        .iter()
        .map(|attached| format!("{} ({} mode)", attached.interface, attached.mode))
        .collect();
    format!("on {}", all.join(", "))
}

fn tell(shield: Option<&Shield>, gateway: Option<&Gateway>) {
    for attached in shield.iter().flat_map(|shield| &shield.attached) {
        let interface = attached.interface.as_str();
        tracing::info!(
            interface,
            mode = attached.mode,
            adopted = attached.adopted,
            "shield attached"
        );
        if let Some(why) = &attached.native_refused {
            tracing::warn!(interface, why, "generic mode: native was refused");
        }
    }
    for (listener, address) in gateway.iter().flat_map(|gateway| gateway.addresses()) {
        tracing::info!(listener, %address, "listening");
    }
}

/// Serves until somebody asks for the end or the gateway dies, and carries out what else is asked for.
async fn serve(
    gateway: Option<Gateway>,
    mut conductor: Conductor,
    mut asked: Asked,
    way: Option<&Way>,
    ready: impl FnOnce(),
    mut let_go: impl FnMut(),
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
                    // What came of it is told in the log.
                    let _ = conductor.reload(Cause::Signal).await;
                }
                Ask::Upgrade => if conductor.upgrade(&mut let_go).await.is_ok() {
                    return leave(handle, running, &conductor, asked).await;
                },
            },
            Some(order) = conductor.orders.orders.recv() => match order {
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
                    let done = conductor.upgrade(&mut let_go).await;
                    let upgraded = done.is_ok();
                    let _ = answer.send(done);
                    if upgraded {
                        return leave(handle, running, &conductor, asked).await;
                    }
                }
            },
            () = Conductor::files_changed(&mut conductor.files) => {
                let _ = conductor.reload(Cause::Files).await;
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
struct Asked {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    second_user: Signal,
}

impl Asked {
    fn listen() -> Result<Self, LifecycleError> {
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
