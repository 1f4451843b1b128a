//! Mistakes in what the configuration asks of tokens, and its agreement with those who verify them.

use super::{
    key_dir,
    mistakes::{errors, warnings},
    options,
};
use crate::{
    auth::Authority,
    config::{Config, Loaded, bounds, load},
};

/// A provider with these lines after its key.
fn provider(lines: &str) -> String {
    format!("[[provider]]\nname = 'p'\nalgorithms = ['HS256']\nsecret_file = 'good.key'\n{lines}")
}

/// A provider whose keys are fetched.
fn fetched(lines: &str) -> String {
    format!("[[provider]]\nname = 'p'\nalgorithms = ['RS256']\n{lines}")
}

/// A route that wants a token, with these lines at its end; its own begin at line 11.
fn route(lines: &str) -> String {
    format!(
        "[[provider]]\nname = 'p'\nalgorithms = ['HS256']\nsecret_file = 'good.key'\n\
         [[upstream]]\nname = 'app'\nendpoints = ['1.2.3.4:5']\n\
         [[route]]\nname = 'r'\nupstream = 'app'\npath = '/'\nauth = 'required'\nproviders = ['p']\n{lines}"
    )
}

/// A route with this claim requirement, in line 14.
fn claim(requirement: &str) -> String {
    route(&format!("claims = [{{ {requirement} }}]\n"))
}

#[test]
fn keys_from_a_url() {
    let rows: [(&str, &[&str]); 22] = [
        ("jwks_url = 'https://id.example/keys'\n", &[]),
        ("jwks_url = 'http://127.0.0.1:8080/keys'\n", &[]),
        ("oidc_issuer = 'https://id.example/realm/'\n", &[]),
        (
            "jwks_url = 'http://id.example/keys'\n",
            &["4 provider[0].jwks_url: plain http is possible for this machine only"],
        ),
        (
            "jwks_url = 'id.example/keys'\n",
            &["4 provider[0].jwks_url: this is not an https URL"],
        ),
        (
            "jwks_url = 'https://u:hunter2@id.example/keys'\n",
            &["4 provider[0].jwks_url: a user name in a URL ends up in logs"],
        ),
        (
            "jwks_url = 'https://id.example/keys#1'\n",
            &["4 provider[0].jwks_url: a fragment is never sent"],
        ),
        (
            "oidc_issuer = 'https://id.example/?a=b'\n",
            &["4 provider[0].oidc_issuer: an issuer has no query"],
        ),
        (
            "oidc_issuer = 'https://id.example/.well-known/openid-configuration'\n",
            &["4 provider[0].oidc_issuer: the discovery document, not the issuer"],
        ),
        (
            "oidc_issuer = 'https://id.example'\nissuer = 'https://id.example/'\n",
            &["5 provider[0].issuer: `issuer` and `oidc_issuer` differ"],
        ),
        (
            "oidc_issuer = 'https://id.example'\nissuer = 'https://id.example'\n",
            &[],
        ),
        (
            "oidc_issuer = 'https://id.example'\njwks_url = 'https://id.example/keys'\n",
            &["4 provider[0].oidc_issuer: given in two ways: `jwks_url` and `oidc_issuer`"],
        ),
        (
            "pem_file = 'public.pem'\nfetch = { refresh = '5m' }\n",
            &["5 provider[0].fetch: this provider's keys are not fetched"],
        ),
        (
            "jwks_url = 'https://id.example/keys'\nfetch = { refersh = '5m' }\n",
            &["5 provider[0].fetch.refersh: did you mean `refresh`?"],
        ),
        (
            "jwks_url = 'https://id.example/keys'\nfetch = { refresh = '20m' }\n",
            &["5 provider[0].fetch.refresh: `refresh` (20m) is longer than `refresh_max` (15m)"],
        ),
        (
            "jwks_url = 'https://id.example/keys'\nfetch = { refresh_max = '1m' }\n",
            &["5 provider[0].fetch.refresh_max: `refresh` (5m) is longer than `refresh_max` (1m)"],
        ),
        (
            "jwks_url = 'https://id.example/keys'\nfetch = { refresh_min = '6m', max_stale = '1m' }\n",
            &[
                "5 provider[0].fetch.refresh_min: `refresh_min` (6m) is longer than `refresh` (5m)",
                "5 provider[0].fetch.max_stale: `refresh_max` (15m) is longer than `max_stale` (1m)",
            ],
        ),
        (
            "jwks_url = 'https://id.example/keys'\nfetch = { refresh_min = '0s', timeout = '2m', cooldown = '2h', max_stale = '31d' }\n",
            &[
                "5 provider[0].fetch.refresh_min: must be longer than zero",
                "5 provider[0].fetch.timeout: must be at most 1m",
                "5 provider[0].fetch.cooldown: must be at most 1h",
                "5 provider[0].fetch.max_stale: must be at most 30days",
            ],
        ),
        // One mistake is told once: a bad duration is not compared as well.
        (
            "jwks_url = 'https://id.example/keys'\nfetch = { refresh = 'often', refresh_max = '1m' }\n",
            &["5 provider[0].fetch.refresh: `often` is not a duration"],
        ),
        (
            "jwks_url = 'https://id.example/keys'\nfetch = { ca_file = 'none.pem' }\n",
            &["5 provider[0].fetch.ca_file: No such file"],
        ),
        (
            "jwks_url = 'https://id.example/keys'\nfetch = { ca_file = 'written.pem' }\n",
            &["5 provider[0].fetch.ca_file: can be written by everybody"],
        ),
        (
            "jwks_url = 'http://localhost/keys'\nfetch = { ca_file = 'public.pem' }\n",
            &["5 provider[0].fetch.ca_file: plain http has no certificate"],
        ),
    ];
    for (lines, expected) in rows {
        errors(&[(&fetched(lines), expected)]);
    }
    errors(&[(
        "[[provider]]\nname = 'p'\nalgorithms = ['HS256']\njwks_url = 'https://id.example/keys'\n",
        &["4 provider[0].jwks_url: cannot serve an HMAC algorithm"],
    )]);
}

