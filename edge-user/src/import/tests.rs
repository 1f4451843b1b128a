//! Manifests in, requests through what comes out.

use std::{path::Path, sync::Arc, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    config::{Config, ConfigError},
    gateway::{
        NoTokens, Plan,
        explain::{Asked, Outcome, explain},
    },
};

const FOUNDING: &str = include_str!("../../../examples/ingress.yaml");

const GATEWAY: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: infra}
spec:
  gatewayClassName: any
  listeners:
  - {name: web, port: 80, protocol: HTTP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec:
  parentRefs: [{name: gw, namespace: infra}]
  hostnames: ["a.example.org", "*.wild.example.org"]
  rules:
  - matches:
    - path: {type: PathPrefix, value: /v1/}
      headers: [{name: X-Version, value: "2"}]
      method: GET
    - path: {type: Exact, value: /exact/}
      queryParams: [{type: RegularExpression, name: q, value: "[0-9]+"}]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: X-A, value: "{b}"}], remove: [X-B]}
    backendRefs: [{name: a, port: 80}]
    timeouts: {request: 10s, backendRequest: 500ms}
  - matches: [{path: {type: PathPrefix, value: /old}}]
    filters:
    - type: RequestRedirect
      requestRedirect: {scheme: https, statusCode: 301, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}
  - matches: [{path: {type: PathPrefix, value: /strip}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]
    backendRefs: [{name: b, port: 8080}]
  - matches: [{path: {type: PathPrefix, value: /none}}]
  - matches: [{path: {type: PathPrefix, value: /split}}]
    backendRefs: [{name: a, port: 80, weight: 90000}, {name: b, port: 8080, weight: 10000}]
"#;

fn made(text: &str) -> Translation {
    translate(&read(text).unwrap(), &Surroundings::default())
}

/// The configuration without its TLS, whose files are not there.
fn config(made: &Translation) -> Config {
    let mut plain = String::new();
    let mut skips = false;
    for line in made.config.lines() {
        skips = (skips || line == "[listener.tls]") && line != "]";
        if !skips && line != "]" {
            plain += line;
            plain += "\n";
        }
    }
    match Config::parse(&plain, "made", Path::new("/")) {
        Ok(loaded) => loaded.config,
        Err(ConfigError::Invalid(report)) => panic!("{:#?}\n{plain}", report.errors),
        Err(error) => panic!("{error}"),
    }
}

/// Where a request goes: `upstream path`, `status location` or `reason`.
fn goes(config: &Config, host: &str, target: &str, fields: &[(&str, &str)]) -> String {
    let plan = Plan::compile(config, Arc::new(NoTokens), 1, None).unwrap();
    let own = [("host", host)];
    let asked = Asked {
        method: "GET".to_owned(),
        secure: false,
        target: target.to_owned(),
        fields: own
            .iter()
            .chain(fields)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        from: ([127, 0, 0, 1], 0).into(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let told = runtime.block_on(explain(config, &plan, &asked, Duration::from_secs(5), |_, _| {
        None::<()>
    }));
    match told.outcome {
        Outcome::Forwarded { candidates, path, .. } => format!("{} {path}", candidates.join("|")),
        Outcome::Answered { status, fields } => {
            let location = fields.iter().find(|(name, _)| name == "location");
            format!("{status} {}", location.map_or("", |(_, value)| value))
        }
        Outcome::Refused { reason, .. } => reason.to_owned(),
        Outcome::FannedOut { .. } | Outcome::Undecided => "?".to_owned(),
    }
}

#[test]
fn the_ingress_that_began_it_all_comes_over_whole() {
    let made = made(FOUNDING);
    assert_eq!(made.notes, [], "nothing is lost");
    for stem in ["shop-shop-tls", "shop-api-tls"] {
        let file = format!("\"/etc/breakwater/tls/{stem}.crt\"");
        assert!(made.config.contains(&file), "{}", made.config);
    }
    let config = config(&made);
    for (host, target, to) in [
        ("shop.example.org", "/", "shop-gateway-8080 /"),
        ("shop.example.org", "/any/thing", "shop-gateway-8080 /any/thing"),
        ("shop.example.org", "/graphql", "shop-api-4000 /graphql"),
        ("shop.example.org", "/graphql/x", "shop-api-4000 /graphql/x"),
        ("shop.example.org", "/graphqlx", "shop-gateway-8080 /graphqlx"),
        ("api.example.org", "/graphql", "shop-api-4000 /graphql"),
        ("api.example.org", "/", "no_route"),
        ("other.example.org", "/graphql", "no_route"),
    ] {
        assert_eq!(goes(&config, host, target, &[]), to, "{host}{target}");
    }
}

#[test]
fn routes_of_the_gateway_api_take_what_they_took() {
    let made = made(GATEWAY);
    let notes: Vec<_> = made.notes.iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        [
            "HTTPRoute shop/r, spec.rules[3]: has no backend: answered with 500",
            "HTTPRoute shop/r, spec.rules[4]: weights are scaled down to 1000",
        ]
    );
    let config = config(&made);
    let version = [("x-version", "2")];
    for (host, target, fields, to) in [
        ("a.example.org", "/v1", &version[..], "shop-a-80 /v1"),
        ("a.example.org", "/v1", &[], "no_route"),
        ("x.wild.example.org", "/v1/x", &version[..], "shop-a-80 /v1/x"),
        ("wild.example.org", "/v1", &version[..], "no_route"),
        ("a.example.org", "/exact/?q=12", &[], "shop-a-80 /exact/"),
        ("a.example.org", "/exact/?q=x", &[], "no_route"),
        ("a.example.org", "/exact?q=1", &[], "no_route"),
        ("a.example.org", "/old", &[], "301 https://a.example.org/new"),
        (
            "a.example.org",
            "/old/x/y?z",
            &[],
            "301 https://a.example.org/new/x/y?z",
        ),
        ("a.example.org", "/strip/x", &[], "shop-b-8080 /x"),
        ("a.example.org", "/none/x", &[], "500 "),
        (
            "a.example.org",
            "/split",
            &[],
            "shop-a-80 (1000)|shop-b-8080 (112) /split",
        ),
    ] {
        assert_eq!(
            goes(&config, host, target, fields),
            to,
            "{host}{target} {fields:?}"
        );
    }
    let route = &config.routes[0];
    assert_eq!(route.request_timeout, Some(Duration::from_secs(10)));
    assert_eq!(route.timeout, Duration::from_millis(500));
}

#[test]
fn what_is_not_carried_over_is_named() {
    let text = r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: odd
  annotations: {nginx.ingress.kubernetes.io/rewrite-target: /$1}
spec:
  tls: [{hosts: [a.example]}]
  rules:
  - host: "*.a.example"
    http:
      paths:
      - {path: /api/(.*), pathType: ImplementationSpecific, backend: {service: {name: x, port: {number: 1}}}}
      - {path: /ok, pathType: Exact, backend: {service: {name: x, port: {number: 1}}}}
      - {path: /ok, pathType: Exact, backend: {service: {name: y, port: {number: 1}}}}
      - {path: /named, pathType: Exact, backend: {service: {name: x, port: {name: web}}}}
      - {path: /a/../b, pathType: Prefix, backend: {service: {name: x, port: {number: 1}}}}
      - {path: /r, pathType: Prefix, backend: {resource: {kind: Bucket, name: b}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: g}
"#;
    let made = made(text);
    let fields: Vec<_> = made.notes.iter().map(|note| note.field.as_str()).collect();
    let path = |number: usize, rest: &str| format!("spec.rules[0].http.paths[{number}]{rest}");
    let expected = [
        "metadata.annotations[\"nginx.ingress.kubernetes.io/rewrite-target\"]".to_owned(),
        "spec.tls[0]".to_owned(),
        "spec.rules[0].host".to_owned(),
        path(0, ".path"),
        path(2, ""),
        path(3, ".backend"),
        path(4, ""),
        path(5, ".backend"),
        "kind".to_owned(),
    ];
    assert_eq!(fields, expected);
    assert_eq!(made.routes, 1);
    let config = config(&made);
    assert_eq!(goes(&config, "x.a.example", "/ok", &[]), "default-x-1 /ok");
}

#[test]
fn what_is_no_manifest_is_refused() {
    for (text, word) in [
        ("a: [", "line"),
        ("- 1", "document 1: is no mapping"),
        ("a: 1", "document 1: has no kind"),
        (
            "kind: Ingress\napiVersion: networking.k8s.io/v1\nmetadata: {name: x}\nspec: {rules: 7}",
            "Ingress default/x",
        ),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(word), "{text}: {error}");
    }
    assert!(read("---\n---\n").unwrap().is_empty());
    assert_eq!(
        read("kind: List\nitems: [{kind: Ingress, apiVersion: networking.k8s.io/v1, metadata: {name: x}}]")
            .unwrap()
            .len(),
        1
    );
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,8}",
        "[a-z*.-]{0,12}",
        "/[a-z/%.{}*~ ]{0,12}",
        "\\PC{0,20}",
        Just(String::new()),
        Just("a".repeat(300)),
    ]
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-z]{1,5}\\.example", 1 => "\\*\\.[a-z]{1,5}\\.example", 1 => text()]
}

