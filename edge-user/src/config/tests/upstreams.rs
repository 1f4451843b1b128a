//! Mistakes about upstreams, and the examples of the page about them.

use super::{mistakes::errors, mistakes::warnings};
use crate::config::{Config, EndpointHost, EndpointSpec};

/// An upstream with these lines, whose first is line 3.
fn upstream(lines: &str) -> String {
    format!("[[upstream]]\nname = 'a'\n{lines}")
}

fn check(rows: &[(&str, &[&str])]) {
    let texts: Vec<(String, &[&str])> = rows
        .iter()
        .map(|(lines, expected)| (upstream(lines), *expected))
        .collect();
    let rows: Vec<(&str, &[&str])> = texts
        .iter()
        .map(|(text, expected)| (text.as_str(), *expected))
        .collect();
    errors(&rows);
}

#[test]
fn endpoints() {
    check(&[
        (
            "endpoints = ['1.2.3.300:80', 'a..b:80', 'srv:', 'srv:-x', 'app:0', 'app:99999', '-a:80']\n",
            &[
                "3 upstream[0].endpoints[0]: neither an IP address nor a name",
                "3 upstream[0].endpoints[1]: neither an IP address nor a name",
                "3 upstream[0].endpoints[2]: not a name of SRV records",
                "3 upstream[0].endpoints[3]: not a name of SRV records",
                "3 upstream[0].endpoints[4]: a port other than 0",
                "3 upstream[0].endpoints[5]: neither an IP address nor a name",
                "3 upstream[0].endpoints[6]: neither an IP address nor a name",
            ],
        ),
        (
            "endpoints = ['App.internal:80', { address = 'app.internal:80' }]\n",
            &["3 upstream[0].endpoints[1].address: endpoint `app.internal:80` is given twice"],
        ),
        (
            "endpoints = [{ weight = 1 }, { address = 'b:1', weight = 0 }, { address = 'srv:_a._tcp.b', weight = 2 }]\n",
            &[
                "3 upstream[0].endpoints[0].address: missing key `address`",
                "3 upstream[0].endpoints[1].weight: between 1 and 1000, is 0",
                "3 upstream[0].endpoints[2].weight: in their SRV records",
            ],
        ),
        (
            "endpoints = [{ address = 'b:1', zone = 'x' }]\nprefer_zone = 'y'\n",
            &["4 upstream[0].prefer_zone: no endpoint stands in zone `y`"],
        ),
    ]);
}

#[test]
fn choices_that_contradict_each_other() {
    check(&[
        (
            "endpoints = ['b:1']\nbalance = 'consistent_hash'\n",
            &["4 upstream[0].balance: `hash` is missing"],
        ),
        (
            "endpoints = ['b:1']\nbalance = 'consistent_hash'\nhash = 'header:'\nslow_start = '1s'\n",
            &[
                "5 upstream[0].hash: nothing that can be hashed",
                "6 upstream[0].slow_start: would move keys",
            ],
        ),
        (
            "endpoints = ['b:1']\nhash = 'client_address'\n",
            &["4 upstream[0].hash: has no meaning here"],
        ),
        (
            "endpoints = ['b:1']\nprotocol = 'auto'\n",
            &["4 upstream[0].protocol: there is no TLS here"],
        ),
        (
            "endpoints = ['b:1']\nprotocol = 'http2'\nsend_proxy = 'v2'\n",
            &["5 upstream[0].send_proxy: an HTTP/2 connection carries many"],
        ),
        (
            "endpoints = ['b:1']\nbalance = 'random'\n",
            &["4 upstream[0].balance: unknown way of balancing `random`"],
        ),
    ]);
}

#[test]
fn tls() {
    check(&[
        (
            "endpoints = ['b:1']\n[upstream.tls]\nca_file = 'nowhere.pem'\nserver_name = 'a b'\n",
            &[
                "5 upstream[0].tls.ca_file: cannot read",
                "6 upstream[0].tls.server_name: not a name that a certificate",
            ],
        ),
        (
            "endpoints = ['srv:_a._tcp.b']\n[upstream.tls]\n",
            &["4 upstream[0].tls: `server_name` is missing"],
        ),
        (
            "endpoints = ['b:1']\n[upstream.tls]\nkey_file = 'nowhere.key'\n",
            &[
                "5 upstream[0].tls.key_file: cannot read",
                "5 upstream[0].tls.key_file: `certificate_file` is missing",
            ],
        ),
        (
            "endpoints = ['b:1']\n[upstream.tls]\ninsecure_accept_any_certificate = true\nca_file = 'nowhere.pem'\n",
            &[
                "6 upstream[0].tls.ca_file: cannot read",
                "6 upstream[0].tls.ca_file: to trust everybody",
            ],
        ),
    ]);
}

