//! `breakwater top`: readings at an interval, drawn on the terminal or printed once.
//!
//! The terminal is given back as it was, also after a panic or a signal. A shield that is taken off or replaced
//! meanwhile is told, and followed.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event as Input, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::MissedTickBehavior,
};

use super::{LifecycleError, verbs};
use crate::{
    cli::{Format, TopRequest},
    kernel::{KernelError, Pins, ShieldTables, interfaces::Netlink, tap::Tap},
    live::{
        rates,
        reading::{Bans, Reading},
        screen::{self, Picture, State},
        sources::Sources,
    },
};

/// How often samples and keys are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Samples taken at one look: the whole buffer.
const SAMPLES_AT_ONCE: usize = 1_500;
/// A large ban table is read less often: at most this part of the time goes into it.
const BANS_SHARE: u32 = 20;
/// Sources shown.
const HEAVIEST: usize = 50;
/// Sources and bans printed once.
const PRINTED: usize = 10;

/// Shows the live view until somebody ends it, or answers with one picture.
///
/// # Errors
/// Nothing is attached, or the terminal refuses.
pub fn top(request: &TopRequest, bpffs: &Path) -> Result<Option<String>, LifecycleError> {
    let pins = Pins::new(bpffs);
    verbs::runtime()?.block_on(async {
        let mut view = View::open(pins, request.interval).await?;
        let Some(format) = request.once else {
            let stop = Stop::listen()?;
            let mut terminal = ratatui::try_init().map_err(LifecycleError::Terminal)?;
            let ended = view.live(&mut terminal, stop).await;
            // In any case, and before an error is printed.
            ratatui::restore();
            return ended.map(|()| None);
        };
        view.wait().await?;
        let picture = view.picture(PRINTED);
        match format {
            Format::Json => verbs::json(&picture).map(Some),
            Format::Text => Ok(Some(screen::text(&picture))),
        }
    })
}

/// What is watched.
struct View {
    pins: Pins,
    netlink: Netlink,
    handles: Handles,
    sources: Sources,
    bans: Bans,
    bans_due: Instant,
    interval: Duration,
    /// The last two readings.
    before: Reading,
    now: Reading,
    /// There is no shield any more.
    is_off: bool,
    paused: bool,
    ending_first: bool,
}

/// Handles on one set of maps.
struct Handles {
    tables: ShieldTables,
    tap: Tap,
    /// Which set: it changes with the maps.
    identity: u64,
}

impl Handles {
    fn open(pins: &Pins) -> Result<Self, KernelError> {
        Ok(Self {
            tables: ShieldTables::open(pins)?,
            tap: Tap::open(pins)?,
            identity: pins.identity().unwrap_or_default(),
        })
    }
}

impl View {
    async fn open(pins: Pins, interval: Duration) -> Result<Self, LifecycleError> {
        let handles = Handles::open(&pins)?;
        let netlink = Netlink::connect()?;
        let now = Reading::take(&pins, &handles.tables, &netlink).await?;
        let mut view = Self {
            pins,
            netlink,
            handles,
            sources: Sources::new(Instant::now()),
            bans: Bans::default(),
            bans_due: Instant::now(),
            interval,
            before: now.clone(),
            now,
            is_off: false,
            paused: false,
            ending_first: false,
        };
        view.read_bans();
        Ok(view)
    }

    /// Takes one reading after one interval, and samples meanwhile.
    async fn wait(&mut self) -> Result<(), LifecycleError> {
        let mut look = looks();
        let due = Instant::now() + self.interval;
        while Instant::now() < due {
            look.tick().await;
            self.take_samples()?;
        }
        self.read().await
    }

    /// Draws until a key or a signal ends it.
    async fn live(&mut self, terminal: &mut DefaultTerminal, mut stop: Stop) -> Result<(), LifecycleError> {
        let mut look = looks();
        let mut due = Instant::now();
        let mut draw = true;
        loop {
            tokio::select! {
                () = stop.asked() => return Ok(()),
                _ = look.tick() => {}
            }
            while event::poll(Duration::ZERO).map_err(LifecycleError::Terminal)? {
                match event::read().map_err(LifecycleError::Terminal)? {
                    Input::Key(key) if key.kind != KeyEventKind::Release => match action(key) {
                        Some(Action::End) => return Ok(()),
                        Some(Action::Pause) => self.paused = !self.paused,
                        Some(Action::Order) => self.ending_first = !self.ending_first,
                        None => {}
                    },
                    Input::Resize(..) => {}
                    _ => continue,
                }
                draw = true;
            }
            self.take_samples()?;
            if Instant::now() >= due && !self.paused {
                due = Instant::now() + self.interval;
                self.read().await?;
                draw = true;
            }
            if draw {
                let picture = self.picture(HEAVIEST);
                terminal
                    .draw(|frame| screen::draw(frame, &picture))
                    .map_err(LifecycleError::Terminal)?;
                draw = false;
            }
        }
    }

