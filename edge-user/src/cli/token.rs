//! `breakwater token`: a signed token to try a protected route with.
//!
//! Signs with an HMAC secret only, since that is the only kind of key a gateway holds that can sign. Prints the
//! token and nothing else.

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, Header};
use serde_json::{Map, Value};

use super::{CliError, Exit, Output, args};
use crate::config::{self, Config, KeySource, Provider, keyfile};

/// Where a running quick start leaves its generated secret, mode 0600: text, without a newline.
pub const QUICKSTART_KEY_FILE: &str = "/run/breakwater/quickstart.key";

/// Longest life of a token, so that its expiry stays a sensible number.
const LONGEST_LIFE: Duration = Duration::from_hours(10 * 365 * 24);

/// Arguments of `token`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Without options the token is for the running quick start (`breakwater run`). With --config it is for one of the
configuration's providers, whose issuer and audience it then carries; with --secret-file for any secret. A provider
that has a public key cannot sign: its tokens come from the issuer.

Examples:
  curl -H \"Authorization: Bearer $(breakwater token)\" http://127.0.0.1:8080/graphql
  curl --cookie \"session=$(breakwater token --sub alice)\" http://127.0.0.1:8080/graphql
  breakwater token --config edge.toml --sub alice --for 5m --claim scope=\"read write\" --claim admin=true")]
pub(super) struct TokenArgs {
    /// Sign for a provider of this configuration.
    #[arg(long, short, value_name = "FILE", conflicts_with = "secret_file")]
    config: Option<PathBuf>,

    /// Which provider; not needed if only one has a secret.
    #[arg(long, value_name = "NAME", requires = "config")]
    provider: Option<String>,

    /// Sign with the secret in this file.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,

    /// With which algorithm: HS256, HS384 or HS512; the provider's first if not given, else HS256.
    #[arg(long, value_name = "ALGORITHM", value_parser = hmac_algorithm)]
    algorithm: Option<Algorithm>,

    /// Whom the token is about (`sub`).
    #[arg(long, value_name = "SUBJECT", default_value = "test")]
    sub: String,

    /// How long it is valid.
    #[arg(long = "for", value_name = "DURATION", value_parser = life, default_value = "1h")]
    duration: Duration,

    /// Another claim (may be repeated): JSON if the value is JSON, else a string; replaces what is there.
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    claims: Vec<(String, Value)>,

    /// Where the running quick start keeps its key.
    #[arg(
        long,
        value_name = "FILE",
        hide = true,
        env = "BREAKWATER_QUICKSTART_KEY",
        default_value = QUICKSTART_KEY_FILE
    )]
    quickstart_key: PathBuf,
}

pub(super) fn token(args: &TokenArgs, out: &mut Output<impl Write>) -> Result<Exit, CliError> {
    let Signer {
        algorithm,
        secret,
        issuer,
        audience,
    } = args.signer()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let claims = args.claims(issuer, audience, now)?;
    let key = EncodingKey::from_secret(&secret);
    let token =
        jsonwebtoken::encode(&Header::new(algorithm), &claims, &key).map_err(|error| CliError::Failed {
            exit: Exit::Runtime,
            message: format!("cannot sign: {error}"),
            remedy: None,
        })?;
    out.line(token)?;
    Ok(Exit::Done)
}

/// What a token is signed with and for.
struct Signer {
    algorithm: Algorithm,
    secret: Vec<u8>,
    issuer: Option<String>,
    audience: Option<String>,
}

impl TokenArgs {
    fn signer(&self) -> Result<Signer, CliError> {
        if let Some(path) = &self.config {
            let config = Config::load(path)?.config;
            return self.for_provider(choose(&config, self.provider.as_deref(), path)?);
        }
        let algorithm = self.algorithm.unwrap_or(Algorithm::HS256);
        let least = config::least_secret_bytes(algorithm);
        if let Some(path) = &self.secret_file {
            let secret = keyfile::read_secret(path, least)?;
            return Ok(Signer {
                algorithm,
                secret,
                issuer: None,
                audience: None,
            });
        }
        if !self.quickstart_key.exists() {
            return Err(CliError::Failed {
                exit: Exit::Runtime,
                message: format!(
                    "no quick start is running: there is no {}",
                    self.quickstart_key.display()
                ),
                remedy: Some("start `breakwater run`, or name --config or --secret-file".to_owned()),
            });
        }
        let secret = keyfile::read_secret(&self.quickstart_key, least)?;
        Ok(Signer {
            algorithm,
            secret,
            issuer: Some(config::QUICKSTART_ISSUER.to_owned()),
            audience: None,
        })
    }

