//! A configuration in the making: names that are unique, routes that are reachable, and the text of it all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
};

use super::{Note, Surroundings, Translation};
use crate::{
    config::{Config, ConfigError},
    gateway::path,
};

/// Longest name that the configuration takes.
const MAX_NAME: usize = 64;

/// What is put together.
pub(super) struct Draft {
    pub(super) surroundings: Surroundings,
    listeners: BTreeMap<u16, Listener>,
    /// Name by endpoint.
    upstreams: BTreeMap<String, String>,
    names: BTreeSet<String>,
    /// With the object and the field that each stands in.
    routes: Vec<(Route, String, String)>,
    /// Host, path and conditions that are taken.
    taken: BTreeSet<String>,
    notes: Vec<Note>,
}

/// Where connections come in.
#[derive(Default)]
struct Listener {
    is_tls: bool,
    /// Stem of the certificate's files, with the names it is for.
    certificates: Vec<(String, Vec<String>)>,
}

/// How a route is found by path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PathKey {
    Prefix(String),
    Exact(String),
    Regex(String),
    Template(String),
}

impl PathKey {
    fn key(&self) -> (&'static str, &str) {
        match self {
            Self::Prefix(text) => ("path", text),
            Self::Exact(text) => ("path_exact", text),
            Self::Regex(text) => ("path_regex", text),
            Self::Template(text) => ("path_template", text),
        }
    }
}

/// What becomes of a route's requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Upstreams by weight.
    Forward(Vec<(String, u64)>),
    Redirect {
        status: u16,
        scheme: Option<String>,
        host: Option<String>,
        port: Option<u16>,
        path: Option<String>,
    },
    Respond(u16),
}

/// Fields that are set, added, removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) set: BTreeMap<String, String>,
    pub(super) add: BTreeMap<String, String>,
    pub(super) remove: Vec<String>,
}

