//! The loader from outside: every mistake by line, key and message; several at once; every example; no panic.

use std::{fs, io::Write, os::unix::fs::PermissionsExt, path::PathBuf};

use proptest::prelude::*;

use super::*;

mod direct;
mod documentation;
mod examples;
mod limiting;
mod listeners;
mod lists;
mod mistakes;
mod pages;
mod readme;
mod routes;
mod tokens;
mod upstreams;

/// A directory with key files of every kind, which the rows refer to by name.
pub(super) fn key_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (site, site_key) = certificate(&["example.org", "*.example.org"]);
    let (_, other_key) = certificate(&["example.org"]);
    let ended = ended_certificate();
    let files: [(&str, &[u8], u32); 14] = [
        ("site.pem", site.as_bytes(), 0o644),
        ("site.key", site_key.as_bytes(), 0o600),
        ("other.key", other_key.as_bytes(), 0o600),
        ("open-site.key", site_key.as_bytes(), 0o644),
        ("ended.pem", ended.as_bytes(), 0o644),
        ("allow.list", b"192.0.2.128/25\n", 0o644),
        ("good.key", &[b'k'; 64], 0o600),
        ("newline.key", b"0123456789abcdef0123456789abcde\n", 0o600),
        ("short.key", b"too short\n", 0o600),
        ("empty.key", b"", 0o600),
        ("blank.key", b"\n", 0o600),
        ("open.key", &[b'k'; 64], 0o644),
        ("public.pem", b"-----BEGIN PUBLIC KEY-----\n", 0o644),
        ("written.pem", b"-----BEGIN PUBLIC KEY-----\n", 0o666),
    ];
    for (name, content, mode) in files {
        let path = dir.path().join(name);
        fs::File::create(&path).unwrap().write_all(content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::create_dir(dir.path().join("directory.key")).unwrap();
    dir
}

/// A certificate whose time is over.
fn ended_certificate() -> String {
    let mut parameters = rcgen::CertificateParams::new(["example.org".to_owned()]).unwrap();
    parameters.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    parameters.self_signed(&key).unwrap().pem()
}

/// A certificate for `names` and its key, as PEM.
pub(super) fn certificate(names: &[&str]) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let issued = rcgen::generate_simple_self_signed(names).unwrap();
    (issued.cert.pem(), issued.signing_key.serialize_pem())
}

pub(super) fn test_env(name: &str) -> Option<std::ffi::OsString> {
    match name {
        "GOOD_SECRET" => Some("k".repeat(32).into()),
        "SHORT_SECRET" => Some("hunter2".into()),
        "EMPTY_SECRET" => Some("".into()),
        _ => None,
    }
}

pub(super) fn options() -> LoadOptions<'static> {
    LoadOptions {
        max_list: 3,
        env: test_env,
        ..LoadOptions::default()
    }
}

/// A configuration with one of everything.
pub(super) const WHOLE: &str = r#"
[shield]
interfaces = ["eth0", "eth1"]
mode = "native"
observe = ["source_packets", "martian"]
fragments = "pass"
allow = ["192.0.2.1", "2001:db8::/48"]
deny = ["198.51.100.0/24"]
allow_file = "allow.list"
deny_file = "empty.key"
max_bans = 1000
earned_idle = "5m"
escalation = { after = "5s", ban = "30s", max_ban = "10m" }

[shield.limits]
source_packets = { per_second = 1000, burst = 2000 }
network_bytes = { per_second = 1_000_000, burst = 2_000_000 }

[[service]]
name = "web"
protocol = "tcp"
port = 443

[[service]]
name = "dns"
address = "2001:db8::53"
protocol = "udp"
port = 53
limits = { source_packets = "off", source_syns = { per_second = 10, burst = 20 } }
observe = true

[[listener]]
name = "web"
address = "[::]:443"

[[upstream]]
name = "app"
endpoints = ["10.0.0.7:3000", "[fd00::7]:3000"]
connect_timeout = "250ms"

[[route]]
name = "site"
path = "/"
upstream = "app"
auth = "none"

[[route]]
name = "api"
path = "/api"
upstream = "app"
auth = "required"
providers = ["sso", "login"]
scopes = ["read", "write"]
timeout = "1m 30s"
login = { url = "/login?app=1", return_parameter = "next", return_origin = "https://app.example" }

[[route.claims]]
claim = "email_verified"
equals = true

[[route.claims]]
claim = ["realm_access", "roles"]
contains = "editor"

[[route.claims]]
claim = "https://app.example/level"
one_of = [2, "two"]

