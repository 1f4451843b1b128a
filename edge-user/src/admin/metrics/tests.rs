//! The exposition held to the conventions: by rules of our own, by `promtool` where it is installed, and the page of the
//! documentation held to the table.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt::Write as _,
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use super::*;
use crate::{
    auth::{CacheStatus, Freshness, ProviderStatus},
    gateway::{
        Reason,
        counters::{Counters, Outcome},
        route::RouteId,
        tax::Tax,
    },
    kernel::counters::ReasonCount,
};

/// A name that an operator may not even be able to choose.
const ODD: &str = "od\"d\\na\nme";

fn counters() -> CountersSnapshot {
    let counters = Counters::new(2, vec!["site".into(), ODD.into()], vec!["app".into()], None);
    for (worker, reason, status) in [
        (0, None, 200),
        (1, None, 404),
        (1, Some(Reason::UpstreamReset), 502),
    ] {
        counters.worker(worker).expect("exists").finish(&Outcome {
            route: Some(RouteId(worker as u32)),
            upstream: Some(0),
            status,
            reason,
            received: 10,
            sent: 20,
            verified: true,
            total: Duration::from_millis(3),
            upstream_time: Duration::from_millis(2),
            tax: Tax {
                decide_ns: 900,
                send_ns: 1_500,
                answer_ns: 40_000_000,
            },
        });
    }
    counters.snapshot()
}

/// Facts of which every family has a row.
pub(in crate::admin) fn facts() -> Facts {
    let provider = ProviderStatus {
        name: "login".to_owned(),
        source: "https://keys.example".to_owned(),
        keys: Vec::new(),
        freshness: Freshness::Stale,
        last_success: Some(1_700_000_000),
        last_failure: None,
        error: None,
        next_fetch: None,
        fetches: 3,
        failures: 2,
    };
    let count = |reason, outcome| ReasonCount {
        reason,
        outcome,
        packets: 5,
        bytes: 320,
        observed: 1,
    };
    Facts {
        history: Some(history::State::default()),
        process: ProcessFacts::read(std::time::SystemTime::now()),
        upkeep: Upkeep {
            admin_refused: vec![("token", 1)],
            ..Upkeep::default()
        },
        gateway: Some(GatewayFacts {
            counters: counters(),
            limits: vec![LimitSnapshot {
                name: "login".to_owned(),
                refused: 1,
                observed: 2,
            }],
            closings: Closing::ALL.iter().map(|closing| (*closing, 1)).collect(),
            connections: (1, 2),
            busy: vec![0.5, 1.25],
            endpoints: vec![("app".to_owned(), [1, 2, 0, 0])],
            access_lines_lost: 4,
        }),
        auth: Some(AuthStatus {
            providers: vec![provider],
            file_revocations: 1,
            runtime_revocations: 2,
            cache: CacheStatus::default(),
        }),
        offences: OffenceFacts {
            reported: OffenceKind::ALL.iter().map(|kind| (*kind, 1)).collect(),
            lost: 1,
            sentences: vec![("in_kernel", 1)],
        },
        shield: Some(ShieldFacts {
            cookies: vec![("https".into(), true, 3)],
            earned_refused: 2,
            interfaces: vec![InterfaceFacts {
                name: "eth0".to_owned(),
                mode: "native",
            }],
            services: vec![(
                "web".to_owned(),
                vec![count("banned", "drop"), count("admitted", "pass")],
            )],
            bans: BTreeMap::from([("gateway", 1)]),
            merged_refused: (1, 2),
            maps: vec![MapFacts {
                name: "bans",
                entries: 1,
                capacity: 65_536,
            }],
            samples_lost: (1, 2),
        }),
    }
}

/// Families of a text in Prometheus' own format: name to kind.
fn types(text: &str) -> BTreeMap<&str, &str> {
    let heads = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    heads.filter_map(|head| head.split_once(' ')).collect()
}

