//! What a route asks, what an upstream gets, what a file changes: claims, headers, removal, revocation, reload.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use edge_user::{
    auth::{
        Authenticator, Authority, Outcome, Permit, Refusal, Revocation, Revoked, RuleError, login_location,
        revocation_file::{self, Change},
        without_cookie, without_parameter,
    },
    config::{
        AuthPolicy, AuthRule, ClaimEncoding, ClaimHeader, ClaimRule, ClaimTest, ClaimValue, KeySource, Login,
        Provider, TokenSource,
    },
};
use jsonwebtoken::Algorithm::{ES256, HS256, RS256};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::*;

fn shared() -> (Signer, Provider) {
    let signer = Signer::secret("local");
    let Signer::Secret(secret) = &signer else {
        unreachable!()
    };
    let provider = provider(&[HS256], KeySource::Generated(secret.clone()));
    (signer, provider)
}

fn door(providers: &[Provider]) -> Authenticator {
    Authenticator::new(Arc::new(Authority::load(providers, None, None, now()).unwrap()))
}

fn permit(door: &Authenticator, rule: &AuthRule, request: &Request) -> Result<Permit, Refusal> {
    match door.authenticate(&AuthPolicy::Required(rule.clone()), request, now())? {
        Outcome::Verified(permit) => Ok(permit),
        Outcome::Anonymous => panic!("a required token was not asked for"),
    }
}

#[test]
fn scopes_must_all_be_there() {
    let (signer, provider) = shared();
    let door = door(&[provider]);
    let rows: [(Value, &[&str], bool); 14] = [
        (json!({"scope": "read write"}), &["read"], true),
        (json!({"scope": "read write"}), &["write", "read"], true),
        (json!({"scope": "read write"}), &["read", "admin"], false),
        (json!({"scope": "readwrite"}), &["read"], false),
        (json!({"scope": "READ"}), &["read"], false),
        (json!({"scope": " read  write "}), &["write"], true),
        (json!({"scope": null, "scp": ["read", "write"]}), &["read"], true),
        (json!({"scope": null, "scp": "read write"}), &["write"], true),
        (
            json!({"scope": "read", "scp": ["write"]}),
            &["read", "write"],
            true,
        ),
        (json!({"scope": null, "scp": ["read write"]}), &["read"], false),
        (json!({"scope": ["read"]}), &["read"], true),
        (json!({"scope": 7, "scp": {"read": true}}), &["read"], false),
        (json!({"scope": null}), &["read"], false),
        (json!({"scope": null}), &[], true),
    ];
    for (claims, scopes, passes) in rows {
        let mut wanted = rule(&[0]);
        wanted.scopes = scopes.iter().map(ToString::to_string).collect();
        let token = signer.token(HS256, None, &claims_with(claims.clone()));
        for _ in 0..2 {
            match permit(&door, &wanted, &Request::bearer(&token)) {
                Ok(_) => assert!(passes, "{claims} {scopes:?}"),
                Err(refusal) => {
                    assert!(!passes, "{claims} {scopes:?}");
                    assert_eq!(refusal.status(), 403);
                    let scope = format!("scope=\"{}\"", scopes.join(" "));
                    assert!(refusal.challenge().unwrap().contains(&scope));
                }
            }
        }
    }
}

#[test]
fn a_token_known_from_a_route_that_asks_nothing_is_judged_by_one_that_asks() {
    let (signer, provider) = shared();
    let door = door(&[provider]);
    let asking = |scope: &str| AuthRule {
        scopes: vec![scope.into()],
        ..rule(&[0])
    };
    let token = signer.token(
        HS256,
        None,
        &claims_with(json!({"sub": "\u{e9}\"", "deep": {"a": [1]}})),
    );
    let request = Request::bearer(&token);
    let known = permit(&door, &rule(&[0]), &request).unwrap();
    assert_eq!(
        permit(&door, &asking("admin"), &request)
            .map(|_| ())
            .unwrap_err()
            .reason(),
        "missing_scope"
    );
    assert!(permit(&door, &asking("read"), &request).is_ok());
    assert_eq!(known.token().subject(), Some("\u{e9}\""));
    assert_eq!(known.token().claims().at(&["deep", "a"]), Some(&json!([1])));
    assert_eq!(door.authority().status().cache.hits, 2);
    // What is printed of it in a hurry gives nobody the token.
    let printed = format!("{known:?} {door:?}");
    assert!(!printed.contains(&token[..20]) && !printed.contains(&token[token.len() - 20..]));
    assert!(!printed.contains(&format!("{:?}", &token.as_bytes()[..8]).replace(['[', ']'], "")));
}

