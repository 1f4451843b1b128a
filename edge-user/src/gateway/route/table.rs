//! The compiled table: from host and path to the routes that may serve a request, the most specific first.
//!
//! The order is total, so that what wins can be told from the file alone:
//!
//! 1. the host: a name, then `*.` domains from the longest to the shortest, then routes for every host;
//! 2. the path, segment by segment from the left: a literal, then `{name}`, then a regex, then `{*name}`, then a
//!    prefix that ends here; where the path ends, a literal end is before a regex and that before a prefix. A regex
//!    stands below the literal segments that it begins with;
//! 3. routes with methods, then those with more fields, then those with more query parameters;
//! 4. the order in the file.
//!
//! A look-up hashes the host once, then one segment after another as long as they lead towards a route: with ten
//! thousand routes it does the same steps as with ten. Regexes are tried only below the segments they begin with, in
//! time linear in the path, and only one by one if their set says that one of them matches.
//!
//! Invariant: no look-up allocates, and none follows more than the nodes that match the path.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    io::Write,
    net::Ipv6Addr,
};

use regex::{Regex, RegexSet, RegexSetBuilder};

use super::RouteId;
use crate::config::{
    HostPattern, PathPattern, RouteMatch, Segment,
    pattern::{self, PatternError},
};

/// Longest host that can match, in bytes (RFC 1035, 2.3.4).
pub const MAX_HOST: usize = 255;

type Hashed<K, V> = HashMap<Box<K>, V, BuildHasherDefault<KeyHasher>>;

/// Routes by host and path.
#[derive(Debug, Default)]
pub struct RouteTable {
    hosts: Hashed<[u8], Tree>,
    domains: Hashed<[u8], Tree>,
    /// Labels of the deepest domain: longer tails of a host need no look-up.
    deepest_domain: usize,
    every: Tree,
    /// What CONNECT may name; no path leads here, and no path leads from here.
    tunnels: Hashed<[u8], RouteId>,
}

/// The paths of one host pattern.
#[derive(Debug)]
struct Tree {
    nodes: Vec<Node>,
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
        }
    }
}

/// A place in the tree of segments. Each list is in the order in which its routes are tried.
#[derive(Debug, Default)]
struct Node {
    literals: Hashed<str, u32>,
    parameter: Option<u32>,
    exact: Vec<RouteId>,
    exact_slash: Vec<RouteId>,
    regexes: Option<Box<Regexes>>,
    rest: Vec<RouteId>,
    prefix: Vec<RouteId>,
}

/// The regexes that begin with the segments of one node.
#[derive(Debug, Default)]
struct Regexes {
    set: RegexSet,
    each: Vec<(Regex, RouteId)>,
}

