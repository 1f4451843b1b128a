//! The command line from outside: requests, answers, exit codes, and that errors stay one clear line.

mod pages;

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use clap::CommandFactory;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use super::*;
use crate::config::AttachMode;

/// Runs a command line; the exit, standard output and standard error.
fn run(arguments: &[&str]) -> (Exit, String, String) {
    let arguments = std::iter::once("breakwater")
        .chain(arguments.iter().copied())
        .map(OsString::from);
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let exit = run_from(arguments, &mut Output::new(&mut out), &mut errors);
    (
        exit,
        String::from_utf8(out).unwrap(),
        String::from_utf8(errors).unwrap(),
    )
}

fn verb(arguments: &[&str]) -> Verb {
    let arguments = std::iter::once("breakwater").chain(arguments.iter().copied());
    Cli::try_parse_from(arguments)
        .unwrap_or_else(|error| panic!("{error}"))
        .verb
}

fn file(dir: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn help_shows_every_verb_examples_and_exit_codes() {
    let (exit, out, errors) = run(&["--help"]);
    assert_eq!((exit, errors.as_str()), (Exit::Done, ""));
    for verb in [
        "run", "attach", "detach", "status", "ban", "revoke", "check", "token", "version", "help",
    ] {
        assert!(
            out.contains(&format!("\n  {verb} ")),
            "{verb} is missing in\n{out}"
        );
        if verb != "help" && verb != "version" {
            let (exit, help, _) = run(&[verb, "--help"]);
            assert_eq!(exit, Exit::Done);
            assert!(help.contains("Examples:"), "{help}");
        }
    }
    for code in 0..=5 {
        assert!(
            out.contains(&format!("\n  {code}  ")),
            "exit code {code} is missing"
        );
    }
    assert!(out.lines().all(|line| line.chars().count() <= 120), "{out}");
}

#[test]
fn bad_command_lines_end_with_usage() {
    for (arguments, expected) in [
        (&["frobnicate"][..], "unrecognized subcommand 'frobnicate'"),
        (
            &["run", "--interface", "a/b"],
            "an interface name has 1 to 15 bytes",
        ),
        (
            &["run", "--mode", "fast"],
            "invalid value 'fast' for '--mode <MODE>'",
        ),
        (
            &["run", "--mode", "native", "--allow-generic"],
            "error: --allow-generic is for --mode auto",
        ),
        (&["attach"], "--config <FILE>"),
        (
            &["ban", "add", "nonsense"],
            "`nonsense` is not a network in CIDR form",
        ),
        (
            &["ban", "add", "10.0.0.0/8"],
            "a ban is /32 or /24; for other networks use `shield.deny`",
        ),
        (&["ban", "add", "10.0.0.1/24"], "has bits set beyond its prefix"),
        (
            &["ban", "add", "2001:db8::/32"],
            "a ban is /128 or /64 or /56 or /48",
        ),
        (
            &["ban", "add", "10.0.0.1", "--for", "0s"],
            "must be longer than zero",
        ),
        (
            &["ban", "add", "10.0.0.1", "--for", "10"],
            "a number with its unit",
        ),
        (
            &["ban", "add", "10.0.0.1", "--for", "2years"],
            "a ban lasts at most",
        ),
        (
            &["ban", "add", "10.0.0.1", "--reason", "a\nb"],
            "one line of 1 to 120 characters",
        ),
        (&["token", "--claim", "novalue"], "NAME=VALUE"),
        (&["token", "--algorithm", "RS256"], "one of HS256, HS384, HS512"),
        (&["token", "--provider", "x"], "--config <FILE>"),
        (
            &["version", "--log-level", "gateway=loud"],
            "a level (error, warn, info, debug, trace) or directives",
        ),
    ] {
        let (exit, out, errors) = run(arguments);
        assert_eq!((exit, out.as_str()), (Exit::Usage, ""), "{arguments:?}: {errors}");
        assert!(errors.contains(expected), "{arguments:?} said\n{errors}");
    }
}

#[test]
fn requests_carry_the_arguments() {
    let Verb::Run(args) = verb(&[
        "run",
        "-i",
        "eth0",
        "--interface",
        "eth1",
        "--mode",
        "auto",
        "--allow-generic",
    ]) else {
        panic!()
    };
    let overrides = Overrides {
        interfaces: vec!["eth0".into(), "eth1".into()],
        mode: Some(AttachMode::Auto),
        allow_generic: true,
        set_sysctls: false,
    };
    assert_eq!(
        args.request().unwrap(),
        RunRequest {
            source: ConfigSource::Quickstart,
            overrides
        }
    );

    let Verb::Ban(args) = verb(&["ban", "add", "192.0.2.7", "--reason", "scraping"]) else {
        panic!()
    };
    assert_eq!(
        args.request(),
        BanRequest::Add {
            network: "192.0.2.7/32".parse().unwrap(),
            duration: Duration::from_mins(10),
            reason: Some("scraping".into()),
        }
    );
    let Verb::Ban(args) = verb(&["ban", "del", "2001:db8:7::/48"]) else {
        panic!()
    };
    assert_eq!(
        args.request(),
        BanRequest::Delete {
            network: "2001:db8:7::/48".parse().unwrap()
        }
    );
    let Verb::Ban(args) = verb(&["ban", "list", "--json"]) else {
        panic!()
    };
    assert_eq!(args.request(), BanRequest::List { json: true });
    let Verb::Status(args) = verb(&["status", "--json"]) else {
        panic!()
    };
    assert_eq!(
        args.request(),
        StatusRequest {
            socket: None,
            json: true
        }
    );
    let Verb::Detach(args) = verb(&["detach", "--interface", "eth1"]) else {
        panic!()
    };
    assert_eq!(
        args.request(),
        DetachRequest {
            interfaces: vec!["eth1".into()]
        }
    );
}

#[test]
fn the_command_line_goes_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(
        &dir,
        "edge.toml",
        "[shield]\ninterfaces = ['eth0']\nmode = 'native'\n",
    );
    let Verb::Attach(args) = verb(&["attach", "--config", &path]) else {
        panic!()
    };
    let request = args.request().unwrap();
    assert_eq!(request.config.shield.interfaces, ["eth0"]);
    assert_eq!(
        (request.config.shield.mode, request.replace),
        (AttachMode::Native, false)
    );

    let Verb::Attach(args) = verb(&[
        "attach",
        "-c",
        &path,
        "-i",
        "lo",
        "--mode",
        "generic",
        "--replace",
    ]) else {
        panic!()
    };
    let request = args.request().unwrap();
    assert_eq!(request.config.shield.interfaces, ["lo"]);
    assert_eq!(
        (request.config.shield.mode, request.replace),
        (AttachMode::Generic, true)
    );

    let Verb::Run(args) = verb(&["run", "--config", &path, "-i", "lo"]) else {
        panic!()
    };
    let ConfigSource::File { path: named, config } = args.request().unwrap().source else {
        panic!()
    };
    assert_eq!(named.display().to_string(), path);
    assert_eq!(config.shield.interfaces, ["lo"]);

    let nowhere = file(&dir, "nowhere.toml", "");
    let (exit, _, errors) = run(&["attach", "--config", &nowhere]);
    assert_eq!(exit, Exit::Usage);
    assert!(errors.contains("no interface to attach to") && errors.contains("help: add `--interface NAME`"));
}

