//! The edge's CPU time for a GiB and for a connection: relayed by the kernel's steering, beside nginx `stream` and HAProxy
//! `mode tcp`.
//!
//! `cargo xtask bench relay [MEBIBYTES [CONNECTIONS [ROUNDS]]]`: 2,048, 4,000 and 5 without numbers. Client, edge and three
//! backends are namespaces on one pinned CPU. The kernel's threads for the edge's interfaces and the proxy's processes are
//! what is counted: all that a machine that is the edge would do. What arrives at the edge goes through a wire: a namespace
//! whose XDP program hands packets of the MTU on as a driver does, in frames of their own, since a veth's would be made into
//! such at the edge, at a cost that a network card does not have. What the edge sends leaves in segments of up to 64 KiB, as
//! by a card that splits them. Answers of steered backends go to the client on a link of their own. Last, 2^24 packets, each
//! from a source of its own, beside a thousand connections, all of which have to live. Needs root.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::Pid;
use tests::{
    backends::{BACKENDS, DIRECT_V4},
    daemon::cli,
    flood,
    lab::{Host, Lab, VIP_V4},
    netns::Namespace,
    offload,
    wait::within,
    xdp::ForeignXdp,
};

const MEBIBYTES: u64 = 2_048;
const CONNECTIONS: u64 = 4_000;
const ROUNDS: usize = 5;
/// Transfers at once.
const STREAMS: u64 = 6;
const CHUNK: usize = 128 << 10;
/// Connections that a flood must leave alone, the threads that use them, how much is read of each in turn, and the pause after it.
const KEPT: usize = 1_000;
const READERS: usize = 4;
const SIP: usize = 16 << 10;
/// A full queue loses packets of theirs too, and what is lost comes later and later.
const STALL: Duration = Duration::from_mins(2);
const PAUSE: Duration = Duration::from_millis(100);
/// Packets of the flood, each from a source of its own.
const FLOOD: u64 = 1 << 24;
/// How long the kept connections are watched before and after it.
const CALM: Duration = Duration::from_secs(5);
/// Where the backends listen, and the proxies.
const PORT: u16 = 7_801;
const NGINX: u16 = 7_802;
const HAPROXY: u16 = 7_803;
/// The ends of the wires, where everything arrives.
const INTERFACES: [&str; 4] = ["wired-client", "wired-1", "wired-2", "wired-3"];
const PATIENCE: Duration = Duration::from_secs(10);

/// A way from the client to a backend.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// The edge is a router.
    Routed,
    Steered,
    Translated,
    Nginx,
    HaProxy,
}

impl Way {
    const ALL: [Self; 5] = [
        Self::Routed,
        Self::Steered,
        Self::Translated,
        Self::Nginx,
        Self::HaProxy,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Routed => "the edge's kernel as a router",
            Self::Steered => "Breakwater, dsr-l2, with limits",
            Self::Translated => "Breakwater, nat, with limits",
            Self::Nginx => "nginx stream",
            Self::HaProxy => "HAProxy mode tcp",
        }
    }
}

/// What is moved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Load {
    Up,
    Down,
    Connections,
}

impl Load {
    const ALL: [Self; 3] = [Self::Up, Self::Down, Self::Connections];

    const fn name(self) -> &'static str {
        match self {
            Self::Up => "up, CPU ms per GiB",
            Self::Down => "down, CPU ms per GiB",
            Self::Connections => "CPU us per connection of one byte",
        }
    }
}

/// Everything that is measured, set up.
struct Bench {
    config: String,
    translating: String,
    proxies: BTreeMap<Way, Child>,
    _wires: Vec<Wire>,
    lab: Lab,
}

impl Drop for Bench {
    fn drop(&mut self) {
        for proxy in self.proxies.values_mut() {
            let _ = proxy.kill();
            let _ = proxy.wait();
        }
    }
}