impl RouteTable {
    /// Compiles the table of `routes`, whose ids are their places.
    ///
    /// # Errors
    /// A regex that cannot be compiled.
    pub fn compile<'r>(
        routes: impl IntoIterator<Item = &'r RouteMatch>,
    ) -> Result<Self, (RouteId, PatternError)> {
        let routes: Vec<&RouteMatch> = routes.into_iter().collect();
        let mut order: Vec<usize> = (0..routes.len()).collect();
        // Each list of a node is filled in this order; the sort is stable, so the file decides between equals.
        order.sort_by_key(|index| std::cmp::Reverse(weight(routes[*index])));
        let mut table = Self::default();
        for index in order {
            let id = RouteId(index as u32);
            let route = routes[index];
            let failed = |error| (id, error);
            if let PathPattern::Tunnel(authorities) = &route.path {
                for authority in authorities {
                    table.tunnels.entry(authority.as_bytes().into()).or_insert(id);
                }
                continue;
            }
            if route.hosts.is_empty() {
                table.every.insert(&route.path, id).map_err(failed)?;
            }
            for host in &route.hosts {
                let tree = match host {
                    HostPattern::Exact(host) => table.hosts.entry(host.as_bytes().into()).or_default(),
                    HostPattern::Below(domain) => {
                        table.deepest_domain = table.deepest_domain.max(labels(domain.as_bytes()));
                        table.domains.entry(domain.as_bytes().into()).or_default()
                    }
                };
                tree.insert(&route.path, id).map_err(failed)?;
            }
        }
        let trees = table.hosts.values_mut().chain(table.domains.values_mut());
        for tree in trees.chain([&mut table.every]) {
            tree.finish()?;
        }
        Ok(table)
    }

    /// The most specific route of `authority` (host and perhaps port, as sent) and the normalised `path` that
    /// `admits` takes.
    pub fn find(
        &self,
        authority: Option<&[u8]>,
        path: &str,
        mut admits: impl FnMut(RouteId) -> bool,
    ) -> Option<RouteId> {
        if (!self.hosts.is_empty() || !self.domains.is_empty())
            && let Some(authority) = authority
        {
            let mut buffer = [0; MAX_HOST];
            if let Some(host) = host_of(authority, &mut buffer)
                && let Some(route) = self.find_below(host, path, &mut admits)
            {
                return Some(route);
            }
        }
        self.every.find(path, &mut admits)
    }

    /// The route that lets CONNECT name `authority`: host and port, as sent.
    pub fn find_tunnel(&self, authority: &[u8]) -> Option<RouteId> {
        if self.tunnels.is_empty() {
            return None;
        }
        let (mut buffer, mut key) = ([0; MAX_HOST], [0; MAX_HOST + ":65535".len()]);
        let host = host_of(authority, &mut buffer)?;
        let port = memchr::memrchr(b':', authority).and_then(|colon| authority.get(colon..))?;
        let len = host.len() + port.len();
        key.get_mut(..host.len())?.copy_from_slice(host);
        key.get_mut(host.len()..len)?.copy_from_slice(port);
        self.tunnels.get(key.get(..len)?).copied()
    }

    /// The same among the routes that name hosts.
    fn find_below(
        &self,
        host: &[u8],
        path: &str,
        admits: &mut impl FnMut(RouteId) -> bool,
    ) -> Option<RouteId> {
        if let Some(tree) = self.hosts.get(host)
            && let Some(route) = tree.find(path, admits)
        {
            return Some(route);
        }
        if self.deepest_domain == 0 {
            return None;
        }
        let mut left = labels(host);
        let mut rest = host;
        while let Some(dot) = memchr::memchr(b'.', rest) {
            rest = &rest[dot + 1..];
            left -= 1;
            if left <= self.deepest_domain
                && let Some(tree) = self.domains.get(rest)
                && let Some(route) = tree.find(path, admits)
            {
                return Some(route);
            }
        }
        None
    }
}

/// What makes a route more specific than another of the same host and path.
fn weight(route: &RouteMatch) -> (bool, usize, usize) {
    (!route.methods.is_empty(), route.headers.len(), route.query.len())
}

fn labels(host: &[u8]) -> usize {
    memchr::memchr_iter(b'.', host).count() + 1
}

/// The host of an authority in its one spelling: a name in lower case without a final dot, an address of IPv6 as RFC
/// 5952 writes it, no port. `None` if it is longer than any host.
fn host_of<'b>(authority: &[u8], buffer: &'b mut [u8; MAX_HOST]) -> Option<&'b [u8]> {
    // The gate has found the authority well-formed: a colon outside of brackets begins a port.
    let end = if authority.first() == Some(&b'[') {
        memchr::memchr(b']', authority).map_or(authority.len(), |close| close + 1)
    } else {
        memchr::memchr(b':', authority).unwrap_or(authority.len())
    };
    let host = authority.get(..end)?;
    if let Some(address) = v6(host) {
        let mut rest = &mut buffer[..];
        write!(rest, "[{address}]").ok()?;
        let len = MAX_HOST - rest.len();
        return buffer.get(..len);
    }
    let host = host.strip_suffix(b".").unwrap_or(host);
    let lower = buffer.get_mut(..host.len())?;
    lower.copy_from_slice(host);
    lower.make_ascii_lowercase();
    Some(lower)
}

/// The address in brackets.
fn v6(host: &[u8]) -> Option<Ipv6Addr> {
    let inner = host.strip_prefix(b"[")?.strip_suffix(b"]")?;
    std::str::from_utf8(inner).ok()?.parse().ok()
}

impl Tree {
    fn insert(&mut self, path: &PathPattern, id: RouteId) -> Result<(), PatternError> {
        match path {
            PathPattern::Prefix(path) => {
                let at = self.literals(path);
                self.nodes[at].prefix.push(id);
            }
            PathPattern::Exact(path) => {
                let at = self.literals(path);
                let node = &mut self.nodes[at];
                let list = if path.ends_with('/') {
                    &mut node.exact_slash
                } else {
                    &mut node.exact
                };
                list.push(id);
            }
            PathPattern::Template(segments) => self.template(segments, id),
            PathPattern::Tunnel(_) => {}
            PathPattern::Regex(regex) => {
                let compiled = pattern::whole(regex)?;
                let at = self.literals(&pattern::literal_segments(regex));
                let regexes = self.nodes[at].regexes.get_or_insert_default();
                regexes.each.push((compiled, id));
            }
        }
        Ok(())
    }

