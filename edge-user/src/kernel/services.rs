//! Writes the protected services: into the copy of the tables that is not in force, then one flip.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use edge_common::{
    abi::{
        Addr, AddressFlags, Control, ControlWord, CookieSettings, Limit, LimitKind, PortEntry, Service,
        SteerRule, SynRule,
        limit::MAX_LIMITS,
        service::{ADDRESS_ENTRY, MAX_CHAIN, MAX_SERVICES, PORTS},
    },
    algo::gcra::{self, ScaleError},
};

pub(super) use self::names::text;
use self::{
    names::padded,
    returns::{Return, head},
};
use super::{KernelError, ShieldTables, pins::Lock, syn};
use crate::config::{self, Direct, Guard, Limits, Protocol, Rate};

mod names;
mod returns;

/// First identifier of a configured service.
const FIRST_ID: u16 = 2;
/// Bits of the control word that this module owns.
const OWNED: u64 = Control::SERVICES | Control::ANY_LOCAL | Control::HAS_DIRECT;

/// The service tables, ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePlan {
    services: Vec<(String, Service, Protocol, u16)>,
    /// What guards each of them.
    rules: Vec<Option<SynRule>>,
    /// Where each of them is forwarded, if it is.
    directs: Vec<Option<Direct>>,
    /// Where backends' answers to translated packets come.
    returns: Vec<Return>,
    address_entry: Service,
}

impl ServicePlan {
    /// Names of what has an identifier.
    fn names(&self) -> impl Iterator<Item = &str> {
        let services = self.services.iter().map(|(name, ..)| name.as_str());
        services.chain(self.returns.iter().map(|to| to.name.as_str()))
    }

    /// The rule of the service with this name.
    pub(super) fn rule(&self, name: &str) -> Option<SynRule> {
        let at = self.services.iter().position(|(known, ..)| known == name)?;
        self.rules.get(at).copied().flatten()
    }
}

/// Translates the configured services for a kernel with `hz` ticks a second.
///
/// # Errors
/// More services than fit, or a rate that cells cannot count; names the service and the limit.
pub fn plan(
    shield: &config::Shield,
    services: &[config::Service],
    hz: u32,
) -> Result<ServicePlan, KernelError> {
    let room = MAX_SERVICES - u32::from(FIRST_ID);
    let returns = Return::all(services);
    if services.len() + returns.len() > room as usize {
        return Err(KernelError::TooManyServices {
            count: services.len() + returns.len(),
            max: room,
        });
    }
    let mut by_port: HashMap<(u16, bool), u32> = HashMap::new();
    let mut planned = Vec::with_capacity(services.len());
    let mut rules = Vec::with_capacity(services.len());
    let mut directs = Vec::with_capacity(services.len());
    for service in services {
        let sharing = by_port
            .entry((service.port, service.protocol == Protocol::Tcp))
            .or_default();
        *sharing += 1;
        // The addresses of answers are at the end of each chain that they are in.
        let behind = returns
            .iter()
            .filter(|to| to.protocol == service.protocol)
            .count() as u32;
        if *sharing + behind > MAX_CHAIN {
            return Err(KernelError::TooManyServices {
                count: (*sharing + behind) as usize,
                max: MAX_CHAIN,
            });
        }
        let entry = Service {
            addr: service.address.map_or(Addr::UNSPECIFIED, Addr::from),
            flags: flags(service),
            ..limited(&scale(&service.name, &service.limits, hz)?)
        };
        directs.push(service.direct.clone());
        rules.push(syn::rule(&service.name, service.guard, hz)?);
        planned.push((service.name.clone(), entry, service.protocol, service.port));
    }
    let icmp = match shield.icmp {
        Some(rate) => vec![(
            LimitKind::SourceIcmp,
            scale_one("shield", "icmp", rate, hz, false)?,
        )],
        None => Vec::new(),
    };
    let address_entry = limited(&icmp);
    Ok(ServicePlan {
        services: planned,
        rules,
        directs,
        returns,
        address_entry,
    })
}

fn flags(service: &config::Service) -> u16 {
    let any_local = if service.address.is_none() {
        Service::ANY_LOCAL
    } else {
        0
    };
    let observe = if service.observe { Service::OBSERVE } else { 0 };
    let guarded = if service.guard == Guard::None {
        0
    } else {
        Service::GUARDED
    };
    let direct = if service.direct.is_some() {
        Service::DIRECT
    } else {
        0
    };
    any_local | observe | guarded | direct
}

