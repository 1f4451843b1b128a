//! Keys from a URL: rotation, outage and misbehaviour of a real server, floods of unknown key ids.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use edge_user::{
    auth::{Authenticator, Authority, Freshness, Outcome, ProviderStatus, Refusal},
    config::{AuthPolicy, KeySource, Provider, RemoteKeys},
};
use jsonwebtoken::Algorithm::{ES256, HS256};
use serde_json::json;
use tokio::task::{LocalSet, spawn_local};
use tokio_rustls::TlsAcceptor;

use crate::{
    keyserver::{KeyServer, Mood},
    support::*,
};

const MS: fn(u64) -> Duration = Duration::from_millis;

fn remote(url: String) -> RemoteKeys {
    RemoteKeys {
        refresh: MS(200),
        refresh_min: MS(100),
        refresh_max: MS(400),
        cooldown: MS(300),
        timeout: MS(300),
        max_stale: Duration::from_mins(10),
        ..RemoteKeys::new(url)
    }
}

/// Keys are fetched once, and then only when asked for.
fn on_demand(url: String) -> RemoteKeys {
    let hour = Duration::from_hours(1);
    RemoteKeys {
        refresh: hour,
        refresh_min: hour,
        refresh_max: hour,
        max_stale: hour,
        ..remote(url)
    }
}

fn by_url(remote: RemoteKeys) -> Provider {
    provider(&[ES256], KeySource::JwksUrl(remote))
}

async fn open(provider: Provider) -> Authenticator {
    let authority = Arc::new(Authority::load(&[provider], None, None, SystemTime::now()).unwrap());
    authority.spawn_tasks();
    authority.first_fetch(Duration::from_secs(5)).await;
    Authenticator::new(authority)
}

fn status(door: &Authenticator) -> ProviderStatus {
    door.authority().status().providers.remove(0)
}

fn policy() -> AuthPolicy {
    AuthPolicy::Required(rule(&[0]))
}

/// A token of this signer that nobody has seen before.
fn fresh(signer: &Signer, kid: &str) -> String {
    thread_local!(static NEXT: Cell<u64> = const { Cell::new(0) });
    let number = NEXT.replace(NEXT.get() + 1);
    signer.token(
        ES256,
        Some(kid),
        &claims_with(json!({"jti": format!("t-{number}")})),
    )
}

async fn admit(door: &Authenticator, token: &str) -> Result<(), Refusal> {
    match door.admit(&policy(), &Request::bearer(token), now()).await? {
        Outcome::Verified(_) => Ok(()),
        Outcome::Anonymous => panic!("a required token was not asked for"),
    }
}

fn reason(answer: Result<(), Refusal>) -> Result<(), &'static str> {
    answer.map_err(|refusal| refusal.reason())
}

fn ask(door: &Authenticator, token: &str) -> Result<(), Refusal> {
    match door.authenticate(&policy(), &Request::bearer(token), now())? {
        Outcome::Verified(_) => Ok(()),
        Outcome::Anonymous => panic!("a required token was not asked for"),
    }
}

/// Waits for a condition; fails after ten seconds.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < limit, "not within ten seconds: {what}");
        tokio::time::sleep(MS(5)).await;
    }
}

#[tokio::test]
async fn keys_come_from_a_url_and_by_discovery() {
    let signer = Signer::p256();
    let server = KeyServer::start(&[signer.jwk(Some("a"))]).await;
    let door = open(by_url(remote(server.url() + "/keys"))).await;
    assert_eq!(admit(&door, &fresh(&signer, "a")).await, Ok(()));
    assert_eq!(status(&door).freshness, Freshness::Fresh);

    let mut discovered = provider(&[ES256], KeySource::Oidc(remote(server.url())));
    discovered.issuer = None;
    let door = open(discovered).await;
    let own = signer.token(ES256, Some("a"), &claims_with(json!({"iss": server.url()})));
    assert_eq!(admit(&door, &own).await, Ok(()));
    // Discovery vouches for one issuer even if the configuration names none.
    assert_eq!(
        admit(&door, &fresh(&signer, "a")).await,
        Err(Refusal::WrongIssuer)
    );
    // The document is another issuer's if a letter differs.
    let door = open(provider(&[ES256], KeySource::Oidc(remote(server.url() + "/")))).await;
    assert!(status(&door).error.unwrap().contains("letter for letter"));
}