[[provider]]
name = "sso"
algorithms = ["RS256", "PS384"]
pem_file = "public.pem"
issuer = "https://sso.example"
audiences = ["api"]
leeway = "0s"
sources = ["cookie:session", "bearer", "header:X-Token", "query:access_token"]
types = ["at+jwt"]
require_exp = true
max_lifetime = "1h"
remove_token = true
claim_headers = [
    { header = "X-User", claim = "sub" },
    { header = "x-access", claim = ["realm_access"], encoding = "base64_json" },
]

[[provider]]
name = "login"
algorithms = ["ES256"]
oidc_issuer = "https://login.example/realm"

[provider.fetch]
ca_file = "public.pem"
refresh = "2m"
refresh_min = "1m"
refresh_max = "3m"
cooldown = "4s"
timeout = "2s"
max_stale = "1h"

[offences]
threshold = 5
half_life = "10s"
ban = "2m"
max_ban = "1h"
observe = true
exempt = ["10.0.0.0/8"]
exempt_local = false
max_bans_per_minute = 60

[gateway]
workers = 4
shutdown_grace = "5s"
revocation_file = "empty.key"
"#;

#[test]
#[expect(clippy::too_many_lines, reason = "one assertion for each key of the file")]
fn every_key_arrives() {
    let dir = key_dir();
    let Loaded { config, warnings, .. } = load::parse(WHOLE, "whole.toml", dir.path(), &options()).unwrap();
    assert_eq!(warnings, []);
    let rate = |per_second, burst| Some(Rate { per_second, burst });
    let network_bytes = rate(1_000_000, 2_000_000);
    let limits = Limits {
        source_packets: rate(1000, 2000),
        network_bytes,
        ..Limits::default()
    };
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    assert_eq!(
        config.shield,
        Shield {
            interfaces: vec!["eth0".into(), "eth1".into()],
            mode: AttachMode::Native,
            allow_generic: false,
            observe: Observe::Rules(vec![Reason::SourcePackets, Reason::Martian]),
            fragments: FragmentPolicy::Pass,
            malformed: FragmentPolicy::Drop,
            drop_martians: true,
            icmp: None,
            limits,
            allow: vec![net("192.0.2.1/32"), net("192.0.2.128/25"), net("2001:db8::/48")],
            deny: vec![net("198.51.100.0/24")],
            allow_file: Some(dir.path().join("allow.list")),
            deny_file: Some(dir.path().join("empty.key")),
            max_bans: NonZeroU32::new(1000).unwrap(),
            earned_idle: Duration::from_mins(5),
            set_sysctls: false,
            escalation: Some(Escalation {
                after: Duration::from_secs(5),
                ban: Duration::from_secs(30),
                max_ban: Duration::from_mins(10),
            }),
        }
    );
    let web = Service {
        name: "web".into(),
        address: None,
        protocol: Protocol::Tcp,
        port: 443,
        limits,
        observe: false,
        guard: Guard::None,
        direct: None,
    };
    let dns = Service {
        name: "dns".into(),
        address: Some("2001:db8::53".parse().unwrap()),
        protocol: Protocol::Udp,
        port: 53,
        limits: Limits {
            source_syns: rate(10, 20),
            network_bytes,
            ..Limits::default()
        },
        observe: true,
        guard: Guard::None,
        direct: None,
    };
    assert_eq!(config.services, [web, dns]);
    assert_eq!(
        config.listeners,
        [Listener::plain("web", "[::]:443".parse().unwrap())]
    );
    assert_eq!(
        config.upstreams,
        [Upstream {
            connect_timeout: Duration::from_millis(250),
            ..Upstream::new(
                "app",
                &[
                    "10.0.0.7:3000".parse().unwrap(),
                    "[fd00::7]:3000".parse().unwrap()
                ]
            )
        }]
    );
    let claim = |path: &[&str], test| ClaimRule {
        path: path.iter().map(|name| (*name).into()).collect(),
        test,
    };
    let level = vec![ClaimValue::Integer(2), ClaimValue::Text("two".into())];
    let rule = AuthRule {
        providers: vec![0, 1],
        scopes: vec!["read".into(), "write".into()],
        claims: vec![
            claim(&["email_verified"], ClaimTest::Equals(ClaimValue::Bool(true))),
            claim(
                &["realm_access", "roles"],
                ClaimTest::Contains(ClaimValue::Text("editor".into())),
            ),
            claim(&["https://app.example/level"], ClaimTest::OneOf(level)),
        ],
        login: Some(Login {
            url: "/login?app=1".into(),
            return_parameter: Some("next".into()),
            return_origin: Some("https://app.example".into()),
        }),
    };
    let route = |name: &str, path: &str, auth, seconds| {
        Route::forwarding(
            name,
            RouteMatch::prefix(path),
            0,
            auth,
            Duration::from_secs(seconds),
        )
    };
    assert_eq!(
        config.routes,
        [
            route("site", "/", AuthPolicy::None, 30),
            route("api", "/api", AuthPolicy::Required(rule), 90)
        ]
    );
    let header = |name: &str, path: &str, encoding| ClaimHeader {
        header: name.into(),
        path: vec![path.into()],
        encoding,
    };
    assert_eq!(
        config.providers[0],
        Provider {
            name: "sso".into(),
            algorithms: vec![jsonwebtoken::Algorithm::RS256, jsonwebtoken::Algorithm::PS384],
            key: KeySource::PemFile(dir.path().join("public.pem")),
            issuer: Some("https://sso.example".into()),
            audiences: vec!["api".into()],
            leeway: Duration::ZERO,
            sources: vec![
                TokenSource::Cookie("session".into()),
                TokenSource::Bearer,
                TokenSource::Header("x-token".into()),
                TokenSource::Query("access_token".into()),
            ],
            checks: TokenChecks {
                require_exp: true,
                max_lifetime: Some(Duration::from_hours(1)),
                types: vec!["at+jwt".into()],
            },
            forward: TokenForwarding {
                remove_token: true,
                headers: vec![
                    header("x-user", "sub", ClaimEncoding::Plain),
                    header("x-access", "realm_access", ClaimEncoding::Base64Json),
                ],
            },
        }
    );
    assert_eq!(
        config.providers[1..],
        [Provider {
            name: "login".into(),
            algorithms: vec![jsonwebtoken::Algorithm::ES256],
            key: KeySource::Oidc(RemoteKeys {
                url: "https://login.example/realm".into(),
                ca_file: Some(dir.path().join("public.pem")),
                refresh: Duration::from_mins(2),
                refresh_min: Duration::from_mins(1),
                refresh_max: Duration::from_mins(3),
                cooldown: Duration::from_secs(4),
                timeout: Duration::from_secs(2),
                max_stale: Duration::from_hours(1),
            }),
            issuer: Some("https://login.example/realm".into()),
            audiences: Vec::new(),
            leeway: bounds::DEFAULT_LEEWAY,
            sources: vec![TokenSource::Bearer],
            checks: TokenChecks::default(),
            forward: TokenForwarding::default(),
        }]
    );
    assert_eq!(config.revocation_file, Some(dir.path().join("empty.key")));
    assert_eq!(
        config.offences,
        Offences {
            threshold: NonZeroU32::new(5).unwrap(),
            half_life: Duration::from_secs(10),
            ban: Duration::from_mins(2),
            max_ban: Duration::from_hours(1),
            observe: true,
            exempt: vec![net("10.0.0.0/8")],
            exempt_local: false,
            max_bans_per_minute: NonZeroU32::new(60).unwrap(),
            ..Offences::default()
        }
    );
    assert_eq!(config.workers, NonZeroU32::new(4));
    assert_eq!(config.shutdown_grace, Duration::from_secs(5));
}