    fn template(&mut self, segments: &[Segment], id: RouteId) {
        let mut at = 0;
        for segment in segments {
            match segment {
                Segment::Literal(text) => at = self.literal(at, text),
                Segment::Parameter(_) => {
                    let next = self.nodes.len() as u32;
                    let child = *self.nodes[at].parameter.get_or_insert(next);
                    if child == next {
                        self.nodes.push(Node::default());
                    }
                    at = child as usize;
                }
                Segment::Rest(_) => return self.nodes[at].rest.push(id),
                Segment::End => return self.nodes[at].exact_slash.push(id),
            }
        }
        self.nodes[at].exact.push(id);
    }

    /// The node of the literal segments of `path`.
    fn literals(&mut self, path: &str) -> usize {
        path.split('/')
            .filter(|segment| !segment.is_empty())
            .fold(0, |at, segment| self.literal(at, segment))
    }

    fn literal(&mut self, at: usize, segment: &str) -> usize {
        let next = self.nodes.len() as u32;
        let child = *self.nodes[at].literals.entry(segment.into()).or_insert(next);
        if child == next {
            self.nodes.push(Node::default());
        }
        child as usize
    }

    /// Makes the sets of the regexes that are in place.
    fn finish(&mut self) -> Result<(), (RouteId, PatternError)> {
        for regexes in self.nodes.iter_mut().filter_map(|node| node.regexes.as_mut()) {
            let patterns = regexes.each.iter().map(|(regex, _)| regex.as_str());
            regexes.set = RegexSetBuilder::new(patterns)
                .size_limit(pattern::MAX_SET_BYTES)
                .build()
                .map_err(|error| {
                    let first = regexes.each.first().map_or(RouteId(0), |(_, id)| *id);
                    (first, PatternError::from(error))
                })?;
        }
        Ok(())
    }

    fn find(&self, path: &str, admits: &mut impl FnMut(RouteId) -> bool) -> Option<RouteId> {
        // `*` is no path: only what takes everything takes it.
        match path.strip_prefix('/') {
            Some(_) => self.walk(0, path, path, admits),
            None => first(&self.nodes.first()?.prefix, admits),
        }
    }

    /// The best route below the node `at`, which `path` up to `rest` has led to.
    fn walk(
        &self,
        at: u32,
        path: &str,
        rest: &str,
        admits: &mut impl FnMut(RouteId) -> bool,
    ) -> Option<RouteId> {
        let node = self.nodes.get(at as usize)?;
        let more = rest.len() > 1;
        if more {
            let segment = &rest[1..];
            let (segment, tail) =
                segment.split_at(memchr::memchr(b'/', segment.as_bytes()).unwrap_or(segment.len()));
            if !node.literals.is_empty()
                && let Some(child) = node.literals.get(segment)
                && let Some(route) = self.walk(*child, path, tail, admits)
            {
                return Some(route);
            }
            if let Some(child) = node.parameter
                && let Some(route) = self.walk(child, path, tail, admits)
            {
                return Some(route);
            }
        } else {
            let ends = if rest.is_empty() {
                &node.exact
            } else {
                &node.exact_slash
            };
            if let Some(route) = first(ends, admits) {
                return Some(route);
            }
        }
        if let Some(regexes) = &node.regexes
            && regexes.set.is_match(path)
        {
            let mut matching = regexes.each.iter().filter(|(regex, _)| regex.is_match(path));
            if let Some((_, route)) = matching.find(|(_, route)| admits(*route)) {
                return Some(*route);
            }
        }
        let rest = if more { first(&node.rest, admits) } else { None };
        rest.or_else(|| first(&node.prefix, admits))
    }
}

fn first(routes: &[RouteId], admits: &mut impl FnMut(RouteId) -> bool) -> Option<RouteId> {
    routes.iter().copied().find(|route| admits(*route))
}

/// FNV-1a. The keys of the table come from the configuration, never from a client, so it needs no secret.
#[derive(Debug)]
struct KeyHasher(u64);

impl Default for KeyHasher {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
