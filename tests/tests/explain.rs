//! What `breakwater explain` tells is what the daemon does: a thousand random requests, asked of both.
#![expect(
    clippy::expect_used,
    reason = "a step of a test that fails has to stop that test"
)]

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};
use serde_json::{Value, json};
use tests::{
    daemon::{Daemon, cli, lab},
    http::{Request, once},
    lab::{Lab, VIP_V4},
    origin::Origin,
    token::{AUDIENCE, ISSUER, Signer, claims},
    wait::eventually,
};

const ROUTES: &str = r#"
[[route]]
name = "home"
path_exact = "/"
upstream = "site"
auth = "none"
[[route]]
name = "graphql"
hosts = ["api.example"]
path = "/graphql"
upstream = "api"
auth = "required"
providers = ["own"]
[[route]]
name = "scoped"
path = "/scoped"
methods = ["GET", "POST"]
upstream = "api"
auth = "required"
providers = ["own"]
scopes = ["write"]
[[route.claims]]
claim = "role"
one_of = ["admin", "editor"]
[[route]]
name = "maybe"
path = "/maybe"
upstream = "api"
auth = "optional"
providers = ["own"]
[[route]]
name = "user"
hosts = ["api.example", "*.tenants.example"]
path_template = "/users/{id}"
methods = ["GET", "PUT"]
upstream = "api"
auth = "none"
[[route]]
name = "user-two"
hosts = ["api.example"]
path_template = "/users/{id}"
upstream = "site"
auth = "none"
[[route.headers]]
name = "x-version"
value = "2"
[[route]]
name = "number"
path_regex = "/n/[0-9]+"
upstream = "site"
auth = "none"
[[route]]
name = "preview"
path = "/n"
upstream = "api"
auth = "none"
[[route.query]]
name = "preview"
present = true
[[route]]
name = "billing"
path = "/billing"
upstream = "api"
auth = "none"
rewrite = { prefix = "/v2/billing" }
[[route]]
name = "files"
path = "/files"
upstream = "site"
auth = "none"
encoded_slashes = "keep"
[[route]]
name = "split"
path = "/split"
upstreams = [{ name = "api", weight = 3 }, { name = "site", weight = 1 }]
auth = "none"
[[route]]
name = "old"
path = "/old"
auth = "none"
[route.redirect]
path = "/new"
status = 308
[[route]]
name = "health"
path_exact = "/healthz"
auth = "none"
[route.respond]
status = 204
[[route]]
name = "page"
path = "/page"
upstream = "site"
auth = "none"
[route.cors]
origins = ["https://app.example"]
methods = ["GET"]
"#;

const METHODS: [&str; 7] = ["GET", "GET", "GET", "POST", "DELETE", "OPTIONS", "PUT"];
const HOSTS: [&str; 11] = [
    "api.example",
    "api.example",
    "api.example",
    "api.example",
    "api.example",
    "API.example:8080",
    "a.tenants.example",
    "tenants.example",
    "x.y.tenants.example.",
    "other",
    "in valid",
];
const PATHS: [&str; 40] = [
    "/",
    "/graphql",
    "/graphql",
    "/graphql",
    "/graphql/x?y",
    "/scoped",
    "/scoped",
    "/scoped/z",
    "/scoped/y",
    "/graphql",
    "/graphql/x",
    "/GraphQL",
    "/graphql%2e",
    "/graphqlx",
    "/scoped",
    "/scoped/a?b=c",
    "/maybe",
    "/users/7",
    "/users/",
    "/users/7/x",
    "/users/%37",
    "/users/a;b=c",
    "/n/12",
    "/n/12x",
    "/n/12?preview",
    "/n?preview=1&x",
    "/billing",
    "/billing/a/b?c=d",
    "/billingx",
    "/files/a%2Fb",
    "/files/..%2fgraphql",
    "/split/1",
    "/old/a",
    "/healthz",
    "/healthz/",
    "/page",
    "/a/../graphql",
    "//graphql",
    "/%zz",
    "/scoped;v=1/x",
];

