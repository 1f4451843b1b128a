//! Small parts for the unit tests of this area.

use std::{sync::Arc, time::Duration};

use jsonwebtoken::Algorithm;
use serde_json::Map;

use super::{
    VerifiedToken,
    claims::{Claims, Window},
    key::{Key, Material},
    outcome::Verified,
    provider::ProviderState,
};
use crate::config::{KeySource, Provider, TokenChecks, TokenForwarding, TokenSource};

pub(super) fn config() -> Provider {
    Provider {
        name: "main".into(),
        algorithms: vec![Algorithm::HS256],
        key: KeySource::Generated(vec![7; 32]),
        issuer: None,
        audiences: Vec::new(),
        leeway: Duration::ZERO,
        sources: vec![TokenSource::Bearer],
        checks: TokenChecks::default(),
        forward: TokenForwarding::default(),
    }
}

pub(super) fn provider() -> Arc<ProviderState> {
    Arc::new(ProviderState::load(&config(), std::time::UNIX_EPOCH).unwrap())
}

pub(super) fn token(provider: &Arc<ProviderState>, text: &[u8], window: Window) -> Arc<VerifiedToken> {
    let verified = Verified {
        headers: Box::default(),
        provider: Arc::clone(provider.config()),
        window,
        algorithm: Algorithm::HS256,
        key: Key::new(None, &Material::Secret(&[7; 32]), &[Algorithm::HS256])
            .unwrap()
            .id(),
    };
    Arc::new(VerifiedToken::new(text, Claims::new(Map::new()), false, verified))
}
