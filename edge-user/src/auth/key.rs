//! One verification key, parsed once, and the signatures it may judge.
//!
//! A key knows from its own material which algorithms it can serve, and answers for no other: an RSA key never
//! checks an HMAC, a P-256 key never checks ES384. Weak keys cannot be built. Verification is aws-lc's; holding the
//! parsed key instead of its bytes saves parsing it again for every token.

use std::fmt;

use aws_lc_rs::{
    digest,
    encoding::AsDer,
    hmac,
    rsa::{PublicKey as RsaPublicKey, PublicKeyComponents},
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
        RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
        VerificationAlgorithm,
    },
};
use jsonwebtoken::Algorithm;
use thiserror::Error;

/// Smallest RSA modulus, in bits (RFC 7518 section 3.3).
pub(super) const MIN_RSA_BITS: u32 = 2048;
/// Largest RSA modulus, in bits: verification time grows with its square.
pub(super) const MAX_RSA_BITS: u32 = 8192;

/// Why key material is not used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The shared secret has no bytes.
    #[error("the secret is empty")]
    EmptySecret,
    /// RFC 7518 section 3.2: the secret must be as long as the hash.
    #[error("the secret has {have} bytes; {algorithm:?} needs at least {need}")]
    ShortSecret {
        /// Bytes there are.
        have: usize,
        /// Bytes there should be.
        need: usize,
        /// For which algorithm.
        algorithm: Algorithm,
    },
    /// Too small or too large.
    #[error("RSA key of {bits} bits; from {MIN_RSA_BITS} to {MAX_RSA_BITS} are accepted")]
    RsaSize {
        /// Its modulus.
        bits: u32,
    },
    /// Not a key of a supported kind, or not a valid one.
    #[error("not a valid RSA, P-256, P-384 or Ed25519 public key")]
    Invalid,
    /// An Ed25519 point of small order: signatures for it can be made without a private key.
    #[error("an Ed25519 key of small order, which protects nothing")]
    SmallOrder,
    /// A fine key that no accepted algorithm can use.
    #[error("none of the provider's algorithms fits this key")]
    NoAlgorithm,
}

/// One key of a provider.
pub(super) struct Key {
    kid: Option<Box<str>>,
    verifiers: Vec<(Algorithm, Verifier)>,
    id: KeyId,
}

/// Identity of a key: equal exactly for the same material of the same kind under the same `kid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyId([u8; 32]);

enum Verifier {
    Hmac(Box<hmac::Key>),
    Public(ParsedPublicKey),
}

