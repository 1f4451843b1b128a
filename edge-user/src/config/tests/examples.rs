//! Every file in `examples/` is a configuration that loads.

use std::{fs, os::unix::fs::PermissionsExt};

use super::examples_dir;
use crate::config::{Config, EndpointSpec, KeySource, Loaded, Quickstart, raw::sections};

/// Files that the examples name under /etc/breakwater, which this host need not have.
pub(super) fn with_keys(text: &str, dir: &std::path::Path) -> String {
    let (certificate, key) = super::certificate(&["example.org"]);
    let (any_certificate, any_key) = super::certificate(&["*.example.org"]);
    for (name, content) in [
        ("site.pem", certificate.clone()),
        ("site.key", key.clone()),
        ("clients.pem", certificate.clone()),
        ("jwt.secret", "k".repeat(64)),
        ("any.pem", any_certificate),
        ("any.key", any_key),
        ("admin.token", "t".repeat(32)),
        ("admin.crt", certificate.clone()),
        ("admin.key", key.clone()),
        ("sso.pem", "-----BEGIN PUBLIC KEY-----\n".to_owned()),
        ("partner-ca.pem", "-----BEGIN CERTIFICATE-----\n".to_owned()),
        ("api-ca.pem", certificate.clone()),
        ("edge.pem", certificate),
        ("edge.key", key),
        ("revoked", String::new()),
        ("allow.list", String::new()),
        ("deny.list", "# from somewhere\n192.0.2.0/24\n".to_owned()),
    ] {
        let path = dir.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    text.replace("/etc/breakwater/", &format!("{}/", dir.display()))
        .replace("/var/log/", &format!("{}/", dir.display()))
}

#[test]
fn every_example_loads_without_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for entry in fs::read_dir(examples_dir()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.extension().is_none_or(|extension| extension != "toml") || name == "quickstart.toml" {
            continue;
        }
        let text = with_keys(&fs::read_to_string(&path).unwrap(), dir.path());
        match Config::parse(&text, &name, dir.path()) {
            Ok(Loaded { warnings, .. }) => assert_eq!(warnings, [], "{name}"),
            Err(error) => panic!("{error}"),
        }
        seen += 1;
    }
    assert!(seen >= 2, "examples are missing");
}

/// `#key = value` shows a default; prose has a blank after the `#`.
fn switch_on(line: &str) -> &str {
    line.strip_prefix('#')
        .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
        .unwrap_or(line)
}

#[test]
fn the_annotated_example_shows_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let text = with_keys(
        &fs::read_to_string(examples_dir().join("breakwater.toml")).unwrap(),
        dir.path(),
    );
    let switched_on: String = text
        .lines()
        .map(switch_on)
        .flat_map(|line| [line, "\n"])
        .collect();
    let plain = Config::parse(&text, "breakwater.toml", dir.path()).unwrap();
    let explicit =
        Config::parse(&switched_on, "breakwater.toml", dir.path()).unwrap_or_else(|e| panic!("{e}"));
    assert_ne!(text, switched_on);
    assert_eq!(plain.config, explicit.config);
}

#[test]
fn the_quick_start_takes_what_the_process_has() {
    let quickstart = Quickstart {
        listen: "127.0.0.1:8099".parse().unwrap(),
        site: "127.0.0.1:40001".parse().unwrap(),
        graphql: "127.0.0.1:40002".parse().unwrap(),
        secret: vec![7; 32],
    };
    let config = quickstart.load().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.listeners[0].address, quickstart.listen);
    assert_eq!(config.services[0].port, 8099);
    let endpoints: Vec<_> = config
        .upstreams
        .iter()
        .map(|upstream| upstream.endpoints[0].clone())
        .collect();
    assert_eq!(
        endpoints,
        [quickstart.site, quickstart.graphql].map(EndpointSpec::from)
    );
    assert_eq!(config.providers[0].key, KeySource::Generated(vec![7; 32]));
    assert_eq!(
        (config.offences.threshold.get(), config.offences.ban.as_secs()),
        (20, 60)
    );
    // All its clients are local; one that attacks is to be banned.
    assert!(!config.offences.exempt_local);
}

/// Every key of every section stands in the annotated example, given or as a default.
#[test]
fn the_annotated_example_has_every_key() {
    let text = fs::read_to_string(examples_dir().join("breakwater.toml")).unwrap();
    let words: std::collections::HashSet<_> = text
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .collect();
    // Other ways to say where a key is, one of them the quick start's.
    let elsewhere = ["key", "jwks_file", "jwks_url", "secret_env"];
    for (section, keys) in sections() {
        for key in keys.iter().filter(|key| !elsewhere.contains(key)) {
            assert!(words.contains(key), "{section}.{key}");
        }
    }
}

#[test]
fn what_the_package_installs_starts_as_it_is() {
    let path = examples_dir().join("../deploy/debian/edge.toml");
    let loaded = Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert!(loaded.config.shield.interfaces.is_empty());
    let mut listeners = loaded.config.listeners.iter();
    assert!(listeners.all(|listener| listener.address.ip().is_loopback()));
}
