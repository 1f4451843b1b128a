//! The gateway: listener -> route -> authenticate -> limit -> balance -> forward.
//!
//! One worker a core: a thread with its own runtime, its own listening sockets (`SO_REUSEPORT`), its own upstream
//! connections and its own counters. On a request's path nothing is locked and no other core is woken.
//!
//! The stages hand proofs on: [`route::Routed`], [`authenticate::Permitted`], [`limit::Admitted`],
//! [`balance::Target`]; only a target can be forwarded, so forwarding what was not authenticated does not compile.
//! The strict [`gate`], the one normalised [`path`] and the one [`header_policy`] are shared by every codec.
//!
//! Never here: eBPF, configuration files, the meaning of a token.
//!
//! Invariants: every refusal has a [`refusal::Reason`] and a counter; a client never learns an upstream's name or
//! an error's text; everything that a peer can make grow is bounded by [`limits`].

use std::{
    net::SocketAddr,
    num::NonZeroUsize,
    sync::{Arc, OnceLock, atomic::AtomicU64, mpsc},
    thread,
    time::Instant,
};

use arc_swap::ArcSwap;
use tokio::{runtime::RuntimeMetrics, sync::watch};

use crate::{
    config::{self, Config},
    offence::OffenceSink,
    telemetry::{
        access::{self, AccessLog, WriterFault},
        traces::Tracer,
    },
    upstream::supervisor::Supervisor,
};

pub mod answer;
pub mod arrivals;
pub mod authenticate;
pub mod balance;
pub mod changes;
pub mod client;
pub mod closing;
pub mod coding;
pub mod connections;
pub mod cors;
pub mod counters;
pub mod demo;
mod door;
pub mod durations;
mod entrance;
mod exchange;
pub mod explain;
pub mod fan_out;
mod frame_guard;
pub mod gate;
mod h1_codec;
mod handle;
pub mod header_policy;
mod hyper_codec;
pub mod limit;
pub mod limits;
pub mod listen;
pub mod path;
mod patience;
pub mod plan;
pub mod pool;
pub mod provenance;
pub mod proxy_protocol;
pub mod refusal;
pub mod renewal;
mod request_id;
pub mod route;
mod socket;
mod stages;
pub mod tax;
pub mod template;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
mod trace;
mod worker;

pub use authenticate::{Authenticate, Denial, Identity, NoTokens, Permit, Wait};
pub use client::Client;
pub use closing::Closing;
pub use counters::CountersSnapshot;
pub use gate::Request;
pub use handle::Handle;
pub use limit::plan::LimitSnapshot;
pub use limits::Limits;
pub use listen::BindError;
pub use plan::{Plan, PlanError};
pub use pool::Pool;
pub use refusal::Reason;
pub use renewal::Renewal;
pub use tls::TlsFault;

use closing::ClosingCounters;
use connections::Connections;
use door::Door;
use entrance::Entrance;
use listen::Sockets;
use tls::Terminator;

/// What the gateway is made of, beside its configuration.
#[derive(Clone)]
pub struct Parts {
    /// Who understands tokens.
    pub authenticator: Arc<dyn Authenticate>,
    /// Where offences are reported.
    pub offences: Arc<dyn OffenceSink>,
    /// Where it is told whose connections were accepted, if anybody wants to know.
    pub arrivals: Option<arrivals::Teller>,
    /// Where sampled requests are told about.
    pub tracer: Option<Tracer>,
    /// Bounds.
    pub limits: Limits,
    /// Tie each worker to a CPU.
    pub pin: bool,
}

/// Why a gateway could not be set up. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The configuration cannot be served.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A listener could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The access log could not be opened.
    #[error(transparent)]
    AccessLog(#[from] WriterFault),
    /// The thread that looks after upstreams could not be started.
    #[error("cannot start the thread that looks after upstreams")]
    Supervisor(#[source] std::io::Error),
    /// A listener's certificates cannot be used.
    #[error("listener {listener}: {source}")]
    Tls {
        /// Name of the listener.
        listener: String,
        /// Why.
        source: TlsFault,
    },
}

/// Why a gateway that was set up could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A worker's thread or runtime could not be made.
    #[error("cannot start gateway worker {worker}")]
    Worker {
        /// Index of the worker.
        worker: usize,
        /// Why.
        source: std::io::Error,
    },
    /// A worker ended by a panic.
    #[error("gateway worker {worker} died")]
    Died {
        /// Index of the worker.
        worker: usize,
    },
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Connections that were cut when the grace ran out.
    pub cut: usize,
}

