//! `[[route]]`: what it matches, and every mistake in that.

use std::fmt::Write;

use super::mistakes;
use crate::config::{Config, HostPattern, PathPattern, Segment, ValueTest};

/// Routes named `r0`, `r1` …, each with these lines and what else a route needs.
fn routes(each: &[&str]) -> String {
    let mut text = "[[upstream]]\nname = 'app'\nendpoints = ['1.2.3.4:5']\n".to_owned();
    for (index, lines) in each.iter().enumerate() {
        let _ = write!(
            text,
            "[[route]]\nname = 'r{index}'\nupstream = 'app'\nauth = 'none'\n{lines}\n"
        );
    }
    text
}

/// Rows of (the routes' lines, what is told); lines are counted from the start of the first route's own, as 1.
fn errors(rows: &[(&[&str], &[&str])]) {
    let rows: Vec<(String, Vec<String>)> = rows
        .iter()
        .map(|(each, told)| {
            let moved = told.iter().map(|told| {
                let (line, rest) = told.split_once(' ').expect("a line");
                format!("{} {rest}", line.parse::<usize>().expect("a number") + 7)
            });
            (routes(each), moved.collect())
        })
        .collect();
    let told: Vec<Vec<&str>> = rows
        .iter()
        .map(|(_, told)| told.iter().map(String::as_str).collect())
        .collect();
    let rows: Vec<(&str, &[&str])> = rows
        .iter()
        .zip(&told)
        .map(|((text, _), told)| (text.as_str(), told.as_slice()))
        .collect();
    mistakes::errors(&rows);
}

