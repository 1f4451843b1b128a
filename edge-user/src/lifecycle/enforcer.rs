//! The loop: what the gateway learns about a client, the kernel enforces.
//!
//! Runs beside the gateway's workers, never on them. Offences come through a bounded queue, bans go out through the
//! pinned maps; between them are the scores. Also keeps the tables in order: expired bans are swept, and the
//! machine's addresses followed.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use edge_common::abi::{Alert, BanSource, Event, Reason};
use ipnet::IpNet;
use tokio::{sync::mpsc, time::MissedTickBehavior};

use super::shield::Shield;
use crate::{
    config::{Escalation, Offences},
    kernel::{
        KernelError,
        bans::{self, BanOrder, Banned},
        events::EventReader,
        interfaces::AddressWatch,
    },
    offence::{
        ceiling::Ceiling,
        escalation::Escalator,
        queue::Offence,
        score::{Scores, Sentence},
    },
};

/// How often expired bans are looked for.
const SWEEP: Duration = Duration::from_secs(10);
/// Samples taken at once, before other work has its turn.
const SAMPLES_AT_ONCE: usize = 256;

/// Everything the loop needs.
pub(super) struct Enforcer {
    shield: Option<Shield>,
    scores: Scores,
    settings: Offences,
    escalator: Option<Escalator>,
    ceiling: Ceiling,
    begun: Instant,
}

impl Enforcer {
    pub(super) fn new(shield: Option<Shield>, settings: Offences, escalation: Option<Escalation>) -> Self {
        Self {
            shield,
            scores: Scores::new(settings.clone()),
            escalator: escalation.map(Escalator::new),
            ceiling: Ceiling::new(settings.max_bans_per_minute.get()),
            settings,
            begun: Instant::now(),
        }
    }

    /// Runs until `offences` is closed, which is when every worker has ended.
    pub(super) async fn run(mut self, mut offences: mpsc::Receiver<Offence>) -> Option<Shield> {
        let mut watch = self
            .shield
            .as_ref()
            .and_then(|_| AddressWatch::subscribe().inspect_err(told).ok());
        let mut events = self
            .shield
            .as_ref()
            .and_then(|shield| EventReader::open(&shield.pins).inspect_err(told).ok());
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                offence = offences.recv() => match offence {
                    Some(offence) => self.note(offence),
                    None => return self.shield,
                },
                () = changed(&mut watch) => self.follow_addresses().await,
                result = samples(&mut events) => match result {
                    Ok(taken) => self.weigh(&taken),
                    Err(error) => {
                        told(&error);
                        events = None;
                    }
                },
                _ = sweep.tick() => self.sweep(),
            }
        }
    }

    fn note(&mut self, offence: Offence) {
        let Offence { offender, kind } = offence;
        // The kernel would drop packets of an address that sends none.
        if !offender.is_reached_by_the_kernel() {
            tracing::debug!(client = %offender.address, kind = kind.name(), "offence behind a proxy: not scored");
            return;
        }
        if self.settings.exempt_local && self.is_local(offender.address) {
            return;
        }
        let now = self.begun.elapsed();
        let before = |net: &IpNet| repeats(self.shield.as_ref(), net);
        if let Some(sentence) = self.scores.note(offender.address, kind, now, before) {
            self.carry_out(sentence, BanSource::Gateway);
        }
    }

    /// Tells sampled drops at debug level, and bans who stays over its limit.
    fn weigh(&mut self, samples: &[Event]) {
        let now = self.begun.elapsed();
        for event in samples {
            let reason = Reason::from_index(event.reason);
            let src = IpAddr::from(event.src);
            tracing::debug!(
                target: "shield",
                reason = reason.map_or("unknown", Reason::name),
                %src,
                dst = %IpAddr::from(event.dst),
                sport = event.sport,
                dport = event.dport,
                bytes = event.len,
                observed = event.observed != 0,
                "dropped"
            );
            let is_exempt = self
                .settings
                .exempt
                .iter()
                .any(|net| net.contains(&src.to_canonical()))
                || self.settings.exempt_local && self.is_local(src);
            if event.observed != 0 || is_exempt {
                continue;
            }
            let before = |net: &IpNet| repeats(self.shield.as_ref(), net);
            if let Some(escalator) = &mut self.escalator
                && let Some(reason) = reason
                && let Some(sentence) = escalator.note(src, reason, now, before)
            {
                self.carry_out(sentence, BanSource::Escalation);
            }
        }
    }

    fn carry_out(&mut self, sentence: Sentence, source: BanSource) {
        let Sentence {
            net,
            duration,
            repeats,
            evidence,
        } = sentence;
        let seconds = duration.as_secs();
        let Some(shield) = self.shield.as_mut().filter(|_| !self.settings.observe) else {
            tracing::warn!(%net, seconds, evidence, "would ban: offences are only observed, or there is no shield");
            return;
        };
        if !self.ceiling.admits(self.begun.elapsed()) {
            shield.tables.alert(Alert::BansOverCeiling, 1);
            tracing::error!(%net, "over offences.max_bans_per_minute: not banned");
            return;
        }
        let order = BanOrder {
            net,
            duration: Some(duration),
            source,
            new_connections_only: false,
            repeats,
            note: evidence.clone(),
        };
        match shield
            .pins
            .lock()
            .and_then(|lock| shield.tables.ban(&lock, &order))
        {
            Ok(Banned::Exactly) => tracing::warn!(%net, seconds, repeats, evidence, "banned in the kernel"),
            Ok(Banned::Within(wide)) => {
                tracing::error!(%net, %wide, seconds, "the ban table is full: a wider network is banned");
            }
            Err(error) => tracing::error!(%net, %error, "could not ban"),
        }
    }

    fn is_local(&self, peer: IpAddr) -> bool {
        peer.to_canonical().is_loopback()
            || self
                .shield
                .as_ref()
                .is_some_and(|shield| shield.local.contains(&peer.to_canonical()))
    }

    async fn follow_addresses(&mut self) {
        if let Some(shield) = &mut self.shield
            && let Err(error) = shield.refresh_addresses().await
        {
            told(&error);
        }
    }

    fn sweep(&mut self) {
        let memory = self.settings.max_ban;
        if let Some(shield) = &mut self.shield {
            if let Some(log) = &mut shield.log {
                log.flush();
            }
            match shield
                .pins
                .lock()
                .and_then(|lock| shield.tables.sweep(&lock, memory))
            {
                Ok(0) => {}
                Ok(ended) => tracing::debug!(ended, "swept expired bans"),
                Err(error) => told(&error),
            }
        }
    }
}

fn told(error: &KernelError) {
    tracing::warn!(%error, "the kernel side");
}

/// Waits for the machine's addresses to change, for ever if nobody watches.
async fn changed(watch: &mut Option<AddressWatch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

/// How often a network was banned before, as far as the table remembers.
fn repeats(shield: Option<&Shield>, net: &IpNet) -> u8 {
    let held = bans::key(net)
        .ok()
        .and_then(|key| shield.and_then(|shield| shield.tables.find_ban(&key)));
    held.map_or(0, |ban| ban.repeats.saturating_add(1))
}

/// Takes sampled drops from the ring buffer; waits for ever if there is none.
async fn samples(events: &mut Option<EventReader>) -> Result<Vec<Event>, KernelError> {
    let Some(reader) = events else {
        return std::future::pending().await;
    };
    let mut taken = Vec::new();
    reader.read(SAMPLES_AT_ONCE, |event| taken.push(*event)).await?;
    Ok(taken)
}