/// A service that has nothing but these limits, in the order in which a packet meets them.
fn limited(limits: &[(LimitKind, Limit)]) -> Service {
    let salt = salt(limits);
    let ordered = LimitKind::ORDER
        .iter()
        .filter_map(|kind| limits.iter().find(|(found, _)| found == kind));
    let mut service = Service::default();
    for ((kind, limit), place) in ordered.zip(&mut service.limits) {
        *place = Limit {
            salt,
            kind: *kind as u8,
            flags: kind.flags(),
            ..*limit
        };
        service.active += 1;
    }
    debug_assert!(usize::from(service.active) <= MAX_LIMITS);
    service
}

fn scale(service: &str, limits: &Limits, hz: u32) -> Result<Vec<(LimitKind, Limit)>, KernelError> {
    let mut scaled = Vec::new();
    let all = [
        (
            LimitKind::SourcePackets,
            "source_packets",
            limits.source_packets,
            false,
        ),
        (LimitKind::SourceSyns, "source_syns", limits.source_syns, false),
        (LimitKind::SourceBytes, "source_bytes", limits.source_bytes, true),
        (
            LimitKind::NetworkPackets,
            "network_packets",
            limits.network_packets,
            false,
        ),
        (LimitKind::NetworkSyns, "network_syns", limits.network_syns, false),
        (
            LimitKind::NetworkBytes,
            "network_bytes",
            limits.network_bytes,
            true,
        ),
    ];
    for (kind, name, rate, bytes) in all {
        if let Some(rate) = rate {
            scaled.push((kind, scale_one(service, name, rate, hz, bytes)?));
        }
    }
    Ok(scaled)
}

pub(super) fn scale_one(
    service: &str,
    limit: &'static str,
    rate: Rate,
    hz: u32,
    bytes: bool,
) -> Result<Limit, KernelError> {
    gcra::scale(rate.per_second, rate.burst, hz, bytes).map_err(|error| KernelError::Rate {
        service: service.to_owned(),
        limit,
        reason: match error {
            ScaleError::ZeroRate => "a rate of 0 would drop everything: deny or ban instead".into(),
            ScaleError::BurstTooSmall { least } => format!(
                "a burst of {} is smaller than two timer ticks of this rate; {least} is the least with {hz} ticks a second",
                rate.burst
            ),
            ScaleError::BurstTooLarge { most } => {
                format!("a burst of {} is too large for this rate; {most} is the most", rate.burst)
            }
            ScaleError::RateTooLarge => format!("{} a second is too large", rate.per_second),
        },
    })
}

/// Equal limits share cells: FNV-1a over their words, folded to 16 bits.
fn salt(limits: &[(LimitKind, Limit)]) -> u16 {
    let mut h = 0xcbf2_9ce4_8422_2325_u64;
    for (kind, limit) in limits {
        for word in [*kind as u64, limit.cost, limit.capacity] {
            h = (h ^ word).wrapping_mul(0x0100_0000_01b3);
            h ^= h >> 29;
        }
    }
    (h ^ (h >> 16) ^ (h >> 32) ^ (h >> 48)) as u16
}

impl ShieldTables {
    /// Puts the plan in force at one instant. `also` is what else of the control word changes with it: the bits
    /// of `mask` take the values of `bits`.
    ///
    /// # Errors
    /// The table of addresses cannot be written; nothing has been put in force then.
    pub fn apply_services(
        &mut self,
        _lock: &Lock,
        plan: &ServicePlan,
        local: &[IpAddr],
        mask: u64,
        bits: u64,
    ) -> Result<(), KernelError> {
        let filled = self.fill_services(plan, local)?;
        let word = filled.word(self.control().0 & !mask | bits & mask);
        self.control.store(ControlWord::Control as u32, word);
        self.settle(&filled);
        Ok(())
    }

