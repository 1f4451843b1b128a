//! The configuration that is built in: what `breakwater run` does when it is told nothing.

use std::{net::SocketAddr, path::Path};

use super::{Config, ConfigError, Loaded, load, load::LoadOptions};

/// The text of `examples/quickstart.toml`.
pub const QUICKSTART: &str = include_str!("../../../examples/quickstart.toml");

/// What the built-in configuration is called in messages.
pub const QUICKSTART_ORIGIN: &str = "built-in quick start";

/// `issuer` of the built-in configuration's provider.
pub const QUICKSTART_ISSUER: &str = "breakwater-quickstart";

/// How the built-in configuration names endpoints that live in the process.
pub(super) const DEMO_PREFIX: &str = "demo:";

/// What exists only once the process runs.
#[derive(Clone, PartialEq, Eq)]
pub struct Quickstart {
    /// Where the gateway will listen; replaces the address in the text, and the port of its service.
    pub listen: SocketAddr,
    /// Where the demo site listens.
    pub site: SocketAddr,
    /// Where the demo GraphQL service listens.
    pub graphql: SocketAddr,
    /// The generated HMAC secret; see [`Quickstart::secret_from`].
    pub secret: Vec<u8>,
}

impl Quickstart {
    /// Spells random bytes as text, so that the secret survives in a file whose final newline is not part of it.
    pub fn secret_from(random: [u8; 32]) -> Vec<u8> {
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD
            .encode(random)
            .into_bytes()
    }

    pub(super) fn demo(&self, name: &str) -> Option<SocketAddr> {
        match name {
            "site" => Some(self.site),
            "graphql" => Some(self.graphql),
            _ => None,
        }
    }

    /// Loads the built-in configuration around these values.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let options = LoadOptions {
            quickstart: Some(self),
            ..LoadOptions::default()
        };
        let Loaded { mut config, .. } = load::parse(QUICKSTART, QUICKSTART_ORIGIN, Path::new(""), &options)?;
        for listener in &mut config.listeners {
            listener.address = self.listen;
        }
        for service in &mut config.services {
            service.port = self.listen.port();
        }
        Ok(config)
    }
}
