//! Connecting to an endpoint: TCP, the PROXY header, TLS.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use super::{
    circuit::Permit,
    cluster::Cluster,
    endpoint::Endpoint,
    proxy_header::{self, Client},
    stream::Stream,
    tls::ALPN_HTTP2,
};
use crate::config::UpstreamProtocol;

/// A new connection.
#[derive(Debug)]
pub struct Connection {
    /// To read from and write to.
    pub stream: Stream,
    /// Whether HTTP/2 is to be spoken on it.
    pub http2: bool,
    /// Counts it among the upstream's; to be kept as long as the connection.
    pub permit: Permit,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The upstream has as many as it may.
    #[error("as many connections as the upstream may have")]
    Full,
    /// Took too long.
    #[error("not within {0:?}")]
    Timeout(Duration),
    /// TCP.
    #[error(transparent)]
    Tcp(io::Error),
    /// The handshake of TLS, the certificate included.
    #[error("TLS: {0}")]
    Tls(io::Error),
    /// The server does not speak HTTP/2.
    #[error("the server picked no HTTP/2")]
    NoHttp2,
}

/// Connects to an endpoint of `cluster`, for `client` if it is for one.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(
    cluster: &Cluster,
    endpoint: &Endpoint,
    client: Option<Client>,
) -> Result<Connection, ConnectError> {
    let permit = cluster
        .circuit()
        .connections
        .enter()
        .map_err(|_| ConnectError::Full)?;
    let limit = cluster.config().connect_timeout;
    let (stream, http2) = timeout(limit, open(cluster, endpoint, endpoint.address(), client))
        .await
        .map_err(|_| ConnectError::Timeout(limit))??;
    Ok(Connection {
        stream,
        http2,
        permit,
    })
}

/// Opens a connection to `address`, which is the endpoint's or one beside it, and tells whether HTTP/2 is spoken there.
/// Counts and limits nothing.
pub(super) async fn open(
    cluster: &Cluster,
    endpoint: &Endpoint,
    address: SocketAddr,
    client: Option<Client>,
) -> Result<(Stream, bool), ConnectError> {
    let mut stream = TcpStream::connect(address).await.map_err(ConnectError::Tcp)?;
    // Without it small requests wait for an acknowledgement; if it cannot be set they do.
    let _ = stream.set_nodelay(true);
    if let Some(version) = cluster.config().send_proxy {
        let header = proxy_header::write(version, client);
        stream.write_all(&header).await.map_err(ConnectError::Tcp)?;
    }
    let Some(tls) = cluster.tls() else {
        let http2 = cluster.config().protocol == UpstreamProtocol::Http2;
        return Ok((Stream::Plain(stream), http2));
    };
    let stream = tls
        .connector()
        .connect(tls.server_name(endpoint), stream)
        .await
        .map_err(ConnectError::Tls)?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(ALPN_HTTP2);
    if tls.requires_http2() && !http2 {
        return Err(ConnectError::NoHttp2);
    }
    Ok((Stream::Tls(Box::new(stream)), http2))
}
