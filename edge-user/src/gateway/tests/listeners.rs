//! Listeners: TLS by name, new certificates, client certificates, the PROXY protocol, and whose word is believed.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};

use super::support::{Client, Edge, Origin, PATIENCE, config, eventually};
use crate::{
    config::{CertificateFiles, ClientCertificates, ListenerTls, TlsVersion, UnknownName},
    gateway::{Closing, Limits},
    offence::{OffenceKind, Offender},
};

/// An authority with its key, and what it issues.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for `names` and its key, as PEM.
    fn issue(&self, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = CertificateParams::new(names.clone()).unwrap();
        let name = names.first().cloned().unwrap_or_default();
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (
            parameters.signed_by(&key, &self.0).unwrap().pem(),
            key.serialize_pem(),
        )
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }
}

fn write(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&beside, path).unwrap();
}

/// A directory with certificates, and the settings that name them.
struct Site {
    dir: tempfile::TempDir,
    authority: Authority,
}

impl Site {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            authority: Authority::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, name: &str, names: &[&str]) -> CertificateFiles {
        let (certificate, key) = self.authority.issue(names);
        let files = CertificateFiles {
            certificate_file: self.path(&format!("{name}.pem")),
            key_file: self.path(&format!("{name}.key")),
            names: Vec::new(),
        };
        write(&files.certificate_file, &certificate);
        write(&files.key_file, &key);
        files
    }

    fn settings(certificates: Vec<CertificateFiles>) -> ListenerTls {
        ListenerTls {
            certificates,
            unknown_name: UnknownName::Default,
            minimum: TlsVersion::Tls12,
            http2: true,
            handshake_timeout: Duration::from_secs(5),
            client_certificates: ClientCertificates::None,
            subject_header: None,
            fingerprint_header: None,
        }
    }

    fn client(&self) -> ClientConfig {
        ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.authority.roots())
            .with_no_client_auth()
    }
}

