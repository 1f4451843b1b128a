//! Every algorithm from every source of keys that can serve it, and what weak or wrong keys get.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc};

use aws_lc_rs::signature::KeyPair;
use edge_user::{
    auth::{Authenticator, Authority, Outcome, Refusal},
    config::{AuthPolicy, KeySource, Provider},
};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::*;

pub(crate) const ALL: [Algorithm; 12] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

fn door(providers: &[Provider]) -> Authenticator {
    Authenticator::new(Arc::new(Authority::load(providers, None, None, now()).unwrap()))
}

fn load_error(algorithms: &[Algorithm], key: KeySource) -> String {
    let errors = Authority::load(&[provider(algorithms, key)], None, None, now()).expect_err("must not load");
    assert_eq!(errors.len(), 1);
    errors[0].to_string()
}

fn file(directory: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn answer(door: &Authenticator, token: &str) -> Result<String, Refusal> {
    let policy = AuthPolicy::Required(rule(&[0]));
    match door.authenticate(&policy, &Request::bearer(token), now())? {
        Outcome::Verified(permit) => Ok(permit.token().subject().unwrap_or_default().to_owned()),
        Outcome::Anonymous => panic!("a required token was not asked for"),
    }
}

#[test]
fn every_algorithm_from_every_source() {
    let directory = TempDir::new().unwrap();
    for algorithm in ALL {
        let signer = Signer::of(algorithm);
        let jwks_file = file(&directory, "jwks.json", jwks(&[signer.jwk(Some("k1"))]));
        let mut sources = vec![KeySource::JwksFile(jwks_file)];
        match &signer {
            Signer::Secret(secret) => {
                sources.push(KeySource::Generated(secret.clone()));
                sources.push(KeySource::SecretFile(file(
                    &directory,
                    "secret",
                    [secret.as_slice(), b"\n"].concat(),
                )));
            }
            Signer::Rsa(pair) => {
                sources.push(KeySource::PemFile(file(&directory, "spki.pem", signer.pem())));
                let pkcs1 = pem("RSA PUBLIC KEY", pair.public_key().as_ref());
                sources.push(KeySource::PemFile(file(&directory, "pkcs1.pem", pkcs1)));
            }
            _ => sources.push(KeySource::PemFile(file(&directory, "spki.pem", signer.pem()))),
        }
        for source in sources {
            let door = door(&[provider(&[algorithm], source.clone())]);
            let good = signer.token(algorithm, Some("k1"), &claims());
            assert_eq!(
                answer(&door, &good),
                Ok("alice".into()),
                "{algorithm:?} {source:?}"
            );
            let nameless = signer.token(algorithm, None, &claims());
            assert_eq!(
                answer(&door, &nameless),
                Ok("alice".into()),
                "{algorithm:?} {source:?}"
            );
            let mut forged = good.into_bytes();
            let at = forged.len() - 20;
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            assert_eq!(
                answer(&door, &forged),
                Err(Refusal::BadSignature),
                "{algorithm:?} {source:?}"
            );
            let strange = signer.stranger().token(algorithm, Some("k1"), &claims());
            assert_eq!(
                answer(&door, &strange),
                Err(Refusal::BadSignature),
                "{algorithm:?} {source:?}"
            );
        }
    }
}

#[test]
fn a_token_of_one_algorithm_is_refused_by_every_other() {
    let directory = TempDir::new().unwrap();
    let (secret, rsa, p256, p384, ed) = (
        Signer::secret("s"),
        Signer::rsa(),
        Signer::p256(),
        Signer::p384(),
        Signer::ed(),
    );
    let of = |algorithm| match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => &secret,
        Algorithm::ES256 => &p256,
        Algorithm::ES384 => &p384,
        Algorithm::EdDSA => &ed,
        _ => &rsa,
    };
    for accepted in ALL {
        let path = file(&directory, "jwks.json", jwks(&[of(accepted).jwk(None)]));
        let door = door(&[provider(&[accepted], KeySource::JwksFile(path))]);
        for signed in ALL.into_iter().filter(|signed| *signed != accepted) {
            let honest = of(signed).token(signed, None, &claims());
            assert_eq!(
                answer(&door, &honest),
                Err(Refusal::AlgorithmRefused),
                "{signed:?} to {accepted:?}"
            );
            // The same signature under a header that claims the accepted algorithm.
            let header = json!({"alg": format!("{accepted:?}")}).to_string();
            let lying = of(signed).raw(signed, &header, &claims().to_string());
            assert_eq!(
                answer(&door, &lying),
                Err(Refusal::BadSignature),
                "{signed:?} as {accepted:?}"
            );
        }
    }
}