/// What one side says of a request: status (none if an upstream decides), route, reason.
type Said = (Option<u64>, String, String);

/// A random request.
struct Case {
    method: &'static str,
    host: &'static str,
    target: &'static str,
    fields: Vec<(&'static str, String)>,
}

impl Case {
    fn random(random: &mut SmallRng, tokens: &[String]) -> Self {
        let mut fields = Vec::new();
        let mut maybe = |chance: f64, random: &mut SmallRng, name: &'static str, value: String| {
            if random.random_bool(chance) {
                fields.push((name, value));
            }
        };
        let token = tokens.choose(random).expect("tokens").clone();
        maybe(0.7, random, "authorization", format!("Bearer {token}"));
        let token = tokens.choose(random).expect("tokens");
        maybe(0.1, random, "cookie", format!("a=b; session={token}"));
        let version = random.random_range(1..3).to_string();
        maybe(0.3, random, "x-version", version);
        maybe(0.2, random, "origin", "https://app.example".to_owned());
        maybe(0.2, random, "access-control-request-method", "GET".to_owned());
        maybe(0.1, random, "x-user", "root".to_owned());
        maybe(0.03, random, "content-length", "0, 0".to_owned());
        maybe(0.03, random, "transfer-encoding", "chunked, identity".to_owned());
        Self {
            method: METHODS.choose(random).expect("methods"),
            host: HOSTS.choose(random).expect("hosts"),
            target: PATHS.choose(random).expect("paths"),
            fields,
        }
    }

    fn explained(&self, lab: &Lab, config: &Path, from: IpAddr) -> Value {
        let mut arguments: Vec<String> = ["explain", self.method, self.target, "--json", "--host", self.host]
            .map(str::to_owned)
            .into();
        arguments.extend(["--config".to_owned(), config.display().to_string()]);
        arguments.extend(["--from".to_owned(), from.to_string()]);
        for (name, value) in &self.fields {
            arguments.extend(["--header".to_owned(), format!("{name}: {value}")]);
        }
        cli(lab, arguments).json()
    }

    fn request(&self) -> Request {
        let request = Request::new(self.method, self.target).field("Host", self.host);
        let fields = self.fields.iter();
        fields.fold(request, |request, (name, value)| request.field(name, value))
    }
}

fn tokens(signer: &Signer) -> Vec<String> {
    let with = |change: Value| {
        let mut all = claims("alice");
        for (name, value) in change.as_object().expect("an object") {
            all[name] = value.clone();
        }
        signer.sign(&all)
    };
    let good = signer.token();
    let (head, signature) = good.rsplit_once('.').expect("three parts");
    vec![
        good.clone(),
        format!("{head}.{}", signature.chars().rev().collect::<String>()),
        Signer::hs256().token(),
        "no.token".to_owned(),
        with(json!({ "exp": 1 })),
        with(json!({ "aud": "another" })),
        with(json!({ "iss": "another" })),
        with(json!({ "scope": "read" })),
        with(json!({ "scope": "read write", "role": "guest" })),
        with(json!({ "scope": "read write", "role": "editor" })),
        with(json!({ "scp": ["write"], "role": "admin" })),
    ]
}

fn settings(files: [&Path; 2], listener: SocketAddr, [api, site]: [SocketAddr; 2]) -> String {
    // Whoever is refused a thousand times must not be kept out in the middle.
    let [log, secret] = files.map(Path::display);
    format!(
        r#"
[gateway]
workers = 1
[gateway.access_log]
file = "{log}"
[offences]
observe = true
[[provider]]
name = "own"
algorithms = ["HS256"]
secret_file = "{secret}"
issuer = "{ISSUER}"
audiences = ["{AUDIENCE}"]
sources = ["cookie:session", "bearer"]
claim_headers = [{{ header = "x-user", claim = "sub" }}]
[[listener]]
name = "web"
address = "{listener}"
[[upstream]]
name = "api"
endpoints = ["{api}"]
[[upstream]]
name = "site"
endpoints = ["{site}"]
[[limit]]
name = "plenty"
by = ["address", "route"]
requests = 1000000
per = "1s"
{ROUTES}"#
    )
}

