//! Carries out what a running daemon is asked for, one order after the other.
//!
//! A reload reads and checks everything first, and then switches: what can fail comes before what changes.

use std::{
    os::fd::AsFd,
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime},
};

use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinSet, spawn_blocking},
};

use super::{
    LifecycleError,
    authenticate::TokenGate,
    changes,
    contents::Contents,
    enforcer::{Renewal, Told},
    files::{self, Files},
    handover::{Program, Way},
    manager,
    reload::{Cause, Changes, InForce, OrderError, Orders, Upgraded},
    shield::StagedShield,
    steering,
};
use crate::{
    admin::Events,
    auth::{self, Authority},
    cli::Overrides,
    config::{Config, Loaded},
    gateway::Handle,
    kernel::{Pins, pins::Lock},
    offence::{detained::Detained, queue::Reporter},
};

/// Where the configuration comes from.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) path: PathBuf,
    pub(super) overrides: Overrides,
}

/// Who carries out orders.
pub(super) struct Conductor {
    /// None for the quick start.
    pub(super) origin: Option<Origin>,
    pub(super) orders: Orders,
    pub(super) gateway: Option<Handle>,
    /// Where the shield is pinned, if there is one, and whether it has SYN cookies.
    pub(super) shield: Option<(Pins, bool)>,
    pub(super) reporter: Reporter,
    pub(super) detained: Arc<Detained>,
    pub(super) enforcer: mpsc::Sender<Told>,
    pub(super) files: Option<Files>,
    /// What the process was started with: some of it stays.
    pub(super) started: Arc<Config>,
    /// The claim on the shield.
    pub(super) claim: Option<Lock>,
    /// How to start it again.
    pub(super) program: Program,
    /// What was in the files of certificates when they were read last.
    pub(super) contents: Contents,
    /// Who looks after the backends of direct services.
    pub(super) checking: Option<JoinSet<()>>,
    /// Where the admin API tells what happens.
    pub(super) events: Arc<Events>,
}

/// What was read, and is good.
struct Read {
    loaded: Loaded,
    authority: Authority,
}

impl Conductor {
    /// [`Self::reload`] that nobody waits for: what comes of it is told in the log and as events.
    pub(super) async fn reload_unasked(&mut self, cause: Cause) {
        self.events.add("reload", "begun", format!("by {cause}"));
        match self.reload(cause).await {
            Ok(done) => {
                let detail = told(&done, cause);
                self.events.add("reload", "done", detail);
            }
            Err(error) => self.events.add("reload", "failed", error.to_string()),
        }
    }

    /// Reads everything again and puts it in force.
    ///
    /// # Errors
    /// What is wrong; nothing was changed.
    pub(super) async fn reload(&mut self, cause: Cause) -> Result<Changes, OrderError> {
        // As they are before anything is read: what changes meanwhile is another reload.
        self.follow_files();
        manager::reloading();
        let done = self.try_reload(cause).await;
        self.follow_more_files();
        if done.is_ok() {
            self.store_sockets();
        }
        manager::ready();
        self.orders.tally.reloaded(done.is_ok());
        tell(cause, &done);
        done
    }

    async fn try_reload(&mut self, cause: Cause) -> Result<Changes, OrderError> {
        let begun = Instant::now();
        let origin = self.origin.clone().ok_or(OrderError::NoFile)?;
        let before = self.orders.in_force.load_full();
        let previous = Arc::clone(&before.authority);
        let Read { loaded, authority } = blocking(move || read(&origin, &previous)).await?;
        let warnings = loaded.warnings.iter();
        let warnings = warnings.map(|problem| problem.one_line().to_string()).collect();
        let config = Arc::new(loaded.config);
        let fresh = Arc::new(authority);
        let is_same = fresh.is_same(&before.authority);
        let authority = if is_same {
            Arc::clone(&before.authority)
        } else {
            Arc::clone(&fresh)
        };
        let mut changes = changes::between(&before.config, &config);
        let contents = {
            let config = Arc::clone(&config);
            blocking(move || Ok(Contents::read(&config))).await?
        };
        changes.extend(self.contents.changes(&contents));
        let needs_restart = self.needs_restart(&config);

        // What can fail.
        let gateway = match self.gateway.clone() {
            Some(gateway) => {
                let (config, gate) = (Arc::clone(&config), TokenGate::new(Arc::clone(&authority)));
                let prepare = move || {
                    gateway
                        .prepare(&config, Arc::new(gate))
                        .map_err(LifecycleError::Setup)
                };
                Some(blocking(prepare).await?)
            }
            None => None,
        };
        let shield = match &self.shield {
            Some((pins, has_cookies)) if concerns_shield(&before.config, &config) => {
                let staged = StagedShield::stage(pins, Some(&before.config), &config, *has_cookies).await;
                Some(staged.map_err(LifecycleError::Kernel)?)
            }
            _ => None,
        };

        // What cannot.
        let revocations = Arc::clone(&fresh);
        let switch = move || {
            let plan = shield.map(StagedShield::commit);
            if let Some(gateway) = gateway {
                gateway.commit();
            }
            revocations.put_in_force();
            Ok(plan)
        };
        let plan = blocking(switch).await?;
        self.contents = contents;
        if let (Some(_), Some((pins, _))) = (&plan, &self.shield)
            && before.config.services != config.services
        {
            self.checking = Some(steering::watch(&config.services, pins));
        }
        self.reporter.configure(&config.offences.weights);
        self.detained.configure(config.offences.slow_per_second.get());
        // An enforcer that has ended takes the gateway with it.
        let renewal = Told::Renewed(Box::new(Renewal::of(&config, plan)));
        let _ = self.enforcer.send(renewal).await;
        if !is_same {
            authority.spawn_tasks();
        }
        let generation = before.generation + 1;
        self.orders.in_force.store(Arc::new(InForce {
            config,
            authority,
            since: SystemTime::now(),
            generation,
        }));
        Ok(Changes {
            cause,
            generation,
            took_us: u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
            changes,
            needs_restart,
            warnings,
        })
    }