#[test]
fn a_bad_configuration_ends_every_verb_that_reads_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "edge.toml", "[offences]\nthreshold = 0\n");
    for arguments in [
        &["run", "--config", &path][..],
        &["attach", "--config", &path],
        &["token", "--config", &path],
    ] {
        let (exit, out, errors) = run(arguments);
        assert_eq!((exit, out.as_str()), (Exit::InvalidConfig, ""), "{arguments:?}");
        assert!(
            errors.starts_with("error: `threshold` must be between 1 and"),
            "{errors}"
        );
        assert!(errors.contains("edge.toml:2:13 (offences.threshold)"), "{errors}");
    }
    let (exit, _, errors) = run(&["run", "--config", "/nonexistent.toml"]);
    assert_eq!(exit, Exit::InvalidConfig);
    assert!(
        errors.starts_with("error: cannot read the configuration /nonexistent.toml: No such file"),
        "{errors}"
    );
    assert!(errors.contains("\nhelp: "), "{errors}");
}

const WARNS: &str = "[[upstream]]\nname = 'a'\nendpoints = ['127.0.0.1:1']\n";

#[test]
fn check_answers_in_three_formats() {
    let dir = tempfile::tempdir().unwrap();
    let bad = file(&dir, "bad.toml", "[sheild]\n[offences]\nthreshold = 0\n");
    let (exit, out, errors) = run(&["check", &bad]);
    assert_eq!((exit, errors.as_str()), (Exit::InvalidConfig, ""));
    assert!(out.contains("1 | [sheild]\n  |  ^^^^^^\n"), "{out}");
    assert!(out.ends_with("bad.toml: invalid: 2 errors\n"), "{out}");

    let (_, out, _) = run(&["check", &bad, "--format", "line"]);
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines.len(), 3, "{out}");
    assert!(lines[0].ends_with("bad.toml:1:2: error: sheild: unknown key `sheild`; did you mean `shield`?"));

    let (_, out, _) = run(&["check", &bad, "--format", "json"]);
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(answer["valid"], false);
    assert_eq!(answer["problems"][1]["key"], "offences.threshold");
    assert_eq!(answer["problems"][1]["line"], 3);

    let warns = file(&dir, "warns.toml", WARNS);
    let (exit, out, _) = run(&["check", &warns, "--format", "line"]);
    assert_eq!(exit, Exit::Done);
    assert!(
        out.contains("warns.toml:2:8: warning: upstream[0].name: no route uses upstream `a`"),
        "{out}"
    );
    assert!(
        out.contains("warns.toml: valid, with 1 warning: 0 interfaces, 0 services"),
        "{out}"
    );
    let (exit, out, _) = run(&["check", &warns, "--strict", "--format", "json"]);
    assert_eq!(exit, Exit::InvalidConfig);
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&answer["valid"], &answer["problems"][0]["severity"]),
        (&false.into(), &"warning".into())
    );
}