/// Checks what an origin was asked for.
fn arrived(told: &Value, origin: &Value, what: &str) {
    let name = origin["origin"].as_str().expect("a name");
    let mut candidates = told["outcome"]["candidates"]
        .as_array()
        .expect("candidates")
        .iter();
    let is_it = |one: &Value| one.as_str().is_some_and(|one| one.starts_with(name));
    assert!(candidates.any(is_it), "{name}: {what}");
    let path = told["outcome"]["path"].as_str().expect("a path").to_owned();
    let query = told["request"]["query"].as_str();
    let target = query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
    assert_eq!(origin["target"], target, "{what}");
}

#[test]
fn what_is_explained_is_what_happens() {
    let Some(lab) = lab("explain") else { return };
    let host = lab.origin();
    let [api, site] = ["api", "site"]
        .map(|name| Origin::echo(&host.namespace, (host.v4, 0).into(), name).expect("a port is free"));
    let signer = Signer::hs256();
    let secret = lab.write("secret", signer.verifying_key());
    let log = lab.write("access.log", "");
    let listener: SocketAddr = (VIP_V4, 8080).into();
    let text = settings([&log, &secret], listener, [api.address(), site.address()]);
    let config = lab.write("explain.toml", &text);
    let _daemon = Daemon::start(&lab, &text);
    let client = lab.client();
    let from = IpAddr::from(client.v4);
    let tokens = tokens(&signer);
    let mut random = SmallRng::seed_from_u64(11);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let (mut expected, mut cases): (Vec<Said>, Vec<String>) = (Vec::new(), Vec::new());
    for _ in 0..1_000 {
        let case = Case::random(&mut random, &tokens);
        let told = case.explained(&lab, &config, from);
        let request = case.request();
        let what = format!("{} {} {:?}: {told:#}", case.method, case.target, case.fields);
        let response =
            once(&client.namespace, listener, &request).unwrap_or_else(|error| panic!("{error}: {what}"));
        let outcome = &told["outcome"];
        let kind = outcome["what"].as_str().expect("an outcome");
        let status = outcome["status"].as_u64();
        assert_eq!(status.unwrap_or(200), u64::from(response.status), "{what}");
        if kind == "forwarded" {
            arrived(&told, &response.json(), &what);
        }
        if let Some(location) = response.field("location") {
            let told = outcome["fields"].as_array().expect("fields");
            assert!(
                told.iter().any(|field| field[1] == location),
                "{location}: {what}"
            );
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let reason = text(&outcome["reason"]);
        *seen.entry(format!("{kind} {reason}")).or_default() += 1;
        // What the gate refuses has no route, wherever it would have gone.
        expected.push((status, text(&told["route"]), reason));
        cases.push(what);
    }
    let lines: Vec<Value> = eventually("every line of the access log", || {
        let text = fs::read_to_string(&log).expect("the log is there");
        let lines: Vec<Value> = text
            .lines()
            .map_while(|line| serde_json::from_str(line).ok())
            .collect();
        (lines.len() >= expected.len()).then_some(lines)
    });
    for ((line, (status, route, reason)), case) in lines.iter().zip(&expected).zip(&cases) {
        let text = |key: &str| line[key].as_str().unwrap_or_default();
        assert_eq!(
            (text("route"), text("reason")),
            (route.as_str(), reason.as_str()),
            "{line:#}\n{case}"
        );
        assert!(
            status.is_none_or(|status| line["status"] == status),
            "{line:#}\n{case}"
        );
    }
    // The requests are worth something.
    for kind in [
        "forwarded ",
        "answered ",
        "refused no_route",
        "refused bad_path",
        "refused token_missing",
        "refused token_refused",
        "refused token_stale",
        "refused forbidden",
    ] {
        assert!(
            seen.get(kind).is_some_and(|count| *count >= 5),
            "{kind}: {seen:#?}"
        );
    }
}