#[tokio::test]
async fn bad_addresses_and_times_do_not_load() {
    let load = |remote: RemoteKeys| {
        Authority::load(&[by_url(remote)], None, None, now()).expect_err("must not load")[0].to_string()
    };
    assert!(load(remote("http://id.example/keys".into())).contains("loopback"));
    assert!(load(remote("id.example".into())).contains("not an absolute"));
    assert!(
        load(RemoteKeys {
            timeout: MS(0),
            ..remote("https://id.example".into())
        })
        .contains("must hold")
    );
    assert!(
        load(RemoteKeys {
            refresh: MS(50),
            ..remote("https://id.example".into())
        })
        .contains("must hold")
    );
    let secret = provider(&[HS256], KeySource::JwksUrl(remote("https://id.example".into())));
    let error = Authority::load(&[secret], None, None, now()).expect_err("must not load")[0].to_string();
    assert!(error.contains("need a secret"), "{error}");
}

/// Everything that can go wrong with a key server, one thing after the other, while clients keep coming with tokens
/// seen and unseen, of old keys and of keys that were published this instant. Not one is refused.
#[tokio::test]
async fn no_valid_token_is_refused_through_rotation_and_outage() {
    let signers: Vec<_> = (0..5).map(|_| Signer::p256()).collect();
    let kid = |number: usize| format!("k{number}");
    let server = KeyServer::start(&[signers[0].jwk(Some("k0"))]).await;
    let door = Rc::new(open(by_url(remote(server.url() + "/keys"))).await);
    let newest = Rc::new(Cell::new(0));
    let (sent, refused) = (Rc::new(Cell::new(0_u64)), Rc::new(RefCell::new(Vec::new())));
    let is_over = Rc::new(Cell::new(false));
    let signers = Rc::new(signers);
    let local = LocalSet::new();
    for client in 0..8 {
        let (door, newest, sent, refused, is_over, signers) = (
            Rc::clone(&door),
            Rc::clone(&newest),
            Rc::clone(&sent),
            Rc::clone(&refused),
            Rc::clone(&is_over),
            Rc::clone(&signers),
        );
        local.spawn_local(async move {
            let mut known = (usize::MAX, String::new());
            while !is_over.get() {
                let number = newest.get();
                if client % 2 == 0 || known.0 != number {
                    known = (number, fresh(&signers[number], &format!("k{number}")));
                }
                if let Err(refusal) = admit(&door, &known.1).await {
                    refused.borrow_mut().push(format!("k{number}: {refusal}"));
                }
                sent.set(sent.get() + 1);
                tokio::time::sleep(MS(2)).await;
            }
        });
    }
    local
        .run_until(async {
            let jwk = |number: usize| signers[number].jwk(Some(&kid(number)));
            let rest = || tokio::time::sleep(MS(500));
            rest().await;
            // Published and used in the same instant.
            server.publish(&[jwk(0), jwk(1)]);
            newest.set(1);
            rest().await;
            server.publish(&[jwk(1)]);
            rest().await;
            for mood in [
                Mood::Status(500),
                Mood::Silent,
                Mood::Closed,
                Mood::Noise,
                Mood::Huge,
                Mood::Drip,
                Mood::Coded,
                Mood::Text("<html>".into()),
                Mood::Text("{\"keys\":[]}".into()),
                Mood::Text("{}".into()),
                Mood::Redirect("http://127.0.0.1:1/".into()),
            ] {
                server.set(mood);
                rest().await;
            }
            // The server comes back with keys that nobody has seen, late, and the next moment with others again.
            server.set(Mood::Late(MS(150), vec![jwk(1), jwk(2)]));
            newest.set(2);
            rest().await;
            server.publish(&[jwk(2), jwk(3)]);
            newest.set(3);
            rest().await;
            server.publish(&[jwk(3), jwk(4)]);
            newest.set(4);
            rest().await;
            is_over.set(true);
        })
        .await;
    local.await;
    let mut refused = refused.take();
    let count = refused.len();
    refused.dedup();
    assert!(sent.get() > 1000, "only {} requests", sent.get());
    assert!(count == 0, "{count} of {} refused: {refused:?}", sent.get());
    println!("{} requests, none refused", sent.get());
    assert_eq!(status(&door).freshness, Freshness::Fresh);
}

