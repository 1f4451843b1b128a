//! One packet before two judges: the program in the kernel, and the same pipeline over tables in memory.
//!
//! The tables in memory are a copy of the kernel's, made after the kernel's were filled by the code that the daemon
//! runs; so what is compared is the pipeline, the maps and the compilers, not two ways of filling tables.

use std::{io, net::IpAddr, path::Path, sync::atomic::Ordering};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf,
    maps::{Array, Map, MapData},
    programs::{TestRun, TestRunOptions},
};
use edge_common::{
    abi::{
        AddressFlags, Code, Control, Feature, LpmKey, Outcome, Reason, SEEN, SLOTS_PER_LINE, SynState,
        ban::BUCKET_WORDS,
        service::{MAX_SERVICES, PORTS},
    },
    algo::{bans::Store as _, gcra},
    datapath::{self, At, Verdict},
    mem::{Bytes, MemTables},
};
use edge_user::{
    config::{Service, Shield},
    kernel::{
        Pins, ShieldTables,
        handed::HANDED,
        lists::{List, lpm_key},
        loader::{self, Sizes},
        mapped::Mapped,
        services,
    },
};
use ipnet::IpNet;

use crate::{bpffs::BpfDirectory, identity::Identity, netns::Namespace};

/// Small tables, so that collisions do occur.
const SIZES: Sizes = Sizes {
    bans: 1024,
    cells: 1 << 12,
    earned: 256,
    flows: 1 << 12,
};

/// The kernel's side, with what it needs to be set up.
pub struct Kernel {
    ebpf: Ebpf,
    /// The pinned tables.
    pub tables: ShieldTables,
    /// Where they are pinned.
    pub pins: Pins,
    cells: Array<MapData, [u64; SLOTS_PER_LINE]>,
    newcomers: Mapped<u64>,
    _directory: BpfDirectory,
}

/// Counters of one packet: how many packets each (service, reason) has, observed ones apart.
pub type Counts = Vec<u64>;

impl Kernel {
    /// Loads the program with tables of its own.
    ///
    /// # Errors
    /// The kernel or the verifier refuses.
    pub fn load() -> Result<Self> {
        let directory = BpfDirectory::create(&Identity::new())?;
        let pins = Pins::new(directory.path());
        let ebpf = loader::load(&pins, SIZES)?;
        let cells = Array::try_from(Map::Array(MapData::from_pin(pins.map("CELLS"))?))?;
        let newcomers = Mapped::new(&MapData::from_pin(pins.map("NEWCOMERS"))?)?;
        Ok(Self {
            ebpf,
            tables: ShieldTables::open(&pins)?,
            pins,
            cells,
            newcomers,
            _directory: directory,
        })
    }

    /// Instructions that the verifier walked, by program; without those that this kernel cannot run.
    ///
    /// # Errors
    /// A program cannot be described.
    pub fn verified_instructions(&mut self) -> Result<Vec<(&'static str, u32)>> {
        loader::program(&mut self.ebpf, loader::FLOOD)?.load()?;
        let handed: Vec<_> = HANDED
            .iter()
            .filter(|handed| {
                handed
                    .feature
                    .is_none_or(|feature| self.why_absent(feature).is_none())
            })
            .map(|handed| handed.name)
            .collect();
        let mut walked = Vec::new();
        for name in [loader::PROGRAM, loader::FLOOD].into_iter().chain(handed) {
            let info = loader::program(&mut self.ebpf, name)?.info()?;
            let count = info
                .verified_instruction_count()
                .context("the kernel does not tell")?;
            walked.push((name, count));
        }
        Ok(walked)
    }

    /// Why this kernel cannot run what a feature takes, if it cannot.
    pub fn why_absent(&self, feature: Feature) -> Option<String> {
        self.tables.why_absent(feature)
    }