/// Of 1024 bits.
const WEAK_RSA: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDC7OyMn2ka8DAYMWS2KN+HXKz3
pL2UbWlKSIpWiHRYHQz1rLIEduOOCMVxfbFcoA46dvaNTDFeTROXX5Y7wHp+wH5h
5ZUjwm+Ya3CpHBjNxTskcr+jHwHcU3nTfC8dhSbkm4iZfM2FCt8RapM0J7aiR6+4
3hCpX6TCCBbjmzr6kQIDAQAB
-----END PUBLIC KEY-----
";

#[test]
fn keys_that_cannot_be_used_are_told_by_line_and_key() {
    let rows = [
        (
            "RS256",
            "pem_file",
            "nonsense",
            "holds no PEM public key or certificate",
        ),
        (
            "RS256",
            "pem_file",
            WEAK_RSA,
            "RSA key of 1024 bits; from 2048 to 8192 are accepted",
        ),
        (
            "RS256",
            "pem_file",
            "-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----\n",
            "holds a private key; give the public key alone",
        ),
        ("ES256", "jwks_file", "hunter2", "not a JSON object"),
        (
            "ES256",
            "jwks_file",
            "{\"keys\": 1}",
            "no array \"keys\" of objects",
        ),
        (
            "HS256",
            "jwks_file",
            "{\"keys\": [{\"kty\": \"oct\", \"k\": \"aHVudGVyMg\"}]}",
            "the secret has 7 bytes; HS256 needs at least 32",
        ),
    ];
    for (algorithm, key, content, expected) in rows {
        let dir = tempfile::tempdir().unwrap();
        file(&dir, "good.secret", &"s".repeat(32));
        file(&dir, "bad.key", content);
        let text = format!(
            "[[provider]]\nname = 'a'\nalgorithms = ['HS256']\nsecret_file = 'good.secret'\n\n\
             [[provider]]\nname = 'b'\n{key} = 'bad.key'\nalgorithms = ['{algorithm}']\n"
        );
        let path = file(&dir, "edge.toml", &text);
        let (exit, out, errors) = run(&["check", &path, "--format", "line"]);
        assert_eq!((exit, errors.as_str()), (Exit::InvalidConfig, ""));
        let column = key.len() + 4;
        let place = format!("edge.toml:8:{column}: error: provider[1].{key}: ");
        let told: Vec<_> = out.lines().filter(|line| line.contains(": error: ")).collect();
        let [line] = told.as_slice() else { panic!("{out}") };
        assert!(line.contains(&place) && line.contains(expected), "{line}");
        assert!(!out.contains("hunter2") && !out.contains("aHVudGVyMg"), "{out}");
        assert!(
            out.contains(": warning: provider[1].name: no route uses"),
            "{out}"
        );

        let (exit, _, errors) = run(&["run", "--config", &path]);
        assert_eq!(exit, Exit::InvalidConfig);
        assert!(
            errors.contains(&format!("edge.toml:8:{column} (provider[1].{key})")),
            "{errors}"
        );
        assert!(errors.contains(&format!("8 | {key} = 'bad.key'")), "{errors}");
    }
}

