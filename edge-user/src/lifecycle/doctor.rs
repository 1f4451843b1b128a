//! `breakwater doctor`: what this machine can do for the shield and the gateway, and what to change.
//!
//! Looks, and changes nothing. Each finding says what is there, and if that is not as it should be, what mends it.

use std::{fmt::Write as _, fs, path::Path};

use caps::{CapSet, Capability};
use edge_common::abi;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use super::{LifecycleError, sandbox};
use crate::{
    cli::DoctorRequest,
    config::{Config, Guard},
    gateway::limits::BACKLOG,
    kernel::{
        KernelError, Pins, foreign,
        interfaces::{Interface, Netlink, XdpState},
        loader, pins, preflight, sysctl,
    },
};

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Health {
    /// As it should be.
    Ok,
    /// It works, with less.
    Warn,
    /// It does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    /// What.
    pub check: String,
    /// How it is.
    pub health: Health,
    /// What is there.
    pub found: String,
    /// What mends it; absent if nothing has to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The exit code that a failure stands for.
    #[serde(skip)]
    exit: u8,
}

/// Everything.
#[derive(Debug, Default, Serialize)]
struct Diagnosis {
    /// 1; a change that breaks readers makes it 2. New checks do not.
    format: u32,
    /// In a fixed order.
    findings: Vec<Finding>,
}

/// Runs every check. Answers with what to print, and the exit code.
///
/// # Errors
/// The machine cannot be looked at.
pub fn doctor(request: &DoctorRequest, bpffs: &Path) -> Result<(String, u8), LifecycleError> {
    let mut diagnosis = Diagnosis {
        format: 1,
        findings: Vec::new(),
    };
    let config = request.config.as_deref();
    let names = match config {
        _ if !request.interfaces.is_empty() => request.interfaces.clone(),
        Some(config) => config.shield.interfaces.clone(),
        None => physical(),
    };
    diagnosis.kernel();
    diagnosis.bpffs(bpffs);
    diagnosis.capabilities(config, &names);
    diagnosis.sysctls(config);
    diagnosis.limits(config);
    diagnosis.sandbox();
    super::verbs::runtime()?.block_on(diagnosis.interfaces(&names, config.is_some()))?;
    let worst = diagnosis
        .findings
        .iter()
        .find(|finding| finding.health == Health::Fail);
    let exit = worst.map_or(0, |finding| finding.exit);
    let text = if request.json {
        serde_json::to_string_pretty(&diagnosis).map_err(|error| LifecycleError::Io {
            what: "writing JSON",
            source: error.into(),
        })?
    } else {
        diagnosis.table()
    };
    Ok((text, exit))
}

/// Interfaces that are no loopback.
fn physical() -> Vec<String> {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name != "lo")
        .collect();
    names.sort();
    names
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

impl Diagnosis {
    fn ok(&mut self, check: &str, found: impl Into<String>) {
        self.push(check, Health::Ok, found, None, 0);
    }

    fn warn(&mut self, check: &str, found: impl Into<String>, remedy: impl Into<String>) {
        self.push(check, Health::Warn, found, Some(remedy.into()), 0);
    }

    fn fail(&mut self, check: &str, found: impl Into<String>, remedy: impl Into<String>, exit: u8) {
        self.push(check, Health::Fail, found, Some(remedy.into()), exit);
    }

    fn push(
        &mut self,
        check: &str,
        health: Health,
        found: impl Into<String>,
        remedy: Option<String>,
        exit: u8,
    ) {
        self.findings.push(Finding {
            check: check.to_owned(),
            health,
            found: found.into(),
            remedy,
            exit,
        });
    }