#[test]
fn an_empty_file_is_all_defaults() {
    let Loaded { config, warnings, .. } = Config::parse("", "empty.toml", Path::new("")).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.shield, Shield::default());
    assert_eq!(config.offences, Offences::default());
    assert_eq!(
        (config.workers, config.shutdown_grace),
        (None, Duration::from_secs(30))
    );
}

#[test]
fn escalation_is_off_until_its_table_stands_there() {
    let escalation = |text: &str| {
        let loaded = Config::parse(text, "t.toml", Path::new("")).unwrap();
        loaded.config.shield.escalation
    };
    assert_eq!(escalation("[shield]\n"), None);
    let defaults = Escalation {
        after: Duration::from_secs(10),
        ban: Duration::from_mins(1),
        max_ban: Duration::from_hours(1),
    };
    assert_eq!(escalation("[shield.escalation]\n"), Some(defaults));
}

#[test]
fn what_is_observed_is_what_was_asked_for() {
    let observe = |text: &str| {
        let text = format!("[shield]\nobserve = {text}\n");
        Config::parse(&text, "t.toml", Path::new(""))
            .unwrap()
            .config
            .shield
            .observe
    };
    let rows = [
        ("false", Observe::Nothing, 0),
        ("[]", Observe::Nothing, 0),
        ("['banned']", Observe::Rules(vec![Reason::Banned]), 1),
        (
            "true",
            Observe::Everything,
            Reason::ALL.iter().filter(|reason| reason.is_observable()).count(),
        ),
    ];
    for (text, expected, observed) in rows {
        let found = observe(text);
        assert_eq!(found, expected, "{text}");
        let count = Reason::ALL
            .iter()
            .filter(|reason| found.observes(**reason))
            .count();
        assert_eq!(count, observed, "{text}");
    }
}

