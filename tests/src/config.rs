//! Configuration files for the binary under test, as text.
//!
//! Kept apart from the daemon's own types on purpose: a test writes what an operator writes.

use std::{
    fmt::Write,
    net::{IpAddr, SocketAddr},
};

use crate::{
    lab::{Lab, VIP_V4, VIP_V6},
    stage::Limit,
    token::{AUDIENCE, ISSUER, Signer},
};

/// Port of the gateway in [`Settings::standard`].
pub const PORT: u16 = 8080;
/// Cookie that carries the token.
pub const COOKIE: &str = "session";
/// Path that wants a token; everything else is open.
pub const PRIVATE: &str = "/private";

/// A protected service.
#[derive(Debug, Clone)]
pub struct Service {
    /// Unique name.
    pub name: String,
    /// `None` is every local address.
    pub address: Option<IpAddr>,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Port.
    pub port: u16,
}

/// What a test may want to vary; [`Settings::text`] writes the file.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Interfaces the shield attaches to.
    pub interfaces: Vec<String>,
    /// `auto`, `native` or `generic`.
    pub mode: &'static str,
    /// Drop nothing, count what would be dropped.
    pub observe: bool,
    /// Keys of `[shield]` beside those.
    pub shield_extra: String,
    /// `[shield.limits]`: key and rate.
    pub limits: Vec<(&'static str, Limit)>,
    /// What the shield judges.
    pub services: Vec<Service>,
    /// Text put into each service as it is: its guard.
    pub guard: String,
    /// Where the gateway listens.
    pub listeners: Vec<SocketAddr>,
    /// Endpoints of the one upstream.
    pub upstream: Vec<SocketAddr>,
    /// Algorithm and key file of the one provider.
    pub provider: (&'static str, String),
    /// Refusals that ban, the half-life of a score, and the length of the ban.
    pub offences: (u32, &'static str, &'static str),
    /// Ban nobody, tell who would be.
    pub observe_offences: bool,
    /// Keys of `[offences]` beside those.
    pub offences_extra: String,
    /// Keys of every listener.
    pub listener_extra: String,
    /// Text put at the end as it is.
    pub extra: String,
}

impl Settings {
    /// The gateway on both services' addresses behind a shield on every outer interface, without limits; `/` is open,
    /// [`PRIVATE`] wants a token of `signer`; 20 refusals a minute ban for a minute.
    pub fn standard(lab: &Lab, signer: &Signer, upstream: SocketAddr) -> Self {
        let listeners: Vec<SocketAddr> = vec![(VIP_V4, PORT).into(), (VIP_V6, PORT).into()];
        let service = |(name, address): (&str, SocketAddr)| Service {
            name: name.to_owned(),
            address: Some(address.ip()),
            protocol: "tcp",
            port: address.port(),
        };
        let key = lab.write("token.key", signer.verifying_key());
        Self {
            interfaces: lab.wan_interfaces(),
            mode: "native",
            observe: false,
            shield_extra: String::new(),
            limits: Vec::new(),
            services: ["http-v4", "http-v6"]
                .into_iter()
                .zip(listeners.clone())
                .map(service)
                .collect(),
            guard: String::new(),
            listeners,
            upstream: vec![upstream],
            provider: (signer.algorithm_name(), key.display().to_string()),
            offences: (20, "60s", "60s"),
            observe_offences: false,
            offences_extra: String::new(),
            listener_extra: String::new(),
            extra: String::new(),
        }
    }

    /// Sets a limit of `[shield.limits]`.
    #[must_use]
    pub fn limit(mut self, key: &'static str, limit: Limit) -> Self {
        self.limits.push((key, limit));
        self
    }

    /// The file.
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out).expect("a string takes any text");
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "[shield]\ninterfaces = {:?}\nmode = {:?}",
            self.interfaces, self.mode
        )?;
        let extra = &self.shield_extra;
        writeln!(out, "observe = {}\n{extra}\n\n[shield.limits]", self.observe)?;
        for (key, Limit { per_second, burst }) in &self.limits {
            writeln!(out, "{key} = {{ per_second = {per_second}, burst = {burst} }}")?;
        }
        for Service {
            name,
            address,
            protocol,
            port,
        } in &self.services
        {
            writeln!(
                out,
                "\n[[service]]\nname = {name:?}\nprotocol = {protocol:?}\nport = {port}"
            )?;
            if let Some(address) = address {
                writeln!(out, "address = \"{address}\"")?;
            }
            writeln!(out, "{}", self.guard)?;
        }
        for (index, address) in self.listeners.iter().enumerate() {
            writeln!(
                out,
                "\n[[listener]]\nname = \"listener-{index}\"\naddress = \"{address}\"\n{}",
                self.listener_extra
            )?;
        }
        let endpoints: Vec<_> = self.upstream.iter().map(ToString::to_string).collect();
        writeln!(out, "\n[[upstream]]\nname = \"web\"\nendpoints = {endpoints:?}")?;
        writeln!(
            out,
            "\n[[route]]\nname = \"open\"\npath = \"/\"\nupstream = \"web\"\nauth = \"none\""
        )?;
        writeln!(
            out,
            "\n[[route]]\nname = \"private\"\npath = {PRIVATE:?}\nupstream = \"web\""
        )?;
        writeln!(out, "auth = \"required\"\nproviders = [\"issuer\"]")?;
        let (algorithm, file) = &self.provider;
        let key = if algorithm.starts_with("HS") {
            "secret_file"
        } else {
            "pem_file"
        };
        writeln!(
            out,
            "\n[[provider]]\nname = \"issuer\"\nalgorithms = [{algorithm:?}]\n{key} = {file:?}"
        )?;
        writeln!(out, "issuer = {ISSUER:?}\naudiences = [{AUDIENCE:?}]")?;
        writeln!(out, "sources = [\"bearer\", \"cookie:{COOKIE}\"]")?;
        let (threshold, window, ban) = self.offences;
        writeln!(
            out,
            "\n[offences]\nthreshold = {threshold}\nhalf_life = {window:?}\nban = {ban:?}\nobserve = {}\n{}",
            self.observe_offences, self.offences_extra
        )?;
        writeln!(
            out,
            "\n[gateway]\nworkers = 2\nshutdown_grace = \"10s\"\n{}",
            self.extra
        )
    }
}
