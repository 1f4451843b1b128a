//! `[shield]` and `[[service]]`: what the kernel is to judge and by which limits.

use std::{num::NonZeroU32, time::Duration};

use ipnet::IpNet;

use super::{Checks, bans, direct, guard, items, lists};
use crate::config::{
    AttachMode, FragmentPolicy, Limits, Observe, Protocol, Rate, Service, Shield, bounds,
    problem::Place,
    raw::{ObserveSetting, RateSetting, RawLimits, RawRate, RawService, RawShield},
    section::{Field, Key, Section},
    value::{Item, shown},
};

/// `shield.max_bans` as a checked constant.
const DEFAULT_MAX_BANS: NonZeroU32 = match NonZeroU32::new(bounds::DEFAULT_MAX_BANS) {
    Some(bans) => bans,
    None => NonZeroU32::MIN,
};

impl Default for Shield {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            mode: AttachMode::default(),
            allow_generic: false,
            observe: Observe::default(),
            fragments: FragmentPolicy::default(),
            malformed: FragmentPolicy::default(),
            drop_martians: true,
            icmp: None,
            limits: Limits::default(),
            allow: Vec::new(),
            deny: Vec::new(),
            allow_file: None,
            deny_file: None,
            max_bans: DEFAULT_MAX_BANS,
            earned_idle: bounds::DEFAULT_EARNED_IDLE,
            set_sysctls: false,
            escalation: None,
        }
    }
}

pub(super) fn shield(raw: Option<&RawShield>, checks: &mut Checks<'_>) -> Shield {
    let Some(raw) = raw else { return Shield::default() };
    let default = Shield::default();
    let mode = raw.mode.clone().or(default.mode);
    if let (AttachMode::Native | AttachMode::Generic, Some(Field { value: true, at })) =
        (mode, raw.allow_generic.field())
    {
        checks.warn(
            at,
            "`allow_generic` has no effect unless `mode` is \"auto\"",
            "remove one of the two",
        );
    }
    let (allow, deny) = lists::lists(raw, checks);
    Shield {
        interfaces: interfaces(&raw.interfaces, checks),
        mode,
        allow_generic: raw.allow_generic.clone().or(default.allow_generic),
        observe: observe(&raw.observe, checks),
        fragments: raw.fragments.clone().or(default.fragments),
        malformed: raw.malformed.clone().or(default.malformed),
        drop_martians: raw.drop_martians.clone().or(default.drop_martians),
        icmp: limit(&raw.icmp, default.icmp, checks),
        limits: limits(raw.limits.value(), default.limits, checks),
        allow,
        deny,
        allow_file: raw.allow_file.value().map(|file| checks.base_dir.join(file)),
        deny_file: raw.deny_file.value().map(|file| checks.base_dir.join(file)),
        max_bans: raw
            .max_bans
            .field()
            .and_then(|field| checks.count(field, bounds::MAX_BANS))
            .unwrap_or(default.max_bans),
        earned_idle: earned_idle(&raw.earned_idle, checks),
        set_sysctls: raw.set_sysctls.clone().or(default.set_sysctls),
        escalation: bans::escalation(raw.escalation.value(), checks),
    }
}

fn earned_idle(key: &Key<Duration>, checks: &mut Checks<'_>) -> Duration {
    let idle = checks.duration(key, bounds::DEFAULT_EARNED_IDLE, bounds::MAX_EARNED_IDLE);
    if let Some(Field { value, at }) = key.field()
        && !value.is_zero()
        && *value < bounds::MIN_EARNED_IDLE
    {
        checks.error_help(
            at,
            format!(
                "`earned_idle` must be at least {}",
                shown(bounds::MIN_EARNED_IDLE)
            ),
            "the table is swept once a second at most",
        );
    }
    idle
}

fn observe(key: &Key<ObserveSetting>, checks: &mut Checks<'_>) -> Observe {
    let Some(Field { value, at }) = key.field() else {
        return Observe::default();
    };
    match value {
        ObserveSetting::All(true) => Observe::Everything,
        ObserveSetting::All(false) => Observe::Nothing,
        ObserveSetting::Rules(list) => {
            let places: Vec<_> = list.iter().map(|item| item.at(at)).collect();
            let given = list.iter().zip(&places);
            checks.unique(
                "reason",
                given.map(|(item, at)| (item.value, item.value.name().to_owned(), at)),
            );
            match list.as_slice() {
                [] => Observe::Nothing,
                list => Observe::Rules(list.iter().map(|item| item.value).collect()),
            }
        }
    }
}