fn main() -> Result<()> {
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .map(|argument| argument.parse().context("a number"))
        .collect::<Result<_>>()?;
    let bytes = numbers.first().copied().unwrap_or(MEBIBYTES) << 20;
    let connections = numbers.get(1).copied().unwrap_or(CONNECTIONS);
    let rounds = numbers.get(2).map_or(ROUNDS, |number| *number as usize);
    let cpu = thread::available_parallelism().map_or(1, std::num::NonZero::get) - 1;
    pin(cpu)?;
    let Some(bench) = Bench::new(cpu)? else {
        return Ok(());
    };
    let mut costs: BTreeMap<(Load, Way), Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        for way in Way::ALL {
            let Some(to) = bench.enter(way) else { continue };
            for load in Load::ALL {
                let cost = bench
                    .measure(load, to, bytes, connections)
                    .with_context(|| format!("{}, {}", way.name(), load.name()))?;
                costs.entry((load, way)).or_default().push(cost);
            }
            if matches!(way, Way::Steered | Way::Translated) {
                cli(&bench.lab, ["detach"]).success();
            }
        }
    }
    report(&mut costs);
    bench.survive()
}

/// Has this thread, and those it starts, run on this CPU.
fn pin(cpu: usize) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).context("pinning to a CPU")
}

/// Medians, extremes, and how many times Breakwater's each is.
fn report(costs: &mut BTreeMap<(Load, Way), Vec<f64>>) {
    for load in Load::ALL {
        println!(
            "{:<38} {:>8} {:>8} {:>8} {:>14}",
            load.name(),
            "median",
            "least",
            "most",
            "x Breakwater's"
        );
        let mut median = |way| {
            let times = costs.get_mut(&(load, way))?;
            times.sort_by(f64::total_cmp);
            Some((*times.get(times.len() / 2)?, *times.first()?, *times.last()?))
        };
        let own = median(Way::Steered).map_or(f64::NAN, |(middle, ..)| middle);
        for way in Way::ALL {
            let Some((middle, least, most)) = median(way) else {
                continue;
            };
            println!(
                "  {:<36} {middle:>8.1} {least:>8.1} {most:>8.1} {:>14.1}",
                way.name(),
                middle / own
            );
        }
    }
}