    /// Puts services and lists in force, with exactly these bits of the control word beside them.
    ///
    /// # Errors
    /// A table cannot be written.
    pub fn configure(
        &mut self,
        services: &[Service],
        shield: &Shield,
        local: &[IpAddr],
        bits: u64,
    ) -> Result<()> {
        let plan = services::plan(shield, services, self.tables.params.hz)?;
        let lock = self.pins.lock()?;
        self.tables.replace_list(&lock, List::Allow, &shield.allow)?;
        self.tables.replace_list(&lock, List::Deny, &shield.deny)?;
        let settings = Control::PASS_FRAGMENTS
            | Control::PASS_MALFORMED
            | Control::DROP_MARTIANS
            | 0xffff_ffff_0000_0000;
        self.tables.apply_services(&lock, &plan, local, settings, bits)?;
        let unused = gcra::unused(self.tables.params.epoch_tick);
        for index in 0..self.cells.len() {
            self.cells.set(index, [unused; SLOTS_PER_LINE], 0)?;
        }
        let idle = SynState::unused(self.tables.params.epoch_tick);
        for index in 0..MAX_SERVICES {
            self.tables.syn_states.set(index, idle);
        }
        for index in 0..SEEN {
            self.newcomers.store(index, 0);
        }
        Ok(())
    }

    /// Judges one packet, as if it had come over the interface with this index of the thread's network namespace, or
    /// else over the loopback interface; answers with the action.
    ///
    /// # Errors
    /// The kernel refuses the packet.
    pub fn judge(&mut self, packet: &[u8], outside: Option<u32>) -> Result<u32> {
        let program = loader::program(&mut self.ebpf, loader::PROGRAM)?;
        // `struct xdp_md` (include/uapi/linux/bpf.h): data, data_end, data_meta, ingress_ifindex, rx_queue_index,
        // egress_ifindex. Every device has registered its first queue, which is what the kernel asks for
        // (net/bpf/test_run.c, `xdp_convert_md_to_buff`).
        let words = [0, packet.len() as u32, 0, outside.unwrap_or_default(), 0, 0];
        let context: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let options = TestRunOptions {
            data_in: Some(packet),
            ctx_in: outside.is_some().then_some(&*context),
            ..TestRunOptions::new()
        };
        Ok(program.test_run(options)?.return_value)
    }

    /// Judges one packet and answers with the action and what the frame has become.
    ///
    /// # Errors
    /// The kernel refuses the packet.
    pub fn transform(&mut self, packet: &[u8]) -> Result<(u32, Vec<u8>)> {
        let program = loader::program(&mut self.ebpf, loader::PROGRAM)?;
        let mut out = vec![0; packet.len() + 64];
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ..TestRunOptions::new()
        };
        let result = program.test_run(options)?;
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value, out))
    }

    /// The counter of a verdict: first half as counted, second half as observed.
    ///
    /// # Errors
    /// The counter cannot be read.
    pub fn count(&self, index: u32) -> Result<u64> {
        let values = self.tables.counters.get(&index, 0)?;
        Ok(values.iter().map(|counter| counter.packets).sum())
    }

    /// All counters.
    ///
    /// # Errors
    /// A counter cannot be read.
    pub fn counts(&self) -> Result<Counts> {
        (0..MAX_SERVICES * Reason::SLOTS * 2)
            .map(|index| self.count(index))
            .collect()
    }

    /// The tables in memory with the same content, and empty limiter cells.
    ///
    /// # Errors
    /// A table cannot be read.
    pub fn copy(&self) -> Result<MemTables> {
        let tables = &self.tables;
        let mut copy = MemTables::new(tables.params);
        copy.control = tables.control();
        for port in 0..PORTS {
            copy.ports[port as usize] = tables.ports.get(port).context("PORT_TABLE")?;
        }
        for half in 0..2_u32 {
            for index in 0..MAX_SERVICES {
                copy.syn_rules[half as usize][index as usize] = tables
                    .syn_rules
                    .get(half * MAX_SERVICES + index)
                    .context("SYN_RULES")?;
                copy.services[half as usize][index as usize] = tables
                    .services
                    .get(half * MAX_SERVICES + index)
                    .context("SERVICES")?;
            }
        }
        for entry in &tables.addresses {
            let (addr, flags) = entry?;
            copy.addresses.insert(addr, AddressFlags(flags));
        }
        for index in 0..tables.hints.len() {
            copy.hints[index as usize] = tables.hints.get(index).context("HINTS")?;
        }
        for index in 0..tables.params.ban_buckets {
            let words = tables.ban_bucket(index);
            for (word, value) in words.into_iter().enumerate().take(BUCKET_WORDS) {
                copy.bans.store(index, word, value);
            }
        }
        let keys = |nets: Vec<IpNet>| nets.iter().map(lpm_key).collect::<Vec<LpmKey>>();
        let control = copy.control;
        copy.set_deny(
            control.copy(Control::DENY) as usize,
            &keys(tables.list(List::Deny)),
        );
        copy.allow[control.copy(Control::ALLOW) as usize] = keys(tables.list(List::Allow));
        for bucket in 0..tables.earned.len() {
            let words = tables.earned.get(bucket).context("EARNED")?;
            for (cell, word) in copy.earned_buckets()[bucket as usize].iter().zip(words) {
                cell.store(word, Ordering::Relaxed);
            }
        }
        for index in 0..MAX_SERVICES {
            let state = tables.syn_states.get(index).context("SYN_STATES")?;
            copy.set_syn_state(index as u16, state);
        }
        copy.cookie_settings = tables.cookie_settings();
        Ok(copy)
    }
}