#[test]
fn claim_requirements_compare_without_conversion() {
    let (signer, provider) = shared();
    let door = door(&[provider]);
    let text = |text: &str| ClaimValue::Text(text.into());
    let claims = json!({
        "role": "admin", "level": 3, "on": true, "groups": ["a", "b"], "ids": [1, 2],
        "realm": {"access": {"roles": ["x", "y"]}}, "https://app.example/tier": "gold", "nothing": null, "f": 1.0,
    });
    let rows = [
        (vec!["role"], ClaimTest::Equals(text("admin")), true),
        (vec!["role"], ClaimTest::Equals(text("Admin")), false),
        (vec!["role"], ClaimTest::Equals(text("adm")), false),
        (vec!["level"], ClaimTest::Equals(ClaimValue::Integer(3)), true),
        (vec!["level"], ClaimTest::Equals(text("3")), false),
        (vec!["on"], ClaimTest::Equals(ClaimValue::Bool(true)), true),
        (vec!["on"], ClaimTest::Equals(text("true")), false),
        (vec!["on"], ClaimTest::Equals(ClaimValue::Integer(1)), false),
        (vec!["f"], ClaimTest::Equals(ClaimValue::Integer(1)), false),
        (
            vec!["role"],
            ClaimTest::OneOf(vec![text("user"), text("admin")]),
            true,
        ),
        (vec!["role"], ClaimTest::OneOf(vec![text("user")]), false),
        (vec!["groups"], ClaimTest::Contains(text("b")), true),
        (vec!["groups"], ClaimTest::Contains(text("c")), false),
        (vec!["groups"], ClaimTest::Equals(text("a")), false),
        (vec!["role"], ClaimTest::Contains(text("admin")), true),
        (vec!["role"], ClaimTest::Contains(text("dmi")), false),
        (vec!["ids"], ClaimTest::Contains(ClaimValue::Integer(2)), true),
        (
            vec!["realm", "access", "roles"],
            ClaimTest::Contains(text("y")),
            true,
        ),
        (
            vec!["realm", "access", "roles", "0"],
            ClaimTest::Equals(text("x")),
            false,
        ),
        (vec!["realm.access.roles"], ClaimTest::Contains(text("y")), false),
        (
            vec!["https://app.example/tier"],
            ClaimTest::Equals(text("gold")),
            true,
        ),
        (vec!["nothing"], ClaimTest::Equals(text("null")), false),
        (vec!["absent"], ClaimTest::OneOf(vec![text("")]), false),
        (vec!["role", "admin"], ClaimTest::Equals(text("admin")), false),
    ];
    let token = signer.token(HS256, None, &claims_with(claims));
    for (path, test, passes) in rows {
        let path: Vec<_> = path.into_iter().map(Into::into).collect();
        let wanted = AuthRule {
            claims: vec![ClaimRule { path, test }],
            ..rule(&[0])
        };
        let answer = permit(&door, &wanted, &Request::bearer(&token)).map(|_| ());
        assert_eq!(
            answer,
            if passes {
                Ok(())
            } else {
                Err(Refusal::ClaimMismatch)
            },
            "{:?}",
            wanted.claims
        );
    }
}