impl Bench {
    fn new(cpu: usize) -> Result<Option<Self>> {
        let hosts = |options: tests::lab::LabOptions| {
            BACKENDS.iter().fold(options, |options, role| options.host(role))
        };
        let Some(lab) = tests::daemon::lab_with("bench-relay", hosts) else {
            return Ok(None);
        };
        for role in std::iter::once("client").chain(BACKENDS) {
            let host = lab.host(role);
            // Segments of the MTU with checksums in them; and whoever receives joins them, which also has a veth take a driver's
            // frames.
            offload::switch_off(&host.namespace, host.interface, &["tx-checksum-ip-generic"])?;
            offload::switch_on(&host.namespace, host.interface, &["rx-gro"])?;
            offload::switch_on(lab.edge(), &host.edge_interface, &["rx-gro"])?;
        }
        let mut wires = vec![from_client(&lab)?];
        for role in BACKENDS {
            wires.push(from_backend(&lab, role)?);
        }
        let mut config = format!(
            "[shield]\ninterfaces = {:?}\nmode = \"native\"\n[[service]]\nname = \"bulk\"\nprotocol = \"tcp\"\nport = \
             {PORT}\naddress = \"{DIRECT_V4}\"\nkind = \"direct\"\nforward = \"dsr-l2\"\n\
             limits.source_packets = {{ per_second = 10000000, burst = 10000000 }}\n\
             limits.source_syns = {{ per_second = 1000000, burst = 1000000 }}\n",
            INTERFACES
                .iter()
                .copied()
                .chain([lab.attacker().edge_interface.as_str()])
                .collect::<Vec<_>>(),
        );
        for role in BACKENDS {
            let host = lab.host(role);
            config.extend(["[[service.backend]]\naddress = \"", &host.v4.to_string(), "\"\n"]);
            host.namespace.ip(&format!("addr add {DIRECT_V4}/32 dev lo"))?;
            let mac = host.mac.map(|byte| format!("{byte:02x}")).join(":");
            lab.edge().ip(&format!(
                "neigh replace {} lladdr {mac} dev {}",
                host.v4, host.edge_interface
            ))?;
            serve(
                host.namespace
                    .enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)))?,
            );
        }
        threaded(lab.edge(), cpu)?;
        for host in std::iter::once("client").chain(BACKENDS) {
            threaded(&lab.host(host).namespace, cpu)?;
        }
        for wire in &wires {
            threaded(&wire.between, cpu)?;
        }
        let nat = format!("forward = \"nat\"\nnat_source = \"{VIP_V4}\"");
        let translating = config.replace("forward = \"dsr-l2\"", &nat);
        let translating = lab.write("translating.toml", translating).display().to_string();
        let config = lab.write("relay.toml", config).display().to_string();
        let mut bench = Self {
            config,
            translating,
            proxies: BTreeMap::new(),
            _wires: wires,
            lab,
        };
        bench.start_proxies()?;
        Ok(Some(bench))
    }

    fn start_proxies(&mut self) -> Result<()> {
        let backends: Vec<String> = BACKENDS
            .iter()
            .map(|role| format!("{}:{PORT}", self.lab.host(role).v4))
            .collect();
        let directory = self.lab.directory().display().to_string();
        let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
        let servers: Vec<String> = backends.iter().map(|at| format!("server {at};")).collect();
        let servers = servers.join("\n");
        let nginx = self.lab.write(
            "nginx.conf",
            format!(
                "load_module {module};\ndaemon off;\nuser root;\nworker_processes 1;\npid {directory}/nginx.pid;\n\
                 error_log {directory}/nginx.log error;\nevents {{ worker_connections 8192; multi_accept on; }}\n\
                 stream {{\nupstream backends {{\n{servers}}}\nserver {{\nlisten {VIP_V4}:{NGINX} backlog=4096;\n\
                 proxy_pass backends;\nproxy_buffer_size 64k;\ntcp_nodelay on;\n}}\n}}\n"
            ),
        );
        let servers: Vec<String> = backends
            .iter()
            .enumerate()
            .map(|(number, at)| format!("  server b{number} {at}"))
            .collect();
        let servers = servers.join("\n");
        let haproxy = self.lab.write(
            "haproxy.cfg",
            format!(
                "global\n  nbthread 1\n  maxconn 4096\n  tune.bufsize 65536\ndefaults\n  mode tcp\n  option splice-auto\n  timeout \
                 connect 5s\n  timeout client 60s\n  timeout server 60s\nfrontend in\n  bind {VIP_V4}:{HAPROXY} backlog \
                 4096\n  default_backend out\nbackend out\n  balance roundrobin\n{servers}\n"
            ),
        );
        let mut commands = Vec::new();
        if fs::exists(module)? {
            let mut command = Command::new("nginx");
            command.arg("-c").arg(nginx);
            commands.push((Way::Nginx, NGINX, command));
        } else {
            println!("SKIPPED: nginx stream: apt-get install nginx libnginx-mod-stream");
        }
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(haproxy);
        commands.push((Way::HaProxy, HAPROXY, command));
        for (way, port, mut command) in commands {
            command.stdout(Stdio::null()).stderr(Stdio::inherit());
            let Ok(child) = self.lab.edge().spawn(command) else {
                println!("SKIPPED: {}: apt-get install haproxy", way.name());
                continue;
            };
            self.proxies.insert(way, child);
            let to = (VIP_V4, port).into();
            within(PATIENCE, || self.connect(to).ok())
                .with_context(|| format!("{} does not listen", way.name()))?;
        }
        Ok(())
    }

    /// Makes the way, if it can be had; where a client connects to.
    fn enter(&self, way: Way) -> Option<SocketAddr> {
        let address = match way {
            Way::Routed => (self.lab.host(BACKENDS[0]).v4, PORT),
            Way::Steered => {
                cli(&self.lab, ["attach", "--config", &self.config]).success();
                (DIRECT_V4, PORT)
            }
            Way::Translated => {
                cli(&self.lab, ["attach", "--config", &self.translating]).success();
                (DIRECT_V4, PORT)
            }
            Way::Nginx => (VIP_V4, NGINX),
            Way::HaProxy => (VIP_V4, HAPROXY),
        };
        let is_there =
            matches!(way, Way::Routed | Way::Steered | Way::Translated) || self.proxies.contains_key(&way);
        is_there.then_some(address.into())
    }

    fn connect(&self, to: SocketAddr) -> std::io::Result<TcpStream> {
        let stream = self
            .lab
            .client()
            .namespace
            .enter(|| TcpStream::connect_timeout(&to, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// CPU time of a GiB in milliseconds, or of a connection in microseconds.
    fn measure(&self, load: Load, to: SocketAddr, bytes: u64, connections: u64) -> Result<f64> {
        let each = bytes / STREAMS;
        // What is only paid once is paid before.
        self.transfer(load, to, 1 << 20)?;
        let before = self.spent()?;
        if load == Load::Connections {
            let done: Result<()> = self.lab.client().namespace.enter(|| {
                (0..connections).try_for_each(|_| {
                    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
                    ask(&mut stream, Load::Down, 1)?;
                    take(&mut stream, 1)
                })
            });
            done?;
        } else {
            self.transfer(load, to, each)?;
        }
        let spent = (self.spent()? - before) as f64;
        Ok(match load {
            Load::Connections => spent / 1e3 / connections as f64,
            _ => spent / 1e6 / (each * STREAMS) as f64 * f64::from(1 << 30),
        })
    }

    fn transfer(&self, load: Load, to: SocketAddr, bytes: u64) -> Result<()> {
        thread::scope(|scope| {
            let running: Vec<_> = (0..STREAMS)
                .map(|_| {
                    scope.spawn(move || -> Result<()> {
                        let mut stream = self.connect(to)?;
                        ask(&mut stream, load, bytes)?;
                        if load == Load::Up {
                            give(&mut stream, bytes)?;
                            take(&mut stream, 1)
                        } else {
                            take(&mut stream, bytes)
                        }
                    })
                })
                .collect();
            running.into_iter().try_for_each(|running| {
                running
                    .join()
                    .map_err(|_| anyhow::anyhow!("a transfer panicked"))?
            })
        })
    }

    /// A flood of made-up sources beside established connections, all of which have to live.
    fn survive(&self) -> Result<()> {
        let to = self.enter(Way::Steered).context("the edge steers")?;
        let mut kept = Vec::with_capacity(KEPT);
        for _ in 0..KEPT {
            let mut stream = self.connect(to)?;
            stream.set_read_timeout(Some(STALL))?;
            ask(&mut stream, Load::Down, u64::MAX)?;
            take(&mut stream, 1)?;
            kept.push(stream);
        }
        let (moved, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let rate = |from: u64, time: Duration| {
            (moved.load(Ordering::Relaxed) - from) as f64 / time.as_secs_f64() / f64::from(1 << 20)
        };
        let calm = || {
            let from = moved.load(Ordering::Relaxed);
            thread::sleep(CALM);
            rate(from, CALM)
        };
        thread::scope(|scope| -> Result<()> {
            let readers: Vec<_> = kept
                .chunks_mut(KEPT.div_ceil(READERS))
                .map(|part| scope.spawn(|| sip(part, &moved, &stop)))
                .collect();
            let before = calm();
            let from = moved.load(Ordering::Relaxed);
            let flooding = scope.spawn(|| {
                // With the whole of another CPU, if there is one.
                pin(0)?;
                flood::blast_port(self.lab.attacker(), DIRECT_V4.into(), PORT, FLOOD)
            });
            let flood = flooding
                .join()
                .map_err(|_| anyhow::anyhow!("the flood panicked"))?;
            let during = flood.as_ref().map_or(f64::NAN, |flood| rate(from, flood.time));
            let after = calm();
            stop.store(true, Ordering::Relaxed);
            for reader in readers {
                reader
                    .join()
                    .map_err(|_| anyhow::anyhow!("a reader panicked"))??;
            }
            let flood = flood?;
            println!(
                "{} packets, each from a source of its own, in {:.0} s: all of {KEPT} connections live, {before:.0} / {during:.0} / \
                 {after:.0} MiB/s before / during / after",
                flood.sent,
                flood.time.as_secs_f64()
            );
            Ok(())
        })?;
        let held: u64 = cli(&self.lab, ["service", "list", "--json"])
            .json()
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|service| service["backends"].as_array().cloned().unwrap_or_default())
            .filter_map(|backend| backend["connections"].as_u64())
            .sum();
        println!("the connection table has {held} connections");
        cli(&self.lab, ["detach"]).success();
        Ok(())
    }

    /// CPU time of the edge so far, in nanoseconds: its processes, and the kernel's threads for its interfaces.
    fn spent(&self) -> Result<u64> {
        let own = Pid::from_raw(std::process::id().cast_signed());
        let mut all = 0;
        for pid in self.lab.edge().processes() {
            if Some(pid) != own {
                all += on_cpu(&format!("/proc/{}", pid.as_raw_nonzero()))?;
            }
        }
        let mut threads = 0;
        for (name, path) in interface_threads()? {
            if name.starts_with("napi/wired-") || name.starts_with("napi/wan") {
                all += on_cpu(&path)?;
                threads += 1;
            }
        }
        ensure!(
            threads > BACKENDS.len(),
            "the edge's interfaces have {threads} threads"
        );
        Ok(all)
    }
}

/// One way from a host to the edge, in frames of a driver's.
struct Wire {
    _program: ForeignXdp,
    between: Namespace,
}

impl Wire {
    /// From a new interface `wire` of `host` to a new one of the edge, which has this Ethernet address. Answers come by the
    /// link that there is.
    fn new(lab: &Lab, host: &Host, number: u8) -> Result<Self> {
        let between = Namespace::create("wire")?;
        let end = wired(number);
        let mac = format!("02:00:00:00:99:{number:02x}");
        between.ip_batch([
            format!(
                "link add in type veth peer name wire netns {}",
                host.namespace.path().display()
            ),
            format!(
                "link add out type veth peer name {end} address {mac} netns {}",
                lab.edge().path().display()
            ),
            "link set in up".to_owned(),
            "link set out up".to_owned(),
        ])?;
        host.namespace.ip_batch([
            "link set wire up".to_owned(),
            format!("neigh replace {} lladdr {mac} dev wire", host.edge_v4),
        ])?;
        lab.edge().ip(&format!("link set {end} up"))?;
        for (path, value) in [("rp_filter", "0"), ("forwarding", "1")] {
            lab.edge().sysctl(&format!("ipv4/conf/{end}/{path}"), value)?;
        }
        lab.edge().sysctl("ipv4/conf/all/rp_filter", "0")?;
        offload::switch_off(&host.namespace, "wire", &["tx-checksum-ip-generic"])?;
        offload::switch_on(lab.edge(), &end, &["rx-gro"])?;
        Ok(Self {
            _program: ForeignXdp::wire(&between, "in", "out")?,
            between,
        })
    }
}

/// The edge's interface at the end of a wire: of the client, or of a backend.
fn wired(number: u8) -> String {
    match number {
        0 => "wired-client".to_owned(),
        _ => format!("wired-{number}"),
    }
}

fn from_client(lab: &Lab) -> Result<Wire> {
    let client = lab.client();
    let wire = Wire::new(lab, client, 0)?;
    let addresses = BACKENDS
        .iter()
        .map(|role| lab.host(role).v4)
        .chain([VIP_V4, DIRECT_V4]);
    client.namespace.ip_batch(addresses.map(|to| {
        format!(
            "route replace {to}/32 via {} dev wire onlink src {}",
            client.edge_v4, client.v4
        )
    }))?;
    client.namespace.sysctl("ipv4/conf/all/rp_filter", "0")?;
    Ok(wire)
}

/// A wire to the edge, and a link to the client for answers.
fn from_backend(lab: &Lab, role: &str) -> Result<Wire> {
    let (client, backend) = (lab.client(), lab.host(role));
    let number = role.bytes().last().unwrap_or_default() - b'0';
    let wire = Wire::new(lab, backend, number)?;
    backend.namespace.ip_batch([
        format!("route replace {}/32 dev wire src {}", backend.edge_v4, backend.v4),
        format!(
            "link add back type veth peer name {role} netns {}",
            client.namespace.path().display()
        ),
        "link set back up".to_owned(),
        format!("route replace {}/32 dev back", client.v4),
    ])?;
    client.namespace.ip(&format!("link set {role} up"))?;
    client
        .namespace
        .sysctl(&format!("ipv4/conf/{role}/rp_filter"), "0")?;
    backend.namespace.sysctl("ipv4/conf/all/rp_filter", "0")?;
    offload::switch_on(&client.namespace, role, &["rx-gro"])?;
    Ok(wire)
}

/// Gives each interface of a namespace a thread of the kernel's, on this CPU: whose work a packet is can be told by it.
fn threaded(namespace: &Namespace, cpu: usize) -> Result<()> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec"]).arg(
        // Some receive nothing, and have no threads to be had.
        "mount -t sysfs none /sys; for interface in /sys/class/net/*; do echo 1 2>&- > $interface/threaded || true; done",
    );
    let output = namespace.output(command)?;
    ensure!(
        output.status.success(),
        "threads of interfaces: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    for (_, path) in interface_threads()? {
        let id = path
            .rsplit('/')
            .next()
            .and_then(|id| Pid::from_raw(id.parse().ok()?));
        rustix::thread::sched_setaffinity(id, &set).context("pinning an interface's thread")?;
    }
    Ok(())
}

