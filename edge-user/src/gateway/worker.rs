//! One worker: a thread, a runtime, its sockets, and what its connections share.

use std::{
    cell::{Cell, RefCell},
    hash::RandomState,
    io,
    net::IpAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::{
    net::TcpListener,
    runtime::{Builder, LocalOptions},
    sync::{Semaphore, mpsc, watch},
    task::spawn_local,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    Shared,
    arrivals::Doorman,
    balance::Choosers,
    closing::{Closing, ClosingCounters},
    counters::WorkerCounters,
    entrance::Entrance,
    exchange::Exchange,
    gate::Request,
    h1_codec, hyper_codec,
    limits::{Codec, Limits},
    listen::Sockets,
    plan::Plan,
    provenance::Provenance,
    refusal::{Reason, Refusal},
    request_id::{RequestId, RequestIds},
    route::{self, Routed},
    stages::{self, Decision, Ground},
};
use crate::{
    offence::{OffenceKind, Offender, detained::Custody},
    telemetry::{access, traces::Tracer},
    upstream::quiet,
};

mod reception;

pub(crate) use reception::Counted;
use reception::accept;

/// How often idle upstream connections are looked through.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// A plan, and what one worker keeps about it.
pub(crate) struct Site {
    plan: Arc<Plan>,
    counters: Arc<WorkerCounters>,
    choosers: Choosers,
    identity_fields: Arc<[String]>,
}

impl Site {
    /// What `previous` knows of upstreams that are the same goes on.
    fn new(plan: Arc<Plan>, worker: usize, previous: Option<&Choosers>) -> Self {
        let counters = plan.counters().worker(worker).unwrap_or_default();
        Self {
            counters,
            choosers: Choosers::new(&plan, worker, previous),
            identity_fields: plan.identity_fields().into(),
            plan,
        }
    }

    /// The plan.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// This worker's views of the upstreams.
    pub(crate) fn choosers(&self) -> &Choosers {
        &self.choosers
    }

    /// Names of the fields that a permit may set, in lower case.
    pub(crate) fn identity_fields(&self) -> &Arc<[String]> {
        &self.identity_fields
    }

    /// This worker's counters.
    pub(crate) fn counters(&self) -> &WorkerCounters {
        &self.counters
    }
}

/// What the connections of one worker share; never leaves its thread.
pub(crate) struct Worker {
    index: usize,
    shared: Arc<Shared>,
    site: RefCell<Rc<Site>>,
    limits: RefCell<Rc<Limits>>,
    ids: RequestIds,
    open: Cell<usize>,
    /// Tells whose connections were accepted, if anybody wants to know.
    doorman: Option<Doorman>,
    /// The access log's, if there is one.
    lines: Option<RefCell<access::Lines>>,
    /// Handshakes sign one at a time.
    turns: Semaphore,
    hyper: hyper_codec::client::Links<hyper_codec::body::RequestBody>,
    side: hyper_codec::side::SideLinks,
    h1: h1_codec::Local,
}

impl Worker {
    /// The plan in force now.
    pub(crate) fn site(&self) -> Rc<Site> {
        let current = self.shared.plan.load();
        let mut site = self.site.borrow_mut();
        if !Arc::ptr_eq(&site.plan, &current) {
            *site = Rc::new(Site::new(Arc::clone(&current), self.index, Some(&site.choosers)));
            self.limits
                .replace(Rc::new(Limits::clone(&self.shared.limits.load())));
        }
        Rc::clone(&site)
    }

    /// Bounds.
    pub(crate) fn limits(&self) -> Rc<Limits> {
        Rc::clone(&self.limits.borrow())
    }

    /// A new request's id.
    pub(crate) fn next_id(&self) -> RequestId {
        self.ids.next()
    }

    /// Reports an offence.
    pub(crate) fn offence(&self, offender: Offender, kind: OffenceKind) {
        self.shared.parts.offences.offence(offender, kind);
    }

    /// Whether anybody wants to know about requests; to be asked before a record is put together.
    pub(crate) fn is_told(&self) -> bool {
        self.lines.is_some()
    }

    /// Where sampled requests are handed over, if traces are sent.
    pub(crate) fn tracer(&self) -> Option<&Tracer> {
        self.shared.parts.tracer.as_ref()
    }

    /// Tells about one request.
    pub(crate) fn tell(&self, record: &access::Record<'_>) {
        if let Some(lines) = &self.lines {
            lines.borrow_mut().add(record, SystemTime::now());
        }
    }

    /// Counts and reports why a connection was closed.
    pub(crate) fn closed(&self, offender: Offender, closing: Closing) {
        if let Some(counters) = self.shared.closings.get(self.index) {
            ClosingCounters::count(counters, closing);
        }
        if let Some(kind) = closing.offence() {
            self.offence(offender, kind);
        }
    }

    /// Whether connections are to end with the answer that is due.
    pub(crate) fn is_leaving(&self) -> bool {
        self.h1.timers().is_stopping() || *self.shared.leave.borrow()
    }

    /// Tells when connections are to end with the answers that are due.
    pub(crate) fn leave(&self) -> watch::Receiver<bool> {
        self.shared.leave.clone()
    }

    /// Whether a stop was asked for.
    pub(crate) fn is_stopping(&self) -> bool {
        self.h1.timers().is_stopping() || *self.shared.stop.borrow()
    }

    /// Tells when a stop is asked for.
    pub(crate) fn stop(&self) -> watch::Receiver<bool> {
        self.shared.stop.clone()
    }

    /// Upstream connections of the hyper codec.
    pub(crate) fn hyper_links(&self) -> &hyper_codec::client::Links<hyper_codec::body::RequestBody> {
        &self.hyper
    }

    /// Upstream connections of requests beside those that clients wait for.
    pub(crate) fn side_links(&self) -> &hyper_codec::side::SideLinks {
        &self.side
    }

    /// What the codec by bytes shares among its connections.
    pub(crate) fn h1(&self) -> &h1_codec::Local {
        &self.h1
    }

    /// Keeps out whom the kernel cannot keep out.
    fn hold(&self, exchange: &Exchange) -> Result<(), Refusal> {
        let (client, now) = exchange.arrival();
        let sink = &self.shared.parts.offences;
        match sink.custody(client, now) {
            None | Some(Custody::NewRefused) => Ok(()),
            Some(Custody::Refused) => Err(Reason::Banned.into()),
            Some(Custody::Slowed) if sink.slowed(client, now) => Ok(()),
            Some(Custody::Slowed) => {
                let mut refusal = Refusal::new(Reason::Slowed);
                refusal.fields.push(("retry-after", "1".to_owned()));
                Err(refusal)
            }
        }
    }

    /// Whether a new connection of a client is refused.
    fn is_kept_out(&self, client: IpAddr) -> bool {
        let custody = self.shared.parts.offences.custody(client, Instant::now());
        matches!(custody, Some(Custody::Refused | Custody::NewRefused))
    }

    /// Takes a judged request through the stages. Waits for nothing but a key that may be on its way.
    pub(crate) async fn decide(
        &self,
        exchange: &mut Exchange,
        request: &Request<'_>,
        provenance: &Provenance,
        codec: Codec,
    ) -> Result<Decision, Refusal> {
        exchange.asked(request);
        let site = Rc::clone(exchange.site());
        let plan = site.plan();
        let routed = route::route(plan, request)?;
        exchange.routed(routed.route());
        let route = plan.route(routed.route());
        if codec == Codec::Bytes && plan.wants_hyper(routed.route()) {
            return Ok(Decision::Declined);
        }
        self.hold(exchange)?;
        let decision = self.admit(exchange, request, routed, provenance).await;
        exchange.decided(Instant::now());
        decision.map_err(|mut refusal| {
            // A page may read why it was refused.
            if let Some(cors) = &route.cors {
                cors.mark(request, &mut refusal);
            }
            refusal
        })
    }

    /// The stages after the route.
    async fn admit(
        &self,
        exchange: &mut Exchange,
        request: &Request<'_>,
        routed: Routed,
        provenance: &Provenance,
    ) -> Result<Decision, Refusal> {
        let site = Rc::clone(exchange.site());
        let (limits, id) = (self.limits(), *exchange.id());
        let ground = Ground {
            plan: site.plan(),
            choosers: &site.choosers,
            limits: &limits,
            asker: exchange.asker(self.shared.begun),
            client: exchange.client_address(),
            told: provenance.address(),
            scheme: provenance.scheme(),
            request_id: id.as_str(),
        };
        stages::admit(ground, exchange, request, routed).await
    }
}

/// Serves on `sockets` until a stop; answers with the number of connections that had to be cut.
pub(crate) fn run(
    index: usize,
    sockets: Sockets,
    orders: mpsc::Receiver<Order>,
    shared: &Arc<Shared>,
) -> io::Result<usize> {
    if shared.parts.pin {
        pin(index);
    }
    let runtime = Builder::new_current_thread()
        .enable_all()
        .on_thread_unpark(quiet::looked)
        .build_local(LocalOptions::default())?;
    if let Some(metrics) = shared.runtimes.get(index) {
        // Nobody has set it before: a worker begins once.
        let _ = metrics.set(runtime.metrics());
    }
    let left = runtime.block_on(serve(index, sockets, orders, shared))?;
    // Tasks that are left are cut here: the runtime drops them.
    runtime.shutdown_timeout(Duration::ZERO);
    Ok(left)
}

async fn serve(
    index: usize,
    sockets: Sockets,
    mut orders: mpsc::Receiver<Order>,
    shared: &Arc<Shared>,
) -> io::Result<usize> {
    let worker = Rc::new(Worker {
        index,
        shared: Arc::clone(shared),
        site: RefCell::new(Rc::new(Site::new(shared.plan.load_full(), index, None))),
        limits: RefCell::new(Rc::new(Limits::clone(&shared.limits.load()))),
        ids: RequestIds::new(index),
        open: Cell::new(0),
        doorman: shared
            .parts
            .arrivals
            .clone()
            .map(|teller| Doorman::new(teller, RandomState::new(), Instant::now())),
        turns: Semaphore::new(1),
        lines: shared.access.as_ref().map(|access| RefCell::new(access.lines())),
        hyper: hyper_codec::client::Links::default(),
        side: hyper_codec::side::SideLinks::default(),
        h1: h1_codec::Local::new(Instant::now(), SystemTime::now()),
    });
    for (socket, entrance) in sockets.into_iter().zip(shared.entrances.load().iter()) {
        let listener = TcpListener::from_std(socket)?;
        spawn_local(accept(Rc::clone(&worker), listener, Arc::clone(entrance)));
    }
    let sweeper = spawn_local(sweep(Rc::clone(&worker)));
    shared.ready.send_modify(|count| *count += 1);
    // The sender lives as long as the gateway; if it is gone, that is a stop too.
    let mut stop = worker.stop();
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            Some(order) = orders.recv() => order.carry_out(&worker),
        }
    }
    worker.h1.timers().stop();
    let grace = Duration::from_millis(shared.grace_ms.load(Ordering::Relaxed));
    let drained = timeout(grace, async {
        while worker.open.get() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    });
    let left = drained.await.map_or_else(|_| worker.open.get(), |()| 0);
    sweeper.abort();
    Ok(left)
}

