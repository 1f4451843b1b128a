//! What is asked of the proxies.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{
    Sample, idle,
    load::{self, Wrk},
    origin::PLAIN,
    proxies::{Proxy, Site},
};

/// What a scenario is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Figure {
    /// CPU time of a request, microseconds; less is better.
    CpuPerRequest,
    /// Megabytes moved in a second of CPU time; more is better.
    MegabytesPerCpuSecond,
    /// Median latency over that of the origin itself in the same round, microseconds; less is better.
    Latency,
    /// Proportional set size, MiB; less is better.
    Memory,
}

impl Figure {
    /// Its unit.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::CpuPerRequest => "us of CPU a request",
            Self::MegabytesPerCpuSecond => "MB a CPU second",
            Self::Latency => "us over direct, median",
            Self::Memory => "MiB, PSS",
        }
    }

    /// Its value in a sample.
    pub(super) fn of(self, sample: &Sample) -> f64 {
        match self {
            Self::CpuPerRequest => sample.cpu_ns as f64 / 1e3 / sample.requests.max(1) as f64,
            Self::MegabytesPerCpuSecond => sample.bytes as f64 / 1e6 / (sample.cpu_ns.max(1) as f64 / 1e9),
            Self::Latency => sample.p50_us - sample.direct_us,
            Self::Memory => sample.pss_kib as f64 / 1024.0,
        }
    }

    /// Whether less is better.
    pub(super) fn less_is_better(self) -> bool {
        self != Self::MegabytesPerCpuSecond
    }
}

/// How the load is made.
#[derive(Debug, Clone, Copy)]
enum Load {
    Wrk {
        connections: u32,
        close: bool,
        tls: bool,
        path: &'static str,
    },
    Script {
        name: &'static str,
        text: &'static str,
        connections: u32,
        body: u64,
    },
    H2,
    Idle {
        connections: usize,
    },
}

/// Which tokens a scenario goes round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tokens {
    pub(super) algorithm: &'static str,
    /// So many, one after the other; more than a cache holds are never found again.
    pub(super) count: usize,
}

/// One scenario.
#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) figure: Figure,
    /// Ratio to the best peer that is aimed for.
    pub(super) aim: f64,
    /// Breakwater against itself.
    pub(super) own: bool,
    /// Tokens are asked for.
    pub(super) tokens: Option<Tokens>,
    /// Bodies go up.
    pub(super) upload: bool,
    load: Load,
}

const fn wrk(connections: u32, close: bool, tls: bool, path: &'static str) -> Load {
    Load::Wrk {
        connections,
        close,
        tls,
        path,
    }
}

const fn scenario(name: &'static str, about: &'static str, figure: Figure, aim: f64, load: Load) -> Scenario {
    Scenario {
        name,
        about,
        figure,
        aim,
        own: false,
        tokens: None,
        upload: false,
        load,
    }
}

/// More tokens than a worker's cache holds, so that going round them finds none again.
const UNSEEN: usize = super::jwt::TOKENS;

const fn tokens(
    name: &'static str,
    about: &'static str,
    aim: f64,
    algorithm: &'static str,
    count: usize,
) -> Scenario {
    let load = Load::Script {
        name: "tokens.lua",
        text: TOKENS,
        connections: 64,
        body: 0,
    };
    Scenario {
        tokens: Some(Tokens { algorithm, count }),
        ..scenario(name, about, Figure::CpuPerRequest, aim, load)
    }
}

/// The head of an answer over HTTP/1 is longer than this, with the origin's own fields in it.
const LEAST_HEAD: u64 = 80;

/// Sends 1 MiB with each request.
const UPLOAD: &str = "wrk.method = 'POST'\nwrk.body = string.rep('x', 1048576)\n";

/// Goes round the tokens.
const TOKENS: &str = "local tokens = {}\nfor line in io.lines(TOKENS) do\n  if #tokens < COUNT then tokens[#tokens + 1] = line end\nend\nlocal at = 0\n\
    request = function()\n  at = at % #tokens + 1\n  return wrk.format('GET', '/plain', { ['Authorization'] = 'Bearer ' .. tokens[at] })\nend\n";

