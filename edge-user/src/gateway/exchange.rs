//! One request from its head to the last byte of its answer: what is timed, counted, logged and reported about it.
//!
//! Whatever way an exchange ends, it is told about once: when it is dropped.

use std::{
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    authenticate::Permit,
    client::Client,
    counters::Outcome,
    gate::{FieldKind, Request, Version},
    header_policy::FieldSink,
    limit::{Asker, Tally},
    refusal::{Form, Reason, Refusal},
    request_id::RequestId,
    route::RouteId,
    stages::Account,
    tax::{Tax, nanoseconds},
    trace,
    worker::{Site, Worker},
};
use crate::{
    offence::OffenceKind,
    telemetry::{access, traces},
};

/// The running account of one request.
pub(crate) struct Exchange {
    worker: Rc<Worker>,
    site: Rc<Site>,
    client: Rc<Client>,
    id: RequestId,
    head_read: Instant,
    decided: Option<Instant>,
    sent: Option<Instant>,
    answered: Option<Instant>,
    ended: Option<Instant>,
    connect: Duration,
    waited: Duration,
    relayed: Duration,
    passed_on: bool,
    route: Option<RouteId>,
    destination: Option<usize>,
    upstream: Option<SocketAddr>,
    status: u16,
    refusal: Option<Refusal>,
    received: u64,
    returned: u64,
    told: Option<Box<Told>>,
    traced: Option<Box<Traced>>,
    form: Form,
    tally: Tally,
    is_probe: bool,
    is_verified: bool,
}

/// What only traces want to know; absent when the request is not sampled.
struct Traced {
    ids: trace::Ids,
    method: String,
    path: String,
}

/// What only the access log wants to know; absent when nobody listens.
#[derive(Default)]
struct Told {
    trace: Option<[u8; trace::ID]>,
    version: &'static str,
    method: String,
    host: String,
    path: String,
    subject: String,
}

impl Exchange {
    /// Begins the account of a request whose head was complete at `head_read`.
    pub(crate) fn begin(worker: &Rc<Worker>, client: &Rc<Client>, head_read: Instant) -> Self {
        Self {
            site: worker.site(),
            id: worker.next_id(),
            worker: Rc::clone(worker),
            client: Rc::clone(client),
            head_read,
            decided: None,
            sent: None,
            answered: None,
            ended: None,
            connect: Duration::ZERO,
            waited: Duration::ZERO,
            relayed: Duration::ZERO,
            passed_on: false,
            route: None,
            destination: None,
            upstream: None,
            status: 0,
            refusal: None,
            received: 0,
            returned: 0,
            told: worker.is_told().then(Box::default),
            traced: None,
            tally: Tally::default(),
            form: Form::default(),
            is_probe: false,
            is_verified: false,
        }
    }

    /// When the exchange has to be over, if its route says so.
    pub(crate) fn deadline(&self, route: RouteId) -> Option<Instant> {
        let limit = self.site.plan().route(route).request_timeout?;
        self.head_read.checked_add(limit)
    }

    /// The plan that this request was pinned to.
    pub(crate) fn site(&self) -> &Rc<Site> {
        &self.site
    }

    /// The worker that serves it.
    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// Its id.
    pub(crate) fn id(&self) -> &RequestId {
        &self.id
    }

    /// Where the client is.
    pub(crate) fn client_address(&self) -> SocketAddr {
        self.client.address
    }

    /// Who asks, for the limits, whose clock begins at `begun`.
    pub(crate) fn asker(&self, begun: Instant) -> Asker {
        let now = self.head_read.saturating_duration_since(begun).as_nanos();
        Asker {
            client: self.client.address.ip(),
            now: u64::try_from(now).unwrap_or(u64::MAX),
        }
    }

    /// The client's address, and when its request came.
    pub(crate) fn arrival(&self) -> (IpAddr, Instant) {
        (self.client.address.ip(), self.head_read)
    }

    /// Adds what the limits say to the fields of a response that is passed on.
    pub(crate) fn tell(&self, sink: &mut impl FieldSink) {
        self.tally.tell(sink);
    }