/// Names and places of the kernel's threads for interfaces.
fn interface_threads() -> Result<Vec<(String, String)>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let path = entry.path();
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        if name.starts_with("napi/") {
            threads.push((name.trim_end().to_owned(), path.display().to_string()));
        }
    }
    Ok(threads)
}

/// Time on a CPU of all threads of a process, in nanoseconds.
fn on_cpu(process: &str) -> Result<u64> {
    let mut all = 0;
    for thread in fs::read_dir(format!("{process}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let first = text.split_ascii_whitespace().next().unwrap_or_default();
        all += first.parse::<u64>().context("schedstat")?;
    }
    Ok(all)
}

/// Serves whoever connects: a letter and a number of bytes, which are taken (`u`, answered with one byte) or given (`d`).
fn serve(listener: TcpListener) {
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            // Whoever goes away early is no reason to stop.
            thread::spawn(move || answer(&mut stream).is_ok());
        }
    });
}

fn answer(stream: &mut TcpStream) -> Result<()> {
    let mut question = [0; 9];
    stream.read_exact(&mut question)?;
    let [letter, number @ ..] = question;
    let bytes = u64::from_be_bytes(number);
    if letter == b'u' {
        take(stream, bytes)?;
        give(stream, 1)
    } else {
        give(stream, bytes)
    }
}