    fn kernel(&mut self) {
        let uname = rustix::system::uname();
        let release = uname.release().to_string_lossy().into_owned();
        let (major, minor) = loader::LEAST_KERNEL;
        match loader::kernel_version() {
            version if version < loader::LEAST_KERNEL => self.fail(
                "kernel",
                release,
                format!("the shield takes Linux {major}.{minor} or later; the gateway works without it"),
                5,
            ),
            _ => self.ok("kernel", release),
        }
        match loader::has_cookie_helpers() {
            Ok(true) => self.ok("syn cookies", "the kernel makes them for XDP programs"),
            Ok(false) => self.warn(
                "syn cookies",
                "the kernel does not make them for XDP programs",
                "Linux 6.0 or later, built with CONFIG_SYN_COOKIES; budgets of new connections work without",
            ),
            Err(error) => self.warn("syn cookies", format!("not known: {error}"), "run it as root"),
        }
        if Path::new("/sys/kernel/btf/vmlinux").exists() {
            self.ok("btf", "/sys/kernel/btf/vmlinux");
        } else {
            self.warn(
                "btf",
                "the kernel describes none of its types",
                "nothing here needs it; other tools (bpftool) do: a kernel with CONFIG_DEBUG_INFO_BTF",
            );
        }
        match read("/proc/sys/net/core/bpf_jit_enable").as_deref() {
            Some("0") => self.fail(
                "bpf jit",
                "net.core.bpf_jit_enable = 0: every packet is interpreted",
                "sysctl -w net.core.bpf_jit_enable=1",
                5,
            ),
            Some(value) => self.ok("bpf jit", format!("net.core.bpf_jit_enable = {value}")),
            None => self.warn("bpf jit", "not told", "run it as root"),
        }
    }

    fn bpffs(&mut self, bpffs: &Path) {
        let shown = bpffs.display();
        match pins::state_of(bpffs) {
            Ok(Some(mode)) if mode & 0o022 != 0 => self.warn(
                "bpffs",
                format!("{shown}, mode {:04o}: others may make directories in it", mode & 0o7777),
                format!("chmod 0755 {shown} (or 0700): whoever is first can keep the shield from starting"),
            ),
            Ok(Some(mode)) => self.ok("bpffs", format!("{shown}, mode {:04o}", mode & 0o7777)),
            Ok(None) | Err(_) => self.fail(
                "bpffs",
                format!("no BPF file system at {shown}"),
                "mount -t bpf -o mode=0700 bpf /sys/fs/bpf (`run` and `attach` do it as root); inside `ip netns exec` \
                 /sys is another one: use `nsenter --net=/run/netns/NAME`",
                1,
            ),
        }
        let own = format!("v{}", abi::VERSION);
        for other in Pins::new(bpffs).other_layouts() {
            self.warn(
                "pins",
                format!("state of another layout ({other}; this one has {own})"),
                "`attach` and `run` take its links over in place; its bans and what was listed by hand stay behind",
            );
        }
    }

    fn capabilities(&mut self, config: Option<&Config>, interfaces: &[String]) {
        let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
        let shield = [
            Capability::CAP_BPF,
            Capability::CAP_NET_ADMIN,
            Capability::CAP_PERFMON,
        ];
        let is_admin = has(Capability::CAP_SYS_ADMIN);
        let missing: Vec<String> = shield
            .into_iter()
            .filter(|capability| !(has(*capability) || is_admin && *capability != Capability::CAP_NET_ADMIN))
            .map(|capability| capability.to_string())
            .collect();
        let remedy = "run as root, or by the unit in deploy/, or: setcap \
                      cap_bpf,cap_net_admin,cap_perfmon,cap_net_bind_service+ep breakwater";
        if missing.is_empty() {
            self.ok("capabilities", "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON");
        } else if config.is_some_and(|_| interfaces.is_empty()) {
            self.warn(
                "capabilities",
                format!("without {}: no shield", missing.join(", ")),
                remedy,
            );
        } else {
            self.fail(
                "capabilities",
                format!("without {}", missing.join(", ")),
                remedy,
                4,
            );
        }
        let low = config
            .into_iter()
            .flat_map(|config| &config.listeners)
            .find(|listener| (1..1024).contains(&listener.address.port()));
        match low {
            Some(listener) if !has(Capability::CAP_NET_BIND_SERVICE) => self.fail(
                "port below 1024",
                format!("listener {} on {}", listener.name, listener.address),
                "CAP_NET_BIND_SERVICE, or another port",
                4,
            ),
            _ => {}
        }
    }

    fn sysctls(&mut self, config: Option<&Config>) {
        let wants_cookies = config.is_none_or(|config| {
            let cookies = |guard: &Guard| matches!(guard, Guard::Syn(_));
            config.services.iter().any(|service| cookies(&service.guard))
        });
        let missing = sysctl::missing();
        if missing.is_empty() {
            self.ok("SYN cookies", "the kernel's TCP settings are as they take");
        }
        for missing in missing.iter().filter(|_| wants_cookies) {
            self.warn(
                &missing.setting,
                missing.to_string(),
                format!(
                    "sysctl -w {}={}, or `shield.set_sysctls = true`",
                    missing.setting, missing.wanted
                ),
            );
        }
        let backlog: Option<i64> = read("/proc/sys/net/core/somaxconn").and_then(|text| text.parse().ok());
        match backlog {
            Some(most) if most < i64::from(BACKLOG) => self.warn(
                "net.core.somaxconn",
                format!("{most}: a burst of new connections is dropped beyond it"),
                format!("sysctl -w net.core.somaxconn={BACKLOG}"),
            ),
            Some(most) => self.ok("net.core.somaxconn", most.to_string()),
            None => {}
        }
    }

