//! Brings the shield up: load, fill the tables, attach; and takes back what was done if a step fails.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use edge_common::abi::{Control, Feature, Reason};

use super::{
    proof::{self, ProofWatch},
    steering,
};
use crate::{
    config::{Config, FragmentPolicy, Shield as ShieldConfig},
    kernel::{
        KernelError, Pins, ShieldTables,
        attach::{self, Attached, How},
        change::{Staged, TableChange},
        clock, handed,
        interfaces::Netlink,
        lists::{List, Part},
        loader::{self, Sizes},
        program_log::ProgramLog,
        services::{self, ServicePlan},
    },
};

/// Bits of the control word that the configuration sets beside the services.
const SETTINGS: u64 =
    Control::PASS_FRAGMENTS | Control::PASS_MALFORMED | Control::DROP_MARTIANS | 0xffff_ffff_0000_0000;

/// A shield that is up.
pub(super) struct Shield {
    pub(super) pins: Pins,
    pub(super) tables: ShieldTables,
    pub(super) netlink: Netlink,
    pub(super) plan: ServicePlan,
    pub(super) local: Vec<IpAddr>,
    pub(super) attached: Vec<Attached>,
    pub(super) log: Option<ProgramLog>,
    pub(super) proof: ProofWatch,
    /// Whether SYN cookies are to be had.
    pub(super) has_cookies: bool,
}

impl Shield {
    /// Where it is pinned, and whether it has SYN cookies.
    pub(super) fn pinned(&self) -> (Pins, bool) {
        (self.pins.clone(), self.has_cookies)
    }

    /// Loads and attaches the shield that `config` describes, adopting what is pinned.
    ///
    /// # Errors
    /// Whatever fails; interfaces and pins that were not there before are gone again then.
    pub(super) async fn bring_up(config: &Config, pins: Pins, replace: bool) -> Result<Self, KernelError> {
        // Checked first: nothing is loaded for a configuration that cannot be put in force.
        let plan = services::plan(&config.shield, &config.services, clock::ticks_per_second())?;
        let netlink = Netlink::connect()?;
        for name in &config.shield.interfaces {
            netlink.interface(name).await?;
        }
        steering::prepare(&config.shield, &config.services)?;
        let was_there = pins.exist();
        let before = pins.linked_interfaces()?;
        let foreign = foreign_links(&pins, &config.shield.interfaces);
        let brought = Self::load_and_attach(config, &pins, netlink, plan, replace, &before).await;
        if brought.is_err() {
            take_back(&pins, was_there, &before, &foreign);
        }
        brought
    }

    async fn load_and_attach(
        config: &Config,
        pins: &Pins,
        netlink: Netlink,
        plan: ServicePlan,
        replace: bool,
        before: &[String],
    ) -> Result<Self, KernelError> {
        let sizes = Sizes {
            bans: config.shield.max_bans.get(),
            ..Sizes::default()
        };
        let mut ebpf = loader::load(pins, sizes)?;
        let mut tables = ShieldTables::open(pins)?;
        steering::require(&config.services, &tables)?;
        let has_cookies = handed::has(&ebpf, Feature::Cookies);
        if tables.ban_capacity != sizes.bans {
            let (has, wanted) = (tables.ban_capacity, sizes.bans);
            tracing::warn!(
                has,
                wanted,
                "shield.max_bans: the adopted table keeps its size until `breakwater detach`"
            );
        }
        let local = netlink.addresses().await?;
        let how = How {
            mode: config.shield.mode,
            allow_generic: config.shield.allow_generic,
            replace,
        };
        // What may fail comes before what changes: on an adopted shield, interfaces that are new are attached first,
        // with the tables as they are. On a new one nothing may be attached before its tables are filled.
        // What another layout's shield is on comes last: it is on until then, and what failed before has not touched it.
        let is_foreign = |name: &String| !before.contains(name) && pins.foreign_link(name).is_some();
        let is_new = |name: &&String| !before.is_empty() && !before.contains(*name) && !is_foreign(name);
        let interfaces = &config.shield.interfaces;
        let mut attached = Vec::with_capacity(interfaces.len());
        for name in interfaces.iter().filter(is_new) {
            attached.push(attach::attach(&mut ebpf, pins, &netlink, name, how).await?);
        }
        {
            let lock = pins.lock()?;
            for (list, nets) in [
                (List::Allow, &config.shield.allow),
                (List::Deny, &config.shield.deny),
            ] {
                // What was added by hand stays.
                tables.set_part(&lock, list, Part::Config, nets)?;
            }
            proof::prepare(&config.shield, &config.services, &tables, has_cookies)?;
            tables.apply_services(&lock, &plan, &local, SETTINGS, settings(&config.shield))?;
        }
        let mut others: Vec<_> = interfaces
            .iter()
            .filter(|name| !attached.iter().any(|done| done.interface == **name))
            .collect();
        others.sort_by_key(|name| is_foreign(name));
        for name in others {
            attached.push(attach::attach(&mut ebpf, pins, &netlink, name, how).await?);
        }
        remove_forsaken(pins, false);
        attached.sort_by_key(|done| interfaces.iter().position(|name| *name == done.interface));
        Ok(Self {
            pins: pins.clone(),
            tables,
            netlink,
            plan,
            local,
            attached,
            log: ProgramLog::of(&mut ebpf),
            proof: ProofWatch::new(has_cookies),
            has_cookies,
        })
    }

