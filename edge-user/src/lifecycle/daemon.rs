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
    enforcer::Enforcer,
    quickstart,
    report::{Reporting, Told},
    shield::Shield,
    verbs,
};
use crate::{
    auth::Authority,
    cli::{ConfigSource, RunRequest},
    config::Config,
    gateway::{Gateway, Handle, Limits, Parts, RunError, Summary},
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
    let config = match request.source {
        ConfigSource::File { config, .. } => *config,
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
        let stop = Stop::listen()?;
        let authority = load_keys(&config)?;
        let slow = config.offences.slow_per_second.get();
        let detained = Arc::new(Detained::new(Instant::now(), slow));
        let (reporter, offences) = Reporter::new(&config.offences.weights, Arc::clone(&detained));
        let gateway = bind(&config, &authority, reporter.clone())?;
        let shield = if config.shield.interfaces.is_empty() {
            None
        } else {
            Some(Shield::bring_up(&config, pins.clone(), false).await?)
        };
        authority.spawn_tasks();
        let shielded = shield.as_ref().map_or_else(|| "none".to_owned(), summary);
        tell(shield.as_ref(), gateway.as_ref());
        // Whom a listener trusts speaks for others, and whom the shield lets through is meant to get through.
        let trusted = config.listeners.iter().flat_map(|listener| {
            let spoken_for = listener.proxy_protocol.iter();
            spoken_for.chain(&listener.trusted_proxies).copied()
        });
        let never: Vec<_> = trusted.chain(config.shield.allow.iter().copied()).collect();
        let escalation = config.shield.escalation;
        let enforcer = Enforcer::new(shield, config.offences.clone(), never, escalation, detained);
        let enforcer = tokio::spawn(enforcer.run(offences));
        let reporting = gateway.as_ref().and_then(|gateway| {
            let told = Told {
                authority: Arc::clone(&authority),
                gateway: gateway.handle(),
                reporter,
            };
            Reporting::begin(bpffs, told)
        });
        let served = serve(gateway, stop, || {
            tracing::info!("ready");
            if let Some(prepared) = &prepared {
                say(&prepared.banner(&shielded));
            }
        })
        .await;
        enforcer.abort();
        drop(reporting);
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
) -> Result<Option<Gateway>, LifecycleError> {
    if config.listeners.is_empty() {
        return Ok(None);
    }
    let parts = Parts {
        authenticator: Arc::new(TokenGate::new(Arc::clone(authority))),
        offences: Arc::new(reporter),
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

/// Serves until a signal comes or the gateway dies.
async fn serve(gateway: Option<Gateway>, mut stop: Stop, ready: impl FnOnce()) -> Result<(), LifecycleError> {
    let Some(gateway) = gateway else {
        ready();
        stop.asked().await;
        return Ok(());
    };
    let handle: Handle = gateway.handle();
    stop.gateway = Some(handle.clone());
    let mut running = tokio::task::spawn_blocking(move || gateway.run());
    tokio::select! {
        () = handle.ready() => ready(),
        ended = &mut running => return finish(ended),
    }
    tokio::select! {
        () = stop.asked() => {
            tracing::info!(connections = handle.connections(), "stopping: finishing what is in flight");
            handle.stop();
        }
        ended = &mut running => return finish(ended),
    }
    tokio::select! {
        ended = running => finish(ended),
        // A second signal does not wait for connections.
        () = stop.asked() => Ok(()),
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

/// SIGINT and SIGTERM.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    /// What has files to open again.
    gateway: Option<Handle>,
}

impl Stop {
    fn listen() -> Result<Self, LifecycleError> {
        let on = |kind| signal(kind).map_err(LifecycleError::io("listening for signals"));
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
            gateway: None,
        })
    }

    /// Waits until somebody asks for the end.
    async fn asked(&mut self) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                _ = self.hangup.recv() => {
                    if let Some(gateway) = &self.gateway {
                        gateway.reopen_access_log();
                        gateway.reload_certificates();
                    }
                    tracing::info!(
                        "SIGHUP: the access log was opened and certificates were read again; what else has changed \
                         in the configuration takes a restart, and the shield stays while it does"
                    );
                }
            }
        }
    }
}
