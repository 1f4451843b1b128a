//! Compact JWS (RFC 7515 section 7.1): splitting it, and reading its header.
//!
//! Strict where a lenient reader could be led astray: base64url is canonical and unpadded, the header is one JSON
//! object with unique names, `crit` and unencoded payloads are refused because no extension is understood here,
//! and keys or key addresses inside the header (`jwk`, `jku`, `x5u`, `x5c`) are never looked at. Holds no key and
//! verifies nothing.

use std::str::FromStr;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::{
    json,
    refusal::{Defect, Refusal},
};

/// Longest token looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Longest decoded header, in bytes.
const MAX_HEADER_BYTES: usize = 2 * 1024;
/// Longest key id, in bytes.
const MAX_KID_BYTES: usize = 512;
/// Longest signature, in bytes: RSA with 8192 bits.
const MAX_SIGNATURE_BYTES: usize = 1024;

/// A token taken apart; nothing about it is verified.
#[derive(Debug)]
pub(super) struct Jws<'a> {
    /// From the header.
    pub(super) algorithm: Algorithm,
    /// From the header.
    pub(super) kid: Option<String>,
    /// From the header, lower case, without `application/`.
    pub(super) typ: Option<String>,
    /// What is signed: header, dot, payload, all still encoded.
    pub(super) message: &'a [u8],
    payload: &'a [u8],
    /// Decoded signature.
    pub(super) signature: Vec<u8>,
}

impl<'a> Jws<'a> {
    /// Splits a compact JWS and reads its header.
    pub(super) fn parse(token: &'a [u8]) -> Result<Self, Refusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Defect::TooLong.into());
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Defect::Parts.into());
        };
        let message = &token[..header.len() + 1 + payload.len()];
        let fields = Header::read(&decode(header, MAX_HEADER_BYTES)?)?;
        if payload.is_empty() || signature.is_empty() {
            return Err(Defect::Parts.into());
        }
        Ok(Self {
            algorithm: fields.algorithm,
            kid: fields.kid,
            typ: fields.typ,
            message,
            payload,
            signature: decode(signature, MAX_SIGNATURE_BYTES)?,
        })
    }

    /// The claims as the payload spells them.
    pub(super) fn claims(&self) -> Result<Map<String, Value>, Refusal> {
        let bytes = decode(self.payload, MAX_TOKEN_BYTES)?;
        json::parse_object(&bytes).map_err(|_| Defect::Payload.into())
    }
}

/// The claims of a compact JWS, nothing else of it being looked at.
pub(super) fn claims_of(token: &[u8]) -> Option<Map<String, Value>> {
    let payload = token.split(|byte| *byte == b'.').nth(1)?;
    json::parse_object(&decode(payload, MAX_TOKEN_BYTES).ok()?).ok()
}

/// Decodes canonical base64url without padding (RFC 7515 section 2): every value has one spelling.
fn decode(text: &[u8], limit: usize) -> Result<Vec<u8>, Refusal> {
    if text.len() / 4 * 3 > limit {
        return Err(Defect::TooLong.into());
    }
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Defect::Base64.into())
}

struct Header {
    algorithm: Algorithm,
    kid: Option<String>,
    typ: Option<String>,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut map = json::parse_object(bytes).map_err(|_| Refusal::from(Defect::Header))?;
        // RFC 7515 section 4.1.11: an extension that is not understood must be refused, and none is. `b64` counts
        // only when `crit` lists it (RFC 7797 section 6), so it is an error or a trick here.
        if map.contains_key("crit") || map.contains_key("b64") {
            return Err(Refusal::CriticalExtension);
        }
        // An encrypted or compressed token is not a JWS of this gateway.
        if map.contains_key("enc") || map.contains_key("zip") {
            return Err(Defect::Header.into());
        }
        let algorithm = match map.get("alg") {
            Some(Value::String(name)) => Algorithm::from_str(name).map_err(|_| Refusal::AlgorithmRefused)?,
            Some(_) | None => return Err(Refusal::AlgorithmRefused),
        };
        let kid = text(&mut map, "kid")?;
        if kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
            return Err(Defect::TooLong.into());
        }
        let typ = text(&mut map, "typ")?.map(|typ| normal_type(&typ));
        // RFC 7519 section 5.2: a nested token says so; its claims are not these claims.
        if text(&mut map, "cty")?.is_some_and(|cty| normal_type(&cty) == "jwt") {
            return Err(Refusal::WrongType);
        }
        Ok(Self { algorithm, kid, typ })
    }
}

fn text(map: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Refusal> {
    match map.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Defect::Header.into()),
    }
}

/// Media types compare without case and without `application/` (RFC 7515 section 4.1.9).
pub(super) fn normal_type(typ: &str) -> String {
    let lower = typ.to_ascii_lowercase();
    match lower.strip_prefix("application/") {
        Some(short) if !short.contains('/') => short.to_owned(),
        _ => lower,
    }
}