#[test]
fn lifetimes_and_types_of_a_strict_provider() {
    let (signer, mut provider) = shared();
    provider.checks.max_lifetime = Some(Duration::from_secs(700));
    provider.checks.types = vec!["application/at+jwt".into()];
    let door = door(&[provider.clone()]);
    let token = |typ: Value, claims: Value| {
        let mut header = json!({"alg": "HS256"});
        if !typ.is_null() {
            header["typ"] = typ;
        }
        signer.raw(HS256, &header.to_string(), &claims_with(claims).to_string())
    };
    let answer = |token: String| {
        permit(&door, &rule(&[0]), &Request::bearer(token))
            .map(|_| ())
            .map_err(|r| r.reason())
    };
    assert_eq!(answer(token(json!("at+jwt"), json!({}))), Ok(()));
    assert_eq!(answer(token(json!("AT+JWT"), json!({"exp": NOW + 690}))), Ok(()));
    assert_eq!(
        answer(token(json!("at+jwt"), json!({"exp": NOW + 691}))),
        Err("too_long_lived")
    );
    assert_eq!(
        answer(token(json!("at+jwt"), json!({"iat": null, "exp": NOW + 760}))),
        Ok(())
    );
    assert_eq!(
        answer(token(json!("at+jwt"), json!({"iat": null, "exp": NOW + 761}))),
        Err("too_long_lived")
    );
    assert_eq!(
        answer(token(json!("at+jwt"), json!({"exp": null}))),
        Err("no_expiry")
    );
    assert_eq!(answer(token(json!("JWT"), json!({}))), Err("wrong_type"));
    assert_eq!(answer(token(Value::Null, json!({}))), Err("wrong_type"));

    // Without `exp` only where the provider says so, and then for good.
    provider.checks = edge_user::config::TokenChecks {
        require_exp: false,
        ..Default::default()
    };
    let lenient = self::door(&[provider]);
    let eternal = signer.token(HS256, None, &claims_with(json!({"exp": null})));
    assert!(permit(&lenient, &rule(&[0]), &Request::bearer(&eternal)).is_ok());
    let late = now() + Duration::from_secs(1_000_000_000);
    let policy = AuthPolicy::Required(rule(&[0]));
    assert!(
        lenient
            .authenticate(&policy, &Request::bearer(&eternal), late)
            .is_ok()
    );
}

#[test]
fn a_cached_token_expires_to_the_second() {
    let (signer, provider) = shared();
    let door = door(&[provider]);
    let policy = AuthPolicy::Required(rule(&[0]));
    let request = Request::bearer(signer.token(HS256, None, &claims_with(json!({"exp": NOW + 100}))));
    let at = |seconds: i64| {
        let time = if seconds < 0 {
            now() - Duration::from_secs(seconds.unsigned_abs())
        } else {
            now() + Duration::from_secs(seconds.unsigned_abs())
        };
        door.authenticate(&policy, &request, time).map(|_| ())
    };
    assert_eq!(at(0), Ok(()));
    assert_eq!(at(159), Ok(()));
    assert_eq!(at(160), Err(Refusal::Expired));
    // A clock that is set back: issued at NOW - 10, leeway 60.
    assert_eq!(at(-70), Ok(()));
    assert_eq!(at(-71), Err(Refusal::NotYetValid));
    let cache = door.authority().status().cache;
    assert_eq!((cache.hits, cache.misses, cache.entries), (4, 1, 1));
}

