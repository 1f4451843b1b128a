//! No change of a valid token, however small, is accepted; nor is any signature that the mathematics forbids.

use std::sync::Arc;

use edge_user::{
    auth::{Authenticator, Authority, Outcome},
    config::{AuthPolicy, KeySource},
};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::{algorithms::ALL, support::*};

struct Door {
    authenticator: Authenticator,
    policy: AuthPolicy,
    signer: Signer,
    algorithm: Algorithm,
}

impl Door {
    fn new(algorithm: Algorithm) -> Self {
        let directory = TempDir::new().unwrap();
        let signer = Signer::of(algorithm);
        let key = if let Signer::Secret(secret) = &signer {
            KeySource::Generated(secret.clone())
        } else {
            let path = directory.path().join("jwks");
            std::fs::write(&path, jwks(&[signer.jwk(Some("k"))])).unwrap();
            KeySource::JwksFile(path)
        };
        let authority = Authority::load(&[provider(&[algorithm], key)], None, None, now()).unwrap();
        let policy = AuthPolicy::Required(rule(&[0]));
        Self {
            authenticator: Authenticator::new(Arc::new(authority)),
            policy,
            signer,
            algorithm,
        }
    }

    fn token(&self) -> String {
        self.signer.token(self.algorithm, Some("k"), &claims())
    }

    fn accepts(&self, token: &[u8]) -> bool {
        // In a header of its own: Authorization would take spaces at the token's ends away first.
        let request = Request::cookie([b"session=", token].concat());
        matches!(
            self.authenticator.authenticate(&self.policy, &request, now()),
            Ok(Outcome::Verified(_))
        )
    }

    fn accepts_signature(&self, signature: &[u8]) -> bool {
        let token = self.token();
        let message = token.rsplit_once('.').unwrap().0;
        self.accepts(format!("{message}.{}", b64(signature)).as_bytes())
    }
}

/// Bytes that end or frame a cookie's value, so that the token itself arrives unchanged.
fn is_framing(byte: u8) -> bool {
    matches!(byte, b';' | b' ' | b'\t' | b'"')
}

#[test]
fn every_single_edit_is_refused() {
    for algorithm in [Algorithm::HS256, Algorithm::ES256, Algorithm::EdDSA] {
        let door = Door::new(algorithm);
        let good = door.token().into_bytes();
        assert!(door.accepts(&good));
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut flipped = good.clone();
                flipped[at] ^= 1 << bit;
                assert!(!door.accepts(&flipped), "{algorithm:?}: bit {bit} of byte {at}");
            }
            let mut without = good.clone();
            without.remove(at);
            assert!(!door.accepts(&without), "{algorithm:?}: without byte {at}");
            assert!(!door.accepts(&good[..at]), "{algorithm:?}: cut at {at}");
            let mut doubled = good.clone();
            doubled.insert(at, good[at]);
            assert!(!door.accepts(&doubled), "{algorithm:?}: byte {at} twice");
        }
        // Still good, and still known.
        assert!(door.accepts(&good));
    }
}

#[test]
fn every_flip_in_an_rsa_token_is_refused() {
    let door = Door::new(Algorithm::PS256);
    let good = door.token().into_bytes();
    assert!(door.accepts(&good));
    for at in 0..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        assert!(!door.accepts(&flipped), "byte {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_edit_of_a_valid_token_is_accepted(
        at in any::<prop::sample::Index>(),
        cut in 0_usize..40,
        put in prop::collection::vec(any::<u8>().prop_filter("framing", |byte| !is_framing(*byte)), 0..40),
        is_known in any::<bool>(),
    ) {
        let door = Door::new(Algorithm::HS256);
        let good = door.token().into_bytes();
        if is_known {
            prop_assert!(door.accepts(&good));
        }
        let start = at.index(good.len() + 1);
        let end = (start + cut).min(good.len());
        let edited = [&good[..start], &put, &good[end..]].concat();
        prop_assume!(edited != good);
        prop_assert!(!door.accepts(&edited));
    }

    #[test]
    fn garbage_never_panics(token in prop::collection::vec(any::<u8>(), 0..300), query in any::<Vec<u8>>()) {
        let door = Door::new(Algorithm::HS256);
        let request = Request::bearer(&token).header("cookie", &token).header("x-token", &token).with_query(&query);
        prop_assert!(door.authenticator.authenticate(&door.policy, &request, now()).is_err());
    }
}

/// The order of P-256's group, and P-384's.
const N256: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
const N384: &str =
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973";

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// `left - right` of big-endian numbers of one length.
fn minus(left: &[u8], right: &[u8]) -> Vec<u8> {
    let mut result = left.to_vec();
    let mut borrow = 0;
    for (byte, other) in result.iter_mut().zip(right).rev() {
        let difference = i16::from(*byte) - i16::from(*other) - borrow;
        borrow = i16::from(difference < 0);
        *byte = difference.rem_euclid(256) as u8;
    }
    result
}