    /// Notes what was asked for.
    pub(crate) fn asked(&mut self, request: &Request<'_>) {
        if let Some((_, _, accept)) = request.fields().find(|(kind, ..)| *kind == FieldKind::Accept)
            && accept != b"*/*"
        {
            self.form = Form::of(accept);
        }
        self.is_probe = self.site.plan().probes().matches(request.path());
        self.trace(request);
        if let Some(told) = &mut self.told {
            told.trace = Some(trace::id_of(request, self.id.as_bytes()));
            told.version = match request.version() {
                Version::Http10 => "HTTP/1.0",
                Version::Http11 => "HTTP/1.1",
                Version::Http2 => "HTTP/2.0",
            };
            told.host = request
                .authority()
                .map_or_else(String::new, |host| String::from_utf8_lossy(host).into_owned());
            told.method = String::from_utf8_lossy(request.method()).into_owned();
            request.path().clone_into(&mut told.path);
        }
    }

    /// Notes the trace, if it is sampled.
    fn trace(&mut self, request: &Request<'_>) {
        let Some(sampling) = self
            .site
            .plan()
            .sampling()
            .filter(|_| self.worker.tracer().is_some())
        else {
            return;
        };
        self.traced = trace::sampled(request, self.id.as_bytes(), sampling).map(|ids| {
            Box::new(Traced {
                ids,
                method: String::from_utf8_lossy(request.method()).into_owned(),
                path: request.path().to_owned(),
            })
        });
    }

    /// Hands over what was noted of the trace.
    fn end_trace(&mut self, timings: &access::Timings, reason: Option<Reason>) {
        let (Some(noted), Some(tracer)) = (self.traced.take(), self.worker.tracer()) else {
            return;
        };
        let Traced { ids, method, path } = *noted;
        tracer.tell(Box::new(traces::Traced {
            trace: ids.trace,
            span: ids.span,
            parent: ids.parent,
            start: SystemTime::now()
                .checked_sub(self.head_read.elapsed())
                .unwrap_or(SystemTime::UNIX_EPOCH),
            decide: timings.decide,
            send: timings.send,
            connect: timings.connect,
            wait: timings.wait,
            body: timings.body,
            method,
            path,
            route: self.route.map_or_else(String::new, |route| {
                self.site.plan().route(route).name.to_string()
            }),
            scheme: if self.client.tls.is_some() {
                "https"
            } else {
                "http"
            },
            upstream: self.upstream,
            status: self.status,
            reason: reason.map_or("", Reason::slug),
            received: self.received,
            sent: self.returned,
        }));
    }

    /// In which form the client wants to be told what is wrong.
    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// Notes the route.
    pub(crate) fn routed(&mut self, route: RouteId) {
        self.route = Some(route);
    }

    /// The route, once it is known.
    pub(crate) fn route(&self) -> Option<RouteId> {
        self.route
    }

    /// Notes that it is known where the request goes.
    pub(crate) fn decided(&mut self, now: Instant) {
        self.decided = Some(now);
    }

    /// Notes the endpoint, and how long connecting to it took.
    pub(crate) fn connected(&mut self, endpoint: SocketAddr, took: Duration) {
        self.upstream = Some(endpoint);
        self.connect += took;
    }

