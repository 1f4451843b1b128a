//! TLS to upstreams: whom this proxy trusts, what it asks for and what it shows, against real servers.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    HandshakeKind, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{net::TcpListener, runtime::Builder, sync::oneshot};
use tokio_rustls::TlsAcceptor;

use super::support::{Edge, config};
use crate::{
    config::{ClientIdentity, Config, UpstreamProtocol, UpstreamTls},
    gateway::{Limits, Reason},
    upstream::tls::Tls,
};

/// An authority, and files that it signed.
struct Authority {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("signed");
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("ca.pem"), certificate.pem()).expect("written");
        Self {
            dir,
            issuer: Issuer::new(params, key),
        }
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Certificate and key for `name`, as files.
    fn sign(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let path = |ending| {
            self.dir
                .path()
                .join(format!("{}.{ending}", name.replace(':', "_")))
        };
        fs::write(path("pem"), certificate.pem()).expect("written");
        fs::write(path("key"), key.serialize_pem()).expect("written");
        (path("pem"), path("key"))
    }
}

/// What a server is like.
struct Like<'a> {
    name: &'a str,
    alpn: &'a [&'a [u8]],
    wants_certificate: bool,
}

/// An HTTPS server that tells what it saw.
struct TlsOrigin {
    address: SocketAddr,
    resumed: Arc<AtomicUsize>,
    _stop: oneshot::Sender<()>,
}

impl TlsOrigin {
    fn start(authority: &Authority, like: &Like<'_>) -> Self {
        let (chain, key) = authority.sign(like.name);
        let chain = vec![CertificateDer::from_pem_file(chain).expect("PEM")];
        let key = PrivateKeyDer::from_pem_file(key).expect("PEM");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = if like.wants_certificate {
            let mut roots = RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_file(authority.ca()).expect("PEM"))
                .expect("a root");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        } else {
            builder.with_no_client_auth()
        };
        let mut tls = builder.with_single_cert(chain, key).expect("a certificate");
        tls.alpn_protocols = like.alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel();
        let resumed = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&resumed);
        thread::spawn(move || {
            let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                tokio::spawn(serve(listener, Arc::new(tls), count));
                let _ = stopped.await;
            });
        });
        Self {
            address,
            resumed,
            _stop: stop,
        }
    }
}

async fn serve(listener: std::net::TcpListener, tls: Arc<ServerConfig>, resumed: Arc<AtomicUsize>) {
    let listener = TcpListener::from_std(listener).expect("a socket");
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, resumed) = (Arc::clone(&tls), Arc::clone(&resumed));
        tokio::spawn(async move {
            let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await else {
                return;
            };
            let session = stream.get_ref().1;
            if session.handshake_kind() == Some(HandshakeKind::Resumed) {
                resumed.fetch_add(1, Relaxed);
            }
            let seen = format!(
                "sni={} client={} ",
                session.server_name().unwrap_or("-"),
                session.peer_certificates().map_or(0, <[_]>::len)
            );
            let http2 = session.alpn_protocol() == Some(b"h2");
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let text = format!("{seen}{:?} {}", request.version(), request.uri());
                async move { Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::from(text)))) }
            });
            let io = TokioIo::new(stream);
            if http2 {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(io, service).await;
            } else {
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(io, service)
                    .await;
            }
        });
    }
}

const PLAIN: Like<'_> = Like {
    name: "app.test",
    alpn: &[b"http/1.1"],
    wants_certificate: false,
};

fn to(origin: &TlsOrigin, tls: UpstreamTls) -> Config {
    let mut config = config(&[&[origin.address]], &[("/", 0, false)]);
    config.upstreams[0].tls = Some(tls);
    config
}

fn trusting(authority: &Authority, name: Option<&str>) -> UpstreamTls {
    UpstreamTls {
        ca_file: Some(authority.ca()),
        server_name: name.map(str::to_owned),
        ..UpstreamTls::default()
    }
}

fn body(config: &Config) -> (u16, String) {
    let edge = Edge::start(config, Limits::default());
    let response = edge.connect().get("/x");
    (response.status, response.body)
}

#[test]
fn certificates_are_verified_by_the_name_that_is_asked_for() {
    let authority = Authority::new();
    let origin = TlsOrigin::start(&authority, &PLAIN);
    let (status, text) = body(&to(&origin, trusting(&authority, Some("app.test"))));
    assert_eq!(
        (status, text.as_str()),
        (200, "sni=app.test client=0 HTTP/1.1 /x")
    );

    // Its address is not in the certificate; another name is not; another authority signed nothing here.
    let other = Authority::new();
    for tls in [
        trusting(&authority, None),
        trusting(&authority, Some("other.test")),
        trusting(&other, Some("app.test")),
    ] {
        let edge = Edge::start(&to(&origin, tls.clone()), Limits::default());
        let response = edge.connect().get("/x");
        assert_eq!(response.status, 502, "{tls:?}");
        assert!(response.body.contains("upstream_tls"), "{}", response.body);
        assert_eq!(edge.counters().refused(Reason::UpstreamTls), 1);
    }

    let anybody = UpstreamTls {
        skip_verification: true,
        ..UpstreamTls::default()
    };
    assert_eq!(body(&to(&origin, anybody)).0, 200);
}

