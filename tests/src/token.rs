//! Keys and JSON Web Tokens, good and bad.
//!
//! Signs with the same library as the gateway verifies with; what a test forges it forges on the finished text, so a
//! mistake shared by both sides cannot hide it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa::{KeyPair, KeySize},
    signature::KeyPair as _,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rand::RngCore;
use serde_json::{Value, json};

/// Issuer of [`claims`].
pub const ISSUER: &str = "https://issuer.test";
/// Audience of [`claims`].
pub const AUDIENCE: &str = "breakwater";

/// A key that signs, and what the verifier needs of it.
pub struct Signer {
    algorithm: Algorithm,
    signing: EncodingKey,
    verifying: Vec<u8>,
}

impl Signer {
    /// HS256 with a fresh random secret of 32 bytes, printable so that it survives any file.
    pub fn hs256() -> Self {
        let mut random = [0; 32];
        rand::rng().fill_bytes(&mut random);
        Self::hs256_with(STANDARD.encode(random).as_bytes())
    }

    /// HS256 with this secret.
    pub fn hs256_with(secret: &[u8]) -> Self {
        Self {
            algorithm: Algorithm::HS256,
            signing: EncodingKey::from_secret(secret),
            verifying: secret.to_vec(),
        }
    }

    /// RS256 with a fresh key of 2048 bits.
    pub fn rs256() -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("an RSA key can be made");
        let private: Pkcs8V1Der<'_> = pair.as_der().expect("an RSA key can be written");
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("an RSA key can be written");
        Self {
            algorithm: Algorithm::RS256,
            signing: EncodingKey::from_rsa_pem(pem("PRIVATE KEY", private.as_ref()).as_bytes())
                .expect("our own PEM is readable"),
            verifying: pem("PUBLIC KEY", public.as_ref()).into_bytes(),
        }
    }

    /// `HS256` or `RS256`.
    pub fn algorithm_name(&self) -> &'static str {
        if self.algorithm == Algorithm::RS256 {
            "RS256"
        } else {
            "HS256"
        }
    }

    /// Content of the file that the verifier is configured with: the secret, or the public key as PEM.
    pub fn verifying_key(&self) -> &[u8] {
        &self.verifying
    }

    /// A signed token.
    pub fn sign(&self, claims: &Value) -> String {
        encode(&Header::new(self.algorithm), claims, &self.signing).expect("claims can be signed")
    }

    /// A signed token that is good for ten minutes.
    pub fn token(&self) -> String {
        self.sign(&claims("somebody"))
    }
}

/// Claims of a token that is good from now on for ten minutes.
pub fn claims(subject: &str) -> Value {
    let now = unix_now();
    json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": now, "nbf": now, "exp": now + 600 })
}

/// The claims with one of them replaced; `Value::Null` removes it.
#[must_use]
pub fn with(mut claims: Value, name: &str, value: Value) -> Value {
    let object = claims.as_object_mut().expect("claims are an object");
    if value.is_null() {
        object.remove(name);
    } else {
        object.insert(name.to_owned(), value);
    }
    claims
}

/// The token with another first character in its signature.
pub fn forged(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').expect("a token has three parts");
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    format!("{signed}.{first}{}", &signature[1..])
}

/// Seconds since 1970.
pub fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation, decode};

    use super::*;

    fn accepts(signer: &Signer, token: &str) -> bool {
        let key = match signer.algorithm {
            Algorithm::RS256 => DecodingKey::from_rsa_pem(signer.verifying_key()).unwrap(),
            _ => DecodingKey::from_secret(signer.verifying_key()),
        };
        let mut validation = Validation::new(signer.algorithm);
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[ISSUER]);
        decode::<Value>(token, &key, &validation).is_ok()
    }

    #[test]
    fn tokens_are_good_and_forgeries_are_not() {
        for signer in [Signer::hs256(), Signer::rs256()] {
            let token = signer.token();
            assert!(accepts(&signer, &token));
            assert!(!accepts(&signer, &forged(&token)));
            let expired = signer.sign(&with(claims("somebody"), "exp", (unix_now() - 3600).into()));
            assert!(!accepts(&signer, &expired));
        }
    }
}
