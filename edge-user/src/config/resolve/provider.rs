//! `[[provider]]`: who signs tokens, with what, and where the tokens are found.
//!
//! Checks where a key comes from, who may read it and how long a secret is; never parses or keeps one.

use jsonwebtoken::{Algorithm, AlgorithmFamily};

use super::{Checks, items};
use crate::config::{
    KeySource, Provider, TokenChecks, TokenForwarding, TokenSource, bounds,
    keyfile::{self, Exposure},
    raw::RawProvider,
    section::{Field, Key, Section},
    snippet::is_variable_name,
    suggest,
    value::Item,
};

const SOURCES_HELP: &str = "\"bearer\", \"cookie:NAME\", \"header:NAME\" or \"query:NAME\"";

/// `provider.key` of the built-in quick start.
const GENERATED: &str = "generated";

pub(super) fn providers(raw: &[Item<RawProvider>], checks: &mut Checks<'_>) -> Vec<Provider> {
    let names = raw.iter().filter_map(|item| item.value.name.field());
    checks.unique(
        "provider name",
        names.map(|name| (&name.value, name.value.clone(), &name.at)),
    );
    raw.iter()
        .filter_map(|item| provider(&item.value, checks))
        .collect()
}

fn provider(raw: &RawProvider, checks: &mut Checks<'_>) -> Option<Provider> {
    let name = checks.name(&raw.name, raw.at());
    let algorithms = algorithms(raw, checks);
    let key = key_source(raw, algorithms.as_deref(), checks);
    for field in [raw.issuer.field()].into_iter().flatten() {
        if field.value.is_empty() {
            checks.error(&field.at, "`issuer` must not be empty");
        }
    }
    if let Some(Field { value: list, at }) = raw.audiences.field() {
        checks.bounded(&raw.audiences, bounds::MAX_ITEMS);
        for item in list.iter().filter(|item| item.value.is_empty()) {
            checks.error(&item.at(at), "an audience must not be empty");
        }
    }
    let leeway = leeway(raw, checks);
    let sources = sources(raw, checks);
    Some(Provider {
        name,
        algorithms: algorithms?,
        key: key?,
        issuer: raw.issuer.value().cloned(),
        audiences: items(&raw.audiences)
            .iter()
            .map(|item| item.value.clone())
            .collect(),
        leeway,
        sources,
        checks: TokenChecks::default(),
        forward: TokenForwarding::default(),
    })
}

/// Zero is a sensible leeway, unlike other durations.
fn leeway(raw: &RawProvider, checks: &mut Checks<'_>) -> std::time::Duration {
    match raw.leeway.value() {
        Some(leeway) if leeway.is_zero() => *leeway,
        Some(_) | None => checks.duration(&raw.leeway, bounds::DEFAULT_LEEWAY, bounds::MAX_LEEWAY),
    }
}

/// The algorithms, all of one family: a key must not serve two kinds of signature (RFC 8725 section 3.1).
fn algorithms(raw: &RawProvider, checks: &mut Checks<'_>) -> Option<Vec<Algorithm>> {
    let field @ Field { value: list, at } = raw.algorithms.required(raw.at(), checks.findings)?;
    checks.not_empty(
        field,
        "a provider accepts at least one algorithm",
        "as in [\"RS256\"]",
    );
    let first = list.first()?;
    let places: Vec<_> = list.iter().map(|item| item.at(at)).collect();
    let given = list
        .iter()
        .zip(&places)
        .map(|(item, at)| (item.value, format!("{:?}", item.value), at));
    checks.unique("algorithm", given);
    for (item, at) in list.iter().zip(&places) {
        if item.value.family() != first.value.family() {
            let message = format!(
                "`{:?}` and `{:?}` are of different key families",
                first.value, item.value
            );
            checks.error_help(
                at,
                message,
                "one key serves one family: make it a provider of its own",
            );
        }
    }
    Some(list.iter().map(|item| item.value).collect())
}

/// Exactly one of the keys that say where the verification key is.
fn key_source(
    raw: &RawProvider,
    algorithms: Option<&[Algorithm]>,
    checks: &mut Checks<'_>,
) -> Option<KeySource> {
    const KEYS: &str = "one of `secret_file`, `secret_env` (HMAC), `pem_file`, `jwks_file`";
    let keys = [
        ("secret_file", &raw.secret_file),
        ("secret_env", &raw.secret_env),
        ("pem_file", &raw.pem_file),
        ("jwks_file", &raw.jwks_file),
        ("key", &raw.key),
    ];
    if keys.iter().any(|(_, key)| matches!(key, Key::Bad)) {
        return None;
    }
    let mut set = keys
        .iter()
        .filter_map(|(name, key)| key.field().map(|field| (*name, field)));
    let Some((name, field)) = set.next() else {
        checks.error_help(raw.at(), "a provider needs a key", KEYS);
        return None;
    };
    if let Some((second, field)) = set.next() {
        let message = format!("the key is given in two ways: `{name}` and `{second}`");
        checks.error_help(&field.at, message, "keep one of them");
        return None;
    }
    let family = algorithms
        .and_then(|list| list.first())
        .map(|algorithm| algorithm.family());
    if let Some(fault) = family_fault(name, family) {
        checks.error(&field.at, fault);
    }
    let least = algorithms
        .unwrap_or_default()
        .iter()
        .copied()
        .map(least_secret_bytes)
        .max()
        .unwrap_or(1);
    let path = checks.base_dir.join(&field.value);
    let result = match name {
        "secret_file" => keyfile::check_secret(&path, least)
            .map(|()| KeySource::SecretFile(path))
            .map_err(Some),
        "pem_file" => keyfile::check(&path, Exposure::Public)
            .map(|()| KeySource::PemFile(path))
            .map_err(Some),
        "jwks_file" => {
            // A set for HMAC holds secrets; others hold public keys.
            let secret = family == Some(AlgorithmFamily::Hmac);
            let exposure = if secret {
                Exposure::Secret
            } else {
                Exposure::Public
            };
            keyfile::check(&path, exposure)
                .map(|()| KeySource::JwksFile(path))
                .map_err(Some)
        }
        "secret_env" => env_secret(&field.value, least, checks).map_err(Some),
        _ => generated(field, checks).ok_or(None),
    };
    match result {
        Ok(source) => Some(source),
        Err(fault) => {
            if let Some(keyfile::Fault { message, help }) = fault {
                checks.error_help(&field.at, message, help);
            }
            None
        }
    }
}

