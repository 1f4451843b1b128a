//! `breakwater run`: from a configuration to a running edge, and down again.
//!
//! The order matters: keys are loaded and listeners bound before the shield is attached, so a mistake leaves the
//! machine as it was. A stop leaves the shield working; only the quick start takes it off.

use std::{
    path::Path,
    sync::Arc,
    time::{Instant, SystemTime},
};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    LifecycleError,
    authenticate::TokenGate,
    conductor::{Conductor, Origin},
    control::Control,
    earning::Earning,
    enforcer::Enforcer,
    quickstart,
    reload::{self, Cause, Order, OrderError, Phase},
    shield::Shield,
    steering, verbs,
};
use crate::{
    admin,
    auth::Authority,
    cli::{ConfigSource, RunRequest},
    config::Config,
    gateway::{Gateway, Limits, Parts, RunError, Summary, arrivals},
    kernel::{Pins, loader},
    offence::{detained::Detained, queue::Reporter},
};

/// Runs until a signal asks for the end. `say` prints to the terminal.
///
/// # Errors
/// It could not start (nothing is left behind then), or the gateway died.
pub fn run(request: RunRequest, bpffs: &Path, say: &mut dyn FnMut(&str)) -> Result<(), LifecycleError> {
    let runtime = verbs::runtime()?;
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
        Some(pins.claim()?)
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
        let gateway = bind(&config, &authority, reporter.clone(), teller)?;
        let admin = admin::Bound::bind(&config.admin, bpffs, false)?;
        let shield = if config.shield.interfaces.is_empty() {
            None
        } else {
            Some(Shield::bring_up(&config, pins.clone(), false).await?)
        };
        authority.spawn_tasks();
        let checking = shield
            .as_ref()
            .map(|shield| steering::watch(&config.services, &shield.pins));
        let shielded = shield.as_ref().map_or_else(|| "none".to_owned(), summary);
        tell(shield.as_ref(), gateway.as_ref());
        // Whom a listener trusts speaks for others, and whom the shield lets through is meant to get through.
        let trusted = config.listeners.iter().flat_map(|listener| {
            let spoken_for = listener.proxy_protocol.iter();
            spoken_for.chain(&listener.trusted_proxies).copied()
        });
        let never: Vec<_> = trusted.chain(config.shield.allow.iter().copied()).collect();
        let escalation = config.shield.escalation;
        let enforcer = Enforcer::new(
            shield,
            config.offences.clone(),
            never,
            escalation,
            detained,
            earning,
        );
        let tally = enforcer.tally();
        let enforcer = tokio::spawn(enforcer.run(offences));
        let (reloader, orders) = reload::channel(Arc::new(config), Arc::clone(&authority));
        let control = Control {
            reloader,
            pins: pins.clone(),
        };
        let handle = gateway.as_ref().map(Gateway::handle);
        let serving = admin.serve(control.context(has_shield, handle, reporter, tally))?;
        let conductor = Conductor {
            origin,
            orders,
            gateway: gateway.as_ref().map(Gateway::handle),
        };
        let served = serve(gateway, conductor, stop, || {
            tracing::info!("ready");
            if let Some(prepared) = &prepared {
                say(&prepared.banner(&shielded));
            }
        })
        .await;
        enforcer.abort();
        drop(checking);
        drop(serving);
        served
    });
    // A failed start, and the quick start in any case, leave nothing that was not there.
    if !was_there && (ran.is_err() && !pins.exist() || prepared.is_some()) {
        pins.remove()?;
    }
    ran?;
    drop(claim);
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
    Ok(Some(Gateway::bind(config, parts)?))
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
    conductor.orders.phase.send_replace(Phase::Ready);
    ready();
    loop {
        tokio::select! {
            signal = asked.next() => match signal {
                Ask::Stop => break,
                Ask::Reload => {
                    if let Some(handle) = &handle {
                        handle.reopen_access_log();
                        handle.reload_certificates();
                    }
                    // What came of it is told in the log.
                    let _ = conductor.reload(Cause::Signal).await;
                }
            },
            Some(order) = conductor.orders.orders.recv() => match order {
                Order::Reload(cause, answer) => {
                    // Whoever asked may be gone.
                    let _ = answer.send(conductor.reload(cause).await);
                }
                Order::Drain(_, answer) => {
                    let _ = answer.send(Ok(()));
                    break;
                }
                Order::Upgrade(answer) => {
                    let _ = answer.send(Err(OrderError::NoFile));
                }
            },
            ended = ended(&mut running) => return finish(ended),
        }
    }
    conductor.orders.phase.send_replace(Phase::Finishing);
    let (Some(handle), Some(running)) = (handle, running) else {
        return Ok(());
    };
    tracing::info!(
        connections = handle.connections(),
        "stopping: finishing what is in flight"
    );
    handle.stop();
    tokio::select! {
        ended = running => finish(ended),
        // A second signal does not wait for connections.
        () = asked.stop() => Ok(()),
    }
}

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
    /// The end.
    Stop,
    /// Files are to be read again.
    Reload,
}

/// The signals.
struct Asked {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Asked {
    fn listen() -> Result<Self, LifecycleError> {
        let on = |kind| signal(kind).map_err(LifecycleError::io("listening for signals"));
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    /// Waits for the next. Cancel safe.
    async fn next(&mut self) -> Ask {
        tokio::select! {
            _ = self.interrupt.recv() => Ask::Stop,
            _ = self.terminate.recv() => Ask::Stop,
            _ = self.hangup.recv() => Ask::Reload,
        }
    }

    /// Waits until somebody asks for the end.
    async fn stop(&mut self) {
        while !matches!(self.next().await, Ask::Stop) {}
    }
}