    /// Looks which addresses this machine has now, and protects those.
    pub(super) async fn refresh_addresses(&mut self) -> Result<(), KernelError> {
        let local = self.netlink.addresses().await?;
        if local != self.local {
            tracing::info!(addresses = local.len(), "the machine's addresses have changed");
            self.tables.refresh_addresses(&self.plan, &local)?;
            self.local = local;
        }
        Ok(())
    }
}

/// Looks whether the shield of `config` could be brought up, as far as that takes more than is kept.
///
/// # Errors
/// Somebody else's program is on an interface, or there is no such interface.
pub(super) async fn preflight(config: &Config, pins: &Pins) -> Result<(), KernelError> {
    let netlink = Netlink::connect()?;
    for name in &config.shield.interfaces {
        attach::refuse_foreign(pins, &netlink, name).await?;
    }
    Ok(())
}

/// Another configuration for a shield that is up: written, and not in force.
pub(super) struct StagedShield {
    pins: Pins,
    tables: ShieldTables,
    staged: Option<Staged>,
    plan: ServicePlan,
    new: Vec<String>,
    gone: Vec<String>,
}

impl StagedShield {
    /// Writes what `new` says beside what is in force, and attaches to interfaces that are new in it. Without `old` nothing
    /// is taken to be the same.
    ///
    /// # Errors
    /// Whatever fails; nothing is different then.
    pub(super) async fn stage(
        pins: &Pins,
        old: Option<&Config>,
        new: &Arc<Config>,
        has_cookies: bool,
    ) -> Result<Self, KernelError> {
        let plan = services::plan(&new.shield, &new.services, clock::ticks_per_second())?;
        let netlink = Netlink::connect()?;
        for name in &new.shield.interfaces {
            netlink.interface(name).await?;
        }
        steering::prepare(&new.shield, &new.services)?;
        let local = netlink.addresses().await?;
        let linked = pins.linked_interfaces()?;
        // Another process may have put its own program behind a link.
        let is_due = |name: &&String| old.is_none() || !linked.contains(*name);
        let attach: Vec<String> = new.shield.interfaces.iter().filter(is_due).cloned().collect();
        let is_gone = |name: &&String| !new.shield.interfaces.contains(*name);
        let gone = old
            .into_iter()
            .flat_map(|old| &old.shield.interfaces)
            .filter(is_gone)
            .cloned()
            .collect();
        let allow = old.is_none_or(|old| old.shield.allow != new.shield.allow);
        let deny = old.is_none_or(|old| old.shield.deny != new.shield.deny);
        let write = {
            let (pins, plan, new) = (pins.clone(), plan.clone(), Arc::clone(new));
            move || -> Result<(ShieldTables, Staged), KernelError> {
                let mut tables = ShieldTables::open(&pins)?;
                steering::require(&new.services, &tables)?;
                let lock = pins.lock()?;
                proof::prepare(&new.shield, &new.services, &tables, has_cookies)?;
                let change = TableChange {
                    plan: &plan,
                    local: &local,
                    mask: SETTINGS,
                    bits: settings(&new.shield),
                    allow: allow.then_some(&new.shield.allow),
                    deny: deny.then_some(&new.shield.deny),
                };
                let staged = tables.stage(lock, &change)?;
                Ok((tables, staged))
            }
        };
        let written = tokio::task::spawn_blocking(write).await;
        let (tables, staged) = written
            .map_err(|error| KernelError::io("writing the tables")(std::io::Error::other(error)))??;
        let mut own = Self {
            pins: pins.clone(),
            tables,
            staged: Some(staged),
            plan,
            new: Vec::new(),
            gone,
        };
        own.attach(new, &netlink, attach, &linked).await?;
        Ok(own)
    }