/// RS256 verified with a PEM as an HMAC secret is the classic way in; it must not even be expressible.
fn family_fault(key: &str, family: Option<AlgorithmFamily>) -> Option<String> {
    let hmac = matches!(family?, AlgorithmFamily::Hmac);
    match key {
        "pem_file" if hmac => Some("a PEM key cannot serve an HMAC algorithm; use `secret_file`".to_owned()),
        "secret_file" | "secret_env" | "key" if !hmac => Some(format!(
            "`{key}` is for HMAC algorithms; use `pem_file` or `jwks_file`"
        )),
        _ => None,
    }
}

/// RFC 7518 section 3.2: a key of at least the size of the hash.
pub(crate) fn least_secret_bytes(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::HS256 => 32,
        Algorithm::HS384 => 48,
        Algorithm::HS512 => 64,
        _ => 1,
    }
}

fn env_secret(name: &str, least: usize, checks: &Checks<'_>) -> Result<KeySource, keyfile::Fault> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(keyfile::Fault::new(
            "this is not the name of an environment variable",
            "as in \"JWT_SECRET\"",
        ));
    }
    // The secret itself is easily written where its variable's name belongs.
    let shown = if is_variable_name(name) {
        format!(" `{name}`")
    } else {
        String::new()
    };
    let Some(value) = (checks.options.env)(name) else {
        return Err(keyfile::Fault::new(
            format!("the environment variable{shown} is not set"),
            "set it for the daemon, or use `secret_file`",
        ));
    };
    let what = format!("the secret in the environment variable{shown}");
    keyfile::long_enough(value.as_encoded_bytes().len(), least, &what)?;
    Ok(KeySource::SecretEnv(name.to_owned()))
}

fn generated(field: &Field<String>, checks: &mut Checks<'_>) -> Option<KeySource> {
    // The value is not repeated: it may well be a secret.
    if field.value != GENERATED {
        checks.error_help(
            &field.at,
            "a key does not stand in the configuration itself",
            "put it in a file of mode 0600 and name that with `secret_file`",
        );
        return None;
    }
    let Some(quickstart) = checks.options.quickstart else {
        checks.error_help(
            &field.at,
            "a generated key exists only in the built-in quick start",
            "name a file with `secret_file`",
        );
        return None;
    };
    Some(KeySource::Generated(quickstart.secret.clone()))
}

fn sources(raw: &RawProvider, checks: &mut Checks<'_>) -> Vec<TokenSource> {
    let Some(field) = raw.sources.field() else {
        return vec![TokenSource::Bearer];
    };
    let Field { value: list, at } = field;
    checks.not_empty(
        field,
        "a provider looks for tokens in at least one place",
        SOURCES_HELP,
    );
    checks.bounded(&raw.sources, bounds::MAX_ITEMS);
    let places: Vec<_> = list.iter().map(|item| item.at(at)).collect();
    let given = list.iter().zip(&places);
    checks.unique(
        "source",
        given
            .clone()
            .map(|(item, at)| (item.value.as_str(), item.value.clone(), at)),
    );
    given
        .filter_map(|(item, at)| match source(&item.value) {
            Ok(source) => Some(source),
            Err((message, help)) => {
                checks.error_help(at, message, help);
                None
            }
        })
        .collect()
}

fn source(text: &str) -> Result<TokenSource, (String, String)> {
    let fail = |message: String| Err((message, SOURCES_HELP.to_owned()));
    if text == "bearer" {
        return Ok(TokenSource::Bearer);
    }
    let Some((kind, name)) = text.split_once(':') else {
        return match suggest::nearest(text, ["bearer", "cookie:", "header:", "query:"]) {
            Some(near) => fail(format!("unknown token source `{text}`; did you mean `{near}`?")),
            None => fail(format!("unknown token source `{text}`")),
        };
    };
    // Cookie names and field names are both tokens (RFC 6265 section 4.1.1, RFC 9110 section 5.1).
    let token = http::HeaderName::from_bytes(name.as_bytes());
    match kind {
        "cookie" if token.is_ok() => Ok(TokenSource::Cookie(name.to_owned())),
        "header" => match token {
            Ok(header) if header == http::header::AUTHORIZATION || header == http::header::COOKIE => fail(
                format!("`{name}` is not a header of its own kind; use \"bearer\" or \"cookie:NAME\""),
            ),
            Ok(header) => Ok(TokenSource::Header(header.as_str().to_owned())),
            Err(_) => fail(format!("`{name}` is not the name of a header")),
        },
        "query" if !name.is_empty() && name.bytes().all(is_query_name) => {
            Ok(TokenSource::Query(name.to_owned()))
        }
        "cookie" | "query" => fail(format!("`{name}` is not the name of a {kind} value")),
        _ => fail(format!("unknown token source `{kind}`")),
    }
}

fn is_query_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}
