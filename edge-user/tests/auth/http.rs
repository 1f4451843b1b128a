//! The corpus and everything else about tokens as clients meet it: over HTTP/1.1 and HTTP/2, through the real gateway.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use edge_user::config::{AuthPolicy, ClaimEncoding, ClaimHeader, KeySource, Login, Provider, RemoteKeys};
use jsonwebtoken::Algorithm::{ES256, HS256};
use serde_json::json;

use crate::{
    corpus::{Case, World},
    edge::{Answer, Edge, http1, http2},
    keyserver::{KeyServer, Mood},
    support::*,
};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// A refusal's status and the beginning of its `WWW-Authenticate`.
fn told(reason: &str) -> (u16, Option<&'static str>) {
    match reason {
        "missing" => (401, Some("Bearer")),
        "ambiguous" => (400, Some("Bearer error=\"invalid_request\"")),
        "missing_scope" | "claim_mismatch" | "unfit_claim" => {
            (403, Some("Bearer error=\"insufficient_scope\""))
        }
        "keys_unavailable" => (503, None),
        _ => (401, Some("Bearer error=\"invalid_token\"")),
    }
}

/// What the strict gate refuses before any token is looked for.
fn is_http(request: &Request) -> bool {
    let is_text = |byte: u8| byte >= 0x20 && byte != 0x7f || byte == b'\t';
    request
        .headers
        .iter()
        .all(|(_, value)| value.iter().copied().all(is_text))
}

fn check(case: &Case, answer: &Answer, detail: &str, required: bool) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{}: {what}: {answer:?}, {detail:?}", case.name));
    if !is_http(&case.request) {
        return if answer.status == 400 {
            Ok(())
        } else {
            wrong("not HTTP")
        };
    }
    match case.expected {
        Ok(subject) => {
            let field = format!("x-user: {subject}");
            let is_named = answer.forwarded().contains(&field.as_str());
            // A token without a subject names nobody.
            if answer.status != 200 || is_named == subject.is_empty() {
                return wrong("not admitted");
            }
        }
        Err("missing") if !required => {
            if answer.status != 200 || answer.text.contains("x-user") {
                return wrong("not admitted as nobody");
            }
        }
        Err(reasons) => {
            if !reasons.split('|').any(|reason| reason == detail) {
                return wrong("another reason");
            }
            let (status, challenge) = told(detail);
            let real = answer.field("www-authenticate");
            let is_told = match challenge {
                Some("Bearer") => real == Some("Bearer"),
                Some(begin) => real.is_some_and(|real| real.starts_with(begin)),
                None => real.is_none(),
            };
            if answer.status != status
                || !is_told
                || answer.field("content-type") != Some("application/problem+json")
            {
                return wrong("another answer");
            }
        }
    }
    Ok(())
}

fn with_user(mut providers: Vec<Provider>) -> Vec<Provider> {
    for provider in &mut providers {
        provider.forward.headers = vec![ClaimHeader {
            header: "x-user".into(),
            path: vec!["sub".into()],
            encoding: ClaimEncoding::Plain,
        }];
    }
    providers
}

fn has_blanks_around(request: &Request) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let mut values = request.headers.iter().map(|(_, value)| value);
    values.any(|value| is_blank(value.first()) || is_blank(value.last()))
}