#[test]
fn an_address_can_be_in_the_certificate_too() {
    let authority = Authority::new();
    let like = Like {
        name: "127.0.0.1",
        ..PLAIN
    };
    let origin = TlsOrigin::start(&authority, &like);
    let (status, text) = body(&to(&origin, trusting(&authority, None)));
    assert_eq!((status, text.as_str()), (200, "sni=- client=0 HTTP/1.1 /x"));
}

#[test]
fn a_certificate_is_shown_where_one_is_asked_for() {
    let authority = Authority::new();
    let like = Like {
        wants_certificate: true,
        ..PLAIN
    };
    let origin = TlsOrigin::start(&authority, &like);
    let without = trusting(&authority, Some("app.test"));
    let (status, text) = body(&to(&origin, without.clone()));
    // With TLS 1.3 the server's refusal comes after the handshake has ended here.
    assert_eq!(status, 502, "{text}");
    let (certificate_file, key_file) = authority.sign("edge.test");
    let with = UpstreamTls {
        identity: Some(ClientIdentity {
            certificate_file,
            key_file,
        }),
        ..without
    };
    let (status, text) = body(&to(&origin, with));
    assert_eq!(
        (status, text.as_str()),
        (200, "sni=app.test client=1 HTTP/1.1 /x")
    );
}

#[test]
fn the_protocol_is_what_the_server_picks() {
    let authority = Authority::new();
    let cases: [(&[&[u8]], UpstreamProtocol, u16, &str); 5] = [
        (&[b"h2", b"http/1.1"], UpstreamProtocol::Auto, 200, "HTTP/2.0"),
        (&[b"http/1.1"], UpstreamProtocol::Auto, 200, "HTTP/1.1"),
        (&[], UpstreamProtocol::Auto, 200, "HTTP/1.1"),
        (&[b"h2"], UpstreamProtocol::Http2, 200, "HTTP/2.0"),
        (&[], UpstreamProtocol::Http2, 502, "upstream_tls"),
    ];
    for (alpn, protocol, status, expected) in cases {
        let origin = TlsOrigin::start(&authority, &Like { alpn, ..PLAIN });
        let mut config = to(&origin, trusting(&authority, Some("app.test")));
        config.upstreams[0].protocol = protocol;
        let edge = Edge::start(&config, Limits::default());
        let mut client = edge.connect();
        for _ in 0..2 {
            let response = client.get("/x");
            assert_eq!(response.status, status, "{protocol:?} {alpn:?}");
            assert!(
                response.body.contains(expected),
                "{protocol:?} {alpn:?}: {}",
                response.body
            );
        }
        if status == 200 {
            assert_eq!(edge.counters().upstream_connects, 1, "{protocol:?} {alpn:?}");
        }
    }
}

#[test]
fn sessions_are_resumed() {
    let authority = Authority::new();
    let origin = TlsOrigin::start(&authority, &PLAIN);
    let mut config = to(&origin, trusting(&authority, Some("app.test")));
    config.upstreams[0].pool.idle = 0;
    let edge = Edge::start(&config, Limits::default());
    let mut client = edge.connect();
    for _ in 0..5 {
        assert_eq!(client.get("/").status, 200);
    }
    assert!(
        origin.resumed.load(Relaxed) >= 3,
        "{}",
        origin.resumed.load(Relaxed)
    );
    assert_eq!(edge.counters().upstream_connects, 5);
}

#[test]
fn certificates_that_cannot_be_used_stop_the_start() {
    let authority = Authority::new();
    let (certificate_file, _) = authority.sign("one.test");
    let (_, key_file) = authority.sign("two.test");
    let tls = UpstreamTls {
        identity: Some(ClientIdentity {
            certificate_file,
            key_file,
        }),
        ..trusting(&authority, Some("app.test"))
    };
    let error = Tls::load(&tls, UpstreamProtocol::Http1).expect_err("they do not belong together");
    assert!(error.to_string().starts_with("client certificate"), "{error}");
    let tls = UpstreamTls {
        ca_file: Some(authority.dir.path().join("app.key")),
        ..UpstreamTls::default()
    };
    fs::write(authority.dir.path().join("app.key"), "nothing").expect("written");
    let error = Tls::load(&tls, UpstreamProtocol::Http1).expect_err("no certificate");
    assert!(error.to_string().contains("no certificate in it"), "{error}");
}