    /// Writes the plan into the copy that is not in force. Addresses have no copies: until it is, they have the flags of
    /// both.
    ///
    /// # Errors
    /// The table of addresses cannot be written; it is as it was then.
    pub(super) fn fill_services(
        &mut self,
        plan: &ServicePlan,
        local: &[IpAddr],
    ) -> Result<FilledServices, KernelError> {
        let next = 1 - self.control().copy(Control::SERVICES);
        let ready = self.cookie_settings().has(CookieSettings::READY);
        let ids = self.assign_ids(plan);
        self.clear_copy(next);
        let base = next * MAX_SERVICES;
        self.services
            .set(base + u32::from(ADDRESS_ENTRY), plan.address_entry);
        let directs: Vec<(u16, u16, &Direct)> = (plan.services.iter().zip(&plan.directs).zip(&ids))
            .filter_map(|(((.., port), direct), id)| Some((*id, *port, direct.as_ref()?)))
            .collect();
        let returns: Vec<(u16, &Return)> = ids
            .iter()
            .skip(plan.services.len())
            .copied()
            .zip(&plan.returns)
            .collect();
        let rules: Vec<(u16, SteerRule)> = returns.iter().map(|(id, to)| (*id, to.rule())).collect();
        self.write_steering(next, &directs, &rules)?;
        let mut heads: BTreeMap<u16, PortEntry> = BTreeMap::new();
        self.write_returns(next, &returns, &mut heads);
        for (((name, service, protocol, port), rule), id) in plan.services.iter().zip(&plan.rules).zip(ids) {
            self.write_syn_rule(next, id, *rule, ready);
            let head = head(heads.entry(*port).or_default(), *protocol, next);
            self.services.set(
                base + u32::from(id),
                Service {
                    id,
                    next: *head,
                    ..*service
                },
            );
            *head = id;
            self.names.set(u32::from(id), padded(name));
        }
        for (port, entry) in heads {
            self.set_heads(u32::from(port), next, entry);
        }
        let filled = FilledServices {
            next,
            any_local: plan
                .services
                .iter()
                .any(|(_, service, ..)| service.flags & Service::ANY_LOCAL != 0),
            directs: directs
                .iter()
                .map(|(id, port, direct)| (*id, *port, Direct::clone(direct)))
                .collect(),
            wanted: wanted_addresses(plan, local),
            before: self.addresses.iter().flatten().collect(),
        };
        for (addr, flags) in &filled.wanted {
            let had = filled.before.get(addr).copied().unwrap_or_default();
            if had & flags == *flags && filled.before.contains_key(addr) {
                continue;
            }
            if let Err(error) = self.addresses.insert(addr, flags | had, 0) {
                self.take_back_addresses(&filled);
                return Err(KernelError::map("writing ADDRESSES")(error));
            }
        }
        Ok(filled)
    }

    /// Leaves the addresses and backends that the plan in force wants, with their own flags.
    pub(super) fn settle(&mut self, filled: &FilledServices) {
        let directs: Vec<_> = filled
            .directs
            .iter()
            .map(|(id, port, direct)| (*id, *port, direct))
            .collect();
        self.forget_backends(&directs);
        self.make_addresses(&filled.wanted);
    }

    /// Leaves the addresses that were there before.
    pub(super) fn take_back_addresses(&mut self, filled: &FilledServices) {
        self.make_addresses(&filled.before);
    }

    /// Each entry was there, or there was room for it, a moment ago.
    fn make_addresses(&mut self, wanted: &HashMap<Addr, u32>) {
        let now: HashMap<Addr, u32> = self.addresses.iter().flatten().collect();
        for (addr, flags) in wanted.iter().filter(|(addr, flags)| now.get(addr) != Some(flags)) {
            if let Err(error) = self.addresses.insert(addr, flags, 0) {
                tracing::warn!(%error, "the table of addresses");
            }
        }
        for addr in now.keys().filter(|addr| !wanted.contains_key(addr)) {
            _ = self.addresses.remove(addr);
        }
    }

    /// Brings the table of addresses up to date after an address came or went.
    ///
    /// # Errors
    /// The table cannot be written.
    pub fn refresh_addresses(&mut self, plan: &ServicePlan, local: &[IpAddr]) -> Result<(), KernelError> {
        for addr in self.write_addresses(plan, local)? {
            _ = self.addresses.remove(&addr);
        }
        Ok(())
    }