/// Reads of each connection in turn until it is stopped, and of each once more then.
fn sip(streams: &mut [TcpStream], moved: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    let mut buffer = vec![0; SIP];
    loop {
        let is_last = stop.load(Ordering::Relaxed);
        for stream in &mut *streams {
            let bytes = stream
                .read(&mut buffer)
                .context("a connection during the flood")?;
            ensure!(bytes > 0, "a connection has ended during the flood");
            moved.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        if is_last {
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
}

fn ask(stream: &mut TcpStream, load: Load, bytes: u64) -> Result<()> {
    let mut question = [if load == Load::Up { b'u' } else { b'd' }; 9];
    question[1..].copy_from_slice(&bytes.to_be_bytes());
    Ok(stream.write_all(&question)?)
}

fn give(stream: &mut TcpStream, bytes: u64) -> Result<()> {
    let buffer = vec![7; CHUNK.min(bytes as usize)];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(buffer.len() as u64) as usize;
        stream.write_all(&buffer[..now])?;
        left -= now as u64;
    }
    Ok(())
}

fn take(stream: &mut TcpStream, bytes: u64) -> Result<()> {
    let mut buffer = vec![0; CHUNK.min(bytes as usize)];
    let mut left = bytes;
    while left > 0 {
        let now = stream.read(&mut buffer)?;
        ensure!(now > 0, "{left} bytes are missing");
        left -= now as u64;
    }
    Ok(())
}