/// Each row over both versions, on a route that requires a token and one that does not, before and after everything
/// else was seen: the answer is the expected one, and the same.
#[tokio::test(flavor = "multi_thread")]
async fn every_attack_over_http_gets_its_answer_in_both_versions() {
    let world = World::new();
    let rule = rule(&[0, 1, 2, 3]);
    let edge = Edge::start(
        &with_user(world.providers.clone()),
        &[
            ("/required", AuthPolicy::Required(rule.clone())),
            ("/optional", AuthPolicy::Optional(rule)),
        ],
        Some(now()),
    )
    .await;
    let cases = world.cases();
    assert!(cases.len() >= 200, "only {} cases", cases.len());
    let (mut wrong, mut over_http2) = (Vec::new(), 0);
    for round in 0..2 {
        for case in &cases {
            for (path, required) in [("/required", true), ("/optional", false)] {
                let answer = http1(edge.address, path, &case.request).await;
                wrong.extend(check(case, &answer, edge.detail(), required).err());
                let Some(second) = http2(edge.address, path, &case.request).await else {
                    continue;
                };
                over_http2 += 1;
                // HTTP/1 takes blanks around a value off, in HTTP/2 they are malformed (RFC 9113 section 8.2.1).
                if has_blanks_around(&case.request) {
                    if (second.status, second.text.as_str()) != (400, "bad_field") {
                        wrong.push(format!("{} ({round}): by HTTP/2 {second:?}", case.name));
                    }
                    continue;
                }
                if second != answer {
                    wrong.push(format!(
                        "{} ({round}): {answer:?} but by HTTP/2 {second:?}",
                        case.name
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(over_http2 >= 4 * 200, "only {over_http2} over HTTP/2");
    println!("{} cases, {over_http2} answers over HTTP/2", cases.len());
}

/// The token in every place at once, taken out of all of them; what stands beside it keeps its bytes.
#[tokio::test(flavor = "multi_thread")]
async fn the_token_reaches_no_upstream_from_any_place() {
    let signer = Signer::secret("everywhere");
    let mut main = provider(&[HS256], signer.secret_source());
    main.forward.remove_token = true;
    let edge = Edge::start(
        &with_user(vec![main]),
        &[("/", AuthPolicy::Required(rule(&[0])))],
        Some(now()),
    )
    .await;
    let token = signer.token(HS256, None, &claims());
    let request = Request::bearer(&token)
        .header(
            "cookie",
            format!("a=\"1;2\";  session=\"{token}\"; Session=x; b=3;"),
        )
        .header("x-token", &token)
        .header("x-other", "kept")
        .with_query(format!("x=%20&access_token={token}&y&%61ccess_token={token}"));
    let answer = http1(edge.address, "/deep", &request).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(!answer.text.contains(&token), "{}", answer.text);
    let lines = answer.forwarded();
    for line in [
        "GET /deep?x=%20&y HTTP/1.1",
        "cookie: a=\"1;2\"; Session=x; b=3;",
        "x-other: kept",
        "x-user: alice",
    ] {
        assert!(lines.contains(&line), "{line:?} in {}", answer.text);
    }
    for name in ["authorization:", "x-token:"] {
        assert!(!answer.text.contains(name), "{name} in {}", answer.text);
    }
    assert_eq!(http2(edge.address, "/deep", &request).await, Some(answer));
    // In one place alone, each by each; a scheme that is no token stays.
    for (request, rest) in [
        (
            Request::cookie(format!("session={token}")).header("authorization", "Basic eA=="),
            "authorization: Basic eA==",
        ),
        (
            Request::new().header("x-token", &token).header("cookie", "a=1"),
            "cookie: a=1",
        ),
        (
            Request::new().with_query(format!("access_token={token}")),
            "GET /one HTTP/1.1",
        ),
    ] {
        let answer = http1(edge.address, "/one", &request).await;
        assert!(
            answer.status == 200 && !answer.text.contains(&token),
            "{answer:?}"
        );
        assert!(answer.forwarded().contains(&rest), "{rest:?} in {}", answer.text);
        assert_eq!(http2(edge.address, "/one", &request).await, Some(answer));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_are_sent_to_log_in_and_nobody_else() {
    let signer = Signer::secret("login");
    let mut asks = rule(&[0]);
    asks.login = Some(Login {
        url: "/login".into(),
        return_parameter: Some("next".into()),
        return_origin: None,
    });
    let mut scoped = asks.clone();
    scoped.scopes = vec!["admin".into()];
    let edge = Edge::start(
        &[provider(&[HS256], signer.secret_source())],
        &[
            ("/app", AuthPolicy::Required(asks)),
            ("/admin", AuthPolicy::Required(scoped)),
        ],
        Some(now()),
    )
    .await;
    let page = ("accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8");
    let expired = signer.token(HS256, None, &claims_with(json!({"exp": 1})));
    for (path, request, location) in [
        (
            "/app/x",
            Request::new().header(page.0, page.1),
            "/login?next=%2Fapp%2Fx",
        ),
        (
            "/app",
            Request::new().header(page.0, page.1).with_query("a=1&b"),
            "/login?next=%2Fapp%3Fa%3D1%26b",
        ),
        (
            "/app",
            Request::new()
                .header(page.0, page.1)
                .with_query(format!("a=1&access_token={expired}")),
            "/login?next=%2Fapp%3Fa%3D1",
        ),
        (
            "/app",
            Request::cookie(format!("session={expired}")).header(page.0, "TEXT/HTML"),
            "/login?next=%2Fapp",
        ),
        // Nothing that a client says about itself changes where the way back leads.
        (
            "/app",
            Request::new()
                .header(page.0, page.1)
                .header("x-forwarded-host", "evil.example")
                .header("referer", "//evil"),
            "/login?next=%2Fapp",
        ),
    ] {
        let answer = http1(edge.address, path, &request).await;
        assert_eq!(
            (answer.status, answer.field("location")),
            (302, Some(location)),
            "{answer:?}"
        );
        assert_eq!(answer.field("cache-control"), Some("no-store"));
        assert_eq!(http2(edge.address, path, &request).await, Some(answer));
    }
    let plain = http1(edge.address, "/app", &Request::new().header("accept", "*/*")).await;
    assert_eq!((plain.status, plain.field("location")), (401, None));
    // Another login does not bring more rights.
    let few = Request::bearer(signer.token(HS256, None, &claims())).header(page.0, page.1);
    let answer = http1(edge.address, "/admin", &few).await;
    assert_eq!(
        (answer.status, answer.field("location")),
        (403, None),
        "{answer:?}"
    );
}

/// Keys that are fetched as often as they are asked for, and not otherwise.
fn by_url(server: &KeyServer) -> Provider {
    let hour = Duration::from_hours(1);
    let remote = RemoteKeys {
        refresh: hour,
        refresh_min: hour,
        refresh_max: hour,
        max_stale: hour,
        cooldown: MS(300),
        timeout: MS(300),
        ..RemoteKeys::new(server.url() + "/keys")
    };
    provider(&[ES256], KeySource::JwksUrl(remote))
}

/// A token that nobody has seen before, valid by the real clock.
fn fresh(signer: &Signer, kid: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let changes = json!({"iat": second, "nbf": second, "exp": second + 600, "jti": number.to_string()});
    signer.token(ES256, Some(kid), &claims_with(changes))
}

/// Clients keep coming with tokens of the newest key, published that instant, while the server is rotated, stopped and
/// made to misbehave, and somebody floods the gateway with made-up key ids. No valid token is refused, known tokens do
/// not wait, and the flood costs one fetch a cooldown.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_published_this_instant_is_waited_for_and_nothing_else_is() {
    let signers: Vec<_> = (0..4).map(|_| Signer::p256()).collect();
    let server = KeyServer::start(&[signers[0].jwk(Some("k0"))]).await;
    let edge = Edge::start(
        &[by_url(&server)],
        &[("/", AuthPolicy::Required(rule(&[0])))],
        None,
    )
    .await;
    edge.authority.first_fetch(Duration::from_secs(5)).await;
    let address = edge.address;
    let begun = Instant::now();
    let known = Request::bearer(fresh(&signers[0], "k0"));
    assert_eq!(http1(address, "/", &known).await.status, 200);
    let is_over = std::sync::Arc::new(AtomicBool::new(false));
    let flood: Vec<_> = (0..8)
        .map(|client| {
            let (is_over, stranger) = (std::sync::Arc::clone(&is_over), Signer::p256());
            tokio::spawn(async move {
                let mut sent = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let token = fresh(&stranger, &format!("{client}-{sent}"));
                    let answer = http1(address, "/", &Request::bearer(token)).await;
                    assert_eq!(answer.status, 401, "{answer:?}");
                    sent += 1;
                }
                sent
            })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    for number in 1..signers.len() {
        server.publish(&[
            signers[number - 1].jwk(Some(&format!("k{}", number - 1))),
            signers[number].jwk(Some(&format!("k{number}"))),
        ]);
        // The first token of the new key, over both versions at once.
        let (first, second) = (
            Request::bearer(fresh(&signers[number], &format!("k{number}"))),
            Request::bearer(fresh(&signers[number], &format!("k{number}"))),
        );
        let (by_one, by_two) = tokio::join!(http1(address, "/", &first), http2(address, "/", &second));
        assert_eq!(by_one.status, 200, "{by_one:?}");
        assert_eq!(by_two.map(|answer| answer.status), Some(200));
        for mood in [
            Mood::Status(500),
            Mood::Silent,
            Mood::Noise,
            Mood::Huge,
            Mood::Redirect("http://127.0.0.1:1/".into()),
        ] {
            server.set(mood);
            let asked = Instant::now();
            let token = Request::bearer(fresh(&signers[number], &format!("k{number}")));
            assert_eq!(http1(address, "/", &token).await.status, 200);
            slowest = slowest.max(asked.elapsed());
        }
    }
    is_over.store(true, Ordering::Relaxed);
    let mut sent = 0;
    for client in flood {
        sent += client.await.unwrap();
    }
    assert!(sent >= 8, "the flood sent {sent}");
    assert!(slowest < MS(250), "a known key's token waited {slowest:?}");
    let allowed = 3 + usize::try_from(begun.elapsed().as_millis() / 300).unwrap();
    assert!(
        server.hits() <= allowed,
        "{} fetches in {:?}",
        server.hits(),
        begun.elapsed()
    );
    println!(
        "{sent} tokens of made-up keys, {} fetches in {:?}",
        server.hits(),
        begun.elapsed()
    );
}
