//! Tokens and transports that a gateway meets or is attacked with, each with the one right answer.
//!
//! The world: four providers of one route, told apart by `alg` and `iss`. `rsa` (two named keys) and `curve` are
//! JWKS files, `shared` is a secret, `ed` has one key without a name.

#![expect(clippy::too_many_lines, reason = "tables, one row a case")]

use aws_lc_rs::signature::KeyPair;
use edge_user::config::{KeySource, Provider, TokenSource};
use jsonwebtoken::Algorithm::{self, ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, RS256, RS384};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::*;

/// A request and what must become of it: a subject, or the reason of the refusal.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) request: Request,
    pub(crate) expected: Result<&'static str, &'static str>,
}

pub(crate) struct World {
    pub(crate) providers: Vec<Provider>,
    pub(crate) rsa: Signer,
    pub(crate) rsa_next: Signer,
    pub(crate) shared: Signer,
    pub(crate) curve: Signer,
    pub(crate) ed: Signer,
    _files: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let files = TempDir::new().unwrap();
        let (rsa, rsa_next) = (Signer::rsa(), Signer::rsa_number(1));
        let (shared, curve, ed) = (Signer::secret("corpus"), Signer::p256(), Signer::ed());
        let file = |name: &str, keys: &[Value]| {
            let path = files.path().join(name);
            std::fs::write(&path, jwks(keys)).unwrap();
            KeySource::JwksFile(path)
        };
        let rsa_keys = file("rsa", &[rsa.jwk(Some("rsa-1")), rsa_next.jwk(Some("rsa-2"))]);
        let curve_keys = file("curve", &[curve.jwk(Some("ec-1"))]);
        let ed_keys = file("ed", &[ed.jwk(None)]);
        let Signer::Secret(secret) = &shared else {
            unreachable!()
        };
        let named = |name: &str, algorithm: Algorithm, key: KeySource| {
            let mut provider = provider(&[algorithm], key);
            provider.name = name.into();
            provider.issuer = Some(format!("https://{name}.example"));
            provider
        };
        let mut providers = vec![
            named("rsa", RS256, rsa_keys),
            named("shared", HS256, KeySource::Generated(secret.clone())),
            named("curve", ES256, curve_keys),
            named("ed", EdDSA, ed_keys),
        ];
        // Its tokens count in one cookie and nowhere else.
        providers[2].sources = vec![TokenSource::Cookie("ec".into())];
        Self {
            providers,
            rsa,
            rsa_next,
            shared,
            curve,
            ed,
            _files: files,
        }
    }

    /// Claims of this provider, with changes.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "written as a literal wherever it is called"
    )]
    fn claims(name: &str, changes: Value) -> Value {
        let mut claims = claims_with(changes.clone());
        if changes.get("iss").is_none() {
            claims["iss"] = json!(format!("https://{name}.example"));
        }
        claims
    }

    fn rsa_token(&self, changes: Value) -> String {
        self.rsa
            .token(RS256, Some("rsa-1"), &Self::claims("rsa", changes))
    }

    fn good(&self) -> String {
        self.rsa_token(json!({}))
    }

    /// A token of `shared` with this header and payload, correctly signed.
    fn signed(&self, header: &str, payload: &str) -> String {
        self.shared.raw(HS256, header, payload)
    }

    fn shared_claims() -> String {
        Self::claims("shared", json!({})).to_string()
    }

    /// Everything.
    pub(crate) fn cases(&self) -> Vec<Case> {
        let mut cases = Cases::default();
        self.good_tokens(&mut cases);
        self.algorithms(&mut cases);
        self.headers(&mut cases);
        self.forms(&mut cases);
        self.times(&mut cases);
        self.audiences_and_types(&mut cases);
        self.payloads(&mut cases);
        self.keys(&mut cases);
        self.transports(&mut cases);
        self.many(&mut cases);
        cases.list
    }

    fn good_tokens(&self, cases: &mut Cases) {
        cases.bearer("RS256 with kid", self.good(), Ok("alice"));
        let claims = |name| Self::claims(name, json!({}));
        cases.bearer(
            "RS256 with the second kid",
            self.rsa_next.token(RS256, Some("rsa-2"), &claims("rsa")),
            Ok("alice"),
        );
        cases.bearer(
            "RS256 without kid, first key",
            self.rsa.token(RS256, None, &claims("rsa")),
            Ok("alice"),
        );
        cases.bearer(
            "RS256 without kid, second key",
            self.rsa_next.token(RS256, None, &claims("rsa")),
            Ok("alice"),
        );
        cases.bearer(
            "HS256",
            self.shared.token(HS256, None, &claims("shared")),
            Ok("alice"),
        );
        cases.bearer(
            "HS256 with a kid nobody gave",
            self.shared.token(HS256, Some("any"), &claims("shared")),
            Ok("alice"),
        );
        cases.bearer("EdDSA", self.ed.token(EdDSA, None, &claims("ed")), Ok("alice"));
        let ec = self.curve.token(ES256, Some("ec-1"), &claims("curve"));
        cases.add(
            "ES256 in its cookie",
            Request::cookie(format!("ec={ec}")),
            Ok("alice"),
        );
        cases.bearer(
            "ES256 where its provider does not look",
            ec,
            Err("algorithm_refused"),
        );
    }

    fn algorithms(&self, cases: &mut Cases) {
        let payload = Self::claims("rsa", json!({})).to_string();
        for name in [
            "none",
            "None",
            "NONE",
            "nOnE",
            "",
            " none",
            "RS256 ",
            "rs256",
            "HS1",
            "ES512",
            "A256GCM",
            "dir",
            "none\u{0}",
        ] {
            let header = json!({"alg": name}).to_string();
            let message = format!("{}.{}", b64(&header), b64(&payload));
            cases.bearer(
                &format!("alg {name:?}, signature empty"),
                format!("{message}."),
                Err("malformed|algorithm_refused"),
            );
            cases.bearer(
                &format!("alg {name:?}, any signature"),
                format!("{message}.AAAA"),
                Err("algorithm_refused"),
            );
            let signed = self.rsa.raw(RS256, &header, &payload);
            cases.bearer(
                &format!("alg {name:?}, a good RS256 signature"),
                signed,
                Err("algorithm_refused"),
            );
        }
        for alg in [
            json!(null),
            json!(["RS256"]),
            json!({"RS256": 1}),
            json!(256),
            json!(true),
        ] {
            let header = json!({"alg": alg}).to_string();
            cases.bearer(
                &format!("alg is {alg}"),
                self.rsa.raw(RS256, &header, &payload),
                Err("algorithm_refused"),
            );
        }
        cases.bearer(
            "no alg",
            self.rsa.raw(RS256, r#"{"typ":"JWT"}"#, &payload),
            Err("algorithm_refused"),
        );
        for algorithm in [RS384, PS256, ES384, HS384, HS512] {
            let signer = match algorithm {
                ES384 => Signer::p384(),
                HS384 | HS512 => Signer::secret("corpus"),
                _ => Signer::rsa(),
            };
            let token = signer.token(algorithm, Some("rsa-1"), &Self::claims("rsa", json!({})));
            cases.bearer(
                &format!("{algorithm:?}, which no provider lists"),
                token,
                Err("algorithm_refused"),
            );
        }
        self.confusion(cases, &payload);
    }

    /// The public key as an HMAC secret, in every form that an attacker could guess it is held in.
    fn confusion(&self, cases: &mut Cases, payload: &str) {
        let Signer::Rsa(pair) = &self.rsa else {
            unreachable!()
        };
        let (n, _) = rsa_components(pair.public_key().as_ref());
        let pem = self.rsa.pem();
        let forms: [(&str, Vec<u8>); 7] = [
            ("PEM", pem.clone().into_bytes()),
            ("PEM without the last newline", pem.trim_end().into()),
            ("SPKI", self.rsa.spki()),
            ("PKCS #1", pair.public_key().as_ref().to_vec()),
            ("modulus", n.clone()),
            ("modulus in base64url", b64(n).into_bytes()),
            ("JWK", self.rsa.jwk(Some("rsa-1")).to_string().into_bytes()),
        ];
        for (form, secret) in forms {
            for kid in [None, Some("rsa-1")] {
                let mut header = json!({"alg": "HS256"});
                if let Some(kid) = kid {
                    header["kid"] = json!(kid);
                }
                let token = Signer::Secret(secret.clone()).raw(HS256, &header.to_string(), payload);
                cases.bearer(
                    &format!("HMAC with the RSA key's {form}, kid {kid:?}"),
                    token,
                    Err("bad_signature"),
                );
            }
        }
        for secret in [&b""[..], b"secret", b"\0", b"null", &[0; 64]] {
            let token =
                Signer::Secret(secret.to_vec()).raw(HS256, r#"{"alg":"HS256"}"#, &Self::shared_claims());
            cases.bearer(
                &format!("HMAC with the secret {secret:?}"),
                token,
                Err("bad_signature"),
            );
        }
        let ed_as_ec = self.ed.raw(EdDSA, r#"{"alg":"ES256","kid":"ec-1"}"#, payload);
        cases.add(
            "an EdDSA signature called ES256",
            Request::cookie(format!("ec={ed_as_ec}")),
            Err("bad_signature"),
        );
        let ec_as_ed = self.curve.raw(ES256, r#"{"alg":"EdDSA"}"#, payload);
        cases.bearer("an ES256 signature called EdDSA", ec_as_ed, Err("bad_signature"));
    }

    fn headers(&self, cases: &mut Cases) {
        let payload = Self::shared_claims();
        let stranger = Signer::rsa_number(2);
        let rsa_payload = Self::claims("rsa", json!({})).to_string();
        let jwk = stranger.jwk(Some("rsa-1"));
        let spki = b64(stranger.spki());
        for (name, extra) in [
            ("jwk", json!({"jwk": jwk})),
            ("jku", json!({"jku": "http://127.0.0.1:1/jwks.json"})),
            ("x5u", json!({"x5u": "http://127.0.0.1:1/cert.pem"})),
            ("x5c", json!({"x5c": [spki]})),
            ("jwk and jku", json!({"jwk": jwk, "jku": "file:///etc/passwd"})),
        ] {
            let mut header = json!({"alg": "RS256", "kid": "rsa-1"});
            header
                .as_object_mut()
                .unwrap()
                .extend(extra.as_object().unwrap().clone());
            let forged = stranger.raw(RS256, &header.to_string(), &rsa_payload);
            cases.bearer(
                &format!("signed by the key in its own {name}"),
                forged,
                Err("bad_signature"),
            );
            let honest = self.rsa.raw(RS256, &header.to_string(), &rsa_payload);
            cases.bearer(
                &format!("a {name} beside a good signature is not looked at"),
                honest,
                Ok("alice"),
            );
        }
        let rows: [(&str, Result<&str, &str>); 34] = [
            (r#"{"alg":"HS256"}"#, Ok("alice")),
            (r#"{"alg":"HS256","typ":"JWT"}"#, Ok("alice")),
            (r#"{"alg":"HS256","typ":"jwt"}"#, Ok("alice")),
            (r#"{"alg":"HS256","typ":"at+jwt"}"#, Ok("alice")),
            (r#"{"alg":"HS256","typ":"application/at+JWT"}"#, Ok("alice")),
            (r#"{"alg":"HS256","x":{"y":[1,null]}}"#, Ok("alice")),
            (r#" { "typ" : "JWT" , "alg" : "HS256" } "#, Ok("alice")),
            (r#"{"\u0061lg":"HS256"}"#, Ok("alice")),
            (r#"{"alg":"HS256","typ":"secevent+jwt"}"#, Err("wrong_type")),
            (r#"{"alg":"HS256","typ":"logout+jwt"}"#, Err("wrong_type")),
            (r#"{"alg":"HS256","typ":"dpop+jwt"}"#, Err("wrong_type")),
            (r#"{"alg":"HS256","typ":""}"#, Err("wrong_type")),
            (r#"{"alg":"HS256","typ":"application/x/jwt"}"#, Err("wrong_type")),
            (r#"{"alg":"HS256","typ":1}"#, Err("malformed")),
            (r#"{"alg":"HS256","typ":null}"#, Err("malformed")),
            (r#"{"alg":"HS256","cty":"JWT"}"#, Err("wrong_type")),
            (r#"{"alg":"HS256","cty":"json"}"#, Ok("alice")),
            (r#"{"alg":"HS256","crit":[]}"#, Err("critical_extension")),
            (
                r#"{"alg":"HS256","crit":["exp"],"exp":1}"#,
                Err("critical_extension"),
            ),
            (
                r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
                Err("critical_extension"),
            ),
            (
                r#"{"alg":"HS256","crit":["b64"],"b64":true}"#,
                Err("critical_extension"),
            ),
            (r#"{"alg":"HS256","crit":null}"#, Err("critical_extension")),
            (r#"{"alg":"HS256","crit":"alg"}"#, Err("critical_extension")),
            (r#"{"alg":"HS256","b64":false}"#, Err("critical_extension")),
            (r#"{"alg":"HS256","b64":true}"#, Err("critical_extension")),
            (r#"{"alg":"HS256","zip":"DEF"}"#, Err("malformed")),
            (r#"{"alg":"HS256","enc":"A256GCM"}"#, Err("malformed")),
            (r#"{"alg":"HS256","kid":7}"#, Err("malformed")),
            (r#"{"alg":"HS256","kid":["a"]}"#, Err("malformed")),
            (r#"{"alg":"none","alg":"HS256"}"#, Err("malformed")),
            (r#"{"alg":"HS256","alg":"none"}"#, Err("malformed")),
            (r#"{"alg":"HS256","\u0061lg":"none"}"#, Err("malformed")),
            (r#"{"alg":"HS256","kid":"a","kid":"b"}"#, Err("malformed")),
            (r#"{"alg":"HS256","x":{"y":1,"y":2}}"#, Err("malformed")),
        ];
        for (header, expected) in rows {
            cases.bearer(
                &format!("header {header}"),
                self.signed(header, &payload),
                expected,
            );
        }
        for header in [
            "",
            "{}x",
            "null",
            "[]",
            "\"HS256\"",
            r#"{"alg":"HS256"}{}"#,
            r#"{"alg":"HS256",}"#,
            r"{'alg':'HS256'}",
            "{\"alg\":\"HS256\"}\0",
            "\u{feff}{\"alg\":\"HS256\"}",
            r#"{"alg":"HS256""#,
            "{\"alg\":\"HS256\",\"x\":\"\n\"}",
        ] {
            cases.bearer(
                &format!("header {header:?}"),
                self.signed(header, &payload),
                Err("malformed"),
            );
        }
        let deep = format!(r#"{{"alg":"HS256","x":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
        cases.bearer(
            "a header nested 200 deep",
            self.signed(&deep, &payload),
            Err("malformed"),
        );
        let long = format!(r#"{{"alg":"HS256","x":"{}"}}"#, "a".repeat(4000));
        cases.bearer(
            "a header of 4 KiB",
            self.signed(&long, &payload),
            Err("malformed"),
        );
        let kid = format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "a".repeat(600));
        cases.bearer(
            "a kid of 600 bytes",
            self.signed(&kid, &payload),
            Err("malformed"),
        );
        for kid in [
            "../../../../dev/null",
            "' OR 1=1 --",
            "rsa-1\u{0}",
            "|sleep 10",
            "http://127.0.0.1:1/",
            "RSA-1",
            "",
        ] {
            let token = self.rsa.token(RS256, Some(kid), &Self::claims("rsa", json!({})));
            cases.bearer(&format!("kid {kid:?}"), token, Err("unknown_key"));
        }
    }

    fn forms(&self, cases: &mut Cases) {
        let good = self.shared.token(HS256, None, &Self::claims("shared", json!({})));
        let parts: Vec<_> = good.split('.').collect();
        let [header, payload, signature] = parts[..] else {
            unreachable!()
        };
        let join = |parts: &[&str]| parts.join(".");
        let malformed: Vec<(&str, String)> = vec![
            ("one part", header.into()),
            ("two parts", join(&[header, payload])),
            ("four parts", join(&[header, payload, signature, "AAAA"])),
            (
                "five parts, as JWE",
                join(&[header, payload, signature, "AAAA", "AAAA"]),
            ),
            ("dots alone", "..".into()),
            ("one dot", ".".into()),
            ("no header", join(&["", payload, signature])),
            ("no payload", join(&[header, "", signature])),
            ("no signature", join(&[header, payload, ""])),
            ("a dot more at the end", good.clone() + "."),
            ("a dot more at the beginning", format!(".{good}")),
            (
                "padding on the header",
                join(&[&format!("{header}=="), payload, signature]),
            ),
            ("padding on the signature", good.clone() + "="),
            ("percent-encoded padding", good.clone() + "%3D"),
            (
                "a space inside the signature",
                join(&[
                    header,
                    payload,
                    &format!("{} {}", &signature[..9], &signature[9..]),
                ]),
            ),
            ("a NUL at the end", good.clone() + "\0"),
            (
                "standard base64 in the signature",
                join(&[header, payload, &signature.replace(['-', '_'], "+")]) + "+",
            ),
            (
                "a slash in the signature",
                join(&[header, payload, &format!("/{}", &signature[1..])]),
            ),
            ("an impossible length", good.clone() + "AA"),
            ("a comma after the token", good.clone() + ","),
            ("a quote before the token", format!("\"{good}")),
            ("quotes around the token in Authorization", format!("\"{good}\"")),
            ("non-ASCII", join(&[header, payload, "\u{e9}\u{e9}\u{e9}\u{e9}"])),
            (
                "JSON serialization",
                format!(r#"{{"payload":"{payload}","protected":"{header}","signature":"{signature}"}}"#),
            ),
            ("17 KiB", join(&[header, &"A".repeat(17 * 1024), signature])),
            (
                "a signature of 4 KiB",
                join(&[header, payload, &"A".repeat(4096)]),
            ),
        ];
        for (name, token) in malformed {
            cases.bearer(name, token, Err("malformed"));
        }
        // 32 bytes leave 4 unused bits in the last character: 15 other spellings of the same signature.
        let last = signature.as_bytes()[signature.len() - 1];
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let value = alphabet.iter().position(|byte| *byte == last).unwrap();
        for bits in 1..4 {
            let other = char::from(alphabet[value | bits]);
            let token = format!("{}{other}", &good[..good.len() - 1]);
            cases.bearer(
                &format!("a second spelling of the signature, {bits}"),
                token,
                Err("malformed"),
            );
        }
        for (name, cut) in [
            ("first byte", 1),
            ("one character", good.len() - 1),
            ("four characters", good.len() - 4),
        ] {
            let token = if cut == 1 {
                good[1..].to_owned()
            } else {
                good[..cut].to_owned()
            };
            cases.bearer(
                &format!("truncated: {name}"),
                token,
                Err("malformed|bad_signature|algorithm_refused"),
            );
        }
        cases.bearer(
            "signature extended by three bytes",
            good.clone() + "AAAA",
            Err("bad_signature|malformed"),
        );
        let swapped = join(&[
            header,
            &b64(Self::claims("shared", json!({"sub": "root"})).to_string()),
            signature,
        ]);
        let tabbed = join(&[header, &format!("\t{payload}"), signature]);
        cases.bearer("a tab before the payload", tabbed, Err("bad_signature"));
        cases.bearer(
            "another payload under a good signature",
            swapped,
            Err("bad_signature"),
        );
        cases.bearer(
            "the signature of nothing",
            join(&[header, payload, &b64(self.shared.sign(HS256, b""))]),
            Err("bad_signature"),
        );
        cases.bearer(
            "the signature of the payload alone",
            join(&[header, payload, &b64(self.shared.sign(HS256, payload.as_bytes()))]),
            Err("bad_signature"),
        );
        cases.bearer(
            "half of the HMAC",
            join(&[
                header,
                payload,
                &b64(&self.shared.sign(HS256, format!("{header}.{payload}").as_bytes())[..16]),
            ]),
            Err("bad_signature"),
        );
    }

    fn times(&self, cases: &mut Cases) {
        let rows: Vec<(Value, Result<&'static str, &'static str>)> = vec![
            (json!({"exp": NOW + 1}), Ok("alice")),
            (json!({"exp": NOW - 59}), Ok("alice")),
            (json!({"exp": NOW - 60}), Err("expired")),
            (json!({"exp": NOW - 61}), Err("expired")),
            (json!({"exp": 0}), Err("expired")),
            (json!({"exp": 1_800_000_000.5}), Ok("alice")),
            (json!({"exp": null}), Err("no_expiry")),
            (json!({"exp": (NOW + 600).to_string()}), Err("malformed")),
            (json!({"exp": -1}), Err("malformed")),
            (json!({"exp": u64::MAX}), Err("malformed")),
            (json!({"exp": i64::MAX}), Err("malformed")),
            (json!({"exp": 1e300}), Err("malformed")),
            (json!({"exp": true}), Err("malformed")),
            (json!({"exp": [NOW + 600]}), Err("malformed")),
            (json!({"exp": {}}), Err("malformed")),
            (json!({"exp": 253_402_300_800_i64}), Err("malformed")),
            (json!({"nbf": NOW + 60}), Ok("alice")),
            (json!({"nbf": NOW + 61}), Err("not_yet_valid")),
            (json!({"nbf": null}), Ok("alice")),
            (json!({"nbf": "0"}), Err("malformed")),
            (json!({"iat": NOW + 60}), Ok("alice")),
            (json!({"iat": NOW + 61}), Err("issued_in_future")),
            (json!({"iat": null}), Ok("alice")),
            (json!({"iat": "0"}), Err("malformed")),
            (json!({"iat": -5}), Err("malformed")),
            (
                json!({"iat": NOW + 61, "exp": NOW - 100}),
                Err("issued_in_future"),
            ),
        ];
        for (changes, expected) in rows {
            cases.bearer(
                &format!("times {changes}"),
                self.rsa_token(changes.clone()),
                expected,
            );
        }
        let infinite = Self::claims("shared", json!({}))
            .to_string()
            .replace(&format!("\"exp\":{}", NOW + 600), "\"exp\":1e999");
        cases.bearer(
            "exp 1e999",
            self.signed(r#"{"alg":"HS256"}"#, &infinite),
            Err("malformed"),
        );
    }

    fn audiences_and_types(&self, cases: &mut Cases) {
        let rows: Vec<(Value, Result<&'static str, &'static str>)> = vec![
            (json!({"aud": ["other", "edge"]}), Ok("alice")),
            (json!({"aud": ["edge"]}), Ok("alice")),
            (json!({"aud": "other"}), Err("wrong_audience")),
            (json!({"aud": ["other"]}), Err("wrong_audience")),
            (json!({"aud": []}), Err("wrong_audience")),
            (json!({"aud": null}), Err("wrong_audience")),
            (json!({"aud": "edge "}), Err("wrong_audience")),
            (json!({"aud": "EDGE"}), Err("wrong_audience")),
            (json!({"aud": "edge,other"}), Err("wrong_audience")),
            (json!({"aud": 1}), Err("malformed")),
            (json!({"aud": {"edge": true}}), Err("malformed")),
            (json!({"aud": ["edge", 1]}), Err("malformed")),
            (json!({"aud": [["edge"]]}), Err("malformed")),
            (json!({"iss": "https://evil.example"}), Err("wrong_issuer")),
            (json!({"iss": "https://shared.example"}), Err("wrong_issuer")),
            (json!({"iss": "https://rsa.example/"}), Err("wrong_issuer")),
            (json!({"iss": "HTTPS://rsa.example"}), Err("wrong_issuer")),
            (json!({"iss": ""}), Err("wrong_issuer")),
            (json!({"iss": ["https://rsa.example"]}), Err("malformed")),
            (json!({"sub": "bob"}), Ok("bob")),
            (json!({"sub": null}), Ok("")),
            (json!({"sub": 7}), Err("malformed")),
            (json!({"sub": ["alice"]}), Err("malformed")),
            (json!({"jti": 7}), Err("malformed")),
            (json!({"scope": 7}), Ok("alice")),
        ];
        for (changes, expected) in rows {
            cases.bearer(
                &format!("claims {changes}"),
                self.rsa_token(changes.clone()),
                expected,
            );
        }
        let mut without = Self::claims("rsa", json!({}));
        without.as_object_mut().unwrap().remove("iss");
        cases.bearer(
            "no iss",
            self.rsa.token(RS256, Some("rsa-1"), &without),
            Err("wrong_issuer"),
        );
    }

    fn payloads(&self, cases: &mut Cases) {
        let header = r#"{"alg":"HS256"}"#;
        let good = Self::shared_claims();
        let open = &good[..good.len() - 1];
        for payload in [
            "null".to_owned(),
            "[]".into(),
            "1".into(),
            "\"x\"".into(),
            "x".into(),
            good.clone() + "x",
            good.clone() + &good,
            format!("[{good}]"),
            format!("{open},\"exp\":{}}}", NOW + 9),
            format!("{open},\"\\u0065xp\":1}}"),
            format!("{open},\"sub\":\"root\"}}"),
            format!("{open},\"x\":{{\"a\":1,\"a\":1}}}}"),
            format!("{open},}}"),
            format!("{open},\"x\":\"\\ud800\"}}"),
            format!("{open},\"x\":01}}"),
            format!("\u{feff}{good}"),
            good.clone() + "\0",
            open.to_owned(),
            format!("{open},\"x\":{}1{}}}", "[".repeat(100), "]".repeat(100)),
        ] {
            cases.bearer(
                &format!("payload {:.60}…{}", payload, payload.len()),
                self.signed(header, &payload),
                Err("malformed"),
            );
        }
        let message = format!("{}.{}", b64(header), b64(b"{\"sub\":\"\xff\"}"));
        let token = format!("{message}.{}", b64(self.shared.sign(HS256, message.as_bytes())));
        cases.bearer("payload that is not UTF-8", token, Err("malformed"));
        // A payload whose encoding is not canonical, correctly signed as it stands.
        let padded = format!("{}.{}=", b64(header), b64(good.clone() + " "));
        let token = format!("{padded}.{}", b64(self.shared.sign(HS256, padded.as_bytes())));
        cases.bearer("a signed payload with padding", token, Err("malformed"));
        cases.bearer(
            "spaces around the payload",
            self.signed(header, &format!(" \n{good}\t ")),
            Ok("alice"),
        );
        let unicode = self.signed(header, &good.replace("alice", "al\\u0069ce"));
        cases.bearer("an escaped letter is that letter", unicode, Ok("alice"));
    }

    fn keys(&self, cases: &mut Cases) {
        let claims = Self::claims("rsa", json!({}));
        let stranger = Signer::rsa_number(2);
        cases.bearer(
            "a stranger's key under a good kid",
            stranger.token(RS256, Some("rsa-1"), &claims),
            Err("bad_signature"),
        );
        cases.bearer(
            "a stranger's key without kid",
            stranger.token(RS256, None, &claims),
            Err("bad_signature"),
        );
        cases.bearer(
            "a stranger's key under a new kid",
            stranger.token(RS256, Some("rsa-9"), &claims),
            Err("unknown_key"),
        );
        cases.bearer(
            "the other key's kid",
            self.rsa.token(RS256, Some("rsa-2"), &claims),
            Err("bad_signature"),
        );
        cases.bearer(
            "PS256 signature called RS256",
            self.rsa
                .raw(PS256, r#"{"alg":"RS256","kid":"rsa-1"}"#, &claims.to_string()),
            Err("bad_signature"),
        );
        let signature = self.rsa.sign(RS256, b"x");
        let message = format!(
            "{}.{}",
            b64(r#"{"alg":"RS256","kid":"rsa-1"}"#),
            b64(claims.to_string())
        );
        let real = self.rsa.sign(RS256, message.as_bytes());
        let odd: [(&str, Vec<u8>); 9] = [
            ("of something else", signature),
            ("of zeros", vec![0; 256]),
            ("of ones", vec![0xff; 256]),
            ("of one byte", vec![1]),
            ("one byte short", real[..255].to_vec()),
            ("one byte long", [real.as_slice(), &[0]].concat()),
            ("with a zero in front", [&[0], real.as_slice()].concat()),
            ("that is 1", [vec![0; 255], vec![1]].concat()),
            ("reversed", real.iter().rev().copied().collect()),
        ];
        for (name, signature) in odd {
            cases.bearer(
                &format!("RS256 signature {name}"),
                format!("{message}.{}", b64(signature)),
                Err("bad_signature"),
            );
        }
    }

    fn transports(&self, cases: &mut Cases) {
        let good = self.good();
        let ok = Ok("alice");
        cases.add("nothing", Request::new(), Err("missing"));
        for (name, value, expected) in [
            ("Bearer", format!("Bearer {good}"), ok),
            ("bearer", format!("bearer {good}"), ok),
            ("BEARER with two spaces", format!("BEARER  {good}"), ok),
            ("a tab after Bearer", format!("Bearer\t{good}"), ok),
            ("spaces around", format!("  Bearer {good}  "), ok),
            ("no scheme", good.clone(), Err("missing")),
            ("Basic", "Basic dXNlcjpwYXNz".into(), Err("missing")),
            ("Basic with the token", format!("Basic {good}"), Err("missing")),
            ("Bearer alone", "Bearer".into(), Err("malformed")),
            ("Bearer and spaces", "Bearer   ".into(), Err("malformed")),
            (
                "Bearer glued to the token",
                format!("Bearer{good}"),
                Err("missing"),
            ),
            ("Bearer with a colon", format!("Bearer: {good}"), Err("missing")),
            (
                "two tokens in one field",
                format!("Bearer {good} {good}"),
                Err("malformed"),
            ),
            (
                "two credentials in one field",
                format!("Bearer {good}, Bearer {good}"),
                Err("malformed"),
            ),
            (
                "a parameter after the token",
                format!("Bearer {good}, realm=x"),
                Err("malformed"),
            ),
            ("Bearer Bearer", format!("Bearer Bearer {good}"), Err("malformed")),
            ("an empty field", String::new(), Err("missing")),
        ] {
            cases.add(
                &format!("Authorization: {name}"),
                Request::new().header("authorization", value),
                expected,
            );
        }
        let big = "x".repeat(60_000);
        for (name, value, expected) in [
            ("alone", format!("session={good}"), ok),
            ("quoted", format!("session=\"{good}\""), ok),
            ("between others", format!("a=1; session={good}; b=\"2\""), ok),
            ("without spaces", format!("a=1;session={good};b=2"), ok),
            ("after 60 kB of another", format!("big={big}; session={good}"), ok),
            ("twice the same", format!("session={good}; session={good}"), ok),
            ("half quoted", format!("session=\"{good}"), Err("malformed")),
            ("other case", format!("Session={good}"), Err("missing")),
            (
                "a longer name",
                format!("session2={good}; xsession={good}"),
                Err("missing"),
            ),
            (
                "inside another's value",
                format!("a=session={good}"),
                Err("missing"),
            ),
            ("emptied", "session=".into(), Err("missing")),
            ("emptied with quotes", "session=\"\"".into(), Err("missing")),
            (
                "emptied beside a full one",
                format!("session=; session={good}"),
                ok,
            ),
            (
                "two different",
                format!("session={good}; session=x"),
                Err("ambiguous"),
            ),
            ("without a value", "session".into(), Err("missing")),
            ("garbage", "session=deleted".into(), Err("malformed")),
            (
                "comma instead of semicolon",
                format!("session={good},a=1"),
                Err("malformed"),
            ),
            ("inside a quoted value", format!("a=\"1;session={good};\""), ok),
        ] {
            cases.add(&format!("cookie {name}"), Request::cookie(value), expected);
        }
        let split = Request::cookie("a=1").header("cookie", format!("session={good}"));
        cases.add("Cookie in two fields, as in HTTP/2", split, ok);
        let two = Request::cookie(format!("session={good}")).header("cookie", "session=x");
        cases.add("two different cookies in two fields", two, Err("ambiguous"));
        cases.add("header", Request::new().header("X-Token", &good), ok);
        cases.add(
            "header with spaces",
            Request::new().header("x-token", format!(" {good}\t")),
            ok,
        );
        cases.add(
            "empty header",
            Request::new().header("x-token", ""),
            Err("missing"),
        );
        cases.add(
            "header with a scheme",
            Request::new().header("x-token", format!("Bearer {good}")),
            Err("malformed"),
        );
        cases.add(
            "header under its underscore alias",
            Request::new().header("x_token", &good),
            Err("missing"),
        );
        let query = |text: String| Request::new().with_query(text);
        cases.add("query", query(format!("access_token={good}")), ok);
        cases.add(
            "query between others",
            query(format!("a=1&access_token={good}&b=2")),
            ok,
        );
        cases.add(
            "query with an encoded name",
            query(format!("%61ccess_token={good}")),
            ok,
        );
        cases.add(
            "query with encoded dots",
            query(format!("access_token={}", good.replace('.', "%2E"))),
            ok,
        );
        cases.add(
            "query in other case",
            query(format!("Access_Token={good}")),
            Err("missing"),
        );
        cases.add(
            "query after a semicolon",
            query(format!("a=1;access_token={good}")),
            Err("missing"),
        );
        cases.add(
            "query twice the same",
            query(format!("access_token={good}&access_token={good}")),
            ok,
        );
        cases.add(
            "query twice, different",
            query(format!("access_token={good}&access_token=x")),
            Err("ambiguous"),
        );
        cases.add(
            "query, a hidden second",
            query(format!("access_token={good}&access%5Ftoken=x")),
            Err("ambiguous"),
        );
        cases.add(
            "query with plus",
            query(format!("access_token=+{good}")),
            Err("malformed"),
        );
    }

    fn many(&self, cases: &mut Cases) {
        let (good, other) = (self.good(), self.rsa_token(json!({"sub": "bob"})));
        let bad = self.rsa_token(json!({"exp": 1}));
        let both =
            |first: &str, second: &str| Request::bearer(first).header("cookie", format!("session={second}"));
        cases.add("the same token twice", both(&good, &good), Ok("alice"));
        cases.add("two good tokens", both(&good, &other), Err("ambiguous"));
        cases.add(
            "a good one and an expired one",
            both(&good, &bad),
            Err("ambiguous"),
        );
        cases.add(
            "an expired one and a good one",
            both(&bad, &good),
            Err("ambiguous"),
        );
        cases.add("a good one and garbage", both(&good, "x"), Err("ambiguous"));
        let everywhere = both(&good, &good)
            .header("x-token", &good)
            .with_query(format!("access_token={good}"));
        cases.add("the same token in every place", everywhere.clone(), Ok("alice"));
        cases.add(
            "and another beside it",
            everywhere.header("cookie", "ec=x"),
            Err("ambiguous"),
        );
        let field = format!("Bearer {good}");
        let twice = Request::bearer(&good).header("authorization", &field);
        cases.add("two equal Authorization fields", twice, Err("ambiguous"));
        let basic = Request::new()
            .header("authorization", "Basic eA==")
            .header("authorization", &field);
        cases.add("Basic and Bearer in two fields", basic, Err("ambiguous"));
        let second_spelling = format!("{}=", &good);
        cases.add(
            "a token and its padded spelling",
            both(&good, &second_spelling),
            Err("ambiguous"),
        );
    }
}

#[derive(Default)]
struct Cases {
    list: Vec<Case>,
}

impl Cases {
    fn add(&mut self, name: &str, request: Request, expected: Result<&'static str, &'static str>) {
        self.list.push(Case {
            name: name.to_owned(),
            request,
            expected,
        });
    }

    fn bearer(&mut self, name: &str, token: String, expected: Result<&'static str, &'static str>) {
        self.add(name, Request::bearer(token), expected);
    }
}
