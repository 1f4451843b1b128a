//! The table against rows, and against a linear search that knows the order by its definition.

use proptest::prelude::*;

use super::{RouteId, RouteTable};
use crate::config::{HostPattern, PathPattern, RouteMatch, Segment, pattern};

/// `host/path` in short: `=/x` exact, `~/x` a regex, a template if it has braces, else a prefix.
fn route(text: &str) -> RouteMatch {
    let (host, path) = text.split_at(text.find(['/', '=', '~']).expect("a path"));
    let path = match path.as_bytes()[0] {
        b'=' => PathPattern::Exact(path[1..].into()),
        b'~' => PathPattern::Regex(path[1..].into()),
        _ if path.contains('{') => PathPattern::Template(path[1..].split('/').map(segment).collect()),
        _ => PathPattern::Prefix(path.into()),
    };
    let host = match host.strip_prefix("*.") {
        Some(domain) => vec![HostPattern::Below(domain.into())],
        None if host.is_empty() => Vec::new(),
        None => vec![HostPattern::Exact(host.into())],
    };
    RouteMatch {
        hosts: host,
        path,
        ..RouteMatch::prefix("/")
    }
}

fn segment(text: &str) -> Segment {
    match text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
        Some(name) => match name.strip_prefix('*') {
            Some(name) => Segment::Rest(name.into()),
            None => Segment::Parameter(name.into()),
        },
        None if text.is_empty() => Segment::End,
        None => Segment::Literal(text.into()),
    }
}

fn table(routes: &[&str]) -> RouteTable {
    let routes: Vec<_> = routes.iter().map(|text| route(text)).collect();
    RouteTable::compile(&routes).expect("regexes compile")
}

fn check(routes: &[&str], rows: &[(&str, &str, Option<&str>)]) {
    let table = table(routes);
    for (host, path, want) in rows {
        let found = table.find(Some(host.as_bytes()), path, |_| true);
        assert_eq!(found.map(|route| routes[route.index()]), *want, "{host} {path}");
    }
}

#[test]
fn the_longest_prefix_of_whole_segments_wins() {
    let routes = ["/", "/api", "/api/v1", "/api/v1/users", "/static", "/a/b/c"];
    let rows = [
        ("/", "/"),
        ("/other", "/"),
        ("/api", "/api"),
        ("/api/", "/api"),
        ("/apix", "/"),
        ("/api/v1x", "/api"),
        ("/api/v1/user", "/api/v1"),
        ("/api/v1/users/7", "/api/v1/users"),
        ("/static/x/y", "/static"),
        ("/a/b", "/"),
        ("/a/b/c/d", "/a/b/c"),
        ("*", "/"),
    ];
    check(&routes, &rows.map(|(path, want)| ("h", path, Some(want))));
}

#[test]
fn what_is_not_listed_is_not_found() {
    check(
        &["/api", "=/x", "/u/{id}", "~/r/[0-9]+", "only.org/"],
        &[
            "/", "/apix", "/ap", "*", "/x/", "/x/y", "/u", "/u/", "/u/1/", "/u/1/2", "/r/", "/r/1x", "/q/r/1",
        ]
        .map(|path| ("h", path, None)),
    );
    assert_eq!(RouteTable::default().find(None, "/", |_| true), None);
}

#[test]
fn hosts_from_the_exact_to_every_one() {
    let routes = ["/", "a.org/", "*.a.org/", "*.b.a.org/", "[::1]/", "a.org=/only"];
    check(
        &routes,
        &[
            ("x", "/", Some("/")),
            ("a.org", "/", Some("a.org/")),
            ("A.Org:8080", "/", Some("a.org/")),
            ("a.org.", "/x", Some("a.org/")),
            ("a.org.:80", "/x", Some("a.org/")),
            ("a.org", "/only", Some("a.org=/only")),
            ("x.a.org", "/only", Some("*.a.org/")),
            ("x.y.a.org", "/", Some("*.a.org/")),
            ("b.a.org", "/", Some("*.a.org/")),
            ("c.b.a.org", "/", Some("*.b.a.org/")),
            ("xa.org", "/", Some("/")),
            ("org", "/", Some("/")),
            ("[::1]:80", "/", Some("[::1]/")),
            ("[::1]", "/", Some("[::1]/")),
            (&"a.".repeat(200), "/", Some("/")),
        ],
    );
}

#[test]
fn literal_parameter_regex_rest_prefix() {
    let routes = [
        "/u",
        "/u/{id}",
        "/u/me",
        "=/u/me",
        "/u/{*rest}",
        "~/u/[0-9]+",
        "/u/{id}/posts/{post}",
        "/{any}/x",
        "/u/{id}/",
        "~.*\\.css",
        "/",
        "/api/v1",
    ];
    check(
        &routes,
        &[
            ("h", "/u", Some("/u")),
            ("h", "/u/", Some("/u")),
            ("h", "/u/7", Some("/u/{id}")),
            ("h", "/u/7/", Some("/u/{id}/")),
            ("h", "/u/me", Some("=/u/me")),
            ("h", "/u/me/", Some("/u/me")),
            ("h", "/u/me/posts/1", Some("/u/me")),
            ("h", "/u/7/posts/1", Some("/u/{id}/posts/{post}")),
            ("h", "/u/7/posts", Some("/u/{*rest}")),
            ("h", "/q/x", Some("/{any}/x")),
            // A literal first segment goes before a parameter, whatever follows.
            ("h", "/u/x", Some("/u/{id}")),
            ("h", "/q/y", Some("/")),
            ("h", "/q/y.css", Some("~.*\\.css")),
            // A regex stands below the segments it begins with: it cannot open what a prefix closes.
            ("h", "/api/v1/y.css", Some("/api/v1")),
        ],
    );
}