#[test]
fn checks_of_tokens() {
    let rows: [(&str, &[&str]); 8] = [
        (
            "max_lifetime = '1h'\nrequire_exp = false\n",
            &["6 provider[0].require_exp: cannot be false beside `max_lifetime`"],
        ),
        (
            "max_lifetime = '0s'\n",
            &["5 provider[0].max_lifetime: must be longer than zero"],
        ),
        (
            "max_lifetime = '2years'\n",
            &["5 provider[0].max_lifetime: must be at most"],
        ),
        ("require_exp = false\n", &[]),
        (
            "types = ['at jwt', 'a/b/c', '', 'JWT', 'application/jwt']\n",
            &[
                "5 provider[0].types[0]: this is not a type",
                "5 provider[0].types[1]: this is not a type",
                "5 provider[0].types[2]: this is not a type",
                "5 provider[0].types[4]: type `application/jwt` is given twice",
            ],
        ),
        (
            "audiences = ['a', 'a']\n",
            &["5 provider[0].audiences[1]: audience `a` is given twice"],
        ),
        (
            "sources = ['query:a', 'query:b', 'query:c', 'query:d', 'query:e', 'query:f', 'query:g', 'query:h', \
             'query:i', 'query:j', 'query:k', 'query:l', 'query:m', 'query:n', 'query:o', 'query:p', 'query:q']\n",
            &["5 provider[0].sources: has 17 entries, more than the 16 allowed"],
        ),
        (
            "remove_token = 1\n",
            &["5 provider[0].remove_token: expected true or false"],
        ),
    ];
    for (lines, expected) in rows {
        errors(&[(&provider(lines), expected)]);
    }
}