fn serve(origin: &Origin, settings: ListenerTls) -> Edge {
    let mut config = config(&[&[origin.address]], &[("/", 0, false)]);
    config.listeners[0].tls = Some(settings);
    Edge::start(&config, Limits::default())
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A TLS connection whose handshake is over.
fn connect(edge: &Edge, client: &Arc<ClientConfig>, name: &str) -> Result<Tls, std::io::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let session = ClientConnection::new(Arc::clone(client), name).unwrap();
    let socket = TcpStream::connect(edge.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = StreamOwned::new(session, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

fn get(stream: &mut Tls) -> std::io::Result<String> {
    stream.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\nX-Client-Subject: forged\r\nX_Client_Fingerprint: forged\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn name_of(stream: &Tls) -> Vec<u8> {
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn the_certificate_goes_by_the_name() {
    let site = Site::new();
    let settings = Site::settings(vec![
        site.put("one", &["one.example", "*.many.example"]),
        site.put("two", &["two.example", "special.many.example"]),
    ]);
    let origin = Origin::ok();
    let edge = serve(&origin, settings);
    let client = Arc::new(site.client());
    for (name, file) in [
        ("one.example", "one.pem"),
        ("ONE.example", "one.pem"),
        ("two.example", "two.pem"),
        ("a.many.example", "one.pem"),
        ("special.many.example", "two.pem"),
    ] {
        let mut stream = connect(&edge, &client, name).unwrap_or_else(|error| panic!("{name}: {error}"));
        let want = CertificateDer::from_pem_file(site.path(file)).unwrap();
        assert_eq!(name_of(&stream), want.to_vec(), "{name}");
        assert!(get(&mut stream).unwrap().starts_with("HTTP/1.1 200"), "{name}");
    }
    let seen = origin.last();
    assert_eq!(seen.field("x-forwarded-proto"), Some("https"));
    assert!(
        seen.field("forwarded").unwrap().contains("proto=https"),
        "{}",
        seen.head
    );
    assert!(
        seen.field("x-client-subject")
            .is_none_or(|value| value == "forged"),
        "not configured here"
    );
    // Two labels below a wildcard, and a name of nobody's, get the default, which is not theirs.
    for name in ["a.b.many.example", "other.example"] {
        let error = connect(&edge, &client, name).expect_err(name);
        assert!(error.to_string().contains("not valid for name"), "{error}");
    }
}

#[test]
fn names_of_nobody_are_refused_if_asked_for() {
    let site = Site::new();
    let settings = ListenerTls {
        unknown_name: UnknownName::Refuse,
        ..Site::settings(vec![site.put("one", &["one.example"])])
    };
    let origin = Origin::ok();
    let edge = serve(&origin, settings);
    let client = Arc::new(site.client());
    assert!(connect(&edge, &client, "one.example").is_ok());
    for name in ["two.example", "127.0.0.1"] {
        let error = connect(&edge, &client, name).expect_err(name);
        assert!(error.to_string().contains("alert"), "{error}");
    }
    eventually("counted", || closed(&edge, Closing::TlsRefused) == 2);
    assert_eq!(edge.offences.kinds(), [OffenceKind::TlsRefused; 2]);
}

fn closed(edge: &Edge, which: Closing) -> u64 {
    let closings = edge.handle.closings();
    closings.iter().find(|(closing, _)| *closing == which).unwrap().1
}

#[test]
fn new_files_are_taken_up_whole_or_not_at_all() {
    let site = Site::new();
    let files = site.put("one", &["one.example"]);
    let origin = Origin::ok();
    let edge = serve(&origin, Site::settings(vec![files.clone()]));
    let client = Arc::new(site.client());
    let mut kept = connect(&edge, &client, "one.example").unwrap();
    let first = name_of(&kept);
    let served = || name_of(&connect(&edge, &Arc::new(site.client()), "one.example").unwrap());

    // A key that is not the certificate's, a certificate that is none: nothing changes.
    let (other, other_key) = site.authority.issue(&["one.example"]);
    write(&files.key_file, &other_key);
    edge.handle.reload_certificates();
    assert_eq!(served(), first);
    write(&files.certificate_file, "nothing\n");
    edge.handle.reload_certificates();
    assert_eq!(served(), first);

    // The pair is whole again: it is taken up without a word from anybody.
    write(&files.certificate_file, &other);
    let want = CertificateDer::from_pem_slice(other.as_bytes()).unwrap().to_vec();
    eventually("the new certificate is served", || served() == want);
    assert!(
        get(&mut kept).unwrap().starts_with("HTTP/1.1 200"),
        "old connections go on"
    );
}

#[test]
fn client_certificates_are_asked_for_and_told_to_the_upstream() {
    let site = Site::new();
    let ca = site.path("ca.pem");
    write(&ca, &site.authority.pem());
    let (certificate, key) = site.authority.issue(&["client.example"]);
    let stranger = Authority::new().issue(&["client.example"]);
    let chain = |pem: &str| vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
    let with = |(certificate, key): (&str, &str)| {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(site.authority.roots());
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        Arc::new(builder.with_client_auth_cert(chain(certificate), key).unwrap())
    };
    let (none, good, bad) = (
        Arc::new(site.client()),
        with((&certificate, &key)),
        with((&stranger.0, &stranger.1)),
    );
    // In TLS 1.3 the client is done before the server has judged it: the refusal shows with the first answer.
    let answers = |edge: &Edge, client| {
        connect(edge, client, "one.example")
            .and_then(|mut stream| get(&mut stream))
            .is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    };
    for required in [false, true] {
        let origin = Origin::ok();
        let settings = ListenerTls {
            client_certificates: if required {
                ClientCertificates::Required(ca.clone())
            } else {
                ClientCertificates::Optional(ca.clone())
            },
            subject_header: Some("x-client-subject".into()),
            fingerprint_header: Some("x-client-fingerprint".into()),
            ..Site::settings(vec![site.put("one", &["one.example"])])
        };
        let edge = serve(&origin, settings);
        assert_eq!(answers(&edge, &none), !required);
        if !required {
            let seen = origin.last();
            assert_eq!(seen.field("x-client-subject"), None, "{}", seen.head);
            assert_eq!(seen.field("x_client_fingerprint"), None, "{}", seen.head);
        }
        assert!(answers(&edge, &good));
        let seen = origin.last();
        assert_eq!(
            seen.field("x-client-subject"),
            Some("CN=client.example"),
            "{}",
            seen.head
        );
        assert_eq!(
            seen.field("x-client-fingerprint").map(str::len),
            Some(64),
            "{}",
            seen.head
        );
        assert_eq!(seen.field("x_client_fingerprint"), None, "{}", seen.head);
        assert!(!answers(&edge, &bad), "nobody vouches for it");
        eventually("counted", || {
            closed(&edge, Closing::TlsRefused) == 1 + u64::from(required)
        });
    }
}

#[test]
fn sessions_are_resumed() {
    let site = Site::new();
    let origin = Origin::ok();
    let edge = serve(&origin, Site::settings(vec![site.put("one", &["one.example"])]));
    for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12]] {
        let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(site.authority.roots())
            .with_no_client_auth();
        let client = Arc::new(client);
        let kinds: Vec<_> = (0..2)
            .map(|_| {
                let mut stream = connect(&edge, &client, "one.example").unwrap();
                assert!(get(&mut stream).unwrap().starts_with("HTTP/1.1 200"));
                stream.conn.handshake_kind().unwrap()
            })
            .collect();
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed]);
    }
}

#[test]
fn what_is_no_handshake_is_counted_and_slow_ones_end() {
    let site = Site::new();
    let origin = Origin::ok();
    let settings = ListenerTls {
        handshake_timeout: Duration::from_millis(200),
        ..Site::settings(vec![site.put("one", &["one.example"])])
    };
    let edge = serve(&origin, settings);
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        &[0; 64],
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\xff",
    ] {
        let mut client = Client::connect(edge.address);
        client.send(garbage);
        client.read_all_lossy();
    }
    eventually("counted", || closed(&edge, Closing::TlsMalformed) == 3);
    assert_eq!(edge.offences.kinds(), [OffenceKind::TlsGarbage; 3]);
    let begun = Instant::now();
    let mut slow = Client::connect(edge.address);
    slow.send(b"\x16\x03\x01");
    slow.read_all_lossy();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    eventually("counted", || closed(&edge, Closing::TlsTimeout) == 1);
    drop(Client::connect(edge.address));
    eventually("counted", || closed(&edge, Closing::TlsGone) == 1);
    assert!(origin.seen().is_empty());
}

