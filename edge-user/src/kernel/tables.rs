//! Typed handles on the pinned maps.

use aya::{
    Pod,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray},
};
use edge_common::abi::{
    Addr, Alert, Backend, BackendCount, BanKey, Control, ControlWord, CookieSettings, Counter, Hints, Params,
    PerCpu, PortEntry, SLOTS_PER_LINE, Service, SteerRule, SynRule, SynState,
    ban::{BUCKET_WORDS, NOTE_BYTES},
    feature::WHY_BYTES,
    limit::EARNED_WORDS,
    service::NAME_BYTES,
    steer::{FLOW_WORDS, NAT_WORDS},
};

use super::{Clock, KernelError, Pins, mapped::Mapped};

/// Every map that user space touches but the ring buffer.
pub struct ShieldTables {
    /// The words of [`ControlWord`].
    pub control: Mapped<u64>,
    /// The parameters fixed at load.
    pub params: Params,
    /// Converts ticks.
    pub clock: Clock,
    /// The port table.
    pub ports: Mapped<PortEntry>,
    /// Both copies of the service table.
    pub services: Mapped<Service>,
    /// Names by service identifier.
    pub names: Mapped<[u8; NAME_BYTES]>,
    /// Flags of local and protected addresses.
    pub addresses: HashMap<MapData, Addr, u32>,
    /// Hints.
    pub hints: Mapped<Hints>,
    /// Buckets of bans.
    pub(super) bans: Mapped<[u64; BUCKET_WORDS]>,
    /// Why bans were made, in words.
    pub notes: HashMap<MapData, BanKey, [u8; NOTE_BYTES]>,
    /// Bans that are kept at once.
    pub ban_capacity: u32,
    /// Hint words of both copies of the deny list.
    pub deny_hints: Mapped<u64>,
    /// Both copies of the deny list.
    pub deny: [LpmTrie<MapData, Addr, u8>; 2],
    /// Both copies of the allow list.
    pub allow: [LpmTrie<MapData, Addr, u8>; 2],
    /// Lines of the default tier.
    pub(super) lines: Mapped<[u64; SLOTS_PER_LINE]>,
    /// Buckets of sources that earned exact state.
    pub earned: Mapped<[u64; EARNED_WORDS]>,
    /// Counters by service and reason.
    pub counters: PerCpuArray<MapData, Counter>,
    /// What each CPU has for itself: the samples lost are in it.
    pub per_cpu: PerCpuArray<MapData, PerCpu>,
    /// What user space counts.
    pub alerts: Mapped<u64>,
    /// Both copies of the services' rules.
    pub syn_rules: Mapped<SynRule>,
    /// Their state, by service identifier.
    pub syn_states: Mapped<SynState>,
    /// What answers with cookies say.
    pub cookies: Mapped<CookieSettings>,
    /// Both copies of the rules of direct services.
    pub(super) steer_rules: Mapped<SteerRule>,
    /// Their Maglev tables.
    pub(super) steer_places: Mapped<u64>,
    /// Their backends.
    pub(super) backends: Mapped<Backend>,
    /// What was sent to each of them.
    pub(super) backend_counts: PerCpuArray<MapData, BackendCount>,
    /// Their connections.
    pub(super) flows: Mapped<[u64; FLOW_WORDS]>,
    /// First packets of flows.
    pub(super) candidates: Mapped<u64>,
    /// Translations of their connections.
    pub(super) translations: Mapped<[u64; NAT_WORDS]>,
    /// Settings of the kernel that were changed.
    pub sysctls: Mapped<u64>,
    /// Why features are missing.
    pub(super) absent: Mapped<[u8; WHY_BYTES]>,
}

