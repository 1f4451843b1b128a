//! Listeners: what is wrong with their certificates, peers and limits, told at the right line and key.

use super::{
    key_dir,
    mistakes::{errors, warnings},
    options,
};
use crate::config::{CertificateFiles, ClientCertificates, Listener, load};

/// A listener with these lines of TLS; they begin at line 5.
fn tls(lines: &str) -> String {
    format!("[[listener]]\nname = 'a'\naddress = '[::]:443'\n[listener.tls]\n{lines}\n")
}

const GOOD: &str = "certificates = [{ certificate_file = 'site.pem', key_file = 'site.key' }]";

fn pair(certificate: &str, key: &str) -> String {
    tls(&format!(
        "certificates = [{{ certificate_file = '{certificate}', key_file = '{key}' }}]"
    ))
}

#[test]
fn certificates_that_cannot_be_served_are_refused_at_their_key() {
    let certificate =
        |text: &'static str| format!("5 listener[0].tls.certificates[0].certificate_file: {text}");
    let key = |text: &'static str| format!("5 listener[0].tls.certificates[0].key_file: {text}");
    let rows = [
        (pair("nowhere.pem", "site.key"), certificate("cannot read")),
        (
            pair("public.pem", "site.key"),
            certificate("holds no certificate"),
        ),
        (
            pair("written.pem", "site.key"),
            certificate("can be written by everybody"),
        ),
        (pair("ended.pem", "site.key"), certificate("ended on")),
        (pair("site.pem", "nowhere.key"), key("cannot read")),
        (pair("site.pem", "good.key"), key("holds no private key")),
        (pair("site.pem", "open-site.key"), key("can be read by everybody")),
        (
            pair("site.pem", "other.key"),
            key("is not that of the certificate"),
        ),
    ];
    for (text, expected) in &rows {
        errors(&[(text, &[expected])]);
    }
}

#[test]
fn other_mistakes_of_tls() {
    let row = |lines: &str| tls(&format!("{GOOD}\n{lines}"));
    errors(&[
        (&tls(""), &["4 listener[0].tls.certificates: missing key"]),
        (
            &tls("certificates = []"),
            &["5 listener[0].tls.certificates: needs a certificate"],
        ),
        (
            &tls("certificates = [{ certificate_file = 'site.pem' }]"),
            &["5 listener[0].tls.certificates[0].key_file: missing key"],
        ),
        (
            &tls("certificates = [{ certificate_file = 'site.pem', key_file = 'site.key', names = ['*'] }]"),
            &["5 listener[0].tls.certificates[0].names[0]: is not a name"],
        ),
        (
            &tls(
                "certificates = [{ certificate_file = 'site.pem', key_file = 'site.key' },\n{ certificate_file = 'site.pem', key_file = 'site.key', names = ['Example.org'] }]",
            ),
            &["6 listener[0].tls.certificates[1].names: name `example.org` is given twice"],
        ),
        (
            &row("minimum = '1.1'"),
            &["6 listener[0].tls.minimum: unknown TLS version `1.1`"],
        ),
        (
            &row("unknown_name = 'drop'"),
            &["6 listener[0].tls.unknown_name: unknown treatment"],
        ),
        (
            &row("handshake_timeout = '0s'"),
            &["6 listener[0].tls.handshake_timeout: longer than zero"],
        ),
        (
            &row("handshake_timeout = '2m'"),
            &["6 listener[0].tls.handshake_timeout: at most 1m"],
        ),
        (
            &row("client_certificates = 'required'"),
            &["6 listener[0].tls.client_certificates: need `client_ca_file`"],
        ),
        (
            &row("client_ca_file = 'site.pem'"),
            &["6 listener[0].tls.client_ca_file: has no effect"],
        ),
        (
            &row("client_certificates = 'optional'\nclient_ca_file = 'public.pem'"),
            &["7 listener[0].tls.client_ca_file: holds no certificate"],
        ),
        (
            &row("subject_header = 'x-s'"),
            &["6 listener[0].tls.subject_header: has no effect"],
        ),
        (
            &row("client_certificates = 'optional'\nclient_ca_file = 'site.pem'\nsubject_header = 'Host'"),
            &["8 listener[0].tls.subject_header: cannot carry an identity"],
        ),
    ]);
}

