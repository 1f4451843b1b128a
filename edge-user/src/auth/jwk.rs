//! JWKS documents (RFC 7517) into keys.
//!
//! Keys that this gateway cannot or must not use (encryption keys, unknown types, weak ones, shared secrets from the
//! network) are left out with a reason; a document with no usable key at all is an error, so that a broken answer
//! never replaces good keys.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};
use std::str::FromStr;
use thiserror::Error;

use super::{
    json,
    key::{Key, KeyError, Material},
    keyset::MAX_KEYS,
};

/// Why a whole document is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JwksError {
    /// Not one JSON object with unique names.
    #[error("not a JSON object: {0}")]
    Json(String),
    /// There is no `keys` array of objects.
    #[error("no array \"keys\" of objects")]
    NoKeys,
    /// More keys than are kept.
    #[error("{0} keys; at most {MAX_KEYS} are accepted")]
    TooMany(usize),
    /// Nothing in it can be used.
    #[error("no usable key{}", list(.0))]
    NoneUsable(Vec<Skipped>),
}

/// A key that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("key {position} (kid {kid:?}): {reason}")]
pub struct Skipped {
    /// Position in `keys`, from 0.
    pub position: usize,
    /// Its `kid`.
    pub kid: Option<String>,
    /// Why.
    pub reason: SkipReason,
}

/// Why a key of a document is left out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SkipReason {
    /// A member that the key's type needs is absent, or not a string, or not canonical base64url.
    #[error("member {0:?} is missing or malformed")]
    Member(&'static str),
    /// `kty` or `crv` that is not supported.
    #[error("unsupported key type or curve")]
    Unsupported,
    /// `use` or `key_ops` says that it is not for signatures.
    #[error("not for verifying signatures")]
    Purpose,
    /// `alg` is not one of the provider's.
    #[error("its alg is not accepted")]
    Algorithm,
    /// A shared secret where none may come from.
    #[error("shared secrets are not accepted from a URL")]
    Secret,
    /// The material is weak, invalid or unfit.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Where a document comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A file of the operator's: shared secrets are welcome.
    File,
    /// A URL: anybody may read it, so a secret in it is none.
    Url,
}

/// Usable keys of a document, and what was left out.
pub(super) struct Parsed {
    pub(super) keys: Vec<Key>,
    pub(super) skipped: Vec<Skipped>,
}

/// Reads a document for a provider with these algorithms.
pub(super) fn parse(document: &[u8], algorithms: &[Algorithm], origin: Origin) -> Result<Parsed, JwksError> {
    let map = json::parse_object(document).map_err(|error| JwksError::Json(error.to_string()))?;
    let Some(Value::Array(list)) = map.get("keys") else {
        return Err(JwksError::NoKeys);
    };
    if list.len() > MAX_KEYS {
        return Err(JwksError::TooMany(list.len()));
    }
    let mut parsed = Parsed {
        keys: Vec::new(),
        skipped: Vec::new(),
    };
    for (position, value) in list.iter().enumerate() {
        let Value::Object(jwk) = value else {
            return Err(JwksError::NoKeys);
        };
        match key(jwk, algorithms, origin) {
            Ok(key) => parsed.keys.push(key),
            Err(reason) => {
                let kid = jwk.get("kid").and_then(Value::as_str).map(ToOwned::to_owned);
                parsed.skipped.push(Skipped {
                    position,
                    kid,
                    reason,
                });
            }
        }
    }
    if parsed.keys.is_empty() {
        return Err(JwksError::NoneUsable(parsed.skipped));
    }
    Ok(parsed)
}

fn key(jwk: &Map<String, Value>, algorithms: &[Algorithm], origin: Origin) -> Result<Key, SkipReason> {
    check_purpose(jwk)?;
    let kid = match jwk.get("kid") {
        None => None,
        Some(Value::String(kid)) => Some(kid.as_str()),
        Some(_) => return Err(SkipReason::Member("kid")),
    };
    // RFC 7517 section 4.4: a key that names its algorithm serves no other (RFC 8725 section 3.1).
    let own = match jwk.get("alg") {
        None => algorithms.to_vec(),
        Some(Value::String(name)) => match Algorithm::from_str(name) {
            Ok(algorithm) if algorithms.contains(&algorithm) => vec![algorithm],
            _ => return Err(SkipReason::Algorithm),
        },
        Some(_) => return Err(SkipReason::Member("alg")),
    };
    let build = |material: &Material<'_>| Ok(Key::new(kid, material, &own)?);
    match (text(jwk, "kty")?, jwk.get("crv").and_then(Value::as_str)) {
        ("RSA", _) => {
            let (n, e) = (bytes(jwk, "n")?, bytes(jwk, "e")?);
            // Some issuers pad the modulus to a whole number of bytes with a zero (RFC 7518 section 6.3.1.1).
            build(&Material::Rsa {
                n: without_zeros(&n),
                e: without_zeros(&e),
            })
        }
        ("EC", Some("P-256")) => build(&Material::P256(&point(jwk, 32)?)),
        ("EC", Some("P-384")) => build(&Material::P384(&point(jwk, 48)?)),
        ("OKP", Some("Ed25519")) => match bytes(jwk, "x")? {
            x if x.len() == 32 => build(&Material::Ed25519(&x)),
            _ => Err(SkipReason::Member("x")),
        },
        ("oct", _) => match origin {
            Origin::File => build(&Material::Secret(&bytes(jwk, "k")?)),
            Origin::Url => Err(SkipReason::Secret),
        },
        _ => Err(SkipReason::Unsupported),
    }
}

/// RFC 7517 sections 4.2 and 4.3.
fn check_purpose(jwk: &Map<String, Value>) -> Result<(), SkipReason> {
    match jwk.get("use") {
        None => {}
        Some(Value::String(purpose)) if purpose == "sig" => {}
        Some(_) => return Err(SkipReason::Purpose),
    }
    match jwk.get("key_ops") {
        None => Ok(()),
        Some(Value::Array(operations)) if operations.iter().any(|operation| operation == "verify") => Ok(()),
        Some(_) => Err(SkipReason::Purpose),
    }
}

/// Uncompressed point (SEC 1 section 2.3.3) from coordinates of full length (RFC 7518 section 6.2.1.2).
fn point(jwk: &Map<String, Value>, length: usize) -> Result<Vec<u8>, SkipReason> {
    let mut point = vec![4];
    for name in ["x", "y"] {
        let coordinate = bytes(jwk, name)?;
        if coordinate.len() != length {
            return Err(SkipReason::Member(name));
        }
        point.extend_from_slice(&coordinate);
    }
    Ok(point)
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &'static str) -> Result<&'a str, SkipReason> {
    jwk.get(name)
        .and_then(Value::as_str)
        .ok_or(SkipReason::Member(name))
}

fn bytes(jwk: &Map<String, Value>, name: &'static str) -> Result<Vec<u8>, SkipReason> {
    URL_SAFE_NO_PAD
        .decode(text(jwk, name)?)
        .map_err(|_| SkipReason::Member(name))
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn list(skipped: &[Skipped]) -> String {
    skipped
        .iter()
        .fold(String::new(), |text, key| text + "; " + &key.to_string())
}