/// All scenarios.
pub(super) static SCENARIOS: [Scenario; 19] = [
    scenario(
        "keep-alive",
        "small GETs on 64 kept connections, HTTP/1.1",
        Figure::CpuPerRequest,
        1.0,
        wrk(64, false, false, "/plain"),
    ),
    tokens(
        "tokens",
        "5,000 repeated RS256 tokens, 64 connections",
        0.45,
        "RS256",
        5_000,
    ),
    tokens("tokens-one", "one RS256 token, 64 connections", 0.40, "RS256", 1),
    tokens(
        "tokens-new",
        "RS256 tokens that no cache holds, 64 connections",
        0.90,
        "RS256",
        UNSEEN,
    ),
    tokens(
        "tokens-hs256",
        "5,000 repeated HS256 tokens, 64 connections",
        0.75,
        "HS256",
        5_000,
    ),
    tokens(
        "tokens-hs256-new",
        "HS256 tokens that no cache holds, 64 connections",
        1.0,
        "HS256",
        UNSEEN,
    ),
    tokens(
        "tokens-es256",
        "5,000 repeated ES256 tokens, 64 connections",
        0.40,
        "ES256",
        5_000,
    ),
    tokens(
        "tokens-es256-new",
        "ES256 tokens that no cache holds, 64 connections",
        1.0,
        "ES256",
        UNSEEN,
    ),
    scenario(
        "tls-h1",
        "small GETs on 64 kept TLS 1.3 connections, HTTP/1.1",
        Figure::CpuPerRequest,
        0.95,
        wrk(64, false, true, "/plain"),
    ),
    scenario(
        "tls-h2",
        "small GETs on 16 TLS 1.3 connections, 8 streams each, HTTP/2",
        Figure::CpuPerRequest,
        1.0,
        Load::H2,
    ),
    scenario(
        "tls-new",
        "a TLS 1.3 connection for each request, full handshakes",
        Figure::CpuPerRequest,
        0.8,
        wrk(16, true, true, "/plain"),
    ),
    scenario(
        "body",
        "100 KiB answers on 64 connections",
        Figure::CpuPerRequest,
        0.95,
        wrk(64, false, false, "/100k"),
    ),
    scenario(
        "download",
        "10 MiB answers on 4 connections",
        Figure::MegabytesPerCpuSecond,
        1.4,
        wrk(4, false, false, "/10m"),
    ),
    Scenario {
        upload: true,
        ..scenario(
            "upload",
            "1 MiB requests on 4 connections",
            Figure::MegabytesPerCpuSecond,
            1.5,
            Load::Script {
                name: "upload.lua",
                text: UPLOAD,
                connections: 4,
                body: 1_048_576,
            },
        )
    },
    scenario(
        "connection",
        "a connection for each request",
        Figure::CpuPerRequest,
        1.0,
        wrk(64, true, false, "/plain"),
    ),
    Scenario {
        own: true,
        ..scenario(
            "routes",
            "10,000 routes against 10",
            Figure::CpuPerRequest,
            1.05,
            wrk(64, false, false, "/r/5/x"),
        )
    },
    scenario(
        "latency",
        "small GETs on one connection, over asking the origin itself",
        Figure::Latency,
        1.0,
        wrk(1, false, false, "/plain"),
    ),
    scenario(
        "memory-64",
        "memory with 64 connections under load",
        Figure::Memory,
        1.0,
        wrk(64, false, false, "/plain"),
    ),
    scenario(
        "memory-idle",
        "memory with 10,000 idle connections",
        Figure::Memory,
        1.0,
        Load::Idle { connections: 10_000 },
    ),
];

impl Scenario {
    /// Measures one proxy once.
    pub(super) fn measure(&self, site: &Site, proxy: &Proxy, time: Duration) -> Result<Sample> {
        let before = proxy.cpu_ns();
        let begun = Instant::now();
        let mut sample = match self.load {
            Load::Wrk {
                connections,
                close,
                tls,
                path,
            } => {
                let url = if tls {
                    format!("https://localhost:{}{path}", proxy.tls.port())
                } else {
                    format!("http://{}{path}", proxy.plain)
                };
                Wrk {
                    url: &url,
                    connections,
                    close,
                    script: None,
                }
                .run(site, time)?
            }
            Load::Script {
                name,
                text,
                connections,
                body,
            } => {
                let Tokens { algorithm, count } = self.tokens.unwrap_or(Tokens {
                    algorithm: "",
                    count: 0,
                });
                let tokens = site.folder.join(format!("{algorithm}.tokens"));
                let text = text
                    .replace("TOKENS", &format!("{:?}", tokens.display().to_string()))
                    .replace("COUNT", &count.to_string());
                std::fs::write(site.folder.join(name), text)?;
                let url = format!("http://{}/plain", proxy.plain);
                let mut sample = Wrk {
                    url: &url,
                    connections,
                    close: false,
                    script: Some(name),
                }
                .run(site, time)?;
                if body > 0 {
                    sample.bytes = sample.requests * body;
                }
                sample
            }
            Load::H2 => load::h2load(
                site,
                &format!("https://localhost:{}/plain", proxy.tls.port()),
                time,
            )?,
            Load::Idle { connections } => {
                let connections = connections.min(site.connections - 100);
                let held = idle::open(proxy.plain, connections)?;
                let pss_kib = proxy.pss_kib();
                drop(held);
                Sample {
                    requests: connections as u64,
                    wall: begun.elapsed(),
                    pss_kib,
                    ..Sample::default()
                }
            }
        };
        // A proxy that answers by itself is cheap, and no proxy.
        let least = match self.load {
            Load::H2 => PLAIN as u64,
            Load::Wrk { .. } if !self.own => PLAIN as u64 + LEAST_HEAD,
            _ => 0,
        };
        let each = sample.bytes / sample.requests.max(1);
        if each < least {
            bail!("{} answers by itself: {each} bytes each", proxy.name);
        }
        sample.cpu_ns = proxy.cpu_ns() - before;
        if sample.pss_kib == 0 {
            sample.pss_kib = proxy.pss_kib();
        }
        Ok(sample)
    }
}