#[tokio::test]
async fn a_flood_of_unknown_kids_is_one_fetch_a_cooldown() {
    let (known, stranger, next) = (Signer::p256(), Signer::p256(), Signer::p256());
    let server = KeyServer::start(&[known.jwk(Some("a"))]).await;
    let door = Rc::new(open(by_url(on_demand(server.url()))).await);
    assert_eq!(server.hits(), 1);
    let begun = Instant::now();
    let is_over = Rc::new(Cell::new(false));
    let asked = Rc::new(Cell::new(0_u64));
    let local = LocalSet::new();
    for client in 0..50 {
        let (door, is_over, asked) = (Rc::clone(&door), Rc::clone(&is_over), Rc::clone(&asked));
        let token = stranger.token(ES256, Some("x"), &claims());
        let rest = token.split_once('.').unwrap().1.to_owned();
        local.spawn_local(async move {
            let mut number = 0_u64;
            while !is_over.get() {
                number += 1;
                let header = b64(json!({"alg": "ES256", "kid": format!("{client}-{number}")}).to_string());
                let token = format!("{header}.{rest}");
                // Half of them wait for keys, half do not.
                let answer = if client % 2 == 0 {
                    admit(&door, &token).await
                } else {
                    ask(&door, &token)
                };
                assert_eq!(reason(answer), Err("unknown_key"));
                asked.set(asked.get() + 1);
                tokio::time::sleep(MS(1)).await;
            }
        });
    }
    local
        .run_until(async {
            while begun.elapsed() < MS(1500) {
                assert_eq!(
                    ask(&door, &fresh(&known, "a")),
                    Ok(()),
                    "known keys do not suffer"
                );
                tokio::time::sleep(MS(10)).await;
            }
            // A new key during the flood: its first token waits for its turn, and passes.
            server.publish(&[known.jwk(Some("a")), next.jwk(Some("b"))]);
            assert_eq!(admit(&door, &fresh(&next, "b")).await, Ok(()));
            is_over.set(true);
        })
        .await;
    local.await;
    // The first one, one at once, one a cooldown, and one that was asked for before the flood ended.
    let allowed = 3 + (begun.elapsed().as_millis() / 300) as usize;
    assert!(asked.get() > 1000, "only {} tokens asked", asked.get());
    assert!(
        server.hits() <= allowed,
        "{} fetches in {:?}",
        server.hits(),
        begun.elapsed()
    );
    println!(
        "{} tokens of unknown keys: {} fetches in {:?}",
        asked.get(),
        server.hits(),
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_removed_key_dies_within_the_bound_also_in_caches() {
    let (old, new) = (Signer::p256(), Signer::p256());
    let server = KeyServer::start(&[]).await;
    // However long the server says that its answer may be kept.
    server.set(Mood::Keys(
        vec![old.jwk(Some("old")), new.jwk(Some("new"))],
        "max-age=86400",
    ));
    let door = open(by_url(remote(server.url()))).await;
    let token = fresh(&old, "old");
    assert_eq!(ask(&door, &token), Ok(()));
    assert_eq!(ask(&door, &token), Ok(()));
    server.set(Mood::Keys(vec![new.jwk(Some("new"))], "max-age=86400"));
    let removed = Instant::now();
    while ask(&door, &token).is_ok() {
        // refresh_max and the time for one fetch.
        assert!(removed.elapsed() < MS(400 + 300), "a removed key lives on");
        tokio::time::sleep(MS(5)).await;
    }
    assert_eq!(reason(ask(&door, &token)), Err("unknown_key"));
    assert_eq!(ask(&door, &fresh(&new, "new")), Ok(()));
}

#[tokio::test]
async fn the_last_good_set_serves_until_it_is_too_old() {
    let signer = Signer::p256();
    let server = KeyServer::start(&[signer.jwk(Some("a"))]).await;
    let door = open(by_url(RemoteKeys {
        max_stale: MS(1200),
        ..remote(server.url())
    }))
    .await;
    let token = fresh(&signer, "a");
    server.set(Mood::Status(503));
    until("stale", || status(&door).freshness == Freshness::Stale).await;
    assert_eq!(ask(&door, &token), Ok(()));
    let told = status(&door);
    assert!(told.error.unwrap().contains("503") && told.last_success.is_some() && told.next_fetch.is_some());
    until("too old", || status(&door).freshness == Freshness::Missing).await;
    let refusal = admit(&door, &token).await.unwrap_err();
    // Nobody waits for an endpoint that is down.
    let expected = Refusal::KeysUnavailable {
        provider: 0,
        may_come: false,
    };
    assert_eq!(refusal, expected);
    assert_eq!((refusal.status(), refusal.challenge()), (503, None));
    server.publish(&[signer.jwk(Some("a"))]);
    until("the keys are back", || ask(&door, &token).is_ok()).await;
    assert_eq!(status(&door).freshness, Freshness::Fresh);
}

#[tokio::test]
async fn every_misbehaviour_is_named_and_changes_no_key() {
    let signer = Signer::p256();
    let server = KeyServer::start(&[signer.jwk(Some("a"))]).await;
    let elsewhere = KeyServer::start(&[Signer::p256().jwk(Some("a"))]).await;
    let door = open(by_url(remote(server.url()))).await;
    let secret = json!({"kty": "oct", "k": b64([1; 64])});
    let weak = json!({"kty": "RSA", "n": b64([0xff; 128]), "e": "AQAB"});
    let many: Vec<_> = (0..65).map(|_| signer.jwk(None)).collect();
    let same_name = format!(r#"{{"keys":[],"keys":[{}]}}"#, signer.jwk(None));
    let rows = [
        (Mood::Status(500), "status 500"),
        (Mood::Status(204), "status 204"),
        (Mood::Silent, "no answer within"),
        (Mood::Drip, "no answer within"),
        (Mood::Late(Duration::from_secs(9), vec![]), "no answer within"),
        (Mood::Closed, "HTTP"),
        (Mood::Noise, "HTTP"),
        (Mood::Huge, "longer than"),
        (Mood::Coded, "content coding"),
        (Mood::Text("<html>".into()), "not a JSON object"),
        (Mood::Text(String::new()), "not a JSON object"),
        (Mood::Text("[]".into()), "not an object"),
        (Mood::Text("{}".into()), "no array"),
        (Mood::Text(r#"{"keys":[1]}"#.into()), "no array"),
        (Mood::Text(same_name), "twice"),
        (Mood::Keys(vec![], ""), "no usable key"),
        (Mood::Keys(vec![secret], ""), "shared secrets are not accepted"),
        (Mood::Keys(vec![weak], ""), "its alg|no usable key"),
        (Mood::Keys(many, ""), "65 keys"),
        (Mood::Redirect(elsewhere.url()), "redirect refused"),
        (Mood::Redirect("//127.0.0.1:1/".into()), "redirect refused"),
        (Mood::Redirect(String::new()), "redirect refused"),
        (
            Mood::Redirect("/again?and=again".into()),
            "redirect refused: too many",
        ),
    ];
    for (mood, expected) in rows {
        server.set(mood.clone());
        let is_told = || {
            let error = status(&door).error.unwrap_or_default();
            expected.split('|').any(|part| error.contains(part))
        };
        until(
            &format!("{mood:?} told as {expected:?}, not {:?}", status(&door).error),
            is_told,
        )
        .await;
        assert_eq!(ask(&door, &fresh(&signer, "a")), Ok(()), "{mood:?}");
    }
    assert_eq!(elsewhere.hits(), 0, "another server was asked");
    server.publish(&[signer.jwk(Some("a"))]);
    until("fresh again", || status(&door).freshness == Freshness::Fresh).await;
}

#[tokio::test]
async fn a_redirect_on_the_same_server_is_followed() {
    let signer = Signer::p256();
    let server = KeyServer::start(&[signer.jwk(Some("a"))]).await;
    server.set(Mood::Redirect("/moved".into()));
    let door = open(by_url(remote(server.url() + "/keys"))).await;
    // The server answers 404 there: it was asked, and there alone.
    assert!(status(&door).error.unwrap().contains("status 404"));
}

/// A certificate authority, and a server's certificate of it for this name.
fn certificates(name: &str) -> (String, TlsAcceptor) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    let certificate = leaf.signed_by(&key, &rcgen::Issuer::new(ca, ca_key)).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
    (ca_pem, TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test]
async fn tls_is_verified() {
    let signer = Signer::p256();
    let directory = tempfile::TempDir::new().unwrap();
    let (ca, acceptor) = certificates("localhost");
    let server = KeyServer::start_with(&[signer.jwk(Some("a"))], Some(acceptor)).await;
    let ca_file = directory.path().join("ca.pem");
    std::fs::write(&ca_file, ca).unwrap();
    let url = |host: &str| format!("https://{host}:{}/keys", server.address.port());
    let trusting = |host: &str| RemoteKeys {
        ca_file: Some(ca_file.clone()),
        ..remote(url(host))
    };
    let door = open(by_url(trusting("localhost"))).await;
    assert_eq!(admit(&door, &fresh(&signer, "a")).await, Ok(()));
    // Another name than the certificate's; an authority that nobody trusts; a file without certificates.
    for refused in [trusting("127.0.0.1"), remote(url("localhost"))] {
        let door = open(by_url(refused)).await;
        let told = status(&door);
        assert!(told.error.clone().unwrap().contains("certificate"), "{told:?}");
        assert_eq!(told.freshness, Freshness::Missing);
    }
    std::fs::write(&ca_file, "nothing").unwrap();
    let told = status(&open(by_url(trusting("localhost"))).await);
    assert!(
        told.error.clone().unwrap().contains("no certificate in it"),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_reload_keeps_keys_and_the_last_one_ends_the_task() {
    let signer = Signer::p256();
    let server = KeyServer::start(&[signer.jwk(Some("a"))]).await;
    let same = by_url(on_demand(server.url()));
    let door = open(same.clone()).await;
    let token = fresh(&signer, "a");
    assert_eq!(ask(&door, &token), Ok(()));
    let next = Authority::load(&[same], None, Some(door.authority()), SystemTime::now()).unwrap();
    let next = Arc::new(next);
    next.spawn_tasks();
    let reloaded = door.with_authority(Arc::clone(&next));
    let before = reloaded.authority().status().cache;
    assert_eq!(ask(&reloaded, &token), Ok(()), "no moment without keys");
    assert_eq!(
        reloaded.authority().status().cache.hits,
        before.hits + 1,
        "the cache is still warm"
    );
    assert_eq!(server.hits(), 1, "nothing was fetched again");
    // A provider that differs starts anew, and tokens in the cache are not its own.
    let mut other = by_url(on_demand(server.url()));
    other.audiences = vec!["somebody else".into()];
    let other = Arc::new(Authority::load(&[other], None, Some(&next), SystemTime::now()).unwrap());
    other.spawn_tasks();
    other.first_fetch(Duration::from_secs(5)).await;
    let changed = reloaded.with_authority(other);
    assert_eq!(ask(&changed, &token), Err(Refusal::WrongAudience));
    drop((door, reloaded, next));
    // The first provider's task is gone: an unknown key of the new one makes it alone fetch.
    let hits = server.hits();
    assert!(ask(&changed, &fresh(&signer, "b")).is_err());
    until("one fetch", || server.hits() == hits + 1).await;
}

#[tokio::test]
async fn a_provider_that_nobody_uses_any_more_is_not_fetched_for() {
    let signer = Signer::p256();
    let server = KeyServer::start(&[signer.jwk(Some("a"))]).await;
    let door = open(by_url(remote(server.url()))).await;
    // In the worker's cache, which outlives the configuration.
    assert_eq!(ask(&door, &fresh(&signer, "a")), Ok(()));
    let hits = server.hits();
    until("it is fetched on schedule", || server.hits() > hits + 1).await;
    let empty = Authority::load(&[], None, Some(door.authority()), SystemTime::now()).unwrap();
    let reloaded = door.with_authority(Arc::new(empty));
    drop(door);
    // A fetch may be under way; after it there is none.
    tokio::time::sleep(MS(300)).await;
    let hits = server.hits();
    tokio::time::sleep(MS(1000)).await;
    assert_eq!(server.hits(), hits);
    assert_eq!(reloaded.authority().status().cache.entries, 1);
}

#[tokio::test]
async fn before_the_first_keys_a_request_waits() {
    let signer = Signer::p256();
    let server = KeyServer::start(&[]).await;
    server.set(Mood::Late(MS(100), vec![signer.jwk(Some("a"))]));
    let provider = by_url(remote(server.url()));
    let authority = Arc::new(Authority::load(&[provider], None, None, SystemTime::now()).unwrap());
    authority.spawn_tasks();
    let door = Authenticator::new(authority);
    let token = fresh(&signer, "a");
    assert_eq!(reason(ask(&door, &token)), Err("keys_unavailable"));
    assert_eq!(admit(&door, &token).await, Ok(()));
}

#[tokio::test]
async fn a_withdrawn_key_is_waited_for_once() {
    let (present, gone) = (Signer::p256(), Signer::p256());
    let server = KeyServer::start(&[present.jwk(Some("a"))]).await;
    let door = open(by_url(on_demand(server.url()))).await;
    assert_eq!(
        reason(admit(&door, &fresh(&gone, "gone")).await),
        Err("unknown_key")
    );
    assert_eq!(server.hits(), 2);
    let asked = Instant::now();
    for _ in 0..10 {
        assert_eq!(
            reason(admit(&door, &fresh(&gone, "gone")).await),
            Err("unknown_key")
        );
    }
    // Each would have waited for a cooldown.
    assert!(asked.elapsed() < MS(300) * 5, "{:?}", asked.elapsed());
    // It was asked for all the same, so that its return is noticed within a cooldown.
    server.publish(&[gone.jwk(Some("gone"))]);
    until("it is back", || ask(&door, &fresh(&gone, "gone")).is_ok()).await;
}

#[tokio::test]
async fn waiting_is_bounded() {
    let stranger = Signer::p256();
    let server = KeyServer::start(&[Signer::p256().jwk(Some("a"))]).await;
    let slow = RemoteKeys {
        timeout: Duration::from_secs(1),
        ..on_demand(server.url())
    };
    let door = Rc::new(open(by_url(slow)).await);
    server.set(Mood::Silent);
    let local = LocalSet::new();
    let refused = Rc::new(Cell::new(0));
    local
        .run_until(async {
            let begun = Instant::now();
            let clients: Vec<_> = (0..1200)
                .map(|_| {
                    let (door, token, refused) =
                        (Rc::clone(&door), fresh(&stranger, "x"), Rc::clone(&refused));
                    spawn_local(async move {
                        assert!(admit(&door, &token).await.is_err());
                        refused.set(refused.get() + 1);
                    })
                })
                .collect();
            let beyond = 1200 - 1024;
            until("those beyond the bound are answered at once", || {
                refused.get() >= beyond
            })
            .await;
            tokio::time::sleep(MS(50)).await;
            assert_eq!(refused.get(), beyond, "those within it still wait");
            for client in clients {
                client.await.unwrap();
            }
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        })
        .await;
}
