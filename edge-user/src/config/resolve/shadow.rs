//! Routes that can never match: every request they list goes to another route first.
//!
//! Two routes are held against each other if they have a host and a path of one shape; what is more specific in host
//! or path never takes all of a route's requests, so nothing is missed but regexes that cover each other in other
//! words.

use std::collections::{BTreeSet, HashMap};

use super::Checks;
use crate::config::{
    HostPattern, PathPattern, RouteMatch, Segment, ValueMatch, ValueTest, bounds, pattern, problem::Place,
    raw::RawRoute, section::Section,
};

/// A path without the names of its parameters.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Shape<'r> {
    Exact(&'r str),
    Prefix(&'r str),
    Template(Vec<Option<&'r str>>, bool),
    Regex(&'r str),
    Tunnel(&'r [String]),
}

impl<'r> Shape<'r> {
    fn of(path: &'r PathPattern) -> Self {
        match path {
            PathPattern::Exact(path) => Self::Exact(path),
            PathPattern::Prefix(path) => Self::Prefix(path),
            PathPattern::Regex(regex) => Self::Regex(regex),
            PathPattern::Tunnel(authorities) => Self::Tunnel(authorities),
            PathPattern::Template(segments) => {
                let rest = matches!(segments.last(), Some(Segment::Rest(_)));
                let shape = segments.iter().map(|segment| match segment {
                    Segment::Literal(text) => Some(text.as_str()),
                    Segment::End => Some(""),
                    Segment::Parameter(_) | Segment::Rest(_) => None,
                });
                Self::Template(shape.collect(), rest)
            }
        }
    }
}

/// Reports every route that others leave nothing to.
pub(super) fn never_matching(raw: &[&RawRoute], routes: &[Option<RouteMatch>], checks: &mut Checks<'_>) {
    // What CONNECT may name belongs to one route: `tunnel` holds them against each other.
    let listed = |route: &&RouteMatch| !matches!(route.path, PathPattern::Tunnel(_));
    let mut groups: HashMap<(Option<&HostPattern>, Shape<'_>), Vec<usize>> = HashMap::new();
    for (index, route) in routes.iter().enumerate() {
        let Some(route) = route.as_ref().filter(listed) else {
            continue;
        };
        for host in hosts(route) {
            groups
                .entry((host, Shape::of(&route.path)))
                .or_default()
                .push(index);
        }
    }
    for group in groups.values_mut() {
        // As they are tried: see the order in `gateway/route/table.rs`.
        group.sort_by_key(|index| {
            let weight = routes[*index]
                .as_ref()
                .map(|route| (!route.methods.is_empty(), route.headers.len(), route.query.len()));
            std::cmp::Reverse(weight)
        });
    }
    crowded(raw, &groups, checks);
    for (index, route) in routes.iter().enumerate() {
        let Some(route) = route.as_ref().filter(listed) else {
            continue;
        };
        let taker = hosts(route)
            .flat_map(|host| methods(route).map(move |method| (host, method)))
            .map(|(host, method)| {
                let group = groups.get(&(host, Shape::of(&route.path)))?;
                // Those before it; a longer look would find only itself.
                group
                    .iter()
                    .take(bounds::MAX_ROUTES_OF_A_PATH)
                    .take_while(|other| **other != index)
                    .filter_map(|other| Some((*other, routes[*other].as_ref()?)))
                    .find(|(_, other)| takes(other, method) && implied(other, route))
                    .map(|(other, _)| other)
            })
            .collect::<Option<BTreeSet<usize>>>()
            .and_then(|takers| takers.first().copied());
        if let Some(taker) = taker {
            let name = raw[taker].name.value().map_or("", String::as_str);
            checks.error_help(
                place(raw[index]),
                format!("this route can never match: route `{name}` takes its requests first"),
                format!("that is `{}`", raw[taker].at().key),
            );
        }
    }
}

/// Reports paths with more routes than may be tried one after another.
fn crowded(
    raw: &[&RawRoute],
    groups: &HashMap<(Option<&HostPattern>, Shape<'_>), Vec<usize>>,
    checks: &mut Checks<'_>,
) {
    let mut late: BTreeSet<usize> = BTreeSet::new();
    for group in groups.values() {
        late.extend(group.get(bounds::MAX_ROUTES_OF_A_PATH));
    }
    for index in late {
        checks.error_help(
            place(raw[index]),
            format!(
                "more than {} routes have one host and path",
                bounds::MAX_ROUTES_OF_A_PATH
            ),
            "they are tried one after another, on every request",
        );
    }
}

/// Where the path of a route is written.
fn place(raw: &RawRoute) -> &Place {
    [&raw.path, &raw.path_exact, &raw.path_template, &raw.path_regex]
        .into_iter()
        .find_map(|key| key.field())
        .map_or(raw.at(), |field| &field.at)
}

fn hosts(route: &RouteMatch) -> impl Iterator<Item = Option<&HostPattern>> {
    let every = route.hosts.is_empty().then_some(None);
    every.into_iter().chain(route.hosts.iter().map(Some))
}

fn methods(route: &RouteMatch) -> impl Iterator<Item = Option<&str>> + Clone {
    let every = route.methods.is_empty().then_some(None);
    every
        .into_iter()
        .chain(route.methods.iter().map(|method| Some(method.as_str())))
}

/// Whether `route` takes requests of `method`, of every method if there is none.
fn takes(route: &RouteMatch, method: Option<&str>) -> bool {
    let named = |wanted: &str| route.methods.iter().any(|method| method == wanted);
    match method {
        _ if route.methods.is_empty() => true,
        None => false,
        Some("HEAD") => named("HEAD") || named("GET"),
        Some(method) => named(method),
    }
}

/// Whether all that `other` asks of fields and parameters is so wherever it is so for `route`.
fn implied(other: &RouteMatch, route: &RouteMatch) -> bool {
    let all = |asked: &[ValueMatch], given: &[ValueMatch]| {
        asked.iter().all(|asked| {
            given
                .iter()
                .any(|given| given.name == asked.name && follows(&asked.test, &given.test))
        })
    };
    all(&other.headers, &route.headers) && all(&other.query, &route.query)
}

/// Whether a value that passes `given` passes `asked`.
fn follows(asked: &ValueTest, given: &ValueTest) -> bool {
    match (asked, given) {
        (ValueTest::Present(true), ValueTest::Exact(_) | ValueTest::Regex(_)) => true,
        (ValueTest::Regex(regex), ValueTest::Exact(value)) => {
            pattern::whole(regex).is_ok_and(|regex| regex.is_match(value))
        }
        (asked, given) => asked == given,
    }
}