#[test]
fn ecdsa_signatures_outside_the_range_are_refused() {
    for (algorithm, order, length) in [(Algorithm::ES256, N256, 32), (Algorithm::ES384, N384, 48)] {
        let door = Door::new(algorithm);
        let order = unhex(order);
        let token = door.token();
        let message = token.rsplit_once('.').unwrap().0.to_owned();
        let real = door.signer.sign(algorithm, message.as_bytes());
        assert!(door.accepts_signature(&real));
        let (r, s) = real.split_at(length);
        let (zero, ones) = (vec![0; length], vec![0xff; length]);
        let mut one = zero.clone();
        one[length - 1] = 1;
        let mut above = order.clone();
        above[length - 1] += 1;
        let limits = [zero.as_slice(), &one, &order, &above, &ones];
        for limit in limits {
            assert!(
                !door.accepts_signature(&[limit, s].concat()),
                "{algorithm:?}: r = {limit:?}"
            );
            assert!(
                !door.accepts_signature(&[r, limit].concat()),
                "{algorithm:?}: s = {limit:?}"
            );
            for other in limits {
                assert!(
                    !door.accepts_signature(&[limit, other].concat()),
                    "{algorithm:?}: {limit:?} {other:?}"
                );
            }
        }
        for (name, signature) in [
            ("empty", Vec::new()),
            ("r alone", r.to_vec()),
            ("exchanged", [s, r].concat()),
            ("a byte short", real[..real.len() - 1].to_vec()),
            ("a byte long", [real.as_slice(), &[0]].concat()),
            ("a zero in front", [&[0], real.as_slice()].concat()),
            ("zeros before each half", [&[0], r, &[0], s].concat()),
            ("in DER", der_signature(r, s)),
            ("negative s in place of n - s", [r, &minus(&zero, s)].concat()),
        ] {
            assert!(!door.accepts_signature(&signature), "{algorithm:?}: {name}");
        }
        // (r, n - s) is the same signature's other form. ECDSA allows it; what matters is that it proves the same
        // message, and that nothing here (cache, revocation) is keyed by a token's bytes.
        assert!(
            door.accepts_signature(&[r, &minus(&order, s)].concat()),
            "{algorithm:?}: mirrored"
        );
    }
}

fn der_signature(r: &[u8], s: &[u8]) -> Vec<u8> {
    let integer = |number: &[u8]| {
        let mut value = number.to_vec();
        if value[0] & 0x80 != 0 {
            value.insert(0, 0);
        }
        [&[2, value.len() as u8], value.as_slice()].concat()
    };
    let body = [integer(r), integer(s)].concat();
    [&[0x30, body.len() as u8], body.as_slice()].concat()
}

#[test]
fn eddsa_signatures_are_not_malleable() {
    // The order of the group, little-endian: s and s + L verify alike unless s is checked to be smaller.
    const ORDER: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";
    let door = Door::new(Algorithm::EdDSA);
    let token = door.token();
    let message = token.rsplit_once('.').unwrap().0;
    let real = door.signer.sign(Algorithm::EdDSA, message.as_bytes());
    assert!(door.accepts_signature(&real));
    let mut shifted = real.clone();
    let mut carry = 0_u16;
    for (byte, other) in shifted[32..].iter_mut().zip(unhex(ORDER)) {
        let sum = u16::from(*byte) + u16::from(other) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    assert!(!door.accepts_signature(&shifted));
    for signature in [
        vec![0; 64],
        [vec![1], vec![0; 63]].concat(),
        vec![0xff; 64],
        real[..63].to_vec(),
    ] {
        assert!(!door.accepts_signature(&signature));
    }
}

#[test]
fn another_implementation_agrees() {
    for algorithm in ALL {
        let door = Door::new(algorithm);
        let jwk = serde_json::from_value(door.signer.jwk(None)).unwrap();
        let key = DecodingKey::from_jwk(&jwk).unwrap();
        let token = door.token();
        let (message, signature) = token.rsplit_once('.').unwrap();
        let mut flipped = door.signer.sign(algorithm, message.as_bytes());
        flipped[3] ^= 4;
        let foreign = door.signer.sign(algorithm, b"another message");
        for (signature, expected) in [
            (signature.to_owned(), true),
            (b64(flipped), false),
            (b64(foreign), false),
        ] {
            let theirs = crypto::verify(&signature, message.as_bytes(), &key, algorithm).unwrap_or(false);
            assert_eq!(theirs, expected, "{algorithm:?}");
            assert_eq!(
                door.accepts(format!("{message}.{signature}").as_bytes()),
                expected,
                "{algorithm:?}"
            );
        }
        let Signer::Secret(secret) = &door.signer else {
            continue;
        };
        let their_key = jsonwebtoken::EncodingKey::from_secret(secret);
        let header = jsonwebtoken::Header::new(algorithm);
        let theirs = jsonwebtoken::encode(&header, &claims(), &their_key).unwrap();
        assert!(door.accepts(theirs.as_bytes()), "{algorithm:?}");
    }
}