/// What workers share.
pub(crate) struct Shared {
    plan: ArcSwap<Plan>,
    supervisor: Supervisor,
    parts: Parts,
    /// Bounds in force; those of `parts` are what they were at the start.
    limits: ArcSwap<Limits>,
    entrances: ArcSwap<Vec<Arc<Entrance>>>,
    /// By worker.
    orders: Vec<tokio::sync::mpsc::Sender<worker::Order>>,
    connections: Connections,
    closings: Vec<ClosingCounters>,
    runtimes: Vec<OnceLock<RuntimeMetrics>>,
    leave: watch::Receiver<bool>,
    stop: watch::Receiver<bool>,
    ready: watch::Sender<usize>,
    grace_ms: AtomicU64,
    /// Where the limits' clock begins.
    begun: Instant,
    access: Option<AccessLog>,
}

/// A gateway whose listeners are bound.
pub struct Gateway {
    shared: Arc<Shared>,
    signals: Arc<Signals>,
    sockets: Vec<Sockets>,
    orders: Vec<tokio::sync::mpsc::Receiver<worker::Order>>,
    addresses: Vec<(String, SocketAddr)>,
    workers: usize,
    writer: Option<thread::JoinHandle<()>>,
}

/// What workers are told.
struct Signals {
    /// Connections are to end after the answer that is due.
    leave: watch::Sender<bool>,
    /// Connections are to end.
    stop: watch::Sender<bool>,
}

impl Gateway {
    /// Compiles the configuration and binds every listener once per worker.
    ///
    /// # Errors
    /// A route that cannot be served, or a listener that cannot be bound; nothing stays bound then.
    pub fn bind(config: &Config, parts: Parts) -> Result<Self, SetupError> {
        Self::bind_with(config, parts, &mut Pool::default())
    }

    /// As [`Self::bind`]; listeners take sockets at their addresses out of `pool` first.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn bind_with(config: &Config, parts: Parts, pool: &mut Pool) -> Result<Self, SetupError> {
        let workers = worker_count(config);
        let plan = Plan::compile(config, Arc::clone(&parts.authenticator), workers, None)?;
        let doors = doors(config)?;
        let (orders, taken): (Vec<_>, Vec<_>) = (0..workers)
            .map(|_| tokio::sync::mpsc::channel(worker::MAX_ORDERS))
            .unzip();
        let supervisor = Supervisor::start().map_err(SetupError::Supervisor)?;
        supervisor.keep(plan.upstreams());
        let listen::Bound {
            by_worker: sockets,
            addresses,
            mut beyond,
        } = listen::bind(&config.listeners, workers, pool)?;
        let mut entrances = Vec::with_capacity(doors.len());
        let bound = config.listeners.iter().zip(&addresses).zip(doors).enumerate();
        for (index, ((listener, (_, address)), door)) in bound {
            let own = sockets.iter().filter_map(|worker| worker.get(index));
            let more = beyond.get_mut(index).map(std::mem::take).unwrap_or_default();
            let all = own.chain(&more);
            let entrance = Arc::new(listen::entrance(listener, *address, door, all)?);
            // Each socket has a queue of its own that somebody must take from.
            for (socket, orders) in more.into_iter().zip(orders.iter().cycle()) {
                if orders
                    .try_send(worker::Order::Open(Arc::clone(&entrance), socket))
                    .is_err()
                {
                    tracing::error!(listener = listener.name, "too many sockets were handed over");
                }
            }
            entrances.push(entrance);
        }
        let (access, writer) = access_log(&config.access_log)?.unzip();
        let (leave, leaving) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        let connections = Connections::new(parts.limits.connections, parts.limits.connections_per_peer);
        let shared = Arc::new(Shared {
            plan: ArcSwap::from_pointee(plan),
            supervisor,
            limits: ArcSwap::from_pointee(parts.limits.clone()),
            parts,
            entrances: ArcSwap::from_pointee(entrances),
            orders,
            connections,
            closings: (0..workers).map(|_| ClosingCounters::default()).collect(),
            runtimes: (0..workers).map(|_| OnceLock::new()).collect(),
            leave: leaving,
            stop: stopped,
            ready: watch::channel(0).0,
            grace_ms: AtomicU64::new(u64::try_from(config.shutdown_grace.as_millis()).unwrap_or(u64::MAX)),
            begun: Instant::now(),
            access,
        });
        Ok(Self {
            shared,
            signals: Arc::new(Signals { leave, stop }),
            sockets,
            orders: taken,
            addresses,
            workers,
            writer,
        })
    }

    /// Name and address of each listener; the real port where the configuration says 0.
    pub fn addresses(&self) -> &[(String, SocketAddr)] {
        &self.addresses
    }

    /// A hold on this gateway.
    pub fn handle(&self) -> Handle {
        Handle {
            shared: Arc::clone(&self.shared),
            signals: Arc::clone(&self.signals),
            workers: self.workers,
        }
    }

    /// Serves until [`Handle::stop`], then until every connection has ended or the grace has run out. Blocks.
    ///
    /// # Errors
    /// A worker that could not start or died; the others are stopped then.
    pub fn run(self) -> Result<Summary, RunError> {
        let watching = watch_certificates(&self.shared);
        let (ended, ends) = mpsc::channel();
        let mut threads = Vec::with_capacity(self.workers);
        for (index, (sockets, orders)) in self.sockets.into_iter().zip(self.orders).enumerate() {
            let (shared, ended) = (Arc::clone(&self.shared), ended.clone());
            let spawned = thread::Builder::new()
                .name(format!("gateway-{index}"))
                .spawn(move || {
                    let result = worker::run(index, sockets, orders, &shared);
                    // The receiver outlives every worker; if it is gone there is nobody to tell.
                    let _ = ended.send(index);
                    result
                });
            match spawned {
                Ok(thread) => threads.push(thread),
                Err(source) => {
                    self.signals.stop.send_replace(true);
                    return Err(RunError::Worker {
                        worker: index,
                        source,
                    });
                }
            }
        }
        drop(ended);
        let (mut cut, mut failure) = (0, None);
        // Whichever worker ends first takes the others with it: a gateway with half its workers is no gateway.
        if ends.recv().is_ok() {
            for entrance in self.shared.entrances.load().iter() {
                entrance.close();
            }
            self.signals.stop.send_replace(true);
        }
        for (worker, thread) in threads.into_iter().enumerate() {
            match thread.join() {
                Ok(Ok(left)) => cut += left,
                Ok(Err(source)) => failure = failure.or(Some(RunError::Worker { worker, source })),
                Err(_) => failure = failure.or(Some(RunError::Died { worker })),
            }
        }
        drop(watching);
        if let (Some(access), Some(writer)) = (&self.shared.access, self.writer) {
            access.stop();
            // A writer that panicked has written what it could.
            let _ = writer.join();
        }
        failure.map_or(Ok(Summary { cut }), Err)
    }
}