    /// Services in force, as (identifier, name).
    pub fn service_names(&self) -> Vec<(u16, String)> {
        let base = self.control().copy(Control::SERVICES) * MAX_SERVICES;
        (FIRST_ID..MAX_SERVICES as u16)
            .filter(|id| {
                self.services
                    .get(base + u32::from(*id))
                    .is_some_and(|service| service.id == *id)
            })
            .map(|id| {
                (
                    id,
                    self.names
                        .get(u32::from(id))
                        .map_or_else(String::new, |name| text(&name)),
                )
            })
            .collect()
    }

    /// The service in force with this identifier.
    pub fn service(&self, id: u16) -> Option<Service> {
        self.services
            .get(self.control().copy(Control::SERVICES) * MAX_SERVICES + u32::from(id))
    }

    /// Writes the addresses wanted, and returns those that are there but no longer wanted.
    fn write_addresses(&mut self, plan: &ServicePlan, local: &[IpAddr]) -> Result<Vec<Addr>, KernelError> {
        let wanted = wanted_addresses(plan, local);
        for (addr, flags) in &wanted {
            self.addresses
                .insert(addr, flags, 0)
                .map_err(KernelError::map("writing ADDRESSES"))?;
        }
        Ok(self
            .addresses
            .keys()
            .flatten()
            .filter(|addr| !wanted.contains_key(addr))
            .collect())
    }

    /// Identifiers for the plan's services: the one it has, or the lowest free one.
    fn assign_ids(&self, plan: &ServicePlan) -> Vec<u16> {
        let known: HashMap<String, u16> = self
            .service_names()
            .into_iter()
            .map(|(id, name)| (name, id))
            .collect();
        let mut taken: Vec<u16> = plan.names().filter_map(|name| known.get(name).copied()).collect();
        // A name that is gone keeps its identifier until the table is full, so its counters are not mixed up with
        // another's at once.
        let mut free = (FIRST_ID..MAX_SERVICES as u16)
            .filter(|id| !taken.contains(id))
            .collect::<Vec<_>>();
        free.sort_by_key(|id| known.values().any(|held| held == id));
        let mut free = free.into_iter();
        plan.names()
            .map(|name| {
                known
                    .get(name)
                    .copied()
                    .or_else(|| free.next())
                    .unwrap_or(FIRST_ID)
            })
            .inspect(|id| taken.push(*id))
            .collect()
    }

    fn clear_copy(&self, copy: u32) {
        for index in 0..MAX_SERVICES {
            self.services.set(copy * MAX_SERVICES + index, Service::default());
        }
        for port in 0..PORTS {
            self.set_heads(port, copy, PortEntry::default());
        }
    }

    /// Sets the heads of one copy. The other one's, which are in force, are in the same word, which is stored whole.
    fn set_heads(&self, port: u32, copy: u32, heads: PortEntry) {
        let old = self.ports.get(port).unwrap_or_default();
        let mut new = old;
        let copy = copy as usize;
        (new.tcp[copy], new.udp[copy]) = (heads.tcp[copy], heads.udp[copy]);
        if new != old {
            self.ports.store_word(port, 0, new.to_word());
        }
    }
}

/// A plan that is written and not in force.
pub(super) struct FilledServices {
    next: u32,
    any_local: bool,
    /// Identifier, port and backends of each service that is steered.
    directs: Vec<(u16, u16, Direct)>,
    /// The addresses with the flags that the plan gives them.
    wanted: HashMap<Addr, u32>,
    /// The addresses as they were.
    before: HashMap<Addr, u32>,
}

impl FilledServices {
    /// The control word that puts it in force.
    pub(super) fn word(&self, control: u64) -> u64 {
        let mut word = control & !OWNED;
        word |= if self.next == 1 { Control::SERVICES } else { 0 };
        word |= if self.any_local { Control::ANY_LOCAL } else { 0 };
        word |= if self.directs.is_empty() {
            0
        } else {
            Control::HAS_DIRECT
        };
        word
    }
}

fn wanted_addresses(plan: &ServicePlan, local: &[IpAddr]) -> HashMap<Addr, u32> {
    let mut wanted: HashMap<Addr, u32> = HashMap::new();
    for address in local {
        *wanted.entry(Addr::from(*address)).or_default() |= AddressFlags::LOCAL;
    }
    for (_, service, ..) in &plan.services {
        if service.flags & Service::ANY_LOCAL == 0 {
            *wanted.entry(service.addr).or_default() |= AddressFlags::PROTECTED;
        }
    }
    wanted
}