fn rule() -> impl Strategy<Value = serde_json::Value> {
    let condition = || {
        let kind = prop_oneof![Just("Exact"), Just("RegularExpression")];
        (kind, text(), text())
            .prop_map(|(kind, name, value)| serde_json::json!({ "type": kind, "name": name, "value": value }))
    };
    let path = prop_oneof![Just("PathPrefix"), Just("Exact"), Just("RegularExpression")];
    let parts = (
        path,
        text(),
        condition(),
        condition(),
        text(),
        text(),
        0..3_u8,
        any::<u16>(),
    );
    parts.prop_map(|(kind, path, header, parameter, name, new, filter, port)| {
        let filter = match filter {
            0 => serde_json::json!({ "type": "RequestRedirect", "requestRedirect": {
                "hostname": name, "path": { "replacePrefixMatch": new } } }),
            1 => serde_json::json!({ "type": "URLRewrite", "urlRewrite": {
                "path": { "replaceFullPath": new } } }),
            _ => serde_json::json!({ "type": "RequestHeaderModifier", "requestHeaderModifier": {
                "set": [{ "name": name, "value": new }] } }),
        };
        serde_json::json!({
            "matches": [{ "path": { "type": kind, "value": path }, "headers": [header],
                          "queryParams": [parameter] }, { "path": { "type": kind, "value": path } }],
            "filters": [filter],
            "backendRefs": [{ "name": name, "port": port, "weight": port }],
            "timeouts": { "request": new },
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever stands in a manifest, what comes out is a configuration that may be used.
    #[test]
    fn what_comes_out_is_valid(
        hosts in proptest::collection::vec(host(), 0..4),
        rules in proptest::collection::vec(rule(), 0..4),
        paths in proptest::collection::vec((text(), text(), any::<u16>()), 0..6),
    ) {
        let route = serde_json::json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": { "name": "r" },
            "spec": { "hostnames": hosts, "rules": rules },
        });
        let path = |(path, service, port): &(String, String, u16)| serde_json::json!({
            "path": path, "pathType": "Prefix",
            "backend": { "service": { "name": service, "port": { "number": port } } },
        });
        let paths: Vec<_> = paths.iter().map(path).collect();
        let rules: Vec<_> = hosts.iter()
            .map(|host| serde_json::json!({ "host": host, "http": { "paths": paths } }))
            .collect();
        let ingress = serde_json::json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": { "name": "i" },
            "spec": { "rules": rules },
        });
        let made = made(&format!("{ingress}\n---\n{route}\n"));
        if made.routes > 0 {
            config(&made);
        }
    }
}