#[test]
fn a_problem_is_shown_like_a_compiler_would() {
    let text = "[[lisener]]\nname = \"a\"\n\n[shield]\nmode = \"navite\"\n";
    let error = Config::parse(text, "edge.toml", Path::new("")).unwrap_err();
    let expected = "\
error: unknown key `lisener`; did you mean `listener`?
 --> edge.toml:1:3 (lisener)
  |
1 | [[lisener]]
  |   ^^^^^^^

error: unknown attach mode `navite`; did you mean `native`?
 --> edge.toml:5:8 (shield.mode)
  |
5 | mode = \"navite\"
  |        ^^^^^^^^
  = help: one of \"auto\", \"native\", \"generic\"

2 errors in the configuration";
    assert_eq!(error.to_string(), expected);
    let [first, second] = error.problems() else {
        panic!("{error}")
    };
    assert_eq!(
        first.one_line().to_string(),
        "edge.toml:1:3: error: lisener: unknown key `lisener`; did you mean `listener`?"
    );
    assert_eq!(
        serde_json::to_value(second).unwrap(),
        serde_json::json!({
            "severity": "error", "file": "edge.toml", "line": 5, "column": 8, "key": "shield.mode",
            "message": "unknown attach mode `navite`; did you mean `native`?",
            "help": "one of \"auto\", \"native\", \"generic\"",
        })
    );
}

#[test]
fn many_problems_are_counted_not_all_told() {
    let lines: Vec<_> = (0..MAX_PROBLEMS + 7).map(|n| format!("bad{n} = 1\n")).collect();
    let error = Config::parse(&lines.concat(), "edge.toml", Path::new("")).unwrap_err();
    assert_eq!(error.problems().len(), MAX_PROBLEMS);
    assert!(
        error
            .to_string()
            .ends_with("107 errors in the configuration (7 not shown)"),
        "{error}"
    );
}