    fn take_samples(&mut self) -> Result<(), LifecycleError> {
        if self.is_off {
            return Ok(());
        }
        let (now, sources) = (Instant::now(), &mut self.sources);
        match self
            .handles
            .tap
            .read(SAMPLES_AT_ONCE, |event| sources.note(event, now))
        {
            // The pins have gone while it looked; the next reading tells.
            Err(_) if !self.pins.exist() => Ok(()),
            other => Ok(other?),
        }
    }

    async fn read(&mut self) -> Result<(), LifecycleError> {
        self.is_off = !self.pins.exist();
        if self.is_off {
            self.now.interfaces.clear();
            self.before = self.now.clone();
            return Ok(());
        }
        if self.pins.identity() != Some(self.handles.identity) {
            match Handles::open(&self.pins) {
                Ok(handles) => self.handles = handles,
                // Half made or half removed; the next reading will tell.
                Err(_) => return Ok(()),
            }
            self.bans_due = Instant::now();
        }
        let now = match Reading::take(&self.pins, &self.handles.tables, &self.netlink).await {
            Err(_) if !self.pins.exist() => return Ok(()),
            other => other?,
        };
        self.before = std::mem::replace(&mut self.now, now);
        self.read_bans();
        Ok(())
    }

    fn read_bans(&mut self) {
        let begun = Instant::now();
        if begun >= self.bans_due {
            self.bans = Bans::take(&self.handles.tables);
            self.bans_due = begun + begun.elapsed() * BANS_SHARE;
        }
    }

    fn picture(&mut self, most: usize) -> Picture {
        let now = Instant::now();
        let rates = rates::between(&self.before, &self.now);
        let total = rates::total(&rates);
        let counted = |service, reason| rates::of(&rates, &self.now, service, reason);
        let (heaviest, samples) = self.sources.heaviest(most, counted, now);
        let mut bans = self.bans.list.clone();
        if self.ending_first {
            let left = |ban: &crate::kernel::bans::BanEntry| ban.seconds_left.unwrap_or(f64::INFINITY);
            bans.sort_by(|a, b| left(a).total_cmp(&left(b)));
        }
        Picture {
            seconds: self
                .now
                .at
                .saturating_duration_since(self.before.at)
                .as_secs_f64(),
            interfaces: self.now.interfaces.clone(),
            observes: self.now.observes,
            total,
            rates,
            sources: screen::SourcesPart {
                estimated_from_samples: samples,
                seconds: self.sources.seconds(now),
                not_sampled: self.now.not_sampled.saturating_sub(self.before.not_sampled),
                overwritten: self.handles.tap.missed(),
                heaviest: heaviest
                    .into_iter()
                    .map(|heavy| screen::Source {
                        service: self.now.name(heavy.service).to_owned(),
                        heavy,
                    })
                    .collect(),
            },
            bans: screen::BansPart {
                held: bans.len(),
                capacity: self.bans.capacity,
                list: bans.into_iter().take(most.max(PRINTED)).collect(),
            },
            state: match (self.is_off, self.paused) {
                (true, _) => State::Off,
                (false, true) => State::Paused,
                (false, false) => State::Live,
            },
        }
    }
}

enum Action {
    End,
    Pause,
    Order,
}

fn action(key: KeyEvent) -> Option<Action> {
    match (key.code, key.modifiers.contains(KeyModifiers::CONTROL)) {
        (KeyCode::Char('c' | 'd'), true) | (KeyCode::Char('q') | KeyCode::Esc, false) => Some(Action::End),
        (KeyCode::Char('p' | ' '), false) => Some(Action::Pause),
        (KeyCode::Char('b'), false) => Some(Action::Order),
        _ => None,
    }
}

fn looks() -> tokio::time::Interval {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look
}

/// Signals that end the view; in raw mode Ctrl-C is a key.
struct Stop {
    signals: [Signal; 3],
}

impl Stop {
    fn listen() -> Result<Self, LifecycleError> {
        let on = |kind| -> Result<Signal, io::Error> { signal(kind) };
        let listen = || -> Result<[Signal; 3], io::Error> {
            Ok([
                on(SignalKind::interrupt())?,
                on(SignalKind::terminate())?,
                on(SignalKind::hangup())?,
            ])
        };
        Ok(Self {
            signals: listen().map_err(LifecycleError::io("listening for signals"))?,
        })
    }

    async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