impl ShieldTables {
    /// Opens the pinned maps.
    ///
    /// # Errors
    /// Nothing is pinned, a map has another layout, or the right to open it is missing.
    pub fn open(pins: &Pins) -> Result<Self, KernelError> {
        if !pins.exist() {
            return Err(KernelError::NotAttached(pins.root().to_path_buf()));
        }
        let params = parameters(pins)?;
        Ok(Self {
            control: mapped(pins, "CONTROL")?,
            clock: Clock::new(&params),
            params,
            ports: mapped(pins, "PORT_TABLE")?,
            services: mapped(pins, "SERVICES")?,
            names: mapped(pins, "NAMES")?,
            addresses: convert(Map::HashMap(open(pins, "ADDRESSES")?))?,
            hints: mapped(pins, "HINTS")?,
            bans: mapped(pins, "BANS")?,
            notes: convert(Map::HashMap(open(pins, "NOTES")?))?,
            ban_capacity: params.max_bans,
            deny_hints: mapped(pins, "DENY_HINTS")?,
            deny: [trie(pins, "DENY_A")?, trie(pins, "DENY_B")?],
            allow: [trie(pins, "ALLOW_A")?, trie(pins, "ALLOW_B")?],
            lines: mapped(pins, "CELLS")?,
            earned: mapped(pins, "EARNED")?,
            counters: convert(Map::PerCpuArray(open(pins, "COUNTERS")?))?,
            per_cpu: convert(Map::PerCpuArray(open(pins, "PER_CPU")?))?,
            alerts: mapped(pins, "ALERTS")?,
            syn_rules: mapped(pins, "SYN_RULES")?,
            syn_states: mapped(pins, "SYN_STATES")?,
            cookies: mapped(pins, "COOKIES")?,
            steer_rules: mapped(pins, "STEER_RULES")?,
            steer_places: mapped(pins, "STEER_PLACES")?,
            backends: mapped(pins, "BACKENDS")?,
            backend_counts: convert(Map::PerCpuArray(open(pins, "BACKEND_COUNTS")?))?,
            flows: mapped(pins, "FLOWS")?,
            candidates: mapped(pins, "CANDIDATE_FLOWS")?,
            translations: mapped(pins, "TRANSLATIONS")?,
            sysctls: mapped(pins, "SYSCTLS")?,
            absent: mapped(pins, "ABSENT")?,
        })
    }

    /// The control word now.
    pub fn control(&self) -> Control {
        Control(self.control.load_word(ControlWord::Control as u32, 0))
    }

    /// Counts something for the operator.
    pub fn alert(&self, alert: Alert, amount: u64) {
        self.alerts.add(alert as u32, amount);
    }

    /// What was counted for the operator.
    pub fn alerts(&self, alert: Alert) -> u64 {
        self.alerts.get(alert as u32).unwrap_or_default()
    }
}

/// The parameters that the pinned tables were made with.
pub(super) fn parameters(pins: &Pins) -> Result<Params, KernelError> {
    let params: Array<MapData, Params> = convert(Map::Array(open(pins, "PARAMS")?))?;
    params.get(&0, 0).map_err(KernelError::map("reading PARAMS"))
}

/// Opens one pinned map.
pub(super) fn open(pins: &Pins, name: &'static str) -> Result<MapData, KernelError> {
    MapData::from_pin(pins.map(name)).map_err(|error| match &error {
        MapError::SyscallError(refused)
            if matches!(refused.io_error.kind(), std::io::ErrorKind::PermissionDenied) =>
        {
            KernelError::Privilege {
                missing: "CAP_BPF".into(),
                what: "reading what the shield keeps in the kernel",
                works: "without it `check` and `token` work",
            }
        }
        _ => KernelError::map(name)(error),
    })
}

fn mapped<T: Pod>(pins: &Pins, name: &'static str) -> Result<Mapped<T>, KernelError> {
    Mapped::new(&open(pins, name)?)
}

fn trie(pins: &Pins, name: &'static str) -> Result<LpmTrie<MapData, Addr, u8>, KernelError> {
    convert(Map::LpmTrie(open(pins, name)?))
}

fn convert<T: TryFrom<Map, Error = MapError>>(map: Map) -> Result<T, KernelError> {
    T::try_from(map).map_err(KernelError::map("opening a pinned map"))
}
