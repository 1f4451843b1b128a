//! From a URL to a provider's keys: directly, or by way of an issuer's discovery document.

use std::time::Duration;

use serde_json::Value;

use super::{
    fetch::{FetchError, Fetcher},
    url::{RemoteUrl, discovery_url},
};
use crate::{
    auth::{
        json,
        jwk::{self, Origin, Parsed},
    },
    config::{KeySource, Provider},
};

/// Keys, and how long they may be kept.
pub(super) struct Keys {
    pub(super) parsed: Parsed,
    pub(super) max_age: Option<Duration>,
}

/// Fetches the keys of a provider.
pub(super) async fn fetch(fetcher: &Fetcher, provider: &Provider) -> Result<Keys, FetchError> {
    let (url, known_max_age) = match &provider.key {
        KeySource::Oidc(remote) => {
            let discovery = fetcher.get(&discovery_url(&remote.url)?).await?;
            (jwks_uri(&discovery.body, &remote.url)?, discovery.max_age)
        }
        KeySource::JwksUrl(remote) => (RemoteUrl::parse(&remote.url)?, None),
        KeySource::SecretFile(_)
        | KeySource::SecretEnv(_)
        | KeySource::Generated(_)
        | KeySource::PemFile(_)
        | KeySource::JwksFile(_) => return Err(FetchError::Discovery("the keys of this provider are local")),
    };
    let answer = fetcher.get(&url).await?;
    let parsed = jwk::parse(&answer.body, &provider.algorithms, Origin::Url)?;
    // The keys' own word counts; the discovery document's only where they say nothing.
    Ok(Keys {
        parsed,
        max_age: answer.max_age.or(known_max_age),
    })
}

/// The `jwks_uri` of a discovery document that is this issuer's own (OpenID Connect Discovery 1.0 section 4.3).
fn jwks_uri(document: &[u8], issuer: &str) -> Result<RemoteUrl, FetchError> {
    let map = json::parse_object(document).map_err(|_| FetchError::Discovery("not a JSON object"))?;
    if map.get("issuer").and_then(Value::as_str) != Some(issuer) {
        return Err(FetchError::Discovery(
            "its issuer is not the configured URL, letter for letter",
        ));
    }
    let uri = map
        .get("jwks_uri")
        .and_then(Value::as_str)
        .ok_or(FetchError::Discovery("no jwks_uri"))?;
    Ok(RemoteUrl::parse(uri)?)
}
