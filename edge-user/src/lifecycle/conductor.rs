//! Carries out what a running daemon is asked for, one order after the other.
//!
//! A reload reads and checks everything first, and then switches: what can fail comes before what changes.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime},
};

use tokio::{sync::mpsc, task::spawn_blocking};

use super::{
    LifecycleError,
    authenticate::TokenGate,
    changes,
    enforcer::Renewal,
    files::{self, Files},
    reload::{Cause, Changes, InForce, OrderError, Orders},
    shield::StagedShield,
};
use crate::{
    auth::{self, Authority},
    cli::Overrides,
    config::{Config, Loaded},
    gateway::Handle,
    kernel::Pins,
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
    pub(super) enforcer: mpsc::Sender<Renewal>,
    pub(super) files: Option<Files>,
    /// What the process was started with: some of it stays.
    pub(super) started: Arc<Config>,
}

/// What was read, and is good.
struct Read {
    loaded: Loaded,
    authority: Authority,
}

impl Conductor {
    /// Reads everything again and puts it in force.
    ///
    /// # Errors
    /// What is wrong; nothing was changed.
    pub(super) async fn reload(&mut self, cause: Cause) -> Result<Changes, OrderError> {
        // As they are before anything is read: what changes meanwhile is another reload.
        self.follow_files();
        let done = self.try_reload(cause).await;
        self.follow_more_files();
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
        let changes = changes::between(&before.config, &config);
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
                let staged = StagedShield::stage(pins, &before.config, &config, *has_cookies).await;
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
        self.reporter.configure(&config.offences.weights);
        self.detained.configure(config.offences.slow_per_second.get());
        // An enforcer that has ended takes the gateway with it.
        let _ = self.enforcer.send(Renewal::of(&config, plan)).await;
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
