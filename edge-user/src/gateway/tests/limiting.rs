//! Limits of requests as clients meet them.

use std::{num::NonZeroU32, thread, time::Duration};

use super::support::{Edge, OK, Origin, config, eventually};
use crate::{
    config::{Config, LimitKey, RequestLimit, RequestRate},
    gateway::{LimitSnapshot, Limits, Reason},
};

fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("not zero")
}

/// `requests` an hour, so that nothing comes back while a test runs.
fn hourly(name: &str, requests: u32, by: &[LimitKey]) -> RequestLimit {
    RequestLimit {
        name: name.into(),
        routes: Vec::new(),
        by: by.to_vec(),
        rate: Some(RequestRate {
            requests: number(requests),
            per: Duration::from_hours(1),
            burst: number(requests),
        }),
        concurrent: None,
        keys: number(1024),
        observe: false,
        tell: false,
    }
}

fn start(limits: &[RequestLimit]) -> (Edge, Origin) {
    let origin = Origin::ok();
    let routes = [("/", 0, false), ("/p", 0, true), ("/other", 0, false)];
    let config = Config {
        request_limits: limits.to_vec(),
        ..config(&[&[origin.address]], &routes)
    };
    (Edge::start(&config, Limits::default()), origin)
}

fn get(edge: &Edge, path: &str, fields: &str) -> String {
    edge.exchange(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n").as_bytes())
}

fn status(edge: &Edge, path: &str, fields: &str) -> u16 {
    get(edge, path, fields)[9..12].parse().expect("a status")
}

#[test]
fn over_the_limit_is_429_with_what_to_do() {
    let (edge, origin) = start(&[hourly("by-address", 3, &[LimitKey::Address])]);
    for _ in 0..3 {
        let answer = get(&edge, "/", "");
        assert!(
            answer.starts_with("HTTP/1.1 200") && !answer.to_lowercase().contains("ratelimit"),
            "{answer}"
        );
    }
    let refused = get(&edge, "/", "").to_lowercase();
    assert!(
        refused.starts_with("http/1.1 429 too many requests\r\n"),
        "{refused}"
    );
    for field in [
        "retry-after: 1200\r\n",
        "ratelimit-policy: \"by-address\";q=3;w=3600\r\n",
        "ratelimit: \"by-address\";r=0;t=1200\r\n",
        "\"reason\":\"rate_limited\"",
    ] {
        assert!(refused.contains(field), "{field:?} in {refused}");
    }
    assert_eq!(origin.seen().len(), 3);
    assert_eq!(edge.counters().refused(Reason::RateLimited), 1);
    assert_eq!(
        edge.handle.limits(),
        [LimitSnapshot {
            name: "by-address".into(),
            refused: 1,
            observed: 0
        }]
    );
    // A header's word changes nothing about who asks.
    assert_eq!(
        status(
            &edge,
            "/",
            "X-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\n"
        ),
        429
    );
}

#[test]
fn a_limit_that_tells_says_how_much_is_left() {
    let tells = RequestLimit {
        tell: true,
        ..hourly("told", 4, &[LimitKey::Route])
    };
    let more = RequestLimit {
        tell: true,
        ..hourly("also", 9, &[LimitKey::Address])
    };
    let (edge, _origin) = start(&[tells, more]);
    let answer = get(&edge, "/", "").to_lowercase();
    assert!(
        answer.contains("ratelimit-policy: \"told\";q=4;w=3600, \"also\";q=9;w=3600\r\n"),
        "{answer}"
    );
    assert!(
        answer.contains("ratelimit: \"told\";r=3;t=900, \"also\";r=8;t=400\r\n"),
        "{answer}"
    );
}

#[test]
fn routes_headers_and_subjects_each_have_their_own_count() {
    let only_other = RequestLimit {
        routes: vec![2],
        ..hourly("one-route", 1, &[LimitKey::Address])
    };
    let by_key = hourly(
        "by-key",
        2,
        &[LimitKey::Header("x-api-key".into()), LimitKey::Route],
    );
    let by_subject = RequestLimit {
        routes: vec![1],
        ..hourly("by-subject", 1, &[LimitKey::Claim(vec!["sub".into()])])
    };
    let (edge, _origin) = start(&[only_other, by_key, by_subject]);
    assert_eq!(
        [
            status(&edge, "/other", "X-Api-Key: z\r\n"),
            status(&edge, "/other", "X-Api-Key: y\r\n")
        ],
        [200, 429]
    );
    for key in ["a", "b"] {
        let field = format!("X-API-Key: {key}\r\n");
        let answers = [(); 3].map(|()| status(&edge, "/", &field));
        assert_eq!(answers, [200, 200, 429], "key {key}");
    }
    // Whoever leaves the header out is counted by address.
    assert_eq!([(); 3].map(|()| status(&edge, "/", "")), [200, 200, 429]);
    let token = |key: &str| format!("Authorization: Bearer good\r\nX-Api-Key: {key}\r\n");
    assert_eq!(
        [status(&edge, "/p", &token("1")), status(&edge, "/p", &token("2"))],
        [200, 429]
    );
    assert_eq!(edge.counters().refused(Reason::RateLimited), 5);
}

/// A limit that needs no token is asked before one is looked at: a flood of bad ones costs no signatures.
#[test]
fn refused_tokens_count_and_are_then_not_looked_at() {
    let (edge, _origin) = start(&[hourly("guess", 2, &[LimitKey::Address])]);
    let bad = "Authorization: Bearer bad\r\n";
    assert_eq!([(); 3].map(|()| status(&edge, "/p", bad)), [401, 401, 429]);
}

#[test]
fn observed_limits_refuse_nothing_and_count() {
    let observed = RequestLimit {
        observe: true,
        concurrent: NonZeroU32::new(1),
        ..hourly("seen", 1, &[LimitKey::Address])
    };
    let (edge, _origin) = start(&[observed]);
    assert_eq!([(); 3].map(|()| status(&edge, "/", "")), [200, 200, 200]);
    assert_eq!(
        (edge.handle.limits()[0].refused, edge.handle.limits()[0].observed),
        (0, 2)
    );
}

#[test]
fn requests_at_once_are_counted_until_their_answer_has_gone_out() {
    let origin = Origin::with(|connection| {
        while let Some(seen) = connection.request() {
            if seen.line().contains("slow") {
                thread::sleep(Duration::from_millis(400));
            }
            connection.send(OK);
        }
    });
    let at_once = RequestLimit {
        rate: None,
        concurrent: NonZeroU32::new(2),
        ..hourly("at-once", 1, &[LimitKey::Address])
    };
    let config = Config {
        request_limits: vec![at_once],
        ..config(&[&[origin.address]], &[("/", 0, false)])
    };
    let edge = Edge::start(&config, Limits::default());
    thread::scope(|scope| {
        let slow: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| status(&edge, "/slow", "")))
            .collect();
        eventually("both are under way", || origin.seen().len() == 2);
        let refused = get(&edge, "/", "");
        assert!(
            refused.starts_with("HTTP/1.1 429") && refused.contains("too_many_at_once"),
            "{refused}"
        );
        for one in slow {
            assert_eq!(one.join().expect("an answer"), 200);
        }
    });
    eventually("room again", || status(&edge, "/", "") == 200);
}

/// A reload that changes a rate leaves what clients have used up.
#[test]
fn a_reload_resets_nobodys_limit() {
    let (edge, origin) = start(&[hourly("kept", 2, &[LimitKey::Address])]);
    assert_eq!([(); 3].map(|()| status(&edge, "/", "")), [200, 200, 429]);
    let config = Config {
        request_limits: vec![hourly("kept", 2, &[LimitKey::Address])],
        ..config(&[&[origin.address]], &[("/", 0, false)])
    };
    edge.handle
        .replace(&config, std::sync::Arc::new(super::support::Tokens))
        .expect("a plan");
    assert_eq!(status(&edge, "/", ""), 429);
}
