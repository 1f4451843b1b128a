//! What the admin API asks of the daemon, handed on to those who do it.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::StatusCode;
use serde_json::Value;

use super::{
    handover,
    reload::{Cause, OrderError, Phase, Reloader},
    status::StatusReport,
};
use crate::{
    admin::{self, Daemon, Later, Orders, Refused, Stage},
    auth::Authority,
    config::Config,
    gateway::Handle,
    history,
    kernel::Pins,
    offence::{queue::Reporter, tally::BanTally},
};

/// The daemon of this process.
pub(super) struct Control {
    pub(super) reloader: Reloader,
    pub(super) pins: Pins,
}

impl Control {
    /// What the admin API answers from.
    pub(super) fn context(
        self,
        has_shield: bool,
        gateway: Option<Handle>,
        (reporter, tally, events): (Reporter, Arc<BanTally>, Arc<admin::Events>),
        history: Option<&history::Recorder>,
    ) -> admin::Context {
        admin::Context {
            pins: has_shield.then(|| self.pins.clone()),
            daemon: Arc::new(self),
            gateway,
            reporter,
            tally,
            started: started(),
            events,
            history: history.map(history::Recorder::keeper),
            watcher: admin::Watcher::default(),
            callers: admin::Callers::default(),
        }
    }
}

impl Daemon for Control {
    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.reloader.in_force().config)
    }

    fn authority(&self) -> Arc<Authority> {
        Arc::clone(&self.reloader.in_force().authority)
    }

    fn stage(&self) -> Stage {
        match self.reloader.phase() {
            Phase::Starting => Stage::Starting,
            Phase::Ready => Stage::Ready,
            Phase::Draining => Stage::Draining,
            Phase::Finishing => Stage::Finishing,
        }
    }

    fn orders(&self) -> Orders {
        let (counts, in_force) = (self.reloader.counts(), self.reloader.in_force());
        let since = in_force.since.duration_since(UNIX_EPOCH).unwrap_or_default();
        Orders {
            reloads: counts.reloads,
            reloads_failed: counts.reloads_refused,
            last_reload_failed: counts.last_reload_refused,
            upgrades_failed: counts.upgrades_failed,
            upgrades: handover::upgrades(),
            configured_at: since.as_secs_f64(),
            generation: in_force.generation,
        }
    }

    fn shield(&self) -> Later<Result<Value, String>> {
        let pins = self.pins.clone();
        Box::pin(async move {
            let report = StatusReport::gather(&pins)
                .await
                .map_err(|error| error.to_string())?;
            serde_json::to_value(report).map_err(|error| error.to_string())
        })
    }

    fn reload(&self) -> Later<Result<Value, Refused>> {
        let reloader = self.reloader.clone();
        Box::pin(async move { as_value(&reloader.reload(Cause::Admin).await?) })
    }

    fn drain(&self, deadline: Option<Duration>) -> Later<Result<(), Refused>> {
        let reloader = self.reloader.clone();
        Box::pin(async move { Ok(reloader.drain(deadline).await?) })
    }

    fn upgrade(&self) -> Later<Result<Value, Refused>> {
        let reloader = self.reloader.clone();
        Box::pin(async move { as_value(&reloader.upgrade().await?) })
    }
}

fn as_value(value: &impl serde::Serialize) -> Result<Value, Refused> {
    serde_json::to_value(value).map_err(|error| Refused {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        why: error.to_string(),
    })
}

impl From<OrderError> for Refused {
    fn from(error: OrderError) -> Self {
        let status = match &error {
            // What stands in the files is wrong.
            OrderError::Failed(failed) if failed.exit_code() == 3 => StatusCode::UNPROCESSABLE_ENTITY,
            OrderError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            OrderError::NoFile => StatusCode::CONFLICT,
            OrderError::Stopping | OrderError::Busy => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self {
            status,
            why: error.to_string(),
        }
    }
}

/// When this process began, as far as it remembers: the first time that somebody asks.
fn started() -> SystemTime {
    static STARTED: OnceLock<SystemTime> = OnceLock::new();
    *STARTED.get_or_init(SystemTime::now)
}