#[test]
fn headers_from_claims() {
    let rows: [(&str, &[&str]); 11] = [
        ("{ header = 'X-User', claim = 'sub' }", &[]),
        (
            "{ claim = 'sub' }",
            &["5 provider[0].claim_headers[0].header: missing key `header`"],
        ),
        (
            "{ header = 'x-user' }",
            &["5 provider[0].claim_headers[0].claim: missing key `claim`"],
        ),
        (
            "{ header = 'x user', claim = 'sub' }",
            &["5 provider[0].claim_headers[0].header: is not the name of a header"],
        ),
        (
            "{ header = 'Authorization', claim = 'sub' }, { header = 'X_Forwarded_For', claim = 'ip' }, { header = 'content.length', claim = 'ip' }",
            &[
                "5 provider[0].claim_headers[0].header: `Authorization` means something else",
                "5 provider[0].claim_headers[1].header: `X_Forwarded_For` means something else",
                "5 provider[0].claim_headers[2].header: `content.length` means something else",
            ],
        ),
        (
            "{ header = 'x-user', claim = 'sub' }, { header = 'X_User', claim = 'name' }",
            &["5 provider[0].claim_headers[1].header: header `X_User` is given twice"],
        ),
        (
            "{ header = 'x-user', claim = 'sub', encoding = 'base64' }",
            &["5 provider[0].claim_headers[0].encoding: did you mean `base64_json`?"],
        ),
        (
            "{ header = 'x-user', claim = '' }, { header = 'x-b', claim = [] }, { header = 'x-c', claim = ['a', ''] }",
            &[
                "5 provider[0].claim_headers[0].claim: has 1 to 1024 bytes",
                "5 provider[0].claim_headers[1].claim: has 1 to 16 names, has 0",
                "5 provider[0].claim_headers[2].claim: has 1 to 1024 bytes",
            ],
        ),
        (
            "{ header = 'x-user', claim = ['sub', 'name'] }",
            &["5 provider[0].claim_headers[0].claim: no token has anything below `sub`"],
        ),
        (
            "{ header = 'x-user', claim = ['a', 1] }",
            &["5 provider[0].claim_headers[0].claim[1]: expected a string, found an integer"],
        ),
        (
            "{ header = 'x-user', claim = 1 }",
            &["5 provider[0].claim_headers[0].claim: expected the name of a claim"],
        ),
    ];
    for (headers, expected) in rows {
        errors(&[(&provider(&format!("claim_headers = [{headers}]\n")), expected)]);
    }
    // A token source of any provider, in any spelling.
    errors(&[(
        "[[provider]]\nname = 'a'\nalgorithms = ['HS256']\nsecret_file = 'good.key'\nsources = ['header:X-Token']\n\
         [[provider]]\nname = 'b'\nalgorithms = ['HS256']\nsecret_file = 'good.key'\nclaim_headers = [{ header = 'x_token', claim = 'sub' }]\n",
        &["10 provider[1].claim_headers[0].header: provider `a` takes tokens from `x_token`"],
    )]);
    warnings(&[(
        &provider(
            "claim_headers = [{ header = 'x-a', claim = 'realm.roles' }, { header = 'x-b', claim = ['realm.roles'] }, { header = 'x-c', claim = 'https://a.example/roles' }]\n",
        ),
        &[
            "2 provider[0].name: no route uses provider `p`",
            "5 provider[0].claim_headers[0].claim: this is one claim whose name is `realm.roles`",
        ],
    )]);
}

#[test]
fn one_requirement() {
    let rows: [(&str, &[&str]); 14] = [
        ("claim = 'role', equals = 'admin'", &[]),
        ("claim = ['a', 'b'], one_of = [1, true, 'x']", &[]),
        ("claim = 'aud', contains = 'api'", &[]),
        ("claim = 'exp', equals = 0x10", &[]),
        (
            "equals = 1",
            &["14 route[0].claims[0].claim: missing key `claim`"],
        ),
        (
            "claim = 'a'",
            &["14 route[0].claims[0]: a requirement has a test"],
        ),
        (
            "claim = 'a', equals = 1, one_of = [2]",
            &["14 route[0].claims[0].one_of: one test, not both `equals` and `one_of`"],
        ),
        (
            "claim = 'a', equals = 1.5",
            &[
                "14 route[0].claims[0].equals: expected a string, a whole number, true or false, found a float",
            ],
        ),
        (
            "claim = 'a', equals = 9_223_372_036_854_775_808",
            &["14 route[0].claims[0].equals: does not fit 64 bits"],
        ),
        (
            "claim = 'a', one_of = []",
            &["14 route[0].claims[0].one_of: no value is one of none"],
        ),
        (
            "claim = 'a', one_of = [1, 1]",
            &["14 route[0].claims[0].one_of[1]: value `1` is given twice"],
        ),
        (
            "claim = 'sub', equals = 7",
            &["14 route[0].claims[0].equals: this never holds: `sub` is a string"],
        ),
        (
            "claim = 'iat', one_of = [1, '1']",
            &["14 route[0].claims[0].one_of[1]: this never holds: `iat` is a number"],
        ),
        (
            "claim = ['aud', 'x'], equals = 'a'",
            &["14 route[0].claims[0].claim: no token has anything below `aud`"],
        ),
    ];
    for (requirement, expected) in rows {
        errors(&[(&claim(requirement), expected)]);
    }
}

