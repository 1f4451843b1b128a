//! Carries out what a running daemon is asked for, one order after the other.
//!
//! A reload reads and checks everything first, and then switches: what can fail comes before what changes.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime},
};

use tokio::task::spawn_blocking;

use super::{
    LifecycleError,
    authenticate::TokenGate,
    changes,
    reload::{Cause, Changes, InForce, OrderError, Orders},
};
use crate::{
    auth::{self, Authority},
    cli::Overrides,
    config::{Config, Loaded},
    gateway::Handle,
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
        let done = self.try_reload(cause).await;
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
        if let Some(gateway) = self.gateway.clone() {
            let (config, gate) = (Arc::clone(&config), TokenGate::new(Arc::clone(&authority)));
            blocking(move || {
                gateway
                    .replace(&config, Arc::new(gate))
                    .map_err(|error| LifecycleError::Setup(error.into()))
            })
            .await?;
        }
        fresh.put_in_force();
        if !is_same {
            authority.spawn_tasks();
        }
        let generation = before.generation + 1;
        let changes = changes::between(&before.config, &config);
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
            needs_restart: Vec::new(),
            warnings,
        })
    }
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