#[test]
fn weak_wrong_and_missing_keys_do_not_load() {
    let directory = TempDir::new().unwrap();
    let rs = [Algorithm::RS256];
    let rows: [(&[Algorithm], KeySource, &str); 17] = [
        (
            &[Algorithm::HS256],
            KeySource::Generated(Vec::new()),
            "secret is empty",
        ),
        (
            &[Algorithm::HS256],
            KeySource::SecretFile(file(&directory, "empty", "\n")),
            "secret is empty",
        ),
        (
            &[Algorithm::HS256],
            KeySource::Generated(vec![1; 31]),
            "31 bytes; HS256 needs at least 32",
        ),
        (
            &[Algorithm::HS384],
            KeySource::Generated(vec![1; 47]),
            "47 bytes; HS384 needs at least 48",
        ),
        (
            &[Algorithm::HS256, Algorithm::HS512],
            KeySource::Generated(vec![1; 63]),
            "63 bytes; HS512 needs at least 64",
        ),
        (&[], KeySource::Generated(vec![1; 64]), "algorithms: at least one"),
        (
            &[Algorithm::HS256, Algorithm::RS256],
            KeySource::Generated(vec![1; 64]),
            "cannot be mixed",
        ),
        (&rs, KeySource::Generated(vec![1; 64]), "HMAC algorithms only"),
        (
            &[Algorithm::HS256],
            KeySource::PemFile(file(&directory, "p.pem", Signer::rsa().pem())),
            "need a secret",
        ),
        (
            &rs,
            KeySource::PemFile(file(&directory, "ec.pem", Signer::p256().pem())),
            "none of the provider's algorithms",
        ),
        (
            &[Algorithm::ES384],
            KeySource::PemFile(file(&directory, "e.pem", Signer::p256().pem())),
            "none of the provider's algorithms",
        ),
        (
            &rs,
            KeySource::PemFile(file(&directory, "junk", "junk")),
            "no PEM public key",
        ),
        (
            &rs,
            KeySource::PemFile(file(&directory, "private", pem("PRIVATE KEY", b"x"))),
            "private key",
        ),
        (
            &rs,
            KeySource::PemFile(directory.path().join("absent")),
            "cannot read",
        ),
        (
            &rs,
            KeySource::JwksFile(file(&directory, "bad.json", "{\"keys\":")),
            "not a JSON object",
        ),
        (
            &rs,
            KeySource::JwksFile(file(&directory, "none.json", "{}")),
            "no array",
        ),
        (
            &rs,
            KeySource::JwksFile(file(&directory, "empty.json", jwks(&[]))),
            "no usable key",
        ),
    ];
    for (algorithms, key, expected) in rows {
        let error = load_error(algorithms, key);
        assert!(error.contains(expected), "{error:?} should say {expected:?}");
        assert!(error.contains("\"main\""), "{error:?} should name the provider");
    }
    let missing = load_error(
        &[Algorithm::HS256],
        KeySource::SecretEnv("BREAKWATER_TEST_NOT_SET".into()),
    );
    assert!(
        missing.contains("BREAKWATER_TEST_NOT_SET is not set"),
        "{missing}"
    );
    let open = file(&directory, "open", [1; 64]);
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(load_error(&[Algorithm::HS256], KeySource::SecretFile(open)).contains("readable by everybody"));
}

#[test]
fn weak_and_foreign_keys_of_a_jwks_are_named() {
    let directory = TempDir::new().unwrap();
    let weak = json!({"kty": "RSA", "kid": "weak", "n": b64([0xff; 128]), "e": "AQAB"});
    let path = |keys: &[Value]| KeySource::JwksFile(file(&directory, "jwks.json", jwks(keys)));
    let alone = load_error(&[Algorithm::RS256], path(std::slice::from_ref(&weak)));
    assert!(
        alone.contains("RSA key of 1024 bits") && alone.contains("weak"),
        "{alone}"
    );
    let beside_good = load_error(&[Algorithm::RS256], path(&[Signer::rsa().jwk(None), weak]));
    assert!(beside_good.contains("RSA key of 1024 bits"), "{beside_good}");

    let good = Signer::p256();
    let mut off_curve = Signer::p256().jwk(Some("off"));
    off_curve["y"] = off_curve["x"].clone();
    assert!(load_error(&[Algorithm::ES256], path(&[off_curve])).contains("not a valid"));
    let mut encryption = good.jwk(None);
    encryption["use"] = json!("enc");
    let mut signing_only = good.jwk(None);
    signing_only["key_ops"] = json!(["sign"]);
    let mut other_algorithm = good.jwk(None);
    other_algorithm["alg"] = json!("ES384");
    let mut short = good.jwk(None);
    short["x"] = json!(b64([1; 31]));
    let mut numeric_kid = good.jwk(None);
    numeric_kid["kid"] = json!(7);
    let unknown = json!({"kty": "OKP", "crv": "Ed448", "x": b64([1; 57])});
    for (jwk, reason) in [
        (encryption, "not for verifying"),
        (signing_only, "not for verifying"),
        (other_algorithm, "its alg"),
        (short, "member \"x\""),
        (numeric_kid, "member \"kid\""),
        (unknown, "unsupported"),
    ] {
        let error = load_error(&[Algorithm::ES256], path(&[jwk]));
        assert!(
            error.contains("no usable key") && error.contains(reason),
            "{error}"
        );
    }
}
