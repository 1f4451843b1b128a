//! Stage one: which route a path belongs to.
//!
//! Routes are prefixes of whole segments; the longest one that matches wins. The table is a tree of segments: a
//! look-up costs one hash per segment that leads towards a route, whether there are ten routes or ten thousand.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use super::{
    gate::Request,
    plan::Plan,
    refusal::{Reason, Refusal},
};

/// Index of a route in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteId(pub(super) u32);

impl RouteId {
    /// As an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Proof that a route lists the request's path. Only [`route`] makes one.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Routed {
    route: RouteId,
}

impl Routed {
    /// The route.
    pub fn route(&self) -> RouteId {
        self.route
    }
}

/// Finds the route of a request.
///
/// # Errors
/// [`Reason::NoRoute`]: what is not listed is not exposed.
pub fn route(plan: &Plan, request: &Request<'_>) -> Result<Routed, Refusal> {
    plan.table()
        .find(request.path())
        .map(|route| Routed { route })
        .ok_or(Refusal::new(Reason::NoRoute))
}

/// Routes by prefix of whole segments.
#[derive(Debug, Default)]
pub struct RouteTable {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    route: Option<RouteId>,
    children: HashMap<Box<str>, u32, BuildHasherDefault<SegmentHasher>>,
}

impl RouteTable {
    /// An empty table.
    pub fn new() -> Self {
        Self {
            nodes: vec![Node::default()],
        }
    }

    /// Adds the route of a normalised prefix; a slash at its end means nothing.
    ///
    /// # Errors
    /// The route that has this prefix already.
    pub fn insert(&mut self, prefix: &str, route: RouteId) -> Result<(), RouteId> {
        let mut at = 0;
        for segment in segments(prefix) {
            let next = self.nodes.len() as u32;
            let child = *self.nodes[at].children.entry(segment.into()).or_insert(next);
            if child == next {
                self.nodes.push(Node::default());
            }
            at = child as usize;
        }
        if let Some(taken) = self.nodes[at].route {
            return Err(taken);
        }
        self.nodes[at].route = Some(route);
        Ok(())
    }

    /// The route with the longest prefix of `path`, a normalised path.
    pub fn find(&self, path: &str) -> Option<RouteId> {
        let mut node = self.nodes.first()?;
        let mut best = node.route;
        for segment in segments(path) {
            if node.children.is_empty() {
                break;
            }
            let Some(child) = node.children.get(segment) else {
                break;
            };
            node = self.nodes.get(*child as usize)?;
            best = node.route.or(best);
        }
        best
    }
}

/// The segments of a normalised path; the empty one after a final slash is left out.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

/// FNV-1a. The keys of the table come from the configuration, never from a client, so it needs no secret.
#[derive(Debug)]
struct SegmentHasher(u64);

impl Default for SegmentHasher {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for SegmentHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(prefixes: &[&str]) -> RouteTable {
        let mut table = RouteTable::new();
        for (index, prefix) in prefixes.iter().enumerate() {
            table
                .insert(prefix, RouteId(index as u32))
                .expect("distinct prefixes");
        }
        table
    }

    #[test]
    fn the_longest_prefix_of_whole_segments_wins() {
        let prefixes = ["/", "/api", "/api/v1", "/api/v1/users", "/static/", "/a/b/c"];
        let table = table(&prefixes);
        let rows = [
            ("/", "/"),
            ("/other", "/"),
            ("/api", "/api"),
            ("/api/", "/api"),
            ("/apix", "/"),
            ("/api/v1x", "/api"),
            ("/api/v1/user", "/api/v1"),
            ("/api/v1/users/7", "/api/v1/users"),
            ("/static", "/static/"),
            ("/static/x/y", "/static/"),
            ("/a/b", "/"),
            ("/a/b/c/d", "/a/b/c"),
            ("*", "/"),
        ];
        for (path, want) in rows {
            let found = table.find(path).map(|route| prefixes[route.index()]);
            assert_eq!(found, Some(want), "{path}");
        }
    }

    #[test]
    fn what_is_not_listed_is_not_found() {
        let table = table(&["/api"]);
        for path in ["/", "/apix", "/ap", "*", "/x/api"] {
            assert_eq!(table.find(path), None, "{path}");
        }
        assert_eq!(RouteTable::new().find("/"), None);
        assert_eq!(
            self::table(&["/api"]).insert("/api/", RouteId(9)),
            Err(RouteId(0))
        );
    }

    proptest! {
        #[test]
        fn agrees_with_a_linear_search(
            prefixes in proptest::collection::hash_set("(/[ab]{1,2}){0,4}", 0..20),
            path in "(/[ab]{1,2}){0,5}/?",
        ) {
            let prefixes: Vec<String> = prefixes.into_iter().collect();
            let path = if path.is_empty() { "/".to_owned() } else { path };
            let table = table(&prefixes.iter().map(String::as_str).collect::<Vec<_>>());
            let whole = |prefix: &str| path == prefix || path.starts_with(&format!("{}/", prefix.trim_end_matches('/')));
            let want = prefixes.iter().filter(|prefix| whole(prefix)).max_by_key(|prefix| prefix.len());
            prop_assert_eq!(table.find(&path).map(|route| &prefixes[route.index()]), want);
        }
    }
}