#[test]
fn mistakes_of_listeners_and_limits() {
    errors(&[
        (
            "[[listener]]\nname = 'a'\naddress = '0.0.0.0:80'\ndual_stack = true\n",
            &["4 listener[0].dual_stack: only `[::]` takes IPv4 and IPv6"],
        ),
        (
            "[[listener]]\nname = 'a'\naddress = '[::ffff:192.0.2.1]:80'\n",
            &["3 listener[0].address: is an address of IPv4, written as one of IPv6"],
        ),
        (
            "[[listener]]\nname = 'a'\naddress = '[::]:80'\ndual_stack = true\n[[listener]]\nname = 'b'\naddress = '0.0.0.0:80'\n",
            &["7 listener[1].address: another listener takes IPv4"],
        ),
        (
            "[[listener]]\nname = 'a'\naddress = '[::]:80'\nproxy_protocol = ['10.0.0.1/8']\ntrusted_proxies = ['::1', '::1']\n",
            &[
                "4 listener[0].proxy_protocol[0]: has bits set beyond its prefix",
                "5 listener[0].trusted_proxies[1]: is given twice",
            ],
        ),
        (
            "[gateway.limits]\nheader_count = 257\nheader_bytes = 100\nstreams = 0\nidle_timeout = '2h'\nmin_body_rate = 2_000_000_000\nmin_read_rate = 2_000_000_000\ntunnel_idle_timeout = '25h'\n",
            &[
                "2 gateway.limits.header_count: must be between 1 and 256",
                "3 gateway.limits.header_bytes: must be at least 1024",
                "3 gateway.limits.header_bytes: must be less than `header_bytes`",
                "4 gateway.limits.streams: must be between 1 and 1000",
                "5 gateway.limits.idle_timeout: at most 1h",
                "6 gateway.limits.min_body_rate: at most 1000000000",
                "7 gateway.limits.min_read_rate: at most 1000000000",
                "8 gateway.limits.tunnel_idle_timeout: at most 1day",
            ],
        ),
    ]);
    errors(&[
        (
            "[gateway.access_log]\nfile = 'no/where'\n",
            &["2 gateway.access_log.file: no file can be made"],
        ),
        (
            "[gateway.access_log]\nfile = '.'\n",
            &["2 gateway.access_log.file: no file can be made"],
        ),
        (
            "[gateway.access_log]\nformat = 'xml'\n",
            &["2 gateway.access_log.format: unknown format `xml`"],
        ),
    ]);
    warnings(&[
        ("[gateway.limits]\nconnections = 10\n", &[]),
        (
            "[gateway.limits]\nconnections = 10\nconnections_per_address = 11\n",
            &["3 gateway.limits.connections_per_address: limits nothing"],
        ),
    ]);
}

#[test]
fn a_listener_is_what_it_says() {
    let dir = key_dir();
    let text = "[[listener]]\nname = 'a'\naddress = '[::]:443'\ndual_stack = true\nproxy_protocol = ['10.0.0.0/8']\n\
                [listener.tls]\ncertificates = [{ certificate_file = 'site.pem', key_file = 'site.key', names = ['b.example'] }]\n\
                client_certificates = 'required'\nclient_ca_file = 'site.pem'\nsubject_header = 'X-S'\nminimum = '1.3'\n\
                [[route]]\nname = 'r'\npath = '/'\nupstream = 'u'\nauth = 'none'\n[[upstream]]\nname = 'u'\nendpoints = ['10.0.0.1:80']\n";
    let loaded = load::parse(text, "t.toml", dir.path(), &options()).unwrap();
    let Listener {
        dual_stack,
        proxy_protocol,
        trusted_proxies,
        tls: Some(tls),
        ..
    } = &loaded.config.listeners[0]
    else {
        panic!("no TLS");
    };
    assert!(dual_stack);
    assert_eq!((proxy_protocol.len(), trusted_proxies.len()), (1, 0));
    assert_eq!(
        tls.certificates,
        [CertificateFiles {
            certificate_file: dir.path().join("site.pem"),
            key_file: dir.path().join("site.key"),
            names: vec!["b.example".into()],
        }]
    );
    assert_eq!(
        tls.client_certificates,
        ClientCertificates::Required(dir.path().join("site.pem"))
    );
    assert_eq!(tls.subject_header.as_deref(), Some("x-s"));
}
