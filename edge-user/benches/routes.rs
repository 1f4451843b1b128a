//! ns per route look-up with 10, 1,000 and 10,000 routes, and the ratio to 10. `cargo bench -p edge-user --bench routes`
//!
//! Four shapes of configuration: prefixes of one host, a host a route, templates, regexes with literal beginnings. Each
//! round looks up 64 requests many times, and rounds of all tables take turns, so that whatever else the machine does
//! meets all of them. `same` asks for the same ten routes whatever the size: the ratio is what the others cost. `spread`
//! asks for 64 routes from all over the largest table, whose nodes compete for the processor's caches.

#![expect(clippy::panic, reason = "a bench that cannot go on has failed")]

use std::hint::black_box;

use edge_user::{
    config::{HostPattern, PathPattern, RouteMatch, Segment},
    gateway::route::RouteTable,
};
use rustix::time::{ClockId, clock_gettime};

/// Routes of each table.
const SIZES: [usize; 3] = [10, 1_000, 10_000];

/// Requests of one round.
const ASKED: usize = 64;

/// Rounds that take turns, and look-ups of all requests in one round.
const ROUNDS: usize = 61;
const REPEATS: usize = 200;

struct Shape {
    name: &'static str,
    route: fn(usize) -> RouteMatch,
    /// Host and path that the route with this number takes.
    request: fn(usize) -> (String, String),
}

fn prefix(index: usize) -> RouteMatch {
    RouteMatch::prefix(&format!("/service-{index}/api/v1"))
}

const SHAPES: [Shape; 4] = [
    Shape {
        name: "prefixes",
        route: prefix,
        request: |index| ("example.org".into(), format!("/service-{index}/api/v1/users/7")),
    },
    Shape {
        name: "hosts",
        route: |index| RouteMatch {
            hosts: vec![HostPattern::Exact(format!("host-{index}.example.org"))],
            ..RouteMatch::prefix("/api")
        },
        request: |index| (format!("host-{index}.example.org:8080"), "/api/v1/users/7".into()),
    },
    Shape {
        name: "templates",
        route: |index| RouteMatch {
            path: PathPattern::Template(vec![
                Segment::Literal(format!("service-{index}")),
                Segment::Parameter("id".into()),
                Segment::Literal("posts".into()),
                Segment::Rest("rest".into()),
            ]),
            ..RouteMatch::prefix("/")
        },
        request: |index| ("example.org".into(), format!("/service-{index}/7/posts/1/2")),
    },
    Shape {
        name: "regexes",
        route: |index| RouteMatch {
            path: PathPattern::Regex(format!("/service-{index}/[0-9]+/posts")),
            ..RouteMatch::prefix("/")
        },
        request: |index| ("example.org".into(), format!("/service-{index}/7/posts")),
    },
];

/// The table of `size` routes.
fn table(shape: &Shape, size: usize) -> RouteTable {
    let routes: Vec<RouteMatch> = (0..size).map(|index| (shape.route)(index)).collect();
    RouteTable::compile(&routes).unwrap_or_else(|(_, error)| panic!("{error}"))
}

/// Requests for `ASKED` routes of the first `among`.
fn requests(shape: &Shape, among: usize) -> Vec<(String, String)> {
    (0..ASKED)
        .map(|index| (shape.request)(index * among / ASKED))
        .collect()
}

/// CPU time of this thread: what others do on the machine meanwhile counts little.
fn cpu_nanoseconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn round(table: &RouteTable, requests: &[(String, String)]) -> f64 {
    let begun = cpu_nanoseconds();
    for _ in 0..REPEATS {
        for (host, path) in requests {
            let found = black_box(table).find(Some(host.as_bytes()), black_box(path), |_| true);
            assert!(black_box(found).is_some(), "every request has a route");
        }
    }
    (cpu_nanoseconds() - begun) / (REPEATS * requests.len()) as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    println!(
        "{:<10} {:>10} {:>10} {:>10} {:>10}   ratios to {}",
        "routes", SIZES[0], SIZES[1], SIZES[2], "spread", SIZES[0]
    );
    for shape in SHAPES {
        // Regexes are compiled one by one, a second or so for the largest table.
        let tables = SIZES.map(|size| table(&shape, size));
        let (same, spread) = (requests(&shape, SIZES[0]), requests(&shape, SIZES[2]));
        let mut taken: [Vec<f64>; SIZES.len() + 1] = Default::default();
        for _ in 0..ROUNDS {
            for (index, table) in tables.iter().enumerate() {
                taken[index].push(round(table, &same));
            }
            taken[SIZES.len()].push(round(&tables[SIZES.len() - 1], &spread));
        }
        let medians = taken.map(median);
        print!("{:<10}", shape.name);
        for median in medians {
            print!(" {median:>7.1} ns");
        }
        for median in &medians[1..] {
            print!("  {:.2}", median / medians[0]);
        }
        println!();
    }
}
