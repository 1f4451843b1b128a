//! Tokens at the gateway: a good one in a cookie or as a bearer admits, everything else is refused before the origin
//! hears of it.

use serde_json::{Value, json};
use tests::{
    config::{COOKIE, PRIVATE, Settings},
    daemon::{self, Daemon},
    http::{Client, Request, Response},
    stage::{self, Stage, gateway, vips},
    token::{Signer, claims, forged, unix_now, with},
};

#[track_caller]
fn assert_refused(response: &Response, status: u16, case: &str) {
    assert_eq!(response.status, status, "{case}: {}", response.text());
    assert!(
        response
            .field("content-type")
            .is_some_and(|kind| kind.contains("json")),
        "{case}: {:?}",
        response.fields
    );
    assert!(response.json().is_object(), "{case}");
}

#[test]
fn a_token_in_a_cookie_or_as_a_bearer_admits_and_nothing_else_does() {
    // No ban may end the series of refusals.
    let Some(stage) = Stage::new("auth", |settings| Settings {
        offences: (100_000, "60s", "60s"),
        ..settings
    }) else {
        return;
    };
    let token = stage.signer.token();
    let signed = |name, value: Value| stage.signer.sign(&with(claims("somebody"), name, value));
    let now = unix_now();
    let mut refused = vec![
        ("no token", Request::get(PRIVATE)),
        ("another cookie", Request::get(PRIVATE).cookie("other", &token)),
        (
            "another scheme",
            Request::get(PRIVATE).field("Authorization", &format!("Basic {token}")),
        ),
        ("no token in the cookie", Request::get(PRIVATE).cookie(COOKIE, "")),
        ("a longer path", Request::get(&format!("{PRIVATE}/deeper/still"))),
        ("a query", Request::get(&format!("{PRIVATE}?token={token}"))),
    ];
    for (case, bad) in [
        ("a forged signature", forged(&token)),
        ("another key", Signer::hs256().token()),
        ("another algorithm", Signer::rs256().token()),
        ("half a token", token[..token.len() / 2].to_owned()),
        ("no signature", format!("{}.", token.rsplit_once('.').unwrap().0)),
        ("an hour too late", signed("exp", json!(now - 3600))),
        ("an hour too early", signed("nbf", json!(now + 3600))),
        ("never ending", signed("exp", Value::Null)),
        ("another issuer", signed("iss", json!("https://elsewhere.test"))),
        ("another audience", signed("aud", json!("somebody-else"))),
        ("no audience", signed("aud", Value::Null)),
    ] {
        refused.push((case, Request::get(PRIVATE).bearer(&bad)));
        refused.push((case, Request::get(PRIVATE).cookie(COOKIE, &bad)));
    }
    for vip in vips() {
        let mut client = Client::connect(&stage.lab.client().namespace, gateway(vip)).unwrap();
        for (case, request) in &refused {
            assert_refused(&client.send(request).unwrap(), 401, case);
        }
    }
    assert_eq!(
        stage.origin.received().len(),
        0,
        "the origin heard of no refused request"
    );

    for vip in vips() {
        let mut client = Client::connect(&stage.lab.client().namespace, gateway(vip)).unwrap();
        for (case, request) in [
            ("bearer", Request::get(PRIVATE).bearer(&token)),
            ("cookie", Request::get(PRIVATE).cookie(COOKIE, &token)),
            (
                "cookie among others",
                Request::get(PRIVATE).field("Cookie", &format!("a=b; {COOKIE}={token}; c=d")),
            ),
            (
                "deeper",
                Request::get(&format!("{PRIVATE}/deeper?and=more")).bearer(&token),
            ),
            (
                "several audiences",
                Request::get(PRIVATE).bearer(&signed("aud", json!(["x", tests::token::AUDIENCE]))),
            ),
            ("an open path needs none", Request::get("/privately")),
            (
                "a body",
                Request::new("POST", PRIVATE).bearer(&token).body("0123456789"),
            ),
        ] {
            let response = client.send(&request).unwrap();
            assert_eq!(response.status, 200, "{case}: {}", response.text());
            assert_eq!(response.json()["origin"], "one", "{case}");
        }
    }
    assert_eq!(stage.origin.received().len(), 14);
}

#[test]
fn public_key_tokens_admit() {
    let Some(lab) = daemon::lab("auth-rs256") else {
        return;
    };
    let signer = Signer::rs256();
    let origin = stage::origin(&lab);
    let _daemon = Daemon::start(&lab, &Settings::standard(&lab, &signer, origin.address()).text());
    let mut client = Client::connect(&lab.client().namespace, gateway(vips()[0])).unwrap();
    let good = Request::get(PRIVATE).cookie(COOKIE, &signer.token());
    assert_eq!(client.send(&good).unwrap().status, 200);
    // The public key used as an HMAC secret: the classic confusion of key families.
    let confused = Signer::hs256_with(signer.verifying_key()).token();
    for bad in [forged(&signer.token()), Signer::rs256().token(), confused] {
        assert_refused(
            &client.send(&Request::get(PRIVATE).bearer(&bad)).unwrap(),
            401,
            &bad,
        );
    }
}

#[test]
fn an_upstream_that_is_down_is_told_with_a_reason() {
    let Some(lab) = daemon::lab("upstream-down") else {
        return;
    };
    let signer = Signer::hs256();
    // Nothing has ever listened there.
    let nobody = (lab.origin().v4, 9).into();
    let _daemon = Daemon::start(&lab, &Settings::standard(&lab, &signer, nobody).text());
    let mut client = Client::connect(&lab.client().namespace, gateway(vips()[0])).unwrap();
    let response = client.send(&Request::get("/")).unwrap();
    assert_refused(&response, 502, "nobody listens");
    assert!(
        !response.text().contains(&nobody.to_string()),
        "internals stay inside: {}",
        response.text()
    );
    // Authentication comes first: an upstream's state is no business of strangers.
    assert_refused(&client.send(&Request::get(PRIVATE)).unwrap(), 401, "no token");

    let origin = tests::origin::Origin::echo(&lab.origin().namespace, nobody, "late").unwrap();
    let mut client = Client::connect(&lab.client().namespace, gateway(vips()[0])).unwrap();
    tests::wait::eventually("the upstream that came up to be used", || {
        let response = client.send(&Request::get("/")).unwrap();
        (response.status == 200).then_some(())
    });
    drop(origin);
}

#[test]
fn only_routed_paths_are_served() {
    let Some(lab) = daemon::lab("routes") else { return };
    let signer = Signer::hs256();
    let origin = stage::origin(&lab);
    let text = Settings::standard(&lab, &signer, origin.address())
        .text()
        .replace("path = \"/\"", "path = \"/public\"");
    let _daemon = Daemon::start(&lab, &text);
    let mut client = Client::connect(&lab.client().namespace, gateway(vips()[1])).unwrap();
    for (path, status) in [
        ("/public", 200),
        ("/public/x?y", 200),
        ("/publicx", 404),
        ("/", 404),
        ("/privatex", 404),
    ] {
        let response = client.send(&Request::get(path)).unwrap();
        assert_eq!(response.status, status, "{path}: {}", response.text());
        if status != 200 {
            assert_refused(&response, status, path);
        }
    }
}
