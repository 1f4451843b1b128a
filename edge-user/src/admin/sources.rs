//! The heaviest sources, for as long as somebody asks.
//!
//! Samples of drops are looked at by a thread of its own that begins with the first question and ends half a minute after
//! the last one, or with the shield: nobody who does not look pays for it. It takes nothing from other readers.

use std::{
    error::Error,
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::runtime::Builder;

use crate::{
    kernel::{Pins, ShieldTables, interfaces::Netlink, tap::Tap},
    live::{
        rates,
        reading::Reading,
        sources::{Heavy, Sources},
    },
};

/// How often samples are looked at: the buffer holds what comes meanwhile.
const LOOK: Duration = Duration::from_millis(50);
/// Samples taken at one look.
const SAMPLES_AT_ONCE: usize = 4_000;
/// How often the counters are read, and the answer is made.
const EVERY: Duration = Duration::from_secs(1);
/// How long it goes on without a question.
const PATIENCE: Duration = Duration::from_secs(30);
/// Sources in an answer.
const MOST: usize = 50;

/// A source of drops.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Source {
    /// What was estimated.
    #[serde(flatten)]
    heavy: Heavy,
    /// Name of the service that most of its packets were for, `-` for none.
    service: String,
}

/// The answer.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Seen {
    /// The heaviest first.
    sources: Vec<Source>,
    /// Samples that this is estimated from.
    samples: u64,
    /// Seconds of them; 0 if it has only begun.
    seconds: f64,
}

/// Looks while somebody asks.
#[derive(Debug, Default)]
pub struct Watcher(Mutex<Option<Arc<Watched>>>);

#[derive(Debug)]
struct Watched {
    asked: Mutex<Instant>,
    /// What was seen, or why nothing can be.
    seen: Mutex<Result<Seen, String>>,
}

impl Watcher {
    /// What was seen so far; the first question begins to look, and so does the one after a failure was told.
    ///
    /// # Errors
    /// There can be no thread, or samples cannot be looked at.
    pub fn seen(&self, pins: &Pins) -> io::Result<Seen> {
        let mut watched = lock(&self.0);
        if let Some(before) = watched.take() {
            let seen = lock(&before.seen).clone().map_err(io::Error::other)?;
            // A thread that has ended has let go of it.
            if Arc::strong_count(&before) > 1 {
                *lock(&before.asked) = Instant::now();
                *watched = Some(before);
                return Ok(seen);
            }
        }
        let new = Arc::new(Watched {
            asked: Mutex::new(Instant::now()),
            seen: Mutex::new(Ok(Seen::default())),
        });
        let (own, pins) = (Arc::clone(&new), pins.clone());
        thread::Builder::new()
            .name("admin-sources".to_owned())
            .spawn(move || {
                if let Err(error) = watch(&pins, &own) {
                    tracing::debug!(%error, "the heaviest sources are not looked at any more");
                    *lock(&own.seen) = Err(error.to_string());
                }
            })?;
        *watched = Some(new);
        Ok(Seen::default())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What is behind it is replaced as a whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch(pins: &Pins, watched: &Watched) -> Result<(), Box<dyn Error>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let own = pins.identity();
        let (tables, mut tap) = (ShieldTables::open(pins)?, Tap::open(pins)?);
        let netlink = Netlink::connect()?;
        let mut sources = Sources::new(Instant::now());
        let mut before = Reading::take(pins, &tables, &netlink).await?;
        while lock(&watched.asked).elapsed() < PATIENCE && own.is_some() && pins.identity() == own {
            let due = Instant::now() + EVERY;
            while Instant::now() < due {
                tokio::time::sleep(LOOK).await;
                let now = Instant::now();
                tap.read(SAMPLES_AT_ONCE, |event| sources.note(event, now))?;
            }
            let now = Reading::take(pins, &tables, &netlink).await?;
            *lock(&watched.seen) = Ok(judge(&mut sources, &before, &now));
            before = now;
        }
        Ok(())
    })
}

fn judge(sources: &mut Sources, before: &Reading, now: &Reading) -> Seen {
    let rates = rates::between(before, now);
    let counted = |service, reason| rates::of(&rates, now, service, reason);
    let at = Instant::now();
    let (heaviest, samples) = sources.heaviest(MOST, counted, at);
    let heaviest = heaviest.into_iter().map(|heavy| Source {
        service: now.name(heavy.service).to_owned(),
        heavy,
    });
    Seen {
        sources: heaviest.collect(),
        samples,
        seconds: sources.seconds(at),
    }
}