/// Orders that may wait for a worker.
pub(crate) const MAX_ORDERS: usize = 64;

/// What a worker is told to do while it runs.
pub(crate) enum Order {
    /// Accept here, too.
    Open(Arc<Entrance>, std::net::TcpListener),
}

impl Order {
    fn carry_out(self, worker: &Rc<Worker>) {
        let Self::Open(entrance, socket) = self;
        match TcpListener::from_std(socket) {
            Ok(listener) => {
                spawn_local(accept(Rc::clone(worker), listener, entrance));
            }
            // The other workers have theirs.
            Err(error) => tracing::error!(%error, listener = entrance.door().name(), "not accepting"),
        }
    }
}

/// Keeps the connections' deadlines, and closes upstream connections that were idle for too long.
async fn sweep(worker: Rc<Worker>) {
    let mut ticks = interval(h1_codec::TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next = Instant::now();
    loop {
        ticks.tick().await;
        let now = Instant::now();
        worker.h1.timers().tick(now, SystemTime::now());
        if let Some(lines) = &worker.lines {
            lines.borrow_mut().flush();
        }
        if now >= next {
            next = now + SWEEP_EVERY;
            worker.hyper.sweep(now);
            worker.side.sweep(now);
            worker.h1.links().sweep(now);
        }
    }
}

/// Ties this thread to the `index`th CPU that the process may use. Where that is not allowed it goes on untied.
fn pin(index: usize) {
    let Ok(allowed) = sched_getaffinity(None) else {
        return;
    };
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    let Some(cpu) = cpus.get(index % cpus.len().max(1)) else {
        return;
    };
    let mut one = CpuSet::new();
    one.set(*cpu);
    if let Err(error) = sched_setaffinity(None, &one) {
        tracing::debug!(%error, cpu, "worker not pinned");
    }
}
