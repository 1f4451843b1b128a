//! One row a mistake: the text, and every problem it must give as "line key: part of the message".

use std::fmt::Write;

use super::{key_dir, options};
use crate::config::{Loaded, Problem, load};

fn check(rows: &[(&str, &[&str])], problems: impl Fn(&str) -> Vec<Problem>) {
    let mut wrong = String::new();
    for (text, expected) in rows {
        let found = problems(text);
        let matches = found.len() == expected.len()
            && found.iter().zip(*expected).all(|(problem, expected)| {
                let place = format!("{} {}: ", problem.line, problem.key);
                expected
                    .strip_prefix(&place)
                    .is_some_and(|part| problem.message.contains(part))
            });
        if !matches {
            let found: Vec<_> = found
                .iter()
                .map(|p| format!("    {} {}: {}\n", p.line, p.key, p.message))
                .collect();
            let _ = write!(
                wrong,
                "---\n{text}\n  expected {expected:#?}\n  found\n{}",
                found.concat()
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

pub(super) fn errors(rows: &[(&str, &[&str])]) {
    let dir = key_dir();
    check(rows, |text| {
        match load::parse(text, "t.toml", dir.path(), &options()) {
            Ok(_) => Vec::new(),
            Err(error) => error.problems().to_vec(),
        }
    });
}

pub(super) fn warnings(rows: &[(&str, &[&str])]) {
    let dir = key_dir();
    check(rows, |text| {
        match load::parse(text, "t.toml", dir.path(), &options()) {
            Ok(Loaded { warnings, .. }) => warnings,
            Err(error) => error.problems().to_vec(),
        }
    });
}

#[test]
fn syntax_and_shape() {
    errors(&[
        ("a = \n", &["1 : string values must be quoted"]),
        // Two broken values and a misspelt key on a third line: all told.
        (
            "[shield]\nmode = auto\nobserve = tru\nmax_ban = 1\n",
            &[
                "2 : string values must be quoted",
                "3 : invalid boolean",
                "4 shield.max_ban: did you mean `max_bans`?",
            ],
        ),
        // A broken header moves what follows it to another table: only the header is told.
        ("[[route]\nname = 'a'\nbogus = 1\n", &["1 : unclosed array table"]),
        (
            "[shield]\nmode = '''auto\nbogus = 1\n",
            &["4 : invalid multi-line literal string"],
        ),
        (
            "[shield]\nmode = 'auto'\nmode = 'native'\n",
            &["3 : duplicate key"],
        ),
        ("[shield]\n[shield]\n", &["2 : duplicate key"]),
        (
            "lisener = 1\n",
            &["1 lisener: unknown key `lisener`; did you mean `listener`?"],
        ),
        ("zebra = 1\n", &["1 zebra: unknown key `zebra`"]),
        (
            "[shield.limits]\nsource_packet = 1\n",
            &["2 shield.limits.source_packet: did you mean `source_packets`?"],
        ),
        (
            "[listener]\nname = 'a'\n",
            &["1 listener: expected a list of tables, found a table"],
        ),
        ("[[shield]]\n", &["1 shield: expected a table, found a list"]),
        (
            "route = 3\n",
            &["1 route: expected a list of tables, found an integer"],
        ),
        (
            "route = [3]\n",
            &["1 route[0]: expected a table, found an integer"],
        ),
        (
            "[shield]\nobserve = 'yes'\n",
            &[
                "2 shield.observe: expected true, false or a list of reasons such as [\"source_packets\"], found a string",
            ],
        ),
        (
            "[shield]\ninterfaces = 'eth0'\n",
            &["2 shield.interfaces: expected a list, found a string"],
        ),
        (
            "[shield]\ninterfaces = ['eth0', 1]\n",
            &["2 shield.interfaces[1]: expected a string, found an integer"],
        ),
        (
            "[shield]\nmode = 1.5\n",
            &["2 shield.mode: expected an attach mode, found a float"],
        ),
        (
            "[shield]\nmode = 'naitve'\n",
            &["2 shield.mode: did you mean `native`?"],
        ),
        (
            "[shield]\nfragments = 'keep'\n",
            &["2 shield.fragments: unknown fragment policy `keep`"],
        ),
        (
            "[gateway]\nshutdown_grace = 30\n",
            &["2 gateway.shutdown_grace: expected a duration such as \"30s\", found an integer"],
        ),
        (
            "[gateway]\nshutdown_grace = 'soon'\n",
            &["2 gateway.shutdown_grace: `soon` is not a duration"],
        ),
        (
            "[gateway]\nworkers = -1\n",
            &["2 gateway.workers: must not be negative"],
        ),
        (
            "[gateway]\nworkers = 99999999999999999999\n",
            &["2 gateway.workers: the number is too large"],
        ),
    ]);
}

#[test]
fn all_at_once() {
    errors(&[(
        r#"
[shield]
mode = "navite"
deny = ["10.0.0.0/33", "192.0.2.1/24"]

[[listener]]
name = "web"
adress = "127.0.0.1:80"

[[route]]
name = "api"
path = "api"
upstream = "nowhere"

[offences]
threshold = 0
ban = "2d"
"#,
        &[
            "3 shield.mode: did you mean `native`",
            "4 shield.deny[0]: not a network in CIDR form",
            "4 shield.deny[1]: has bits set beyond its prefix",
            "6 listener[0].address: missing key `address`",
            "8 listener[0].adress: did you mean `address`?",
            "10 route[0].auth: missing key `auth`",
            "12 route[0].path: a path starts with `/`",
            "13 route[0].upstream: unknown upstream `nowhere`",
            "16 offences.threshold: must be between 1 and",
            "17 offences.ban: longer than the longest one",
        ],
    )]);
}

#[test]
fn shield() {
    errors(&[
        (
            "[shield]\ninterfaces = ['eth0', 'eth0']\n",
            &["2 shield.interfaces[1]: interface `eth0` is given twice"],
        ),
        (
            "[shield]\ninterfaces = ['']\n",
            &["2 shield.interfaces[0]: cannot be the name of an interface"],
        ),
        (
            "[shield]\ninterfaces = ['a/b']\n",
            &["2 shield.interfaces[0]: cannot be the name of an interface"],
        ),
        (
            "[shield]\ninterfaces = ['sixteen-bytes-xx']\n",
            &["2 shield.interfaces[0]: cannot be the name"],
        ),
        (
            "[shield]\nallow_file = 'none.list'\ndeny_file = 'directory.key'\n",
            &[
                "2 shield.allow_file: No such file",
                "3 shield.deny_file: is not a regular file",
            ],
        ),
        (
            "[shield]\nallow_file = 'written.pem'\n",
            &["2 shield.allow_file: can be written by everybody"],
        ),
        (
            "[shield]\nobserve = ['source_packet', 'admitted', 'banned', 'banned', 1]\n",
            &[
                "2 shield.observe[0]: unknown reason `source_packet`; did you mean `source_packets`?",
                "2 shield.observe[1]: `admitted` drops nothing",
                "2 shield.observe[3]: reason `banned` is given twice",
                "2 shield.observe[4]: expected a reason for which packets are dropped, found an integer",
            ],
        ),
        (
            "[[service]]\nname = 'a'\nprotocol = 'tcp'\nport = 1\nobserve = ['banned']\n",
            &["5 service[0].observe: expected true or false, found a list"],
        ),
        (
            "[shield]\nearned_idle = '999ms'\n",
            &["2 shield.earned_idle: `earned_idle` must be at least 1s"],
        ),
        (
            "[shield]\nearned_idle = '61m'\n",
            &["2 shield.earned_idle: must be at most 1h"],
        ),
        (
            "[shield]\nmax_bans = 0\n",
            &["2 shield.max_bans: must be between 1 and"],
        ),
        (
            "[shield]\nmax_bans = 16777217\n",
            &["2 shield.max_bans: must be between 1 and"],
        ),
        (
            "[shield]\nallow = ['nonsense']\n",
            &["2 shield.allow[0]: `nonsense` is not a network in CIDR form"],
        ),
        (
            "[shield]\nallow = ['::ffff:10.0.0.1']\n",
            &["2 shield.allow[0]: is an IPv4 address in IPv6 clothes"],
        ),
        (
            "[shield]\nallow = ['::ffff:0:0/96']\n",
            &["2 shield.allow[0]: is an IPv4 address in IPv6 clothes"],
        ),
        (
            "[shield]\ndeny = ['1.1.1.1', '1.1.1.2', '1.1.1.3', '1.1.1.4']\n",
            &["2 shield.deny: has 4 entries, more than the 3 allowed"],
        ),
        (
            "[shield]\nallow = ['10.0.0.0/8']\ndeny = ['1.1.1.1', '10.0.0.0/8']\n",
            &["3 shield.deny[1]: `10.0.0.0/8` is both allowed and denied"],
        ),
    ]);
    warnings(&[
        (
            "[shield]\nmode = 'native'\nallow_generic = true\n",
            &["3 shield.allow_generic: has no effect"],
        ),
        (
            "[shield]\ninterfaces = ['eth0']\n",
            &["2 shield.interfaces: judges nothing"],
        ),
        ("[shield]\ninterfaces = []\n", &[]),
        (
            "[shield]\nobserve = true\n[[service]]\nname = 'a'\nprotocol = 'tcp'\nport = 1\nobserve = false\n",
            &["7 service[0].observe: `shield.observe` holds for every service"],
        ),
    ]);
}

#[test]
fn limits() {
    let limit = |text: &str| format!("[shield.limits]\nsource_syns = {text}\n");
    let key = "shield.limits.source_syns";
    for (text, expected) in [
        (
            "{ per_second = 0, burst = 1 }",
            vec![".per_second: a rate of 0 admits nothing"],
        ),
        (
            "{ per_second = 1, burst = 0 }",
            vec![".burst: a burst below 1 admits nothing"],
        ),
        (
            "{ per_second = 1000, burst = 19 }",
            vec![".burst: less than two clock ticks' worth"],
        ),
        ("{ per_second = 1000, burst = 20 }", vec![]),
        ("{ per_second = 1, burst = 1 }", vec![]),
        ("{ per_second = 1, burst = 600 }", vec![]),
        (
            "{ per_second = 1, burst = 601 }",
            vec![".burst: takes more than 600 s to earn back"],
        ),
        (
            "{ per_second = 1_000_000_000_001, burst = 1 }",
            vec![".per_second: must be at most"],
        ),
        ("{ per_second = 1 }", vec![".burst: missing key `burst`"]),
        (
            "{}",
            vec![
                ".per_second: missing key `per_second`",
                ".burst: missing key `burst`",
            ],
        ),
        (
            "{ per_second = 1, burst = 1, brust = 2 }",
            vec![".brust: did you mean `burst`?"],
        ),
        ("100", vec![": expected a rate such as"]),
        ("\"none\"", vec![": expected a rate such as"]),
        ("\"off\"", vec![]),
    ] {
        let expected: Vec<_> = expected.iter().map(|part| format!("2 {key}{part}")).collect();
        let expected: Vec<_> = expected.iter().map(String::as_str).collect();
        errors(&[(&limit(text), &expected)]);
    }
}

#[test]
fn the_least_burst_follows_the_kernels_clock() {
    let text = "[shield.limits]\nsource_packets = { per_second = 1000, burst = 2 }\n";
    let with_hz = |kernel_hz| {
        load::parse(
            text,
            "t.toml",
            std::path::Path::new(""),
            &load::LoadOptions {
                kernel_hz,
                ..options()
            },
        )
    };
    assert!(with_hz(1000).is_ok());
    assert!(with_hz(250).is_err());
}

#[test]
fn services() {
    errors(&[
        (
            "[[service]]\n",
            &[
                "1 service[0].name: missing key `name`",
                "1 service[0].protocol: missing key `protocol`",
                "1 service[0].port: missing key `port`",
            ],
        ),
        (
            "[[service]]\nname = ''\nprotocol = 'tcp'\nport = 1\n",
            &["2 service[0].name: is not a name"],
        ),
        (
            "[[service]]\nname = 'a b'\nprotocol = 'tcp'\nport = 1\n",
            &["2 service[0].name: is not a name"],
        ),
        (
            "[[service]]\nname = 'a'\nprotocol = 'tpc'\nport = 1\n",
            &["3 service[0].protocol: unknown protocol `tpc`"],
        ),
        (
            "[[service]]\nname = 'a'\nprotocol = 'tcp'\nport = 0\n",
            &["4 service[0].port: must be between 1 and 65535"],
        ),
        (
            "[[service]]\nname = 'a'\nprotocol = 'tcp'\nport = 65536\n",
            &["4 service[0].port: must be between"],
        ),
        (
            "[[service]]\nname = 'a'\nprotocol = 'tcp'\nport = 1\naddress = '0.0.0.0'\n",
            &["5 service[0].address: is not an address of this host"],
        ),
        (
            "[[service]]\nname = 'a'\nprotocol = 'tcp'\nport = 1\naddress = 'localhost'\n",
            &["5 service[0].address: `localhost` is not an IP address"],
        ),
        (
            "[[service]]\nname = 'a'\nprotocol = 'tcp'\nport = 1\n\n[[service]]\nname = 'a'\nprotocol = 'tcp'\nport = 2\n",
            &["7 service[1].name: service name `a` is given twice"],
        ),
        (
            "[[service]]\nname = 'a'\nprotocol = 'tcp'\nport = 1\n\n[[service]]\nname = 'b'\nprotocol = 'tcp'\nport = 1\n",
            &["6 service[1]: service `tcp port 1 of every local address` is given twice"],
        ),
        (
            "[[service]]\nname = 'a'\nprotocol = 'tcp'\nport = 1\n\n[[service]]\nname = 'b'\nprotocol = 'udp'\nport = 1\n",
            &[],
        ),
        (
            "[[service]]\nname = 'a'\nprotocol = 'tcp'\nport = 1\nlimits = { source_syns = { per_second = 0, burst = 1 } }\n",
            &["5 service[0].limits.source_syns.per_second: a rate of 0"],
        ),
    ]);
}

#[test]
fn gateway() {
    errors(&[
        (
            "[gateway]\nworkers = 0\n",
            &["2 gateway.workers: must be between 1 and 1024"],
        ),
        (
            "[gateway]\nshutdown_grace = '0s'\n",
            &["2 gateway.shutdown_grace: must be longer than zero"],
        ),
        (
            "[gateway]\nshutdown_grace = '2d'\n",
            &["2 gateway.shutdown_grace: must be at most 1day"],
        ),
        (
            "[[listener]]\nname = 'a'\naddress = ':80'\n",
            &["3 listener[0].address: is not an IP address with a port"],
        ),
        (
            "[[listener]]\nname = 'a'\naddress = '[::]:80'\n[[listener]]\nname = 'a'\naddress = '[::]:80'\n",
            &[
                "5 listener[1].name: is given twice",
                "6 listener[1].address: listener address `[::]:80` is given twice",
            ],
        ),
        (
            "[[listener]]\nname = 'a'\naddress = '[::]:0'\n[[listener]]\nname = 'b'\naddress = '[::]:0'\n",
            &[],
        ),
        (
            "[[upstream]]\nname = 'a'\nendpoints = []\n",
            &["3 upstream[0].endpoints: at least one endpoint"],
        ),
        (
            "[[upstream]]\nname = 'a'\nendpoints = [1]\n",
            &["3 upstream[0].endpoints[0]: expected a string"],
        ),
        (
            "[[upstream]]\nname = 'a'\n",
            &["1 upstream[0].endpoints: missing key `endpoints`"],
        ),
        (
            "[[upstream]]\nname = 'a'\nendpoints = ['app_80', '1.2.3.4:0', '0.0.0.0:80', '1.2.3.4:5', '1.2.3.4:5']\n",
            &[
                "3 upstream[0].endpoints[0]: `app_80` is neither an IP address nor a name with a port",
                "3 upstream[0].endpoints[1]: needs a port other than 0",
                "3 upstream[0].endpoints[2]: is not an address to connect to",
                "3 upstream[0].endpoints[4]: endpoint `1.2.3.4:5` is given twice",
            ],
        ),
        (
            "[[upstream]]\nname = 'a'\nendpoints = ['demo:site']\n",
            &["3 upstream[0].endpoints[0]: only in the built-in"],
        ),
        (
            "[[upstream]]\nname = 'a'\nendpoints = ['1.2.3.4:80']\n[[listener]]\nname = 'l'\naddress = '1.2.3.4:80'\n",
            &["3 upstream[0].endpoints[0]: go round in circles"],
        ),
    ]);
    warnings(&[
        (
            "[[upstream]]\nname = 'a'\nendpoints = ['1.2.3.4:5']\n",
            &["2 upstream[0].name: no route uses upstream `a`"],
        ),
        (
            "[[listener]]\nname = 'a'\naddress = '[::]:80'\n",
            &["1 listener[0]: there is a listener but no route"],
        ),
        (
            "[[upstream]]\nname = 'a'\nendpoints = ['1.2.3.4:5']\n[[route]]\nname = 'r'\npath = '/'\nupstream = 'a'\nauth = 'none'\n",
            &["4 route[0]: there are routes but no listener"],
        ),
    ]);
}

#[test]
fn routes() {
    let with = |route: &str| {
        format!("[[upstream]]\nname = 'app'\nendpoints = ['1.2.3.4:5']\n[[route]]\nname = 'r'\n{route}")
    };
    let rows: [(&str, &[&str]); 10] = [
        (
            "",
            &[
                "4 route[0].path: missing key `path`",
                "4 route[0].upstream: missing key `upstream`",
                "4 route[0].auth: every route says what it asks",
            ],
        ),
        (
            "path = '/a/'\nupstream = 'app'\nauth = 'none'\n",
            &["6 route[0].path: a prefix ends without `/`"],
        ),
        (
            "path = '/a/../b'\nupstream = 'app'\nauth = 'none'\n",
            &["6 route[0].path: dot segments"],
        ),
        (
            "path = '/'\nupstream = 'ap'\nauth = 'none'\n",
            &["7 route[0].upstream: did you mean `app`?"],
        ),
        (
            "path = '/'\nupstream = 'app'\nauth = 'requierd'\n",
            &["8 route[0].auth: did you mean `required`?"],
        ),
        (
            "path = '/'\nupstream = 'app'\nauth = 'required'\n",
            &["8 route[0].auth: names who may sign"],
        ),
        (
            "path = '/'\nupstream = 'app'\nauth = 'optional'\nproviders = ['x']\n",
            &["9 route[0].providers[0]: unknown provider `x`"],
        ),
        (
            "path = '/'\nupstream = 'app'\nauth = 'none'\nscopes = ['a', 'b c']\n",
            &[
                "9 route[0].scopes: has no meaning",
                "9 route[0].scopes[1]: is not one scope",
            ],
        ),
        (
            "path = '/'\nupstream = 'app'\nauth = 'none'\ntimeout = '0s'\n",
            &["9 route[0].timeout: longer than zero"],
        ),
        (
            "path = '/'\nupstream = 'app'\nauth = 'none'\n[[route]]\nname = 'q'\npath = '/'\nupstream = 'app'\nauth = 'none'\n",
            &["11 route[1].path: this route can never match: route `r` takes its requests first"],
        ),
    ];
    for (route, expected) in rows {
        errors(&[(&with(route), expected)]);
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn providers() {
    let with = |provider: &str| format!("[[provider]]\nname = 'p'\n{provider}");
    let rows: [(&str, &[&str]); 27] = [
        (
            "secret_file = 'good.key'\n",
            &["1 provider[0].algorithms: missing key `algorithms`"],
        ),
        (
            "algorithms = []\nsecret_file = 'good.key'\n",
            &["3 provider[0].algorithms: at least one algorithm"],
        ),
        (
            "algorithms = ['none']\nsecret_file = 'good.key'\n",
            &["3 provider[0].algorithms[0]: unknown algorithm `none`"],
        ),
        (
            "algorithms = ['RS256', 'HS256']\npem_file = 'public.pem'\n",
            &["3 provider[0].algorithms[1]: `RS256` and `HS256` are of different key families"],
        ),
        (
            "algorithms = ['HS256', 'HS256']\nsecret_file = 'good.key'\n",
            &["3 provider[0].algorithms[1]: `HS256` is given twice"],
        ),
        (
            "algorithms = ['HS256']\n",
            &["1 provider[0]: a provider needs a key"],
        ),
        (
            "algorithms = ['HS256']\nsecret_file = 'good.key'\nsecret_env = 'GOOD_SECRET'\n",
            &["5 provider[0].secret_env: given in two ways: `secret_file` and `secret_env`"],
        ),
        (
            "algorithms = ['HS256']\npem_file = 'public.pem'\n",
            &["4 provider[0].pem_file: cannot serve an HMAC algorithm"],
        ),
        (
            "algorithms = ['RS256']\nsecret_file = 'good.key'\n",
            &["4 provider[0].secret_file: is for HMAC algorithms"],
        ),
        (
            "algorithms = ['HS256']\nsecret_file = 'none.key'\n",
            &["4 provider[0].secret_file: No such file"],
        ),
        (
            "algorithms = ['HS256']\nsecret_file = 'directory.key'\n",
            &["4 provider[0].secret_file: is not a regular file"],
        ),
        (
            "algorithms = ['HS256']\nsecret_file = 'empty.key'\n",
            &["4 provider[0].secret_file: empty.key is empty"],
        ),
        (
            "algorithms = ['HS256']\nsecret_file = 'blank.key'\n",
            &["4 provider[0].secret_file: blank.key is empty"],
        ),
        (
            "algorithms = ['HS256']\nsecret_file = 'short.key'\n",
            &["4 provider[0].secret_file: short.key is 9 bytes long, shorter than its hash"],
        ),
        // 32 bytes with the newline, 31 without: the newline is no part of the secret.
        (
            "algorithms = ['HS256']\nsecret_file = 'newline.key'\n",
            &["4 provider[0].secret_file: is 31 bytes long"],
        ),
        (
            "algorithms = ['HS256']\nsecret_file = 'open.key'\n",
            &["4 provider[0].secret_file: open.key can be read by everybody (mode 0644)"],
        ),
        (
            "algorithms = ['RS256']\npem_file = 'written.pem'\n",
            &["4 provider[0].pem_file: written.pem can be written by everybody (mode 0666)"],
        ),
        (
            "algorithms = ['HS256']\njwks_file = 'open.key'\n",
            &["4 provider[0].jwks_file: can be read by everybody"],
        ),
        (
            "algorithms = ['HS256']\nsecret_env = 'UNSET'\n",
            &["4 provider[0].secret_env: `UNSET` is not set"],
        ),
        (
            "algorithms = ['HS256']\nsecret_env = 'EMPTY_SECRET'\n",
            &["4 provider[0].secret_env: `EMPTY_SECRET` is empty"],
        ),
        (
            "algorithms = ['HS256']\nsecret_env = 'SHORT_SECRET'\n",
            &["4 provider[0].secret_env: is 7 bytes long"],
        ),
        (
            "algorithms = ['HS512']\nsecret_env = 'GOOD_SECRET'\n",
            &["4 provider[0].secret_env: is 32 bytes long"],
        ),
        (
            "algorithms = ['HS256']\nkey = 'generated'\n",
            &["4 provider[0].key: only in the built-in quick start"],
        ),
        (
            "algorithms = ['HS256']\nkey = 'hunter2'\n",
            &["4 provider[0].key: does not stand in the configuration itself"],
        ),
        (
            "algorithms = ['HS256']\nsecret_file = 'good.key'\nleeway = '11m'\nissuer = ''\naudiences = ['']\n",
            &[
                "5 provider[0].leeway: must be at most 10m",
                "6 provider[0].issuer: must not be empty",
                "7 provider[0].audiences[0]: must not be empty",
            ],
        ),
        (
            "algorithms = ['HS256']\nsecret_file = 'good.key'\nsources = ['baerer', 'cookie:', 'header:Cookie', 'query:a b', 'jar:x', 'cookie:a', 'cookie:a']\n",
            &[
                "5 provider[0].sources[0]: did you mean `bearer`?",
                "5 provider[0].sources[1]: is not the name of a cookie value",
                "5 provider[0].sources[2]: is not a header of its own kind",
                "5 provider[0].sources[3]: is not the name of a query value",
                "5 provider[0].sources[4]: unknown token source `jar`",
                "5 provider[0].sources[6]: source `cookie:a` is given twice",
            ],
        ),
        (
            "algorithms = ['HS256']\nsecret_file = 'good.key'\nsources = []\n",
            &["5 provider[0].sources: at least one place"],
        ),
    ];
    for (provider, expected) in rows {
        errors(&[(&with(provider), expected)]);
    }
    warnings(&[(
        &with("algorithms = ['HS256']\nsecret_env = 'GOOD_SECRET'\n"),
        &["2 provider[0].name: no route uses provider `p`"],
    )]);
}

#[test]
fn offences() {
    errors(&[
        (
            "[offences]\nthreshold = 0\n",
            &["2 offences.threshold: must be between 1 and"],
        ),
        (
            "[offences]\nthreshold = 0\n",
            &["2 offences.threshold: between 1 and 1000000"],
        ),
        (
            "[offences.weights]\nsmuggling = 1001\nprobe = -1\nmalformed = nan\nbad_token = inf\nforbidden = '1'\nbad = 1\n",
            &[
                "2 offences.weights.smuggling: 0 to 1000 points",
                "3 offences.weights.probe: 0 to 1000 points",
                "4 offences.weights.malformed: 0 to 1000 points",
                "5 offences.weights.bad_token: 0 to 1000 points",
                "6 offences.weights.forbidden: expected a number of points",
                "7 offences.weights.bad: unknown key",
            ],
        ),
        ("[offences]\nscope = 'all'\n", &["2 offences.scope: "]),
        (
            "[offences]\nprobes = ['.env']\n",
            &["2 offences.probes[0]: not the beginning of a path"],
        ),
        (
            "[offences]\nslow_per_second = 0\n",
            &["2 offences.slow_per_second: between 1"],
        ),
        (
            "[offences]\nhalf_life = '0s'\n",
            &["2 offences.half_life: must be longer than zero"],
        ),
        (
            "[offences]\nban = '2m'\nmax_ban = '1m'\n",
            &["2 offences.ban: the first ban (2m) is longer than the longest one (1m)"],
        ),
        (
            "[offences]\nmax_ban = '1s'\n",
            &["2 offences.max_ban: the first ban (1m) is longer"],
        ),
        (
            "[offences]\nmax_ban = '2years'\n",
            &["2 offences.max_ban: must be at most"],
        ),
        // Nothing is compared with what is no duration.
        (
            "[offences]\nmax_ban = 'long'\nban = '2d'\n",
            &["2 offences.max_ban: `long` is not a duration"],
        ),
        (
            "[offences]\nmax_bans_per_minute = 0\nexempt_local = 'no'\n",
            &[
                "2 offences.max_bans_per_minute: must be between 1 and 1000000",
                "3 offences.exempt_local: expected true or false",
            ],
        ),
        (
            "[offences]\nexempt = ['10.0.0.0/8', '10.0.0.1/8']\n",
            &["2 offences.exempt[1]: bits set beyond its prefix"],
        ),
    ]);
}

#[test]
fn escalation() {
    errors(&[
        (
            "[shield.escalation]\nafter = '0s'\n",
            &["2 shield.escalation.after: must be longer than zero"],
        ),
        (
            "[shield.escalation]\nafter = '500ms'\n",
            &["2 shield.escalation.after: must be at least 1s"],
        ),
        (
            "[shield.escalation]\nafter = '2h'\n",
            &["2 shield.escalation.after: must be at most 1h"],
        ),
        (
            "[shield.escalation]\nban = '2h'\n",
            &["2 shield.escalation.ban: the first ban (2h) is longer than the longest one (1h)"],
        ),
        (
            "[shield.escalation]\nmax_ban = '2years'\n",
            &["2 shield.escalation.max_ban: must be at most 365days"],
        ),
        (
            "[shield]\nescalation = true\n",
            &["2 shield.escalation: expected a table, found a boolean"],
        ),
        (
            "[shield.escalation]\nbans = '2h'\n",
            &["2 shield.escalation.bans: did you mean `ban`?"],
        ),
    ]);
    let limited = "[shield.limits]\nsource_syns = { per_second = 10, burst = 20 }\n";
    let service = "[[service]]\nname = 'a'\nprotocol = 'tcp'\nport = 1\nlimits.source_syns = { per_second = 10, burst = 20 }\n";
    warnings(&[
        (
            "[shield.escalation]\n",
            &["1 shield.escalation: nobody can be over a limit: none is set"],
        ),
        (&format!("[shield.escalation]\n{limited}"), &[]),
        (&format!("[shield.escalation]\n{service}"), &[]),
        (
            "[shield]\nicmp = { per_second = 10, burst = 20 }\n[shield.escalation]\n",
            &[],
        ),
    ]);
}

#[test]
fn guards() {
    let tcp = |keys: &str| format!("[[service]]\nname = 'web'\nprotocol = 'tcp'\nport = 443\n{keys}\n");
    let udp = |keys: &str| format!("[[service]]\nname = 'dns'\nprotocol = 'udp'\nport = 53\n{keys}\n");
    let budget = "budget = { per_second = 100, burst = 200 }";
    errors(&[
        (&tcp("syn = {}"), &["5 service[0].syn: `syn` sets nothing"]),
        (
            &tcp("syn = { cookies = 'auto' }"),
            &["5 service[0].syn.cookies: `auto` asks for cookies over the budget, and there is none"],
        ),
        (
            &tcp("syn = { cookies = 'sometimes' }"),
            &["5 service[0].syn.cookies: unknown cookie mode `sometimes`"],
        ),
        (
            &tcp("syn = { budget = { per_second = 0, burst = 1 } }"),
            &["5 service[0].syn.budget.per_second: a rate of 0 admits nothing"],
        ),
        (
            &tcp("syn = { budget = { per_second = 1000, burst = 19 } }"),
            &["5 service[0].syn.budget.burst: a burst of 19 is less than two clock ticks' worth"],
        ),
        (
            &tcp(&format!("syn = {{ {budget}, hold = '0s' }}")),
            &["5 service[0].syn.hold: must be longer than zero"],
        ),
        (
            &tcp(&format!("syn = {{ {budget}, hold = '10ms' }}")),
            &["5 service[0].syn.hold: `hold` must be at least 1s"],
        ),
        (
            &tcp(&format!("syn = {{ {budget}, hold = '2h' }}")),
            &["5 service[0].syn.hold: must be at most 1h"],
        ),
        (
            &tcp(&format!("syn = {{ {budget}, window_scale = 15 }}")),
            &["5 service[0].syn.window_scale: `window_scale` must be at most 14"],
        ),
        (
            &tcp(&format!("syn = {{ {budget}, cookie = 'auto' }}")),
            &["5 service[0].syn.cookie: did you mean `cookies`?"],
        ),
        (
            &udp(&format!("syn = {{ {budget} }}")),
            &["5 service[0].syn: `syn` is for TCP"],
        ),
        (
            &tcp("new_sources = { per_second = 10, burst = 20 }"),
            &["5 service[0].new_sources: `new_sources` is for UDP"],
        ),
        (
            &udp("new_sources = { per_second = 0, burst = 20 }"),
            &["5 service[0].new_sources.per_second: a rate of 0 admits nothing"],
        ),
    ]);
    warnings(&[
        (
            &tcp("syn = { cookies = 'off' }"),
            &["5 service[0].syn.cookies: `syn` has no effect"],
        ),
        (
            &tcp("syn = { cookies = 'always', hold = '5s' }"),
            &["5 service[0].syn.hold: `hold` has no effect unless"],
        ),
        (
            &tcp(&format!(
                "syn = {{ {budget}, cookies = 'off', window_scale = 7 }}"
            )),
            &["5 service[0].syn.window_scale: `window_scale` has no effect"],
        ),
        (&tcp(&format!("syn = {{ {budget} }}")), &[]),
        (&tcp("syn = { cookies = 'always', window_scale = 0 }"), &[]),
        (&udp("new_sources = { per_second = 10, burst = 20 }"), &[]),
    ]);
}
