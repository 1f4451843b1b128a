//! One bounded GET: the only place where authentication touches the network.
//!
//! Speaks HTTP/1.1, over TLS with the system's or the operator's roots. Bounds: the caller's time limit, a number of
//! bytes, addresses and redirects; a redirect to another server is an error.

use std::{io, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, InvalidDnsNameError, ServerName, pem::PemObject},
};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    schedule,
    url::{RemoteUrl, UrlError},
};

/// Longest document, in bytes.
pub(super) const MAX_DOCUMENT_BYTES: usize = 256 * 1024;
/// Longest response head, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Most redirects followed.
const MAX_REDIRECTS: usize = 3;
/// Longest time for one address: a dead one must leave time for the next within the fetch's own limit.
const CONNECT_LIMIT: Duration = Duration::from_millis(1500);
/// Most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// Why a fetch brought nothing.
#[derive(Debug, Error)]
pub enum FetchError {
    /// Took longer than the limit.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The name has no address.
    #[error("cannot resolve {host}: {error}")]
    Resolve {
        /// Name.
        host: String,
        /// Why.
        error: io::Error,
    },
    /// No address took the connection, or TLS failed.
    #[error("cannot connect to {host}: {error}")]
    Connect {
        /// Name.
        host: String,
        /// Why, of the last address.
        error: io::Error,
    },
    /// Not a name that a certificate could be for.
    #[error("not a server name: {0}")]
    ServerName(#[from] InvalidDnsNameError),
    /// The trusted certificates.
    #[error("certificates: {0}")]
    Roots(String),
    /// HTTP went wrong.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// The answer broke off.
    #[error("reading the answer: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// The answer is too long.
    #[error("the answer is longer than {MAX_DOCUMENT_BYTES} bytes")]
    TooLong,
    /// Something else than 200.
    #[error("status {0}")]
    Status(StatusCode),
    /// A redirect away from the server, or to nowhere, or without end.
    #[error("redirect refused: {0}")]
    Redirect(String),
    /// Compressed although nobody asked for it.
    #[error("content coding {0:?} was not asked for")]
    Coding(String),
    /// An address inside the answer.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The discovery document is unusable.
    #[error("discovery document: {0}")]
    Discovery(&'static str),
    /// The keys are unusable.
    #[error("JWKS: {0}")]
    Jwks(#[from] crate::auth::jwk::JwksError),
}

/// A document, and how long it may be kept.
pub(super) struct Answer {
    pub(super) body: Bytes,
    pub(super) max_age: Option<Duration>,
}

/// Fetches documents of one provider.
pub(super) struct Fetcher {
    tls: TlsConnector,
}

impl Fetcher {
    /// With the certificates of a PEM file, or else the system's.
    pub(super) fn new(ca_file: Option<&Path>) -> Result<Self, FetchError> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = ca_file {
            let problem =
                |error: &dyn std::fmt::Display| FetchError::Roots(format!("{}: {error}", path.display()));
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| problem(&error))? {
                roots
                    .add(certificate.map_err(|error| problem(&error))?)
                    .map_err(|error| problem(&error))?;
            }
            if roots.is_empty() {
                return Err(problem(&"no certificate in it"));
            }
        } else {
            // A machine without certificates can still reach loopback; elsewhere the handshake will say so.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| FetchError::Roots(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    /// The document at a URL, following redirects on the same server.
    pub(super) async fn get(&self, url: &RemoteUrl) -> Result<Answer, FetchError> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            match self.exchange(&url).await? {
                Exchange::Answer(answer) => return Ok(answer),
                Exchange::Redirect(location) => {
                    url = url.redirect(&location).ok_or(FetchError::Redirect(location))?;
                }
            }
        }
        Err(FetchError::Redirect("too many".into()))
    }

    async fn exchange(&self, url: &RemoteUrl) -> Result<Exchange, FetchError> {
        let tcp = connect(url).await?;
        if !url.is_secure {
            return request(url, tcp).await;
        }
        let name = ServerName::try_from(url.host.clone())?;
        let connect_error = |error| FetchError::Connect {
            host: url.host.clone(),
            error,
        };
        request(url, self.tls.connect(name, tcp).await.map_err(connect_error)?).await
    }
}

enum Exchange {
    Answer(Answer),
    Redirect(String),
}

async fn connect(url: &RemoteUrl) -> Result<TcpStream, FetchError> {
    let resolve_error = |error| FetchError::Resolve {
        host: url.host.clone(),
        error,
    };
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let addresses = lookup_host((url.host.as_str(), url.port))
        .await
        .map_err(resolve_error)?;
    for address in addresses.take(MAX_ADDRESSES) {
        match timeout(CONNECT_LIMIT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(FetchError::Connect {
        host: url.host.clone(),
        error: last,
    })
}

async fn request<S>(url: &RemoteUrl, stream: S) -> Result<Exchange, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD_BYTES);
    let (mut sender, connection) = builder.handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    // Ends with this request, also when the caller's time is up.
    let _guard = AbortOnDrop(driver.abort_handle());
    let mut head = Request::new(Empty::new());
    *head.uri_mut() = url
        .target
        .parse()
        .map_err(|_| UrlError::Invalid(url.target.clone()))?;
    let headers = head.headers_mut();
    let host = url
        .authority
        .parse()
        .map_err(|_| UrlError::Invalid(url.authority.clone()))?;
    headers.insert(header::HOST, host);
    headers.insert(
        header::ACCEPT,
        header::HeaderValue::from_static("application/jwk-set+json, application/json"),
    );
    headers.insert(
        header::USER_AGENT,
        header::HeaderValue::from_static(concat!("breakwater/", env!("CARGO_PKG_VERSION"))),
    );
    let response = sender.send_request(head).await?;
    let (head, body) = response.into_parts();
    if head.status.is_redirection() {
        return Ok(Exchange::Redirect(
            text(&head.headers, &header::LOCATION)
                .unwrap_or_default()
                .to_owned(),
        ));
    }
    if head.status != StatusCode::OK {
        return Err(FetchError::Status(head.status));
    }
    if let Some(coding) =
        text(&head.headers, &header::CONTENT_ENCODING).filter(|coding| *coding != "identity")
    {
        return Err(FetchError::Coding(coding.to_owned()));
    }
    let body = match Limited::new(body, MAX_DOCUMENT_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(FetchError::TooLong),
        Err(error) => return Err(FetchError::Body(error)),
    };
    let cache_control = text(&head.headers, &header::CACHE_CONTROL).unwrap_or_default();
    let max_age = schedule::max_age(cache_control, text(&head.headers, &header::AGE));
    Ok(Exchange::Answer(Answer { body, max_age }))
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