/// Key material before it is known which algorithms it will serve.
pub(super) enum Material<'a> {
    /// Shared secret.
    Secret(&'a [u8]),
    /// SubjectPublicKeyInfo of RFC 5280, DER: any public key.
    Spki(&'a [u8]),
    /// `RSAPublicKey` of RFC 8017, DER.
    Pkcs1(&'a [u8]),
    /// RSA modulus and exponent, big-endian without leading zeros.
    Rsa { n: &'a [u8], e: &'a [u8] },
    /// Uncompressed point on P-256.
    P256(&'a [u8]),
    /// Uncompressed point on P-384.
    P384(&'a [u8]),
    /// Ed25519 public key, 32 bytes.
    Ed25519(&'a [u8]),
}

impl Key {
    /// Parses material for those of `algorithms` that it can serve.
    pub(super) fn new(
        kid: Option<&str>,
        material: &Material<'_>,
        algorithms: &[Algorithm],
    ) -> Result<Self, KeyError> {
        let (verifiers, identity) = match *material {
            Material::Secret(secret) => secret_verifiers(secret, algorithms)?,
            Material::Rsa { n, e } => {
                let spki = PublicKeyComponents { n, e }
                    .as_der()
                    .map_err(|_| KeyError::Invalid)?;
                rsa_verifiers(spki.as_ref(), algorithms)?
            }
            Material::Pkcs1(der) => rsa_verifiers(der, algorithms)?,
            Material::P256(point) => {
                curve_verifiers(Algorithm::ES256, &ECDSA_P256_SHA256_FIXED, point, algorithms)?
            }
            Material::P384(point) => {
                curve_verifiers(Algorithm::ES384, &ECDSA_P384_SHA384_FIXED, point, algorithms)?
            }
            Material::Ed25519(point) => ed25519_verifiers(point, algorithms)?,
            Material::Spki(der) => spki_verifiers(der, algorithms)?,
        };
        if verifiers.is_empty() {
            return Err(KeyError::NoAlgorithm);
        }
        Ok(Self {
            kid: kid.map(Into::into),
            verifiers,
            id: KeyId::of(kid, &identity),
        })
    }

    /// Key id, if it has one.
    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Identity of the material.
    pub(super) fn id(&self) -> KeyId {
        self.id
    }

    /// Algorithms it serves.
    pub(super) fn algorithms(&self) -> impl Iterator<Item = Algorithm> {
        self.verifiers.iter().map(|(algorithm, _)| *algorithm)
    }

    /// Whether it serves this algorithm.
    pub(super) fn serves(&self, algorithm: Algorithm) -> bool {
        self.algorithms().any(|own| own == algorithm)
    }

    /// Whether `signature` is this key's over `message`; never for an algorithm it does not serve.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match self.verifiers.iter().find(|(own, _)| *own == algorithm) {
            // Compared in constant time, and only at full length.
            Some((_, Verifier::Hmac(key))) => hmac::verify(key, message, signature).is_ok(),
            Some((_, Verifier::Public(key))) => key.verify_sig(message, signature).is_ok(),
            None => false,
        }
    }
}

/// Says what it is for, never what it is.
impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Key")
            .field("kid", &self.kid)
            .field("algorithms", &self.algorithms().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl KeyId {
    fn of(kid: Option<&str>, identity: &Identity) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&[u8::from(identity.secret), u8::from(kid.is_some())]);
        let kid = kid.unwrap_or_default();
        context.update(&(kid.len() as u64).to_le_bytes());
        context.update(kid.as_bytes());
        context.update(&identity.bytes);
        let mut id = [0; 32];
        id.copy_from_slice(context.finish().as_ref());
        Self(id)
    }
}

struct Identity {
    secret: bool,
    bytes: Vec<u8>,
}

type Verifiers = (Vec<(Algorithm, Verifier)>, Identity);

fn secret_verifiers(secret: &[u8], algorithms: &[Algorithm]) -> Result<Verifiers, KeyError> {
    if secret.is_empty() {
        return Err(KeyError::EmptySecret);
    }
    let mut verifiers = Vec::new();
    for algorithm in algorithms.iter().copied() {
        let Some(hash) = hmac_algorithm(algorithm) else {
            continue;
        };
        let need = hash.tag_len();
        if secret.len() < need {
            return Err(KeyError::ShortSecret {
                have: secret.len(),
                need,
                algorithm,
            });
        }
        verifiers.push((algorithm, Verifier::Hmac(Box::new(hmac::Key::new(hash, secret)))));
    }
    Ok((
        verifiers,
        Identity {
            secret: true,
            bytes: secret.to_vec(),
        },
    ))
}

fn rsa_verifiers(der: &[u8], algorithms: &[Algorithm]) -> Result<Verifiers, KeyError> {
    let key = RsaPublicKey::from_der(der).map_err(|_| KeyError::Invalid)?;
    let bits = RsaParameters::public_modulus_len(key.as_ref()).map_err(|_| KeyError::Invalid)?;
    if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
        return Err(KeyError::RsaSize { bits });
    }
    let mut verifiers = Vec::new();
    for algorithm in algorithms.iter().copied() {
        let Some(parameters) = rsa_parameters(algorithm) else {
            continue;
        };
        let parsed = ParsedPublicKey::new(parameters, key.as_ref()).map_err(|_| KeyError::Invalid)?;
        verifiers.push((algorithm, Verifier::Public(parsed)));
    }
    Ok((
        verifiers,
        Identity {
            secret: false,
            bytes: key.as_ref().to_vec(),
        },
    ))
}

fn curve_verifiers(
    algorithm: Algorithm,
    verification: &'static dyn VerificationAlgorithm,
    bytes: &[u8],
    algorithms: &[Algorithm],
) -> Result<Verifiers, KeyError> {
    // Parsing also checks that the point lies on the curve.
    let key = ParsedPublicKey::new(verification, bytes).map_err(|_| KeyError::Invalid)?;
    let spki = key.as_der().map_err(|_| KeyError::Invalid)?;
    let identity = Identity {
        secret: false,
        bytes: spki.as_ref().to_vec(),
    };
    let verifiers = if algorithms.contains(&algorithm) {
        vec![(algorithm, Verifier::Public(key))]
    } else {
        Vec::new()
    };
    Ok((verifiers, identity))
}

/// SubjectPublicKeyInfo of an Ed25519 key up to the point (RFC 8410 section 4); DER has one spelling.
const ED25519_SPKI_HEAD: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

fn ed25519_verifiers(point: &[u8], algorithms: &[Algorithm]) -> Result<Verifiers, KeyError> {
    let Ok(mut y) = <[u8; 32]>::try_from(point) else {
        return Err(KeyError::Invalid);
    };
    // The top bit is the sign of x; either sign is of small order if the other is.
    y[31] &= 0x7f;
    if SMALL_ORDER.contains(&y) {
        return Err(KeyError::SmallOrder);
    }
    curve_verifiers(Algorithm::EdDSA, &ED25519, point, algorithms)
}

/// The y coordinates of Ed25519's points of order 1, 2, 4 and 8, little-endian, with the spellings above the prime.
const SMALL_ORDER: [[u8; 32]; 7] = [
    near_zero(0),
    near_zero(1),
    near_prime(0xec),
    near_prime(0xed),
    near_prime(0xee),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5,
        0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a,
        0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
];

const fn near_zero(lowest: u8) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0] = lowest;
    bytes
}