#[test]
fn tables_of_numbers_and_times() {
    check(&[
        (
            "endpoints = ['b:1']\n[upstream.dns]\nrefresh_min = '10m'\n",
            &["5 upstream[0].dns.refresh_min: is longer than `refresh_max`"],
        ),
        (
            "endpoints = ['b:1']\n[upstream.health]\nprobe = 'tcp'\npath = '/x'\n",
            &["6 upstream[0].health.path: a TCP probe sends nothing"],
        ),
        (
            "endpoints = ['b:1']\n[upstream.health]\nprobe = 'http'\nstatus = ['2xx']\ninterval = '1ms'\n",
            &[
                "4 upstream[0].health.path: missing key `path`",
                "6 upstream[0].health.status[0]: `2xx` is not a status",
                "7 upstream[0].health.interval: at least 50ms",
            ],
        ),
        (
            "endpoints = ['b:1']\n[upstream.ejection]\nmax_percent = 101\ntime = '10m'\n",
            &[
                "5 upstream[0].ejection.max_percent: between 1 and 100",
                "6 upstream[0].ejection.time: is longer than `max_time`",
            ],
        ),
        (
            "endpoints = ['b:1']\nejection = 'no'\n",
            &["4 upstream[0].ejection: expected a table, or \"off\""],
        ),
        (
            "endpoints = ['b:1']\n[upstream.retry]\nattempts = 11\nstatuses = [404]\nbuffer_bytes = 10000000\n",
            &[
                "5 upstream[0].retry.attempts: between 1 and 10",
                "6 upstream[0].retry.statuses[0]: 404 is no status",
                "7 upstream[0].retry.buffer_bytes: at most 1048576",
            ],
        ),
        (
            "endpoints = ['b:1']\n[upstream.circuit]\nrequests = 0\n[upstream.pool]\nstreams = 0\n",
            &[
                "5 upstream[0].circuit.requests: between 1 and",
                "7 upstream[0].pool.streams: between 1 and",
            ],
        ),
    ]);
    let used = "\n[[listener]]\nname = 'l'\naddress = '127.0.0.1:1'\n[[route]]\nname = 'r'\npath = '/'\nupstream = 'a'\nauth = 'none'\n";
    let idle = upstream(&format!("endpoints = ['1.2.3.4:5']\n[upstream.dns]\n{used}"));
    let insecure = upstream(&format!(
        "endpoints = ['b:5']\n[upstream.tls]\ninsecure_accept_any_certificate = true\n{used}"
    ));
    warnings(&[
        (&idle, &["4 upstream[0].dns: nothing is resolved"]),
        (
            &insecure,
            &["5 upstream[0].tls.insecure_accept_any_certificate: anybody on the way can answer"],
        ),
    ]);
}

#[test]
fn shares_of_a_route() {
    let route = |lines: &str| {
        format!(
            "[[upstream]]\nname = 'a'\nendpoints = ['b:1']\n[[route]]\nname = 'r'\npath = '/'\nauth = 'none'\n{lines}"
        )
    };
    let texts = [
        (
            route("upstreams = [{ name = 'a', weight = 0 }]\n"),
            &["8 route[0].upstreams: every weight is 0"][..],
        ),
        (
            route("upstreams = [{ name = 'b', weight = 1 }, { name = 'a' }]\n"),
            &[
                "8 route[0].upstreams[0].name: unknown upstream `b`",
                "8 route[0].upstreams[1].weight: missing key `weight`",
            ],
        ),
        (
            route("upstreams = [{ name = 'a', weight = 1 }, { name = 'a', weight = 1001 }]\n"),
            &[
                "8 route[0].upstreams[1].name: upstream `a` is given twice",
                "8 route[0].upstreams[1].weight: at most 1000",
            ],
        ),
        (
            route("upstream = 'a'\nhash = 'client_address'\n"),
            &["9 route[0].hash: has no meaning here"],
        ),
        (
            route("upstream = 'a'\nupstreams = [{ name = 'a', weight = 1 }]\n"),
            &["9 route[0].upstreams: a route does one thing"],
        ),
    ];
    let rows: Vec<(&str, &[&str])> = texts
        .iter()
        .map(|(text, expected)| (text.as_str(), *expected))
        .collect();
    errors(&rows);
}

#[test]
fn an_endpoint_is_read_as_it_is_written() {
    let text = upstream("endpoints = ['[::1]:80', 'App.Internal.:3000', 'srv:_http._tcp.x']\n");
    let config = Config::parse(&text, "t.toml", std::path::Path::new(""))
        .unwrap()
        .config;
    let hosts: Vec<String> = config.upstreams[0]
        .endpoints
        .iter()
        .map(|EndpointSpec { host, .. }: &EndpointSpec| host.to_string())
        .collect();
    assert_eq!(hosts, ["[::1]:80", "app.internal:3000", "srv:_http._tcp.x"]);
    assert!(matches!(
        config.upstreams[0].endpoints[2].host,
        EndpointHost::Service(_)
    ));
}