/// A condition: name, key of the test, value.
pub(super) type Condition = (String, &'static str, String);

/// One route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) name: String,
    pub(super) hosts: Vec<String>,
    pub(super) path: PathKey,
    pub(super) method: Option<String>,
    pub(super) headers: Vec<Condition>,
    pub(super) query: Vec<Condition>,
    pub(super) action: Action,
    /// `prefix` or `path`, and the text.
    pub(super) rewrite: Option<(&'static str, String)>,
    pub(super) request: Fields,
    pub(super) response: Fields,
    pub(super) mirror: Option<(String, u8)>,
    pub(super) timeout: Option<String>,
    pub(super) request_timeout: Option<String>,
}

impl Route {
    /// A route of this name, for every host, that changes nothing.
    pub(super) fn new(name: &str, path: PathKey, action: Action) -> Self {
        Self {
            name: name.to_owned(),
            hosts: Vec::new(),
            path,
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
            action,
            rewrite: None,
            request: Fields::default(),
            response: Fields::default(),
            mirror: None,
            timeout: None,
            request_timeout: None,
        }
    }

    fn uses(&self, upstream: &str) -> bool {
        let forwards =
            matches!(&self.action, Action::Forward(all) if all.iter().any(|(name, _)| name == upstream));
        forwards || self.mirror.as_ref().is_some_and(|(name, _)| name == upstream)
    }

    fn place(&self, host: &str) -> String {
        let (key, path) = self.path.key();
        let host = host.to_ascii_lowercase();
        let method = &self.method;
        format!(
            "{host} {key} {path} {method:?} {:?} {:?}",
            self.headers, self.query
        )
    }
}

impl Draft {
    pub(super) fn new(surroundings: Surroundings) -> Self {
        Self {
            surroundings,
            listeners: BTreeMap::new(),
            upstreams: BTreeMap::new(),
            names: BTreeSet::new(),
            routes: Vec::new(),
            taken: BTreeSet::new(),
            notes: Vec::new(),
        }
    }

    pub(super) fn note(&mut self, object: &str, field: impl Into<String>, what: impl Into<String>) {
        self.notes.push(Note {
            object: object.to_owned(),
            field: field.into(),
            what: what.into(),
        });
    }

    /// Has connections accepted at this port.
    pub(super) fn listen(&mut self, port: u16, is_tls: bool) {
        self.listeners.entry(port).or_default().is_tls |= is_tls;
    }

    /// Has connections to this port secured by a certificate.
    pub(super) fn secure(&mut self, port: u16, namespace: &str, secret: &str, names: &[String]) {
        self.listen(port, true);
        let stem = format!("{}/{namespace}-{secret}", self.surroundings.certificates);
        let certificates = &mut self.listeners.entry(port).or_default().certificates;
        match certificates.iter_mut().find(|(have, _)| *have == stem) {
            Some((_, have)) => {
                for name in names {
                    if !have.contains(name) {
                        have.push(name.clone());
                    }
                }
            }
            None => certificates.push((stem, names.to_vec())),
        }
    }

    /// Whether there is a listener at this port.
    pub(super) fn listens(&self, port: u16) -> bool {
        self.listeners.contains_key(&port)
    }

    /// How many listeners there are.
    pub(super) fn listeners(&self) -> usize {
        self.listeners.len()
    }

    /// The name of the upstream that is this port of a service.
    pub(super) fn upstream(&mut self, namespace: &str, service: &str, port: u16) -> String {
        let domain = &self.surroundings.domain;
        let endpoint = format!("{service}.{namespace}.svc.{domain}:{port}");
        if let Some(name) = self.upstreams.get(&endpoint) {
            return name.clone();
        }
        let name = self.unique(&format!("{namespace}-{service}-{port}"));
        self.upstreams.insert(endpoint, name.clone());
        name
    }

    /// A name that the configuration takes and that nothing else has.
    fn unique(&mut self, wanted: &str) -> String {
        let fit = |c: char| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '-'
            }
        };
        let plain: String = wanted.chars().map(fit).collect();
        let mut name: String = plain.chars().take(MAX_NAME).collect();
        let mut number = 1;
        while name.is_empty() || !self.names.insert(name.clone()) {
            number += 1;
            let suffix = format!("-{number}");
            let kept = plain.chars().take(MAX_NAME - suffix.len());
            name = kept.chain(suffix.chars()).collect();
        }
        name
    }

    /// Adds a route, as far as nothing before it takes the same requests. `field` of `object` is where it stands.
    pub(super) fn route(&mut self, mut route: Route, object: &str, field: &str) {
        if let Err(why) = settle(&mut route.path) {
            self.note(object, field, why);
            return;
        }
        for fields in [&mut route.request, &mut route.response] {
            let texts = fields.set.values_mut().chain(fields.add.values_mut());
            for text in texts {
                *text = text.replace('{', "{{").replace('}', "}}");
            }
        }
        let hosts = if route.hosts.is_empty() {
            vec![String::new()]
        } else {
            route.hosts.clone()
        };
        let mut kept = Vec::new();
        for host in hosts {
            if self.taken.insert(route.place(&host)) {
                kept.push(host);
            } else {
                let host = if host.is_empty() { "every host" } else { &host };
                self.note(
                    object,
                    field,
                    format!("is not reached at {host}: an earlier rule takes the same"),
                );
            }
        }
        if kept.is_empty() {
            return;
        }
        kept.retain(|host| !host.is_empty());
        route.hosts = kept;
        route.name = self.unique(&route.name);
        self.routes.push((route, object.to_owned(), field.to_owned()));
    }

    pub(super) fn finish(mut self) -> Translation {
        while self.drop_refused() {}
        self.drop_unused();
        let mut out = String::from(HEAD);
        // Writing to a string cannot fail.
        let _ = self.write(&mut out);
        Translation {
            config: out,
            routes: self.routes.len(),
            notes: self.notes,
        }
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        for (port, listener) in &self.listeners {
            let name = format!("{}-{port}", if listener.is_tls { "https" } else { "http" });
            write!(out, "\n[[listener]]\nname = {}\n", quoted(&name))?;
            writeln!(out, "address = \"[::]:{port}\"\ndual_stack = true")?;
            if listener.is_tls {
                writeln!(out, "\n[listener.tls]\ncertificates = [")?;
                for (stem, names) in &listener.certificates {
                    let [certificate, key] = ["crt", "key"].map(|end| quoted(&format!("{stem}.{end}")));
                    write!(out, "    {{ certificate_file = {certificate}, key_file = {key}")?;
                    if !names.is_empty() {
                        write!(out, ", names = {}", list(names))?;
                    }
                    writeln!(out, " }},")?;
                }
                writeln!(out, "]")?;
            }
        }
        self.write_routes(out)
    }

    fn write_routes(&self, out: &mut String) -> std::fmt::Result {
        for (endpoint, name) in &self.upstreams {
            let (name, endpoint) = (quoted(name), quoted(endpoint));
            writeln!(out, "\n[[upstream]]\nname = {name}\nendpoints = [{endpoint}]")?;
        }
        let mut routes = self.routes.iter();
        routes.try_for_each(|(route, ..)| write_route(route, out))
    }

    /// Leaves out what the configuration itself refuses, with its words; whether there was any.
    fn drop_refused(&mut self) -> bool {
        let mut text = TRIAL.to_owned();
        // Writing to a string cannot fail.
        let _ = self.write_routes(&mut text);
        let Err(ConfigError::Invalid(report)) = Config::parse(&text, "import", Path::new("/")) else {
            return false;
        };
        let mut refused: BTreeMap<usize, String> = BTreeMap::new();
        for problem in &report.errors {
            let said = || problem.message.clone();
            if let Some(route) = index(&problem.key, "route[") {
                refused.entry(route).or_insert_with(said);
            } else if let Some(upstream) = index(&problem.key, "upstream[") {
                let name = self.upstreams.values().nth(upstream).cloned().unwrap_or_default();
                let users = self.routes.iter().enumerate();
                for (route, _) in users.filter(|(_, (route, ..))| route.uses(&name)) {
                    refused.entry(route).or_insert_with(said);
                }
            }
        }
        for (route, why) in refused.iter().rev() {
            let (_, object, field) = self.routes.remove(*route);
            self.note(&object, field, format!("is left out: {why}"));
        }
        self.drop_unused();
        !refused.is_empty()
    }

    fn drop_unused(&mut self) {
        let routes = &self.routes;
        self.upstreams
            .retain(|_, name| routes.iter().any(|(route, ..)| route.uses(name)));
    }
}