    /// Has the service manager keep the listening sockets.
    pub(super) fn store_sockets(&self) {
        match self.gateway.as_ref().map(Handle::sockets).transpose() {
            Ok(sockets) => manager::store(&sockets.unwrap_or_default()),
            Err(error) => tracing::warn!(%error, "the service manager does not keep the sockets"),
        }
    }

    /// Starts this program again and hands over to it.
    ///
    /// # Errors
    /// It did not become ready; everything is as it was.
    pub(super) async fn upgrade(&mut self) -> Result<Upgraded, OrderError> {
        let begun = Instant::now();
        if self.origin.is_none() {
            return Err(OrderError::NoFile);
        }
        let started = self.start_successor().await;
        let (process, way) = match started {
            Ok(started) => started,
            Err(error) => {
                self.orders.tally.upgrade_failed();
                tracing::error!(%error, "not upgraded: this process carries on");
                self.reinstate().await;
                return Err(error);
            }
        };
        let (done, retired) = oneshot::channel();
        if self.enforcer.send(Told::Retired(done)).await.is_ok() {
            let _ = retired.await;
        }
        manager::succeeded_by(process);
        if let Err(error) = way.hand_on() {
            tracing::warn!(%error, "the new process does not listen; it goes on by itself in a while");
        }
        let took_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        tracing::info!(process, took_us, "upgraded: the new process serves");
        Ok(Upgraded { process, took_us })
    }

    async fn start_successor(&self) -> Result<(u32, Way), OrderError> {
        let failed = |error: std::io::Error| LifecycleError::Handover(error.into());
        let sockets = match &self.gateway {
            Some(gateway) => gateway.sockets().map_err(failed)?,
            None => Vec::new(),
        };
        let claim = self
            .claim
            .as_ref()
            .map(Lock::double)
            .transpose()
            .map_err(failed)?;
        let limit = self.orders.in_force.load().config.lifecycle.upgrade_timeout;
        let program = self.program.clone();
        blocking(move || {
            let claim = claim.as_ref().map(AsFd::as_fd);
            let (child, way) = program.start(&sockets, claim, limit)?;
            Ok((child.id(), way))
        })
        .await
    }

    /// Puts what this process has in force into the kernel again, after another process may have been at it.
    async fn reinstate(&self) {
        let Some((pins, has_cookies)) = &self.shield else {
            return;
        };
        let config = Arc::clone(&self.orders.in_force.load().config);
        let staged = StagedShield::stage(pins, None, &config, *has_cookies).await;
        let done = match staged {
            Ok(staged) => blocking(move || Ok(staged.commit())).await.err(),
            Err(error) => Some(LifecycleError::Kernel(error).into()),
        };
        if let Some(error) = done {
            tracing::error!(%error, "the kernel may have what the new process put there");
        }
    }