/// Index of a verdict's counter.
pub const fn counter(service: u16, reason: u8, observed: bool) -> u32 {
    let half = if observed { MAX_SERVICES * Reason::SLOTS } else { 0 };
    half + service as u32 * Reason::SLOTS + reason as u32
}

/// A network namespace with an interface that is not the loopback interface, for packets from outside.
pub struct Outside {
    namespace: Namespace,
    index: u32,
}

impl Outside {
    const NAME: &'static str = "outside0";

    /// Makes both.
    ///
    /// # Errors
    /// The machine has no namespaces or no veth.
    pub fn new() -> Result<Self> {
        let namespace = Namespace::create("outside")?;
        namespace.ip(&format!("link add {} type veth peer name outside1", Self::NAME))?;
        let index = namespace.enter(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
            Ok::<_, io::Error>(rustix::net::netdevice::name_to_index(&socket, Self::NAME)?)
        })?;
        Ok(Self { namespace, index })
    }

    /// Runs `job` in the namespace, with the interface's index.
    pub fn enter<T: Send>(&self, job: impl FnOnce(u32) -> T + Send) -> T {
        self.namespace.enter(|| job(self.index))
    }
}

/// Has both judge `packet`, come from `outside` if that is given ([`Kernel::judge`]), and compares action and counters.
/// `counts` are the kernel's counters so far.
///
/// # Errors
/// They disagree.
pub fn agree(
    kernel: &mut Kernel,
    memory: &MemTables,
    packet: &[u8],
    outside: Option<u32>,
    counts: &mut Counts,
) -> Result<Verdict> {
    let arrival = At {
        tick: kernel.tables.clock.now(),
        external: outside.is_some(),
    };
    let mut verdict = datapath::run(&Bytes(packet), memory, &arrival);
    if verdict.code == Code::ADMIT {
        verdict = datapath::admit(memory, verdict.service, arrival.tick);
    }
    let action = kernel.judge(packet, outside)?;
    let expected = match verdict.reason().outcome() {
        Outcome::Pass => 2,
        Outcome::Drop => 1,
        Outcome::Answer => 3,
        Outcome::Forward => 4,
    };
    ensure!(
        action == expected,
        "action {action} of the kernel, but {verdict:?} in memory"
    );
    let mut touched = vec![counter(verdict.service, verdict.code.0, false)];
    if verdict.observed.is_some() {
        touched.push(counter(verdict.service, verdict.observed.0, true));
    }
    for index in touched {
        let place = counts
            .get_mut(index as usize)
            .context("a counter beyond the table")?;
        *place += 1;
        let counted = kernel.count(index)?;
        ensure!(counted == *place, "the kernel did not count {verdict:?}");
    }
    Ok(verdict)
}

/// A directory that nothing is pinned in, to see that it is so.
pub fn is_clean(directory: &Path) -> bool {
    !Pins::new(directory).exist()
}