    fn for_provider(&self, provider: &Provider) -> Result<Signer, CliError> {
        let first = provider.algorithms.first().copied().unwrap_or_default();
        let algorithm = self.algorithm.unwrap_or(first);
        if !provider.algorithms.contains(&algorithm) {
            return Err(CliError::usage(
                format!("provider `{}` does not accept {algorithm:?}", provider.name),
                &format!("it accepts {:?}", provider.algorithms),
            ));
        }
        let least = config::least_secret_bytes(algorithm);
        let secret = match &provider.key {
            KeySource::SecretFile(path) => keyfile::read_secret(path, least)?,
            KeySource::SecretEnv(name) => {
                let secret = std::env::var_os(name).unwrap_or_default().into_encoded_bytes();
                keyfile::long_enough(secret.len(), least, &format!("the secret in `{name}`"))?;
                secret
            }
            KeySource::Generated(secret) => secret.clone(),
            KeySource::PemFile(_) | KeySource::JwksFile(_) | KeySource::JwksUrl(_) | KeySource::Oidc(_) => {
                return Err(CliError::Failed {
                    exit: Exit::Runtime,
                    message: format!("provider `{}` has no secret to sign with", provider.name),
                    remedy: Some(
                        "its tokens come from its issuer; choose another with --provider".to_owned(),
                    ),
                });
            }
        };
        let audience = provider.audiences.first().cloned();
        Ok(Signer {
            algorithm,
            secret,
            issuer: provider.issuer.clone(),
            audience,
        })
    }

    fn claims(
        &self,
        issuer: Option<String>,
        audience: Option<String>,
        now: Duration,
    ) -> Result<Map<String, Value>, CliError> {
        let mut claims = Map::new();
        claims.insert("sub".to_owned(), self.sub.clone().into());
        claims.insert("iat".to_owned(), now.as_secs().into());
        claims.insert("exp".to_owned(), (now + self.duration).as_secs().into());
        claims.extend(issuer.map(|issuer| ("iss".to_owned(), issuer.into())));
        claims.extend(audience.map(|audience| ("aud".to_owned(), audience.into())));
        let mut given = std::collections::HashSet::new();
        for (name, value) in &self.claims {
            if !given.insert(name) {
                return Err(CliError::usage(
                    format!("claim `{name}` is given twice"),
                    "give it once",
                ));
            }
            claims.insert(name.clone(), value.clone());
        }
        Ok(claims)
    }
}

/// The named provider, or the only one that can sign.
fn choose<'c>(config: &'c Config, name: Option<&str>, path: &Path) -> Result<&'c Provider, CliError> {
    if let Some(name) = name {
        return config
            .providers
            .iter()
            .find(|provider| provider.name == name)
            .ok_or_else(|| {
                let names: Vec<_> = config
                    .providers
                    .iter()
                    .map(|provider| provider.name.as_str())
                    .collect();
                CliError::usage(
                    format!("{} has no provider `{name}`", path.display()),
                    &format!("it has: {}", names.join(", ")),
                )
            });
    }
    let can_sign = |provider: &&Provider| match provider.key {
        KeySource::SecretFile(_) | KeySource::SecretEnv(_) | KeySource::Generated(_) => true,
        KeySource::PemFile(_) | KeySource::JwksFile(_) | KeySource::JwksUrl(_) | KeySource::Oidc(_) => false,
    };
    let mut signers = config.providers.iter().filter(can_sign);
    match (signers.next(), signers.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(CliError::usage(
            format!("no provider of {} has a secret to sign with", path.display()),
            "tokens for public keys come from their issuer; --secret-file signs with a secret of your own",
        )),
        (Some(first), Some(second)) => Err(CliError::usage(
            format!(
                "several providers of {} can sign: `{}`, `{}`",
                path.display(),
                first.name,
                second.name
            ),
            "choose one with --provider",
        )),
    }
}

fn hmac_algorithm(text: &str) -> Result<Algorithm, String> {
    match text.parse::<Algorithm>() {
        Ok(algorithm) if algorithm.family() == AlgorithmFamily::Hmac => Ok(algorithm),
        Ok(_) | Err(_) => Err("one of HS256, HS384, HS512".to_owned()),
    }
}

fn life(text: &str) -> Result<Duration, String> {
    let life = args::duration(text)?;
    if life > LONGEST_LIFE {
        return Err(format!("at most {}", humantime::format_duration(LONGEST_LIFE)));
    }
    Ok(life)
}

fn claim(text: &str) -> Result<(String, Value), String> {
    let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
        return Err("NAME=VALUE, as in scope=read or roles='[\"admin\"]'".to_owned());
    };
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((name.to_owned(), value))
}