#[test]
fn requirements_that_no_token_satisfies_together() {
    const NEVER: &[&str] =
        &["14 route[0].claims[1]: no token satisfies this and `route[0].claims[0]` together"];
    const TWICE: &[&str] = &["14 route[0].claims[1]: this requirement is given twice"];
    let rows: [(&str, &str, &[&str]); 14] = [
        ("'a', equals = 1", "'a', equals = 1", TWICE),
        ("'a', equals = 1", "['a'], equals = 1", TWICE),
        ("'a', equals = 1", "'a', equals = 2", NEVER),
        ("'a', equals = 1", "'a', equals = '1'", NEVER),
        ("'a', equals = 1", "'b', equals = 2", &[]),
        ("'a', equals = 1", "'a', one_of = [2, 3]", NEVER),
        ("'a', equals = 1", "'a', one_of = [1, 3]", &[]),
        ("'a', one_of = [1, 2]", "'a', one_of = [3]", NEVER),
        ("'a', one_of = [1, 2]", "'a', one_of = [2, 3]", &[]),
        ("'a', contains = 1", "'a', contains = 2", &[]),
        ("'a', contains = 1", "'a', equals = 2", NEVER),
        ("'a', contains = 1", "'a', equals = 1", &[]),
        ("'a', contains = 1", "['a', 'b'], equals = 1", NEVER),
        ("['a', 'b', 'c'], equals = 1", "['a', 'b'], contains = 1", NEVER),
    ];
    for (one, other, expected) in rows {
        let text = route(&format!(
            "claims = [{{ claim = {one} }}, {{ claim = {other} }}]\n"
        ));
        errors(&[(&text, expected)]);
    }
}

#[test]
fn login_pages() {
    let rows: [(&str, &[&str]); 8] = [
        ("url = 'https://id.example/login', return_parameter = 'next'", &[]),
        (
            "return_parameter = 'next'",
            &["14 route[0].login.url: missing key `url`"],
        ),
        (
            "url = 'login'",
            &["14 route[0].login.url: this is not an https URL"],
        ),
        (
            "url = '//id.example/'",
            &["14 route[0].login.url: starts with one slash"],
        ),
        (
            "url = 'http://id.example/'",
            &["14 route[0].login.url: plain http"],
        ),
        (
            "url = 'https://id.example/', return_parameter = 'a&b'",
            &["14 route[0].login.return_parameter: is not the name of a parameter"],
        ),
        (
            "url = 'https://id.example/', return_origin = 'https://app.example'",
            &["14 route[0].login.return_origin: has no meaning without `return_parameter`"],
        ),
        (
            "url = 'https://id.example/', return_parameter = 'to', return_origin = 'https://app.example/'",
            &["14 route[0].login.return_origin: an origin is scheme, host and port alone"],
        ),
    ];
    for (login, expected) in rows {
        errors(&[(&route(&format!("login = {{ {login} }}\n")), expected)]);
    }
    let pages: [(&str, &str, &[&str]); 5] = [
        (
            "/login",
            "/",
            &["14 route[0].login.url: behind route `r`, which wants a token itself"],
        ),
        (
            "/login/x?a=/public#/b",
            "/public",
            &["14 route[0].login.url: behind route `r`"],
        ),
        ("/login/x?a=b", "/login", &[]),
        ("/loginx", "/login", &["14 route[0].login.url: behind route `r`"]),
        ("/login/", "/login", &[]),
    ];
    for (page, path, expected) in pages {
        let mut text = route(&format!("login = {{ url = '{page}' }}\n"));
        if path != "/" {
            let page = "[[route]]\nname = 'l'\npath = 'PATH'\nupstream = 'app'\nauth = 'none'\n";
            text += &page.replace("PATH", path);
        }
        errors(&[(&text, expected)]);
    }
    warnings(&[(
        &(route("login = { url = '/login' }\n").replace("path = '/'", "path = '/app'")
            + "[[listener]]\nname = 'l'\naddress = '[::1]:0'\n"),
        &["14 route[0].login.url: no route serves `/login`"],
    )]);
}