#[test]
fn no_message_repeats_a_secret() {
    let dir = key_dir();
    let rows = [
        "[[provider]]\nname = 'p'\nalgorithms = ['HS256']\nkey = 'hunter2'\n",
        "[[provider]]\nname = 'p'\nalgorithms = ['HS256']\nsecret = 'hunter2'\n",
        "[[provider]]\nname = 'p'\nalgorithms = ['HS256']\nsecret_env = 'SHORT_SECRET'\n",
        "[[provider]]\nname = 'p'\nalgorithms = ['HS256']\nsecret_env = 'hunter2'\n",
        "provider = [{ name = 'p', algorithms = ['HS256'], secret = 'hunter2' }]\n",
        "[[provider]]\nname = 'p'\nalgorithms = ['RS256']\njwks_url = 'https://u:hunter2@id.example/'\n",
        "key = hunter2\n",
        "password = 'hunter2\n",
    ];
    for text in rows {
        let error = load::parse(text, "edge.toml", dir.path(), &options()).unwrap_err();
        for shown in [
            error.to_string(),
            format!("{error:?}"),
            serde_json::to_string(error.problems()).unwrap(),
        ] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
    let quickstart = Quickstart {
        listen: "127.0.0.1:1".parse().unwrap(),
        site: "127.0.0.1:2".parse().unwrap(),
        graphql: "127.0.0.1:3".parse().unwrap(),
        secret: b"hunter2hunter2hunter2hunter2hunter2".to_vec(),
    };
    let shown = format!("{:?}", quickstart.load().unwrap());
    assert!(
        !shown.contains("hunter2") && !shown.contains("104, 117, 110"),
        "{shown}"
    );
}

#[test]
fn names_from_the_file_cannot_move_the_cursor() {
    let error = Config::parse("\"\\u001b[2J\\nx\" = 1\n", "edge.toml", Path::new("")).unwrap_err();
    assert!(!error.to_string().contains('\u{1b}'), "{error:?}");
    assert_eq!(error.problems()[0].one_line().to_string().lines().count(), 1);
}

#[test]
fn files_that_cannot_be_read_say_so() {
    let missing = Config::load(Path::new("/nonexistent/edge.toml")).unwrap_err();
    assert!(
        missing
            .to_string()
            .contains("/nonexistent/edge.toml: No such file"),
        "{missing}"
    );

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("latin1.toml");
    fs::write(&path, b"[shield]\nmode = \"\xfc\"\n").unwrap();
    let error = Config::load(&path).unwrap_err();
    let [problem] = error.problems() else {
        panic!("{error}")
    };
    assert_eq!((problem.line, problem.column), (2, 9));
    assert!(problem.message.contains("not UTF-8: byte 0xfc"), "{problem}");
}

#[test]
fn paths_are_relative_to_the_file() {
    let dir = key_dir();
    let path = dir.path().join("edge.toml");
    fs::write(
        &path,
        "[[provider]]\nname = 'p'\nalgorithms = ['HS512']\nsecret_file = 'good.key'\n",
    )
    .unwrap();
    let Loaded { config, warnings, .. } = Config::load(&path).unwrap();
    assert_eq!(
        config.providers[0].key,
        KeySource::SecretFile(dir.path().join("good.key"))
    );
    assert_eq!(warnings[0].file, path.display().to_string());
    assert_eq!((warnings.len(), warnings[0].severity), (1, Severity::Warning));
}

#[test]
fn what_shows_later_is_told_like_the_rest() {
    let text =
        "[gateway]\n\n[[provider]]\nname = 'p'\nalgorithms = ['RS256']\njwks_url = 'https://id.example/'\n";
    let Loaded { places, .. } = Config::parse(text, "edge.toml", Path::new("")).unwrap();
    let rows = [
        (
            Subject::Provider(0),
            &["pem_file", "jwks_url"][..],
            (6, 12, "provider[0].jwks_url"),
        ),
        (Subject::Provider(0), &["leeway"], (3, 1, "provider[0]")),
        (Subject::Gateway, &[], (1, 1, "gateway")),
        (Subject::Provider(1), &["name"], (1, 1, "")),
        (Subject::Route(0), &["name"], (1, 1, "")),
    ];
    for (subject, keys, expected) in rows {
        let problem = places.problem(subject, keys, "bad\nnews");
        assert_eq!(
            (problem.line, problem.column, problem.key.as_str()),
            expected,
            "{subject:?}"
        );
        assert_eq!(
            (problem.file.as_str(), problem.message.as_str()),
            ("edge.toml", "bad\\nnews")
        );
    }
    let shown = places
        .problem(Subject::Provider(0), &["jwks_url"], "bad news")
        .to_string();
    assert!(shown.contains("6 | jwks_url = 'https://id.example/'"), "{shown}");
}

/// Cuts, doubles and swaps pieces of a good configuration: mistakes as people make them.
fn mutated() -> impl Strategy<Value = String> {
    let edit = (
        any::<prop::sample::Index>(),
        0_usize..40,
        "[\\[\\]{}=\"'.,#\\\\a-z0-9 \n-]{0,6}",
    );
    prop::collection::vec(edit, 1..6).prop_map(|edits| {
        let mut text: Vec<char> = WHOLE.chars().collect();
        for (at, length, insert) in edits {
            let at = at.index(text.len().max(1)).min(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, insert.chars());
        }
        text.into_iter().collect()
    })
}

/// What holds for any text whatever.
fn check_any(text: &str) {
    match Config::parse(text, "any.toml", Path::new("/nonexistent")) {
        Ok(Loaded { warnings, .. }) => {
            assert!(
                warnings
                    .iter()
                    .all(|warning| warning.severity == Severity::Warning)
            );
        }
        Err(error) => {
            assert!(!error.problems().is_empty());
            let lines = text.lines().count().max(1) + 1;
            for problem in error.problems() {
                assert!(
                    (1..=lines).contains(&problem.line),
                    "{problem:?} of {lines} lines"
                );
                assert_eq!(problem.one_line().to_string().lines().count(), 1);
            }
            drop(error.to_string());
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        check_any(&text);
    }

    #[test]
    fn arbitrary_toml_like_text_never_panics(text in "([\\[\\]{}=\"'.,#\\\\a-z0-9é\r\n\t -]|\\[\\[route\\]\\]\n|'''){0,80}") {
        check_any(&text);
    }

    #[test]
    fn mutated_configurations_never_panic(text in mutated()) {
        check_any(&text);
    }
}

/// Where the repository's examples are.
pub(super) fn examples_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}