#[test]
fn names_labels_and_helps_follow_the_conventions() {
    let is_word = |word: &str| {
        word.bytes()
            .next()
            .is_some_and(|first| first.is_ascii_lowercase())
            && word
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let mut seen = HashSet::new();
    for family in ALL {
        let name = family.name();
        assert!(seen.insert(name.clone()), "{name} twice");
        assert!(is_word(&name) && !name.contains("__"), "{name}");
        assert!(
            name.starts_with("breakwater_") || name.starts_with("process_"),
            "{name} has no prefix of its application"
        );
        assert_eq!(name.ends_with("_total"), family.kind == Kind::Counter, "{name}");
        for word in [
            "milliseconds",
            "_ms",
            "_ns",
            "micros",
            "kilobytes",
            "percent",
            "_count",
            "_sum",
            "_bucket",
        ] {
            assert!(!name.contains(word), "{name}: {word}");
        }
        assert!(
            family.kind != Kind::Histogram || family.base != Base::None,
            "{name}: a histogram has a unit"
        );
        assert!(!family.help.is_empty() && !family.help.ends_with('.'), "{name}");
        for label in family.labels {
            assert!(
                is_word(label) && !["le", "quantile", "job", "instance"].contains(label),
                "{name}: {label}"
            );
            for client in [
                "address", "client", "ip", "user", "subject", "path", "host", "agent",
            ] {
                assert_ne!(*label, client, "{name}: a client could choose it");
            }
        }
    }
}

#[test]
fn every_family_is_told_and_nothing_else() {
    let text = facts().encode(Format::Prometheus);
    let told = types(&text);
    let table: BTreeSet<String> = ALL.iter().map(|family| family.name()).collect();
    assert_eq!(
        told.keys()
            .map(|name| (*name).to_owned())
            .collect::<BTreeSet<_>>(),
        table
    );
    let mut series = HashSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (sample, value) = line.rsplit_once(' ').expect(line);
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(series.insert(sample), "twice: {line}");
        let name = sample.split('{').next().expect("the first");
        let family = ["", "_bucket", "_sum", "_count"].iter().find_map(|suffix| {
            ALL.iter()
                .find(|family| format!("{}{suffix}", family.name()) == name)
        });
        let family = family.unwrap_or_else(|| panic!("{line} belongs to nothing"));
        for label in family.labels {
            assert!(sample.contains(&format!("{label}=\"")), "{line} lacks {label}");
        }
    }
    // What has no rows now has its head all the same: a query for it is not a mistake.
    assert_eq!(types(&Facts::default().encode(Format::Prometheus)), told);
}

#[test]
fn odd_names_cannot_break_out_of_their_label() {
    let text = facts().encode(Format::Prometheus);
    assert!(
        text.contains(r#"breakwater_requests_total{route="od\"d\\na\nme",code="4xx"} 1"#),
        "{text}"
    );
}

#[test]
fn histograms_are_cumulative_and_agree_with_their_counts() {
    let text = facts().encode(Format::Prometheus);
    let buckets = |of: &str| -> Vec<f64> {
        let lines = text.lines().filter(|line| line.starts_with(of));
        lines
            .map(|line| line.rsplit_once(' ').expect(line).1.parse().expect(line))
            .collect()
    };
    for of in [
        "breakwater_request_duration_seconds_bucket{route=\"site\"",
        "breakwater_gateway_tax_seconds_bucket{route=\"site\"",
        "breakwater_gateway_tax_phase_seconds_bucket{route=\"site\",phase=\"answer\"",
        "breakwater_upstream_duration_seconds_bucket{upstream=\"app\"",
    ] {
        let counts = buckets(of);
        assert!(counts.len() > 10 && counts.is_sorted(), "{of}: {counts:?}");
        let total = buckets(&of.replace("_bucket", "_count"));
        assert_eq!(counts.last(), total.first(), "{of}");
        assert_eq!(text.matches(&format!("{of},le=\"+Inf\"")).count(), 1, "{of}");
    }
    // 900 ns are below the first bound of the tax (1.024 µs), 40 ms above the last.
    let decide = buckets("breakwater_gateway_tax_phase_seconds_bucket{route=\"site\",phase=\"decide\"");
    assert!(decide.iter().all(|count| *count >= 1.0), "{decide:?}");
    let answer = buckets("breakwater_gateway_tax_phase_seconds_bucket{route=\"site\",phase=\"answer\"");
    assert!(
        answer[..answer.len() - 1].iter().all(|count| *count == 0.0),
        "{answer:?}"
    );
}

#[test]
fn open_metrics_end_as_they_must() {
    let text = facts().encode(Format::of(
        "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
    ));
    assert!(text.ends_with("# EOF\n"));
    assert!(text.contains("# TYPE breakwater_requests counter\n"), "{text}");
    assert!(text.contains("# UNIT breakwater_request_duration_seconds seconds\n"));
    assert_eq!(Format::of("text/plain"), Format::Prometheus);
}

/// Runs `promtool check metrics` on a text; `None` if it is not installed.
fn promtool(text: &str) -> Option<(bool, String)> {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(text.as_bytes()).ok()?;
    let output = child.wait_with_output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Some((output.status.success() && said.is_empty(), said))
}

#[test]
fn promtool_has_nothing_to_say() {
    match promtool(&facts().encode(Format::Prometheus)) {
        Some((true, _)) => {
            let (ok, _) = promtool("# TYPE Bad counter\nBad 1\n").expect("it ran a moment ago");
            assert!(!ok, "promtool finds fault with what is bad");
        }
        Some((false, said)) => panic!("{said}"),
        None => println!(
            "SKIPPED: promtool_has_nothing_to_say: promtool (Debian package prometheus) is not installed"
        ),
    }
}

/// The table of docs/metrics.md.
fn table() -> String {
    let mut table = String::from("| metric | kind | labels | tells |\n| --- | --- | --- | --- |\n");
    for family in ALL {
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind) = (family.name(), family.kind.name());
        let _ = writeln!(
            table,
            "| `{name}` | {kind} | {} | {} |",
            labels.join(", "),
            family.help
        );
    }
    table
}

#[test]
fn the_page_has_the_table() {
    let page = include_str!("../../../../docs/metrics.md");
    assert!(
        page.contains(&table()),
        "docs/metrics.md wants this table:\n{}",
        table()
    );
}