/// What stands before the routes when they are tried.
const TRIAL: &str = "[[listener]]\nname = \"trial\"\naddress = \"127.0.0.1:1\"\n";

/// The number in a key, as 3 in `route[3].hosts`.
fn index(key: &str, kind: &str) -> Option<usize> {
    key.strip_prefix(kind)?.split(']').next()?.parse().ok()
}

const HEAD: &str = "# Made of Kubernetes manifests by `breakwater import`. Every route is open (`auth = \"none\"`) until it is told otherwise.
";

fn write_route(route: &Route, out: &mut String) -> std::fmt::Result {
    writeln!(out, "\n[[route]]\nname = {}", quoted(&route.name))?;
    if !route.hosts.is_empty() {
        writeln!(out, "hosts = {}", list(&route.hosts))?;
    }
    let (key, path) = route.path.key();
    writeln!(out, "{key} = {}", quoted(path))?;
    if let Some(method) = &route.method {
        writeln!(out, "methods = [{}]", quoted(method))?;
    }
    if let Action::Forward(upstreams) = &route.action {
        match upstreams.as_slice() {
            [(only, _)] => writeln!(out, "upstream = {}", quoted(only))?,
            several => {
                let weighed = |(name, weight): &(String, u64)| {
                    format!("{{ name = {}, weight = {weight} }}", quoted(name))
                };
                let all: Vec<_> = several.iter().map(weighed).collect();
                writeln!(out, "upstreams = [{}]", all.join(", "))?;
            }
        }
    }
    writeln!(out, "auth = \"none\"")?;
    for (key, value) in [
        ("timeout", &route.timeout),
        ("request_timeout", &route.request_timeout),
    ] {
        if let Some(value) = value {
            writeln!(out, "{key} = {}", quoted(value))?;
        }
    }
    if let Some((key, text)) = &route.rewrite {
        writeln!(out, "rewrite = {{ {key} = {} }}", quoted(text))?;
    }
    if let Some((upstream, percent)) = &route.mirror {
        writeln!(
            out,
            "mirror = {{ upstream = {}, percent = {percent} }}",
            quoted(upstream)
        )?;
    }
    for (table, conditions) in [("headers", &route.headers), ("query", &route.query)] {
        for (name, test, value) in conditions {
            let (name, value) = (quoted(name), quoted(value));
            writeln!(out, "[[route.{table}]]\nname = {name}\n{test} = {value}")?;
        }
    }
    for (table, fields) in [
        ("request_headers", &route.request),
        ("response_headers", &route.response),
    ] {
        if *fields == Fields::default() {
            continue;
        }
        writeln!(out, "[route.{table}]")?;
        for (key, texts) in [("set", &fields.set), ("add", &fields.add)] {
            if !texts.is_empty() {
                let pair = |(name, text): (&String, &String)| format!("{} = {}", quoted(name), quoted(text));
                let all: Vec<_> = texts.iter().map(pair).collect();
                writeln!(out, "{key} = {{ {} }}", all.join(", "))?;
            }
        }
        if !fields.remove.is_empty() {
            writeln!(out, "remove = {}", list(&fields.remove))?;
        }
    }
    match &route.action {
        Action::Forward(_) => Ok(()),
        Action::Respond(status) => writeln!(out, "[route.respond]\nstatus = {status}"),
        Action::Redirect {
            status,
            scheme,
            host,
            port,
            path,
        } => {
            writeln!(out, "[route.redirect]\nstatus = {status}")?;
            for (key, value) in [("scheme", scheme), ("host", host), ("path", path)] {
                if let Some(value) = value {
                    writeln!(out, "{key} = {}", quoted(value))?;
                }
            }
            port.map_or(Ok(()), |port| writeln!(out, "port = {port}"))
        }
    }
}

/// Brings a path to the spelling that the configuration wants.
fn settle(key: &mut PathKey) -> Result<(), String> {
    let (PathKey::Prefix(text) | PathKey::Exact(text)) = key else {
        return Ok(());
    };
    let normal =
        path::normalise(text.as_bytes()).map_err(|fault| format!("path {text:?} is left out: {fault}"))?;
    let mut normal = normal.into_owned();
    if matches!(key, PathKey::Prefix(_)) && normal.len() > 1 {
        // A prefix of whole segments: `/a/` and `/a` are the same one.
        normal.truncate(normal.trim_end_matches('/').len());
    }
    *key = match key {
        PathKey::Exact(_) => PathKey::Exact(normal),
        _ => PathKey::Prefix(normal),
    };
    Ok(())
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn list(texts: &[String]) -> String {
    let all: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", all.join(", "))
}