#[test]
fn claims_become_headers_and_forgeries_go() {
    let (signer, mut provider) = shared();
    let header = |header: &str, path: &[&str], encoding| ClaimHeader {
        header: header.into(),
        path: path.iter().map(ToString::to_string).collect(),
        encoding,
    };
    provider.forward.headers = vec![
        header("x-user-id", &["sub"], ClaimEncoding::Plain),
        header("x-roles", &["realm", "roles"], ClaimEncoding::Plain),
        header("x-claims", &["realm"], ClaimEncoding::Base64Json),
        header("x-absent", &["absent"], ClaimEncoding::Plain),
    ];
    let door = door(&[provider.clone()]);
    let token = signer.token(HS256, None, &claims_with(json!({"realm": {"roles": ["a", "b"]}})));
    for _ in 0..2 {
        let permit = permit(&door, &rule(&[0]), &Request::bearer(&token)).unwrap();
        let headers: Vec<_> = permit
            .headers()
            .iter()
            .map(|h| (&*h.name, String::from_utf8_lossy(&h.value)))
            .collect();
        let json = b64(r#"{"roles":["a","b"]}"#);
        assert_eq!(
            headers,
            [
                ("x-user-id", "alice".into()),
                ("x-roles", "a,b".into()),
                ("x-claims", json.into())
            ]
        );
    }
    let reserved = door.authority().reserved_headers();
    for name in [
        "X-User-Id",
        "x_user_id",
        "X_USER-ID",
        "x.roles",
        "x-absent",
        "X-Claims",
    ] {
        assert!(reserved.is_reserved(name.as_bytes()), "{name}");
    }
    assert!(!reserved.is_reserved(b"x-user"));
    let unfit = signer.token(HS256, None, &claims_with(json!({"sub": "a\r\nx-role: root"})));
    assert_eq!(
        permit(&door, &rule(&[0]), &Request::bearer(&unfit)).map(|_| ()),
        Err(Refusal::UnfitClaim)
    );
    for name in [
        "host",
        "cookie",
        "authorization",
        "content-length",
        "X-Upper",
        "a b",
        "",
        "transfer-encoding",
    ] {
        provider.forward.headers[0].header = name.into();
        let errors = Authority::load(&[provider.clone()], None, None, now()).expect_err(name);
        assert!(errors[0].to_string().contains("cannot be set"), "{name}");
    }
}

#[test]
fn the_token_is_taken_out_of_every_place() {
    let (signer, mut provider) = shared();
    provider.forward.remove_token = true;
    let mut second = provider.clone();
    second.name = "second".into();
    second.issuer = Some("https://second.example".into());
    second.sources = vec![TokenSource::Cookie("other".into())];
    let door = door(&[provider.clone(), second]);
    let token = signer.token(HS256, None, &claims());
    let request = Request::bearer(&token)
        .header(
            "cookie",
            format!("a=\"1;2\"; session=\"{token}\"; other={token}; b=3"),
        )
        .header("x-token", &token)
        .with_query(format!("x=%20&access_token={token}&y"));
    let permit_all = permit(&door, &rule(&[0, 1]), &request).unwrap();
    let removals: Vec<_> = permit_all.removals().cloned().collect();
    let cookie = |name: &str| TokenSource::Cookie(name.into());
    assert_eq!(
        removals,
        [
            TokenSource::Bearer,
            cookie("session"),
            TokenSource::Header("x-token".into()),
            TokenSource::Query("access_token".into()),
            cookie("other"),
        ]
    );
    let stripped = without_cookie(&without_cookie(&request.headers[1].1, "session"), "other");
    assert_eq!(stripped, b"a=\"1;2\"; b=3");
    assert_eq!(
        without_parameter(&request.query.unwrap(), "access_token"),
        b"x=%20&y"
    );
    let only = permit(&door, &rule(&[0]), &Request::cookie(format!("session={token}"))).unwrap();
    assert_eq!(only.removals().collect::<Vec<_>>(), [&cookie("session")]);
    provider.forward.remove_token = false;
    let keeping = self::door(&[provider]);
    let kept = permit(&keeping, &rule(&[0]), &Request::bearer(&token)).unwrap();
    assert_eq!(kept.removals().count(), 0);
}

#[test]
fn providers_are_told_apart_and_never_mixed() {
    let directory = TempDir::new().unwrap();
    let (first, second) = (Signer::p256(), Signer::p256());
    let make = |name: &str, signer: &Signer, issuer: Option<&str>| {
        let path = directory.path().join(name);
        fs::write(&path, jwks(&[signer.jwk(Some("same-kid"))])).unwrap();
        let mut provider = provider(&[ES256], KeySource::JwksFile(path));
        provider.name = name.into();
        provider.issuer = issuer.map(Into::into);
        provider
    };
    let providers = [
        make("first", &first, Some("https://first.example")),
        make("second", &second, Some("https://second.example")),
        make("rest", &second, None),
    ];
    let door = door(&providers);
    let token = |signer: &Signer, issuer: &str| {
        signer.token(ES256, Some("same-kid"), &claims_with(json!({"iss": issuer})))
    };
    let answer = |rule: &AuthRule, token: &str| {
        permit(&door, rule, &Request::bearer(token)).map(|permit| permit.token().provider().to_owned())
    };
    let (both, all) = (rule(&[0, 1]), rule(&[0, 1, 2]));
    let (of_first, of_second) = (
        token(&first, "https://first.example"),
        token(&second, "https://second.example"),
    );
    for _ in 0..2 {
        assert_eq!(answer(&both, &of_first).as_deref(), Ok("first"));
        assert_eq!(answer(&both, &of_second).as_deref(), Ok("second"));
        // One issuer's key never vouches for another issuer.
        assert_eq!(
            answer(&both, &token(&second, "https://first.example")),
            Err(Refusal::BadSignature)
        );
        assert_eq!(
            answer(&both, &token(&first, "https://third.example")),
            Err(Refusal::WrongIssuer)
        );
        // The provider without an issuer takes what no other claims.
        assert_eq!(
            answer(&all, &token(&second, "https://third.example")).as_deref(),
            Ok("rest")
        );
        assert_eq!(
            answer(&all, &token(&second, "https://first.example")),
            Err(Refusal::BadSignature)
        );
        // A token that is known from another route is held to this route's providers.
        assert_eq!(answer(&rule(&[1]), &of_first), Err(Refusal::BadSignature));
        assert_eq!(answer(&rule(&[2]), &of_second).as_deref(), Ok("rest"));
    }
    let check = |rule: AuthRule| door.authority().check_policy(&AuthPolicy::Optional(rule));
    assert_eq!(check(both), Ok(()));
    assert_eq!(check(rule(&[])), Err(RuleError::NoProvider));
    assert_eq!(check(rule(&[3])), Err(RuleError::UnknownProvider(3)));
    assert_eq!(check(rule(&[0; 9])), Err(RuleError::TooManyProviders(9)));
    assert!(matches!(check(rule(&[0, 0])), Err(RuleError::SameIssuer(..))));
    for scope in ["", "a b", "a\"b", "a\\b", "\u{e9}"] {
        let rule = AuthRule {
            scopes: vec![scope.into()],
            ..rule(&[0])
        };
        assert_eq!(check(rule), Err(RuleError::Scope(scope.into())));
    }
    let login = Login {
        url: "ftp://x".into(),
        return_parameter: None,
        return_origin: None,
    };
    assert!(matches!(
        check(AuthRule {
            login: Some(login),
            ..rule(&[0])
        }),
        Err(RuleError::Login(_))
    ));
    let used = [AuthPolicy::None, AuthPolicy::Required(rule(&[1]))];
    let warnings: Vec<_> = door
        .authority()
        .warnings(used.iter())
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        warnings,
        [
            "provider \"first\" is used by no route",
            "provider \"rest\" is used by no route",
            "provider \"rest\" names no issuer: a token of anybody who signs with its keys is accepted",
        ]
    );
}