#[test]
fn every_kind_of_match_is_read() {
    let text = routes(&[
        "hosts = ['Example.ORG', '*.example.net', '[2001:DB8::1]']\npath_template = '/u/{id}/{*rest}'\nmethods = ['GET', 'PURGE']",
        "path_exact = '/a/'\nheaders = [{ name = 'X-A', value = '1' }]\nquery = [{ name = 'B', regex = '[0-9]+' }]",
        "path_regex = '/v[0-9]/.*'\nquery = [{ name = 'p', present = false }]",
    ]);
    let config = Config::parse(&text, "t.toml", std::path::Path::new("."))
        .unwrap()
        .config;
    let first = &config.routes[0].matches;
    assert_eq!(
        first.hosts,
        [
            HostPattern::Exact("example.org".into()),
            HostPattern::Below("example.net".into()),
            HostPattern::Exact("[2001:db8::1]".into()),
        ]
    );
    assert_eq!(
        first.path,
        PathPattern::Template(vec![
            Segment::Literal("u".into()),
            Segment::Parameter("id".into()),
            Segment::Rest("rest".into()),
        ])
    );
    assert_eq!(first.methods, ["GET", "PURGE"]);
    let second = &config.routes[1].matches;
    assert_eq!(second.path, PathPattern::Exact("/a/".into()));
    assert_eq!(
        (second.headers[0].name.as_str(), &second.headers[0].test),
        ("x-a", &ValueTest::Exact("1".into()))
    );
    assert_eq!(
        (second.query[0].name.as_str(), &second.query[0].test),
        ("B", &ValueTest::Regex("[0-9]+".into()))
    );
    let third = &config.routes[2].matches;
    assert_eq!(third.path, PathPattern::Regex("/v[0-9]/.*".into()));
    assert_eq!(third.query[0].test, ValueTest::Present(false));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_a_route_cannot_match() {
    errors(&[
        (
            &["path = '/a'\npath_exact = '/a'"],
            &["2 route[0].path_exact: a route has one path"],
        ),
        (
            &["path = '/{id}'"],
            &["1 route[0].path: a prefix has no parameters"],
        ),
        (
            &["path_template = '/a'"],
            &["1 route[0].path_template: a template has a parameter"],
        ),
        (
            &["path_template = '/a/x{id}'"],
            &["1 route[0].path_template: a parameter is a whole segment"],
        ),
        (
            &["path_template = '/{a}/{a}'"],
            &["1 route[0].path_template: two parameters have one name"],
        ),
        (
            &["path_exact = 'a'"],
            &["1 route[0].path_exact: a path starts with `/`"],
        ),
        (
            &["path_regex = '(/a'"],
            &["1 route[0].path_regex: this regex cannot be used: error: unclosed group"],
        ),
        (
            &["path_regex = '/(?!a)'"],
            &["1 route[0].path_regex: this regex cannot be used: error: look-around"],
        ),
        (
            &["path_regex = 'a/b'"],
            &["1 route[0].path_regex: this regex can never match"],
        ),
        (
            &["path_regex = '/a{1000}{1000}'"],
            &["1 route[0].path_regex: larger than 262144 bytes"],
        ),
        (
            &["path = '/'\nhosts = []"],
            &["2 route[0].hosts: no host can ever match"],
        ),
        (
            &[
                "path = '/'\nhosts = ['*', 'a:80', 'a.', 'a..b', '', 'ü.example', '*.*.org', 'a/b', '[::1', '*.[::1]']",
            ],
            &[
                "2 route[0].hosts[0]: `*` is every host",
                "2 route[0].hosts[1]: a host has no port here",
                "2 route[0].hosts[2]: a host ends without a dot",
                "2 route[0].hosts[3]: `a..b` is not a host",
                "2 route[0].hosts[4]: `` is not a host",
                "2 route[0].hosts[5]: `ü.example` is not a host",
                "2 route[0].hosts[6]: `*.*.org` is not a host",
                "2 route[0].hosts[7]: `a/b` is not a host",
                "2 route[0].hosts[8]: a host has no port here",
                "2 route[0].hosts[9]: is not a host",
            ],
        ),
        (
            &["path = '/'\nhosts = ['a', 'A']"],
            &["2 route[0].hosts[1]: host `a` is given twice"],
        ),
        (
            &["path = '/'\nmethods = []"],
            &["2 route[0].methods: no method can ever match"],
        ),
        (
            &["path = '/'\nmethods = ['get', 'CONNECT', 'trace', 'A B', '', 'GET', 'GET']"],
            &[
                "2 route[0].methods[0]: methods are written as they are sent",
                "2 route[0].methods[1]: `CONNECT` never matches",
                "2 route[0].methods[2]: `TRACE` never matches",
                "2 route[0].methods[3]: `A B` is not a method",
                "2 route[0].methods[4]: `` is not a method",
                "2 route[0].methods[6]: method `GET` is given twice",
            ],
        ),
        (
            &[
                "path = '/'\nheaders = [{ name = 'host', value = 'a' }, { name = 'x y', value = 'a' }, { name = 'X_Forwarded_For', value = 'a' }, { name = 'te', present = true }]",
            ],
            &[
                "2 route[0].headers[0].name: a host is not matched as a header",
                "2 route[0].headers[1].name: this is not the name of a header",
                "2 route[0].headers[2].name: a client's `X_Forwarded_For` is not to be trusted",
                "2 route[0].headers[3].name: a client's `te` is not to be trusted",
            ],
        ),
        (
            &[
                "path = '/'\nheaders = [{ name = 'a' }, { name = 'b', value = '1', regex = '1' }, { name = 'B', value = '2' }, { name = 'c', regex = '(' }, { value = '1' }]",
            ],
            &[
                "2 route[0].headers[0]: nothing is asked of the value",
                "2 route[0].headers[1].regex: a condition is one thing",
                "2 route[0].headers[2].name: header `B` is given twice",
                "2 route[0].headers[3].regex: this regex cannot be used",
                "2 route[0].headers[4].name: missing key `name`",
            ],
        ),
        (
            &["path = '/'\nquery = [{ name = '', present = true }, { name = 'a', value = \"\\n\" }]"],
            &[
                "2 route[0].query[0].name: this is not the name of a parameter",
                "2 route[0].query[1].value: a value is at most 1024 bytes without control characters",
            ],
        ),
    ]);
}

#[test]
fn routes_that_others_leave_nothing_to() {
    let a = "path = '/a'";
    errors(&[
        (
            &[a, a],
            &["6 route[1].path: this route can never match: route `r0` takes its requests first"],
        ),
        // The names of parameters make no difference.
        (
            &["path_template = '/{a}'", "path_template = '/{b}'"],
            &["6 route[1].path_template: can never match"],
        ),
        (
            &["path_regex = '/a+'", "path_regex = '/a+'"],
            &["6 route[1].path_regex: can never match"],
        ),
        // `GET` takes HEAD too.
        (
            &[
                "path = '/a'\nmethods = ['GET']",
                "path = '/a'\nmethods = ['HEAD']",
            ],
            &["7 route[1].path: can never match"],
        ),
        // Two routes together, by method and by host.
        (
            &[
                "path = '/a'\nmethods = ['GET']",
                "path = '/a'\nmethods = ['POST']",
                "path = '/a'\nmethods = ['POST', 'GET']",
            ],
            &["13 route[2].path: can never match: route `r0`"],
        ),
        (
            &[
                "path = '/a'\nhosts = ['a']",
                "path = '/a'\nhosts = ['b']",
                "path = '/a'\nhosts = ['b', 'a']",
            ],
            &["13 route[2].path: can never match: route `r0`"],
        ),
        // A value that is there is there; one that is asked for matches a regex.
        (
            &[
                "path = '/a'\nheaders = [{ name = 'x', present = true }]",
                "path = '/a'\nheaders = [{ name = 'X', value = '1' }]",
            ],
            &["7 route[1].path: can never match"],
        ),
        (
            &[
                "path = '/a'\nquery = [{ name = 'x', regex = '[0-9]' }]",
                "path = '/a'\nquery = [{ name = 'x', value = '1' }]",
            ],
            &["7 route[1].path: can never match"],
        ),
        // Each of these leaves something to the others, in whatever order.
        (
            &[
                a,
                "path = '/a'\nmethods = ['GET']",
                "path = '/a'\nhosts = ['a']",
                "path = '/a'\nheaders = [{ name = 'x', value = '1' }]",
                "path = '/a'\nheaders = [{ name = 'x', value = '2' }]",
                "path = '/a'\nheaders = [{ name = 'x', present = true }]",
                "path = '/a'\nquery = [{ name = 'x', regex = '[0-9]' }]",
                "path = '/a'\nquery = [{ name = 'x', value = 'y' }]",
                "path_exact = '/a'",
                "path_template = '/a/{x}'",
                "path_template = '/a/{x}/'",
                "path_template = '/a/{*x}'",
                "path_regex = '/a/.*'",
                "path = '/a'\nhosts = ['a', 'b']",
                "path = '/a'\nmethods = ['GET', 'POST']",
            ],
            &[],
        ),
    ]);
}

#[test]
fn a_path_has_a_bounded_number_of_routes() {
    let each: Vec<String> = (0..130)
        .map(|index| format!("path = '/a'\nquery = [{{ name = 'x', value = '{index}' }}]"))
        .collect();
    let each: Vec<&str> = each.iter().map(String::as_str).collect();
    errors(&[(
        &each,
        &["769 route[128].path: more than 128 routes have one host and path"],
    )]);
}

/// The same for what becomes of requests: the routes have `auth` and a path alone.
fn actions(rows: &[(&str, &[&str])]) {
    let rows: Vec<(String, Vec<String>)> = rows
        .iter()
        .map(|(lines, told)| {
            let text = format!(
                "[[upstream]]\nname = 'app'\nendpoints = ['1.2.3.4:5']\n[[route]]\nname = 'r'\nauth = 'none'\n{lines}\n"
            );
            let moved = told.iter().map(|told| {
                let (line, rest) = told.split_once(' ').expect("a line");
                format!("{} {rest}", line.parse::<isize>().expect("a number") + 6)
            });
            (text, moved.collect())
        })
        .collect();
    let told: Vec<Vec<&str>> = rows
        .iter()
        .map(|(_, told)| told.iter().map(String::as_str).collect())
        .collect();
    let rows: Vec<(&str, &[&str])> = rows
        .iter()
        .zip(&told)
        .map(|((text, _), told)| (text.as_str(), told.as_slice()))
        .collect();
    mistakes::errors(&rows);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_a_route_cannot_do() {
    actions(&[
        ("path = '/'", &["-2 route[0].upstream: missing key `upstream`"]),
        (
            "path = '/'\nupstream = 'app'\nrespond = { status = 200 }",
            &["3 route[0].respond: a route does one thing"],
        ),
        (
            "path = '/'\nredirect = { path = '/x' }\nrespond = { status = 200 }",
            &[
                "2 route[0].redirect.path: this redirect leads to its own route",
                "3 route[0].respond: a route does one thing",
            ],
        ),
        (
            "path = '/'\nredirect = {}",
            &["2 route[0].redirect: this redirect leads to where it comes from"],
        ),
        (
            "path = '/a'\nredirect = { path = '/a/b' }",
            &["2 route[0].redirect.path: this redirect leads to its own route: `/a/b`"],
        ),
        (
            "path = '/a'\nredirect = { path = '/b', status = 300 }",
            &["2 route[0].redirect.status: 300 is no redirect"],
        ),
        (
            "path = '/a'\nredirect = { scheme = 'ftp', host = 'a/b', port = 0 }",
            &[
                "2 route[0].redirect.scheme: a redirect leads to",
                "2 route[0].redirect.host: `a/b` is not a host",
                "2 route[0].redirect.port: `port` must be between 1 and 65535",
            ],
        ),
        (
            "path = '/a'\nredirect = { host = '*.a.org' }",
            &["2 route[0].redirect.host: this is a domain, not a host"],
        ),
        (
            "path = '/a'\nredirect = { path = '//evil.example' }",
            &["2 route[0].redirect.path: an empty segment never matches"],
        ),
        (
            "path = '/a'\nredirect = { path = '/{id}' }",
            &["2 route[0].redirect.path: the route's path has no parameter `id`"],
        ),
        (
            "path_template = '/a/{id}'\nredirect = { path = '/{di}' }",
            &["2 route[0].redirect.path: the route's path has no parameter `di`"],
        ),
        (
            "path = '/a'\nredirect = { path = '/{$host}' }",
            &["2 route[0].redirect.path: a path is made of parameters"],
        ),
        (
            "path = '/a'\nredirect = { path = '/x/{$path}' }",
            &["2 route[0].redirect.path: `{$path}` begins with a slash"],
        ),
        (
            "path = '/a'\nredirect = { path = '/{$nope}' }",
            &["2 route[0].redirect.path: unknown variable `nope`"],
        ),
        (
            "path = '/a'\nredirect = { path = '/{x' }",
            &["2 route[0].redirect.path: a brace without its other half"],
        ),
        (
            "path = '/a'\nrespond = { body = 'x' }",
            &["2 route[0].respond.status: missing key `status`"],
        ),
        (
            "path = '/a'\nrespond = { status = 101 }",
            &["2 route[0].respond.status: between 200 and 599"],
        ),
        (
            "path = '/a'\nrespond = { status = 204, body = 'x' }",
            &["2 route[0].respond.body: an answer of status 204 has no body"],
        ),
        (
            "path = '/a'\nrespond = { status = 200, content_type = 'text/plain' }",
            &["2 route[0].respond.content_type: has no meaning without `body`"],
        ),
        (
            "path = '/a'\nrespond = { status = 200, body = 'x', content_type = \"a/b\\r\\nx: y\" }",
            &["2 route[0].respond.content_type: this is not a media type"],
        ),
        (
            "path = '/a'\nrespond = { status = 200 }\ntimeout = '1s'\nrewrite = { prefix = '/' }\nrequest_headers = { remove = ['a'] }",
            &[
                "3 route[0].timeout: `timeout` has no meaning in a route that forwards nothing",
                "4 route[0].rewrite: `rewrite` has no meaning",
                "5 route[0].request_headers: `request_headers` has no meaning",
            ],
        ),
        (
            "path = '/a'\nfan_out = [{ key = 'a b', upstream = 'app', path = '/x' }, { key = 'c', upstream = 'ap', path = '/{id}' }, { key = 'c' }]",
            &[
                "2 route[0].fan_out: parts are asked for by GET",
                "2 route[0].fan_out[0].key: this is not a name",
                "2 route[0].fan_out[1].upstream: unknown upstream `ap`; did you mean `app`?",
                "2 route[0].fan_out[1].path: the route's path has no parameter `id`",
                "2 route[0].fan_out[2].upstream: missing key `upstream`",
                "2 route[0].fan_out[2].path: missing key `path`",
                "2 route[0].fan_out[2].key: key `c` is given twice",
            ],
        ),
        (
            "path = '/a'\nmethods = ['GET', 'POST']\nfan_out = []",
            &[
                "2 route[0].methods: parts are asked for by GET",
                "3 route[0].fan_out: nothing is asked for",
            ],
        ),
        (
            "path = '/a'\nupstream = 'app'\nmirror = { upstream = 'nobody', percent = 101, body_bytes = 1048577 }",
            &[
                "3 route[0].mirror.upstream: unknown upstream `nobody`",
                "3 route[0].mirror.percent: `percent` must be between 1 and 100",
                "3 route[0].mirror.body_bytes: `body_bytes` must be at most 1048576",
            ],
        ),
        (
            "path = '/a'\nupstream = 'app'\nrewrite = {}",
            &["3 route[0].rewrite: nothing is rewritten"],
        ),
        (
            "path = '/a'\nupstream = 'app'\nrewrite = { prefix = '/x/', path = '/y' }",
            &["3 route[0].rewrite.path: a path is rewritten one way"],
        ),
        (
            "path_exact = '/a'\nupstream = 'app'\nrewrite = { prefix = '/x/' }",
            &[
                "3 route[0].rewrite.prefix: a prefix ends without `/`",
                "3 route[0].rewrite.prefix: only a prefix can be replaced",
            ],
        ),
        (
            "path = '/a'\nupstream = 'app'\nrequest_timeout = '0s'\nidle_timeout = '25h'\nbody_limit = -1",
            &[
                "3 route[0].request_timeout: must be longer than zero",
                "4 route[0].idle_timeout: must be at most 1day",
                "5 route[0].body_limit: must not be negative",
            ],
        ),
    ]);
}

#[test]
fn what_a_route_cannot_change_or_allow() {
    actions(&[
        (
            "path = '/'\nupstream = 'app'\n[route.request_headers]\nset = { Host = 'a', content-length = '1', Connection = 'x', X_Forwarded_For = 'a' }\nadd = { transfer-encoding = 'chunked', authorization = 'x', 'a b' = '1' }\nremove = ['Cookie', 'x-request-id', 'x-forwarded-port']",
            &[
                "4 route[0].request_headers.set.Host: `Host` is the gateway's",
                "4 route[0].request_headers.set.content-length: `content-length` is the gateway's",
                "4 route[0].request_headers.set.Connection: `Connection` is the gateway's",
                "4 route[0].request_headers.set.X_Forwarded_For: `X_Forwarded_For` is the gateway's",
                "5 route[0].request_headers.add.transfer-encoding: `transfer-encoding` is the gateway's",
                "5 route[0].request_headers.add.authorization: `authorization` is the gateway's",
                "5 route[0].request_headers.add.a b: this is not the name of a header",
                "6 route[0].request_headers.remove[0]: `Cookie` is the gateway's",
                "6 route[0].request_headers.remove[1]: `x-request-id` is the gateway's",
                "6 route[0].request_headers.remove[2]: `x-forwarded-port` is the gateway's",
            ],
        ),
        (
            "path = '/'\nupstream = 'app'\n[route.response_headers]\nset = { x-a = \"a\\nb\", x-b = '{id}', x-c = 'ü' }\nadd = { X-A = '1', proxy-authenticate = 'x' }\nremove = ['x_b', 'content-encoding']",
            &[
                "4 route[0].response_headers.set.x-a: a value is made of visible ASCII",
                "4 route[0].response_headers.set.x-b: the route's path has no parameter `id`",
                "4 route[0].response_headers.set.x-c: a value is made of visible ASCII",
                "5 route[0].response_headers.add.proxy-authenticate: is the gateway's",
                "6 route[0].response_headers.remove[0]: `x_b` is under `set` already",
                "6 route[0].response_headers.remove[1]: `content-encoding` is the gateway's",
            ],
        ),
        (
            "path = '/'\nupstream = 'app'\nrequest_headers = { set = { x-user = '1' } }\n[[provider]]\nname = 'p'\nalgorithms = ['HS256']\nsecret_env = 'S'\nclaim_headers = [{ header = 'X-User', claim = 'sub' }]",
            &[
                "3 route[0].request_headers.set.x-user: `x-user` says who asks",
                "7 provider[0].secret_env: the environment variable `S` is not set",
            ],
        ),
        (
            "path = '/'\nupstream = 'app'\nresponse_headers = { set = { access-control-allow-origin = '*' } }\ncors = { origins = ['*'] }",
            &["3 route[0].response_headers.set.access-control-allow-origin: is written by `[route.cors]`"],
        ),
        (
            "path = '/'\nupstream = 'app'\ncors = { origins = ['*'], credentials = true, headers = ['*'] }",
            &[
                "3 route[0].cors.origins[0]: every origin and credentials together",
                "3 route[0].cors.headers: `*` means nothing to browsers where credentials",
            ],
        ),
        (
            "path = '/'\nupstream = 'app'\ncompress = { algorithms = ['deflate', 'gzip', 'gzip'], types = ['html', '*/*', 'text/*'] }",
            &[
                "3 route[0].compress.algorithms[0]: unknown coding `deflate`",
                "3 route[0].compress.algorithms[2]: coding `gzip` is given twice",
                "3 route[0].compress.types[0]: `html` is not a media type",
                "3 route[0].compress.types[1]: `*/*` is not a media type",
            ],
        ),
        (
            "path = '/'\nupstream = 'app'\ncompress = { algorithms = [], types = [] }",
            &[
                "3 route[0].compress.algorithms: there is no coding",
                "3 route[0].compress.types: no answer is ever compressed",
            ],
        ),
        (
            "path = '/'\nrespond = { status = 200 }\ncompress = {}",
            &["3 route[0].compress: only answers of upstreams are compressed"],
        ),
        (
            "path = '/'\nupstream = 'app'\ncors = {}",
            &["3 route[0].cors.origins: missing key `origins`"],
        ),
        (
            "path = '/'\nupstream = 'app'\ncors = { origins = ['null', 'app.org', 'https://app.org/', 'https://app.org:443', 'HTTPS://app.org', 'https://*', 'https://a*.org', 'https://a@b.org', 'ftp://a'], max_age = '25h' }",
            &[
                "3 route[0].cors.origins[0]: every sandboxed page",
                "3 route[0].cors.origins[1]: `app.org` is not an origin",
                "3 route[0].cors.origins[2]: `https://app.org/` is not an origin",
                "3 route[0].cors.origins[3]: `https://app.org:443` is not an origin",
                "3 route[0].cors.origins[4]: `HTTPS://app.org` is not an origin",
                "3 route[0].cors.origins[5]: `https://*` is not an origin",
                "3 route[0].cors.origins[6]: `https://a*.org` is not an origin",
                "3 route[0].cors.origins[7]: `https://a@b.org` is not an origin",
                "3 route[0].cors.origins[8]: `ftp://a` is not an origin",
                "3 route[0].cors.max_age: must be at most 24 hours",
            ],
        ),
        (
            "path = '/'\nupstream = 'app'\nmethods = ['GET']\ncors = { origins = ['*'], methods = ['PUT', 'HEAD', '*'], headers = ['a b'] }",
            &[
                "4 route[0].cors.methods[0]: the route does not take `PUT`",
                "4 route[0].cors.methods[2]: `*` is not a method",
                "4 route[0].cors.headers[0]: this is not the name of a header",
            ],
        ),
    ]);
}

#[test]
fn tunnels_are_read_in_their_one_spelling() {
    let text = routes(&[
        "connect = ['DB.example.org:5432', '[2001:DB8::0001]:22', '192.0.2.1:65535']\nheaders = [{ name = 'x', value = '1' }]",
        "path = '/'",
    ]);
    let config = Config::parse(&text, "t.toml", std::path::Path::new("."))
        .unwrap()
        .config;
    let authorities = ["db.example.org:5432", "[2001:db8::1]:22", "192.0.2.1:65535"];
    assert_eq!(
        config.routes[0].matches.path,
        PathPattern::Tunnel(authorities.map(str::to_owned).to_vec())
    );
}

#[test]
fn tunnels_are_host_and_port_and_nothing_else() {
    errors(&[
        (
            &["connect = []"],
            &["1 route[0].connect: CONNECT to nothing is allowed"],
        ),
        (
            &[
                "connect = ['a', 'a:', 'a:0', 'a:080', 'a:65536', 'a:x', ':1', '*.a:1', '*:1', 'a.:1', 'a/b:1', 'u@a:1', '[::1]', '::1', 'A:1', 'a:1']",
            ],
            &[
                "1 route[0].connect[0]: `a` has no port",
                "1 route[0].connect[1]: `` is not a port",
                "1 route[0].connect[2]: `0` is not a port",
                "1 route[0].connect[3]: `080` is not a port",
                "1 route[0].connect[4]: `65536` is not a port",
                "1 route[0].connect[5]: `x` is not a port",
                "1 route[0].connect[6]: `` is not a host",
                "1 route[0].connect[7]: this is a domain, not a host",
                "1 route[0].connect[8]: `*` is every host",
                "1 route[0].connect[9]: a host ends without a dot",
                "1 route[0].connect[10]: `a/b` is not a host",
                "1 route[0].connect[11]: `u@a` is not a host",
                "1 route[0].connect[12]: `[::1]` has no port",
                "1 route[0].connect[13]: a host has no port here",
                "1 route[0].connect[15]: authority `a:1` is given twice",
            ],
        ),
        (
            &[
                "connect = ['a:1', '[::1]:1']",
                "connect = ['b:1', '[0:0::1]:1', 'A:1']",
            ],
            &[
                "6 route[1].connect[1]: authority `[0:0::1]:1` is given twice",
                "6 route[1].connect[2]: authority `A:1` is given twice",
            ],
        ),
        (
            &[
                "connect = ['a:1']\npath = '/'\nhosts = ['a']\nmethods = ['GET']\ntimeout = '1s'\nbody_limit = 1\ncompress = {}",
            ],
            &[
                "2 route[0].path: `path` has no meaning in a route with `connect`",
                "3 route[0].hosts: `hosts` has no meaning",
                "4 route[0].methods: `methods` has no meaning",
                "5 route[0].timeout: `timeout` has no meaning",
                "6 route[0].body_limit: `body_limit` has no meaning",
                "7 route[0].compress: `compress` has no meaning",
            ],
        ),
    ]);
}
