//! The loop: what the gateway learns about a client, the kernel enforces.
//!
//! Runs beside the gateway's workers, never on them. Offences come through a bounded queue, bans go out through the
//! pinned maps; between them are the scores. Also keeps the tables in order: expired bans are swept, and the
//! machine's addresses followed.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use edge_common::abi::{Alert, BanSource, Event, Reason};
use ipnet::IpNet;
use tokio::{sync::mpsc, time::MissedTickBehavior};

use super::{earning::Earning, shield::Shield};
use crate::{
    admin::{BAN, Events},
    config::{BanScope, Offences},
    gateway::arrivals,
    kernel::{
        KernelError,
        bans::{self, BanOrder, Banned},
        events::EventReader,
        interfaces::AddressWatch,
        syn::LOOK_EVERY,
    },
    offence::{
        Offender,
        ceiling::Ceiling,
        detained::{Custody, Detained},
        escalation::Escalator,
        networks::Networks,
        queue::{Offence, Reports},
        score::{MAX_PEERS, Scores, Sentence, host},
        tally::{BanTally, Carried},
    },
};

mod renewal;

pub(super) use renewal::{Renewal, Told};

/// How often expired bans are looked for.
const SWEEP: Duration = Duration::from_secs(10);
/// How often it is looked whether the operator has pardoned somebody whom the gateway keeps out.
const PARDONS: Duration = Duration::from_secs(1);
/// Samples taken at once, before other work has its turn.
const SAMPLES_AT_ONCE: usize = 256;

/// Everything the loop needs.
pub(super) struct Enforcer {
    shield: Option<Shield>,
    scores: Scores,
    settings: Offences,
    /// Clients that are never banned.
    exempt: Networks,
    /// Addresses that many share.
    shared: Networks,
    escalator: Option<Escalator>,
    ceiling: Ceiling,
    /// Whom the gateway itself keeps out.
    detained: Arc<Detained>,
    earning: Earning,
    /// Where the admin API tells what happens.
    events: Arc<Events>,
    /// What became of sentences.
    tally: Arc<BanTally>,
    /// Bans that this process has made and that have not been forgotten.
    made: HashMap<IpNet, Made>,
    begun: Instant,
    /// Another process looks after the tables.
    retired: bool,
}

/// So long after a ban its client's offences do not count: they were on their way when it was made.
const ON_THE_WAY: Duration = Duration::from_secs(1);

/// A ban that was made.
#[derive(Debug, Clone, Copy)]
struct Made {
    since: Instant,
    until: Instant,
    repeats: u8,
    /// It is in the kernel's table, so that its absence there is a pardon.
    in_kernel: bool,
}

impl Enforcer {
    /// Takes over a shield that is up.
    pub(super) fn new(
        shield: Option<Shield>,
        begin: Renewal,
        detained: Arc<Detained>,
        earning: Earning,
        events: Arc<Events>,
    ) -> Self {
        let Renewal {
            settings,
            never,
            escalation,
            ..
        } = begin;
        Self {
            shield,
            scores: Scores::new(settings.clone()),
            exempt: settings.exempt.iter().copied().chain(never).collect(),
            shared: settings.shared.iter().copied().collect(),
            escalator: escalation.map(Escalator::new),
            ceiling: Ceiling::new(settings.max_bans_per_minute.get()),
            settings,
            detained,
            earning,
            events,
            tally: Arc::default(),
            made: HashMap::new(),
            begun: Instant::now(),
            retired: false,
        }
    }

    /// What becomes of sentences, to be read elsewhere.
    pub(super) fn tally(&self) -> Arc<BanTally> {
        Arc::clone(&self.tally)
    }

