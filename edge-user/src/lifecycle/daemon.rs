//! `breakwater run`: from a configuration to a running edge, and down again.
//!
//! The order matters: keys are loaded and listeners bound before the shield is attached, so a mistake leaves the
//! machine as it was. A stop leaves the shield working; only the quick start takes it off.

use std::{
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
    thread,
    time::{Instant, SystemTime},
};

use tokio::{
    runtime::Runtime,
    sync::{mpsc, oneshot},
};

use super::{
    LifecycleError,
    authenticate::TokenGate,
    conductor::{Conductor, Origin},
    contents::Contents,
    control::Control,
    earning::Earning,
    enforcer::{Enforcer, Renewal},
    handover::{Inherited, Program, Way},
    manager, quickstart, reload, sandbox,
    serving::{Asked, serve},
    shield::{self, Shield},
    steering, verbs,
};
use crate::{
    admin,
    auth::Authority,
    cli::{ConfigSource, RunRequest},
    config::Config,
    gateway::{Gateway, Handle, Limits, Parts, Pool, arrivals},
    history::Recorder,
    kernel::{Pins, loader, pins::Lock},
    offence::{detained::Detained, queue::Reporter},
    telemetry::traces::Tracer,
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
    let pins = Pins::new(bpffs);
    let was_there = pins.exist();
    let has_shield = match &request.source {
        ConfigSource::File { config, .. } => !config.shield.interfaces.is_empty(),
        ConfigSource::Quickstart => true,
    };
    // Before anything of a running daemon's could be touched: its key, its tables.
    let claim = has_shield.then(|| claim(&pins, claimed)).transpose()?;
    let (config, origin, prepared) = configuration(request).inspect_err(|_| take_back(&pins, was_there))?;
    if config.shield.interfaces.is_empty() && config.listeners.is_empty() {
        return Err(LifecycleError::Nothing);
    }
    make_folder(&config);
    // A process that takes over has inherited what the one before it gave up; the quick start takes everything back.
    if origin.is_some() && way.is_none() && config.lifecycle.sandbox {
        runtime
            .block_on(shield::preflight(&config, &pins))
            .inspect_err(|_| take_back(&pins, was_there))?;
        give_up(&config, bpffs)?;
    }
    let ran = runtime.block_on(async {
        let stop = Asked::listen()?;
        let authority = load_keys(&config)?;
        let detained = Arc::new(Detained::new(
            Instant::now(),
            config.offences.slow_per_second.get(),
        ));
        let (reporter, offences) = Reporter::new(&config.offences.weights, Arc::clone(&detained));
        let has_shield = !config.shield.interfaces.is_empty();
        let (teller, arrivals) = has_shield
            .then(|| arrivals::channel(config.shield.earned_idle))
            .unzip();
        let earning = Earning::new(arrivals, config.shield.earned_idle);
        let gateway = bind(&config, &authority, reporter.clone(), teller, &mut pool)?;
        let bind_admin = || admin::Bound::bind(&config.admin, bpffs, way.is_some());
        // A process that takes over leaves the old one its socket as long as something may fail.
        let early = way.is_none().then(bind_admin).transpose()?;
        let shield = if config.shield.interfaces.is_empty() {
            None
        } else {
            Some(Shield::bring_up(&config, pins.clone(), false).await?)
        };
        let admin = early.map_or_else(bind_admin, Ok)?;
        authority.spawn_tasks();
        let checking = shield
            .as_ref()
            .map(|shield| steering::watch(&config.services, &shield.pins));
        let shielded = tell(shield.as_ref(), gateway.as_ref());
        let pinned = shield.as_ref().map(Shield::pinned);
        let (events, begin) = (Arc::<admin::Events>::default(), Renewal::of(&config, None));
        let enforcer = Enforcer::new(shield, begin, Arc::clone(&detained), earning, Arc::clone(&events));
        let tally = enforcer.tally();
        let (renew, renewals) = mpsc::channel(1);
        let (own, owned) = oneshot::channel::<()>();
        let enforcing = Enforcing::once(owned, enforcer.run(offences, renewals))?;
        let config = Arc::new(config);
        let (reloader, orders) = reload::channel(Arc::clone(&config), Arc::clone(&authority));
        let control = Control {
            reloader,
            pins: pins.clone(),
        };
        let handle = || gateway.as_ref().map(Gateway::handle);
        let recorder = remember(&config, handle(), &events)?;
        let told = (reporter.clone(), tally, Arc::clone(&events));
        let serving = admin.serve(control.context(has_shield, handle(), told, recorder.as_ref()))?;
        let mut conductor = Conductor {
            origin,
            orders,
            gateway: handle(),
            shield: pinned,
            reporter,
            detained,
            enforcer: renew,
            files: None,
            contents: Contents::read(&config),
            started: config,
            claim,
            program,
            checking,
            events,
        };
        conductor.follow_files();
        let ready = || {
            let _ = own.send(());
            if has_shield && way.is_some() {
                // The process before has retired.
                shield::remove_forsaken(&pins, true);
            }
            tracing::info!("ready");
            if let Some(prepared) = &prepared {
                say(&prepared.banner(&shielded));
            }
        };
        let served = serve(gateway, conductor, stop, way, ready).await;
        drop(enforcing);
        drop((serving, recorder));
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

/// The enforcer on a thread of its own: it waits for the lock on the tables, which a reload holds while it waits for others
/// in its own thread. It ends with this.
struct Enforcing {
    end: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Enforcing {
    /// Begins when `owned` says so, or its sender is gone: only one process enforces.
    fn once(
        owned: oneshot::Receiver<()>,
        enforcer: impl Future<Output: Send> + Send + 'static,
    ) -> Result<Self, LifecycleError> {
        Self::start(async move {
            let _ = owned.await;
            enforcer.await;
        })
    }

    fn start(enforcer: impl Future<Output = ()> + Send + 'static) -> Result<Self, LifecycleError> {
        let runtime = verbs::runtime()?;
        let (end, ended) = oneshot::channel();
        let run = async move {
            tokio::select! {
                () = enforcer => {}
                _ = ended => {}
            }
        };
        let thread = thread::Builder::new()
            .name("enforcer".to_owned())
            .spawn(move || runtime.block_on(run))
            .map_err(LifecycleError::io("starting the thread of the enforcer"))?;
        Ok(Self {
            end: Some(end),
            thread: Some(thread),
        })
    }
}

impl Drop for Enforcing {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // One that has panicked has ended too.
            let _ = thread.join();
        }
    }
}

/// The configuration, where it comes from, and what the quick start has made for it.
fn configuration(
    request: RunRequest,
) -> Result<(Config, Option<Origin>, Option<quickstart::Prepared>), LifecycleError> {
    let overrides = request.overrides;
    match request.source {
        ConfigSource::File { path, config } => Ok((*config, Some(Origin { path, overrides }), None)),
        ConfigSource::Quickstart => {
            let fresh = quickstart::prepare()?;
            let mut config = fresh.config.clone();
            overrides.apply(&mut config);
            Ok((config, None, Some(fresh)))
        }
    }
}

/// The right to be the daemon of this shield, taken or taken over.
fn claim(pins: &Pins, claimed: Option<OwnedFd>) -> Result<Lock, LifecycleError> {
    loader::check_capabilities()?;
    pins.prepare()?;
    match claimed.map(Lock::adopt) {
        Some(claim) if claim.is_claim_of(pins) => Ok(claim),
        // It is for the layout of the version before; that process keeps it as long as it may go back.
        Some(_) => Ok(pins.claim()?),
        None => {
            pins.refuse_other_daemons()?;
            Ok(pins.claim()?)
        }
    }
}

/// Gives up what is not needed from here on.
fn give_up(config: &Config, bpffs: &Path) -> Result<(), LifecycleError> {
    let confined = sandbox::confine(sandbox::writable(config, bpffs))?;
    tracing::debug!(?confined, "given up what is not needed");
    if confined.writable.is_none() {
        tracing::info!("this kernel has no Landlock: writing to files is not restricted");
    }
    Ok(())
}

/// Removes the pin directories of a start that came to nothing.
fn take_back(pins: &Pins, was_there: bool) {
    if !was_there && let Err(error) = pins.remove() {
        tracing::warn!(%error, "could not take back a failed start");
    }
}

/// Loads every provider's key.
pub(super) fn load_keys(config: &Config) -> Result<Arc<Authority>, LifecycleError> {
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
        tracer: traces(config)?,
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

/// Makes the folder of the history while that is allowed. What is missing is told when it is written.
fn make_folder(config: &Config) {
    if let Some(folder) = config.history.as_ref().and_then(|history| history.path.parent())
        && let Err(error) = std::fs::create_dir_all(folder)
    {
        tracing::warn!(%error, folder = %folder.display(), "no folder for the history");
    }
}

/// Begins the history, if there is to be one.
fn remember(
    config: &Config,
    gateway: Option<Handle>,
    events: &Arc<admin::Events>,
) -> Result<Option<Recorder>, LifecycleError> {
    let Some(settings) = config.history.clone() else {
        return Ok(None);
    };
    let snapshot = move || {
        gateway
            .as_ref()
            .map_or_else(Vec::new, |handle| handle.counters().routes)
    };
    let (events, mut last) = (Arc::clone(events), 0);
    let version = env!("CARGO_PKG_VERSION");
    let mut begun = Some((
        admin::since_epoch(SystemTime::now()),
        "start".to_owned(),
        version.to_owned(),
    ));
    let news = move || {
        let mut news: Vec<_> = begun.take().into_iter().collect();
        for event in events.after(last) {
            last = event.number;
            // A reload that changes nothing is none.
            if event.work == "reload" && event.state == "done" && !event.detail.starts_with("nothing") {
                news.push((event.at, event.work.to_owned(), event.detail));
            }
        }
        news
    };
    Recorder::start(settings, Box::new(snapshot), Box::new(news))
        .map(Some)
        .map_err(LifecycleError::io("starting the thread of the history"))
}

/// Where sampled requests are handed over, if traces are to be sent.
fn traces(config: &Config) -> Result<Option<Tracer>, LifecycleError> {
    let begin = config.traces.as_ref().map(admin::export_traces);
    begin
        .transpose()
        .map_err(LifecycleError::io("starting the thread that sends traces"))
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

/// Tells what is up; answers with the shield in a few words.
fn tell(shield: Option<&Shield>, gateway: Option<&Gateway>) -> String {
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
    shield.map_or_else(|| "none".to_owned(), summary)
}