    /// The last thing that can fail. New interfaces are judged by what is in force until the change is.
    async fn attach(
        &mut self,
        new: &Config,
        netlink: &Netlink,
        names: Vec<String>,
        linked: &[String],
    ) -> Result<(), KernelError> {
        if names.is_empty() {
            return Ok(());
        }
        let sizes = Sizes {
            bans: new.shield.max_bans.get(),
            ..Sizes::default()
        };
        let mut ebpf = loader::load(&self.pins, sizes)?;
        let how = How {
            mode: new.shield.mode,
            allow_generic: new.shield.allow_generic,
            replace: false,
        };
        for name in names {
            let attached = attach::attach(&mut ebpf, &self.pins, netlink, &name, how).await?;
            // What had the shield before keeps it, whatever fails.
            if !attached.adopted && !linked.contains(&name) {
                self.new.push(name);
            }
        }
        Ok(())
    }

    /// Puts it in force; answers with the services that are. Blocks for a moment.
    pub(super) fn commit(mut self) -> ServicePlan {
        if let Some(staged) = self.staged.take() {
            self.tables.commit(staged);
        }
        for name in &self.gone {
            match attach::detach(&self.pins, name) {
                Ok(_) => tracing::info!(interface = name, "shield taken off: it is no longer configured"),
                Err(error) => tracing::error!(interface = name, %error, "the shield is still on"),
            }
        }
        self.plan.clone()
    }
}

impl Drop for StagedShield {
    fn drop(&mut self) {
        let Some(staged) = self.staged.take() else { return };
        self.tables.abandon(staged);
        for name in &self.new {
            if let Err(error) = attach::detach(&self.pins, name) {
                tracing::warn!(interface = name, %error, "could not take back a failed reload");
            }
        }
    }
}

/// Removes what other layouts have left, if it is on no interface any more. The shield is up by then: what goes wrong is told.
pub(super) fn remove_forsaken(pins: &Pins, retired: bool) {
    match pins.remove_forsaken(retired) {
        Ok(layouts) => {
            for layout in layouts {
                tracing::info!(
                    layout,
                    "removed the state of another version's shield, which is on no interface any more"
                );
            }
        }
        Err(error) => tracing::warn!(%error, "the state of another version's shield is left"),
    }
}

/// Links of shields with another layout, by interface.
fn foreign_links(pins: &Pins, interfaces: &[String]) -> Vec<(String, PathBuf)> {
    interfaces
        .iter()
        .filter(|name| !pins.link(name).exists())
        .filter_map(|name| Some((name.clone(), pins.foreign_link(name)?)))
        .collect()
}

/// Undoes a failed start. Errors here are told, not returned: the first error is the one that matters.
fn take_back(pins: &Pins, was_there: bool, before: &[String], foreign: &[(String, PathBuf)]) {
    for (name, other) in foreign {
        if let Err(error) = attach::give_back(pins, name, other) {
            tracing::error!(interface = name, %error, "the shield stays on, under this version's directory");
            // Nothing more is undone: it would take this interface's shield off.
            return;
        }
    }
    let undone = if was_there {
        pins.linked_interfaces().and_then(|now| {
            now.iter()
                .filter(|name| !before.contains(name))
                .try_for_each(|name| attach::detach(pins, name).map(|_| ()))
        })
    } else {
        if let Ok(tables) = ShieldTables::open(pins)
            && let Err(error) = tables.restore_sysctls()
        {
            tracing::warn!(%error, "could not put the kernel's settings back");
        }
        pins.remove()
    };
    if let Err(error) = undone {
        tracing::warn!(%error, "could not take back a failed start");
    }
}

/// The bits of the control word that `[shield]` sets.
fn settings(shield: &ShieldConfig) -> u64 {
    let mut control = Control(0);
    if shield.fragments == FragmentPolicy::Pass {
        control.0 |= Control::PASS_FRAGMENTS;
    }
    if shield.malformed == FragmentPolicy::Pass {
        control.0 |= Control::PASS_MALFORMED;
    }
    if shield.drop_martians {
        control.0 |= Control::DROP_MARTIANS;
    }
    for reason in Reason::ALL
        .iter()
        .filter(|reason| shield.observe.observes(**reason))
    {
        control = control.observing(*reason);
    }
    control.0
}