#[test]
fn routes_and_their_providers() {
    let two = |first: &str, second: &str| {
        format!(
            "[[provider]]\nname = 'a'\nalgorithms = ['HS256', 'HS384']\nsecret_file = 'good.key'\n{first}\n\
             [[provider]]\nname = 'b'\n{second}\n\
             [[upstream]]\nname = 'app'\nendpoints = ['1.2.3.4:5']\n\
             [[route]]\nname = 'r'\npath = '/'\nupstream = 'app'\nauth = 'required'\nproviders = ['a', 'b']\n"
        )
    };
    let hs = "algorithms = ['HS384']\nsecret_file = 'good.key'";
    errors(&[
        (
            &two("", hs),
            &[
                "18 route[0].providers[1]: a token could belong to either: `a` and `b` accept HS384 and name no issuer",
            ],
        ),
        (
            &two("issuer = 'x'", &format!("{hs}\nissuer = 'x'")),
            &["19 route[0].providers[1]: a token could belong to either"],
        ),
        (&two("issuer = 'x'", hs), &[]),
        (
            &two("", "algorithms = ['RS256']\njwks_url = 'https://id.example/'"),
            &[],
        ),
        (
            &route("scopes = ['a', 'a']\n"),
            &["14 route[0].scopes[1]: scope `a` is given twice"],
        ),
        (
            &route("claims = []\nlogin = { url = 'https://id.example/' }\n")
                .replace("'required'", "'none'")
                .replace("providers = ['p']", ""),
            &[
                "14 route[0].claims: has no meaning while `auth` is \"none\"",
                "15 route[0].login: has no meaning while `auth` is \"none\"",
            ],
        ),
    ]);
    let many = |count: usize| {
        let provider =
            "[[provider]]\nname = 'pN'\nalgorithms = ['HS256']\nsecret_file = 'good.key'\nissuer = 'N'\n";
        let providers: Vec<_> = (0..count)
            .map(|n| provider.replace('N', &n.to_string()))
            .collect();
        let providers = providers.concat();
        let names: Vec<_> = (0..count).map(|n| format!("'p{n}'")).collect();
        format!(
            "{providers}[[upstream]]\nname = 'app'\nendpoints = ['1.2.3.4:5']\n[[listener]]\nname = 'l'\n\
             address = '[::1]:0'\n[[route]]\nname = 'r'\npath = '/'\nupstream = 'app'\nauth = 'required'\nproviders = [{}]\n",
            names.join(", ")
        )
    };
    assert_agreed(&many(bounds::MAX_ROUTE_PROVIDERS));
    let line = 5 * (bounds::MAX_ROUTE_PROVIDERS + 1) + 12;
    let expected = format!("{line} route[0].providers: has 9 entries, more than the 8 allowed");
    errors(&[(&many(bounds::MAX_ROUTE_PROVIDERS + 1), &[&expected])]);
}

#[test]
fn revocations() {
    errors(&[
        ("[gateway]\nrevocation_file = 'empty.key'\n", &[]),
        (
            "[gateway]\nrevocation_file = 'none'\n",
            &["2 gateway.revocation_file: No such file"],
        ),
        (
            "[gateway]\nrevocation_file = 'written.pem'\n",
            &["2 gateway.revocation_file: can be written by everybody"],
        ),
    ]);
    warnings(&[(
        "[gateway]\nrevocation_file = 'open.key'\n",
        &["2 gateway.revocation_file: there is no provider"],
    )]);
}

/// Whoever verifies tokens takes what was accepted here.
fn assert_agreed(text: &str) {
    let dir = key_dir();
    let Loaded { config, .. } =
        load::parse(text, "t.toml", dir.path(), &options()).unwrap_or_else(|error| panic!("{text}\n{error}"));
    agree(&config).unwrap_or_else(|error| panic!("{text}\n{error}"));
}

fn agree(config: &Config) -> Result<(), String> {
    let authority =
        Authority::load(&config.providers, None, None, std::time::SystemTime::now()).map_err(|errors| {
            errors
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; ")
        })?;
    config.routes.iter().try_for_each(|route| {
        authority
            .check_policy(&route.auth)
            .map_err(|error| error.to_string())
    })
}

#[test]
fn what_is_accepted_here_is_accepted_by_those_who_verify() {
    for lines in [
        "claims = [{ claim = ['a', 'b'], one_of = [1, 'x', true] }, { claim = 'c', contains = '' }]\nscopes = ['!', '~']\n",
        "login = { url = 'https://id.example/l?a=b#c', return_parameter = 'to', return_origin = 'https://[::1]:1' }\n",
        "login = { url = 'http://localhost', return_parameter = 'to', return_origin = 'http://[::1]' }\n",
        "login = { url = 'http://127.0.0.1:8080/x' }\n",
        "login = { url = 'https://id.example', return_parameter = 'a-b_c' }\n",
    ] {
        assert_agreed(&route(lines));
    }
    for lines in [
        "claim_headers = [{ header = 'X-User', claim = 'sub' }, { header = 'a.b', claim = ['x'], encoding = 'base64_json' }]\n",
        "sources = ['header:X-Token', 'cookie:__Host-s', 'query:~', 'bearer']\nleeway = '10m'\n",
        "types = ['application/at+jwt', 'x/y']\nmax_lifetime = '365d'\nremove_token = true\n",
    ] {
        assert_agreed(&provider(lines));
    }
    for lines in [
        "oidc_issuer = 'http://[::1]:1/realm/'\n",
        "jwks_url = 'https://[2001:db8::1]:8443/keys?a=b'\nfetch = { refresh_min = '1s', refresh = '1s', refresh_max = '30d', max_stale = '30d', timeout = '1m', cooldown = '1h' }\n",
    ] {
        assert_agreed(&fetched(lines));
    }
}
