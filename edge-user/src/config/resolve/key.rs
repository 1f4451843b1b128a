//! Where a provider's key comes from: exactly one place, fit for its algorithms and not open to everybody.
//!
//! Checks who may read a key and how long a secret is; never parses or keeps one, and fetches nothing.

use jsonwebtoken::{Algorithm, AlgorithmFamily};

use super::{Checks, fetch, url};
use crate::config::{
    KeySource, keyfile,
    raw::RawProvider,
    section::{Field, Key, Section},
    snippet::is_variable_name,
    trusted::{Exposure, Fault},
};

/// `provider.key` of the built-in quick start.
const GENERATED: &str = "generated";

/// The ways to say where a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    SecretFile,
    SecretEnv,
    PemFile,
    JwksFile,
    JwksUrl,
    OidcIssuer,
    Generated,
}

impl Way {
    /// Its key in the file.
    fn name(self) -> &'static str {
        match self {
            Self::SecretFile => "secret_file",
            Self::SecretEnv => "secret_env",
            Self::PemFile => "pem_file",
            Self::JwksFile => "jwks_file",
            Self::JwksUrl => "jwks_url",
            Self::OidcIssuer => "oidc_issuer",
            Self::Generated => "key",
        }
    }

    /// Whether keys are fetched from a server.
    fn is_remote(self) -> bool {
        matches!(self, Self::JwksUrl | Self::OidcIssuer)
    }

    /// RS256 verified with a PEM as an HMAC secret is the classic way in; it must not even be expressible.
    fn family_fault(self, family: AlgorithmFamily) -> Option<String> {
        let is_hmac = matches!(family, AlgorithmFamily::Hmac);
        match self {
            Self::PemFile if is_hmac => {
                Some("a PEM key cannot serve an HMAC algorithm; use `secret_file`".to_owned())
            }
            Self::JwksUrl | Self::OidcIssuer if is_hmac => Some(
                "keys from a URL cannot serve an HMAC algorithm: a secret there is none; use `secret_file`"
                    .to_owned(),
            ),
            Self::SecretFile | Self::SecretEnv | Self::Generated if !is_hmac => Some(format!(
                "`{}` is for HMAC algorithms; use `pem_file`, `jwks_file`, `jwks_url` or `oidc_issuer`",
                self.name()
            )),
            Self::PemFile
            | Self::JwksUrl
            | Self::OidcIssuer
            | Self::SecretFile
            | Self::SecretEnv
            | Self::Generated
            | Self::JwksFile => None,
        }
    }
}

fn ways(raw: &RawProvider) -> [(Way, &Key<String>); 7] {
    [
        (Way::SecretFile, &raw.secret_file),
        (Way::SecretEnv, &raw.secret_env),
        (Way::PemFile, &raw.pem_file),
        (Way::JwksFile, &raw.jwks_file),
        (Way::JwksUrl, &raw.jwks_url),
        (Way::OidcIssuer, &raw.oidc_issuer),
        (Way::Generated, &raw.key),
    ]
}

/// Exactly one of the keys that say where the verification key is.
pub(super) fn source(
    raw: &RawProvider,
    algorithms: Option<&[Algorithm]>,
    checks: &mut Checks<'_>,
) -> Option<KeySource> {
    const KEYS: &str =
        "one of `secret_file`, `secret_env` (HMAC), `pem_file`, `jwks_file`, `jwks_url`, `oidc_issuer`";
    let ways = ways(raw);
    // One that is bad may be the one that was meant: then neither its absence nor its double is told.
    let is_certain = !ways.iter().any(|(_, key)| matches!(key, Key::Bad));
    let mut set = ways
        .iter()
        .filter_map(|(way, key)| key.field().map(|field| (*way, field)));
    let Some((way, field)) = set.next() else {
        if is_certain {
            checks.error_help(raw.at(), "a provider needs a key", KEYS);
        }
        return None;
    };
    if let Some((second, field)) = set.next() {
        let message = format!(
            "the key is given in two ways: `{}` and `{}`",
            way.name(),
            second.name()
        );
        checks.error_help(&field.at, message, "keep one of them");
        return None;
    }
    if !way.is_remote()
        && let Some(fetch) = raw.fetch.field()
        && is_certain
    {
        checks.error_help(
            &fetch.at,
            "`fetch` has no meaning: this provider's keys are not fetched",
            "it goes with `jwks_url` and `oidc_issuer`",
        );
    }
    let family = algorithms
        .and_then(|list| list.first())
        .map(|algorithm| algorithm.family());
    if let Some(fault) = family.and_then(|family| way.family_fault(family)) {
        checks.error(&field.at, fault);
    }
    let least = algorithms
        .unwrap_or_default()
        .iter()
        .copied()
        .map(least_secret_bytes)
        .max()
        .unwrap_or(1);
    match at(way, field, family, least, raw, checks) {
        Ok(source) => Some(source),
        Err(Fault { message, help }) => {
            checks.error_help(&field.at, message, help);
            None
        }
    }
}

/// The key in the place that `field` names.
fn at(
    way: Way,
    field: &Field<String>,
    family: Option<AlgorithmFamily>,
    least: usize,
    raw: &RawProvider,
    checks: &mut Checks<'_>,
) -> Result<KeySource, Fault> {
    let path = checks.base_dir.join(&field.value);
    match way {
        Way::SecretFile => {
            keyfile::check_secret(&path, least)?;
            Ok(KeySource::SecretFile(path))
        }
        Way::PemFile => {
            keyfile::check(&path, Exposure::Public)?;
            Ok(KeySource::PemFile(path))
        }
        Way::JwksFile => {
            // A set for HMAC holds secrets; others hold public keys.
            let exposure = if family == Some(AlgorithmFamily::Hmac) {
                Exposure::Secret
            } else {
                Exposure::Public
            };
            keyfile::check(&path, exposure)?;
            Ok(KeySource::JwksFile(path))
        }
        Way::SecretEnv => env_secret(&field.value, least, checks),
        Way::Generated => generated(&field.value, checks),
        Way::JwksUrl => {
            let remote = fetch::remote(field, raw.fetch.value(), checks);
            url::keys(&field.value)?;
            Ok(KeySource::JwksUrl(remote))
        }
        Way::OidcIssuer => {
            let remote = fetch::remote(field, raw.fetch.value(), checks);
            url::issuer(&field.value)?;
            Ok(KeySource::Oidc(remote))
        }
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

fn env_secret(name: &str, least: usize, checks: &Checks<'_>) -> Result<KeySource, Fault> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(Fault::new(
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
        return Err(Fault::new(
            format!("the environment variable{shown} is not set"),
            "set it for the daemon, or use `secret_file`",
        ));
    };
    let what = format!("the secret in the environment variable{shown}");
    keyfile::long_enough(value.as_encoded_bytes().len(), least, &what)?;
    Ok(KeySource::SecretEnv(name.to_owned()))
}

fn generated(word: &str, checks: &Checks<'_>) -> Result<KeySource, Fault> {
    // The value is not repeated: it may well be a secret.
    if word != GENERATED {
        return Err(Fault::new(
            "a key does not stand in the configuration itself",
            "put it in a file of mode 0600 and name that with `secret_file`",
        ));
    }
    let Some(quickstart) = checks.options.quickstart else {
        return Err(Fault::new(
            "a generated key exists only in the built-in quick start",
            "name a file with `secret_file`",
        ));
    };
    Ok(KeySource::Generated(quickstart.secret.clone()))
}