const fn near_prime(lowest: u8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = lowest;
    bytes[31] = 0x7f;
    bytes
}

fn spki_verifiers(der: &[u8], algorithms: &[Algorithm]) -> Result<Verifiers, KeyError> {
    if let Some(point) = der.strip_prefix(&ED25519_SPKI_HEAD) {
        return ed25519_verifiers(point, algorithms);
    }
    let curves: [(Algorithm, &'static dyn VerificationAlgorithm); 2] = [
        (Algorithm::ES256, &ECDSA_P256_SHA256_FIXED),
        (Algorithm::ES384, &ECDSA_P384_SHA384_FIXED),
    ];
    for (algorithm, verification) in curves {
        if let Ok(verifiers) = curve_verifiers(algorithm, verification, der, algorithms) {
            return Ok(verifiers);
        }
    }
    rsa_verifiers(der, algorithms)
}

fn hmac_algorithm(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        Algorithm::HS256 => Some(hmac::HMAC_SHA256),
        Algorithm::HS384 => Some(hmac::HMAC_SHA384),
        Algorithm::HS512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        Algorithm::RS256 => Some(&RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Some(&RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Some(&RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Some(&RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Some(&RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Some(&RSA_PSS_2048_8192_SHA512),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The identity as R and 0 as S: verifies for a point of small order whenever the hash is a multiple of its order.
    #[test]
    fn points_of_small_order_are_forgeable_and_refused() {
        let mut forgery = [0; 64];
        forgery[0] = 1;
        let mut forgeable = 0;
        for y in SMALL_ORDER {
            for sign in [0, 0x80] {
                let mut point = y;
                point[31] |= sign;
                let refused = Key::new(None, &Material::Ed25519(&point), &[Algorithm::EdDSA]);
                assert_eq!(refused.map(|_| ()), Err(KeyError::SmallOrder));
                let spki = [ED25519_SPKI_HEAD.as_slice(), &point].concat();
                let refused = Key::new(None, &Material::Spki(&spki), &[Algorithm::EdDSA]);
                assert_eq!(refused.map(|_| ()), Err(KeyError::SmallOrder));
                // Some spellings are refused below as well; those that are not can be forged for, as said.
                let Ok(parsed) = ParsedPublicKey::new(&ED25519, point) else {
                    continue;
                };
                let is_forged =
                    (0..200_u32).any(|number| parsed.verify_sig(&number.to_le_bytes(), &forgery).is_ok());
                forgeable += usize::from(is_forged);
            }
        }
        assert!(forgeable > 0, "if nothing is forgeable, the list is not needed");
        println!("{forgeable} of 14 spellings are forgeable without the list");
    }

    #[test]
    fn odd_rsa_exponents_are_refused() {
        let n = [0xff; 256];
        for e in [&[1_u8][..], &[2], &[0], &[], &[0xff; 9], &[1, 0, 0]] {
            let key = Key::new(None, &Material::Rsa { n: &n, e }, &[Algorithm::RS256]);
            assert_eq!(key.map(|_| ()), Err(KeyError::Invalid), "{e:?}");
        }
        assert!(Key::new(None, &Material::Rsa { n: &n, e: &[1, 0, 1] }, &[Algorithm::RS256]).is_ok());
    }
}