#[test]
fn what_a_route_does_not_admit_goes_to_the_next_best() {
    let routes = ["/a/b", "/a", "/", "h/a", "/a/{x}"];
    let table = table(&routes);
    let mut refused: Vec<&str> = Vec::new();
    loop {
        let found = table.find(Some(b"h"), "/a/b", |route| {
            !refused.contains(&routes[route.index()])
        });
        match found {
            Some(route) => refused.push(routes[route.index()]),
            None => break,
        }
    }
    assert_eq!(refused, ["h/a", "/a/b", "/a/{x}", "/a", "/"]);
}

#[test]
fn more_conditions_go_first_then_the_file() {
    let plain = route("/a");
    let method = RouteMatch {
        methods: vec!["GET".into()],
        ..plain.clone()
    };
    let condition = crate::config::ValueMatch {
        name: "x".into(),
        test: crate::config::ValueTest::Present(true),
    };
    let header = RouteMatch {
        headers: vec![condition.clone()],
        ..plain.clone()
    };
    let query = RouteMatch {
        query: vec![condition],
        ..plain.clone()
    };
    let table = RouteTable::compile(&[plain.clone(), plain, query, header, method]).unwrap();
    let mut order = Vec::new();
    let _ = table.find(None, "/a", |route| {
        order.push(route.index());
        false
    });
    assert_eq!(order, [4, 3, 2, 0, 1]);
}

/// The order by its definition: a rank for how `pattern` matches `path`, greater for more specific.
fn rank(pattern: &PathPattern, path: &str) -> Option<Vec<u8>> {
    const LITERAL: u8 = 5;
    const PARAMETER: u8 = 4;
    const END: u8 = 5;
    const REGEX: u8 = 3;
    const REST: u8 = 2;
    const PREFIX: u8 = 1;
    let segments: Vec<&str> = path[1..].split('/').collect();
    let literal = |prefix: &str, last: u8| {
        let count = prefix.split('/').filter(|segment| !segment.is_empty()).count();
        let mut rank = vec![LITERAL; count];
        rank.push(last);
        rank
    };
    match pattern {
        PathPattern::Exact(exact) => (exact == path).then(|| literal(exact, END)),
        PathPattern::Prefix(prefix) => {
            let below = format!("{}/", prefix.trim_end_matches('/'));
            (path == prefix || path.starts_with(&below)).then(|| literal(prefix, PREFIX))
        }
        PathPattern::Regex(regex) => pattern::whole(regex)
            .expect("compiles")
            .is_match(path)
            .then(|| literal(&pattern::literal_segments(regex), REGEX)),
        PathPattern::Tunnel(_) => None,
        PathPattern::Template(template) => {
            let mut rank = Vec::new();
            for (at, segment) in template.iter().enumerate() {
                let have = segments.get(at)?;
                match segment {
                    Segment::Literal(text) if text == have => rank.push(LITERAL),
                    Segment::Parameter(_) if !have.is_empty() => rank.push(PARAMETER),
                    Segment::Rest(_) if !have.is_empty() => {
                        rank.push(REST);
                        return Some(rank);
                    }
                    Segment::End if have.is_empty() => {}
                    _ => return None,
                }
            }
            rank.push(END);
            (segments.len() == template.len()).then_some(rank)
        }
    }
}

fn any_route() -> impl Strategy<Value = String> {
    let host = prop_oneof![Just(""), Just("h.o"), Just("*.o"), Just("*.h.o")];
    let path = prop_oneof![
        "(/[ab]{1,2}){1,3}".prop_map(|path| path),
        "=(/[ab]{1,2}){1,3}/?".prop_map(|path| path),
        "(/([ab]|\\{p\\})){1,3}".prop_map(|path| path),
        "(/([ab]|\\{p\\})){0,2}/\\{\\*r\\}".prop_map(|path| path),
        "~(/[ab]){1,2}(/\\[ab\\]\\+)?(/\\.\\*)?".prop_map(|path| path),
    ];
    (host, path).prop_map(|(host, path)| format!("{host}{path}"))
}

proptest! {
    #[test]
    fn agrees_with_a_linear_search(
        routes in proptest::collection::vec(any_route(), 0..24),
        host in prop_oneof![Just("h.o"), Just("x.h.o"), Just("y.o"), Just("z")],
        path in "(/[ab]{1,2}){0,4}/?",
    ) {
        let path = if path.is_empty() { "/".to_owned() } else { path };
        let compiled: Vec<RouteMatch> = routes.iter().map(|text| route(text)).collect();
        let table = RouteTable::compile(&compiled).expect("compiles");
        let host_rank = |route: &RouteMatch| match route.hosts.first() {
            None => Some(0),
            Some(HostPattern::Exact(name)) => (name == host).then_some(100),
            Some(HostPattern::Below(domain)) => host.ends_with(&format!(".{domain}")).then_some(domain.len()),
        };
        let want = compiled
            .iter()
            .enumerate()
            .filter_map(|(index, route)| {
                Some((host_rank(route)?, rank(&route.path, &path)?, std::cmp::Reverse(index)))
            })
            .max()
            .map(|(.., std::cmp::Reverse(index))| index);
        let found = table.find(Some(host.as_bytes()), &path, |_| true).map(RouteId::index);
        prop_assert_eq!(found, want, "{:?}", routes);
    }
}
