//! The task that keeps one provider's keys fresh.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::{Duration, SystemTime},
};

use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep_until, timeout},
};

use super::{
    document::{self, Keys},
    fetch::{FetchError, Fetcher},
    remote_keys, schedule,
};
use crate::{auth::provider::ProviderState, config::RemoteKeys};

/// Starts the task; it ends soon after the provider is no longer used by anybody.
pub(crate) fn spawn(state: &Arc<ProviderState>) {
    let Some(remote) = remote_keys(state.config()) else {
        return;
    };
    tokio::spawn(run(Arc::downgrade(state), remote.clone()));
}

async fn run(state: Weak<ProviderState>, config: RemoteKeys) {
    let mut fetcher = None;
    let mut failures = 0;
    let mut last_demand = None;
    loop {
        let Some(state_now) = state.upgrade() else { return };
        let pause = fetch_once(&state_now, &config, &mut fetcher, &mut failures).await;
        let due = Instant::now() + pause;
        state_now.note_next(SystemTime::now() + pause);
        let Some(remote) = state_now.remote().cloned() else {
            return;
        };
        drop(state_now);
        // The wake-up at the provider's end arrives as a demand too; the upgrade above then fails.
        tokio::select! {
            () = sleep_until(due) => {}
            () = remote.demand.notified() => {
                let allowed = last_demand.map_or_else(Instant::now, |last: Instant| last + config.cooldown);
                if state.strong_count() > 0 {
                    sleep_until(allowed.min(due)).await;
                }
                last_demand = Some(Instant::now());
            }
        }
    }
}

/// Fetches once and returns the pause until the next scheduled fetch.
async fn fetch_once(
    state: &ProviderState,
    config: &RemoteKeys,
    fetcher: &mut Option<Fetcher>,
    failures: &mut u32,
) -> Duration {
    let Some(remote) = state.remote() else {
        return config.refresh;
    };
    let number = remote.started.fetch_add(1, Ordering::AcqRel) + 1;
    let result = match timeout(config.timeout, try_fetch(state, config, fetcher)).await {
        Ok(result) => result,
        Err(_) => Err(FetchError::Timeout(config.timeout)),
    };
    let now = SystemTime::now();
    let pause = match result {
        Ok(keys) => {
            *failures = 0;
            for skipped in &keys.parsed.skipped {
                tracing::debug!(provider = state.config().name, %skipped, "a key of the JWKS is not used");
            }
            if state.note_success(keys.parsed.keys, now) {
                tracing::info!(provider = state.config().name, "other keys are in force");
            }
            // After the keys are in place: who reads this and then finds no key knows that there is none.
            remote.last_good.store(number, Ordering::Release);
            schedule::after_success(config, keys.max_age, dice())
        }
        Err(error) => {
            // Made anew next time: perhaps with other certificates.
            *fetcher = None;
            *failures = failures.saturating_add(1);
            tracing::warn!(provider = state.config().name, %error, failures, "cannot fetch keys");
            state.note_failure(&error, now);
            if state.is_stale_beyond(config.max_stale, now) {
                tracing::error!(
                    provider = state.config().name,
                    "the last good keys are too old to be used"
                );
                state.forget_keys();
            }
            schedule::after_failure(config, *failures, dice())
        }
    };
    remote.finished.send_replace(number);
    pause
}

async fn try_fetch(
    state: &ProviderState,
    config: &RemoteKeys,
    fetcher: &mut Option<Fetcher>,
) -> Result<Keys, FetchError> {
    let fetcher = match fetcher {
        Some(fetcher) => fetcher,
        none => {
            let ca_file = config.ca_file.clone();
            // Reads files.
            let made = spawn_blocking(move || Fetcher::new(ca_file.as_deref())).await;
            none.insert(made.map_err(|error| FetchError::Roots(error.to_string()))??)
        }
    };
    document::fetch(fetcher, state.config()).await
}

fn dice() -> u8 {
    let mut byte = [0];
    // Without randomness there is no jitter, and nothing else is lost.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    byte[0]
}