#[test]
fn both_versions_of_http_over_tls() {
    let site = Site::new();
    let origin = Origin::ok();
    let edge = serve(&origin, Site::settings(vec![site.put("one", &["localhost"])]));
    write(&site.path("ca.pem"), &site.authority.pem());
    for (version, want) in [("--http2", "2 200"), ("--http1.1", "1.1 200")] {
        let output = std::process::Command::new("curl")
            .args([
                "-sS",
                "--max-time",
                "10",
                version,
                "-w",
                "\n%{http_version} %{http_code}",
                "--cacert",
            ])
            .arg(site.path("ca.pem"))
            .arg("--connect-to")
            .arg(format!("localhost:443:127.0.0.1:{}", edge.address.port()))
            .arg("https://localhost/x")
            .output();
        let Ok(output) = output else {
            eprintln!("skipped: no curl");
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            text.ends_with(want),
            "{text} {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// A gateway that takes the word of `peers`.
fn proxied(origin: &Origin, peers: &str, limits: Limits) -> Edge {
    let mut config = config(&[&[origin.address]], &[("/", 0, false)]);
    config.listeners[0].proxy_protocol = vec![peers.parse().unwrap()];
    Edge::start(&config, limits)
}

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 80\r\n";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";

#[test]
fn a_configured_peer_says_whom_it_speaks_for() {
    let origin = Origin::ok();
    let edge = proxied(&origin, "127.0.0.0/8", Limits::default());
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\x13\x88\x00\x50";
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
    for (header, address) in [
        (V1, "192.0.2.7"),
        (&v2[..], "192.0.2.7"),
        (&local[..], "127.0.0.1"),
    ] {
        // In one piece, and byte by byte.
        for piece in [usize::MAX, 1] {
            let mut client = edge.connect();
            for part in [header, GET].concat().chunks(piece.min(4096)) {
                client.send(part);
            }
            assert_eq!(client.response().status, 200);
            let seen = origin.last();
            assert_eq!(seen.field("x-forwarded-for"), Some(address), "{}", seen.head);
            assert!(
                seen.field("forwarded")
                    .unwrap()
                    .starts_with(&format!("for={address};"))
            );
        }
    }
    // What it does wrong then is the client's, and the kernel could not drop it.
    let mut client = edge.connect();
    client.send(&[V1, b"nonsense\r\n\r\n"].concat());
    client.read_all();
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let offender = Offender::behind(ip("192.0.2.7"), ip("127.0.0.1"));
    eventually("reported", || edge.offences.offenders() == [offender]);
    assert!(!offender.is_reached_by_the_kernel());
}

#[test]
fn a_missing_or_broken_header_closes_and_so_does_a_slow_one() {
    let origin = Origin::ok();
    let limits = Limits {
        proxy_header_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let edge = proxied(&origin, "127.0.0.1/32", limits);
    for bytes in [
        GET,
        b"PROXY TCP4 192.0.2.7 198.51.100.1 5000\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let mut client = edge.connect();
        client.send(bytes);
        assert_eq!(client.read_all_lossy(), "");
    }
    eventually("counted", || closed(&edge, Closing::ProxyHeader) == 2);
    let mut client = edge.connect();
    client.send(b"PROXY TCP4 192.0.2");
    assert_eq!(client.read_all_lossy(), "");
    eventually("counted", || closed(&edge, Closing::ProxyHeaderTimeout) == 1);
    assert!(origin.seen().is_empty());
    assert!(edge.offences.kinds().is_empty(), "the balancer is no attacker");
}

#[test]
fn nobody_else_is_believed() {
    let origin = Origin::ok();
    let edge = proxied(&origin, "10.0.0.0/8", Limits::default());
    for header in [V1, b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"] {
        let answer = edge.exchange(&[header, GET].concat());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }
    assert!(origin.seen().is_empty());
    let mut client = edge.connect();
    client.send(GET);
    assert_eq!(client.response().status, 200);
    assert_eq!(origin.last().field("x-forwarded-for"), Some("127.0.0.1"));
}

#[test]
fn limits_by_address_are_about_the_client_behind_the_peer() {
    let origin = Origin::ok();
    let limits = Limits {
        connections_per_peer: 1,
        ..Limits::default()
    };
    let edge = proxied(&origin, "127.0.0.1/32", limits);
    let open = |last: u8| {
        let mut client = edge.connect();
        client.send(format!("PROXY TCP4 192.0.2.{last} 198.51.100.1 5000 80\r\n").as_bytes());
        client.send(GET);
        client
    };
    let (mut one, mut two) = (open(1), open(2));
    assert_eq!((one.response().status, two.response().status), (200, 200));
    assert_eq!(open(1).read_all_lossy(), "", "one each");
    eventually("counted", || closed(&edge, Closing::TooMany) == 1);
    drop(one);
    eventually("room again", || {
        let mut client = open(1);
        client.read_some().starts_with("HTTP/1.1 200")
    });
}

#[test]
fn ipv4_and_ipv6_on_one_listener() {
    let origin = Origin::ok();
    let mut config = config(&[&[origin.address]], &[("/", 0, false)]);
    config.listeners[0].address = "[::]:0".parse().unwrap();
    config.listeners[0].dual_stack = true;
    let edge = Edge::start(&config, Limits::default());
    let port = edge.address.port();
    for (address, seen_as) in [
        (SocketAddr::from(([127, 0, 0, 1], port)), "127.0.0.1"),
        (SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)), "::1"),
    ] {
        let mut client = Client::connect(address);
        assert_eq!(client.get("/").status, 200);
        assert_eq!(origin.last().field("x-forwarded-for"), Some(seen_as));
    }
}

#[test]
fn forwarding_fields_are_continued_for_trusted_proxies_and_dropped_from_others() {
    let lines = "X-Forwarded-For: nonsense, 192.0.2.1\r\nX-Forwarded-For: [2001:db8::1]:5, 192.0.2.2:80\r\n\
                 X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\nX_Forwarded_For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n";
    let with = |trusted: &str, lines: &str| {
        let origin = Origin::ok();
        let mut config = config(&[&[origin.address]], &[("/", 0, false)]);
        config.listeners[0].trusted_proxies = vec![trusted.parse().unwrap()];
        let edge = Edge::start(&config, Limits::default());
        let mut client = edge.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").as_bytes());
        assert_eq!(client.response().status, 200);
        let seen = origin.last();
        let field = |name: &str| seen.field(name).unwrap_or_default().to_owned();
        assert!(!seen.head.contains("6.6.6.6"), "{}", seen.head);
        assert_eq!(
            seen.head
                .to_ascii_lowercase()
                .matches("\nx-forwarded-for:")
                .count(),
            1
        );
        [
            field("x-forwarded-for"),
            field("x-forwarded-proto"),
            field("x-forwarded-host"),
            field("forwarded"),
        ]
    };
    let own = "for=127.0.0.1;proto=http;host=\"a\"";
    assert_eq!(
        with("127.0.0.0/8", lines),
        [
            "192.0.2.1, [2001:db8::1]:5, 192.0.2.2:80, 127.0.0.1",
            "https",
            "shop.example",
            &format!("for=192.0.2.1, for=\"[2001:db8::1]\", for=192.0.2.2, {own}"),
        ]
    );
    assert_eq!(with("10.0.0.0/8", lines), ["127.0.0.1", "http", "a", own]);
    let said = "for=\"[2001:db8::1]\";proto=https";
    assert_eq!(
        with("127.0.0.1/32", &format!("Forwarded: {said}\r\n"))[3],
        format!("{said}, {own}")
    );
    for malformed in ["for=a b", "for=\"a"] {
        assert_eq!(
            with(
                "127.0.0.1/32",
                &format!("Forwarded: {said}\r\nForwarded: {malformed}\r\n")
            )[3],
            own
        );
    }
    let [_, proto, host, _] = with(
        "127.0.0.1/32",
        "X-Forwarded-Proto: gopher\r\nX-Forwarded-Host: a b\r\n",
    );
    assert_eq!([proto.as_str(), host.as_str()], ["http", "a"]);
}