/// The configured number of workers, or one per CPU that this process may use.
fn worker_count(config: &Config) -> usize {
    config.workers.map_or_else(
        || thread::available_parallelism().map_or(1, NonZeroUsize::get),
        |workers| usize::try_from(workers.get()).unwrap_or(1),
    )
}

/// Opens the access log, if there is to be one.
fn access_log(
    config: &config::AccessLog,
) -> Result<Option<(AccessLog, thread::JoinHandle<()>)>, WriterFault> {
    if !config.enabled {
        return Ok(None);
    }
    let target = config
        .file
        .clone()
        .map_or(access::Target::Stderr, access::Target::File);
    let format = match config.format {
        config::AccessFormat::Json => access::Format::Json,
        config::AccessFormat::Clf => access::Format::Clf,
    };
    AccessLog::open(target, format).map(Some)
}

fn doors(config: &Config) -> Result<Vec<Door>, SetupError> {
    let door = |listener: &config::Listener| {
        Door::new(listener, None).map_err(|source| SetupError::Tls {
            listener: listener.name.clone(),
            source,
        })
    };
    config.listeners.iter().map(door).collect()
}

fn terminators(shared: &Shared) -> Vec<Arc<Terminator>> {
    let entrances = shared.entrances.load();
    let doors = entrances.iter().map(|entrance| entrance.door());
    doors.filter_map(|door| door.tls().cloned()).collect()
}

/// Starts the thread that follows certificate files; it ends once the sender is dropped.
fn watch_certificates(shared: &Arc<Shared>) -> Option<mpsc::Sender<()>> {
    let (watching, stop) = mpsc::channel();
    let shared = Arc::clone(shared);
    let spawned = thread::Builder::new()
        .name("certificates".to_owned())
        .spawn(move || tls::watch::run(|| terminators(&shared), &stop));
    match spawned {
        Ok(_) => Some(watching),
        Err(error) => {
            tracing::error!(%error, "certificate files are not watched");
            None
        }
    }
}