pub(super) fn networks(key: &Key<Vec<Item<IpNet>>>) -> Vec<IpNet> {
    items(key).iter().map(|item| item.value).collect()
}

fn interfaces(key: &Key<Vec<Item<String>>>, checks: &mut Checks<'_>) -> Vec<String> {
    let Some(Field {
        value: list,
        at: list_at,
    }) = key.field()
    else {
        return Vec::new();
    };
    checks.bounded(key, bounds::MAX_ITEMS);
    let places: Vec<_> = list
        .iter()
        .map(|item| (item.value.as_str(), item.at(list_at)))
        .collect();
    for (name, at) in &places {
        if !is_interface_name(name) {
            checks.error_help(
                at,
                format!("`{name}` cannot be the name of an interface"),
                format!(
                    "1 to {} bytes without `/`, `:` or blanks",
                    bounds::MAX_INTERFACE_BYTES
                ),
            );
        }
    }
    checks.unique(
        "interface",
        places.iter().map(|(name, at)| (*name, (*name).to_owned(), at)),
    );
    list.iter().map(|item| item.value.clone()).collect()
}

/// What `dev_valid_name` in the kernel accepts.
pub(crate) fn is_interface_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= bounds::MAX_INTERFACE_BYTES
        && name != "."
        && name != ".."
        && !name
            .chars()
            .any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
}

/// The limits written in one table over those it inherits.
fn limits(raw: Option<&RawLimits>, inherited: Limits, checks: &mut Checks<'_>) -> Limits {
    let Some(raw) = raw else { return inherited };
    Limits {
        source_packets: limit(&raw.source_packets, inherited.source_packets, checks),
        source_syns: limit(&raw.source_syns, inherited.source_syns, checks),
        source_bytes: limit(&raw.source_bytes, inherited.source_bytes, checks),
        network_packets: limit(&raw.network_packets, inherited.network_packets, checks),
        network_syns: limit(&raw.network_syns, inherited.network_syns, checks),
        network_bytes: limit(&raw.network_bytes, inherited.network_bytes, checks),
    }
}

pub(super) fn limit(
    key: &Key<RateSetting>,
    inherited: Option<Rate>,
    checks: &mut Checks<'_>,
) -> Option<Rate> {
    match key {
        Key::Absent(_) => inherited,
        Key::Bad
        | Key::Set(Field {
            value: RateSetting::Off,
            ..
        }) => None,
        Key::Set(Field {
            value: RateSetting::Limit(raw),
            ..
        }) => rate(raw, checks),
    }
}

fn rate(raw: &RawRate, checks: &mut Checks<'_>) -> Option<Rate> {
    let per_second = raw.per_second.required(raw.at(), checks.findings);
    let burst = raw.burst.required(raw.at(), checks.findings);
    let (per_second, burst) = (per_second?, burst?);
    if per_second.value == 0 {
        checks.error_help(
            &per_second.at,
            "a rate of 0 admits nothing",
            "to refuse a source use `shield.deny`; to switch a limit off write \"off\"",
        );
        return None;
    }
    if per_second.value > bounds::MAX_RATE {
        checks.error(
            &per_second.at,
            format!("`per_second` must be at most {}", bounds::MAX_RATE),
        );
        return None;
    }
    burst_in_range(per_second.value, burst, checks);
    Some(Rate {
        per_second: per_second.value,
        burst: burst.value,
    })
}