#[test]
fn a_browser_is_sent_to_log_in_and_back() {
    let login = Login {
        url: "/login".into(),
        return_parameter: Some("next".into()),
        return_origin: None,
    };
    let (signer, provider) = shared();
    let door = door(&[provider]);
    let expired = signer.token(HS256, None, &claims_with(json!({"exp": 1})));
    for request in [Request::new(), Request::bearer(expired)] {
        assert!(
            permit(&door, &rule(&[0]), &request)
                .map(|_| ())
                .unwrap_err()
                .may_login()
        );
    }
    let query = without_parameter(b"a=1&access_token=secret", "access_token");
    let target = [b"/app?", query.as_slice()].concat();
    assert_eq!(login_location(&login, &target), "/login?next=%2Fapp%3Fa%3D1");
}

#[test]
fn revocations_are_in_force_at_once_also_for_cached_tokens() {
    let (signer, provider) = shared();
    let door = door(&[provider]);
    let second_worker = Authenticator::new(Arc::new(
        Authority::load(&[shared().1], None, Some(door.authority()), now()).unwrap(),
    ));
    let token =
        |sub: &str, jti: &str| signer.token(HS256, None, &claims_with(json!({"sub": sub, "jti": jti})));
    let answer =
        |door: &Authenticator, token: &str| permit(door, &rule(&[0]), &Request::bearer(token)).map(|_| ());
    let (mine, other, bobs) = (token("alice", "1"), token("alice", "2"), token("bob", "1"));
    for token in [&mine, &other, &bobs] {
        for door in [&door, &second_worker] {
            assert_eq!(answer(door, token), Ok(()));
        }
    }
    let revocations = door.authority().revocations();
    let add = |revoked: Revoked, until| revocations.add(Revocation { revoked, until }, now()).unwrap();
    add(Revoked::Token("2".into()), None);
    for door in [&door, &second_worker] {
        assert_eq!(answer(door, &mine), Ok(()));
        assert_eq!(answer(door, &other), Err(Refusal::Revoked));
    }
    // Another token with the same `jti`, never seen before, in another spelling.
    let respelled = signer.raw(
        HS256,
        r#"{ "alg":"HS256" }"#,
        &claims_with(json!({"jti": "2"})).to_string(),
    );
    assert_eq!(answer(&door, &respelled), Err(Refusal::Revoked));
    add(Revoked::Subject("bob".into()), Some(NOW + 50));
    add(Revoked::Subject("alice".into()), Some(NOW));
    assert_eq!(answer(&door, &bobs), Err(Refusal::Revoked));
    assert_eq!(answer(&door, &mine), Ok(()), "its revocation has ended");
    let policy = AuthPolicy::Required(rule(&[0]));
    let later = now() + Duration::from_secs(50);
    assert!(
        door.authenticate(&policy, &Request::bearer(&bobs), later).is_ok(),
        "ended meanwhile"
    );
    assert!(revocations.remove(&Revoked::Token("2".into())));
    assert_eq!(answer(&door, &other), Ok(()));
}