    /// Notes that the request head went out.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.sent = Some(now);
    }

    /// Notes that the response head came in.
    pub(crate) fn answered(&mut self, now: Instant, status: u16) {
        self.answered = Some(now);
        self.status = status;
    }

    /// Takes back that there is a response: it was not fit to pass on.
    pub(crate) fn unanswered(&mut self) {
        self.status = 0;
    }

    /// Notes that the response has gone out; `waited` of the time since its head went by in waiting for the client
    /// or the upstream.
    pub(crate) fn ended(&mut self, now: Instant, waited: Duration) {
        self.ended = Some(now);
        self.waited = waited;
    }

    /// Notes own time that was spent on the request's body while its answer was waited for.
    pub(crate) fn relayed(&mut self, began: Instant, now: Instant) {
        self.relayed += now.saturating_duration_since(began);
    }

    /// Notes that another codec takes the request, and keeps its account.
    pub(crate) fn passed_on(&mut self) {
        self.passed_on = true;
    }

    /// Notes that the request ends here. The first refusal stays.
    pub(crate) fn refused(&mut self, refusal: Refusal) {
        if self.status == 0 {
            self.status = refusal.status();
        }
        if self.refusal.is_none() {
            self.refusal = Some(refusal);
        }
    }

    /// Notes that the request failed after its response had begun: the status stands.
    pub(crate) fn broke(&mut self, reason: Reason) {
        if self.refusal.is_none() {
            self.refusal = Some(reason.into());
        }
    }

    /// Adds body bytes from the client.
    pub(crate) fn received(&mut self, bytes: u64) {
        self.received += bytes;
    }

    /// Adds body bytes to the client.
    pub(crate) fn returned(&mut self, bytes: u64) {
        self.returned += bytes;
    }

    fn timings(&self) -> access::Timings {
        let end = self.ended.or(self.answered).unwrap_or_else(Instant::now);
        let decided = self.decided.unwrap_or(end);
        let sent = self.sent.unwrap_or(decided);
        let answered = self.answered.unwrap_or(end).max(sent);
        access::Timings {
            decide: decided - self.head_read,
            send: sent - decided,
            connect: self.connect,
            wait: answered - sent,
            body: end.saturating_duration_since(answered),
            tax: Duration::ZERO,
        }
    }

    /// The proxy's own part of these times.
    fn tax(&self, timings: &access::Timings) -> Tax {
        Tax {
            decide_ns: nanoseconds(timings.decide),
            send_ns: nanoseconds(timings.send.saturating_sub(timings.connect) + self.relayed),
            answer_ns: nanoseconds(timings.body.saturating_sub(self.waited)),
        }
    }
}

impl Account for Exchange {
    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }
    fn permitted(&mut self, permit: &Permit) {
        self.is_verified = permit.is_verified();
        if let (Some(told), Some(subject)) = (&mut self.told, permit.subject()) {
            subject.clone_into(&mut told.subject);
        }
    }
    fn goes_to(&mut self, upstream: usize) {
        self.destination = Some(upstream);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.passed_on {
            return;
        }
        let mut timings = self.timings();
        let tax = self.tax(&timings);
        timings.tax = Duration::from_nanos(tax.total_ns());
        let reason = self.refusal.as_ref().map(|refusal| refusal.reason);
        self.site.counters().finish(&Outcome {
            route: self.route,
            status: self.status,
            upstream: self.destination,
            reason,
            received: self.received,
            sent: self.returned,
            verified: self.is_verified,
            total: timings.total(),
            upstream_time: timings.send + timings.wait,
            tax,
        });
        self.end_trace(&timings, reason);
        let kind = match &self.refusal {
            Some(refusal) => refusal.offence(),
            None => OffenceKind::of_status(self.status),
        };
        let kind = if self.is_probe && self.status == 404 {
            Some(OffenceKind::Probe)
        } else {
            kind
        };
        if let Some(kind) = kind {
            self.worker.offence(self.client.offender(), kind);
        }
        if let Some(told) = &self.told {
            let trace = told.trace.as_ref().and_then(|id| std::str::from_utf8(id).ok());
            self.worker.tell(&access::Record {
                request_id: self.id.as_str(),
                trace_id: trace.unwrap_or_default(),
                client: self.client.address,
                peer: self.client.peer,
                secure: self.client.tls.is_some(),
                version: told.version,
                host: &told.host,
                method: &told.method,
                path: &told.path,
                route: self.route.map_or("", |route| &self.site.plan().route(route).name),
                upstream: self.upstream,
                status: self.status,
                reason: reason.map_or("", Reason::slug),
                detail: self.refusal.as_ref().map_or("", |refusal| &refusal.detail),
                subject: &told.subject,
                received: self.received,
                sent: self.returned,
                timings,
            });
        }
    }
}
