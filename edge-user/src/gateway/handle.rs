//! A hold on a running gateway: stops it, gives it another plan, tells how it does.

use std::{
    sync::{Arc, OnceLock, atomic::Ordering},
    time::Duration,
};

use tokio::runtime::RuntimeMetrics;

use super::{
    Authenticate, Closing, CountersSnapshot, LimitSnapshot, SetupError, Shared, Signals, arrivals,
    terminators, tls,
};
use crate::{config::Config, telemetry::access::AccessLog, upstream::cluster::EndpointStatus};

/// A hold on a gateway, for whoever stops it, reloads it or asks how it does. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
    pub(super) signals: Arc<Signals>,
    pub(super) workers: usize,
}

impl Handle {
    /// Stops accepting, lets requests in flight finish, then ends [`Gateway::run`]. May be called more than once.
    pub fn stop(&self) {
        self.close_listeners();
        self.signals.leave.send_replace(true);
        self.signals.stop.send_replace(true);
    }

    /// Has clients go elsewhere with their next request, without closing anything on them: answers over HTTP/1 end
    /// their connections, HTTP/2 is told to go away (GOAWAY). New connections are accepted still.
    pub fn leave(&self) {
        self.signals.leave.send_replace(true);
    }

    /// Closes every listener, after accepting what has come; connections stay.
    pub fn close_listeners(&self) {
        for entrance in self.shared.entrances.swap(Arc::default()).iter() {
            entrance.close();
        }
    }

    /// Doubles of every listening socket, for whoever takes over.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn sockets(&self) -> std::io::Result<Vec<std::net::TcpListener>> {
        let mut all = Vec::new();
        for entrance in self.shared.entrances.load().iter() {
            entrance.with_sockets(|sockets| {
                for socket in sockets {
                    all.push(socket.try_clone()?);
                }
                Ok::<_, std::io::Error>(())
            })?;
        }
        Ok(all)
    }

    /// How long connections may go on after a stop, from now on.
    pub fn set_grace(&self, grace: Duration) {
        let ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.shared.grace_ms.store(ms, Ordering::Relaxed);
    }

    /// Waits until every worker accepts connections.
    pub async fn ready(&self) {
        let mut ready = self.shared.ready.subscribe();
        // The sender lives in `shared`, which this handle holds.
        let _ = ready.wait_for(|count| *count >= self.workers).await;
    }

    /// Whether every worker accepts connections.
    pub fn is_ready(&self) -> bool {
        *self.shared.ready.borrow() >= self.workers
    }

    /// Puts another configuration in force: what begins later meets it. See [`renewal`].
    ///
    /// # Errors
    /// What cannot be served or bound; nothing is changed then.
    pub fn replace(&self, config: &Config, authenticator: Arc<dyn Authenticate>) -> Result<(), SetupError> {
        self.prepare(config, authenticator)?.commit();
        Ok(())
    }

    /// What is known of each upstream's endpoints, by name, in the configuration's order.
    pub fn upstreams(&self) -> Vec<(String, Arc<Vec<EndpointStatus>>)> {
        let plan = self.shared.plan.load();
        let upstreams = plan.upstreams().iter();
        upstreams
            .map(|cluster| (cluster.config().name.clone(), cluster.status()))
            .collect()
    }

    /// What was counted for the routes and upstreams of the plan in force, all workers together.
    pub fn counters(&self) -> CountersSnapshot {
        self.shared.plan.load().counters().snapshot()
    }

    /// How many connections were closed for each reason, all workers together.
    pub fn closings(&self) -> Vec<(Closing, u64)> {
        let workers = &self.shared.closings;
        let sum = |closing| workers.iter().map(|worker| worker.get(closing)).sum();
        Closing::ALL
            .iter()
            .map(|closing| (*closing, sum(*closing)))
            .collect()
    }

    /// Reads every listener's certificates again at once; what is not good changes nothing and is told in the log.
    /// They are looked after anyway; this is for whoever does not want to wait.
    pub fn reload_certificates(&self) {
        for terminator in terminators(&self.shared) {
            tls::watch::reload(&terminator, false);
        }
    }

    /// What each limit of the plan in force has done.
    pub fn limits(&self) -> Vec<LimitSnapshot> {
        self.shared.plan.load().limits().snapshot()
    }

    /// Has the access log's file opened again, as after a rotation; a file that was moved away is noticed anyway.
    pub fn reopen_access_log(&self) {
        if let Some(access) = &self.shared.access {
            access.reopen();
        }
    }

    /// Accepted connections that could not be told of, so that their peers have not earned exact state by them.
    pub fn lost_arrivals(&self) -> u64 {
        let teller = self.shared.parts.arrivals.as_ref();
        teller.map_or(0, arrivals::Teller::lost)
    }

    /// Lines of the access log that were lost.
    pub fn lost_access_lines(&self) -> u64 {
        self.shared.access.as_ref().map_or(0, AccessLog::lost)
    }

    /// How long each worker has been busy since it began: not waiting for anything to happen.
    pub fn busy(&self) -> Vec<Duration> {
        let busy = |runtime: &OnceLock<RuntimeMetrics>| {
            runtime
                .get()
                .map_or(Duration::ZERO, |runtime| runtime.worker_total_busy_duration(0))
        };
        self.shared.runtimes.iter().map(busy).collect()
    }

    /// Sampled requests whose spans a collector took, and that were lost.
    pub fn traces(&self) -> (u64, u64) {
        let tracer = self.shared.parts.tracer.as_ref();
        tracer.map_or((0, 0), |tracer| tracer.counts().get())
    }

    /// Client connections that may be open at once.
    pub fn most_connections(&self) -> usize {
        self.shared.parts.limits.connections
    }

    /// Client connections open now.
    pub fn connections(&self) -> usize {
        self.shared.connections.open()
    }
}