#[test]
fn a_reload_that_changes_no_key_keeps_cached_tokens() {
    let directory = TempDir::new().unwrap();
    let (keys, signer) = (directory.path().join("keys"), Signer::p256());
    replace(&keys, jwks(&[signer.jwk(Some("a"))]));
    let provider = provider(&[ES256], KeySource::JwksFile(keys.clone()));
    let load = |previous: Option<&Authority>| {
        Arc::new(Authority::load(std::slice::from_ref(&provider), None, previous, now()).unwrap())
    };
    let door = Authenticator::new(load(None));
    let token = signer.token(ES256, Some("a"), &claims());
    let hits = |door: &Authenticator| door.authority().status().cache.hits;
    let answer = |door: &Authenticator| permit(door, &rule(&[0]), &Request::bearer(&token)).map(|_| ());
    assert_eq!(answer(&door), Ok(()));
    let same = door.with_authority(load(Some(door.authority())));
    assert_eq!((answer(&same), hits(&same)), (Ok(()), 1));
    // Another key under the same name: what the old one signed is no longer good, cached or not.
    replace(&keys, jwks(&[Signer::p256().jwk(Some("a"))]));
    let other = same.with_authority(load(Some(same.authority())));
    assert_eq!(answer(&other), Err(Refusal::BadSignature));
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < limit, "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn replace(path: &Path, text: impl AsRef<[u8]>) {
    let next = path.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::rename(&next, path).unwrap();
}