/// A burst of less than two clock ticks' worth would refuse traffic at its own rate, since the limiter learns of
/// time passing only at ticks; one that takes very long to earn back does not fit a limiter cell.
fn burst_in_range(per_second: u64, burst: &Field<u64>, checks: &mut Checks<'_>) {
    let hz = u64::from(checks.options.kernel_hz.max(1));
    let least = per_second
        .saturating_mul(bounds::MIN_BURST_TICKS)
        .div_ceil(hz)
        .max(1);
    let most = per_second.saturating_mul(bounds::MAX_BURST_SECONDS);
    let Field { value, at } = burst;
    if *value == 0 {
        checks.error(at, "a burst below 1 admits nothing");
    } else if *value < least {
        checks.error_help(
            at,
            format!("a burst of {value} is less than two clock ticks' worth of {per_second} a second"),
            format!("at least {least} (a kernel with {hz} ticks a second)"),
        );
    } else if *value > most {
        checks.error_help(
            at,
            format!(
                "a burst of {value} takes more than {} s to earn back",
                bounds::MAX_BURST_SECONDS
            ),
            format!("at most {most} at {per_second} a second"),
        );
    }
}

pub(super) fn services(raw: &[Item<RawService>], shield: &Shield, checks: &mut Checks<'_>) -> Vec<Service> {
    let names = raw.iter().filter_map(|item| item.value.name.field());
    checks.unique(
        "service name",
        names.map(|name| (&name.value, name.value.clone(), &name.at)),
    );
    checks.unique("service", raw.iter().filter_map(|item| identity(&item.value)));
    direct::room(raw, checks);
    raw.iter()
        .filter_map(|item| service(&item.value, shield, checks))
        .collect()
}

/// Warns of an escalation that nothing can lead to.
pub(super) fn never_escalating(
    raw: Option<&RawShield>,
    shield: &Shield,
    services: &[Service],
    checks: &mut Checks<'_>,
) {
    let Some(Field { at, .. }) = raw.and_then(|raw| raw.escalation.field()) else {
        return;
    };
    let limits = services
        .iter()
        .map(|service| service.limits)
        .chain([shield.limits]);
    if shield.icmp.is_none() && limits.into_iter().all(|limits| limits == Limits::default()) {
        checks.warn(
            at,
            "nobody can be over a limit: none is set",
            "set one in `[shield.limits]`, or remove `[shield.escalation]`",
        );
    }
}

type Identity = (Option<std::net::IpAddr>, u8, u64);

fn identity(raw: &RawService) -> Option<(Identity, String, &Place)> {
    let address = match &raw.address {
        Key::Absent(_) => None,
        Key::Bad => return None,
        Key::Set(field) => Some(field.value),
    };
    let (protocol, port) = (raw.protocol.value()?, raw.port.value()?);
    let (number, word) = match protocol {
        Protocol::Tcp => (6, "tcp"),
        Protocol::Udp => (17, "udp"),
    };
    let shown = match address {
        Some(address) => format!("{word} {}", std::net::SocketAddr::new(address, *port as u16)),
        None => format!("{word} port {port} of every local address"),
    };
    Some(((address, number, *port), shown, raw.at()))
}

fn service(raw: &RawService, shield: &Shield, checks: &mut Checks<'_>) -> Option<Service> {
    let name = checks.name(&raw.name, raw.at());
    let protocol = raw
        .protocol
        .required(raw.at(), checks.findings)
        .map(|field| field.value);
    let port = raw.port.required(raw.at(), checks.findings);
    let port = port.and_then(|field| checks.count(field, u32::from(u16::MAX)));
    if let Some(Field { value, at }) = raw.address.field()
        && (value.is_unspecified() || value.is_multicast())
    {
        checks.error_help(
            at,
            format!("`{value}` is not an address of this host"),
            "leave `address` out to protect every local address",
        );
    }
    let limits = limits(raw.limits.value(), shield.limits, checks);
    if let (Observe::Everything, Some(Field { value: false, at })) = (&shield.observe, raw.observe.field()) {
        checks.warn(
            at,
            "`observe` has no effect: `shield.observe` holds for every service",
            "set `shield.observe` to false and `observe` in the services that are to be watched",
        );
    }
    let guard = guard::guard(raw, protocol, checks);
    let direct = direct::direct(raw, checks);
    let port = u16::try_from(port?.get()).ok()?;
    Some(Service {
        name,
        address: raw.address.value().copied(),
        protocol: protocol?,
        port,
        limits,
        observe: raw.observe.clone().or_default(),
        guard,
        direct,
    })
}
