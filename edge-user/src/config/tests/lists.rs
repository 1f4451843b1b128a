//! Lists in files: what is in them, and every mistake by the file's own line.

use std::{fmt::Write, fs, os::unix::fs::PermissionsExt};

use super::options;
use crate::config::{Config, ConfigError, LoadOptions, Loaded, Problem, Report, load};

/// Loads `[shield]` with these lines beside files `allow` and `deny` of this content.
fn shield(lines: &str, allow: impl AsRef<[u8]>, deny: impl AsRef<[u8]>) -> Result<Config, (Report, String)> {
    shield_with(lines, allow.as_ref(), deny.as_ref(), &options())
}

fn shield_with(
    lines: &str,
    allow: &[u8],
    deny: &[u8],
    options: &LoadOptions<'_>,
) -> Result<Config, (Report, String)> {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in [("allow", allow), ("deny", deny)] {
        fs::write(dir.path().join(name), content).unwrap();
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    match load::parse(&format!("[shield]\n{lines}"), "t.toml", dir.path(), options) {
        Ok(Loaded { config, .. }) => Ok(config),
        Err(ConfigError::Invalid(report)) => Err((report, format!("{}/", dir.path().display()))),
        Err(other) => panic!("{other}"),
    }
}

const FILES: &str = "allow_file = 'allow'\ndeny_file = 'deny'\n";

/// `file:line:column key: message` of each problem.
fn told((report, dir): (Report, String)) -> Vec<String> {
    let tell = |problem: &Problem| {
        let file = problem.file.replace(&dir, "");
        format!(
            "{file}:{}:{} {}: {}",
            problem.line, problem.column, problem.key, problem.message
        )
    };
    report.errors.iter().map(tell).collect()
}

#[test]
fn a_file_adds_to_the_list() {
    let config = shield(
        &format!("deny = ['198.51.100.7', '10.0.0.0/8']\n{FILES}"),
        "",
        "# head\n\n  2001:db8::/32 # tail\r\n10.0.0.0/8\n\t198.51.100.7/32\n#\n10.0.0.0/8",
    );
    let shown: Vec<_> = config
        .unwrap()
        .shield
        .deny
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(shown, ["10.0.0.0/8", "198.51.100.7/32", "2001:db8::/32"]);
}

#[test]
fn mistakes_are_told_by_the_line_of_the_file() {
    let text = format!("allow = ['nonsense']\n{FILES}");
    let problems = shield(
        &text,
        "10.0.0.0/8\n\n  10.0.0.1/8 # host\n",
        "1.2.3.4/33\n::ffff:1.2.3.4\nmore words # 1.2.3.4\n",
    );
    let expected = [
        "t.toml:2:10 shield.allow[0]: `nonsense` is not a network in CIDR form",
        "allow:3:3 shield.allow_file: `10.0.0.1/8` has bits set beyond its prefix",
        "deny:1:1 shield.deny_file: `1.2.3.4/33` is not a network in CIDR form",
        "deny:2:1 shield.deny_file: `::ffff:1.2.3.4` is an IPv4 address in IPv6 clothes",
        "deny:3:1 shield.deny_file: this is not a network in CIDR form",
    ];
    assert_eq!(told(problems.unwrap_err()), expected);

    let problems = shield(FILES, "10.0.0.0/8\n", b"10.0.0.0/9\nM\xfcller\n");
    assert_eq!(
        told(problems.unwrap_err()),
        ["deny:2:2 shield.deny_file: the file is not UTF-8: byte 0xfc is out of place"]
    );
}

#[test]
fn a_problem_in_a_list_is_shown_like_one_in_the_configuration() {
    let (report, dir) = shield(FILES, "", "\n1.2.3.4/33 # x\n").unwrap_err();
    let expected = "\
error: `1.2.3.4/33` is not a network in CIDR form
 --> deny:2:1 (shield.deny_file)
  |
2 | 1.2.3.4/33 # x
  | ^^^^^^^^^^
  = help: as in \"192.0.2.0/24\", \"2001:db8::/48\" or a single address";
    assert_eq!(report.errors[0].to_string().replace(&dir, ""), expected);
}

#[test]
fn the_wrong_file_is_not_shown() {
    for secret in [
        "hunter2",
        "aHVudGVyMg==",
        "0123456789abcdef0123456789abcdef",
        "u:hunter2:x",
    ] {
        let (report, _) = shield(FILES, "", secret).unwrap_err();
        let shown = format!(
            "{report} {report:?} {}",
            serde_json::to_string(&report.errors).unwrap()
        );
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn a_network_on_both_lists_is_told_where_it_is_denied() {
    let problems = shield(
        &format!("allow = ['10.0.0.0/8']\ndeny = ['192.0.2.0/24']\n{FILES}"),
        "192.0.2.0/24\n198.51.100.1\n",
        "# x\n 198.51.100.1/32# y\n10.0.0.0/8",
    );
    let expected = [
        "t.toml:3:9 shield.deny[0]: `192.0.2.0/24` is both allowed and denied",
        "deny:2:2 shield.deny_file: `198.51.100.1/32` is both allowed and denied",
        "deny:3:1 shield.deny_file: `10.0.0.0/8` is both allowed and denied",
    ];
    assert_eq!(told(problems.unwrap_err()), expected);
    // A narrower network is an exception, not a contradiction.
    assert!(shield(FILES, "10.0.0.0/9\n", "10.0.0.0/8\n").is_ok());
}

#[test]
fn the_bound_is_on_both_together() {
    let rows = [
        ("", "1.1.1.1\n1.1.1.2\n1.1.1.3\n", None),
        (
            "",
            "1.1.1.1\n1.1.1.2\n1.1.1.3\n1.1.1.4\n",
            Some("`deny_file` has more than the 3"),
        ),
        ("deny = ['1.1.1.1', '1.1.1.2']\n", "1.1.1.2\n1.1.1.3\n", None),
        (
            "deny = ['1.1.1.1', '1.1.1.2']\n",
            "1.1.1.3\n1.1.1.4\n",
            Some("`deny_file`, with those given beside it, has more than the 3"),
        ),
        // Doubles do not count, however many.
        ("", &"1.1.1.1\n1.1.1.2\n1.1.1.3\n".repeat(50), None),
        (
            "",
            &format!("{}1.1.1.4\n", "1.1.1.1\n1.1.1.2\n1.1.1.3\n".repeat(50)),
            Some("`deny_file` has more than the 3"),
        ),
    ];
    for (lines, deny, expected) in rows {
        let found = shield(&format!("{lines}{FILES}"), "", deny);
        match (found, expected) {
            (Ok(_), None) => {}
            (Err(problems), Some(expected)) => {
                let problems = told(problems);
                assert_eq!(problems.len(), 1, "{problems:?}");
                assert!(problems[0].contains(expected), "{problems:?}");
            }
            (found, expected) => panic!("{deny}: {expected:?}, not {found:?}"),
        }
    }
}

#[test]
fn a_file_of_mistakes_is_counted_not_all_told() {
    let (report, _) = shield(FILES, "", "10.0.0.1/8\n".repeat(10_000)).unwrap_err();
    assert_eq!(report.errors.len() + report.omitted, 10_000);
}

/// Addresses in an order that is not theirs.
fn addresses(count: u32) -> String {
    (0..count).fold(String::new(), |mut text, n| {
        let _ = writeln!(
            text,
            "{}",
            std::net::Ipv4Addr::from(n.wrapping_mul(2_654_435_761))
        );
        text
    })
}

/// With anything that compares each entry with each other one, this would not end.
#[test]
fn long_lists_load_and_contradict_in_one_pass() {
    let options = LoadOptions::default();
    let list = addresses(200_000);
    let config = shield_with(FILES, b"", (list.clone() + &list).as_bytes(), &options).unwrap();
    assert_eq!(config.shield.deny.len(), 200_000);
    assert!(config.shield.deny.is_sorted());
    let (report, _) = shield_with(FILES, list.as_bytes(), list.as_bytes(), &options).unwrap_err();
    assert_eq!(report.errors.len() + report.omitted, 200_000);
}