    /// Runs until `offences` is closed, which is when every worker has ended; `renewals` come with reloads.
    pub(super) async fn run(
        mut self,
        mut offences: Reports,
        mut news: mpsc::Receiver<Told>,
    ) -> Option<Shield> {
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
        let mut pardons = tokio::time::interval(PARDONS);
        pardons.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut earn = tokio::time::interval(arrivals::LOOK_EVERY);
        earn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut forget = tokio::time::interval(self.earning.pace());
        forget.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut taken = Vec::new();
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                goes_on = offences.next(&mut taken) => {
                    if !goes_on {
                        return self.shield;
                    }
                    for offence in taken.drain(..) {
                        self.note(offence);
                    }
                }
                Some(told) = news.recv() => match told {
                    Told::Renewed(renewal) => self.renew(*renewal),
                    Told::Retired(done) => {
                        // The next process keeps the tables; what this one's connections do still counts.
                        (watch, events, self.retired) = (None, None, true);
                        let _ = done.send(());
                    }
                },
                _ = pardons.tick() => self.follow_pardons(),
                () = changed(&mut watch) => self.follow_addresses().await,
                result = samples(&mut events) => match result {
                    Ok(taken) => self.weigh(&taken),
                    Err(error) => {
                        told(&error);
                        events = None;
                    }
                },
                _ = sweep.tick() => self.sweep(),
                _ = look.tick() => self.look(),
                _ = earn.tick(), if self.shield.is_some() => self.earn(),
                _ = forget.tick(), if self.shield.is_some() => self.forget_idle(),
            }
        }
    }

    fn note(&mut self, offence: Offence) {
        let Offence { offender, kind } = offence;
        if self.is_exempt(offender.address) {
            return;
        }
        let net = host(offender.address);
        self.follow_pardon(&net);
        if self
            .made
            .get(&net)
            .is_some_and(|made| made.since.elapsed() < ON_THE_WAY)
        {
            return;
        }
        let now = self.begun.elapsed();
        let before = |net: &IpNet| repeats(self.shield.as_ref(), net, &self.made);
        if let Some(sentence) = self.scores.note(offender.address, kind, now, before) {
            self.carry_out(&sentence, BanSource::Gateway, offender);
        }
    }

    fn is_exempt(&self, address: IpAddr) -> bool {
        self.exempt.contains(address) || self.settings.exempt_local && self.is_local(address)
    }

    /// A ban that was taken out of the kernel's table before its end was pardoned: everything begins anew.
    fn follow_pardon(&mut self, net: &IpNet) {
        let (Some(made), Some(shield)) = (self.made.get(net), &self.shield) else {
            return;
        };
        let is_held = bans::key(net).is_ok_and(|key| shield.tables.find_ban(&key).is_some());
        if made.in_kernel && made.until > Instant::now() && !is_held {
            tracing::info!(%net, "pardoned");
            self.made.remove(net);
            self.scores.pardon(net);
            self.detained.lift(net.addr());
        }
    }

    fn follow_pardons(&mut self) {
        let nets: Vec<_> = self.made.keys().copied().collect();
        for net in &nets {
            self.follow_pardon(net);
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
            let is_exempt = self.is_exempt(src);
            if event.observed != 0 || is_exempt {
                continue;
            }
            let before = |net: &IpNet| repeats(self.shield.as_ref(), net, &self.made);
            if let Some(escalator) = &mut self.escalator
                && let Some(reason) = reason
                && let Some(sentence) = escalator.note(src, reason, now, before)
            {
                self.carry_out(&sentence, BanSource::Escalation, Offender::peer(src));
            }
        }
    }

    fn carry_out(&mut self, sentence: &Sentence, source: BanSource, offender: Offender) {
        let (net, seconds, repeats) = (sentence.net, sentence.duration.as_secs(), sentence.repeats);
        let evidence = sentence.evidence.as_str();
        let scope = if self.shared.contains(offender.address) {
            self.settings.shared_scope
        } else {
            self.settings.scope
        };
        if self.settings.observe {
            self.tally.count(Carried::Observed);
            tracing::warn!(%net, seconds, repeats, ?scope, evidence, "would ban: offences are only observed");
            return;
        }
        if !self.ceiling.admits(self.begun.elapsed()) {
            self.tally.count(Carried::OverCeiling);
            if let Some(shield) = &mut self.shield {
                shield.tables.alert(Alert::BansOverCeiling, 1);
            }
            tracing::error!(%net, "over offences.max_bans_per_minute: not banned");
            let detail = format!("{net}: over offences.max_bans_per_minute");
            self.events.add(BAN, "failed", detail);
            return;
        }
        let in_kernel = scope != BanScope::Slow && self.ban_in_kernel(sentence, source, scope);
        // The kernel sees a proxy's packets and not its clients', and where there is no shield it sees nothing.
        if !in_kernel || !offender.is_reached_by_the_kernel() {
            let custody = match scope {
                BanScope::Everything => Custody::Refused,
                BanScope::NewConnections => Custody::NewRefused,
                BanScope::Slow => Custody::Slowed,
            };
            let now = Instant::now();
            self.tally.count(Carried::InGateway);
            self.detained
                .put(offender.address, custody, now, sentence.duration);
            tracing::warn!(%net, seconds, repeats, ?scope, evidence, "kept out by the gateway");
            if !in_kernel {
                let detail = format!("{net} for {seconds} s, by the gateway: {evidence}");
                self.events.add(BAN, "done", detail);
            }
        }
        if self.made.len() < MAX_PEERS || self.made.contains_key(&net) {
            let since = Instant::now();
            let made = Made {
                since,
                until: since + sentence.duration,
                repeats,
                in_kernel,
            };
            self.made.insert(net, made);
        }
    }

    /// Whether the kernel holds the ban now.
    fn ban_in_kernel(&mut self, sentence: &Sentence, source: BanSource, scope: BanScope) -> bool {
        let Some(shield) = &mut self.shield else {
            return false;
        };
        let Sentence {
            net,
            duration,
            repeats,
            evidence,
        } = sentence;
        let seconds = duration.as_secs();
        let order = BanOrder {
            net: *net,
            duration: Some(*duration),
            source,
            new_connections_only: scope == BanScope::NewConnections,
            repeats: *repeats,
            note: evidence.clone(),
        };
        match shield
            .pins
            .lock()
            .and_then(|lock| shield.tables.ban(&lock, &order))
        {
            Ok(Banned::Exactly) => {
                self.tally.count(Carried::InKernel);
                tracing::warn!(%net, seconds, repeats, ?scope, evidence, "banned in the kernel");
                let detail = format!("{net} for {seconds} s, in the kernel: {evidence}");
                self.events.add(BAN, "done", detail);
                true
            }
            Ok(Banned::Within(wide)) => {
                self.tally.count(Carried::InKernel);
                tracing::error!(%net, %wide, seconds, "the ban table is full: a wider network is banned");
                let detail = format!("{net} within {wide} for {seconds} s: the ban table is full");
                self.events.add(BAN, "done", detail);
                true
            }
            Err(error) => {
                self.tally.count(Carried::Failed);
                tracing::error!(%net, %error, "could not ban");
                self.events.add(BAN, "failed", format!("{net}: {error}"));
                false
            }
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

    /// Looks whether SYN cookies have begun or ended somewhere.
    fn look(&mut self) {
        if !self.retired
            && let Some(shield) = &mut self.shield
        {
            shield.proof.look(&shield.tables, &shield.plan, &self.events);
        }
    }

    fn earn(&self) {
        if let Some(shield) = &self.shield {
            self.earning.take(&shield.tables);
        }
    }

    fn forget_idle(&self) {
        if let Some(shield) = &self.shield {
            self.earning.sweep(&shield.tables);
        }
    }

    fn sweep(&mut self) {
        let memory = self.settings.max_ban;
        let now = Instant::now();
        self.made.retain(|_, made| now < made.until + memory);
        if self.retired {
            return;
        }
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

/// How often a network was banned before, as far as the kernel's table or this process remembers.
fn repeats(shield: Option<&Shield>, net: &IpNet, made: &HashMap<IpNet, Made>) -> u8 {
    let held = bans::key(net)
        .ok()
        .and_then(|key| shield.and_then(|shield| shield.tables.find_ban(&key)));
    let in_kernel = held.map(|ban| ban.repeats.saturating_add(1));
    let here = made.get(net).map(|made| made.repeats.saturating_add(1));
    in_kernel.max(here).unwrap_or(0)
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