    /// What a running process cannot take up.
    fn needs_restart(&self, new: &Config) -> Vec<String> {
        let old = &self.started;
        let mut found = Vec::new();
        let mut tell = |is_other: bool, what: &str| {
            if is_other {
                found.push(format!("{what}: takes a restart, or `breakwater upgrade`"));
            }
        };
        tell(old.workers != new.workers, "gateway.workers");
        tell(old.access_log != new.access_log, "gateway.access_log");
        tell(old.lifecycle.sandbox != new.lifecycle.sandbox, "gateway.sandbox");
        tell(collector(old) != collector(new), "gateway.traces: where they go");
        tell(old.admin != new.admin, "admin");
        tell(old.history != new.history, "history");
        tell(
            self.gateway.is_none() && !new.listeners.is_empty(),
            "the first listener",
        );
        let has_interfaces = !new.shield.interfaces.is_empty();
        tell(
            self.shield.is_none() && has_interfaces,
            "shield.interfaces: the first interface",
        );
        if self.shield.is_some() {
            tell(
                old.shield.mode != new.shield.mode,
                "shield.mode of interfaces that have the shield",
            );
            if old.shield.max_bans != new.shield.max_bans {
                found.push(
                    "shield.max_bans: the table keeps its size until `breakwater detach` and a restart"
                        .to_owned(),
                );
            }
            if !has_interfaces {
                found.push(
                    "shield.interfaces: the shield stays where it is until `breakwater detach`".to_owned(),
                );
            }
        }
        found
    }

    /// Follows the files of the configuration in force, from as they are now on.
    pub(super) fn follow_files(&mut self) {
        let in_force = self.orders.in_force.load();
        let Some(origin) = self.origin.as_ref().filter(|_| in_force.config.lifecycle.watch) else {
            self.files = None;
            return;
        };
        let files = files::of(&origin.path, &in_force.config);
        match &mut self.files {
            Some(watched) => watched.follow(files),
            None => self.files = Some(Files::watch(files)),
        }
    }

    /// Follows what the configuration in force names beside, or no more.
    fn follow_more_files(&mut self) {
        let in_force = self.orders.in_force.load();
        match (&self.origin, &mut self.files) {
            (Some(origin), Some(watched)) if in_force.config.lifecycle.watch => {
                watched.extend(files::of(&origin.path, &in_force.config));
            }
            (Some(_), None) if in_force.config.lifecycle.watch => self.follow_files(),
            _ => self.files = None,
        }
    }

    /// Waits until a file has changed that is watched. Cancel safe.
    pub(super) async fn files_changed(files: &mut Option<Files>) {
        match files {
            Some(files) => files.changed().await,
            None => std::future::pending().await,
        }
    }
}

/// Whether there is something to write for the kernel. Without interfaces the shield stays as it is.
fn concerns_shield(old: &Config, new: &Config) -> bool {
    !new.shield.interfaces.is_empty() && (old.shield != new.shield || old.services != new.services)
}

/// Reads and checks the configuration and the keys that it names.
fn read(origin: &Origin, previous: &Authority) -> Result<Read, LifecycleError> {
    let mut loaded = Config::load(&origin.path)?;
    let authority = auth::prepare(&loaded, Some(previous))?;
    origin.overrides.apply(&mut loaded.config);
    Ok(Read { loaded, authority })
}

/// Runs what waits for files beside everything else.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LifecycleError> + Send + 'static,
) -> Result<T, OrderError> {
    match spawn_blocking(work).await {
        Ok(done) => done.map_err(OrderError::from),
        Err(error) => Err(LifecycleError::Io {
            what: "reloading",
            source: std::io::Error::other(error),
        }
        .into()),
    }
}

fn tell(cause: Cause, done: &Result<Changes, OrderError>) {
    match done {
        Ok(done) => {
            let changes: Vec<String> = done.changes.iter().map(ToString::to_string).collect();
            let changes = if changes.is_empty() {
                "nothing is different".to_owned()
            } else {
                changes.join(", ")
            };
            tracing::info!(
                ?cause,
                generation = done.generation,
                took_us = done.took_us,
                changes,
                "reloaded"
            );
            for what in &done.needs_restart {
                tracing::warn!("not in force: {what}");
            }
            for warning in &done.warnings {
                tracing::warn!("{warning}");
            }
        }
        Err(error) => tracing::error!(?cause, %error, "not reloaded: everything stays as it was"),
    }
}

/// What a reload has changed, in a line.
pub(super) fn told(done: &Changes, cause: Cause) -> String {
    /// Changes that are named.
    const NAMED: usize = 20;
    if done.changes.is_empty() {
        return format!("nothing is different, by {cause}");
    }
    let mut named: Vec<String> = done.changes.iter().take(NAMED).map(ToString::to_string).collect();
    if done.changes.len() > NAMED {
        named.push(format!("{} more", done.changes.len() - NAMED));
    }
    format!("{}, by {cause}", named.join(", "))
}

/// Where traces go, and as whose; of how many requests is taken up by a reload.
fn collector(config: &Config) -> Option<(&str, &str, &str)> {
    let traces = config.traces.as_ref()?;
    Some((&traces.authority, &traces.path, &traces.service_name))
}
