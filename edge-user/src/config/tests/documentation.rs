//! The reference in `docs/configuration.md` has every key, no other key, and the defaults and bounds in force.

use std::{collections::BTreeSet, time::Duration};

use edge_common::abi::Reason;

use super::examples_dir;
use crate::config::{MAX_FILE_BYTES, MAX_PROBLEMS, bounds, raw::sections};

fn reference() -> String {
    std::fs::read_to_string(examples_dir().join("../docs/configuration.md")).unwrap()
}

/// The part of the reference about one section, up to the next heading of its rank.
fn part<'d>(reference: &'d str, section: &str) -> &'d str {
    let headings = match section {
        "" => vec!["## The file\n".to_owned()],
        "rate" => vec!["## Rate\n".to_owned()],
        name => vec![format!("## `[{name}]`\n"), format!("## `[[{name}]]`\n")],
    };
    let start = headings
        .iter()
        .find_map(|heading| reference.find(heading))
        .unwrap_or_else(|| panic!("{section:?}"));
    let rest = &reference[start + 3..];
    rest.find("\n## ").map_or(rest, |end| &rest[..end])
}

/// Rows of the tables of a part, by the key in their first column.
fn rows(part: &str) -> impl Iterator<Item = (&str, &str)> {
    part.lines().filter_map(|line| {
        let (key, row) = line.strip_prefix("| `")?.split_once("` |")?;
        Some((key, row))
    })
}

#[test]
fn it_has_every_key_and_no_other() {
    let reference = reference();
    for (section, keys) in sections() {
        let documented: BTreeSet<_> = rows(part(&reference, section)).map(|(key, _)| key).collect();
        assert_eq!(documented, keys.iter().copied().collect(), "section {section:?}");
    }
}

fn duration(duration: Duration) -> String {
    format!("`\"{}\"`", humantime::format_duration(duration))
}

fn minutes(duration: Duration) -> String {
    format!("{} minutes", duration.as_secs() / 60)
}

fn hours(duration: Duration) -> String {
    format!("at most {} hours", duration.as_secs() / 3600)
}

/// With a comma between groups of three digits.
fn number(number: u64) -> String {
    let digits: Vec<char> = number.to_string().chars().rev().collect();
    let groups: Vec<String> = digits
        .chunks(3)
        .map(|group| group.iter().rev().collect())
        .collect();
    groups.into_iter().rev().collect::<Vec<_>>().join(",")
}