#[test]
fn every_bad_key_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    file(&dir, "bad.pem", "nonsense");
    let provider =
        |name: &str| format!("[[provider]]\nname = '{name}'\nalgorithms = ['RS256']\npem_file = 'bad.pem'\n");
    let path = file(&dir, "edge.toml", &(provider("a") + &provider("b")));
    let (_, out, _) = run(&["check", &path, "--format", "json"]);
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    let problems = answer["problems"].as_array().unwrap();
    let lines: Vec<_> = problems
        .iter()
        .filter(|problem| problem["severity"] == "error")
        .map(|problem| {
            (
                problem["key"].as_str().unwrap(),
                problem["line"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(lines, [("provider[0].pem_file", 4), ("provider[1].pem_file", 8)]);
}

fn decode(token: &str, secret: &[u8], algorithm: Algorithm) -> serde_json::Map<String, serde_json::Value> {
    let mut validation = Validation::new(algorithm);
    validation.validate_aud = false;
    jsonwebtoken::decode(token.trim_end(), &DecodingKey::from_secret(secret), &validation)
        .unwrap()
        .claims
}

#[test]
fn tokens_are_signed_for_the_provider() {
    let dir = tempfile::tempdir().unwrap();
    file(&dir, "jwt.secret", &format!("{}\n", "s".repeat(48)));
    let provider = "[[provider]]\nname = 'login'\nalgorithms = ['HS384', 'HS256']\nsecret_file = 'jwt.secret'\n\
                    issuer = 'https://login'\naudiences = ['api', 'web']\n";
    let path = file(&dir, "edge.toml", provider);
    let (exit, out, errors) = run(&[
        "token",
        "--config",
        &path,
        "--sub",
        "alice",
        "--for",
        "5m",
        "--claim",
        "scope=read write",
        "--claim",
        "admin=true",
    ]);
    assert_eq!((exit, errors.as_str(), out.lines().count()), (Exit::Done, "", 1));
    let claims = decode(&out, "s".repeat(48).as_bytes(), Algorithm::HS384);
    assert_eq!(claims["sub"], "alice");
    assert_eq!(claims["iss"], "https://login");
    assert_eq!(claims["aud"], "api");
    assert_eq!(
        (&claims["scope"], &claims["admin"]),
        (&"read write".into(), &true.into())
    );
    assert_eq!(
        claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(),
        300
    );

    let (exit, out, _) = run(&["token", "-c", &path, "--algorithm", "HS256", "--claim", "exp=1"]);
    assert_eq!(exit, Exit::Done);
    let parts: Vec<_> = out.split('.').collect();
    assert_eq!(parts.len(), 3, "{out}");

    for (arguments, exit, expected) in [
        (
            &["--algorithm", "HS512"][..],
            Exit::Usage,
            "provider `login` does not accept HS512",
        ),
        (&["--provider", "sso"], Exit::Usage, "has no provider `sso`"),
        (
            &["--claim", "a=1", "--claim", "a=2"],
            Exit::Usage,
            "claim `a` is given twice",
        ),
    ] {
        let (found, out, errors) = run(&[&["token", "-c", &path], arguments].concat());
        assert_eq!((found, out.as_str()), (exit, ""));
        assert!(errors.contains(expected), "{errors}");
    }
}

#[test]
fn a_provider_with_a_public_key_cannot_sign() {
    let dir = tempfile::tempdir().unwrap();
    file(&dir, "sso.pem", "-----BEGIN PUBLIC KEY-----\n");
    let path = file(
        &dir,
        "edge.toml",
        "[[provider]]\nname = 'sso'\nalgorithms = ['RS256']\npem_file = 'sso.pem'\n",
    );
    let (exit, _, errors) = run(&["token", "--config", &path]);
    assert_eq!(exit, Exit::Usage);
    assert!(errors.contains("no provider of"), "{errors}");
    let (exit, _, errors) = run(&["token", "--config", &path, "--provider", "sso"]);
    assert_eq!(exit, Exit::Runtime);
    assert!(
        errors.contains("provider `sso` has no secret to sign with\nhelp: its tokens come from its issuer")
    );
}

#[test]
fn the_quick_starts_key_signs_what_its_configuration_accepts() {
    let dir = tempfile::tempdir().unwrap();
    let quickstart = crate::config::Quickstart {
        listen: "127.0.0.1:1".parse().unwrap(),
        site: "127.0.0.1:2".parse().unwrap(),
        graphql: "127.0.0.1:3".parse().unwrap(),
        secret: crate::config::Quickstart::secret_from([b'\n'; 32]),
    };
    let config = quickstart.load().unwrap();
    let key = file(
        &dir,
        "quickstart.key",
        std::str::from_utf8(&quickstart.secret).unwrap(),
    );
    let (exit, out, errors) = run(&["token", "--quickstart-key", &key]);
    assert_eq!((exit, errors.as_str()), (Exit::Done, ""));
    let provider = &config.providers[0];
    let claims = decode(&out, &quickstart.secret, provider.algorithms[0]);
    assert_eq!(claims["iss"].as_str(), provider.issuer.as_deref());

    let (exit, _, errors) = run(&["token", "--quickstart-key", "/nonexistent/key"]);
    assert_eq!(exit, Exit::Runtime);
    assert!(errors.contains("no quick start is running") && errors.contains("help: start `breakwater run`"));
}

#[test]
fn a_secret_in_a_file_signs() {
    let dir = tempfile::tempdir().unwrap();
    let secret = file(&dir, "s", &"k".repeat(40));
    let (exit, out, _) = run(&["token", "--secret-file", &secret]);
    assert_eq!(exit, Exit::Done);
    assert!(!decode(&out, "k".repeat(40).as_bytes(), Algorithm::HS256).contains_key("iss"));
    let (exit, _, errors) = run(&["token", "--secret-file", &secret, "--algorithm", "HS512"]);
    assert_eq!(exit, Exit::Runtime);
    assert!(
        errors.contains("is 40 bytes long, shorter than its hash"),
        "{errors}"
    );
}

#[test]
fn version_is_one_line() {
    let (exit, out, _) = run(&["version"]);
    assert_eq!(exit, Exit::Done);
    assert!(
        out.starts_with(&format!("breakwater {} (", env!("CARGO_PKG_VERSION"))) && out.lines().count() == 1
    );
}

#[test]
fn revocations_are_written_listed_and_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let list = file(&dir, "revoked", "# by hand\n");
    let config = file(&dir, "edge.toml", "[gateway]\nrevocation_file = \"revoked\"\n");
    for (arguments, expected) in [
        (["add", "--sub", "alice", "--config"], "revoked: sub alice"),
        (
            ["add", "--jti", "two words", "--config"],
            "revoked: jti \"two words\"",
        ),
        (["del", "--sub", "alice", "--config"], "taken back: sub alice"),
    ] {
        let (exit, out, errors) = run(&[&["revoke"][..], &arguments[..], &[config.as_str()][..]].concat());
        assert_eq!((exit, out.trim()), (Exit::Done, expected), "{errors}");
    }
    assert_eq!(
        fs::read_to_string(&list).unwrap(),
        "# by hand\njti \"two words\"\n"
    );
    let (exit, out, _) = run(&["revoke", "list", "--file", &list]);
    assert_eq!((exit, out.as_str()), (Exit::Done, "jti \"two words\"\n"));
    let (_, out, _) = run(&["revoke", "list", "--json", "--file", &list]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        json[0],
        serde_json::json!({"kind": "jti", "value": "two words", "until": null})
    );
    let (exit, ..) = run(&["revoke", "add", "--sub", "bob", "--for", "1h", "--file", &list]);
    assert_eq!(exit, Exit::Done);
    let (_, out, _) = run(&["revoke", "list", "--json", "--file", &list]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(
        json[1]["until"]
            .as_u64()
            .is_some_and(|until| until > 1_600_000_000),
        "{json}"
    );

    let (exit, _, errors) = run(&["revoke", "del", "--sub", "carol", "--file", &list]);
    assert_eq!(exit, Exit::Runtime);
    assert!(errors.contains("does not revoke sub carol"), "{errors}");
    let without = file(&dir, "bare.toml", "");
    let (exit, _, errors) = run(&["revoke", "list", "--config", &without]);
    assert_eq!(exit, Exit::Usage, "{errors}");
    for bad in [
        &["revoke", "add", "--sub", "x"][..],
        &["revoke", "add", "--file", "x"],
        &["revoke", "add", "--sub", "x", "--jti", "y", "--file", "x"],
        &["revoke", "add", "--sub", "x", "--for", "never", "--file", "x"],
        &["revoke", "list", "--file", "x", "--config", "y"],
    ] {
        assert_eq!(run(bad).0, Exit::Usage, "{bad:?}");
    }
}

const EXPLAINED: &str = "
[[listener]]
name = 'web'
address = '127.0.0.1:8080'
[[upstream]]
name = 'api'
endpoints = ['127.0.0.1:9000']
[[route]]
name = 'v1'
hosts = ['api.example']
path = '/v1'
methods = ['POST']
upstream = 'api'
auth = 'none'
";

#[test]
fn explain_takes_urls_apart_and_nothing_of_them_away() {
    let dir = tempfile::tempdir().unwrap();
    let bpffs = dir.path().display().to_string();
    let config = file(&dir, "edge.toml", EXPLAINED);
    let explain = |arguments: &[&str]| {
        let mut all = vec!["explain", "--config", &config, "--bpffs", &bpffs, "--json"];
        all.extend(arguments);
        let (exit, out, errors) = run(&all);
        assert_eq!(exit, Exit::Done, "{errors}");
        let told: serde_json::Value = serde_json::from_str(&out).unwrap();
        told
    };
    let told = explain(&["POST", "https://api.example:8443/v1/%41?x=%2e"]);
    assert_eq!(told["route"], "v1");
    assert_eq!(told["request"]["authority"], "api.example:8443");
    assert_eq!(told["request"]["path"], "/v1/A");
    assert_eq!(told["request"]["query"], "x=%2e");
    assert_eq!(told["outcome"]["upstream"], "api");
    for (arguments, reason) in [
        (&["https://api.example/v1"][..], "method_not_allowed"),
        (&["https://api.example?v1"], "no_route"),
        (&["https://other/v1"], "no_route"),
        (&["POST", "http://api.example/v1//x"], "bad_path"),
        (&["POST", "/v1"], "bad_host"),
        (
            &["POST", "/v1", "--host", "api.example", "-H", "Host: api.example"],
            "bad_host",
        ),
        (&["/v1 HTTP/1.1", "--host", "api.example"], "bad_syntax"),
    ] {
        let told = explain(arguments);
        assert_eq!(told["outcome"]["reason"], reason, "{arguments:?}: {told:#}");
    }
    let told = explain(&["https://api.example/v1"]);
    assert_eq!(told["others"][0]["why"], "another method");
}

#[test]
fn explain_refuses_what_would_be_two_requests_and_names_the_argument() {
    let dir = tempfile::tempdir().unwrap();
    let config = file(&dir, "edge.toml", EXPLAINED);
    for (arguments, word) in [
        (&["/v1", "--header", "X: a\r\nY: b"][..], "line end"),
        (&["/v1\n", "--host", "a"], "line end"),
        (&["/v1", "--header", "X"], "no colon"),
        (&["api.example/v1"], "neither a URL nor a path"),
        (&["/v1", "--from", "nobody"], "--from"),
    ] {
        let mut all = vec!["explain", "--config", &config];
        all.extend(arguments);
        let (exit, _, errors) = run(&all);
        assert_eq!(exit, Exit::Usage, "{arguments:?}");
        assert!(errors.contains(word), "{errors}");
    }
}

#[test]
fn import_writes_a_file_once_and_tells_what_it_leaves_out() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: shop}
spec:
  rules:
  - host: shop.example.org
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: site, port: {number: 80}}}}
      - {path: /b, pathType: Prefix, backend: {service: {name: site, port: {name: web}}}}