    fn limits(&mut self, config: Option<&Config>) {
        let memory = getrlimit(Resource::Memlock).current;
        // Since Linux 5.11 maps are charged to the control group, and this limit counts for none of them.
        self.ok(
            "memlock",
            format!(
                "{}; not asked since Linux 5.11",
                memory.map_or_else(|| "unlimited".to_owned(), |bytes| format!("{bytes} bytes"))
            ),
        );
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let limits = config.map(|config| config.limits).unwrap_or_default();
        // One to the client, one to the upstream.
        let wanted = u64::from(limits.connections.get()) * 2 + 1024;
        if files < wanted {
            self.warn(
                "open files",
                format!("{files}, for {} connections at once", limits.connections),
                format!("LimitNOFILE={wanted} in the unit, `ulimit -n {wanted}`, or a smaller gateway.limits.connections"),
            );
        } else {
            self.ok("open files", files.to_string());
        }
    }

    fn sandbox(&mut self) {
        match sandbox::landlock_version() {
            Some(version) => self.ok("landlock", format!("version {version}")),
            None => self.warn(
                "landlock",
                "this kernel has none, or it is not switched on",
                "CONFIG_SECURITY_LANDLOCK, and lsm=landlock,… on the kernel's command line; without it the daemon may \
                 write wherever its user may",
            ),
        }
    }

    async fn interfaces(&mut self, names: &[String], is_configured: bool) -> Result<(), KernelError> {
        let netlink = Netlink::connect()?;
        for name in names {
            match netlink.interface(name).await {
                Ok(interface) => self.interface(&interface),
                Err(KernelError::NoInterface(_)) => self.fail(
                    name,
                    "there is no such interface",
                    if is_configured {
                        "`ip link` lists them; mind the network namespace"
                    } else {
                        "`ip link` lists them"
                    },
                    1,
                ),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn interface(&mut self, interface: &Interface) {
        let name = interface.name.as_str();
        let driver = fs::read_link(format!("/sys/class/net/{name}/device/driver")).ok();
        let driver = driver.as_deref().and_then(Path::file_name).map_or_else(
            || "virtual".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        );
        let found = format!(
            "XDP mode {}, driver {driver}, MTU {}, {} transmit queues",
            interface.xdp.name(),
            interface.mtu,
            interface.tx_queues
        );
        match interface.xdp {
            XdpState::Generic(_) => self.warn(
                name,
                found,
                "generic mode: each packet has its buffer before it is judged; \
                 `attach --mode native` tells why the driver refuses, if it does",
            ),
            XdpState::Native(id) | XdpState::Offloaded(id) | XdpState::Several(id)
                if foreign::name(id) != loader::PROGRAM =>
            {
                self.warn(
                    name,
                    format!("{found}; the program is {:?} (id {id})", foreign::name(id)),
                    format!("`ip link set dev {name} xdp off`, or `attach --replace`"),
                );
            }
            _ => self.ok(name, found),
        }
        for obstacle in preflight::obstacles(interface) {
            let (what, remedy) = obstacle.rsplit_once(": ").unwrap_or((&obstacle, ""));
            self.warn(name, what, remedy);
        }
    }

    fn table(&self) -> String {
        let mut out = String::new();
        for finding in &self.findings {
            let mark = match finding.health {
                Health::Ok => "ok  ",
                Health::Warn => "warn",
                Health::Fail => "FAIL",
            };
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{mark}  {:<20} {}", finding.check, finding.found);
            if let Some(remedy) = &finding.remedy {
                let _ = writeln!(out, "      {:<20} -> {remedy}", "");
            }
        }
        let count = |health| {
            self.findings
                .iter()
                .filter(|finding| finding.health == health)
                .count()
        };
        let _ = write!(
            out,
            "{} ok, {} warnings, {} failures",
            count(Health::Ok),
            count(Health::Warn),
            count(Health::Fail)
        );
        out
    }
}