#[test]
fn it_names_every_reason_that_can_be_observed() {
    let reference = reference();
    let row = rows(part(&reference, "shield")).find(|(key, _)| *key == "observe");
    let (_, row) = row.unwrap();
    for reason in Reason::ALL {
        let is_named = row.contains(&format!("`{}`", reason.name()));
        assert_eq!(is_named, reason.is_observable(), "{}", reason.name());
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn its_defaults_and_bounds_are_those_in_force() {
    let reference = reference();
    let rows_of = [
        ("shield", "allow", number(bounds::MAX_LIST as u64)),
        ("shield", "deny", number(bounds::MAX_LIST as u64)),
        (
            "shield",
            "allow_file",
            format!("At most {} MiB", MAX_FILE_BYTES >> 20),
        ),
        (
            "shield",
            "interfaces",
            format!("1 to {} bytes", bounds::MAX_INTERFACE_BYTES),
        ),
        ("shield", "max_bans", format!("`{}`", bounds::DEFAULT_MAX_BANS)),
        ("shield", "max_bans", number(bounds::MAX_BANS.into())),
        ("shield", "earned_idle", duration(bounds::DEFAULT_EARNED_IDLE)),
        (
            "shield",
            "earned_idle",
            format!(
                "{} to {}",
                humantime::format_duration(bounds::MIN_EARNED_IDLE),
                humantime::format_duration(bounds::MAX_EARNED_IDLE)
            ),
        ),
        ("rate", "per_second", number(bounds::MAX_RATE)),
        (
            "rate",
            "burst",
            format!("{} s to earn back", bounds::MAX_BURST_SECONDS),
        ),
        (
            "rate",
            "burst",
            format!("{} ticks a second", bounds::LOWEST_KERNEL_HZ),
        ),
        (
            "rate",
            "burst",
            format!(
                "per_second / {}",
                u64::from(bounds::LOWEST_KERNEL_HZ) / bounds::MIN_BURST_TICKS
            ),
        ),
        (
            "upstream",
            "connect_timeout",
            duration(bounds::DEFAULT_CONNECT_TIMEOUT),
        ),
        (
            "upstream",
            "connect_timeout",
            minutes(bounds::MAX_CONNECT_TIMEOUT),
        ),
        ("upstream", "slow_start", minutes(bounds::MAX_SLOW_START)),
        (
            "upstream.endpoints",
            "weight",
            format!("1 to {}", bounds::MAX_WEIGHT),
        ),
        ("route", "upstreams", format!("at most {}", bounds::MAX_SPLIT)),
        (
            "route.upstreams",
            "weight",
            format!("0 to {}", bounds::MAX_WEIGHT),
        ),
        (
            "upstream.dns",
            "refresh_min",
            duration(bounds::DEFAULT_DNS_REFRESH_MIN),
        ),
        (
            "upstream.dns",
            "refresh_max",
            duration(bounds::DEFAULT_DNS_REFRESH_MAX),
        ),
        ("upstream.dns", "refresh_max", hours(bounds::MAX_DNS_REFRESH)),
        (
            "upstream.pool",
            "idle",
            format!("`{}`", bounds::DEFAULT_POOL_IDLE),
        ),
        (
            "upstream.pool",
            "idle_timeout",
            duration(bounds::DEFAULT_POOL_IDLE_TIMEOUT),
        ),
        ("upstream.pool", "idle_timeout", hours(bounds::MAX_POOL_TIME)),
        (
            "upstream.pool",
            "waiting",
            format!("`{}`", bounds::DEFAULT_POOL_WAITING),
        ),
        (
            "upstream.pool",
            "wait_timeout",
            duration(bounds::DEFAULT_POOL_WAIT_TIMEOUT),
        ),
        (
            "upstream.pool",
            "streams",
            format!("`{}`", bounds::DEFAULT_POOL_STREAMS),
        ),
        (
            "upstream.health",
            "interval",
            duration(bounds::DEFAULT_HEALTH_INTERVAL),
        ),
        (
            "upstream.health",
            "interval",
            format!("{} milliseconds", bounds::MIN_HEALTH_INTERVAL.as_millis()),
        ),
        (
            "upstream.health",
            "timeout",
            duration(bounds::DEFAULT_HEALTH_TIMEOUT),
        ),
        ("upstream.health", "timeout", minutes(bounds::MAX_HEALTH_TIMEOUT)),
        (
            "upstream.health",
            "rise",
            format!("`{}`", bounds::DEFAULT_HEALTH_RISE),
        ),
        (
            "upstream.health",
            "fall",
            format!("`{}`", bounds::DEFAULT_HEALTH_FALL),
        ),
        (
            "upstream.health",
            "fall",
            format!("at most {}", bounds::MAX_HEALTH_THRESHOLD),
        ),
        (
            "upstream.health",
            "body",
            format!("at most {} bytes", bounds::MAX_HEALTH_BODY_BYTES),
        ),
        (
            "upstream.ejection",
            "consecutive",
            format!("`{}`", bounds::DEFAULT_EJECTION_CONSECUTIVE),
        ),
        (
            "upstream.ejection",
            "min_requests",
            format!("`{}`", bounds::DEFAULT_EJECTION_MIN_REQUESTS),
        ),
        (
            "upstream.ejection",
            "interval",
            duration(bounds::DEFAULT_EJECTION_INTERVAL),
        ),
        (
            "upstream.ejection",
            "time",
            duration(bounds::DEFAULT_EJECTION_TIME),
        ),
        (
            "upstream.ejection",
            "max_time",
            duration(bounds::DEFAULT_EJECTION_MAX_TIME),
        ),
        (
            "upstream.ejection",
            "max_percent",
            format!("`{}`", bounds::DEFAULT_EJECTION_MAX_PERCENT),
        ),
        (
            "upstream.retry",
            "attempts",
            format!("`{}`", bounds::DEFAULT_RETRY_ATTEMPTS),
        ),
        (
            "upstream.retry",
            "attempts",
            format!("at most {}", bounds::MAX_RETRY_ATTEMPTS),
        ),
        (
            "upstream.retry",
            "budget_percent",
            format!("`{}`", bounds::DEFAULT_RETRY_BUDGET_PERCENT),
        ),
        (
            "upstream.retry",
            "buffer_bytes",
            format!("at most {}", bounds::MAX_RETRY_BUFFER_BYTES),
        ),
        (
            "route",
            "path",
            format!("At most {} bytes", bounds::MAX_PATH_BYTES),
        ),
        ("route", "timeout", duration(bounds::DEFAULT_ROUTE_TIMEOUT)),
        ("route", "timeout", hours(bounds::MAX_ROUTE_TIMEOUT)),
        ("provider", "leeway", duration(bounds::DEFAULT_LEEWAY)),
        ("provider", "leeway", minutes(bounds::MAX_LEEWAY)),
        (
            "route",
            "providers",
            format!("at most {}", bounds::MAX_ROUTE_PROVIDERS),
        ),
        ("provider", "sources", format!("At most {}", bounds::MAX_SOURCES)),
        (
            "provider",
            "max_lifetime",
            format!("{} days", bounds::MAX_TOKEN_LIFETIME.as_secs() / 86400),
        ),
        ("provider.fetch", "refresh", duration(bounds::DEFAULT_REFRESH)),
        (
            "provider.fetch",
            "refresh_min",
            duration(bounds::DEFAULT_REFRESH_MIN),
        ),
        (
            "provider.fetch",
            "refresh_max",
            duration(bounds::DEFAULT_REFRESH_MAX),
        ),
        ("provider.fetch", "cooldown", duration(bounds::DEFAULT_COOLDOWN)),
        (
            "provider.fetch",
            "cooldown",
            format!("at most {} hour", bounds::MAX_COOLDOWN.as_secs() / 3600),
        ),
        (
            "provider.fetch",
            "timeout",
            duration(bounds::DEFAULT_FETCH_TIMEOUT),
        ),
        (
            "provider.fetch",
            "timeout",
            format!("at most {} minute", bounds::MAX_FETCH_TIMEOUT.as_secs() / 60),
        ),
        ("provider.fetch", "max_stale", duration(bounds::DEFAULT_MAX_STALE)),
        (
            "provider.fetch",
            "max_stale",
            format!("at most {} days", bounds::MAX_STALE.as_secs() / 86400),
        ),
        (
            "gateway",
            "revocation_file",
            format!("At most {} MiB", bounds::MAX_REVOCATION_FILE_BYTES >> 20),
        ),
        (
            "offences",
            "threshold",
            format!("`{}`", bounds::DEFAULT_THRESHOLD),
        ),
        ("offences", "threshold", number(bounds::MAX_THRESHOLD.into())),
        ("offences", "half_life", duration(bounds::DEFAULT_HALF_LIFE)),
        ("offences", "half_life", hours(bounds::MAX_HALF_LIFE)),
        ("offences", "ban", duration(bounds::DEFAULT_BAN)),
        ("offences", "max_ban", duration(bounds::DEFAULT_MAX_BAN)),
        (
            "offences",
            "max_ban",
            format!("{} days", bounds::LONGEST_BAN.as_secs() / 86400),
        ),
        (
            "offences",
            "max_bans_per_minute",
            format!("`{}`", bounds::DEFAULT_MAX_BANS_PER_MINUTE),
        ),
        (
            "offences",
            "max_bans_per_minute",
            number(bounds::MAX_BANS_PER_MINUTE.into()),
        ),
        (
            "shield.escalation",
            "after",
            duration(bounds::DEFAULT_ESCALATION_AFTER),
        ),
        (
            "shield.escalation",
            "after",
            format!(
                "{} second to {} hour",
                bounds::MIN_ESCALATION_AFTER.as_secs(),
                bounds::MAX_ESCALATION_AFTER.as_secs() / 3600
            ),
        ),
        (
            "shield.escalation",
            "ban",
            duration(bounds::DEFAULT_ESCALATION_BAN),
        ),
        (
            "shield.escalation",
            "max_ban",
            duration(bounds::DEFAULT_ESCALATION_MAX_BAN),
        ),
        (
            "shield.escalation",
            "max_ban",
            format!("{} days", bounds::LONGEST_BAN.as_secs() / 86400),
        ),
        (
            "listener.tls",
            "handshake_timeout",
            duration(bounds::DEFAULT_HANDSHAKE_TIMEOUT),
        ),
        (
            "listener.tls",
            "certificates",
            format!("at most {}", bounds::MAX_CERTIFICATES),
        ),
        (
            "listener.tls.certificates",
            "names",
            format!("At most {}", bounds::MAX_CERTIFICATE_NAMES),
        ),
        (
            "gateway.limits",
            "header_count",
            format!("`{}`", bounds::DEFAULT_HEADER_COUNT),
        ),
        (
            "gateway.limits",
            "header_count",
            format!("1 to {}", bounds::MAX_HEADER_COUNT),
        ),
        (
            "gateway.limits",
            "header_bytes",
            format!("`{}`", bounds::DEFAULT_HEADER_BYTES),
        ),
        (
            "gateway.limits",
            "header_bytes",
            number(bounds::MAX_HEADER_BYTES.into()),
        ),
        (
            "gateway.limits",
            "target_bytes",
            format!("`{}`", bounds::DEFAULT_TARGET_BYTES),
        ),
        (
            "gateway.limits",
            "target_bytes",
            number(bounds::MAX_TARGET_BYTES.into()),
        ),
        (
            "gateway.limits",
            "connections",
            format!("`{}`", bounds::DEFAULT_CONNECTIONS),
        ),
        (
            "gateway.limits",
            "connections",
            number(bounds::MAX_CONNECTIONS.into()),
        ),
        (
            "gateway.limits",
            "connections_per_address",
            format!("`{}`", bounds::DEFAULT_CONNECTIONS_PER_ADDRESS),
        ),
        (
            "gateway.limits",
            "streams",
            format!("`{}`", bounds::DEFAULT_STREAMS),
        ),
        (
            "gateway.limits",
            "streams",
            format!("1 to {}", bounds::MAX_STREAMS),
        ),
        (
            "gateway.limits",
            "header_timeout",
            duration(bounds::DEFAULT_HEADER_TIMEOUT),
        ),
        (
            "gateway.limits",
            "idle_timeout",
            duration(bounds::DEFAULT_IDLE_TIMEOUT),
        ),
        (
            "gateway.limits",
            "stall_timeout",
            duration(bounds::DEFAULT_STALL_TIMEOUT),
        ),
        (
            "gateway.limits",
            "min_body_rate",
            format!("`{}`", bounds::DEFAULT_MIN_BODY_RATE),
        ),
        (
            "gateway.limits",
            "min_body_rate",
            number(bounds::MAX_MIN_BODY_RATE.into()),
        ),
        (
            "gateway.limits",
            "min_read_rate",
            format!("`{}`", bounds::DEFAULT_MIN_READ_RATE),
        ),
        (
            "gateway.limits",
            "tunnel_idle_timeout",
            duration(bounds::DEFAULT_TUNNEL_IDLE_TIMEOUT),
        ),
        (
            "gateway.limits",
            "proxy_header_timeout",
            duration(bounds::DEFAULT_PROXY_HEADER_TIMEOUT),
        ),
        ("gateway", "workers", format!("1 to {}", bounds::MAX_WORKERS)),
        (
            "gateway",
            "shutdown_grace",
            duration(bounds::DEFAULT_SHUTDOWN_GRACE),
        ),
        ("gateway", "shutdown_grace", hours(bounds::MAX_SHUTDOWN_GRACE)),
        ("gateway", "drain_delay", hours(bounds::MAX_DRAIN_DELAY)),
        (
            "gateway",
            "upgrade_timeout",
            duration(bounds::DEFAULT_UPGRADE_TIMEOUT),
        ),
        ("gateway", "upgrade_timeout", hours(bounds::MAX_UPGRADE_TIMEOUT)),
    ];
    for (section, key, expected) in rows_of {
        let row = rows(part(&reference, section))
            .find(|(found, _)| *found == key)
            .map(|(_, row)| row);
        assert!(
            row.is_some_and(|row| row.contains(&expected)),
            "{section}.{key} lacks {expected}: {row:?}"
        );
    }
    for expected in [
        format!("at most {} MiB)", MAX_FILE_BYTES >> 20),
        format!("up to {MAX_PROBLEMS} of them"),
        format!("1 to {} letters", bounds::MAX_NAME_BYTES),
        format!("at most {} entries", number(bounds::MAX_ITEMS as u64)),
        format!("at most {} a route", bounds::MAX_CLAIMS),
        format!("at most {} a provider", bounds::MAX_CLAIMS),
        format!("up to {} names", bounds::MAX_CLAIM_DEPTH),
        format!("at most {} bytes; `http`", bounds::MAX_URL_BYTES),
        format!("at most {} MiB that others", bounds::MAX_KEY_FILE_BYTES >> 20),
    ] {
        assert!(reference.contains(&expected), "lacks {expected}");
    }
}

/// The snippets of the reference are not only well-formed: their keys exist and their values are in bounds.
#[test]
fn its_examples_have_no_mistake_of_their_own() {
    let reference = reference();
    let mut seen = 0;
    for block in reference.split("```toml\n").skip(1) {
        let text = block.split("```").next().unwrap();
        let problems = match crate::config::Config::parse(text, "reference", std::path::Path::new("")) {
            Ok(_) => Vec::new(),
            Err(error) => error.problems().to_vec(),
        };
        for problem in problems {
            // What they refer to is elsewhere on the page, and their key files are not on this host.
            let elsewhere = problem.message.starts_with("unknown upstream")
                || problem.message.starts_with("unknown provider")
                || problem.message.starts_with("unknown route")
                || problem.key == "provider[0].secret_file"
                || problem.key.starts_with("listener[0].tls.certificates");
            assert!(elsewhere, "{problem}");
        }
        seen += 1;
    }
    assert!(seen >= 5);
}
