//! TLS to upstreams: whom to trust, what to ask for, what to show.
//!
//! One configuration an upstream for all workers, so that sessions are resumed whichever worker connects.

use std::{
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::Path,
    sync::Arc,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tokio_rustls::TlsConnector;

use crate::config::{EndpointHost, UpstreamProtocol, UpstreamTls};

use super::endpoint::Endpoint;

/// Sessions that are remembered for one upstream; one a name.
const MAX_SESSIONS: usize = 256;

/// Names of the protocols (RFC 7301, RFC 9113 section 3.2).
pub const ALPN_HTTP2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Certificates or keys that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TlsError {
    /// A file.
    #[error("{file}: {reason}")]
    File {
        /// Its path.
        file: String,
        /// Why.
        reason: String,
    },
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error("client certificate: {0}")]
    Identity(rustls::Error),
    /// The system has no trusted certificates.
    #[error("the system trusts no certificate, and no `ca_file` is given")]
    NoRoots,
    /// The name of the server.
    #[error("`{0}` is not a name that a certificate could be for")]
    ServerName(String),
    /// The library.
    #[error(transparent)]
    Library(rustls::Error),
}

/// How TLS is spoken to one upstream.
#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
    server_name: Option<ServerName<'static>>,
    requires_http2: bool,
    /// Of what was in its files.
    digest: u64,
}

/// Tells contents of files apart; what cannot be read is told where it is loaded.
fn digest(config: &UpstreamTls) -> u64 {
    let identity = config.identity.iter();
    let files = identity.flat_map(|identity| [&identity.certificate_file, &identity.key_file]);
    let mut hasher = DefaultHasher::new();
    for file in files.chain(&config.ca_file) {
        std::fs::read(file).ok().hash(&mut hasher);
    }
    hasher.finish()
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// What cannot be read or used.
    pub fn load(config: &UpstreamTls, protocol: UpstreamProtocol) -> Result<Self, TlsError> {
        let digest = digest(config);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Library)?;
        let builder = if config.skip_verification {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        } else {
            builder.with_root_certificates(roots(config.ca_file.as_deref())?)
        };
        let mut client = match &config.identity {
            Some(identity) => {
                let chain = certificates(&identity.certificate_file)?;
                let key = PrivateKeyDer::from_pem_file(&identity.key_file)
                    .map_err(|error| file(&identity.key_file, &error))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(TlsError::Identity)?
            }
            None => builder.with_no_client_auth(),
        };
        client.resumption = Resumption::in_memory_sessions(MAX_SESSIONS);
        client.alpn_protocols = match protocol {
            UpstreamProtocol::Http1 => vec![ALPN_HTTP1.to_vec()],
            UpstreamProtocol::Http2 => vec![ALPN_HTTP2.to_vec()],
            UpstreamProtocol::Auto => vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()],
        };
        let server_name = config
            .server_name
            .as_ref()
            .map(|name| ServerName::try_from(name.clone()).map_err(|_| TlsError::ServerName(name.clone())))
            .transpose()?;
        Ok(Self {
            connector: TlsConnector::from(Arc::new(client)),
            server_name,
            requires_http2: protocol == UpstreamProtocol::Http2,
            digest,
        })
    }

    /// Whether the files have in them what they had when they were read.
    pub fn is_current(&self, config: &UpstreamTls) -> bool {
        self.digest == digest(config)
    }

    /// Makes handshakes.
    pub(super) fn connector(&self) -> &TlsConnector {
        &self.connector
    }

    /// Whether a server that does not pick HTTP/2 is of no use.
    pub(super) fn requires_http2(&self) -> bool {
        self.requires_http2
    }

    /// The name that an endpoint has to prove: the configured one, else its own, else its address.
    pub(super) fn server_name(&self, endpoint: &Endpoint) -> ServerName<'static> {
        if let Some(name) = &self.server_name {
            return name.clone();
        }
        let own = match endpoint.host() {
            EndpointHost::Name { name, .. } | EndpointHost::Service(name) => {
                ServerName::try_from(name.clone()).ok()
            }
            EndpointHost::Address(_) => None,
        };
        own.unwrap_or_else(|| ServerName::from(endpoint.address().ip()))
    }
}

/// The certificates of a file, or the system's.
fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| file(path, &error))?;
        }
        return Ok(roots);
    }
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(TlsError::NoRoots);
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| file(path, &error))?;
    if certificates.is_empty() {
        return Err(file(path, &"there is no certificate in it"));
    }
    Ok(certificates)
}

fn file(path: &Path, reason: &dyn fmt::Display) -> TlsError {
    TlsError::File {
        file: path.display().to_string(),
        reason: reason.to_string(),
    }
}

/// Takes any certificate, for `insecure_accept_any_certificate`. That the peer has its key is still checked.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
