//! Signers, tokens and requests for tests and benches of authentication.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    encoding::AsDer,
    hmac,
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
        KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
        RSA_PSS_SHA512, RsaEncoding,
    },
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use edge_user::{
    auth::RequestView,
    config::{AuthRule, KeySource, Provider, TokenChecks, TokenForwarding, TokenSource},
};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

/// The second at which every test takes place.
pub(crate) const NOW: i64 = 1_800_000_000;

pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW as u64)
}

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Private key of any kind.
pub(crate) enum Signer {
    Secret(Vec<u8>),
    Rsa(&'static RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    pub(crate) fn secret(seed: &str) -> Self {
        Self::Secret(seed.bytes().cycle().take(64).collect())
    }

    /// The first of three RSA keys that all tests of a program share: making one takes long.
    /// The secret as a provider's key.
    pub(crate) fn secret_source(&self) -> KeySource {
        match self {
            Self::Secret(secret) => KeySource::Generated(secret.clone()),
            _ => panic!("not a shared secret"),
        }
    }

    pub(crate) fn rsa() -> Self {
        Self::rsa_number(0)
    }

    /// Another of the shared RSA keys.
    pub(crate) fn rsa_number(number: usize) -> Self {
        static PAIRS: [OnceLock<RsaKeyPair>; 3] = [const { OnceLock::new() }; 3];
        Self::Rsa(PAIRS[number].get_or_init(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
    }

    /// A key of the same kind that is not this one.
    pub(crate) fn stranger(&self) -> Self {
        match self {
            Self::Secret(_) => Self::secret("another shared secret"),
            Self::Rsa(_) => Self::rsa_number(1),
            Self::P256(_) => Self::p256(),
            Self::P384(_) => Self::p384(),
            Self::Ed(_) => Self::ed(),
        }
    }

    pub(crate) fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn p384() -> Self {
        Self::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn ed() -> Self {
        Self::Ed(Ed25519KeyPair::generate().unwrap())
    }

    pub(crate) fn of(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => Self::secret("a shared secret"),
            Algorithm::ES256 => Self::p256(),
            Algorithm::ES384 => Self::p384(),
            Algorithm::EdDSA => Self::ed(),
            _ => Self::rsa(),
        }
    }

    pub(crate) fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Secret(secret) => {
                let hash = match algorithm {
                    Algorithm::HS384 => hmac::HMAC_SHA384,
                    Algorithm::HS512 => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(hash, secret), message)
                    .as_ref()
                    .to_vec()
            }
            Self::Rsa(pair) => {
                let padding: &'static dyn RsaEncoding = match algorithm {
                    Algorithm::RS384 => &RSA_PKCS1_SHA384,
                    Algorithm::RS512 => &RSA_PKCS1_SHA512,
                    Algorithm::PS256 => &RSA_PSS_SHA256,
                    Algorithm::PS384 => &RSA_PSS_SHA384,
                    Algorithm::PS512 => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
            Self::P256(pair) | Self::P384(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// A signed compact JWS of a header and a payload as they stand.
    pub(crate) fn raw(&self, algorithm: Algorithm, header: &str, payload: &str) -> String {
        let message = format!("{}.{}", b64(header), b64(payload));
        let signature = self.sign(algorithm, message.as_bytes());
        format!("{message}.{}", b64(signature))
    }

    pub(crate) fn token(&self, algorithm: Algorithm, kid: Option<&str>, claims: &Value) -> String {
        let mut header = json!({"alg": format!("{algorithm:?}"), "typ": "JWT"});
        if let Some(kid) = kid {
            header["kid"] = json!(kid);
        }
        self.raw(algorithm, &header.to_string(), &claims.to_string())
    }

    pub(crate) fn jwk(&self, kid: Option<&str>) -> Value {
        let mut jwk = match self {
            Self::Secret(secret) => json!({"kty": "oct", "k": b64(secret)}),
            Self::Rsa(pair) => {
                let (n, e) = rsa_components(pair.public_key().as_ref());
                json!({"kty": "RSA", "n": b64(n), "e": b64(e)})
            }
            Self::P256(pair) => ec_jwk("P-256", pair.public_key().as_ref()),
            Self::P384(pair) => ec_jwk("P-384", pair.public_key().as_ref()),
            Self::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key().as_ref())}),
        };
        if let Some(kid) = kid {
            jwk["kid"] = json!(kid);
        }
        jwk
    }

    pub(crate) fn spki(&self) -> Vec<u8> {
        match self {
            Self::Secret(_) => panic!("a secret has no public key"),
            Self::Rsa(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
            Self::P256(pair) | Self::P384(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
        }
    }

    pub(crate) fn pem(&self) -> String {
        pem("PUBLIC KEY", &self.spki())
    }
}

pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

fn ec_jwk(curve: &str, point: &[u8]) -> Value {
    let (x, y) = point[1..].split_at((point.len() - 1) / 2);
    json!({"kty": "EC", "crv": curve, "x": b64(x), "y": b64(y)})
}

/// Modulus and exponent of an `RSAPublicKey` in DER.
pub(crate) fn rsa_components(der: &[u8]) -> (Vec<u8>, Vec<u8>) {
    fn value(der: &[u8]) -> (&[u8], &[u8]) {
        let (length, skip) = match der[1] {
            short @ 0..=0x7f => (usize::from(short), 2),
            0x81 => (usize::from(der[2]), 3),
            0x82 => (usize::from(der[2]) << 8 | usize::from(der[3]), 4),
            _ => panic!("a longer length than any key here"),
        };
        der[skip..].split_at(length)
    }
    let (body, _) = value(der);
    let (n, rest) = value(body);
    let (e, _) = value(rest);
    let strip = |number: &[u8]| number.iter().copied().skip_while(|byte| *byte == 0).collect();
    (strip(n), strip(e))
}

pub(crate) fn jwks(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// Claims that every provider of these tests accepts.
pub(crate) fn claims() -> Value {
    json!({
        "iss": "https://id.example", "aud": "edge", "sub": "alice", "jti": "t-1",
        "iat": NOW - 10, "nbf": NOW - 10, "exp": NOW + 600, "scope": "read write",
    })
}

/// The claims with some of them replaced, or removed where the value is null.
#[expect(
    clippy::needless_pass_by_value,
    reason = "written as a literal wherever it is called"
)]
pub(crate) fn claims_with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

pub(crate) fn provider(algorithms: &[Algorithm], key: KeySource) -> Provider {
    Provider {
        name: "main".into(),
        algorithms: algorithms.to_vec(),
        key,
        issuer: Some("https://id.example".into()),
        audiences: vec!["edge".into()],
        leeway: Duration::from_mins(1),
        sources: vec![
            TokenSource::Bearer,
            TokenSource::Cookie("session".into()),
            TokenSource::Header("x-token".into()),
            TokenSource::Query("access_token".into()),
        ],
        checks: TokenChecks::default(),
        forward: TokenForwarding::default(),
    }
}

pub(crate) fn rule(providers: &[usize]) -> AuthRule {
    AuthRule {
        providers: providers.to_vec(),
        scopes: Vec::new(),
        claims: Vec::new(),
        login: None,
    }
}

/// A request as the gateway shows it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) query: Option<Vec<u8>>,
}

impl Request {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn bearer(token: impl AsRef<[u8]>) -> Self {
        Self::new().header("authorization", [b"Bearer ", token.as_ref()].concat())
    }

    pub(crate) fn cookie(value: impl AsRef<[u8]>) -> Self {
        Self::new().header("cookie", value)
    }

    #[must_use]
    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers
            .push((name.to_ascii_lowercase(), value.as_ref().to_vec()));
        self
    }

    #[must_use]
    pub(crate) fn with_query(mut self, query: impl AsRef<[u8]>) -> Self {
        self.query = Some(query.as_ref().to_vec());
        self
    }
}

impl RequestView for Request {
    fn header_values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.headers
            .iter()
            .filter(move |(own, _)| own == name)
            .map(|(_, value)| value.as_slice())
    }

    fn query(&self) -> Option<&[u8]> {
        self.query.as_deref()
    }
}