";
    let manifest = file(&dir, "ingress.yaml", manifest);
    let config = dir.path().join("edge.toml").display().to_string();
    let (exit, out, errors) = run(&["import", &manifest, "--output", &config]);
    assert_eq!(exit, Exit::Done, "{errors}");
    assert!(out.contains("1 routes, 1 notes"), "{out}");
    let left_out = "note: Ingress shop/web, spec.rules[0].http.paths[1].backend: names port \"web\"";
    assert!(errors.starts_with(left_out), "{errors}");
    assert_eq!(run(&["check", &config]).0, Exit::Done);
    let (exit, _, errors) = run(&["import", &manifest, "--output", &config]);
    assert_eq!(exit, Exit::Usage);
    assert!(
        errors.contains("--output") && errors.contains("not there yet"),
        "{errors}"
    );
    let empty = file(
        &dir,
        "empty.yaml",
        "kind: Namespace\napiVersion: v1\nmetadata: {name: x}\n",
    );
    let (exit, out, errors) = run(&["import", &empty]);
    assert_eq!((exit, out.as_str()), (Exit::Usage, ""));
    assert!(errors.contains("no route"), "{errors}");
}

#[test]
fn shells_complete_and_every_verb_has_a_page() {
    for (shell, word) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef breakwater"),
        ("fish", "complete -c breakwater"),
    ] {
        let (exit, out, _) = run(&["completions", shell]);
        assert_eq!(exit, Exit::Done);
        assert!(out.contains(word) && out.contains("explain"), "{shell}");
    }
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().display().to_string();
    let (exit, _, errors) = run(&["man", &into]);
    assert_eq!(exit, Exit::Done, "{errors}");
    for verb in Cli::command()
        .get_subcommands()
        .filter(|verb| !verb.is_hide_set())
    {
        let page = dir.path().join(format!("breakwater-{}.1", verb.get_name()));
        let text = fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        assert!(text.contains(".SH SYNOPSIS"), "{text}");
    }
    let main = fs::read_to_string(dir.path().join("breakwater.1")).unwrap();
    assert!(main.contains("Exit codes"), "{main}");
    let (exit, _, errors) = run(&["man", &format!("{into}/nowhere")]);
    assert_eq!(exit, Exit::Usage);
    assert!(errors.contains("nowhere:"), "{errors}");
}