#[test]
fn watched_files_are_followed_and_a_bad_one_changes_nothing() {
    let directory = TempDir::new().unwrap();
    let (keys, list) = (directory.path().join("keys"), directory.path().join("revoked"));
    let (old, new) = (Signer::rsa(), Signer::rsa_number(1));
    replace(&keys, jwks(&[old.jwk(Some("old"))]));
    replace(&list, "");
    let provider = provider(&[RS256], KeySource::JwksFile(keys.clone()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let authority = Arc::new(
        Authority::load(
            std::slice::from_ref(&provider),
            Some(&list),
            None,
            SystemTime::now(),
        )
        .unwrap(),
    );
    runtime.block_on(async { authority.spawn_tasks() });
    let door = Authenticator::new(Arc::clone(&authority));
    let answer = |token: &str| permit(&door, &rule(&[0]), &Request::bearer(token)).map(|_| ());
    let of_old = old.token(RS256, Some("old"), &claims());
    let of_new = new.token(RS256, Some("new"), &claims());
    assert_eq!(answer(&of_old), Ok(()));
    assert_eq!(
        answer(&of_new).map_err(|refusal| refusal.reason()),
        Err("unknown_key")
    );
    replace(&keys, jwks(&[old.jwk(Some("old")), new.jwk(Some("new"))]));
    until("the new key", || answer(&of_new) == Ok(()));
    assert_eq!(answer(&of_old), Ok(()));
    // Written in place, and broken.
    fs::write(&keys, "{\"keys\": [").unwrap();
    until("an error", || authority.status().providers[0].error.is_some());
    assert_eq!((answer(&of_old), answer(&of_new)), (Ok(()), Ok(())));
    replace(&keys, jwks(&[new.jwk(Some("new"))]));
    until("the old key gone, also from the cache", || {
        answer(&of_old).is_err()
    });
    assert!(authority.status().providers[0].error.is_none());

    replace(&list, "jti t-1\n");
    until("revoked by the file", || answer(&of_new) == Err(Refusal::Revoked));
    replace(&list, "nonsense\n");
    std::thread::sleep(edge_user::auth::WATCH_INTERVAL * 2);
    assert_eq!(
        answer(&of_new),
        Err(Refusal::Revoked),
        "a broken list revokes what it revoked"
    );
    replace(&list, "# nobody\n");
    until("the revocation gone", || answer(&of_new) == Ok(()));

    replace(&list, "nonsense\n");
    let errors = Authority::load(&[provider], Some(&list), Some(&authority), SystemTime::now()).unwrap_err();
    assert!(errors[0].to_string().contains("revoked:1: "), "{}", errors[0]);
    assert_eq!(answer(&of_new), Ok(()), "a refused reload changes nothing");
}

/// The file that `breakwater revoke` writes: each change is in force for a token that the cache knows, long before the
/// next look at the clock's pace.
#[tokio::test]
async fn revocations_written_to_the_file_are_in_force_at_once_for_known_tokens() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("revoked");
    fs::write(&path, "").unwrap();
    let (signer, provider) = shared();
    let authority = Arc::new(Authority::load(&[provider], Some(&path), None, now()).unwrap());
    authority.spawn_tasks();
    let door = Authenticator::new(authority);
    let request = Request::bearer(signer.token(HS256, None, &claims()));
    let ask = || permit(&door, &rule(&[0]), &request).map(|_| ());
    assert_eq!(ask(), Ok(()));
    let begun = Instant::now();
    for _ in 0..4 {
        let revoked = Revoked::Token("t-1".into());
        let one = Revocation {
            revoked: revoked.clone(),
            until: None,
        };
        revocation_file::apply(&path, &Change::Add(one), NOW).unwrap();
        while ask() != Err(Refusal::Revoked) {
            assert!(begun.elapsed() < Duration::from_secs(10), "not in force");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        revocation_file::apply(&path, &Change::Delete(revoked), NOW).unwrap();
        while ask() != Ok(()) {
            assert!(begun.elapsed() < Duration::from_secs(10), "still in force");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    // Eight changes, which take eight seconds if the files are only looked at once a second.
    println!("8 changes in {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}
